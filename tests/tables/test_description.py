"""What is no density is named, with the choice; what is one is not."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Generator

import flowlab
from flowlab.tables import TableWarning, describe, spread, warn
from tables.cases import ODD, normal


@pytest.mark.parametrize("case", ODD, ids=lambda case: case.name)
def test_what_is_odd_is_named(case):
    description = describe(case.make(np.random.default_rng(0)))
    assert case.columns in [found.columns for found in description.findings if found.kind == case.kind]
    assert all(name in str(description) for name in case.columns)


FINE = {
    "normal": lambda r: normal(r),
    "one column": lambda r: normal(r)[:, 0],
    "float32": lambda r: normal(r).astype(np.float32),
    "rounded to tenths": lambda r: normal(r).round(1),
    "years and hectopascals": lambda r: normal(r) * [6, 5] + [1990, 1013],
    "seconds since 1970, a day long": lambda r: np.stack([1.7e9 + 86400 * r.random(300), r.normal(size=300)], 1),
    "large whole numbers": lambda r: r.integers(0, 10**6, (200, 2)),
    "two clusters far apart": lambda r: normal(r) + 1e6 * r.integers(0, 2, (200, 2)),
    "exponential": lambda r: r.exponential(size=(300, 2)),
    "correlated to 0.9999": lambda r: (x := normal(r))[:, :1] + [0, 0.01] * x,
    "correlated": lambda r: normal(r) @ [[1, 1], [0, 0.05]],
    "skew": lambda r: r.gamma(2, size=(200, 2)),
    "uniform": lambda r: r.random((1000, 3)),
    "tiny numbers": lambda r: 1e-12 * normal(r),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", FINE)
def test_what_is_a_density_is_left_alone(name, seed):
    description = describe(FINE[name](np.random.default_rng(seed)))
    assert not description.findings, str(description)


def test_numbers_of_the_columns():
    (a, b) = describe({"a": [1.0, 2.0, 3.0, 6.0], "b": [0.0, 0.0, 1.0, 1.0]}).columns
    assert a == ("a", 4, 1.0, 3.0, 6.0, 3.0, pytest.approx(math.sqrt(3.5)))
    assert (b.name, b.distinct) == ("b", 2)


def test_what_cannot_be_described_has_a_sentence():
    with pytest.raises(ValueError, match="at least one row and column"):
        describe(np.empty((0, 3)))
    with pytest.raises(ValueError, match=r"row 0, column 1"):
        describe([[1.0, math.nan], [1.0, 2.0]])
    with pytest.raises(TypeError, match="read the file first"):
        describe("my.csv")


def test_a_warning_says_all_but_what_a_flow_can_follow():
    r = np.random.default_rng(0)
    with pytest.warns(TableWarning, match="(?s)Constant: column 'c'.*Discrete: column 'a'") as caught:
        warn({"a": [1.0, 2.0, 5.0] * 20, "b": list(r.normal(size=20)) * 3, "c": [1.0] * 60})
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn(r.standard_cauchy((500, 2)))


def test_a_large_table_is_looked_at_in_no_time():
    x = torch.rand(100_000, 50, generator=Generator().manual_seed(0))
    x[:, 3] = x[:, 3].round()
    x[:, 7] = 1.0
    kinds = describe(x).kinds
    assert kinds == {"discrete", "constant"}
    assert describe(x).rows == 100_000


def test_spread_keeps_values_apart_and_uniform():
    v = torch.tensor([0, 1, 3]).repeat(3000)
    x = spread(v, generator=Generator().manual_seed(0))
    assert x.dtype == torch.float64
    assert torch.equal((x - v).abs().amax() <= 0.5, torch.tensor(True)) and torch.equal(x.round(), v.double())
    assert (x - v).mean().abs() < 0.02 and (x - v).std() == pytest.approx(1 / math.sqrt(12), rel=0.05)
    assert torch.equal(x, spread(v, generator=Generator().manual_seed(0)))
    assert describe(x).findings == ()
    with pytest.raises(ValueError, match="a constant one: drop it"):
        spread([2.0, 2.0])
    for bad in ([1.0, math.nan, 2.0], [1.0, math.inf, 2.0]):
        with pytest.raises(ValueError, match="NaN or infinity in 1 of 3 rows, the first in row 1"):
            spread(bad)
    with pytest.raises(ValueError, match="expected one column"):
        spread([[2.0, 1.0]])


def test_describe_is_at_the_door():
    assert flowlab.describe is describe
