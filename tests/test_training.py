"""The training loop: what it learns, keeps and records, how it stops, and that a killed run goes on bit for bit.

Run as a script, ``python test_training.py FOLDER`` trains models in processes that it kills over and over.
"""

import functools
import json
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forking import momentum, ready_to_fork
from torch import Generator, Tensor, nn

from flowlab import Flow, fit, nice, realnvp, training
from flowlab.bijections import ActNorm, AffineCoupling, BatchNorm, Chain, FullAffine, Logit, ScaleShift
from flowlab.densities import Dequantized, StandardNormal, StandardUniform, negative_bound
from flowlab.densities.mixtures import Interleaved, Objective
from flowlab.training import (
    CheckpointError,
    CompilerMissing,
    History,
    NonFiniteLoss,
    OutOfMemory,
    Step,
    checkpoints,
    compiled,
    load_checkpoint,
    loop,
    negative_log_likelihood,
    read_checkpoint,
    save_checkpoint,
    train,
)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def gaussian(n: int = 400, mean: float = 2.0, seed: int = 0) -> Tensor:
    """Correlated normal points (n, 2)."""
    return torch.randn(n, 2, generator=generator(seed)) @ torch.tensor([[1.5, 0.4], [0.0, 0.7]]) + mean


def small(seed: int = 0) -> Flow:
    return realnvp(2, layers=2, hidden=(8,), generator=generator(seed))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def quiet(model: nn.Module, data: object, **settings) -> History:
    return fit(model, data, progress=False, **settings)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_a_gaussian_is_learned_to_its_entropy():
    flow, x = Flow(FullAffine(2), StandardNormal(2)), gaussian(4000)
    history = quiet(flow, x, steps=400, learning_rate=0.03)
    C = x.T.cov()
    entropy = 0.5 * float(torch.logdet(2 * math.pi * math.e * C))
    assert history.loss[0] > entropy + 1
    assert -flow.log_prob(x).mean().item() == pytest.approx(entropy, abs=0.01)
    assert history.step == history.total == len(history.loss) == 400 and history.stopped == "finished 400 steps"
    assert history.seconds > 0 and not flow.training


def test_a_realnvp_learns_what_no_linear_map_can():
    a, b = torch.randn(2, 1000, generator=generator())
    x = torch.stack((a, b / 4 + a**2), dim=-1)
    flow = small()
    history = quiet(flow, x, steps=200, batch_size=200, learning_rate=0.02)
    gaussian_at_best = 0.5 * float(torch.logdet(2 * math.pi * math.e * x.T.cov()))
    assert np.mean(history.loss[-20:]) < gaussian_at_best - 0.5 < history.loss[0]


