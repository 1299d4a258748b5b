"""One batch in several shards, on one process or on several that `torchrun` started: the gradients are the same.

    loss = Σ_s (n_s / N) · loss_s        and so is its gradient, summed over the shards of all processes

For a loss that is a mean over samples this is the loss of the batch. One that compares the samples of a batch, such as
the balance of a mixture, compares those of a shard.

Each shard has noise of its own, drawn from the seed, the step and its number. So what is learned depends on how many
shards there are, and not on how many processes share them.

    with distributed.launched("cuda") as device:        # under torchrun: joins the others; else does nothing
        history = fit(model.to(device), x.to(device))
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flowlab.bijections import learning, starting
from flowlab.densities import evaluating
from flowlab.training import startup
from flowlab.training.batches import Parts, own_randomness
from flowlab.training.objectives import LossFunction, Step


@contextlib.contextmanager
def launched(device: str | torch.device = "cpu") -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, and say which device is this one's; alone, just say the device.

    On GPUs each process of a machine gets the one of its number, and they talk through NCCL; on CPUs through gloo.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    # Single numbers go through gloo even then, so that a GPU is not waited for.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield device
    summed(0.0)  # the first may still be writing a file; after an error, nobody waits for those that may be gone
    if device.type == "cuda":  # gloo ends with the process: torch 2.6 hangs at times when it is told to
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """How many processes train together.

    Raises:
        RuntimeError: under torchrun when the processes have not joined, where each would train alone.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise RuntimeError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes that have not joined, so each would train alone. "
            f'Put the training into "with flowlab.training.distributed.launched(device) as device:".'
        )
    return 1


def summed(*values: float) -> list[float]:
    """The sum of each value over all processes; every process gets exactly the same numbers."""
    if size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def anyone(flag: bool) -> bool:
    """The logical OR of a flag over all processes, so that all of them stop at the same step."""
    return summed(float(flag))[0] > 0


def agree(number: int) -> bool:
    """Whether a whole number below 2²⁴ is the same in all processes."""
    first, second = summed(number, number**2)
    return size() * second == first**2


class Loss(nn.Module):
    """An objective as a module, so that DistributedDataParallel sees whatever part of the model it calls.

    What the model draws from torch's global generators depends on the step alone, and leaves them as they were.
    """

    def __init__(self, model: nn.Module, objective: LossFunction) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Tensor | Parts | None, step: Step) -> Tensor:
        with own_randomness(step.generator):
            return self.objective(self.model, batch, step)


