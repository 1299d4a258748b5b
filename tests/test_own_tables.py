"""The benchmark of tables reports rightly, and a slice of it holds: the three lines are no worse than one Gaussian."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

# Not by its name, which the tests of flowlab.tables have too.
SPEC = importlib.util.spec_from_file_location("benchmark", Path(__file__).parent / "benchmarks" / "tables.py")
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


def test_one_gaussian_is_the_one_of_maximum_likelihood():
    r = np.random.default_rng(0)
    x, held_out = (r.normal(size=(n, 3)) @ r.normal(size=(3, 3)) * [1, 1e6, 1e-6] + [0, 1e7, 3] for n in (50, 9))
    scale = np.array([1, 1e6, 1e-6])  # scipy takes the least eigenvalue for zero where units are so far apart
    exact = multivariate_normal((x / scale).mean(0), np.cov((x / scale).T, bias=True))
    np.testing.assert_allclose(
        benchmark.one_gaussian(x, held_out, 0), exact.logpdf(held_out / scale) - np.log(scale).sum(), rtol=1e-8
    )


def test_the_log_determinant_of_standardized_columns_is_counted():
    x = np.random.default_rng(0).normal(size=(300, 2)) * [1, 100]
    np.testing.assert_allclose(benchmark.mixture_by_bic(x, x, 0), benchmark.one_gaussian(x, x, 0), atol=1e-3)


def test_a_split_holds_out_a_fifth_and_has_no_constant_column():
    table = np.c_[np.arange(100.0), np.ones(100), np.arange(100) == 7]
    for seed, x, held_out in benchmark.splits(table, 3):
        assert (len(x), len(held_out)) == (80, 20)
        assert sorted([*x[:, 0], *held_out[:, 0]]) == [*range(100)], f"split {seed}"
        assert x.shape[1] == 2 - (7 not in x[:, 0])


def test_differences_are_paired_and_infinities_counted():
    def record(method, split, nats):
        return {"table": "t", "method": method, "split": split, "nats": nats, "seconds": 1.0}

    records = [record("one Gaussian", s, n) for s, n in enumerate((-100.0, 100.0))]
    records += [record("flowlab", s, n) for s, n in enumerate((-99.0, 103.0))]
    records += [record("zuko MAF", s, n) for s, n in enumerate((-math.inf, 1.0))]
    head, _, line = benchmark.report(records).splitlines()
    assert head.split(" | ")[1:4] == ["one Gaussian", "flowlab", "zuko MAF"]
    assert line == ("| t | 0.00 ± 100.00 | 2.00 ± 101.00 | not finite in 1 of 2 | 2.00 ± 1.00 | 1.00 | 1 |")


@pytest.mark.slow
@pytest.mark.parametrize("table", ("wine", "diabetes"))
def test_the_three_lines_are_no_worse_than_one_gaussian(table):
    gaussian, flow = ([r["nats"] for r in benchmark.measure(table, m, 1)] for m in ("one Gaussian", "flowlab"))
    gains = [a - b for a, b in zip(flow, gaussian, strict=True)]
    assert min(gains) > -0.5
