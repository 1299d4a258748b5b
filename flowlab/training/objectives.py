"""What a run minimizes: a function of the model, a batch, and where the run is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Generator, Tensor, nn


class Step(NamedTuple):
    """Where a run is, for objectives that change with time: ``index`` of ``total``, and a generator for noise."""

    index: int  # type: ignore[assignment]  # a tuple has a method of that name, which nobody needs here
    total: int
    generator: Generator


LossFunction = Callable[[Any, Any, Step], Tensor]  # of a model and a batch of the kinds that it is for


def negative_log_likelihood(model: nn.Module, batch: Any, step: Step) -> Tensor:
    """−mean log p(x), or −mean log p(x | c) for a batch (x, c), in nats a sample: what maximum likelihood minimizes.

    A model that draws noise, as a bound does, draws it from the step's generator.
    """
    parts = batch if isinstance(batch, tuple) else (batch,)
    own = {"generator": step.generator} if _takes_generator(type(model).forward) else {}
    return -model(*parts, **own).mean()


def reverse_kl(log_target: Callable[[Tensor], Tensor], n: int = 256, *, warm: float = 0.0) -> LossFunction:
    """KL(q ‖ p) up to a constant: E_q[log q(x) − log p̃(x)], in nats, by ``n`` draws of the model q at each step.

    An objective for a run without data, ``fit(flow, objective=reverse_kl(log_target), steps=...)``. Its least value is
    −log Z for a target p = p̃/Z: ``log_target(x)`` gives log p̃(x), ``(n, *event)`` to ``(n,)``, known up to a constant,
    and lets gradients through (arXiv:1505.05770, section 2). For the first share ``warm`` of the steps log p̃ is
    multiplied by β, which rises from 0.01 to 1: a flow that is still wide finds more of the places where p̃ is large
    (section 6.1 there).

    Raises:
        ValueError: for a ``warm`` outside [0, 1].
    """
    if not 0 <= warm <= 1:
        raise ValueError(f"reverse_kl expected warm as a share of the steps, from 0 to 1, but got {warm}.")
    return functools.partial(_reverse_kl, log_target=log_target, n=n, warm=warm)


def _reverse_kl(
    model: Any, batch: None, step: Step, *, log_target: Callable[[Tensor], Tensor], n: int, warm: float
) -> Tensor:
    x, log_q = model.draw(n, step.generator)
    log_p = log_target(x)
    if log_p.shape != log_q.shape:
        raise ValueError(
            f"reverse_kl expected one number a sample from log_target, {tuple(log_q.shape)}, but got "
            f"{tuple(log_p.shape)}."
        )
    beta = min(1.0, 0.01 + step.index / (warm * step.total)) if warm else 1.0
    return (log_q - beta * log_p).mean()


@functools.cache
def _takes_generator(forward: Callable[..., Any]) -> bool:
    return "generator" in inspect.signature(forward).parameters
