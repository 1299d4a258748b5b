"""Trains models in processes that it kills over and over: ``python killing.py FOLDER``.

``test_resume.py`` compares what they leave behind.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from forking import momentum, ready_to_fork
from runs import gaussian, noisy, quiet, small, with_batchnorm
from torch import Tensor, nn

from flowlab.training import Step, checkpoints, read_checkpoint, save_checkpoint


def slow(model: nn.Module, batch: Tensor, step: Step) -> Tensor:
    """Takes long enough to be killed in the middle."""
    time.sleep(0.002)
    return noisy(model, batch, step)


HELD_OUT = {"validation": gaussian(80, seed=1), "validate_every": 7, "snapshots": 6}
SCENARIOS = {
    "plain": (small, {}),
    "validation, snapshots": (small, {**HELD_OUT, "learning_rate": 0.05}),
    "early stopping": (small, {**HELD_OUT, "validation": gaussian(80, mean=1.5), "patience": 2, "learning_rate": 0.05}),
    "batch statistics, momentum": (with_batchnorm, {**HELD_OUT, "optimizer": momentum}),
    "average, shards": (small, {"ema": 0.9, "shards": 2, "snapshots": 4}),
}
MANY_STEPS = {"steps": 1500, "ema": 0.9, "objective": noisy}


def one_run(name: str, folder: Path, checkpoint: Path | None, **more) -> None:
    """Train, and write the weights and the whole history into ``folder``."""
    build, settings = SCENARIOS[name]
    model = build()
    # Three steps an epoch, and a checkpoint every four: runs go on from the middle of an epoch.
    settings = {"steps": 60, "batch_size": 64, "objective": slow, "checkpoint_every": 4, **settings, **more}
    history = quiet(model, gaussian(200), checkpoint=checkpoint, **settings)
    record = {"loss": history.loss, "validation": list(history.validation.items()), "best": history.best_step}
    save_checkpoint(folder / "final.safetensors", model, {**record, "stopped": history.stopped})
    for step, snapshot in history.snapshots.items():
        checkpoints.write(folder / f"snapshot_{step}.safetensors", snapshot, {})


def die_at(write: int) -> None:
    """Kill this process around its n-th file: half written, written but not renamed, or renamed."""
    write_bytes, replace, count = Path.write_bytes, os.replace, [0]

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_write(path: Path, content: bytes) -> None:
        count[0] += 1
        if count[0] == write and write % 3 == 0:
            write_bytes(path, content[: len(content) // 2])
            kill()
        write_bytes(path, content)

    def dying_replace(a: Path, b: Path) -> None:
        if count[0] == write and write % 3 == 1:
            kill()
        replace(a, b)
        if count[0] == write and write % 3 == 2:
            kill()

    Path.write_bytes, os.replace = dying_write, dying_replace


def killed_runs(root: Path) -> None:
    """Run each scenario undisturbed, killed at random moments, and killed at its writes, in forked processes."""
    ready_to_fork()
    for name in SCENARIOS:
        chance = random.Random(name)
        for how in ("undisturbed", "at random", "at writes"):
            folder = root / name / how
            folder.mkdir(parents=True)
            killed_after = []
            for attempt in range(1000):
                child = os.fork()
                if child == 0:
                    if how == "at writes" and attempt < 12:
                        die_at(3 + chance.randrange(9) if attempt else 2)
                    one_run(name, folder, None if how == "undisturbed" else folder / "run.safetensors")
                    os._exit(0)
                if how == "at writes":
                    chance.random()  # the next fork draws another moment
                if how == "at random":
                    time.sleep(chance.uniform(0, 0.04 * (attempt + 1)))
                    os.kill(child, signal.SIGKILL)
                if os.WIFEXITED(status := os.waitpid(child, 0)[1]):
                    assert os.WEXITSTATUS(status) == 0
                    break
                file = folder / "run.training.safetensors"
                killed_after.append(len(read_checkpoint(file)[0]["loss"]) if file.exists() else 0)
            (folder / "killed_after.json").write_text(json.dumps(killed_after))
    twenty_kills(root / "twenty")


def twenty_kills(root: Path) -> None:
    """A run that is killed at twenty random moments, before it may end; after each kill its files are read."""
    chance, killed_after, life = random.Random("twenty"), [0], 0.1
    for how in ("undisturbed", "killed"):
        folder = root / how
        folder.mkdir(parents=True)
        files = [folder / "run.safetensors", folder / "run.training.safetensors"]
        for moment in range(1 if how == "undisturbed" else 21):
            child = os.fork()
            if child == 0:
                one_run("plain", folder, None if how == "undisturbed" else files[0], **MANY_STEPS)
                os._exit(0)
            if how == "killed" and moment < 20:
                time.sleep(chance.uniform(0, life))
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                taken = [len(read_checkpoint(file)[0].get("loss", ())) for file in files if file.exists()]
                killed_after.append(max(taken, default=0))
                life *= 0.8 if killed_after[-1] > killed_after[-2] else 1.5  # on a busy machine all takes longer
            else:
                assert os.waitpid(child, 0)[1] == 0
    (root / "killed_after.json").write_text(json.dumps(killed_after[1:]))


if __name__ == "__main__":
    killed_runs(Path(sys.argv[1]))
