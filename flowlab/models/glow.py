"""Glow (Kingma and Dhariwal, arXiv:1807.03039): ActNorm, a 1×1 convolution and a coupling, at several scales."""

from __future__ import annotations

from dataclasses import replace

from torch import Generator

from flowlab.bijections import (
    AdditiveImageCoupling,
    AffineImageCoupling,
    Bijection,
    Chain,
    Channelwise,
    FactorOut,
    Inverse,
    InvertibleConvolution,
    Permutation,
    Squeeze,
    channel_mask,
)
from flowlab.densities import Flow
from flowlab.models.parts import act_norm, check_halves, image_flow, one_of
from flowlab.models.registry import PRESETS, recipe
from flowlab.models.sizes import FULL, GPU, MINUTE, QUICK, SHAPE, SIZES, D, Size, bound_on, training


@recipe(renamed={"levels": "scales"})
def glow(
    shape: tuple[int, int, int],
    scales: int = 2,
    *,
    steps: int = 4,
    hidden: int = 32,
    blocks: int = 1,
    coupling: str = "affine",
    mixing: str = "convolution",
    logit: float | None = 1e-5,
    context_features: int = 0,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """Glow: at each scale squeeze, ``steps`` of (ActNorm, 1×1 convolution, coupling), half leaves (arXiv:1807.03039).

    Takes images as rows of pixels, ``(..., C·H·W)`` in [0, 1], as all flows here do: ``images.flatten(-3)``, and
    ``flow.sample(n).unflatten(-1, shape)`` are images again. The latent is one vector too, of all scales.

    Args:
        shape: C, H, W; each scale halves H and W.
        steps: how many at each scale, the paper's K.
        hidden, blocks: channels and residual blocks of the conditioners, which the paper has plain.
        coupling: "affine" or "additive".
        mixing: of channels: "convolution", or a fixed "shuffle", or "reverse", which the paper compares.
        logit: λ of the Logit that comes first, None for none, as in the paper.

    Raises:
        ShapeError: when H and W cannot be halved that often.
        ValueError: for another coupling or mixing.
    """
    own = {"stack": stack, "generator": generator}
    laws = {"affine": AffineImageCoupling, "additive": AdditiveImageCoupling}
    mixings = {
        "convolution": lambda C: InvertibleConvolution(C, **own),
        "shuffle": lambda C: Channelwise(Permutation.random(C, generator)),
        "reverse": lambda C: Channelwise(Permutation.reverse(C)),
    }
    law, mix = laws[one_of("coupling", coupling, laws)], mixings[one_of("mixing", mixing, mixings)]

    def step(C: int) -> list[Bijection]:
        couple = law(channel_mask(C), hidden, blocks=blocks, context_features=context_features, **own)
        return [act_norm(C, stack), mix(C), couple]

    def scale(C: int, H: int, W: int, scales: int) -> Chain:
        C, H, W = 4 * C, H // 2, W // 2
        maps = [Squeeze(), *(one for _ in range(steps) for one in step(C))]
        if scales > 1:
            maps.append(FactorOut(C, scale(C // 2, H, W, scales - 1), stack=stack))
        return Chain([*maps, Inverse(Squeeze())])

    check_halves("glow", shape, scales, scales)
    return image_flow(shape, scale(*shape, scales), logit, stack)


# On MNIST: structure from the paper, sizes ours. "quick" learns the bundled digits on one core.
PRESETS["glow_quick"] = {"scales": 2, "steps": 4, "hidden": 16, "blocks": 1}
PRESETS["glow_full"] = {"scales": 2, "steps": 16, "hidden": 96, "blocks": 2}

SIZES["glow_mnist"] = {
    "quick": Size(
        bound_on("glow", shape=SHAPE, **PRESETS["glow_quick"]), training(8, 50, 3e-3, **QUICK), "bundled", MINUTE
    ),
    "compact": Size(
        bound_on("glow", shape=SHAPE, scales=2, steps=6, hidden=48, blocks=1),
        training(14, 64, 2e-3, **FULL),
        cost="CPU, an hour",
    ),
    "full": Size(
        bound_on("glow", shape=SHAPE, **PRESETS["glow_full"]), training(100, 128, 1e-3, ema=0.999, **FULL), cost=GPU
    ),
}


def _with_noise(size: Size, layers: int, hidden: tuple[int, ...]) -> Size:
    """The same density under learned noise: affine couplings of e given v, uniform to begin with (u = sigmoid(e))."""
    noise = {"features": D, "layers": layers, "hidden": hidden, "standardize": False}
    noise |= {"context_features": D, "prior": "logistic"}
    recipe = {"name": "realnvp", "settings": noise}
    return replace(size, model={**size.model, "settings": {**size.model["settings"], "noise": recipe}})


# Variational dequantization (Flow++, arXiv:1902.00275): a flow makes the noise.
SIZES["glow_variational_mnist"] = {
    "quick": _with_noise(SIZES["glow_mnist"]["quick"], 2, (64,)),
    "full": _with_noise(SIZES["glow_mnist"]["full"], 4, (512, 512)),
}
