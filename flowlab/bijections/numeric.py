"""Inverses without a formula: roots by bisection and fixed points by iteration, with the gradient of the inverse.

The solver itself runs without gradients. They come from the implicit function theorem: where f(x; θ) = z defines x,

    dx = (∂f/∂x)⁻¹ (dz − ∂f/∂θ dθ)

so one evaluation of f at the solution is all that autograd needs to see.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
ValueAndSlope = Callable[[Tensor], tuple[Tensor, Tensor]]


class NotConverged(ArithmeticError):
    """An iteration did not come to rest; the message says how far it was, and what to do."""


def bisect(function: Function, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x with f(x) = z between ``low`` and ``high``, elementwise, for an increasing f, without gradient: all ``(...)``.

    The number of steps is fixed, enough to halve the bracket down to the spacing of its dtype, so that the answer does
    not depend on the other points of the batch, and no step waits for a device.
    """
    with torch.no_grad():
        for _ in range(40 if z.dtype == torch.float32 else 80):
            middle = (low + high) / 2
            too_low = function(middle) < z
            low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
        return (low + high) / 2


def invert(value_and_slope: ValueAndSlope, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x with f(x) = z, elementwise, for an increasing or decreasing f between ``low`` and ``high``: all ``(...)``.

    ``value_and_slope`` gives f(x) and f′(x). Bisection finds x; one step of Newton's method from there improves it, and
    carries the gradient with respect to z and to all parameters of f.
    """
    with torch.no_grad():
        sign = torch.sign(value_and_slope(high)[0] - value_and_slope(low)[0])
        x = bisect(lambda x: sign * value_and_slope(x)[0], sign * z, low, high)
        slope = value_and_slope(x)[1]
    return x - (value_and_slope(x)[0] - z) / slope


def fixed_point(function: Function, start: Tensor, *, tolerance: float | None = None, most: int = 500) -> Tensor:
    """x with x = g(x), for a contraction g such as z − r(x) with r of Lipschitz constant below 1, differentiable.

    The backward pass solves v = w + (∂g/∂x)ᵀ v by the same iteration (Behrmann et al., arXiv:1811.00995, algorithm 1;
    Bai et al., arXiv:1909.01377, eq. 10).

    Args:
        function: g.
        start: where to begin, such as z; of the shape of x, ``(..., D)``.
        tolerance: the largest change, relative to 1 + |x|, at which the iteration ends; ten roundings unless given.
        most: how many steps it may take.

    Raises:
        NotConverged: when it has not ended after ``most`` steps.
    """
    tolerance = 10 * torch.finfo(start.dtype).eps if tolerance is None else tolerance
    with torch.no_grad():
        x = _iterate(function, start, tolerance, most)
    if not torch.is_grad_enabled():
        return x
    x = function(x.detach())
    if not x.requires_grad:
        return x
    at = x.detach().requires_grad_()
    with torch.enable_grad():
        value = function(at)

    def solve(w: Tensor) -> Tensor:
        def step(v: Tensor) -> Tensor:
            return w + torch.autograd.grad(value, at, v, retain_graph=True)[0]

        return _iterate(step, w, tolerance, most)

    x.register_hook(solve)
    return x


def _iterate(function: Function, x: Tensor, tolerance: float, most: int) -> Tensor:
    change = torch.zeros((), dtype=x.dtype, device=x.device)
    for _ in range(most):
        following = function(x)
        change = ((following - x).abs() / (1 + x.abs())).max() if x.numel() else change
        x = following
        if change <= tolerance:
            return x
    raise NotConverged(
        f"A fixed point was not reached in {most} steps: the last one still changed it by {float(change):.1g}. The map "
        f"contracts too little, or not at all: lower its Lipschitz constant, or allow more steps."
    )
