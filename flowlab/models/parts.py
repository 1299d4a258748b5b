"""What several recipes begin or end with."""

from __future__ import annotations

import math
from collections.abc import Iterable

from flowlab.bijections import ActNorm, AsImage, Bijection, Chain, Channelwise, Logit, ShapeError, Standardize
from flowlab.densities import DensityModule, Flow, StandardLogistic, StandardNormal

PRIORS = {"normal": StandardNormal, "logistic": StandardLogistic}


def first(features: int, *, logit: float | None, standardize: bool, stack: int | None) -> list[Bijection]:
    """A Logit of λ = ``logit`` where one is wanted, then a Standardize, so that data of any location and scale fit."""
    maps: list[Bijection] = [] if logit is None else [Logit(logit)]
    return [*maps, Standardize(features, stack=stack)] if standardize else maps


def base_or_prior(base: DensityModule | None, prior: str, features: int, stack: int | None) -> DensityModule:
    """The density of z: the one given, or else the one of that name."""
    return PRIORS[one_of("prior", prior, PRIORS)](features, stack=stack) if base is None else base


def at_least_two(recipe: str, features: int) -> None:
    """Raise ShapeError for one coordinate, which no coupling can split, and say which model takes it."""
    if features == 1:
        raise ShapeError(
            f"{recipe} moves some coordinates by what the others are, so it expected at least 2, but got 1. For one "
            f"number there are spline_flow(1) and made(1, components=8)."
        )


def more_than_a_gaussian(recipe: str, features: int, components: int) -> None:
    """Raise ValueError for what could only become one Gaussian: one coordinate, scaled and shifted by constants."""
    if features == 1 and components < 2:
        raise ValueError(
            f"{recipe} with one coordinate is a single Gaussian, whatever it is trained on: nothing comes before that "
            f"coordinate to say how it is scaled. Take made(1, components=8), a mixture of Gaussians."
        )


def act_norm(channels: int, stack: int | None) -> Bijection:
    """An ActNorm of the channels of images."""
    return Channelwise(ActNorm(channels, stack=stack))


def image_flow(shape: tuple[int, int, int], images: Bijection, logit: float | None, stack: int | None) -> Flow:
    """A flow of rows of pixels: to their logits, to images, through ``images``, and to rows again."""
    maps = first(math.prod(shape), logit=logit, standardize=False, stack=stack)
    return Flow(Chain([*maps, AsImage(shape, images)]), StandardNormal(math.prod(shape), stack=stack))


def check_halves(recipe: str, shape: tuple[int, int, int], scales: int, halvings: int) -> None:
    """Raise ShapeError for images whose H and W cannot be halved so often, and say which size could."""
    if len(shape) != 3:
        raise ShapeError(f"{recipe} expected images of a shape (C, H, W), but got {tuple(shape)}.")
    if scales < 1:
        raise ShapeError(f"{recipe} expected at least one scale, but got {scales}.")
    by = 2**halvings
    if any(size % by for size in shape[1:]):
        H, W = (-(-size // by) * by for size in shape[1:])
        fits = [n for n in range(1, scales) if not any(size % 2 ** (n + halvings - scales) for size in shape[1:])]
        often = "once" if halvings == 1 else f"{halvings} times"
        raise ShapeError(
            f"{recipe} with scales={scales} halves height and width {often}: expected multiples of {by}, "
            f"but got images of {shape[1]}×{shape[2]}: pad them to {H}×{W}"
            + (f", or take scales={fits[-1]}." if fits else ".")
        )


def one_of(what: str, name: str, choices: Iterable[str]) -> str:
    """``name`` itself; ValueError, with what there is, where it is not among the choices."""
    if name not in choices:
        raise ValueError(f"Expected the {what} to be one of {', '.join(map(repr, choices))}, but got {name!r}.")
    return name
