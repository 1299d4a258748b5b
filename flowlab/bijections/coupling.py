"""Coupling layers: one part of x passes unchanged and says how to move the other part.

    z_a = x_a
    z_b = h(x_b; θ(x_a))        h a law, increasing in its first argument; θ any function at all

The Jacobian is triangular once the coordinates are sorted into (a, b), so log |det| is a sum over part b alone, and
the inverse needs θ but never θ⁻¹. The laws h are in ``laws.py``: addition (NICE), scale and shift (RealNVP), and a
monotone rational-quadratic spline (neural spline flows).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from flowlab.bijections.base import Bijection, ImageBijection, ShapeError
from flowlab.bijections.laws import Law, ScaleAndShift, Shift, Spline
from flowlab.networks import MLP, ResidualConvNet

Apply = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # a law's forward or inverse


def alternating_mask(features: int, odd: bool = False) -> Tensor:
    """A mask ``(D,)`` that passes the even coordinates, or the odd ones: NICE's split, RealNVP's checkerboard."""
    return torch.arange(features, device="cpu") % 2 == int(odd)  # on device "meta" no mask could be read


def checkerboard_mask(channels: int, height: int, width: int, odd: bool = False) -> Tensor:
    """A mask ``(C, H, W)`` that passes the pixels with i + j even, or odd (RealNVP, arXiv:1605.08803, figure 3)."""
    i, j = torch.arange(height, device="cpu").unsqueeze(-1), torch.arange(width, device="cpu")
    return ((i + j) % 2 == int(odd)).expand(channels, height, width)


def channel_mask(channels: int, odd: bool = False) -> Tensor:
    """A mask ``(C, 1, 1)`` that passes the first half of the channels, rounded down, or the others (figure 3)."""
    return ((torch.arange(channels, device="cpu") >= channels // 2) == odd).reshape(channels, 1, 1)


def total(log_slope: Tensor) -> Tensor:
    """Σ over the last axis, ``(..., D)`` to ``(...)``; a single coordinate is its own sum, and nothing is computed."""
    return log_slope.squeeze(-1) if log_slope.shape[-1] == 1 else log_slope.sum(-1)


class Coupling(Bijection):
    """z_a = x_a, z_b = h(x_b; θ(x_a)), with log |det| = Σ log ∂h/∂x_b over part b.

    Shapes ``(..., D)`` and ``(...)``. Starts at the identity: θ is 0 before training.

    Args:
        mask: ``(D,)``, True where x passes unchanged (the paper's b = 1).
        law: h.
        hidden: widths of the hidden layers of the network θ.
        activation: of the network: "relu", "tanh", "silu" or "gelu".
        context_features: width of the context given beside x_a, 0 for none.
        stack: K for K layers side by side.
        generator: draws the starting weights.

    Raises:
        ShapeError: when the mask passes all or nothing, as it must for D = 1: there is then nothing to couple.
    """

    order: Tensor  # the coordinates of part a, then those of part b

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        law: Law,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        context_features: int = 0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        passes = np.asarray(mask.tolist() if isinstance(mask, Tensor) else mask, dtype=bool)  # also on device "meta"
        if passes.ndim != 1 or passes.all() or not passes.any():
            raise ShapeError(
                f"{type(self).__name__} expected a mask (D,) that passes some coordinates and moves some, so D ≥ 2, "
                f"but got {passes.tolist()}."
            )
        super().__init__(len(passes), stack)
        a, b = passes.nonzero()[0].tolist(), (~passes).nonzero()[0].tolist()
        self.sizes = (len(a), len(b))
        self.register_buffer("order", torch.tensor(a + b))
        self._find_blocks()
        self.register_load_state_dict_post_hook(type(self)._find_blocks)  # the weights bring their mask along
        self.law = law
        self.conditioner = MLP(
            len(a),
            len(b) * law.parameters_per_number,
            hidden=hidden,
            activation=activation,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )
        self.context_features = context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        x_a, x_b = self.split(x)
        z_b, log_slope = self.law(x_b, self.theta(x_a, context))
        return self.join(x_a, z_b), total(log_slope)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        z_a, z_b = self.split(z)
        x_b, log_slope = self.law.inverse(z_b, self.theta(z_a, context))
        return self.join(z_a, x_b), total(log_slope)

    def theta(self, a: Tensor, context: Tensor | None = None) -> Tensor:
        """θ(x_a), P numbers for each number of part b: ``(..., D_a)`` to ``(..., P, D_b)``."""
        theta, P = self.conditioner(self.law.seen(a), context), self.law.parameters_per_number
        if self.law.side_by_side:
            return theta.unflatten(-1, (self.sizes[1], P)).mT
        return theta.unflatten(-1, (P, self.sizes[1]))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x into the part that passes and the part that moves: ``(..., D_a)`` and ``(..., D_b)``."""
        if self.blocks == "ba":
            b, a = x.split_with_sizes(self.sizes[::-1], dim=-1)
        else:
            a, b = (x if self.blocks else x[..., self.order]).split_with_sizes(self.sizes, dim=-1)
        return a, b

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """The two parts back in their places: ``(..., D)``."""
        if self.blocks == "ba":
            return torch.cat((b, a), dim=-1)
        x = torch.cat((a, b), dim=-1)
        return x if self.blocks else x[..., self.order.argsort()]

    def _find_blocks(self, *_: object) -> None:
        """Find out whether the parts are two neighboring blocks: split and cat are then faster than an index."""
        if self.order.is_meta:  # weights without numbers say nothing of their mask
            return
        order, n = self.order.tolist(), self.sizes[0]
        self.parts = (tuple(order[:n]), tuple(order[n:]))
        whole = list(range(len(order)))
        self.blocks = "ab" if order == whole else "ba" if order[n:] + order[:n] == whole else None

    def extra_repr(self) -> str:
        passing, moving = (list(part) for part in self.parts)
        return f"passes={passing}, moves={moving}" + ("" if self.stack is None else f", stack={self.stack}")


class AdditiveCoupling(Coupling):
    """z_b = x_b + m(x_a), with log |det| = 0 whatever m is (NICE, arXiv:1410.8516, section 3.2).

    A Coupling by the law Shift; arguments, shapes and errors are those of Coupling.
    """

    def __init__(self, mask: Tensor | Sequence[bool], hidden: Sequence[int] = (64, 64), **settings: Any) -> None:
        super().__init__(mask, Shift(), hidden=hidden, **settings)


class AffineCoupling(Coupling):
    """z_b = x_b · exp(s(x_a)) + t(x_a), with log |det| = Σ s (RealNVP, arXiv:1605.08803, eq. 7 to 9).

    A Coupling by the law ScaleAndShift, with |s| at most ``log_scale_bound``; the other arguments, shapes and errors
    are those of Coupling.

    >>> f = AffineCoupling([True, False], log_scale_bound=2.0)
    >>> f.conditioner.last.bias.data = torch.tensor([0.5, 1.0])  # s = 2 tanh(0.5) and t = 1, for all x
    >>> z, log_det = f(torch.tensor([[7.0, 2.0]]))  # 7 passes, and 2 becomes 2 exp(s) + 1
    >>> print(f"{z[0, 0]:.4f} {z[0, 1]:.4f} {log_det[0]:.4f}")
    7.0000 6.0399 0.9242
    """

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        hidden: Sequence[int] = (64, 64),
        *,
        log_scale_bound: float = 2.0,
        **settings: Any,
    ) -> None:
        super().__init__(mask, ScaleAndShift(log_scale_bound), hidden=hidden, **settings)


