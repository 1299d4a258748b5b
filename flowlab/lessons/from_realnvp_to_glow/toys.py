"""Densities with axes of their own, what can stand between couplings, and the best one coupling for each angle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from flowlab.bijections import (
    ActNorm,
    AffineCoupling,
    Bijection,
    Chain,
    FullAffine,
    LULinear,
    Permutation,
    alternating_mask,
)
from flowlab.datasets import EightGaussians, TwoCircles, TwoMoons, mnist
from flowlab.densities import Density, Flow, StandardNormal
from flowlab.plotting.plane import log_density, plane


class Bananas(Density):
    """D/2 bananas side by side, seen through x = Q u: log p(x) = Σ log p(u_i, u_j), since |det Q| = 1; exact, in nats.

    A banana: u_i ~ N(0, 1), and u_j ~ N(bend · (u_i² − 1), width²). Its two coordinates are neighbors in u. Q is the
    identity, or with ``turned`` an orthogonal matrix drawn from ``seed``. Shapes ``(..., D)`` and ``(...)``.
    """

    def __init__(
        self, features: int = 2, *, turned: bool = False, seed: int = 0, bend: float = 0.8, width: float = 0.3
    ) -> None:
        if features < 2 or features % 2:
            raise ValueError(f"Bananas expected an even number of features, but got {features}.")
        self.event_shape, self.bend, self.width = (features,), bend, width
        self.Q = torch.eye(features)
        if turned:
            self.Q = torch.linalg.qr(torch.randn(features, features, generator=Generator().manual_seed(seed))).Q

    def draw(self, n: int, generator: Generator | None = None, context: None = None) -> tuple[Tensor, Tensor]:
        x = self.from_noise(torch.randn(n, self.features // 2, 2, generator=generator))
        return x, self.log_prob(x)

    def from_noise(self, eps: Tensor) -> Tensor:
        """x of standard normal noise, ``(n, D/2, 2)`` to ``(n, D)``."""
        u = torch.stack((eps[..., 0], self.bend * (eps[..., 0] ** 2 - 1) + self.width * eps[..., 1]), -1)
        return u.flatten(1) @ self.Q.T.to(u)

    def log_prob(self, x: Tensor, context: None = None, *, generator: Generator | None = None) -> Tensor:
        u = (x @ self.Q.to(x)).unflatten(-1, (-1, 2))  # (..., D/2, 2)
        eps = (u[..., 1] - self.bend * (u[..., 0] ** 2 - 1)) / self.width
        return (-0.5 * (u[..., 0] ** 2 + eps**2) - math.log(2 * math.pi * self.width)).sum(-1)


def patches(split: str = "train", n: int = 20_000, *, seed: int = 0) -> Tensor:
    """n patches of 4×4 pixels from the bundled digits, with ink in half of them or more, dequantized: ``(n, 16)``.

    x = (v + u)/256 in [0, 1], in a random order; noise and order are drawn from ``seed``.
    """
    g = Generator().manual_seed(seed)
    v = mnist.digits(split)[0].unfold(1, 4, 4).unfold(2, 4, 4).reshape(-1, 16)
    v = v[(v > 0).sum(1) >= 8]
    v = v[torch.randperm(len(v), generator=g)[:n]]
    return (v + torch.rand(v.shape, generator=g)) / 256


MIXINGS = ("reverse", "shuffle", "rotate")  # what can stand between two couplings


def mixing(kind: str, features: int, generator: Generator | None = None) -> Bijection:
    """A map of D coordinates: "reverse" and "shuffle" are fixed, "rotate" is learned from a random rotation."""
    if kind == "reverse":
        return Permutation.reverse(features)
    if kind == "shuffle":
        return Permutation.random(features, generator)
    if kind == "rotate":
        return LULinear(features, generator=generator)
    raise ValueError(f"Expected a mixing among {', '.join(MIXINGS)}, but got {kind!r}.")


def contender(kind: str, features: int, couplings: int = 4, *, hidden: Sequence[int] = (24, 24), seed: int = 0) -> Flow:
    """ActNorm, then ``couplings`` times (mixing, affine coupling): the first half of the coordinates always passes."""
    g = Generator().manual_seed(seed)
    half = torch.arange(features) < features // 2
    maps: list[Bijection] = [ActNorm(features)]
    for _ in range(couplings):
        maps += [mixing(kind, features, g), AffineCoupling(half, hidden, generator=g)]
    return Flow(Chain(maps), StandardNormal(features))


def normalized(norm: type[Bijection], seed: int = 0, *, features: int = 2, couplings: int = 6) -> Flow:
    """``couplings`` times (norm, affine coupling), the masks in turn: every even map is ``norm(features)``."""
    g, maps = Generator().manual_seed(seed), []
    for i in range(couplings):
        maps += [norm(features), AffineCoupling(alternating_mask(features, odd=i % 2 == 1), (32, 32), generator=g)]
    return Flow(Chain(maps), StandardNormal(features))


class Profile(NamedTuple):
    """What one affine coupling needs to know of a density in the plane, seen along one axis u₁."""

    middle: float  # of u₁
    spread: float
    means: np.ndarray  # of u₂ given u₁, at ``nodes``
    spreads: np.ndarray
    gauge: float  # nats to the truth, of the coupling that has exactly these


class OneCoupling:
    """For each angle, the best flow of one rotation and one affine coupling: no training, and no network limits it.

        u₁ passes, so q(u₁) is a normal; u₂ moves, so q(u₂|u₁) is one. The best of them have p's own moments, and
        KL(p‖q) = ½ log 2πe σ₁² + E[½ log 2πe σ₂²(u₁)] − H(p), in nats

    The integrals are sums over points ``(n, 2)`` with weights ``(n,)``; ``on_grid`` and ``of_banana`` make them. Angles
    are whole steps of ``STEP`` degrees, mod 360; the moments of u₂ are kept at nodes of u₁, ``cell`` apart.
    """

    STEP = 2

    def __init__(self, density: Any, points: Tensor, weights: Tensor, cell: float) -> None:
        log_p = log_density(density, points).double().numpy()
        self.points, self.cell = points.double().numpy(), cell
        self.p = (weights / weights.sum()).double().numpy()
        self.entropy = -float(self.p @ log_p)
        reach = math.ceil(np.linalg.norm(self.points, axis=1).max() / cell) + 1
        self.nodes = cell * np.arange(-reach, reach + 1)
        half = [self._profile(angle) for angle in range(0, 180, self.STEP)]
        # Half a turn: the same axis, read the other way.
        self.profiles = half + [
            f._replace(middle=-f.middle, means=-f.means[::-1], spreads=f.spreads[::-1]) for f in half
        ]
        self.gauges = np.array([profile.gauge for profile in self.profiles])

    @classmethod
    def on_grid(cls, density: Any, extent: float, size: int = 181) -> OneCoupling:
        """Points of a square grid from −extent to extent, weighted by p."""
        points = plane(extent, size).reshape(-1, 2)
        log_p = log_density(density, points)
        keep = log_p > -25
        return cls(density, points[keep], log_p[keep].exp(), 2 * extent / (size - 1))

    @classmethod
    def of_banana(cls, banana: Bananas, extent: float = 5.0, size: int = 241) -> OneCoupling:
        """The same in the noise that a banana is made from, since its arms are too thin and long for a square grid."""
        eps = plane(extent, size).reshape(-1, 1, 2)
        return cls(banana, banana.from_noise(eps), (-0.5 * eps.square().sum((1, 2))).exp(), 2 * extent / (size - 1))

    def __getitem__(self, angle: float) -> Profile:
        """The profile along the axis at this angle, in degrees."""
        return self.profiles[round(angle / self.STEP) % len(self.profiles)]

    def log_q(self, x: np.ndarray, angle: float) -> np.ndarray:
        """log q of the best flow at this angle: ``(..., 2)`` to ``(...)``."""
        u1, u2 = np.moveaxis(x @ axes_at(angle).T, -1, 0)
        f = self[angle]
        mean, spread = (np.interp(u1, self.nodes, values) for values in (f.means, f.spreads))
        return _log_normal(u1, f.middle, f.spread) + _log_normal(u2, mean, spread)

    def _profile(self, angle: float) -> Profile:
        u1, u2 = axes_at(angle) @ self.points.T
        at = u1 / self.cell + len(self.nodes) // 2
        left = np.floor(at).astype(int)
        share = at - left  # each point is shared between the two nodes beside it

        def summed(weights: np.ndarray) -> np.ndarray:
            n = len(self.nodes)
            return np.bincount(left, weights * (1 - share), n) + np.bincount(left + 1, weights * share, n)

        m, m1, m2 = summed(self.p), summed(self.p * u2), summed(self.p * u2 * u2)
        seen = m > 1e-9
        mean = m1[seen] / m[seen]
        spread = np.sqrt(np.maximum(m2[seen] / m[seen] - mean**2, 1e-6))
        middle = float(self.p @ u1)
        spread1 = math.sqrt(float(self.p @ u1**2) - middle**2)
        normal = math.log(2 * math.pi * math.e)
        gauge = normal + math.log(spread1) + float(m[seen] @ np.log(spread)) - self.entropy
        means, spreads = (np.interp(self.nodes, self.nodes[seen], values) for values in (mean, spread))
        return Profile(middle, spread1, means, spreads, gauge)


def axes_at(angle: float) -> np.ndarray:
    """The rotation whose first row, the axis that passes, lies at this angle in degrees: ``(2, 2)``."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[c, s], [-s, c]])


