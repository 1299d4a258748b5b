"""One training loop for every model, which can be killed and go on.

history = fit(flow, x)                    # with a bar and an interrupt button

for history in train(flow, x):            # the same, one step at a time
    ...
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from flowlab import tables
from flowlab.densities import Density, evaluating
from flowlab.training import checkpoints, distributed, resume, startup
from flowlab.training.averages import averaged, with_weights
from flowlab.training.batches import Batches, Parts, generator, hold_out, prepare
from flowlab.training.checkpoints import CheckpointError, copy_of, name_columns
from flowlab.training.compiling import compiled, products
from flowlab.training.distributed import ShardedLoss
from flowlab.training.fingerprints import digest
from flowlab.training.history import History, NonFiniteLoss, OutOfMemory
from flowlab.training.lookahead import Losses
from flowlab.training.objectives import Step, negative_log_likelihood
from flowlab.training.progress import Bar, Progress, interruptible
from flowlab.training.resume import Standing
from flowlab.training.settings import MANY, PASSES, Settings


def fit(model: nn.Module, data: Any = None, *, progress: bool | Progress = True, **settings: Any) -> History:
    """Train ``model`` on ``data`` by minimizing −mean log p(x), and return the History.

    The interrupt button, or Ctrl-C, stops after the step at hand and keeps the model; twice stops at once. Of several
    processes the first reports, and all stop when one is interrupted.

    Args:
        data: as ``train``.
        progress: True for a bar, False for silence, or a function of the History, called after each step.
        settings: those of ``Settings``, such as steps, batch_size, learning_rate, validation, checkpoint and seed.

    Raises:
        TypeError: for a ``progress`` of another kind; and all that ``train`` raises.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"fit expected progress as True, False or a function of the History, but got {progress!r}.")
    if distributed.rank() == 0 and settings.get("objective", negative_log_likelihood) is negative_log_likelihood:
        _warn(model, data)
    with interruptible() as interrupted:
        bar = Bar() if progress is True and distributed.rank() == 0 else None
        report = bar or (progress if callable(progress) and distributed.rank() == 0 else None)
        steps = train(model, data, **settings)
        stop = False
        try:
            for history in steps:
                if report:
                    report(history)
                if stop := distributed.anyone(interrupted()):
                    break
        finally:
            steps.close()
            if bar:
                bar.close()
    if stop and history.step < history.total:
        history.reason, history.stopped = "interrupted", f"interrupted after step {history.step} of {history.total}"
        if settings.get("checkpoint") is not None:
            history.stopped += f"; the same call goes on from there, by {settings['checkpoint']}"
    return history


@torch.inference_mode(False)
@torch.enable_grad()
def train(model: nn.Module, data: Any = None, **settings: Any) -> Generator[History, None, None]:
    """The loop behind ``fit``, one step at a time: yields the same growing History after each step.

    Args:
        data: ``(N, ...)``, an array or tensor, or a tuple of them that are cut into batches alike, such as
            (x, context). It is moved to the model's device once, and stays there. None for an objective without data.
        settings: those of ``Settings``.

    Raises:
        TypeError: for a model that is no torch.nn.Module, and for data that hold no numbers.
        CompilerMissing: when ``compile`` is asked for where it cannot be done.
        ValueError: for empty data, for data with NaN or infinity (naming the row), and for settings out of range.
        NonFiniteLoss: when the loss or a gradient is not finite, naming the step and the quantity.
        OutOfMemory: when a batch does not fit into memory, naming the settings to change.
        CheckpointError: when the checkpoint belongs to another model or run, or has no training file.
        OSError: when the checkpoint cannot be written; what was there before is as it was.
    """
    run = Run(model, data, Settings.of(settings))
    with run.ending():
        run.start()
        if run.over:  # it had ended before it was resumed
            yield run.history
        with compiled(model) if run.settings.compile else contextlib.nullcontext():
            while not run.over:
                run.step()
                run.validate()
                run.save()
                yield run.history


