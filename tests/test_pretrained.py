"""The flows that come with the package are what their cards say, and what their command makes."""

import itertools

import pytest
import torch

from flowlab import Flow, models, pretrained
from flowlab.mixtures import FlowMixture
from flowlab.pretrained import make

NAMES = list(make.PLANS)


def test_the_plans_and_the_files_are_the_same():
    assert sorted(pretrained.cards()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_evaluates_to_its_card(name):
    card, plan = pretrained.cards()[name], make.PLANS[name]
    assert {"model", "recipe", "data", "training", "steps", "protocol", "metrics", "hardware", "versions"} <= set(card)
    flow, exact, x = pretrained.load(name), pretrained.density(name), make.held_out(plan)
    assert isinstance(flow, Flow | FlowMixture) and type(flow).__name__ == card["model"] and not flow.training
    with torch.no_grad():
        log_p, log_q = exact.log_prob(x).mean().item(), flow.log_prob(x).mean().item()
    metrics = card["metrics"]
    assert log_q == pytest.approx(metrics["log_likelihood"], abs=2e-3)
    assert log_p == pytest.approx(metrics["exact"], abs=2e-3)
    assert metrics["gap"] == pytest.approx(metrics["exact"] - metrics["log_likelihood"], abs=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_how_it_was_made(name):
    card, plan = pretrained.cards()[name], make.PLANS[name]
    built = getattr(models, plan.recipe)(2, **plan.settings).recipe
    assert card["recipe"]["name"] == built["name"]
    assert torch.tensor(card["recipe"]["settings"]["hidden"]).tolist() == list(built["settings"]["hidden"])
    assert card["data"]["name"] == plan.data and card["training"]["seed"] == plan.seed
    assert (pretrained.FOLDER / f"{name}.safetensors").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", ["ring_affine_4", "blobs_spline_2"])
def test_its_command_makes_it(name):
    """The first steps of the training again, against what the file kept of them."""
    flow, loop = make.training_run(make.PLANS[name])
    (last,) = itertools.islice(loop, 9, 10)
    kept = pretrained.load(name, step=10)
    for (_, now), (key, then) in zip(flow.state_dict().items(), kept.state_dict().items(), strict=True):
        torch.testing.assert_close(now, then, rtol=1e-3, atol=1e-4, msg=f"{key} at step {last.step}")


def test_the_pinwheel_comes_within_two_tenths_of_a_nat_and_affine_couplings_do_not():
    gaps = {name: pretrained.cards()[name]["metrics"]["gap"] for name in ("pinwheel_spline", "pinwheel_affine")}
    assert gaps["pinwheel_spline"] < 0.1 < 0.2 < gaps["pinwheel_affine"] < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_training_brought_it_closer(name):
    flows, exact = pretrained.trajectory(name), pretrained.density(name)
    assert list(flows) == pretrained.cards()[name]["steps"] and next(iter(flows)) == 0
    x = exact.sample(2000, torch.Generator().manual_seed(3))
    with torch.no_grad():
        first, *_, last = (float(flow.log_prob(x).mean()) for flow in flows.values())
    assert last > first


def test_replay_keeps_each_step_apart():
    flow, loop = make.training_run(make.PLANS["ring_affine_1"])
    history = list(itertools.islice(loop, 31))[-1]
    loop.close()
    flows = pretrained.replay(flow, history)
    assert list(flows) == [0, 10, 30, 31] and flows[31] is flow
    x = make.held_out(make.PLANS["ring_affine_1"])[:200]
    with torch.no_grad():
        assert len({round(float(past.log_prob(x).mean()), 4) for past in flows.values()}) == 4


def test_unknown_names_and_steps_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"no pretrained flow 'ring'.*ring_affine_1"):
        pretrained.load("ring")
    with pytest.raises(ValueError, match=r"kept at the steps \[0, 10"):
        pretrained.load("ring_affine_1", step=11)


def test_the_command_refuses_unknown_names(capsys):
    assert make.main([]) == 2 and make.main(["ring"]) == 2
    assert "ring_affine_1" in capsys.readouterr().err