class ShardedLoss:
    """The loss of batches that are cut into ``shards``, of which this process computes its own, one after the other.

    A run without data has None for each batch: then each shard is an objective of its own draws, and all weigh alike.

    Args:
        alone: whether the objective takes one tensor, and not a tuple.
        shards: as many as there are processes when left out.

    Raises:
        ValueError: for shards that the processes cannot share equally, and for batch statistics, which differ by shard.
    """

    def __init__(self, model: nn.Module, objective: LossFunction, alone: bool, shards: int | None = None) -> None:
        processes = size()
        self.shards = processes if shards is None else shards
        if self.shards < 1 or self.shards % processes:
            raise ValueError(
                f"fit expected shards to be a multiple of the number of processes, {processes}, but got {shards}."
            )
        name = next((n for n, m in model.named_modules() if _sees_batches(m)), None)
        if self.shards > 1 and name is not None:
            raise ValueError(
                f"{name} takes its statistics from a whole batch, and a batch in {self.shards} shards is never seen "
                f"whole. Train with shards=1 on one process, or with ActNorm in its place."
            )
        each = self.shards // processes
        self.mine = range(rank() * each, (rank() + 1) * each)
        self.alone, self.model, self.averages = alone, model, name is not None
        self.waiting: list[Any] = []  # layers that are still to be started from data
        self.plain = Loss(model, objective)
        self.shared: nn.Module = self.plain

    def start(self, batch: Parts | None, step: Step, anew: bool = False) -> None:
        """Let layers that start from data, such as ActNorm, see all of the first batch, and not one shard.

        Those that have started before stay as they are, but with ``anew`` they start again. What the objective does not
        reach yet, such as the flows of a mixture whose q is trained first, starts from the first batch that gets there.
        """
        layers = self._layers()
        if batch is None:
            startup.stay(layers)
        elif anew or not all(layer.started for layer in layers):
            # Gradients, for objectives that take some themselves; in shards there is no room for a whole batch's.
            with torch.set_grad_enabled(self.shards == 1), starting(self.model, anew=anew), self._learning():
                self.plain(self._given(batch), step)
        elif layers:
            with evaluating(self.model), torch.set_grad_enabled(self.shards == 1):
                startup.compare(layers, lambda: self.plain(self._given(batch), step))

    def share(self) -> None:
        """Copy the weights of the first process to all; from here on, gradients are averaged over all processes."""
        self.waiting = [layer for layer in self._layers() if not layer.started]
        if size() > 1:
            # Buffers agree from the start on. torch 2.13 has a new name for not sending them at each step.
            known = inspect.signature(DistributedDataParallel).parameters
            still = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            # An objective may leave a part of the model aside, such as a mixture's q, at some steps.
            settings: dict[str, Any] = {still: False, "find_unused_parameters": True}
            self.shared = DistributedDataParallel(self.plain, **settings)

    def backward(self, batch: Parts | None, step: Callable[[int], Step]) -> Tensor:
        """The mean loss of a batch, ``()``, with its gradient added to the parameters'; ``step(s)`` is for shard s."""
        if self.waiting and self.shards > 1:
            with torch.no_grad(), self._starting(), self._learning():
                self.plain(self._given(batch), step(0))
        loss = torch.zeros(())
        for s, part, weight in self._parts(batch):
            # One exchange a step: the gradients of the earlier shards wait in the parameters for the last.
            together = self.shared if isinstance(self.shared, DistributedDataParallel) else None
            wait = together.no_sync() if together and s != self.mine[-1] else contextlib.nullcontext()
            with wait, self._learning(), self._starting() if self.shards == 1 else contextlib.nullcontext():
                value = self.shared(self._given(part), step(s)) * weight
                (size() * value).backward()  # DistributedDataParallel takes the mean over processes
            loss = value.detach() if s == self.mine[0] else loss + value.detach()
        if size() > 1:
            dist.all_reduce(loss)
        return loss

    @torch.no_grad()
    def evaluate(self, data: Parts, step: Callable[[int], Step], rows: int = 4096) -> float:
        """The mean loss over data, with at most ``rows`` at once and no gradients."""
        total = 0.0
        for s, part in self._cut(data):
            now = step(s)
            for start in range(0, len(part[0]), rows):
                block = tuple(d[start : start + rows] for d in part)
                total += float(self.plain(self._given(block), now)) * len(block[0])
        return summed(total)[0] / len(data[0])

    def _layers(self) -> list[Any]:
        """The layers that start from data."""
        return [layer for layer in self.model.modules() if hasattr(layer, "started")]

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """A block in which the next batch starts the layers that have not started, without waiting for the device."""
        for layer in self.waiting:
            layer.starting = True
        try:
            yield
        finally:
            self.waiting = [layer for layer in self.waiting if layer.starting]
            for layer in self.waiting:
                layer.starting = False

    def _learning(self) -> contextlib.AbstractContextManager[None]:
        """A block in which running averages are updated; an empty block for a model that has none."""
        return learning(self.model) if self.averages else contextlib.nullcontext()

    def _parts(self, data: Parts | None) -> Iterator[tuple[int, Parts | None, float]]:
        """The shards that are this process's own: their numbers, their rows, and what each weighs in the mean."""
        if data is None:
            yield from ((s, None, 1 / self.shards) for s in self.mine)
        else:
            yield from ((s, part, len(part[0]) / len(data[0])) for s, part in self._cut(data))

    def _cut(self, data: Parts) -> Iterator[tuple[int, Parts]]:
        cut: Sequence[Parts] = list(zip(*(d.tensor_split(self.shards) for d in data), strict=True))
        return ((s, cut[s]) for s in self.mine)

    def _given(self, batch: Parts | None) -> Tensor | Parts | None:
        return batch[0] if self.alone and batch is not None else batch


def _sees_batches(layer: nn.Module) -> bool:
    """Whether a layer in training mode takes statistics of its batch."""
    return getattr(layer, "uses_batch_statistics", False) or isinstance(layer, nn.modules.batchnorm._BatchNorm)
