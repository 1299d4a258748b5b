"""Densities, samples and warped grids in the plane; training curves. Figures for notebooks, arrays for explorers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowlab.bijections import Bijection
from flowlab.densities import Density, evaluating
from flowlab.plotting.style import COLORS, DENSITY, tidy
from flowlab.tables import as_float64, as_rows, as_tensor

CHUNK = 4096  # points at a time: measured four times faster than 40,000 at once, and bounded in memory


def log_density(model: Any, points: Tensor) -> Tensor:
    """log p at many points ``(..., D)``, in chunks, whatever has a ``log_prob``: ``(...)`` in nats."""
    flat = points.reshape(-1, points.shape[-1])
    with evaluating(model):
        return torch.cat([model.log_prob(part) for part in flat.split(CHUNK)]).reshape(points.shape[:-1])


def jacobians(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∂f/∂x at each point, by autograd: ``(..., D)`` to ``(..., D, D)``, for an f that takes each point by itself."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = f(x)
        rows = [torch.autograd.grad(z[..., i].sum(), x, retain_graph=True)[0] for i in range(z.shape[-1])]
    return torch.stack(rows, -2)


def plane(
    extent: float | tuple[float, float, float, float], size: int = 200, dtype: torch.dtype | None = None
) -> Tensor:
    """A square grid of points ``(size, size, 2)`` in the order of an image: rows are y, upward; columns are x."""
    left, right, bottom, top = _ends(extent)
    up, across = torch.linspace(bottom, top, size, dtype=dtype), torch.linspace(left, right, size, dtype=dtype)
    y, x = torch.meshgrid(up, across, indexing="ij")
    return torch.stack((x, y), dim=-1)


def grid_lines(extent: float, lines: int = 21, points: int = 120) -> Tensor:
    """The lines of a square grid, ``(2 · lines, points, 2)``: first the horizontal ones, then the vertical ones."""
    t, at = torch.linspace(-extent, extent, points), torch.linspace(-extent, extent, lines)
    horizontal = torch.stack(torch.broadcast_tensors(t, at[:, None]), dim=-1)
    return torch.cat((horizontal, horizontal.flip(-1)))


def warped_grid(bijection: Bijection, extent: float = 3.0, lines: int = 21, points: int = 120) -> Tensor:
    """Where the map's inverse takes the lines of a grid in latent space: ``(2 · lines, points, 2)``."""
    like = next(bijection.parameters(), torch.zeros(()))
    with evaluating(bijection):
        return bijection.inverse(grid_lines(extent, lines, points).to(like))[0]


