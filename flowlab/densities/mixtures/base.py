"""KL divergence, mutual information, and checks of labels, which the losses of the mixtures share."""

from __future__ import annotations

import torch
from torch import Tensor


def mutual_information(log_q: Tensor) -> Tensor:
    """H(mean q) − mean H(q), ``(..., N, K)`` to ``(...)`` in nats.

    It is 0 where q is the same for all x, and log K where each q is sure and all components are equally large.
    """
    q = log_q.exp()
    return torch.special.entr(q.mean(-2)).sum(-1) + (q * log_q).sum(-1).mean(-1)


def divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q ‖ p) = Σ_k q_k (log q_k − log p_k), in nats: ``(..., K)`` to ``(...)``."""
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def check_labels(points: Tensor, y: Tensor, K: int) -> None:
    """ValueError unless there are points, and a whole number from 0 to K − 1 for each."""
    check_pairs(points, y)
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or int(y.min()) < 0 or int(y.max()) >= K:
        raise ValueError(
            f"Expected whole labels (N,) from 0 to {K - 1}, one for each component, but got labels from "
            f"{y.min().item():.4g} to {y.max().item():.4g} of shape {tuple(y.shape)} and {y.dtype}."
        )


def check_pairs(points: Tensor, labels: Tensor) -> None:
    """ValueError unless there are points, and as many labels, or rows of shares."""
    if len(points) == 0 or len(points) != len(labels):
        raise ValueError(
            f"Expected at least one labelled point and a label for each, but got {len(points)} and {len(labels)}."
        )
