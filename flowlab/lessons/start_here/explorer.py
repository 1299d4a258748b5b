"""The explorer of this lesson."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import ipywidgets as widgets
from torch import Generator

from flowlab.lessons.base.explorer import slider
from flowlab.lessons.base.training_explorer import Progress, TrainingExplorer
from flowlab.lessons.start_here.figures import HandBesideTraining
from flowlab.lessons.start_here.toys import START
from flowlab.models import spline_flow


class BendTheGaussian(TrainingExplorer):
    """Bend a Gaussian toward the pinwheel, by sliders or by its grid; then train a flow and scrub through its training.

    The slider for scrubbing appears with the first training. ``start_button`` and ``stop_button`` do what they say.
    """

    tape: ClassVar = {"snapshot": range(0, 41, 2)}
    tape_blocks: ClassVar = (("wings", "swirl"), ("size", "push"), ("snapshot",))
    tape_trains: ClassVar = True

    def __init__(self, steps: int = 1200) -> None:
        self.steps = steps
        self.grip: tuple[float, float] | None = None
        super().__init__(
            HandBesideTraining(steps),
            {
                "size": slider("size", START["size"], 0.4, 3.0),
                "push": slider("push outward", START["push"], 0.0, 0.7),
                "wings": slider("gather wings", START["wings"], 0.0, 0.9),
                "swirl": slider("swirl", START["swirl"], -1.5, 1.5),
            },
            caption="Orange: density. Green: the Gaussian's own grid. Blue: data, for the orange to cover.",
            rows=[["size", "push"], ["wings", "swirl"]],
            draggable=True,
            start="Train a flow",
            again="Train again",
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        """The point of the grid that was gripped follows the hand: its radius sets the size, its angle the swirl."""
        r, angle = math.hypot(x, y), math.atan2(y, x)
        v = self.values()
        power = 1 - v["push"]
        if axes is not self.picture.yours or r < 0.3:
            return
        if kind == "down":
            self.grip = ((r / v["size"]) ** (1 / power), angle - v["swirl"] * r)
        elif self.grip is not None:
            rho, psi = self.grip
            swirl = (angle - psi) / r
            turns = round((v["swirl"] - swirl) * r / (2 * math.pi))  # the same angle, as near as can be to where it was
            swirl += 2 * math.pi * turns / r
            self.set(size=_within(self.controls["size"], r / rho**power), swirl=_within(self.controls["swirl"], swirl))
        if kind == "up":
            self.grip = None

    def training(self) -> Progress:
        flow = spline_flow(2, layers=4, generator=Generator().manual_seed(0))
        how = {"steps": self.steps, "batch_size": 256, "learning_rate": 5e-3, "snapshots": 40}
        return self.watch(flow, self.picture.data, self.picture.add, **how)


def _within(control: widgets.FloatSlider, value: float) -> float:
    """The value, rounded, and kept between the ends of the slider."""
    return round(min(max(value, control.min), control.max), 2)
