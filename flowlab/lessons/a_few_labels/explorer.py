"""The explorer of this lesson."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import torch
from torch import Generator

from flowlab.lessons.a_few_labels.figures import YOURS, ClickedCircles
from flowlab.lessons.base.explorer import choice, slider
from flowlab.lessons.base.training_explorer import Progress, TrainingExplorer
from flowlab.studies.flow_mixtures import short
from flowlab.studies.points import Points

NEAR = 0.06  # how far from a point a click may be


class ClickLabels(TrainingExplorer):
    """Choose which points are labelled, or click them; then train a mixture of two flows and scrub through it.

    A click turns a point from unlabelled to A, to B, and back. ``start_button`` and ``stop_button`` do what they say.
    """

    def __init__(self, epochs: int = 200) -> None:
        self.epochs = epochs
        picture = ClickedCircles()
        self.clear_button = widgets.Button(description="Clear labels")
        self.clear_button.on_click(lambda _: self.guard(self._take, {}))
        super().__init__(
            picture,
            {
                "labels": choice("labels", [*picture.sets, YOURS]),
                "sure": slider("white where q is below", 0.5, 0.5, 0.99, 0.01),
            },
            caption="Color: the class that q gives a place. Large marks: labelled points, A a circle, B a triangle.",
            draggable=True,
            start="Train",
            beside=(self.clear_button,),
        )

    def on_pointer(self, kind: str, axes: Any, x: float, y: float) -> None:
        """A click on a point gives it the next class: none, A, B, none. Labels of a set are yours from then on."""
        if kind != "down" or axes is not self.picture.left or self.start_button.disabled:
            return
        distance = (self.picture.x - torch.tensor([x, y])).norm(dim=-1)
        row = int(distance.argmin())
        if distance[row] > NEAR:
            return
        labels = dict(self.picture.labels_of(self.controls["labels"].value))
        # A mark is larger than the gaps between points: who clicks on one means that one.
        marked = min(labels, key=lambda r: float(distance[r]), default=row)
        row = marked if distance[marked] <= NEAR else row
        label = labels.pop(row, -1) + 1
        self._take(labels if label == 2 else {**labels, row: label})

    def _take(self, labels: dict[int, int]) -> None:
        """Make these the student's labels, to be trained on."""
        self.picture.clicked, self.picture.trained = labels, False
        self.set(labels=YOURS)

    def training(self) -> Progress:
        if self.controls["labels"].value != YOURS:
            self._take(dict(self.picture.labels_of(self.controls["labels"].value)))
        given, x = self.picture.clicked, self.picture.x
        rows, labels = torch.tensor(list(given), dtype=torch.long), torch.tensor(list(given.values()), dtype=torch.long)
        trial = short(Points(x, x[rows], labels), 2, Generator().manual_seed(0))  # trains q, which takes a moment
        how = {**trial.settings, "epochs": self.epochs, "snapshots": 16}
        yield from self.watch(trial.model, x, self.picture.add, **how)
