"""A figure in words: what a reader who does not see it is told."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.container import BarContainer
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.quiver import Quiver

MOST = 5  # curves, levels and remarks that are named one by one; of more, only the number is told


def describe(figure: Figure) -> str:
    """The panels of a figure, each with its axes, its curves from end to end, its points, shadings and remarks.

    What an author says with ``figure.set_label("...")`` is better, and stands in its place.
    """
    if figure.get_label():
        return _sentence(_plain(str(figure.get_label())))
    panels = [words for axes in figure.axes if axes.get_visible() and (words := _panel(axes))]
    if len(panels) > 1:
        panels = [f"Panel {number} of {len(panels)}: {words}" for number, words in enumerate(panels, start=1)]
    opening = [_plain(figure.get_suptitle())] if figure.get_suptitle() else []
    return " ".join(_sentence(words) for words in opening + panels) or "An empty figure."


def _panel(axes: Axes) -> str:
    """One panel in words; empty when nothing is drawn in it."""
    shown = [*_shadings(axes), *_curves(axes), *_points(axes), *_bars(axes), *_remarks(axes)]
    if not shown:
        return ""
    title = " ".join(filter(None, (axes.get_title(loc=place) for place in ("left", "center", "right"))))
    limits = []
    if axes.axison:
        for name, (low, high) in ((axes.get_xlabel(), axes.get_xlim()), (axes.get_ylabel(), axes.get_ylim())):
            limits += [f"{_plain(name)} from {low:.3g} to {high:.3g}"] if name else []
    return "; ".join(filter(None, [_plain(title), *limits, *shown]))


def _shadings(axes: Axes) -> list[str]:
    words = []
    for image in axes.images:
        values = _heights(image.get_array())
        rows, columns = values.shape[:2]
        if rows * columns <= 200:
            words.append(f"a grid of {rows} by {columns} cells")
        elif axes.axison and values.ndim == 2:
            left, right, bottom, top = image.get_extent()
            row, column = np.unravel_index(values.argmax(), values.shape)
            row = rows - 1 - row if image.origin == "upper" else row
            x, y = left + (right - left) * (column + 0.5) / columns, bottom + (top - bottom) * (row + 0.5) / rows
            words.append(f"a shading, strongest near ({x:.2g}, {y:.2g})")
        else:
            words.append(f"an image of {rows} by {columns} pixels")
    for collection in axes.collections:
        if isinstance(collection, QuadMesh):
            values, corners = _heights(collection.get_array()), collection.get_coordinates()
            places = corners if corners[..., 0].size == values.size else (corners[1:, 1:] + corners[:-1, :-1]) / 2
            if places[..., 0].size == values.size:
                x, y = places.reshape(-1, 2)[values.argmax()]
                words.append(f"a shading, strongest near ({x:.2g}, {y:.2g})")
            else:
                words.append("a shading in several colors")
        elif isinstance(collection, ContourSet):
            words.append("level lines")
        elif isinstance(collection, PolyCollection):
            label = _name(collection)
            words.append(f"a filled area, {label}" if label else "a filled area")
    return _few(words)


def _heights(values: Any) -> np.ndarray:
    """The values behind a shading, with nothing where there is none."""
    heights = np.ma.filled(np.ma.asarray(values).astype(float), -np.inf)
    return np.where(np.isnan(heights), -np.inf, heights)


def _curves(axes: Axes) -> list[str]:
    named = [line for line in axes.lines if line.get_visible() and _name(line)]
    others = sum(line.get_visible() and not _name(line) for line in axes.lines)
    words = [_curve(line) for line in named[:MOST]]
    more = len(named) - MOST
    words += [f"{more} more named curves"] if more > 0 else []
    words += [f"{others} line{'s' * (others > 1)} without a name"] if others else []
    segments = sum(len(c.get_segments()) for c in axes.collections if isinstance(c, LineCollection))
    return words + ([f"{segments} drawn strokes"] if segments else [])


def _curve(line: Line2D) -> str:
    """A curve's name and its course: where it starts, its extremes on the way, where it ends."""
    x, y = (np.atleast_1d(np.asarray(values, float)) for values in line.get_data(orig=False))
    x, y = x[np.isfinite(x) & np.isfinite(y)], y[np.isfinite(x) & np.isfinite(y)]
    name = _name(line)
    if not len(y):
        return name
    if line.get_linestyle() in ("None", "", " "):
        return f"{name}: {_count(len(y), 'point')}"
    if np.ptp(y) == 0:
        return f"{name}: level at {y[0]:.3g}"
    if np.ptp(x) == 0:
        return f"{name}: upright at {x[0]:.3g}"
    low, high = y.argmin(), y.argmax()
    x, y = (np.where(np.abs(values) < 1e-3 * np.ptp(values), 0, values) for values in (x, y))
    course = [f"{name}: from {y[0]:.3g} to {y[-1]:.3g}"]
    course += [f"lowest {y[low]:.3g} at {x[low]:.3g}"] if y[low] < min(y[0], y[-1]) else []
    course += [f"highest {y[high]:.3g} at {x[high]:.3g}"] if y[high] > max(y[0], y[-1]) else []
    return ", ".join(course)


def _points(axes: Axes) -> list[str]:
    words = []
    for collection in axes.collections:
        number = len(collection.get_offsets()) if isinstance(collection, PathCollection | Quiver) else 0
        if number:
            what = _count(number, "arrow" if isinstance(collection, Quiver) else "point")
            words.append(f"{what}, {_name(collection)}" if _name(collection) else what)
    return _few(words)


def _bars(axes: Axes) -> list[str]:
    outlines = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    words = [", ".join(filter(None, ("a histogram", _name(outline)))) for outline in outlines]
    inside = {id(bar) for bars in axes.containers if isinstance(bars, BarContainer) for bar in bars}
    shapes = [patch for patch in axes.patches if not isinstance(patch, StepPatch) and id(patch) not in inside]
    words += sorted({_name(shape) for shape in shapes} - {""})
    without = sum(not _name(shape) for shape in shapes)
    words += [_count(without, "shape")] if without else []
    for bars in axes.containers:
        if isinstance(bars, BarContainer) and len(bars):
            heights = np.array([bar.get_height() for bar in bars])
            label = "" if str(bars.get_label()).startswith("_") else f", {_plain(str(bars.get_label()))}"
            words.append(f"{_count(len(bars), 'bar')}{label}, the tallest {heights.max():.3g} high")
    return _few(words)


def _remarks(axes: Axes) -> list[str]:
    texts = [_plain(text.get_text()) for text in axes.texts if text.get_visible() and text.get_text().strip()]
    if len(texts) > MOST:
        return [f"{len(texts)} short labels, such as {texts[0]!r}"]
    return [f"the remark {text!r}" for text in texts]


def _few(words: list[str]) -> list[str]:
    more = len(words) - MOST
    return words if more <= 0 else [*words[:MOST], f"and {more} more of the kind"]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _name(artist: object) -> str:
    """The label of an artist, which matplotlib starts with an underscore where nobody gave one."""
    label = str(artist.get_label() or "")
    return "" if label.startswith("_") else _plain(label)


def _plain(text: str) -> str:
    """Text without line breaks and without the signs of TeX."""
    return " ".join(re.sub(r"[${}\\]", "", text).split())


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."
