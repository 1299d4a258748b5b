"""Densities of all ten digits: NICE, the dense models of the MAF paper, and the multi-scale flows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Generator, nn

from flowlab.models import PRESETS
from flowlab.recipes.base import Recipe, Size, Splits, likelihood

SHAPE = (1, 28, 28)
D = 784
LOGIT = {"logit": 1e-6}  # the MAF paper's λ


def _of(name: str, *shape: Any, noise: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The bound on log P(v) around a density by name."""
    first = {"shape": shape[0]} if isinstance(shape[0], tuple) else {"features": shape[0]}
    density = {"name": name, "settings": {**first, **settings}}
    return {"name": "dequantized", "settings": {"density": density} | ({"noise": noise} if noise else {})}


def _training(epochs: int, batch_size: int, learning_rate: float, **more: Any) -> dict[str, Any]:
    return {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, **more}


QUICK = {"validate_every": 45, "checkpoint_every": 90}
FULL = {"validate_every": 1000, "checkpoint_every": 500}
# The MAF paper, appendix D: until 30 epochs have brought nothing new on the validation images.
PAPER = {"validate_every": 500, "checkpoint_every": 500, "patience": 30, "schedule": "constant", "weight_decay": 1e-6}
MINUTE = "CPU, about a minute"
GPU = "one GPU"


def _scaled(size: Size, splits: Splits, generator: Generator) -> tuple[nn.Module, Any, dict[str, Any]]:
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


NICE = Recipe(
    "nice_mnist",
    "NICE (arXiv:1410.8516): four additive couplings, a diagonal scaling, a logistic prior",
    {
        "quick": Size(_of("nice", D, hidden=(256, 256)), _training(40, 100, 3e-3, **QUICK), "bundled", MINUTE),
        "compact": Size(_of("nice", D, hidden=(256,) * 4), _training(120, 200, 1e-3, **FULL), cost="CPU, half an hour"),
        "full": Size(
            _of("nice", D, **PRESETS["nice_mnist"]),
            # Section 5.1: Adam with these settings. The moving average is ours: it does what a falling rate would.
            _training(1500, 200, 1e-3, betas=(0.9, 0.99), eps=1e-4, schedule="constant", ema=0.999, **FULL),
            cost=GPU,
        ),
    },
    start=_scaled,
)

MAF = Recipe(
    "maf_mnist",
    "MAF (arXiv:1705.07057): five masked autoregressive maps of the logits",
    {
        "quick": Size(_of("maf", D, hidden=(64,), **LOGIT), _training(40, 100, 3e-3, **QUICK), "bundled", MINUTE),
        "compact": Size(
            _of("maf", D, hidden=(160,), **LOGIT), _training(25, 100, 1e-3, **FULL), cost="CPU, half an hour"
        ),
        "full": Size(_of("maf", D, **PRESETS["maf_mnist"], **LOGIT), _training(1000, 100, 1e-4, **PAPER), cost=GPU),
    },
)

REALNVP_DENSE = Recipe(
    "realnvp_dense_mnist",
    "RealNVP of the logits, dense, as the MAF paper compares it: five affine couplings, all after one ActNorm",
    {
        "quick": Size(
            _of("realnvp", D, layers=5, hidden=(128,), **LOGIT), _training(40, 100, 3e-3, **QUICK), "bundled", MINUTE
        ),
        "compact": Size(
            _of("realnvp", D, layers=5, hidden=(256, 256), **LOGIT),
            _training(40, 100, 1e-3, **FULL),
            cost="CPU, ten minutes",
        ),
        "full": Size(
            _of("realnvp", D, layers=5, hidden=(1024, 1024), **LOGIT), _training(1000, 100, 1e-4, **PAPER), cost=GPU
        ),
    },
)

MADE_MOG = Recipe(
    "made_mog_mnist",
    "MADE MoG (arXiv:1705.07057): each conditional of the logits a mixture of Gaussians",
    {
        "quick": Size(
            _of("made", D, components=10, hidden=(64,), **LOGIT), _training(15, 100, 3e-3, **QUICK), "bundled", MINUTE
        ),
        "compact": Size(
            _of("made", D, components=10, hidden=(256,), **LOGIT),
            _training(20, 100, 1e-3, **FULL),
            cost="CPU, half an hour",
        ),
        "full": Size(
            _of("made", D, **PRESETS["made_mog_mnist"], **LOGIT), _training(1000, 100, 1e-4, **PAPER), cost=GPU
        ),
    },
)

REALNVP = Recipe(
    "realnvp_mnist",
    "RealNVP (arXiv:1605.08803), multi-scale: couplings by checkerboards and channels, half leaves at each scale",
    {
        "quick": Size(
            _of("realnvp_image", SHAPE, **PRESETS["realnvp_image_quick"]),
            _training(5, 50, 5e-3, **QUICK),
            "bundled",
            MINUTE,
        ),
        "full": Size(
            _of("realnvp_image", SHAPE, **PRESETS["realnvp_image_full"]),
            _training(100, 128, 1e-3, ema=0.999, **FULL),
            cost=GPU,
        ),
    },
)

GLOW = Recipe(
    "glow_mnist",
    "Glow (arXiv:1807.03039), multi-scale: ActNorm, 1×1 convolutions, affine couplings with residual ConvNets",
    {
        "quick": Size(_of("glow", SHAPE, **PRESETS["glow_quick"]), _training(8, 50, 3e-3, **QUICK), "bundled", MINUTE),
        "compact": Size(
            _of("glow", SHAPE, levels=2, steps=6, hidden=48, blocks=1),
            _training(14, 64, 2e-3, **FULL),
            cost="CPU, an hour",
        ),
        "full": Size(
            _of("glow", SHAPE, **PRESETS["glow_full"]), _training(100, 128, 1e-3, ema=0.999, **FULL), cost=GPU
        ),
    },
)


def _with_noise(size: Size, layers: int, hidden: tuple[int, ...]) -> Size:
    """The same density under learned noise: affine couplings of e given v, uniform to begin with (u = sigmoid(e))."""
    noise = {"features": D, "layers": layers, "hidden": hidden, "standardize": False}
    noise |= {"context_features": D, "prior": "logistic"}
    recipe = {"name": "realnvp", "settings": noise}
    return replace(size, model={**size.model, "settings": {**size.model["settings"], "noise": recipe}})


GLOW_VARIATIONAL = Recipe(
    "glow_variational_mnist",
    "the same Glow with variational dequantization (Flow++, arXiv:1902.00275): a flow makes its noise",
    {
        "quick": _with_noise(GLOW.size("quick"), 2, (64,)),
        "full": _with_noise(GLOW.size("full"), 4, (512, 512)),
    },
)

DENSITIES = (NICE, REALNVP_DENSE, MAF, MADE_MOG, REALNVP, GLOW, GLOW_VARIATIONAL)
