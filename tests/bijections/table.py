"""The one table of constructors: a row in TABLE buys a bijection the whole battery of its kind.

The checks are in `test_battery.py` and `test_battery_derivatives.py`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from bijections.surfaces import Sphere, Surface, Torus
from bijections.toys import ModularShift, NoisyLinear, OneWay, Projective, TorusShear
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AdditiveImageCoupling,
    AffineCoupling,
    AffineImageCoupling,
    AsImage,
    Autoregressive,
    BatchNorm,
    Bijection,
    Bounded,
    Chain,
    Channelwise,
    Coupling,
    Elementwise,
    FactorOut,
    FullAffine,
    GaussianizeMargins,
    ImageCoupling,
    Inverse,
    InverseAutoregressive,
    InvertibleConvolution,
    Leapfrog,
    Logit,
    LULinear,
    MaskedAutoregressive,
    Monotone,
    MonotoneSum,
    Permutation,
    Planar,
    PReLU,
    Radial,
    ScaleShift,
    Shift,
    SinhArcsinh,
    Spline,
    SplineAutoregressive,
    SplineCoupling,
    SplineImageCoupling,
    Squeeze,
    Standardize,
    StandardizeContext,
    Whiten,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
    learning,
    starting,
)

VECTORS = ((1,), (2,), (3,), (5,), (8,))
PAIRS = VECTORS[1:]  # a split needs two coordinates
BOARDS = ((1, 2, 2), (1, 1, 3), (2, 2, 1))  # a checkerboard needs two pixels
IMAGES = ((2, 1, 1), (3, 2, 1), (2, 1, 3))
EVEN = ((4, 2, 2), (4, 2, 4), (4, 4, 2))  # a squeeze takes them both ways


@dataclass(frozen=True)
class Row:
    """How to build a bijection for an event shape, and what it takes.

    ``build`` is called with the numbers of the event shape, and with ``stack`` and ``generator`` if it takes them.
    ``interval`` is where x lives; ``context`` is the width of the context, or its shape, 0 for none; ``identity`` says
    whether the constructor leaves it at the identity. ``kind`` chooses the battery:

    - "real": there and back, with the log-determinant of the Jacobian; p(x) integrates to 1.
    - "one way": the same, forward; the inverse raises InverseNotAvailable, by name.
    - "manifold": points of ``surface`` go to points of it; Jacobians are between tangent spaces.
    - "whole": a permutation of the whole numbers 0 to ``levels`` − 1 in each coordinate, with log |det| = 0.
    - "noisy": log |det| is a draw that the generator decides; its mean is that of the Jacobian.
    """

    build: Callable[..., Bijection]
    events: tuple[tuple[int, ...], ...] = VECTORS
    context: int | tuple[int, ...] = 0
    interval: tuple[float, float] | None = None
    identity: bool = True
    kind: Literal["real", "one way", "manifold", "whole", "noisy"] = "real"
    surface: Surface | None = None
    levels: int = 0

    def fresh(self, event: tuple[int, ...], stack: int | None, generator: Generator) -> Bijection:
        """A bijection as its constructor leaves it."""
        takes = inspect.signature(self.build).parameters
        every = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        settings = {"stack": stack, "generator": generator}
        return self.build(*event, **{name: value for name, value in settings.items() if every or name in takes})

    def make(self, event: tuple[int, ...], stack: int | None, generator: Generator, spread: float = 0.3) -> Bijection:
        """A float64 bijection in evaluation mode: data-dependent starts done, then N(0, spread²) on each parameter."""
        bijection = self.fresh(event, stack, generator).double()
        with starting(bijection.train()), learning(bijection):
            bijection(*self.points(event, stack, (16,), generator))
        for p in bijection.parameters():
            p.data += spread * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        return bijection.eval()

    def points(
        self, event: tuple[int, ...], stack: int | None, batch: tuple[int, ...], generator: Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Random x ``(K, *batch, *event)``, float64, and a context ``(K, *batch, C)`` or None."""
        lead = (*(() if stack is None else (stack,)), *batch)
        if self.surface is not None:
            x = self.surface.points((*lead, *event), generator)
        elif self.kind == "whole":
            x = torch.randint(self.levels, (*lead, *event), generator=generator)
        elif self.interval is None:
            x = 1.5 * torch.randn(*lead, *event, generator=generator, dtype=torch.float64)
        else:
            low, high = self.interval
            u = torch.rand(*lead, *event, generator=generator, dtype=torch.float64)
            x = low + (high - low) * (0.02 + 0.96 * u)
        if not self.context:
            return x, None
        shape = (self.context,) if isinstance(self.context, int) else self.context
        return x, torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)


