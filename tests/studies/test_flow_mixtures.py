"""The tables of the lessons on mixtures, in small: every variant runs, and the recommended one works."""

from dataclasses import replace

import pytest
import torch

from flowlab.datasets import Pinwheel
from flowlab.studies import CIRCLES, PINWHEEL
from flowlab.studies.points import _balanced

EVERY = [
    *((PINWHEEL, variant, 0) for variant in PINWHEEL.variants),
    *((CIRCLES, variant, 0) for variant in CIRCLES.variants),
    *((CIRCLES, variant, 32) for variant in CIRCLES.labelled),
]


@pytest.mark.slow
@pytest.mark.parametrize("study, variant, labels", EVERY, ids=lambda v: v if isinstance(v, str) else "")
def test_every_variant_runs_and_is_scored(study, variant, labels):
    record = study.record(variant, 0, labels=labels, effort=0.01)
    assert record.variant == variant and record.seed == 0 and record.seconds > 0
    assert 1 / study.truth.components <= record["accuracy"] <= 1 and -0.5 <= record["ari"] <= 1
    assert record["log_prob"] < record["exact_log_prob"], "no fit of few steps beats the truth"


@pytest.mark.slow
@pytest.mark.parametrize("study, labels", [(PINWHEEL, 0), (CIRCLES, 0), (CIRCLES, 2)])
def test_recommended_variant_gets_nearly_all_right_with_half_of_its_steps(study, labels):
    record = study.record("consistent", 3, labels=labels, effort=0.5)
    assert record["accuracy"] > 0.985 and record["ari"] > 0.95
    assert record["exact_log_prob"] - record["log_prob"] < 0.3


def test_same_seed_gives_the_same_record_and_the_same_points_to_every_variant():
    one, two = (replace(PINWHEEL.record("elbo", 5, effort=0.01), seconds=0.0) for _ in range(2))
    assert one == two
    a, b = PINWHEEL.trial("elbo", 5), PINWHEEL.trial("thesis", 5)
    assert torch.equal(a.data, b.data) and torch.equal(a.test, b.test)
    assert a.settings["seed"] == b.settings["seed"] == 5, "batches are drawn by the trial's seed too"
    assert len(a.points.labels) == len(a.points.labelled) == 0, "no label asked for, none within a variant's reach"
    assert not torch.equal(a.data, PINWHEEL.trial("elbo", 6).data) and not torch.equal(a.data, a.test)


@pytest.mark.parametrize("labels", [1, 5, 6, 8, 11, 64])
@pytest.mark.parametrize("seed", range(3))
def test_labels_are_as_balanced_as_their_number_allows(labels, seed):
    y = Pinwheel().labelled(2560, torch.Generator().manual_seed(seed))[1]
    rows = _balanced(y, labels)
    counts = y[rows].bincount(minlength=5)
    assert len(rows) == labels and int(counts.max() - counts.min()) <= 1, counts
    assert torch.equal(rows, rows.unique()), "in order, and none twice"


@pytest.mark.parametrize("labels", [1, 2, 11, 32, 64])
def test_labels_are_balanced_and_true(labels):
    points = CIRCLES.trial("interleaved", 1, labels=labels).points
    assert len(points.labels) == labels and abs(int((points.labels == 0).sum()) * 2 - labels) <= 1
    assert torch.equal((points.labelled.norm(dim=-1) < 0.6).long(), points.labels), "0 is the outer ring"


@pytest.mark.slow
def test_a_shorter_run_keeps_the_phases_of_a_whole_one():
    for effort in (1.0, 0.2):
        settings = CIRCLES.trial("consistent", 0, effort=effort).settings
        total = settings["epochs"] * (CIRCLES.size // settings["batch_size"])
        assert abs(settings["objective"].first / total - 0.5) < 0.02, "half for the shares, half for the ELBO"


def test_direct_likelihood_and_generalized_em_give_the_same_fit():
    em, likelihood = (PINWHEEL.record(variant, 2, effort=0.02) for variant in ("em", "likelihood"))
    assert abs(em["log_prob"] - likelihood["log_prob"]) < 1e-3
