"""Laws: increasing functions z = h(x; θ) of one number. A wiring, such as a coupling, says where θ comes from.

    Shift           z = x + t
    ScaleAndShift   z = x · exp(s) + t
    Spline          z = a monotone rational-quadratic spline of x

Each law works elementwise on x ``(..., n)``, with P parameters θ ``(..., P, n)`` for each number. At θ = 0 it is the
identity.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)


class Law(nn.Module):
    """z = h(x; θ), elementwise and increasing in x, with log ∂z/∂x beside it.

    Attributes:
        parameters_per_number: P, how many numbers θ has for each x.
        side_by_side: whether a network gives the P numbers of one x side by side, as ``(n, P)``, or as ``(P, n)``;
            files of weights depend on it.
    """

    parameters_per_number: int = 1
    side_by_side: bool = False

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """z = h(x; θ) and log ∂z/∂x: ``(..., n)`` and ``(..., P, n)`` to two of ``(..., n)``."""
        raise NotImplementedError

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x = h⁻¹(z; θ) and log ∂x/∂z: ``(..., n)`` and ``(..., P, n)`` to two of ``(..., n)``."""
        raise NotImplementedError

    def partway(self, theta: Tensor, share: float) -> Tensor:
        """θ at this share of a path from 0, the identity, to θ, ``(..., P, n)`` to the same: here share · θ."""
        return share * theta

    def seen(self, a: Tensor) -> Tensor:
        """What the network of θ sees of its inputs, ``(..., m)`` to ``(..., m)``: here the inputs themselves."""
        return a


class _Partway(Law):
    """A law at a share of its way from the identity."""

    def __init__(self, law: Law, share: float) -> None:
        super().__init__()
        self.law, self.share = law, float(share)
        self.parameters_per_number, self.side_by_side = law.parameters_per_number, law.side_by_side

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return self.law(x, self.law.partway(theta, self.share))

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return self.law.inverse(z, self.law.partway(theta, self.share))

    def seen(self, a: Tensor) -> Tensor:
        return self.law.seen(a)

    def extra_repr(self) -> str:
        return f"share={self.share:g}"


def partway(f: M, share: float) -> M:
    """The map f at a share τ of the way from the identity: z = h(x; θ(τ)), which is x at τ = 0, and f itself at τ = 1.

    For every map that has a law: z = x · exp(τ s) + τ t where z = x · exp(s) + t, and a spline with the parameters τ θ.
    It can be inverted at each τ, and shares its weights with f.

    >>> from flowlab.bijections import AffineCoupling
    >>> f = AffineCoupling([True, False])
    >>> f.conditioner.last.bias.data = torch.tensor([0.5, 1.0])  # s = 2 tanh(0.5) and t = 1, for all x
    >>> z, log_det = partway(f, 0.5)(torch.tensor([[7.0, 2.0]]))  # 2 exp(s / 2) + 1 / 2
    >>> print(f"{z[0, 0]:.4f} {z[0, 1]:.4f} {log_det[0]:.4f}")
    7.0000 3.6749 0.4621

    Raises:
        TypeError: for a map without a law.
        ValueError: for a share that is not between 0 and 1.
    """
    law = getattr(f, "law", None)
    if not isinstance(law, Law):
        raise TypeError(f"partway expected a map with a law, such as a coupling, but got {type(f).__name__}.")
    if not 0 <= share <= 1:
        raise ValueError(f"partway expected a share between 0 and 1, but got {share}.")
    part = copy.copy(f)
    part._modules = {**f._modules, "law": _Partway(law, share)}
    return part


class Shift(Law):
    """z = x + t, with log ∂z/∂x = 0 (NICE, arXiv:1410.8516, section 3.2)."""

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return x + theta[..., 0, :], torch.zeros_like(x)

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return z - theta[..., 0, :], torch.zeros_like(z)


