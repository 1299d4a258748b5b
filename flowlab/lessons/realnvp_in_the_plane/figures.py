"""A trained flow in slow motion, step by step and map by map; and figures of what it has become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Generator, Tensor

from flowlab import pretrained
from flowlab.bijections import ActNorm, Chain, Inverse, partway
from flowlab.densities import Flow
from flowlab.lessons.base.panels import shade
from flowlab.lessons.base.picture import Picture
from flowlab.plotting.plane import grid_lines, log_density, plane
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, COMPONENT_MARKERS, DENSITY, tidy

HELD_OUT, SHOWN = 10_000, 700
EDGE = 3.6  # half the width of the frame, in the units of standardized data
GAUGE = (0.03, 6.0)  # nats
TRAJECTORIES = {
    "pinwheel, 8 affine couplings": "pinwheel_affine",
    "pinwheel, 2 spline couplings": "pinwheel_spline",
    "two circles, 2 spline couplings": "two_circles_spline",
    "two moons, 8 affine couplings": "two_moons_affine",
}


class Film(NamedTuple):
    """A flow at the steps of its training, and held-out points at each of its layers.

    ``layers`` counts couplings: at layer 0 the data are standardized and no more. ``points`` is ``(S, L + 1, N, 2)``;
    ``log_dets``, the volume changes so far, and ``log_p``, the truth, are ``(S, L + 1, N)`` and ``(N,)``; ``nats`` is
    ``(S, L + 1)``: how far from the truth the flow would be if it ended there.
    """

    flows: list[Flow]
    steps: list[int]
    start: int
    labels: np.ndarray
    points: Tensor
    log_dets: Tensor
    log_p: Tensor
    nats: np.ndarray

    @property
    def layers(self) -> int:
        """How many couplings there are."""
        return self.points.shape[1] - 1

    def on_the_way(self, snapshot: int, layer: float) -> tuple[Tensor, float, Flow]:
        """Points after so many couplings, the last of them in part; nats if the flow ended there; the rest of it."""
        done, share = int(layer), layer % 1
        whole = self.flows[snapshot]
        h, rest = self.points[snapshot, done], list(whole.bijection[self.start + done :])
        if not share or not hasattr(rest[0], "law"):  # a map without a law has no way of its own
            return h, float(self.nats[snapshot, done]), Flow(Chain(rest), whole.base).eval()
        part = partway(rest[0], share)
        h, more = part(h)
        gap = self.log_p - whole.base.log_prob(h) - self.log_dets[snapshot, done] - more
        return h, float(gap.mean()), Flow(Chain([Inverse(part), *rest]), whole.base).eval()


@torch.no_grad()
def film(flows: Mapping[int, Flow], density: Any) -> Film:
    """Send held-out points of the exact ``density`` through the flow as it was at each of its steps."""
    generator = Generator().manual_seed(2)
    if hasattr(density, "labelled"):
        x, labels = density.labelled(HELD_OUT, generator)
    else:
        x, labels = density.sample(HELD_OUT, generator), torch.zeros(HELD_OUT, dtype=torch.long)
    log_p = density.log_prob(x)
    start = int(isinstance(next(iter(flows.values())).bijection[0], ActNorm))
    points, log_dets, nats = [], [], []
    for flow in flows.values():
        h, log_det = flow.bijection[:start](x)
        at_layer, so_far = [h], [log_det]
        for bijection in flow.bijection[start:]:
            h, more = bijection(h)
            log_det = log_det + more
            at_layer.append(h)
            so_far.append(log_det)
        points.append(torch.stack(at_layer))
        log_dets.append(torch.stack(so_far))
        gaps = (log_p - flow.base.log_prob(h) - log_det for h, log_det in zip(at_layer, so_far, strict=True))
        nats.append([float(gap.mean()) for gap in gaps])
    at = (torch.stack(points), torch.stack(log_dets), log_p, np.array(nats))
    return Film(list(flows.values()), list(flows), start, labels.numpy(), *at)


class LayersAndTraining(Picture):
    """Left, held-out data after some couplings; middle, the flow's own density there; right, the gauge in nats.

    The density after ℓ couplings is that of the rest of the flow, so it runs from p(x) to the base, and data and
    density agree at every layer or at none: a bijection moves both alike, and does not change KL(p‖q).
    """

    def __init__(self, flows: Mapping[str, tuple[Mapping[int, Flow], Any]] | None = None, size: int = 80) -> None:
        super().__init__(10.4, 4.0)
        if flows is None:
            flows = {
                label: (pretrained.trajectory(name), pretrained.density(name)) for label, name in TRAJECTORIES.items()
            }
        self.size = size
        self.films = {label: film(*pair) for label, pair in flows.items()}
        self.seen: dict[tuple[str, int, float], tuple[np.ndarray, np.ndarray, np.ndarray, float]] = {}
        self.shown: str | None = None

        panels = self.figure.subplot_mosaic(
            [["data", "model", "steps"], ["data", "model", "layers"]], width_ratios=(1, 1, 0.8)
        )
        self.data, self.model, self.by_step, self.by_layer = (panels[k] for k in ("data", "model", "steps", "layers"))
        for axes in (self.data, self.model):
            axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
        tidy(self.data, "held-out data, and the base it should become", "first coordinate", "second coordinate")
        tidy(self.model, "the density the flow gives there", "first coordinate")
        tidy(self.by_step, "nats to the truth", "training step")
        tidy(self.by_layer, "nats, if the flow ended here", "couplings applied")
        angle = np.linspace(0, 2 * np.pi, 100)
        for radius in (1, 2, 3):
            self.data.plot(radius * np.cos(angle), radius * np.sin(angle), color=COLORS["latent"], lw=1)
        self.clouds = [
            self.data.plot([], [], marker, ms=3, color=color, alpha=0.7, mew=0)[0]
            for color, marker in zip(COMPONENT_COLORS, COMPONENT_MARKERS, strict=True)
        ]
        frame = (-EDGE, EDGE, -EDGE, EDGE)
        shading = {"cmap": DENSITY, "vmin": 0, "interpolation": "none"}
        self.image = self.model.imshow(np.zeros((size, size)), origin="lower", extent=frame, **shading)
        self.lines = self.model.add_collection(LineCollection([], colors=COLORS["latent"], lw=0.5, alpha=0.7))
        for axes in (self.by_step, self.by_layer):
            axes.set(yscale="log", ylim=GAUGE)
            axes.set_yticks((0.1, 0.3, 1, 3), ("0.1", "0.3", "1", "3"))
            axes.grid(axis="y", color="#EEEEEE")
        self.step_curve = self.by_step.plot([], [], ".-", color=COLORS["model"], lw=1.2)[0]
        self.layer_curve = self.by_layer.plot([], [], ".-", color=COLORS["model"], lw=1.2)[0]
        mark = {"ms": 9, "color": COLORS["accent"], "mec": "black"}
        self.step_mark = self.by_step.plot([], [], "o", **mark)[0]
        self.layer_mark = self.by_layer.plot([], [], "o", **mark)[0]
        self.moves(
            *self.clouds, self.image, self.lines, self.step_curve, self.layer_curve, self.step_mark, self.layer_mark
        )

    def place_of_prediction(self, value: float) -> tuple[Axes, tuple[float, float], tuple[float, float]]:
        """Nats to the truth, across the curve of the training."""
        nats = min(max(value, GAUGE[0]), GAUGE[1])
        return self.by_step, self.by_step.get_xlim(), (nats, nats)

    def update(self, flow: str, snapshot: int, layer: float) -> dict[str, float | str]:
        reel = self.films[flow]
        snapshot, layer = min(snapshot, len(reel.steps) - 1), min(layer, reel.layers)
        if flow != self.shown:
            self._frame(reel)
            self.shown = flow
        h, p, lines, nats = self._look(flow, snapshot, layer)
        for k, cloud in enumerate(self.clouds):
            cloud.set_data(*h[reel.labels[:SHOWN] == k].T)
        self.image.set_data(p)
        self.image.set_clim(0, shade(p))
        self.lines.set_segments(lines)
        self.step_curve.set_data(range(len(reel.steps)), np.clip(reel.nats[:, -1], *GAUGE))
        self.layer_curve.set_data(range(reel.layers + 1), np.clip(reel.nats[snapshot], *GAUGE))
        self.step_mark.set_data([snapshot], np.clip(reel.nats[snapshot, -1:], *GAUGE))
        self.layer_mark.set_data([layer], np.clip([nats], *GAUGE))
        return {
            "training step": str(reel.steps[snapshot]),
            "couplings applied": f"{layer:g} of {reel.layers}",
            "nats to the truth": float(reel.nats[snapshot, -1]),
            "nats, if the flow ended here": nats,
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"After {numbers['couplings applied']} couplings of the flow of training step {numbers['training step']}: "
            f"held-out points, the density the flow gives there, and a gauge that stands at "
            f"{numbers['nats to the truth']:.2f} nats to the truth."
        )

    def _frame(self, reel: Film) -> None:
        """What stands still for one flow: the ticks of the two gauges."""
        for axes, ticks in ((self.by_step, reel.steps), (self.by_layer, range(reel.layers + 1))):
            axes.set_xlim(-0.4, len(ticks) - 0.6)
            axes.set_xticks(range(len(ticks)), ticks, rotation=45 if axes is self.by_step else 0, fontsize=7)
        self.redraw_all()

    @torch.no_grad()
    def _look(self, flow: str, snapshot: int, layer: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Points, the density of the rest of the flow on a grid, a latent grid pulled back through it, and nats."""
        key = (flow, snapshot, layer)
        if key not in self.seen:
            h, nats, rest = self.films[flow].on_the_way(snapshot, layer)
            lines = rest.bijection.inverse(grid_lines(3.0, 13, 40))[0]
            p = log_density(rest, plane(EDGE, self.size)).exp()
            self.seen[key] = (h[:SHOWN].numpy(), p.numpy(), lines.numpy(), nats)
        return self.seen[key]


