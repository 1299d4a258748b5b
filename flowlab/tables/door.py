"""The door: what people keep numbers in becomes one tensor, or is refused in a sentence that names the way out.

Arrays of any layout and byte order, lists, DataFrames, records: numbers keep their precision, and columns their names.
Nothing is guessed. Text, dates and categories have many readings as numbers, so a person has to choose one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST = 1e150  # in float64: the squares of larger numbers overflow, and so does their variance


class Table(NamedTuple):
    """The numbers of a table and the names of its columns, where it has names."""

    values: Tensor  # (..., D)
    names: tuple[str, ...] | None  # D of them


def as_tensor(x: Any, what: str = "x", *, names: Sequence[str] | None = None) -> Tensor:
    """The numbers in ``x`` as a tensor of the shape and the precision that they have. A tensor comes back as it is.

    With ``names``, a table whose columns have names is put in their order; ValueError when it has other columns.
    """
    values, own = as_table(x, what)
    if names is None or own is None or own == tuple(names):
        return values
    if len(names) == 1 and values.ndim == 1 and names[0] not in own:
        return values  # one column, whose labels are those of its rows
    if sorted(own) != sorted(names) or len(set(names)) < len(names):
        raise ValueError(
            f"Expected {what} with the columns {_listed(names)}, but got {_listed(own)}: choose and order them, "
            f"x[{list(names)}]."
        )
    return values[..., [own.index(name) for name in names]]


def as_float64(x: Tensor) -> Tensor:
    """x of any shape ``(...)`` in float64; on the CPU where its device, one of Apple's GPUs, has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def as_table(x: Any, what: str = "x") -> Table:
    """The numbers in ``x`` and the names of its columns. ``what`` names ``x`` in messages.

    Raises:
        TypeError: for what holds no table of numbers, such as a path, a DataLoader or a sparse matrix.
        ValueError: for a table in which something is no number, naming the column; for rows of unequal length.
    """
    if isinstance(x, Table):
        return x
    if isinstance(x, Tensor):
        return Table(_strided(x, what), None)
    if refused := _way_out(x):
        raise TypeError(f"Expected a table of numbers as {what}, but got {_kind(x)}: {refused}.")
    if hasattr(x, "__cuda_array_interface__"):
        return Table(_strided(torch.as_tensor(x), what), None)
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        return Table(_strided(torch.from_dlpack(x), what), None)
    columns = _columns(x, what)
    if columns is not None:
        arrays = [_numbers(column, f"{what}, column {name!r}") for name, column in columns]
        lengths = {name: array.shape for (name, _), array in zip(columns, arrays, strict=True)}
        if wide := next((name for name, shape in lengths.items() if len(shape) > 1), None):
            raise ValueError(
                f"Expected one number in each row of a column of {what}, but got column {wide!r} of the shape "
                f"{lengths[wide]}: give each of its numbers a column of its own."
            )
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"Expected columns of one length as {what}, but got the shapes {lengths}: fill or cut them."
            )
        dtype = np.result_type(*arrays) if arrays else np.float64
        table = np.stack([a.astype(dtype) for a in arrays], -1) if arrays else np.empty((0, 0))
        return Table(_from_numpy(table), None if _is_count(columns) else tuple(_name(name) for name, _ in columns))
    if _holds(x, Tensor):
        return Table(_stacked(x, what), None)
    return Table(_from_numpy(_numbers(x, what)), _labels(x))


def as_rows(x: Any, what: str = "x") -> Table:
    """A table of at least one row and column, ``(N, D)``, of finite numbers: one column ``(N,)`` is ``(N, 1)``.

    Raises:
        TypeError, ValueError: as ``as_table``; for another shape; for NaN or infinity, naming the first row and column.
    """
    values, names = as_table(x, what)
    values = values.detach()
    if values.ndim == 1:
        values, names = values.unsqueeze(-1), None
    if values.ndim != 2 or not values.numel():
        raise ValueError(
            f"Expected {what} as a table (N, D) of at least one row and column, but got {tuple(values.shape)}."
        )
    table = Table(values, names)
    check_finite(table, what)
    return table


def check_order(x: Any, context: Any) -> None:
    """Raise ValueError where x and its context name the same rows, by their indices, in different orders."""
    a: Any = getattr(x, "index", None)
    b: Any = getattr(context, "index", None)
    if not (hasattr(a, "equals") and hasattr(b, "equals")) or len(a) != len(b) or a.equals(b):
        return
    if a.is_unique and b.is_unique and len(a.difference(b)) == 0:
        raise ValueError(
            "Expected x and the context with their rows in one order, but got the same index in two: put them in one, "
            "context.loc[x.index]."
        )


