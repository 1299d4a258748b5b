"""The tables of notebooks 09 and 10, in small: every recipe runs, the recommended one works, the command keeps all."""

import json
import re
import signal

import pytest
import torch

from flowlab import cli, experiments
from flowlab.datasets import Pinwheel
from flowlab.experiments import CIRCLES, PINWHEEL, Record

EVERY = [
    *((PINWHEEL, recipe, 0) for recipe in PINWHEEL.recipes),
    *((CIRCLES, recipe, 0) for recipe in CIRCLES.recipes),
    *((CIRCLES, recipe, 32) for recipe in CIRCLES.labelled_recipes),
]


@pytest.mark.parametrize("experiment, recipe, labels", EVERY, ids=lambda v: v if isinstance(v, str) else "")
def test_every_recipe_runs_and_is_scored(experiment, recipe, labels):
    record = experiment.run(recipe, 0, labels=labels, effort=0.01)
    assert record.recipe == recipe and record.seed == 0 and record.seconds > 0
    assert 1 / experiment.truth.components <= record.accuracy <= 1 and -0.5 <= record.ari <= 1
    assert record.log_prob < record.exact_log_prob, "no fit of few steps beats the truth"


@pytest.mark.parametrize("experiment, labels", [(PINWHEEL, 0), (CIRCLES, 0), (CIRCLES, 2)])
def test_recommended_recipe_gets_nearly_all_right_with_half_of_its_steps(experiment, labels):
    record = experiment.run("consistent", 3, labels=labels, effort=0.5)
    assert record.accuracy > 0.985 and record.ari > 0.95
    assert record.exact_log_prob - record.log_prob < 0.3


def test_same_seed_gives_the_same_record_and_the_same_points_to_every_recipe():
    one, two = (PINWHEEL.run("elbo", 5, effort=0.01)._replace(seconds=0.0) for _ in range(2))
    assert one == two
    a, b = PINWHEEL.trial("elbo", 5), PINWHEEL.trial("thesis", 5)
    assert torch.equal(a.x, b.x) and torch.equal(a.test, b.test)
    assert a.settings["seed"] == b.settings["seed"] == 5, "batches are drawn by the trial's seed too"
    assert len(a.points.labels) == len(a.points.labelled) == 0, "no label asked for, none within a recipe's reach"
    assert not torch.equal(a.x, PINWHEEL.trial("elbo", 6).x) and not torch.equal(a.x, a.test)


@pytest.mark.parametrize("labels", [1, 5, 6, 8, 11, 64])
@pytest.mark.parametrize("seed", range(3))
def test_labels_are_as_balanced_as_their_number_allows(labels, seed):
    y = Pinwheel().labelled(2560, torch.Generator().manual_seed(seed))[1]
    rows = experiments._balanced(y, labels)
    counts = y[rows].bincount(minlength=5)
    assert len(rows) == labels and int(counts.max() - counts.min()) <= 1, counts
    assert torch.equal(rows, rows.unique()), "in order, and none twice"


@pytest.mark.parametrize("labels", [1, 2, 11, 32, 64])
def test_labels_are_balanced_and_true(labels):
    points = CIRCLES.trial("interleaved", 1, labels=labels).points
    assert len(points.labels) == labels and abs(int((points.labels == 0).sum()) * 2 - labels) <= 1
    assert torch.equal((points.labelled.norm(dim=-1) < 0.6).long(), points.labels), "0 is the outer ring"


