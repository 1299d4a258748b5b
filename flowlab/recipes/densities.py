"""Densities of all ten digits: NICE, the dense flows of the MAF paper, and the multi-scale flows."""

from __future__ import annotations

from typing import Any

from flowlab.models import PRESETS
from flowlab.recipes.base import Recipe, Size

SHAPE = (1, 28, 28)
D = 784


def _of(name: str, *shape: Any, noise: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The bound on log P(v) around a density by name."""
    first = {"shape": shape[0]} if isinstance(shape[0], tuple) else {"features": shape[0]}
    density = {"name": name, "settings": {**first, **settings}}
    return {"name": "dequantized", "settings": {"density": density} | ({"noise": noise} if noise else {})}


def _training(epochs: int, batch_size: int, learning_rate: float, **more: Any) -> dict[str, Any]:
    return {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, **more}


QUICK = {"validate_every": 45, "checkpoint_every": 90}
FULL = {"validate_every": 1000, "checkpoint_every": 500}

NICE = Recipe(
    "nice_mnist",
    "NICE (arXiv:1410.8516): four additive couplings, a diagonal scaling, a logistic prior",
    {
        "quick": Size(
            _of("nice", D, hidden=(64, 64)), _training(60, 100, 1e-2, **QUICK), "bundled", "CPU, about a minute"
        ),
        "compact": Size(_of("nice", D, hidden=(256,) * 4), _training(120, 200, 1e-3, **FULL), cost="CPU, half an hour"),
        "full": Size(_of("nice", D, **PRESETS["nice_mnist"]), _training(1500, 200, 1e-3, **FULL), cost="one GPU"),
    },
)

MAF = Recipe(
    "maf_mnist",
    "MAF (arXiv:1705.07057): five masked autoregressive maps of the logits",
    {
        "quick": Size(
            _of("maf", D, hidden=(64,), logit=1e-6), _training(20, 100, 2e-3, **QUICK), "bundled", "CPU, about a minute"
        ),
        "compact": Size(
            _of("maf", D, hidden=(160,), logit=1e-6), _training(60, 100, 1e-3, **FULL), cost="CPU, half an hour"
        ),
        "full": Size(
            _of("maf", D, **PRESETS["maf_mnist"], logit=1e-6), _training(200, 100, 1e-4, **FULL), cost="one GPU"
        ),
    },
)

GLOW = Recipe(
    "glow_mnist",
    "Glow (arXiv:1807.03039), multi-scale: ActNorm, 1×1 convolutions, affine couplings with residual ConvNets",
    {
        "quick": Size(
            _of("glow", SHAPE, **PRESETS["glow_quick"]),
            _training(5, 50, 3e-3, **QUICK),
            "bundled",
            "CPU, about a minute",
        ),
        "compact": Size(
            _of("glow", SHAPE, levels=2, steps=6, hidden=48, blocks=1),
            _training(14, 64, 2e-3, **FULL),
            cost="CPU, an hour",
        ),
        "full": Size(_of("glow", SHAPE, **PRESETS["glow_full"]), _training(100, 128, 1e-3, **FULL), cost="one GPU"),
    },
)
