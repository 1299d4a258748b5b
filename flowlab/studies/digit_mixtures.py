"""The mixture of flows on MNIST: digits 0 to 4 as in the thesis, all ten, and ten with 10 labels a class.

Three stages, of which the second and third are one run of ``fit``:

1. *Neighbors.* ``consistent_posterior`` on blurred, upright digits: small networks, many starts side by side, of which
   the one is kept whose loss is lowest. Points joined by a short walk from neighbor to neighbor share a cluster.
2. *Invariance.* A ConvNet q takes over these clusters, and then learns from turned, shifted, stretched and slanted
   copies: q must not change, must be sure, and must use all components alike (``mixtures.Invariance``).
3. *Flows.* Each component learns the images that q gives it, then all maximize the ELBO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from flowlab import evaluation, models
from flowlab.datasets.augment import affine, upright
from flowlab.densities import evaluating
from flowlab.densities.mixtures import Invariance, consistent_posterior
from flowlab.metrics import accuracy
from flowlab.models import SIZES, Size
from flowlab.studies.digits import ImageStudy, ImageTrial, Splits, Start, Started
from flowlab.study import SEEDS, VARIANT, Record, Scores, TableColumn, mean_of, read, setting


def features(images: Tensor, dims: int = 50) -> Tensor:
    """Upright, blurred, at half the size, then ``dims`` principal components: uint8 ``(N, 784)`` to ``(N, dims)``."""
    x = upright(images / 256).reshape(-1, 1, 28, 28)
    x = F.normalize(F.avg_pool2d(F.avg_pool2d(x, 3, 1, 1), 2).flatten(1).clamp_min(0).sqrt(), dim=1)
    x = x - x.mean(0)
    axes = torch.linalg.eigh(x.T @ x)[1][:, -dims:]
    return (x @ axes) / (x @ axes).std()


def by_neighbors(
    images: Tensor,
    components: int,
    labelled: tuple[Tensor, Tensor] | None = None,
    *,
    most: int = 10_000,
    starts: int = 32,
    walk: int = 3,
    steps: int = 300,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The first ``most`` images, and shares q(k | x) of them ``(N, K)``: clusters by walks between neighbors."""
    count = 0 if labelled is None else len(labelled[0])
    points = images[:most] if labelled is None else torch.cat((labelled[0], images[:most]))
    x = features(points)
    q = consistent_posterior(
        x,
        components,
        walk=walk,
        starts=starts,
        steps=steps,
        consistency=1.0,
        balance=1.0,
        labelled=(x[:count], labelled[1]) if labelled is not None and count else None,
        generator=generator,
    )
    with torch.no_grad():
        return points[count:], q(x[count:]).softmax(-1)


def first_of_each(labels: Tensor, count: int) -> Tensor:
    """Rows of the first ``count`` images of each class."""
    return torch.cat([(labels == c).nonzero()[:count, 0] for c in labels.unique()])


def cluster(
    size: Size, splits: Splits, generator: Generator, *, labels: int = 0, neighbors: bool = True, **objective: Any
) -> Started:
    """Stage 1, and what ``fit`` needs for the others. ``labels`` of each class are told, the other labels not read."""
    model = models.build(size.model, generator=generator)
    images, K = splits.train.images, model.density.components
    labelled = None
    if labels:
        rows = first_of_each(splits.train.labels, labels)
        labelled = (images[rows], splits.train.labels[rows])
    start = by_neighbors(images, K, labelled, generator=generator) if neighbors else None
    loss = Invariance(**{"change": affine, "start": start, "labelled": labelled} | objective)
    if loss.flows == 1:  # no density is learned, so none can say which step was best
        return model, images, {"objective": loss}
    return model, images, {"objective": loss, "validation": splits.validation.images}


def unchanged(images: Tensor, generator: Generator) -> Tensor:
    """x′ = x: no augmentation."""
    return images


VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "without neighbors": {"neighbors": False, "first": 0.0},
    "without augmentation": {"change": unchanged},
    "without balance": {"balance": 0.0},
    "without flows": {"flows": 1.0, "joint": 1.0},
    "ELBO alone": {"neighbors": False, "consistency": 0.0, "balance": 0.0, "first": 0.0, "flows": 0.0, "joint": 0.0},
}


def _start(row: list[Record]) -> str:
    """The accuracy of the first stage alone, where there was one."""
    values = [record["start"] for record in row if record["start"] is not None]
    return f"{100 * mean(values):.1f}" if values else "none"


COLUMNS = (
    TableColumn("study", lambda row: row[0].study, left=True),
    TableColumn("size", setting("size"), left=True),
    VARIANT,
    SEEDS,
    TableColumn("accuracy of q, %", mean_of("accuracy", 100, 2)),
    TableColumn("(least)", lambda row: f"({100 * min(record['accuracy'] for record in row):.2f})"),
    TableColumn("stage 1 alone, %", _start),
    TableColumn("NMI", lambda row: f"{mean(record['nmi'] for record in row):.3f}"),
    TableColumn("by Bayes, %", mean_of("by_bayes", 100, 1)),
    TableColumn("bits/dim", lambda row: f"{mean(record['bits_per_dim'] for record in row):.3f}"),
)


@dataclass(frozen=True, kw_only=True)
class MixtureStudy(ImageStudy):
    """A mixture of flows on digits; its variants leave out one ingredient at a time."""

    start: Start = cluster
    variants: Mapping[str, Any] = field(default_factory=lambda: VARIANTS)
    columns: tuple[TableColumn, ...] = COLUMNS

    def score(self, trial: ImageTrial) -> Scores:
        """How well the components of a trained trial stand for the digits, and what its density is worth.

        Shares of 1 after matching, on the test images unless it says otherwise: "accuracy" and "nmi" of q, "by_bayes"
        the accuracy of p(k | x), "start" that of the first stage on its own images, None where there was none.
        """
        model, test, validation = trial.model, trial.splits.test, trial.splits.validation
        metrics = evaluation.evaluate(model, *test)["metrics"]
        middles = ((v + 0.5) / model.levels for v in test.images.split(1000))
        with evaluating(model):
            by_bayes = torch.cat([model.density.responsibilities(x).argmax(-1) for x in middles])
        start = trial.settings["objective"].start
        return {
            "accuracy": metrics["accuracy"],
            "nmi": metrics["nmi"],
            "validation_accuracy": evaluation.clustering(model, *validation)["accuracy"],
            "by_bayes": accuracy(test.labels, by_bayes),
            "start": start and accuracy(trial.splits.train.labels[: len(start[1])], start[1].argmax(-1)),
            "bits_per_dim": metrics["bits_per_dim"],
        }

    def line(self, record: Record) -> str:
        return f"seed {record.seed}, {record.variant}: {record['accuracy']:.2%}, {record.seconds:.0f} s"


FIVE = MixtureStudy(
    name="mixture_mnist_five",
    about="A mixture of five flows on the digits 0 to 4, without labels (Pires' thesis, its later version)",
    sizes=SIZES["mixture_mnist_five"],
    digits=(0, 1, 2, 3, 4),
)

TEN = MixtureStudy(
    name="mixture_mnist",
    about="A mixture of ten flows on the ten digits, without labels",
    sizes=SIZES["mixture_mnist"],
)

LABELS = MixtureStudy(
    name="mixture_mnist_labels",
    about="A mixture of ten flows on the ten digits, with 10 labels a class",
    sizes=SIZES["mixture_mnist_labels"],
    start=partial(cluster, labels=10),
)

MIXTURES = (FIVE, TEN, LABELS)


def known() -> list[Record]:
    """The records that come with the package: what `flowlab ablation` gave, which its table names."""
    return read(Path(__file__).parent / "ablation.json")
