"""Several models side by side, in one frame: their densities in one shading, or their samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from flowlab.plotting.plane import log_density, plane
from flowlab.plotting.style import COLORS, DENSITY, tidy


def shade(p: np.ndarray) -> float:
    """The density that gets the darkest shade: high, but not the very highest."""
    return float(np.quantile(p[p > 0.01 * p.max()], 0.97)) if p.max() > 0 else 1.0


def compare(
    models: Mapping[str, Any], *, extent: float, nats: Sequence[float] | None = None, size: int = 140
) -> Figure:
    """The densities of several models side by side, in one frame and one shading; ``nats`` to the truth under each."""
    figure = Figure(figsize=(2.5 * len(models), 3.1), dpi=80, layout="compressed")
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    points = plane(extent, size)
    images = [log_density(model, points).exp().numpy() for model in models.values()]
    for i, (axes, title, p) in enumerate(zip(panels, models, images, strict=True)):
        axes.imshow(p, origin="lower", extent=(-extent, extent) * 2, cmap=DENSITY, vmin=0, vmax=shade(images[0]))
        tidy(axes, title, "x₁" if nats is None else f"x₁\n{nats[i]:.2f} nats to the truth", "" if i else "x₂")
    return figure


def samples(points: Mapping[str, Tensor], *, extent: float) -> Figure:
    """Points of several models side by side, in one frame."""
    figure = Figure(figsize=(2.8 * len(points), 3.0), dpi=80, layout="compressed")
    panels = figure.subplots(1, len(points), sharex=True, sharey=True, squeeze=False)[0]
    for i, (axes, (title, x)) in enumerate(zip(panels, points.items(), strict=True)):
        axes.plot(*x.T, ".", ms=2.5, color=COLORS["model"])
        axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        tidy(axes, title, "x₁", "" if i else "x₂")
    return figure
