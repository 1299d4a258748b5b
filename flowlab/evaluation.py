"""How good a model of images is, with the protocol that makes a number comparable, always beside it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab.densities import evaluating
from flowlab.metrics import accuracy, bits_per_dim, contingency, logit_log_det, nmi

LAMBDA = 1e-6  # of the logit scale that the MAF paper's numbers are on
ACCEPTED = 0.95  # the share of test images that a detector by likelihood would let through


def log_prob(model: nn.Module, images: Tensor, *, draws: int = 1, seed: int = 0, batch_size: int = 1000) -> Tensor:
    """log (1/S) Σ_s p(v, u_s)/q(u_s | v) of each image, in nats of the whole numbers: ``(N, D)`` uint8 to ``(N,)``.

    A bound on log P(v) for any S = ``draws``, importance weighted and so tighter for more (arXiv:1509.00519). Takes a
    ``Dequantized`` model; computed in blocks, on the model's device, and the same for the same seed. ValueError for
    fewer than one draw, and for no image.
    """
    if draws < 1 or len(images) < 1:
        raise ValueError(f"Expected at least one draw and one image, but got {draws} and {len(images)}.")
    device = next(model.parameters()).device
    generator = Generator(device).manual_seed(seed)
    parts = []
    with evaluating(model), _float32():
        for block in images.split(batch_size):
            v = block.to(device)
            draws_of_block = [model.log_prob(v, generator=generator) for _ in range(draws)]
            parts.append((torch.stack(draws_of_block).logsumexp(0) - math.log(draws)).double().cpu())
    return torch.cat(parts)


def evaluate(
    model: nn.Module,
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
        images: ``(N, D)`` uint8; ``labels`` ``(N,)``.
        draws: of the noise for each image; 1 is the bound that most papers print.
    """
    log_P = log_prob(model, images, draws=draws, seed=seed)
    N, D = images.shape
    mean, log_det = float(log_P.mean()), float(logit_log_det(images, LAMBDA).mean())
    unit = mean + D * math.log(256)
    metrics = {
        "bits_per_dim": float(bits_per_dim(mean, D, scale="integers")),
        "standard_error": float(log_P.std()) / math.sqrt(N) / (D * math.log(2)),
        "nats_unit": unit,
        "nats_logit": unit - log_det,
    }
    clusters = ""
    if labels is not None:
        metrics |= {
            "bits_per_dim_by_digit": {
                int(c): float(bits_per_dim(float(log_P[labels == c].mean()), D, scale="integers"))
                for c in labels.unique()
            }
        }
        if hasattr(model.density, "posterior"):
            metrics |= clustering(model, images, labels)
            clusters = (
                "; accuracy after the best one-to-one matching of the K components, by argmax of q(k | x) at "
                "x = (v + 1/2)/256, with the digits, on these same images; NMI with the arithmetic mean"
            )
    noise = "learned" if hasattr(model, "q") else "uniform"
    return {
        "protocol": f"a bound: x = (v + u)/256 with {noise} noise, {draws} draw{'s' if draws > 1 else ''} an image, "
        f"seed {seed}, float32; mean over {N:,} {split} images; standard_error is that of bits_per_dim over images; "
        f"nats_unit is the density on [0, 1], nats_logit that of the logits with λ = {LAMBDA:g}{clusters}",
        "metrics": {name: _rounded(value) for name, value in metrics.items()},
    }


def clusters(model: nn.Module, images: Tensor, *, batch_size: int = 1000) -> Tensor:
    """argmax_k q(k | x) at the middle of each bin, x = (v + 1/2)/256, for a mixture: ``(N, D)`` uint8 to ``(N,)``."""
    device = next(model.parameters()).device
    blocks = ((v.to(device) + 0.5) / model.levels for v in images.split(batch_size))
    with evaluating(model):
        return torch.cat([model.density.posterior(x).argmax(-1).cpu() for x in blocks])


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
    model: nn.Module, images: Tensor, *, draws: int = 1, seed: int = 0, most: int = 500
) -> dict[str, dict[str, float]]:
    """Bits per dimension of what is no digit, and the share of it that a likelihood threshold would let through.

    The threshold is the test images' own 5 % quantile of log P, so 95 % of those pass. A model that knew digits from
    other things would let nothing else pass; that flows do is a known failure (arXiv:1810.09136): likelihood rewards
    plain images. Each is made from the first ``most`` of ``images`` ``(N, D)`` of square images.

    Returns:
        For each kind {"bits_per_dim", "accepted"}; "test" comes first.
    """
    images = images[:most]
    log_P = {name: log_prob(model, others, draws=draws, seed=seed) for name, others in outsiders(images, seed).items()}
    threshold = log_P["test"].quantile(1 - ACCEPTED)
    D = images.shape[-1]
    return {
        name: {
            "bits_per_dim": round(-float(of.mean()) / (D * math.log(2)), 4),
            "accepted": round(float((of >= threshold).double().mean()), 4),
        }
        for name, of in log_P.items()
    }


def outsiders(images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Test images as they are, altered until a person would wonder, and no digits at all: ``(n, D)`` uint8 by name."""
    n, D = images.shape
    side = math.isqrt(D)
    square = images.unflatten(-1, (side, side))
    generator = Generator().manual_seed(seed)
    smooth = F.avg_pool2d(F.pad(square.float()[:, None], (1, 1, 1, 1)), 3, stride=1)[:, 0].round().to(torch.uint8)
    return {
        "test": images,
        "inverted, 255 − v": 255 - images,
        "rotated by 90°": square.rot90(1, (-2, -1)).flatten(1),
        "shifted by a quarter": square.roll(side // 4, -1).flatten(1),
        "half the ink, v/2": images // 2,
        "blurred, 3×3": smooth.flatten(1),
        "pixels shuffled": images[:, torch.randperm(D, generator=generator)],
        "uniform noise": torch.randint(256, (n, D), generator=generator, dtype=torch.uint8),
        "all black": torch.zeros_like(images),
        "all one gray": torch.full_like(images, 128),
    }


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
