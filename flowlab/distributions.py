"""Base densities p_Z: simple, exact, easy to sample. Each is a module, so that it follows ``.to()``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab.networks import MaskedMLP


class Base(nn.Module):
    """A density over vectors: ``log_prob`` of ``(..., D)`` is ``(...)``, in nats; ``sample(n)`` is ``(n, D)``.

    With ``stack=K`` a sample is ``(K, n, D)``, one batch for each flow of the stack.
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"{type(self).__name__} needs at least one dimension, but was given {features}.")
        self.features, self.stack = features, stack
        # Carries dtype and device, and is no part of a checkpoint.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        raise NotImplementedError

    def forward(self, z: Tensor) -> Tensor:
        return self.log_prob(z)

    def check(self, z: Tensor) -> None:
        """Raise ValueError, in a sentence, unless the last axis of ``z`` is one sample, and the first one the stack."""
        lead = "" if self.stack is None else f"{self.stack}, "
        if z.shape[-1:] != (self.features,) or (self.stack is not None and (z.ndim < 2 or z.shape[0] != self.stack)):
            raise ValueError(
                f"{type(self).__name__} expected shape ({lead}..., {self.features}), but came {tuple(z.shape)}."
            )

    def _shape(self, n: int) -> tuple[int, ...]:
        if n < 1:
            raise ValueError(f"sample expected a count of at least 1, but came {n}.")
        return (n, self.features) if self.stack is None else (self.stack, n, self.features)

    def _uniform(self, n: int, generator: Generator | None) -> Tensor:
        return torch.rand(self._shape(n), generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)

    def _normal(self, n: int, generator: Generator | None) -> Tensor:
        return torch.randn(self._shape(n), generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)


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


class GaussianMixture(Base):
    """log p(z) = log Σ_k π_k N(z; μ_k, Σ_k), with Σ_k = L_k L_kᵀ: a base with K modes.

    Args:
        means: ``(K, D)``.
        covariances: ``(K, D, D)``; the identity when left out.
        weights: ``(K,)``, summing to one; equal when left out.
        trainable: whether gradients reach means, covariances and weights.

    Raises:
        ValueError: when shapes disagree, a covariance is not symmetric positive definite, or weights do not sum to one.
    """

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        trainable: bool = False,
    ) -> None:
        if means.ndim != 2 or not means.is_floating_point():
            raise ValueError(
                f"GaussianMixture expected floating-point means of shape (K, D), but came {means.dtype} of shape "
                f"{tuple(means.shape)}."
            )
        K, D = means.shape
        super().__init__(D)
        covariances = torch.eye(D).to(means).repeat(K, 1, 1) if covariances is None else covariances
        weights = means.new_full((K,), 1 / K) if weights is None else weights
        if covariances.shape != (K, D, D) or weights.shape != (K,):
            raise ValueError(
                f"GaussianMixture expected covariances {(K, D, D)} and weights {(K,)}, but came "
                f"{tuple(covariances.shape)} and {tuple(weights.shape)}."
            )
        if bool((weights <= 0).any()) or abs(float(weights.sum()) - 1) > 1e-4:
            raise ValueError(f"GaussianMixture expected positive weights that sum to one, but came {weights.tolist()}.")
        L, failed = torch.linalg.cholesky_ex(covariances)
        if bool(failed.any()) or not torch.allclose(covariances, covariances.mT, rtol=1e-4):
            raise ValueError("GaussianMixture expected symmetric, positive definite covariances, but one is not.")
        self.means = nn.Parameter(means.clone(), trainable)
        self.lower = nn.Parameter(L.tril(-1), trainable)
        self.log_diagonal = nn.Parameter(L.diagonal(dim1=-2, dim2=-1).log(), trainable)
        self.logits = nn.Parameter(weights.log(), trainable)
        self.to(means)  # dtype and device of all, the anchor included

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log_joint(z).logsumexp(-1)

    def log_joint(self, z: Tensor) -> Tensor:
        """log π_k + log N(z; μ_k, Σ_k): ``(..., D)`` to ``(..., K)``, in nats."""
        self.check(z)
        # All points in one axis, so that each L_k is solved once and not copied for each point.
        d = (z.reshape(-1, 1, self.features) - self.means).permute(1, 2, 0)  # (K, D, N)
        e = torch.linalg.solve_triangular(self._scale_tril(), d, upper=False)
        log_normal = -0.5 * (e * e).sum(1).T - self.log_diagonal.sum(-1) - 0.5 * self.features * math.log(2 * math.pi)
        return (self.logits.log_softmax(-1) + log_normal).reshape(*z.shape[:-1], len(self.means))

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(k | z) by Bayes' rule: ``(..., D)`` to ``(..., K)``, summing to one."""
        return self.log_joint(z).softmax(-1)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        k = torch.multinomial(self.logits.softmax(-1), self._shape(n)[0], replacement=True, generator=generator)
        e = torch.randn(n, self.features, 1, generator=generator, dtype=self.means.dtype, device=self.means.device)
        return self.means[k] + (self._scale_tril()[k] @ e).squeeze(-1)

    def _scale_tril(self) -> Tensor:
        return self.lower.tril(-1) + torch.diag_embed(self.log_diagonal.exp())


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
