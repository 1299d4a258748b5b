"""A setting of another kind, or out of range, ends a run before it begins, in words."""

import math

import numpy as np
import pytest
import torch
from runs import gaussian, generator, quiet, small

from flowlab import fit, flow_for, models, realnvp
from flowlab.training import negative_log_likelihood
from flowlab.training.settings import Settings

WRONG = [
    ({"batch_size": None}, "batch_size to be a whole number, but got None"),
    ({"checkpoint_every": None}, "checkpoint_every to be a whole number, but got None"),
    ({"batch_size": "32"}, "batch_size to be a whole number, but got '32'"),
    ({"epochs": 0}, "at least one step, but got 0"),
    ({"epochs": 2.5}, "epochs to be a whole number, but got 2.5"),
    ({"learning_rate": -1e-3}, "learning_rate to be a finite number .* but got -0.001"),
    ({"learning_rate": math.nan}, "learning_rate to be a finite number .* but got nan"),
    ({"learning_rate": math.inf}, "learning_rate to be a finite number .* but got inf"),
    ({"clip": 0}, "clip to be a finite number above 0, but got 0"),
    ({"clip": -1.0}, "clip to be a finite number above 0, but got -1.0"),
    ({"clip": math.nan}, "clip to be a finite number above 0, but got nan"),
    ({"ema": 1.0}, "ema as a decay between 0 and 1"),
    ({"restart": "no"}, "restart to be True or False, but got 'no'"),
    ({"compile": "yes"}, "compile to be True or False, but got 'yes'"),
    ({"tf32": None}, "tf32 to be True or False, but got None"),
    ({"seed": None}, "seed to be a whole number, but got None"),
    ({"validation": 1}, "held-out data, True, False or a share .* but got 1"),
    ({"validation": 20}, "held-out data, True, False or a share .* but got 20"),
    ({"validation": np.int64(3)}, "held-out data, True, False or a share .* but got 3"),
    ({"validation": 1.0}, "a share of the data between 0 and 1, but got 1.0"),
    ({"validation": 0.001}, "holds out some of the rows and leaves some, but got 0.001 of 60"),
    ({"validation": 0.999}, "holds out some of the rows and leaves some, but got 0.999 of 60"),
    ({"progress": "bar"}, "progress as True, False or a function of the History, but got 'bar'"),
]


@pytest.mark.parametrize("settings, words", WRONG, ids=lambda value: str(value))
def test_what_is_wrong_is_named(settings, words):
    with pytest.raises((TypeError, ValueError), match=rf"^fit expected {words}|^fit expected .*{words}"):
        fit(small(), gaussian(60), **{"steps": 2, "progress": False} | settings)


def test_numbers_of_numpy_are_numbers():
    for share in (0.25, np.float32(0.25), np.float64(0.25), np.True_, True):
        assert quiet(small(), gaussian(60), steps=np.int32(2), validation=share).held_out == 15
    assert Settings(validation=np.False_).share(60) is False
    assert quiet(small(), gaussian(60), steps=2, learning_rate=np.float32(0.01), restart=np.False_).step == 2


@pytest.mark.parametrize("model", (None, realnvp, gaussian(3), "realnvp"), ids=lambda model: type(model).__name__)
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError, match=r"fit expected a model, a torch\.nn\.Module, but got"):
        fit(model, gaussian(60), steps=1, progress=False)


def test_one_row_and_more_parts_than_a_density_has_are_refused():
    with pytest.raises(ValueError, match=r"the data as \(N, 2\), but got \(2,\): one row alone is x\[None\]"):
        quiet(small(), torch.zeros(2), steps=1)
    x = gaussian(60)
    flow = realnvp(2, 1, hidden=(4,), context_features=1, generator=generator())
    with pytest.raises(ValueError, match=r"x or \(x, context\), but got a tuple of 3: put several contexts side"):
        quiet(flow, (x, x[:, 0], x[:, 1]), steps=1)
    quiet(flow, (x, x[:, :1], x), steps=1, objective=lambda m, b, s: negative_log_likelihood(m, b[:2], s))


@pytest.mark.parametrize("build", (realnvp, models.nice, models.maf, models.spline_flow, models.table_flow))
def test_a_seed_is_no_generator(build):
    with pytest.raises(TypeError, match=r"Expected a torch\.Generator, such as torch\.Generator\(\).manual"):
        build(2, generator=0)
    with pytest.raises(TypeError, match=r"Expected a torch\.Generator, such as"):
        build(2).sample(3, 0)
    with pytest.raises(TypeError, match="a temperature above 0, a number, but got 'warm'"):
        build(2).sample(3, temperature="warm")
    with pytest.raises(TypeError, match=r"Expected a torch\.Generator"):
        flow_for(gaussian(60), generator=3)
