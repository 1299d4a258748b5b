"""Studies of MNIST: a model in several sizes, the images it learns from, and the run that trains and evaluates it.

    study = studies.MNIST["nice_mnist"]
    trial = study.trial(size="quick", seed=0)
    fit(trial.model, trial.data, **trial.settings)
    history, card = fit_and_evaluate(trial, "nice.safetensors")     # the same with a checkpoint, and a card

From the command line: `flowlab train nice_mnist --size quick`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from flowlab import evaluation, models
from flowlab.datasets import mnist
from flowlab.densities import negative_bound
from flowlab.models import SIZES, Size
from flowlab.study import Scores, Study, Trial
from flowlab.training import History, distributed, fit, save_checkpoint


class Images(NamedTuple):
    """Images as rows of pixels ``(N, 784)`` uint8, and their labels ``(N,)``."""

    images: Tensor
    labels: Tensor


class Splits(NamedTuple):
    """What a model learns from, what its best step is chosen on, and what it is judged by."""

    train: Images
    validation: Images
    test: Images


@dataclass(kw_only=True)
class ImageTrial(Trial):
    """A trial on MNIST, with all the images it was given.

    ``card`` says where it comes from: the study's name, the size, the seed and the digits; data, and plain settings.
    """

    splits: Splits
    card: dict[str, Any]


Started = tuple[Any, Any, dict[str, Any]]  # a model, its data, and further settings of ``fit``
Start = Callable[..., Started]  # of a size, the images and a generator


def likelihood(size: Size, splits: Splits, generator: Generator) -> Started:
    """Maximum likelihood of the pixels, by the bound of dequantization."""
    model = models.build(size.model, generator=generator)
    return model, splits.train.images, {"objective": negative_bound, "validation": splits.validation.images}


@dataclass(frozen=True, kw_only=True)
class ImageStudy(Study[ImageTrial]):
    """A model of MNIST by name, in sizes from "quick", the bundled digits in about a minute, to "full", the paper's.

    Its settings are ``size``, and whatever of the size's training is to be changed, such as ``epochs``.

    Args:
        about: what it is, and whose.
        sizes: by name.
        digits: which of the ten it is shown.
        start: makes model, data and further settings of ``fit`` from a size, the images and a generator.
        variants: by name, further settings of ``start``, such as an ingredient to leave out; "all" leaves out none.
    """

    sizes: Mapping[str, Size]
    digits: tuple[int, ...] = tuple(range(10))
    start: Start = likelihood
    variants: Mapping[str, Any] = field(default_factory=lambda: {"all": {}})
    settings: Mapping[str, Any] = field(default_factory=lambda: {"size": "quick"})

    def size(self, size: str) -> Size:
        """The size of that name; ValueError, with those that there are, for another."""
        if size not in self.sizes:
            raise ValueError(f"{self.name} expected a size among {', '.join(self.sizes)}, but got {size!r}.")
        return self.sizes[size]

    def check(self, variant: str, *, size: str = "quick", **changes: Any) -> dict[str, Any]:
        """The size and the changes to its training.

        Raises:
            ValueError: for a variant or a size that does not exist.
        """
        super().check(variant)
        self.size(size)
        return {"size": size, "changes": changes}

    def trial(
        self, variant: str = "all", seed: int = 0, *, size: str = "quick", device: str = "cpu", **changes: Any
    ) -> ImageTrial:
        """The untrained model, its images and its settings, all on ``device``; ``changes`` are to the size's training.

        Raises:
            ValueError: for a variant or a size that does not exist.
            MNISTError: when the size needs the full MNIST and it cannot be had.
        """
        self.check(variant, size=size, **changes)
        chosen = self.size(size)
        chosen = replace(chosen, training=chosen.training | changes)
        images = splits(chosen.data, self.digits)
        model, data, more = self.start(chosen, images, Generator().manual_seed(seed), **self.variants[variant])
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
        return ImageTrial(model=model, data=_to(data, device), settings=settings, splits=images, card=card)

    def score(self, trial: ImageTrial) -> Scores:
        """Bits per dimension and nats on the test images, one draw of the noise."""
        return {
            name: value
            for name, value in evaluation.evaluate(trial.model, *trial.splits.test)["metrics"].items()
            if not isinstance(value, dict)
        }


def fit_and_evaluate(trial: ImageTrial, path: str | Path, *, progress: Any = True) -> tuple[History, dict[str, Any]]:
    """Fit the trial's model with a checkpoint at ``path``, evaluate it on the test images; history and card.

    The card goes into the file. A run that was stopped is not evaluated: its card says at which step. Errors as
    ``training.fit``.
    """
    history = fit(trial.model, trial.data, checkpoint=path, progress=progress, **trial.settings)
    chosen = len(trial.splits.validation.images) if history.best_step else 0
    card = trial.card | {
        "recipe": trial.model.recipe,
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
        raise ValueError(f'Expected the images "full" or "bundled", but got {data!r}.')
    read = mnist.load if data == "full" else mnist.digits
    held_out = 10_000 if data == "full" else 500
    images, labels = read("train")
    parts = (images[:-held_out], labels[:-held_out]), (images[-held_out:], labels[-held_out:]), read("test")
    return Splits(*(_only(digits, *part) for part in parts))


def named(data: str, split: str) -> str:
    """How a protocol calls a split, so that the 1,000 bundled test images are not taken for the 10,000."""
    return split if data == "full" else f"bundled {split}"


def _only(digits: tuple[int, ...], images: Tensor, labels: Tensor) -> Images:
    rows = torch.isin(labels, torch.tensor(digits))
    return Images(images[rows].flatten(1), labels[rows])


def _to(data: Any, device: str) -> Any:
    return tuple(part.to(device) for part in data) if isinstance(data, tuple) else data.to(device)


# --- the densities of all ten digits ----------------------------------------------------------------------------------


def _scaled(size: Size, splits: Splits, generator: Generator) -> Started:
    """``likelihood``, with NICE's diagonal at 1/std of each pixel to begin with.

    A pixel that is always black is uniform on one bin, and of 256 levels wants a scale near 900: from 1, Adam's small
    steps take thousands to get there.
    """
    model, images, settings = likelihood(size, splits, generator)
    x = (images + 0.5) / model.levels
    std = (x.var(0) + 1 / (12 * model.levels**2)).sqrt()  # of x, and of u in its bin
    with torch.no_grad():
        model.density.bijection[-1].log_scale.copy_(-std.log())
    return model, images, settings


NICE = ImageStudy(
    name="nice_mnist",
    about="NICE (arXiv:1410.8516): four additive couplings, a diagonal scaling, a logistic prior",
    sizes=SIZES["nice_mnist"],
    start=_scaled,
)

MAF = ImageStudy(
    name="maf_mnist",
    about="MAF (arXiv:1705.07057): five masked autoregressive maps of the logits",
    sizes=SIZES["maf_mnist"],
)

REALNVP_DENSE = ImageStudy(
    name="realnvp_dense_mnist",
    about="RealNVP of the logits, dense, as the MAF paper compares it: five affine couplings, all after one ActNorm",
    sizes=SIZES["realnvp_dense_mnist"],
)

MADE_MOG = ImageStudy(
    name="made_mog_mnist",
    about="MADE MoG (arXiv:1705.07057): each conditional of the logits a mixture of Gaussians",
    sizes=SIZES["made_mog_mnist"],
)

REALNVP = ImageStudy(
    name="realnvp_mnist",
    about="RealNVP (arXiv:1605.08803), multi-scale: couplings by checkerboards and channels, half leaves at each scale",
    sizes=SIZES["realnvp_mnist"],
)

GLOW = ImageStudy(
    name="glow_mnist",
    about="Glow (arXiv:1807.03039), multi-scale: ActNorm, 1×1 convolutions, affine couplings with residual ConvNets",
    sizes=SIZES["glow_mnist"],
)

GLOW_VARIATIONAL = ImageStudy(
    name="glow_variational_mnist",
    about="the same Glow with variational dequantization (Flow++, arXiv:1902.00275): a flow makes its noise",
    sizes=SIZES["glow_variational_mnist"],
)

DENSITIES = (NICE, REALNVP_DENSE, MAF, MADE_MOG, REALNVP, GLOW, GLOW_VARIATIONAL)