def test_seeds_decide_everything():
    def run(seed: int, around: int) -> tuple[list[float], dict[str, Tensor]]:
        torch.manual_seed(around)
        before, flow = torch.get_rng_state(), small()
        history = quiet(flow, gaussian(), steps=12, batch_size=64, seed=seed, objective=noisy)
        assert torch.equal(torch.get_rng_state(), before), "the global seed was touched"
        return history.loss, state(flow)

    def noisy(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        return -model(batch + 0.1 * torch.randn(batch.shape, generator=step.generator)).mean()

    (loss_a, a), (loss_b, b), (loss_c, _) = run(1, 0), run(1, 99), run(2, 0)
    assert loss_a == loss_b and same(a, b) and loss_a != loss_c


def test_each_epoch_draws_every_row_once_in_a_new_order():
    rows, noise = [], []

    def record(model: nn.Module, batch: tuple[Tensor, Tensor], step: Step) -> Tensor:
        number, label = batch
        assert torch.equal(label, (10 * number.squeeze(-1)).long()), "the parts are cut alike"
        rows.append(number.squeeze(-1).tolist())
        noise.append((step.index, step.total, float(torch.rand((), generator=step.generator))))
        return model.bijection.shift.square().sum()

    data = torch.arange(20.0).unsqueeze(-1), 10 * torch.arange(20)
    history = quiet(Flow(ScaleShift(1), StandardNormal(1)), data, epochs=3, batch_size=5, objective=record)
    assert history.total == 12 and [len(r) for r in rows] == [5] * 12
    epochs = [[row for batch in rows[4 * i : 4 * i + 4] for row in batch] for i in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3 and epochs[0] != sorted(epochs[0])
    assert [n[:2] for n in noise] == [(i, 12) for i in range(12)] and len({n[2] for n in noise}) == 12


def test_a_batch_larger_than_the_data_is_the_data():
    history = quiet(small(), gaussian(30), epochs=4, batch_size=512)
    assert history.total == 4
    assert fit(small(), gaussian(30), steps=3, progress=False).total == 3


def test_the_gradient_is_clipped():
    def moved(clip: float | None) -> float:
        f = ScaleShift(1)
        sgd = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
        quiet(f, torch.ones(5, 1), steps=1, clip=clip, optimizer=sgd, objective=lambda m, b, s: 30 * m.shift.sum())
        return -f.shift.item()

    assert (
        moved(None) == pytest.approx(30) and moved(100) == pytest.approx(30) and moved(2) == pytest.approx(2, rel=1e-4)
    )


@pytest.mark.parametrize(
    "schedule, law",
    (
        ("cosine", lambda u: 0.5 * (1 + math.cos(math.pi * u))),
        ("constant", lambda u: 1.0),
        (lambda u: 1 - u, lambda u: 1 - u),
    ),
    ids=("cosine", "constant", "function"),
)
def test_schedules(schedule, law):
    rates, made = [], []

    def sgd(parameters) -> torch.optim.Optimizer:
        made.append(torch.optim.SGD(parameters, lr=0.5))
        return made[0]

    def record(history: History) -> None:
        rates.append(made[0].param_groups[0]["lr"])

    fit(small(), gaussian(), steps=8, schedule=schedule, optimizer=sgd, progress=record)
    assert rates == pytest.approx([0.5 * law(i / 8) for i in range(8)])


def test_learning_rate_reaches_adam():
    f = ScaleShift(1)
    quiet(f, torch.ones(5, 1), steps=1, learning_rate=0.25, objective=lambda m, b, s: m.shift.sum())
    assert f.shift.item() == pytest.approx(-0.25, rel=1e-4)  # Adam's first step has the size of the rate


# --- validation, early stopping, snapshots ----------------------------------------------------------------------------


def drift(**settings) -> tuple[Flow, History]:
    """A run that passes the best place for its validation data on the way: data at 3, validation at 1."""
    flow = Flow(ScaleShift(1), StandardNormal(1))
    x, held_out = (torch.randn(200, 1, generator=generator(1)) + mean for mean in (3.0, 1.0))
    settings = {"learning_rate": 0.05, "schedule": "constant", "validate_every": 5, **settings}
    return flow, quiet(flow, x, validation=held_out, steps=100, **settings)


def test_the_best_weights_on_validation_are_kept():
    flow, history = drift(snapshots=range(0, 101, 5))
    assert list(history.validation) == list(range(5, 101, 5))
    best = min(history.validation, key=history.validation.get)
    assert history.best_step == best and 5 < best < 60, "the best lies in the middle"
    assert same(state(flow), history.snapshots[best]) and not same(state(flow), history.snapshots[100])
    held_out = torch.randn(200, 1, generator=generator(1)) + 1.0
    assert -flow.log_prob(held_out).mean().item() == pytest.approx(history.validation[best], rel=1e-5)
    assert history.step == 100 and history.stopped == "finished 100 steps"


def test_validation_is_measured_in_evaluation_mode_and_over_all_rows():
    seen = []

    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        assert model.training == torch.is_grad_enabled(), "trains in training mode, after a validation too"
        if model.training:
            return model.bijection.shift.sum()
        seen.append(len(batch))
        return batch.mean()

    data = torch.arange(5000.0).unsqueeze(-1)
    flow = Flow(ScaleShift(1), StandardNormal(1))
    history = quiet(flow, data[:50], validation=data, steps=3, validate_every=1, objective=objective)
    assert history.validation == {step: pytest.approx(2499.5) for step in (1, 2, 3)} and sum(seen) == 3 * 5000


def test_patience_stops_early():
    flow, history = drift(patience=3, snapshots=range(0, 101, 5))
    after = [step for step in history.validation if step > history.best_step]
    assert len(after) == 3 and history.step == max(after) < 100
    assert history.stopped == f"stopped early at step {history.step}: 3 validations without a new best"
    assert same(state(flow), history.snapshots[history.best_step])


def test_snapshots_are_copies_at_the_steps_asked_for():
    flow = small()
    start = state(flow)
    history = quiet(flow, gaussian(), steps=40, snapshots=(0, 1, 7, 40), learning_rate=0.05)
    assert list(history.snapshots) == [0, 1, 7, 40]
    assert same(history.snapshots[0], start) and same(history.snapshots[40], state(flow))
    assert not same(history.snapshots[1], history.snapshots[7])
    again = small()
    quiet(again, gaussian(), steps=40, learning_rate=0.05)
    assert same(state(again), state(flow)), "looking changes nothing"


def test_a_count_of_snapshots_is_denser_at_the_start():
    taken = list(quiet(small(), gaussian(), steps=64, snapshots=9).snapshots)
    assert taken == [0, 1, 4, 9, 16, 25, 36, 49, 64]
    assert list(quiet(small(), gaussian(), steps=5, snapshots=1).snapshots) == [0]
    assert quiet(small(), gaussian(), steps=5).snapshots == {}


# --- the average of the weights ---------------------------------------------------------------------------------------


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


# --- stopping ---------------------------------------------------------------------------------------------------------


def interrupt_at(*indices: int) -> training.Objective:
    """Press Ctrl-C in the middle of these steps."""

    @functools.wraps(negative_log_likelihood)  # by its name, so that a run without interrupts goes on from this one
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        if step.index in indices:
            os.kill(os.getpid(), signal.SIGINT)
        return negative_log_likelihood(model, batch, step)

    return objective


def test_an_interrupt_stops_after_the_step_and_keeps_the_model():
    flow, straight = small(), small()
    handler = signal.getsignal(signal.SIGINT)
    settings = {"schedule": "constant", "batch_size": 50}
    history = quiet(flow, gaussian(), steps=1000, objective=interrupt_at(5), **settings)
    assert history.step == 6 and history.stopped == "interrupted after step 6 of 1000"
    assert not flow.training and signal.getsignal(signal.SIGINT) is handler
    quiet(straight, gaussian(), steps=6, **settings)
    assert same(state(flow), state(straight))


def test_an_interrupt_from_outside_stops_too():
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        history = quiet(small(), gaussian(), steps=10**7)
    finally:
        timer.cancel()
    assert history.stopped.startswith("interrupted after step") and 0 < history.step < 10**7


def test_a_second_interrupt_stops_at_once():
    flow = small()
    handler = signal.getsignal(signal.SIGINT)

    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        if step.index == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("went on after the second interrupt")
        return negative_log_likelihood(model, batch, step)

    with pytest.raises(KeyboardInterrupt):
        quiet(flow, gaussian(), steps=1000, objective=objective)
    assert not flow.training and signal.getsignal(signal.SIGINT) is handler
    assert torch.isfinite(flow.log_prob(gaussian())).all()


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path):
    flow, resumed, straight = small(), small(1), small()
    settings = {"steps": 40, "batch_size": 64, "checkpoint": tmp_path / "run.safetensors"}
    stopped = quiet(flow, gaussian(), objective=interrupt_at(17), **settings).stopped
    assert stopped == f"interrupted after step 18 of 40; the same call goes on from there, by {settings['checkpoint']}"
    assert same(read_checkpoint(settings["checkpoint"])[0], state(flow)), "what it had is in the file"
    history = quiet(resumed, gaussian(), **settings)
    quiet(straight, gaussian(), **{**settings, "checkpoint": None})
    assert history.step == 40 and history.stopped == "finished 40 steps" and same(state(resumed), state(straight))


def test_training_runs_outside_the_main_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(quiet(small(), gaussian(), steps=5)))
    thread.start()
    thread.join()
    assert done[0].step == 5


