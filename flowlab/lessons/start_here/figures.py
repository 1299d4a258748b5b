"""A flow made by hand, of three steps with a slider each, beside a flow that is trained."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.collections import LineCollection
from torch import Generator, Tensor

from flowlab.bijections import Bijection, Chain
from flowlab.datasets import Pinwheel
from flowlab.densities import Flow, StandardNormal
from flowlab.lessons.base.picture import Picture
from flowlab.plotting.plane import grid_lines, log_density, plane
from flowlab.plotting.style import COLORS, DENSITY, tidy

EXTENT = 4.0  # half the width of the pictures
START = {"size": 1.0, "push": 0.0, "wings": 0.0, "swirl": 0.0}  # where all three steps do nothing


class PushOut(Bijection):
    """Radii: r = size · ρ^(1 − push), where ρ = |z| and r = |x|. Angles stay. Pushed out, a blob gets a hollow middle.

    log |det ∂z/∂x| = 2 log(ρ/r) − log(1 − push), with 0 ≤ push < 1. Shapes ``(..., 2)`` and ``(...)``.
    """

    def __init__(self, size: float, push: float) -> None:
        super().__init__(2)
        self.size, self.power = size, 1 - push

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r, angle = _polar(x)
        rho = (r / self.size) ** (1 / self.power)
        return _plane(rho, angle), 2 * (rho / r).log() - math.log(self.power)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rho, angle = _polar(z)
        r = self.size * rho**self.power
        return _plane(r, angle), 2 * (r / rho).log() + math.log(self.power)


class GatherWings(Bijection):
    """Angles: ψ = φ − ⅖ arctan2(w sin 5φ, 1 + w cos 5φ) gathers all directions φ around five. Radii stay.

    On a circle this is a Möbius map. The way back is the same formula with −w, and the slope is
    (1 − w²) / (1 + w² + 2w cos 5φ), for 0 ≤ w < 1. Shapes ``(..., 2)`` and ``(...)``.
    """

    wings = 5

    def __init__(self, w: float) -> None:
        super().__init__(2)
        self.w = w

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turn(x, -self.w)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turn(z, self.w)

    def _turn(self, x: Tensor, w: float) -> tuple[Tensor, Tensor]:
        r, angle = _polar(x)
        c, s = w * (self.wings * angle).cos(), w * (self.wings * angle).sin()
        slope = (1 - w * w) / (1 + w * w + 2 * c)
        return _plane(r, angle - 2 / self.wings * torch.atan2(s, 1 + c)), slope.log()


class Swirl(Bijection):
    """Angles: θ = ψ + swirl · r turns each circle, the outer ones more. Radii stay, and so do areas: log |det| = 0.

    Shapes ``(..., 2)`` and ``(...)``.
    """

    def __init__(self, swirl: float) -> None:
        super().__init__(2)
        self.swirl = swirl

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r, angle = _polar(x)
        return _plane(r, angle - self.swirl * r), torch.zeros_like(r)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r, angle = _polar(z)
        return _plane(r, angle + self.swirl * r), torch.zeros_like(r)


def hand_flow(size: float = 1.0, push: float = 0.0, wings: float = 0.0, swirl: float = 0.0) -> Flow:
    """A Gaussian that is pushed outward, gathered into five wings, then swirled; forward undoes that, x -> z.

    An exact flow like any other, everywhere but at the origin. Left as they are, the settings change nothing.
    """
    return Flow(Chain([Swirl(swirl), GatherWings(wings), PushOut(size, push)]), StandardNormal(2))


class Snapshot(NamedTuple):
    """What is shown of a flow at one moment of its training."""

    step: int
    gauge: float  # nats to the truth
    density: np.ndarray
    grid: Tensor


class HandBesideTraining(Picture):
    """Left, what the sliders make of a Gaussian and its grid; middle, a trained flow; right, both gauges in nats.

    The gauge is KL(p‖q) = E[log p − log q] on held-out points of the pinwheel p. ``add`` appends a snapshot of the
    trained flow; ``snapshot`` says which one to show.
    """

    def __init__(self, steps: int = 1200) -> None:
        super().__init__(10.8, 3.9)
        toy = Pinwheel()
        self.data = toy.sample(5000, Generator().manual_seed(0))
        self.held_out = toy.sample(2000, Generator().manual_seed(1))
        self.log_p = toy.log_prob(self.held_out)
        self.points, self.lines = plane(EXTENT, 100), grid_lines(2.75, lines=12, points=80)
        darkest = float(self.log_p.exp().quantile(0.7))
        self.yours, self.trained, self.race = self.figure.subplots(1, 3)
        self.artists = {}
        for axes, title in ((self.yours, "yours: drag the grid"), (self.trained, "the trained flow")):
            tidy(axes, title, "x₁", "x₂")
            axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal")
            frame = (-EXTENT, EXTENT, -EXTENT, EXTENT)
            image = axes.imshow(np.zeros((2, 2)), origin="lower", extent=frame, cmap=DENSITY, vmin=0, vmax=darkest)
            grid = LineCollection([], colors=COLORS["latent"], linewidths=0.6, alpha=0.8)
            axes.add_collection(grid)
            dots = axes.plot(*self.data[:400].T, "o", ms=1.6, mew=0, color=COLORS["data"], alpha=0.6)[0]
            self.artists[axes] = (image, grid)
            self.moves(image, grid, dots)
        tidy(self.race, "nats to the truth, KL(p‖q)", "training step", "nats")
        self.race.set(xlim=(-0.02 * steps, 1.02 * steps), ylim=(-0.3, 3.0))
        self.race.axhline(0, color=COLORS["truth"], ls="--", lw=1)
        self.race.text(steps, -0.05, "the exact density", ha="right", va="top", fontsize=8)
        self.you = self.race.axhline(0, color=COLORS["accent"], lw=2)
        self.you_label = self.race.text(0.5 * steps, 0, "", ha="center", va="bottom", fontsize=9)
        self.curve = self.race.plot([], [], color=COLORS["model"], lw=2)[0]
        self.now = self.race.plot([], [], "^", ms=8, color=COLORS["model"])[0]
        self.now_label = self.race.text(0, 0, "", va="bottom", fontsize=9)
        self.moves(self.you, self.you_label, self.curve, self.now, self.now_label)
        self.snapshots: list[Snapshot] = []
        self.add(0, hand_flow())  # a flow starts where the sliders start: at the Gaussian

    def add(self, step: int, flow: Flow) -> None:
        """Keep what the flow looks like after this step of its training; step 0 starts anew."""
        self.snapshots = [] if step == 0 else self.snapshots
        self.snapshots.append(self._look(step, flow))

    def update(
        self, size: float, push: float, wings: float, swirl: float, snapshot: int = 0, **_: Any
    ) -> dict[str, float | str]:
        hand = self._look(0, hand_flow(size, push, wings, swirl))
        shown = self.snapshots[min(snapshot, len(self.snapshots) - 1)]
        for axes, look in ((self.yours, hand), (self.trained, shown)):
            image, grid = self.artists[axes]
            image.set_data(look.density)
            grid.set_segments(look.grid.numpy())
        height = min(hand.gauge, 2.75)
        self.you.set_ydata([height, height])
        self.you_label.set(y=height, text=f"you {hand.gauge:.2f}" + (" ↑" if hand.gauge > height else ""))
        self.curve.set_data([s.step for s in self.snapshots], [s.gauge for s in self.snapshots])
        self.now.set_data([shown.step], [shown.gauge])
        late = shown.step > 0.6 * self.race.get_xlim()[1]
        self.now_label.set(
            x=shown.step, y=shown.gauge + 0.07, text=f" flow {shown.gauge:.2f}", ha="right" if late else "left"
        )
        return {
            "nats to the truth: you": hand.gauge,
            "trained flow": shown.gauge,
            "after training step": str(shown.step),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        you, trained, step = numbers.values()
        return (
            f"A Gaussian bent by hand toward a pinwheel of five wings is {you:.2f} nats from the truth; after "
            f"training step {step} a flow is {trained:.2f} nats from it."
        )

    @torch.no_grad()
    def _look(self, step: int, flow: Flow) -> Snapshot:
        gauge = float((self.log_p - flow.log_prob(self.held_out)).mean())
        return Snapshot(
            step, gauge, log_density(flow, self.points).exp().numpy(), flow.bijection.inverse(self.lines)[0]
        )


def _polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Radius and angle; the origin, which has no angle, counts as a point very near."""
    return x.norm(dim=-1).clamp_min(1e-6), torch.atan2(x[..., 1], x[..., 0])


def _plane(r: Tensor, angle: Tensor) -> Tensor:
    return torch.stack((r * angle.cos(), r * angle.sin()), dim=-1)
