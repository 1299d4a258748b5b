"""How good a model of images is: its likelihood, and the protocol without which numbers cannot be compared."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab.densities import DensityModule, Dequantized, VariationalDequantized, evaluating
from flowlab.metrics import accuracy, contingency, logit_log_det, nmi
from flowlab.tables import as_tensor

LAMBDA = 1e-6  # of the logit scale that the MAF paper's numbers are on
ACCEPTED = 0.95  # the share of test images that a detector by likelihood would let through


def log_prob(model: DensityModule, images: Tensor, *, draws: int = 1, seed: int = 0, batch_size: int = 1000) -> Tensor:
    """log (1/S) Σ_s p(v, u_s)/q(u_s | v) of each image, in nats of the whole numbers: ``(N, *event)`` ints to ``(N,)``.

    A bound on log P(v) for any S, importance weighted and so tighter for more (arXiv:1509.00519). S is ``draws`` times
    the draws that the model takes by itself (``Dequantized(..., draws=...)``). Computed in blocks, on the model's
    device, and the same for the same seed. ValueError for fewer than one draw, and for no image.
    """
    images = as_tensor(images, "images")
    if isinstance(draws, bool) or not isinstance(draws, Integral) or draws < 1 or len(images) < 1:
        raise ValueError(f"Expected at least one draw and one image, but got {draws!r} and {len(images)}.")
    device = _like(model).device
    generator = Generator(device).manual_seed(seed)
    parts = []
    with evaluating(model), _float32():
        for block in images.split(batch_size):
            v = block.to(device)
            draws_of_block = [model.log_prob(v, generator=generator) for _ in range(draws)]
            parts.append((torch.stack(draws_of_block).logsumexp(0) - math.log(draws)).cpu().double())
    return torch.cat(parts)


def evaluate(
    model: DensityModule,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    draws: int = 1,
    seed: int = 0,
    split: str = "test",
) -> dict[str, Any]:
    """The likelihood of images on all three scales, by digit when labels come, and the protocol in words.

    Of a mixture also how well its components are the digits: accuracy after matching, NMI, and the table of both.

    Args:
        model: a density of whole numbers from 0 to ``model.levels`` − 1, such as ``Dequantized(flow, levels)``.
        images: ``(N, *event)`` ints, such as ``(N, D)``; ``labels`` ``(N,)``.
        draws: of the noise for each image, times the model's own; 1 is the bound that most papers print.

    Raises:
        TypeError: for a model that is no density of whole numbers.
        ValueError: for fewer than one draw, no image, labels that are not one for each, and as the model.
    """
    L, images = _levels(model), as_tensor(images, "images")
    labels = None if labels is None else as_tensor(labels, "labels")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"Expected a label for each image, but got {len(labels)} labels and {len(images)} images.")
    log_P = log_prob(model, images, draws=draws, seed=seed)
    N, D = len(images), images[0].numel()
    mean, log_det = float(log_P.mean()), float(logit_log_det(images.flatten(1), LAMBDA, levels=L).mean())
    unit = mean + D * math.log(L)
    metrics: dict[str, Any] = {
        "bits_per_dim": _bits(log_P, D),
        # The error of a mean is not known from one image.
        "standard_error": float(log_P.std()) / math.sqrt(N) / (D * math.log(2)) if N > 1 else None,
        "nats_unit": unit,
        "nats_logit": unit - log_det,
    }
    clusters = ""
    if labels is not None:
        metrics |= {"bits_per_dim_by_digit": {int(c): _bits(log_P[labels == c], D) for c in labels.unique()}}
        if _posterior(model) is not None:
            metrics |= clustering(model, images, labels)
            clusters = (
                "; accuracy after the best one-to-one matching of the K components, by argmax of q(k | x) at "
                f"x = (v + 1/2)/{L}, with the digits, on these same images; NMI with the arithmetic mean"
            )
    return {
        "protocol": f"{_noise(model, draws, seed)}, {str(_like(model).dtype).removeprefix('torch.')}; mean over {N:,} "
        f"{split} images; standard_error is that of bits_per_dim over images; nats_unit is the density on [0, 1], "
        f"nats_logit that of the logits with λ = {LAMBDA:g}{clusters}",
        "metrics": {name: _rounded(value) for name, value in metrics.items()},
    }


def clusters(model: nn.Module, images: Tensor, *, batch_size: int = 1000) -> Tensor:
    """argmax_k q(k | x) at the middle of each bin, x = (v + 1/2)/levels, of a mixture: ``(N, D)`` ints to ``(N,)``.

    Raises:
        TypeError: for a model that is no mixture, or no density of whole numbers.
    """
    posterior = _posterior(model)
    if posterior is None:
        raise TypeError(f"Expected a mixture of densities of pixels, but got {type(model).__name__}.")
    device, L = _like(model).device, _levels(model)
    blocks = ((v.to(device) + 0.5) / L for v in images.split(batch_size))
    with evaluating(model):
        return torch.cat([posterior(x).argmax(-1).cpu() for x in blocks])


def clustering(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """How well a mixture's components are the digits: accuracy after matching, NMI, and digit by component counts."""
    k = clusters(model, images)
    digits, rows = labels.unique(return_inverse=True)
    table = contingency(rows, k).tolist()
    return {
        "accuracy": accuracy(rows, k),
        "nmi": nmi(rows, k),
        "contingency": {int(c): counts for c, counts in zip(digits, table, strict=True)},
    }


