"""Neural spline flows in coupling form (Durkan et al., arXiv:1906.04032)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator

from flowlab.bijections import Chain, SplineCoupling, alternating_mask
from flowlab.densities import Base, Flow
from flowlab.models.parts import at_least_two, base_or_prior, first
from flowlab.models.registry import recipe


@recipe
def spline_flow(
    features: int,
    layers: int = 6,
    *,
    hidden: Sequence[int] = (64, 64),
    bins: int = 8,
    bound: float = 4.0,
    activation: str = "relu",
    standardize: bool = True,
    context_features: int = 0,
    prior: str = "normal",
    base: Base | None = None,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = spline couplings of a standardized x (neural spline flow, coupling form, arXiv:1906.04032).

    Takes ``(..., D)``, and a context ``(..., C)`` beside it when built for one. The splines bend [−B, B] and leave the
    rest alone, so ``standardize`` puts a Standardize first, which brings the data there. ``prior`` is "normal" or
    "logistic"; or give a ``base``. ``logit`` is the λ of a Logit before all, None for none.

    Raises:
        ShapeError: for one coordinate, which no coupling can split.
    """
    at_least_two("spline_flow", features)
    maps = first(features, logit=logit, standardize=standardize, stack=stack)
    maps += [
        SplineCoupling(
            alternating_mask(features, odd=i % 2 == 1),
            hidden,
            bins=bins,
            bound=bound,
            activation=activation,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )
        for i in range(layers)
    ]
    return Flow(Chain(maps), base_or_prior(base, prior, features, stack))
