"""The benchmark harness counts and reports rightly. The clock is not tested: it belongs to the machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "benchmarks" / "compare_peers.py"
sys.path.insert(0, str(SCRIPT.parent))
import compare_peers  # noqa: E402


@pytest.mark.slow
def test_the_command_measures_prints_and_writes_records(tmp_path):
    path = tmp_path / "times.json"
    options = ["--only", "flowlab,plain_torch", "--jobs", "step_h8,mixture_5", "--rounds", "2", "--json", str(path)]
    run = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    records = json.loads(path.read_text())
    assert {(r["library"], r["job"]) for r in records} == {
        (library, job) for library in ("flowlab", "plain_torch") for job in ("step_h8", "mixture_5")
    }
    for record in records:
        assert set(record) == {"library", "job", "threads", "median_ms", "min_ms"}
        assert record["threads"] == 1
        assert 0 < record["min_ms"] <= record["median_ms"]
    assert run.stdout.count("parameters (as expected)") == 2
    assert run.stdout.index("as a ratio") < run.stdout.index("| flowlab |")


def test_ratios_are_of_medians_and_the_floor_is_no_peer():
    times = {
        ("flowlab", "step_h64"): [[2.0, 9.0, 1.0], [4.0], [30.0]],  # medians of the rounds 2, 4, 30
        ("zuko", "step_h64"): [[8.0], [8.0], [1.0]],
        ("freia", "step_h64"): [[0.5], [16.0], [16.0]],
        ("plain_torch", "step_h64"): [[3.2], [3.2], [3.2]],
    }
    records = compare_peers.summarize(times)
    assert records[0] == {"library": "flowlab", "job": "step_h64", "threads": 1, "median_ms": 4.0, "min_ms": 1.0}
    assert compare_peers.ratios(records, "step_h64") == {
        "fastest_peer": ("zuko", 0.5),
        "plain_torch": ("plain_torch", 1.25),
    }
    text = compare_peers.report(times, {}, ["step_h64"])
    assert "0.50 (zuko)" in text and "1.25" in text and "| flowlab | 4.00" in text


def test_what_jax_compiles_stands_beside_steps_and_compiled_steps_and_is_no_torch_peer():
    times = {
        ("flowlab", "step_h8"): [[3.0]],
        ("flowlab", "step_h8_compiled"): [[1.0]],
        ("zuko", "step_h8"): [[6.0]],
        ("flowjax", "step_h8"): [[2.0]],
        ("distrax", "step_h8"): [[5.0]],
    }
    records = compare_peers.summarize(times)
    jitted = {"fastest_jitted": ("flowjax", 1.5)}
    assert compare_peers.ratios(records, "step_h8") == {"fastest_peer": ("zuko", 0.5), **jitted}
    assert compare_peers.ratios(records, "step_h8_compiled") == {"fastest_jitted": ("flowjax", 0.5)}


@pytest.mark.parametrize("name", compare_peers.JITTED)
def test_peers_in_jax_are_checked_like_the_others(one_thread, name):
    pytest.importorskip(name, reason='the extra "bench-jax" is not installed')
    library = compare_peers.LIBRARIES[name]
    assert compare_peers.check(library) == ""
    assert "as expected" in compare_peers.sizes(name, compare_peers.describe(library))


def test_ratios_need_both_sides():
    records = compare_peers.summarize({("zuko", "step_h8"): [[1.0]]})
    assert compare_peers.ratios(records, "step_h8") == {}


def test_a_peer_that_is_not_installed_is_named(monkeypatch, capsys):
    class Absent(compare_peers.Library):
        package = module = "a_library_that_nobody_wrote"

    monkeypatch.setitem(compare_peers.LIBRARIES, "absent", Absent())
    assert compare_peers.main(["--only", "absent", "--rounds", "1"]) == 0
    assert 'absent: not installed (pip install -e ".[bench]")' in capsys.readouterr().out


def test_libraries_take_turns_and_one_that_raises_is_reported(monkeypatch):
    turns = []

    class FakeWorker:
        def __init__(self, name):
            self.name = name

        def introduce(self):
            return self.name

        def time(self, job, seconds):
            turns.append(f"{self.name} {job}")
            if len(turns) == 6:
                raise compare_peers.LibraryFailed("ValueError: lost its way")
            return [1.0]

        def close(self):
            turns.append(f"{self.name} closed")

    monkeypatch.setattr(compare_peers, "Worker", FakeWorker)
    monkeypatch.setattr(compare_peers, "installed", lambda name: True)
    times, failed = compare_peers.measure(["flowlab", "zuko"], ["step_h8", "grid_40k"], 2, say=turns.append)
    assert turns[:6] == ["flowlab", "zuko", "flowlab step_h8", "zuko step_h8", "flowlab grid_40k", "zuko grid_40k"]
    assert turns[6:] == ["flowlab step_h8", "flowlab grid_40k", "flowlab closed", "zuko closed"]
    assert failed == {"zuko": "ValueError: lost its way"}
    assert times == {("flowlab", job): [[1.0], [1.0]] for job in ("step_h8", "grid_40k")}  # half a comparison is none
    assert "zuko: ValueError: lost its way" in compare_peers.report(times, failed, ["step_h8"])


@pytest.mark.slow
def test_a_process_says_what_it_died_of():
    worker = compare_peers.Worker("plain_torch")
    with pytest.raises(compare_peers.LibraryFailed, match="ValueError: expected a job among step_h64"):
        worker.time("no_such_job", 0.01)
    with pytest.raises(compare_peers.LibraryFailed, match="its process ended with code 0"):
        worker.time("step_h8", 0.01)
    worker.close()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_the_check_finds_wrong_flows(one_thread):
    class Unnormalized(compare_peers.PlainTorch):
        def log_prob(self, flow, x):
            return flow.log_prob(x) + 0.1

    class ForeignSampler(compare_peers.PlainTorch):
        def sample(self, flow, n):
            return torch.randn(n, 2)

    assert compare_peers.check(compare_peers.PlainTorch()) == ""
    assert compare_peers.check(Unnormalized()).startswith("its density integrates to 1.10")
    assert compare_peers.check(ForeignSampler()).startswith("its samples have")


def test_five_floors_in_one_pass_are_five_floors(one_thread):
    library = compare_peers.PlainTorch()
    five, one, x = library.mixture(5, 8), library.flow(8), torch.randn(7, 2)
    with torch.no_grad():
        for parameter in five.parameters():
            parameter.normal_(std=0.5)
        together = library.log_prob_components(five, x)
        for k in range(5):
            for name, parameter in one.named_parameters():
                parameter.copy_(five.get_parameter(name)[k].reshape(parameter.shape))
            torch.testing.assert_close(together[k], one.log_prob(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given, sentence", [("--only", "--only expected some of flowlab"), ("--jobs", "--jobs expec")])
def test_an_unknown_name_is_refused(given, sentence):
    with pytest.raises(SystemExit, match=sentence):
        compare_peers.main([given, "nothing"])


def test_a_flow_reaches_what_the_slowest_peer_has_in_the_end(monkeypatch):
    curves = {
        "flowlab": [[0.5, -3.0], [1.0, -1.0]],
        "zuko": [[1.0, -2.1], [2.0, -1.5], [3.0, -1.6]],
        "freia": [[2.0, -2.0], [9.0, -2.0], [11.0, -2.4]],  # the slowest: −2.0 is the target
    }

    class FakeWorker:
        def __init__(self, name):
            self.name = name

        def ask(self, **request):
            if self.name not in curves:
                raise compare_peers.LibraryFailed("ValueError: lost its way")
            return {"curve": curves[self.name]}

        def close(self):
            pass

    monkeypatch.setattr(compare_peers, "Worker", FakeWorker)
    monkeypatch.setattr(compare_peers, "installed", lambda name: name != "nflows")
    records, failed = compare_peers.reach(list(compare_peers.LIBRARIES), say=lambda line: None)
    assert {r["library"]: r["seconds"] for r in records} == {"flowlab": 1.0, "zuko": 2.0, "freia": 2.0}
    assert {r["target_nats"] for r in records} == {-2.0} and records[1]["best_nats"] == -1.5
    assert set(failed) == {"normflows", "nflows"}, "the floor is no peer, and nothing is recommended for it"
    assert "flowlab / fastest peer: 0.50" in compare_peers.report_reach(records)
    curves.clear()
    assert compare_peers.reach(["flowlab", "zuko"], say=lambda line: None)[0] == []
    curves["flowlab"] = [[1.0, -1.0]]
    alone, _ = compare_peers.reach(["flowlab"], say=lambda line: None)
    assert alone[0]["seconds"] is None and "no peer set a target" in compare_peers.report_reach(alone)


def test_training_as_recommended_is_timed_and_learns(one_thread):
    curve = compare_peers.learning_curve(compare_peers.LIBRARIES["flowlab"], 1.0)
    seconds, nats = zip(*curve, strict=True)
    assert list(seconds) == sorted(seconds) and 1.0 <= seconds[-1] < 2.0
    assert nats[-1] > nats[0] + 0.5, "a second of training shows"


@pytest.mark.slow
def test_growth_is_measured_along_each_axis():
    sizes = [1, 2, 5, 10]
    assert compare_peers.exponent(sizes, [3 * n**2 for n in sizes]) == pytest.approx(2)
    records = compare_peers.measure_growth(multiples=(1, 2), seconds=0.01)
    memory = [records.pop(0)] if sys.platform == "linux" else []
    assert [(r["job"], r["size"]) for r in records] == [
        *(("growth_batch", n) for n in (512, 1024)),
        *(("growth_layers", n) for n in (8, 16)),
        *(("growth_flows", n) for n in (5, 10)),
    ]
    assert all(0 < r["min_ms"] <= r["median_ms"] for r in records)
    text = compare_peers.report_growth(memory + records)
    assert "time grows as layers^" in text
    if memory:
        assert memory[0]["job"] == "memory_1000x1000" and 10 < memory[0]["megabytes"] < 300
        assert "log-density of 1000x1000 points" in text
