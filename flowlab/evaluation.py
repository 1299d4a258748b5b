"""How good a model of images is, with the protocol that makes a number comparable, always beside it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowlab.metrics import bits_per_dim, logit_log_det

LAMBDA = 1e-6  # of the logit scale that the MAF paper's numbers are on


@torch.no_grad()
def log_prob(model: nn.Module, images: Tensor, *, draws: int = 1, seed: int = 0, batch_size: int = 1000) -> Tensor:
    """log (1/S) Σ_s p(v, u_s)/q(u_s | v) of each image, in nats of the whole numbers: ``(N, D)`` uint8 to ``(N,)``.

    A bound on log P(v) for any S = ``draws``, importance weighted and so tighter for more (arXiv:1509.00519). Takes a
    ``Dequantized`` model; computed in blocks, on the model's device, and the same for the same seed.
    """
    device = next(model.parameters()).device
    generator = Generator(device).manual_seed(seed)
    model.eval()
    parts = []
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
    if labels is not None:
        metrics |= {
            "bits_per_dim_by_digit": {
                int(c): float(bits_per_dim(float(log_P[labels == c].mean()), D, scale="integers"))
                for c in labels.unique()
            }
        }
    noise = "learned" if hasattr(model, "q") else "uniform"
    return {
        "protocol": f"a bound: x = (v + u)/256 with {noise} noise, {draws} draw{'s' if draws > 1 else ''} an image, "
        f"seed {seed}, float32; mean over {N:,} {split} images; standard_error is that of bits_per_dim over images; "
        f"nats_unit is the density on [0, 1], nats_logit that of the logits with λ = {LAMBDA:g}",
        "metrics": {name: _rounded(value) for name, value in metrics.items()},
    }


def _rounded(value: Any) -> Any:
    return {k: _rounded(v) for k, v in value.items()} if isinstance(value, dict) else round(value, 4)
