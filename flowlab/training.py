"""One training loop for every model, its history, and checkpoints from which a killed run goes on.

Batches, learning rate and noise at a step depend on the seed and the number of that step alone, not on what ran before.
That is why a run that was killed and resumed gives, bit for bit, what it would have given undisturbed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
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

from flowlab.flow import Flow

State = dict[str, Tensor]


class NonFiniteLoss(ArithmeticError):
    """The loss or a gradient became infinite or NaN; the message names the step and the quantity."""


class CompilerMissing(RuntimeError):
    """Compilation was asked for, but this machine has nothing to compile with."""


class CheckpointError(ValueError):
    """A file is no checkpoint, or the checkpoint of another model or run."""


class Step(NamedTuple):
    """Where the loop is, for objectives that change with time: ``index`` of ``total``, and a generator for noise."""

    index: int
    total: int
    generator: Generator


@dataclass
class History:
    """What a run recorded: losses in nats, one for each step; validation losses; seconds; snapshots of the weights."""

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
    ``progress`` is True for a bar, False for silence, or a function of the History, called after each step.
    """
    with _interruptible() as interrupted:
        report = _bar() if progress is True else (progress or (lambda history: None))
        steps = train(model, data, **settings)
        history = None
        try:
            for history in steps:
                report(history)
                if interrupted():
                    break
        finally:
            steps.close()
            if progress is True:
                report(None)
    if interrupted() and history is not None and history.step < history.total:
        history.stopped = f"interrupted after step {history.step} of {history.total}"
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
    validation: Any = None,
    validate_every: int = 50,
    patience: int | None = None,
    snapshots: int | Sequence[int] = 0,
    seed: int = 0,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 500,
    compile: bool = False,
) -> Iterator[History]:
    """The loop behind ``fit``, one step at a time: yields the same growing History after each step.

    Args:
        data: ``(N, ...)``, an array or tensor, or a tuple of them that are cut into batches alike.
        steps, epochs: how long; 2,000 steps when neither is given. Batches are drawn without replacement in each epoch.
        schedule: "cosine" (down to zero), "constant", or a function of progress in [0, 1] that multiplies the rate.
        objective: a loss ``(model, batch, Step) -> ()``; the negative log-likelihood in nats unless given.
        optimizer: makes the optimizer from the parameters; Adam unless given.
        clip: the largest norm that a gradient keeps, None for no limit.
        validation: held-out data. The weights that were best on it are the ones that the model ends with.
        patience: how many validations without a new best end the run.
        snapshots: how many copies of the weights to keep for scrubbing (denser at the start), or at which steps.
        checkpoint: a file to write every ``checkpoint_every`` steps, and to go on from if its training file is there.
        compile: translate the model's flows to machine code at the first step, which takes half a minute or so; later
            steps are faster, and their numbers differ in rounding alone. On a CPU this needs a C++ compiler.

    Raises:
        CompilerMissing: when ``compile`` is asked for where it cannot be done.
        ValueError: for empty data, for data with NaN or infinity (naming the row), and for settings out of range.
        NonFiniteLoss: when the loss or a gradient is not finite, naming the step and the quantity.
        CheckpointError: when the checkpoint belongs to another model or run, or has no training file.
    """
    data, alone = _prepare(data, model, "data")
    held_out = None if validation is None else _prepare(validation, model, "validation data")[0]
    shapes = [[tuple(d.shape[1:]) for d in parts] for parts in (data, held_out or data)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"The validation data should have samples like the data, {shapes[0]}, but came {shapes[1]}.")
    N, device = len(data[0]), data[0].device
    counts = {"batch_size": batch_size, "validate_every": validate_every, "checkpoint_every": checkpoint_every}
    for name, count in {**counts, "patience": 1 if patience is None else patience}.items():
        if count < 1:
            raise ValueError(f"fit expected {name} to be at least 1, but came {count}.")
    if patience is not None and held_out is None:
        raise ValueError(f"patience={patience} counts validations, but no validation data came.")
    batch_size, learning_rate, seed = min(int(batch_size), N), float(learning_rate), int(seed)
    per_epoch = N // batch_size
    if steps is not None and epochs is not None:
        raise ValueError("fit takes steps or epochs, but both were given.")
    total = steps if steps is not None else (2000 if epochs is None else epochs * per_epoch)
    if total < 1:
        raise ValueError(f"fit expected at least one step, but came {total}.")
    rate = {"cosine": lambda u: 0.5 * (1 + math.cos(math.pi * u)), "constant": lambda u: 1.0}.get(schedule, schedule)
    if not callable(rate):
        raise ValueError(f"The schedule is 'cosine', 'constant' or a function, but came {schedule!r}.")
    keep = set(snapshots if isinstance(snapshots, Iterable) else _spaced(total, int(snapshots)))

    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no trainable parameters, so there is nothing to fit.")
    if optimizer is None:
        fused = device.type in ("cpu", "cuda")  # one kernel for all parameters: a fifth of a small step's time
        adam = torch.optim.Adam(parameters, lr=learning_rate, fused=fused)
    else:
        adam = optimizer(parameters)
    base_rates = [group["lr"] for group in adam.param_groups]

    history, best = History(total), None
    run = {"steps": total, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed, "samples": N}
    run["clip"], run["schedule"] = clip, schedule if isinstance(schedule, str) else "a function"
    if checkpoint is not None:
        run |= {"dtype": str(parameters[0].dtype), "validate_every": validate_every}
        run |= {"data": _digest(data), "validation": _digest(held_out or ())}
        run = json.loads(json.dumps(run, default=_plain))  # as it is read back
        if _training_file(checkpoint).exists():
            best = _resume(checkpoint, model, adam, history, run)
        elif Path(checkpoint).exists():
            raise CheckpointError(
                f"{checkpoint} exists, but not its training file {_training_file(checkpoint)}, so a run cannot go on "
                f"from it. Load it with load_checkpoint, and give this run another file."
            )
        # A folder that cannot be written to is better known now than after the first hundred steps.
        probe = Path(checkpoint).with_name(f".{Path(checkpoint).name}.probe")
        _write(probe, {}, {})
        probe.unlink()
    started = time.perf_counter() - history.seconds
    order, order_epoch = None, -1
    saved = history.step
    if 0 in keep and history.step == 0:
        history.snapshots[0] = _copy(model)

    def save() -> None:
        history.seconds = time.perf_counter() - started
        _save_run(checkpoint, model, adam, history, best, run)

    def validate() -> None:
        """Measure the held-out loss, and keep the best weights."""
        nonlocal best
        loss = _evaluate(model, held_out, alone, objective, Step(history.step, total, _generator(seed, 0, device)))
        if math.isnan(loss):
            raise NonFiniteLoss(
                f"Training stopped at step {history.step}: the validation loss is NaN. Look for held-out samples at "
                f"the edge of what the model takes (0 or 1 under Logit, for instance)."
            )
        history.validation[history.step] = loss
        if best is None or loss < history.validation[history.best_step]:
            best, history.best_step = _copy(model), history.step
        model.train()

    def ends() -> bool:
        """Whether patience has run out, by the history alone, so that a resumed run ends where it would have."""
        return patience is not None and sum(step > history.best_step for step in history.validation) >= patience

    machine_code = contextlib.ExitStack()
    try:
        if compile:
            machine_code.enter_context(compiled(model))
        model.train()
        if history.step == total or ends():
            yield history  # a run that had ended before it was resumed
        for index in range(history.step, total):
            if ends():
                break
            if index // per_epoch != order_epoch:
                order_epoch = index // per_epoch
                order = torch.randperm(N, generator=_generator(seed, 2 * order_epoch)).to(device)
            rows = order[(index % per_epoch) * batch_size :][:batch_size]
            batch = data[0][rows] if alone else tuple(d[rows] for d in data)
            for group, base_rate in zip(adam.param_groups, base_rates, strict=True):
                group["lr"] = base_rate * rate(index / total)

            loss = objective(model, batch, Step(index, total, _generator(seed, 2 * index + 1, device)))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            value = loss.item()
            finite = math.isfinite(value)
            try:
                nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip, error_if_nonfinite=True)
            except RuntimeError:  # raised before one NaN is spread over all gradients
                finite = False
            if not finite:
                raise NonFiniteLoss(_diagnose(model, index, value))
            adam.step()

            history.loss.append(value)
            history.seconds = time.perf_counter() - started
            if history.step in keep:
                history.snapshots[history.step] = _copy(model)
            if held_out is not None and (history.step % validate_every == 0 or history.step == total):
                validate()
            if checkpoint is not None and (history.step % checkpoint_every == 0 or history.step == total or ends()):
                save()
                saved = history.step
            yield history
        early = f"stopped early at step {history.step}: {patience} validations without a new best"
        history.stopped = early if ends() else f"finished {total} steps"
    except GeneratorExit:
        # Whoever drives the loop has had enough. An error, in contrast, leaves the last good checkpoint alone.
        history.stopped = f"stopped after step {history.step} of {total}"
        if checkpoint is not None and saved < history.step:
            save()
        raise
    finally:
        machine_code.close()
        if best is not None:
            model.load_state_dict(best)
        model.eval()


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
    fast = torch.compile(plain, dynamic=False)

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
        raise ValueError(f"The {what} should be an array or a tuple of arrays, but came an empty tuple.")
    ready = []
    for part in parts:
        if part.ndim == 0 or len(part) == 0 or len(part) != len(parts[0]):
            shapes = [tuple(p.shape) for p in parts]
            raise ValueError(f"The {what} should be (N, ...) with one N of at least 1, but came {shapes}.")
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


