"""One training loop for every model, its history, and checkpoints from which a killed run goes on.

Batches, learning rate and noise at a step depend on the seed and the number of that step alone, not on what ran before.
That is why a run that was killed and resumed gives, bit for bit, what it would have given undisturbed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from flowlab.densities import Dequantized, Flow, evaluating, negative_bound
from flowlab.training import checkpoints, distributed
from flowlab.training.checkpoints import (
    CheckpointError,
    State,
    copy_of,
    read_checkpoint,
)


class NonFiniteLoss(ArithmeticError):
    """The loss or a gradient became infinite or NaN; the message names the step and the quantity."""


class CompilerMissing(RuntimeError):
    """Compilation was asked for, but this machine has nothing to compile with."""


class OutOfMemory(MemoryError):
    """A batch does not fit into the memory of the device; the message names the settings to lower."""


class Step(NamedTuple):
    """Where the loop is, for objectives that change with time: ``index`` of ``total``, and a generator for noise."""

    index: int
    total: int
    generator: Generator


@dataclass
class History:
    """What a run recorded: losses in nats, one for each step; validation losses; seconds; snapshots of the weights.

    On a GPU the newest losses are tensors, fetched together later on, so that a step need not wait for its own.
    """

    total: int
    loss: list[float] = field(default_factory=list)
    validation: dict[int, float] = field(default_factory=dict)
    snapshots: dict[int, State] = field(default_factory=dict)
    seconds: float = 0.0
    best_step: int | None = None
    stopped: str = "not finished"

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return len(self.loss)


Objective = Callable[[nn.Module, Any, Step], Tensor]
Progress = Callable[[History], None]


def negative_log_likelihood(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
    """−mean log p(x), in nats a sample: what maximum likelihood minimizes."""
    return -model(batch).mean()


def fit(model: nn.Module, data: Any, *, progress: bool | Progress = True, **settings: Any) -> History:
    """Train ``model`` on ``data`` by minimizing −mean log p(x), and return the History. Takes what ``train`` takes.

    The interrupt button, or Ctrl-C, stops after the step at hand and keeps the model; twice stops at once.
    ``progress`` is True for a bar, False for silence, or a function of the History, called after each step. Of several
    processes the first reports, and all stop when one is interrupted.
    """
    with _interruptible() as interrupted:
        report = _bar(model, data, settings.get("batch_size", 512)) if progress is True else progress
        if not report or distributed.rank() > 0:
            report = lambda history: None  # noqa: E731
        steps = train(model, data, **settings)
        history, stop = None, False
        try:
            for history in steps:
                report(history)
                if stop := distributed.anyone(interrupted()):
                    break
        finally:
            steps.close()
            if progress is True:
                report(None)
    if stop and history.step < history.total:
        history.stopped = f"interrupted after step {history.step} of {history.total}"
        if settings.get("checkpoint") is not None:
            history.stopped += f"; the same call goes on from there, by {settings['checkpoint']}"
    return history


def train(
    model: nn.Module,
    data: Any,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    schedule: str | Callable[[float], float] = "cosine",
    objective: Objective = negative_log_likelihood,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    clip: float | None = 10.0,
    ema: float | None = None,
    shards: int | None = None,
    validation: Any = None,
    validate_every: int = 50,
    patience: int | None = None,
    snapshots: int | Sequence[int] = 0,
    seed: int = 0,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 500,
    compile: bool = False,
    tf32: bool = False,
) -> Iterator[History]:
    """The loop behind ``fit``, one step at a time: yields the same growing History after each step.

    Args:
        data: ``(N, ...)``, an array or tensor, or a tuple of them that are cut into batches alike. It is moved to the
            model's device once, and stays there.
        steps, epochs: how long; 2,000 steps when neither is given. Batches are drawn without replacement in each epoch.
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
        validation: held-out data. The weights that were best on it are the ones that the model ends with.
        patience: how many validations without a new best end the run.
        snapshots: how many copies of the weights to keep for scrubbing (denser at the start), or at which steps.
        checkpoint: a file to write every ``checkpoint_every`` steps, and to go on from if its training file is there.
        compile: translate the model's flows to machine code at the first step, which takes half a minute or so (torch
            2.6: one and a half) and is remembered; later steps are faster, and their numbers differ in rounding alone.
            On a CPU this needs a C++ compiler.
        tf32: let GPUs round the factors of products to 10 bits, which is faster; validation is in float32 either way.

    Raises:
        CompilerMissing: when ``compile`` is asked for where it cannot be done.
        ValueError: for empty data, for data with NaN or infinity (naming the row), and for settings out of range.
        NonFiniteLoss: when the loss or a gradient is not finite, naming the step and the quantity.
        OutOfMemory: when a batch does not fit into memory, naming the settings to change.
        CheckpointError: when the checkpoint belongs to another model or run, or has no training file.
        OSError: when the checkpoint cannot be written; what was there before is as it was.
    """
    data, alone = _prepare(data, model, "data")
    held_out = None if validation is None else _prepare(validation, model, "validation data")[0]
    shapes = [[tuple(d.shape[1:]) for d in parts] for parts in (data, held_out or data)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"The validation data should have samples like the data, {shapes[0]}, but got {shapes[1]}.")
    N, device = len(data[0]), data[0].device
    counts = {"batch_size": batch_size, "validate_every": validate_every, "checkpoint_every": checkpoint_every}
    for name, count in {**counts, "patience": 1 if patience is None else patience}.items():
        if count < 1:
            raise ValueError(f"fit expected {name} to be at least 1, but got {count}.")
    if patience is not None and held_out is None:
        raise ValueError(f"patience={patience} counts validations, but got no validation data.")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema is a decay between 0 and 1, such as 0.999, but got {ema}.")
    batch_size, learning_rate, seed = min(int(batch_size), N), float(learning_rate), int(seed)
    per_epoch = N // batch_size
    if steps is not None and epochs is not None:
        raise ValueError("fit takes steps or epochs, but both were given.")
    total = steps if steps is not None else (2000 if epochs is None else epochs * per_epoch)
    if total < 1:
        raise ValueError(f"fit expected at least one step, but got {total}.")
    rate = {"cosine": lambda u: 0.5 * (1 + math.cos(math.pi * u)), "constant": lambda u: 1.0}.get(schedule, schedule)
    if not callable(rate):
        raise ValueError(f"The schedule is 'cosine', 'constant' or a function, but got {schedule!r}.")
    keep = set(snapshots if isinstance(snapshots, Iterable) else _spaced(total, int(snapshots)))

    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no trainable parameters, so there is nothing to fit.")
    cut = distributed.ShardedLoss(model, objective, alone, shards)
    if cut.shards > batch_size:
        raise ValueError(f"A batch of {batch_size} cannot be cut into {cut.shards} shards. Lower shards.")
    if optimizer is None:
        fused = device.type in ("cpu", "cuda")  # one kernel for all parameters: a fifth of a small step's time
        adam = torch.optim.Adam(parameters, lr=learning_rate, fused=fused)
    else:
        adam = optimizer(parameters)
    base_rates = [group["lr"] for group in adam.param_groups]
    # Steps that may be queued before one is looked at. A GPU would wait for the CPU at each look, and the CPU for it.
    ahead = STEPS_AHEAD.get(device.type, 1) if optimizer is None else 1
    blown = torch.zeros((), device=device)  # 1 from the first step on whose loss or gradient is not finite

    history, best, average = History(total), None, None
    run = {"steps": total, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed, "samples": N}
    run["clip"], run["schedule"] = clip, schedule if isinstance(schedule, str) else "a function"
    run |= {name: value for name, value, usual in (("ema", ema, None), ("shards", cut.shards, 1)) if value != usual}
    if checkpoint is not None:
        run |= {"dtype": str(parameters[0].dtype), "validate_every": validate_every}
        moves = [_told(type(adam)), *map(_hyperparameters, adam.param_groups)]
        run |= {"objective": _told(objective), "optimizer": moves}
        run |= {"data": checkpoints.digest(data), "validation": checkpoints.digest(held_out or ())}
        run = json.loads(json.dumps(run, default=checkpoints.plain))  # as it is read back
        if checkpoints.training_file(checkpoint).exists():
            best, average = _resume(checkpoint, model, adam, history, run)
        elif Path(checkpoint).exists():
            raise CheckpointError(
                f"{checkpoint} exists, but not its training file {checkpoints.training_file(checkpoint)}, so a run "
                f"cannot go on from it. Load it with load_checkpoint, and give this run another file."
            )
        if distributed.rank() == 0:
            checkpoints.make_ready(checkpoint)
    if not distributed.agree(history.step):
        raise CheckpointError(
            f"The processes found different checkpoints, here of step {history.step}: {checkpoint} should be in a "
            f"folder that all machines share."
        )
    if cut.shards > 1 and not distributed.agree(int(checkpoints.digest(data)[:5], 16)):
        raise ValueError("The processes hold different data: read the same file in each, or draw from the same seed.")
    started = time.perf_counter() - history.seconds
    order, order_epoch = None, -1
    saved = seen = history.step
    if 0 in keep and history.step == 0:
        history.snapshots[0] = copy_of(model)

    def batch(index: int) -> tuple[Tensor, ...]:
        """The rows of a step, drawn without replacement in each epoch."""
        nonlocal order, order_epoch
        if index // per_epoch != order_epoch:
            order_epoch = index // per_epoch
            order = torch.randperm(N, generator=_generator(seed, 2 * order_epoch)).to(device)
        rows = order[(index % per_epoch) * batch_size :][:batch_size]
        return tuple(d[rows] for d in data)

    def at(index: int, number: int) -> Callable[[int], Step]:
        """Where each shard of a step stands, with noise by seed, number and shard."""
        return lambda shard: Step(index, total, _generator(seed, number, device, shard))

    def gradient(index: int) -> tuple[Tensor, Tensor]:
        """The loss of a step and the norm of its gradient, which is left in the parameters."""
        adam.zero_grad(set_to_none=True)
        with _products(tf32):
            loss = cut.backward(batch(index), at(index, 2 * index + 1))
        return loss, nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def look() -> None:
        """Fetch the losses that are still on the device, and stop at the first that is not finite."""
        nonlocal seen
        if history.step > seen and isinstance(history.loss[-1], Tensor):
            history.loss[seen:] = values = torch.stack(history.loss[seen:]).tolist()
            first = next((i for i, value in enumerate(values, seen) if not math.isfinite(value)), None)
            if first is not None:
                del history.loss[first:]
                raise NonFiniteLoss(_diagnose(model, first, gradient(first)[0].item()))
        seen = history.step

    def weights() -> State:
        """A copy of those that count: the average if there is one."""
        return copy_of(model) if average is None else {name: value.clone() for name, value in average.items()}

    def save() -> None:
        look()
        history.seconds = time.perf_counter() - started
        if distributed.rank() == 0:
            _save_run(checkpoint, model, adam, history, best, average, run)

    def validate() -> None:
        """Measure the held-out loss, and keep the best weights."""
        nonlocal best
        with _weights(model, average), _products(False), evaluating(model):
            loss = cut.evaluate(held_out, at(history.step, 0))
        if math.isnan(loss):
            raise NonFiniteLoss(
                f"Training stopped at step {history.step}: the validation loss is NaN. Look for held-out samples at "
                f"the edge of what the model takes (0 or 1 under Logit, for instance)."
            )
        history.validation[history.step] = loss
        if best is None or loss < history.validation[history.best_step]:
            best, history.best_step = weights(), history.step

    def ends() -> bool:
        """Whether patience has run out, by the history alone, so that a resumed run ends where it would have."""
        return patience is not None and sum(step > history.best_step for step in history.validation) >= patience

    machine_code = contextlib.ExitStack()
    try:
        if compile:
            machine_code.enter_context(compiled(model))
        model.train()
        parts = list(model.modules())
        if history.step == total or ends():
            yield history  # a run that had ended before it was resumed
        elif history.step == 0 and any(not getattr(layer, "started", True) for layer in model.modules()):
            cut.start(batch(0), at(0, 1)(0))
        if cut.shards > 1 and not (history.step == total or ends()):
            cut.share(unused=not _uses_all(model, objective))
        for index in range(history.step, total):
            if ends():
                break
            if not all(part.training for part in parts):  # someone evaluated it between two steps
                model.train()
            for group, base_rate in zip(adam.param_groups, base_rates, strict=True):
                group["lr"] = base_rate * rate(index / total)

            loss, norm = gradient(index)
            bad = ~(loss.isfinite() & norm.isfinite())
            if ahead > 1:
                # Adam takes no step from here on; the look that finds out why comes later.
                adam.found_inf = blown = torch.maximum(blown, bad.float())
                loss = loss.masked_fill(bad, math.nan)
            elif bad:  # before one NaN is spread over all gradients
                raise NonFiniteLoss(_diagnose(model, index, loss.item()))
            if clip is not None:
                nn.utils.clip_grads_with_norm_(parameters, clip, norm)
            adam.step()

            history.loss.append(loss if ahead > 1 else loss.item())
            history.seconds = time.perf_counter() - started
            if ema is not None:
                average = _averaged(average, model, ema, history.step)
            validating = held_out is not None and (history.step % validate_every == 0 or history.step == total)
            if validating or history.step in keep or history.step % ahead == 0 or history.step == total:
                look()
            if history.step in keep:
                history.snapshots[history.step] = weights()
            if validating:
                validate()
            if checkpoint is not None and (history.step % checkpoint_every == 0 or history.step == total or ends()):
                save()
                saved = history.step
            yield history
        early = f"stopped early at step {history.step}: {patience} validations without a new best"
        history.stopped = early if ends() else f"finished {total} steps"
    except GeneratorExit:
        # Whoever drives the loop has had enough. An error, in contrast, leaves the last good checkpoint alone.
        look()
        history.stopped = f"stopped after step {history.step} of {total}"
        if checkpoint is not None and saved < history.step:
            save()
        raise
    except (RuntimeError, MemoryError) as error:
        if not _is_memory(error):
            raise
        there = "" if checkpoint is None else f", which goes on from step {saved}"
        raise OutOfMemory(
            f"Training stopped at step {history.step}: the memory of this {device.type} is too small for "
            f"{math.ceil(batch_size / cut.shards)} samples at once. Lower batch_size={batch_size}, or raise "
            f"shards={cut.shards}: the same batches, in more passes. If something else fills the memory, end that, and "
            f"repeat this call{there}."
        ) from error
    finally:
        machine_code.close()
        if best is not None or average is not None:
            model.load_state_dict(average if best is None else best)
        model.eval()


# --- what a step is made of -----------------------------------------------------------------------------------------


STEPS_AHEAD = {"cuda": 50}


def _told(thing: Any) -> Any:
    """What a run remembers of its objective: where it is defined, and what a dataclass or a partial holds.

    Of what a function has around it, a closure, nothing is known.
    """
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, Tensor):  # what was computed, such as the shares q starts from, may be rounded otherwise here
        return [list(thing.shape), None if thing.is_floating_point() else checkpoints.digest([thing])]
    if isinstance(thing, (list, tuple)):
        return [_told(part) for part in thing]
    if isinstance(thing, dict):
        return {str(name): _told(part) for name, part in thing.items()}
    if isinstance(thing, functools.partial):
        return [_told(thing.func), _told(thing.args), _told(thing.keywords)]
    name = thing if hasattr(thing, "__qualname__") else type(thing)
    name = f"{name.__module__}.{name.__qualname__}"
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {"name": name} | {field.name: _told(getattr(thing, field.name)) for field in dataclasses.fields(thing)}
    return name


def _hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    """What an optimizer was told that changes where it goes; not how, such as ``fused``, which hangs on the device."""
    how = {"params", "foreach", "fused", "capturable", "differentiable"}
    return {name: _told(value) for name, value in group.items() if value and name not in how}


def _uses_all(model: nn.Module, objective: Objective) -> bool:
    """Whether every weight is known to have a part in every step; a mixture may leave its q aside."""
    density = model.density if isinstance(model, Dequantized) else model
    return isinstance(density, Flow) and objective in (negative_log_likelihood, negative_bound)


@torch.no_grad()
def _averaged(average: State | None, model: nn.Module, decay: float, step: int) -> State:
    """a ← d a + (1 − d) w, d = min(decay, (1 + t)/(10 + t)); buffers are as they are now.

    It begins with the weights after the first step, where layers that start from data have started, and few steps weigh
    about the same: a short run, or the start of a long one, is not held back by weights that have learned nothing.
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
def _weights(model: nn.Module, state: State | None) -> Iterator[None]:
    """While it lasts, the model has these weights."""
    if state is None:
        yield
        return
    own = copy_of(model)
    model.load_state_dict(state)
    try:
        yield
    finally:
        model.load_state_dict(own)


