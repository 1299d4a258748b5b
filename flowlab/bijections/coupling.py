"""Coupling layers: one part of x passes unchanged and says how to move the other part.

    z_a = x_a
    z_b = h(x_b; θ(x_a))        h invertible in its first argument, θ any function at all

The Jacobian is triangular once the coordinates are sorted into (a, b), so log |det| is a sum over part b alone, and
the inverse needs θ but never θ⁻¹. The laws h, each a class below: addition (NICE), scale and shift (RealNVP), and a
monotone rational-quadratic spline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from flowlab.bijections.base import Bijection, ImageBijection, ShapeError
from flowlab.networks import MLP, ResidualConvNet


def alternating_mask(features: int, odd: bool = False) -> Tensor:
    """A mask ``(D,)`` that passes the even coordinates, or the odd ones: NICE's split, RealNVP's checkerboard."""
    return torch.arange(features) % 2 == int(odd)


def checkerboard_mask(channels: int, height: int, width: int, odd: bool = False) -> Tensor:
    """A mask ``(C, H, W)`` that passes the pixels with i + j even, or odd (RealNVP, arXiv:1605.08803, figure 3)."""
    i, j = torch.arange(height).unsqueeze(-1), torch.arange(width)
    return ((i + j) % 2 == int(odd)).expand(channels, height, width)


def channel_mask(channels: int, odd: bool = False) -> Tensor:
    """A mask ``(C, 1, 1)`` that passes the first half of the channels, rounded down, or the others (figure 3)."""
    return ((torch.arange(channels) >= channels // 2) == odd).reshape(channels, 1, 1)


def _sum(s: Tensor) -> Tensor:
    """Σ over the last axis, where one column is its own sum."""
    return s.squeeze(-1) if s.shape[-1] == 1 else s.sum(-1)


class _Coupling(Bijection):
    """Splits x by a mask, moves one part, joins them again. A subclass is a law h: ``move`` and ``move_back``.

    Args:
        mask: ``(D,)``, True where x passes unchanged (the paper's b = 1).
        hidden: widths of the hidden layers of the conditioner.
        activation: of the conditioner: "relu", "tanh", "silu" or "gelu".
        context_features: width of the context given beside x_a, 0 for none.
        stack: K for K layers side by side.
        generator: draws the starting weights.

    Raises:
        ShapeError: when the mask passes all or nothing, as it must for D = 1: there is then nothing to couple.
    """

    parameters_per_feature = 1

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "relu",
        context_features: int = 0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        mask = torch.as_tensor(mask, dtype=torch.bool)
        if mask.ndim != 1 or mask.all() or not mask.any():
            raise ShapeError(
                f"{type(self).__name__} expected a mask (D,) that passes some coordinates and moves some, so D ≥ 2, "
                f"but got {mask.tolist()}."
            )
        super().__init__(len(mask), stack)
        a, b = mask.nonzero().flatten(), (~mask).nonzero().flatten()
        self.sizes = (len(a), len(b))
        self.register_buffer("order", torch.cat((a, b)))
        self._find_blocks()
        self.register_load_state_dict_post_hook(type(self)._find_blocks)  # the weights bring their mask along
        self.conditioner = MLP(
            len(a),
            len(b) * self.parameters_per_feature,
            hidden=hidden,
            activation=activation,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )

    def move(self, x_a: Tensor, x_b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z_b = h(x_b; θ(x_a)) and log |det ∂z_b/∂x_b|: ``(..., D_b)`` and ``(...)``."""
        raise NotImplementedError

    def move_back(self, z_a: Tensor, z_b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x_b = h⁻¹(z_b; θ(z_a)) and log |det ∂x_b/∂z_b|: ``(..., D_b)`` and ``(...)``."""
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        x_a, x_b = self.split(x)
        z_b, log_det = self.move(x_a, x_b, context)
        return self.join(x_a, z_b), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        z_a, z_b = self.split(z)
        x_b, log_det = self.move_back(z_a, z_b, context)
        return self.join(z_a, x_b), log_det

    def through(
        self, maps: Sequence[Bijection], x: Tensor, context: Tensor | None, inverse: bool
    ) -> tuple[Tensor, Tensor, int]:
        """Couplings in a row that move the same two parts in turn split once and join once: a tenth of a small step."""
        run = [self] if self._as_written() else []
        for f in maps[len(run) :]:
            if not (run and isinstance(f, _Coupling) and f._as_written() and set(f.parts) == set(self.parts)):
                break
            run.append(f)
        if len(run) < 2:
            return super().through(maps, x, context, inverse)
        self.check(x)
        a, b = self.split(x)
        parts, total = self.parts, None
        for f in run:
            if f.parts != parts:
                parts, a, b = f.parts, b, a
            b, log_det = (f.move_back if inverse else f.move)(a, b, context)
            total = log_det if total is None else total + log_det
        return run[-1].join(a, b), total, len(run)

    def _as_written(self) -> bool:
        """Whether ``forward`` and ``inverse`` are those above, and nobody waits beside them for their results."""
        if "forward" in vars(self) or "inverse" in vars(self) or self._forward_hooks or self._forward_pre_hooks:
            return False
        return type(self).forward is _Coupling.forward and type(self).inverse is _Coupling.inverse

    def _find_blocks(self, *_: object) -> None:
        """Two neighboring blocks need no shuffling: split and cat do it, and that is faster than an index."""
        order, n = self.order.tolist(), self.sizes[0]
        self.parts = (tuple(order[:n]), tuple(order[n:]))
        mask = self.order.argsort() < n
        self.blocks = {(True, False): "ab", (False, True): "ba"}.get(tuple(mask.unique_consecutive().tolist()))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x into the part that passes and the part that moves: ``(..., D_a)`` and ``(..., D_b)``."""
        if self.blocks == "ba":
            return x.split_with_sizes(self.sizes[::-1], dim=-1)[::-1]
        return (x if self.blocks else x[..., self.order]).split_with_sizes(self.sizes, dim=-1)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """The two parts back in their places: ``(..., D)``."""
        if self.blocks == "ba":
            return torch.cat((b, a), dim=-1)
        x = torch.cat((a, b), dim=-1)
        return x if self.blocks else x[..., self.order.argsort()]


class AdditiveCoupling(_Coupling):
    """z_b = x_b + m(x_a), with log |det| = 0 whatever m is (NICE, arXiv:1410.8516, section 3.2).

    Shapes ``(..., D)`` and ``(...)``. Starts at the identity.
    """

    def move(self, x_a: Tensor, x_b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        m = self.conditioner(x_a, context)
        return x_b + m, x_b.new_zeros(x_b.shape[:-1])

    def move_back(self, z_a: Tensor, z_b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        m = self.conditioner(z_a, context)
        return z_b - m, z_b.new_zeros(z_b.shape[:-1])


class AffineCoupling(_Coupling):
    """z_b = x_b · exp(s(x_a)) + t(x_a), with log |det| = Σ s (RealNVP, arXiv:1605.08803, eq. 7 to 9).

    s = c tanh(·) with c = ``log_scale_bound``, so that no layer can stretch by more than e^c: without a bound, exp(s)
    overflows now and then and kills the training. Shapes ``(..., D)`` and ``(...)``. Starts at the identity.
    """

    parameters_per_feature = 2

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        hidden: Sequence[int] = (64, 64),
        *,
        log_scale_bound: float = 2.0,
        **settings,
    ) -> None:
        super().__init__(mask, hidden, **settings)
        # A tensor, since multiplying by one is measurably faster than by a Python number.
        self.register_buffer("log_scale_bound", torch.tensor(float(log_scale_bound)), persistent=False)

    def move(self, x_a: Tensor, x_b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s, t = self._scale_and_shift(x_a, context)
        return x_b * s.exp() + t, _sum(s)

    def move_back(self, z_a: Tensor, z_b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s, t = self._scale_and_shift(z_a, context)
        return (z_b - t) * (-s).exp(), -_sum(s)

    def _scale_and_shift(self, a: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        s, t = self.conditioner(a, context).chunk(2, dim=-1)
        return self.log_scale_bound * torch.tanh(s), t


class SplineCoupling(_Coupling):
    """z_b = monotone rational-quadratic spline of x_b, its knots given by x_a (arXiv:1906.04032, eq. 4 to 8).

    On [−B, B] the spline goes through K + 1 knots with positive slopes; outside it is the identity. Much more flexible
    in one layer than scale and shift, with a closed inverse: a quadratic equation. Shapes ``(..., D)`` and ``(...)``.
    Starts at the identity.

    Args:
        bins: K, the number of pieces.
        bound: B, half the width of the interval that is bent.
    """

    smallest = 1e-3  # share of the interval that a bin keeps at least, and least slope: keeps the inverse well posed

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        hidden: Sequence[int] = (64, 64),
        *,
        bins: int = 8,
        bound: float = 4.0,
        **settings,
    ) -> None:
        if not 2 <= bins <= 1 / (2 * self.smallest) or not bound > 0:
            raise ValueError(f"SplineCoupling expected 2 to 500 bins and a bound above 0, but got {bins} and {bound}.")
        self.parameters_per_feature = 3 * bins - 1
        super().__init__(mask, hidden, **settings)
        self.bins, self.bound = bins, bound

    def move(self, x_a: Tensor, x_b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        knots = self._knots(x_a, context)
        z_b, log_slope = self._spline(x_b, *knots)
        return z_b, log_slope.sum(-1)

    def move_back(self, z_a: Tensor, z_b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        knots = self._knots(z_a, context)
        x_b, log_slope = self._spline_inverse(z_b, *knots)
        return x_b, -log_slope.sum(-1)

    def _knots(self, a: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Knots (x_k, y_k) and slopes d_k, each ``(..., D_b, K + 1)``; the slope at both ends is 1."""
        K = self.bins
        sizes, d = self.conditioner(a, context).unflatten(-1, (self.sizes[1], 3 * K - 1)).split((2 * K, K - 1), dim=-1)
        share = self.smallest + (1 - self.smallest * K) * sizes.unflatten(-1, (2, K)).softmax(-1)
        inner = 2 * self.bound * share.cumsum(-1)[..., :-1] - self.bound  # (..., D_b, 2, K − 1): widths, heights
        X, Y = F.pad(F.pad(inner, (1, 0), value=-self.bound), (0, 1), value=self.bound).unbind(-2)
        # Shifted so that an output of zero means a slope of one.
        d = self.smallest + F.softplus(d + math.log(math.expm1(1 - self.smallest)))
        return X, Y, F.pad(d, (1, 1), value=1.0)

    def _bin(self, value: Tensor, edges: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Left and right end, in each table, of the bin that holds ``value``: a pair ``(..., D_b)`` for each table."""
        k = torch.searchsorted(edges.detach()[..., 1:-1].contiguous(), value.detach().unsqueeze(-1).contiguous())
        ends = torch.cat((k, k + 1), dim=-1)
        return tuple(end for table in (edges, *others) for end in table.gather(-1, ends).unbind(-1))

    def _spline(self, x: Tensor, X: Tensor, Y: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.abs() < self.bound
        u = torch.where(inside, x, 0.0)
        x0, x1, y0, y1, d0, d1 = self._bin(u, X, Y, D)
        s = (y1 - y0) / (x1 - x0)
        xi = (u - x0) / (x1 - x0)
        e = xi * (1 - xi)
        z = y0 + (y1 - y0) * (s * xi**2 + d0 * e) / (s + (d0 + d1 - 2 * s) * e)  # eq. 4
        return torch.where(inside, z, x), torch.where(inside, self._log_slope(xi, s, d0, d1), 0.0)

    def _spline_inverse(self, z: Tensor, X: Tensor, Y: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
        inside = z.abs() < self.bound
        v = torch.where(inside, z, 0.0)
        y0, y1, x0, x1, d0, d1 = self._bin(v, Y, X, D)
        s = (y1 - y0) / (x1 - x0)
        k = (v - y0) * (d0 + d1 - 2 * s)
        a, b, c = (y1 - y0) * (s - d0) + k, (y1 - y0) * d0 - k, -s * (v - y0)  # eq. 6 to 8
        root = (b * b - 4 * a * c).clamp_min(0).sqrt()
        # One root in its two forms: each time the one that adds numbers of one sign, since the other loses digits.
        xi = torch.where(b >= 0, -2 * c, root - b) / torch.where(b >= 0, b + root, 2 * a)
        x = x0 + (x1 - x0) * xi
        return torch.where(inside, x, z), torch.where(inside, self._log_slope(xi, s, d0, d1), 0.0)

    @staticmethod
    def _log_slope(xi: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
        """log dz/dx within a bin (eq. 5)."""
        e = xi * (1 - xi)
        top = s * s * (d1 * xi * xi + 2 * s * e + d0 * (1 - xi) ** 2)
        return top.log() - 2 * (s + (d0 + d1 - 2 * s) * e).log()


class _ImageCoupling(_Coupling, ImageBijection):
    """A coupling of images: the laws above, with all of x in its place and the mask b as a factor (RealNVP, eq. 9).

        z = b ⊙ x + (1 − b) ⊙ h(x; θ(b ⊙ x))

    The conditioner sees b ⊙ x as an image, and (1 − b) · its output is zero where x passes, where every law h is then
    the identity with log |det| = 0. Takes ``(..., C, H, W)`` to the same shape and ``(...)``.

    Args:
        mask: ``(C, H, W)``, or ``(C, 1, 1)`` for images of any size, True where x passes unchanged.
        hidden: channels in the hidden layers of the conditioner, a ResidualConvNet.
        blocks: how many residual blocks it has.
        context_features: width of the context given beside x, the same for all pixels; 0 for none.
        stack: K for K layers side by side.
        generator: draws the starting weights.

    Raises:
        ShapeError: when the mask has no three axes, or passes all or nothing; when called, for images of another size.
    """

    def __init__(
        self,
        mask: Tensor,
        hidden: int = 64,
        *,
        blocks: int = 2,
        context_features: int = 0,
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
        ImageBijection.__init__(self, C, stack)
        self.register_buffer("mask", mask.clone())
        self.network = ResidualConvNet(
            C,
            C * self.parameters_per_feature,
            hidden,
            blocks,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z, log_det = self.move(self.mask * x, x.flatten(-3), context)
        return z.unflatten(-1, x.shape[-3:]), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x, log_det = self.move_back(self.mask * z, z.flatten(-3), context)
        return x.unflatten(-1, z.shape[-3:]), log_det

    def conditioner(self, a: Tensor, context: Tensor | None) -> Tensor:
        """θ(a), zero where x passes: ``(..., C, H, W)`` to ``(..., P·C·H·W)`` for a law of P parameters a number."""
        theta = self.network(a, context).unflatten(-3, (self.parameters_per_feature, self.channels))
        return (~self.mask * theta).flatten(-4)

    def check(self, x: Tensor) -> None:
        super().check(x)
        if self.mask.shape[1:] not in ((1, 1), x.shape[-2:]):
            wanted = ", ".join(map(str, self.mask.shape))
            raise ShapeError(f"{type(self).__name__} expected shape (..., {wanted}), but got {tuple(x.shape)}.")


class AdditiveImageCoupling(AdditiveCoupling, _ImageCoupling):
    """z = x + (1 − b) ⊙ m(b ⊙ x), with log |det| = 0: NICE's law for images, as in Glow's additive variant.

    Takes ``(..., C, H, W)`` to the same shape and ``(...)``. Starts at the identity.
    """


class AffineImageCoupling(AffineCoupling, _ImageCoupling):
    """z = b ⊙ x + (1 − b) ⊙ (x · exp(s(b ⊙ x)) + t(b ⊙ x)), with log |det| = Σ (1 − b) ⊙ s (RealNVP, eq. 9).

    s = c tanh(·) with c = ``log_scale_bound``. Takes ``(..., C, H, W)`` to the same shape and ``(...)``. Starts at the
    identity.
    """

    def __init__(self, mask: Tensor, hidden: int = 64, *, log_scale_bound: float = 2.0, **settings) -> None:
        super().__init__(mask, hidden, log_scale_bound=log_scale_bound, **settings)
