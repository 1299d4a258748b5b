"""`flowlab experiment`: it prints the table of a study, keeps its records, goes on from them, and refuses in words."""

import json
import re
import signal

import pytest

from flowlab import study
from flowlab.commands import main
from flowlab.datasets import Pinwheel
from flowlab.studies import PINWHEEL, PointStudy
from flowlab.study import Record, read, table, write


@pytest.mark.slow
def test_command_prints_a_table_and_writes_the_records(tmp_path, capsys):
    path = tmp_path / "pinwheel.json"
    command = ["experiment", "pinwheel", "--variants", "elbo", "em", "--effort", "0.01", "--json", str(path)]
    assert main([*command, "--seeds", "2", "--first-seed", "7"]) == 0
    printed = capsys.readouterr().out
    records = json.loads(path.read_text())
    assert [(r["variant"], r["seed"]) for r in records] == [("elbo", 7), ("em", 7), ("elbo", 8), ("em", 8)]
    scores = {"accuracy", "ari", "log_prob", "exact_log_prob", "seconds"}
    assert set(records[0]) == {"study", "variant", "seed", *scores, "settings"}
    assert records[0]["settings"] == {"data": repr(Pinwheel()), "labels": 0, "effort": 0.01}
    assert "0 of 2" in printed and list(tmp_path.iterdir()) == [path]

    path.write_text(json.dumps(records[:3]))
    assert main([*command, "--seeds", "3", "--first-seed", "7", "--resume"]) == 0
    resumed = json.loads(path.read_text())
    assert resumed[:3] == records[:3] and len(resumed) == 6, "what was there is kept, what was missing is run"
    capsys.readouterr()


def test_command_takes_the_noise_of_the_circles(tmp_path):
    found = []
    for noise in ("0.05", "0.005"):
        path = tmp_path / f"{noise}.json"
        command = ["experiment", "circles", "--recipes", "elbo", "--effort", "0.01", "--seeds", "1", "--noise", noise]
        assert main([*command, "--json", str(path)]) == 0
        found.append(json.loads(path.read_text())[0]["exact_log_prob"])
    assert abs(found[0] + 0.38) < 0.1 and abs(found[1] - 1.92) < 0.1, "the exact densities of both, in nats"


def record(variant="consistent", seed=0, accuracy=1.0, **settings):
    scores = {"accuracy": accuracy, "ari": 1.0, "log_prob": -2.0, "exact_log_prob": -1.5}
    usual = {"data": repr(Pinwheel()), "labels": 0, "effort": 1.0}
    return Record("pinwheel", variant, seed, scores, 3.0, usual | settings)


