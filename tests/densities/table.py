"""The one table of densities: a row in TABLE buys a density the whole battery of `test_battery.py`."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from flowlab.bijections import (
    ActNorm,
    AffineCoupling,
    AsImage,
    BatchNorm,
    Chain,
    FactorOut,
    Inverse,
    Logit,
    LULinear,
    ScaleShift,
    SinhArcsinh,
    SplineCoupling,
    Squeeze,
    alternating_mask,
    learning,
    starting,
)
from flowlab.datasets import Checkerboard, EightGaussians, Energy, Pinwheel, Rings, Spirals, TwoCircles, TwoMoons
from flowlab.densities import (
    AutoregressiveMixture,
    Density,
    Dequantized,
    Flow,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
    VariationalDequantized,
    mixtures,
    one_map_at_a_time,
)
from flowlab.models import planar_flow, radial_flow


@dataclass(frozen=True)
class Row:
    """How to build a density, and what is known of it.

    ``build`` is called with ``stack`` and ``generator`` if it takes them; a row whose ``build`` takes a ``stack`` is
    tested as a stack too. ``box`` is a cube ``(low, high)`` that holds nearly all of a density of one or two numbers,
    to integrate it over, by ``cells`` along each side of it. ``outside`` is a number that no coordinate of a sample can
    be. ``levels`` is how many whole numbers there are. ``exact`` is log p(x) where the density gives a bound on it.
    """

    build: Callable[..., Density]
    box: tuple[float, float] | None = None
    outside: float | None = None
    levels: int = 0
    exact: Callable[[Density, Tensor], Tensor] | None = None
    cells: int = 600

    def takes(self, setting: str) -> bool:
        return setting in inspect.signature(self.build).parameters

    def make(
        self, stack: int | None = None, seed: int = 0, dtype: torch.dtype = torch.float64, spread: float = 0.2
    ) -> Density:
        """A density in evaluation mode: data-dependent starts done, then N(0, spread²) on each parameter."""
        generator = Generator().manual_seed(seed)
        settings = {"stack": stack, "generator": generator}
        density = self.build(**{name: value for name, value in settings.items() if self.takes(name)})
        if not isinstance(density, torch.nn.Module):
            return density
        density.to(dtype)
        with starting(density), learning(density), torch.no_grad():
            if density.domain == "real" and not density.context_features and self.outside is None:
                density.log_prob(torch.randn(self.lead(density, 16), generator=generator, dtype=dtype))
        for p in density.parameters():
            p.data += spread * torch.randn(p.shape, generator=generator).to(dtype)
        return density.eval()

    @staticmethod
    def lead(density: Density, *batch: int) -> tuple[int, ...]:
        """The shape of a batch of samples."""
        return (*(() if density.stack is None else (density.stack,)), *batch, *density.event_shape)


def couplings(D: int, context: int = 0, **own) -> list[AffineCoupling]:
    masks = (alternating_mask(D), alternating_mask(D, odd=True))
    return [AffineCoupling(mask, (6,), activation="tanh", context_features=context, **own) for mask in masks]


def plane(stack: int | None, generator: Generator) -> Flow:
    own = {"stack": stack, "generator": generator}
    maps = [ActNorm(2, stack=stack), *couplings(2, **own), LULinear(2, **own)]
    return Flow(Chain(maps), StandardNormal(2, stack=stack))


def batch_norm(stack: int | None, generator: Generator) -> Flow:
    maps = [BatchNorm(2, stack=stack), LULinear(2, stack=stack, generator=generator)]
    return Flow(Chain(maps), StandardNormal(2, stack=stack))


def spline(generator: Generator) -> Flow:
    maps = [SplineCoupling(alternating_mask(2, odd=odd), (6,), generator=generator) for odd in (False, True)]
    return Flow(Chain(maps), StandardNormal(2))


def in_the_cube(D: int) -> Flow:
    """Each number is sigmoid(e^s y + t) with y logistic: its distribution function is known."""
    return Flow(Chain([Logit(), ScaleShift(D)]), StandardLogistic(D))


def bins(model: Dequantized, v: Tensor) -> Tensor:
    """log P(v) of whole numbers whose density is ``in_the_cube``: differences of its distribution function."""
    f = model.density.bijection[1]
    ends = torch.stack((v, v + 1)).double() / model.levels
    low, high = torch.sigmoid(torch.logit(ends) * f.log_scale.double().exp() + f.shift.double()).detach()
    return (high - low).log().sum(-1)


def variational(generator: Generator) -> VariationalDequantized:
    noise = Flow(Chain(couplings(2, context=2, generator=generator)), StandardLogistic(2))
    return VariationalDequantized(in_the_cube(2), noise, levels=5)


def grown(generator: Generator) -> Flow:
    """A bent cloud, and the eight small maps that raised its likelihood first, one at a time."""
    x = torch.randn(300, 2, generator=generator)
    bent = torch.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2], -1)
    return next(flow for flow, _ in one_map_at_a_time(bent, generator) if len(list(flow.bijection)) == 9)


def gaussians(**settings) -> GaussianMixture:
    means = torch.tensor([[0.0, 0.0], [2.0, 1.0], [-1.0, 2.0]])
    return GaussianMixture(means, weights=torch.tensor([0.2, 0.5, 0.3]), **settings)


def images(stack: int | None, generator: Generator) -> Flow:
    own = {"stack": stack, "generator": generator}
    maps = [Squeeze(), FactorOut(4, stack=stack), Inverse(Squeeze())]
    return Flow(Chain([AsImage((1, 2, 2), Chain(maps)), LULinear(4, **own)]), StandardNormal(4, stack=stack))


def flows(generator: Generator) -> mixtures.FlowMixture:
    return mixtures.FlowMixture(plane(3, generator), learn_weights=True, generator=generator)


def list_of_flows(generator: Generator) -> mixtures.FlowMixture:
    each = [plane(None, generator), Flow(SinhArcsinh(2), StandardNormal(2))]
    return mixtures.FlowMixture(each, shared=LULinear(2, generator=generator), generator=generator)


# Toys, and cells that are few, since their exact densities take time, but at most a noise wide.
TOYS = {
    Pinwheel: 240,
    TwoCircles: 400,
    TwoMoons: 120,
    EightGaussians: 120,
    Rings: 180,
    Spirals: 180,
    Checkerboard: 160,
}

TABLE = {
    "StandardNormal": Row(lambda stack: StandardNormal(2, stack=stack), (-7, 7)),
    "StandardNormal, line": Row(lambda: StandardNormal(1), (-8, 8)),
    "StandardNormal, images": Row(lambda stack: StandardNormal((2, 3, 2), stack=stack)),
    "StandardLogistic": Row(lambda stack: StandardLogistic(1, stack=stack), (-40, 40)),
    "StandardUniform": Row(lambda stack: StandardUniform(2, stack=stack), (-1, 2), outside=1.5),
    "GaussianMixture": Row(gaussians, (-12, 12)),
    "GaussianMixture, trained": Row(lambda: gaussians(trainable=True), (-12, 12)),
    "EMGaussianMixture": Row(lambda: mixtures.EMGaussianMixture(2 * torch.eye(2)), (-9, 9)),
    "AutoregressiveMixture": Row(
        lambda stack, generator: AutoregressiveMixture(
            2, 3, hidden=(6,), activation="tanh", log_scale_bound=1.0, stack=stack, generator=generator
        ),
        (-12, 12),
    ),
    "AutoregressiveMixture, context": Row(
        lambda stack, generator: AutoregressiveMixture(
            2, 2, hidden=(6,), order=[1, 0], log_scale_bound=1.0, context_features=2, stack=stack, generator=generator
        ),
        (-12, 12),
    ),
    "Flow": Row(plane, (-12, 12)),
    "Flow, batch norm": Row(batch_norm, (-12, 12)),
    "Flow, spline": Row(spline, (-8, 8)),
    "Flow, one map at a time": Row(grown, (-14, 14)),
    "Flow, planar": Row(lambda stack, generator: planar_flow(2, 3, stack=stack, generator=generator), (-12, 12)),
    "Flow, radial, formula for sampling": Row(
        lambda stack, generator: radial_flow(2, 3, sampling=True, stack=stack, generator=generator), (-12, 12)
    ),
    "Flow, context": Row(
        lambda stack, generator: Flow(
            Chain(couplings(2, context=3, stack=stack, generator=generator)), StandardNormal(2, stack=stack)
        ),
        (-12, 12),
    ),
    "Flow, in the cube": Row(lambda: in_the_cube(2), (0, 1), outside=-0.5),
    "Flow, far into the corners": Row(
        lambda: Flow(Chain([Logit(1e-6), ScaleShift(2)]), StandardLogistic(2)), None, 1.5
    ),
    "Flow, images": Row(images),
    "FlowMixture": Row(flows, (-14, 14)),
    "FlowMixture, a list": Row(list_of_flows, (-14, 14)),
    "LatentGaussianMixture": Row(
        lambda generator: mixtures.LatentGaussianMixture(Chain(couplings(2, generator=generator)), gaussians()),
        (-14, 14),
    ),
    "Dequantized": Row(lambda: Dequantized(in_the_cube(2), levels=3), levels=3, exact=bins),
    "Dequantized, draws": Row(lambda: Dequantized(in_the_cube(1), levels=5, draws=4), levels=5, exact=bins),
    "Dequantized, uniform": Row(
        lambda: Dequantized(StandardUniform(2), levels=4),
        levels=4,
        exact=lambda model, v: torch.full(v.shape[:-1], -2 * math.log(4), dtype=torch.float64),
    ),
    "Dequantized, context": Row(
        lambda generator: Dequantized(
            Flow(Chain([Logit(), *couplings(2, context=3, generator=generator)]), StandardLogistic(2)), levels=4
        ),
        levels=4,
    ),
    "VariationalDequantized": Row(variational, levels=5, exact=bins),
    **{
        f"Energy, U{number}": Row(lambda number=number: Energy(number), (-4.8, 4.8), cells=240)
        for number in (1, 2, 3, 4)
    },
    "Energy, cut": Row(lambda: Energy(4, wall=0.0), (-4, 4), outside=4.5, cells=240),
    **{kind.__name__: Row(kind, (-kind().extent, kind().extent), cells=cells) for kind, cells in TOYS.items()},
}
