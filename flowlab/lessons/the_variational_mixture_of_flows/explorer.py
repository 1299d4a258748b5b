"""The explorers of this lesson."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import ipywidgets as widgets
import torch
from torch import Generator

from flowlab.densities.mixtures import falling_temperature
from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.the_variational_mixture_of_flows.figures import BACKGROUNDS, Partitions, TrainingFilm
from flowlab.models import flow_mixture
from flowlab.studies import PINWHEEL, Points
from flowlab.training import History, train

YOURS = "yours, trained here"
VARIANTS = {"q first (recommended)": "consistent", "the ELBO alone": "elbo"}
TEMPERATURES = {
    "τ = 1 throughout": None,
    "τ falls to 0.1": falling_temperature(rate=5e-3),
    "τ falls, and returns to 1": falling_temperature(rate=5e-3, returns=True),
}


class MixtureTraining(Explorer):
    """Scrub through the training of a mixture of flows on the pinwheel; or train one here, with other presets.

    The two shipped runs are there at once. ``start_button`` trains with ``recipe``, ``count`` components and ``heat``,
    and the run joins the list; ``stop_button`` ends it early.
    """

    def __init__(self, epochs: int = 300) -> None:
        self.epochs = epochs
        picture = TrainingFilm()
        first, frames = next(iter(picture.runs.items()))
        controls = {
            "run": choice("run", picture.runs, first),
            "snapshot": widgets.IntSlider(len(frames) - 1, 0, len(frames) - 1, description="training: snapshot"),
            "background": choice("background", BACKGROUNDS),
            "temperature": slider("temperature τ of q", 1.0, 0.1, 4.0, 0.1),
        }
        # Before the explorer listens: when another run is chosen, the slider first takes its length.
        controls["run"].observe(self._fit_slider, names="value")
        super().__init__(
            picture,
            controls,
            caption="Colors: which component claims a place. Bars: how much it claims. Scrub, and watch who wins what.",
            rows=[["run", "snapshot"], ["temperature", "background"]],
        )
        self.recipe = choice("train with", VARIANTS.items())
        self.count = widgets.IntSlider(5, 2, 8, description="components K")
        self.heat = choice("temperature", TEMPERATURES)
        buttons = self.runner("Train a mixture", self._train)
        self.progress.layout.width, buttons.layout.flex_flow = "30%", "row wrap"
        for preset in (self.recipe, self.count, self.heat, self.progress):
            preset.style.description_width = "initial"
            preset.add_class("flowlab-preset")  # of a training to come: the picture changes only then
        presets = widgets.HBox([self.recipe, self.count, self.heat], layout=widgets.Layout(flex_flow="row wrap"))
        self.children = (*self.children, presets, buttons)

    def _train(self) -> None:
        K = self.count.value
        look = flow_mixture(2, K, generator=Generator())  # one to look at while the other is trained
        self.progress.description = "q first …" if self.recipe.value == "consistent" else ""

        def steps() -> Iterator[History]:
            generator = Generator().manual_seed(0)
            x = PINWHEEL.truth.sample(PINWHEEL.size, generator)
            nothing = Points(x, x[:0], torch.zeros(0, dtype=torch.long))
            trial = PINWHEEL.variants[self.recipe.value](nothing, K, generator)
            settings = {**trial.settings, "epochs": self.epochs}
            temperature = TEMPERATURES[self.heat.value]
            settings["objective"] = dataclasses.replace(settings["objective"], temperature=temperature)
            self.picture.add(YOURS, 0, trial.model.eval())  # forgets an earlier training
            yield from train(trial.model, x, snapshots=10, **settings)

        def report(history: History) -> None:
            self.progress.max, self.progress.value, self.progress.description = history.total, history.step, ""
            shown = self.picture.runs[YOURS][-1].step
            for step in (s for s in history.snapshots if s > shown):
                look.load_state_dict(history.snapshots[step])
                self.picture.add(YOURS, step, look.eval())
            self._show_last()

        def finished() -> None:
            self.start_button.description = "Train another"

        self.run(steps(), report, finished)

    def _show_last(self) -> None:
        """Choose the run that was trained here, at its newest snapshot, and draw."""
        run = self.controls["run"]
        self._held = True
        run.options = list(self.picture.runs)
        run.value = YOURS
        self.show_last("snapshot", len(self.picture.runs[YOURS]))

    def _fit_slider(self, change: Any) -> None:
        held, self._held = self._held, True  # a shorter slider may move its value: draw once, when the run has changed
        self.controls["snapshot"].max = len(self.picture.runs[change["new"]]) - 1
        self._held = held


class ThreePartitions(Explorer):
    """Three mixtures fitted to two circles, equally likely, with three partitions; labels tell them apart."""

    def __init__(self) -> None:
        picture = Partitions()
        super().__init__(
            picture,
            {
                "fit": choice("a mixture that found", picture.fits),
                "labels": widgets.IntSlider(0, 0, 12, description="labels revealed"),
            },
            caption="The dots on the right are as good as level: likelihood cannot choose. White markers: points with "
            "their true ring revealed, ● the outer and ▲ the inner one.",
        )