@torch.no_grad()
def latent(flow: Flow, x: Tensor, labels: Tensor) -> Figure:
    """Where held-out points land in latent space, by label, and each coordinate's histogram on the normal density."""
    figure = Figure(figsize=(8.4, 2.9), dpi=80, layout="constrained")
    plan, first, second = figure.subplots(1, 3)
    z = flow.bijection(x)[0]
    angle = np.linspace(0, 2 * np.pi, 100)
    for radius in (1, 2, 3):
        plan.plot(radius * np.cos(angle), radius * np.sin(angle), color=COLORS["latent"], lw=1)
    for k, (color, marker) in enumerate(zip(COMPONENT_COLORS, COMPONENT_MARKERS, strict=True)):
        plan.plot(*z[labels == k].T[:, :300], marker, color=color, ms=3, alpha=0.7, mew=0)
    plan.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
    tidy(plan, "z = f(x), by label", "z₁", "z₂")
    t = np.linspace(-4, 4, 200)
    for axes, column, name in ((first, z[:, 0], "z₁"), (second, z[:, 1], "z₂")):
        axes.hist(column.numpy(), 50, range=(-4, 4), density=True, color=COLORS["data"], alpha=0.4, label="data")
        axes.plot(t, np.exp(-t * t / 2) / np.sqrt(2 * np.pi), color=COLORS["latent"], lw=2, label="N(0, 1)")
        tidy(axes, f"histogram of {name}", name, "density")
    second.legend(frameon=False, fontsize=8)
    return figure


