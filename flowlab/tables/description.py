"""What a table holds that is no density, or that spoils one, each in a sentence that says what can be done.

A column that varies continuously has a density. One that is constant, takes few values or follows from the others has
none, and there the likelihood rises without end as a model sharpens, on held-out rows too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from flowlab.tables.door import Table, as_float64, as_rows, as_tensor, check_finite

NUMBERS = 500_000  # that are looked at; of a larger table, evenly spaced rows
MOST_COLUMNS = 200  # among which weighted sums are looked for


class TableWarning(UserWarning):
    """Data on which a likelihood means less than it seems."""


class Finding(NamedTuple):
    """One kind of trouble, the columns that have it, and a sentence with the choices."""

    kind: str
    columns: tuple[str, ...]
    sentence: str


class Column(NamedTuple):
    """One column in numbers."""

    name: str
    distinct: int
    least: float
    median: float
    most: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class Description:
    """What ``describe`` found: ``columns`` in numbers, and ``findings`` in sentences. It prints as a table."""

    rows: int
    columns: tuple[Column, ...]
    findings: tuple[Finding, ...]

    @property
    def kinds(self) -> set[str]:
        """The kinds of trouble that were found."""
        return {finding.kind for finding in self.findings}

    def __str__(self) -> str:
        width = max([6, *(len(c.name) for c in self.columns)])
        head = f"{'column':{width}} " + " ".join(f"{name:>10}" for name in Column._fields[1:])
        lines = [f"{self.rows} rows, {len(self.columns)} columns", head]
        lines += [f"{c.name:{width}} " + " ".join(f"{value:10.5g}" for value in c[1:]) for c in self.columns]
        return "\n".join([*lines, *(f"- {finding.sentence}" for finding in self.findings)])

    __repr__ = __str__


def describe(x: Any) -> Description:
    """Look at a table ``(N, D)`` before a density is fitted to it. ``print(flowlab.describe(x))`` says what was found.

    Kinds of findings: "header", "few rows", "constant", "counter", "coarse", "discrete", "repeated value", "bounded",
    "far off", "heavy tails", "repeated rows", "dependent". Of a table of more than half a million numbers, evenly
    spaced rows are looked at.

    Raises:
        TypeError, ValueError: as ``as_table``; for numbers that are NaN or infinite, naming the first row; for no rows.
    """
    values, names = as_rows(x, "the table")
    values = values.cpu()
    look = _Look(values[:: -(-values.numel() // NUMBERS)], names, len(values))
    findings = [Finding(kind, *found) for kind, find in FINDERS.items() for found in find(look)]
    return Description(len(values), look.columns, tuple(findings))


def warn(x: Any, stacklevel: int = 1) -> None:
    """One TableWarning with all that ``describe`` finds, but for heavy tails, which a flow can follow.

    ``stacklevel`` says whose line it points to: 1 for who calls this, 2 for who calls that one.
    """
    sentences = [finding.sentence for finding in describe(x).findings if finding.kind != "heavy tails"]
    if sentences:
        warnings.warn("\n- ".join(["flowlab.describe(x) finds:", *sentences]), TableWarning, stacklevel + 1)


def typical_deviation(x: Tensor) -> Tensor:
    """The standard deviation of a Gaussian with the same quartiles, ``(..., N, D)`` to ``(..., D)``.

    Far values do not move it. The quartiles of N(0, 1) are 1.349 = 2 Φ⁻¹(¾) apart.
    """
    s, N = x.sort(-2).values, x.shape[-2]
    return (s[..., (3 * N) // 4, :] - s[..., N // 4, :]) / 1.349


def spread(column: Any, *, generator: Generator | None = None) -> Tensor:
    """A discrete column ``(N,)`` made continuous, v + (u − ½) Δ with u uniform on [0, 1]: float64 ``(N,)``.

    Δ is the least distance of two values, so that no two of them mix, and log P(v) ≥ E_u log p(v + (u − ½) Δ) + log Δ.
    ``x["kind"] = flowlab.tables.spread(x["kind"])`` for a DataFrame, ``x[:, 3] = ...`` for an array.

    Raises:
        ValueError: for a column that has fewer than two values, more than one axis, or numbers that are not finite.
    """
    v = as_tensor(column, "the column")
    if v.ndim != 1:
        raise ValueError(f"spread expected one column (N,), but got {tuple(v.shape)}.")
    check_finite(Table(v, None), "the column")
    v = as_float64(v.detach())
    gaps = v.unique().diff()
    if not len(gaps):
        raise ValueError("spread expected a column of at least two values, but got a constant one: drop it.")
    u = torch.rand(v.shape, generator=generator, dtype=v.dtype, device=v.device)
    return v + (u - 0.5) * gaps.min()


# --- what is looked for: each yields the columns, and a sentence ------------------------------------------------------


class _Look:
    """A table and what is measured in each of its columns once."""

    def __init__(self, values: Tensor, names: tuple[str, ...] | None, rows: int) -> None:
        self.names, self.dtype, self.rows = names, values.dtype, rows
        self.x = x = as_float64(values)  # (N, D)
        self.N, self.D = x.shape
        self.sorted = s = x.sort(0).values
        self.distinct = (s.diff(dim=0) != 0).sum(0) + 1
        self.median, mean, std = s[self.N // 2], x.mean(0), x.std(0, correction=0)
        typical = typical_deviation(x)
        off = (x - self.median).abs() / torch.where(typical > 0, typical, torch.inf)
        self.farthest, self.far = off.max(0), (off > 10).sum(0)
        self.constant = (self.distinct == 1) | (std <= 1e-12 * mean.abs())  # but for rounding
        self.whole = (x == x.round()).all(0)
        self.coarse = torch.zeros_like(self.whole)
        if self.dtype.is_floating_point:
            self.coarse = ~self.constant & (torch.finfo(self.dtype).eps * mean.abs() > 0.01 * std)
        low, high = s[0], s[-1]
        steps = s.diff(dim=0) if self.N > 1 else torch.ones(1, self.D).to(s)
        even = steps.amax(0) - steps.amin(0) <= 1e-6 * steps.amax(0)
        self.step_of = torch.where(steps > 0, steps, torch.inf).amin(0)  # least distance of two values
        self.counter = even & (self.distinct == self.N) & (self.N > 4)
        few = torch.where(self.whole, min(self.N / 3, 100), min(self.N / 5, 50))
        self.discrete = ((self.distinct == 2) & (self.N > 2)) | (self.distinct <= few)
        self.discrete &= ~(self.constant | self.coarse)
        self.rest = ~(self.constant | self.coarse | self.counter | self.discrete)
        labels = names or tuple(map(str, range(self.D)))
        numbers = torch.stack((self.distinct, low, self.median, high, mean, std), 1).tolist()
        self.columns = tuple(Column(name, int(n), *others) for name, (n, *others) in zip(labels, numbers, strict=True))

    def called(self, which: Tensor | Sequence[int]) -> tuple[str, ...]:
        """The names of columns, by a mask ``(D,)`` or their numbers."""
        numbers = which.nonzero().flatten().tolist() if isinstance(which, Tensor) else which
        return tuple(self.columns[i].name for i in numbers)

    def words(self, which: Tensor | Sequence[int]) -> str:
        """The first few columns in words, and how many more there are: "column 'a'", "columns 'a' and 'b'"."""
        names = [repr(name) if self.names else name for name in self.called(which)]
        if len(names) == 1:
            return f"column {names[0]}"
        shown, last = (names[:5], f"{len(names) - 5} more") if len(names) > 6 else (names[:-1], names[-1])
        return f"columns {', '.join(shown)} and {last}"


Found = Iterator[tuple[tuple[str, ...], str]]


def _header(look: _Look) -> Found:
    if look.names and all(map(_is_number, look.names)):
        yield (
            look.names,
            f"All columns have numbers as names ({look.words(range(look.D))}): if the file has no header, its first "
            f"row was taken for one. Read it with header=None.",
        )


def _few_rows(look: _Look) -> Found:
    if look.rows <= look.D + 1:
        rows = "There is 1 row" if look.rows == 1 else f"There are {look.rows} rows"
        yield (
            (),
            f"{rows} in {look.D} dimensions, which does not determine even one Gaussian. Gather more rows, or drop "
            f"columns.",
        )


def _constant(look: _Look) -> Found:
    if bool(look.constant.any()):
        yield (
            look.called(look.constant),
            f"Constant: {look.words(look.constant)}. What never varies has no density, and the likelihood of a new row "
            f"that differs there says nothing. Drop it.",
        )


def _counter(look: _Look) -> Found:
    if bool(look.counter.any()):
        yield (
            look.called(look.counter),
            f"Counting the rows, in equal steps: {look.words(look.counter)}. Nothing can be learned from it. Drop it.",
        )


def _coarse(look: _Look) -> Found:
    if bool(look.coarse.any()):
        yield (
            look.called(look.coarse),
            f"Rounded: {look.words(look.coarse)}. Numbers of {look.dtype} so far from 0 have steps wider than a "
            f"hundredth of the deviation. Give them in float64.",
        )


def _discrete(look: _Look) -> Found:
    if bool(look.discrete.any()):
        low, high = (int(end) for end in look.distinct[look.discrete].aminmax())
        yield (
            look.called(look.discrete),
            f"Discrete: {look.words(look.discrete)}, with {low if low == high else f'{low} to {high}'} values in "
            f"{look.N} rows. A value has a probability and no density, and the likelihood can rise without end. Make "
            f"it the condition, fit(flow, (x, c)), drop it, or spread it, flowlab.tables.spread(column).",
        )


def _repeated_value(look: _Look) -> Found:
    found = {}
    for i in (look.rest & (look.distinct < look.N)).nonzero().flatten().tolist():
        values, counts = look.sorted[:, i].unique_consecutive(return_counts=True)
        top, usual = int(counts.max()), int(counts.sort().values[(3 * len(counts)) // 4])
        if top >= max(5, 0.02 * look.N, 8 * usual):
            found[i] = f"{float(values[counts.argmax()]):g} in {100 * top / look.N:.0f} %"
    if found:
        where = "; ".join(list(found.values())[:6])
        yield (
            look.called(list(found)),
            f"One value in many rows: {look.words(list(found))} ({where}). A value that repeats has a probability and "
            f"no density. Model these rows by themselves or, where it stands for a missing value, remove them.",
        )


def _bounded(look: _Look) -> Found:
    """More rows within a fortieth of the range from either end than a uniform column has, and more the nearer."""
    low, high = look.sorted[0], look.sorted[-1]
    for i in look.rest.nonzero().flatten().tolist():
        width = float(high[i] - low[i]) / 40
        ends = [side[side <= width] for side in (look.x[:, i] - low[i], high[i] - look.x[:, i])]
        usual = look.N / 40  # of a uniform column
        many = all(len(end) > usual + 2.5 * usual**0.5 for end in ends)
        if many and all(float(end.median()) < 0.5 * width < float(end.max()) for end in ends):
            place = 10 ** (math.floor(math.log10(40 * width)) - 1)
            a, b = math.floor(float(low[i]) / place) * place, math.ceil(float(high[i]) / place) * place
            name = repr(look.columns[i].name) if look.names else i
            yield (
                look.called([i]),
                f"Bounded: {look.words([i])}, with many rows near both ends, {float(low[i]):.6g} and "
                f"{float(high[i]):.6g}. A flow reaches beyond ends that nobody names. Name those that it cannot pass, "
                f"such as flow_for(x, bounds={{{name}: ({a:.6g}, {b:.6g})}}).",
            )


def _far_off(look: _Look) -> Found:
    off, row = look.farthest
    found = look.rest & (off > 50) & (look.far <= max(3, 0.005 * look.N))
    for i in found.nonzero().flatten().tolist():
        yield (
            look.called([i]),
            f"Far off: {float(look.x[row[i], i]):g} in {look.words([i])}, {float(off[i]):.3g} typical deviations from "
            f"the median. One such row moves mean and scale. Correct or remove it, unless it is real.",
        )


def _heavy_tails(look: _Look) -> Found:
    found = look.rest & (look.far > max(3, 0.002 * look.N))
    if bool(found.any()):
        yield (
            look.called(found),
            f"Heavy tails: {look.words(found)}, with values more than 10 typical deviations from the median. Of "
            f"positive numbers, the logarithm is easier to fit.",
        )


def _repeated_rows(look: _Look) -> Found:
    direction = torch.randn(look.D, generator=Generator().manual_seed(0), dtype=torch.float64)
    again = look.N - len(((look.x - look.median) @ direction).unique())  # equal rows have equal products
    if look.D == 1 or again < max(2, 0.01 * look.N):
        return
    # Rounded numbers agree by chance: with independent columns, so many of all pairs of rows.
    by_chance = look.N * (look.N - 1) / 2
    for column in look.sorted.T:
        counts = column.unique_consecutive(return_counts=True)[1].double()
        by_chance *= float((counts * (counts - 1)).sum()) / (look.N * (look.N - 1))
    if again > 3 * by_chance:
        yield (
            (),
            f"Repeated: {again} of {look.N} rows are copies of another. A copy counts twice, and a held-out copy of a "
            f"training row hides overfitting. Keep one of each, as x.drop_duplicates() does.",
        )


def _dependent(look: _Look) -> Found:
    """Gram and Schmidt: what is left of a column when its part in the span of the earlier ones is taken away."""
    vary = (~look.constant).nonzero().flatten().tolist()
    if not 1 < len(vary) <= MOST_COLUMNS or len(vary) + 1 >= look.N:
        return
    z = (look.x - look.x.mean(0)) / look.x.std(0, correction=0)
    unit = z[:, :0]
    kept: list[int] = []
    for i in vary:
        rest = z[:, i] - unit @ (unit.T @ z[:, i])
        rest = rest - unit @ (unit.T @ rest)  # once more, for what rounding left
        # Of rounded columns a sum leaves what rounding did: less than the step from one number to the next.
        rounding = min(0.02, float(look.step_of[i]) / float(look.x[:, i].std(correction=0)))
        if rest.norm() > max(1e-3, rounding) * z[:, i].norm():
            unit, kept = torch.cat((unit, (rest / rest.norm())[:, None]), 1), [*kept, i]
            continue
        weight = torch.linalg.lstsq(z[:, kept], z[:, i : i + 1]).solution[:, 0].abs()
        parts = [j for j, w in zip(kept, weight.tolist(), strict=True) if w > 0.01]
        yield (
            look.called([i, *parts]),
            f"Dependent: {look.words([i])} is a weighted sum of {look.words(parts)}, but for rounding or a thousandth "
            f"of its deviation. The rows lie on a plane, where the density is infinite or nearly so. Drop one of these "
            f"columns.",
        )


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


FINDERS: dict[str, Callable[[_Look], Found]] = {
    "header": _header,
    "few rows": _few_rows,
    "constant": _constant,
    "counter": _counter,
    "coarse": _coarse,
    "discrete": _discrete,
    "repeated value": _repeated_value,
    "bounded": _bounded,
    "far off": _far_off,
    "heavy tails": _heavy_tails,
    "repeated rows": _repeated_rows,
    "dependent": _dependent,
}
