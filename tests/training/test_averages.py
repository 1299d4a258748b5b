"""The average of the weights: what it is, and where it stands in for them."""

import pytest
import torch
from runs import gaussian, quiet, same, small, state, with_batchnorm

from flowlab import Flow, fit
from flowlab.bijections import FullAffine
from flowlab.densities import StandardNormal


def test_the_model_ends_with_the_average_of_its_weights():
    flow, past = with_batchnorm(), []
    settings = {"steps": 30, "batch_size": 64, "learning_rate": 0.05}
    fit(flow, gaussian(), ema=0.8, progress=lambda history: past.append(state(flow)), **settings)
    learned, average = dict(flow.named_parameters()), past[0]
    for t, weights in enumerate(past[1:], 2):
        d = min(0.8, (1 + t) / (10 + t))
        average = {n: d * average[n] + (1 - d) * w if n in learned else w for n, w in weights.items()}
    torch.testing.assert_close(state(flow), average)
    for name in state(flow).keys() - learned.keys():  # buffers: running statistics, and whether a layer has started
        assert torch.equal(state(flow)[name], past[-1][name]), name
    assert not same(state(flow), past[-1]) and bool(flow.bijection[2].initialized)


def test_an_average_changes_no_step_and_is_what_is_validated_and_kept():
    settings = {"steps": 60, "batch_size": 64, "learning_rate": 0.05, "snapshots": range(0, 61, 5)}
    settings |= {"validation": gaussian(seed=1), "validate_every": 5}
    plain, averaged = small(), small()
    without, history = quiet(plain, gaussian(), **settings), quiet(averaged, gaussian(), ema=0.9, **settings)
    assert history.loss == without.loss and history.validation != without.validation
    assert same(state(averaged), history.snapshots[history.best_step])
    for step, snapshot in history.snapshots.items():
        averaged.load_state_dict(snapshot)
        if step:
            held_out = -averaged.log_prob(settings["validation"]).mean().item()
            assert held_out == pytest.approx(history.validation[step], rel=1e-6)


def test_an_average_does_not_hold_a_short_run_back():
    def held_out(ema: float | None) -> float:
        flow = Flow(FullAffine(2), StandardNormal(2))
        quiet(flow, gaussian(4000), steps=150, learning_rate=0.05, ema=ema)
        return -flow.log_prob(gaussian(4000, seed=1)).mean().item()

    assert held_out(0.9999) < held_out(None) + 0.1
