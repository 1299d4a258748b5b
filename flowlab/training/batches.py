"""The data of a run, checked and in place, and what a step gets of them: its rows, and its noise.

Both depend on the seed and the number of the step alone, not on what ran before. That is why a run that was killed and
resumed gives, bit for bit, what it would have given undisturbed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn

Parts = tuple[Tensor, ...]


class Batches:
    """Batches of ``size`` rows, drawn without replacement in each epoch: the last rows of an order may be left out."""

    def __init__(self, data: Parts, size: int, seed: int) -> None:
        self.data, self.size, self.seed = data, size, seed
        self.per_epoch = len(data[0]) // size
        self._order, self._epoch = torch.empty(0), -1

    def __call__(self, index: int) -> Parts:
        """The rows of step ``index``."""
        epoch, nth = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self.data[0]), generator=generator(self.seed, 2 * epoch))
            self._order, self._epoch = order.to(self.data[0].device), epoch
        rows = self._order[nth * self.size :][: self.size]
        return tuple(part[rows] for part in self.data)


def generator(seed: int, number: int, device: torch.device | str = "cpu", shard: int = 0) -> Generator:
    """A CPU generator heeds 32 bits of its seed; odd factors keep the numbers of two seeds or shards apart in them."""
    return Generator(device).manual_seed((seed * 0x9E3779B1 + shard * 0x85EBCA6B + number) % 2**32)


@contextlib.contextmanager
def own_randomness(own: Generator) -> Iterator[None]:
    """While it lasts, torch's global generators draw from a seed of their own, by that of ``own``; then as they were.

    For models that draw from them, such as those with Dropout: what they learn is repeatable, and nobody else notices.
    """
    shared = [torch.default_generator]
    if own.device.type == "cuda":
        shared.append(torch.cuda.default_generators[own.device.index or 0])
    before = [one.get_state() for one in shared]
    for one in shared:  # torch.manual_seed takes a hundred times as long
        one.manual_seed(own.initial_seed() ^ 0x5DEECE66D)
    try:
        yield
    finally:
        for one, state in zip(shared, before, strict=True):
            one.set_state(state)


def prepare(data: Any, model: nn.Module, what: str) -> Parts:
    """Arrays as tensors of the model's dtype and device, without gradients, and checked.

    Raises:
        ValueError: for empty data, for parts of different lengths, and for rows with NaN or infinity.
    """
    parts = tuple(torch.as_tensor(d) for d in (data if isinstance(data, tuple) else (data,)))
    like = next(model.parameters(), torch.zeros(()))
    if not parts:
        raise ValueError(f"The {what} should be an array or a tuple of arrays, but got an empty tuple.")
    ready = []
    for part in parts:
        if part.ndim == 0 or len(part) == 0 or len(part) != len(parts[0]):
            shapes = [tuple(p.shape) for p in parts]
            raise ValueError(f"The {what} should be (N, ...) with one N of at least 1, but got {shapes}.")
        part = part.detach()
        if part.is_inference():  # it cannot take part in a gradient
            part = part.clone()
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
    return tuple(ready)
