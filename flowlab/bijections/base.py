"""What every bijection promises, and two ways to build new ones from old: Inverse and Channelwise.

The contract, in five lines:

- ``forward(x)`` maps data to latent, x -> z. ``inverse(z)`` maps back, z -> x.
- Both return ``(value, log_det)``: log |det J| of *the map just applied*, one number for each sample.
- The last ``event_dim`` axes are one sample (0: a number, 1: a vector, 3: an image). The axes before are the batch.
- A stack of K maps has weights with a leading axis K, and so have its input and its output.
- An inverse that does not exist raises. It is never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import torch
from torch import Tensor, nn


class ShapeError(ValueError):
    """The input has another shape than the map was built for."""


class InverseNotAvailable(NotImplementedError):
    """The map has an inverse, but no way to compute it here."""


class NotStackable(ValueError):
    """The map cannot be built K times side by side, or is mixed with a stack of another K."""


def is_whole(x: Tensor) -> bool:
    """Whether x is of a type of whole numbers, of which bool is none."""
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


class Bijection(nn.Module):
    """An invertible map f with a log-determinant: log p(x) = log p_Z(f(x)) + log |det ∂f/∂x|.

    Attributes:
        event_dim: how many trailing axes make one sample: 0 for single numbers ``(...)``, 1 for vectors ``(..., D)``, 3
            for images. That of ``event_shape``, where there is one.
        event_shape: the shape of one sample, or None when any is taken.
        domain: "real", or "whole" for a permutation of whole numbers, whose log-determinant is 0.
        context_features: width of the context that the map is conditioned on, 0 for none.
        context_dim: how many trailing axes make one context: 1 for a vector, 3 for an image.
        stack: K for a stack of K maps side by side, else None.
        inverse_is_numeric: True when ``inverse`` is found by iteration and not by a formula.
        centers_float64: True when the map takes float64 data and centers them before it rounds to its own dtype.
        centers_context: the same of contexts.

    Raises:
        ShapeError: for a dimension below 1; when called, for an x of another shape.
        NotStackable: for a stack of fewer than one map.
        TypeError: when called, for numbers of another domain.
    """

    event_dim: int = 1
    domain: str = "real"
    context_features: int = 0
    context_dim: int = 1
    inverse_is_numeric: bool = False
    centers_float64: bool = False
    centers_context: bool = False

    def __init__(self, event_shape: int | tuple[int, ...] | None = None, stack: int | None = None) -> None:
        super().__init__()
        if event_shape is not None:
            shape = (event_shape,) if isinstance(event_shape, (int, Integral)) else event_shape
            event_shape = tuple(int(d) for d in shape)
        if event_shape is not None and any(d < 1 for d in event_shape):
            raise ShapeError(f"{type(self).__name__} expected at least one dimension, but got {event_shape}.")
        if stack is not None and stack < 1:
            raise NotStackable(f"{type(self).__name__} expected a stack of at least one map, but got stack={stack}.")
        if event_shape is not None:
            self.event_dim = len(event_shape)
        self.event_shape = event_shape
        self.stack = stack

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """The shape of one z; that of one x unless the map changes it."""
        return self.event_shape

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = f(x) and log |det ∂f/∂x|: ``(..., D)`` to ``(..., D)`` and ``(...)``."""
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = f⁻¹(z) and log |det ∂f⁻¹/∂z|: ``(..., D)`` to ``(..., D)`` and ``(...)``.

        Raises:
            InverseNotAvailable: for a map that has no inverse which can be computed.
        """
        raise InverseNotAvailable(f"{type(self).__name__} has no inverse that can be computed.")

    def check(self, x: Tensor) -> None:
        """Raise ShapeError or TypeError, in a sentence, unless ``x`` is something this map can take."""
        if self.domain == "real" and not x.is_floating_point():
            raise TypeError(f"{type(self).__name__} expected floating-point numbers, but got {x.dtype}: use x.float().")
        if self.domain == "whole" and not is_whole(x):
            raise TypeError(f"{type(self).__name__} expected whole numbers, but got {x.dtype}: use x.long().")
        expected, batch = self.event_shape, x.ndim - self.event_dim
        if batch < 0 or (expected is not None and x.shape[batch:] != expected):
            wanted = "D" if expected is None else ", ".join(map(str, expected))
            raise ShapeError(f"{type(self).__name__} expected shape (..., {wanted}), but got {tuple(x.shape)}.")
        if self.stack is not None and (x.ndim <= self.event_dim or x.shape[0] != self.stack):
            raise ShapeError(
                f"{type(self).__name__} is a stack of {self.stack} and expected a leading axis of {self.stack}, but "
                f"got {tuple(x.shape)}: give all of them the same points with x.expand({self.stack}, *x.shape)."
            )

    def align(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Make a parameter ``(K, D)`` of a stack broadcast against ``(K, ..., D)``; leave others as they are."""
        if self.stack is None:
            return parameter
        return parameter.reshape(self.stack, *[1] * (x.ndim - parameter.ndim), *parameter.shape[1:])

    def extra_repr(self) -> str:
        shape = self.event_shape
        parts = [] if shape is None else [str(shape[0] if len(shape) == 1 else shape)]
        return ", ".join(parts + ([] if self.stack is None else [f"stack={self.stack}"]))

    def batch_log_det(self, log_det: Tensor, x: Tensor) -> Tensor:
        """Repeat a log-determinant that no sample changes, ``()`` or ``(K,)``, over the batch axes of ``x``."""
        batch = x.shape[: x.ndim - self.event_dim]
        if self.stack is not None:
            log_det = log_det.reshape(self.stack, *[1] * (len(batch) - 1))
        return log_det.expand(batch)


