"""What people's own data are like: no wrong number, and no word of torch's or numpy's, whatever comes.

Containers and oddities have their tests in ``tests/tables``, runs on few rows in ``tests/training``, and tables of
scikit-learn in ``tests/benchmarks``. Here stands what goes through several of these rooms.
"""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, Tensor
from torch.func import jacrev, vmap

import flowlab
from flowlab import Flow, fit, flow_for, models, realnvp, spline_flow
from flowlab.bijections import Monotone
from flowlab.datasets import TwoMoons
from flowlab.densities import StandardUniform
from flowlab.densities.mixtures import EMGaussianMixture
from flowlab.models import maf, nice
from flowlab.training import NonFiniteLoss


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


RECIPES = {
    "realnvp": lambda: realnvp(2, 4, hidden=(32,), generator=generator()),
    "spline_flow": lambda: spline_flow(2, 2, hidden=(32,), generator=generator()),
    "nice": lambda: nice(2, 4, hidden=(32,), standardize=True, generator=generator()),
    "maf": lambda: maf(2, 3, hidden=(32,), generator=generator()),
}
PLACES = {
    "year and pressure": ((1990.0, 1013.0), (6.0, 5.0)),
    "Unix seconds and latitude": ((1.7e9, 48.0), (25_000.0, 0.5)),
    "Julian days and magnitude": ((2.46e6, 12.0), (30.0, 0.5)),
    "1e4 ± 1e-3": ((1e4, 1e4), (1e-3, 1e-3)),
    "cells in meters": ((0.0, 1e-6), (1e-6, 1e-7)),
}


