"""Training on several processes: what one process gives, however they start, stop and are killed.

Run as a script, ``python test_distributed.py FOLDER`` trains each scenario on one process and on two, all forked from
one import of torch; ``torchrun test_distributed.py FOLDER SCENARIO`` is one of the processes of a real launch.
"""

import functools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forking import momentum, ready_to_fork
from torch import Generator, Tensor, nn

from flowlab import Flow, fit, training
from flowlab.bijections import ActNorm, AffineCoupling, BatchNorm, Chain, Logit
from flowlab.densities import Dequantized, StandardNormal, negative_bound
from flowlab.densities.mixtures import FlowMixture, Interleaved, Objective
from flowlab.models import realnvp
from flowlab.training import NonFiniteLoss, Step, checkpoints, distributed, negative_log_likelihood, read_checkpoint

ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def points(n: int, seed: int = 0) -> Tensor:
    x = torch.randn(n, 2, generator=generator(seed))
    return torch.stack((x[:, 0] + 3, x[:, 1] / 2 + x[:, 0].sin()), dim=-1)


def couplings(*first: nn.Module) -> Flow:
    """A small flow with layers that start from their first batch."""
    maps = [m for i in (0, 1) for m in (ActNorm(2), AffineCoupling([i == 0, i == 1], (8,), generator=generator(i)))]
    return Flow(Chain([*first, *maps]), StandardNormal(2))


def mixture() -> FlowMixture:
    flows = realnvp(2, layers=2, hidden=(8,), stack=3, generator=generator())
    return FlowMixture(flows, hidden=(8,), generator=generator())


def on_rank(rank: int, index: int, what: str) -> training.LossFunction:
    """Something that happens in one process only, in the middle of a step."""

    @functools.wraps(negative_log_likelihood)  # by its name, so that a run without the event goes on from this one
    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        loss = negative_log_likelihood(model, batch, step)
        if model.training and step.index == index and distributed.rank() == rank:
            if what == "nan":
                return loss * torch.nan
            os.kill(os.getpid(), what)
        return loss

    return objective


PIXELS = (points(300).clamp(0, 5) * 51).to(torch.uint8)
LABELS = Interleaved(points(20, 1), torch.arange(20) % 3, Objective("likelihood"), first=3, every=4, batch_size=10)
HELD_OUT = {"validation": points(101, 2), "validate_every": 5}
SCENARIOS = {
    # 67 rows: the shards differ in size. Four shards are two for each of two processes.
    "actnorm": (couplings, points(300), {**HELD_OUT, "shards": 4, "ema": 0.9, "batch_size": 67, "optimizer": momentum}),
    "pixels": (
        lambda: Dequantized(couplings(Logit(1e-3))),
        PIXELS,
        {"objective": negative_bound, "validation": PIXELS[:90], "validate_every": 5},
    ),
    # Its q has a part in some steps only; the labels of a step are drawn in each shard.
    "mixture": (mixture, points(300), {**HELD_OUT, "objective": LABELS}),
    "patience": (couplings, points(300), {**HELD_OUT, "validation": 9 - points(101, 2), "patience": 1}),
    "interrupt": (couplings, points(300), {"objective": on_rank(1, 7, signal.SIGINT), "checkpoint_every": 3}),
    "resumed": (couplings, points(300), {}),
    "nan": (couplings, points(300), {"objective": on_rank(1, 7, "nan")}),
    "killed": (couplings, points(300), {**HELD_OUT, "ema": 0.9, "checkpoint_every": 4}),
}


