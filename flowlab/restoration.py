"""Restoring images with a density as prior: fill in hidden pixels, take noise away. One answer, or many that could be.

Every rule here is the same step, and what it arrives at depends on the size c of its noise alone:

    x ← x + a w² ∂log p/∂x + c w ε,     ε ~ N(0, I),

    "map"       c = 0        climbs to a likely x: one answer
    "langevin"  c = √(2a)    draws from p, up to an error that shrinks with a
    "nice"      c = a        what NICE prints (arXiv:1410.8516, section 5.2): draws from p^(2/a), and so nearly climbs

In general it draws from p^(1/T) with T = c²/(2a). The widths w are units: any will do where a is small, and good ones
let a be larger. A NICE knows them: x varies by 1/S in a direction that is scaled by S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Generator, Tensor

from flowlab.bijections import Chain, ScaleShift
from flowlab.densities import Flow

RULES: dict[str, Callable[[float], float]] = {
    "map": lambda a: 0.0,
    "langevin": lambda a: math.sqrt(2 * a),
    "nice": lambda a: a,
}

Steps = Iterator[tuple[Tensor, Tensor]]


def falling_rate(step: int) -> float:
    """a = 4/(100 + step): it falls as NICE's 10/(100 + step) does (arXiv:1410.8516, section 5.2), from less."""
    return 4 / (100 + step)


def widths(flow: Flow) -> Tensor:
    """1/S of a NICE, ``(D,)``: by how much x varies in each latent direction; large S, small variation.

    Raises:
        ValueError: when the flow does not end with a ScaleShift.
    """
    last = flow.bijection[-1] if isinstance(flow.bijection, Chain) else flow.bijection
    if not isinstance(last, ScaleShift):
        raise ValueError(
            f"inpaint expected a flow that ends with a ScaleShift, to read 1/S from, but got one with "
            f"{type(last).__name__}."
        )
    return (-last.log_scale.detach()).exp()


def wander(
    log_p: Callable[[Tensor], Tensor],
    x: Tensor,
    rule: str | Sequence[str],
    *,
    steps: int = 300,
    rate: Callable[[int], float] = falling_rate,
    widths: Tensor | float = 1.0,
    free: Tensor | bool = True,
    generator: Generator | None = None,
) -> Steps:
    """Yields x and log p(x) before the first step and after each one: ``(N, D)`` and ``(N,)``, ``steps`` + 1 times.

    Args:
        log_p: a log-density up to a constant, ``(N, D)`` to ``(N,)``, in nats.
        rule: "map", "langevin" or "nice"; one for all rows, or one for each.
        rate: a at each step.
        widths: w, one for all coordinates or ``(D,)``.
        free: the coordinates that may move, ``(D,)``; all unless given.

    Raises:
        ValueError: for a rule that does not exist, or as many rules as there are no rows.
    """
    names = [rule] * len(x) if isinstance(rule, str) else list(rule)
    if len(names) != len(x) or not set(names) <= set(RULES):
        raise ValueError(
            f"Expected one rule for all rows or one for each of {len(x)}, out of {', '.join(RULES)}, but got {rule!r}."
        )
    free = torch.as_tensor(free)
    for step in range(steps + 1):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = log_p(x)
            (score,) = torch.autograd.grad(value.sum(), x)
        x, value = x.detach(), value.detach()
        yield x, value
        a = rate(step)
        c = x.new_tensor([[RULES[name](a)] for name in names])
        eps = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        x = torch.where(free, x + a * widths**2 * score + c * widths * eps, x)


def inpaint(
    flow: Flow, x: Tensor, hidden: Tensor, rule: str | Sequence[str], *, generator: Generator | None = None, **settings
) -> Steps:
    """Fill in the pixels ``hidden`` (D,) of x ``(N, D)``, given the others: yields x and log p(x), as ``wander``.

    Hidden pixels start as those of a sample of the flow. Up to a constant, log p(x) is log p(hidden | seen).
    """
    start = torch.where(hidden, flow.sample(len(x), generator), x)
    return wander(flow.log_prob, start, rule, widths=widths(flow), free=hidden, generator=generator, **settings)


def posterior(flow: Flow, y: Tensor, sigma: float) -> Callable[[Tensor], Tensor]:
    """log p_Z(z) − ‖y − f⁻¹(z)‖²/(2σ²), which is log p(z | y) up to a constant, for y = x + σ·noise: ``(N, D)``, nats.

    A density of z asks for no determinant. A step of equal size in all z is as wide in x as the flow finds x to vary.
    """

    def log_p(z: Tensor) -> Tensor:
        x = flow.bijection.inverse(z)[0]
        return flow.base.log_prob(z) - (y - x).square().sum(-1) / (2 * sigma**2)

    return log_p


def denoise(
    flow: Flow,
    y: Tensor,
    sigma: float,
    rule: str | Sequence[str],
    *,
    steps: int = 300,
    generator: Generator | None = None,
) -> Steps:
    """Take Gaussian noise of deviation σ off y ``(N, D)``: yields x and ``posterior`` at its z, as ``wander`` does.

    Starts from samples of the flow, and steps in z with a = σ²/4.
    """
    z = flow.base.sample(len(y), generator)
    log_p, a = posterior(flow, y, sigma), sigma**2 / 4
    for z, value in wander(log_p, z, rule, steps=steps, rate=lambda step: a, generator=generator):  # noqa: B020
        with torch.no_grad():
            yield flow.bijection.inverse(z)[0], value
