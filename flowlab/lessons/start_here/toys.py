"""A flow made by hand, of three maps with a slider each: it pushes out, gathers wings, and swirls."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowlab.bijections import Bijection, Chain
from flowlab.densities import Flow, StandardNormal

START = {"size": 1.0, "push": 0.0, "wings": 0.0, "swirl": 0.0}  # where all three steps do nothing


class PushOut(Bijection):
    """Radii: r = size · ρ^(1 − push), where ρ = |z| and r = |x|. Angles stay. Pushed out, a blob gets a hollow middle.

    log |det ∂z/∂x| = 2 log(ρ/r) − log(1 − push), with 0 ≤ push < 1. Shapes ``(..., 2)`` and ``(...)``.
    """

    def __init__(self, size: float, push: float) -> None:
        super().__init__(2)
        self.size, self.power = size, 1 - push

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r, angle = _polar(x)
        rho = (r / self.size) ** (1 / self.power)
        return _plane(rho, angle), 2 * (rho / r).log() - math.log(self.power)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rho, angle = _polar(z)
        r = self.size * rho**self.power
        return _plane(r, angle), 2 * (r / rho).log() + math.log(self.power)


class GatherWings(Bijection):
    """Angles: ψ = φ − ⅖ arctan2(w sin 5φ, 1 + w cos 5φ) gathers all directions φ around five. Radii stay.

    On a circle this is a Möbius map. The way back is the same formula with −w, and the slope is
    (1 − w²) / (1 + w² + 2w cos 5φ), for 0 ≤ w < 1. Shapes ``(..., 2)`` and ``(...)``.
    """

    wings = 5

    def __init__(self, w: float) -> None:
        super().__init__(2)
        self.w = w

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turn(x, -self.w)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turn(z, self.w)

    def _turn(self, x: Tensor, w: float) -> tuple[Tensor, Tensor]:
        r, angle = _polar(x)
        c, s = w * (self.wings * angle).cos(), w * (self.wings * angle).sin()
        slope = (1 - w * w) / (1 + w * w + 2 * c)
        return _plane(r, angle - 2 / self.wings * torch.atan2(s, 1 + c)), slope.log()


class Swirl(Bijection):
    """Angles: θ = ψ + swirl · r turns each circle, the outer ones more. Radii stay, and so do areas: log |det| = 0.

    Shapes ``(..., 2)`` and ``(...)``.
    """

    def __init__(self, swirl: float) -> None:
        super().__init__(2)
        self.swirl = swirl

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r, angle = _polar(x)
        return _plane(r, angle - self.swirl * r), torch.zeros_like(r)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r, angle = _polar(z)
        return _plane(r, angle + self.swirl * r), torch.zeros_like(r)


def hand_flow(size: float = 1.0, push: float = 0.0, wings: float = 0.0, swirl: float = 0.0) -> Flow:
    """A Gaussian that is pushed outward, gathered into five wings, then swirled; forward undoes that, x -> z.

    An exact flow like any other, everywhere but at the origin. Left as they are, the settings change nothing.
    """
    return Flow(Chain([Swirl(swirl), GatherWings(wings), PushOut(size, push)]), StandardNormal(2))


def _polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Radius and angle; the origin, which has no angle, counts as a point very near."""
    return x.norm(dim=-1).clamp_min(1e-6), torch.atan2(x[..., 1], x[..., 0])


def _plane(r: Tensor, angle: Tensor) -> Tensor:
    return torch.stack((r * angle.cos(), r * angle.sin()), dim=-1)