def held_out_nats(build, place: Tensor, scale: Tensor) -> float:
    """Of standardized rows, after so many steps on the table as it is, by a float32 model."""
    z, new = (TwoMoons().sample(600, generator(seed)).double() for seed in (1, 2))
    mean, std = z.mean(0), z.std(0)
    x, new = ((rows - mean) / std * scale + place for rows in (z, new))
    flow = build()
    fit(flow, x.numpy(), steps=150, batch_size=256, learning_rate=5e-3, progress=False, validation=False)
    with torch.no_grad():
        return float(flow.log_prob(new.numpy()).double().mean() + scale.log().sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_place_and_scale_do_not_matter_after_equal_steps(name):
    standardized = held_out_nats(RECIPES[name], torch.zeros(2).double(), torch.ones(2).double())
    for place, scale in PLACES.values():
        nats = held_out_nats(RECIPES[name], torch.tensor(place).double(), torch.tensor(scale).double())
        assert nats == pytest.approx(standardized, abs=0.05)


@pytest.mark.filterwarnings("ignore::flowlab.tables.TableWarning")
@pytest.mark.parametrize("name", RECIPES)
def test_rows_far_from_those_of_training_keep_what_is_promised(name):
    x = normal(300, 2)
    flow = RECIPES[name]()
    fit(flow, x, steps=60, learning_rate=5e-3, progress=False, validation=False)
    far = torch.cat([x[:20] * k for k in (3, 10, 100)]).float()
    with torch.no_grad():
        z, log_det = flow.bijection(far)
        again, back = flow.bijection.inverse(z)
    assert torch.isfinite(flow.log_prob(1e6 * far).detach()).all()
    assert ((again - far).abs() <= 1e-3 * (1 + far.abs())).all() and (log_det + back).abs().max() < 1e-2


UNITS = {
    "one tiny and one huge column": (torch.tensor([1e-30, 1e30]).double(), torch.zeros(2).double()),
    "far off and tiny": (torch.tensor([1e-3, 1.0]).double(), torch.tensor([1e6, 0.0]).double()),
}


@pytest.mark.parametrize("name", UNITS)
def test_a_flow_for_a_table_knows_no_units(name):
    scale, place = UNITS[name]
    z = TwoMoons().sample(200, generator()).double()
    plain, moved = (flow_for(x, generator=generator(1)) for x in (z, place + scale * z))
    log_p = moved.log_prob(place + scale * z).double() + scale.log().sum()
    torch.testing.assert_close(log_p, plain.log_prob(z).double(), rtol=0, atol=1e-2)


# The other recipes are of images, and take pixels.
OF_TABLES = (
    "nice",
    "realnvp",
    "spline_flow",
    "maf",
    "made",
    "table_flow",
    "planar_flow",
    "radial_flow",
    "flow_mixture",
)
SETTINGS = {"flow_mixture": {"components": 2, "layers": 2}, "nice, standardized": {"standardize": True}}


def test_every_recipe_for_tables_is_here():
    others = {"realnvp_image", "glow", "image_mixture", "dequantized"}
    assert {*OF_TABLES} == {n for n, r in models.RECIPES.items() if r.module.startswith("flowlab")} - others


@pytest.mark.parametrize("name", [*OF_TABLES, "nice, standardized"])
@pytest.mark.parametrize("place", PLACES)
def test_each_recipe_begins_at_the_data_or_says_that_it_does_not(name, place):
    (center, scale), build = PLACES[place], getattr(models, name.split(",")[0])
    x = torch.tensor(center) + torch.tensor(scale) * normal(200, 2)
    flow = build(2, generator=generator(), **SETTINGS.get(name, {}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit(flow, x, steps=1, learning_rate=0.0, progress=False)
        except NonFiniteLoss as error:  # it may come so far only after the warning, and says the same
            assert name == "flow_mixture" and "No step was made yet: standardize x" in str(error)
    said = [w for w in caught if "no layer that centers and scales its data, and column" in str(w.message)]
    assert len(said) == (name in ("nice", "flow_mixture"))
    if not said:
        with torch.no_grad():
            nats = flow.log_prob(x).double().mean() + torch.tensor(scale).log().sum()
        assert nats > -4, "of a Gaussian these are −2.8"
    elif "cells" not in place:
        assert said[0].filename == __file__


def test_near_data_and_pixels_need_no_layer_that_centers(recwarn):
    fit(nice(2, 2, hidden=(4,)), normal(100, 2) + 3, steps=1, progress=False)
    fit(nice(2, 2, hidden=(4,), logit=1e-3), 1e-3 * torch.rand(100, 2, generator=generator()), steps=1, progress=False)
    assert not [w for w in recwarn if "centers" in str(w.message)]


def test_tables_with_names_keep_them_whatever_is_fitted():
    x = pd.DataFrame(normal(60, 3).numpy(), columns=["a", "b", "c"])
    flow = flow_for(x)
    fit(flow, x, steps=1, progress=False)
    for model in (flow, EMGaussianMixture.fit(x, 2)):
        assert model.columns == ("a", "b", "c")
        torch.testing.assert_close(model.log_prob(x[["c", "a", "b"]]), model.log_prob(x.to_numpy()))
        with pytest.raises(ValueError, match="columns 'a', 'b', 'c', but got 'a', 'b'"):
            model.log_prob(x[["a", "b"]])
    assert model.bic(x[["b", "c", "a"]]) == pytest.approx(model.bic(x))


BEYOND = {
    "float32 ends": (lambda: normal(50, 2) * 1e100, r"x in torch\.float32"),
    "float32 has no such steps": (lambda: normal(50, 2) * 1e-200, "multiply it by a power of ten"),
    "squares overflow": (lambda: normal(50, 2) * 1e160, "divide the column by a power of ten"),
    "one entry": (
        lambda: torch.cat((normal(50, 2), torch.full((1, 2), 1e300, dtype=torch.float64))),
        "got 1e.300: divide",
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_numbers_that_no_model_can_hold_are_refused(name):
    make, words = BEYOND[name]
    with pytest.raises(ValueError, match=words):
        flow_for(make())
    if "squares" in name:
        for door in (flowlab.describe, lambda x: fit(realnvp(2), x, steps=1, progress=False)):
            with pytest.raises(ValueError, match=words):
                door(make())


# --- rows and their contexts ---


def test_a_context_in_another_order_than_its_rows_is_refused():
    x = pd.DataFrame(normal(30, 2).numpy(), columns=["a", "b"])
    c = pd.Series(normal(30, seed=1).numpy(), name="c")
    shuffled = c.sample(frac=1, random_state=0)
    flow = flow_for(x, context=c)
    calls = {
        "flow_for": lambda c: flow_for(x, c),
        "fit": lambda c: fit(flow, (x, c), steps=1, progress=False),
        "log_prob": lambda c: flow.log_prob(x, c),
        "compare": lambda c: flowlab.compare(x, context=c, steps=1, components=1, progress=False),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=r"the same index in two: put them in one, context.loc\[x.index\]"):
            call(shuffled)
        if name != "compare":
            call(shuffled.loc[x.index])
    again = c.copy()
    again.index = range(100, 130)
    assert torch.equal(flow.log_prob(x, again), flow.log_prob(x, c)), "other labels name other rows: by place"
    torch.testing.assert_close(flow.log_prob(x[:9], c[:9]), flow.log_prob(x, c)[:9])


# --- derivatives of maps by torch.func ---


def test_numeric_inverses_are_differentiated_under_vmap():
    f = Monotone(lambda x: x + x**3)
    z = normal(5, 2)
    x = f.inverse(z)[0]
    torch.testing.assert_close(vmap(lambda one: f.inverse(one)[0])(z), x)
    exact = torch.diag_embed(1 / (1 + 3 * x**2))
    torch.testing.assert_close(vmap(jacrev(lambda one: f.inverse(one)[0]))(z), exact)
    torch.testing.assert_close(vmap(lambda one: f.inverse(one)[1])(z), -(1 + 3 * x**2).log().sum(-1))
    bounded = Monotone(torch.tanh)
    assert vmap(lambda one: bounded.inverse(one)[0])(torch.tensor([[0.5], [2.0]])).isnan().flatten().tolist() == [
        False,
        True,
    ]
    with pytest.raises(ValueError, match="not reached"):
        bounded.inverse(torch.tensor([2.0]))


@pytest.mark.parametrize("build", (realnvp, nice, spline_flow, maf))
def test_flows_on_the_unit_square_are_differentiated_under_vmap(build):
    flow = build(2, 2, hidden=(4,), logit=1e-6, generator=generator()).double().eval()
    x = torch.rand(4, 2, generator=generator(), dtype=torch.float64)
    J = vmap(jacrev(lambda one: flow.bijection(one)[0]))(x)
    torch.testing.assert_close(J.slogdet().logabsdet, flow.bijection(x)[1])
    torch.testing.assert_close(vmap(flow.log_prob)(x), flow.log_prob(x))


# --- words ---


def test_a_recipe_is_built_without_memory():
    with torch.device("meta"):
        flow = realnvp(2, 2, hidden=(4,))
    assert all(p.device.type == "meta" for p in flow.parameters())


def test_not_a_number_has_no_density_and_says_so():
    assert StandardUniform(2).log_prob(torch.tensor([math.nan, 0.5])).isnan()


def test_a_model_in_float64_by_default_takes_toys_that_are_not():
    torch.set_default_dtype(torch.float64)
    try:
        flow = realnvp(2, 2, hidden=(4,))
        fit(flow, TwoMoons().sample(30, generator()), steps=2, progress=False)
        assert isinstance(flow, Flow) and flow.log_prob([[0.0, 1.0]]).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


TINY = {"1e-40": np.float32(1e-40), "1e-30": np.float32(1e-30), "1e30": np.float32(1e30)}


@pytest.mark.parametrize("name", TINY)
def test_numbers_near_the_ends_of_float32_train(name):
    x = normal(60, 2).float().numpy() * TINY[name]
    flow = realnvp(2, 2, hidden=(4,), generator=generator())
    assert fit(flow, x, steps=3, progress=False).step == 3
    assert flow.log_prob(x).isfinite().all()
