"""Maps of the plane, areas by corners and by means, and a bug museum of densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class PlanarMap(NamedTuple):
    """A map of the plane, z = f(x), that a strength s in [0, 1] bends from the identity."""

    formula: str
    value: Callable[[Tensor, float], Tensor]  # (..., 2) and s to (..., 2)


def _bend(x: Tensor, s: float) -> Tensor:
    return torch.stack((x[..., 0], x[..., 1] + s * (x[..., 0] ** 2 - 1)), -1)


def _waves(x: Tensor, s: float) -> Tensor:
    return x + s * torch.sin(1.5 * x.flip(-1))


def _stretch(x: Tensor, s: float) -> Tensor:
    return torch.stack((x[..., 0], x[..., 1] * (s * torch.sin(2 * x[..., 0])).exp()), -1)


def _wing(x: Tensor, s: float) -> Tensor:
    angle = 0.4 * s * x[..., 0].exp()
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((x[..., 0] * cos - x[..., 1] * sin, x[..., 0] * sin + x[..., 1] * cos), -1)


def _prelu(x: Tensor, s: float) -> Tensor:
    return torch.where(x < 0, 10**-s * x, x)


PLANAR_MAPS = {
    "waves": PlanarMap("z = x + s · (sin 1.5x₂, sin 1.5x₁)", _waves),
    "curved shear": PlanarMap("z = (x₁, x₂ + s (x₁² − 1))", _bend),
    "stretch by place": PlanarMap("z = (x₁, x₂ · exp(s sin 2x₁))", _stretch),
    "pinwheel wing": PlanarMap("z = x turned by 0.4 s · exp(x₁)", _wing),
    "PReLU": PlanarMap("z = x where x ≥ 0, else 10⁻ˢ x", _prelu),
}


def signed_area(corners: np.ndarray) -> float:
    """½ Σ (xᵢ yᵢ₊₁ − xᵢ₊₁ yᵢ) of a closed polygon ``(n, 2)``: its area, positive when it runs counterclockwise."""
    x, y = (corners - corners[0]).T  # a small polygon far from the origin would lose its digits
    return float(0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def mean_over_cell(g: Callable[[Tensor], Tensor], center: np.ndarray, h: float) -> float:
    """(1/h²) ∫ g over a square cell, by Gauss-Legendre nodes on either side of the axes, where PReLU has its kinks."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    places, shares = [], []
    for middle in center:
        ends = np.array([middle - h / 2, np.clip(0, middle - h / 2, middle + h / 2), middle + h / 2])
        half = np.diff(ends)[:, None] / 2
        places.append(torch.from_numpy((ends[:-1, None] + half * (nodes + 1)).ravel()))
        shares.append(torch.from_numpy((half * weights / h).ravel()))
    values = g(torch.stack(torch.meshgrid(*places, indexing="ij"), -1))
    return float(shares[0] @ values @ shares[1])


def museum() -> dict[str, Callable[[Tensor], Tensor]]:
    """Four functions that claim to be log p(x) in the plane, (n, 2) to (n,): the bug museum of the fourth exercise."""

    def log_normal(z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1) - math.log(2 * math.pi)

    def first(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack((x[:, 0], x[:, 1] * x[:, 0].sin().exp()), -1), x[:, 0].sin()

    def second(u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack((u[:, 0] * u[:, 1].sin().exp(), u[:, 1]), -1), u[:, 1].sin()

    def sound(x: Tensor) -> Tensor:
        u, log_det_1 = first(x)
        z, log_det_2 = second(u)
        return log_normal(z) + log_det_1 + log_det_2

    def at_the_wrong_point(x: Tensor) -> Tensor:
        u, log_det_1 = first(x)
        z, _ = second(u)
        return log_normal(z) + log_det_1 + second(x)[1]

    def wrong_sign(x: Tensor) -> Tensor:
        return log_normal(2 * x) - 2 * math.log(2)

    def norm_for_squared_norm(x: Tensor) -> Tensor:
        return -0.5 * (2 * x).norm(dim=-1) - math.log(2 * math.pi) + 2 * math.log(2)

    return {"A": wrong_sign, "B": at_the_wrong_point, "C": sound, "D": norm_for_squared_norm}
