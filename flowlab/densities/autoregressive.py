"""Densities by the chain rule: each coordinate given those before it, by one masked network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from flowlab.densities.base import DensityModule
from flowlab.networks import MaskedMLP


class AutoregressiveMixture(DensityModule):
    """log p(z) = Σ_i log Σ_k π_k N(z_i; μ_k, σ_k²), with π, μ and σ functions of z_<i: MADE MoG (arXiv:1705.07057).

    Every density is a product of conditionals p(z_i | z_<i); here each is a mixture of K Gaussians, and one pass of a
    masked network gives all of them. ``draw`` takes D passes. A density by itself, or the base of a flow.
    log σ = c tanh(·) with c = ``log_scale_bound``.

    Args:
        features: D.
        components: K. With K = 1 it is MADE with Gaussian conditionals, and starts as the standard normal.
        hidden, activation: of the network.
        order: which coordinate comes first, which second, ...: a permutation of 0 to D − 1, as they stand if left out.
        context_features: width of the context that every conditional may see, 0 for none.

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
        context_features: int = 0,
        log_scale_bound: float = 4.0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(features, stack=stack)
        if components < 1:
            raise ValueError(f"AutoregressiveMixture expected at least one component, but got {components}.")
        self.components, self.log_scale_bound = components, log_scale_bound
        self.network = MaskedMLP(
            features,
            3 * components,
            hidden=hidden,
            order=order,
            activation=activation,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )
        self.context_features = context_features
        # The components start apart, at quantiles of N(0, 1): equal ones would get equal gradients and never part.
        quantiles = torch.special.ndtri((torch.arange(components) + 0.5) / components)
        with torch.no_grad():
            self.network.last.bias.unflatten(-1, (3, components, features))[..., 1, :, :] = quantiles.unsqueeze(-1)

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x) = Σ_i log p(x_i | x_<i), in nats: ``(..., D)`` to ``(...)``."""
        x, context = self.accept_pair(x, context)
        log_weight, mean, log_std = self.conditionals(x, context)
        e = (x.unsqueeze(-2) - mean) * (-log_std).exp()
        log_joint = log_weight - 0.5 * e * e - log_std - 0.5 * math.log(2 * math.pi)  # (..., K, D)
        return log_joint.logsumexp(-2).sum(-1)

    def draw(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """n samples, or n for each context, and their log p in nats: ``(n, ..., D)`` and ``(n, ...)``.

        A sample is the solution of F(x_i | x_<i) = u_i with F a distribution function, so its gradient is that of an
        implicit function: dx_i = −dF / p(x_i | x_<i) (Figurnov et al., arXiv:1805.08498, eq. 5).
        """
        context = self.accept_context(context)
        e, context = self.spread(self._normal, n, generator, context)
        z = torch.zeros_like(e)
        with self.network.masked_once():
            for i in self.network.place.argsort().unsqueeze(-1):  # (1,): to read it would wait for the device
                parts = self.conditionals(z, context)
                log_weight, mean, log_std = (p.index_select(-1, i).squeeze(-1) for p in parts)  # (..., K)
                with torch.no_grad():
                    weights = log_weight.exp().flatten(0, -2)
                    k = torch.multinomial(weights, 1, generator=generator).view(*e.shape[:-1], 1)
                    z_i = (mean + log_std.exp() * e.index_select(-1, i)).gather(-1, k)
                if torch.is_grad_enabled():
                    standard = (z_i - mean) * (-log_std).exp()
                    F = (log_weight.exp() * torch.special.ndtr(standard)).sum(-1, keepdim=True)
                    log_p = log_weight - 0.5 * standard**2 - log_std - 0.5 * math.log(2 * math.pi)
                    z_i = z_i - (F - F.detach()) * (-log_p.logsumexp(-1, keepdim=True)).exp().detach()
                z = torch.where(torch.arange(z.shape[-1], device=z.device) == i, z_i, z)
        return z, self.log_prob(z, context)

    def conditionals(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """log π_k, μ_k and log σ_k of each p(z_i | z_<i): ``(..., D)`` to three of ``(..., K, D)``."""
        a, mean, s = self.network(z, context).unflatten(-2, (3, self.components)).unbind(-3)
        return a.log_softmax(-2), mean, self.log_scale_bound * torch.tanh(s)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}, log_scale_bound={self.log_scale_bound}"
