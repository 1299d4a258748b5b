"""What a killed run needs to go on: where it stood, and how to know that it is the same run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowlab.training import checkpoints, fingerprints
from flowlab.training.checkpoints import Card, CheckpointError, State, copy_of
from flowlab.training.history import History
from flowlab.training.settings import Plan, Settings

# What files of earlier versions do not say of their run; there it is taken to be as it is here.
NEWER = ("objective", "optimizer", "law", "code", "frozen")


@dataclass(repr=False, eq=False)
class Standing:
    """Where a run stands: all that changes from step to step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: History
    best: State | None = None
    average: State | None = None

    def weights(self) -> State:
        """A copy of those that count: the average if there is one."""
        average = self.average
        return copy_of(self.model) if average is None else {name: value.clone() for name, value in average.items()}


def record(
    now: Standing,
    settings: Settings,
    plan: Plan,
    data: tuple[Tensor, ...] | None,
    held_out: tuple[Tensor, ...] | None,
    shards: int,
) -> dict[str, Any]:
    """What decides the numbers of a run, as JSON gives it back; a file with another record is of another run."""
    schedule, trained = settings.schedule, [p.requires_grad for p in now.model.parameters()]
    run: dict[str, Any] = {
        "steps": plan.total,
        "batch_size": plan.batch_size,
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
        "samples": 0 if data is None else len(data[0]),
        "clip": settings.clip,
        "schedule": schedule if isinstance(schedule, str) else "a function",
        "dtype": str(next(p.dtype for p in now.model.parameters() if p.requires_grad)),
        "validate_every": plan.validate_every,
        "objective": fingerprints.told(settings.objective),
        "optimizer": [
            fingerprints.told(type(now.optimizer)),
            *map(fingerprints.hyperparameters, now.optimizer.param_groups),
        ],
        "data": fingerprints.digest(data or ()),
        "validation": fingerprints.digest(held_out or ()),
        "law": None if isinstance(schedule, str) else fingerprints.law(schedule),
        "code": fingerprints.code(settings.objective),
        "frozen": None if all(trained) else [i for i, one in enumerate(trained) if not one],
    }
    unusual = (("ema", settings.ema, None), ("shards", shards, 1))  # older files say nothing of what is usual
    run |= {name: value for name, value, usual in unusual if value != usual}
    return checkpoints.as_json(run)


def save(path: Path, now: Standing, run: dict[str, Any]) -> None:
    """The training file first and whole by itself, so that a kill between the two files loses nothing."""
    history = now.history
    tensors = {f"model/{name}": value for name, value in copy_of(now.model).items()}
    tensors |= {f"best/{name}": value for name, value in (now.best or {}).items()}
    tensors |= {f"average/{name}": value for name, value in (now.average or {}).items()}
    for step, weights in history.snapshots.items():
        tensors |= {f"snapshot/{step}/{name}": value for name, value in weights.items()}
    for index, state in now.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(v) for name, v in state.items() if v is not None}
    tensors["loss"] = torch.tensor(history.loss, dtype=torch.float64)
    kept: dict[str, Any] = {"seconds": history.seconds, "best_step": history.best_step}
    kept["validation"] = [[step, value] for step, value in history.validation.items()]
    card = Card.describing(now.model, {"run": run, **kept})
    checkpoints.write(checkpoints.training_file(path), tensors, card.content())
    which = "of the last step" if now.best is None else "best on validation"
    validation = None if history.best_step is None else history.validation.get(history.best_step)
    card = dataclasses.replace(
        card,
        seed=run["seed"],
        step=history.step if now.best is None else history.best_step,
        of=history.total,
        protocol=f"mean loss a sample, in nats; weights {which}{'' if now.average is None else ', averaged'}",
        metrics={"loss": history.loss[-1], "validation_loss": validation},
        more={},
    )
    checkpoints.write(path, now.best or now.average or copy_of(now.model), card.content())


def resume(path: Path, now: Standing, run: dict[str, Any]) -> None:
    """Put all that changes back to where the training file left it.

    Raises:
        CheckpointError: when the file is of another model or of another run; nothing is changed then.
    """
    file = checkpoints.training_file(path)
    tensors, card = checkpoints.read_checkpoint(file)
    groups: dict[str, State] = {}
    for name, value in tensors.items():
        head, _, tail = name.partition("/")
        groups.setdefault(head, {})[tail] = value
    weights = groups.get("model", {})
    if weights:
        checkpoints.check_same_model(now.model, weights, card, file)
    _check_same_run(card.get("run") or {}, run, file)

    now.model.load_state_dict(weights)
    state: dict[int, State] = {}
    for name, value in groups.get("optimizer", {}).items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    now.optimizer.load_state_dict({"state": state, "param_groups": now.optimizer.state_dict()["param_groups"]})
    for name, value in groups.get("snapshot", {}).items():
        step, _, key = name.partition("/")
        now.history.snapshots.setdefault(int(step), {})[key] = value
    now.history.loss = tensors["loss"].tolist()
    now.history.validation = {int(step): value for step, value in card["validation"]}
    now.history.seconds, now.history.best_step = card["seconds"], card["best_step"]
    device = next(now.model.parameters()).device
    average = groups.get("average")
    now.best, now.average = groups.get("best"), average and {n: value.to(device) for n, value in average.items()}


def _check_same_run(was: dict[str, Any], run: dict[str, Any], file: Path) -> None:
    was = {name: run[name] for name in NEWER} | was
    other = [name for name in {**was, **run} if was.get(name) != run.get(name)]
    if "code" in other and fingerprints.same_code(was["code"], run["code"]):
        other.remove("code")
    if not other:
        return
    there, here = ({name: of.get(name) for name in other} for of in (was, run))
    raise CheckpointError(
        f"{file} is from another run: it has {there}, and this run has {here}. Choose another file or delete it to "
        f"start anew."
    )