@torch.no_grad()
def stretch(flow: Flow, x: Tensor, *, extent: float, size: int = 140) -> Figure:
    """log |det ∂f/∂x| over the plane, with data on it: red where f spreads the plane out, blue where it packs it."""
    figure = Figure(figsize=(4.6, 3.8), dpi=80, layout="constrained")
    axes = figure.subplots()
    log_det = flow.bijection(plane(extent, size).reshape(-1, 2))[1].reshape(size, size).numpy()
    top = float(np.quantile(np.abs(log_det), 0.98))
    image = axes.imshow(
        log_det,
        origin="lower",
        extent=(-extent, extent) * 2,
        cmap="RdBu_r",
        vmin=-top,
        vmax=top,
        interpolation="bilinear",
    )
    axes.plot(*x[:600].T, ".", color="black", ms=2, alpha=0.5)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent))
    figure.colorbar(image, ax=axes, label="log |det ∂f/∂x|, nats", shrink=0.9)
    return tidy(axes, "where the flow stretches (x → z)", "x₁", "x₂").figure


def spline(x: Tensor, z: Tensor, log_slope: Tensor, knots: Sequence[Tensor]) -> Figure:
    """A spline z(x) with its knots, and log ∂z/∂x below the same x: numbers ``(n,)``, and knots ``(K + 1,)`` each."""
    figure = Figure(figsize=(8.4, 3.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(x, x, "--", color=COLORS["truth"], lw=1.5, label="the identity")
    left.plot(x, z, color=COLORS["model"], lw=2.5, label="the spline")
    left.plot(*knots, "o", color=COLORS["accent"], ms=7, label="knots")
    left.legend(frameon=False)
    right.plot(x, log_slope, color=COLORS["model"], lw=2.5)
    right.axhline(0, ls="--", color=COLORS["truth"], lw=1.5)
    tidy(left, "a rising curve through knots", "x", "z")
    return tidy(right, "its log-slope", "x", "log ∂z/∂x, nats").figure
