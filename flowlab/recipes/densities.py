"""Densities of all ten digits: NICE, the dense models of the MAF paper, and the multi-scale flows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, nn

from flowlab.models import SIZES, Size
from flowlab.recipes.base import Recipe, Splits, likelihood


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
    SIZES["nice_mnist"],
    start=_scaled,
)

MAF = Recipe(
    "maf_mnist",
    "MAF (arXiv:1705.07057): five masked autoregressive maps of the logits",
    SIZES["maf_mnist"],
)

REALNVP_DENSE = Recipe(
    "realnvp_dense_mnist",
    "RealNVP of the logits, dense, as the MAF paper compares it: five affine couplings, all after one ActNorm",
    SIZES["realnvp_dense_mnist"],
)

MADE_MOG = Recipe(
    "made_mog_mnist",
    "MADE MoG (arXiv:1705.07057): each conditional of the logits a mixture of Gaussians",
    SIZES["made_mog_mnist"],
)

REALNVP = Recipe(
    "realnvp_mnist",
    "RealNVP (arXiv:1605.08803), multi-scale: couplings by checkerboards and channels, half leaves at each scale",
    SIZES["realnvp_mnist"],
)

GLOW = Recipe(
    "glow_mnist",
    "Glow (arXiv:1807.03039), multi-scale: ActNorm, 1×1 convolutions, affine couplings with residual ConvNets",
    SIZES["glow_mnist"],
)

GLOW_VARIATIONAL = Recipe(
    "glow_variational_mnist",
    "the same Glow with variational dequantization (Flow++, arXiv:1902.00275): a flow makes its noise",
    SIZES["glow_variational_mnist"],
)

DENSITIES = (NICE, REALNVP_DENSE, MAF, MADE_MOG, REALNVP, GLOW, GLOW_VARIATIONAL)
