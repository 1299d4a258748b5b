"""Base densities p_Z: simple, exact, easy to sample."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from flowlab.densities.base import DensityModule


class Factorized(DensityModule):
    """log p(z) = Σ_i log p(z_i): independent numbers, each with the same density.

    A subclass gives ``log_density``, of one number, and ``noise``, the samples. Takes ``(..., *event)`` to ``(...)``.
    """

    def log_density(self, z: Tensor) -> Tensor:
        """log p of each number by itself, in nats: ``(...)`` to ``(...)``."""
        raise NotImplementedError

    def noise(self, n: int, generator: Generator | None = None) -> Tensor:
        """n samples: ``(n, *event)``, or ``(K, n, *event)`` for a stack."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x) = Σ log p(x_i), in nats: ``(..., *event)`` to ``(...)``."""
        x, _ = self.accept_pair(x, context)
        return self.log_density(x).reshape(*x.shape[: x.ndim - len(self.event_shape)], self.features).sum(-1)

    def _rounded(self, x: Tensor) -> Tensor:
        """Without parameters, it computes in the dtype that it is given, if that is not coarser than its own."""
        return x.to(torch.promote_types(x.dtype, self.anchor.dtype))

    def draw(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """n samples and their log p, in nats: ``(n, *event)`` and ``(n,)``."""
        self.accept_context(context)
        z = self.noise(n, generator)
        return z, self.log_prob(z)


class StandardNormal(Factorized):
    """log p(z) = −½ Σ z² − ½ D log 2π: independent Gaussians of mean 0 and standard deviation 1.

    >>> p = StandardNormal(2)
    >>> print(f"{p.log_prob(torch.zeros(2)):.4f}")  # −log 2π
    -1.8379
    >>> p.sample(5, Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    def log_density(self, z: Tensor) -> Tensor:
        return -0.5 * z * z - 0.5 * math.log(2 * math.pi)

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x) in nats: ``(..., *event)`` to ``(...)``."""
        x, _ = self.accept_pair(x, context)
        x = x if len(self.event_shape) == 1 else x.reshape(*x.shape[: x.ndim - len(self.event_shape)], self.features)
        return -0.5 * (x * x).sum(-1) - 0.5 * self.features * math.log(2 * math.pi)

    def noise(self, n: int, generator: Generator | None = None) -> Tensor:
        return self._normal(n, generator)


class StandardLogistic(Factorized):
    """log p(z) = −Σ [log(1 + eᶻ) + log(1 + e⁻ᶻ)]: heavier tails than the Gaussian (NICE, arXiv:1410.8516, eq. 3.5)."""

    def log_density(self, z: Tensor) -> Tensor:
        return -(F.softplus(z) + F.softplus(-z))

    def noise(self, n: int, generator: Generator | None = None) -> Tensor:
        u = self._uniform(n, generator)
        # u is a multiple of ε/2 in [0, 1): half a step from the ends stands for what rounds to 0.
        return torch.logit(u.clamp_min(torch.finfo(u.dtype).eps / 4))


class StandardUniform(Factorized):
    """log p(z) = 0 on the cube [0, 1]^D and −∞ outside."""

    def log_density(self, z: Tensor) -> Tensor:
        inside = (z >= 0) & (z <= 1)
        return torch.where(inside, torch.zeros_like(z), torch.where(z.isnan(), z, -math.inf))

    def noise(self, n: int, generator: Generator | None = None) -> Tensor:
        return self._uniform(n, generator)