def check_finite(table: Table, what: str = "x") -> None:
    """Raise ValueError, naming the first row and column, where numbers ``(N, ...)`` are NaN or infinite."""
    values, names = table
    if not values.is_floating_point():
        return
    if values.dtype == torch.float64 and values.numel() and bool(values.abs().amax() > LARGEST):  # but not if it is NaN
        finite = values[values.isfinite()]
        if bool((finite.abs() > LARGEST).any()):
            raise ValueError(
                f"Expected numbers up to {LARGEST:g} as {what}, whose squares can be added, but got "
                f"{float(finite[finite.abs().argmax()]):g}: divide the column by a power of ten."
            )
    if bool(values.sum().isfinite()):  # much faster; a sum that overflows is looked at below
        return
    bad = ~values.isfinite()
    rows = bad.flatten(1).any(1) if values.ndim > 1 else bad
    if not bool(rows.any()):
        return
    row = int(rows.nonzero()[0])
    where, found = f"row {row}", values[row].flatten()[:6].tolist()
    if values.ndim == 2:
        column = int(bad[row].nonzero()[0])
        where += f", column {names[column] if names else column!r}"
    header = " Is row 0 a header? Skip it when you read the file." if row == 0 and bool(bad[0].all()) else ""
    raise ValueError(
        f"Expected finite numbers as {what}, but got NaN or infinity in {int(rows.sum())} of {len(values)} rows, the "
        f"first in {where}: {found}. Remove or fill these rows.{header}"
    )


def _way_out(x: Any) -> str:
    """What to do with a thing that holds no table by itself; empty for what may."""
    if x is None:
        return "give an array (N, D), a DataFrame or a list of rows"
    if isinstance(x, str) and x.isidentifier():
        return f"give the numbers themselves, such as the column x[{x!r}], and not a name"
    if isinstance(x, (str, bytes, os.PathLike)) or hasattr(x, "readline"):
        return "read the file first, by pandas.read_csv(path) or numpy.loadtxt(path, delimiter=',')"
    if type(x).__name__ == "LazyFrame":  # polars
        return "compute it first with x.collect()"
    if (hasattr(x, "__arrow_c_stream__") or hasattr(x, "__dataframe__")) and not (
        hasattr(x, "__array__") or hasattr(x, "items") or hasattr(x, "to_pandas")
    ):
        return "make it a DataFrame first, by pandas.DataFrame.from_arrow(x)"
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        return "make it dense with x.toarray()"
    if any(base.__module__.startswith("torch.utils.data") for base in type(x).__mro__):
        dataset = "x.dataset" if hasattr(x, "batch_size") else "x"
        return f"give the tensors in it, such as {dataset}.tensors[0], or torch.stack([row for row in {dataset}])"
    if isinstance(x, Mapping) and "data" in x and any(np.ndim(v) > 1 for v in x.values()):
        return "give the table in it, x['data']"
    if isinstance(x, Mapping) and any(np.ndim(v) > 1 for v in x.values()):
        return f"give one of the arrays in it, such as x[{next(iter(x))!r}]"
    if isinstance(x, (set, frozenset)):
        return "a set has no order: give a list of rows"
    if callable(x):
        return "give what it returns"
    if hasattr(x, "__next__") or (isinstance(x, Collection) and not hasattr(x, "__getitem__")):
        return "collect its rows first with list(x)"
    return ""


def _columns(x: Any, what: str) -> list[tuple[Any, Any]] | None:
    """Names and columns of what has columns; None for what has none."""
    if hasattr(x, "iter_columns"):  # polars
        return [(column.name, column) for column in x.iter_columns()]
    if hasattr(x, "column_names") and hasattr(x, "to_pandas"):  # pyarrow, Hugging Face's datasets
        return list(x.to_pandas().items())
    if isinstance(x, Mapping) or (hasattr(x, "columns") and hasattr(x, "items")):  # a dict, pandas, astropy
        return list(x.items())
    if isinstance(x, np.ndarray) and x.dtype.names is not None:
        return [(name, x[name]) for name in x.dtype.names]
    if (record := _record(x)) is not None:
        return list(record.items())
    if isinstance(x, (list, tuple)) and x and _record(x[0]) is not None:
        rows = [_record(row) or {} for row in x]
        names = list(rows[0])
        for n, row in enumerate(rows):
            if set(row) != set(names):
                raise ValueError(
                    f"Expected rows with the keys {names} as {what}, but got {list(row)} in row {n}: give all rows "
                    f"the same keys."
                )
        return [(name, [row[name] for row in rows]) for name in names]
    return None


