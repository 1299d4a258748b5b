"""A normalizing flow: a bijection and a base density make a density."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab.bijections.base import Bijection, NotStackable, ShapeError
from flowlab.densities.base import Base
from flowlab.densities.simple import StandardLogistic, StandardNormal


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
                f"but got {base.features}."
            )
        if bijection.stack is not None and bijection.stack != base.stack:
            raise NotStackable(f"Flow expected a base with stack={bijection.stack}, but got stack={base.stack}.")
        if bijection.event_dim != 1:
            raise ShapeError(
                f"Flow expected a bijection of vectors, as its base is of vectors, but {type(bijection).__name__} "
                "takes images: put it in AsImage((C, H, W), ...)."
            )
        self.bijection, self.base = bijection, base

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x) in nats: ``(..., D)`` to ``(...)``."""
        if x.dtype != self.base.anchor.dtype:
            raise TypeError(
                f"This flow computes in {self.base.anchor.dtype}, but x came in {x.dtype}: convert one of them, "
                f"torch.as_tensor(x, dtype={self.base.anchor.dtype}) or flow.to({x.dtype})."
            )
        z, log_det = self.bijection(x, context)
        return self.without_traces(self.base.log_prob(z) + log_det)

    def without_traces(self, log_p: Tensor) -> Tensor:
        """``log_p`` itself; of the gradient that comes back to a stack, what is smaller than 1e-30 becomes zero.

        In a mixture, a flow that has no part in a point is handed a gradient of 1e-40. That moves no weight, but a
        processor takes a hundred times as long over numbers so near to float32's smallest: a fifth of a training step.
        """
        slow = self.bijection.stack is not None and log_p.dtype == torch.float32 and log_p.device.type == "cpu"
        if slow and log_p.requires_grad and not torch.compiler.is_compiling():
            log_p.register_hook(lambda g: F.hardshrink(g, 1e-30))
        return log_p

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.log_prob(x, context)

    @torch.no_grad()
    def sample(
        self, n: int, generator: Generator | None = None, context: Tensor | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """n draws of x = f⁻¹(τ z), z ~ p_Z: ``(n, D)``, or ``(K, n, D)`` in a stack.

        τ = ``temperature`` below 1 keeps nearer to the middle, and the draws are of p no longer. ValueError for another
        than 1 where the base is not a standard normal or logistic, which have their middle at 0.
        """
        if not temperature > 0 or (temperature != 1 and not isinstance(self.base, (StandardNormal, StandardLogistic))):
            raise ValueError(
                f"A temperature is above 0 and scales a standard normal or logistic base, but {temperature} came for "
                f"{type(self.base).__name__}. Leave it at 1."
            )
        return self.bijection.inverse(temperature * self.base.sample(n, generator), context)[0]
