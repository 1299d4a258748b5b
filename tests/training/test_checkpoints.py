"""Checkpoints: weights with their card, whole or absent, and nothing in them that is run."""

import dataclasses
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import gaussian, quiet, same, small, state

from flowlab import Flow, nice, realnvp
from flowlab.bijections import ActNorm, AffineCoupling, BatchNorm, Chain
from flowlab.densities import StandardNormal
from flowlab.training import (
    Card,
    CheckpointError,
    checkpoints,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    train,
)


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


def test_each_writer_of_a_card_says_what_all_cards_say(tmp_path):
    flow, file = small(), tmp_path / "run.safetensors"
    quiet(flow, gaussian(), steps=3, seed=5, checkpoint=file)
    save_checkpoint(tmp_path / "saved.safetensors", flow, {"metrics": {"nats": 1.0}, "minutes": 2})
    files = file, checkpoints.training_file(file), tmp_path / "saved.safetensors"
    run, training, saved = (read_checkpoint(path)[1] for path in files)
    for card in (run, training, saved):
        assert {"model", "recipe", "structure", "hardware", "versions"} <= set(card)
    assert (run["seed"], run["step"], run["of"], run["run"]) == (5, 3, 3, training["run"])
    assert saved["minutes"] == 2 and saved["metrics"] == {"nats": 1.0} and "run" not in saved
    known = {field.name for field in dataclasses.fields(Card)}
    assert set(run) <= known, "a run says nothing that is no field of a card"


def test_a_card_that_is_handed_on_says_nothing_of_the_other_models_structure(tmp_path):
    save_checkpoint(tmp_path / "one.safetensors", small())
    card = load_checkpoint(tmp_path / "one.safetensors", small())
    other = Flow(Chain([ActNorm(2)]), StandardNormal(2))
    save_checkpoint(tmp_path / "other.safetensors", other, card | {"recipe": None, "model": "Flow"})
    load_checkpoint(tmp_path / "other.safetensors", other)


# --- the commit -------------------------------------------------------------------------------------------------------


def repository(folder: Path, *files: Path) -> str:
    """A git repository with these files in it; its commit."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, "-C", folder, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        git("add", "-f", str(file))
    git("commit", "-q", "--allow-empty", "-m", "their own")
    return git("rev-parse", "HEAD")


@pytest.fixture
def commit_at(monkeypatch):
    """What the card says where flowlab's folder is another."""

    def at(package: Path) -> str | None:
        monkeypatch.setattr(checkpoints, "__file__", str(package / "training" / "checkpoints.py"))
        return checkpoints.commit.__wrapped__()

    return at


def test_a_card_names_the_commit_of_flowlabs_own_checkout(tmp_path, commit_at, monkeypatch):
    own = tmp_path / "flowlab"
    files = own / "flowlab" / "training" / "checkpoints.py", own / "pyproject.toml"
    own.mkdir()
    repository(own, *files)
    (own / "pyproject.toml").write_text('[project]\nname = "flowlab"\n')
    assert commit_at(own / "flowlab").endswith("-dirty")
    subprocess.run(["git", "-C", own, "checkout", "-q", "-b", "x"], check=True)
    (own / "pyproject.toml").write_text("")
    assert commit_at(own / "flowlab") is None, "another project of that layout"
    other = tmp_path / "other"
    other.mkdir()
    theirs = repository(other)
    (own / "pyproject.toml").write_text('[project]\nname = "flowlab"\n')
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as inside a hook of theirs
    assert not theirs.startswith(commit_at(own / "flowlab").removesuffix("-dirty"))


@pytest.mark.parametrize("place", ("venv/lib/python3.11/site-packages/flowlab", "vendored/flowlab", "flowlab"))
@pytest.mark.parametrize("tracked", (True, False), ids=("tracked", "untracked"))
def test_a_card_does_not_name_the_commit_of_a_project_around_flowlab(tmp_path, commit_at, place, tracked):
    package = tmp_path / place
    file = package / "training" / "checkpoints.py"
    file.parent.mkdir(parents=True)
    repository(tmp_path, *([file] if tracked else []))
    assert commit_at(package) is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "their-thesis"\n')
    assert commit_at(package) is None


def test_a_card_names_no_commit_where_there_is_no_git(tmp_path, commit_at, monkeypatch):
    assert commit_at(tmp_path / "flowlab") is None
    monkeypatch.setenv("PATH", "")
    assert checkpoints.commit.__wrapped__() is None


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


def test_a_home_folder_is_the_home_folder(tmp_path, monkeypatch):
    """For each who takes the name of a checkpoint; no folder is called ~ afterwards."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(here)
    flow = small()
    quiet(flow, gaussian(), steps=3, checkpoint="~/runs/a.safetensors")
    save_checkpoint("~/b.safetensors", flow)
    load_checkpoint("~/runs/a.safetensors", small())
    load_checkpoint(Path("~/b.safetensors"), small())
    assert read_checkpoint("~/b.safetensors")[1]["model"] == "Flow"
    assert sorted(p.name for p in home.rglob("*.safetensors")) == [
        "a.safetensors",
        "a.training.safetensors",
        "b.safetensors",
    ]
    assert not list(here.iterdir())
    again = quiet(small(), gaussian(), steps=3, checkpoint=home / "runs" / "a.safetensors")
    assert again.step == 3, "it is the same file"


@pytest.mark.parametrize(
    "path, words",
    (
        ("", "file as a checkpoint, such as runs/flow.safetensors, but got an empty one"),
        (".", r"Expected a file as a checkpoint, but got the folder .\. Name a file in it"),
        ("{tmp}", r"but got the folder .*\. Name a file in it, such as \S*flow\.safetensors"),
        ("~nobody-of-this-name/a.safetensors", "There is no home folder for ~nobody"),
    ),
)
def test_a_place_where_no_file_can_be_is_refused_in_words(tmp_path, path, words):
    path = path.format(tmp=tmp_path)
    with pytest.raises(ValueError, match=words):
        quiet(small(), gaussian(), steps=3, checkpoint=path)
    with pytest.raises(ValueError, match=words):
        save_checkpoint(path, small())
    with pytest.raises(CheckpointError):
        load_checkpoint(path, small())
    assert not list(tmp_path.iterdir())


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
