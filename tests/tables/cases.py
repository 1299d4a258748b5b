"""What people keep numbers in, and what may be odd about a table: the cases of the tests, and of two tables in README.

python tests/tables/cases.py --write     # puts the tables into README.md
"""

import argparse
import datetime
import decimal
import io
import warnings
from collections import deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import scipy.sparse
import torch
from sklearn.datasets import load_wine

from flowlab.tables import as_table, describe

README = Path(__file__).resolve().parent.parent.parent / "README.md"
MARKS = "<!-- {name}: written by python tests/tables/cases.py --write -->", "<!-- end of {name} -->"

NUMBERS = [[1.0, 4.0], [2.0, 5.0], [3.0, 7.0]]
ARRAY = np.array(NUMBERS)
FRAME = pd.DataFrame(ARRAY, columns=["a", "b"])
Point = namedtuple("Point", "a b")


@dataclass(frozen=True)
class Taken:
    """A thing that holds a table, the numbers in it, and the names of its columns."""

    name: str
    make: Callable[[], Any]
    numbers: Any = None  # NUMBERS unless given
    names: tuple[str, ...] | None = None
    dtype: torch.dtype = torch.float64


@dataclass(frozen=True)
class Refused:
    """A thing that holds none, and the way out that the error must name."""

    name: str
    make: Callable[[], Any]
    way_out: str
    names: str = ""  # what else it must name: the column, the row


@dataclass(frozen=True)
class Odd:
    """A table on which a likelihood means less than it seems, the kind of trouble, and the columns that have it."""

    name: str
    make: Callable[[np.random.Generator], Any]
    kind: str
    columns: tuple[str, ...] = ()


def read_only() -> np.ndarray:
    x = ARRAY.copy()
    x.flags.writeable = False
    return x


def strided() -> np.ndarray:
    return np.repeat(np.repeat(ARRAY, 2, 0), 3, 1)[::2, ::3]


def masked(mask: bool) -> np.ma.MaskedArray:
    return np.ma.array(ARRAY, mask=[[False, False], [False, mask], [False, False]])


def loader() -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(NUMBERS)))


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


class Arrow:
    """Names its columns and turns into a DataFrame, as a pyarrow Table or one of Hugging Face's datasets does."""

    column_names = ("a", "b")

    def to_pandas(self) -> pd.DataFrame:
        return FRAME


class DLPack:
    """Hands its memory to other libraries, and is no numpy array."""

    def __dlpack__(self, **settings: Any) -> Any:
        return torch.tensor(NUMBERS, dtype=torch.float64).__dlpack__()

    def __dlpack_device__(self) -> Any:
        return torch.zeros(1).__dlpack_device__()


