"""All densities go through the same door: what one takes, all take, as rows, as one row, as context."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator

from flowlab import Flow, fit, realnvp, spline_flow
from flowlab.bijections import starting
from flowlab.densities import (
    AutoregressiveMixture,
    Dequantized,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
    mixtures,
)
from flowlab.models import flow_mixture, maf, nice
from tables.cases import FRAME, NUMBERS, REFUSED, TAKEN


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


DENSITIES = {
    "realnvp": lambda: realnvp(2, 2, hidden=(4,), generator=generator()),
    "spline flow": lambda: spline_flow(2, 2, hidden=(4,), generator=generator()),
    "nice": lambda: nice(2, 2, hidden=(4,), generator=generator()),
    "maf": lambda: maf(2, 2, hidden=(4,), generator=generator()),
    "made": lambda: AutoregressiveMixture(2, 3, hidden=(4,), generator=generator()),
    "mixture of flows": lambda: flow_mixture(2, 2, layers=2, hidden=(4,), posterior=(4,), generator=generator()),
    "Gaussian mixture": lambda: GaussianMixture(torch.eye(2)),
    "Gaussian mixture by EM": lambda: mixtures.EMGaussianMixture(torch.eye(2)),
    "normal": lambda: StandardNormal(2),
    "logistic": lambda: StandardLogistic(2),
    "uniform": lambda: StandardUniform(2),
}
ROWS = [case for case in TAKEN if case.numbers is None]


@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_takes_what_the_door_takes(name):
    density = DENSITIES[name]()
    expected = density.log_prob(torch.tensor(NUMBERS))
    for case in ROWS:
        got = density.log_prob(case.make())
        torch.testing.assert_close(got.to(expected), expected, rtol=1e-5, atol=1e-5, msg=case.name)
    torch.testing.assert_close(density.log_prob(FRAME.iloc[1]).to(expected), expected[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(density.log_prob(NUMBERS[1]).to(expected), expected[1], rtol=1e-5, atol=1e-5)
    assert density.log_prob(np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_refuses_what_the_door_refuses(name):
    density = DENSITIES[name]()
    for case in REFUSED:
        with pytest.raises((TypeError, ValueError)) as error:
            density.log_prob(case.make())
        assert case.way_out.lower() in str(error.value).lower()


def test_whole_numbers_come_through_the_door_too():
    density = Dequantized(nice(2, 2, hidden=(4,), logit=1e-3, generator=generator()))
    v = pd.DataFrame({"a": [3, 250], "b": [0, 255]})
    expected = density.log_prob(torch.tensor(v.to_numpy()), generator=generator(1))
    assert torch.equal(density.log_prob(v, generator=generator(1)), expected)
    assert torch.equal(density.log_prob(v.to_numpy(np.uint16), generator=generator(1)), expected)
    with pytest.raises(TypeError, match=r"expected whole numbers .* but got torch.float64"):
        density.log_prob([[0.5, 1.0]])


def test_contexts_come_through_the_door():
    flow = realnvp(2, 2, hidden=(4,), context_features=1, generator=generator())
    c = torch.tensor([[0.0], [1.0], [2.0]])
    expected = flow.log_prob(torch.tensor(NUMBERS), c)
    for context in (
        c.numpy(),
        [0, 1, 2],
        pd.Series([0, 1, 2]),
        pd.DataFrame({"c": [0, 1, 2]}),
        np.array([[0], [1], [2]]),
    ):
        torch.testing.assert_close(flow.log_prob(FRAME, context), expected)
        drawn = flow.sample(5, generator(1), context)
        torch.testing.assert_close(drawn, flow.sample(5, generator(1), c))
        assert drawn.shape == (5, 3, 2), "five for each of three contexts"
    torch.testing.assert_close(flow.sample(5, generator(1), context=2), flow.sample(5, generator(1), c[2]))
    torch.testing.assert_close(flow.log_prob(FRAME, 1.0), flow.log_prob(torch.tensor(NUMBERS), c[1]))
    with pytest.raises(TypeError, match=r"A context is given by name, sample\(n, context=c\)"):
        flow.sample(5, c)
    with pytest.raises(ValueError, match="the context, but got text"):
        flow.log_prob(FRAME, ["red", "red", "blue"])


def one_that_tells_columns_apart(**settings) -> Flow:
    """A flow as it is built is a standard normal, which is the same when columns change places."""
    flow = realnvp(2, 2, hidden=(4,), generator=generator(), **settings)
    torch.nn.init.constant_(flow.bijection[0].shift[1:], 3.0)
    return flow


def test_columns_have_the_order_they_were_learned_in():
    flow = one_that_tells_columns_apart(context_features=1)
    flow.columns, flow.context_columns = ("a", "b"), ("c",)
    c = pd.DataFrame({"c": [0.0, 1.0, 2.0]})
    expected = flow.log_prob(FRAME, c)
    assert torch.equal(flow.log_prob(FRAME[["b", "a"]], c), expected)
    assert torch.equal(flow.log_prob(FRAME.to_numpy(), c.to_numpy()), expected)
    with pytest.raises(
        ValueError, match=r"Expected x with the columns 'a', 'b', but got 'a', 'b', 'c': .*x\[\['a', 'b'\]\]"
    ):
        flow.log_prob(FRAME.assign(c=0.0), c)
    with pytest.raises(ValueError, match="Expected the context with the columns 'c', but got 'a'"):
        flow.log_prob(FRAME, FRAME[["a"]])


ROW_OF_THE_OTHER_ORDER = {
    "Series": lambda: FRAME[["b", "a"]].iloc[1],
    "dict": lambda: {"b": 5, "a": 2},
    "record": lambda: FRAME[["b", "a"]].to_records(index=False)[1],
    "named tuple": lambda: list(FRAME[["b", "a"]].itertuples(index=False))[1],
    "list of named tuples": lambda: list(FRAME[["b", "a"]].itertuples(index=False)),
    "list of Series": lambda: [row for _, row in FRAME[["b", "a"]].iterrows()],
    "list of dicts": lambda: FRAME[["b", "a"]].to_dict("records"),
    "records": lambda: FRAME[["b", "a"]].to_records(index=False),
}


@pytest.mark.parametrize("name", ROW_OF_THE_OTHER_ORDER)
def test_whatever_has_names_is_put_in_the_order_that_was_learned(name):
    flow = one_that_tells_columns_apart()
    flow.columns = ("a", "b")
    expected = flow.log_prob(torch.tensor(NUMBERS))
    log_p = flow.log_prob(ROW_OF_THE_OTHER_ORDER[name]())
    torch.testing.assert_close(log_p, expected[1] if log_p.ndim == 0 else expected)


@pytest.mark.parametrize("as_frame", (True, False))
def test_one_column_with_labelled_rows_is_fitted_and_scored_by_place(as_frame):
    labels = [f"r{i}" for i in range(20)]
    x = pd.Series(np.linspace(-1, 1, 20) ** 3, index=labels, name="a")
    flow = spline_flow(1, 1, generator=generator())
    fit(flow, x.to_frame() if as_frame else x, steps=1, progress=False)
    assert flow.columns == (("a",) if as_frame else None)
    torch.testing.assert_close(flow.log_prob(x[3:7]), flow.log_prob(x.to_numpy()[3:7]))
    given = realnvp(2, 1, hidden=(4,), context_features=1, generator=generator())
    rows = pd.DataFrame(np.eye(20)[:, :2], index=labels)
    fit(given, (rows, x), steps=1, progress=False)
    torch.testing.assert_close(
        given.log_prob(rows[:2], x[5:7].set_axis(["r0", "r1"])), given.log_prob(rows[:2], x[5:7].to_numpy())
    )


def test_one_column_is_a_density_of_one_number():
    density = StandardNormal(1)
    x = torch.tensor([0.0, 1.0, 2.0])
    expected = density.log_prob(x[:, None])
    for column in (x, x.numpy(), [0, 1, 2], pd.Series([0, 1, 2])):
        torch.testing.assert_close(density.log_prob(column), expected)
    torch.testing.assert_close(density.log_prob(2.0).float(), expected[2])
    assert density.log_prob(x[:1]).shape == ()
    with pytest.raises(ValueError, match=r"expected shape \(..., 1\), but got \(3, 2\)"):
        density.log_prob(x.new_zeros(3, 2))


@pytest.mark.parametrize("container", (np.asarray, pd.DataFrame, list, torch.as_tensor), ids=lambda f: f.__name__)
def test_float64_is_centered_before_it_is_rounded(container):
    """At 1e4 ± 1e-3 the steps of float32 are as wide as the data."""
    z = torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    flow = realnvp(2, 2, hidden=(4,), generator=generator())
    x = 1e4 + 1e-3 * z
    with starting(flow):
        flow.log_prob(container(x.numpy()))
    plain = realnvp(2, 2, hidden=(4,), generator=generator())
    with starting(plain):
        expected = plain.log_prob(z) - 2 * np.log(1e-3)
    torch.testing.assert_close(flow.log_prob(container(x.numpy())), expected, rtol=1e-4, atol=1e-3)


def test_a_gradient_still_reaches_x():
    x = torch.tensor(NUMBERS, dtype=torch.float64, requires_grad=True)
    realnvp(2, 2, hidden=(4,), generator=generator()).log_prob(x).sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float64 and (x.grad != 0).any()
