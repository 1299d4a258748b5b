"""The training loop: what it learns, keeps and records, how it stops, and what it refuses."""

import math
import os
import signal
import threading
from collections.abc import Callable
from collections.abc import Generator as Generator_

import numpy as np
import pytest
import torch
from runs import drift, gaussian, generator, interrupt_at, quiet, same, small, state, with_batchnorm
from torch import Generator, Tensor, nn

from flowlab import Flow, evaluation, fit
from flowlab.bijections import FullAffine, ScaleShift
from flowlab.densities import Density, StandardNormal, StandardUniform, evaluating
from flowlab.densities.mixtures import Objective
from flowlab.models import flow_mixture
from flowlab.plotting import plane
from flowlab.training import (
    History,
    NonFiniteLoss,
    OutOfMemory,
    Step,
    lookahead,
    negative_log_likelihood,
    read_checkpoint,
    train,
)

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


# --- stopping ---------------------------------------------------------------------------------------------------------


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


# --- looking at a model while it is trained --------------------------------------------------------------------------


def looks() -> dict[str, Callable[[nn.Module], object]]:
    x, pixels = gaussian(20), torch.randint(0, 256, (20, 4), generator=generator(), dtype=torch.uint8)

    def evaluated(model: nn.Module) -> None:
        with evaluating(model):
            model.log_prob(x)

    return {
        "evaluation mode, left on": lambda model: model.eval().log_prob(x),
        "one part of it": lambda model: list(model.children())[-1].eval(),
        "evaluating": evaluated,
        "a plot": lambda model: plane.log_density(model, x),
        "sampling": lambda model: model.sample(5, generator()),
        "evaluation of images": lambda model: evaluation.log_prob(Around(model), pixels),
        "a gradient": lambda model: model.log_prob(x).mean().backward(),
    }


