"""When the losses of steps are read: on a GPU, reading each one at once would make the GPU wait for the CPU.

So on a GPU up to 50 steps run before their losses are fetched together. After the first step whose loss or gradient is
not finite, the optimizer changes nothing more; reading the losses then says which step it was, and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flowlab.training.history import History, NonFiniteLoss

STEPS_AHEAD = {"cuda": 50}  # steps that run before losses are fetched, by the kind of device; elsewhere each at once


class Losses:
    """Keeps the losses of a run in its history, and raises NonFiniteLoss at the first that is not finite.

    Args:
        again: computes the loss of a step once more, with its gradient, to find out what went wrong.
    """

    def __init__(self, history: History, model: nn.Module, queue: bool, again: Callable[[int], float]) -> None:
        device = next(model.parameters()).device
        self.history, self.model, self.again = history, model, again
        self.ahead = STEPS_AHEAD.get(device.type, 1) if queue else 1
        self.blown = torch.zeros((), device=device)  # 1 from the first step on that went wrong
        self.seen = history.step

    def check(self, loss: Tensor, norm: Tensor, optimizer: Any) -> float | Tensor:
        """The loss ``()`` as the history keeps it, before the optimizer's step; NonFiniteLoss if it is not finite."""
        bad = ~(loss.isfinite() & norm.isfinite())
        if self.ahead > 1:
            optimizer.found_inf = self.blown = torch.maximum(self.blown, bad.float())
            return loss.masked_fill(bad, math.nan)
        if bad:  # before one NaN is spread over all gradients
            raise NonFiniteLoss(diagnosis(self.model, self.history.step, loss.item()))
        return loss.item()

    def keep(self, loss: float | Tensor) -> None:
        """Add the loss of a step that was taken."""
        self.history.loss.append(loss)  # type: ignore[arg-type]  # a tensor until it is looked at
        if self.history.step % self.ahead == 0 or self.history.step == self.history.total:
            self.look()

    def look(self) -> None:
        """Fetch the losses that are still on the device, and stop at the first that is not finite."""
        history = self.history
        if history.step > self.seen and isinstance(history.loss[-1], Tensor):
            values = torch.stack(history.loss[self.seen :]).tolist()  # type: ignore[arg-type]
            history.loss[self.seen :] = values
            first = next((i for i, value in enumerate(values, self.seen) if not math.isfinite(value)), None)
            if first is not None:
                del history.loss[first:]
                raise NonFiniteLoss(diagnosis(self.model, first, self.again(first)))
        self.seen = history.step


def diagnosis(model: nn.Module, index: int, loss: float) -> str:
    """What is not finite after the backward pass of step ``index``, and what to do, in words."""
    for name, p in model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            return f"Training stopped at step {index}: the parameter {name} is not finite. Lower the learning rate."
    if not math.isfinite(loss):
        return (
            f"Training stopped at step {index}: the loss is {loss}, while all parameters are finite. Look for samples "
            f"outside the model's reach (log p = -inf), or lower the learning rate."
        )
    bad = [
        name for name, p in model.named_parameters() if p.grad is not None and not bool(torch.isfinite(p.grad).all())
    ]
    what = f"the gradient of {bad[0]}" if bad else "the norm of the gradient"
    way = "Lower the learning rate." if index else "No step was made yet: standardize x, (x - x.mean(0)) / x.std(0)."
    return f"Training stopped at step {index}: {what} is not finite, the loss is {loss:.4g}. {way}"