def test_a_loop_that_is_left_early_keeps_the_model():
    flow = small()
    steps = train(flow, gaussian(), steps=50)
    history = next(steps)
    assert history.step == 1 and flow.training and next(steps) is history and history.step == 2
    assert history.stopped == "not finished"
    after = state(flow)
    steps.close()
    assert same(state(flow), after) and not flow.training and history.stopped == "stopped after step 2 of 50"


def test_a_loop_that_is_left_early_ends_with_the_best_weights():
    flow = Flow(ScaleShift(1), StandardNormal(1))
    x, held_out = (torch.randn(200, 1, generator=generator(1)) + mean for mean in (3.0, 1.0))
    settings = {"validation": held_out, "validate_every": 5, "schedule": "constant", "learning_rate": 0.05}
    for history in train(flow, x, steps=100, snapshots=range(0, 101, 5), **settings):
        if history.step == 90:
            break
    assert history.best_step < 60 and same(state(flow), history.snapshots[history.best_step]) and not flow.training


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_may_be_a_function():
    seen = []
    history = fit(small(), gaussian(), steps=6, progress=lambda history: seen.append((history, history.step)))
    assert [step for _, step in seen] == [1, 2, 3, 4, 5, 6] and all(h is history for h, _ in seen)


def test_progress_bar_ends_full_and_silence_is_silent(capfd):
    fit(small(), gaussian(), steps=40)
    text = capfd.readouterr()
    assert "40/40" in text.err and "loss" in text.err and "nats" in text.err and text.out == ""
    fit(small(), gaussian(), steps=40, progress=False)
    assert capfd.readouterr() == ("", "")


def test_progress_says_nats_and_for_whole_numbers_bits(capfd):
    pixels = torch.randint(0, 256, (100, 6), generator=generator(), dtype=torch.uint8)
    unit = Flow(Chain([Logit(1e-3), ScaleShift(6)]), StandardNormal(6))
    history = quiet(Dequantized(unit), pixels, steps=20, objective=negative_bound, batch_size=10)
    unit = Flow(Chain([Logit(1e-3), ScaleShift(6)]), StandardNormal(6))
    fit(Dequantized(unit), pixels, steps=20, objective=negative_bound, batch_size=10)
    nats, text = np.mean(history.loss), capfd.readouterr().err
    assert f"loss {nats:.3f} nats, {nats / (6 * math.log(2)):.3f} bits/dim" in text
    assert re.search(r"bits/dim, [\d,]+ images/s", text)
    fit(small(), gaussian(), steps=20)
    text = capfd.readouterr().err
    assert re.search(r"nats, [\d,]+ samples/s", text) and "bits/dim" not in text


def test_an_exception_in_a_callback_is_not_swallowed():
    def fail(history: History) -> None:
        raise RuntimeError("planted")

    flow = small()
    with pytest.raises(RuntimeError, match="planted"):
        fit(flow, gaussian(), steps=5, progress=fail)
    assert not flow.training


# --- what cannot be trained on ----------------------------------------------------------------------------------------


def test_arrays_of_other_dtypes_are_taken():
    x = gaussian()
    flows = small(), small(), small()
    losses = [quiet(f, data, steps=5).loss for f, data in zip(flows, (x, x.double().numpy(), x.tolist()), strict=True)]
    assert losses[0] == losses[1] == losses[2]
    wide = small().double()
    quiet(wide, x, steps=5)
    assert next(wide.parameters()).dtype == torch.float64


@pytest.mark.parametrize("bad", (math.nan, math.inf, -math.inf))
def test_a_bad_row_is_named(bad):
    x = gaussian(50).numpy()
    x[17, 1] = x[31, 0] = bad
    words = rf"has NaN or infinity in 2 of 50 rows, the first in row 17: \[.*{bad}.*\]"
    with pytest.raises(ValueError, match=f"The data {words}"):
        quiet(small(), x)
    with pytest.raises(ValueError, match=f"The validation data {words}"):
        quiet(small(), gaussian(), validation=x)
    with pytest.raises(ValueError, match=r"1 of 3 rows, the first in row 2"):
        quiet(small(), (gaussian(3), torch.tensor([0.0, 0.0, bad])))


def test_a_row_that_overflows_the_dtype_of_the_model_is_named():
    x = gaussian().double()
    x[7, 0] = 1e39
    with pytest.raises(ValueError, match="first in row 7"):
        quiet(small(), x, steps=3)


@pytest.mark.parametrize("held_out", [torch.zeros(10, 3), (torch.zeros(10, 2), torch.zeros(10, 2))])
def test_validation_that_does_not_look_like_the_data_is_refused(held_out):
    with pytest.raises(ValueError, match="validation data should have samples like the data"):
        quiet(small(), gaussian(), steps=3, validation=held_out)


@pytest.mark.parametrize(
    "settings, words",
    (
        ({"data": torch.zeros(0, 2)}, r"should be \(N, ...\) with one N of at least 1, but got \[\(0, 2\)\]"),
        ({"data": torch.tensor(1.0)}, r"but got \[\(\)\]"),
        ({"data": (torch.zeros(5, 2), torch.zeros(4))}, r"one N .* \[\(5, 2\), \(4,\)\]"),
        ({"steps": 5, "epochs": 1}, "steps or epochs, but both"),
        ({"steps": 0}, "at least one step, but got 0"),
        ({"batch_size": 0}, "batch_size to be at least 1, but got 0"),
        ({"validate_every": 0}, "validate_every to be at least 1"),
        ({"checkpoint_every": -1}, "checkpoint_every to be at least 1, but got -1"),
        ({"patience": 0}, "patience to be at least 1"),
        ({"patience": 3}, "patience=3 counts validations, but got no validation data"),
        ({"ema": 1.0}, "decay between 0 and 1, such as 0.999, but got 1.0"),
        ({"schedule": "linear"}, "'cosine', 'constant' or a function, but got 'linear'"),
    ),
)
def test_settings_out_of_range_are_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        quiet(small(), **{"data": gaussian(), **settings})