class Around(nn.Module):
    """A density of pixels whose one part is the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def log_prob(self, v: Tensor, generator: Generator) -> Tensor:
        return self.model.log_prob(v[..., :2] / 256)


@pytest.mark.parametrize("look", looks().values(), ids=looks())
def test_looking_at_a_model_between_its_steps_changes_nothing(look):
    """Its q is trained in training mode alone: a mixture that stays in evaluation mode learns something else."""

    def run(look: Callable[[nn.Module], object], how: str) -> tuple[list[float], dict[str, Tensor]]:
        model = flow_mixture(2, 3, layers=2, hidden=(4,), posterior=(4,), generator=generator())
        settings = {"steps": 12, "batch_size": 64, "learning_rate": 0.02, "objective": Objective("elbo")}
        if how == "fit":
            history = fit(model, gaussian(), progress=lambda history: look(model), **settings)
        else:
            for history in train(model, gaussian(), **settings):
                assert model.training and history.step
                look(model)
        return history.loss, state(model)

    loss, weights = run(lambda model: None, "fit")
    for how in ("fit", "train"):
        again, its = run(look, how)
        assert again == loss and same(its, weights)


def test_every_part_gets_back_the_mode_of_its_own():
    flow = with_batchnorm().train()
    flow.bijection[0].eval()
    modes = [part.training for part in flow.modules()]
    assert {True, False} <= set(modes)
    with pytest.raises(RuntimeError, match="planted"), evaluating(flow):
        assert not any(part.training for part in flow.modules()) and not torch.is_grad_enabled()
        raise RuntimeError("planted")
    assert [part.training for part in flow.modules()] == modes and torch.is_grad_enabled()


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
    words = rf"NaN or infinity in 2 of 50 rows, the first in row 17, column 1: \[.*{bad}.*\]"
    with pytest.raises(ValueError, match=f"as the data, but got {words}"):
        quiet(small(), x)
    with pytest.raises(ValueError, match=f"as the validation data, but got {words}"):
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
    with pytest.raises(ValueError, match="validation data with samples like the data"):
        quiet(small(), gaussian(), steps=3, validation=held_out)


@pytest.mark.parametrize(
    "settings, words",
    (
        ({"data": torch.zeros(0, 2)}, r"expected the data as \(N, ...\) with one N .*1, but got \[\(0, 2\)\]"),
        ({"data": torch.tensor(1.0)}, r"but got \[\(\)\]"),
        ({"data": (torch.zeros(5, 2), torch.zeros(4))}, r"one N .* \[\(5, 2\), \(4,\)\]"),
        ({"steps": 5, "epochs": 1}, "steps or epochs, but got both"),
        ({"steps": 0}, "at least one step, but got 0"),
        ({"batch_size": 0}, "batch_size to be at least 1, but got 0"),
        ({"validate_every": 0}, "validate_every to be at least 1"),
        ({"checkpoint_every": -1}, "checkpoint_every to be at least 1, but got -1"),
        ({"patience": 0}, "patience to be at least 1"),
        ({"patience": 3}, "validation data for patience=3, which counts validations, but got none"),
        ({"ema": 1.0}, "decay between 0 and 1, such as 0.999, but got 1.0"),
        ({"schedule": "linear"}, "'cosine', 'constant' or a function, but got 'linear'"),
    ),
)
def test_settings_out_of_range_are_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        quiet(small(), **{"data": gaussian(), **settings})


@pytest.mark.parametrize(
    "settings, words",
    (
        (
            {"optimizer": "adam"},
            r"a function that makes one of the parameters, such as torch\.optim\.SGD.* but got 'adam'",
        ),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))])}, "but got a SGD that is made already"),
        ({"optimizer": lambda parameters: None}, r"optimizer that makes a torch\.optim\.Optimizer .*, but got None"),
        ({"objective": "nll"}, r"a function \(model, batch, step\).* but got 'nll'"),
        ({"snapshots": "all"}, "a count or a list of steps, but got 'all'"),
        ({"snapshots": 1.5}, "expected snapshots to be a whole number, but got 1.5"),
        ({"steps": 10.5}, "expected steps to be a whole number, but got 10.5"),
        ({"steps": "10"}, "expected steps to be a whole number, but got '10'"),
        ({"epochs": math.inf}, "expected epochs to be a whole number, but got inf"),
        ({"batch_size": math.nan}, "expected batch_size to be a whole number, but got nan"),
        ({"seed": None}, "expected seed to be a whole number, but got None"),
        ({"learning_rate": "fast"}, "expected learning_rate to be a number, but got 'fast'"),
        ({"clip": "no"}, "expected clip to be a number, but got 'no'"),
        ({"ema": "0.9x"}, "expected ema to be a number, but got '0.9x'"),
        ({"lr": 0.1}, r"no setting 'lr'\. Did you mean learning_rate\?"),
        ({"patient": 3}, r"no setting 'patient'\. Did you mean patience\?"),
        ({"xyz": 3}, r"no setting 'xyz'\. It takes steps, epochs, batch_size"),
    ),
)
def test_settings_of_another_kind_are_refused_in_words(settings, words):
    with pytest.raises(TypeError, match=words):
        quiet(small(), gaussian(), **settings)


def test_settings_may_be_whole_in_any_type():
    for settings in ({"steps": 4.0}, {"steps": np.int64(4)}, {"steps": torch.tensor(4)}, {"epochs": np.float32(4.0)}):
        assert quiet(small(), gaussian(), **settings).step == 4


# --- where it is called -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", (torch.no_grad, torch.inference_mode, torch.enable_grad))
def test_it_trains_where_gradients_are_switched_off(around):
    """And it leaves that switch alone, between steps too."""
    flow, straight, other = small(), small(), small()
    quiet(straight, gaussian(), steps=6, validation=gaussian(30), validate_every=2)
    with around():
        switch = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        seen = set()
        for _ in train(flow, gaussian(), steps=6, validation=gaussian(30), validate_every=2):
            seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        assert seen == {switch} and (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == switch
        fit(other, torch.cat((gaussian(), gaussian())), steps=3, progress=False)  # data that were made there
    assert same(state(flow), state(straight)) and torch.is_grad_enabled()


def test_a_model_of_inference_tensors_is_refused_in_words():
    with torch.inference_mode():
        flow = small()
    with pytest.raises(ValueError, match=r"built under torch\.inference_mode.*Build it outside"):
        quiet(flow, gaussian(), steps=2)


def test_data_that_still_have_a_graph_are_detached():
    scale = torch.ones(2, requires_grad=True)
    x, held_out = gaussian() * scale, gaussian(50) * scale
    flow, straight = small(), small()
    history = quiet(flow, x, steps=5, validation=held_out, validate_every=2)
    assert history.loss == quiet(straight, gaussian(), steps=5).loss and scale.grad is None


def test_the_types_of_what_they_return():
    assert isinstance(quiet(small(), gaussian(), steps=1), History)
    steps = train(small(), gaussian(), steps=1)
    assert isinstance(steps, Generator_) and isinstance(next(steps), History)
    steps.close()


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


def judged(losses: dict[int, float], **settings) -> tuple[Flow, History]:
    """A run whose validation losses are given, by step; the weights move all the time."""

    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        return negative_log_likelihood(model, batch, step) if model.training else torch.tensor(losses[step.index])

    flow, last = small(), max(losses)
    settings = {"steps": last, "validate_every": 5, "snapshots": tuple(losses), "learning_rate": 0.05, **settings}
    return flow, quiet(flow, gaussian(), validation=gaussian(20), objective=objective, **settings)


def test_a_validation_loss_that_is_nan_is_loud():
    with pytest.raises(NonFiniteLoss, match="validation loss is NaN"):
        judged({5: 1.0, 10: math.nan})


@pytest.mark.parametrize("worst", (math.inf, -math.inf))
def test_a_validation_loss_that_is_infinite_is_never_the_best(tmp_path, worst):
    flow, history = judged({5: worst, 10: 3.0, 15: worst, 20: 2.0, 25: worst, 30: 9.0})
    assert history.best_step == 20 and same(state(flow), history.snapshots[20])
    _, history = judged({5: worst, 10: worst, 15: 3.0, 20: worst}, patience=9)
    assert history.best_step == 15
    _, history = judged({5: 3.0, 10: worst, 15: worst, 20: 1.0}, patience=2)
    assert history.best_step == 5 and history.reason == "patience" and history.step == 15


@pytest.mark.parametrize("worst", (math.inf, -math.inf))
def test_where_no_validation_loss_is_finite_the_last_weights_are_kept_and_it_is_said(tmp_path, worst):
    settings = {"checkpoint": tmp_path / "run.safetensors"}
    losses = dict.fromkeys((5, 10, 15), worst)
    with pytest.warns(UserWarning, match=r"All 3 validation losses are -?inf.* the weights of the last step"):
        flow, history = judged(losses, **settings)
    assert history.best_step is None and history.step == 15 and same(state(flow), history.snapshots[15])
    assert "no validation loss was finite" in history.stopped and history.ended
    with pytest.warns(UserWarning, match="All 3 validation losses"):
        again, its = judged(losses, **settings)
    assert same(state(again), state(flow)) and its.validation == history.validation and its.best_step is None
    assert read_checkpoint(settings["checkpoint"])[1]["metrics"]["validation_loss"] is None
    with pytest.warns(UserWarning, match="All 2 validation losses"):
        _, history = judged(dict.fromkeys((5, 10, 15, 20), worst), patience=2)
    assert history.step == 10 and history.reason == "patience"


def test_one_held_out_row_that_is_far_off_is_said():
    held_out = gaussian(50)
    held_out[7] = 1e25
    with pytest.warns(UserWarning, match=r"All 2 validation losses are inf.* Look for held-out samples"):
        flow = small()
        history = quiet(flow, gaussian(), steps=20, validation=held_out, validate_every=10)
    assert history.best_step is None
    assert set(history.validation.values()) == {math.inf}


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


# --- on a GPU, losses are looked at later; here it is the CPU that looks later ----------------------------------------


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
    monkeypatch.setitem(lookahead.STEPS_AHEAD, "cpu", 7)
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


class NoModule(Density):
    event_shape = (2,)


@pytest.mark.parametrize(
    "settings, words",
    (
        ({"progress": 7}, "fit expected progress as True, False or a function of the History, but got 7"),
        ({"progress": "yes"}, "fit expected progress as True, False or a function of the History, but got 'yes'"),
        ({"optimizer": torch.optim.LBFGS}, "fit expected an optimizer that takes one gradient a step.* but got LBFGS"),
    ),
)
def test_settings_of_another_kind_are_refused_before_the_first_step(settings, words):
    flow = small()
    before = state(flow)
    with pytest.raises(TypeError, match=words):
        fit(flow, gaussian(), steps=3, **{"progress": False, **settings})
    assert same(before, state(flow))


def test_a_density_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"fit expected a model, a torch.nn.Module, but got NoModule"):
        fit(NoModule(), gaussian(), steps=3, progress=False)


def test_each_validation_draws_the_same_noise():
    """A model that does not move has the same loss each time, so that a lower one means better weights."""

    def noisy_loss(model, batch, step):
        return -model(batch).mean() + torch.randn((), generator=step.generator)

    still = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0), "objective": noisy_loss}
    history = quiet(small(), gaussian(), steps=6, validation=gaussian(seed=1), validate_every=2, **still)
    assert len(history.validation) == 3 and len(set(history.validation.values())) == 1
