"""What a recipe for MNIST is: a model in several sizes, the images it learns from, and the loop that trains it.

    recipe = recipes.RECIPES["nice_mnist"]
    trial = recipe.trial("quick", seed=0)
    fit(trial.model, trial.data, **trial.settings)
    recipe.train("quick", "nice.safetensors")       # the same with a checkpoint, and a card with its evaluation

From the command line: `flowlab train nice_mnist --size quick`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from flowlab import evaluation, models
from flowlab.datasets import mnist
from flowlab.dequantization import negative_bound
from flowlab.training import History, fit, save_checkpoint


class Digits(NamedTuple):
    """Images as rows of pixels ``(N, 784)`` uint8, and their labels ``(N,)``."""

    images: Tensor
    labels: Tensor


class Splits(NamedTuple):
    """What a model learns from, what its best step is chosen on, and what it is judged by."""

    train: Digits
    validation: Digits
    test: Digits


@dataclass(frozen=True)
class Size:
    """One size of a recipe.

    Args:
        model: what ``models.build`` builds: {"name": ..., "settings": ...}.
        training: settings of ``training.fit``.
        data: "full", the 60,000 images, or "bundled", the 5,000 that come with the package.
        cost: what it takes, in words: where and how long.
    """

    model: dict[str, Any]
    training: dict[str, Any]
    data: str = "full"
    cost: str = ""


class Trial(NamedTuple):
    """A model before its training: ``fit(trial.model, trial.data, **trial.settings)``; and the images it was given."""

    model: nn.Module
    data: Any
    settings: dict[str, Any]
    splits: Splits


Start = Callable[[Size, Splits, Generator], tuple[nn.Module, Any, dict[str, Any]]]


def likelihood(size: Size, splits: Splits, generator: Generator) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Maximum likelihood of the pixels, by the bound of dequantization."""
    model = models.build(size.model, generator=generator)
    return model, splits.train.images, {"objective": negative_bound, "validation": splits.validation.images}


@dataclass(frozen=True)
class Recipe:
    """A model of MNIST by name, in sizes from "quick", the bundled digits in about a minute, to "full", the paper's.

    Args:
        about: what it is, and whose.
        sizes: by name.
        digits: which of the ten it is shown.
        start: makes model, data and further settings of ``fit`` from a size, the images and a generator.
    """

    name: str
    about: str
    sizes: dict[str, Size]
    digits: tuple[int, ...] = tuple(range(10))
    start: Start = field(default=likelihood)

    def size(self, size: str) -> Size:
        """The size of that name; ValueError, with those that there are, for another."""
        if size not in self.sizes:
            raise ValueError(f"{self.name} comes in the sizes {', '.join(self.sizes)}, but {size!r} was asked for.")
        return self.sizes[size]

    def trial(self, size: str = "quick", seed: int = 0, *, device: str = "cpu") -> Trial:
        """The untrained model, its images and its settings, all on ``device``.

        Raises:
            ValueError: for a size that does not exist.
            MNISTError: when the size needs the full MNIST and it cannot be had.
        """
        chosen = self.size(size)
        images = splits(chosen.data, self.digits)
        generator = Generator().manual_seed(seed)
        model, data, more = self.start(chosen, images, generator)
        settings = {"seed": seed, **chosen.training, **more}
        for name in ("validation",):
            if name in settings:
                settings[name] = _to(settings[name], device)
        return Trial(model.to(device), _to(data, device), settings, images)

    def train(
        self, size: str, path: str | Path, *, seed: int = 0, device: str = "cpu", progress: Any = True
    ) -> tuple[nn.Module, History, dict[str, Any]]:
        """Train with a checkpoint at ``path``, from which a killed run goes on; returns model, history and card.

        A run that ends is evaluated on the test images, and what came out is in the card. Errors as ``trial``, and as
        ``training.fit``.
        """
        trial = self.trial(size, seed, device=device)
        history = fit(trial.model, trial.data, checkpoint=path, progress=progress, **trial.settings)
        card = {
            "recipe": trial.model.recipe,
            "plan": {"name": self.name, "size": size, "seed": seed, "digits": list(self.digits)},
            "about": self.about,
            "commit": commit(),
            "data": {"name": "mnist", "images": self.sizes[size].data, "training": len(trial.splits.train.images)},
            "training": {name: value for name, value in trial.settings.items() if isinstance(value, (int, float, str))},
            "stopped": history.stopped,
            "steps_taken": history.step,
            "best_step": history.best_step,
            "minutes": round(history.seconds / 60, 2),
            "threads": torch.get_num_threads(),
            "date": time.strftime("%Y-%m-%d"),
        }
        if history.step == history.total or "early" in history.stopped:
            card |= evaluation.evaluate(trial.model, *trial.splits.test)
            save_checkpoint(path, trial.model, card)
        return trial.model, history, card


def splits(data: str, digits: tuple[int, ...] = tuple(range(10))) -> Splits:
    """The images of some digits, in three parts.

    "full": 50,000 to learn from and the last 10,000 of the training file to choose with, as NICE and MAF did, and the
    10,000 test images. "bundled": the last 500 of the 5,000 training images to choose with, and 1,000 test images.
    """
    if data not in ("full", "bundled"):
        raise ValueError(f'The images are "full" or "bundled", but {data!r} was asked for.')
    read = mnist.load if data == "full" else mnist.digits
    held_out = 10_000 if data == "full" else 500
    images, labels = read("train")
    parts = (images[:-held_out], labels[:-held_out]), (images[-held_out:], labels[-held_out:]), read("test")
    return Splits(*(_only(digits, *part) for part in parts))


def _only(digits: tuple[int, ...], images: Tensor, labels: Tensor) -> Digits:
    rows = torch.isin(labels, torch.tensor(digits))
    return Digits(images[rows].flatten(1), labels[rows])


def _to(data: Any, device: str) -> Any:
    return tuple(part.to(device) for part in data) if isinstance(data, tuple) else data.to(device)


def commit() -> str | None:
    """The commit that this package stands at, None where it is not a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