def test_a_shorter_run_keeps_the_phases_of_a_whole_one():
    for effort in (1.0, 0.2):
        settings = CIRCLES.trial("consistent", 0, effort=effort).settings
        total = settings["epochs"] * (CIRCLES.size // settings["batch_size"])
        assert abs(settings["objective"].first / total - 0.5) < 0.02, "half for the shares, half for the ELBO"


def test_direct_likelihood_and_generalized_em_give_the_same_fit():
    em, likelihood = (PINWHEEL.run(recipe, 2, effort=0.02) for recipe in ("em", "likelihood"))
    assert abs(em.log_prob - likelihood.log_prob) < 1e-3


def test_command_prints_a_table_and_writes_the_records(tmp_path, capsys):
    path = tmp_path / "pinwheel.json"
    command = ["experiment", "pinwheel", "--recipes", "elbo", "em", "--effort", "0.01", "--json", str(path)]
    assert cli.main([*command, "--seeds", "2", "--first-seed", "7"]) == 0
    printed = capsys.readouterr().out
    records = json.loads(path.read_text())
    assert [(r["recipe"], r["seed"]) for r in records] == [("elbo", 7), ("em", 7), ("elbo", 8), ("em", 8)]
    scores = {"accuracy", "ari", "log_prob", "exact_log_prob", "seconds"}
    assert set(records[0]) == {"recipe", "seed", *scores, "data", "labels", "effort"}
    assert (records[0]["data"], records[0]["labels"], records[0]["effort"]) == (repr(Pinwheel()), 0, 0.01)
    assert "0 of 2" in printed and list(tmp_path.iterdir()) == [path]

    path.write_text(json.dumps(records[:3]))
    assert cli.main([*command, "--seeds", "3", "--first-seed", "7", "--resume"]) == 0
    resumed = json.loads(path.read_text())
    assert resumed[:3] == records[:3] and len(resumed) == 6, "what was there is kept, what was missing is run"
    capsys.readouterr()


def test_command_takes_the_noise_of_the_circles(tmp_path):
    found = []
    for noise in ("0.05", "0.005"):
        path = tmp_path / f"{noise}.json"
        command = ["experiment", "circles", "--recipes", "elbo", "--effort", "0.01", "--seeds", "1", "--noise", noise]
        assert cli.main([*command, "--json", str(path)]) == 0
        found.append(json.loads(path.read_text())[0]["exact_log_prob"])
    assert abs(found[0] + 0.38) < 0.1 and abs(found[1] - 1.92) < 0.1, "the exact densities of both, in nats"


def test_table_counts_successes():
    records = [Record("a", seed, 0.98 + 0.01 * seed, 0.9, -2.0, -1.5, 3.0) for seed in range(3)]
    row = experiments.table(records).splitlines()[1]
    assert "2 of 3" in row and "99.00 %" in row and "98.00 %" in row and "0.500" in row


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["pinwheel", "--recipes", "magic"], "the recipes are consistent, .* but 'magic'"),
        (["pinwheel", "--recipes", "elbo", "--labels", "5"], "With 5 labels the recipes are consistent, but 'elbo'"),
        (["circles", "--labels", "-3"], "0 to 1024 labels"),
        (["circles", "--labels", "2000"], "0 to 1024 labels"),
        (["circles", "--effort", "0"], r"effort in \(0, 1\]"),
        (["circles", "--seeds", "0"], "at least one seed"),
        (["circles", "--first-seed", "-1"], "at least 0"),
        (["circles", "--noise", "-1"], "noise"),
        (["pinwheel", "--noise", "0.1"], "--noise belongs to circles"),
        (["circles", "--json", "no/such/folder/file.json"], "no folder no/such/folder"),
        (["circles", "--json", "."], "is a folder. Name a file"),
        (["circles", "--resume"], "a file to resume from, but none was named"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words_and_at_once(arguments, words, capsys):
    assert cli.main(["experiment", *arguments]) == 1
    assert re.search(words, capsys.readouterr().err)


def test_a_file_that_holds_no_records_is_not_resumed(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')
    assert cli.main(["experiment", "circles", "--json", str(path), "--resume"]) == 1
    assert "holds no records" in capsys.readouterr().err and path.read_text() == '{"a": 1}'


@pytest.mark.parametrize("wrong", ['[{"recipe": "elbo"}]', "[1, 2]", '[{"recipe": "elbo', "", None])
def test_a_file_whose_records_are_broken_is_not_resumed(wrong, tmp_path, capsys):
    path = tmp_path / "broken.json"
    words = json.dumps([{**Record("elbo", 0, 1.0, 1.0, 0.0, 0.0, 1.0)._asdict(), "accuracy": "high"}])
    path.write_text(words if wrong is None else wrong)
    assert cli.main(["experiment", "circles", "--json", str(path), "--resume"]) == 1
    assert "holds no records" in capsys.readouterr().err


@pytest.mark.parametrize(
    "other",
    [["circles", "--noise", "0.1"], ["circles"], ["pinwheel", "--effort", "0.2"], ["pinwheel", "--labels", "5"]],
    ids=lambda o: o[-1],
)
def test_records_of_another_run_are_not_taken_for_this_ones(other, tmp_path, capsys):
    path = tmp_path / "records.json"
    kept = Record("consistent", 0, 1.0, 1.0, 0.0, 0.0, 1.0, data=repr(Pinwheel()), labels=0, effort=1.0)
    path.write_text(json.dumps([kept._asdict()]))
    command = ["--recipes", "consistent", "--seeds", "1", "--json", str(path), "--resume"]
    assert cli.main(["experiment", "pinwheel", *command]) == 0, "nothing is missing"
    capsys.readouterr()
    assert cli.main(["experiment", *other, *command]) == 1
    assert re.search(
        r"holds records of Pinwheel\(.*\) with 0 labels at effort 1, but this run is", capsys.readouterr().err
    )


def test_an_interrupted_fit_leaves_no_record(tmp_path, monkeypatch, capsys):
    path, real = tmp_path / "records.json", experiments.fit

    def interrupted_in_the_second(model, x, **settings):
        def stop(history):
            if path.exists():
                signal.raise_signal(signal.SIGINT)

        return real(model, x, **{**settings, "progress": stop})

    monkeypatch.setattr(experiments, "fit", interrupted_in_the_second)
    command = ["experiment", "pinwheel", "--recipes", "elbo", "--effort", "0.01", "--json", str(path)]
    assert cli.main([*command, "--seeds", "3"]) == 130
    assert [record["seed"] for record in json.loads(path.read_text())] == [0]
    monkeypatch.setattr(experiments, "fit", real)
    assert cli.main([*command, "--seeds", "2", "--resume"]) == 0
    assert [record["seed"] for record in json.loads(path.read_text())] == [0, 1]
