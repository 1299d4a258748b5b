"""Named recipes: each builds a Flow, a mixture of them, or a bound around one; each paper's settings are presets."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Generator, Tensor

from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AdditiveImageCoupling,
    AffineCoupling,
    AffineImageCoupling,
    AsImage,
    BatchNorm,
    Bijection,
    Chain,
    Channelwise,
    FactorOut,
    Inverse,
    InvertibleConvolution,
    Logit,
    MaskedAutoregressive,
    Permutation,
    ScaleShift,
    ShapeError,
    SplineCoupling,
    Squeeze,
    Standardize,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
)
from flowlab.densities import (
    AutoregressiveMixture,
    Base,
    Dequantized,
    Flow,
    StandardLogistic,
    StandardNormal,
    VariationalDequantized,
)
from flowlab.densities.mixtures import FlowMixture
from flowlab.networks import ConvClassifier

PRIORS = {"normal": StandardNormal, "logistic": StandardLogistic}

# What each source printed. `nice(784, **PRESETS["nice_mnist"])` is the paper's model, weight for weight.
PRESETS = {
    # NICE, arXiv:1410.8516, section 5.1.
    "nice_mnist": {"layers": 4, "hidden": (1000,) * 5, "prior": "logistic"},
    # MAF, arXiv:1705.07057, section 4.1 and appendix D, and its authors' code. Our log-scales are bounded, theirs not.
    "made_mnist": {"components": 1, "hidden": (1024, 1024), "standardize": False},
    "made_mog_mnist": {"components": 10, "hidden": (1024, 1024), "standardize": False},
    "maf_mnist": {"layers": 5, "hidden": (1024, 1024), "normalization": "batch", "standardize": False},
    "maf_mog_mnist": {
        "layers": 5,
        "components": 10,
        "hidden": (1024, 1024),
        "normalization": "batch",
        "standardize": False,
    },
    # Multi-scale on MNIST: structure from the papers, sizes ours. "quick" learns the bundled digits on one core.
    "realnvp_image_quick": {"levels": 2, "layers": 2, "hidden": 16, "blocks": 1},
    "realnvp_image_full": {"levels": 3, "layers": 3, "hidden": 64, "blocks": 4},
    "glow_quick": {"levels": 2, "steps": 4, "hidden": 16, "blocks": 1},
    "glow_full": {"levels": 2, "steps": 16, "hidden": 96, "blocks": 2},
    # Pires, "Variational Mixture of Normalizing Flows", section 5.1: one component of the mixture.
    "realnvp_pinwheel": {"layers": 8, "hidden": (8,), "standardize": False},
    "realnvp_two_circles": {"layers": 10, "hidden": (8,), "standardize": False},
}


def _recipe(build: Callable[..., Any]) -> Callable[..., Any]:
    """Note on the model how it was built, so that a checkpoint's card can say how to build it again."""

    @functools.wraps(build)
    def wrapper(*args, **settings) -> Any:
        flow = build(*args, **settings)
        call = inspect.signature(build).bind(*args, **settings)
        call.apply_defaults()
        given = {name: value for name, value in call.arguments.items() if name not in ("generator", "base")}
        # A base given as a module cannot be written down.
        written = call.arguments.get("base") is None
        flow.recipe = {"name": build.__name__, "settings": given} if written else None
        return flow

    return wrapper


