"""Neural spline flows in coupling form (Durkan et al., arXiv:1906.04032)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator

from flowlab.bijections import Bijection, Chain, Elementwise, ShapeError, Spline, SplineCoupling, alternating_mask
from flowlab.densities import DensityModule, Flow
from flowlab.models.parts import base_or_prior, first
from flowlab.models.registry import recipe


@recipe(absent={"guarded": False})
def spline_flow(
    features: int,
    layers: int = 6,
    *,
    hidden: Sequence[int] = (64, 64),
    bins: int = 8,
    bound: float = 4.0,
    guarded: bool = True,
    activation: str = "relu",
    standardize: bool = True,
    context_features: int = 0,
    prior: str = "normal",
    base: DensityModule | None = None,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = spline couplings of a standardized x (neural spline flow, coupling form, arXiv:1906.04032).

    Takes ``(..., D)``, and a context ``(..., C)`` beside it when built for one. The splines bend [−B, B] and leave the
    rest alone, so ``standardize`` puts a Standardize first, which brings the data there. ``prior`` is "normal" or
    "logistic"; or give a ``base``. ``logit`` is the λ of a Logit before all, None for none. ``guarded`` splines can be
    inverted in float32 far from the data too. One coordinate leaves nothing to couple: D = 1 has splines of its own,
    which see no context.

    Raises:
        ShapeError: for one coordinate with a context.
    """
    maps = first(features, logit=logit, standardize=standardize, stack=stack)
    if features == 1:
        if context_features:
            raise ShapeError(
                "spline_flow of one coordinate sees no context. made(1, components=8, context_features=...) does."
            )
        splines: list[Bijection] = [
            Elementwise(1, Spline(bins, bound, guarded=guarded), stack=stack) for _ in range(layers)
        ]
        return Flow(Chain([*maps, *splines]), base_or_prior(base, prior, features, stack))
    maps += [
        SplineCoupling(
            alternating_mask(features, odd=i % 2 == 1),
            hidden,
            bins=bins,
            bound=bound,
            guarded=guarded,
            activation=activation,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )
        for i in range(layers)
    ]
    return Flow(Chain(maps), base_or_prior(base, prior, features, stack))
