"""The settings of a run: what ``fit`` and ``train`` take beside a model and its data."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from numbers import Number
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from flowlab.training.checkpoints import place
from flowlab.training.objectives import LossFunction, negative_log_likelihood

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[float], float]

SCHEDULES: dict[str, Schedule] = {
    "cosine": lambda u: 0.5 * (1 + math.cos(math.pi * u)),
    "constant": lambda u: 1.0,
}
STEPS = 2000  # when neither steps nor epochs are given
PASSES = 50  # over the data: from there on a run that nobody watches may learn them by heart
MANY = 1000  # rows, which may be passed over ten times as often
PATIENCE = 100  # epochs without a new best, when the run chose its held-out data itself


class Plan(NamedTuple):
    """What a run does with the data that it has."""

    total: int  # steps
    batch_size: int
    validate_every: int
    patience: int | None


@dataclass(kw_only=True)
class Settings:
    """The settings of a run.

    Args:
        steps, epochs: how long; 2,000 steps when neither is given. Batches are drawn without replacement in each epoch.
        batch_size: rows in a step; all rows, where there are fewer.
        learning_rate: of Adam, at the start of the schedule.
        schedule: "cosine" (down to zero), "constant", or a function of progress in [0, 1] that multiplies the rate.
        objective: a loss ``(model, batch, Step) -> ()``; the negative log-likelihood in nats unless given.
        optimizer: makes the optimizer from the parameters; Adam unless given.
        clip: the largest norm that a gradient keeps, None for no limit.
        ema: decay d of a moving average of the weights, a ← d a + (1 − d) w after each step t, where d is at most
            (1 + t)/(10 + t). The average is what is validated, kept, snapshotted, and what the model ends with.
        shards: into how many parts each batch is cut, each with noise of its own, to go through one after the other:
            the same gradient in less memory, for losses that are means over samples. What an objective takes from a
            whole batch, such as the balance of a mixture, it then takes from a shard. As many as processes under
            torchrun, which share them; see ``flowlab.training.distributed``.
        validation: held-out data. The weights that were best on them are the ones that the model ends with. True, or a
            share such as 0.1, takes them out of the data, by the seed: a tenth, but at least 20 rows, and at most a
            quarter. False trains on all. Where neither steps nor epochs nor validation is given, and 2,000 steps would
            pass over the data more than 50 times, it is True, each epoch is validated, and 100 without a new best end
            the run.
        validate_every: steps from one validation to the next; 50, or 5 epochs where an epoch has fewer than 5 steps.
        patience: how many validations without a new best end the run.
        snapshots: how many copies of the weights to keep for scrubbing (denser at the start), or at which steps.
        seed: of the batches and of the noise.
        checkpoint: a file to write every ``checkpoint_every`` steps, and to go on from if its training file is there.
        restart: start layers that start from data, such as ActNorm, anew from these data, in a model that others have
            started. Without it they stay as they are, and a warning says so where these data are far from those.
        compile: translate the model's flows to machine code at the first step, which takes half a minute or so (torch
            2.6: one and a half) and is remembered; later steps are faster, and their numbers differ in rounding alone.
            On a CPU this needs a C++ compiler.
        tf32: let GPUs round the factors of products to 10 bits, which is faster; validation is in float32 either way.

    Raises:
        ValueError, TypeError: for settings out of range, or of another kind.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 512
    learning_rate: float = 1e-3
    schedule: str | Schedule = "cosine"
    objective: LossFunction = negative_log_likelihood
    optimizer: Optimizer | None = None
    clip: float | None = 10.0
    ema: float | None = None
    shards: int | None = None
    validation: Any = None
    validate_every: int | None = None
    patience: int | None = None
    snapshots: int | Sequence[int] = 0
    seed: int = 0
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 500
    restart: bool = False
    compile: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "batch_size", "shards", "validate_every", "patience", "checkpoint_every"):
            value = getattr(self, name)
            if value is None and name not in ("batch_size", "checkpoint_every"):
                continue
            setattr(self, name, _whole(name, value))
            if name in ("steps", "epochs") and value < 1:
                raise ValueError(f"fit expected at least one step, but got {value}.")
            if name != "shards" and value < 1:
                raise ValueError(f"fit expected {name} to be at least 1, but got {value}.")
        self.seed = _whole("seed", self.seed)
        for name in ("learning_rate", "clip", "ema"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, _number(name, value))
                if not 0 <= getattr(self, name) < math.inf or (name == "clip" and not getattr(self, name)):
                    raise ValueError(f"fit expected {name} to be a finite number above 0, but got {value}.")
        for name in ("restart", "compile", "tf32"):
            if not isinstance(value := getattr(self, name), (bool, np.bool_)):
                raise TypeError(f"fit expected {name} to be True or False, but got {value!r}.")
        if self.steps is not None and self.epochs is not None:
            raise ValueError("fit expected steps or epochs, but got both.")
        if isinstance(self.validation, np.bool_):
            self.validation = bool(self.validation)
        if isinstance(self.validation, np.floating):
            self.validation = float(self.validation)
        if isinstance(self.validation, Number) and not isinstance(self.validation, (bool, float)):
            raise ValueError(
                f"fit expected validation as held-out data, True, False or a share of the data such as 0.1, but got "
                f"{self.validation}."
            )
        if isinstance(self.validation, float) and not 0 < self.validation < 1:
            raise ValueError(
                f"fit expected validation as a share of the data between 0 and 1, but got {self.validation}."
            )
        if self.patience is not None and (self.validation is None or self.validation is False):
            raise ValueError(
                f"fit expected validation data for patience={self.patience}, which counts validations, but got none."
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"fit expected ema as a decay between 0 and 1, such as 0.999, but got {self.ema}.")
        if not callable(self.schedule) and self.schedule not in [*SCHEDULES]:
            raise ValueError(f"fit expected a schedule 'cosine', 'constant' or a function, but got {self.schedule!r}.")
        if not callable(self.objective):
            raise TypeError(
                f"fit expected an objective, a function (model, batch, step) of the loss, such as "
                f"flowlab.training.negative_log_likelihood, but got {self.objective!r}."
            )
        if self.optimizer is not None and not callable(self.optimizer):
            raise TypeError(
                f"fit expected an optimizer, a function that makes one of the parameters, such as torch.optim.SGD or "
                f"lambda parameters: torch.optim.AdamW(parameters, lr=1e-3), but got {_called(self.optimizer)}."
            )
        if isinstance(self.snapshots, str):
            raise TypeError(f"fit expected snapshots as a count or a list of steps, but got {self.snapshots!r}.")
        if self.checkpoint is not None:
            self.checkpoint = place(self.checkpoint)

    @classmethod
    def of(cls, given: dict[str, Any]) -> Settings:
        """The settings of these names and values; TypeError, with the closest name, for a name that there is not."""
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                close = difflib.get_close_matches({"lr": "learning_rate"}.get(name, name), known, 1, 0.5)
                meant = f" Did you mean {close[0]}?" if close else ""
                raise TypeError(f"fit has no setting {name!r}.{meant} It takes {', '.join(known)}.")
        return cls(**given)

    @property
    def file(self) -> Path | None:
        """The checkpoint's path."""
        return None if self.checkpoint is None else Path(self.checkpoint)

    def optimizer_of(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        if self.optimizer is None:
            fused = parameters[0].device.type in ("cpu", "cuda")  # one kernel for all: a fifth of a small step's time
            return torch.optim.Adam(parameters, lr=self.learning_rate, fused=fused)
        made = self.optimizer(parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(
                f"fit expected an optimizer that makes a torch.optim.Optimizer of the parameters, but got {made!r} "
                f"from it."
            )
        if inspect.signature(type(made).step).parameters["closure"].default is inspect.Parameter.empty:
            raise TypeError(
                f"fit expected an optimizer that takes one gradient a step, such as torch.optim.SGD, but got "
                f"{type(made).__name__}, whose step wants to compute the loss itself, several times."
            )
        return made

    def rate(self, progress: float) -> float:
        """The factor on the learning rate at ``progress`` from 0 to 1."""
        law = SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        return law(progress)

    def plan(self, rows: int, chosen: bool) -> Plan:
        """Steps, batch size and validations of a run on ``rows``; ``chosen`` when it holds out others on its own."""
        batch_size = min(self.batch_size, rows)
        per_epoch = max(rows // max(batch_size, 1), 1)
        total = self.steps or (self.epochs or 0) * per_epoch or STEPS
        every = per_epoch if chosen else 50 if per_epoch >= 5 else 5 * per_epoch
        return Plan(total, batch_size, self.validate_every or every, PATIENCE if chosen else self.patience)

    def share(self, rows: int) -> float | bool:
        """The share of the data to hold out, True for the usual one: see ``validation``."""
        if isinstance(self.validation, float) and not 0 < round(self.validation * rows) < rows:
            raise ValueError(
                f"fit expected validation as a share that holds out some of the rows and leaves some, but got "
                f"{self.validation} of {rows}."
            )
        if isinstance(self.validation, (bool, float)):
            return self.validation
        chosen = self.validation is None and self.steps is None and self.epochs is None
        return chosen and STEPS // max(rows // self.batch_size, 1) > PASSES

    def kept(self, total: int) -> set[int]:
        """The steps of which snapshots are kept: as given, or a count of them from 0 to ``total``, denser at first."""
        if isinstance(self.snapshots, Iterable):
            return {_whole("snapshots", step) for step in self.snapshots}
        count = _whole("snapshots", self.snapshots)
        return {round(total * (i / max(count - 1, 1)) ** 2) for i in range(count)}


def _whole(name: str, value: Any) -> int:
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != value:
        raise TypeError(f"fit expected {name} to be a whole number, but got {value!r}.")
    return whole


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"fit expected {name} to be a number, but got {value!r}.") from None


def _called(thing: Any) -> str:
    return repr(thing) if isinstance(thing, (str, int, float)) else f"a {type(thing).__name__} that is made already"
