"""Studies: trials from seeds, records that survive in a file, tables; and nothing half done is taken for done."""

import json
import signal
import statistics

import pytest
import torch
from torch import Generator, nn

from flowlab import study
from flowlab.bijections import ScaleShift
from flowlab.densities import Flow, StandardNormal
from flowlab.study import (
    SEEDS,
    VARIANT,
    Record,
    Study,
    TableColumn,
    Trial,
    mean_of,
    median_of,
    read,
    run,
    setting,
    table,
)


class Counted(nn.Module):
    """Notes in which mode it is asked, and whether gradients are recorded."""

    def __init__(self, flow):
        super().__init__()
        self.flow, self.seen = flow, []

    def forward(self, x):
        self.seen.append((self.training, torch.is_grad_enabled()))
        return self.flow.log_prob(x)


def normal(shift, fitted=False):
    def trial(seed, points=50):
        x = shift + torch.randn(points, 1, generator=Generator().manual_seed(seed))
        model = Counted(Flow(ScaleShift(1), StandardNormal(1)))
        return Trial(model, x, {"steps": 5, "learning_rate": 0.1, "seed": seed}, fitted=fitted)

    return trial


def measure(trial):
    return {"gap": float(trial.model.flow.bijection.shift.abs().mean()), "mean": float(trial.model(trial.data).mean())}


VARIANTS = {"near": normal(0.0), "far": normal(3.0), "untrained": normal(3.0, fitted=True)}
NORMALS = Study("normals", "a shift, learned", VARIANTS, measure, settings={"points": 50})


def forgetful(record):
    """A record without its seconds, which no seed repeats."""
    return record.study, record.variant, record.seed, record.scores, record.settings


def test_a_record_is_its_seed_its_variant_and_its_settings():
    one, again, other = (NORMALS.record("far", seed) for seed in (0, 0, 1))
    assert forgetful(one) == forgetful(again) and one.scores != other.scores
    assert (one.study, one.variant, one.seed, one.settings) == ("normals", "far", 0, {"points": 50})
    assert one["gap"] == one.scores["gap"] > 0.1 and one.seconds >= 0
    few = NORMALS.record("far", 0, points=7)
    assert few.settings == {"points": 7} and few.scores != one.scores
    assert NORMALS.record("untrained")["gap"] == 0, "the model is fitted already, and no step is taken"


def test_scores_are_measured_in_evaluation_mode_and_leave_the_mode_as_it_was():
    trial = NORMALS.trial("near")
    trial.model.train()
    NORMALS.score(trial)
    assert trial.model.seen == [(False, False)] and trial.model.training


def test_all_seeds_and_variants_are_run_in_turn_and_kept_in_the_file(tmp_path):
    path, kept = tmp_path / "records.json", []
    for record in run(NORMALS, range(3, 5), ["far", "near", "far"], path=path):
        kept.append(record)
        assert read(path) == kept, "after each"
    assert [(r.variant, r.seed) for r in kept] == [("far", 3), ("near", 3), ("far", 4), ("near", 4)]
    assert [p.name for p in tmp_path.iterdir()] == ["records.json"]
    assert json.loads(path.read_text())[0].keys() == {"study", "variant", "seed", "gap", "mean", "seconds", "settings"}
    assert len(list(run(NORMALS, [0]))) == len(VARIANTS)


def test_a_run_goes_on_from_its_file_and_keeps_what_else_is_there(tmp_path, monkeypatch):
    path = tmp_path / "records.json"
    first = list(run(NORMALS, [0], ["far"], path=path))
    others = [Record("other", "far", 0, {"gap": 1.0}, 1.0, {"points": 50})]
    study.write(path, [*others, *first])
    ran, record = [], Study.record

    def spy(self, variant, seed, **settings):
        ran.append((variant, seed, settings))
        return record(self, variant, seed, **settings)

    monkeypatch.setattr(Study, "record", spy)
    found = list(run(NORMALS, range(2), ["far", "near"], path=path, resume=True))
    assert found[0] == first[0] and ran == [("near", 0, {}), ("far", 1, {}), ("near", 1, {})]
    assert read(path) == [*others, *found]
    list(run(NORMALS, [0], ["far"], path=path, resume=True, points=9))
    assert ran[3:] == [("far", 0, {"points": 9})], "the same seed with other settings is another trial"
    list(run(NORMALS, range(2), path=tmp_path / "new.json", resume=True)), "what is not there yet is begun"


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    path = tmp_path / "records.json"
    list(run(NORMALS, [0], ["near"], path=path))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"is there already\. Go on from it with --resume, or name another file"):
        run(NORMALS, [0], ["near"], path=path)
    assert path.read_bytes() == before


