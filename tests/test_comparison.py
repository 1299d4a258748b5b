"""The comparison with one Gaussian and a mixture: the numbers are those of the formulas, on rows no fit has seen."""

import math
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.mixture import GaussianMixture
from torch import Generator, Tensor

import flowlab
from flowlab import Flow, compare, fit, flow_for, realnvp
from flowlab.bijections import ScaleShift
from flowlab.comparison import ENOUGH, _folds
from flowlab.comparison import _told as told
from flowlab.datasets import TwoMoons
from flowlab.densities import StandardNormal
from flowlab.tables import TableWarning


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


QUICK = {"progress": False, "steps": 5, "components": 3}


def test_one_gaussian_and_the_mixture_are_those_of_other_libraries():
    x, new = TwoMoons().sample(400, generator()).double(), TwoMoons().sample(100, generator(1)).double()
    found = compare(x, flow_for(x), held_out=new, progress=False)
    one = multivariate_normal(x.numpy().mean(0), np.cov(x.numpy().T, bias=True)).logpdf(new.numpy())
    np.testing.assert_allclose(found.log_probs["one Gaussian"], one, rtol=1e-6)
    tried = [GaussianMixture(k, n_init=3, random_state=0).fit(x.numpy()) for k in range(1, 11)]
    theirs = min(tried, key=lambda mixture: mixture.bic(x.numpy())).score(new.numpy())
    assert found["mixture"].nats == pytest.approx(theirs, abs=0.1)
    assert found["mixture"].above > 0.4, "two moons are no Gaussian"


def test_means_and_errors_are_of_paired_rows():
    x, new = normal(100, 2), normal(40, 2, seed=1)
    found = compare(x, flow_for(x), held_out=new, progress=False)
    flow, gaussian = (found.log_probs[name].numpy() for name in ("flow", "one Gaussian"))
    score = found["flow"]
    assert score.nats == pytest.approx(flow.mean()) and score.error == pytest.approx(flow.std(ddof=1) / math.sqrt(40))
    assert score.above == pytest.approx((flow - gaussian).mean())
    assert score.above_error == pytest.approx((flow - gaussian).std(ddof=1) / math.sqrt(40)) and found.rows is None


def test_of_a_gaussian_the_mixture_is_that_gaussian():
    found = compare(normal(300, 2), **QUICK)
    assert found["mixture"][3:] == (0.0, 0.0, "K = 1 by BIC") and found["one Gaussian"].above == 0


def test_a_fitted_flow_is_scored_as_it_is_and_left_as_it_was():
    x, new = TwoMoons().sample(300, generator()), TwoMoons().sample(50, generator(1))
    flow = realnvp(2, 2, hidden=(8,), generator=generator())
    fit(flow, x, steps=50, progress=False)
    flow.train()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    found = compare(x, flow, held_out=new, progress=False)
    assert flow.training and all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())
    torch.testing.assert_close(found.log_probs["flow"].float(), flow.eval().log_prob(new).detach())
    assert found["flow"].what == "the realnvp as given"


def test_each_row_is_held_out_once_and_no_fit_sees_it():
    for N in (10, 57, 1_999):
        folds = list(_folds(N, seed=0))
        assert len(folds) == 5 and sorted(torch.cat([new for _, new in folds]).tolist()) == list(range(N))
        assert all(sorted([*rows.tolist(), *new.tolist()]) == list(range(N)) for rows, new in folds)
    assert [sum(len(new) for _, new in _folds(N, 0)) >= ENOUGH for N in (10_000, 15_000, 10**6)] == [True] * 3
    assert [len(list(_folds(N, 0))) for N in (5_000, 15_000, 10**6)] == [2, 1, 1]


@pytest.mark.slow
def test_log_probs_are_in_the_order_of_the_rows_that_are_named():
    x = normal(60, 2)
    found = compare(x, **QUICK)
    assert sorted(found.rows.tolist()) == list(range(60))
    far = compare(torch.cat((x, x.new_full((1, 2), 7.0))), **QUICK)
    assert far.rows[far.log_probs["one Gaussian"].argmin()] == 60


