"""The data of a run, checked and in place, and what a step gets of them: its rows, and its noise.

Both depend on the seed and the number of the step alone, not on what ran before. That is why a run that was killed and
resumed gives, bit for bit, what it would have given undisturbed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from flowlab.tables import Table, as_table, as_tensor, check_finite, check_order

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


def hold_out(data: Parts, share: float | bool, seed: int) -> tuple[Parts, Parts]:
    """Take some rows out of the data, by the seed: what is left, and what was taken.

    ``share`` of the rows; for True a tenth, but at least 20 rows, and at most a quarter.
    """
    N = len(data[0])
    count = max(N // 10, min(20, N // 4)) if share is True else round(share * N)
    order = torch.randperm(N, generator=generator(seed, 0, shard=-1))
    taken, left = (rows.sort().values.to(data[0].device) for rows in (order[:count], order[count:]))
    return tuple(part[left] for part in data), tuple(part[taken] for part in data)


def generator(seed: int, number: int, device: torch.device | str = "cpu", shard: int = 0) -> Generator:
    """The generator of one step: its state depends on the seed, the number and the shard alone.

    A CPU generator uses 32 bits of its seed. The odd factors keep different seeds and shards apart in these bits.
    """
    return Generator(device).manual_seed((seed * 0x9E3779B1 + shard * 0x85EBCA6B + number) % 2**32)


@contextlib.contextmanager
def own_randomness(own: Generator) -> Iterator[None]:
    """A block in which torch's global generators are seeded from ``own``; after it they have their earlier state again.

    This makes models that draw from them, such as those with Dropout, repeatable, and changes nothing for other code.
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


class Prepared(NamedTuple):
    """Data as a run takes them, and the names of the columns of each part, where it has some."""

    parts: Parts
    names: tuple[tuple[str, ...] | None, ...]


def prepare(data: Any, model: nn.Module, what: str, names: Sequence[tuple[str, ...] | None] = ()) -> Prepared:
    """Data of any kind that ``flowlab.tables`` takes, as checked tensors of the model's dtype and device.

    The first part is what a density is of. It stays float64 where rounding would lose something, and the model centers
    before it rounds. Whole numbers stay whole in a density of these, and in further parts, such as labels.

    Args:
        names: the columns that each part must have; a table is put in this order. Without them it is put in the order
            in which the model knows these columns, if it knows them.

    Raises:
        TypeError, ValueError: for what holds no numbers or has other columns, for no rows, for parts of different
            lengths, and for rows with NaN or infinity.
    """
    given = data if isinstance(data, tuple) else (data,)
    if not given:
        raise ValueError(f"fit expected the {what} as an array or a tuple of arrays, but got an empty tuple.")
    if len(given) > 1:
        check_order(given[0], given[1])
    known = (getattr(model, "columns", None), getattr(model, "context_columns", None))
    tables = []
    for i, part in enumerate(given):
        called = f"the {what}" if len(given) == 1 else f"part {i} of the {what}"
        table = as_table(part, called)
        if table.values.ndim == 1:
            table = table._replace(names=None)  # those of rows
        order = names[i] if i < len(names) else known[i] if i < len(known) else None
        if order and table.names and (names or sorted(order) == sorted(table.names)):
            table = Table(as_tensor(part, called, names=order), order)
        tables.append(table)
    ready: list[Tensor] = []
    for i, table in enumerate(tables):
        x = table.values.detach()
        if i == 0 and x.ndim == 1 and getattr(model, "event_shape", None) == (1,):
            x = x[:, None]  # one column: N samples of one number
        if x.ndim == 0 or len(x) == 0 or len(x) != len(ready[0] if ready else x):
            shapes = [tuple(t.values.shape) for t in tables]
            raise ValueError(f"fit expected the {what} as (N, ...) with one N of at least 1, but got {shapes}.")
        ready.append(_placed(table._replace(values=x), model, what, first=i == 0))
    return Prepared(tuple(ready), tuple(table.names for table in tables))


def _placed(table: Table, model: nn.Module, what: str, first: bool) -> Tensor:
    """One part of the data in the dtype in which the model takes it, and on its device."""
    x, like = table.values, next(model.parameters(), torch.zeros(()))
    if x.is_floating_point() or (first and getattr(model, "domain", "whole") == "real"):
        check_finite(table, f"the {what}")
        rounded = x.to(like.dtype)
        check_finite(table._replace(values=rounded), f"the {what} in {like.dtype}")
        keeps = first and x.dtype == torch.float64 and getattr(model, "centers_float64", False)
        x = x if keeps and like.device.type != "mps" and not torch.equal(rounded.double(), x) else rounded
    x = x.to(like.device)
    return x.clone() if x.is_inference() else x  # or it could take no part in a gradient
