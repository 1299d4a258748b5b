"""Bounds for whole numbers, such as pixels, around the density of another recipe."""

from __future__ import annotations

from typing import Any

from torch import Generator

from flowlab.densities import Dequantized, VariationalDequantized
from flowlab.models.registry import build, recipe


@recipe
def dequantized(
    density: dict[str, Any],
    levels: int = 256,
    *,
    noise: dict[str, Any] | None = None,
    generator: Generator | None = None,
) -> Dequantized:
    """A bound on log P(v) of whole numbers v, around the density on [0, 1]^D that the recipe ``density`` builds.

    With a recipe ``noise`` for a flow with context, its noise is learned: variational dequantization. Both recipes are
    as in ``build``.
    """
    p = build(density, generator=generator)
    if noise is None:
        return Dequantized(p, levels)
    return VariationalDequantized(p, build(noise, generator=generator), levels)