@pytest.mark.slow
def test_a_copy_of_a_training_row_teaches_a_new_flow_nothing_about_it():
    """Without held-out rows a flow that has seen all of them is not scored on them: another is fitted."""
    x = normal(40, 2)
    flow = realnvp(2, 4, hidden=(64,), generator=generator())
    fit(flow, x, steps=400, progress=False, validation=False)
    learned_by_heart = float(flow.log_prob(x).detach().mean())
    found = compare(x, flow, **QUICK)
    assert found["flow"].nats < learned_by_heart - 0.5 and found["flow"].what == "a new realnvp in each part"
    plain = Flow(ScaleShift(2), StandardNormal(2))
    with pytest.raises(ValueError, match=r"built by no recipe: compare\(x, flow, held_out=rows\)"):
        compare(x, plain, **QUICK)


def test_given_a_context_all_three_are_conditional():
    c = normal(400, 1)
    x = 3 * c + 0.5 * normal(400, 1, seed=1)
    found = compare((x, c), **QUICK)
    exact = float(torch.as_tensor(norm(3 * c, 0.5).logpdf(x)).mean())
    for name in ("one Gaussian", "mixture", "flow"):
        assert found[name].nats == pytest.approx(exact, abs=0.05)
    same = compare(x, context=c, **QUICK)
    assert same.scores == found.scores


def test_a_label_as_context_tells_the_mixture_which_component_it_is():
    y = (normal(400) > 0).double()
    e = normal(400, 2, seed=1)
    x = torch.where(y[:, None] == 1, torch.stack((e[:, 0], 4 * e[:, 1]), 1), torch.stack((4 * e[:, 0], e[:, 1]), 1))
    found = compare(x, context=y, **QUICK)
    exact = -math.log(2 * math.pi * 4) - 1
    assert found["mixture"].nats == pytest.approx(exact, abs=0.15)
    assert found["one Gaussian"].nats < exact - 0.3, "one covariance for both"


def test_columns_are_put_in_their_order():
    x = pd.DataFrame(normal(80, 2).numpy() * [1, 100], columns=["a", "b"])
    flow = flow_for(x[:60], generator=generator())
    expected = compare(x[:60], flow, held_out=x[60:], progress=False)
    swapped = compare(x[:60][["b", "a"]], flow, held_out=x[60:], progress=False)
    assert swapped["flow"].nats == expected["flow"].nats
    assert swapped["one Gaussian"].nats == pytest.approx(expected["one Gaussian"].nats)
    with pytest.raises(ValueError, match="columns 'a', 'b', but got 'a', 'c'"):
        compare(x, held_out=x.rename(columns={"b": "c"}), **QUICK)


@pytest.mark.slow
def test_units_and_places_shift_all_three_alike():
    z = TwoMoons().sample(100, generator()).double()
    plain, moved = compare(z, **QUICK), compare(1e4 + 1e-3 * z, **QUICK)
    for name in ("one Gaussian", "mixture", "flow"):
        assert moved[name].nats + 2 * math.log(1e-3) == pytest.approx(plain[name].nats, abs=0.02)


def test_it_prints_one_table():
    text = str(compare(normal(50, 2), **QUICK))
    first, *rows, last = text.splitlines()
    assert "nats of a held-out row" in first and "above one Gaussian" in first
    assert [row.split("  ")[0] for row in rows] == ["one Gaussian", "mixture", "flow"]
    assert all("±" in row for row in rows) and last.startswith("50 of 50 rows were held out, in 5 of 5 parts")


@pytest.mark.slow
def test_it_repeats_and_draws_from_no_global_generator():
    x, state = normal(50, 2), torch.get_rng_state()
    first, again = compare(x, **QUICK), compare(x, **QUICK)
    assert first.scores == again.scores != compare(x, seed=1, **QUICK).scores
    assert torch.equal(state, torch.get_rng_state())


