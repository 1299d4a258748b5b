"""The shipped Glow on digits: latents and back, attributes and their directions, and images that are no digits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab import pretrained
from flowlab.bijections import scales
from flowlab.datasets import mnist
from flowlab.datasets.augment import slant, thickness
from flowlab.densities import Dequantized

SIDE = 28
D = SIDE**2


@functools.lru_cache
def model() -> Dequantized:
    """The multi-scale flow that comes with the package."""
    return pretrained.load("glow_mnist")


def levels() -> Tensor:
    """The level of each latent, ``(784,)``: 0 for the fine ones, which leave first, and 1 for the coarse ones."""
    return scales(model().density.bijection, (D,))


@torch.no_grad()
def encode(v: Tensor, seed: int = 0) -> Tensor:
    """The latents of digits with noise: whole numbers ``(n, 784)`` to ``(n, 784)``."""
    u = torch.rand(v.shape, generator=torch.Generator().manual_seed(seed))
    return model().density.bijection(model().dequantize(v, u))[0]


@torch.no_grad()
def decode(z: Tensor) -> Tensor:
    """The images of latents, cut off at [0, 1]: ``(n, 784)`` to ``(n, 784)``."""
    return model().density.bijection.inverse(z)[0].clamp(0, 1)


@functools.lru_cache
def training() -> tuple[Tensor, Tensor, Tensor]:
    """The bundled training digits in [0, 1], ``(5000, 784)``, half their squared lengths, and their labels."""
    v, labels = mnist.digits("train")
    x = (v.flatten(1) + 0.5) / 256
    return x, x.square().sum(-1) / 2, labels


def nearest(x: Tensor) -> tuple[Tensor, Tensor]:
    """For images ``(n, 784)`` in [0, 1] the nearest bundled training digit, its row and its distance: ``(n,)`` each."""
    others, half, _ = training()
    nearness, row = (x @ others.T - half).max(-1)  # −|x − y|²/2 up to |x|²/2
    return row, (x.square().sum(-1) - 2 * nearness).clamp_min(0).sqrt()


def read(x: Tensor) -> Tensor:
    """What images ``(n, 784)`` in [0, 1] read as: the labels ``(n,)`` of the nearest training digits."""
    return training()[2][nearest(x)[0]]


ATTRIBUTES: dict[str, Callable[[Tensor], Tensor]] = {"slant": slant, "thickness": thickness}


def extremes(value: Tensor, labels: Tensor, each: int = 20) -> tuple[Tensor, Tensor]:
    """Rows of the ``each`` lowest and highest values of every digit: two ``(10 · each,)``."""
    rows = [(labels == digit).nonzero().flatten() for digit in labels.unique()]
    ordered = [r[value[r].argsort()] for r in rows]
    return torch.cat([r[:each] for r in ordered]), torch.cat([r[-each:] for r in ordered])


@functools.lru_cache
def direction(attribute: str) -> Tensor:
    """Mean latent of the digits with much of an attribute, less that of those with little: ``(784,)``."""
    x, _, labels = training()
    low, high = extremes(ATTRIBUTES[attribute](x), labels)
    v = mnist.digits("train")[0].flatten(1)
    return encode(v[high]).mean(0) - encode(v[low]).mean(0)


@functools.lru_cache
def examples(digit: int, n: int) -> Tensor:
    """The first ``n`` test images of a digit that the nearest training digit reads aright: ``(n, 784)``."""
    v, labels = mnist.digits("test")
    v = v.flatten(1)[labels == digit]
    return v[read((v + 0.5) / 256) == digit][:n]


def way(z0: Tensor, z1: Tensor, steps: int = 10, *, arc: bool) -> Tensor:
    """Latents on the way from each z0 to each z1, ``(n, 784)`` each to ``(n · steps, 784)``, one way after the other.

    Straight, (1 − w) z0 + w z1, or on an arc, cos(πw/2) z0 + sin(πw/2) z1.
    """
    w = torch.linspace(0, 1, steps)[:, None]
    a, b = ((math.pi / 2 * w).cos(), (math.pi / 2 * w).sin()) if arc else (1 - w, w)
    return (a * z0[:, None] + b * z1[:, None]).flatten(0, 1)


def strangers(v: Tensor) -> dict[str, Tensor]:
    """Images that are no digits, or digits as none are, from digits v ``(n, 784)``; 50 where none enter, all uint8."""
    empty = torch.zeros(50, D, dtype=torch.uint8)
    dot = empty.view(-1, SIDE, SIDE).clone()
    dot[:, 13:15, 13:15] = 255
    noise = torch.randint(0, 256, empty.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    turned = v.view(-1, SIDE, SIDE).rot90(1, (1, 2)).flatten(1)
    return {"turned": turned, "inverted": 255 - v, "noise": noise, "empty": empty, "one dot": dot.flatten(1)}
