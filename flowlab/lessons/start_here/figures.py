"""A flow that is bent by hand, beside a flow that is trained."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Generator, Tensor

from flowlab.datasets import Pinwheel
from flowlab.densities import Flow, evaluating
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.start_here.toys import hand_flow
from flowlab.plotting.plane import grid_lines, log_density, plane
from flowlab.plotting.style import COLORS, DENSITY, tidy

EXTENT = 4.0  # half the width of the pictures


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

    def place_of_prediction(self, value: float) -> tuple[Axes, tuple[float, float], tuple[float, float]]:
        """Nats to the truth, across the race."""
        return self.race, self.race.get_xlim(), (value, value)

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

    def _look(self, step: int, flow: Flow) -> Snapshot:
        with evaluating(flow):
            gauge = float((self.log_p - flow.log_prob(self.held_out)).mean())
            lines = flow.bijection.inverse(self.lines)[0]
            return Snapshot(step, gauge, log_density(flow, self.points).exp().numpy(), lines)
