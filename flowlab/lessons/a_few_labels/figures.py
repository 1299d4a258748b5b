"""Two circles with a few labels: who claims which place, what each flow makes of it, and how often that works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Generator, Tensor

from flowlab import pretrained
from flowlab.densities import evaluating
from flowlab.densities.mixtures.variational import Mixture
from flowlab.lessons.base.picture import Picture
from flowlab.plotting.plane import plane
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, COMPONENT_MARKERS, tidy
from flowlab.studies.flow_mixtures import CIRCLES, label_sets

EXTENT = 1.15  # half the width of the frame
HELD_OUT, SAMPLES, GRID = 2000, 400, 90
YOURS = "yours"
CLASSES = ("A", "B")
PAPER = np.array([1.0, 1.0, 1.0])


class Look(NamedTuple):
    """What is shown of a mixture: q of class A on a grid, samples with their component, accuracy, nats to the truth."""

    q: np.ndarray
    samples: Tensor
    components: Tensor
    right: np.ndarray
    nats: float


class ClickedCircles(Picture):
    """Left, two circles, the labels given, and q(k | x) as regions; right, samples of the two flows in their colors.

    ``labels`` names a set of labels with the mixture that was fitted to it, or is ``YOURS``: then ``clicked``, row to
    class, are the labels, and ``snapshots`` the mixture as it was at some moments of its training.
    """

    def __init__(self) -> None:
        super().__init__(8.4, 4.3)
        self.x, self.y = CIRCLES.truth.labelled(CIRCLES.size, Generator().manual_seed(0))
        self.test, self.test_labels = CIRCLES.truth.labelled(HELD_OUT, Generator().manual_seed(10**6))
        self.log_p = CIRCLES.truth.log_prob(self.test)
        self.sets = {
            name: dict(zip(rows.tolist(), labels.tolist(), strict=True))
            for name, (rows, labels) in label_sets(self.x, self.y).items()
        }
        self.looks: dict[str, Look] = {}
        self.clicked: dict[int, int] = {}
        self.snapshots: list[Look] = []
        self.trained = False  # whether the newest snapshot belongs to the labels as they are clicked now

        self.left, self.right = self.figure.subplots(1, 2)
        tidy(self.left, "q(k | x), and the labels given: click a point", "x₁", "x₂")
        tidy(self.right, "samples of flow A (circles) and flow B (triangles)", "x₁", "")
        for axes in (self.left, self.right):
            axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal")
        frame = (-EXTENT, EXTENT, -EXTENT, EXTENT)
        self.regions_image = self.left.imshow(np.ones((2, 2, 3)), origin="lower", extent=frame)
        dots = self.left.plot(*self.x.T, ".", ms=3.5, color="#555555", mew=0)[0]
        self.marks, self.clouds = [], []
        for color, marker in zip(COMPONENT_COLORS[:2], COMPONENT_MARKERS[:2], strict=True):
            self.marks.append(self.left.plot([], [], marker, ms=11, color=color, mec="black", mew=1.5)[0])
            self.clouds.append(self.right.plot([], [], marker, ms=3, color=color, alpha=0.6, mew=0)[0])
        self.moves(self.regions_image, dots, *self.marks, *self.clouds)

    def add(self, step: int, mixture: Mixture) -> None:
        """Keep what the mixture, trained on ``clicked``, looks like after this step; step 0 starts anew."""
        kept = [] if step == 0 else self.snapshots
        self.snapshots = [*kept, look(mixture, self.test, self.test_labels, self.log_p)]
        self.trained = True

    def labels_of(self, labels: str) -> dict[int, int]:
        """Row to class: the labels that are given."""
        return self.clicked if labels == YOURS else self.sets[labels]

    def update(self, labels: str, sure: float = 0.5, snapshot: int = -1, **_: Any) -> dict[str, float | str]:
        given = self.labels_of(labels)
        if labels != YOURS:
            shown = self._fitted(labels)
        else:
            shown = self.snapshots[min(snapshot, len(self.snapshots) - 1)] if self.snapshots else self._fitted("none")
        self.regions_image.set_data(regions(shown.q, sure))
        for k in (0, 1):
            rows = [row for row, label in given.items() if label == k]
            self.marks[k].set_data(*self.x[rows].T)
            self.clouds[k].set_data(*shown.samples[shown.components == k].T)
        named = len(set(given.values())) == 2  # with a label of each class, the labels name the classes
        right = float(shown.right.mean())
        waiting = labels == YOURS and not self.trained
        return {
            "labels": f"{len(given)}",
            "accuracy" if named else "accuracy after matching": right if named else max(right, 1 - right),
            "nats to the truth": shown.nats,
            "state": "press Train: the labels have changed" if waiting else "fitted to these labels",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        labels, accuracy, nats, state = numbers.values()
        return (
            f"Two circles of points with {labels} labels. The regions of q have accuracy {accuracy:.3f}; the mixture "
            f"is {nats:.2f} nats from the truth; {state}."
        )

    def _fitted(self, labels: str) -> Look:
        if labels not in self.looks:
            mixture = pretrained.load(f"two_circles_labels_{labels.replace(' ', '_').replace(',', '')}")
            self.looks[labels] = look(mixture, self.test, self.test_labels, self.log_p)
        return self.looks[labels]


def look(mixture: Mixture, x: Tensor, y: Tensor, log_p: Tensor) -> Look:
    """What is shown of a mixture; x ``(N, 2)`` are held-out points with labels y and exact log-densities log_p."""
    with evaluating(mixture):
        q = mixture.posterior(plane(EXTENT, GRID))[..., 0].numpy()
        samples, k = mixture.sample(SAMPLES, Generator().manual_seed(0), labels=True)
        right = (mixture.posterior(x).argmax(-1) == y).numpy()
        return Look(q, samples, k, right, float((log_p - mixture.log_prob(x)).mean()))


def regions(q: np.ndarray, sure: float = 0.5) -> np.ndarray:
    """Colors ``(..., 3)`` of the likelier class, pale, and white where its probability is below ``sure``."""
    a, b = (0.55 * PAPER + 0.45 * np.array(to_rgb(color)) for color in COMPONENT_COLORS[:2])
    colors = np.where((q > 0.5)[..., None], a, b)
    return np.where((np.maximum(q, 1 - q) < sure)[..., None], PAPER, colors)


def partitions(fits: Mapping[str, tuple[Any, Tensor, Sequence[int]]], x: Tensor) -> Figure:
    """Panels of q(k | x): for each title a model, its labelled points ``(M, 2)`` and their labels."""
    figure = Figure(figsize=(2.55 * len(fits), 2.9), dpi=80, layout="constrained")
    figure.set_label("The plane in the colors of the likelier class under q(k | x), and the points of two circles.")
    for axes, (title, (model, points, labels)) in zip(
        np.atleast_1d(figure.subplots(1, len(fits), sharey=True)), fits.items(), strict=True
    ):
        tidy(axes, title, "x₁", "x₂" if axes is figure.axes[0] else "")
        with evaluating(model):
            q = model.posterior(plane(EXTENT, GRID))[..., 0].numpy()
        axes.imshow(regions(q), origin="lower", extent=(-EXTENT, EXTENT, -EXTENT, EXTENT))
        axes.plot(*x.T, ".", ms=2.4, color="#555555", mew=0)
        for k in sorted({int(label) for label in labels}):
            rows = torch.as_tensor(labels) == k
            style = {"color": COMPONENT_COLORS[k], "mec": "black", "label": f"labelled {CLASSES[k]}"}
            axes.plot(*points[rows].T, COMPONENT_MARKERS[k], ms=8, **style)
    return figure


def success(rates: Mapping[str, Sequence[float]], title: str, x: str, y: str = "accuracy, one mark a seed") -> Figure:
    """All seeds, none chosen: a column of marks for each setting, and their median as a line."""
    figure = Figure(figsize=(1.1 + 0.95 * len(rates), 2.9), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), title, x, y)
    for i, values in enumerate(rates.values()):
        spread = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [0.0]
        axes.plot(i + np.array(spread), values, "o", ms=5, color=COLORS["model"], alpha=0.7, mew=0)
        axes.plot([i - 0.32, i + 0.32], [np.median(values)] * 2, color=COLORS["truth"], lw=1.5)
    axes.set(ylim=(min(0.45, *(min(v) for v in rates.values())) - 0.03, 1.03))
    axes.set_xticks(range(len(rates)), list(rates))
    axes.axhline(1, color=COLORS["muted"], lw=0.8, ls=":")
    medians = ", ".join(f"{' '.join(name.split())} {np.median(values):.2f}" for name, values in rates.items())
    figure.set_label(f"Accuracy over seeds, a column of marks each; medians: {medians}.")
    return figure
