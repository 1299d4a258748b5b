"""Densities by the chain rule: each coordinate given those before it, by one masked network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from flowlab.densities.base import Base
from flowlab.networks import MaskedMLP


class AutoregressiveMixture(Base):
    """log p(z) = Σ_i log Σ_k π_k N(z_i; μ_k, σ_k²), with π, μ and σ functions of z_<i: MADE MoG (arXiv:1705.07057).

    Every density is a product of conditionals p(z_i | z_<i); here each is a mixture of K Gaussians, and one pass of a
    masked network gives all of them. ``sample`` takes D passes, and no gradient goes through it. A density by itself,
    or the base of a flow. log σ = c tanh(·) with c = ``log_scale_bound``.

    Args:
        features: D.
        components: K. With K = 1 it is MADE with Gaussian conditionals, and starts as the standard normal.
        hidden, activation: of the network.
        order: which coordinate comes first, which second, ...: a permutation of 0 to D − 1, as they stand if left out.

    Raises:
        ValueError: when there is no component, or ``order`` does not name each coordinate once.
    """

    def __init__(
        self,
        features: int,
        components: int = 10,
        *,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | Tensor | None = None,
        activation: str = "relu",
        log_scale_bound: float = 4.0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(features, stack=stack)
        if components < 1:
            raise ValueError(f"AutoregressiveMixture needs at least one component, but was given {components}.")
        self.components, self.log_scale_bound = components, log_scale_bound
        self.network = MaskedMLP(
            features,
            3 * components,
            hidden=hidden,
            order=order,
            activation=activation,
            stack=stack,
            generator=generator,
        )
        # The components start apart, at quantiles of N(0, 1): equal ones would get equal gradients and never part.
        quantiles = torch.special.ndtri((torch.arange(components) + 0.5) / components)
        with torch.no_grad():
            self.network.last.bias.unflatten(-1, (3, components, features))[..., 1, :, :] = quantiles.unsqueeze(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        self.check(z)
        log_weight, mean, log_std = self.conditionals(z)
        e = (z.unsqueeze(-2) - mean) * (-log_std).exp()
        log_joint = log_weight - 0.5 * e * e - log_std - 0.5 * math.log(2 * math.pi)  # (..., K, D)
        return log_joint.logsumexp(-2).sum(-1)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        e = self._normal(n, generator)
        z = torch.zeros_like(e)
        with self.network.masked_once():
            for i in self.network.place.argsort().tolist():
                log_weight, mean, log_std = (p[..., i] for p in self.conditionals(z))  # (..., K)
                k = torch.multinomial(log_weight.exp().flatten(0, -2), 1, generator=generator).view(*e.shape[:-1], 1)
                z[..., i] = (mean + log_std.exp() * e[..., i : i + 1]).gather(-1, k).squeeze(-1)
        return z

    def conditionals(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log π_k, μ_k and log σ_k of each p(z_i | z_<i): ``(..., D)`` to three of ``(..., K, D)``."""
        a, mean, s = self.network(z).unflatten(-2, (3, self.components)).unbind(-3)
        return a.log_softmax(-2), mean, self.log_scale_bound * torch.tanh(s)