class Run(Standing):
    """One run: a model, its data and the settings, and how it goes from step to step.

    It raises what ``train`` does: TypeError and ValueError when built, NonFiniteLoss and OutOfMemory in its steps.
    """

    def __init__(self, model: nn.Module, data: Any, settings: Settings) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"fit expected a model, a torch.nn.Module, but got {type(model).__name__}.")
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(f"{type(model).__name__} has no trainable parameters, so there is nothing to fit.")
        if any(p.is_inference() for p in parameters):
            raise ValueError(
                "The model was built under torch.inference_mode, so it has no gradients. Build it outside."
            )
        self.settings, self.parameters, self.device = settings, parameters, parameters[0].device
        self._take(data, model)
        rows = 0 if self.data is None else len(self.data[0])
        chosen = self.held_out is not None and not _is_data(settings.validation)
        self.plan = settings.plan(rows, chosen and settings.validation is None)
        self.batches = None if self.data is None else Batches(self.data, self.plan.batch_size, settings.seed)
        history = History(self.plan.total, batch_size=self.plan.batch_size)
        if self.held_out is not None and chosen:
            history.held_out = len(self.held_out[0])
        if self.data is not None and getattr(model, "domain", "real") == "whole":
            history.whole_numbers = self.data[0][0].numel()
        super().__init__(model, settings.optimizer_of(parameters), history)

        self.loss = ShardedLoss(model, settings.objective, not isinstance(data, tuple), settings.shards)
        if self.batches is not None and self.loss.shards > self.plan.batch_size:
            raise ValueError(
                f"A batch of {self.plan.batch_size} cannot be cut into {self.loss.shards} shards. Lower shards."
            )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.kept, self.parts = settings.kept(history.total), list(model.modules())
        self._go_on()
        self.losses = Losses(history, model, settings.optimizer is None, lambda index: self.gradient(index)[0].item())
        self.began, self.saved = time.perf_counter() - history.seconds, history.step
        if 0 in self.kept and history.step == 0:
            history.snapshots[0] = copy_of(model)

    def _take(self, data: Any, model: nn.Module) -> None:
        """The data and those that are held out, checked and in place."""
        settings, self.data, self.held_out = self.settings, None, None
        if data is None:
            for name in ("epochs", "validation"):
                if (given := getattr(settings, name)) is not None and given is not False:
                    raise ValueError(f"{name} expected data, but got none. Give steps, and an objective without data.")
            if settings.objective is negative_log_likelihood:
                raise ValueError(
                    "negative_log_likelihood expected data, but got none. Give data, or another objective."
                )
            return
        self.data, names = prepare(data, model, "data")
        if settings.objective is negative_log_likelihood and isinstance(model, Density):
            _check_parts(model, self.data)
        if _is_data(settings.validation):
            self.held_out = prepare(settings.validation, model, "validation data", names).parts
            shapes = [[tuple(part.shape[1:]) for part in parts] for parts in (self.data, self.held_out)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"fit expected validation data with samples like the data, {shapes[0]}, but got {shapes[1]}."
                )
        elif share := settings.share(len(self.data[0])):
            left, taken = hold_out(self.data, share, settings.seed)
            if len(taken[0]) and len(left[0]):
                self.data, self.held_out = left, taken
        name_columns(model, names)

    def _go_on(self) -> None:
        """Go on from the checkpoint if there is one, in all processes from the same step and with the same data."""
        file = self.settings.file
        if file is not None:
            self.record = resume.record(self, self.settings, self.plan, self.data, self.held_out, self.loss.shards)
            if checkpoints.training_file(file).exists():
                resume.resume(file, self, self.record)
            elif file.exists():
                raise CheckpointError(
                    f"{file} exists, but not its training file {checkpoints.training_file(file)}, so a run cannot go "
                    f"on from it. Load it with load_checkpoint, and give this run another file."
                )
            if distributed.rank() == 0:
                checkpoints.make_ready(file)
        if not distributed.agree(self.history.step):
            raise CheckpointError(
                f"The processes found different checkpoints, here of step {self.history.step}: {file} should be in a "
                f"folder that all machines share."
            )
        if self.loss.shards > 1 and not distributed.agree(int(digest(self.data or ())[:5], 16)):
            raise ValueError(
                "The processes hold different data: read the same file in each, or draw from the same seed."
            )

    def start(self) -> None:
        """Before the first step: layers that start from data see the whole first batch, and processes join."""
        self.model.train()
        if self.over:
            return
        if self.history.step == 0:
            self._warn_of_overfitting()
            if self.data is not None and self.settings.objective is negative_log_likelihood and distributed.rank() == 0:
                startup.check_place(self.model, self.data[0], getattr(self.model, "columns", None))
            with products(self.settings.tf32):
                self.loss.start(self.batch(0), self.at(0, 1)(0), self.settings.restart)
        self.loss.share()

    def step(self) -> None:
        """One step of the optimizer: the gradient of one batch, clipped, and what is kept of the weights after it."""
        index, settings, history = self.history.step, self.settings, self.history
        if not all(part.training for part in self.parts):  # someone evaluated it since the last step
            self.model.train()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * settings.rate(index / history.total)
        loss, norm = self.gradient(index)
        value = self.losses.check(loss, norm, self.optimizer)
        if settings.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, settings.clip, norm)
        self.optimizer.step()
        self.losses.keep(value)
        history.seconds = time.perf_counter() - self.began
        if settings.ema is not None:
            self.average = averaged(self.average, self.model, settings.ema, history.step)
        if history.step in self.kept:
            self.losses.look()
            history.snapshots[history.step] = self.weights()

    def gradient(self, index: int) -> tuple[Tensor, Tensor]:
        """The loss of a step and the norm of its gradient, which is left in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        with products(self.settings.tf32):
            loss = self.loss.backward(self.batch(index), self.at(index, 2 * index + 1))
        return loss, nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def batch(self, index: int) -> Parts | None:
        """The rows of a step; None for a run without data."""
        return None if self.batches is None else self.batches(index)

    def at(self, index: int, number: int) -> Callable[[int], Step]:
        """Where each shard of a step stands, with noise by seed, number and shard."""
        seed, total = self.settings.seed, self.history.total
        return lambda shard: Step(index, total, generator(seed, number, self.device, shard))

    def validate(self) -> None:
        """If it is time, measure the held-out loss, and keep the best weights: those of a finite loss."""
        history, now = self.history, self.history.step
        if self.held_out is None or (now % self.plan.validate_every and now < history.total):
            return
        self.losses.look()
        with with_weights(self.model, self.average), products(False), evaluating(self.model):
            loss = self.loss.evaluate(self.held_out, self.at(now, 0))
        if math.isnan(loss):
            raise NonFiniteLoss(
                f"Training stopped at step {now}: the validation loss is NaN. Look for held-out samples at the edge of "
                f"what the model takes (0 or 1 under Logit, for instance)."
            )
        history.validation[now] = loss
        if math.isfinite(loss) and (history.best_step is None or loss < history.validation[history.best_step]):
            self.best, history.best_step = self.weights(), now

    def save(self, now: bool = False) -> None:
        """If it is time, write the checkpoint and the training file."""
        file, step = self.settings.file, self.history.step
        if file is None or not (now or self.over or step % self.settings.checkpoint_every == 0):
            return
        self.losses.look()
        self.history.seconds = time.perf_counter() - self.began
        if distributed.rank() == 0:
            resume.save(file, self, self.record)
        self.saved = step

    @property
    def impatient(self) -> bool:
        """Whether patience has run out, by the history alone, so that a resumed run ends where it would have."""
        patience, best = self.plan.patience, self.history.best_step or 0
        return patience is not None and sum(step > best for step in self.history.validation) >= patience

    @property
    def over(self) -> bool:
        """Whether all steps are taken, or patience has run out."""
        return self.history.step >= self.history.total or self.impatient

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """However the run ends, the model has its best weights then, and the history says why."""
        history = self.history
        try:
            yield
            if self.impatient:
                early = f"stopped early at step {history.step}: {self.plan.patience} validations without a new best"
                history.reason, history.stopped = "patience", early
            else:
                history.reason, history.stopped = "finished", f"finished {history.total} steps"
            if history.validation and history.best_step is None:
                self._say_that_none_was_best()
            elif history.held_out:
                rows, best = history.held_out, history.best_step
                history.stopped += f"; {rows} rows were held out, and the weights of step {best} were best on them"
        except GeneratorExit:
            # Whoever drives the loop has had enough. An error, in contrast, leaves the last good checkpoint alone.
            self.losses.look()
            history.reason, history.stopped = "left", f"stopped after step {history.step} of {history.total}"
            if self.saved < history.step:
                self.save(now=True)
            raise
        except (RuntimeError, MemoryError) as error:
            if not _is_memory(error):
                raise
            raise OutOfMemory(self._out_of_memory()) from error
        finally:
            if weights := self.best or self.average:
                self.model.load_state_dict(weights)
            self.model.eval()

    def _warn_of_overfitting(self) -> None:
        """Warn when a run without held-out data passes over few rows so often that it may learn them by heart."""
        if self.data is None or self.batches is None or self.held_out is not None:
            return
        settings, (N, numbers) = self.settings, (len(self.data[0]), self.data[0].numel())
        passes, weights = self.plan.total // self.batches.per_epoch, sum(p.numel() for p in self.parameters)
        often = passes > (PASSES if N < MANY else 10 * PASSES)
        plain = settings.objective is negative_log_likelihood and settings.validation is None
        if plain and often and weights > numbers and distributed.rank() == 0:
            warnings.warn(
                f"This run passes over {N} rows {passes:,} times without held-out data, and the model has {weights:,} "
                f"weights: it may learn the rows by heart, and be far off on others. validation=True holds out some "
                f"rows and keeps the weights that are best on them; validation=False trains on all, without this "
                f"warning.",
                stacklevel=7,
            )

    def _say_that_none_was_best(self) -> None:
        losses = self.history.validation
        self.history.stopped += "; no validation loss was finite"
        warnings.warn(
            f"All {len(losses)} validation losses are {' or '.join(map(str, sorted(set(losses.values()))))}, so none "
            f"says which weights are best, and the model ends with the weights of the last step. Look for held-out "
            f"samples outside the model's reach (log p = -inf).",
            stacklevel=8,
        )

    def _out_of_memory(self) -> str:
        shards, batch_size = self.loss.shards, self.plan.batch_size
        there = "" if self.settings.file is None else f", which goes on from step {self.saved}"
        return (
            f"Training stopped at step {self.history.step}: the memory of this {self.device.type} is too small for "
            f"{math.ceil(batch_size / shards)} samples at once. Lower batch_size={batch_size}, or raise "
            f"shards={shards}: the same batches, in more passes. If something else fills the memory, end that, and "
            f"repeat this call{there}."
        )


def _warn(model: nn.Module, data: Any) -> None:
    """Warn of what ``describe`` finds in a table. Data that cannot be read are left to ``train``, which raises."""
    first = data[0] if isinstance(data, tuple) and data else data
    if first is None or getattr(model, "domain", None) != "real" or len(getattr(model, "event_shape", ())) != 1:
        return
    with contextlib.suppress(TypeError, ValueError):
        tables.warn(first, stacklevel=3)


def _check_parts(density: Density, data: Parts) -> None:
    """Raise ValueError for what has more parts, or fewer axes, than the data of a density."""
    if len(data) > 2:
        raise ValueError(
            f"fit expected the data as x or (x, context), but got a tuple of {len(data)}: put several contexts side by "
            f"side in one table, or give an objective that takes what else there is."
        )
    if data[0].ndim <= len(density.event_shape):
        raise ValueError(
            f"fit expected the data as (N, {', '.join(map(str, density.event_shape))}), but got "
            f"{tuple(data[0].shape)}: one row alone is x[None], and does not determine a density."
        )


def _is_data(validation: Any) -> bool:
    """Whether ``validation`` holds data, rather than True, False or a share."""
    return validation is not None and not isinstance(validation, (bool, float))


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out: on a CPU this is a plain RuntimeError, which only its text tells from others."""
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(w in str(error) for w in words)
