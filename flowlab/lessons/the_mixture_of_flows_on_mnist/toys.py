"""The shipped mixtures, the digits that they were made for, and who takes which."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from flowlab import pretrained
from flowlab.datasets import mnist
from flowlab.densities import Dequantized
from flowlab.metrics import contingency


def middle(v: Tensor) -> Tensor:
    """Whole pixels as the middle of their bins, (v + ½)/256: what q looks at."""
    return (v + 0.5) / 256


@functools.lru_cache
def five_digits(each: int = 120) -> tuple[Tensor, Tensor]:
    """The first ``each`` bundled training digits of each of 0 to 4: whole numbers ``(N, 784)``, labels ``(N,)``."""
    v, y = mnist.digits("train")
    rows = torch.cat([(y == digit).nonzero().flatten()[:each] for digit in range(5)])
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return v[rows].flatten(1), y[rows]


@functools.lru_cache
def model_named(name: str) -> Dequantized:
    """A mixture that comes with the package, loaded once."""
    return pretrained.load(name)


@functools.lru_cache
def test_digits(name: str) -> tuple[Tensor, Tensor]:
    """The bundled test digits that the model of that name was made for: rows ``(N, 784)`` uint8, labels ``(N,)``."""
    images, labels = mnist.digits("test")
    rows = torch.isin(labels, torch.tensor(pretrained.cards()[name]["plan"]["digits"]))
    return images[rows].flatten(1), labels[rows]


@torch.no_grad()
def clusters(model: Dequantized, v: Tensor) -> Tensor:
    """argmax_k q(k | x), ``(N, 784)`` to ``(N,)``."""
    return model.density.posterior(middle(v)).argmax(-1)


def taken(model: Dequantized, v: Tensor, labels: Tensor) -> np.ndarray:
    """Share of each digit (row) in what a component takes (column) of the images: columns sum to one, or are 0."""
    counts = np.zeros((int(labels.max()) + 1, model.density.components))
    found = contingency(labels, clusters(model, v))
    counts[:, : found.shape[1]] = found
    return counts / counts.sum(0).clip(1)
