"""Autoregressive models: MADE (Germain et al., arXiv:1502.03509) and MAF (Papamakarios et al., arXiv:1705.07057)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator

from flowlab.bijections import ActNorm, BatchNorm, Bijection, Chain, MaskedAutoregressive, ScaleShift
from flowlab.densities import AutoregressiveMixture, DensityModule, Flow
from flowlab.models.parts import base_or_prior, first, more_than_a_gaussian, one_of
from flowlab.models.registry import PRESETS, recipe
from flowlab.models.sizes import FULL, GPU, LOGIT, MINUTE, PAPER, QUICK, SIZES, D, Size, bound_on, training


@recipe
def maf(
    features: int,
    layers: int = 5,
    *,
    components: int = 0,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    log_scale_bound: float = 2.0,
    normalization: str = "act",
    standardize: bool = True,
    context_features: int = 0,
    prior: str = "normal",
    base: DensityModule | None = None,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = autoregressive maps of x, the order of the coordinates reversed from each to the next (arXiv:1705.07057).

    Takes ``(..., D)``, and a context ``(..., C)`` beside it when built for one. ``log_prob`` is one pass of each layer,
    ``sample`` is D. ``prior`` is "normal" or "logistic"; or give a ``base``; with ``components=K`` it is a MADE of K
    Gaussians for each conditional (MAF MoG). ``normalization`` follows each layer: "act", "batch" as in the paper, or
    "none". ``standardize`` puts a Standardize first, and ``logit`` a Logit of that λ before it.

    Raises:
        ValueError: for one coordinate without components or context, which would be one Gaussian; for components beside
            a base; for another prior or normalization.
    """
    if base is None and not context_features:
        more_than_a_gaussian("maf", features, components)
    if components and base is not None:
        raise ValueError(f"maf expected components or a base, but got both: components={components} makes a base.")
    maps = first(features, logit=logit, standardize=standardize, stack=stack)
    for i in range(layers):
        maps.append(
            MaskedAutoregressive(
                features,
                hidden,
                order=_order(features, i),
                activation=activation,
                context_features=context_features,
                log_scale_bound=log_scale_bound,
                stack=stack,
                generator=generator,
            )
        )
        maps += _normalization(normalization, features, stack)
    if components:
        base = AutoregressiveMixture(
            features,
            components,
            hidden=hidden,
            order=_order(features, layers),
            activation=activation,
            stack=stack,
            generator=generator,
        )
    return Flow(Chain(maps), base_or_prior(base, prior, features, stack))


@recipe
def made(
    features: int,
    components: int = 1,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    standardize: bool = True,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """p(x) = Π p(x_i | x_<i), each a Gaussian, or a mixture of K = ``components`` (MADE, arXiv:1502.03509; MADE MoG).

    Takes ``(..., D)``. Not a flow but a density of its own, after the Standardize that ``standardize`` puts first, and
    the Logit of λ = ``logit`` before it.
    ``log_prob`` is one pass of the network, ``sample`` is D.

    Raises:
        ValueError: for one coordinate and one component, which would be one Gaussian.
    """
    more_than_a_gaussian("made", features, components)
    base = AutoregressiveMixture(
        features, components, hidden=hidden, activation=activation, stack=stack, generator=generator
    )
    return Flow(Chain(first(features, logit=logit, standardize=standardize, stack=stack)), base)


def _order(features: int, layer: int) -> list[int]:
    """The coordinates as they stand, and in every other layer from last to first."""
    order = list(range(features))
    return order[::-1] if layer % 2 else order


def _normalization(name: str, features: int, stack: int | None) -> list[Bijection]:
    one_of("normalization", name, ("act", "batch", "none"))
    if name == "batch":  # the paper's has a scale and a shift of its own, trained like any weight
        return [BatchNorm(features, stack=stack), ScaleShift(features, stack=stack)]
    return [ActNorm(features, stack=stack)] if name == "act" else []


# MAF, section 4.1 and appendix D, and its authors' code. Our log-scales are bounded, theirs not.
PRESETS["made_mnist"] = {"components": 1, "hidden": (1024, 1024), "standardize": False}
PRESETS["made_mog_mnist"] = {"components": 10, "hidden": (1024, 1024), "standardize": False}
PRESETS["maf_mnist"] = {"layers": 5, "hidden": (1024, 1024), "normalization": "batch", "standardize": False}
PRESETS["maf_mog_mnist"] = {**PRESETS["maf_mnist"], "components": 10}

SIZES["maf_mnist"] = {
    "quick": Size(
        bound_on("maf", features=D, hidden=(64,), **LOGIT), training(40, 100, 3e-3, **QUICK), "bundled", MINUTE
    ),
    "compact": Size(
        bound_on("maf", features=D, hidden=(160,), **LOGIT), training(25, 100, 1e-3, **FULL), cost="CPU, half an hour"
    ),
    "full": Size(
        bound_on("maf", features=D, **PRESETS["maf_mnist"], **LOGIT), training(1000, 100, 1e-4, **PAPER), cost=GPU
    ),
}

SIZES["made_mog_mnist"] = {
    "quick": Size(
        bound_on("made", features=D, components=10, hidden=(64,), **LOGIT),
        training(15, 100, 3e-3, **QUICK),
        "bundled",
        MINUTE,
    ),
    "compact": Size(
        bound_on("made", features=D, components=10, hidden=(256,), **LOGIT),
        training(20, 100, 1e-3, **FULL),
        cost="CPU, half an hour",
    ),
    "full": Size(
        bound_on("made", features=D, **PRESETS["made_mog_mnist"], **LOGIT),
        training(1000, 100, 1e-4, **PAPER),
        cost=GPU,
    ),
}
