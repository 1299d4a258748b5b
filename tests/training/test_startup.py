"""Only a run starts the layers that start from data: from its first batch, once, and it says when other data come."""

import numpy as np
import pytest
import torch
from runs import gaussian, generator, quiet, same, small, state
from torch import Generator, Tensor, nn

from flowlab import Flow, fit, realnvp
from flowlab.bijections import ActNorm, Chain, FullAffine, starting
from flowlab.densities import StandardNormal
from flowlab.models import glow, maf
from flowlab.training import Step, negative_log_likelihood, train


def test_a_look_before_the_fit_changes_nothing_of_it():
    looked, straight = small(), small()
    looked.log_prob(100 * torch.randn(50, 2, generator=generator()) + 1000)
    looked.log_prob(torch.zeros(2))
    assert same(state(looked), state(straight))
    losses = [quiet(flow, gaussian(), steps=20).loss for flow in (looked, straight)]
    assert losses[0] == losses[1] and same(state(looked), state(straight)) and looked.bijection[0].started


@pytest.mark.parametrize("shards", (1, 3))
def test_layers_start_from_the_whole_first_batch(shards):
    flow, x = small(), gaussian(90) * 30 + 500
    quiet(flow, x, steps=1, batch_size=90, shards=shards, learning_rate=0.0)
    with torch.no_grad():
        z = flow.bijection[0](x)[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)


