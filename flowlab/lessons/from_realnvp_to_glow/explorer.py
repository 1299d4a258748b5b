"""The explorers of this lesson."""

from __future__ import annotations

import ipywidgets as widgets
from torch import Generator

from flowlab.lessons.base.explorer import Explorer, choice
from flowlab.lessons.from_realnvp_to_glow.figures import BudgetRace, TurnTheAxes
from flowlab.lessons.from_realnvp_to_glow.toys import PLANE, OneCoupling, learner
from flowlab.training import History, train


class TurnAxes(Explorer):
    """Turn the axes of one affine coupling by hand and watch the nats; then let training turn them.

    ``start_button`` starts at your angle; the slider for scrubbing appears with the first training.
    """

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
        )
        self.scrub = self.scrubber()
        self.insert(self.runner("Train from your angle", self._train, steps))

    def _train(self) -> None:
        now = self.values()
        density = self.picture.begin(now["data"], now["turn"])
        flow, look = learner(now["angle"]), learner(now["angle"])  # one to train, one to look at meanwhile
        self.picture.add(0, flow.eval())

        def report(history: History) -> None:
            shown = self.picture.fits[-1].step
            for step in (s for s in history.snapshots if s > shown):
                look.load_state_dict(history.snapshots[step])
                self.picture.add(step, look.eval())
            self.progress.value = history.step
            self._show_last()

        x = density.sample(4000, Generator().manual_seed(0))
        steps = train(flow, x, steps=self.steps, batch_size=256, learning_rate=1e-2, snapshots=30)
        self.run(steps, report)

    def _show_last(self) -> None:
        """Put the scrubber, which is there from now on, at the newest snapshot, and draw."""
        if "snapshot" not in self.controls:
            self.controls["snapshot"] = self.scrub
            self.runner_row.children = (*self.runner_row.children, self.scrub)
        self.show_last("snapshot", len(self.picture.fits))


class ShuffleReverseRotate(Explorer):
    """Race three mixings with the same depth and budget, then scrub through it; starts with a short race at hand."""

    def __init__(self, steps: int = 400) -> None:
        self.steps = steps
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
        settings = widgets.HBox([self.data, self.couplings, self.seed]).add_class("flowlab-preset")
        self.insert(settings, self.runner("Race in 8 dimensions", self._race, steps))

    def _race(self) -> None:
        self.controls["banana"].max = 4

        def report(step: int) -> None:
            self.progress.value = step
            if all(self.picture.laps.values()):
                self.show_last("lap", min(map(len, self.picture.laps.values())))

        steps = self.picture.run(
            8, self.couplings.value, turned=self.data.value, steps=self.steps, seed=self.seed.value
        )
        self.run(steps, report)
