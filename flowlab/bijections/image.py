"""Images: Squeeze turns size into channels, and FactorOut passes half of them on. With both a flow is multi-scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from flowlab.bijections.base import Bijection, ImageBijection, Inverse, NotStackable, ShapeError
from flowlab.bijections.chain import Chain
from flowlab.networks import Convolution, beside


class Squeeze(Bijection):
    """Each 2×2 block of pixels becomes one pixel with four times the channels (RealNVP, arXiv:1605.08803, section 3.6).

    Takes ``(..., C, H, W)`` to ``(..., 4C, H/2, W/2)``: channel 4c + 2i + j holds row i, column j of the blocks of
    channel c. A permutation, so log |det| = 0. Has no weights, so a stack takes it too.

    Raises:
        ShapeError: when height or width is odd; for the inverse, when the channels are no multiple of four.
    """

    event_dim = 3

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        H, W = x.shape[-2:]
        if H % 2 or W % 2:
            raise ShapeError(
                f"Squeeze expected an even height and width, but got {tuple(x.shape)}: pad or crop the images first."
            )
        # torch's own has no gradient for a batch of no images.
        z = F.pixel_unshuffle(x, 2) if x.numel() else x.reshape(*x.shape[:-3], 4 * x.shape[-3], H // 2, W // 2)
        return z, self.batch_log_det(x.new_zeros(()), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        if z.shape[-3] % 4:
            raise ShapeError(f"The inverse of Squeeze expected channels in fours, but got {tuple(z.shape)}.")
        C, H, W = z.shape[-3:]
        x = F.pixel_shuffle(z, 2) if z.numel() else z.reshape(*z.shape[:-3], C // 4, 2 * H, 2 * W)
        return x, self.batch_log_det(z.new_zeros(()), z)


class FactorOut(ImageBijection):
    """x_a, half of the channels, goes on to ``rest``; x_b leaves as (x_b − μ(x_a))/σ(x_a) (RealNVP, section 3.6).

        z_a = f(x_a),  f = ``rest``: the scales to come
        z_b = (x_b − μ(x_a)) · exp(−s(x_a)),  log |det| = log |det ∂f/∂x_a| − Σ s

    The coarse part x_a predicts a mean and a scale for the fine part x_b; what is left of x_b is standardized. Takes
    ``(..., C, H, W)`` to the same shape and ``(...)``: ``rest`` gives its squeezes back, as in
    ``FactorOut(4, Chain([Squeeze(), ..., Inverse(Squeeze())]))``, so that all scales lie in one latent. s and μ are one
    3×3 convolution of x_a and the context, s = c tanh(·) with c = ``log_scale_bound``. Starts at z_b = x_b.

    Args:
        channels: C; the first half of them, rounded down, goes on.
        rest: a bijection of images of ⌊C/2⌋ channels that keeps their shape; None for no further scale.
        context_features: width of the context given beside x, 0 for none; ``context_dim`` is 1 for a context that is
            the same for all pixels, 3 for an image.
        stack: K for K layers side by side; ``rest`` is then a stack of K too, or without weights.

    Raises:
        ShapeError: when there are fewer than two channels, or ``rest`` takes no images; when called, if it changes the
            shape.
        NotStackable: when ``rest`` is a stack of another K.
    """

    def __init__(
        self,
        channels: int,
        rest: Bijection | None = None,
        *,
        log_scale_bound: float = 2.0,
        context_features: int = 0,
        context_dim: int = 1,
        stack: int | None = None,
    ) -> None:
        if channels < 2:
            raise ShapeError(f"FactorOut expected two channels or more, but got {channels}: squeeze first.")
        if rest is not None and rest.stack not in (None, stack):
            raise NotStackable(f"FactorOut with stack={stack} expected the rest to be one too, but got {rest.stack}.")
        if rest is not None:
            _takes_images(type(self), rest)
        super().__init__(channels, stack)
        self.rest, self.log_scale_bound = rest, log_scale_bound
        self.inverse_is_numeric = rest is not None and rest.inverse_is_numeric
        a = channels // 2
        self.sizes = (a, channels - a)
        self.conditioner = Convolution(a + context_features, 2 * (channels - a), zero=True, stack=stack)
        inner = (0, 1) if rest is None else (rest.context_features, rest.context_dim)
        self.own_context = context_features
        self.context_features, self.context_dim = (context_features, context_dim) if context_features else inner

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        x_a, x_b = x.split(self.sizes, dim=-3)
        s, mean = self._scale_and_mean(x_a, context)
        z_a, log_det = (x_a, 0.0) if self.rest is None else _in_shape(self, self.rest, x_a, context)
        return torch.cat((z_a, (x_b - mean) * (-s).exp()), dim=-3), log_det - s.sum((-3, -2, -1))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        z_a, z_b = z.split(self.sizes, dim=-3)
        x_a, log_det = (z_a, 0.0) if self.rest is None else _in_shape(self, self.rest.inverse, z_a, context)
        s, mean = self._scale_and_mean(x_a, context)
        return torch.cat((x_a, z_b * s.exp() + mean), dim=-3), log_det + s.sum((-3, -2, -1))

    def _scale_and_mean(self, a: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.own_context:
            a = beside(a, context, self.own_context, self.context_dim)
        s, mean = self.conditioner(a).chunk(2, dim=-3)
        return self.log_scale_bound * torch.tanh(s), mean

    def extra_repr(self) -> str:
        context = f"context_features={self.own_context}, context_dim={self.context_dim}"
        return f"{super().extra_repr()}, log_scale_bound={self.log_scale_bound:g}, {context}"


class AsImage(Bijection):
    """A vector read as an image, mapped, and read as a vector again: ``(..., C·H·W)`` to the same shape and ``(...)``.

    Puts a bijection of images between data and a base density that are vectors.

    Args:
        shape: C, H, W.
        bijection: of images, one that keeps their shape.

    Raises:
        ShapeError: when ``shape`` is not C, H, W or ``bijection`` takes no images; when called, if the vectors are not
            C·H·W long, or ``bijection`` changes the shape.
    """

    def __init__(self, shape: tuple[int, int, int], bijection: Bijection) -> None:
        if len(shape) != 3:
            raise ShapeError(f"AsImage expected a shape (C, H, W), but got {tuple(shape)}.")
        _takes_images(type(self), bijection)
        super().__init__(math.prod(shape), bijection.stack)
        self.shape, self.bijection, self.domain = tuple(shape), bijection, bijection.domain
        self.context_features, self.context_dim = bijection.context_features, bijection.context_dim
        self.inverse_is_numeric = bijection.inverse_is_numeric

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z, log_det = _in_shape(self, self.bijection, x.unflatten(-1, self.shape), context)
        return z.flatten(-3), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x, log_det = _in_shape(self, self.bijection.inverse, z.unflatten(-1, self.shape), context)
        return x.flatten(-3), log_det

    def extra_repr(self) -> str:
        return f"shape={self.shape}"


def scales(bijection: Bijection, shape: tuple[int, ...]) -> Tensor:
    """At which scale each latent left: 0 at the first FactorOut, the finest, 1 at the next, and so on, int64.

    ``shape`` is that of one sample, ``(D,)`` or ``(C, H, W)``, and of the answer. Only squeezes and factor-outs are
    followed: all other maps are taken to leave each number in its place, as those that come before a FactorOut may.
    """
    return _scales(bijection, torch.zeros(shape)).long()


def _scales(bijection: Bijection, scale: Tensor) -> Tensor:
    if isinstance(bijection, Chain):
        for one in bijection:
            scale = _scales(one, scale)
    elif isinstance(bijection, AsImage):
        scale = _scales(bijection.bijection, scale.unflatten(-1, bijection.shape)).flatten(-3)
    elif isinstance(bijection.bijection if isinstance(bijection, Inverse) else bijection, Squeeze):
        scale = bijection(scale)[0]
    elif isinstance(bijection, FactorOut):
        a, b = scale.split(bijection.sizes, dim=-3)
        a = a + 1
        scale = torch.cat((a if bijection.rest is None else _scales(bijection.rest, a), b), dim=-3)
    return scale


def _takes_images(who: type[Bijection], bijection: Bijection) -> None:
    """Raise ShapeError for a map of vectors, which would take each row of pixels for one sample."""
    if bijection.event_dim != 3:
        raise ShapeError(
            f"{who.__name__} expected a map of images, but got {type(bijection).__name__}, a map of vectors: "
            "Channelwise takes one to the channels of images."
        )


def _in_shape(who: Bijection, apply: Callable, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Apply a map that must keep the shape of images."""
    z, log_det = apply(x, context)
    if z.shape != x.shape:
        raise ShapeError(
            f"{type(who).__name__} expected a map that keeps the shape {tuple(x.shape)}, but got {tuple(z.shape)} "
            f"from it: "
            "end it with Inverse(Squeeze()) for each Squeeze()."
        )
    return z, log_det
