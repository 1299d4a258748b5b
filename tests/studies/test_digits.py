"""Studies of MNIST: each size is what it says, learns, stops and goes on, and its card says what came out."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from flowlab import evaluation, models, studies
from flowlab.datasets import mnist
from flowlab.densities import VariationalDequantized, negative_bound
from flowlab.models import SIZES, Size
from flowlab.studies import MNIST, ImageStudy, fit_and_evaluate
from flowlab.studies.digits import DENSITIES, NICE, likelihood
from flowlab.training import CheckpointError, fit, load_checkpoint, read_checkpoint

NAMES = [study.name for study in DENSITIES]
SMALL = {"name": "dequantized", "settings": {"density": {"name": "nice", "settings": {"features": 784, "hidden": [4]}}}}
BRIEF = {"epochs": 3, "batch_size": 1500, "learning_rate": 0.05, "validate_every": 3, "checkpoint_every": 2}
TINY = ImageStudy(name="tiny_mnist", about="a test", sizes={"quick": Size(SMALL, BRIEF, "bundled", "a second")})


def train(study, path, **settings):
    trial = study.trial(**settings)
    return trial.model, *fit_and_evaluate(trial, path, progress=False)


def test_each_study_has_a_quick_size_inside_the_package_and_a_full_one():
    assert set(NAMES) <= set(MNIST) and all(MNIST[name].name == name for name in MNIST)
    for study in MNIST.values():
        assert study.about and study.size("quick").data == "bundled" and study.size("full").data == "full"
        assert all(size.cost for size in study.sizes.values()) and study.sizes == SIZES[study.name]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("nice_mnist", 19.2),  # the paper's 4 networks: 392 · 1000 + 4 · 1000² + 1000 · 392 each, and biases
        ("realnvp_dense_mnist", 11.3),
        ("maf_mnist", 17.3),
        ("made_mog_mnist", 26.0),
        ("realnvp_mnist", None),
        ("glow_mnist", None),
        ("glow_variational_mnist", None),
    ],
)
def test_the_full_sizes_build(name, millions):
    model = models.build(MNIST[name].size("full").model)
    count = sum(p.numel() for p in model.parameters())
    assert count > 1e6 if millions is None else count == pytest.approx(millions * 1e6, rel=0.01)
    assert isinstance(model, VariationalDequantized) == ("variational" in name)


def test_the_papers_optimizers_are_stated_and_used():
    training = NICE.size("full").training
    assert (training["betas"], training["eps"], training["learning_rate"]) == ((0.9, 0.99), 1e-4, 1e-3)
    assert (training["epochs"], training["batch_size"], training["schedule"]) == (1500, 200, "constant")
    for name in ("maf_mnist", "realnvp_dense_mnist", "made_mog_mnist"):  # an epoch of 50,000 in batches of 100
        training = MNIST[name].size("full").training
        assert training["weight_decay"] == 1e-6 and training["patience"] * training["validate_every"] == 30 * 500
    trial = TINY.trial(betas=(0.5, 0.6), eps=1e-3, weight_decay=0.1)
    adam = trial.settings["optimizer"](trial.model.parameters())
    chosen = {name: adam.defaults[name] for name in ("lr", "betas", "eps", "weight_decay")}
    assert chosen == {"lr": 0.05, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.1}
    assert not {"betas", "eps", "weight_decay"} & set(trial.settings) and trial.card["training"]["betas"] == (0.5, 0.6)
    assert "optimizer" not in TINY.trial().settings
    fit(trial.model, trial.data, progress=False, **trial.settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_of_the_quick_size_help(name):
    trial = MNIST[name].trial()
    settings = {key: value for key, value in trial.settings.items() if key != "epochs"}
    settings |= {"steps": 8, "batch_size": 64, "validation": trial.settings["validation"][:64], "validate_every": 1}
    history = fit(trial.model, trial.data[:500], progress=False, **settings)
    first, *_, last = history.validation.values()
    assert last < first - 30, "nats an image"


def test_a_trial_is_its_seed_and_its_images():
    one, again, other = (TINY.trial(seed=seed) for seed in (0, 0, 1))
    weights = [next(p for p in trial.model.parameters() if p.ndim == 2) for trial in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert other.settings["seed"] == 1 and [len(part.images) for part in one.splits] == [4500, 500, 1000]
    assert one.data is one.splits.train.images and one.data.dtype == torch.uint8 and one.data.shape == (4500, 784)
    assert torch.equal(one.settings["validation"], one.splits.validation.images)
    images, labels = mnist.digits("train")
    assert torch.equal(one.splits.validation.images, images[-500:].flatten(1))
    assert torch.equal(one.splits.train.labels, labels[:-500])
    assert one.card["plan"] == {
        "name": "tiny_mnist",
        "size": "quick",
        "seed": 0,
        "digits": list(range(10)),
        "changes": {},
    }
    changed = TINY.trial(epochs=7)
    assert changed.settings["epochs"] == 7 and changed.card["plan"]["changes"] == {"epochs": 7}
    assert TINY.trial().settings["epochs"] == 3


def test_a_study_may_be_of_some_digits():
    few = replace(TINY, digits=(3, 7)).trial()
    assert all(part.labels.unique().tolist() == [3, 7] for part in few.splits)
    assert len(few.data) == len(few.splits.train.labels) < 1000 and few.card["plan"]["digits"] == [3, 7]


def test_nice_starts_with_its_diagonal_at_the_scale_of_the_pixels():
    trial = NICE.trial()
    scale = trial.model.density.bijection[-1].log_scale.detach().exp()
    x = (trial.data + torch.rand(trial.data.shape, generator=torch.Generator().manual_seed(0))) / 256
    torch.testing.assert_close(scale, 1 / x.std(0), rtol=0.05, atol=0)
    assert float(scale.max()) == pytest.approx(256 * 12**0.5, rel=1e-3), "a pixel that is always black"
    plain = likelihood(NICE.size("quick"), trial.splits, torch.Generator().manual_seed(0))[0]
    test = trial.splits.test.images[:100]
    assert evaluation.log_prob(trial.model, test).mean() > evaluation.log_prob(plain, test).mean() + 1000


def test_training_writes_weights_and_a_card_with_the_evaluation(tmp_path):
    path = tmp_path / "tiny.safetensors"
    model, history, card = train(TINY, path, seed=2)
    tensors, written = read_checkpoint(path)
    assert written["metrics"] == {
        **card["metrics"],
        "bits_per_dim_by_digit": written["metrics"]["bits_per_dim_by_digit"],
    }
    assert written["plan"]["seed"] == 2 and written["stopped"] == "finished 9 steps" == history.stopped
    assert written["recipe"]["name"] == "dequantized" and written["protocol"] == card["protocol"]
    assert "1,000 bundled test images" in card["protocol"] and "500 validation images, never at test" in card["chosen"]
    assert written["training"] == {"schedule": "cosine", **BRIEF} and written["data"]["training"] == 4500
    again = models.build(written["recipe"])
    load_checkpoint(path, again)
    test = studies.splits("bundled").test
    assert evaluation.evaluate(again, *test)["metrics"] == card["metrics"]
    assert all(torch.equal(value, tensors[name]) for name, value in model.state_dict().items())


def interrupting(at):
    """A start whose objective presses Ctrl-C in one step, and then never again."""
    presses = [at]

    def start(size, splits, generator):
        model, images, settings = likelihood(size, splits, generator)

        def objective(model, v, step):
            if [step.index] == presses:
                presses.clear()
                os.kill(os.getpid(), signal.SIGINT)
            return negative_bound(model, v, step)

        return model, images, settings | {"objective": objective}

    return start


def test_a_stopped_run_keeps_its_checkpoint_and_goes_on_to_the_same_end(tmp_path):
    path, stopping = tmp_path / "stopped.safetensors", replace(TINY, start=interrupting(4))
    _, history, card = train(stopping, path)
    assert history.step == 5 and not history.ended and "metrics" not in card
    model, history, card = train(stopping, path)
    assert history.step == 9 and history.ended and read_checkpoint(path)[1]["metrics"]["bits_per_dim"] > 0
    undisturbed, _, same = train(TINY, tmp_path / "whole.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), undisturbed.parameters(), strict=True))
    assert card["metrics"] == same["metrics"]
    with pytest.raises(CheckpointError, match="from another run"):
        train(TINY, path, seed=1)


def test_patience_ends_a_run(tmp_path):
    settings = BRIEF | {"epochs": 50, "learning_rate": 1e-12, "validate_every": 1, "patience": 2}
    impatient = replace(TINY, sizes={"quick": Size(SMALL, settings, "bundled")})
    _, history, card = train(impatient, tmp_path / "tiny.safetensors")
    assert history.step < 150 and history.ended and history.reason == "patience" and "metrics" in card


def test_what_cannot_be_had_is_refused_in_words():
    with pytest.raises(ValueError, match="nice_mnist expected a size among quick, compact, full, but got 'huge'"):
        NICE.trial(size="huge")
    with pytest.raises(ValueError, match=""""full" or "bundled", but got 'half'"""):
        studies.splits("half")


def test_the_full_size_needs_the_full_mnist(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "_cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(mnist.MNISTError, match="Set FLOWLAB_DATA"):
        NICE.trial(size="full")