def test_nothing_to_fit_is_refused_in_words():
    with pytest.raises(ValueError, match="Flow has no trainable parameters, so there is nothing to fit"):
        quiet(small().requires_grad_(False), gaussian())


# --- losses that are not finite ---------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_step_and_stops_before_it():
    for bad in (math.nan, math.inf):
        flow, straight = small(), small()

        def objective(model: nn.Module, batch: Tensor, step: Step, bad: float = bad) -> Tensor:
            loss = negative_log_likelihood(model, batch, step)
            return loss + bad if step.index == 7 else loss

        with pytest.raises(NonFiniteLoss, match=rf"at step 7: the loss is {bad}, while all parameters are finite"):
            quiet(flow, gaussian(), steps=20, objective=objective, schedule="constant")
        quiet(straight, gaussian(), steps=7, schedule="constant")
        assert same(state(flow), state(straight)) and not flow.training


def test_samples_out_of_reach_are_a_loss_that_is_not_finite():
    flow = Flow(ScaleShift(1), StandardUniform(1))
    with pytest.raises(NonFiniteLoss, match=r"step 0: the loss is inf.*log p = -inf"):
        quiet(flow, torch.tensor([[0.5], [7.0]]))


def test_a_validation_loss_that_is_nan_is_loud():
    x = (torch.rand(500, 1, generator=generator()) ** 3).clamp(1e-4, 1 - 1e-4)
    held_out = x[:100].clone()
    held_out[3] = 0.0  # under Logit: -inf, and infinity times zero further on
    flow = Flow(Chain([Logit(), ScaleShift(1)]), StandardNormal(1))
    with pytest.raises(NonFiniteLoss, match="validation loss is NaN"):
        quiet(flow, x, steps=60, validate_every=10, validation=held_out)


def test_a_gradient_that_is_not_finite_is_named():
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        loss = negative_log_likelihood(model, batch, step)
        bias = model.bijection[2].conditioner.last.bias  # neither the first parameter nor the last map
        return loss + (0 * bias).sqrt().sum() if step.index == 3 else loss

    for clip in (10.0, None):
        flow = small()
        with pytest.raises(NonFiniteLoss, match=r"step 3: the gradient of bijection\S*\.2\.conditioner\.last\.bias"):
            quiet(flow, gaussian(), steps=20, objective=objective, clip=clip)
        assert all(torch.isfinite(p).all() for p in flow.parameters())


def test_an_overflowing_norm_is_named():
    with pytest.raises(NonFiniteLoss, match="step 0: the norm of the gradient is not finite"):
        quiet(ScaleShift(2), torch.ones(5, 2), objective=lambda m, b, s: 1e30 * m.shift.sum())


def test_a_parameter_that_is_not_finite_is_named():
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        if step.index == 2:
            model.bijection[1].conditioner.last.bias.data[1] = math.inf
        return negative_log_likelihood(model, batch, step)

    with pytest.raises(
        NonFiniteLoss, match=r"step 2: the parameter bijection\S*\.1\.conditioner\.last\.bias is not finite"
    ):
        quiet(small(), gaussian(), objective=objective)


def test_an_error_ends_with_the_best_weights_and_leaves_the_checkpoint_alone(tmp_path):
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        loss = negative_log_likelihood(model, batch, step)
        return loss * math.nan if step.index == 25 else loss

    flow, file = small(), tmp_path / "run.safetensors"
    settings = {"steps": 40, "checkpoint": file, "checkpoint_every": 10, "validation": gaussian(seed=1)}
    with pytest.raises(NonFiniteLoss):
        quiet(flow, gaussian(), objective=objective, validate_every=20, **settings)
    tensors, _ = read_checkpoint(tmp_path / "run.training.safetensors")
    assert len(tensors["loss"]) == 20 and same(read_checkpoint(file)[0], state(flow))


# --- on a GPU, losses are looked at later; here it is the CPU that looks later ---------------------------------------


def test_looking_later_changes_nothing(tmp_path, monkeypatch):
    settings = {
        "steps": 40,
        "batch_size": 64,
        "validation": gaussian(seed=1),
        "validate_every": 9,
        "snapshots": (4, 40),
    }
    flow, later = small(), small()
    history = quiet(flow, gaussian(), **settings)
    monkeypatch.setitem(loop.STEPS_AHEAD, "cpu", 7)
    kinds = []
    its = fit(later, gaussian(), progress=lambda history: kinds.append(type(history.loss[-1])), **settings)
    assert kinds.count(Tensor) > 20 and its.loss == history.loss and {type(loss) for loss in its.loss} == {float}
    assert its.validation == history.validation and same(its.snapshots[4], history.snapshots[4])
    assert same(state(later), state(flow))
    resumed, settings["checkpoint"] = small(1), tmp_path / "run.safetensors"
    quiet(small(), gaussian(), objective=interrupt_at(17), **settings)
    assert quiet(resumed, gaussian(), **settings).loss == history.loss and same(state(resumed), state(flow))


@pytest.mark.parametrize("bad", ("loss", "gradient"))
def test_looking_later_stops_where_looking_at_once_does(tmp_path, monkeypatch, bad):
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        loss = negative_log_likelihood(model, batch, step)
        bias = model.bijection[2].conditioner.last.bias
        harm = {"loss": math.nan, "gradient": (0 * bias).sqrt().sum()}[bad]
        return loss + harm if step.index == 17 else loss

    words = {"loss": "step 17: the loss is nan", "gradient": r"step 17: the gradient of \S*conditioner\.last\.bias"}[
        bad
    ]
    flow, later, file = small(), small(), tmp_path / "run.safetensors"
    settings = {"steps": 40, "batch_size": 64, "objective": objective, "schedule": "constant"}
    with pytest.raises(NonFiniteLoss, match=words):
        quiet(flow, gaussian(), **settings)
    monkeypatch.setitem(loop.STEPS_AHEAD, "cpu", 7)
    with pytest.raises(NonFiniteLoss, match=words):
        quiet(later, gaussian(), checkpoint=file, checkpoint_every=6, **settings)
    assert same(state(later), state(flow)), "no step was taken from the bad one on"
    assert len(read_checkpoint(tmp_path / "run.training.safetensors")[0]["loss"]) == 12