def test_what_is_no_density_is_said_once():
    x = np.c_[normal(60, 2), np.arange(60) % 2]
    with pytest.warns(TableWarning, match="Discrete: column 2") as caught:
        found = compare(x, **QUICK)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert found["mixture"].what == "K = 1 by BIC", "a component for each value would lie on a plane"


def test_the_interrupt_button_leaves_the_parts_that_are_done(monkeypatch):
    count = 0

    def score(density, parts, own=flowlab.comparison._log_probs):
        nonlocal count
        count += 1
        if count == 6:  # the flow of the second part
            signal.raise_signal(signal.SIGINT)
        return own(density, parts)

    monkeypatch.setattr(flowlab.comparison, "_log_probs", score)
    x = normal(50, 2)
    found = compare(x, **QUICK)
    assert len(found.rows) == 20 and "in 2 of 5 parts" in str(found) and "Interrupted: 3 more parts" in str(found)
    count = 5
    monkeypatch.setattr(flowlab.comparison, "flow_for", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(flowlab.comparison, "_mixtures", lambda *_: (signal.raise_signal(signal.SIGINT), None)[1])
    with pytest.raises(KeyboardInterrupt, match="before the first part"):
        compare(x, **QUICK)


def test_a_bar_shows_how_far_it_is(capfd):
    compare(normal(50, 2), steps=2)
    said = capfd.readouterr().err
    assert "comparing" in said and "the flow, step" in said  # other words come and go between two looks


WRONG = {
    "nine rows": (lambda: (normal(9, 2),), {}, "at least ten rows"),
    "no table": (lambda: ("my.csv",), {}, "read the file first"),
    "not finite": (lambda: ([[1.0, math.nan]] * 20,), {}, "row 0, column 1"),
    "contexts": (lambda: (normal(20, 2),), {"context": [1.0, 2.0]}, r"a context for each row of x, but got \[20, 2\]"),
    "three parts": (lambda: ((normal(20, 2),) * 3,), {}, "a tuple of 3"),
    "held-out columns": (lambda: (normal(20, 2),), {"held_out": normal(5, 3)}, r"held_out of \[2\] columns"),
    "no context": (lambda: (normal(20, 2), realnvp(2, context_features=1)), {}, "context=, as this flow has one"),
    "a context too many": (lambda: (normal(20, 2), realnvp(2)), {"context": normal(20)}, "a flow with a context"),
    "a setting": (lambda: (normal(20, 2),), {"stepz": 3}, "Did you mean steps"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_compared_has_a_sentence(name):
    given, settings, words = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=words):
        compare(*given(), progress=False, **settings)


OF_ANOTHER_KIND = {
    "a name for a flow": (lambda x: compare(x, "realnvp"), "a flow, or none to make one, but got 'realnvp'"),
    "a recipe for a flow": (lambda x: compare(x, realnvp), "a flow, or none to make one, but got <function"),
    "no components": (lambda x: compare(x, components=0), "number of components, at least 1, but got 0"),
    "half a component": (lambda x: compare(x, components=1.5), "number of components, at least 1, but got 1.5"),
    "a word for a seed": (lambda x: compare(x, seed="a"), "a whole number as seed, but got 'a'"),
}


@pytest.mark.parametrize("name", OF_ANOTHER_KIND)
def test_arguments_of_another_kind_are_refused(name):
    call, words = OF_ANOTHER_KIND[name]
    with pytest.raises((TypeError, ValueError), match=f"compare expected .*{words}"):
        call(torch.zeros(20, 2))


def test_numbers_of_any_size_keep_their_columns():
    assert told(-12.345, 0.5) == "-12.35 ± 0.50" and told(-7.0487e17, 7.1e17) == "-7.05e+17 ± 7.1e+17"
