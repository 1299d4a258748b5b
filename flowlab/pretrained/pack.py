"""Put a trained MNIST model into the package: `python -m flowlab.pretrained.pack CHECKPOINT NAME`.

    flowlab train glow_mnist --size compact --out runs
    python -m flowlab.pretrained.pack runs/glow_mnist_compact.safetensors glow_mnist
    python -m flowlab.pretrained.pack --card runs/made_mog_mnist_compact.safetensors made_mog_mnist

Weights are rounded to 16 bits, which halves the file. What the rounding costs on the full test images is in the card,
and so are the numbers on the 1,000 test images inside the package, which a test computes again. With `--card` the card
alone is kept, of a model for which there is no room.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch import nn

from flowlab import evaluation, models
from flowlab.files import write_whole
from flowlab.pretrained import FOLDER
from flowlab.studies import named, splits
from flowlab.training import CheckpointError, read_checkpoint, save_checkpoint


def pack(checkpoint: str | Path, name: str) -> Path:
    """Round the model in ``checkpoint``, evaluate it anew, and write it beside this file under ``name``.

    Raises:
        CheckpointError: when the file is not what `flowlab train` writes at the end of a run.
        MNISTError: when the full MNIST cannot be had.
    """
    tensors, card = _trained(checkpoint)
    model = models.rebuild(card["recipe"])
    model.load_state_dict(tensors)
    digits = tuple(card["plan"]["digits"])

    def score(data: str) -> dict:
        return evaluation.evaluate(model, *splits(data, digits).test, split=named(data, "test"))

    before = score("full")
    model.half().float()
    after, bundled = score("full"), score("bundled")
    lost = after["metrics"]["bits_per_dim"] - before["metrics"]["bits_per_dim"]
    step = card["best_step"] or card["steps_taken"]
    card |= after | {
        "steps": [step],
        "bundled": bundled,
        "rounding": f"weights in 16 bits; it costs {lost:.4f} bits per dimension on the full test images",
    }
    path = FOLDER / f"{name}.safetensors"
    save_checkpoint(path, nn.ModuleDict({str(step): model}).half(), card)
    path.with_suffix(".json").unlink(missing_ok=True)  # a card from when there was no room
    return path


def keep_card(checkpoint: str | Path, name: str) -> Path:
    """Write the card of the model in ``checkpoint`` beside this file, with the command that makes the model again.

    Raises:
        CheckpointError: as ``pack``.
    """
    card = _trained(checkpoint)[1]
    plan = card["plan"]
    seed = f" --seed {plan['seed']}" if plan["seed"] else ""
    changes = "".join(f" --{name.replace('_', '-')} {value}" for name, value in plan["changes"].items())
    card["command"] = f"flowlab train {plan['name']} --size {plan['size']}{seed}{changes} --out runs"
    path = FOLDER / f"{name}.json"
    write_whole(path, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    return path


def _trained(checkpoint: str | Path) -> tuple[dict, dict]:
    tensors, card = read_checkpoint(checkpoint)
    if not {"recipe", "plan", "steps_taken"} <= set(card):
        raise CheckpointError(f"Expected a file that `flowlab train` wrote at the end of a run, but got {checkpoint}.")
    return tensors, card


def main(arguments: list[str]) -> int:
    """The command: [--card] CHECKPOINT NAME. Gives 0, or 1 or 2 and a sentence on stderr."""
    write = keep_card if arguments[:1] == ["--card"] else pack
    if write is keep_card:
        arguments = arguments[1:]
    if len(arguments) != 2:
        print("Name a checkpoint, and what it is to be called in the package.", file=sys.stderr)  # noqa: T201
        return 2
    try:
        path = write(*arguments)
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(f"{path.name}: {path.stat().st_size // 1024} kB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