class ScaleAndShift(Law):
    """z = x · exp(s) + t, with log ∂z/∂x = s (RealNVP, arXiv:1605.08803, eq. 7 and 8).

    s = c tanh(θ_1) with c = ``log_scale_bound``, so that no layer can stretch by more than e^c: without a bound, exp(s)
    overflows now and then and ends the training. t = θ_2.
    """

    parameters_per_number = 2
    bound: Tensor

    def __init__(self, log_scale_bound: float = 2.0) -> None:
        super().__init__()
        # A tensor, since multiplying by one is measurably faster than by a Python number.
        self.register_buffer("bound", torch.tensor(float(log_scale_bound)), persistent=False)
        self.log_scale_bound = float(log_scale_bound)

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._scale_and_shift(theta)
        return x * s.exp() + t, s

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._scale_and_shift(theta)
        return (z - t) * (-s).exp(), -s

    def partway(self, theta: Tensor, share: float) -> Tensor:
        """The θ of z = x · exp(τ s) + τ t, where τ is the share: ``(..., 2, n)`` to ``(..., 2, n)``."""
        s, t = theta.unbind(-2)
        return torch.stack((torch.atanh(share * torch.tanh(s)), share * t), dim=-2)  # the s of the formula is c tanh

    def _scale_and_shift(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        s, t = theta.unbind(-2)
        return self.bound * torch.tanh(s), t

    def extra_repr(self) -> str:
        return f"log_scale_bound={self.log_scale_bound:g}"


class Spline(Law):
    """A monotone rational-quadratic spline through K + 1 knots on [−B, B], the identity outside (arXiv:1906.04032).

    Between two knots (x_k, y_k) and (x_{k+1}, y_{k+1}) with slopes d_k and d_{k+1}, and ξ = (x − x_k)/(x_{k+1} − x_k)
    and s = (y_{k+1} − y_k)/(x_{k+1} − x_k), it is

        z = y_k + (y_{k+1} − y_k) [s ξ² + d_k ξ(1−ξ)] / [s + (d_k + d_{k+1} − 2s) ξ(1−ξ)]        (eq. 4)

    Its inverse is closed: the root of a quadratic equation. θ holds K widths, K heights and K − 1 inner slopes.

    A guarded spline can be inverted in float32, whatever θ is. Each bin keeps ``smallest`` of the interval, and a slope
    at a knot is at most ``steepest`` times that of the flatter bin beside it, since a flat bin between steep knots is
    flatter still in its middle. The network sees its inputs clipped to [−B, B]: beyond, it would only extrapolate.

    Args:
        bins: K, the number of pieces.
        bound: B, half the width of the interval that is bent.
        guarded: whether θ is kept where float32 can invert the spline; False for files from before there was a choice.

    Raises:
        ValueError: for fewer than 2 or more than 500 bins, or a bound that is not above 0.
    """

    side_by_side = True

    def __init__(self, bins: int = 8, bound: float = 4.0, *, guarded: bool = True) -> None:
        super().__init__()
        if not 2 <= bins <= 500 or not bound > 0:
            raise ValueError(f"A spline expected 2 to 500 bins and a bound above 0, but got {bins} and {bound}.")
        self.bins, self.bound, self.guarded = int(bins), float(bound), bool(guarded)
        # The share of the interval that a bin keeps at least, which is also the least slope at a knot.
        self.smallest = min(0.02, 0.25 / self.bins) if guarded else 1e-3
        self.steepest = 10.0 if guarded else math.inf
        self.parameters_per_number = 3 * self.bins - 1

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.abs() < self.bound
        u = torch.where(inside, x, 0.0)
        X, Y, D = self.knots(theta)
        x0, x1, y0, y1, d0, d1 = self._bin(u, X, Y, D)
        s = (y1 - y0) / (x1 - x0)
        xi = (u - x0) / (x1 - x0)
        e = xi * (1 - xi)
        z = y0 + (y1 - y0) * (s * xi**2 + d0 * e) / (s + (d0 + d1 - 2 * s) * e)  # eq. 4
        return torch.where(inside, z, x), torch.where(inside, self._log_slope(xi, s, d0, d1), 0.0)

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        inside = z.abs() < self.bound
        v = torch.where(inside, z, 0.0)
        X, Y, D = self.knots(theta)
        y0, y1, x0, x1, d0, d1 = self._bin(v, Y, X, D)
        s = (y1 - y0) / (x1 - x0)
        k = (v - y0) * (d0 + d1 - 2 * s)
        a, b, c = (y1 - y0) * (s - d0) + k, (y1 - y0) * d0 - k, -s * (v - y0)  # eq. 6 to 8
        root = (b * b - 4 * a * c).clamp_min(0).sqrt()
        # One root in its two forms: each time the one that adds numbers of one sign, since the other loses digits.
        xi = torch.where(b >= 0, -2 * c, root - b) / torch.where(b >= 0, b + root, 2 * a)
        xi = xi.clamp(0, 1)  # rounded to beyond a knot, where the next bin begins, the formula of this one may not rise
        x = x0 + (x1 - x0) * xi
        return torch.where(inside, x, z), torch.where(inside, -self._log_slope(xi, s, d0, d1), 0.0)

    def knots(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The knots x_k, y_k and the slopes d_k, each ``(..., K + 1)``; the slope at both ends is 1."""
        K = self.bins
        sizes, d = theta.mT.split((2 * K, K - 1), dim=-1)  # (..., n, 2K) and (..., n, K − 1)
        share = self.smallest + (1 - self.smallest * K) * sizes.unflatten(-1, (2, K)).softmax(-1)
        inner = 2 * self.bound * share.cumsum(-1)[..., :-1] - self.bound  # (..., 2, K − 1): widths, heights
        X, Y = F.pad(F.pad(inner, (1, 0), value=-self.bound), (0, 1), value=self.bound).unbind(-2)
        # Shifted so that θ = 0 means a slope of one.
        d = self.smallest + F.softplus(d + math.log(math.expm1(1 - self.smallest)))
        if self.guarded:
            s = Y.diff() / X.diff()
            d = torch.minimum(d, self.steepest * torch.minimum(s[..., :-1], s[..., 1:]))
        return X, Y, F.pad(d, (1, 1), value=1.0)

    def seen(self, a: Tensor) -> Tensor:
        """The inputs clipped to [−B, B], where the spline bends, if it is guarded: ``(..., m)`` to ``(..., m)``."""
        return a.clamp(-self.bound, self.bound) if self.guarded else a

    def _bin(self, value: Tensor, edges: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Left and right end, in each table, of the bin that holds ``value``: a pair of its shape for each table."""
        k = torch.searchsorted(edges.detach()[..., 1:-1].contiguous(), value.detach().unsqueeze(-1).contiguous())
        ends = torch.cat((k, k + 1), dim=-1)
        return tuple(end for table in (edges, *others) for end in table.gather(-1, ends).unbind(-1))

    @staticmethod
    def _log_slope(xi: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
        """log dz/dx within a bin (eq. 5)."""
        e = xi * (1 - xi)
        top = s * s * (d1 * xi * xi + 2 * s * e + d0 * (1 - xi) ** 2)
        return top.log() - 2 * (s + (d0 + d1 - 2 * s) * e).log()

    def extra_repr(self) -> str:
        return f"bins={self.bins}, bound={self.bound:g}, guarded={self.guarded}"
