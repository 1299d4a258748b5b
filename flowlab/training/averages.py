"""A moving average of the weights, which stands in for them wherever a model is judged or kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from flowlab.training.checkpoints import State, copy_of


@torch.no_grad()
def averaged(average: State | None, model: nn.Module, decay: float, step: int) -> State:
    """a ← d a + (1 − d) w, d = min(decay, (1 + t)/(10 + t)); buffers are as they are now.

    It begins with the weights after the first step, when layers that start from data have started. Since d is small at
    first, the untrained weights of the first steps soon have no influence.
    """
    if average is None:
        return copy_of(model)
    state, trained = model.state_dict(), {name for name, _ in model.named_parameters(remove_duplicate=False)}
    learned, rest = [n for n in state if n in trained], [n for n in state if n not in trained]
    d = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_([average[n] for n in learned], [state[n] for n in learned], 1 - d)
    for name in rest:
        average[name].copy_(state[name])
    return average


@contextlib.contextmanager
def with_weights(model: nn.Module, state: State | None) -> Iterator[None]:
    """A block in which the model has these weights, and after which it has its own again; None changes nothing."""
    if state is None:
        yield
        return
    own = copy_of(model)
    model.load_state_dict(state)
    try:
        yield
    finally:
        model.load_state_dict(own)
