"""What a likelihood is worth in bits per dimension, how good a clustering is, and how good the posterior q.

Likelihoods of pixels come on three scales that must never stand in one column: nats of a density on [0, 1], nats of a
density on the logits, and bits per dimension, in which all can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Calibration(NamedTuple):
    """How often q is right when it says it is sure: one entry for each bin of confidence that holds points."""

    confidence: np.ndarray  # mean of the largest q in the bin
    accuracy: np.ndarray  # share of its points that are right
    count: np.ndarray  # type: ignore[assignment]  # points in it; a tuple has a method of that name, not needed here
    error: float  # Σ count/N · |accuracy − confidence|, the expected calibration error


class Evidence(NamedTuple):
    """What n draws x of q say of log Z = log ∫ p̃(x) dx, by their weights w = p̃(x)/q(x); each ``(...)``, in nats."""

    bound: Tensor  # mean log w, of which the expectation is log Z − KL(q‖p): never above log Z but by luck
    error: Tensor  # the standard error of the bound
    estimate: Tensor  # log mean w, which comes to log Z as n grows, if q is somewhere near to all that p̃ holds
    effective: Tensor  # (Σ w)²/(n Σ w²), the share of draws that count: 1 where q = p, 1/n where one draw has it all


Labels = Tensor | np.ndarray | Sequence[int]  # whole numbers from 0, (N,)

SCALES = ("integers", "unit", "logit")


def bits_per_dim(
    nats: float | Tensor, dims: int, *, scale: str, log_det: float | Tensor | None = None, levels: int = 256
) -> float | Tensor:
    """−log₂ P(v)/D in bits per dimension, from a mean log-likelihood in nats a sample of D = ``dims`` dimensions.

    ``scale`` says what the nats are of; there is no default, since this is where published numbers get mixed up:

    - "integers": log P(v), as ``Dequantized`` gives it. Bits are −LL/(D ln 2).
    - "unit": a density of x = (v + u)/levels on [0, 1]. Bits are log₂(levels) − LL/(D ln 2): 8 − LL/(D ln 2) for 256.
    - "logit": a density of logit(λ + (1 − 2λ) x). Bits are log₂(levels) − (LL + log_det)/(D ln 2), where ``log_det``
      is the mean of ``logit_log_det`` with the same λ over the same images.

    Raises:
        ValueError: for another scale, for a ``log_det`` that is missing or does not belong there, and where the bits
            come out negative: no code is shorter than nothing, so the scale or the dimensions are not what was said.
    """
    bits = -(nats - _offset(dims, scale, log_det, levels)) / (dims * math.log(2))
    lowest = float(torch.as_tensor(bits).min())
    if lowest < 0:
        raise ValueError(
            f"These nats would be {lowest:.3g} bits per dimension, but no code is shorter than nothing. Are they on "
            f"the scale {scale!r}, of {dims} dimensions, with noise of the width of a level?"
        )
    return bits


def nats(
    bits: float | Tensor, dims: int, *, scale: str, log_det: float | Tensor | None = None, levels: int = 256
) -> float | Tensor:
    """The log-likelihood in nats on ``scale`` that is ``bits`` per dimension: undoes ``bits_per_dim``, which see."""
    return _offset(dims, scale, log_det, levels) - bits * dims * math.log(2)


def logit_log_det(images: Tensor, lambda_: float = 1e-6, *, levels: int = 256) -> Tensor:
    """E_u log |det ∂z/∂x| of z = logit(λ + (1 − 2λ) x), x = (v + u)/levels: ints ``(..., D)`` to ``(...)``, in nats.

    LL on [0, 1] = LL on the logits + its mean over the images. The mean over u is exact, bin by bin, from
    ∫ log y dy = y log y − y. On MNIST's 10,000 test images with λ = 1e-6 it is 4619.95 nats.

    Raises:
        TypeError, ValueError: for images that are no whole numbers from 0 to ``levels`` − 1.
    """
    if images.is_floating_point():
        raise TypeError(f"logit_log_det expected whole numbers, such as uint8 pixels, but got {images.dtype}.")
    if images.numel() and not 0 <= int(images.min()) <= int(images.max()) < levels:
        raise ValueError(
            f"logit_log_det expected whole numbers from 0 to {levels - 1}, but got {int(images.min())} to "
            f"{int(images.max())}. Say how many levels there are with levels=."
        )
    y = lambda_ + (1 - 2 * lambda_) * torch.arange(levels + 1, dtype=torch.float64) / levels  # the edges of the bins
    integral = torch.special.xlogy(y, y) - torch.special.xlogy(1 - y, 1 - y) - 2 * y  # of log y + log(1 − y)
    table = math.log(1 - 2 * lambda_) - integral.diff() * levels / (1 - 2 * lambda_)
    return table.to(images.device)[images.long()].sum(-1)


def _offset(dims: int, scale: str, log_det: float | Tensor | None, levels: int) -> float | Tensor:
    """What to add to log P(v) to get the log-likelihood on another scale, in nats."""
    if scale not in SCALES:
        raise ValueError(f"Expected a scale among {', '.join(map(repr, SCALES))}, but got {scale!r}.")
    if dims < 1 or levels < 2:
        raise ValueError(f"Expected at least 1 dimension and 2 levels, but got {dims} and {levels}.")
    if (scale == "logit") != (log_det is not None):
        raise ValueError(
            "Nats of logits need log_det, the mean of logit_log_det with the same λ over the same images."
            if log_det is None
            else f"A log_det of the logit belongs to the scale 'logit', but the scale given is {scale!r}."
        )
    return {"integers": 0.0, "unit": 1.0, "logit": 1.0}[scale] * dims * math.log(levels) - (log_det or 0.0)


def evidence(log_w: Tensor) -> Evidence:
    """A lower bound on log Z and an estimate of it, from log w = log p̃(x) − log q(x) for n draws x of q: ``(..., n)``.

    The estimate is unbiased for Z, so for log Z it is low on average, and less so for more draws. Where no draw came
    from a part of p̃, neither number knows of it.

    Raises:
        ValueError: for fewer than two draws.
    """
    n = log_w.shape[-1] if log_w.ndim else 0
    if n < 2:
        raise ValueError(f"evidence expected at least two draws on the last axis, but got shape {tuple(log_w.shape)}.")
    estimate = log_w.logsumexp(-1) - math.log(n)
    effective = (2 * log_w.logsumexp(-1) - (2 * log_w).logsumexp(-1)).exp() / n
    return Evidence(log_w.mean(-1), log_w.std(-1) / math.sqrt(n), estimate, effective)


def contingency(labels: Labels, clusters: Labels) -> np.ndarray:
    """How many points of class c (row) fell into cluster k (column): ``(C, K)`` counts, from labels ``(N,)`` each.

    Raises:
        ValueError: when they are not two equally long lists of whole numbers from 0.
    """
    y, k = _whole(labels, "labels"), _whole(clusters, "clusters")
    if len(y) != len(k):
        raise ValueError(f"Expected a cluster for each label, but got {len(y)} labels and {len(k)} clusters.")
    table = np.zeros((y.max() + 1, k.max() + 1), dtype=np.int64)
    np.add.at(table, (y, k), 1)
    return table


def matching(labels: Labels, clusters: Labels) -> dict[int, int]:
    """Which cluster stands for which class, one to one, so that most points are right: {cluster: class}.

    The Hungarian algorithm (Kuhn, 1955) on the contingency table. Where there are more clusters than classes, some
    stand for none, and all their points are wrong.
    """
    return _matching(contingency(labels, clusters))


def accuracy(labels: Labels, clusters: Labels) -> float:
    """The share of points whose cluster stands for their class, after the best ``matching``: 0 to 1."""
    table = contingency(labels, clusters)
    return float(sum(table[c, k] for k, c in _matching(table).items()) / table.sum())


def nmi(labels: Labels, clusters: Labels) -> float:
    """I(y; k) / ½[H(y) + H(k)], the normalized mutual information: 0 for independent, 1 for the same partition.

    Two partitions of one part each are the same one, so theirs is 1.
    """
    P = contingency(labels, clusters) / len(labels)
    H_y, H_k, H_yk = (_entropy(p) for p in (P.sum(1), P.sum(0), P))
    if H_y == H_k == 0:
        return 1.0
    return min(max((H_y + H_k - H_yk) / (0.5 * (H_y + H_k)), 0.0), 1.0)  # rounding must not lead outside


def ari(labels: Labels, clusters: Labels) -> float:
    """The adjusted Rand index: agreement of two partitions on pairs of points, 0 in the mean by chance, 1 at most.

    With C(n) = n (n − 1)/2 pairs among n points and the contingency table n_ck (Hubert and Arabie, 1985, eq. 5):

        (Σ C(n_ck) − E) / (½[Σ C(n_c·) + Σ C(n_·k)] − E),     E = Σ C(n_c·) Σ C(n_·k) / C(N)
    """
    table = contingency(labels, clusters)
    both, y, k, all_pairs = (_pairs(n) for n in (table, table.sum(1), table.sum(0), table.sum()))
    if y == k and y in (0, all_pairs):  # one part each, or each point alone: the same partition
        return 1.0
    chance = y * k / all_pairs
    return (both - chance) / (0.5 * (y + k) - chance)


@torch.no_grad()
def bound_gap(model: Any, x: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(x) − ELBO(x) = KL(q(k | x) ‖ p(k | x)) ≥ 0 for a mixture: ``(..., D)`` to ``(...)``, in nats.

    Zero says that q is the exact posterior. It does not say that the model is good.
    """
    return model.log_prob(x) - model.elbo(x, temperature).total


