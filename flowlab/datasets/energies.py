"""Energies in the plane: densities known up to a constant, as posteriors are, whose constant is known here."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from flowlab.datasets.toys import TWO_PI, Toy, _check_positive, _gauss_legendre

REACH = 8.0  # widths of the wall beyond which nothing of the density lies: e⁻³² of what stands at the wall


def _wave(x: Tensor) -> Tensor:
    """w₁ = sin(2π x₁/4), around which U2, U3 and U4 lie."""
    return torch.sin(TWO_PI * x[..., 0] / 4)


def _log_gaussian(distance: Tensor, width: float) -> Tensor:
    """−½ (distance/width)²."""
    return -0.5 * (distance / width) ** 2


def _u1(x: Tensor) -> Tensor:
    """A ring of radius 2, of which the left and the right side are kept."""
    ring = _log_gaussian(torch.linalg.vector_norm(x, dim=-1) - 2, 0.4)
    return -ring - torch.logaddexp(_log_gaussian(x[..., 0] - 2, 0.6), _log_gaussian(x[..., 0] + 2, 0.6))


def _u2(x: Tensor) -> Tensor:
    """A band along the wave."""
    return -_log_gaussian(x[..., 1] - _wave(x), 0.4)


def _u3(x: Tensor) -> Tensor:
    """Two bands, of which one makes a detour of w₂ = 3 exp(−½ ((x₁ − 1)/0.6)²) around x₁ = 1."""
    apart = x[..., 1] - _wave(x)
    detour = 3 * _log_gaussian(x[..., 0] - 1, 0.6).exp()
    return -torch.logaddexp(_log_gaussian(apart, 0.35), _log_gaussian(apart + detour, 0.35))


def _u4(x: Tensor) -> Tensor:
    """Two bands, of which one steps down by w₃ = 3 sigmoid((x₁ − 1)/0.3)."""
    apart = x[..., 1] - _wave(x)
    step = 3 * torch.sigmoid((x[..., 0] - 1) / 0.3)
    return -torch.logaddexp(_log_gaussian(apart, 0.4), _log_gaussian(apart + step, 0.35))


U: dict[int, Callable[[Tensor], Tensor]] = {1: _u1, 2: _u2, 3: _u3, 4: _u4}
HIGHEST = {1: 1.0 + 1e-6, 2: 1.0, 3: 2.0, 4: 2.0}  # e^−U is nowhere above


@dataclass(frozen=True)
class Energy(Toy):
    """p(x) = exp(−U(x))/Z, where U is one of the four energies of Rezende and Mohamed (arXiv:1505.05770, table 1).

    U2, U3 and U4 run off to infinity on both sides, and have no Z there. A soft wall around the square of half-width
    h = ``half_width``, Σᵢ ½ ((|xᵢ| − h)₊/``wall``)², belongs to U here; ``wall=0`` cuts at the square.

    ``energy(x)`` lets gradients through, so that ``reverse_kl(lambda x: -p.energy(x))`` fits a flow to it; ``log_z`` is
    exact, and ``log_prob`` and samples are those of p.

    >>> print(*(f"{Energy(number, wall=0.0).log_z:.3f}" for number in (1, 2, 3, 4)))
    1.878 2.082 2.642 2.685

    Raises:
        ValueError: for another number than 1 to 4, a half-width that is not positive, and a negative wall.
    """

    number: int
    half_width: float = 4.0
    wall: float = 0.1
    components: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.number not in U:
            raise ValueError(f"Energy expected a number from 1 to 4, but got {self.number!r}.")
        _check_positive(self, "half_width")
        if self.wall != 0:
            _check_positive(self, "wall")

    @property
    def extent(self) -> float:
        return self.half_width + REACH * self.wall

    @property
    def log_z(self) -> float:
        """log ∫ exp(−U(x)) dx in nats, by quadrature, right to 1e-9."""
        return _log_z(self)

    def energy(self, x: Tensor) -> Tensor:
        """U(x) in nats, the wall included: ``(..., 2)`` to ``(...)``, ∞ where ``wall=0`` cuts. Gradients pass."""
        outside = (x.abs() - self.half_width).clamp_min(0)
        u = U[self.number](x)
        if self.wall == 0:
            return torch.where((outside > 0).any(-1), math.inf, u)
        return u - _log_gaussian(outside, self.wall).sum(-1)

    def _draw(self, labels: Tensor, generator: Generator | None) -> Tensor:
        """By rejection: points of a square stay with probability exp(−U)/HIGHEST."""
        n, kept = len(labels), torch.empty(0, 2, device=labels.device)
        while len(kept) < n:
            u = torch.rand(16 * n, 3, generator=generator, device=labels.device)
            x = self.extent * (2 * u[:, :2] - 1)
            kept = torch.cat([kept, x[u[:, 2] * HIGHEST[self.number] < (-self.energy(x)).exp()]])
        return kept[:n]

    def _log_density(self, x: Tensor) -> Tensor:
        return -self.energy(x) - self.log_z


@functools.cache
def _log_z(p: Energy) -> float:
    h, end = p.half_width, p.extent
    inside = torch.linspace(-h, h, 33, dtype=torch.float64)
    walls = torch.tensor([-end, end], dtype=torch.float64) if p.wall else torch.empty(0, dtype=torch.float64)
    edges = torch.cat([walls[:1], inside, walls[1:]])  # the wall has a kink where it begins, so a piece ends there
    nodes, weights = _gauss_legendre(16, edges[:-1, None], edges[1:, None])
    nodes, weights = nodes.flatten(), weights.flatten()
    log_w = weights.log()[:, None] + weights.log()
    return float((log_w - p.energy(torch.cartesian_prod(nodes, nodes).reshape(*log_w.shape, 2))).flatten().logsumexp(0))