def _record(row: Any) -> Mapping[Any, Any] | None:
    """One row whose numbers have names, as a dict; None for a row without names."""
    if isinstance(row, Mapping):
        return row
    if isinstance(row, tuple) and hasattr(row, "_asdict"):
        return row._asdict()
    if isinstance(row, np.void) and row.dtype.names is not None:
        return {name: row[name] for name in row.dtype.names}
    return dict(row.items()) if hasattr(row, "items") and _labels(row) is not None else None


def _numbers(x: Any, what: str) -> np.ndarray:
    """An array of numbers, or a sentence about what is in their place."""
    kind = str(getattr(x, "dtype", ""))
    if kind in ("category", "Categorical") or kind.startswith("Enum"):
        raise ValueError(
            f"Expected numbers as {what}, but got categories: keep the rows of one category, make each category a "
            f"column of 0 and 1 with pandas.get_dummies, or number them and give them as context."
        )
    if isinstance(x, Tensor):
        x = _strided(x, what).detach().cpu()
        x = x.float() if x.is_floating_point() and x.element_size() < 4 else x  # numpy has no bfloat16
    try:
        if _holds(x, np.ma.MaskedArray):
            x = _with_masks(x)
        array = x if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
    except ValueError:
        raise ValueError(_ragged(x, what)) from None
    except TypeError as error:
        raise TypeError(f"Expected a table of numbers as {what}, but got {_kind(x)}: {error}.") from None
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            first = np.argwhere(np.ma.getmaskarray(array))[0].tolist()
            raise ValueError(
                f"Expected numbers as {what}, but got {np.ma.count_masked(array)} masked ones, the first at {first}: "
                f"leave out these rows, x[~x.mask.any(1)], or fill them, x.filled(value)."
            )
        array = array.data
    if array.dtype == object:
        if array.ndim == 0 and not (_is_missing(array[()]) or isinstance(array[()], Number)):
            raise TypeError(
                f"Expected a table of numbers as {what}, but got {_kind(x)}, {x!r:.60}: give an array (N, D), a "
                f"DataFrame or a list of rows."
            )
        array = _objects(array, what)
    if array.dtype.kind in "Mm":
        raise ValueError(
            f"Expected numbers as {what}, but got dates or times ({array.dtype}): make them numbers, such as seconds "
            f"since the first, (t - t.min()) / numpy.timedelta64(1, 's')."
        )
    if array.dtype.kind in "UST":
        raise ValueError(f"Expected numbers as {what}, but got text, such as {_text(array)}.")
    if array.dtype.kind == "V":
        raise ValueError(f"Expected numbers as {what}, but got records, {array.dtype}: give each field as a column.")
    if array.dtype.kind == "c":
        raise ValueError(
            f"Expected real numbers as {what}, but got {array.dtype}: give real and imaginary part as two columns."
        )
    return array


def _objects(array: np.ndarray, what: str) -> np.ndarray:
    """Python objects that are numbers, or missing (then NaN), as float64; other kinds as numpy would keep them."""
    for value in array.ravel():
        if isinstance(value, (str, bytes)):
            return np.array([str(v) for v in array.ravel() if not _is_missing(v) and v == v])
        if not (_is_missing(value) or (isinstance(value, (Number, np.bool_)) and not isinstance(value, complex))):
            if type(value).__name__ in ("Timestamp", "datetime", "date", "time", "Timedelta", "timedelta", "Period"):
                return np.empty(0, "M8[s]")
            raise ValueError(
                f"Expected numbers as {what}, but got {_kind(value)}, {value!r:.60}: make it numbers, one in a "
                f"column, or drop it."
            )
    try:
        return np.array([np.nan if _is_missing(v) else float(v) for v in array.ravel()]).reshape(array.shape)
    except OverflowError:
        raise ValueError(
            f"Expected numbers up to {LARGEST:g} as {what}, but got one that no float holds: divide them by a power of "
            f"ten."
        ) from None


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _text(array: np.ndarray) -> str:
    """The first text that is no number, and what can be done about it."""
    values = [v.decode("latin1") if isinstance(v, bytes) else str(v) for v in array.ravel().tolist()]
    words = [v for v in values if not _reads_as_number(v)]
    if not words:
        return f"{values[0]!r}: convert it with x.astype(float)"
    if array.ndim == 2 and len(array) > 1 and all(map(_reads_as_number, values[array.shape[1] :])):
        return f"{words[0]!r}, in row 0 alone: it is a header, leave it out with x[1:]"
    if all(re.fullmatch(r"\s*[-+]?[\d.]*,\d+\s*", v) for v in words):
        return f"{words[0]!r}, with a decimal comma: read the file with pandas.read_csv(path, decimal=',')"
    if all(_reads_as_number(re.sub(r"[\s,_'%$€£¥]", "", v)) for v in words):
        return f"{words[0]!r}: remove the signs that are no part of a number, then convert it with x.astype(float)"
    if 2 * len(words) <= len(values):
        return (
            f"{words[0]!r}, in {len(words)} of {len(values)} places, and numbers in the others: make it missing with "
            f"pandas.to_numeric(x, errors='coerce'), then remove or fill it"
        )
    return f"{words[0]!r}: drop it, or make each value a column of 0 and 1 with pandas.get_dummies"