OTHERS = {
    "far off": lambda x: x + 1000,
    "far wider": lambda x: 100 * x,
    "far narrower": lambda x: x / 100,
    "one coordinate": lambda x: x + torch.tensor([0.0, 90.0]),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_data_far_from_those_that_a_model_was_started_on_are_said(change, recwarn):
    flow, x = small(), gaussian()
    quiet(flow, x, steps=50)
    assert not recwarn.list
    with pytest.warns(
        UserWarning, match=r"started on other data: .* Build a new model .* by fit\(\.\.\., restart=True\)"
    ) as said:
        history = quiet(flow, change(x), steps=50)
    assert len(said) == 1 and history.step == 50


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_a_restart_fits_other_data_as_a_new_model_would(change, recwarn):
    x = change(gaussian())
    flow, fresh = small(), small()
    quiet(flow, gaussian(), steps=50)
    ends = [quiet(flow, x, steps=150, restart=True).loss[-1], quiet(fresh, x, steps=150, restart=True).loss[-1]]
    assert ends[0] == pytest.approx(ends[1], abs=0.1) and not recwarn.list


def test_data_like_those_before_are_trained_on_without_a_word(recwarn):
    flow = realnvp(2, layers=4, hidden=(8,), generator=generator())
    quiet(flow, gaussian(), steps=150, learning_rate=0.02)
    before = state(flow)
    quiet(flow, gaussian(seed=1) * 1.5 + 0.5, steps=1, learning_rate=0.0)
    assert same(state(flow), before), "what it had learned is where it was"
    constant = torch.cat((gaussian()[:, :1], torch.ones(400, 1)), -1)
    quiet(flow, constant, steps=1, learning_rate=0.0, objective=lambda *now: negative_log_likelihood(*now))
    assert not recwarn.list


def test_models_of_which_no_layer_starts_from_data_are_asked_nothing(recwarn):
    flow = Flow(FullAffine(2), StandardNormal(2))
    quiet(flow, gaussian(), steps=2)
    quiet(flow, gaussian() + 1000, steps=2, restart=True)
    quiet(flow, gaussian() + 1000, steps=2)
    assert not [w for w in recwarn if "started on other data" in str(w.message)]


def test_the_first_layer_that_data_reach_is_the_one_that_is_asked():
    """In a MAF there are normalizations further on, which may be anywhere; images come channel by channel."""
    flow = maf(2, 3, hidden=(8,), generator=generator())
    quiet(flow, gaussian(), steps=30)
    with torch.no_grad():
        flow.bijection[4].log_scale.fill_(5.0)
    assert isinstance(flow.bijection[4], ActNorm)
    quiet(flow, gaussian(), steps=1, learning_rate=0.0)
    pixels = torch.rand(40, 64, generator=generator())
    images = glow((1, 8, 8), levels=1, steps=1, hidden=4, logit=None, generator=generator())
    quiet(images, pixels, steps=2)
    with pytest.warns(UserWarning, match="started on other data"):
        quiet(images, 1000 * pixels, steps=1)


def test_looking_at_the_data_costs_one_pass_up_to_that_layer():
    seen: list[str] = []

    class Told(FullAffine):
        def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            seen.append("further on")
            return super().forward(x, context)

    flow = Flow(Chain([ActNorm(2), Told(2)]), StandardNormal(2))
    quiet(flow, gaussian(), steps=1)
    assert len(seen) == 2, "one pass to start, and one step"
    quiet(flow, gaussian(), steps=1)
    assert len(seen) == 3


def test_a_run_that_goes_on_starts_nothing(tmp_path, recwarn):
    settings = {"steps": 12, "checkpoint": tmp_path / "run.safetensors", "restart": True}
    straight = small()
    quiet(straight, gaussian(), **{**settings, "checkpoint": None})
    for history in train(small(), gaussian(), **settings):
        if history.step == 5:
            break
    resumed = small()
    quiet(resumed, gaussian(), **settings)
    assert same(state(resumed), state(straight)) and not recwarn.list


def test_a_step_of_zero_rate_leaves_a_started_model_alone():
    flow = small()
    quiet(flow, gaussian(), steps=5)
    before = state(flow)
    quiet(flow, gaussian(seed=2), steps=3, learning_rate=0.0)
    assert same(state(flow), before)


class Noisy(nn.Module):
    """Takes noise, and has a layer that starts from data."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.seen = ActNorm(2), []

    def forward(self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        noise = torch.randn(x.shape, generator=generator)
        self.seen.append(float(noise.sum()))
        z, log_det = self.norm(x + noise)
        return log_det - z.square().sum(-1)


def test_the_pass_that_starts_them_is_that_of_the_first_step():
    model = Noisy()
    quiet(model, gaussian(), steps=2)
    assert model.seen[0] == model.seen[1] != model.seen[2]


def test_arrays_start_them_too():
    flow = realnvp(2, layers=2, hidden=(8,))
    fit(flow, np.random.default_rng(0).normal((2460000, 12), (30, 0.5), (300, 2)), steps=2, progress=False)
    assert flow.bijection[0].started


def later(model: Flow, batch: Tensor, step: Step) -> Tensor:
    """An objective that leaves the flow alone for three steps, as a mixture whose q is trained first."""
    if step.index < 3:
        return sum((p**2).sum() for p in model.parameters()) * 0
    return negative_log_likelihood(model, batch, step)


@pytest.mark.parametrize("shards", (1, 3))
def test_layers_that_no_batch_reaches_at_first_start_from_the_first_that_does(shards):
    flow, x, started = small(), gaussian(90) * 30 + 500, []
    how = {"steps": 6, "batch_size": 90, "shards": shards, "learning_rate": 0.0}
    for _ in train(flow, x, objective=later, **how):
        started.append(flow.bijection[0].started)
    assert started == [False, False, False, True, True, True]
    with torch.no_grad():
        z = flow.bijection[0](x)[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-4, rtol=0)


def test_a_run_that_was_broken_off_before_they_started_starts_them_too(tmp_path):
    x, file, straight, resumed = gaussian(90) * 30 + 500, tmp_path / "run.safetensors", small(), small()
    how = {"steps": 8, "batch_size": 30, "objective": later}
    quiet(straight, x, **how)
    for history in train(small(), x, checkpoint=file, checkpoint_every=1, **how):
        if history.step == 2:
            break
    quiet(resumed, x, checkpoint=file, **how)
    assert same(state(resumed), state(straight)) and resumed.bijection[0].started


def test_of_two_batches_in_one_pass_the_first_starts_them():
    flow, first, second = small(), gaussian(50) + 40, gaussian(50) * 9
    with starting(flow), torch.no_grad():
        flow.log_prob(first)
        flow.log_prob(second)
    with torch.no_grad():
        z = flow.bijection[0](first)[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
