"""A bound on a likelihood with one parameter, and the two divergences of two humps."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

LOG_2PI = math.log(2 * math.pi)


@functools.lru_cache
def points() -> np.ndarray:
    """60 points ``(N,)`` in three heaps, of which a mixture of two can explain two."""
    g = np.random.default_rng(8)
    return np.concatenate([g.normal(m, s, n) for m, s, n in ((-3.0, 0.6, 13), (0.0, 1.0, 27), (3.0, 0.8, 20))])


def log_joint(x: Any, theta: Any) -> np.ndarray:
    """log p(x, k; θ) of p(x; θ) = ½ N(x; 0, 1) + ½ N(x; θ, 1), ``(..., 2)`` in nats."""
    x, theta = np.broadcast_arrays(np.asarray(x, float), theta)
    return -0.5 * np.stack((x**2, (x - theta) ** 2), -1) - 0.5 * LOG_2PI - math.log(2)


def responsibilities(theta: float) -> np.ndarray:
    """r_n = p(k = 2 | x_n; θ), ``(N,)``: the E-step."""
    joint = log_joint(points(), theta)
    return np.exp(joint[:, 1] - logsumexp(joint, axis=-1))


def likelihood(theta: Any) -> np.ndarray:
    """Mean log p(x; θ) over the points, in nats, for each θ."""
    return logsumexp(log_joint(points(), np.asarray(theta)[..., None]), axis=-1).mean(-1)


def bound(theta: Any, r: np.ndarray) -> np.ndarray:
    """Mean over the points of Σ_k r_k log(p(x, k; θ)/r_k), in nats, for each θ: a parabola that stays below log p."""
    q = np.stack((1 - r, r), -1)  # (N, 2)
    joint = log_joint(points(), np.asarray(theta)[..., None])
    entropy = -np.sum(q * np.log(np.maximum(q, 1e-300)), -1).mean()
    return (q * joint).sum(-1).mean(-1) + entropy


def top(r: np.ndarray) -> float:
    """θ = Σ r_n x_n / Σ r_n: where the bound is highest, the M-step."""
    return float(r @ points() / r.sum())


WEIGHTS, SPREAD = np.array([0.6, 0.4]), 0.5  # of the two humps
SEPARATIONS = (0.5, 1.0, 1.2, 1.5, 2.0, 3.0)  # of the humps from the middle


def two_humps(x: Any, d: float) -> np.ndarray:
    """log p(x) = log(0.6 N(x; −d, ½²) + 0.4 N(x; d, ½²)), in nats."""
    left, right = (math.log(w) - 0.5 * ((x - m) / SPREAD) ** 2 for w, m in zip(WEIGHTS, (-d, d), strict=True))
    return np.logaddexp(left, right) - math.log(SPREAD) - 0.5 * LOG_2PI


@functools.lru_cache
def _entropy(d: float) -> float:
    """−E_p[log p] of the two humps, by the sum over a fine grid."""
    x = np.linspace(-d - 8 * SPREAD, d + 8 * SPREAD, 4001)
    log_p = two_humps(x, d)
    return float(-(np.exp(log_p) * log_p).sum() * (x[1] - x[0]))


def forward_kl(mu: Any, log_sigma: Any, d: float) -> np.ndarray:
    """KL(p ‖ q) of the humps p to q = N(mu, σ²), in nats: it asks for the mean and the variance of p only."""
    mean, variance = forward_best(d)[0], math.exp(2 * forward_best(d)[1])
    mu, log_sigma = np.asarray(mu), np.asarray(log_sigma)
    return log_sigma + 0.5 * LOG_2PI + 0.5 * (variance + (mean - mu) ** 2) * np.exp(-2 * log_sigma) - _entropy(d)


def reverse_kl(mu: Any, log_sigma: Any, d: float) -> np.ndarray:
    """KL(q ‖ p) of q = N(mu, σ²) to the humps p, in nats, by a sum over 241 points of q."""
    z = np.linspace(-6, 6, 241)
    w = np.exp(-0.5 * z**2)
    w /= w.sum()
    mu, log_sigma = np.asarray(mu), np.asarray(log_sigma)
    log_p = two_humps(mu[..., None] + np.exp(log_sigma)[..., None] * z, d)
    return -log_sigma - 0.5 * LOG_2PI - 0.5 - log_p @ w


def forward_best(d: float) -> tuple[float, float]:
    """The mean and log σ of p: no other q has a lower KL(p ‖ q)."""
    mean = float(WEIGHTS @ [-d, d])
    return mean, 0.5 * math.log(SPREAD**2 + d**2 - mean**2)


@functools.lru_cache
def reverse_best(d: float) -> list[tuple[float, float]]:
    """The minima (mu, log σ) of KL(q ‖ p) that are found from either hump, the deepest first; the others are local."""
    found: list[tuple[float, float, float]] = []
    for start in ((-d, math.log(SPREAD)), (d, math.log(SPREAD))):
        best = minimize(lambda v: float(reverse_kl(*v, d)), start, method="Nelder-Mead", options={"xatol": 1e-5})
        if all(abs(best.x[0] - mu) > 0.05 for _, mu, _ in found):
            found.append((float(best.fun), *(float(v) for v in best.x)))
    return [(mu, s) for _, mu, s in sorted(found)]
