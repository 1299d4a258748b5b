"""Round spaces on which a map may live: points drawn from them, tangent bases, and integrals over them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor


class Surface:
    """A space of n − d equations in n coordinates, the last axis of a point."""

    area: float

    def points(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Random points of the surface, float64: ``shape`` ends with n."""
        raise NotImplementedError

    def tangent(self, x: Tensor) -> Tensor:
        """An orthonormal basis of the tangent space at each x, in its columns: ``(..., n)`` to ``(..., n, d)``."""
        raise NotImplementedError

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """x − y, by the shorter way: ``(..., n)``."""
        return x - y

    def off(self, x: Tensor) -> Tensor:
        """How far each x is from the surface: ``(...)``."""
        raise NotImplementedError

    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Points ``(N, n)`` and weights ``(N)`` that integrate a smooth function over the surface."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sphere(Surface):
    """Unit vectors in ``coordinates`` numbers, 2 (a circle) or 3."""

    coordinates: int = 3

    @property
    def area(self) -> float:
        return {2: 2 * math.pi, 3: 4 * math.pi}[self.coordinates]

    def points(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1)

    def tangent(self, x: Tensor) -> Tensor:
        axes = torch.eye(x.shape[-1], dtype=x.dtype).expand(*x.shape, -1)
        return torch.linalg.qr(torch.cat((x.unsqueeze(-1), axes), -1)).Q[..., 1:]

    def off(self, x: Tensor) -> Tensor:
        return (x.norm(dim=-1) - 1).abs()

    def quadrature(self) -> tuple[Tensor, Tensor]:
        angle = 2 * math.pi * torch.arange(200, dtype=torch.float64) / 200
        circle = torch.stack((angle.cos(), angle.sin()), -1)
        if self.coordinates == 2:
            return circle, torch.full((200,), 2 * math.pi / 200, dtype=torch.float64)
        height, weight = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(100))
        radius = (1 - height**2).sqrt()
        points = torch.cat((radius[:, None, None] * circle, height[:, None, None].expand(-1, 200, 1)), -1)
        return points.reshape(-1, 3), (weight * 2 * math.pi / 200).repeat_interleave(200)


@dataclass(frozen=True)
class Torus(Surface):
    """``angles`` numbers from 0 to 2π, whose ends are one point."""

    angles: int = 2

    @property
    def area(self) -> float:
        return (2 * math.pi) ** self.angles

    def points(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return 2 * math.pi * torch.rand(shape, generator=generator, dtype=torch.float64)

    def tangent(self, x: Tensor) -> Tensor:
        return torch.eye(x.shape[-1], dtype=x.dtype).expand(*x.shape, -1)

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.remainder(x - y + math.pi, 2 * math.pi) - math.pi

    def off(self, x: Tensor) -> Tensor:
        return torch.maximum(-x, x - 2 * math.pi).clamp_min(0).amax(-1)

    def quadrature(self) -> tuple[Tensor, Tensor]:
        angle = 2 * math.pi * torch.arange(60, dtype=torch.float64) / 60
        points = torch.cartesian_prod(*[angle] * self.angles).reshape(-1, self.angles)
        return points, torch.full((len(points),), self.area / len(points), dtype=torch.float64)
