"""Base densities p_Z: simple, exact, easy to sample. Each is a module, so that it follows ``.to()``."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from flowlab.densities.base import Base


class StandardNormal(Base):
    """log p(z) = −½ Σ z² − ½ D log 2π: independent Gaussians of mean 0 and deviation 1."""

    def log_prob(self, z: Tensor) -> Tensor:
        self.check(z)
        return -0.5 * (z * z).sum(-1) - 0.5 * self.features * math.log(2 * math.pi)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        return self._normal(n, generator)


class StandardLogistic(Base):
    """log p(z) = −Σ [log(1 + eᶻ) + log(1 + e⁻ᶻ)]: heavier tails than the Gaussian (NICE, arXiv:1410.8516, eq. 3.5)."""

    def log_prob(self, z: Tensor) -> Tensor:
        self.check(z)
        return -(F.softplus(z) + F.softplus(-z)).sum(-1)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        u = self._uniform(n, generator)
        # u is a multiple of ε/2 in [0, 1): half a step from the ends stands for what rounds to 0.
        return torch.logit(u.clamp_min(torch.finfo(u.dtype).eps / 4))


class StandardUniform(Base):
    """log p(z) = 0 on [0, 1]^D and −∞ outside."""

    def log_prob(self, z: Tensor) -> Tensor:
        self.check(z)
        return torch.where(((z >= 0) & (z <= 1)).all(-1), 0.0, -math.inf).to(z.dtype)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        return self._uniform(n, generator)