def worker(folder: Path, name: str) -> None:
    """Train one scenario, and write what this process ends with."""
    build, x, settings = SCENARIOS[name]
    settings = {"steps": 20, "batch_size": 64, "learning_rate": 0.02, "shards": 2, **settings}
    if name in ("interrupt", "resumed", "killed"):
        settings["checkpoint"] = folder / "run.safetensors"
    if "TORCHELASTIC_RUN_ID" in os.environ and not (folder / "run.safetensors").exists():
        settings["objective"] = on_rank(1, 14, signal.SIGKILL)
    # Adam divides a gradient by its size. One that is zero but for rounding, as ActNorm's after its start, then moves
    # weights by float32's rounding a thousandfold; so its runs are in float64.
    model, record, reports = build() if "optimizer" in settings else build().double(), {}, []
    written, write = [], checkpoints.write
    checkpoints.write = lambda path, *content: written.append(path.name) or write(path, *content)
    with distributed.launched():
        rank = distributed.rank()
        if rank:  # the first process has the last word on where to start
            nn.init.constant_(next(model.parameters()), 7.0)
        try:
            history = fit(model, x, progress=reports.append, **settings)
            record = {"loss": history.loss, "validation": list(history.validation.values()), "reports": len(reports)}
            checkpoints.save_checkpoint(folder / f"{rank}_saved.safetensors", model)
            record |= {
                "stopped": history.stopped,
                "written": list(written),
                "files": sorted(p.name for p in folder.glob("run*")),
            }
        except NonFiniteLoss as error:
            record = {"error": str(error)}
    checkpoints.write(folder / f"{rank}.safetensors", checkpoints.copy_of(model), record)