def _log_normal(u: np.ndarray, mean: np.ndarray | float, spread: np.ndarray | float) -> np.ndarray:
    return -0.5 * ((u - mean) / spread) ** 2 - np.log(spread) - 0.5 * math.log(2 * math.pi)


class Turned(Density):
    """A density in the plane, turned by an angle in degrees: log p(x) = log p₀(u) with x = R u."""

    event_shape = (2,)

    def __init__(self, density: Any, angle: float) -> None:
        self.density, self.R = density, torch.as_tensor(axes_at(angle).T).to(torch.get_default_dtype())

    def draw(self, n: int, generator: Generator | None = None, context: None = None) -> tuple[Tensor, Tensor]:
        x = self.density.sample(n, generator) @ self.R.T
        return x, self.log_prob(x)

    def log_prob(self, x: Tensor, context: None = None, *, generator: Generator | None = None) -> Tensor:
        return self.density.log_prob(x @ self.R.to(x))


PLANE = {
    "banana": Bananas(2),
    "two moons": TwoMoons(),
    "eight Gaussians": EightGaussians(),
    "two circles": TwoCircles(noise=0.1),
}
EXTENTS = {"banana": 3.6, "two moons": 2.4, "eight Gaussians": 3.4, "two circles": 1.9}  # half the width of the picture


@lru_cache
def one_coupling(name: str) -> OneCoupling:
    """The best couplings for data of ``PLANE``, made once."""
    density = PLANE[name]
    return OneCoupling.of_banana(density) if name == "banana" else OneCoupling.on_grid(density, 1.25 * EXTENTS[name])


def learner(angle: float, *, hidden: Sequence[int] = (32, 32), seed: int = 0) -> Flow:
    """A learned matrix that starts as the rotation to ``angle``, ActNorm, and one affine coupling in the plane."""
    W = FullAffine(2)
    with torch.no_grad():
        W.matrix.copy_(torch.tensor(axes_at(angle)))
    coupling = AffineCoupling([True, False], hidden, generator=Generator().manual_seed(seed))
    return Flow(Chain([W, ActNorm(2), coupling]), StandardNormal(2))


def learned_angle(flow: Flow) -> float:
    """The angle of the first row of W, the axis that passes, in degrees from 0 to 180."""
    w = flow.bijection[0].matrix[0].detach()
    return math.degrees(math.atan2(float(w[1]), float(w[0]))) % 180
