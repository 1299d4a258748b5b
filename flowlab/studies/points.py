"""Studies of points in the plane: a toy with known labels and an exact density, and models fitted to draws of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from flowlab.datasets import Toy
from flowlab.densities import evaluating
from flowlab.densities.mixtures import Interleaved
from flowlab.metrics import accuracy, ari
from flowlab.study import VARIANT, Record, Scores, Study, TableColumn, Trial

SUCCESS = 0.99  # the share of right points from which a seed counts as a success


class Points(NamedTuple):
    """What a variant is given: points without labels ``(N, D)``, and M ≥ 0 with labels, ``(M, D)`` and ``(M,)``."""

    x: Tensor
    labelled: Tensor
    labels: Tensor


@dataclass
class PointTrial(Trial):
    """A trial on points, and the fresh ones that it is judged by.

    Attributes:
        by_bayes: whether clusters are named by p(k | x), because no q is trained.
        points: what the model is given.
        test, test_labels: fresh points ``(N, D)`` and the true labels of them ``(N,)``.
    """

    by_bayes: bool = False
    points: Points | None = None
    test: Tensor = field(default_factory=lambda: torch.empty(0))
    test_labels: Tensor = field(default_factory=lambda: torch.empty(0))


Start = Callable[[Points, int, Generator], PointTrial]  # from points, how many components, and a source of noise


def _nats_to_the_truth(record: Record) -> float:
    return record["exact_log_prob"] - record["log_prob"]


def _right(row: list[Record]) -> list[float]:
    return [record["accuracy"] for record in row]


COLUMNS = (
    VARIANT,
    TableColumn(f"at least {SUCCESS:.0%}", lambda row: f"{sum(a >= SUCCESS for a in _right(row))} of {len(row)}"),
    TableColumn(
        "accuracy: median (least)",
        lambda row: f"{100 * median(_right(row)):.2f} % ({100 * min(_right(row)):.2f} %)",
    ),
    TableColumn("nats to the exact density", lambda row: f"{median(map(_nats_to_the_truth, row)):.3f}"),
    TableColumn("seconds", lambda row: f"{median(record.seconds for record in row):.1f}"),
)


@dataclass(frozen=True, kw_only=True)
class PointStudy(Study[PointTrial]):
    """A density with known labels, how many points of it are given, and what is fitted to them.

    Its settings are ``labels``, how many points come with their label, as balanced as the number allows; and
    ``effort``, the share of each variant's steps to take, below 1 only to try whether all works.

    Args:
        truth: the density.
        size: how many points of it are given, and how many fresh ones judge.
        variants: those that need no label; from (points, K, generator) a ``PointTrial``.
        labelled: those that need some.
    """

    truth: Toy
    size: int
    labelled: Mapping[str, Start] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=lambda: {"labels": 0, "effort": 1.0})
    columns: tuple[TableColumn, ...] = COLUMNS

    def names(self, labels: int = 0, **settings: Any) -> list[str]:
        return list(self.labelled if labels else self.variants)

    def check(self, variant: str, *, labels: int = 0, effort: float = 1.0, **others: Any) -> dict[str, Any]:
        """The data, as Python writes them, and the settings.

        Raises:
            ValueError: for a variant that does not exist or needs labels where there are none, and for other settings.
        """
        self._refuse(others)
        known = self.names(labels)
        if variant not in known:
            raise ValueError(
                f"With {labels} labels expected a variant among {', '.join(known) or 'none'}, but got {variant!r}."
            )
        if not 0 <= labels <= self.size or not 0 < effort <= 1:
            raise ValueError(f"Expected 0 to {self.size} labels and an effort in (0, 1], but got {labels}, {effort}.")
        return {"data": repr(self.truth), "labels": labels, "effort": effort}

    def trial(self, variant: str, seed: int = 0, *, labels: int = 0, effort: float = 1.0, **others: Any) -> PointTrial:
        """Draw the points of a seed, the same for all variants, and build the variant's model on them."""
        self.check(variant, labels=labels, effort=effort, **others)
        generator = Generator().manual_seed(seed)
        x, y = self.truth.labelled(self.size, generator)
        test, test_labels = self.truth.labelled(self.size, generator)
        first = _balanced(y, labels)
        points = Points(x, x[first], y[first])
        start = (self.labelled if labels else self.variants)[variant]
        trial = start(points, self.truth.components, generator)
        settings = trial.settings
        if not trial.fitted:
            objective = settings["objective"]
            if isinstance(objective, Interleaved):  # its first phase takes the same share of a shorter run
                objective = replace(objective, first=round(effort * objective.first))
            epochs = max(1, round(effort * settings["epochs"]))
            settings = {"seed": seed, **settings, "epochs": epochs, "objective": objective}
        return replace(trial, settings=settings, points=points, test=test, test_labels=test_labels)

    def score(self, trial: PointTrial) -> Scores:
        """Accuracy after matching, ARI and log-likelihood on the trial's fresh points, and the exact log-likelihood.

        Shares of 1, and nats a point.
        """
        q = trial.model.responsibilities if trial.by_bayes else trial.model.posterior
        with evaluating(trial.model):
            clusters = q(trial.test).argmax(-1)
            return {
                "accuracy": accuracy(trial.test_labels, clusters),
                "ari": ari(trial.test_labels, clusters),
                "log_prob": float(trial.model.log_prob(trial.test).mean()),
                "exact_log_prob": float(self.truth.log_prob(trial.test).mean()),
            }

    def line(self, record: Record) -> str:
        return (
            f"{record.variant:12} seed {record.seed:<4} accuracy {100 * record['accuracy']:6.2f} %   "
            f"ARI {record['ari']:.3f}   log p {record['log_prob']:.3f} (exact {record['exact_log_prob']:.3f})   "
            f"{record.seconds:.1f} s"
        )


def _balanced(y: Tensor, count: int) -> Tensor:
    """Rows of y, ``(count,)``, in order: the first of each class, then the second of each, as far as ``count`` goes."""
    nth = torch.nn.functional.one_hot(y).cumsum(0).gather(1, y[:, None])[:, 0]  # how often its label has come
    return nth.argsort(stable=True)[:count].sort().values
