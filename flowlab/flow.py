"""A normalizing flow: a bijection and a base density make a density."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from flowlab.bijections.base import Bijection, NotStackable, ShapeError
from flowlab.distributions import Base


class Flow(nn.Module):
    """log p(x) = log p_Z(f(x)) + log |det ∂f/∂x| (NICE, arXiv:1410.8516, eq. 1).

    ``log_prob`` takes ``(..., D)`` to ``(...)``, in nats; ``sample(n)`` draws ``(n, D)``. A stack of K flows takes
    ``(K, ..., D)`` to ``(K, ...)`` and draws ``(K, n, D)``.

    Raises:
        ValueError, TypeError: when ``x`` has another shape or dtype than the flow, in a sentence that names both.
        ShapeError, NotStackable: when bijection and base do not fit together.
    """

    recipe: dict | None = None  # how to build it again: a name in flowlab.models and its settings

    def __init__(self, bijection: Bijection, base: Base) -> None:
        super().__init__()
        if bijection.event_shape is not None and math.prod(bijection.event_shape) != base.features:
            raise ShapeError(
                f"Flow expected a base of {math.prod(bijection.event_shape)} dimensions, as many as the bijection has, "
                f"but came {base.features}."
            )
        if bijection.stack is not None and bijection.stack != base.stack:
            raise NotStackable(f"Flow expected a base with stack={bijection.stack}, but came stack={base.stack}.")
        self.bijection, self.base = bijection, base

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x) in nats: ``(..., D)`` to ``(...)``."""
        if x.dtype != self.base.anchor.dtype:
            raise TypeError(
                f"This flow computes in {self.base.anchor.dtype}, but x came in {x.dtype}: convert one of them, "
                f"torch.as_tensor(x, dtype={self.base.anchor.dtype}) or flow.to({x.dtype})."
            )
        z, log_det = self.bijection(x, context)
        return self.base.log_prob(z) + log_det

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.log_prob(x, context)

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> Tensor:
        """n draws of x = f⁻¹(z), z ~ p_Z: ``(n, D)``, or ``(K, n, D)`` in a stack."""
        return self.bijection.inverse(self.base.sample(n, generator), context)[0]