def density(
    model: Any,
    data: Any = None,
    *,
    extent: float | tuple[float, float, float, float] | None = None,
    size: int = 200,
    title: str = "p(x)",
    axes: Axes | None = None,
) -> Figure:
    """Draw p(x) of anything with a ``log_prob``, on the line or in the plane, and the data on it when given.

    Data are what ``flowlab.tables`` takes, and the names of their columns are those of the axes. Where the two columns
    have very different ranges, each axis has its own.

    Raises:
        TypeError, ValueError: for data that are no table of finite numbers, and for more than two dimensions.
    """
    rows, names = (None, None) if data is None else rows_of(model, data)
    dimensions = rows.shape[1] if rows is not None else math.prod(getattr(model, "event_shape", (2,)))
    if dimensions not in (1, 2):
        raise ValueError(
            f"density expected one or two dimensions, but got {dimensions}. flowlab.plotting.pairs draws any two of "
            f"the columns."
        )
    if getattr(model, "context_features", 0):
        raise ValueError("density draws p(x), but this model has a context. flowlab.plotting.pairs takes context=.")
    if getattr(model, "stack", None) is not None:
        raise ValueError(f"density draws one density, but this model is a stack of {model.stack}.")
    if axes is None:
        axes = Figure(figsize=(4.2, 4.2) if dimensions == 2 else (5, 3), dpi=80, layout="constrained").subplots()
    if extent is None:
        extent = 4.0 if rows is None else _frame(rows)
    if dimensions == 1:
        left, right = _ends(extent)[:2]
        x = torch.linspace(left, right, 400, dtype=torch.float64)[:, None]
        tidy(axes, title, names[0] if names else "x", "p(x)")
        if rows is not None:
            axes.hist(rows[:, 0], 60, density=True, color=COLORS["data"], alpha=0.3, label="data")
        axes.plot(x[:, 0], _on_grid(model, x).exp(), color=COLORS["model"], lw=2, label="model")
        axes.legend(frameon=False, fontsize=8)
        return axes.figure
    points = plane(extent, size, torch.float64)
    p = _on_grid(model, points).exp().numpy()
    frame = (float(points[0, 0, 0]), float(points[0, -1, 0]), float(points[0, 0, 1]), float(points[-1, 0, 1]))
    square = math.isclose(frame[1] - frame[0], frame[3] - frame[2], rel_tol=1e-6)
    axes.imshow(
        p, origin="lower", extent=frame, cmap=DENSITY, vmin=0, vmax=_top(p), aspect="equal" if square else "auto"
    )
    if rows is not None:
        shown = rows[:: max(1, len(rows) // 1000)]
        axes.scatter(shown[:, 0], shown[:, 1], s=3, color=COLORS["data"], alpha=0.4, linewidths=0)
    tidy(axes, title, *(names or ("x₁", "x₂")))
    axes.set_xlim(frame[:2])
    axes.set_ylim(frame[2:])
    return axes.figure


def rows_of(model: Any, data: Any) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Rows ``(N, D)`` of float64 and the names of their columns, in the order that the model has them in.

    Raises TypeError where the first argument is no model, as when data come first.
    """
    if not callable(getattr(model, "log_prob", None)):
        raise TypeError(f"Expected a model first, such as a flow, and then data, but got a {type(model).__name__}.")
    known, table = getattr(model, "columns", None), as_rows(data, "the data")
    values = as_tensor(table, "the data", names=known)
    return as_float64(values).cpu().numpy(), known or table.names


def _on_grid(model: Any, points: Tensor) -> Tensor:
    """log p at float64 points, which a flow centers before it rounds: ``(...)`` on the CPU."""
    like = getattr(model, "anchor", torch.zeros(()))
    keeps = isinstance(model, Density) and like.device.type != "mps"
    points = points.to(like.device, torch.float64 if keeps else like.dtype)
    return as_float64(log_density(model, points)).cpu()


def training_curve(history: Any, *, truth: float | None = None, axes: Axes | None = None) -> Figure:
    """Loss in nats by step, validation beside it, and, where it is known, the loss of the exact density: the floor."""
    if axes is None:
        axes = Figure(figsize=(5.5, 3), dpi=80, layout="constrained").subplots()
    tidy(axes, "the fit, step by step", "step", "−log p(x), nats")
    loss = np.asarray(history.loss)
    width = max(1, len(loss) // 100)
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    axes.plot(np.arange(len(smooth)) + width // 2, smooth, color=COLORS["model"], lw=1.5, label="training")
    if history.validation:
        axes.plot(
            *zip(*history.validation.items(), strict=True), "o-", ms=3, color=COLORS["validation"], label="validation"
        )
    if truth is not None:
        axes.axhline(truth, color=COLORS["truth"], ls="--", lw=1, label="exact density")
    axes.legend(frameon=False, fontsize=8)
    return axes.figure


def _top(p: np.ndarray) -> float:
    """The darkest shade is a high density, but not the very highest: one spike should not make all else white."""
    top = np.nanmax(p, initial=0.0)
    positive = p[p > 1e-3 * top] if top > 0 else np.ones(1)
    return float(np.quantile(positive, 0.98))


def _frame(rows: np.ndarray) -> tuple[float, float, float, float]:
    """A frame around the data with a tenth to spare; square in the plane, unless one range is much the longer."""
    low, high = rows.min(0), rows.max(0)
    middle, spans = (low + high) / 2, high - low
    spans = np.where(spans > 0, spans, spans.max() or 1.0)
    half = 0.55 * (spans if spans.max() > 4 * spans.min() else np.full_like(spans, spans.max()))
    left, right, *rest = [float(end) for m, h in zip(middle, half, strict=True) for end in (m - h, m + h)]
    bottom, top = rest or (0.0, 1.0)
    return left, right, bottom, top


def _ends(extent: Any) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a frame; of one number the square around 0."""
    left, right, *rest = (-float(extent), float(extent)) * 2 if np.ndim(extent) == 0 else extent
    bottom, top = rest or (left, right)
    return left, right, bottom, top
