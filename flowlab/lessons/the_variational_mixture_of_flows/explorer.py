"""The explorers of this lesson."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets
import torch
from torch import Generator

from flowlab.densities.mixtures import Interleaved, Objective, falling_temperature
from flowlab.lessons.base.explorer import Explorer, choice, slider
from flowlab.lessons.base.training_explorer import Progress, TrainingExplorer
from flowlab.lessons.the_variational_mixture_of_flows.figures import BACKGROUNDS, Partitions, TrainingFilm
from flowlab.studies import PINWHEEL, Points
from flowlab.training import Step

YOURS = "yours, trained here"
VARIANTS = {"q first (recommended)": "consistent", "the ELBO alone": "elbo"}
TEMPERATURES = {
    "τ = 1 throughout": None,
    "τ falls to 0.1": falling_temperature(rate=5e-3),
    "τ falls, and returns to 1": falling_temperature(rate=5e-3, returns=True),
}


class MixtureTraining(TrainingExplorer):
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
        self.recipe = choice("train with", VARIANTS.items())
        self.count = widgets.IntSlider(5, 2, 8, description="components K")
        self.heat = choice("temperature", TEMPERATURES)
        super().__init__(
            picture,
            controls,
            plays={"temperature": 1},
            caption="Colors: which component claims a place. Bars: how much it claims. Scrub, and watch who wins what.",
            rows=[["run", "snapshot"], ["temperature", "background"]],
            start="Train a mixture",
            again="Train another",
            presets=(self.recipe, self.count, self.heat),
        )

    def training(self) -> Progress:
        generator = Generator().manual_seed(0)
        x = PINWHEEL.truth.sample(PINWHEEL.size, generator)
        nothing = Points(x, x[:0], torch.zeros(0, dtype=torch.long))
        self.progress.description = "q first …" if self.recipe.value == "consistent" else ""
        trial = PINWHEEL.variants[self.recipe.value](nothing, self.count.value, generator)
        self.progress.description = ""
        objective = at_temperature(trial.settings["objective"], TEMPERATURES[self.heat.value])
        how = {**trial.settings, "epochs": self.epochs, "snapshots": 10, "objective": objective}
        yield from self.watch(trial.model, x, functools.partial(self.picture.add, YOURS), **how)

    def moments(self) -> int:
        return len(self.picture.runs.get(YOURS, []))

    def show_newest(self) -> None:
        """Choose the run that was trained here, at its newest snapshot, and draw."""
        with self.hold():
            self.controls["run"].options = list(self.picture.runs)
            self.controls["run"].value = YOURS
        super().show_newest()

    def _fit_slider(self, change: Any) -> None:
        with self.hold():  # a shorter slider may move its value: draw once, when the run has changed
            self.controls["snapshot"].max = len(self.picture.runs[change["new"]]) - 1


def at_temperature(
    objective: Objective | Interleaved, temperature: Callable[[Step], float] | None
) -> Objective | Interleaved:
    """The same objective with this temperature of q; where labels come first, it is that of the later steps."""
    if isinstance(objective, Interleaved):
        return replace(objective, unlabelled=replace(objective.unlabelled, temperature=temperature))
    return replace(objective, temperature=temperature)


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