@contextlib.contextmanager
def _products(tf32: bool) -> Iterator[None]:
    """While it lasts, a GPU computes matrix products and convolutions in TensorFloat-32, or in float32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out: on a CPU this is a RuntimeError like any other, but for its words."""
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(w in str(error) for w in words)


# --- compilation ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def compiled(model: nn.Module) -> Iterator[None]:
    """While it lasts, the flows in ``model`` compute gradients of log p by torch.compile, each for one shape of x.

    Evaluation stays as it is: each new shape would be compiled anew.

    Raises:
        CompilerMissing: when the model is on a CPU and no C++ compiler is found.
        ValueError: when there is no flow in the model.
    """
    flows = [m for m in model.modules() if isinstance(m, Flow)]
    if not flows:
        raise ValueError(f"compile=True compiles the flows in a model, but this {type(model).__name__} holds none.")
    if next(model.parameters()).device.type == "cpu":
        from torch._inductor import cpp_builder, exc  # imported when used: a second or two

        try:
            cpp_builder.get_cpp_compiler()
        except exc.InvalidCxxCompiler:
            raise CompilerMissing(
                "compile=True translates the model to C++, but no C++ compiler was found. Install one (g++ or clang), "
                "name it in the environment variable CXX, or leave compile out."
            ) from None
    for flow in flows:
        flow.log_prob = _compiled_for_training(flow)
    try:
        yield
    finally:
        for flow in flows:
            del flow.log_prob


