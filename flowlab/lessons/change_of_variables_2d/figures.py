"""Change of variables in the plane, as pictures: a square under a matrix, a cell under a bent map, what areas do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.change_of_variables_2d.toys import PLANAR_MAPS, mean_over_cell, signed_area
from flowlab.plotting.plane import grid_lines, jacobians
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, COMPONENT_MARKERS, DENSITY, tidy

COLUMN_COLORS = (COLORS["data"], COLORS["validation"])  # what the first and the second unit vector become
LETTER = np.array(  # an F: it tells a picture from its mirror image
    [[0.3, 0.2], [0.3, 0.8], [0.7, 0.8], [np.nan, np.nan], [0.3, 0.5], [0.58, 0.5]]
)
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
SIDE = np.linspace(0, 1, 40, endpoint=False)[:, None]
EDGE = (SQUARE[:-1, None] + SIDE * np.diff(SQUARE, axis=0)[:, None]).reshape(-1, 2) - 0.5  # many points around it


class SquareUnderMatrix(Picture):
    """Left, the unit square; right, the parallelogram that A makes of it. The same ink in both: it thins as it spreads.

    ``shear`` slides the tip of a₂ along a₁, which changes the shape and not the area.
    """

    def __init__(self) -> None:
        super().__init__(9.0, 4.6)
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(2.2, 7))
        for axes, low, high in ((self.left, -0.6, 1.6), (self.right, -3.5, 3.5)):
            axes.set_aspect("equal")
            axes.set_xlim(low, high)
            axes.set_ylim(-2.5, 2.5)
            axes.axhline(0, color="#DDDDDD", lw=0.8, zorder=0)
            axes.axvline(0, color="#DDDDDD", lw=0.8, zorder=0)
        tidy(self.left, "before: area 1", "x₁", "x₂").set_xticks([0, 1])
        tidy(self.right, "after: z = A x", "z₁", "z₂")
        self.left.fill(*SQUARE.T, color=DENSITY(0.5))
        self.left.plot(*LETTER.T, color="black", lw=3, solid_capstyle="round")
        for end, color, marker in zip(np.eye(2), COLUMN_COLORS, "os", strict=True):
            self.left.plot(*np.stack((np.zeros(2), end)).T, color=color, marker=marker, markevery=[1], lw=2.5)
        self.track = self.right.plot([], [], color=COLORS["muted"], lw=1, ls=":", zorder=1)[0]
        self.ghost = self.right.plot([], [], color=COLORS["muted"], lw=1, zorder=1)[0]
        self.shape = self.right.fill(*SQUARE.T, ec="black", lw=0.8, zorder=2)[0]
        self.letter = self.right.plot([], [], color="black", lw=3, solid_capstyle="round", zorder=3)[0]
        self.columns = [
            self.right.plot([], [], color=color, marker=marker, markevery=[1], ms=9, lw=2.5, zorder=4)[0]
            for color, marker in zip(COLUMN_COLORS, "os", strict=True)
        ]
        self.names = [
            self.right.text(0, 0, name, color=color, fontsize=11, ha="center", va="center", zorder=5)
            for name, color in zip(("a₁", "a₂"), COLUMN_COLORS, strict=True)
        ]
        self.handle = self.right.plot([], [], "D", color=COLORS["accent"], mec="black", ms=9, zorder=6)[0]
        self.verdict = self.right.text(-3.4, 2.25, "", fontsize=11)
        self.moves(
            self.track, self.ghost, self.shape, self.letter, *self.columns, *self.names, self.handle, self.verdict
        )

    def update(self, a11: float, a21: float, a12: float, a22: float, shear: float, **_: Any) -> dict[str, float | str]:
        first, second = np.array([a11, a21]), np.array([a12, a22])
        A = np.stack((first, second + shear * first), axis=1)
        det = float(np.linalg.det(A))
        collapsed = abs(det) < 1e-9
        self.ghost.set_data(*np.stack((first, first + second, second, 0 * first)).T)
        self.track.set_data(*np.stack((second - 4 * first, second + 5 * first)).T)
        corners = SQUARE @ A.T
        self.shape.set_xy(corners)
        density = np.inf if collapsed else 1 / abs(det)
        self.shape.set_facecolor(DENSITY(1.0 if collapsed else density / (1 + density)))
        self.letter.set_data(*(LETTER @ A.T).T)
        for column, name, end in zip(self.columns, self.names, A.T, strict=True):
            column.set_data(*np.stack((np.zeros(2), end)).T)
            name.set_position(end + 0.25 * end / max(np.hypot(*end), 1e-9))
        self.handle.set_data(*(A[:, 1:] + 0.5 * A[:, :1]))
        side = "collapsed: no way back" if collapsed else "mirrored" if det < 0 else "not mirrored"
        self.verdict.set_text(f"area {abs(signed_area(corners[:-1])):.2f},  det {det:.2f}:  {side}".replace("-", "−"))
        return {
            "det A": det,
            "area of the parallelogram": abs(signed_area(corners[:-1])),
            "log |det A|": float("-inf") if collapsed else float(np.log(abs(det))),
            "density inside, if 1 before": density,
            "orientation": side,
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"The unit square has become a parallelogram of area {numbers['area of the parallelogram']:.2f}; "
            f"the determinant is {numbers['det A']:.2f}: {numbers['orientation']}."
        )


class CellUnderMap(Picture):
    """Left, a square cell of side h; middle, a bent map of the plane; right, the cell's image magnified 1/h times.

    The right panel is in units of h, so the parallelogram of the Jacobian keeps its size there while h shrinks, and
    the image of the cell, whatever it looked like, comes to lie on it.
    """

    def __init__(self) -> None:
        super().__init__(9.6, 3.4)
        self.left, self.middle, self.right = self.figure.subplots(1, 3)
        for axes, extent in ((self.left, 2.1), (self.middle, 3.2), (self.right, 2.0)):
            axes.set_aspect("equal")
            axes.set_xlim(-extent, extent)
            axes.set_ylim(-extent, extent)
        tidy(self.left, "x: a cell of side h", "x₁", "x₂")
        tidy(self.middle, "", "z₁", "z₂")
        tidy(self.right, "z, magnified 1/h times", "(z₁ − f₁)/h", "(z₂ − f₂)/h")
        self.grid = grid_lines(2.0, lines=17, points=61).double()
        self.left.add_collection(LineCollection(self.grid.numpy(), colors="#CCCCCC", linewidths=0.6))
        self.right.plot(*(SQUARE - 0.5).T, color=COLORS["muted"], lw=1, ls=":", label="the cell itself")
        self.bent = LineCollection([], colors="#BBBBBB", linewidths=0.6)
        self.middle.add_collection(self.bent)
        self.cell = self.left.fill(*SQUARE.T, fc=COLORS["data"], alpha=0.5, ec=COLORS["data"])[0]
        self.spot = self.left.plot([], [], "o", color=COLORS["data"], ms=4)[0]
        self.image = self.middle.fill(*SQUARE.T, fc=COLORS["latent"], alpha=0.5, ec=COLORS["latent"])[0]
        self.image_spot = self.middle.plot([], [], "o", color=COLORS["latent"], ms=4)[0]
        self.magnified = self.right.fill(*SQUARE.T, fc=COLORS["latent"], alpha=0.45, label="its image")[0]
        self.parallelogram = self.right.plot([], [], color="black", lw=1.5, ls="--", label="parallelogram of J")[0]
        self.columns = [
            self.right.plot([], [], color=color, marker=marker, markevery=[1], ms=6, lw=2)[0]
            for color, marker in zip(COLUMN_COLORS, "os", strict=True)
        ]
        self.right.legend(frameon=False, fontsize=7, loc="lower right")
        self.moves(self.middle.title, self.bent, self.cell, self.spot, self.image, self.image_spot)
        self.moves(self.magnified, self.parallelogram, *self.columns)

    def update(self, map: str, strength: float, x1: float, x2: float, h: float, **_: Any) -> dict[str, float | str]:
        formula, value = PLANAR_MAPS[map]

        def f(x: Tensor) -> Tensor:
            return value(x, strength)

        center = np.array([x1, x2])
        edge = center + h * EDGE  # (n, 2)
        image = f(torch.from_numpy(edge)).numpy()
        z = f(torch.from_numpy(center)).numpy()
        J = jacobians(f, torch.from_numpy(center)).numpy()
        corners = (SQUARE - 0.5) @ J.T
        self.middle.set_title(formula, fontsize=10)
        self.bent.set_segments(f(self.grid).numpy())
        self.cell.set_xy(edge)
        self.spot.set_data(center[:1], center[1:])
        self.image.set_xy(image)
        self.image_spot.set_data(z[:1], z[1:])
        self.magnified.set_xy((image - z) / h)
        self.parallelogram.set_data(*corners.T)
        for column, end in zip(self.columns, corners[[1, 3]], strict=True):
            column.set_data(*np.stack((corners[0], end)).T)
        ratio, local = abs(signed_area(image)) / h**2, float(abs(np.linalg.det(J)))
        return {
            "area of its image / h²": ratio,
            "mean |det J| over the cell": mean_over_cell(lambda x: jacobians(f, x).det().abs(), center, h),
            "|det J| at its center": local,
            "area ratio and |det J| differ by": f"{100 * abs(ratio - local) / local:.2f} %" if local > 1e-9 else "—",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        ratio, local = numbers["area of its image / h²"], numbers["|det J| at its center"]
        return (
            f"The cell's image has {ratio:.3f} times its area; the parallelogram of the Jacobian at its center has "
            f"{local:.3f} times."
        )


def region_and_image(f: Callable[[Tensor], Tensor], edge: Tensor, points: Tensor) -> Figure:
    """A region B, shaded by |det J|, beside its image f(B): ``edge`` is the closed border, ``points`` lie inside."""
    figure = Figure(figsize=(8, 3.6), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    stretch = jacobians(f, points).det().abs()
    for axes, inside, border, title, letter in (
        (left, points, edge, "B", "x"),
        (right, f(points), f(edge), "its image f(B)", "z"),
    ):
        tidy(axes, title, f"{letter}₁", f"{letter}₂")
        axes.set_aspect("equal")
        dots = axes.scatter(*inside.T, c=stretch, s=9, cmap="viridis", linewidths=0)
        axes.plot(*border.T, color="black", lw=1.5)
    figure.colorbar(dots, ax=[left, right], label="|det J(x)|", shrink=0.8)
    return figure


def affine_image(
    before: Tensor, after: Tensor, ellipses: dict[str, tuple[Tensor, Tensor]], labels: list[str]
) -> Figure:
    """Points before and after an affine map, and one-, two- and three-deviation ellipses of claimed Gaussians after it.

    ``ellipses`` holds (mean, covariance) by name, at most two; ``labels`` names the four axes.
    """
    figure = Figure(figsize=(9, 3.6), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    tidy(left, "z", *labels[:2])
    tidy(right, "x = A z + b", *labels[2:])
    left.scatter(*before.T, s=4, color=COLORS["latent"], alpha=0.4, linewidths=0)
    right.scatter(*after.T, s=4, color=COLORS["data"], alpha=0.4, linewidths=0)
    t = torch.linspace(0, 2 * np.pi, 100, dtype=before.dtype)
    circle = torch.stack((t.cos(), t.sin()))
    for (name, (mean, covariance)), style, color in zip(
        ellipses.items(), ("-", "--"), (COLORS["model"], "black"), strict=False
    ):
        for radius in (1, 2, 3):
            line = mean[:, None] + radius * torch.linalg.cholesky(covariance) @ circle
            right.plot(*line, color=color, ls=style, lw=1.5, label=name if radius == 1 else None)
    right.legend(frameon=False, fontsize=8)
    return figure


def quadrants(x: Tensor, images: dict[str, Tensor]) -> Figure:
    """Points x and what maps make of them, z by name, colored and marked by the quadrant that they come from."""
    names = ("both ≥ 0", "x₁ < 0", "both < 0", "x₂ < 0")
    right, up = x[:, 0] >= 0, x[:, 1] >= 0
    parts = (right & up, ~right & up, ~right & ~up, right & ~up)
    figure = Figure(figsize=(2.4 * len(images) + 2.4, 2.9), dpi=80, layout="constrained")
    panels = [("before", "x", x), *((title, "z", z) for title, z in images.items())]
    for axes, (title, letter, points) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        tidy(axes, title, f"{letter}₁", f"{letter}₂")
        for part, name, color, marker in zip(parts, names, COMPONENT_COLORS, COMPONENT_MARKERS, strict=False):
            axes.scatter(*points[part].T, s=7, color=color, marker=marker, alpha=0.6, linewidths=0, label=name)
        axes.axhline(0, color="#DDDDDD", lw=0.8, zorder=0)
        axes.axvline(0, color="#DDDDDD", lw=0.8, zorder=0)
        axes.set_aspect("equal", adjustable="datalim")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8, markerscale=1.5)
    return figure


def costs(dimensions: list[int], seconds: dict[str, list[float]]) -> Figure:
    """Time against dimension on two logarithmic axes: a power law is a straight line, and its slope is the power."""
    axes = Figure(figsize=(5.5, 3.4), dpi=80, layout="constrained").subplots()
    tidy(axes, "one log-determinant", "dimension D", "microseconds")
    for (name, times), color, marker in zip(
        seconds.items(), (COLORS["model"], COLORS["latent"], COLORS["accent"]), "os^", strict=False
    ):
        axes.loglog(dimensions, 1e6 * np.asarray(times), color=color, marker=marker, ms=4, label=name)
    steepest = max(times[-1] for times in seconds.values())
    D = np.array([dimensions[-1] / 8, dimensions[-1]])
    axes.loglog(D, 1e6 * steepest * (D / D[-1]) ** 3, color="black", ls="--", lw=1, label="slope 3: D³")
    axes.legend(frameon=False, fontsize=8)
    return axes.figure
