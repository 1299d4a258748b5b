"""Regions without data, how much a flow stretches on them, and the least probability that must be left there."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowlab.bijections import Bijection
from flowlab.densities import Flow
from flowlab.plotting.plane import jacobians, log_density


def singular_values(bijection: Bijection, x: Tensor) -> Tensor:
    """How much z = f(x) stretches at each point, and how much it squeezes: the singular values of ∂f/∂x, falling.

    ``(N, D)`` to ``(N, D)``. The inverse stretches by 1/σ. Costs D passes of autograd.
    """
    return torch.linalg.svdvals(jacobians(lambda x: bijection(x)[0], x))


class Region(NamedTuple):
    """A part of the plane where the data are not: points in it, the area that each stands for, and lines to draw.

    ``left`` and its areas are the side of a gap, for which the floor is sharp; None for a hole.
    """

    name: str
    points: Tensor
    areas: Tensor
    lines: Tensor
    width: float
    left: Tensor | None = None
    left_area: float = 0.0


def hole(radius: float = 0.75) -> Region:
    """The disc inside a ring, in polar cells."""
    rings, turns = 24, 64
    r, t = (torch.arange(rings) + 0.5) / rings * radius, torch.arange(turns) * (2 * math.pi / turns)
    r, t = torch.meshgrid(r, t, indexing="ij")
    points = torch.stack((r * t.cos(), r * t.sin()), -1)
    areas = r * (radius / rings) * (2 * math.pi / turns)
    turn = torch.linspace(0, 2 * math.pi, 121)
    circles = torch.stack((turn.cos(), turn.sin()), -1) * (radius * torch.tensor([0.25, 0.5, 0.75, 1.0]))[:, None, None]
    return Region("hole", points.reshape(-1, 2), areas.flatten(), circles, radius)


def gap(half_width: float = 1.0, height: float = 4.0) -> Region:
    """The strip between two blobs, and the side to the left of it."""
    points, areas = _cells(-half_width, half_width, height, 40)
    left, left_areas = _cells(-half_width - 4.0, -half_width, height, 40)
    up = torch.linspace(-3, 3, 121)
    at = torch.linspace(-half_width, half_width, 5)[:, None]
    lines = torch.stack(torch.broadcast_tensors(at, up), -1)
    return Region("gap", points, areas, lines, 2 * half_width, left, float(left_areas[0]))


def _cells(low: float, high: float, height: float, count: int) -> tuple[Tensor, Tensor]:
    """Midpoints of the cells of a rectangle, and their areas."""
    rows = 80
    across = low + (torch.arange(count) + 0.5) / count * (high - low)
    up = -height + (torch.arange(rows) + 0.5) / rows * 2 * height
    points = torch.stack(torch.meshgrid(across, up, indexing="ij"), -1).reshape(-1, 2)
    return points, torch.full((len(points),), (high - low) / count * 2 * height / rows)


def least_between(width: float, stretch: Any, side: Any = 0.5) -> Tensor:
    """Φ(Φ⁻¹(a) + w/L) − a: the least probability in a gap of width w beside a set of probability a.

    L is the largest stretch of z → x on the gap: a path across it is at least w/L long in z, and of all sets of
    probability a in a Gaussian the half-plane grows least (the Gaussian isoperimetric inequality).
    """
    a, L = (torch.as_tensor(value, dtype=torch.float64) for value in (side, stretch))
    return torch.special.ndtr(torch.special.ndtri(a) + width / L) - a


def least_within(area: float, stretch: Any, farthest: Any) -> Tensor:
    """(A/L²) · exp(−R²/2)/2π: the least probability of a hole of area A whose image lies within R of the origin.

    Its image has at least the area A/L², and nowhere on it is the base density below its value at R.
    """
    L, R = (torch.as_tensor(value, dtype=torch.float64) for value in (stretch, farthest))
    return area / L**2 * torch.exp(-(R**2) / 2) / (2 * math.pi)


class Measured(NamedTuple):
    """A flow on a region: the probability it leaves there, its largest stretch of z → x, and the floor from that."""

    probability: float
    stretch: float
    floor: float


def measure(flow: Flow, region: Region) -> Measured:
    """Integrate the flow's density over the region, take the largest stretch on its points, and work out the floor."""
    stretch = float((1 / singular_values(flow.bijection, region.points)[:, -1]).max())
    probability = float((log_density(flow, region.points).exp() * region.areas).sum())
    if region.left is None:
        with torch.no_grad():
            farthest = flow.bijection(region.points)[0].norm(dim=-1).max()
        floor = least_within(float(region.areas.sum()), stretch, farthest)
    else:
        side = float(log_density(flow, region.left).exp().sum()) * region.left_area
        floor = least_between(region.width, stretch, side)
    return Measured(probability, stretch, float(floor))
