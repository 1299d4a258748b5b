"""Langevin steps: points that slide down an energy and are shaken until they are samples of exp(−U)/Z."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from flowlab.bijections.leapfrog import EnergyFunction, gradient


@torch.no_grad()
def langevin(
    energy: EnergyFunction, x: Tensor, *, steps: int, size: float, generator: Generator | None = None
) -> Tensor:
    """x after ``steps`` times x ← x − size ∇U(x) + √(2 size) ε, ε ~ N(0, I): ``(..., D)`` to the same shape.

    The points end nearly as samples of exp(−U)/Z, whatever Z is, after enough steps that are small enough (Rezende and
    Mohamed, arXiv:1505.05770, section 3.2). It is no bijection: the noise is thrown away, so there is no inverse and
    no log q(x) of where a point ended, and hence no bound on log Z.

    Args:
        energy: U, from ``(..., D)`` to ``(...)``; gradients must pass.
        x: where the points start.
        size: of a step; the samples are off by an error that grows with it.

    Raises:
        ValueError: for a negative number of steps, and for a size that is not positive.
    """
    if steps < 0 or not size > 0:
        raise ValueError(f"langevin expected at least 0 steps of a positive size, but got {steps} of {size}.")
    for _ in range(steps):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        x = x - size * gradient(energy, x) + math.sqrt(2 * size) * noise
    return x
