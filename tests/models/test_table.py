"""The flow for a table: before training it is a density of the table at least as good as one Gaussian."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from flowlab import Flow, fit, flow_for
from flowlab.bijections import GaussianizeMargins, SplineAutoregressive, SplineCoupling, Standardize, Whiten, starting
from flowlab.datasets import TwoMoons
from flowlab.models import build, rebuild, table_flow


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def halves(x: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(seed).permutation(len(x))
    return x[rows[: 4 * len(x) // 5]], x[rows[4 * len(x) // 5 :]]


def of_one_gaussian(train: np.ndarray, held_out: np.ndarray) -> float:
    x = torch.as_tensor(train)
    return float(MultivariateNormal(x.mean(0), x.T.cov(correction=0)).log_prob(torch.as_tensor(held_out)).mean())


@torch.no_grad()
def nats(flow: Flow, *x: Any) -> float:
    return float(flow.log_prob(*x).mean())


TABLES = {
    "wine": lambda: load_wine().data,
    "diabetes": lambda: np.delete(load_diabetes().data, 1, 1),
    "breast cancer": lambda: load_breast_cancer().data,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_untrained_it_is_no_worse_than_one_gaussian_on_held_out_rows(name):
    gains = []
    for seed in range(5):
        train, held_out = halves(TABLES[name](), seed)
        flow = flow_for(train, generator=generator())
        gains.append(nats(flow, held_out) - of_one_gaussian(train, held_out))
    assert np.mean(gains) > 0.2 and min(gains) > -0.3


def test_what_it_is_made_of():
    kinds = [type(b) for b in table_flow(3, 2).bijection]
    assert kinds == [Standardize, GaussianizeMargins, Whiten, SplineCoupling, SplineCoupling]
    assert [type(b) for b in table_flow(1, 2).bijection][3:] == [SplineAutoregressive] * 2
    given = table_flow(2, 1, context_features=3).bijection
    assert given.centers_context and [type(b) for b in given.bijection][2:] == [Whiten, SplineCoupling]


def test_more_rows_train_more_weights():
    counts = [sum(p.numel() for p in flow_for(normal(N, 2)).parameters()) for N in (20, 600, 6000)]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("place, scale", ((0.0, 1.0), (2.46e6, 30.0), (1e4, 1e-3), (1.7e9, 86400.0), (0.0, 1e-30)))
def test_location_and_scale_do_not_matter(place, scale):
    z = TwoMoons().sample(500, generator()).double()
    plain, moved = (flow_for(x, generator=generator(1)) for x in (z, place + scale * z))
    log_p = moved.log_prob(place + scale * z).double() + 2 * math.log(scale)
    torch.testing.assert_close(log_p, plain.log_prob(z).double(), rtol=0, atol=5e-3)


def test_it_remembers_the_columns_and_their_order():
    x = pd.DataFrame(normal(50, 3).numpy() * [1, 10, 100], columns=["a", "b", "c"])
    flow = flow_for(x[["a", "b"]], context=x["c"], generator=generator())
    assert flow.columns == ("a", "b") and flow.context_features == 1
    expected = flow.log_prob(x[["a", "b"]], x["c"])
    assert torch.equal(flow.log_prob(x[["b", "a"]], x["c"]), expected)
    with pytest.raises(ValueError, match="columns 'a', 'b'"):
        flow.log_prob(x, x["c"])
    assert flow_for(x[["a"]], context=x[["b", "c"]]).context_columns == ("b", "c")


def test_given_a_context_it_starts_as_the_regression_on_it():
    year = 1990 + 10 * normal(400, 1, seed=2)
    x = torch.cat((3 * (year - 1990) + 5 * normal(400, 1), normal(400, 1, seed=3)), 1)
    flow = flow_for(x, context=year, generator=generator())
    rest = x - torch.cat((3 * (year - 1990), torch.zeros(400, 1)), 1)
    truth = MultivariateNormal(rest.mean(0), rest.T.cov(correction=0)).log_prob(rest)
    assert nats(flow, x, year) == pytest.approx(float(truth.mean()), abs=0.05)
    drawn = flow.sample(2000, generator(1), context=[[1980.0], [2000.0]])
    torch.testing.assert_close(drawn[..., 0].mean(0), torch.tensor([-30.0, 30.0]), atol=2.5, rtol=0)
    assert not torch.allclose(flow.log_prob(x, year), flow.log_prob(x, year + 10), atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("context", (False, True))
@pytest.mark.parametrize("D", (1, 2, 5))
def test_training_helps_and_samples_belong_to_it(D, context):
    e = normal(600, D)
    x = (
        e + (3 if D == 1 else 2) * torch.sign(normal(600, 1, seed=1))
        if D == 1
        else torch.cat((e[:, :1], e[:, 1:] + e[:, :1] ** 2), 1)
    )
    c = (x[:, :1] > 0).double() if context else None
    flow = flow_for(x, c, generator=generator())
    before = nats(flow, x, c)
    fit(flow, x if c is None else (x, c), steps=150, learning_rate=5e-3, progress=False)
    assert nats(flow, x, c) > before + 0.1
    drawn, log_p = flow.draw(200, generator(2), None if c is None else c[0])
    torch.testing.assert_close(log_p, flow.log_prob(drawn, None if c is None else c[0]), rtol=1e-3, atol=1e-3)


DEGENERATE = {
    "two rows": lambda r: r.normal(size=(2, 3)),
    "fewer rows than columns": lambda r: r.normal(size=(5, 12)),
    "a constant column": lambda r: np.c_[r.normal(size=(60, 2)), np.full(60, 7.0)],
    "all rows equal": lambda r: np.ones((20, 2)),
    "two values": lambda r: np.c_[r.normal(size=(60, 2)), r.integers(0, 2, 60)],
    "equal columns": lambda r: np.repeat(r.normal(size=(60, 1)), 2, 1),
    "a sum of others": lambda r: r.normal(size=(60, 2)) @ [[1, 0, 1], [0, 1, 1]],
    "row numbers": lambda r: np.c_[np.arange(60), r.normal(size=60)],
    "heavy tails": lambda r: r.standard_cauchy((200, 2)),
    "a value far off": lambda r: np.r_[r.normal(size=(60, 2)), [[1e12, 0]]],
    "copies": lambda r: np.repeat(r.normal(size=(6, 2)), 10, 0),
    "truth values": lambda r: r.random((60, 2)) > 0.5,
    "whole numbers": lambda r: r.integers(0, 9, (60, 2)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::flowlab.tables.TableWarning")
@pytest.mark.parametrize("name", DEGENERATE)
def test_a_table_that_is_no_density_gives_finite_numbers(name):
    x = DEGENERATE[name](np.random.default_rng(0))
    flow = flow_for(x, generator=generator())
    for _ in range(2):
        assert flow.log_prob(x).isfinite().all()
        assert flow.log_prob(x + 0.1).isfinite().all(), "rows that differ where the training rows never do"
        assert flow.sample(100, generator(1)).isfinite().all()
        fit(flow, x, steps=20, progress=False)


def test_a_dependent_column_is_held_by_the_shrinkage():
    """Two equal columns have a density without bound; started, it is bounded by the least shrinkage, 1e-6."""
    x = normal(60, 1).repeat(1, 2)
    assert nats(flow_for(x), x) < -1.4 - 0.5 + 0.5 * math.log(1e6)


def test_what_it_cannot_start_from_has_a_sentence():
    with pytest.raises(ValueError, match="at least two rows to start from, but got 1"):
        flow_for([[1.0, 2.0]])
    with pytest.raises(ValueError, match="a context for each of 3 rows, but got 2"):
        flow_for(normal(3, 2), context=[1, 2])
    with pytest.raises(ValueError, match="the first in row 1, column 'b'"):
        flow_for({"a": [1.0, 2.0], "b": [0.0, math.nan]})
    with pytest.raises(TypeError, match="read the file first"):
        flow_for("table.csv")


def test_it_is_a_recipe_like_others():
    flow = flow_for(normal(30, 3), generator=generator())
    assert flow.recipe["name"] == "table_flow" and flow.recipe["settings"]["features"] == 3
    for again in (build(flow.recipe), rebuild(flow.recipe)):
        again.load_state_dict(flow.state_dict())
        x = normal(5, 3)
        assert torch.equal(again.log_prob(x), flow.log_prob(x))


def test_a_training_loop_starts_what_flow_for_would_have_started():
    x = normal(100, 2) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]]).double() + 50
    flow, own = flow_for(x, generator=generator()), table_flow(2, 4, hidden=(16,), generator=generator())
    with starting(own), torch.no_grad():
        own.log_prob(x)
    torch.testing.assert_close(own.log_prob(x), flow.log_prob(x))


# --- columns with ends ------------------------------------------------------------------------------------------------


def piled_up(N: int, seed: int) -> pd.DataFrame:
    """A column between 5 and 10 with many rows near both ends, one above 0, and one without ends."""
    r = np.random.default_rng(seed)
    return pd.DataFrame({"share": 5 + 5 * r.beta(0.5, 0.5, N), "age": r.exponential(size=N), "free": r.normal(size=N)})


BOUNDS = {"share": (5, 10), "age": (0, None)}


def test_named_ends_are_not_passed_and_the_density_is_nearly_exact():
    x, held_out = piled_up(1000, 0), piled_up(4000, 1)
    plain, bounded = (flow_for(x, bounds=bounds, generator=generator()) for bounds in (None, BOUNDS))
    share, age, free = held_out.to_numpy().T
    exact = -math.log(math.pi) - 0.5 * np.log((share - 5) * (10 - share)) - age
    exact += -0.5 * free**2 - 0.5 * math.log(2 * math.pi)
    gaps = [float(exact.mean()) - nats(flow, held_out) for flow in (plain, bounded)]
    assert gaps[1] < 0.1 < 0.3 < gaps[0], "nats above the exact density, before any training"
    drawn = bounded.sample(5000, generator())
    assert ((drawn[:, 0] >= 5) & (drawn[:, 0] <= 10) & (drawn[:, 1] > 0)).all()
    assert ((plain.sample(5000, generator())[:, 0] - 7.5).abs() > 2.5).float().mean() > 0.05
    assert bounded.log_prob({"share": 10.1, "age": 1.0, "free": 0.0}) == -math.inf
    torch.testing.assert_close(
        rebuild(bounded.recipe).bijection[0](torch.tensor(x.to_numpy()))[0],
        bounded.bijection[0](torch.tensor(x.to_numpy()))[0],
    )


@pytest.mark.parametrize("scale, place", ((1e-3, 0.0), (86400.0, 1.7e9)))
def test_ends_have_the_units_of_their_column(scale, place):
    x = piled_up(300, 0)["share"].to_numpy()
    plain = flow_for(x, bounds={0: (5, 10)}, generator=generator())
    moved = flow_for(place + scale * x, bounds={0: (place + 5 * scale, place + 10 * scale)}, generator=generator())
    log_p = moved.log_prob(place + scale * x).double() + math.log(scale)
    torch.testing.assert_close(log_p, plain.log_prob(x).double(), rtol=0, atol=5e-3)


def test_bounds_that_rows_pass_or_that_no_column_has_are_refused():
    x = piled_up(50, 0)
    with pytest.raises(ValueError, match=r"bounds of columns among \['share', 'age', 'free'\], but got 'weight'"):
        flow_for(x, bounds={"weight": (0, 1)})
    with pytest.raises(ValueError, match=r"column 'share' within its bounds \(5.0, 7.0\), but got .* in row"):
        flow_for(x, bounds={"share": (5, 7)})
    x.loc[3, "age"] = 0.0
    with pytest.raises(ValueError, match=r"column 'age' within its bounds \(0.0, None\), but got 0 in row 3"):
        flow_for(x, bounds={"age": (0, None)})
    with pytest.raises(ValueError, match="two ends in order"):
        flow_for(x, bounds={"share": (10, 5)})
    with pytest.raises(ValueError, match="bounds for each of 2 columns, but got 1"):
        table_flow(2, bounds=[(0, 1)])