def out_of_distribution(
    model: DensityModule, images: Tensor, *, draws: int = 1, seed: int = 0, most: int = 500
) -> dict[str, dict[str, float]]:
    """Bits per dimension of what is no digit, and the share of it that a likelihood threshold would let through.

    The threshold is the test images' own 5 % quantile of log P, so 95 % of those pass. A model that knew digits from
    other things would let nothing else pass; that flows do is a known failure (arXiv:1810.09136): likelihood rewards
    plain images. Each is made from the first ``most`` of ``images`` ``(N, D)`` of square images.

    Returns:
        For each kind {"bits_per_dim", "accepted"}; "test" comes first.
    """
    kinds = outsiders(images[:most], seed, levels=_levels(model))
    log_P = {name: log_prob(model, others, draws=draws, seed=seed) for name, others in kinds.items()}
    threshold = log_P["test"].quantile(1 - ACCEPTED)
    return {
        name: {
            "bits_per_dim": round(_bits(of, images.shape[-1]), 4),
            "accepted": round(float((of >= threshold).double().mean()), 4),  # as likely as the threshold is likely
        }
        for name, of in log_P.items()
    }


def outsiders(images: Tensor, seed: int = 0, *, levels: int = 256) -> dict[str, Tensor]:
    """Out-of-distribution sets for the table, by name: the test images, transformed ones, noise and constants.

    Whole numbers from 0 to ``levels`` − 1, ``(n, D)`` to ``(n, D)`` of the same dtype. ValueError for images that are
    not square.
    """
    n, D = images.shape
    side, brightest = math.isqrt(D), levels - 1
    if side**2 != D:
        raise ValueError(f"Expected square images as rows of pixels, such as 784 = 28², but got rows of {D}.")
    square = images.unflatten(-1, (side, side))
    generator = Generator().manual_seed(seed)
    smooth = F.avg_pool2d(F.pad(square.float()[:, None], (1, 1, 1, 1)), 3, stride=1)[:, 0].round().to(images.dtype)
    return {
        "test": images,
        f"inverted, {brightest} − v": brightest - images,
        "rotated by 90°": square.rot90(1, (-2, -1)).flatten(1),
        "shifted by a quarter": square.roll(side // 4, -1).flatten(1),
        "half the ink, v/2": images // 2,
        "blurred, 3×3": smooth.flatten(1),
        "pixels shuffled": images[:, torch.randperm(D, generator=generator)],
        "uniform noise": torch.randint(levels, (n, D), generator=generator, dtype=images.dtype),
        "all black": torch.zeros_like(images),
        "all one gray": torch.full_like(images, levels // 2),
    }


def _noise(model: nn.Module, draws: int, seed: int) -> str:
    """How log P(v) was computed, in words."""
    if not getattr(model, "is_bound", False):
        return "exact"
    S = draws * getattr(model, "draws", 1)
    count = "1 draw" if S == 1 else f"{S} draws"
    if not isinstance(model, Dequantized):
        return f"a bound by the noise of {type(model).__name__}, {count} an image, seed {seed}"
    noise = "learned" if isinstance(model, VariationalDequantized) else "uniform"
    return f"a bound: x = (v + u)/{_levels(model)} with {noise} noise, {count} an image, seed {seed}"


def _levels(model: nn.Module) -> int:
    """How many values a pixel of the model can have; TypeError where it is no density of whole numbers."""
    levels: int | None = getattr(model, "levels", None)
    if levels is None:
        raise TypeError(
            f"Expected a density of whole numbers, such as Dequantized(flow), but got {type(model).__name__}."
        )
    return int(levels)


def _posterior(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """q(k | x) of the mixture that a density of whole numbers is of; None where it is of none."""
    return getattr(getattr(model, "density", None), "posterior", None)


def _like(model: nn.Module) -> Tensor:
    """A floating-point tensor of the model, for its device and dtype."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((t for t in tensors if t.is_floating_point()), torch.empty(0))


def _bits(log_P: Tensor, D: int) -> float:
    """−mean log₂ P(v)/D. One draw of a bound may lie above it, so that of few images this may be below zero."""
    return -float(log_P.mean()) / (D * math.log(2))


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """While it lasts, a GPU's convolutions are in float32, where torch would round their factors to 10 bits."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value
