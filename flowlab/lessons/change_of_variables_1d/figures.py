"""Change of variables on the line: bars of equal probability on rubber, and samples that judge a formula."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.change_of_variables_1d.toys import BASES, MAPS, Base, Map
from flowlab.plotting.style import COLORS, tidy

A, B = (-2.5, 2.5), (-1.0, 3.0)  # how far a and b go; the frame of each picture follows from them
BARS = 10
JUDGE = "#444444"


class PushForward(Picture):
    """Bars of equal probability before and after x = r(z), the rubber between, a claimed density, and samples as judge.

    The three panels share one scale, and the frame stands still while a and b move: what looks wider is wider.
    """

    def __init__(self, samples: int = 20_000, bins: int = 50) -> None:
        super().__init__(9.0, 5.0)
        self.bins = bins
        self.uniforms = np.random.default_rng(0).random(samples)
        panels = self.figure.subplots(3, 1, height_ratios=(1, 0.7, 1.4))
        self.before, self.rubber, self.after = panels
        tidy(self.before, "", "z", "before: $p_Z(z)$")
        tidy(self.after, "", "x", "after: $p(x)$")
        self.rubber.set_axis_off()
        self.rubber.set_ylim(0, 1)
        tints = [to_rgba(COLORS["latent"], 0.55 if i % 2 else 0.3) for i in range(BARS)]
        followed = {"facecolors": COLORS["accent"], "edgecolors": "black", "linewidths": 0.8}
        self.shapes = [axes.add_collection(PolyCollection([], facecolors=tints), autolim=False) for axes in panels]
        self.followed = [axes.add_collection(PolyCollection([], **followed), autolim=False) for axes in panels]
        self.base_line = self.before.plot([], [], color=COLORS["latent"], lw=2)[0]
        self.judge = self.after.stairs(np.zeros(bins), np.linspace(0, 1, bins + 1), color=JUDGE, lw=1.2)
        self.claim = self.after.plot([], [], color=COLORS["model"], lw=2.5)[0]
        write = {"fontsize": 9, "va": "top"}
        self.remark = self.after.text(0.01, 0.97, "", transform=self.after.transAxes, **write)
        self.note = self.before.text(0.01, 0.97, "", transform=self.before.transAxes, **write)
        # Colored words instead of a legend, and few ticks: choosing another base or map draws all of this again.
        for at, color, words in (
            (0.0, COLORS["latent"], "■ ten bars of equal probability"),
            (0.29, COLORS["accent"], "■ the bar you follow"),
            (0.49, JUDGE, "— the judge: histogram of pushed samples"),
            (0.85, COLORS["model"], "━ the claimed p(x)"),
        ):
            self.before.text(at, 1.08, words, color=color, fontsize=9, transform=self.before.transAxes)
        for axes in (self.before, self.after):
            axes.locator_params("x", nbins=6)
            axes.locator_params("y", nbins=3)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_label_coords(-0.055, 0.5)  # keeps its place while the frame changes
        self.moves(*self.shapes, *self.followed, self.base_line, self.judge, self.claim, self.remark, self.note)
        self._framed = None

    def update(
        self, base: str, map: str, a: float, b: float, jacobian: bool = True, bar: int = 8, **_: Any
    ) -> dict[str, float | str]:
        scene = _scene(base, map)
        if self._framed != (base, map):
            self._frame(scene)
            self._framed = (base, map)
        edges = a * scene.m_edges + b
        widths = self._draw_bars(scene, edges, bar - 1)
        bins, share = self._draw_judge(scene, a, b, edges)
        if abs(a) < 1e-9:
            self.claim.set_data([], [])
            self.remark.set_text(f"a = 0: every z lands on x = {b:.2f}. There is no density, and no way back.")
            return {"area under the claim": "there is none", f"bar {bar}, width × height": widths}

        x, slope = a * scene.m + b, np.abs(a * scene.slope)
        truth = scene.p / slope
        claim = truth if jacobian else scene.p
        self.claim.set_data(np.r_[x[0], x, x[-1]], np.r_[0, claim, 0])
        inside = (x > scene.window[0]) & (x < scene.window[1])
        too_high = (claim[inside] > self.after.get_ylim()[1]).any()
        self.remark.set_text("▲ the claim is higher than this frame" if too_high else "")
        area = np.r_[0, np.cumsum((claim[1:] + claim[:-1]) / 2 * np.abs(np.diff(x)))]
        claimed_share = np.diff(np.interp(bins, x, area) if a > 0 else -np.interp(bins, x[::-1], area[::-1]))
        return {
            "area under the claim": float(area[-1]),
            "misplaced, says the judge": float(np.abs(claimed_share - share).sum() / 2),
            "nats to the truth": float(np.average(np.log(truth / claim), weights=scene.weight)),
            f"bar {bar}, width × height": widths,
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        values = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
        return f"Ten bars of equal probability before and after the map, a histogram and a claimed density: {values}."

    def _draw_bars(self, scene: _Scene, edges: np.ndarray, followed: int) -> str:
        """The bars before and after, and the rubber between; returns the followed bar's width and height in words."""
        z_width, x_width = np.diff(scene.z_edges), np.maximum(np.abs(np.diff(edges)), 1e-9)
        z_height, x_height = scene.mass / z_width, scene.mass / x_width
        # Where the map folds, two bars land on the same place: the second stands on the first.
        floor = np.where(np.arange(BARS) >= BARS // 2, x_height[::-1], 0) if scene.overlaps else np.zeros(BARS)
        ends = np.stack((scene.z_edges[:-1], scene.z_edges[1:], edges[1:], edges[:-1]), axis=1)
        strands = np.stack((ends, np.broadcast_to((1.0, 1.0, 0.0, 0.0), ends.shape)), axis=-1)
        quads = (_boxes(scene.z_edges, np.zeros(BARS), z_height), strands, _boxes(edges, floor, floor + x_height))
        for shapes, one, corners in zip(self.shapes, self.followed, quads, strict=True):
            shapes.set_verts(corners)
            one.set_verts(corners[followed : followed + 1])
        before, after = (w[followed] for w in (z_width, x_width))
        height = "∞" if after < 1e-6 else f"{x_height[followed]:.2f}"
        return f"{before:.2f} × {z_height[followed]:.2f} → {after:.2f} × {height}"

    def _draw_judge(self, scene: _Scene, a: float, b: float, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The histogram of the pushed samples; returns its bins and the share of all samples in each."""
        low, high = scene.window
        left, right = max(edges.min(), low), min(edges.max(), high)
        bins = np.linspace(left, right if right > left else left + 0.01, self.bins + 1)
        samples = a * self._m + b
        share = np.histogram(samples, self.bins, range=(bins[0], bins[-1]))[0] / len(samples)
        self.judge.set_data(share / (bins[1] - bins[0]), bins)
        return bins, share

    def _frame(self, scene: _Scene) -> None:
        """Everything that changes only with the base or the map."""
        self._m = scene.map.value(scene.base.quantile(self.uniforms), scene.base)
        self.base_line.set_data(scene.outline)
        self.note.set_text("√z takes z ≥ 0 only: this is the half above 0, scaled to area 1" if scene.halved else "")
        for axes in (self.before, self.rubber, self.after):
            axes.set_xlim(scene.window)
        self.before.set_ylim(0, scene.top)
        self.after.set_ylim(0, 1.4 * scene.top)  # the lower panel is as much taller, so that areas compare
        self.redraw_all()


class _Scene(NamedTuple):
    """What a base and a map fix, whatever a and b are."""

    base: Base
    map: Map
    halved: bool  # the base is cut at 0, because the map takes no negative z
    overlaps: bool  # the map folds, and the base has bars on both sides of the fold
    z_edges: np.ndarray  # (BARS + 1,), the ends of the bars
    m_edges: np.ndarray
    mass: np.ndarray  # (BARS,), a tenth each, less what is cut from a tail
    m: np.ndarray  # (n,), m(z) at the points where the claim is drawn
    p: np.ndarray  # (n,), p_Z summed over all z that m takes to the same place
    slope: np.ndarray  # (n,), m′(z)
    weight: np.ndarray  # (n,), the probability around each point
    outline: tuple[np.ndarray, np.ndarray]  # z and p_Z(z), to draw
    window: tuple[float, float]
    top: float


@lru_cache
def _scene(base_name: str, map_name: str) -> _Scene:
    base, m = BASES[base_name], MAPS[map_name]
    halved = bool(m.positive_only and base.distribution(0.0) > 0)
    if halved:
        base = _above_zero(base)
    # An endless tail is cut at one in ten thousand, so that the outermost bars end somewhere.
    share = np.linspace(0, 1, BARS + 1)
    share = np.where(np.isfinite(base.quantile(share)), share, np.clip(share, 1e-4, 1 - 1e-4))
    z_edges = base.quantile(share)
    m_edges, mass = m.value(z_edges, base), np.diff(share)
    low, high = z_edges[0], z_edges[-1]
    z = np.linspace(low, high, 500)
    if m.folds or low == 0:  # closer together near 0, where √z rises and z² folds
        z = high * np.linspace(1e-3, 1, 500) ** 2
    p = base.density(z) + base.density(-z) if m.folds else base.density(z)
    drawn = np.linspace(low, high, 300)
    height = base.density(drawn)
    usual = float(np.sort(mass / np.abs(np.diff(m_edges)))[-3])  # the height of the high bars at a = 1
    reach = float(np.abs(m.value(base.quantile(np.array([0.02, 0.98])), base)).max())
    left = min(base.quantile(0.005), B[0] - A[1] * reach)
    right = max(base.quantile(0.995), B[1] + A[1] * reach)
    return _Scene(
        base=base,
        map=m,
        halved=halved,
        overlaps=bool(m.folds and low < 0),
        z_edges=z_edges,
        m_edges=m_edges,
        mass=mass,
        m=m.value(z, base),
        p=p,
        slope=m.slope(z, base),
        weight=p * np.gradient(z),
        outline=(np.r_[low, drawn, high], np.r_[0, height, 0]),
        window=(max(left, -10.0), min(right, 12.0)),
        top=max(1.15 * float(height.max()), 0.8 * usual),
    )


def _above_zero(base: Base) -> Base:
    """The part of a base above 0, scaled to area 1."""
    below = float(base.distribution(0.0))
    return Base(
        lambda z: np.where(z >= 0, base.density(z) / (1 - below), 0.0),
        lambda z: np.maximum(base.distribution(z) - below, 0) / (1 - below),
        lambda u: base.quantile(below + u * (1 - below)),
    )


def _boxes(edges: np.ndarray, floor: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Rectangles between neighboring edges: ``(BARS, 4, 2)``."""
    left, right = edges[:-1], edges[1:]
    return np.stack(
        (np.stack((left, right, right, left), axis=1), np.stack((floor, floor, height, height), axis=1)), axis=-1
    )


def rubber(base: str, map: str, a: float = 1.0, b: float = 0.0, *, jacobian: bool = True, bar: int = 8) -> Figure:
    """One setting of the explorer as a figure that stands still."""
    picture = PushForward()
    picture.update(base, map, a, b, jacobian, bar)
    return picture.figure


def judged(samples: Any, claims: dict[str, tuple[Any, Any]], *, marks: dict[str, float] | None = None) -> Figure:
    """A histogram of samples as judge, and claimed densities (x, p(x)) as lines on it; marks are places on x."""
    figure = Figure(figsize=(6.0, 2.8), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), "", "x", "p(x)")
    axes.hist(
        np.asarray(samples).ravel(), 80, density=True, histtype="step", color=JUDGE, label="histogram of pushed samples"
    )
    for (name, (x, p)), color, dash in zip(claims.items(), ("model", "data", "accent"), ("-", "--", ":"), strict=False):
        axes.plot(np.asarray(x).ravel(), np.asarray(p).ravel(), dash, color=COLORS[color], lw=2, label=name)
    for (name, x), marker in zip((marks or {}).items(), "ovs", strict=False):
        axes.plot(x, 0, marker, ms=9, color=COLORS["latent"], mec="black", clip_on=False, zorder=5, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return figure