def _compiled_for_training(flow: Flow) -> Callable[..., Tensor]:
    plain = flow.log_prob
    # On a CPU the calls of its kernels are compiled too: from Python, those of a small flow cost a tenth of a step.
    options = {"cpp_wrapper": True} if flow.base.anchor.device.type == "cpu" else None
    fast = torch.compile(plain, dynamic=False, options=options)

    def log_prob(x: Tensor, context: Tensor | None = None) -> Tensor:
        in_training = flow.training and torch.is_grad_enabled()
        return flow.without_traces(fast(x, context)) if in_training else plain(x, context)

    return log_prob


# --- data -----------------------------------------------------------------------------------------------------------


def _prepare(data: Any, model: nn.Module, what: str) -> tuple[tuple[Tensor, ...], bool]:
    """Arrays as tensors of the model's dtype and device, checked; and whether there is only one."""
    alone = not isinstance(data, tuple)
    parts = tuple(torch.as_tensor(d) for d in ((data,) if alone else data))
    like = next(model.parameters(), torch.zeros(()))
    if not parts:
        raise ValueError(f"The {what} should be an array or a tuple of arrays, but got an empty tuple.")
    ready = []
    for part in parts:
        if part.ndim == 0 or len(part) == 0 or len(part) != len(parts[0]):
            shapes = [tuple(p.shape) for p in parts]
            raise ValueError(f"The {what} should be (N, ...) with one N of at least 1, but got {shapes}.")
        if part.is_floating_point():
            part = part.to(like.dtype)
            bad = ~torch.isfinite(part).flatten(1).all(1) if part.ndim > 1 else ~torch.isfinite(part)
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                raise ValueError(
                    f"The {what} has NaN or infinity in {int(bad.sum())} of {len(part)} rows, the first in row {row}: "
                    f"{part[row].flatten()[:6].tolist()}. Remove or fill these rows."
                )
        ready.append(part.to(like.device))
    return tuple(ready), alone


