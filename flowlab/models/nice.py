"""NICE (Dinh, Krueger and Bengio, arXiv:1410.8516): additive couplings and a diagonal."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator

from flowlab.bijections import AdditiveCoupling, Chain, ScaleShift, alternating_mask
from flowlab.densities import DensityModule, Flow
from flowlab.models.parts import at_least_two, base_or_prior, first
from flowlab.models.registry import PRESETS, recipe
from flowlab.models.sizes import FULL, GPU, MINUTE, QUICK, SIZES, D, Size, bound_on, training


@recipe
def nice(
    features: int,
    layers: int = 4,
    *,
    hidden: Sequence[int] = (64, 64),
    prior: str = "logistic",
    base: DensityModule | None = None,
    context_features: int = 0,
    scaling: bool = True,
    activation: str = "relu",
    standardize: bool = False,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = S · (additive couplings of x), the even and the odd coordinates in turn (NICE, arXiv:1410.8516).

    Takes ``(..., D)``, and a context ``(..., C)`` beside it when built for one. Volume is kept but for the diagonal
    ``S``, which ``scaling=False`` leaves out. So the paper's flow expects data near 0: for a table in units of its own
    ``standardize=True`` puts a Standardize first, and with it a volume. ``prior`` is "logistic", as in the paper for
    images, or "normal"; or give a ``base``. ``logit`` is the λ of a Logit before all, None for none.

    Raises:
        ShapeError: for one coordinate, which no coupling can split.
    """
    at_least_two("nice", features)
    maps = first(features, logit=logit, standardize=standardize, stack=stack)
    maps += [
        AdditiveCoupling(
            alternating_mask(features, odd=i % 2 == 1),
            hidden,
            activation=activation,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )
        for i in range(layers)
    ]
    if scaling:
        maps.append(ScaleShift(features, stack=stack, shift=False))
    return Flow(Chain(maps), base_or_prior(base, prior, features, stack))


PRESETS["nice_mnist"] = {"layers": 4, "hidden": (1000,) * 5, "prior": "logistic"}  # section 5.1

SIZES["nice_mnist"] = {
    "quick": Size(bound_on("nice", features=D, hidden=(256, 256)), training(40, 100, 3e-3, **QUICK), "bundled", MINUTE),
    "compact": Size(
        bound_on("nice", features=D, hidden=(256,) * 4), training(120, 200, 1e-3, **FULL), cost="CPU, half an hour"
    ),
    "full": Size(
        bound_on("nice", features=D, **PRESETS["nice_mnist"]),
        # Section 5.1: Adam with these settings. The moving average is ours: it does what a falling rate would.
        training(1500, 200, 1e-3, betas=(0.9, 0.99), eps=1e-4, schedule="constant", ema=0.999, **FULL),
        cost=GPU,
    ),
}