class Inverse(Bijection):
    """The same map read the other way: forward is the inverse, and the inverse is forward."""

    def __init__(self, bijection: Bijection) -> None:
        super().__init__(bijection.latent_shape, bijection.stack)
        self.bijection = bijection
        self.event_dim, self.domain = bijection.event_dim, bijection.domain
        self.context_features, self.context_dim = bijection.context_features, bijection.context_dim
        self.inverse_is_numeric = bijection.inverse_is_numeric

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        return self.bijection.event_shape

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.forward(z, context)


class ImageBijection(Bijection):
    """A bijection of images ``(..., C, H, W)`` with C channels, of any height and width.

    Raises:
        ShapeError: when called, for images of another number of channels.
    """

    event_dim = 3

    def __init__(self, channels: int, stack: int | None = None) -> None:
        super().__init__(None, stack)
        self.channels = channels

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (f"channels={self.channels}", super().extra_repr())))

    def check(self, x: Tensor) -> None:
        super().check(x)
        if x.shape[-3] != self.channels:
            raise ShapeError(
                f"{type(self).__name__} expected shape (..., {self.channels}, H, W), but got {tuple(x.shape)}."
            )


class Channelwise(ImageBijection):
    """One map of the C channels, applied to each pixel by itself: z_hw = f(x_hw), with log |det| summed over pixels.

    Takes ``(..., C, H, W)`` to the same shape and ``(...)``. ``Channelwise(ActNorm(C))`` is ActNorm for images: one
    scale and shift for each channel, started from all pixels of the first batch. A context ``(..., E)`` is the same for
    all pixels.

    Raises:
        ShapeError: for a map that is not one of vectors of a known length.
    """

    def __init__(self, bijection: Bijection) -> None:
        if bijection.event_dim != 1 or bijection.event_shape is None:
            raise ShapeError(
                f"Channelwise expected a map of vectors of a known length, the number of channels, but got "
                f"{type(bijection).__name__}."
            )
        super().__init__(bijection.event_shape[0], bijection.stack)
        self.bijection, self.domain = bijection, bijection.domain
        self.context_features = bijection.context_features
        self.inverse_is_numeric = bijection.inverse_is_numeric

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._each(self.bijection, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._each(self.bijection.inverse, z, context)

    def _each(self, apply: Callable, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.check(x)
        context = None if context is None else context[..., None, None, :]  # the same for all pixels
        z, log_det = apply(x.movedim(-3, -1), context)  # (..., H, W, C)
        return z.movedim(-1, -3), log_det.sum((-2, -1))
