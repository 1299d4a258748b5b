"""Few rows: a run holds some out by itself, ends when it stops helping, and keeps what was best on them."""

import math
import re
import warnings

import pytest
import torch
from runs import gaussian, generator, quiet, same, small, state
from torch import Tensor

from flowlab import Flow, fit, realnvp
from flowlab.bijections import FullAffine, ScaleShift
from flowlab.datasets import TwoMoons
from flowlab.densities import StandardNormal
from flowlab.training import History, Step, checkpoints, negative_log_likelihood, read_checkpoint, train
from flowlab.training.batches import hold_out


def one_number() -> Flow:
    return Flow(ScaleShift(1), StandardNormal(1))


def wide() -> Flow:
    """Some hundred weights more than there are numbers in the data."""
    return realnvp(2, layers=2, hidden=(64,), generator=generator())


def begun(rows: int, **settings) -> History:
    """The history of a run of its own length, after its first step."""
    steps = train(one_number(), torch.randn(rows, 1, generator=generator()), **settings)
    history = next(steps)
    steps.close()
    return history


# --- what is held out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, held_out", ((3, 0), (4, 1), (8, 2), (40, 10), (80, 20), (142, 20), (353, 35), (1437, 143), (20_000, 2000))
)
def test_a_run_of_its_own_length_holds_out_some_of_few_rows(rows, held_out):
    assert begun(rows).held_out == held_out


def test_many_rows_or_a_length_that_is_given_or_a_word_against_it_hold_out_nothing():
    assert begun(25_000).held_out == 0, "2,000 steps pass over them less than 50 times"
    for settings in ({"steps": 9}, {"epochs": 9}, {"validation": False}, {"validation": torch.zeros(5, 1)}):
        assert begun(300, **settings).held_out == 0
    assert begun(25_000, batch_size=5000).held_out == 2500, "these steps pass over them 400 times"


def test_a_share_of_any_run_can_be_held_out():
    assert begun(300, steps=9, validation=True).held_out == 30
    assert begun(300, steps=9, validation=0.25).held_out == 75
    assert begun(25_000, validation=True).held_out == 2500
    for share in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            begun(300, validation=share)
    with pytest.raises(ValueError, match="expected data, but got none"):
        fit(small(), objective=lambda m, b, s: m.bijection[1].conditioner.last.bias.sum(), steps=2, validation=True)


def test_the_rows_are_chosen_by_the_seed_and_no_row_is_both():
    x, y = torch.arange(100), -torch.arange(100)
    (left, left_y), (taken, taken_y) = hold_out((x, y), True, seed=3)
    assert torch.equal(left_y, -left) and torch.equal(taken_y, -taken) and len(taken) == 20
    assert torch.cat((left, taken)).sort().values.tolist() == x.tolist()
    assert torch.equal(hold_out((x,), True, seed=3)[1][0], taken)
    assert not torch.equal(hold_out((x,), True, seed=4)[1][0], taken)


def test_training_sees_none_of_them():
    trained, held_out = set(), set()

    def objective(model: Flow, batch: Tensor, step: Step) -> Tensor:
        (trained if model.training else held_out).update(batch.flatten().tolist())
        return negative_log_likelihood(model, batch, step)

    x = torch.randn(200, 1, generator=generator())
    quiet(one_number(), x, objective=objective, epochs=5, validation=True)
    assert trained.isdisjoint(held_out) and trained | held_out == set(x.flatten().tolist()) and len(held_out) == 20


# --- what becomes of the run ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fit_to_few_rows_ends_early_with_its_best_weights_and_says_so(capfd):
    toy = TwoMoons()
    x, fresh = toy.sample(300, generator()), toy.sample(2000, generator(1))
    flow = realnvp(2, layers=6, hidden=(64, 64), generator=generator())
    history = fit(flow, x)
    assert history.reason == "patience" and history.step < 600 and history.held_out == 30
    assert list(history.validation) == list(range(1, history.step + 1)), "each epoch is looked at"
    best = min(history.validation, key=history.validation.get)
    assert history.best_step == best == history.step - 100
    assert history.stopped.endswith(f"; 30 rows were held out, and the weights of step {best} were best on them")
    with torch.no_grad():
        gap = float((toy.log_prob(fresh) - flow.log_prob(fresh)).mean())
    assert 0 < gap < 0.8, "nats to the exact density; trained on all rows to the end these are more than five"
    said = capfd.readouterr().err
    assert "30 rows are held out." in said and "validation=False trains on all rows" in said
    assert re.search(rf"held out {history.validation[best]:.3f} at best, step {best}", said)