def test_table_counts_successes():
    head, row = table([record("a", seed, 0.98 + 0.01 * seed) for seed in range(3)], PINWHEEL.columns).splitlines()
    assert "at least 99%" in head and "nats to the exact density" in head
    assert "2 of 3" in row and "99.00 %" in row and "98.00 %" in row and "0.500" in row


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["pinwheel", "--recipes", "magic"], "a variant among consistent, .* but got 'magic'"),
        (
            ["pinwheel", "--recipes", "elbo", "--labels", "5"],
            "With 5 labels expected a variant among consistent, but got 'elbo'",
        ),
        (["circles", "--labels", "-3"], "0 to 1024 labels"),
        (["circles", "--labels", "2000"], "0 to 1024 labels"),
        (["circles", "--effort", "0"], r"effort in \(0, 1\]"),
        (["circles", "--seeds", "0"], "at least one seed"),
        (["circles", "--first-seed", "-1"], "at least 0"),
        (["circles", "--noise", "-1"], "noise"),
        (["pinwheel", "--noise", "0.1"], "Expected circles with --noise"),
        (["spirals"], "Expected a study among pinwheel, circles, .* but got 'spirals'"),
        (["shipped", "--labels", "3"], "shipped expected settings among nothing, but got 'labels'"),
        (["circles", "--json", "no/such/folder/file.json"], "no folder no/such/folder"),
        (["circles", "--json", "."], "is a folder. Name a file"),
        (["circles", "--resume"], "a file to resume from, but got none"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words_and_at_once(arguments, words, capsys):
    assert main(["experiment", *arguments]) == 1
    assert re.search(words, capsys.readouterr().err)


def test_a_file_that_holds_no_records_is_not_resumed(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')
    assert main(["experiment", "circles", "--json", str(path), "--resume"]) == 1
    assert "holds no records" in capsys.readouterr().err and path.read_text() == '{"a": 1}'


@pytest.mark.parametrize("wrong", ['[{"variant": "elbo"}]', "[1, 2]", '[{"variant": "elbo", "', None])
def test_a_file_whose_records_are_broken_is_not_resumed(wrong, tmp_path, capsys):
    path = tmp_path / "broken.json"
    write(path, [record(accuracy="high")])
    path.write_text(path.read_text() if wrong is None else wrong)
    assert main(["experiment", "circles", "--json", str(path), "--resume"]) == 1
    assert "holds no records" in capsys.readouterr().err


def test_a_file_that_is_there_is_not_written_over(tmp_path, capsys):
    path = tmp_path / "records.json"
    write(path, [record()])
    before = path.read_bytes()
    assert main(["experiment", "pinwheel", "--json", str(path)]) == 1
    assert "is there already. Go on from it with --resume" in capsys.readouterr().err and path.read_bytes() == before


@pytest.mark.parametrize(
    "other",
    [["circles"], ["pinwheel", "--effort", "0.01"], ["pinwheel", "--labels", "5"]],
    ids=lambda o: o[-1],
)
def test_records_of_another_run_are_kept_and_not_taken_for_this_ones(other, tmp_path, monkeypatch, capsys):
    path = tmp_path / "records.json"
    write(path, [record()])
    command = ["--variants", "consistent", "--seeds", "1", "--json", str(path), "--resume"]
    monkeypatch.setattr(PointStudy, "record", lambda self, variant, seed, **settings: pytest.fail("ran again"))
    assert main(["experiment", "pinwheel", *command]) == 0, "nothing is missing"
    ran = record(accuracy=0.5)
    monkeypatch.setattr(PointStudy, "record", lambda self, variant, seed, **settings: ran)
    assert main(["experiment", *other, *command]) == 0
    assert read(path) == [record(), ran]


def test_an_interrupted_fit_leaves_no_record(tmp_path, monkeypatch, capsys):
    path, real = tmp_path / "records.json", study.fit

    def interrupted_in_the_second(model, x, **settings):
        def stop(history):
            if path.exists():
                signal.raise_signal(signal.SIGINT)

        return real(model, x, **{**settings, "progress": stop})

    monkeypatch.setattr(study, "fit", interrupted_in_the_second)
    command = ["experiment", "pinwheel", "--variants", "elbo", "--effort", "0.01", "--json", str(path)]
    assert main([*command, "--seeds", "3"]) == 130
    assert [record["seed"] for record in json.loads(path.read_text())] == [0]
    monkeypatch.setattr(study, "fit", real)
    assert main([*command, "--seeds", "2", "--resume"]) == 0
    assert [record["seed"] for record in json.loads(path.read_text())] == [0, 1]


def test_alone_it_lists_the_studies(capsys):
    assert main(["experiment"]) == 0
    out = capsys.readouterr().out
    assert f"\npinwheel\n  {PINWHEEL.about}\n  variants: consistent, elbo" in out and "\ncircles\n" in out


def test_a_lessons_study_is_found_by_its_place(tmp_path, monkeypatch, capsys):
    """A file study.py beside the lesson's figures, with a STUDY in it, and nothing else to be told."""
    folder = tmp_path / "two_normals"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "study.py").write_text(LESSON)
    from flowlab import lessons

    monkeypatch.setattr(lessons, "__path__", [*lessons.__path__, str(tmp_path)])
    assert main(["experiment", "normals", "--seeds", "2", "--json", str(tmp_path / "records.json")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^near +2 +0\.\d+ ± 0\.\d+$", out, re.M) and re.search(r"^far +2", out, re.M)
    assert [(r.study, r.variant, r.seed) for r in read(tmp_path / "records.json")] == [
        *(("normals", variant, seed) for seed in (0, 1) for variant in ("near", "far"))
    ]


LESSON = """
import torch
from torch import Generator

from flowlab import Flow
from flowlab.bijections import ScaleShift
from flowlab.densities import StandardNormal
from flowlab.study import Study, Trial


def normal(shift):
    def trial(seed):
        x = shift + torch.randn(200, 1, generator=Generator().manual_seed(seed))
        return Trial(Flow(ScaleShift(1), StandardNormal(1)), x, {"steps": 20, "learning_rate": 0.1, "seed": seed})

    return trial


def measure(trial):
    return {"gap": float(trial.model.bijection.shift.abs().mean())}


STUDY = Study("normals", "how far a shift moves in 20 steps", {"near": normal(0.1), "far": normal(9.0)}, measure)
"""
