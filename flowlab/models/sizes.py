"""The sizes in which a model of MNIST can be trained, each beside its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SHAPE = (1, 28, 28)
D = 784
LOGIT: dict[str, Any] = {"logit": 1e-6}  # the MAF paper's λ

# How often a run is looked at and saved, in steps.
QUICK = {"validate_every": 45, "checkpoint_every": 90}
FULL = {"validate_every": 1000, "checkpoint_every": 500}
# The MAF paper, appendix D: until 30 epochs have brought nothing new on the validation images.
PAPER = {"validate_every": 500, "checkpoint_every": 500, "patience": 30, "schedule": "constant", "weight_decay": 1e-6}
MINUTE = "CPU, about a minute"
GPU = "one GPU"


@dataclass(frozen=True)
class Size:
    """One size of a model of MNIST, and how it is trained.

    Args:
        model: what ``models.build`` builds: {"name": ..., "settings": ...}.
        training: settings of ``training.fit``, all plain; and "betas", "eps" and "weight_decay", settings of Adam.
        data: "full", the 60,000 images, or "bundled", the 5,000 that come with the package.
        cost: what it takes, in words: where and how long.
    """

    model: dict[str, Any]
    training: dict[str, Any]
    data: str = "full"
    cost: str = ""


SIZES: dict[str, dict[str, Size]] = {}  # of each model of MNIST, from "quick" to "full"; the families fill it


def bound_on(name: str, *, noise: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The recipe of a bound on log P(v) around the density of the recipe ``name``."""
    density = {"name": name, "settings": settings}
    return {"name": "dequantized", "settings": {"density": density} | ({"noise": noise} if noise else {})}


def training(epochs: int, batch_size: int, learning_rate: float, **more: Any) -> dict[str, Any]:
    """Settings of ``training.fit``."""
    return {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, **more}
