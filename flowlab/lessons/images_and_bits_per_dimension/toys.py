"""Densities on eight gray levels and their scores, published likelihoods on three scales, and a bug museum."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import logsumexp

from flowlab.datasets import mnist
from flowlab.metrics import bits_per_dim, logit_log_det

LOG_2PI = math.log(2 * math.pi)

P = np.array([0.30, 0.06, 0.16, 0.04, 0.02, 0.10, 0.24, 0.08])  # the truth: how likely each of eight gray levels is
SEEN = 400  # whole numbers to train on, and as many to test on
NOISE = (np.arange(48) + 0.5) / 48  # u, at which means over u are taken


@functools.lru_cache
def shares(seed: int) -> np.ndarray:
    """The share of each level among ``SEEN`` draws of P: ``(8,)``."""
    return np.random.default_rng(seed).multinomial(SEEN, P) / SEEN


def log_density(x: Any, width: Any) -> np.ndarray:
    """log Σ_v w_v N(x; v + ½, σ²) in nats: a spike of the width σ on the middle of each bin, weights from training."""
    x, width = np.broadcast_arrays(np.asarray(x, float), width)
    z = (x[..., None] - np.arange(len(P)) - 0.5) / width[..., None]
    return logsumexp(np.log(shares(0)) - 0.5 * z**2, axis=-1) - np.log(width) - 0.5 * LOG_2PI


def score(width: Any, noise: float) -> np.ndarray:
    """Mean log p(v + ½ + a (u − ½)) over the test numbers and over u, in nats, for each σ: a = ``noise``."""
    width = np.asarray(width, float)
    u = NOISE if noise else np.array([0.5])
    x = np.arange(len(P))[:, None] + 0.5 + noise * (u - 0.5)  # (8, U)
    return log_density(x, width[..., None, None]).mean(-1) @ shares(1)


def ceiling(noise: float) -> float:
    """The truth's score on the same numbers, in nats: P(v) spread evenly over a width of ``noise``."""
    return float(shares(1) @ np.log(P)) - (math.log(noise) if noise else -math.inf)


PIXELS = 784
LAMBDAS = (1e-6, 1e-3, 0.05)
TEST_LOG_DET = 4619.95  # nats: the mean of logit_log_det, λ = 1e-6, over MNIST's 10,000 test images
# Published on MNIST, each in the unit of its paper: NICE arXiv:1410.8516; the next three MAF, arXiv:1705.07057, with
# λ = 1e-6; the last two as Residual Flow, arXiv:1906.02735, lists them.
PUBLISHED = {
    "NICE": (1980.50, "unit"),
    "Gaussian": (-1366.9, "logit"),
    "MAF (5)": (-1300.5, "logit"),
    "MADE MoG": (-1038.5, "logit"),
    "RealNVP, multi-scale": (1.06, "bits"),
    "Residual Flow": (0.97, "bits"),
}


def in_bits(value: float, scale: str) -> float:
    """A published number, in bits per dimension."""
    if scale == "bits":
        return value
    return float(bits_per_dim(value, PIXELS, scale=scale, log_det=TEST_LOG_DET if scale == "logit" else None))


@functools.lru_cache
def log_det(lambda_: float) -> float:
    """The mean log-det of [0, 1] → logit over the bundled test digits, in nats."""
    return float(logit_log_det(mnist.digits("test")[0].flatten(1), lambda_).mean())


def museum() -> dict[str, Callable]:
    """Three ways to make pixels v from 0 to 255 and noise u continuous; two have a mistake that is easily made."""
    return {
        "A": lambda v, u: v / 255 + u / 256,
        "B": lambda v, u: (v + u) / 256,
        "C": lambda v, u: (v + u) / 255,
    }
