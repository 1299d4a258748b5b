"""The explorer of notebook 00."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets as widgets
from torch import Generator

from flowlab.models import spline_flow
from flowlab.plotting.start import START, HandBesideTraining
from flowlab.training import History, train
from flowlab.widgets.base import Explorer, slider


class BendTheGaussian(Explorer):
    """Bend a Gaussian toward the pinwheel, by sliders or by its grid; then train a flow and scrub through its training.

    The slider for scrubbing appears with the first training. ``train_button`` and ``stop_button`` do what they say.
    """

    def __init__(self, steps: int = 1200) -> None:
        self.steps = steps
        self.grip: tuple[float, float] | None = None
        self.stop = lambda: None
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
        )
        self.scrub = widgets.IntSlider(0, 0, 0, description="scrub through training", readout=False)
        self.scrub.style.description_width = "initial"
        self.scrub.observe(self._changed, names="value")
        self.train_button = widgets.Button(description="Train a flow", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.progress = widgets.IntProgress(0, 0, steps)
        self.train_button.on_click(lambda _: self.guard(self._train))
        self.stop_button.on_click(lambda _: self.stop())
        self.training_row = widgets.HBox([self.train_button, self.stop_button, self.progress])
        view = self.children.index(self.view)
        self.children = (*self.children[:view], self.training_row, *self.children[view:])

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

    def _train(self) -> None:
        flow = spline_flow(2, layers=4, generator=Generator().manual_seed(0))
        look = spline_flow(2, layers=4, generator=Generator())  # one to look at while the first is trained
        self.train_button.disabled, self.stop_button.disabled = True, False

        def report(history: History) -> None:
            shown = self.picture.snapshots[-1].step
            for step in (s for s in history.snapshots if s > shown):
                look.load_state_dict(history.snapshots[step])
                self.picture.add(step, look.eval())
            self.progress.value = history.step
            self._show_last()

        def finished() -> None:
            self.train_button.disabled, self.stop_button.disabled = False, True
            self.train_button.description = "Train again"

        self.picture.add(0, flow.eval())  # forgets an earlier training
        steps = train(flow, self.picture.data, steps=self.steps, batch_size=256, learning_rate=5e-3, snapshots=40)
        self.stop = self.run(steps, report, finished)

    def _show_last(self) -> None:
        """Put the scrubber, which is there from now on, at the newest snapshot, and draw."""
        if "snapshot" not in self.controls:
            self.controls["snapshot"] = self.scrub
            self.training_row.children = (*self.training_row.children, self.scrub)
        self._held = True
        self.scrub.max = len(self.picture.snapshots) - 1
        self.scrub.value = self.scrub.max
        self._held = False
        self.refresh()


def _within(control: widgets.FloatSlider, value: float) -> float:
    """The value, rounded, and kept between the ends of the slider."""
    return round(min(max(value, control.min), control.max), 2)
