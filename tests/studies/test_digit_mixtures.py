"""Mixtures of digits: their stages on few images, what is read of the labels, and the table of ingredients."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Generator

from flowlab import studies, study
from flowlab.datasets import mnist
from flowlab.metrics import accuracy
from flowlab.studies import digit_mixtures
from flowlab.studies.digit_mixtures import FIVE, LABELS, MIXTURES, TEN, VARIANTS, by_neighbors, first_of_each
from flowlab.study import run, table
from flowlab.training import fit

DIGITS, Y = (part[:1500].flatten(1) if part.ndim > 1 else part[:1500] for part in mnist.digits("train"))
SOME = torch.isin(Y, torch.arange(5))


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_all_are_among_the_studies_of_mnist():
    assert {one.name for one in MIXTURES} == {"mixture_mnist_five", "mixture_mnist", "mixture_mnist_labels"}
    for one in MIXTURES:
        assert studies.MNIST[one.name] is one and set(one.sizes) == {"quick", "compact", "full"}
        for name in ("quick", "compact"):
            settings = one.size(name).model["settings"]["density"]["settings"]
            assert settings["components"] == len(one.digits)


@pytest.mark.slow
def test_walks_between_neighbors_find_most_of_five_digits():
    points, shares = by_neighbors(DIGITS[SOME], 5, starts=8, steps=150, generator=generator())
    assert torch.equal(points, DIGITS[SOME]) and shares.shape == (len(points), 5)
    torch.testing.assert_close(shares.sum(-1), torch.ones(len(points)))
    assert accuracy(Y[SOME], shares.argmax(-1)) > 0.85
    assert len(by_neighbors(DIGITS, 10, most=300, starts=1, steps=2, generator=generator())[0]) == 300


def test_labels_give_the_clusters_their_names():
    rows = first_of_each(Y, 5)
    assert torch.equal(Y[rows], torch.arange(10).repeat_interleave(5))
    few = DIGITS[rows], Y[rows]
    points, shares = by_neighbors(DIGITS, 10, few, starts=4, steps=150, generator=generator())
    assert torch.equal(points, DIGITS), "the labelled ones stand beside them, not among them"
    assert float((shares.argmax(-1) == Y).float().mean()) > 0.75, "without any matching"


def small(monkeypatch, chosen=TEN):
    """The study on 300 training images and with a first stage of a few steps: only to see that all works."""
    quick = chosen.size("quick")
    monkeypatch.setitem(
        chosen.sizes, "quick", replace(quick, training=quick.training | {"epochs": 1, "batch_size": 50})
    )
    whole = studies.splits("bundled", chosen.digits)
    few = studies.Splits(*(studies.Images(part.images[:300], part.labels[:300]) for part in whole))
    monkeypatch.setattr("flowlab.studies.digits.splits", lambda data, digits: few)
    monkeypatch.setattr(
        digit_mixtures, "by_neighbors", lambda *given, **more: by_neighbors(*given, **more | {"starts": 1, "steps": 2})
    )
    return few


def test_a_trial_trains_and_is_a_mixture_of_pixels(monkeypatch):
    small(monkeypatch)
    trial = TEN.trial()
    fit(trial.model, trial.data, progress=False, **trial.settings)
    x = (trial.splits.test.images[:5] + 0.5) / 256
    assert trial.model.density.posterior(x).shape == (5, 10)
    assert trial.model.log_prob(trial.splits.test.images[:5]).shape == (5,)
    assert trial.model.sample(3, generator()).shape == (3, 784)
    assert torch.isfinite(trial.model.density.decode(torch.zeros(2, 784))).all()


def test_ten_labels_a_class_are_told_and_none_without(monkeypatch):
    few = small(monkeypatch)
    rows = first_of_each(few.train.labels, 10)
    images, labels = LABELS.trial().settings["objective"].labelled
    assert torch.equal(images, few.train.images[rows])
    assert torch.equal(labels, torch.arange(10).repeat_interleave(10))

    without = TEN.trial().settings["objective"]
    other = few._replace(train=few.train._replace(labels=few.train.labels.flip(0)))
    monkeypatch.setattr("flowlab.studies.digits.splits", lambda data, digits: other)
    again = TEN.trial().settings["objective"]
    assert without.labelled is None and torch.equal(without.start[1], again.start[1]), "other labels, the same start"


def test_the_same_seed_gives_the_same_start_and_another_another(monkeypatch):
    small(monkeypatch, FIVE)
    one, same, other = (FIVE.trial(seed=seed).settings["objective"].start[1] for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.slow
def test_the_table_of_ingredients_is_written_as_it_goes_and_resumed(monkeypatch, tmp_path):
    small(monkeypatch)
    path = tmp_path / "records.json"
    records = list(run(TEN, [0], path=path))
    assert [record.variant for record in records] == list(VARIANTS)
    assert all(0 <= r["accuracy"] <= 1 and 0 <= r["by_bayes"] <= 1 and r["bits_per_dim"] > 0 for r in records)
    assert [r["start"] is None for r in records] == [name in ("without neighbors", "ELBO alone") for name in VARIANTS]
    assert all(record.settings == {"size": "quick", "changes": {}} for record in records)
    written = json.loads(path.read_text())
    assert [one["variant"] for one in written] == list(VARIANTS)
    monkeypatch.setattr(study, "fit", None)  # whoever runs again fails
    assert list(run(TEN, [0], path=path, resume=True)) == records
    assert len(table(records, TEN.columns).splitlines()) == 1 + len(VARIANTS)
    with pytest.raises(TypeError):
        next(run(TEN, [0], path=path, resume=True, epochs=2))


def test_each_variant_leaves_out_what_it_says(monkeypatch):
    small(monkeypatch)
    for variant in VARIANTS:
        settings = TEN.trial(variant).settings
        loss, x = settings["objective"], torch.rand(2, 784)
        assert (loss.start is None) == (variant in ("without neighbors", "ELBO alone"))
        assert torch.equal(loss.change(x, generator()), x) == (variant == "without augmentation")
        assert (loss.balance == 0) == (variant in ("without balance", "ELBO alone"))
        assert (loss.consistency == 0) == (variant == "ELBO alone")
        assert (loss.flows == 1) == (variant == "without flows")
        assert ("validation" in settings) == (variant != "without flows"), "an unlearned density chooses no step"


def test_a_variant_that_is_none_is_refused_in_words():
    with pytest.raises(ValueError, match=r"mixture_mnist expected a variant among 'all', .*, but got 'without hope'"):
        TEN.record("without hope")


def test_the_known_records_are_those_of_the_studies():
    for record in digit_mixtures.known():
        assert record.variant in VARIANTS and record.settings["size"] in studies.MNIST[record.study].sizes
