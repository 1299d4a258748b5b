"""One small map at a time: a flow that grows by radial maps, each of which raises the likelihood of the points."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from flowlab.bijections import Bijection, Chain, Radial, ScaleShift
from flowlab.densities.flow import Flow
from flowlab.densities.simple import StandardNormal

SLOPES = (0.4, 0.7, 0.9, 0.97, 1.03, 1.1, 1.3, 1.6)  # 1 + β/α, the slopes at the center that a line search tries
ALPHAS = (0.1, 2.0)  # the range from which the width of a map is drawn, in deviations of the data


@torch.no_grad()
def one_map_at_a_time(x: Tensor, generator: Generator | None = None) -> Iterator[tuple[Flow, float]]:
    """Flows of ever more radial maps, and mean log p of the points ``(N, D)``, in nats, which never falls.

    The first flow scales and shifts x to mean 0 and deviation 1. From one flow to the next a center is drawn, half of
    the time one of the points as they lie by now and half of the time from N(0, I), and a width α; the map's one
    coefficient β is that of ``SLOPES`` with which the points are likeliest under a standard normal after the map.
    Where none is better than no map, there is none. No network, no backpropagation (Tabak and Turner, *A family of
    nonparametric density estimation algorithms*, 2013).

    Ends never: take as many as you like with ``itertools.islice``.

    Raises:
        ValueError: for fewer than two points, and for a column without spread.
    """
    if x.ndim != 2 or len(x) < 2 or not bool((x.std(0) > 0).all()):
        raise ValueError(f"Expected points (N, D), at least two, with spread in each column, but got {tuple(x.shape)}.")
    D = x.shape[1]
    normalize = ScaleShift(D).to(x)
    normalize.log_scale.copy_(-x.std(0).log())
    assert normalize.shift is not None
    normalize.shift.copy_(-x.mean(0) / x.std(0))
    base = StandardNormal(D).to(x)
    maps: list[Bijection] = [normalize]
    z, log_det = normalize(x)
    best = (base.log_prob(z) + log_det).mean()
    while True:
        yield Flow(Chain(list(maps)), base), float(best)
        center = z[torch.randint(len(z), (1,), generator=generator)[0]]
        if torch.rand(1, generator=generator) < 0.5:
            center = torch.randn(D, generator=generator, dtype=x.dtype)
        low, high = ALPHAS
        alpha = low * (high / low) ** float(torch.rand(1, generator=generator))
        tried = _radials(center, alpha)
        moved, more = tried(z.expand(len(SLOPES), *z.shape))  # all slopes at once: (8, N, D) and (8, N)
        reached = (base.log_prob(moved) + log_det + more).mean(-1)
        k = int(reached.argmax())
        if reached[k] > best:
            z, log_det, best = moved[k], log_det + more[k], reached[k]
            maps.append(_one(tried, k))


def _radials(center: Tensor, alpha: float) -> Radial:
    """A stack of radial maps around one center, one for each slope."""
    maps = Radial(len(center), stack=len(SLOPES), generator=Generator()).to(center)  # what it draws is overwritten
    maps.center.copy_(center.expand(len(SLOPES), -1))
    maps.log_alpha.fill_(alpha).log_()
    maps.log_slope.copy_(torch.tensor(SLOPES).log()[:, None])
    return maps


def _one(stack: Radial, k: int) -> Bijection:
    """The k-th map of a stack, by itself."""
    one = Radial(stack.center.shape[-1], generator=Generator()).to(stack.center)
    for name, parameter in one.named_parameters():
        parameter.copy_(getattr(stack, name)[k])
    return one
