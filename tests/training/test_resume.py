"""A run that was stopped or killed goes on bit for bit, and only the same run does."""

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killing import SCENARIOS
from runs import drift, gaussian, interrupt_at, quiet, same, small, state
from torch import Tensor, nn

from flowlab import fit, training
from flowlab.densities.mixtures import Interleaved, Objective
from flowlab.training import (
    CheckpointError,
    NonFiniteLoss,
    Step,
    fingerprints,
    lookahead,
    negative_log_likelihood,
    read_checkpoint,
    save_checkpoint,
)


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path):
    flow, resumed, straight = small(), small(1), small()
    settings = {"steps": 40, "batch_size": 64, "checkpoint": tmp_path / "run.safetensors"}
    stopped = quiet(flow, gaussian(), objective=interrupt_at(17), **settings).stopped
    assert stopped == f"interrupted after step 18 of 40; the same call goes on from there, by {settings['checkpoint']}"
    assert same(read_checkpoint(settings["checkpoint"])[0], state(flow)), "what it had is in the file"
    history = quiet(resumed, gaussian(), **settings)
    quiet(straight, gaussian(), **{**settings, "checkpoint": None})
    assert history.step == 40 and history.stopped == "finished 40 steps" and same(state(resumed), state(straight))


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
    monkeypatch.setitem(lookahead.STEPS_AHEAD, "cpu", 7)
    kinds = []
    its = fit(later, gaussian(), progress=lambda history: kinds.append(type(history.loss[-1])), **settings)
    assert kinds.count(Tensor) > 20 and its.loss == history.loss and {type(loss) for loss in its.loss} == {float}
    assert its.validation == history.validation and same(its.snapshots[4], history.snapshots[4])
    assert same(state(later), state(flow))
    resumed, settings["checkpoint"] = small(1), tmp_path / "run.safetensors"
    quiet(small(), gaussian(), objective=interrupt_at(17), **settings)
    assert quiet(resumed, gaussian(), **settings).loss == history.loss and same(state(resumed), state(flow))


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
    told = fingerprints.told(Interleaved(x, y))
    assert told == fingerprints.told(Interleaved(x * (1 + 1e-6), y))
    assert told != fingerprints.told(Interleaved(x, y.flip(0))) and told != fingerprints.told(
        Interleaved(x[:19], y[:19])
    )


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


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    where = {**os.environ, "PYTHONPATH": str(Path(training.__file__).parents[2])}
    script = str(Path(__file__).with_name("killing.py"))
    done = subprocess.run(
        [sys.executable, script, root],
        capture_output=True,
        text=True,
        timeout=300,
        env=where,
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.slow
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


@pytest.mark.slow
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