def _generator(seed: int, number: int, device: torch.device | str = "cpu") -> Generator:
    """A CPU generator heeds 32 bits of its seed; the golden ratio keeps the numbers of two seeds apart in them."""
    return torch.Generator(device).manual_seed((seed * 0x9E3779B1 + number) % 2**32)


def _spaced(total: int, count: int) -> list[int]:
    """``count`` steps from 0 to ``total``, denser at the start, where a fit changes fastest."""
    return [round(total * (i / max(count - 1, 1)) ** 2) for i in range(count)]


@torch.no_grad()
def _evaluate(model: nn.Module, data: tuple[Tensor, ...], alone: bool, objective: Objective, step: Step) -> float:
    model.eval()
    N, total = len(data[0]), 0.0
    for start in range(0, N, 4096):
        part = tuple(d[start : start + 4096] for d in data)
        total += float(objective(model, part[0] if alone else part, step)) * len(part[0])
    return total / N


def _copy(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


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


def _bar() -> Callable[[History | None], None]:
    """A tqdm bar for notebooks, terminals and log files (there: one line every ten seconds)."""
    from tqdm.auto import tqdm

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
            bar.set_postfix_str(f"loss {sum(recent) / len(recent):.3f} nats", refresh=False)

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


# --- checkpoints ------------------------------------------------------------------------------------------------------


def save_checkpoint(path: str | os.PathLike, model: nn.Module, card: dict[str, Any] | None = None) -> None:
    """Write weights and card to one safetensors file, whole or not at all (a temporary name, then a rename)."""
    _write(Path(path), _copy(model), _card(model) | (card or {}))


def load_checkpoint(path: str | os.PathLike, model: nn.Module) -> dict[str, Any]:
    """Load weights into ``model``, leave it in evaluation mode as ``fit`` does, and return the card.

    Raises:
        CheckpointError: when the file is missing, not safetensors, or holds another model's weights.
    """
    tensors, card = read_checkpoint(path)
    _check_same_model(model, tensors, card.get("recipe"), path)
    model.load_state_dict(tensors)
    model.eval()
    return card


def read_checkpoint(path: str | os.PathLike) -> tuple[State, dict[str, Any]]:
    """The tensors and the card in a safetensors file. Nothing in it is ever run.

    Raises:
        CheckpointError: when there is no such file, or it is not one that flowlab wrote.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            card = (file.metadata() or {}).get("card")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint at {path}.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}). Nothing was loaded; flowlab never unpickles a file."
        ) from None
    try:
        return tensors, dict(json.loads(card))
    except (TypeError, ValueError):
        raise CheckpointError(f"{path} has no card, so flowlab did not write it. Nothing was loaded.") from None


def _recipe(model: nn.Module) -> dict[str, Any] | None:
    """How to build the model again, as JSON will give it back: lists for tuples, plain numbers for numpy's."""
    return json.loads(json.dumps(getattr(model, "recipe", None), default=_plain))


def _plain(value: Any) -> Any:
    """A numpy number or a tensor as plain numbers; anything else in words."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _digest(parts: Iterable[Tensor]) -> str:
    """A fingerprint of data: the same rows in the same order, bit for bit."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def _card(model: nn.Module) -> dict[str, Any]:
    """What a file says of itself: which model, how to build it again, and what it was made with."""
    from flowlab import __version__

    device = next(model.parameters(), torch.zeros(())).device
    return {
        "model": type(model).__name__,
        "recipe": _recipe(model),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {"flowlab": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _write(path: Path, tensors: State, card: dict[str, Any]) -> None:
    from safetensors.torch import save

    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = save(tensors, metadata={"card": json.dumps(card, default=_plain)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error}). Make room or choose another place; what was there before is as it "
            f"was, and the model in memory is as its last step left it."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _check_same_model(model: nn.Module, tensors: State, recipe: dict | None, path: str | os.PathLike) -> None:
    """Refuse weights of other shapes, and weights of the same shapes that another recipe would read otherwise."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if own != found:
        name = next(n for n in {**own, **found} if own.get(n) != found.get(n))
        raise CheckpointError(
            f"{path} holds another model: {name} is {found.get(name, 'absent')} there and {own.get(name, 'absent')} "
            f"in this {type(model).__name__}. Build the model with the settings that the file was made with."
        )
    mine = _recipe(model)
    if (
        mine
        and recipe
        and (mine["name"] != recipe["name"] or not recipe["settings"].items() <= mine["settings"].items())
    ):
        raise CheckpointError(
            f"{path} holds another model: {recipe}, and this one is {mine}. Build it as the file says."
        )


def _training_file(checkpoint: str | os.PathLike) -> Path:
    """The second file, which holds all that a resumed run needs and can be left out once it is done."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.training{path.suffix or '.safetensors'}")


def _save_run(
    path: str | os.PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    best: State | None,
    run: dict[str, Any],
) -> None:
    """The training file first and whole by itself, so that a kill between the two files loses nothing."""
    tensors = {f"model/{name}": value for name, value in _copy(model).items()}
    tensors |= {f"best/{name}": value for name, value in (best or {}).items()}
    for step, state in history.snapshots.items():
        tensors |= {f"snapshot/{step}/{name}": value for name, value in state.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(v) for name, v in state.items() if v is not None}
    tensors["loss"] = torch.tensor(history.loss, dtype=torch.float64)
    record = {"seconds": history.seconds, "best_step": history.best_step}
    record["validation"] = [[step, value] for step, value in history.validation.items()]
    _write(_training_file(path), tensors, {"run": run, "recipe": _recipe(model), **record})
    card = {
        "run": run,
        "step": history.step if best is None else history.best_step,
        "of": history.total,
        "protocol": "mean loss a sample, in nats; weights "
        + ("of the last step" if best is None else "best on validation"),
        "metrics": {"loss": history.loss[-1], "validation_loss": history.validation.get(history.best_step)},
    }
    _write(Path(path), best or _copy(model), _card(model) | card)


def _resume(
    path: str | os.PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    run: dict[str, Any],
) -> State | None:
    """Put model, optimizer and history back to where the training file left them; return the best weights so far."""
    file = _training_file(path)
    tensors, card = read_checkpoint(file)
    groups: dict[str, State] = {}
    for name, value in tensors.items():
        head, _, tail = name.partition("/")
        groups.setdefault(head, {})[tail] = value
    weights = groups.get("model", {})
    if weights:
        _check_same_model(model, weights, card.get("recipe"), file)
    if card.get("run") != run:
        raise CheckpointError(
            f"{file} is from another run: it has {card.get('run')}, and this run has {run}. Choose another file or "
            f"delete it to start anew."
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
    return groups.get("best")
