"""What stands between couplings: shuffle, reverse, rotate; the best axes for one coupling; ActNorm's start."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torch import Generator, Tensor

from flowlab.densities import Flow, evaluating
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.from_realnvp_to_glow.toys import (
    EXTENTS,
    MIXINGS,
    PLANE,
    Bananas,
    OneCoupling,
    Turned,
    axes_at,
    learned_angle,
    one_coupling,
)
from flowlab.plotting.plane import log_density, plane
from flowlab.plotting.style import COLORS, DENSITY, tidy

STYLES = {  # marker, line and color of each mixing
    "reverse": ("s", ":", COLORS["muted"]),
    "shuffle": ("^", "--", COLORS["accent"]),
    "rotate": ("o", "-", COLORS["model"]),
}


class Fitted(NamedTuple):
    """What is shown of a trained flow at one moment."""

    step: int
    angle: float
    gauge: float
    W: np.ndarray
    density: np.ndarray


class TurnTheAxes(Picture):
    """Left, data, the axes and the best coupling along them; middle, a trained flow with W's axes; right, both gauges.

    The line on the right is the least KL(p‖q) of one affine coupling for each angle of the axes.
    """

    SIZE, HELD_OUT = 90, 2000

    def __init__(self) -> None:
        super().__init__(10.8, 3.9)
        self.yours, self.trained, self.landscape = self.figure.subplots(1, 3)
        self.parts = {}
        titles = "yours: the best coupling\nalong these axes", "trained: W turned too"
        for axes, title in zip((self.yours, self.trained), titles, strict=True):
            tidy(axes, title, "x₁", "x₂")
            axes.set_aspect("equal")
            image = axes.imshow(np.zeros((2, 2)), origin="lower", cmap=DENSITY, vmin=0, vmax=1, interpolation="nearest")
            dots = axes.plot([], [], "o", ms=2.2, mew=0, color=COLORS["data"], alpha=0.7)[0]
            passes = axes.plot([], [], "-", color=COLORS["latent"], lw=2.5, marker="o", markevery=[1], ms=6)[0]
            moves = axes.plot([], [], "--", color=COLORS["truth"], lw=1.5, marker="^", markevery=[1], ms=6)[0]
            self.parts[axes] = (image, dots, passes, moves)
            self.moves(image, dots, passes, moves)
        self.middle = self.yours.plot([], [], color=COLORS["latent"], lw=1.2)[0]
        self.hint = self.trained.text(0.5, 0.93, "press Train", ha="center", fontsize=11, color=COLORS["muted"])
        self.hint.set_transform(self.trained.transAxes)
        self.moves(self.middle, self.hint)
        tidy(self.landscape, "nats to the truth, KL(p‖q)", "angle of the axis that passes, degrees", "nats")
        self.landscape.set(xlim=(-4, 184), ylim=(-0.12, 2.1), xticks=range(0, 181, 45))
        self.landscape.axhline(0, color=COLORS["truth"], ls="--", lw=1)
        self.curve = self.landscape.plot([], [], color=COLORS["latent"], lw=1.8)[0]
        self.here = self.landscape.plot([], [], "o", ms=9, color=COLORS["latent"])[0]
        self.path = self.landscape.plot([], [], ".", ms=4, color=COLORS["model"])[0]
        self.now = self.landscape.plot([], [], "^", ms=9, color=COLORS["model"])[0]
        self.moves(self.curve, self.here, self.path, self.now)
        self.snapshots: list[Fitted] = []
        self.trained_on: tuple[str, float] | None = None
        self.framed: str | None = None

    def begin(self, data: str, turn: float) -> Turned:
        """Forget an earlier training, and give the density for the next one."""
        self.snapshots, self.trained_on = [], (data, turn)
        density = Turned(PLANE[data], turn)
        self.held_out = density.sample(self.HELD_OUT, Generator().manual_seed(1))
        self.log_p = density.log_prob(self.held_out)
        return density

    def add(self, step: int, flow: Flow) -> None:
        """Keep what the flow looks like after this step of its training."""
        with evaluating(flow):
            gauge = float((self.log_p - flow.log_prob(self.held_out)).mean())
        shade = log_density(flow, plane(EXTENTS[self.trained_on[0]], self.SIZE)).exp().numpy()
        W = flow.bijection[0].matrix.detach().numpy().copy()
        self.snapshots.append(Fitted(step, learned_angle(flow), gauge, W, shade))

    def update(self, data: str, turn: float, angle: float, snapshot: int = 0, **_: Any) -> dict[str, float | str]:
        best, extent = one_coupling(data), EXTENTS[data]
        density, own = Turned(PLANE[data], turn), angle - turn
        if data != self.framed:
            self.framed = data
            for axes in (self.yours, self.trained):
                axes.set(xlim=(-extent, extent), ylim=(-extent, extent))
            self.redraw_all()
        points = density.sample(400, Generator().manual_seed(0)).numpy().T
        grid = plane(extent, self.SIZE).double().numpy() @ density.R.double().numpy()
        fits = self.snapshots if self.trained_on == (data, turn) else []
        fit = fits[min(snapshot, len(fits) - 1)] if fits else None
        looks = [(self.yours, np.exp(best.log_q(grid, own)), axes_at(angle))]
        looks.append((self.trained, *((fit.density, fit.W) if fit else (np.zeros((2, 2)), None))))
        darkest = float(np.quantile(looks[0][1], 0.985))
        for axes, shade, W in looks:
            image, dots, *arrows = self.parts[axes]
            image.set(data=shade, extent=(-extent, extent, -extent, extent), clim=(0, darkest))
            dots.set_data(*points)
            for arrow in arrows:
                arrow.set_visible(W is not None)
            for row, arrow in zip(() if W is None else W, arrows, strict=False):
                x, y = 0.8 * extent * row / np.linalg.norm(row)
                arrow.set_data([0, x], [0, y])
        profile = best[own]
        seen = np.abs(best.nodes - profile.middle) < 2.5 * profile.spread
        self.middle.set_data(*(axes_at(angle).T @ np.stack((best.nodes, profile.means))[:, seen]))
        self.hint.set_visible(fit is None)

        angles = np.arange(0, 181, OneCoupling.STEP)
        gauges = np.array([best[a - turn].gauge for a in angles])
        self.curve.set_data(angles, gauges)
        self.here.set_data([angle], [profile.gauge])
        self.path.set_data([f.angle for f in fits], [f.gauge for f in fits])
        self.now.set_data(*(([fit.angle], [fit.gauge]) if fit else ([], [])))
        lowest = int(gauges.argmin())
        flat = float(np.ptp(gauges)) < 0.01
        return {
            "nats to the truth at your angle": profile.gauge,
            "least of all angles": float(gauges[lowest]),
            "at": "any angle" if flat else f"{angles[lowest]}°",
            **({"trained flow": fit.gauge, "its angle": f"{fit.angle:.0f}°", "step": str(fit.step)} if fit else {}),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        yours, least, at, *trained = numbers.values()
        said = f"Along your axes the best coupling is {yours:.2f} nats from the truth, at best {least:.2f}, at {at}."
        if trained:
            said += f" A trained flow is at {trained[1]} and {trained[0]:.2f} nats after step {trained[2]}."
        return said


class Lap(NamedTuple):
    """Where one contender is after a step: nats to the truth, and samples in the hidden coordinates u."""

    step: int
    gauge: float
    samples: np.ndarray


class BudgetRace(Picture):
    """Flows that differ in their mixing alone: nats by step, and samples of each in the plane of one banana.

    ``begin`` clears the track for a race, and ``add`` keeps where the contenders are after a step: a Lap for each.
    """

    HELD_OUT, SHOWN = 1500, 500

    def __init__(self) -> None:
        super().__init__(11.2, 3.2)
        self.race, *panels = self.figure.subplots(1, 4, width_ratios=(1.35, 1, 1, 1))
        tidy(self.race, "nats to the truth, KL(p‖q)", "training step", "nats")
        self.race.axhline(0, color=COLORS["truth"], ls="--", lw=1)
        self.lines, self.marks, self.clouds = {}, {}, {}
        for panel, (kind, (marker, dash, color)) in zip(panels, STYLES.items(), strict=True):
            self.lines[kind] = self.race.plot([], [], dash, color=color, lw=2, label=kind)[0]
            self.marks[kind] = self.race.plot([], [], marker, color=color, ms=8)[0]
            tidy(panel, kind, "$u_i$", "$u_j$")
            panel.set(xlim=(-3.2, 3.2), ylim=(-2.6, 5.2))
            data = panel.plot([], [], "o", ms=2, mew=0, color=COLORS["data"], alpha=0.35)[0]
            self.clouds[kind] = data, panel.plot([], [], marker, ms=2.5, mew=0, color=color)[0]
            self.moves(self.lines[kind], self.marks[kind], *self.clouds[kind])
        self.race.legend(self.lines.values(), self.lines, frameon=False, fontsize=8)
        self.snapshots: list[dict[str, Lap]] = []

    def begin(self, density: Bananas, steps: int) -> None:
        """Forget an earlier race; the next one is run on this density, for so many steps."""
        self.density, self.snapshots = density, []
        self.held_out = density.sample(self.HELD_OUT, Generator().manual_seed(2))
        self.log_p = density.log_prob(self.held_out)
        self.data = (self.held_out @ density.Q).numpy()[: self.SHOWN]
        self.race.set(xlim=(-0.02 * steps, 1.02 * steps), ylim=(-0.15, 0.75 * density.features))
        self.redraw_all()

    def add(self, step: int, flows: Mapping[str, Flow]) -> None:
        """Keep where the contenders are after this step."""
        self.snapshots.append({kind: self._lap(step, flow) for kind, flow in flows.items()})

    def _lap(self, step: int, flow: Flow) -> Lap:
        with evaluating(flow):
            gauge = float((self.log_p - flow.log_prob(self.held_out)).mean())
            u = flow.sample(self.SHOWN, Generator().manual_seed(3)) @ self.density.Q
        return Lap(step, gauge, u.numpy())

    def update(self, snapshot: int, banana: int, **_: Any) -> dict[str, float | str]:
        laps = self.snapshots[min(snapshot, len(self.snapshots) - 1)]
        pair = slice(2 * banana - 2, 2 * banana)
        for kind, lap in laps.items():
            past = [kept[kind] for kept in self.snapshots]
            self.lines[kind].set_data([a.step for a in past], [a.gauge for a in past])
            self.marks[kind].set_data([lap.step], [lap.gauge])
            for cloud, points in zip(self.clouds[kind], (self.data, lap.samples), strict=True):
                cloud.set_data(*points[:, pair].T)
        gauges = {kind: lap.gauge for kind, lap in laps.items()}
        return {"after step": str(laps["rotate"].step), **gauges}

    def describe(self, numbers: dict[str, float | str]) -> str:
        step, *gauges = numbers.values()
        said = ", ".join(f"{kind} {value:.2f}" for kind, value in zip(MIXINGS, gauges, strict=True))
        return f"After step {step} the three flows are so many nats from the truth: {said}. Blue dots are the data."


def race_curves(results: dict[str, dict[str, Sequence[Any]]], offsets: dict[str, float]) -> Figure:
    """Nats to the truth by step: a panel for each data set, a thin line for each seed, the mean of the seeds thick.

    ``results[data][mixing]`` is a list of Histories with validation losses; ``offsets[data]`` the mean exact log p.
    """
    figure = Figure(figsize=(4.4 * len(results), 3.2), dpi=80, layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (data, runs) in zip(panels, results.items(), strict=True):
        tidy(axes, data, "training step", "" if axes is not panels[0] else "nats to the truth")
        axes.axhline(0, color=COLORS["truth"], ls="--", lw=1)
        for kind, histories in runs.items():
            marker, dash, color = STYLES[kind]
            steps = list(histories[0].validation)
            curves = np.array([list(h.validation.values()) for h in histories]) + offsets[data]
            axes.plot(steps, curves.T, dash, color=color, lw=0.7, alpha=0.6)
            axes.plot(steps, curves.mean(0), dash, marker=marker, ms=5, color=color, lw=2.2, label=kind)
        axes.set_ylim(bottom=-0.1)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def matrix_axes(flows: dict[str, Flow], data: Tensor, *, extent: float = 3.6) -> Figure:
    """Trained densities with the rows of W as axes: the solid one with a dot passes, the dashed one moves."""
    figure = Figure(figsize=(2.7 * len(flows), 2.9), dpi=80, layout="constrained")
    for axes, (title, flow) in zip(figure.subplots(1, len(flows), squeeze=False)[0], flows.items(), strict=True):
        tidy(axes, title, "x₁", "x₂")
        p = log_density(flow, plane(extent, 120)).exp().numpy()
        frame = (-extent, extent, -extent, extent)
        axes.imshow(p, origin="lower", extent=frame, cmap=DENSITY, vmin=0, vmax=float(np.quantile(p, 0.985)))
        axes.plot(*data[:400].T, "o", ms=1.6, mew=0, color=COLORS["data"], alpha=0.6)
        styles = (("-", "o", COLORS["latent"]), ("--", "^", COLORS["truth"]))
        for row, (dash, marker, color) in zip(flow.bijection[0].matrix.detach().numpy(), styles, strict=True):
            x, y = 0.8 * extent * row / np.linalg.norm(row)
            axes.plot([0, x], [0, y], dash, marker=marker, markevery=[1], color=color, lw=2)
        axes.set(xlim=frame[:2], ylim=frame[2:])
    return figure


def starts(histories: dict[str, Any], offset: float) -> Figure:
    """Nats above the truth by step, both axes logarithmic: what a first batch is worth."""
    figure = Figure(figsize=(6.2, 3.3), dpi=80, layout="constrained")
    title = "training loss above that of the exact density"
    axes = tidy(figure.subplots(), title, "step (log scale)", "nats (log scale)")
    styles = zip(("-", ":", "--", "-."), "o^sD", ("latent", "muted", "accent", "validation"), strict=True)
    for (name, history), (dash, marker, color) in zip(histories.items(), styles, strict=False):
        loss = np.asarray(history.loss) + offset
        edges = np.unique(np.round(np.geomspace(1, len(loss) + 1, 16)).astype(int)) - 1
        means = [loss[a:b].mean() for a, b in itertools.pairwise(edges)]
        axes.plot(edges[:-1] + 1, means, dash, marker=marker, ms=5, color=COLORS[color], lw=1.6, label=name)
    axes.set(xscale="log", yscale="log")
    axes.legend(frameon=False, fontsize=8)
    return figure