@_recipe
def nice(
    features: int,
    layers: int = 4,
    *,
    hidden: Sequence[int] = (64, 64),
    prior: str = "logistic",
    scaling: bool = True,
    activation: str = "relu",
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = S · (additive couplings of x), the even and the odd coordinates in turn (NICE, arXiv:1410.8516).

    Takes ``(..., D)``. Volume is kept but for the diagonal ``S``, which ``scaling=False`` leaves out. ``prior`` is
    "logistic", as in the paper for images, or "normal". ``logit`` is the λ of a Logit that comes first, None for none.
    """
    maps: list[Bijection] = [
        AdditiveCoupling(
            alternating_mask(features, odd=i % 2 == 1), hidden, activation=activation, stack=stack, generator=generator
        )
        for i in range(layers)
    ]
    if scaling:
        maps.append(ScaleShift(features, stack=stack, shift=False))
    return Flow(Chain([*_logit(logit), *maps]), _prior(prior, features, stack))


@_recipe
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
    base: Base | None = None,
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = affine couplings of x, the even and the odd coordinates in turn (RealNVP, arXiv:1605.08803).

    Takes ``(..., D)``, and a context ``(..., C)`` beside it when built for one. ``standardize`` puts a Standardize
    first, so that data of any location and scale can be fitted as it is. ``prior`` is "normal" or "logistic"; or give a
    ``base``, for instance a Gaussian mixture. ``logit`` is the λ of a Logit before all, None for none.
    """
    maps: list[Bijection] = [*_logit(logit), *_standardize(standardize, features, stack)]
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
    return Flow(Chain(maps), base or _prior(prior, features, stack))


@_recipe
def spline_flow(
    features: int,
    layers: int = 6,
    *,
    hidden: Sequence[int] = (64, 64),
    bins: int = 8,
    bound: float = 4.0,
    activation: str = "relu",
    context_features: int = 0,
    base: Base | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = spline couplings of a standardized x (neural spline flow, coupling form, arXiv:1906.04032).

    Takes ``(..., D)``. The splines bend [−B, B] and leave the rest alone, so the first map is a Standardize, which
    puts the data there.
    """
    maps: list[Bijection] = [Standardize(features, stack=stack)]
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
    return Flow(Chain(maps), base or StandardNormal(features, stack=stack))


@_recipe
def flow_mixture(
    features: int,
    components: int = 5,
    *,
    layers: int = 8,
    hidden: Sequence[int] = (16,),
    activation: str = "tanh",
    log_scale_bound: float = 2.0,
    posterior: Sequence[int] = (64, 64),
    learn_weights: bool = False,
    generator: Generator | None = None,
) -> FlowMixture:
    """p(x) = Σ_k π_k p(x | k) of K equal RealNVPs in one stack, with q(k | x) by an MLP of widths ``posterior``.

    Takes ``(..., D)``. The conditioners are smooth ("tanh"): a component then moves toward points that it has not
    claimed yet, where ReLUs fold at the border (Pires and Figueiredo, "Variational Mixture of Normalizing Flows").
    """
    flows = realnvp(
        features,
        layers,
        hidden=hidden,
        activation=activation,
        log_scale_bound=log_scale_bound,
        standardize=False,
        stack=components,
        generator=generator,
    )
    return FlowMixture(flows, learn_weights=learn_weights, hidden=posterior, generator=generator)


@_recipe
def image_mixture(
    features: int,
    components: int = 10,
    *,
    shared: dict[str, Any],
    layers: int = 2,
    hidden: Sequence[int] = (16,),
    channels: Sequence[int] = (16, 32, 64),
    learn_weights: bool = False,
    generator: Generator | None = None,
) -> FlowMixture:
    """p(x) = Σ_k π_k p(x | k) of K RealNVPs in one stack behind layers that all share, with q(k | x) by a ConvNet.

    Takes rows of pixels in [0, 1], ``(..., D)``, of square images. ``shared`` is the recipe of a flow, as in ``build``,
    such as a glow; its bijection comes first, and what it gives goes to the small components. Each begins with a scale
    and a shift of its own: the mean image of a component costs no more than that. Shared layers and convolutions are
    what Pires' thesis names as future work. ``channels`` are those of the classifier.
    """
    first = build(shared, generator=generator).bijection
    own = realnvp(features, layers, hidden=hidden, standardize=False, stack=components, generator=generator)
    flows = Flow(Chain([ScaleShift(features, stack=components), *own.bijection]), own.base)
    q = ConvClassifier(components, math.isqrt(features), channels=channels, generator=generator)
    return FlowMixture(flows, learn_weights=learn_weights, posterior=q, shared=first)


@_recipe
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
    logit: float | None = None,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = autoregressive maps of x, the order of the coordinates reversed from each to the next (arXiv:1705.07057).

    Takes ``(..., D)``, and a context ``(..., C)`` beside it when built for one. ``log_prob`` is one pass of each layer,
    ``sample`` is D. The base is the standard normal; with ``components=K`` it is a MADE of K Gaussians for each
    conditional (MAF MoG). ``normalization`` follows each layer: "act", "batch" as in the paper, or "none".
    ``standardize`` puts a Standardize first, and ``logit`` a Logit of that λ before it.
    """
    own = {"stack": stack, "generator": generator}
    maps: list[Bijection] = [*_logit(logit), *_standardize(standardize, features, stack)]
    for i in range(layers):
        maps.append(
            MaskedAutoregressive(
                features,
                hidden,
                order=_order(features, i),
                activation=activation,
                context_features=context_features,
                log_scale_bound=log_scale_bound,
                **own,
            )
        )
        maps += _normalization(normalization, features, stack)
    if not components:
        return Flow(Chain(maps), StandardNormal(features, stack=stack))
    order = _order(features, layers)
    base = AutoregressiveMixture(features, components, hidden=hidden, order=order, activation=activation, **own)
    return Flow(Chain(maps), base)


@_recipe
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
    """
    base = AutoregressiveMixture(
        features, components, hidden=hidden, activation=activation, stack=stack, generator=generator
    )
    return Flow(Chain([*_logit(logit), *_standardize(standardize, features, stack)]), base)


@_recipe
def realnvp_image(
    shape: tuple[int, int, int],
    levels: int = 3,
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
    ``flow.sample(n).unflatten(-1, shape)`` are images again. The latent is one vector too, of all scales. A level is
    ``layers`` couplings of each kind, then half of the numbers leave; the last is ``layers`` + 1 by checkerboards.
    An ActNorm of the channels comes before each coupling, where the paper has batch normalization after it.

    Args:
        shape: C, H, W; each level but the last halves H and W.
        hidden, blocks: channels and residual blocks of the conditioners.
        logit: λ of the Logit that comes first, None for none.

    Raises:
        ShapeError: when H and W cannot be halved that often.
    """
    own = {"stack": stack, "generator": generator}
    network = {"blocks": blocks, "log_scale_bound": log_scale_bound, "context_features": context_features}

    def couplings(channels: int, masks: list[Tensor]) -> list[Bijection]:
        pairs = ((_act_norm(channels, stack), AffineImageCoupling(b, hidden, **network, **own)) for b in masks)
        return [one for pair in pairs for one in pair]

    def scale(C: int, H: int, W: int, levels: int) -> Chain:
        turns = range(layers if levels > 1 else layers + 1)
        maps = couplings(C, [checkerboard_mask(C, H, W, odd=i % 2 == 1) for i in turns])
        if levels == 1:
            return Chain(maps)
        maps += [Squeeze(), *couplings(4 * C, [channel_mask(4 * C, odd=i % 2 == 1) for i in turns])]
        rest = scale(2 * C, H // 2, W // 2, levels - 1)
        return Chain([*maps, FactorOut(4 * C, rest, stack=stack), Inverse(Squeeze())])

    _check_size("realnvp_image", shape, levels, levels - 1)
    return _image_flow(shape, scale(*shape, levels), logit, stack)


@_recipe
def glow(
    shape: tuple[int, int, int],
    levels: int = 2,
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
    """Glow: at each level squeeze, ``steps`` of (ActNorm, 1×1 convolution, coupling), half leaves (arXiv:1807.03039).

    Takes images as rows of pixels, ``(..., C·H·W)`` in [0, 1], as all flows here do: ``images.flatten(-3)``, and
    ``flow.sample(n).unflatten(-1, shape)`` are images again. The latent is one vector too, of all scales.

    Args:
        shape: C, H, W; each level halves H and W.
        steps: how many in each level, the paper's K.
        hidden, blocks: channels and residual blocks of the conditioners, which the paper has plain.
        coupling: "affine" or "additive".
        mixing: of channels: "convolution", or a fixed "shuffle", or "reverse", which the paper compares.
        logit: λ of the Logit that comes first, None for none, as in the paper.

    Raises:
        ShapeError: when H and W cannot be halved that often.
        ValueError: for another coupling or mixing.
    """
    own = {"stack": stack, "generator": generator}
    law = _one_of("coupling", coupling, {"affine": AffineImageCoupling, "additive": AdditiveImageCoupling})
    mix = _one_of(
        "mixing",
        mixing,
        {
            "convolution": lambda C: InvertibleConvolution(C, **own),
            "shuffle": lambda C: Channelwise(Permutation.random(C, generator)),
            "reverse": lambda C: Channelwise(Permutation.reverse(C)),
        },
    )

    def step(C: int) -> list[Bijection]:
        couple = law(channel_mask(C), hidden, blocks=blocks, context_features=context_features, **own)
        return [_act_norm(C, stack), mix(C), couple]

    def scale(C: int, H: int, W: int, levels: int) -> Chain:
        C, H, W = 4 * C, H // 2, W // 2
        maps = [Squeeze(), *(one for _ in range(steps) for one in step(C))]
        if levels > 1:
            maps.append(FactorOut(C, scale(C // 2, H, W, levels - 1), stack=stack))
        return Chain([*maps, Inverse(Squeeze())])

    _check_size("glow", shape, levels, levels)
    return _image_flow(shape, scale(*shape, levels), logit, stack)


@_recipe
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


def build(recipe: dict[str, Any], *, generator: Generator | None = None) -> Any:
    """The model of a recipe as it stands in a card: {"name": a function of this module, "settings": its arguments}.

    Raises:
        ValueError: when no function here has that name, or it takes no such settings.
    """
    names = [name for name, made in globals().items() if hasattr(made, "__wrapped__")]
    name, settings = recipe.get("name"), recipe.get("settings", {})
    if name not in names:
        raise ValueError(f"A recipe is one of {', '.join(names)}, but {name!r} was given.")
    function = globals()[name]
    try:
        inspect.signature(function).bind(**settings)
    except TypeError as error:
        raise ValueError(f"The recipe {name!r} cannot be built from {settings}: {error}.") from None
    return function(**settings, generator=generator)


def _image_flow(shape: tuple[int, int, int], images: Bijection, logit: float | None, stack: int | None) -> Flow:
    """Rows of pixels to the logits, to images, through ``images``, to rows again."""
    return Flow(Chain([*_logit(logit), AsImage(shape, images)]), StandardNormal(math.prod(shape), stack=stack))


def _logit(lambda_: float | None) -> list[Bijection]:
    return [] if lambda_ is None else [Logit(lambda_)]


def _standardize(wanted: bool, features: int, stack: int | None) -> list[Bijection]:
    return [Standardize(features, stack=stack)] if wanted else []


def _act_norm(channels: int, stack: int | None) -> Bijection:
    return Channelwise(ActNorm(channels, stack=stack))


def _check_size(name: str, shape: tuple[int, int, int], levels: int, halvings: int) -> None:
    """Refuse images that do not halve so often, and say what would."""
    if len(shape) != 3 or min(shape) < 1:
        raise ShapeError(f"{name} expected images of a shape (C, H, W), but got {tuple(shape)}.")
    if levels < 1:
        raise ShapeError(f"{name} expected at least one level, but got {levels}.")
    by = 2**halvings
    if any(size % by for size in shape[1:]):
        H, W = (-(-size // by) * by for size in shape[1:])
        fits = [n for n in range(1, levels) if not any(size % 2 ** (n + halvings - levels) for size in shape[1:])]
        raise ShapeError(
            f"{name} with levels={levels} halves height and width {'once' if halvings == 1 else f'{halvings} times'}, "
            f"but got images of {shape[1]}×{shape[2]}: pad them to {H}×{W}"
            + (f", or take levels={fits[-1]}." if fits else ".")
        )


def _one_of(what: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        raise ValueError(f"The {what} is one of {', '.join(map(repr, choices))}, but {name!r} was given.")
    return choices[name]


def _order(features: int, layer: int) -> list[int]:
    """The coordinates as they stand, and in every other layer from last to first."""
    order = list(range(features))
    return order[::-1] if layer % 2 else order


def _normalization(name: str, features: int, stack: int | None) -> list[Bijection]:
    if name not in ("act", "batch", "none"):
        raise ValueError(f"The normalization is one of 'act', 'batch' and 'none', but {name!r} was given.")
    if name == "batch":  # the paper's has a scale and a shift of its own, trained like any weight
        return [BatchNorm(features, stack=stack), ScaleShift(features, stack=stack)]
    return [ActNorm(features, stack=stack)] if name == "act" else []


def _prior(name: str, features: int, stack: int | None) -> Base:
    if name not in PRIORS:
        raise ValueError(f"The prior is one of {sorted(PRIORS)}, but {name!r} was given.")
    return PRIORS[name](features, stack=stack)