def test_an_interrupted_fit_leaves_no_record(tmp_path, monkeypatch):
    real = study.fit

    def stop(history):
        if (tmp_path / "records.json").exists():
            signal.raise_signal(signal.SIGINT)

    def stoppable(model, data, **settings):
        return real(model, data, **settings | {"progress": stop})

    monkeypatch.setattr(study, "fit", stoppable)
    with pytest.raises(KeyboardInterrupt):
        list(run(NORMALS, range(3), ["near"], path=tmp_path / "records.json"))
    assert [record.seed for record in read(tmp_path / "records.json")] == [0]


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"variants": ["none"]}, r"normals expected a variant among 'near', 'far', 'untrained', but got 'none'"),
        ({"labels": 3}, r"normals expected settings among 'points', but got 'labels'"),
        ({"seeds": []}, "at least one seed, the first at least 0, but got 0"),
        ({"seeds": [-1, 0]}, "but got 2 from -1"),
        ({"resume": True}, "a file to resume from, but got none"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(wrong, words, monkeypatch):
    monkeypatch.setattr(Study, "trial", lambda *_, **__: pytest.fail("something was built"))
    with pytest.raises(ValueError, match=words):
        run(NORMALS, **({"seeds": [0]} | wrong))


def test_a_study_without_a_measure_says_so():
    with pytest.raises(NotImplementedError, match=r"normals measures nothing\. Give it measure="):
        Study("normals", "", VARIANTS).record("near")


# --- tables ---------------------------------------------------------------------------------------------------------


RECORDS = [
    *(Record("s", "a", seed, {"gap": gap, "none": None}, 2.0, {"size": "small"}) for seed, gap in enumerate((1, 2, 6))),
    Record("s", "a", 0, {"gap": 5.0, "none": None}, 2.0, {"size": "large"}),
    Record("s", "much longer", 0, {"gap": 0.5, "none": None}, 4.0, {"size": "small"}),
]


def test_a_table_has_a_line_for_each_variant_and_its_settings():
    head, *lines = table(RECORDS).splitlines()
    assert head.split() == ["variant", "size", "seeds", "gap"], "settings that differ; no score that no seed has"
    spread = statistics.stdev((1, 2, 6))
    assert [line.split() for line in lines] == [
        ["a", "small", "3", "3.000", "±", f"{spread:.3f}"],
        ["a", "large", "1", "5.000"],
        ["much", "longer", "small", "1", "0.500"],
    ]
    ends = {line.index(number) for line, number in zip(lines, ("3 ", "1 ", "1 "), strict=True)}
    assert ends == {head.index("seeds") + 4}, "numbers stand under each other"


def test_columns_say_what_they_are_asked():
    columns = [
        VARIANT,
        TableColumn("size", setting("size"), left=True),
        SEEDS,
        TableColumn("percent", mean_of("gap", 100, 0)),
        TableColumn("half", median_of(lambda record: record["gap"] / 2, 1)),
    ]
    rows = [line.split("  ") for line in table(RECORDS, columns).splitlines()]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["variant", "size", "seeds", "percent", "half"],
        ["a", "small", "3", "300 ± 265", "1.0"],
        ["a", "large", "1", "500", "2.5"],
        ["much longer", "small", "1", "50", "0.2"],
    ]


def test_no_records_make_no_table():
    assert table([]) == "There are no records."
