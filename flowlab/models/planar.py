"""Planar and radial flows: many small maps in a row (Rezende and Mohamed, arXiv:1505.05770)."""

from __future__ import annotations

from torch import Generator

from flowlab.bijections import Bijection, Chain, Inverse, Planar, Radial, ScaleShift
from flowlab.densities import DensityModule, Flow
from flowlab.models.parts import base_or_prior, first
from flowlab.models.registry import recipe


@recipe
def planar_flow(
    features: int,
    layers: int = 8,
    *,
    sampling: bool = False,
    standardize: bool = True,
    prior: str = "normal",
    base: DensityModule | None = None,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = planar maps of x, each with 2D + 1 numbers, then a scale and a shift (arXiv:1505.05770, eq. 10).

    Takes ``(..., D)``. The maps are formulas x → z, for a fit to data: ``log_prob`` is fast, and ``sample`` solves for
    one root a map. With ``sampling`` they are formulas z → x, as in the paper, for a fit to an energy by
    ``reverse_kl``: then draws are fast, and ``log_prob`` of other points solves. ``standardize`` puts a Standardize
    first, for data, and ``logit`` a Logit of that λ before it. ``prior`` is "normal" or "logistic"; or give a ``base``.
    """
    maps: list[Bijection] = [Planar(features, stack=stack, generator=generator) for _ in range(layers)]
    return _flow(maps, features, sampling, standardize, prior, base, logit, stack)


@recipe
def radial_flow(
    features: int,
    layers: int = 8,
    *,
    sampling: bool = False,
    standardize: bool = True,
    prior: str = "normal",
    base: DensityModule | None = None,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = radial maps of x, each with D + 2 numbers, then a scale and a shift (arXiv:1505.05770, eq. 14).

    Takes ``(..., D)``; the arguments are those of ``planar_flow``, but both directions are formulas.
    """
    maps: list[Bijection] = [Radial(features, stack=stack, generator=generator) for _ in range(layers)]
    return _flow(maps, features, sampling, standardize, prior, base, logit, stack)


def _flow(
    maps: list[Bijection],
    features: int,
    sampling: bool,
    standardize: bool,
    prior: str,
    base: DensityModule | None,
    logit: float | None,
    stack: int | None,
) -> Flow:
    """The maps, turned around where their formulas are for sampling, between what a flow begins and ends with."""
    start = first(features, logit=logit, standardize=standardize, stack=stack)
    turned = [Inverse(each) for each in maps] if sampling else maps
    end = ScaleShift(features, stack=stack)
    return Flow(Chain([*start, *turned, end]), base_or_prior(base, prior, features, stack))