def _reads_as_number(text: Any) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_numpy(array: np.ndarray) -> Tensor:
    """The same numbers in memory that torch can read and write."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size > 8:
        array = array.astype(np.float64)
    elif kind == "u" and size > 1:
        fits = size < 8 or not array.size or array.max() <= np.iinfo(np.int64).max
        array = array.astype(np.int64 if fits else np.float64)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(np.require(array, requirements=["C", "W", "A"]))


def _strided(x: Tensor, what: str) -> Tensor:
    if x.is_nested or x.layout != torch.strided:
        kind, choice = ("nested", "to_padded_tensor(0.0)") if x.is_nested else ("sparse", "to_dense()")
        raise TypeError(f"Expected a table of numbers as {what}, but got a {kind} tensor: use x.{choice}.")
    if x.is_quantized:
        raise TypeError(f"Expected a table of numbers as {what}, but got a quantized tensor: use x.dequantize().")
    if x.is_floating_point() and x.element_size() < 2:
        return x.float()  # which 8 bits fit into; there is no arithmetic with these
    if x.is_complex():
        raise ValueError(f"Expected real numbers as {what}, but got {x.dtype}: use torch.view_as_real(x).flatten(-2).")
    return x


def _holds(x: Any, kind: type) -> bool:
    """Whether a list of numbers, or of such lists, has one of this kind in it."""
    return isinstance(x, (list, tuple)) and any(isinstance(row, kind) or _holds(row, kind) for row in x)


def _with_masks(x: Any) -> np.ma.MaskedArray:
    """A list with masked arrays in it as one: numpy itself would forget which numbers are masked."""
    return np.ma.stack([_with_masks(row) if isinstance(row, (list, tuple)) else np.ma.asarray(row) for row in x])


def _stacked(x: Sequence[Any], what: str) -> Tensor:
    rows = [as_tensor(row, what) for row in x]
    if len({row.shape for row in rows}) > 1:
        raise ValueError(_ragged(rows, what))
    return torch.stack(rows)


def _ragged(x: Any, what: str) -> str:
    """The sentence for rows of unequal length."""
    shapes = [tuple(getattr(part, "shape", ())) for part in x]
    if any(len(shape) > 1 for shape in shapes):
        return (
            f"Expected one table as {what}, but got a {type(x).__name__} of the shapes {shapes}: a table and its "
            f"context are fit(flow, (x, c)) and flow_for(x, c)."
        )
    sizes = [len(row) if hasattr(row, "__len__") else 1 for row in x]
    odd = next((n for n, size in enumerate(sizes) if size != sizes[0]), None)
    if odd is None:
        return f"Expected rows of one shape as {what}, but they differ: make them an array (N, D)."
    return (
        f"Expected rows of one length as {what}, but row 0 has {sizes[0]} numbers and row {odd} has {sizes[odd]}: fill "
        f"or cut them."
    )


def _labels(x: Any) -> tuple[str, ...] | None:
    """What the index of a Series says: a row of a DataFrame is labelled by its columns."""
    index = getattr(x, "index", None)
    if index is None or callable(index) or not all(isinstance(label, str) for label in index):
        return None
    return tuple(index)


def _is_count(columns: list[tuple[Any, Any]]) -> bool:
    """Whether the columns are only numbered: a DataFrame that was given no names."""
    return [name for name, _ in columns] == list(range(len(columns)))


def _name(name: Any) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _kind(x: Any) -> str:
    return f"a {type(x).__name__}"