def calibration(probabilities: Tensor, labels: Labels, bins: int = 10) -> Calibration:
    """The reliability of q ``(N, K)`` against labels ``(N,)``, in equal bins of its confidence (Guo et al., 2017).

    Clusters have no names, so each first stands for the class that ``matching`` gives it.

    Raises:
        ValueError: for probabilities of another shape or whose rows do not sum to one, and for fewer than one bin.
    """
    q = torch.as_tensor(probabilities).detach().cpu().double().numpy()
    y = _whole(labels, "labels")
    if q.ndim != 2 or len(q) != len(y) or not np.allclose(q.sum(-1), 1, atol=1e-4) or q.min() < 0:
        raise ValueError(f"calibration expected ({len(y)}, K) probabilities, rows summing to one, but got {q.shape}.")
    if bins < 1:
        raise ValueError(f"calibration expected at least one bin, but got {bins}.")
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


def _entropy(p: np.ndarray) -> float:
    """−Σ p log p in nats, where 0 log 0 = 0."""
    p = p[p > 0]
    return -float((p * np.log(p)).sum())


def _pairs(n: np.ndarray) -> float:
    """Σ n (n − 1)/2: how many pairs there are within groups of n."""
    n = n.astype(np.float64)  # where a product of counts does not overflow
    return float((n * (n - 1) / 2).sum())


def _whole(values: Labels, what: str) -> np.ndarray:
    numbers = torch.as_tensor(values).detach().cpu().numpy()
    if numbers.ndim != 1 or len(numbers) == 0 or numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise ValueError(
            f"Expected {what} as whole numbers from 0, of shape (N,) with N of at least 1, but got {numbers.dtype} of "
            f"shape {numbers.shape}."
        )
    return numbers
