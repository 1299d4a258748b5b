"""A mixture of Gaussians as a base density: K modes for a flow to start from."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from flowlab.densities.base import DensityModule, check_generator


class GaussianMixture(DensityModule):
    """log p(z) = log Σ_k π_k N(z; μ_k, Σ_k), with Σ_k = L_k L_kᵀ: a base with K modes.

    Args:
        means: ``(K, D)``.
        covariances: ``(K, D, D)``; the identity when left out.
        weights: ``(K,)``, summing to one; equal when left out.
        trainable: whether gradients reach means, covariances and weights.

    Raises:
        ValueError: when shapes disagree, a covariance is not symmetric positive definite, or weights do not sum to one.

    >>> p = GaussianMixture(torch.tensor([[-3.0], [3.0]]))
    >>> print(f"{p.log_prob(torch.tensor([3.0])):.4f}")  # log ½ − ½ log 2π, as the other mode is far away
    -1.6121
    >>> print(*(f"{value:.2f}" for value in p.responsibilities(torch.tensor([0.0]))))
    0.50 0.50
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
                f"GaussianMixture expected floating-point means of shape (K, D), but got {means.dtype} of shape "
                f"{tuple(means.shape)}."
            )
        K, D = means.shape
        super().__init__(D)
        covariances = torch.eye(D).to(means).repeat(K, 1, 1) if covariances is None else covariances
        weights = means.new_full((K,), 1 / K) if weights is None else weights
        if covariances.shape != (K, D, D) or weights.shape != (K,):
            raise ValueError(
                f"GaussianMixture expected covariances {(K, D, D)} and weights {(K,)}, but got "
                f"{tuple(covariances.shape)} and {tuple(weights.shape)}."
            )
        if bool((weights <= 0).any()) or abs(float(weights.sum()) - 1) > 1e-4:
            raise ValueError(f"GaussianMixture expected positive weights that sum to one, but got {weights.tolist()}.")
        L, failed = torch.linalg.cholesky_ex(covariances)
        if bool(failed.any()) or not torch.allclose(covariances, covariances.mT, rtol=1e-4):
            raise ValueError(
                "GaussianMixture expected symmetric, positive definite covariances, but got one that is not."
            )
        self.means = nn.Parameter(means.clone(), trainable)
        self.lower = nn.Parameter(L.tril(-1), trainable)
        self.log_diagonal = nn.Parameter(L.diagonal(dim1=-2, dim2=-1).log(), trainable)
        self.logits = nn.Parameter(weights.log(), trainable)
        self.to(means)  # dtype and device of all, the anchor included

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x) in nats: ``(..., D)`` to ``(...)``."""
        self.accept_context(context)
        return self.log_joint(x).logsumexp(-1)

    def log_joint(self, z: Tensor) -> Tensor:
        """log π_k + log N(z; μ_k, Σ_k): ``(..., D)`` to ``(..., K)``, in nats."""
        z = self.accept(z)
        # All points in one axis, so that each L_k is solved once and not copied for each point.
        d = (z.reshape(-1, 1, self.features) - self.means).permute(1, 2, 0)  # (K, D, N)
        e = torch.linalg.solve_triangular(self._scale_tril(), d, upper=False)
        log_normal = -0.5 * (e * e).sum(1).T - self.log_diagonal.sum(-1) - 0.5 * self.features * math.log(2 * math.pi)
        return (self.logits.log_softmax(-1) + log_normal).reshape(*z.shape[:-1], len(self.means))

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(k | z) by Bayes' rule: ``(..., D)`` to ``(..., K)``, summing to one."""
        return self.log_joint(z).softmax(-1)

    def draw(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """n samples and their log p, in nats: ``(n, D)`` and ``(n,)``.

        Gradients of the samples reach means and covariances. Which component a sample comes from has no gradient, so
        those of the weights come by log p alone.
        """
        self.accept_context(context)
        check_generator(generator)
        k = torch.multinomial(self.logits.softmax(-1), self.count(n), replacement=True, generator=generator)
        e = torch.randn(n, self.features, 1, generator=generator, dtype=self.means.dtype, device=self.means.device)
        z = self.means[k] + (self._scale_tril()[k] @ e).squeeze(-1)
        return z, self.log_prob(z)

    def _scale_tril(self) -> Tensor:
        return self.lower.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    def extra_repr(self) -> str:
        return f"{self.features}, components={len(self.means)}"
