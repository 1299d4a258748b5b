"""How good is a clustering, and how good is the posterior q? Scores that need the labels, and two that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Calibration(NamedTuple):
    """How often q is right when it says it is sure: one entry for each bin of confidence that holds points."""

    confidence: np.ndarray  # mean of the largest q in the bin
    accuracy: np.ndarray  # share of its points that are right
    count: np.ndarray  # points in it
    error: float  # Σ count/N · |accuracy − confidence|, the expected calibration error


def contingency(labels: Tensor | Sequence[int], clusters: Tensor | Sequence[int]) -> np.ndarray:
    """How many points of class c (row) fell into cluster k (column): ``(C, K)`` counts, from labels ``(N,)`` each.

    Raises:
        ValueError: when they are not two equally long lists of whole numbers from 0.
    """
    y, k = _whole(labels, "labels"), _whole(clusters, "clusters")
    if len(y) != len(k):
        raise ValueError(f"Expected a cluster for each label, but came {len(y)} labels and {len(k)} clusters.")
    table = np.zeros((y.max() + 1, k.max() + 1), dtype=np.int64)
    np.add.at(table, (y, k), 1)
    return table


def matching(labels: Tensor | Sequence[int], clusters: Tensor | Sequence[int]) -> dict[int, int]:
    """Which cluster stands for which class, one to one, so that most points are right: {cluster: class}.

    The Hungarian algorithm (Kuhn, 1955) on the contingency table. Where there are more clusters than classes, some
    stand for none, and all their points are wrong.
    """
    return _matching(contingency(labels, clusters))


def accuracy(labels: Tensor | Sequence[int], clusters: Tensor | Sequence[int]) -> float:
    """The share of points whose cluster stands for their class, after the best ``matching``: 0 to 1."""
    table = contingency(labels, clusters)
    return float(sum(table[c, k] for k, c in _matching(table).items()) / table.sum())


def nmi(labels: Tensor | Sequence[int], clusters: Tensor | Sequence[int]) -> float:
    """I(y; k) / ½[H(y) + H(k)], the normalized mutual information: 0 for independent, 1 for the same partition."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(*_pair(labels, clusters)))


def ari(labels: Tensor | Sequence[int], clusters: Tensor | Sequence[int]) -> float:
    """The share of pairs of points on which two partitions agree, adjusted so that chance has 0 (Hubert and Arabie)."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_pair(labels, clusters)))


@torch.no_grad()
def bound_gap(model: Any, x: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(x) − ELBO(x) = KL(q(k | x) ‖ p(k | x)) ≥ 0 for a mixture: ``(..., D)`` to ``(...)``, in nats.

    Zero says that q is the exact posterior. It does not say that the model is good.
    """
    return model.log_prob(x) - model.elbo(x, temperature).total


def calibration(probabilities: Tensor, labels: Tensor | Sequence[int], bins: int = 10) -> Calibration:
    """The reliability of q ``(N, K)`` against labels ``(N,)``, in equal bins of its confidence (Guo et al., 2017).

    Clusters have no names, so each first stands for the class that ``matching`` gives it.

    Raises:
        ValueError: for probabilities of another shape or whose rows do not sum to one, and for fewer than one bin.
    """
    q = torch.as_tensor(probabilities).detach().cpu().double().numpy()
    y = _whole(labels, "labels")
    if q.ndim != 2 or len(q) != len(y) or not np.allclose(q.sum(-1), 1, atol=1e-4) or q.min() < 0:
        raise ValueError(f"calibration expected ({len(y)}, K) probabilities, rows summing to one, but came {q.shape}.")
    if bins < 1:
        raise ValueError(f"calibration expected at least one bin, but came {bins}.")
    k, sure = q.argmax(-1), q.max(-1)
    stands_for = matching(y, k)
    right = np.array([stands_for.get(int(j), -1) for j in k]) == y
    b = np.minimum((sure * bins).astype(int), bins - 1)
    N = np.bincount(b, minlength=bins)
    held = N > 0
    confidence = np.bincount(b, sure, bins)[held] / N[held]
    hits = np.bincount(b, right, bins)[held] / N[held]
    return Calibration(confidence, hits, N[held], float((N[held] * abs(hits - confidence)).sum() / len(y)))


def _matching(table: np.ndarray) -> dict[int, int]:
    from scipy.optimize import linear_sum_assignment

    classes, clusters = linear_sum_assignment(table, maximize=True)
    return {int(k): int(c) for c, k in zip(classes, clusters, strict=True)}


def _pair(labels: Tensor | Sequence[int], clusters: Tensor | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    contingency(labels, clusters)  # refuses what is no pair of labels
    return _whole(labels, "labels"), _whole(clusters, "clusters")


def _whole(values: Tensor | Sequence[int], what: str) -> np.ndarray:
    values = torch.as_tensor(values).detach().cpu().numpy()
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iu" or values.min() < 0:
        raise ValueError(
            f"Expected {what} as whole numbers from 0, of shape (N,) with N of at least 1, but came {values.dtype} of "
            f"shape {values.shape}."
        )
    return values
