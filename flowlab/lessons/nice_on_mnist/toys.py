"""Digits and masks for NICE, samples that are cooled exactly, and a bug museum of Langevin steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import betaincinv, expit, logit
from torch import Generator, Tensor

from flowlab import pretrained
from flowlab.datasets import mnist
from flowlab.densities import Flow
from flowlab.restoration import widths

SIDE = 28
D = SIDE * SIDE
BITS = D * math.log(2)  # nats of one bit per dimension


@functools.lru_cache
def shipped() -> Flow:
    """The NICE that comes with the package: a density of pixels in [0, 1]."""
    return pretrained.load("nice_mnist").density


def masks() -> dict[str, Tensor]:
    """By name, which pixels are hidden: ``(784,)`` booleans."""
    i, j = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    random = torch.rand(SIDE, SIDE, generator=Generator().manual_seed(0))
    found = {
        "top half": i < 14,
        "bottom half": i >= 14,
        "left half": j < 14,
        "right half": j >= 14,
        "a square in the middle": (i - 13.5).abs().maximum((j - 13.5).abs()) < 5,
        "three pixels in four": random < 0.75,
        "everything": i >= 0,
    }
    return {name: mask.flatten() for name, mask in found.items()}


@functools.lru_cache
def test_digits() -> tuple[Tensor, Tensor]:
    """The bundled test digits with their noise, (v + u)/256 ``(1000, 784)``, and labels; the same at each call."""
    v, labels = mnist.digits("test")
    return (v.flatten(1) + torch.rand(len(v), D, generator=Generator().manual_seed(0))) / 256, labels


def cooled(z: np.ndarray, temperature: float) -> np.ndarray:
    """Logistic draws z turned into draws of the density ∝ p^(1/T), each to the same quantile: log of odds of a Beta.

    With u = σ(z), p(z) = u(1 − u) and dz = du/(u(1 − u)): so p^(1/T) dz is u^(1/T − 1) (1 − u)^(1/T − 1) du, a
    Beta(1/T, 1/T).
    """
    if temperature < 1e-3:
        return np.zeros_like(z)
    half = np.linspace(-17, 0, 400)
    quantile = logit(betaincinv(1 / temperature, 1 / temperature, expit(half)))
    return np.interp(z, np.concatenate((half, -half[-2::-1])), np.concatenate((quantile, -quantile[-2::-1])))


def typical(flow: Flow) -> tuple[float, float, float]:
    """Of a NICE with logistic prior, in nats: mean and deviation of log p over its samples, and log p of f⁻¹(0).

    log p of a logistic draw has the mean −2 and the variance 4 − π²/3, and log p(0) = −2 log 2; log det S is added.
    """
    log_det = -float(widths(flow).log().sum())
    return log_det - 2 * D, math.sqrt(D * (4 - math.pi**2 / 3)), log_det - 2 * math.log(2) * D


def museum() -> dict[str, Callable]:
    """Four rules for filling in, from code and from print. One is Langevin."""
    return {
        "A": lambda x, score, a, eps: x + a * score(x) + math.sqrt(a) * eps,
        "B": lambda x, score, a, eps: x + a * score(x) + a * eps,
        "C": lambda x, score, a, eps: x + a * score(x) + math.sqrt(2 * a) * eps,
        "D": lambda x, score, a, eps: x + 2 * a * score(x) + math.sqrt(2 * a) * eps,
    }
