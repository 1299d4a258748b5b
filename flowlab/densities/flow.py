"""A normalizing flow: a bijection and a base density make a density."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from flowlab.bijections.base import Bijection, NotStackable, ShapeError
from flowlab.densities.base import DensityModule, check_generator
from flowlab.densities.simple import StandardLogistic, StandardNormal


class Flow(DensityModule):
    """log p(x) = log p_Z(f(x)) + log |det ∂f/∂x| (NICE, arXiv:1410.8516, eq. 1).

    ``log_prob`` takes ``(..., D)`` to ``(...)``, in nats; ``sample(n)`` gives ``(n, D)``. With a context ``(..., E)``
    both are conditional on it. A stack of K flows takes ``(K, ..., D)`` to ``(K, ...)`` and samples ``(K, n, D)``. If
    one of bijection and base is in float64, both are converted to it.

    Raises:
        ShapeError, NotStackable: when bijection and base do not fit together.
        ValueError: when one is of real numbers and the other of whole ones.
        TypeError: when the base is no DensityModule.

    >>> from flowlab.bijections import PReLU
    >>> flow = Flow(PReLU(2, slope=2.0), StandardNormal(2))
    >>> log_p = flow.log_prob(torch.tensor([[0.0, 0.0], [-1.0, 0.0]]))  # −log 2π, and that − ½ 2² + log 2
    >>> print(*(f"{value:.4f}" for value in log_p))
    -1.8379 -3.1447
    >>> flow.sample(5).shape
    torch.Size([5, 2])
    """

    recipe: dict | None = None  # how to build it again: a name in flowlab.models and its settings

    def __init__(self, bijection: Bijection, base: DensityModule) -> None:
        if not isinstance(base, DensityModule):
            raise TypeError(f"Flow expected a DensityModule as its base, but got {type(base).__name__}.")
        if bijection.domain != base.domain:
            raise ValueError(
                f"Flow expected bijection and base of one domain, but got a bijection of {bijection.domain} numbers "
                f"and a base of {base.domain} ones."
            )
        latent = bijection.latent_shape
        if bijection.event_dim != len(base.event_shape):
            wanted, found = (
                {1: "vectors", 3: "images"}.get(dims, f"samples of {dims} axes")
                for dims in (len(base.event_shape), bijection.event_dim)
            )
            raise ShapeError(
                f"Flow expected a bijection of {wanted}, as its base is of {wanted}, but got "
                f"{type(bijection).__name__} "
                f"of {found}: put it in AsImage((C, H, W), ...), or give the base the shape of its samples."
            )
        if latent is not None and latent != base.event_shape:
            raise ShapeError(
                f"Flow expected a base of {math.prod(latent)} dimensions, as many as the bijection has, but got "
                f"{base.features}."
            )
        if bijection.stack is not None and bijection.stack != base.stack:
            raise NotStackable(f"Flow expected a base with stack={bijection.stack}, but got stack={base.stack}.")
        if 0 not in (bijection.context_features, base.context_features) and (
            bijection.context_features != base.context_features
        ):
            raise ShapeError(
                f"Flow expected bijection and base to see one context, but got {bijection.context_features} and "
                f"{base.context_features} features."
            )
        super().__init__(bijection.event_shape or base.event_shape, stack=base.stack)
        self.bijection, self.base = bijection, base
        self.anchor = base.anchor.clone()
        dtype = next((p.dtype for p in bijection.parameters()), base.anchor.dtype)
        if dtype != base.anchor.dtype:
            self.to(torch.promote_types(dtype, base.anchor.dtype))
        self.context_features = bijection.context_features or base.context_features
        self.context_dim = bijection.context_dim if bijection.context_features else base.context_dim
        self.domain = base.domain

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x) in nats: ``(..., *event)`` to ``(...)``. −∞ where a finite x is outside the support.

        Raises:
            ValueError: when x or the context has another shape than the flow was built for.
        """
        x, context = self.accept_pair(x, context)
        z, log_det = self.bijection(x, context)
        log_p = self.base(z, context if self.base.context_features else None) + log_det
        return self.without_tiny_gradients(self.defined(log_p, x).to(self.anchor.dtype))

    def draw(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = f⁻¹(z), z ~ p_Z, and log p(x) = log p_Z(z) − log |det ∂f⁻¹/∂z|: ``(n, ..., *event)``, ``(n, ...)``."""
        z, log_p, context = self._latents(n, generator, context)
        x, log_det = self.bijection.inverse(z, context)
        return x, log_p - log_det

    @torch.no_grad()
    def sample(
        self, n: int, generator: Generator | None = None, context: Tensor | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """x = f⁻¹(τ z), z ~ p_Z: ``(n, D)``, or ``(n, ..., D)`` for contexts ``(..., E)``; in a stack ``(K, n, D)``.

        τ = ``temperature`` below 1 keeps nearer to the middle, and the samples are of p no longer. ValueError for
        another than 1 where the base is not a standard normal or logistic, which have their middle at 0.
        """
        if not isinstance(temperature, Real):
            raise TypeError(f"Flow expected a temperature above 0, a number, but got {temperature!r}.")
        if not temperature > 0 or (temperature != 1 and not isinstance(self.base, (StandardNormal, StandardLogistic))):
            raise ValueError(
                f"Flow expected a temperature above 0, of a standard normal or logistic base, but got {temperature} "
                f"for "
                f"{type(self.base).__name__}. Leave it at 1."
            )
        z, _, context = self._latents(n, generator, context)
        return self.bijection.inverse(z if temperature == 1 else temperature * z, context)[0]

    @property
    def centers_float64(self) -> bool:
        """Whether the first map centers float64 data before it rounds them."""
        return self.bijection.centers_float64

    def _rounded(self, x: Tensor) -> Tensor:
        """As for any density; but float64 stays float64 where the first map centers it before it rounds."""
        return x if x.dtype == torch.float64 and self.centers_float64 else super()._rounded(x)

    @property
    def centers_context(self) -> bool:
        """Whether the map centers float64 contexts before it rounds them."""
        return self.bijection.centers_context

    def _rounded_context(self, context: Tensor) -> Tensor:
        """The same of contexts."""
        keeps = context.dtype == torch.float64 and self.centers_context
        return context if keeps else super()._rounded_context(context)

    def without_tiny_gradients(self, log_p: Tensor) -> Tensor:
        """``log_p`` ``(...)`` itself; of the gradient that comes back to a stack, what is below 1e-30 becomes zero.

        In a mixture, a flow that has no part in a point is handed a gradient of 1e-40. That moves no weight, but a
        processor takes a hundred times as long over numbers so near to float32's smallest: a fifth of a training step.
        """
        slow = self.bijection.stack is not None and log_p.dtype == torch.float32 and log_p.device.type == "cpu"
        if slow and log_p.requires_grad and not torch.compiler.is_compiling():
            log_p.register_hook(lambda g: F.hardshrink(g, 1e-30))
        return log_p

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, context_features={self.context_features}"

    def _latents(
        self, n: int, generator: Generator | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """n draws of z for each context, their log p, and the contexts beside them."""
        check_generator(generator)
        context = self.accept_context(context)
        if self.base.context_features:
            z, log_p = self.base.draw(n, generator, context)
            lead = 0 if self.stack is None else 1
            assert context is not None
            return z, log_p, context.unsqueeze(lead).expand(*context.shape[:lead], n, *context.shape[lead:])
        z, context = self.spread(lambda m, g: self.base.draw(m, g)[0], n, generator, context)
        return z, self.base(z), context
