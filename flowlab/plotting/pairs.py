"""Every pair of columns in a grid: the data below the diagonal, samples of a density above it, margins on it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter1d
from torch import Generator

from flowlab.densities import evaluating
from flowlab.plotting.plane import rows_of
from flowlab.plotting.style import COLORS, tidy
from flowlab.tables import as_float64, as_tensor

MOST = 8  # columns that are drawn if nobody chooses
SHOWN = 1000  # points in a panel
DRAWN = 20_000  # samples, for smooth margins
LETTERS = 18  # of a name: more do not fit beside a panel
BINS = 400  # in which they are counted before they are smoothed


def pairs(
    model: Any,
    data: Any,
    *,
    columns: Sequence[int | str] | None = None,
    context: Any = None,
    seed: int = 0,
) -> Figure:
    """Draw each pair of columns of ``data`` ``(N, D)``, and of samples of ``model``, mirrored at the diagonal.

    On the diagonal stand a histogram of each column and the density of the model's margin there, smoothed from 20,000
    samples. A frame holds the middle 99 % of a column and half of that on each side, as far as data reach.

    Args:
        columns: names or numbers of the columns to draw, in this order; the first eight if left out.
        context: ``(N, C)``, one for each row of data, for a conditional model: its samples are for these contexts.
        seed: of the samples, and of which rows are shown.

    Raises:
        TypeError, ValueError: for data that are no table of finite numbers, or of another width than the model; for
            columns that are not there; for a conditional model without contexts.
    """
    x, known = rows_of(model, data)
    N, D = x.shape
    if model.features != D:
        raise ValueError(f"pairs expected data of {model.features} columns, as the model has, but got {D}.")
    names = known or tuple(f"column {i}" for i in range(D))
    if isinstance(columns, (str, Integral)):
        raise TypeError(f"pairs expected columns as a list, [{columns!r}], but got {columns!r}.")
    chosen = list(range(min(D, MOST))) if columns is None else [_number(column, names) for column in columns]
    if not chosen:
        raise ValueError("pairs expected at least one column to draw, but got none.")
    generator = Generator().manual_seed(seed)
    rows = torch.randperm(N, generator=generator)[:SHOWN].numpy()
    z = _samples(model, context, N, generator)
    z = z[np.isfinite(z).all(1)]

    side = len(chosen)
    short = [name if len(name) <= LETTERS else name[: LETTERS - 1] + "…" for name in names]
    size = max(4.0, 1.45 * side + 0.8)
    figure = Figure(figsize=(size, size), dpi=100, layout="constrained")
    grid = figure.subplots(side, side, squeeze=False)
    frames = [_frame(x[:, i]) for i in chosen]
    for a, i in enumerate(chosen):
        for b, j in enumerate(chosen):
            axes = tidy(grid[a, b], "", short[j] if a == side - 1 else "", short[i] if b == 0 else "")
            if a == b:
                _margin(axes, x[:, i], z[:, i], frames[a])
            else:
                points, color, marker = (x[rows], "data", "o") if a > b else (z[:SHOWN], "model", "^")
                axes.scatter(
                    points[:, j], points[:, i], s=5, marker=marker, color=COLORS[color], alpha=0.4, linewidths=0
                )
                axes.set_ylim(frames[a])
            axes.set_xlim(frames[b])
            _few_ticks(axes, bottom=a == side - 1, left=b == 0 and a != b)
    words = [
        "Below the diagonal: data ●. Above it, mirrored: samples of the model ▲. They should look alike.",
        "On the diagonal: histogram of the data, and the model's margin (line).",
    ]
    if side < D and columns is None:
        words.append(f"The first {side} of {D} columns: choose others by columns=[{', '.join(map(repr, names[-2:]))}].")
    figure.suptitle("\n".join(textwrap.fill(line, int(12 * size)) for line in words), fontsize=9)
    figure.set_label(f"{side} by {side} panels for {', '.join(names[i] for i in chosen)}. {' '.join(words)}")
    return figure


def _samples(model: Any, context: Any, N: int, generator: Generator) -> np.ndarray:
    """Samples ``(n, D)``: of a conditional model, as many for each context."""
    with evaluating(model):
        if context is None:
            if getattr(model, "context_features", 0):
                raise ValueError(
                    "pairs expected context=, one for each row of data, but got none, and this model has one."
                )
            z = model.sample(DRAWN, generator)
        else:
            c = as_tensor(context, "the context", names=getattr(model, "context_columns", None))
            if c.ndim == 0 or len(c) != N:
                raise ValueError(f"pairs expected a context for each of {N} rows, but got the shape {tuple(c.shape)}.")
            z = model.sample(max(1, DRAWN // N), generator, context=c[torch.randperm(N, generator=generator)])
    return as_float64(z.reshape(-1, z.shape[-1])).cpu().numpy()


def _number(column: int | str, names: Sequence[str]) -> int:
    """Which column this is, by its name or its number."""
    if column in names:
        return list(names).index(str(column))
    if isinstance(column, (int, np.integer)) and -len(names) <= column < len(names):
        return int(column) % len(names)
    raise ValueError(
        f"pairs expected columns among {', '.join(map(repr, names))} or their numbers, but got {column!r}."
    )


def _frame(values: np.ndarray) -> tuple[float, float]:
    """The middle 99 % and half of that on each side, but no farther than a little beyond the data."""
    low, high = np.quantile(values, (0.005, 0.995))
    reach, all_of_it = 0.5 * (high - low), np.ptp(values)
    low, high = max(low - reach, values.min() - 0.1 * all_of_it), min(high + reach, values.max() + 0.1 * all_of_it)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def _margin(axes: Axes, x: np.ndarray, z: np.ndarray, frame: tuple[float, float]) -> None:
    axes.hist(x, 30, range=frame, weights=_shares(x, frame, 30), color=COLORS["data"], alpha=0.4)
    edges = np.linspace(*frame, BINS + 1)
    counts = np.histogram(z, edges)[0] / max(len(z), 1) * BINS / (frame[1] - frame[0])
    quarter, three = np.quantile(z, (0.25, 0.75))
    width = 1.06 * (three - quarter) / 1.349 * len(z) ** -0.2  # the bandwidth that suits a Gaussian
    p = gaussian_filter1d(counts, width / (edges[1] - edges[0]), mode="nearest")
    axes.plot((edges[1:] + edges[:-1]) / 2, p, color=COLORS["model"], lw=1.8)
    axes.set_ylim(bottom=0)


def _shares(x: np.ndarray, frame: tuple[float, float], bins: int) -> np.ndarray:
    """What each value adds to a histogram that is a density of all of them, of those outside the frame too."""
    return np.full(len(x), bins / (frame[1] - frame[0]) / len(x))


def _few_ticks(axes: Axes, *, bottom: bool, left: bool) -> None:
    """Three or four numbers on the outer axes of the grid, none inside."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelbottom=bottom, labelleft=left, left=left, bottom=bottom, labelsize=8)
    for shown, axis in ((bottom, axes.xaxis), (left, axes.yaxis)):
        axis.get_offset_text().set(visible=shown, fontsize=8)