def test_coarse_products_are_for_steps_alone(request):
    def now() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    usual, _ = now()
    request.addfinalizer(lambda: torch.set_float32_matmul_precision(usual))
    torch.set_float32_matmul_precision("medium")  # as neither steps nor validations have it
    seen, before = set(), now()

    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        seen.add((model.training, *now()))
        return negative_log_likelihood(model, batch, step)

    settings = {"steps": 2, "validation": gaussian(), "validate_every": 1, "objective": objective}
    quiet(small(), gaussian(), tf32=True, **settings)
    assert seen == {(True, "high", True), (False, "highest", False)} and now() == before
    seen.clear()
    quiet(small(), gaussian(), **settings)
    assert seen == {(True, "highest", False), (False, "highest", False)} and now() == before


# --- memory that runs out ---------------------------------------------------------------------------------------------


def too_much() -> Tensor:
    return torch.empty(2**50)


def on_a_gpu() -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("fill", (too_much, on_a_gpu))
def test_memory_that_runs_out_is_said_with_what_to_lower(tmp_path, fill):
    flow, file = small(), tmp_path / "run.safetensors"

    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        return fill().sum() if step.index == 8 else negative_log_likelihood(model, batch, step)

    words = (
        r"step 8: the memory of this cpu is too small for 17 samples at once. Lower batch_size=50, or raise shards=3"
    )
    settings = {"steps": 20, "batch_size": 50, "shards": 3, "objective": objective}
    with pytest.raises(OutOfMemory, match=rf"{words}.* repeat this call\.$"):
        quiet(small(), gaussian(), **settings)
    with pytest.raises(OutOfMemory, match=rf"{words}.* repeat this call, which goes on from step 5\.$"):
        quiet(flow, gaussian(), checkpoint=file, checkpoint_every=5, **settings)
    assert not flow.training and read_checkpoint(file)[1]["step"] == 5


def test_other_errors_of_a_model_are_its_own():
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"):
        quiet(small(), gaussian(), objective=objective)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_checkpoint_brings_weights_and_card(tmp_path):
    file, flow, other = tmp_path / "new" / "flow.safetensors", small(), small(1)
    quiet(flow, gaussian(), steps=3)
    save_checkpoint(file, flow, {"note": "a card is free text", "metrics": {"bits": 1.5}})
    card = load_checkpoint(file, other)
    assert same(state(flow), state(other)) and list(file.parent.iterdir()) == [file]
    assert card["note"] == "a card is free text" and card["metrics"] == {"bits": 1.5} and card["model"] == "Flow"
    assert card["recipe"]["name"] == "realnvp" and card["recipe"]["settings"]["hidden"] == [8]
    assert card["versions"]["torch"] == torch.__version__ and card["hardware"] == "cpu"
    save_checkpoint(file, other, card)  # a card goes into the next file as it is
    assert read_checkpoint(file)[1] == card


def test_a_loaded_model_is_in_evaluation_mode(tmp_path):
    flow = Flow(Chain([BatchNorm(2), AffineCoupling([True, False], (4,))]), StandardNormal(2))
    quiet(flow, gaussian(), steps=30)
    save_checkpoint(tmp_path / "flow.safetensors", flow)
    other = Flow(Chain([BatchNorm(2), AffineCoupling([True, False], (4,))]), StandardNormal(2))
    load_checkpoint(tmp_path / "flow.safetensors", other)
    assert torch.equal(other.log_prob(gaussian() + 4), flow.log_prob(gaussian() + 4))


def test_numbers_from_numpy_are_numbers(tmp_path):
    settings = {
        "batch_size": np.int64(16),
        "seed": np.int64(3),
        "learning_rate": np.float32(1e-3),
        "snapshots": np.int64(2),
    }
    history = quiet(small(), gaussian(), steps=4, checkpoint=tmp_path / "run.safetensors", **settings)
    assert sorted(history.snapshots) == [0, 4]


def test_checkpoint_of_a_run_says_what_was_run(tmp_path):
    flow, file = small(), tmp_path / "run.safetensors"
    settings = {"steps": 20, "batch_size": 32, "learning_rate": 0.01, "seed": 7, "clip": 5.0, "validate_every": 5}
    history = quiet(flow, gaussian(100), validation=gaussian(50, seed=1), checkpoint=file, **settings)
    tensors, card = read_checkpoint(file)
    assert same(tensors, state(flow)), "the weights in the file are those that the model ends with"
    run = card["run"]
    assert (run["steps"], run["batch_size"], run["learning_rate"], run["seed"]) == (20, 32, 0.01, 7)
    assert (run["samples"], run["schedule"], run["clip"]) == (100, "cosine", 5.0)
    assert (card["step"], card["of"]) == (history.best_step, 20)
    assert card["metrics"]["validation_loss"] == history.validation[history.best_step]
    assert "nats" in card["protocol"] and "best on validation" in card["protocol"]
    quiet(small(), gaussian(100), steps=5, checkpoint=tmp_path / "last.safetensors")
    card = read_checkpoint(tmp_path / "last.safetensors")[1]
    assert card["step"] == 5 and "last step" in card["protocol"] and card["metrics"]["validation_loss"] is None


def test_a_finished_run_resumes_as_it_ended(tmp_path):
    flow, again = small().double(), small(1).double()
    settings = {"steps": 20, "checkpoint": tmp_path / "run.safetensors", "snapshots": 3, "validate_every": 5}
    first = quiet(flow, gaussian(), validation=gaussian(seed=1), **settings)
    second = quiet(again, gaussian(), validation=gaussian(seed=1), **settings)
    assert second.loss == first.loss and second.validation == first.validation and second.stopped == first.stopped
    assert second.snapshots.keys() == first.snapshots.keys() and second.best_step == first.best_step
    assert all(same(first.snapshots[step], second.snapshots[step]) for step in first.snapshots)
    assert same(state(flow), state(again)) and not again.training and second.seconds >= first.seconds > 0


