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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from flowlab import evaluation, models
from flowlab.datasets import mnist
from flowlab.densities import negative_bound
from flowlab.models import Size
from flowlab.training import History, distributed, fit, save_checkpoint


class Digits(NamedTuple):
    """Images as rows of pixels ``(N, 784)`` uint8, and their labels ``(N,)``."""

    images: Tensor
    labels: Tensor


class Splits(NamedTuple):
    """What a model learns from, what its best step is chosen on, and what it is judged by."""

    train: Digits
    validation: Digits
    test: Digits


class Trial(NamedTuple):
    """A model before its training: ``fit(trial.model, trial.data, **trial.settings)``; and the images it was given.

    ``card`` says where it comes from: the recipe's name, the size, the seed and the digits; data, and plain settings.
    """

    model: nn.Module
    data: Any
    settings: dict[str, Any]
    splits: Splits
    card: dict[str, Any]


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

    def trial(self, size: str = "quick", seed: int = 0, *, device: str = "cpu", **changes: Any) -> Trial:
        """The untrained model, its images and its settings, all on ``device``; ``changes`` are to the size's training.

        Raises:
            ValueError: for a size that does not exist.
            MNISTError: when the size needs the full MNIST and it cannot be had.
        """
        chosen = self.size(size)
        chosen = replace(chosen, training=chosen.training | changes)
        images = splits(chosen.data, self.digits)
        model, data, more = self.start(chosen, images, Generator().manual_seed(seed))
        model.to(device)
        settings = {"seed": seed} | _with_optimizer(chosen.training) | more
        if "validation" in settings:
            settings["validation"] = _to(settings["validation"], device)
        card = {
            "plan": {"name": self.name, "size": size, "seed": seed, "digits": list(self.digits), "changes": changes},
            "about": self.about,
            "data": {"name": "mnist", "images": chosen.data, "training": len(images.train.images)},
            "training": {"schedule": "cosine", **chosen.training},
        }
        return Trial(model, _to(data, device), settings, images, card)

    def train(
        self, size: str, path: str | Path, *, seed: int = 0, device: str = "cpu", progress: Any = True
    ) -> tuple[nn.Module, History, dict[str, Any]]:
        """Train with a checkpoint at ``path``, from which a killed run goes on; model, history and card.

        Errors as ``trial``, and as ``training.fit``.
        """
        trial = self.trial(size, seed, device=device)
        return trial.model, *train(trial, path, progress=progress)


def train(trial: Trial, path: str | Path, *, progress: Any = True) -> tuple[History, dict[str, Any]]:
    """Fit the trial's model with a checkpoint at ``path``, evaluate it on the test images; history and card.

    The card goes into the file. A run that was stopped is not evaluated: its card says at which step. Errors as
    ``training.fit``.
    """
    history = fit(trial.model, trial.data, checkpoint=path, progress=progress, **trial.settings)
    chosen = len(trial.splits.validation.images) if history.best_step else 0
    card = trial.card | {
        "recipe": trial.model.recipe,
        "commit": commit(),
        "stopped": history.stopped,
        "steps_taken": history.step,
        "best_step": history.best_step,
        "chosen": f"the best of {len(history.validation)} looks at {chosen:,} validation images, never at test images"
        if chosen
        else "the weights of the last step",
        "minutes": round(history.seconds / 60, 2),
        "threads": torch.get_num_threads(),
        "processes": distributed.size(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if history.ended:
        card |= evaluation.evaluate(trial.model, *trial.splits.test, split=named(card["data"]["images"], "test"))
        save_checkpoint(path, trial.model, card)
    return history, card


def _with_optimizer(training: dict[str, Any]) -> dict[str, Any]:
    """The same settings for ``fit``, with what belongs to Adam made into the function that it takes."""
    adam = {name: value for name, value in training.items() if name in ("betas", "eps", "weight_decay")}
    others = {name: value for name, value in training.items() if name not in adam}
    if not adam:
        return others

    def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=training["learning_rate"], fused=True, **adam)

    return others | {"optimizer": optimizer}


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


def named(data: str, split: str) -> str:
    """How a protocol calls a split, so that the 1,000 bundled test images are not taken for the 10,000."""
    return split if data == "full" else f"bundled {split}"


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
