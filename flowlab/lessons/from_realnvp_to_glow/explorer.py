"""The explorers of this lesson."""

from __future__ import annotations

from typing import ClassVar

import ipywidgets as widgets
from torch import Generator

from flowlab.lessons.base.explorer import choice
from flowlab.lessons.base.training_explorer import Progress, TrainingExplorer
from flowlab.lessons.from_realnvp_to_glow.figures import BudgetRace, TurnTheAxes
from flowlab.lessons.from_realnvp_to_glow.toys import MIXINGS, PLANE, Bananas, OneCoupling, contender, learner
from flowlab.training import train

LAPS = 16  # moments of a race that are kept, denser at its start


class TurnAxes(TrainingExplorer):
    """Turn the axes of one affine coupling by hand and watch the nats; then let training turn them.

    ``start_button`` starts at your angle; the slider for scrubbing appears with the first training.
    """

    tape_trains: ClassVar = True

    def __init__(self, steps: int = 400) -> None:
        self.steps = steps
        turning = {"step": OneCoupling.STEP, "readout_format": "d"}
        super().__init__(
            TurnTheAxes(),
            {
                "data": choice("data", PLANE),
                "turn": widgets.IntSlider(30, -90, 90, description="turn the data, degrees", **turning),
                "angle": widgets.IntSlider(0, 0, 180, description="turn the axes, degrees", **turning),
            },
            caption="Solid axis with a dot: u₁ passes. Dashed: u₂ moves, toward the thin line, its mean given u₁. Turn "
            "the axes until the orange covers the blue.",
            start="Train from your angle",
        )

    def training(self) -> Progress:
        now = self.values()
        x = self.picture.begin(now["data"], now["turn"]).sample(4000, Generator().manual_seed(0))
        how = {"steps": self.steps, "batch_size": 256, "learning_rate": 1e-2, "snapshots": 30}
        return self.watch(learner(now["angle"]), x, self.picture.add, **how)


class ShuffleReverseRotate(TrainingExplorer):
    """Race three mixings with the same depth and budget, then scrub through it; starts with a short race at hand."""

    def __init__(self, steps: int = 400) -> None:
        self.steps = steps
        picture = BudgetRace()
        for _ in race(picture, features=4, couplings=2, steps=60):
            pass
        last = len(picture.snapshots) - 1
        self.data = choice("data", {"turned": True, "not turned": False}.items())
        self.couplings = widgets.IntSlider(4, 1, 6, description="couplings")
        self.seed = widgets.IntSlider(0, 0, 9, description="seed")
        super().__init__(
            picture,
            {
                "snapshot": widgets.IntSlider(last, 0, last, description="scrub through the race", readout=False),
                "banana": widgets.IntSlider(1, 1, 2, description="look at banana"),
            },
            caption="Blue: data. The other marks: samples of each flow, in the plane of one banana.",
            start="Race in 8 dimensions",
            presets=(self.data, self.couplings, self.seed),
        )

    def training(self) -> Progress:
        self.controls["banana"].max = 4
        how = {"turned": self.data.value, "steps": self.steps, "seed": self.seed.value}
        return race(self.picture, 8, self.couplings.value, **how)


def race(
    picture: BudgetRace, features: int, couplings: int, *, turned: bool = True, steps: int = 400, seed: int = 0
) -> Progress:
    """Train a flow of each mixing with the same budget, in turn, a step each; the picture keeps some of the steps."""
    density = Bananas(features, turned=turned)
    picture.begin(density, steps)
    x = density.sample(4000, Generator().manual_seed(1))
    flows = {kind: contender(kind, features, couplings, seed=seed) for kind in MIXINGS}
    runs = [train(flow, x, steps=steps, batch_size=256, learning_rate=5e-3, seed=seed) for flow in flows.values()]
    kept = {max(1, round(steps * (i / LAPS) ** 1.5)) for i in range(1, LAPS + 1)}
    try:
        for step in range(1, steps + 1):
            for run in runs:
                next(run)
            if step in kept:
                picture.add(step, flows)
            yield step, steps
    finally:
        for run in runs:
            run.close()