def test_an_early_stopped_run_resumes_as_it_ended(tmp_path):
    settings = {"patience": 3, "checkpoint": tmp_path / "run.safetensors"}
    flow, first = drift(**settings)
    assert same(read_checkpoint(settings["checkpoint"])[0], state(flow)), "the best weights are in the file"
    again, second = drift(**settings)
    assert (second.loss, second.stopped) == (first.loss, first.stopped) and same(state(flow), state(again))


@pytest.mark.parametrize(
    "changed",
    (
        {"learning_rate": 0.02},
        {"seed": 1},
        {"steps": 30},
        {"batch_size": 9},
        {"schedule": "constant"},
        {"clip": None},
        {"validate_every": 7},
        {"ema": 0.99},
        {"shards": 2},
        {"validation": gaussian(seed=3)},
        {"objective": lambda model, batch, step: -model(batch).mean()},
        {"objective": Objective("likelihood", consistency=5.0)},
        {"objective": functools.partial(negative_log_likelihood, step=None)},
        {"optimizer": torch.optim.SGD},
        {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=2e-3)},
        {"optimizer": lambda parameters: torch.optim.Adam([{"params": parameters, "weight_decay": 10.0}])},
        {"optimizer": lambda parameters: torch.optim.Adam(parameters, weight_decay=1e-6)},
    ),
    ids=lambda changed: next(iter(changed)),
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, changed):
    file = tmp_path / "run.safetensors"
    settings = {"steps": 10, "batch_size": 50, "checkpoint": file}
    quiet(small(), gaussian(), **settings)
    before, flow = file.read_bytes(), small(1)
    kept = state(flow)
    with pytest.raises(CheckpointError, match=r"another run: it has .* and this run has .* Choose another file"):
        quiet(flow, gaussian(), **{**settings, **changed})
    with pytest.raises(CheckpointError, match="another run"):
        quiet(flow, gaussian(seed=3), **settings)
    assert file.read_bytes() == before and same(state(flow), kept)


def test_what_an_objective_computed_may_be_rounded_otherwise_where_a_run_goes_on():
    x, y = gaussian()[:20], torch.arange(20) % 3
    told = loop._told(Interleaved(x, y))
    assert told == loop._told(Interleaved(x * (1 + 1e-6), y))
    assert told != loop._told(Interleaved(x, y.flip(0))) and told != loop._told(Interleaved(x[:19], y[:19]))


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    file = tmp_path / "run.safetensors"
    quiet(small(), gaussian(), steps=10, checkpoint=file)
    others = {
        r"hidden\.0\.weight is .*8.* there and .*9.* in this Flow": realnvp(2, layers=2, hidden=(9,)),
        r"\.3\.\S+ is absent there": realnvp(2, layers=3, hidden=(8,)),
        r"\.2\.\S+ is \S.* there and absent in this Flow": realnvp(2, layers=1, hidden=(8,)),
    }
    for words, other in others.items():
        kept = state(other)
        with pytest.raises(CheckpointError, match=rf"holds another model: .*{words}"):
            load_checkpoint(file, other)
        with pytest.raises(CheckpointError, match="holds another model"):
            quiet(other, gaussian(), steps=10, checkpoint=file)
        assert same(state(other), kept)


def test_weights_that_another_recipe_would_read_otherwise_are_refused(tmp_path):
    flow = nice(2, prior="logistic")
    save_checkpoint(tmp_path / "flow.safetensors", flow)
    spelled_out = nice(2, 4, prior="logistic", activation="relu")
    load_checkpoint(tmp_path / "flow.safetensors", spelled_out)
    with pytest.raises(CheckpointError, match="holds another model"):
        load_checkpoint(tmp_path / "flow.safetensors", nice(2, prior="normal"))


def test_the_fingerprint_of_data_knows_the_order_of_its_rows(tmp_path):
    settings = {"steps": 20, "checkpoint": tmp_path / "run.safetensors"}
    quiet(small(), gaussian(), **settings)
    with pytest.raises(CheckpointError, match="another run"):
        quiet(small(), gaussian().flip(0), **settings)


def test_weights_without_a_training_file_are_not_run_over(tmp_path):
    file = tmp_path / "flow.safetensors"
    save_checkpoint(file, small())
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=r"exists, but not its training file .*flow\.training\.safetensors"):
        quiet(small(), gaussian(), steps=5, checkpoint=file)
    (tmp_path / "flow.training.safetensors").write_bytes(before)
    with pytest.raises(CheckpointError, match="another run"):
        quiet(small(), gaussian(), steps=5, checkpoint=file)
    assert file.read_bytes() == before


class Hostile:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ("torch.save", "zip", "pickle"))
def test_a_pickle_is_refused_unread(tmp_path, how):
    file, mark = tmp_path / "run.pt", tmp_path / "mark"
    if how == "pickle":
        file.write_bytes(pickle.dumps(Hostile(mark)))
    else:
        torch.save({"weights": Hostile(mark)}, file, _use_new_zipfile_serialization=how == "zip")
    assert not mark.exists()
    file.with_name("run.training.pt").write_bytes(file.read_bytes())
    for call in (
        lambda: read_checkpoint(file),
        lambda: load_checkpoint(file, small()),
        lambda: quiet(small(), gaussian(), checkpoint=file),
    ):
        with pytest.raises(CheckpointError, match=r"is not a safetensors file .* never unpickles"):
            call()
    assert not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))  # the trap works
    assert mark.exists()


def test_a_damaged_file_is_refused_by_its_path(tmp_path):
    file = tmp_path / "run.safetensors"
    quiet(small(), gaussian(), steps=10, checkpoint=file)
    whole, flow = file.read_bytes(), small(1)
    kept = state(flow)
    for damaged in (b"", whole[:4], whole[: len(whole) // 2], whole[:-1], b"<html>not found</html>" * 50):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"run\.safetensors is not a safetensors file"):
            load_checkpoint(file, flow)
    training_file = file.with_name("run.training.safetensors")
    training_file.write_bytes(training_file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"run\.training\.safetensors is not a safetensors file"):
        quiet(flow, gaussian(), steps=10, checkpoint=file)
    assert same(state(flow), kept)


def test_missing_files_folders_and_cards_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match=r"There is no checkpoint at .*absent"):
        load_checkpoint(tmp_path / "absent", small())
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path, small())
    for number, metadata in enumerate((None, {"other": "1"}, {"card": "{"}, {"card": "7"})):
        file = tmp_path / f"{number}.safetensors"
        save_file({name: value for name, value in small().state_dict().items()}, file, metadata=metadata)
        with pytest.raises(CheckpointError, match="has no card, so flowlab did not write it"):
            load_checkpoint(file, small())


