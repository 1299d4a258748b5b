"""Maps that move each coordinate on its own: the Jacobian is diagonal, and its log-determinant is a sum."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab.bijections.base import Bijection
from flowlab.bijections.laws import Law
from flowlab.bijections.numeric import invert


def _lead(stack: int | None) -> tuple[int, ...]:
    return () if stack is None else (stack,)


class ScaleShift(Bijection):
    """z = x · exp(log_scale) + shift, with log |det| = Σ log_scale: NICE's diagonal scaling (arXiv:1410.8516, eq. 3.3).

    Shapes ``(..., D)`` and ``(...)``. Starts at the identity.
    """

    def __init__(self, features: int, *, stack: int | None = None, shift: bool = True) -> None:
        super().__init__(features, stack)
        self.log_scale = nn.Parameter(torch.zeros(*_lead(stack), features))
        self.shift = nn.Parameter(torch.zeros(*_lead(stack), features)) if shift else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z = x * self.align(self.log_scale, x).exp()
        if self.shift is not None:
            z = z + self.align(self.shift, x)
        return z, self.batch_log_det(self.log_scale.sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x = z if self.shift is None else z - self.align(self.shift, z)
        return x * (-self.align(self.log_scale, z)).exp(), self.batch_log_det(-self.log_scale.sum(-1), z)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, shift={self.shift is not None}"


class PReLU(Bijection):
    """z = x where x ≥ 0, else α x with α > 0: log |det| = log α times the number of negative coordinates.

    Shapes ``(..., D)`` and ``(...)``; α = exp(log_slope), one for each coordinate (Pires, thesis, eq. 3.12 to 3.15).

    Raises:
        ValueError: when the slope is not positive, since the map then folds or flattens the space.
    """

    def __init__(self, features: int, slope: float = 1.0, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        if not slope > 0:
            raise ValueError(f"PReLU expected a slope above 0, where it is invertible, but got {slope}.")
        self.log_slope = nn.Parameter(torch.full((*_lead(stack), features), math.log(slope)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        s = torch.where(x < 0, self.align(self.log_slope, x), 0.0)
        return x * s.exp(), s.sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        # α > 0 keeps the sign, so z tells which side x came from.
        s = torch.where(z < 0, -self.align(self.log_slope, z), 0.0)
        return z * s.exp(), s.sum(-1)


class Logit(Bijection):
    """z = logit(λ + (1 − 2λ) x), from [0, 1] to the whole line (RealNVP, arXiv:1605.08803, section 4.1).

    log |det| = Σ log(1 − 2λ) − log y − log(1 − y), where y = λ + (1 − 2λ) x. Shapes ``(..., D)`` and ``(...)``. Where y
    is outside [0, 1], log |det| is −∞, and so is the log-density of a flow that begins with this map. At 0 and 1, and
    closer to them than rounding, y counts as the nearest number inside, so that the map is finite on its own inverse.
    Has no parameters, so a stack takes it too.

    Raises:
        ValueError: when λ is not in [0, 1/2).
    """

    def __init__(self, lambda_: float = 0.0) -> None:
        super().__init__()
        if not 0 <= lambda_ < 0.5:
            raise ValueError(f"Logit expected λ in [0, 0.5), but got {lambda_}.")
        self.lambda_ = lambda_

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        y = self.lambda_ + (1 - 2 * self.lambda_) * x
        eps = torch.finfo(x.dtype).eps
        outside = ((y < -eps) | (y > 1 + eps)).any(-1)
        z = torch.logit(y.clamp(eps / 4, 1 - eps / 2))
        log_det = -self._log_slope_of_sigmoid(z).sum(-1)
        return z, log_det.masked_fill(outside, -math.inf)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        eps = torch.finfo(z.dtype).eps
        x = (torch.sigmoid(z).clamp(eps / 4, 1 - eps / 2) - self.lambda_) / (1 - 2 * self.lambda_)
        return x, self._log_slope_of_sigmoid(z).sum(-1)

    def _log_slope_of_sigmoid(self, z: Tensor) -> Tensor:
        """log dx/dz, written with softplus so that it stays finite where y rounds to 0 or 1."""
        return -F.softplus(z) - F.softplus(-z) - math.log(1 - 2 * self.lambda_)

    def extra_repr(self) -> str:
        return f"λ={self.lambda_:g}"


class SinhArcsinh(Bijection):
    """z = sinh(δ · arcsinh(x) − ε): ε skews, δ thins or fattens the tails (Jones and Pewsey, Biometrika 2009, eq. 1).

    log |det| = Σ log δ + log cosh(δ arcsinh x − ε) − ½ log(1 + x²). Shapes ``(..., D)`` and ``(...)``. Identity at
    ε = 0, δ = 1; δ = exp(log_tail).
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        self.skew = nn.Parameter(torch.zeros(*_lead(stack), features))
        self.log_tail = nn.Parameter(torch.zeros(*_lead(stack), features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        log_delta = self.align(self.log_tail, x)
        u = log_delta.exp() * torch.asinh(x) - self.align(self.skew, x)
        return torch.sinh(u), (log_delta + log_cosh(u) - log_cosh(torch.asinh(x))).sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        log_delta = self.align(self.log_tail, z)
        u = (torch.asinh(z) + self.align(self.skew, z)) / log_delta.exp()
        return torch.sinh(u), (log_cosh(u) - log_delta - log_cosh(torch.asinh(z))).sum(-1)


def log_cosh(u: Tensor) -> Tensor:
    """log cosh u without overflow, elementwise: ``(...)`` to ``(...)``."""
    return u.abs() + F.softplus(-2 * u.abs()) - math.log(2)


class MonotoneSum(Bijection):
    """z = x + Σ_j w_j tanh((x − b_j) / c_j) with w, c > 0: a learned increasing function of each coordinate.

    log |det| = Σ_i log f′(x_i). Shapes ``(..., D)`` and ``(...)``. The slope is at least 1 everywhere, so the map is
    onto; put a ScaleShift beside it for slopes below 1. The inverse is numeric: bisection, then one Newton step, which
    also carries the gradient. Starts near the identity.
    """

    inverse_is_numeric = True

    def __init__(
        self, features: int, terms: int = 8, *, stack: int | None = None, generator: Generator | None = None
    ) -> None:
        super().__init__(features, stack)
        shape = (*_lead(stack), features, terms)
        self.log_weight = nn.Parameter(torch.full(shape, -3.0))
        self.center = nn.Parameter(2 * torch.randn(shape, generator=generator))
        self.log_width = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z, slope = self._value_and_slope(x)
        return z, slope.log().sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        # |f(x) − x| ≤ Σ w brackets the solution.
        reach = self.align(self.log_weight, z.unsqueeze(-1)).exp().sum(-1).detach()
        x = invert(self._value_and_slope, z, z - reach, z + reach)
        return x, -self._value_and_slope(x)[1].log().sum(-1)

    def _value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = x.unsqueeze(-1)  # (..., D, 1) against (..., D, terms)
        w, c = self.align(self.log_weight, u).exp(), self.align(self.log_width, u).exp()
        t = torch.tanh((u - self.align(self.center, u)) / c)
        return x + (w * t).sum(-1), 1 + (w / c * (1 - t * t)).sum(-1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, terms={self.center.shape[-1]}"


class Monotone(Bijection):
    """z = f(x), elementwise, for any increasing or decreasing function f: log |det| = Σ log |f′(x)| by autograd.

    Shapes ``(..., D)`` and ``(...)``. ``inverse`` is f⁻¹ when you have it; without it the inverse is numeric, by
    bisection over ``interval``, and f must be monotone on the whole of it. A module f keeps its parameters trainable.

    Raises:
        ValueError: when a numeric inverse is asked for a value that f does not take on ``interval``; within
            ``torch.func.vmap``, which cannot raise for one of many, the inverse is NaN there.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        inverse: Callable[[Tensor], Tensor] | None = None,
        *,
        interval: tuple[float, float] = (-1e4, 1e4),
    ) -> None:
        super().__init__()
        self.function, self.inverse_function, self.interval = function, inverse, interval
        self.inverse_is_numeric = inverse is None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z, slope = self._value_and_slope(x)
        return z, slope.abs().log().sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x = self._solve(z) if self.inverse_function is None else self.inverse_function(z)
        return x, -self._value_and_slope(x)[1].abs().log().sum(-1)

    def _value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, pull = torch.func.vjp(self.function, x)[:2]  # within torch.func.vmap no graph could be begun
        return z, pull(torch.ones_like(z))[0]

    def _solve(self, z: Tensor) -> Tensor:
        low, high = (torch.full_like(z, end) for end in self.interval)
        with torch.no_grad():
            ends = torch.stack((self.function(low), self.function(high)))
            reached = (ends.amin(0) <= z) & (z <= ends.amax(0)) & (ends[0] != ends[1])
        try:
            missed = not bool(reached.all())  # said so that a NaN at an end counts as not reached
        except RuntimeError:  # within torch.func.vmap no single number can be looked at: what is not reached is NaN
            missed, low = False, torch.where(reached, low, math.nan)
        if missed:
            raise ValueError(f"Monotone: a value to invert is not reached by the function on {self.interval}.")
        return invert(self._value_and_slope, z, low, high)

    def extra_repr(self) -> str:
        functions = (self.function, self.inverse_function)
        # A module is listed below; what has no name of its own says its class, and no address in memory.
        names = [None if f is None else getattr(f, "__qualname__", type(f).__qualname__) for f in functions]
        return f"{names[0]}, inverse={names[1]}, interval={self.interval}"


class Elementwise(Bijection):
    """z_i = h(x_i; θ_i) by a law h, with a θ of its own for each coordinate and no network.

    log |det| = Σ log ∂h/∂x_i. Shapes ``(..., D)`` and ``(...)``. It takes the place
    of a coupling where D = 1, and it shapes the margins of a flow. Starts at the identity.

    Args:
        features: D.
        law: h, such as ``Spline()``.
        stack: K for K maps side by side.
    """

    def __init__(self, features: int, law: Law, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        self.law = law
        self.theta = nn.Parameter(torch.zeros(*_lead(stack), features, law.parameters_per_number))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z, log_slope = self.law(x, self._theta(x))
        return z, log_slope.sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x, log_slope = self.law.inverse(z, self._theta(z))
        return x, log_slope.sum(-1)

    def _theta(self, x: Tensor) -> Tensor:
        theta = self.align(self.theta.mT, x.unsqueeze(-2))  # (P, D), or (K, ..., P, D) in a stack
        return theta.expand(*x.shape[:-1], *theta.shape[-2:])