def _generator(seed: int, number: int, device: torch.device | str = "cpu", shard: int = 0) -> Generator:
    """A CPU generator heeds 32 bits of its seed; odd factors keep the numbers of two seeds or shards apart in them."""
    return torch.Generator(device).manual_seed((seed * 0x9E3779B1 + shard * 0x85EBCA6B + number) % 2**32)


def _spaced(total: int, count: int) -> list[int]:
    """``count`` steps from 0 to ``total``, denser at the start, where a fit changes fastest."""
    return [round(total * (i / max(count - 1, 1)) ** 2) for i in range(count)]


def _diagnose(model: nn.Module, index: int, loss: float) -> str:
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
    return f"Training stopped at step {index}: {what} is not finite, the loss is {loss:.4g}. Lower the learning rate."


# --- progress and the interrupt button --------------------------------------------------------------------------------


def _bar(model: nn.Module, data: Any, batch_size: int) -> Callable[[History | None], None]:
    """A tqdm bar for notebooks, terminals and log files (there: one line every ten seconds)."""
    from tqdm.auto import tqdm

    first = data[0] if isinstance(data, tuple) else data
    batch_size, D = min(batch_size, len(first)), math.prod(getattr(first, "shape", (0, 0))[1:])
    images = isinstance(model, Dequantized) and D > 0
    quiet = not (sys.stderr.isatty() or "ipykernel" in sys.modules)
    bar = None

    def report(history: History | None) -> None:
        nonlocal bar
        if history is None:
            if bar is not None:
                bar.close()
            return
        if bar is None:
            bar = tqdm(total=history.total, initial=history.step - 1, unit="step", mininterval=10 if quiet else 0.2)
        bar.update(history.step - bar.n)
        if history.step % 20 == 0 or history.step == history.total:
            recent = history.loss[-20:]
            nats = float(sum(recent) / len(recent))
            words = f"loss {nats:.3f} nats"
            if images:
                words += f", {nats / (D * math.log(2)):.3f} bits/dim"
            rate = (bar.n - bar.initial) * batch_size / max(bar.format_dict["elapsed"], 1e-9)
            words += f", {rate:,.0f} {'images' if images else 'samples'}/s"
            bar.set_postfix_str(words, refresh=False)

    return report


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first interrupt into a flag, so that a step is finished or not begun; the second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    flag = threading.Event()
    previous = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    signal.signal(signal.SIGINT, handler)
    try:
        yield flag.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