@pytest.mark.parametrize("where", ("write", "replace", "second file"))
def test_a_disk_that_fails_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch, where):
    file, flow = tmp_path / "run.safetensors", small()
    settings = {"steps": 40, "checkpoint": file, "checkpoint_every": 10}
    write, replace, calls = Path.write_bytes, os.replace, []

    def failing_write(path: Path, content: bytes) -> None:
        calls.append(path)
        if where == "write" and len(calls) == 5:
            write(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        write(path, content)

    def failing_replace(a: Path, b: Path) -> None:
        if len(calls) == {"replace": 5, "second file": 6}.get(where):
            raise PermissionError(13, "Permission denied")
        replace(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", failing_write)
        patch.setattr(os, "replace", failing_replace)
        with pytest.raises(OSError, match=r"No space|Permission"):
            quiet(flow, gaussian(), **settings)
    assert len(calls) >= 5 and not flow.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.safetensors", "run.training.safetensors"]
    assert len(read_checkpoint(tmp_path / "run.training.safetensors")[0]["loss"]) == (30 if "second" in where else 20)
    assert read_checkpoint(file)[1]["step"] == 20
    resumed, straight = small(1), small()
    quiet(resumed, gaussian(), **settings)
    quiet(straight, gaussian(), steps=40)
    assert same(state(resumed), state(straight))


def test_what_killed_writers_left_is_swept_up(tmp_path):
    file, gone = tmp_path / "run[1].safetensors", 10**9  # no process has such a number
    swept = [
        f".{file.name}.{gone}.part",
        f".run[1].training.safetensors.{gone}.part",
        f".{file.name}.{os.getpid()}.part",
    ]
    others = [f".{file.name}.{os.getppid()}.part", f".run2.safetensors.{gone}.part", f".{file.name}.x.part"]
    for name in (*swept, *others):
        (tmp_path / name).write_text("half a file")
    quiet(small(), gaussian(), steps=2, checkpoint=file)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, file.name, "run[1].training.safetensors"}, "one of them may still be at work"


def test_a_folder_that_cannot_be_made_is_an_error_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"run\.safetensors.* could not be written .* choose another place"):
        next(train(small(), gaussian(), steps=3, checkpoint=tmp_path / "file" / "run.safetensors"))
    assert (tmp_path / "file").read_text() == "not a folder"


# --- killed and resumed -----------------------------------------------------------------------------------------------


def with_batchnorm() -> Flow:
    maps = [BatchNorm(2), AffineCoupling([True, False], (6,), generator=generator(3)), ActNorm(2)]
    return Flow(Chain(maps), StandardNormal(2))