def forked(folder: Path, name: str, processes: int) -> None:
    """What torchrun does, without a new import of torch in each process."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    children = []
    for rank in range(processes):
        if not (child := os.fork()):
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
            os.environ.update({**where, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            try:
                worker(folder, name)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert not any([os.waitpid(child, 0)[1] for child in children]), (name, processes)


def all_runs(root: Path) -> None:
    ready_to_fork()
    for name in SCENARIOS:
        for processes in (1, 2):
            if name in ("nan", "interrupt") and processes == 1:
                continue
            if name == "resumed" and processes == 2:
                (root / name).mkdir(exist_ok=True)
                (root / "interrupt" / "2").rename(root / name / "2")
                (root / "interrupt" / "2").mkdir()
                for file in (root / name / "2").glob("[01].safetensors"):
                    file.rename(root / "interrupt" / "2" / file.name)
            forked(root / name / str(processes), name, processes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    done = subprocess.run([sys.executable, __file__, root], capture_output=True, text=True, timeout=300, env=where())
    assert done.returncode == 0, done.stderr
    return root


def where() -> dict[str, str]:
    """An environment whose processes find flowlab, and find each other on this machine alone."""
    loopback = "lo" if sys.platform == "linux" else "lo0"
    return {**os.environ, "PYTHONPATH": str(Path(training.__file__).parents[2]), "GLOO_SOCKET_IFNAME": loopback}


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("actnorm", "pixels", "mixture", "patience", "resumed", "killed"))
def test_two_processes_learn_what_one_does(runs, name):
    (one, record), (first, its), (second, others) = (
        read_checkpoint(runs / name / f"{n}.safetensors") for n in ("1/0", "2/0", "2/1")
    )
    assert same(first, second), "the processes end with the same weights, bit for bit"
    start = SCENARIOS[name][0]().state_dict()
    assert any((one[n].float() - start[n].float()).abs().max() > 0.05 for n in one), "they learned something"
    torch.testing.assert_close(first, one, rtol=1e-6, atol=1e-6)
    for what in ("loss", "validation"):
        assert its[what] == pytest.approx(record[what], rel=1e-6, abs=1e-6) and its[what] == others[what]
    assert its["stopped"] == record["stopped"] and others["reports"] == 0
    assert others["written"] == [] and its["written"][-1] == "0_saved.safetensors", "the first process writes alone"
    assert its["reports"] == len(its["loss"]) - (8 if name == "resumed" else 0)


@pytest.mark.slow
def test_patience_ends_all_processes_at_the_same_step(runs):
    records = [read_checkpoint(runs / f"patience/2/{rank}.safetensors")[1] for rank in (0, 1)]
    assert all(record["stopped"].startswith("stopped early at step") for record in records)
    assert len({len(record["loss"]) for record in records}) == 1 and len(records[0]["loss"]) < 20


@pytest.mark.slow
def test_an_interrupt_of_one_process_stops_all_and_a_checkpoint_is_there(runs):
    records = [read_checkpoint(runs / f"interrupt/2/{rank}.safetensors")[1] for rank in (0, 1)]
    for record in records:
        assert record["stopped"].startswith("interrupted after step 8 of 20; the same call goes on from there, by ")
    assert records[0]["files"] == ["run.safetensors", "run.training.safetensors"]


@pytest.mark.slow
def test_a_nan_in_one_process_is_an_error_in_all(runs):
    (weights, record), (others, its) = (read_checkpoint(runs / f"nan/2/{rank}.safetensors") for rank in (0, 1))
    assert record == its and "at step 7: the loss is nan, while all parameters are finite" in record["error"]
    assert same(weights, others)


@pytest.mark.slow
def test_a_launch_that_is_killed_and_launched_again(runs):
    """Two launches by torchrun: one process of the first is killed; the second ends as if nothing had been."""
    folder = runs / "killed" / "torchrun"
    folder.mkdir()

    def launch() -> subprocess.CompletedProcess:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
        command += [f"--master-port={port}", __file__, str(folder), "killed"]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, env=where())

    first = launch()
    assert first.returncode != 0 and not (folder / "0.safetensors").exists(), first.stderr
    again = launch()
    if (
        again.returncode != 0
    ):  # the port may have been taken meanwhile by another program; a step that was taken shows below
        again = launch()
    assert again.returncode == 0, again.stderr
    for rank in (0, 1):
        undisturbed, record = read_checkpoint(runs / f"killed/2/{rank}.safetensors")
        weights, its = read_checkpoint(folder / f"{rank}.safetensors")
        assert same(weights, undisturbed) and (its["loss"], its["validation"]) == (record["loss"], record["validation"])
        assert its["reports"] == (0 if rank else 20 - 12), "it went on from the checkpoint of step 12"
    assert sorted(p.name for p in folder.glob("[!01]*")) == ["run.safetensors", "run.training.safetensors"]


# --- on one process ---------------------------------------------------------------------------------------------------


def test_shards_are_the_whole_batch_in_parts():
    x, whole, cut = points(67), couplings(), couplings()
    settings = {"steps": 1, "batch_size": 67, "progress": False, "clip": None, "learning_rate": 1.0}
    settings["optimizer"] = lambda parameters: torch.optim.SGD(parameters, lr=1.0)
    losses = [fit(model, x, **settings, shards=n).loss for model, n in ((whole, 1), (cut, 5))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.testing.assert_close(cut.state_dict(), whole.state_dict(), rtol=1e-5, atol=1e-6)


def test_each_shard_has_its_own_noise_and_at_most_its_share_of_rows():
    seen = []

    def objective(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
        seen.append((len(batch), step.index, float(torch.rand((), generator=step.generator))))
        return negative_log_likelihood(model, batch, step)

    fit(couplings(), points(90), steps=2, batch_size=10, shards=4, progress=False, objective=objective)
    assert [rows for rows, *_ in seen] == [10, 3, 3, 2, 2, 3, 3, 2, 2], "first the whole batch, for ActNorm's start"
    assert [index for _, index, _ in seen[1:]] == [0] * 4 + [1] * 4 and len({u for *_, u in seen[1:]}) == 8


def test_what_cannot_be_cut_is_refused_in_words(monkeypatch):
    flow, x = Flow(Chain([BatchNorm(2), *couplings().bijection]), StandardNormal(2)), points(50)
    with pytest.raises(ValueError, match=r"bijection\S* takes its statistics from a whole batch, .* with ActNorm in"):
        fit(flow, x, steps=1, shards=2, progress=False)
    assert fit(flow, x, steps=1, progress=False).step == 1
    with pytest.raises(ValueError, match="A batch of 10 cannot be cut into 11 shards"):
        fit(couplings(), x, steps=1, batch_size=10, shards=11, progress=False)
    with pytest.raises(ValueError, match="multiple of the number of processes, 1, but got 0"):
        fit(couplings(), x, steps=1, shards=0, progress=False)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    with pytest.raises(ValueError, match="multiple of the number of processes, 2, but got 3"):
        fit(couplings(), x, steps=1, shards=3, progress=False)


def test_processes_that_have_not_joined_do_not_train_each_for_itself(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"torchrun started 2 processes that have not joined.*launched\(device\)"):
        fit(couplings(), points(50), steps=1, progress=False)


def test_alone_there_is_nothing_to_join(monkeypatch):
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    with distributed.launched("cpu") as device:
        assert device == torch.device("cpu") and not torch.distributed.is_initialized()
        assert (distributed.rank(), distributed.size(), distributed.summed(1.5, 2)) == (0, 1, [1.5, 2])
        assert distributed.anyone(True) and not distributed.anyone(False) and distributed.agree(3)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        worker(Path(sys.argv[1]), sys.argv[2])
    else:
        all_runs(Path(sys.argv[1]))
