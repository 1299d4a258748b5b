"""The explorers of notebook 13."""

from __future__ import annotations

import ipywidgets as widgets
from torch import Generator

from flowlab.plotting.mixing import PLANE, BudgetRace, OneCoupling, TurnTheAxes, learner
from flowlab.training import History, train
from flowlab.widgets.base import Explorer, choice


class TurnAxes(Explorer):
    """Turn the axes of one affine coupling by hand and watch the nats; then let training turn them.

    ``train_button`` starts at your angle; the slider for scrubbing appears with the first training.
    """

    def __init__(self, steps: int = 400) -> None:
        self.steps = steps
        self.stop = lambda: None
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
        )
        self.scrub = widgets.IntSlider(0, 0, 0, description="scrub through training", readout=False)
        self.scrub.style.description_width = "initial"
        self.scrub.observe(self._changed, names="value")
        self.train_button = widgets.Button(description="Train from your angle", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.progress = widgets.IntProgress(0, 0, steps)
        self.train_button.on_click(lambda _: self.guard(self._train))
        self.stop_button.on_click(lambda _: self.stop())
        self.training_row = widgets.HBox([self.train_button, self.stop_button, self.progress])
        view = self.children.index(self.view)
        self.children = (*self.children[:view], self.training_row, *self.children[view:])

    def _train(self) -> None:
        now = self.values()
        density = self.picture.begin(now["data"], now["turn"])
        flow, look = learner(now["angle"]), learner(now["angle"])  # one to train, one to look at meanwhile
        self.picture.add(0, flow.eval())
        self.train_button.disabled, self.stop_button.disabled = True, False

        def report(history: History) -> None:
            shown = self.picture.fits[-1].step
            for step in (s for s in history.snapshots if s > shown):
                look.load_state_dict(history.snapshots[step])
                self.picture.add(step, look.eval())
            self.progress.value = history.step
            self._show_last()

        def finished() -> None:
            self.train_button.disabled, self.stop_button.disabled = False, True

        x = density.sample(4000, Generator().manual_seed(0))
        steps = train(flow, x, steps=self.steps, batch_size=256, learning_rate=1e-2, snapshots=30)
        self.stop = self.run(steps, report, finished)

    def _show_last(self) -> None:
        """Put the scrubber, which is there from now on, at the newest snapshot, and draw."""
        if "snapshot" not in self.controls:
            self.controls["snapshot"] = self.scrub
            self.training_row.children = (*self.training_row.children, self.scrub)
        self._held = True
        self.scrub.max = len(self.picture.fits) - 1
        self.scrub.value = self.scrub.max
        self._held = False
        self.refresh()


class ShuffleReverseRotate(Explorer):
    """Race three mixings with the same depth and budget, then scrub through it; starts with a short race at hand."""

    def __init__(self, steps: int = 400) -> None:
        self.steps = steps
        self.stop = lambda: None
        picture = BudgetRace()
        for _ in picture.run(features=4, couplings=2, steps=60):
            pass
        last = len(picture.laps["rotate"]) - 1
        super().__init__(
            picture,
            {
                "lap": widgets.IntSlider(last, 0, last, description="scrub through the race", readout=False),
                "banana": widgets.IntSlider(1, 1, 2, description="look at banana"),
            },
            caption="Blue: data. The other marks: samples of each flow, in the plane of one banana.",
        )
        self.data = choice("data", {"turned": True, "not turned": False}.items())
        self.seed = widgets.IntSlider(0, 0, 9, description="seed")
        self.couplings = widgets.IntSlider(4, 1, 6, description="couplings")
        self.race_button = widgets.Button(description="Race in 8 dimensions", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.progress = widgets.IntProgress(0, 0, steps)
        self.race_button.on_click(lambda _: self.guard(self._race))
        self.stop_button.on_click(lambda _: self.stop())
        settings = widgets.HBox([self.data, self.couplings, self.seed]).add_class("flowlab-preset")
        buttons = widgets.HBox([self.race_button, self.stop_button, self.progress])
        view = self.children.index(self.view)
        self.children = (*self.children[:view], settings, buttons, *self.children[view:])

    def _race(self) -> None:
        self.race_button.disabled, self.stop_button.disabled = True, False
        self.controls["banana"].max = 4

        def report(step: int) -> None:
            self.progress.value = step
            if all(self.picture.laps.values()):
                self._show_last()

        def finished() -> None:
            self.race_button.disabled, self.stop_button.disabled = False, True

        steps = self.picture.run(
            8, self.couplings.value, turned=self.data.value, steps=self.steps, seed=self.seed.value
        )
        self.stop = self.run(steps, report, finished)

    def _show_last(self) -> None:
        lap = self.controls["lap"]
        self._held = True
        lap.max = min(map(len, self.picture.laps.values())) - 1
        lap.value = lap.max
        self._held = False
        self.refresh()
