"""What every density promises: log-probabilities, and draws together with their log-probability."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowlab.bijections.base import ShapeError, is_whole
from flowlab.tables import as_tensor, check_order


class Density:
    """p(x): base densities, flows, mixtures, bounds and toys all are one, and the rest of the package asks for no more.

    Attributes:
        event_shape: the shape of one sample, such as ``(D,)`` or ``(C, H, W)``. The axes before it are batch axes.
        domain: "real", or "whole" for whole numbers.
        is_bound: whether ``log_prob`` is a lower bound on log p(x), with noise of its own, and not log p(x).
        context_features: width of the context that the density is conditioned on, 0 for none.
        context_dim: how many trailing axes make one context: 1 for a vector ``(E,)``, 3 for an image ``(E, H, W)``.
        stack: K for a stack of K densities side by side, whose samples have a leading axis K; else None.
        columns, context_columns: what the columns of x and of the context were called in the table that ``fit`` saw,
            None where they had no names. A table with names is put in this order, or refused.
    """

    event_shape: tuple[int, ...]
    domain: str = "real"
    is_bound: bool = False
    context_features: int = 0
    context_dim: int = 1
    stack: int | None = None
    columns: tuple[str, ...] | None = None
    context_columns: tuple[str, ...] | None = None

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """log p(x), or log p(x | context), in nats: ``(..., *event)`` to ``(...)``. −∞ outside the support, never NaN.

        ``generator`` draws the noise of a bound. A density that needs none leaves it alone.
        """
        raise NotImplementedError

    def draw(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """n samples and their log p(x), in nats: ``(n, *event)`` and ``(n,)``.

        For contexts ``(..., E)`` these are n samples *for each* context, ``(n, ..., *event)`` and ``(n, ...)``; for a
        stack, ``(K, n, *event)`` and ``(K, n)``. Gradients pass through both, to the parameters and to the context,
        wherever the density has a formula for them.

        Raises:
            ValueError: for an n that is not a whole number of at least 1, and for a context that does not fit.
        """
        raise NotImplementedError

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None, context: Tensor | None = None) -> Tensor:
        """n samples, or n for each context, without gradients: the first part of ``draw``, ``(n, ..., *event)``."""
        return self.draw(n, generator, context)[0]

    def defined(self, log_p: Tensor, x: Tensor) -> Tensor:
        """``log_p`` ``(...)`` with −∞ where it is NaN though x is not: where −∞ and ∞ meet, the density is 0."""
        unknown = x.isnan().any(tuple(range(log_p.ndim, x.ndim))) if x.ndim > log_p.ndim else x.isnan()
        return torch.where(log_p.isnan() & ~unknown, -math.inf, log_p)

    @property
    def features(self) -> int:
        """How many numbers one sample has: the product of ``event_shape``."""
        return math.prod(self.event_shape)


class DensityModule(Density, nn.Module):
    """A density with parameters or buffers, so that it follows ``.to()``; calling it gives ``log_prob``.

    Args:
        event_shape: D for vectors, or the whole shape.
        stack: K for a stack of K.

    Raises:
        ValueError: when a dimension is below 1.
    """

    anchor: Tensor

    def __init__(self, event_shape: int | Sequence[int], *, stack: int | None = None) -> None:
        super().__init__()
        shape = (int(event_shape),) if isinstance(event_shape, (int, Integral)) else tuple(int(d) for d in event_shape)
        if any(d < 1 for d in shape):
            raise ValueError(f"{type(self).__name__} expected dimensions of at least 1, but got {event_shape}.")
        self.event_shape, self.stack = shape, stack
        # Carries dtype and device, and is no part of a checkpoint.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """``log_prob``, ``(..., *event)`` to ``(...)``, so that wrappers, such as DistributedDataParallel, see it."""
        return self.log_prob(x, context, generator=generator)

    def accept(self, x: Any) -> Tensor:
        """x as a tensor of this density's dtype, or of whole numbers, checked: every ``log_prob`` begins with it.

        Takes what ``flowlab.tables`` takes: tensors, arrays, DataFrames, lists. Where a sample is one number, ``(N,)``
        is N samples.

        Raises:
            ShapeError: when the last axes of x are not one sample, or the first is not the stack.
            TypeError, ValueError: for what cannot be read as numbers, or as whole ones; or has other columns.
        """
        if self.domain == "whole":
            x = self._at_the_door(x, "x", self.columns)
        elif not isinstance(x, Tensor) or x.dtype != self.anchor.dtype or x.layout != torch.strided:
            x = self._rounded(self._at_the_door(x, "x", self.columns))
        x = self._as_column(x, self.event_shape)
        self.check_shape(x)
        if self.domain == "whole" and not is_whole(x):
            raise TypeError(f"{type(self).__name__} expected whole numbers, but got {x.dtype}: use x.long().")
        return x

    def check_shape(self, x: Tensor) -> None:
        """Raise ShapeError unless the last axes of x are one sample, and the first one is the stack."""
        shape, batch = self.event_shape, x.shape[: x.ndim - len(self.event_shape)]
        fits = x.ndim >= len(shape) and x.shape[len(batch) :] == shape
        if not fits or (self.stack is not None and batch[:1] != (self.stack,)):
            lead = "" if self.stack is None else f"{self.stack}, "
            wanted = ", ".join(map(str, shape))
            todo = "" if self.stack is None else f" All of a stack get the same x by x.expand({self.stack}, *x.shape)."
            raise ShapeError(
                f"{type(self).__name__} expected shape ({lead}..., {wanted}), but got {tuple(x.shape)}.{todo}"
            )

    def accept_context(self, context: Any) -> Tensor | None:
        """The context as a tensor of this density's dtype, or None, checked against what the density was built for.

        Takes what ``flowlab.tables`` takes. Where a context is one number, ``(N,)`` is N of them.

        Raises:
            ValueError: when a context is missing, not expected, or of another width.
            TypeError, ValueError: for what cannot be read as numbers, or has other columns.
        """
        if context is None and not self.context_features:
            return None
        if context is None:
            raise ValueError(
                f"{type(self).__name__} expected a context of {self.context_features} features beside x, but got none."
            )
        if not self.context_features:
            raise ValueError(f"{type(self).__name__} expected no context features, but got a context.")
        if not isinstance(context, Tensor) or context.dtype != self.anchor.dtype:
            context = self._rounded_context(self._at_the_door(context, "the context", self.context_columns))
        context = self._as_column(context, (self.context_features,) if self.context_dim == 1 else ())
        axis = context.ndim - self.context_dim
        if axis < 0 or context.shape[axis] != self.context_features:
            raise ValueError(
                f"{type(self).__name__} expected a context of {self.context_features} features, but got a context of "
                f"shape {tuple(context.shape)}."
            )
        return context

    def accept_pair(self, x: Any, context: Any) -> tuple[Tensor, Tensor | None]:
        """x and its context with the same batch axes: one context serves many x, and one x many contexts.

        Raises:
            ValueError: when the two have batch axes that do not go together; and as ``accept``, ``accept_context``.
        """
        if not isinstance(x, Tensor) and context is not None:
            check_order(x, context)
        x, context = self.accept(x), self.accept_context(context)
        if context is None:
            return x, None
        batch, given = x.shape[: x.ndim - len(self.event_shape)], context.shape[: context.ndim - self.context_dim]
        if batch != given:
            try:
                batch = torch.broadcast_shapes(batch, given)
            except RuntimeError:
                raise ValueError(
                    f"{type(self).__name__} expected one context for all x, or one for each, but got x of shape "
                    f"{tuple(x.shape)} and a context of shape {tuple(context.shape)}."
                ) from None
            x = x.expand(*batch, *self.event_shape)
            context = context.expand(*batch, *context.shape[context.ndim - self.context_dim :])
        return x, context

    def count(self, n: int) -> int:
        """n as a plain int; ValueError, in a sentence, unless it is a whole number of at least 1."""
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise ValueError(f"{type(self).__name__} expected a whole number of samples, at least 1, but got {n!r}.")
        return int(n)

    def spread(
        self,
        noise: Callable[[int, Generator | None], Tensor],
        n: int,
        generator: Generator | None,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """n draws of ``noise`` for each context, and the contexts beside them: ``(n, ..., *event)``, ``(n, ..., E)``.

        ``noise(m, generator)`` gives m samples of one axis. In a stack all have a leading axis K. ValueError for a
        context of a stack without it.
        """
        n = self.count(n)
        check_generator(generator)
        if context is None:
            return noise(n, generator), None
        lead = 0 if self.stack is None else 1
        batch = context.shape[lead : context.ndim - self.context_dim]
        if lead and (context.ndim == self.context_dim or len(context) != self.stack):
            raise ValueError(
                f"{type(self).__name__} is a stack of {self.stack} and expected contexts with a leading axis of "
                f"{self.stack}, but got {tuple(context.shape)}: give all of them the same contexts with "
                f"context.expand({self.stack}, *context.shape)."
            )
        many = n * math.prod(batch)
        z = noise(max(many, 1), generator).narrow(lead, 0, many).unflatten(lead, (n, *batch))
        return z, context.unsqueeze(lead).expand(*context.shape[:lead], n, *context.shape[lead:])

    def _at_the_door(self, x: Any, what: str, names: Sequence[str] | None) -> Tensor:
        values = as_tensor(x, what, names=names)
        return values if isinstance(x, Tensor) else values.to(self.anchor.device)

    def _as_column(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """One number ``()``, or N of them ``(N,)``, each as a vector of one number, where ``shape`` is that of one."""
        return x.unsqueeze(-1) if shape == (1,) and self.stack is None and x.ndim < 2 and x.shape != (1,) else x

    def _rounded(self, x: Tensor) -> Tensor:
        """x in the dtype in which this density takes it."""
        return x.to(self.anchor.dtype)

    def _rounded_context(self, context: Tensor) -> Tensor:
        """A context in the dtype in which this density takes it."""
        return context.to(self.anchor.dtype)

    def _shape(self, n: int) -> tuple[int, ...]:
        lead = () if self.stack is None else (self.stack,)
        return (*lead, self.count(n), *self.event_shape)

    def _uniform(self, n: int, generator: Generator | None) -> Tensor:
        check_generator(generator)
        return torch.rand(self._shape(n), generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)

    def _normal(self, n: int, generator: Generator | None) -> Tensor:
        check_generator(generator)
        return torch.randn(self._shape(n), generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)

    def extra_repr(self) -> str:
        stack = "" if self.stack is None else f", stack={self.stack}"
        shape = self.event_shape[0] if len(self.event_shape) == 1 else self.event_shape
        return f"{shape}{stack}"


def check_generator(generator: Any) -> None:
    """TypeError, in a sentence, for what is no generator: a seed, or a context that came in its place."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"Expected a torch.Generator, such as torch.Generator().manual_seed(0), but got a "
            f"{type(generator).__name__}. A context is given by name, sample(n, context=c)."
        )