# --- what a killed run needs ------------------------------------------------------------------------------------------


def _save_run(
    path: str | os.PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    best: State | None,
    average: State | None,
    run: dict[str, Any],
) -> None:
    """The training file first and whole by itself, so that a kill between the two files loses nothing."""
    tensors = {f"model/{name}": value for name, value in copy_of(model).items()}
    tensors |= {f"best/{name}": value for name, value in (best or {}).items()}
    tensors |= {f"average/{name}": value for name, value in (average or {}).items()}
    for step, state in history.snapshots.items():
        tensors |= {f"snapshot/{step}/{name}": value for name, value in state.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(v) for name, v in state.items() if v is not None}
    tensors["loss"] = torch.tensor(history.loss, dtype=torch.float64)
    record = {"seconds": history.seconds, "best_step": history.best_step}
    record["validation"] = [[step, value] for step, value in history.validation.items()]
    recipe = checkpoints.recipe_of(model)
    checkpoints.write(checkpoints.training_file(path), tensors, {"run": run, "recipe": recipe, **record})
    which = "of the last step" if best is None else "best on validation"
    card = {
        "run": run,
        "step": history.step if best is None else history.best_step,
        "of": history.total,
        "protocol": f"mean loss a sample, in nats; weights {which}{'' if average is None else ', averaged'}",
        "metrics": {"loss": history.loss[-1], "validation_loss": history.validation.get(history.best_step)},
    }
    checkpoints.write(Path(path), best or average or copy_of(model), checkpoints.card_of(model) | card)


