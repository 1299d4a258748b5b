"""Who may depend on whom through masks, random autoregressive maps, sampling pass by pass, and a stopwatch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from flowlab.bijections import Bijection, Chain, Inverse, MaskedAutoregressive
from flowlab.datasets import mnist
from flowlab.densities import Density
from flowlab.networks import MaskedMLP

# The processor's time, since the clock runs on while other programs have the core, and that hits a long run more often
# than a short one. Where the system counts it too coarsely (Windows), the clock must do.
FINE = time.get_clock_info("process_time").resolution < 1e-5
processor_seconds = time.process_time if FINE else time.perf_counter


def sees(network: MaskedMLP) -> Tensor:
    """Which inputs reach which output, by a product of boolean masks: ``(D, D)``, row i for output i."""
    reach = torch.eye(len(network.place), dtype=torch.float64)
    for layer in (*network.hidden, network.last):
        reach = ((reach @ layer.mask.double()) > 0).double()
    return reach[:, : len(network.place)].T.bool()  # all P numbers of an output have the same masks


def depends(layers: Sequence[MaskedAutoregressive]) -> Tensor:
    """On which x_j may z_i depend after all these layers? ``(D, D)`` of booleans, row i for z_i."""
    D = len(layers[0].conditioner.place)
    reach = torch.eye(D, dtype=torch.float64)
    for layer in layers:
        one = torch.eye(D, dtype=torch.float64) + sees(layer.conditioner).double()  # itself, and what it sees
        reach = ((one @ reach) > 0).double()
    return reach.bool()


def milliseconds(action: Callable[[], Any], times: int = 5) -> float:
    """How long an action takes on one thread, the median of some times after one that does not count."""
    action()
    taken = []
    for _ in range(times):
        start = processor_seconds()
        action()
        taken.append(processor_seconds() - start)
    return 1000 * median(taken)


SIDE = 7
PIXELS = SIDE * SIDE
DEEPEST = 3
ORDERS = ("as you read, in every layer", "as you read, then backward, in turn", "as you read, then shuffled")
ARROWS = ("MAF", "IAF")


@functools.lru_cache
def layers(order: str) -> tuple[MaskedAutoregressive, ...]:
    """``DEEPEST`` maps of 49 pixels with random smooth networks, each in its order; the first one as you read."""
    generator, made = Generator().manual_seed(0), []
    for n in range(DEEPEST):
        place = torch.arange(PIXELS)
        if n and order == ORDERS[2]:
            place = torch.randperm(PIXELS, generator=generator)
        elif n % 2 and order == ORDERS[1]:
            place = place.flip(0)
        layer = MaskedAutoregressive(PIXELS, (64,), order=place, activation="tanh", generator=generator)
        layer.requires_grad_(False)
        layer.conditioner.last.weight.normal_(std=0.08, generator=generator)
        made.append(layer.double())
    return tuple(made)


def chain(order: str, depth: int, arrow: str) -> Chain:
    """The first ``depth`` of these layers, as they are or each with its arrow flipped."""
    several = layers(order)[:depth]
    return Chain([layer if arrow == "MAF" else Inverse(layer) for layer in several])


@functools.lru_cache
def digit() -> Tensor:
    """A test digit of 7 × 7 pixels in [0, 1]: ``(49,)`` in float64."""
    images, labels = mnist.digits("test")
    small = mnist.halve(mnist.halve(images[labels == 5][3]))
    return (small.flatten().double() + 0.5) / 256


class Sweep(NamedTuple):
    """What one map of a flow makes of its input when it is run backward, and in which order it is known."""

    values: Tensor  # (n, D)
    place: Tensor  # (D,), 1 to D


@torch.no_grad()
def sweeps(maps: Sequence[Bijection], z: Tensor) -> tuple[list[Sweep], Tensor]:
    """Run maps backward from z, ``(n, D)``; each autoregressive one is a sweep. Returns these, and x."""
    found, h = [], z
    for bijection in reversed(maps):
        h = bijection.inverse(h)[0]
        if isinstance(bijection, MaskedAutoregressive):
            found.append(Sweep(h, bijection.conditioner.place))
    return found, h


class Moon(Density):
    """x₂ ~ N(0, 2²), x₁ | x₂ ~ N(x₂²/4, 1): in one order Gaussian conditionals, in the other not (arXiv:1705.07057).

    ``log_prob`` is exact, in nats, ``(..., 2)`` to ``(...)``.
    """

    event_shape = (2,)

    def draw(self, n: int, generator: Generator | None = None, context: None = None) -> tuple[Tensor, Tensor]:
        x2 = 2 * torch.randn(n, generator=generator)
        x = torch.stack((x2**2 / 4 + torch.randn(n, generator=generator), x2), -1)
        return x, self.log_prob(x)

    def log_prob(self, x: Tensor, context: None = None, *, generator: Generator | None = None) -> Tensor:
        x1, x2 = x.unbind(-1)
        return Normal(0.0, 2.0).log_prob(x2) + Normal(x2**2 / 4, 1.0).log_prob(x1)


@torch.no_grad()
def stopwatch(flow: Any, n: int = 10, times: int = 5) -> tuple[float, float]:
    """Milliseconds, medians, that ``log_prob`` of n points takes, and that ``sample(n)`` takes."""
    x = torch.randn(n, flow.base.features, generator=Generator().manual_seed(0))
    return milliseconds(lambda: flow.log_prob(x), times), milliseconds(lambda: flow.sample(n), times)
