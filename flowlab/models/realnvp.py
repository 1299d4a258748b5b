"""RealNVP (Dinh, Sohl-Dickstein and Bengio, arXiv:1605.08803): affine couplings, of vectors and of images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from flowlab.bijections import (
    AffineCoupling,
    AffineImageCoupling,
    Bijection,
    Chain,
    FactorOut,
    Inverse,
    Squeeze,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
)
from flowlab.densities import DensityModule, Flow
from flowlab.models.parts import act_norm, at_least_two, base_or_prior, check_halves, first, image_flow
from flowlab.models.registry import PRESETS, recipe
from flowlab.models.sizes import FULL, GPU, LOGIT, MINUTE, PAPER, QUICK, SHAPE, SIZES, D, Size, bound_on, training


@recipe
def realnvp(
    features: int,
    layers: int = 8,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    log_scale_bound: float = 2.0,
    standardize: bool = True,
    context_features: int = 0,
    prior: str = "normal",
    base: DensityModule | None = None,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = affine couplings of x, the even and the odd coordinates in turn (RealNVP, arXiv:1605.08803).

    Takes ``(..., D)``, and a context ``(..., C)`` beside it when built for one. ``standardize`` puts a Standardize
    first, so that data of any location and scale can be fitted as it is. ``prior`` is "normal" or "logistic"; or give a
    ``base``, for instance a Gaussian mixture. ``logit`` is the λ of a Logit before all, None for none.

    Raises:
        ShapeError: for one coordinate, which no coupling can split.
    """
    at_least_two("realnvp", features)
    maps = first(features, logit=logit, standardize=standardize, stack=stack)
    maps += [
        AffineCoupling(
            alternating_mask(features, odd=i % 2 == 1),
            hidden,
            activation=activation,
            log_scale_bound=log_scale_bound,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )
        for i in range(layers)
    ]
    return Flow(Chain(maps), base_or_prior(base, prior, features, stack))


@recipe(renamed={"levels": "scales"})
def realnvp_image(
    shape: tuple[int, int, int],
    scales: int = 3,
    *,
    layers: int = 3,
    hidden: int = 32,
    blocks: int = 2,
    logit: float | None = 1e-5,
    log_scale_bound: float = 2.0,
    context_features: int = 0,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """Multi-scale RealNVP of images: couplings by checkerboards, squeeze, by channels, half leaves (arXiv:1605.08803).

    Takes images as rows of pixels, ``(..., C·H·W)`` in [0, 1], as all flows here do: ``images.flatten(-3)``, and
    ``flow.sample(n).unflatten(-1, shape)`` are images again. The latent is one vector too, of all scales. A scale is
    ``layers`` couplings of each kind, then half of the numbers leave; the last is ``layers`` + 1 by checkerboards.
    An ActNorm of the channels comes before each coupling, where the paper has batch normalization after it.

    Args:
        shape: C, H, W; each scale but the last halves H and W.
        hidden, blocks: channels and residual blocks of the conditioners.
        logit: λ of the Logit that comes first, None for none.

    Raises:
        ShapeError: when H and W cannot be halved that often.
    """

    def couplings(channels: int, masks: list[Tensor]) -> list[Bijection]:
        maps: list[Bijection] = []
        for mask in masks:
            coupling = AffineImageCoupling(
                mask,
                hidden,
                blocks=blocks,
                log_scale_bound=log_scale_bound,
                context_features=context_features,
                stack=stack,
                generator=generator,
            )
            maps += [act_norm(channels, stack), coupling]
        return maps

    def scale(C: int, H: int, W: int, scales: int) -> Chain:
        turns = range(layers if scales > 1 else layers + 1)
        maps = couplings(C, [checkerboard_mask(C, H, W, odd=i % 2 == 1) for i in turns])
        if scales == 1:
            return Chain(maps)
        maps += [Squeeze(), *couplings(4 * C, [channel_mask(4 * C, odd=i % 2 == 1) for i in turns])]
        rest = scale(2 * C, H // 2, W // 2, scales - 1)
        return Chain([*maps, FactorOut(4 * C, rest, stack=stack), Inverse(Squeeze())])

    check_halves("realnvp_image", shape, scales, scales - 1)
    return image_flow(shape, scale(*shape, scales), logit, stack)


# Pires, "Variational Mixture of Normalizing Flows", section 5.1: one component of the mixture.
PRESETS["realnvp_pinwheel"] = {"layers": 8, "hidden": (8,), "standardize": False}
PRESETS["realnvp_two_circles"] = {"layers": 10, "hidden": (8,), "standardize": False}
# Multi-scale on MNIST: structure from the paper, sizes ours. "quick" learns the bundled digits on one core.
PRESETS["realnvp_image_quick"] = {"scales": 2, "layers": 2, "hidden": 16, "blocks": 1}
PRESETS["realnvp_image_full"] = {"scales": 3, "layers": 3, "hidden": 64, "blocks": 4}

SIZES["realnvp_dense_mnist"] = {
    "quick": Size(
        bound_on("realnvp", features=D, layers=5, hidden=(128,), **LOGIT),
        training(40, 100, 3e-3, **QUICK),
        "bundled",
        MINUTE,
    ),
    "compact": Size(
        bound_on("realnvp", features=D, layers=5, hidden=(256, 256), **LOGIT),
        training(40, 100, 1e-3, **FULL),
        cost="CPU, ten minutes",
    ),
    "full": Size(
        bound_on("realnvp", features=D, layers=5, hidden=(1024, 1024), **LOGIT),
        training(1000, 100, 1e-4, **PAPER),
        cost=GPU,
    ),
}

SIZES["realnvp_mnist"] = {
    "quick": Size(
        bound_on("realnvp_image", shape=SHAPE, **PRESETS["realnvp_image_quick"]),
        training(5, 50, 5e-3, **QUICK),
        "bundled",
        MINUTE,
    ),
    "full": Size(
        bound_on("realnvp_image", shape=SHAPE, **PRESETS["realnvp_image_full"]),
        training(100, 128, 1e-3, ema=0.999, **FULL),
        cost=GPU,
    ),
}