def test_what_is_best_is_known_to_be_held_out_by_no_row_of_training():
    x = gaussian(90)
    flow = Flow(FullAffine(2), StandardNormal(2))
    history = quiet(flow, x, learning_rate=0.05)
    rows = hold_out((x,), True, seed=0)[1][0]
    with torch.no_grad():
        assert -flow.log_prob(rows).mean().item() == pytest.approx(history.validation[history.best_step], rel=1e-5)


def test_a_run_that_held_rows_out_goes_on_bit_for_bit(tmp_path):
    settings = {"learning_rate": 0.05, "checkpoint_every": 7}
    straight, resumed, file = small(), small(), tmp_path / "run.safetensors"
    whole = quiet(straight, gaussian(60), **settings)
    for history in train(small(), gaussian(60), checkpoint=file, **settings):
        if history.step == 40:
            break
    again = quiet(resumed, gaussian(60), checkpoint=file, **settings)
    assert (again.loss, again.validation, again.stopped) == (whole.loss, whole.validation, whole.stopped)
    assert same(state(resumed), state(straight)) and again.held_out == 15
    assert read_checkpoint(checkpoints.training_file(file))[1]["run"]["samples"] == 45
    with pytest.raises(checkpoints.CheckpointError, match="another run"):
        quiet(small(), gaussian(60), checkpoint=file, validation=False, **settings)


def test_pairs_are_held_out_together():
    x = gaussian(60)
    flow = realnvp(2, layers=2, hidden=(4,), context_features=1, generator=generator())
    steps = train(flow, (x, x[:, :1]))
    assert next(steps).held_out == 15
    steps.close()


# --- how often it is looked at ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows, every", ((100, 5), (1000, 5), (1100, 10), (2559, 20), (2560, 50), (9000, 50)))
def test_held_out_data_are_looked_at_every_few_epochs(rows, every):
    x = torch.randn(rows, 1, generator=generator())
    history = quiet(one_number(), x, steps=51, validation=x[:9])
    assert list(history.validation) == [*range(every, 51, every), 51]
    assert list(quiet(one_number(), x, steps=7, validation=x[:9], validate_every=3).validation) == [3, 6, 7]


# --- a run that nobody watches ----------------------------------------------------------------------------------------

WORDS = r"passes over \d+ rows [\d,]+ times without held-out data, .* weights: .* validation=True holds out"


@pytest.mark.parametrize("settings", ({"steps": 60}, {"epochs": 60}, {"steps": 120, "batch_size": 25}))
def test_many_passes_over_few_rows_are_warned_of(settings):
    with pytest.warns(UserWarning, match=WORDS):
        quiet(wide(), gaussian(50), **settings)


def test_warnings_of_a_run_point_to_the_line_that_began_it():
    x = gaussian(50)

    def once(flow: Flow, x: Tensor, **settings) -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(flow, x, progress=False, **settings)
        assert len(caught) == 1
        return caught[0].filename

    started = small()
    quiet(started, x, steps=1)
    assert once(wide(), x, steps=60) == __file__, "passes without held-out data"
    assert once(started, x + 1000, steps=1) == __file__, "other data than those that it was started on"
    assert once(one_number(), x[:, :1] + 1000, steps=1) == __file__, "no layer that centers"
    far = torch.full((5, 1), 1e30)
    assert once(one_number(), x[:, :1], steps=1, validation=far) == __file__, "no finite validation loss"
    assert once(small(), torch.cat((x, x)), steps=1) == __file__, "what is no density"


def test_so_are_very_many_passes_over_more_rows():
    steps = train(realnvp(2, generator=generator()), gaussian(1200, seed=1), steps=1100, batch_size=600)
    with pytest.warns(UserWarning, match=WORDS):
        next(steps)
    steps.close()


@pytest.mark.slow
def test_where_little_can_be_learned_by_heart_nothing_is_said(recwarn):
    quiet(wide(), gaussian(50), steps=60, validation=False)
    quiet(wide(), gaussian(50), steps=60, validation=gaussian(20))
    quiet(wide(), gaussian(50), steps=60, validation=True)
    quiet(wide(), gaussian(50), steps=49)
    quiet(wide(), gaussian(50))
    quiet(Flow(ScaleShift(2), StandardNormal(2)), gaussian(40), steps=200)  # four weights
    quiet(wide(), gaussian(50), steps=60, objective=lambda *now: negative_log_likelihood(*now))  # who knows what it is
    steps = train(realnvp(2), gaussian(2560), steps=2000)  # 400 passes, as in a published experiment
    next(steps)
    steps.close()
    assert not [w for w in recwarn if "by heart" in str(w.message)]