def odd_mask(D: int) -> Tensor:
    return alternating_mask(D, odd=True)


def uneven_mask(D: int) -> list[bool]:
    """Only the last but one passes: no two halves, no alternation."""
    return [i == max(D - 2, 0) for i in range(D)]


def first_half(D: int) -> list[bool]:
    return [i < D // 2 for i in range(D)]


def second_half(D: int) -> list[bool]:
    return [i >= D // 2 for i in range(D)]


def last_first(D: int) -> list[int]:
    return list(range(D))[::-1]


def hills(x: Tensor) -> Tensor:
    """An energy with several valleys that depends on all places together."""
    return 0.5 * x.square().sum(-1) + torch.cos(2 * x.sum(-1))


def two_scales(C: int, H: int, W: int, stack: int | None, generator: Generator) -> Chain:
    """A mixed image, half of it factored out, the rest squeezed, mixed and split again."""
    own = {"stack": stack, "generator": generator}
    a = C // 2
    fine = Chain([Squeeze(), InvertibleConvolution(4 * a, **own), FactorOut(4 * a, stack=stack), Inverse(Squeeze())])
    return Chain([InvertibleConvolution(C, **own), FactorOut(C, fine, stack=stack)])


def mixed_chain(D: int, stack: int | None, generator: Generator) -> Chain:
    """One of everything that a deep flow is made of."""
    own = {"stack": stack, "generator": generator}
    return Chain(
        [
            ActNorm(D, stack=stack),
            LULinear(D, **own),
            AffineCoupling(odd_mask(D), (4,), context_features=2, activation="silu", **own),
            Permutation.reverse(D),
            Inverse(SplineCoupling(alternating_mask(D), (4,), bins=4, context_features=2, **own)),
            ScaleShift(D, stack=stack),
        ]
    )


TABLE = {
    "ScaleShift": Row(ScaleShift),
    "ScaleShift, no shift": Row(lambda D, stack: ScaleShift(D, stack=stack, shift=False)),
    "PReLU": Row(lambda D, stack: PReLU(D, 0.6, stack=stack), identity=False),
    "Logit": Row(lambda D: Logit(), interval=(0, 1), identity=False),
    "Logit, λ = 0.05": Row(lambda D: Logit(0.05), interval=(0, 1), identity=False),
    "Bounded": Row(lambda D: Bounded([(-2, 3)] * D), interval=(-2, 3), identity=False),
    "SinhArcsinh": Row(SinhArcsinh),
    "MonotoneSum": Row(MonotoneSum, identity=False),
    "Monotone, falling": Row(lambda D: Monotone(lambda x: -x - x**3, interval=(-50, 50)), identity=False),
    "Monotone, inverse given": Row(lambda D: Monotone(torch.sinh, torch.asinh), identity=False),
    "Elementwise, spline": Row(lambda D, stack: Elementwise(D, Spline(bins=5), stack=stack)),
    "FullAffine": Row(FullAffine),
    "LULinear": Row(LULinear, identity=False),
    "LULinear, no rotation": Row(lambda D, stack: LULinear(D, rotate=False, stack=stack)),
    "Permutation": Row(lambda D, generator: Permutation.random(D, generator), identity=False),
    "ActNorm": Row(ActNorm),
    "Standardize": Row(Standardize),
    "BatchNorm": Row(BatchNorm, identity=False),
    "GaussianizeMargins": Row(GaussianizeMargins),
    "Whiten": Row(Whiten),
    "Whiten, context": Row(lambda D, stack: Whiten(D, context_features=2, stack=stack), context=2),
    "StandardizeContext": Row(
        lambda D, **own: StandardizeContext(AffineCoupling(odd_mask(D), (4,), context_features=2, **own)),
        PAIRS,
        context=2,
    ),
    "AdditiveCoupling": Row(lambda D, **own: AdditiveCoupling(odd_mask(D), (5, 4), **own), PAIRS),
    "AdditiveCoupling, context": Row(
        lambda D, **own: AdditiveCoupling(uneven_mask(D), (5,), context_features=1, **own), PAIRS, context=1
    ),
    "AffineCoupling": Row(lambda D, **own: AffineCoupling(alternating_mask(D), (5,), **own), PAIRS),
    "AffineCoupling, uneven": Row(lambda D, **own: AffineCoupling(uneven_mask(D), (3,), **own), PAIRS),
    "AffineCoupling, context": Row(
        lambda D, **own: AffineCoupling(first_half(D), (5,), context_features=2, **own), PAIRS, context=2
    ),
    "SplineCoupling": Row(lambda D, **own: SplineCoupling(second_half(D), (5,), **own), PAIRS),
    "SplineCoupling, context": Row(
        lambda D, **own: SplineCoupling(uneven_mask(D), (5,), bins=3, bound=2.0, context_features=3, **own),
        PAIRS,
        context=3,
    ),
    "SplineCoupling, not guarded": Row(
        lambda D, **own: SplineCoupling(first_half(D), (5,), bins=4, guarded=False, **own), PAIRS
    ),
    "Coupling, shift": Row(lambda D, **own: Coupling(uneven_mask(D), Shift(), hidden=(4,), **own), PAIRS),
    "Autoregressive, shift": Row(lambda D, **own: Autoregressive(D, Shift(), hidden=(5,), **own)),
    "SplineAutoregressive": Row(lambda D, **own: SplineAutoregressive(D, (5,), bins=4, **own)),
    "SplineAutoregressive, context": Row(
        lambda D, **own: SplineAutoregressive(D, (5,), order=last_first(D), bins=3, context_features=2, **own),
        context=2,
    ),
    "MaskedAutoregressive": Row(lambda D, **own: MaskedAutoregressive(D, (5, 4), **own)),
    "MaskedAutoregressive, random": Row(
        lambda D, stack, generator: MaskedAutoregressive(
            D,
            (6, 3),
            order=torch.randperm(D, generator=generator),
            random_degrees=True,
            activation="tanh",
            stack=stack,
            generator=generator,
        ),
    ),
    "MaskedAutoregressive, context": Row(
        lambda D, **own: MaskedAutoregressive(D, (5,), order=last_first(D), context_features=2, **own), context=2
    ),
    "InverseAutoregressive": Row(lambda D, **own: InverseAutoregressive(D, (5,), **own)),
    "InverseAutoregressive, context": Row(
        lambda D, **own: InverseAutoregressive(D, (2,), order=last_first(D), context_features=1, **own), context=1
    ),
    "Squeeze": Row(lambda *shape: Squeeze(), EVEN, identity=False),
    "InvertibleConvolution": Row(lambda C, H, W, **own: InvertibleConvolution(C, **own), IMAGES, identity=False),
    "Channelwise, ActNorm": Row(lambda C, H, W, stack: Channelwise(ActNorm(C, stack=stack)), IMAGES),
    "Channelwise, coupling": Row(
        lambda C, H, W, **own: Channelwise(AffineCoupling(odd_mask(C), (4,), context_features=2, **own)),
        IMAGES,
        context=2,
    ),
    "AdditiveImageCoupling": Row(
        lambda C, H, W, **own: AdditiveImageCoupling(checkerboard_mask(C, H, W), 3, blocks=1, **own), BOARDS
    ),
    "AffineImageCoupling, checkerboard": Row(
        lambda *shape, **own: AffineImageCoupling(checkerboard_mask(*shape, odd=True), 3, blocks=1, **own), BOARDS
    ),
    "AffineImageCoupling, channels": Row(
        lambda C, H, W, **own: AffineImageCoupling(channel_mask(C), 2, blocks=2, **own), IMAGES
    ),
    "AffineImageCoupling, context": Row(
        lambda C, H, W, **own: AffineImageCoupling(channel_mask(C, odd=True), 3, blocks=0, context_features=2, **own),
        IMAGES,
        context=2,
    ),
    "AffineImageCoupling, image as context": Row(
        lambda C, H, W, **own: AffineImageCoupling(
            channel_mask(C), 3, blocks=0, context_features=2, context_dim=3, **own
        ),
        IMAGES,
        context=(2, 3, 4),
    ),
    "SplineImageCoupling": Row(
        lambda *shape, **own: SplineImageCoupling(checkerboard_mask(*shape), 3, bins=4, blocks=0, **own), BOARDS
    ),
    "ImageCoupling, shift": Row(
        lambda C, H, W, **own: ImageCoupling(channel_mask(C), Shift(), hidden=2, blocks=0, **own), IMAGES
    ),
    "FactorOut, context": Row(lambda C, H, W, stack: FactorOut(C, context_features=2, stack=stack), IMAGES, context=2),
    "FactorOut, image as context": Row(
        lambda C, H, W, stack: FactorOut(C, context_features=1, context_dim=3, stack=stack), IMAGES, context=(1, 2, 2)
    ),
    "FactorOut": Row(lambda C, H, W, stack: FactorOut(C, stack=stack), IMAGES),
    "FactorOut, two scales": Row(two_scales, ((2, 2, 2), (3, 2, 2)), identity=False),
    "AsImage": Row(lambda D, **own: AsImage((D, 1, 1), InvertibleConvolution(D, **own)), identity=False),
    "AsImage, context": Row(
        lambda D, **own: AsImage((D, 1, 1), Channelwise(AffineCoupling(odd_mask(D), (3,), context_features=2, **own))),
        PAIRS,
        context=2,
    ),
    "Inverse": Row(lambda D, stack: Inverse(SinhArcsinh(D, stack=stack))),
    "Inverse, numeric": Row(lambda D, **own: Inverse(MonotoneSum(D, 3, **own)), identity=False),
    "Chain": Row(mixed_chain, PAIRS, context=2, identity=False),
    "Chain, empty": Row(lambda D: Chain([])),
    "Leapfrog": Row(lambda D: Leapfrog(D, hills, steps=3, size=0.3), ((2,), (4,), (8,)), identity=False),
    "Planar": Row(Planar),
    "Planar, formula for sampling": Row(lambda D, **own: Inverse(Planar(D, **own))),
    "Radial": Row(Radial),
    "OneWay": Row(OneWay, kind="one way"),
    "OneWay, in a chain": Row(
        lambda D, stack: Chain([ScaleShift(D, stack=stack), OneWay(D, stack=stack)]), kind="one way"
    ),
    "Projective, circle": Row(Projective, ((2,),), kind="manifold", surface=Sphere(2)),
    "Projective, sphere": Row(Projective, ((3,),), kind="manifold", surface=Sphere(3)),
    "TorusShear": Row(TorusShear, ((2,),), kind="manifold", surface=Torus(2)),
    "TorusShear, circle": Row(TorusShear, ((1,),), kind="manifold", surface=Torus(1)),
    "ModularShift": Row(
        lambda D, generator: ModularShift(D, 4, generator=generator),
        ((1,), (2,), (4,)),
        kind="whole",
        levels=4,
        identity=False,
    ),
    "ModularShift, bits": Row(
        lambda D, generator: ModularShift(D, 2, generator=generator),
        ((3,), (8,)),
        kind="whole",
        levels=2,
        identity=False,
    ),
    "NoisyLinear": Row(NoisyLinear, kind="noisy"),
}
