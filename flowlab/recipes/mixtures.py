"""The mixture of flows on MNIST: digits 0 to 4 as in the thesis, all ten, and ten with 10 labels a class.

Three stages, of which the second and third are one run of ``fit``:

1. *Neighbors.* ``consistent_posterior`` on blurred, upright digits: small networks, many starts side by side, of which
   the one is kept whose loss is lowest. Points joined by a short walk from neighbor to neighbor share a cluster.
2. *Invariance.* A ConvNet q takes over these clusters, and then learns from turned, shifted, stretched and slanted
   copies: q must not change, must be sure, and must use all components alike (``mixtures.Invariance``).
3. *Flows.* Each component learns the images that q gives it, then all maximize the ELBO.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab import evaluation, models
from flowlab.datasets.augment import affine, upright
from flowlab.densities.mixtures import Invariance, consistent_posterior
from flowlab.metrics import accuracy
from flowlab.models import SIZES, Size
from flowlab.recipes.base import Recipe, Splits, Trial
from flowlab.training import fit


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
        labelled=(x[:count], labelled[1]) if count else None,
        generator=generator,
    )
    with torch.no_grad():
        return points[count:], q(x[count:]).softmax(-1)


def first_of_each(labels: Tensor, count: int) -> Tensor:
    """Rows of the first ``count`` images of each class."""
    return torch.cat([(labels == c).nonzero()[:count, 0] for c in labels.unique()])


def cluster(
    size: Size, splits: Splits, generator: Generator, *, labels: int = 0, neighbors: bool = True, **objective: Any
) -> tuple[nn.Module, Any, dict[str, Any]]:
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


FIVE = Recipe(
    "mixture_mnist_five",
    "A mixture of five flows on the digits 0 to 4, without labels (Pires' thesis, its later version)",
    SIZES["mixture_mnist_five"],
    digits=(0, 1, 2, 3, 4),
    start=cluster,
)

TEN = Recipe(
    "mixture_mnist", "A mixture of ten flows on the ten digits, without labels", SIZES["mixture_mnist"], start=cluster
)

LABELS = Recipe(
    "mixture_mnist_labels",
    "A mixture of ten flows on the ten digits, with 10 labels a class",
    SIZES["mixture_mnist_labels"],
    start=partial(cluster, labels=10),
)

MIXTURES = (FIVE, TEN, LABELS)


# --- what each ingredient gives -----------------------------------------------------------------------------------


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


class Record(NamedTuple):
    """What one seed of one variant gave, as shares of 1 after matching, on the test images unless it says otherwise."""

    recipe: str
    variant: str
    size: str
    seed: int
    accuracy: float  # of q
    nmi: float
    validation_accuracy: float
    by_bayes: float  # accuracy of p(k | x)
    start: float | None  # accuracy of the first stage, on its own images
    bits_per_dim: float
    seconds: float
    changes: dict[str, Any]


def run(recipe: Recipe, variant: str = "all", seed: int = 0, *, size: str = "quick", **changes: Any) -> Record:
    """Fit one seed of a recipe with one ingredient left out, and score it; ``changes`` are to the size's training.

    Raises:
        ValueError: for a variant or size that does not exist.
    """
    if variant not in VARIANTS:
        raise ValueError(f"The variants are {', '.join(map(repr, VARIANTS))}, but {variant!r} was asked for.")
    began = time.perf_counter()
    own = Recipe(recipe.name, recipe.about, recipe.sizes, recipe.digits, partial(recipe.start, **VARIANTS[variant]))
    trial = own.trial(size, seed, **changes)
    history = fit(trial.model, trial.data, progress=False, **trial.settings)
    if history.step < history.total:  # a run that was stopped says nothing of its recipe
        raise KeyboardInterrupt
    return Record(
        recipe.name, variant, size, seed, **score(trial), seconds=round(time.perf_counter() - began, 1), changes=changes
    )


@torch.no_grad()
def score(trial: Trial) -> dict[str, Any]:
    """How well the components of a trained trial stand for the digits, and what its density is worth."""
    model, test, validation = trial.model, trial.splits.test, trial.splits.validation
    metrics = evaluation.evaluate(model, *test)["metrics"]
    middles = ((v + 0.5) / model.levels for v in test.images.split(1000))
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


def ablation(
    seeds: Sequence[int],
    variants: Sequence[str] = tuple(VARIANTS),
    *,
    recipe: Recipe = TEN,
    size: str = "quick",
    path: Path | None = None,
    **changes: Any,
) -> Iterator[Record]:
    """All variants on all seeds, one record each as it is ready.

    With a ``path``, all records are in that JSON file after each; those that it holds of this recipe, size and changes
    are not run again.
    """
    known = [] if path is None or not path.exists() else [Record(**one) for one in json.loads(path.read_text())]
    for seed in seeds:
        for variant in variants:
            same = [r for r in known if r[:4] == (recipe.name, variant, size, seed) and r.changes == changes]
            record = same[0] if same else run(recipe, variant, seed, size=size, **changes)
            if not same:
                known.append(record)
            if path is not None and not same:
                part = path.with_name(f".{path.name}.{os.getpid()}.part")
                part.write_text(json.dumps([one._asdict() for one in known], indent=1))
                os.replace(part, path)
            yield record


def known() -> list[Record]:
    """The records that come with the package: what `flowlab ablation` gave, which its table names."""
    return [Record(**one) for one in json.loads((Path(__file__).parent / "ablation.json").read_text())]


def table(records: Sequence[Record]) -> str:
    """Mean and spread over seeds of each recipe, size and variant, in percent where it says so."""
    lines = [f"{'recipe':20} {'size':8} {'variant':20} seeds  accuracy of q, % (least)   NMI    by Bayes, %  bits/dim"]
    for key in dict.fromkeys(record[:3] for record in records):
        own = [record for record in records if record[:3] == key]
        columns = torch.tensor([(r.accuracy, r.nmi, r.by_bayes, r.bits_per_dim) for r in own])
        a, n, b, bits = columns.mean(0).tolist()
        spread = columns.std(0).tolist() if len(own) > 1 else [float("nan")] * 4
        recipe, variant, size = key
        lines.append(
            f"{recipe:20} {size:8} {variant:20} {len(own):5}  {100 * a:6.2f} ± {100 * spread[0]:5.2f}  "
            f"({100 * float(columns[:, 0].min()):6.2f})  {n:.3f}  {100 * b:5.1f} ± {100 * spread[2]:4.1f}  {bits:8.3f}"
        )
    return "\n".join(lines)
