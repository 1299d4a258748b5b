"""The flow made by hand is an exact flow, and its explorer can be dragged, trained, stopped and scrubbed."""

import asyncio
import math

import numpy as np
import pytest
import torch
from torch.func import jacrev, vmap

from flowlab.lessons.start_here.explorer import BendTheGaussian
from flowlab.lessons.start_here.figures import START, hand_flow

BENT = {"size": 1.7, "push": 0.4, "wings": 0.7, "swirl": 0.6}


def test_each_step_has_its_inverse_and_its_log_det():
    x = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bijection = hand_flow(**BENT).bijection
    for step in [*bijection, bijection]:
        z, log_det = step(x)
        back, back_log_det = step.inverse(z)
        jacobian = vmap(jacrev(lambda one, step=step: step(one)[0]))(x)
        assert torch.allclose(log_det, torch.linalg.slogdet(jacobian).logabsdet, atol=1e-9)
        assert torch.allclose(back, x, atol=1e-9) and torch.allclose(log_det, -back_log_det, atol=1e-9)


def test_the_hand_made_density_integrates_to_one():
    line = torch.linspace(-10, 10, 1000)
    p = hand_flow(**BENT).log_prob(torch.cartesian_prod(line, line)).exp()
    assert abs(float(p.sum()) * (20 / 999) ** 2 - 1) < 1e-3


def test_untouched_it_is_the_gaussian():
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(hand_flow(**START).log_prob(x), -0.5 * x.square().sum(-1) - math.log(2 * math.pi), atol=1e-5)


@pytest.fixture
def explorer():
    return BendTheGaussian(steps=60)


def test_a_gripped_point_of_the_grid_follows_the_hand(explorer):
    explorer.set(**BENT)
    z, _ = hand_flow(**BENT).bijection(torch.tensor([[1.2, 0.8]]))
    explorer.on_pointer("down", explorer.picture.yours, 1.2, 0.8)
    for t in np.linspace(0, 1, 6):
        explorer.on_pointer("move", explorer.picture.yours, 1.2 - t, 0.8 + 0.9 * t)
    x, _ = hand_flow(**explorer.values()).bijection.inverse(z)
    assert torch.allclose(x, torch.tensor([[0.2, 1.7]]), atol=0.03)
    explorer.on_pointer("up", explorer.picture.yours, 0.2, 1.7)
    before = explorer.values()
    explorer.on_pointer("move", explorer.picture.yours, 2.0, 2.0)
    explorer.on_pointer("down", explorer.picture.race, 2.0, 2.0)
    explorer.on_pointer("move", explorer.picture.race, 20.0, 1.0)
    assert explorer.values() == before and explorer.errors == []


def test_training_lowers_the_gauge_and_can_be_scrubbed(explorer):
    assert "snapshot" not in explorer.controls
    start = explorer.numbers["trained flow"]
    explorer.start_button.click()
    assert explorer.errors == [] and explorer.progress.value == 60 and not explorer.start_button.disabled
    assert explorer.numbers["trained flow"] < 0.5 * start and explorer.numbers["after training step"] == "60"
    last = explorer.picture.png()
    explorer.scrub.value = 0
    assert explorer.numbers["trained flow"] == start and explorer.picture.png() != last
    explorer.scrub.value = explorer.scrub.max
    assert explorer.picture.png() == last
    explorer.start_button.click()
    assert explorer.picture.png() == last, "the same training gives the same picture"


def test_training_stops_when_asked():
    explorer = BendTheGaussian(steps=100_000)

    async def press():
        explorer.start_button.click()
        assert explorer.start_button.disabled and not explorer.stop_button.disabled, "one run at a time"
        await asyncio.sleep(0.6)
        explorer.controls["swirl"].value = 0.5  # the sliders stay alive meanwhile
        explorer.stop_button.click()
        await asyncio.sleep(0.4)

    asyncio.run(press())
    assert explorer.errors == [] and 0 < explorer.progress.value < 100_000
    assert explorer.stop_button.disabled and not explorer.start_button.disabled
