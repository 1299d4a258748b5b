"""What a run records, and the errors that end one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flowlab.training.checkpoints import State

Reason = Literal["running", "finished", "patience", "interrupted", "left"]


class NonFiniteLoss(ArithmeticError):
    """The loss or a gradient became infinite or NaN; the message names the step and the quantity."""


class OutOfMemory(MemoryError):
    """A batch does not fit into the memory of the device; the message names the settings to lower."""


@dataclass
class History:
    """What a run recorded: losses in nats, one for each step; validation losses; seconds; snapshots of the weights.

    On a GPU the newest losses are tensors, fetched together later on, so that a step need not wait for its own.

    Attributes:
        total: how many steps the run may take.
        loss: the loss of each step, in nats.
        validation: the held-out loss, by step.
        snapshots: copies of the weights, by step.
        best_step: the step whose weights were best on the held-out data; None where there was no finite loss.
        stopped: in words, how the run ended.
        reason: the same for programs. "finished": all steps; "patience": no new best for long enough; "interrupted": by
            the interrupt button; "left": by whoever drove the loop; "running" until one of these.
        batch_size: samples in a step.
        held_out: how many rows of the data the run held out by itself.
        whole_numbers: how many numbers one sample has, where they are whole numbers, such as pixels; else 0.
    """

    total: int
    loss: list[float] = field(default_factory=list)
    validation: dict[int, float] = field(default_factory=dict)
    snapshots: dict[int, State] = field(default_factory=dict)
    seconds: float = 0.0
    best_step: int | None = None
    stopped: str = "not finished"
    reason: Reason = "running"
    batch_size: int = 0
    held_out: int = 0
    whole_numbers: int = 0

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return len(self.loss)

    @property
    def ended(self) -> bool:
        """Whether the run came to its own end; else the same call, with a checkpoint, goes on with it."""
        return self.reason in ("finished", "patience")
