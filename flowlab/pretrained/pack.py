"""Put a trained MNIST model into the package: `python -m flowlab.pretrained.pack CHECKPOINT NAME`.

    flowlab train glow_mnist --size compact --out runs
    python -m flowlab.pretrained.pack runs/glow_mnist_compact.safetensors glow_mnist

Weights are rounded to 16 bits, which halves the file. What the rounding costs on the full test images is in the card,
and so are the numbers on the 1,000 test images inside the package, which a test computes again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

from flowlab import evaluation, models
from flowlab.pretrained import FOLDER
from flowlab.recipes import splits
from flowlab.training import read_checkpoint, save_checkpoint


def pack(checkpoint: str | Path, name: str) -> Path:
    """Round the model in ``checkpoint``, evaluate it anew, and write it beside this file under ``name``."""
    tensors, card = read_checkpoint(checkpoint)
    model = models.build(card["recipe"])
    model.load_state_dict(tensors)
    model.eval()
    digits = tuple(card["plan"]["digits"])
    full, bundled = (splits(data, digits).test for data in ("full", "bundled"))
    before = evaluation.evaluate(model, *full)
    model.half().float()
    after, small = (evaluation.evaluate(model, *images) for images in (full, bundled))
    lost = after["metrics"]["bits_per_dim"] - before["metrics"]["bits_per_dim"]
    card |= after | {
        "steps": [card["steps_taken"]],
        "bundled": small,
        "rounding": f"weights in 16 bits; it costs {lost:.5f} bits per dimension on the full test images",
    }
    path = FOLDER / f"{name}.safetensors"
    save_checkpoint(path, nn.ModuleDict({str(card["steps_taken"]): model}).half(), card)
    return path


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("Name a checkpoint, and what it is to be called in the package.", file=sys.stderr)  # noqa: T201
        return 2
    path = pack(*arguments)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