class SplineCoupling(Coupling):
    """z_b = a monotone rational-quadratic spline of x_b, its knots given by x_a (arXiv:1906.04032, eq. 4 to 8).

    A Coupling by the law Spline with K = ``bins`` pieces on [−B, B], B = ``bound``, ``guarded`` or not; the other
    arguments, shapes and errors are those of Coupling. Much more flexible in one layer than scale and shift, with a
    closed inverse.

    >>> f = SplineCoupling([True, False], bins=4, bound=3.0)
    >>> f.conditioner.last.bias.data = torch.arange(11.0) / 10  # 4 widths, 4 heights and 3 slopes, the same for all x
    >>> z, log_det = f(torch.tensor([[7.0, 1.0], [7.0, 4.0]]))
    >>> print(f"{z[0, 1]:.4f} {z[1, 1]:.4f}")  # the spline bends 1, but not 4, which is outside [−3, 3]
    0.9076 4.0000
    """

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        hidden: Sequence[int] = (64, 64),
        *,
        bins: int = 8,
        bound: float = 4.0,
        guarded: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(mask, Spline(bins, bound, guarded=guarded), hidden=hidden, **settings)


class ImageCoupling(ImageBijection):
    """A coupling of images, with all of x in its place and the mask b as a factor (RealNVP, eq. 9).

        z = b ⊙ x + (1 − b) ⊙ h(x; θ(b ⊙ x))

    log |det| = Σ (1 − b) ⊙ log ∂h/∂x. Takes ``(..., C, H, W)`` to the same shape and ``(...)``. Starts at the
    identity: θ is 0 before training.

    Args:
        mask: ``(C, H, W)``, or ``(C, 1, 1)`` for images of any size, True where x passes unchanged.
        law: h.
        hidden: channels in the hidden layers of the network θ, a ResidualConvNet.
        blocks: how many residual blocks it has.
        context_features: width of the context given beside x, 0 for none.
        context_dim: 1 for a context ``(..., E)``, the same for all pixels; 3 for an image ``(..., E, H, W)``.
        stack: K for K layers side by side.
        generator: draws the starting weights.

    Raises:
        ShapeError: when the mask has no three axes, or passes all or nothing; when called, for images of another size.
    """

    mask: Tensor

    def __init__(
        self,
        mask: Tensor,
        law: Law,
        *,
        hidden: int = 64,
        blocks: int = 2,
        context_features: int = 0,
        context_dim: int = 1,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        mask = torch.as_tensor(mask, dtype=torch.bool)
        if mask.ndim != 3 or mask.all() or not mask.any():
            raise ShapeError(
                f"{type(self).__name__} expected a mask (C, H, W) or (C, 1, 1) that passes some of the image and moves "
                f"some, but got one of shape {tuple(mask.shape)} that passes {int(mask.sum())} of {mask.numel()}."
            )
        C = len(mask)
        super().__init__(C, stack)
        self.register_buffer("mask", mask.clone())
        self.law = law
        self.network = ResidualConvNet(
            C,
            C * law.parameters_per_number,
            hidden,
            blocks,
            context_features=context_features,
            context_dim=context_dim,
            stack=stack,
            generator=generator,
        )
        self.context_features, self.context_dim = context_features, context_dim

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.law, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.law.inverse, z, context)

    def _move(self, h: Apply, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.check(x)
        moved, log_slope = h(x.flatten(-3), self.theta(self.mask * x, context))
        moved, log_slope = (part.unflatten(-1, x.shape[-3:]) for part in (moved, log_slope))
        return torch.where(self.mask, x, moved), torch.where(self.mask, 0.0, log_slope).sum((-3, -2, -1))

    def theta(self, a: Tensor, context: Tensor | None = None) -> Tensor:
        """θ(b ⊙ x), P numbers for each number: ``(..., C, H, W)`` to ``(..., P, C·H·W)``."""
        theta = self.network(self.law.seen(a), context)
        return theta.unflatten(-3, (self.law.parameters_per_number, self.channels)).flatten(-3)

    def check(self, x: Tensor) -> None:
        super().check(x)
        if self.mask.shape[1:] not in ((1, 1), x.shape[-2:]):
            wanted = ", ".join(map(str, self.mask.shape))
            raise ShapeError(f"{type(self).__name__} expected shape (..., {wanted}), but got {tuple(x.shape)}.")

    def extra_repr(self) -> str:
        if self.mask.is_meta:
            passes = "?"
        elif self.mask[0, 0].numel() == 1:
            passes = f"channels {self.mask[:, 0, 0].nonzero().flatten().tolist()}"
        else:  # its top left corner tells a checkerboard from its opposite
            passes = f"{int(self.mask.sum())} numbers, at the top left {self.mask[0, :2, :2].int().tolist()}"
        return f"{super().extra_repr()}, mask of shape {tuple(self.mask.shape)}, passes={passes}"


class AdditiveImageCoupling(ImageCoupling):
    """z = x + (1 − b) ⊙ m(b ⊙ x), with log |det| = 0: NICE's law for images, as in Glow's additive variant.

    An ImageCoupling by the law Shift; arguments, shapes and errors are those of ImageCoupling.
    """

    def __init__(self, mask: Tensor, hidden: int = 64, **settings: Any) -> None:
        super().__init__(mask, Shift(), hidden=hidden, **settings)


class AffineImageCoupling(ImageCoupling):
    """z = b ⊙ x + (1 − b) ⊙ (x · exp(s(b ⊙ x)) + t(b ⊙ x)), with log |det| = Σ (1 − b) ⊙ s (RealNVP, eq. 9).

    An ImageCoupling by the law ScaleAndShift, with |s| at most ``log_scale_bound``; the other arguments, shapes and
    errors are those of ImageCoupling.
    """

    def __init__(self, mask: Tensor, hidden: int = 64, *, log_scale_bound: float = 2.0, **settings: Any) -> None:
        super().__init__(mask, ScaleAndShift(log_scale_bound), hidden=hidden, **settings)


class SplineImageCoupling(ImageCoupling):
    """z = b ⊙ x + (1 − b) ⊙ spline(x; θ(b ⊙ x)), a rational-quadratic spline of each number (arXiv:1906.04032).

    An ImageCoupling by the law Spline with K = ``bins`` pieces on [−B, B], B = ``bound``, ``guarded`` or not; the other
    arguments, shapes and errors are those of ImageCoupling.
    """

    def __init__(
        self,
        mask: Tensor,
        hidden: int = 64,
        *,
        bins: int = 8,
        bound: float = 4.0,
        guarded: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(mask, Spline(bins, bound, guarded=guarded), hidden=hidden, **settings)