def _resume(
    path: str | os.PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    run: dict[str, Any],
) -> tuple[State | None, State | None]:
    """Put model, optimizer and history back to where the training file left them; return best and average so far."""
    file = checkpoints.training_file(path)
    tensors, card = read_checkpoint(file)
    device = next(model.parameters()).device
    groups: dict[str, State] = {}
    for name, value in tensors.items():
        head, _, tail = name.partition("/")
        groups.setdefault(head, {})[tail] = value
    weights = groups.get("model", {})
    if weights:
        checkpoints.check_same_model(model, weights, card.get("recipe"), file)
    was = {name: run[name] for name in ("objective", "optimizer")} | (card.get("run") or {})  # older files lack the two
    if other := [name for name in {**was, **run} if was.get(name) != run.get(name)]:
        there, here = ({name: of.get(name) for name in other} for of in (was, run))
        raise CheckpointError(
            f"{file} is from another run: it has {there}, and this run has {here}. Choose another file or delete it to "
            f"start anew."
        )

    model.load_state_dict(weights)
    state: dict[int, State] = {}
    for name, value in groups.get("optimizer", {}).items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for name, value in groups.get("snapshot", {}).items():
        step, _, key = name.partition("/")
        history.snapshots.setdefault(int(step), {})[key] = value
    history.loss = tensors["loss"].tolist()
    history.validation = {int(step): value for step, value in card["validation"]}
    history.seconds, history.best_step = card["seconds"], card["best_step"]
    best, average = groups.get("best"), groups.get("average")
    return best, average and {name: value.to(device) for name, value in average.items()}