class Stream:
    """Hands out columns of arrow and has no other way to be read, as DuckDB's relations."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> None: ...


AB = ("a", "b")
TAKEN = [
    Taken("numpy array", lambda: ARRAY),
    Taken("numpy array, float32", lambda: ARRAY.astype(np.float32), dtype=torch.float32),
    Taken("numpy array, float16", lambda: ARRAY.astype(np.float16), dtype=torch.float16),
    Taken("numpy array, long double", lambda: ARRAY.astype(np.longdouble)),
    Taken("numpy array of whole numbers", lambda: ARRAY.astype(np.int32), dtype=torch.int32),
    Taken("numpy array, uint8", lambda: ARRAY.astype(np.uint8), dtype=torch.uint8),
    Taken("numpy array, uint16 or uint64", lambda: ARRAY.astype(np.uint16), dtype=torch.int64),
    Taken("numpy array of truth values", lambda: ARRAY > 2, ARRAY > 2, dtype=torch.bool),
    Taken("numpy array in Fortran's order", lambda: np.asfortranarray(ARRAY)),
    Taken("numpy array read backward, `x[::-1]`", lambda: ARRAY[::-1], NUMBERS[::-1]),
    Taken("numpy array with gaps, `x[::2, ::3]`", strided),
    Taken("numpy array of another byte order (FITS)", lambda: ARRAY.astype(">f4"), dtype=torch.float32),
    Taken("numpy array, read-only or mapped from a file", read_only),
    Taken("numpy array of one value for all, `broadcast_to`", lambda: np.broadcast_to(2.0, (3, 2)), [[2.0, 2.0]] * 3),
    Taken(
        "numpy array of Python's numbers, some missing",
        lambda: np.array([[1, None], [decimal.Decimal(2), 3]]),
        [[1.0, np.nan], [2.0, 3.0]],
    ),
    Taken("numpy masked array, nothing masked", lambda: masked(False)),
    Taken("numpy structured or record array", lambda: FRAME.to_records(index=False), names=AB),
    Taken("pandas DataFrame", lambda: FRAME, names=AB),
    Taken("pandas DataFrame without names", lambda: pd.DataFrame(ARRAY)),
    Taken(
        "pandas DataFrame of several kinds of numbers",
        lambda: frame(a=pd.array([1, None], "Int64"), b=[True, False]),
        [[1.0, 1.0], [np.nan, 0.0]],
        AB,
    ),
    Taken("pandas Series: a row", lambda: FRAME.iloc[0], NUMBERS[0], AB),
    Taken("pandas Series: a column", lambda: FRAME["a"], [1.0, 2.0, 3.0]),
    Taken("polars DataFrame", lambda: polars.DataFrame(FRAME.to_dict("list")), names=AB),
    Taken("pyarrow Table, Hugging Face's dataset", Arrow, names=AB),
    Taken("list of rows", lambda: NUMBERS),
    Taken("list of tuples or arrays", lambda: [tuple(NUMBERS[0]), np.array(NUMBERS[1]), NUMBERS[2]]),
    Taken("list of named tuples", lambda: [Point(*row) for row in NUMBERS], names=AB),
    Taken("list of rows of a DataFrame", lambda: [row for _, row in FRAME.iterrows()], names=AB),
    Taken("list of structured records", lambda: list(FRAME.to_records(index=False)), names=AB),
    Taken(
        "list of named rows in several orders",
        lambda: [FRAME.iloc[0], FRAME.iloc[1][["b", "a"]], Point(*NUMBERS[2])],
        names=AB,
    ),
    Taken("list of tensors", lambda: [torch.tensor(row) for row in NUMBERS], dtype=torch.float32),
    Taken("list of dicts: records", lambda: [{"a": a, "b": b} for a, b in NUMBERS], names=AB),
    Taken("dict of columns", lambda: FRAME.to_dict("list"), names=AB),
    Taken(
        "dict of tensors, with a graph or in half precision",
        lambda: {"a": torch.tensor([1.0, 2.0, 3.0], requires_grad=True), "b": torch.tensor([4, 5, 7]).bfloat16()},
        names=AB,
        dtype=torch.float32,
    ),
    Taken("one row as a dict, a named tuple or a record", lambda: {"a": 1.0, "b": 4}, NUMBERS[0], AB),
    Taken("one named tuple", lambda: Point(1.0, 4), NUMBERS[0], AB),
    Taken("one structured record", lambda: FRAME.to_records(index=False)[0], NUMBERS[0], AB),
    Taken("deque, range, array.array, memoryview", lambda: deque([1, 2]), [1, 2], dtype=torch.int64),
    Taken("list of lists of tensors", lambda: [list(row) for row in torch.tensor(NUMBERS)], dtype=torch.float32),
    Taken("array of another library that has `__dlpack__`", DLPack, dtype=torch.float64),
    Taken("one number", lambda: 2.5, 2.5),
    Taken("no rows", lambda: np.empty((0, 2)), np.empty((0, 2))),
    Taken("tensor, any floating-point or whole dtype", lambda: torch.tensor(NUMBERS), dtype=torch.float32),
    Taken("tensor with a graph", lambda: torch.tensor(NUMBERS, requires_grad=True) * 1, dtype=torch.float32),
]

REFUSED = [
    Refused("path of a file", lambda: "my.csv", "read the file first, by pandas.read_csv(path)"),
    Refused("open file", lambda: io.StringIO("1,2"), "read the file first"),
    Refused("name of a column", lambda: "kind", "give the numbers themselves, such as the column x['kind']"),
    Refused("stream of arrow's", Stream, "make it a DataFrame first, by pandas.DataFrame.from_arrow(x)"),
    Refused("any other object", lambda: FRAME.style, "give an array (N, D), a DataFrame or a list of rows"),
    Refused(
        "table and its context in a list",
        lambda: [ARRAY, ARRAY[:, 0]],
        "a table and its context are fit(flow, (x, c)) and flow_for(x, c)",
        "got a list of the shapes [(3, 2), (3,)]",
    ),
    Refused("nothing", lambda: None, "give an array (N, D), a DataFrame or a list of rows"),
    Refused("generator, map or zip", lambda: (row for row in NUMBERS), "collect its rows first with list(x)"),
    Refused("values of a dict", {"a": 1}.values, "collect its rows first with list(x)"),
    Refused(
        "polars LazyFrame", lambda: polars.DataFrame(FRAME.to_dict("list")).lazy(), "compute it first with x.collect()"
    ),
    Refused("groups of a DataFrame", lambda: FRAME.groupby("a"), "make them an array (N, D)"),
    Refused("set", lambda: {1.0, 2.0}, "a set has no order: give a list of rows"),
    Refused("torch Dataset", lambda: loader().dataset, "give the tensors in it, such as x.tensors[0]"),
    Refused("torch DataLoader", loader, "give the tensors in it, such as x.dataset.tensors[0]"),
    Refused("scikit-learn's Bunch", load_wine, "give the table in it, x['data']"),
    Refused(
        "dict of arrays, or an npz file", lambda: {"train": ARRAY}, "give one of the arrays in it, such as x['train']"
    ),
    Refused("function or model", lambda: torch.nn.Linear(2, 2), "give what it returns"),
    Refused("scipy sparse matrix", lambda: scipy.sparse.csr_matrix(ARRAY), "make it dense with x.toarray()"),
    Refused("sparse tensor", lambda: torch.tensor(NUMBERS).to_sparse(), "use x.to_dense()"),
    Refused(
        "numpy masked array, something masked",
        lambda: masked(True),
        "leave out these rows, x[~x.mask.any(1)]",
        "got 1 masked ones, the first at [1, 1]",
    ),
    Refused(
        "list with a masked array in it",
        lambda: [np.ma.array([1.0, 2.0], mask=[False, True]), [3.0, 4.0]],
        "leave out these rows",
        "got 1 masked ones, the first at [0, 1]",
    ),
    Refused(
        "list with numpy.ma.masked in it",
        lambda: [[1.0, np.ma.masked], [3.0, 4.0]],
        "leave out these rows",
        "the first at [0, 1]",
    ),
    Refused("rows of unequal length", lambda: [[1, 2], [3]], "fill or cut them", "row 0 has 2 numbers and row 1 has 1"),
    Refused("tensors of unequal length", lambda: [torch.ones(2), torch.ones(3)], "fill or cut them", "row 1 has 3"),
    Refused("columns of unequal length", lambda: {"a": [1, 2], "b": [3]}, "fill or cut them", "'b': (1,)"),
    Refused(
        "records with other keys", lambda: [{"a": 1}, {"b": 1}], "give all rows the same keys", "got ['b'] in row 1"
    ),
    Refused(
        "column of text",
        lambda: frame(a=[1.0, 2.0], kind=["red", "blue"]),
        "drop it, or make each value a column of 0 and 1 with pandas.get_dummies",
        "column 'kind', but got text, such as 'red'",
    ),
    Refused("numbers as text", lambda: [{"a": "1.5", "b": "2"}], "convert it with x.astype(float)", "column 'a'"),
    Refused(
        "numbers with a decimal comma",
        lambda: frame(a=["1,5", "2", "-1.200,5"]),
        "read the file with pandas.read_csv(path, decimal=',')",
        "column 'a', but got text, such as '1,5'",
    ),
    Refused(
        "numbers with signs, such as $ and %",
        lambda: frame(a=["$1,000.50", "$2"]),
        "remove the signs that are no part of a number",
        "such as '$1,000.50'",
    ),
    Refused(
        "numbers, and a few words in their place",
        lambda: frame(a=["1.5", None, "n/a", "2"]),
        "make it missing with pandas.to_numeric(x, errors='coerce')",
        "such as 'n/a', in 1 of 3 places",
    ),
    Refused(
        "rows of text with a header, as csv.reader reads them",
        lambda: [["a", "b"], ["1", "2"]],
        "it is a header, leave it out with x[1:]",
        "such as 'a'",
    ),
    Refused("bytes", lambda: np.array([b"1", b"2"]), "convert it with x.astype(float)", "such as '1'"),
    Refused(
        "column of categories",
        lambda: frame(a=[1, 2], kind=pd.Categorical([3, 4])),
        "keep the rows of one category",
        "column 'kind', but got categories",
    ),
    Refused(
        "column of dates or times",
        lambda: frame(a=[1.0], t=pd.to_datetime(["2020-02-02"])),
        "make them numbers, such as seconds since the first",
        "column 't', but got dates or times",
    ),
    Refused(
        "dates with a time zone",
        lambda: frame(t=pd.to_datetime(["2020-02-02"], utc=True)),
        "make them numbers",
        "column 't', but got dates or times",
    ),
    Refused("Python's dates", lambda: [[datetime.date(2020, 2, 2)]], "make them numbers", "dates or times"),
    Refused(
        "column of lists",
        lambda: frame(a=[[1, 2], [3, 4]]),
        "make it numbers, one in a column, or drop it",
        "got a list",
    ),
    Refused(
        "column of vectors",
        lambda: np.array([(1, [2.0, 3.0])], dtype=[("a", "i4"), ("p", "f8", 2)]),
        "give each of its numbers a column of its own",
        "column 'p' of the shape (1, 2)",
    ),
    Refused(
        "records within records",
        lambda: np.array([(1, (2.0, 3.0))], dtype=[("a", "i4"), ("p", [("x", "f8"), ("y", "f8")])]),
        "give each field as a column",
        "column 'p', but got records",
    ),
    Refused("whole numbers that no float holds", lambda: [[10**400, 1]], "divide them by a power of ten"),
    Refused("complex numbers", lambda: ARRAY * 1j, "give real and imaginary part as two columns", "complex128"),
    Refused("complex tensor", lambda: torch.tensor(NUMBERS) * 1j, "use torch.view_as_real(x).flatten(-2)"),
]


def normal(r: np.random.Generator, n: int = 200, D: int = 2) -> np.ndarray:
    return r.normal(size=(n, D))


def beside(r: np.random.Generator, column: Any, n: int = 200) -> pd.DataFrame:
    return pd.DataFrame(normal(r, n), columns=["a", "b"]).assign(c=column)


ODD = [
    Odd("a constant column", lambda r: beside(r, 3.0), "constant", ("c",)),
    Odd("a column constant but for rounding", lambda r: beside(r, 0.1 + 1e-15 * r.random(200)), "constant", ("c",)),
    Odd("all rows equal", lambda r: np.ones((20, 2)), "constant", ("0", "1")),
    Odd("a column of 0 and 1", lambda r: beside(r, r.integers(0, 2, 200)), "discrete", ("c",)),
    Odd("a column of truth values", lambda r: beside(r, r.random(200) < 0.2), "discrete", ("c",)),
    Odd("a column of a few whole numbers", lambda r: beside(r, r.integers(18, 80, 200)), "discrete", ("c",)),
    Odd("two values that are no whole numbers", lambda r: beside(r, 0.1 * r.integers(0, 2, 200)), "discrete", ("c",)),
    Odd("two values in six rows", lambda r: beside(r, [0, 1, 0, 0, 1, 1], 6), "discrete", ("c",)),
    Odd(
        "many zeros among other numbers",
        lambda r: beside(r, r.lognormal(size=200) * (r.random(200) < 0.7)),
        "repeated value",
        ("c",),
    ),
    Odd(
        "missing values written as −999",
        lambda r: beside(r, np.where(r.random(200) < 0.1, -999, r.normal(size=200))),
        "repeated value",
        ("c",),
    ),
    Odd("row numbers", lambda r: beside(r, r.permutation(200) + 1), "counter", ("c",)),
    Odd(
        "times in equal steps",
        lambda r: beside(r, r.permutation(1.7e9 + 60 * np.arange(200))),
        "counter",
        ("c",),
    ),
    Odd(
        "numbers that pile up at the ends of an interval",
        lambda r: beside(r, 5 + 5 * r.beta(0.4, 0.4, 300), 300),
        "bounded",
        ("c",),
    ),
    Odd(
        "shares that are nearly 0 or 1",
        lambda r: beside(r, 1 / (1 + np.exp(-4 * r.normal(size=300))), 300),
        "bounded",
        ("c",),
    ),
    Odd(
        "rounded percentages that sum to 100",
        lambda r: pd.DataFrame((100 * r.dirichlet([2, 3, 4], 300)).round(1), columns=list("abc")),
        "dependent",
        ("c", "a", "b"),
    ),
    Odd("two equal columns", lambda r: (x := beside(r, 0.0)).assign(c=x["a"]), "dependent", ("c", "a")),
    Odd(
        "the same in other units", lambda r: (x := beside(r, 0.0)).assign(c=32 + 1.8 * x["b"]), "dependent", ("c", "b")
    ),
    Odd(
        "a column that is the sum of others",
        lambda r: (x := beside(r, 0.0)).assign(c=x["a"] + x["b"]),
        "dependent",
        ("c", "a", "b"),
    ),
    Odd(
        "a rounded sum",
        lambda r: (x := beside(r, 0.0)).assign(c=(x["a"] + x["b"]).round(3)),
        "dependent",
        ("c", "a", "b"),
    ),
    Odd("repeated rows", lambda r: np.concatenate([x := normal(r), x[:10]]), "repeated rows"),
    Odd("one row", lambda r: np.ones((1, 2)), "few rows"),
    Odd("no more rows than columns", lambda r: normal(r, 5, 8), "few rows"),
    Odd("a wrong entry far off", lambda r: np.concatenate([normal(r), [[0.0, 1e6]]]), "far off", ("1",)),
    Odd("heavy tails", lambda r: r.standard_cauchy((200, 2)), "heavy tails", ("0", "1")),
    Odd(
        "float32 far from 0, such as Julian days",
        lambda r: (2.46e6 + normal(r)).astype(np.float32),
        "coarse",
        ("0", "1"),
    ),
    Odd(
        "a first row taken for names",
        lambda r: pd.DataFrame(normal(r), columns=["1.52", "−0.3".replace("−", "-")]),
        "header",
        ("1.52", "-0.3"),
    ),
]


def happens(case: Taken) -> str:
    """What the README says of a case that is taken, by what is done with it."""
    table = as_table(case.make())
    size = str(table.values.dtype).removeprefix("torch.")
    return f"taken, as {size}{', its names kept' if table.names else ''}"


def containers() -> str:
    rows = [(case.name, happens(case)) for case in TAKEN] + [
        (case.name, f"refused: {case.way_out}") for case in REFUSED
    ]
    return "\n".join(["| you give | and it is |", "| --- | --- |", *(f"| {name} | {what} |" for name, what in rows)])


def oddities() -> str:
    rows = []
    for case in ODD:
        found = next(f for f in describe(case.make(np.random.default_rng(0))).findings if f.kind == case.kind)
        rows.append(f"| {case.name} | {found.sentence} |")
    return "\n".join(["| in the table | `flowlab.describe(x)`, and a warning by `fit` |", "| --- | --- |", *rows])


TABLES = {"containers": containers, "oddities": oddities}


def written(readme: str) -> str:
    """README with the tables in it put anew."""
    for name, make in TABLES.items():
        begin, end = (mark.format(name=name) for mark in MARKS)
        before, rest = readme.split(begin)
        readme = f"{before}{begin}\n\n{make()}\n\n{end}{rest.split(end)[1]}"
    return readme


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    warnings.simplefilter("ignore")
    if parser.parse_args().write:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n\n".join(make() for make in TABLES.values()))