def noisy(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
    """Needs the right noise at each step."""
    return -model(batch + 0.1 * torch.randn(batch.shape, generator=step.generator)).mean()


def slow(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
    """Takes long enough to be killed in the middle."""
    time.sleep(0.002)
    return noisy(model, batch, step)


HELD_OUT = {"validation": gaussian(80, seed=1), "validate_every": 7, "snapshots": 6}
SCENARIOS = {
    "plain": (small, {}),
    "validation, snapshots": (small, {**HELD_OUT, "learning_rate": 0.05}),
    "early stopping": (small, {**HELD_OUT, "validation": gaussian(80, mean=1.5), "patience": 2, "learning_rate": 0.05}),
    "batch statistics, momentum": (with_batchnorm, {**HELD_OUT, "optimizer": momentum}),
    "average, shards": (small, {"ema": 0.9, "shards": 2, "snapshots": 4}),
}
MANY_STEPS = {"steps": 1500, "ema": 0.9, "objective": noisy}


def one_run(name: str, folder: Path, checkpoint: Path | None, **more) -> None:
    """Train, and write the weights and the whole history into ``folder``."""
    build, settings = SCENARIOS[name]
    model = build()
    # Three steps an epoch, and a checkpoint every four: runs go on from the middle of an epoch.
    settings = {"steps": 60, "batch_size": 64, "objective": slow, "checkpoint_every": 4, **settings, **more}
    history = quiet(model, gaussian(200), checkpoint=checkpoint, **settings)
    record = {"loss": history.loss, "validation": list(history.validation.items()), "best": history.best_step}
    save_checkpoint(folder / "final.safetensors", model, {**record, "stopped": history.stopped})
    for step, snapshot in history.snapshots.items():
        checkpoints.write(folder / f"snapshot_{step}.safetensors", snapshot, {})


def die_at(write: int) -> None:
    """Kill this process around its n-th file: half written, written but not renamed, or renamed."""
    write_bytes, replace, count = Path.write_bytes, os.replace, [0]

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_write(path: Path, content: bytes) -> None:
        count[0] += 1
        if count[0] == write and write % 3 == 0:
            write_bytes(path, content[: len(content) // 2])
            kill()
        write_bytes(path, content)

    def dying_replace(a: Path, b: Path) -> None:
        if count[0] == write and write % 3 == 1:
            kill()
        replace(a, b)
        if count[0] == write and write % 3 == 2:
            kill()

    Path.write_bytes, os.replace = dying_write, dying_replace


def killed_runs(root: Path) -> None:
    """Run each scenario undisturbed, killed at random moments, and killed at its writes, in forked processes."""
    ready_to_fork()
    for name in SCENARIOS:
        chance = random.Random(name)
        for how in ("undisturbed", "at random", "at writes"):
            folder = root / name / how
            folder.mkdir(parents=True)
            killed_after = []
            for attempt in range(1000):
                child = os.fork()
                if child == 0:
                    if how == "at writes" and attempt < 12:
                        die_at(3 + chance.randrange(9) if attempt else 2)
                    one_run(name, folder, None if how == "undisturbed" else folder / "run.safetensors")
                    os._exit(0)
                if how == "at writes":
                    chance.random()  # the next fork draws another moment
                if how == "at random":
                    time.sleep(chance.uniform(0, 0.04 * (attempt + 1)))
                    os.kill(child, signal.SIGKILL)
                if os.WIFEXITED(status := os.waitpid(child, 0)[1]):
                    assert os.WEXITSTATUS(status) == 0
                    break
                file = folder / "run.training.safetensors"
                killed_after.append(len(read_checkpoint(file)[0]["loss"]) if file.exists() else 0)
            (folder / "killed_after.json").write_text(json.dumps(killed_after))
    twenty_kills(root / "twenty")


def twenty_kills(root: Path) -> None:
    """A run that is killed at twenty random moments, before it may end; after each kill its files are read."""
    chance, killed_after, life = random.Random("twenty"), [0], 0.1
    for how in ("undisturbed", "killed"):
        folder = root / how
        folder.mkdir(parents=True)
        files = [folder / "run.safetensors", folder / "run.training.safetensors"]
        for moment in range(1 if how == "undisturbed" else 21):
            child = os.fork()
            if child == 0:
                one_run("plain", folder, None if how == "undisturbed" else files[0], **MANY_STEPS)
                os._exit(0)
            if how == "killed" and moment < 20:
                time.sleep(chance.uniform(0, life))
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                taken = [len(read_checkpoint(file)[0].get("loss", ())) for file in files if file.exists()]
                killed_after.append(max(taken, default=0))
                life *= 0.8 if killed_after[-1] > killed_after[-2] else 1.5  # on a busy machine all takes longer
            else:
                assert os.waitpid(child, 0)[1] == 0
    (root / "killed_after.json").write_text(json.dumps(killed_after[1:]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    where = {**os.environ, "PYTHONPATH": str(Path(training.__file__).parents[2])}
    done = subprocess.run([sys.executable, __file__, root], capture_output=True, text=True, timeout=300, env=where)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ("at random", "at writes"))
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_killed_run_gives_bit_for_bit_what_it_would_have_given(runs, name, how):
    undisturbed, killed = runs / name / "undisturbed", runs / name / how
    killed_after = json.loads((killed / "killed_after.json").read_text())
    assert sum(0 < step < 60 for step in killed_after) >= 2, f"killed after {killed_after}"
    files = {path.name for path in undisturbed.glob("*.safetensors")}
    assert files <= {path.name for path in killed.iterdir()} and (len(files) > 3 or name == "plain")
    for file in files:
        (weights, card), (its_weights, its_card) = (read_checkpoint(folder / file) for folder in (undisturbed, killed))
        assert same(weights, its_weights) and card == its_card, file
    stopped = read_checkpoint(killed / "final.safetensors")[1]["stopped"]
    assert stopped.startswith("stopped early" if name == "early stopping" else "finished 60")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_twenty_random_moments_ends_as_if_undisturbed(runs):
    killed_after = json.loads((runs / "twenty" / "killed_after.json").read_text())
    assert len(killed_after) == 20 and killed_after == sorted(killed_after) and 0 < killed_after[-1] < 1500
    assert len(set(killed_after)) > 5, f"it went on in between: {killed_after}"
    (weights, card), (its, its_card) = (
        read_checkpoint(runs / "twenty" / how / "final.safetensors") for how in ("undisturbed", "killed")
    )
    assert same(weights, its) and card == its_card and len(card["loss"]) == 1500
    assert not list((runs / "twenty" / "killed").glob(".*")), "what killed writers left is gone"


if __name__ == "__main__":
    killed_runs(Path(sys.argv[1]))


def can_compile() -> bool:
    from torch._inductor import cpp_builder, exc

    try:
        return bool(cpp_builder.get_cpp_compiler())
    except exc.InvalidCxxCompiler:
        return False


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler on this machine")
def test_compiled_training_is_eager_training_to_rounding(monkeypatch):
    x, calls, real = torch.randn(64, 2, generator=generator(1)), [], torch.compile

    def counted(function, **settings):
        fast = real(function, **settings)
        return lambda *given: calls.append(1) or fast(*given)

    monkeypatch.setattr(torch, "compile", counted)
    runs = {}
    for compile in (False, True):
        flow = realnvp(2, layers=2, hidden=(8,), standardize=False, generator=generator())
        history = fit(flow, x, steps=4, batch_size=32, validation=x, progress=False, compile=compile)
        assert "log_prob" not in vars(flow), "the flow is as it was once training is over"
        runs[compile] = (history.loss, history.validation, dict(flow.named_parameters()))
    torch.testing.assert_close(runs[True], runs[False], rtol=1e-4, atol=1e-5)
    assert len(calls) == 4, "the four steps were compiled, and validation was not"


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler on this machine")
def test_a_compiled_stack_drops_gradients_too_small_to_count_too(monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **settings: real(f, backend="eager", **settings))
    flow = realnvp(2, layers=2, hidden=(4,), standardize=False, stack=2, generator=generator()).train()
    with compiled(flow):
        log_p = flow.log_prob(torch.randn(2, 5, 2, generator=generator(1)))
        log_p.backward(torch.tensor([[1.0], [1e-31]]).expand(2, 5))
    for name, p in flow.named_parameters():
        if name.endswith("last.bias"):
            assert (p.grad[0] != 0).all() and (p.grad[1] == 0).all()


def test_compilation_without_a_compiler_is_refused_in_words(monkeypatch):
    from torch._inductor import cpp_builder, exc

    def missing(*_):
        raise exc.InvalidCxxCompiler()

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    flow, x = realnvp(2, layers=2, hidden=(8,)), torch.randn(10, 2)
    with pytest.raises(CompilerMissing, match=r"no C\+\+ compiler was found. Install one"):
        fit(flow, x, steps=1, progress=False, compile=True)
    assert fit(flow, x, steps=1, progress=False).step == 1, "without it, the same flow trains"
    with pytest.raises(ValueError, match="but this Linear holds none"):
        fit(nn.Linear(2, 1), x, steps=1, progress=False, compile=True)
