"""Coupling layers as pictures: triangular Jacobians, who depends on whom, and the area that additive layers keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import contourpy
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from flowlab.bijections import Chain, ScaleShift, partway
from flowlab.densities import Flow, StandardNormal
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.nice.toys import SCALINGS, dependencies, masks, random_couplings
from flowlab.plotting.plane import density, log_density, plane, warped_grid
from flowlab.plotting.style import COLORS, DENSITY, tidy

SIGNED = LinearSegmentedColormap.from_list("signed", ["#0072B2", "#FFFFFF", "#D55E00"])
# When a pair was filled: from the start (gray), by layer 1, 2, 3 (light to dark).
FILLED = ListedColormap(["#FFFFFF", "#D0D0D0", "#FBD9B5", "#F2A05E", "#D55E00", "#8A3500", "#6B2A00", "#401800"])


def level_set(log_p: Tensor, log_c: float, extent: float) -> tuple[list[np.ndarray], float]:
    """The outline of {p > c} on a square grid of log p from −extent to extent, and the area inside.

    The grid has an odd number of points a side. The area is NaN when the outline leaves the grid.
    """
    lines, area = _outline(log_p, log_c, extent)
    coarse = _outline(log_p[::2, ::2], log_c, extent)[1]
    return lines, (4 * area - coarse) / 3  # Richardson: the error of linear interpolation falls as the step squared


def _outline(log_p: Tensor, log_c: float, extent: float) -> tuple[list[np.ndarray], float]:
    line = np.linspace(-extent, extent, len(log_p))
    lines = contourpy.contour_generator(line, line, log_p.numpy().clip(-50)).lines(log_c)
    if not all(np.array_equal(p[0], p[-1]) for p in lines):
        return lines, math.nan
    # The high side lies on the left of each line, so a hole runs the other way round and counts as negative.
    return lines, sum(0.5 * float(np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1])) for p in lines)


DEEPEST = 6  # layers
COUNTED = 6  # dimensions of the dependency matrix
EXTENT, SIZE = 5.5, 111  # of the grid in the plane
_GRID = {"colors": COLORS["latent"], "linewidths": 0.5, "alpha": 0.6}


class AreaAndDependence(Picture):
    """An additive flow in the plane before and after, with {p > c} outlined; and in six dimensions, who sees whom.

    Left p_Z, middle p(x), each with the outline of its {p > c} and a grid whose cells have equal areas. Right, the
    dependency matrix of a flow of the same depth and the same kind of masks with D = 6; the number in a cell is the
    layer that filled it, and a dot beside a row says that this coordinate has been changed at all.
    """

    def __init__(self) -> None:
        super().__init__(10.0, 3.65)
        self.points = plane(EXTENT, SIZE)
        self.before, self.after, self.matrix = self.figure.subplots(1, 3)
        frame = (-EXTENT, EXTENT, -EXTENT, EXTENT)
        self.log_base = log_density(StandardNormal(2), self.points)
        tidy(self.before, "before: $p_Z(z)$\nand the outline of $\\{p_Z > c\\}$", "z₁", "z₂")
        tidy(self.after, "after the layers: $p(x)$\nand the outline of $\\{p > c\\}$", "x₁", "x₂")
        shade = {"origin": "lower", "extent": frame, "cmap": DENSITY, "vmin": 0, "vmax": 0.36}
        shade |= {"interpolation": "nearest", "aspect": "equal"}
        self.before.imshow(self.log_base.exp().numpy(), **shade)
        self.image = self.after.imshow(np.zeros((SIZE, SIZE)), **shade)
        self.before.add_collection(LineCollection(warped_grid(Chain([]), 3, 13, 2).numpy(), **_GRID))
        self.grid = self.after.add_collection(LineCollection([], **_GRID), autolim=False)
        outline = {"color": COLORS["data"], "lw": 2.2}
        self.outlines = [axes.plot([], [], **outline)[0] for axes in (self.before, self.after)]
        for axes in (self.before, self.after):
            axes.set(xlim=frame[:2], ylim=frame[2:])

        tidy(self.matrix, "in six dimensions: which layer\nmade $z_i$ depend on $x_j$", "input $x_j$", "output $z_i$")
        self.cells = self.matrix.imshow(np.zeros((COUNTED, COUNTED)), cmap=FILLED, vmin=0, vmax=7)
        at = range(COUNTED)
        self.matrix.set(xticks=at, yticks=at, xticklabels=[j + 1 for j in at], yticklabels=[i + 1 for i in at])
        self.matrix.set_xlim(-0.5, COUNTED + 0.8)
        edges = np.arange(COUNTED + 1) - 0.5
        self.matrix.hlines(edges, -0.5, COUNTED - 0.5, color="#BBBBBB", lw=0.8)
        self.matrix.vlines(edges, -0.5, COUNTED - 0.5, color="#BBBBBB", lw=0.8)
        beside = {"fontsize": 8, "ha": "left", "va": "center", "rotation": 270}
        self.matrix.text(COUNTED + 0.3, COUNTED / 2 - 0.5, "dot: changed at all", **beside)
        self.dots = self.matrix.plot([], [], "o", color="black", ms=6)[0]
        # Numerals as markers: one artist for each layer draws ten times faster than a text for each cell.
        ink = ["white" if layer > 2 else "black" for layer in range(DEEPEST + 1)]
        small = {"ls": "", "ms": 6, "mew": 0.3}
        self.numerals = [self.matrix.plot([], [], marker=f"${i}$", color=c, **small)[0] for i, c in enumerate(ink)]
        self.moves(self.image, self.grid, *self.outlines, self.cells, self.dots, *self.numerals)

    def update(
        self, depth: float, pattern: str, strength: float, seed: int, scaling: str, c: float, **_: Any
    ) -> dict[str, float | str]:
        share = depth % 1  # of the last coupling, where it is on its way
        depth = math.ceil(depth)
        couplings = list(_couplings(pattern, depth, seed, strength))
        if share:
            couplings[-1] = partway(couplings[-1], share)
        S = ScaleShift(2, shift=False).requires_grad_(False)
        S.log_scale.copy_(torch.tensor(SCALINGS[scaling]).log())
        flow = Flow(Chain([*couplings, S]), StandardNormal(2))
        log_p = log_density(flow, self.points)
        self.image.set_data(log_p.exp().numpy())
        self.grid.set_segments(warped_grid(flow.bijection, 3, 13, 60).numpy())
        areas = []
        for outline, values in zip(self.outlines, (self.log_base, log_p), strict=True):
            lines, area = level_set(values, math.log(c), EXTENT)
            broken = [row for line in lines for row in (line, [[np.nan, np.nan]])]
            outline.set_data(*(np.concatenate(broken).T if broken else ([], [])))
            areas.append(area)

        several = masks(pattern, COUNTED, depth)
        depends = dependencies(several) if depth else torch.eye(COUNTED, dtype=torch.bool)[None]
        filled_by = torch.where(depends[-1], (~depends).sum(0), -1)  # the first layer after which it depends
        self.cells.set_data((filled_by + 1).numpy())
        for layer, numeral in enumerate(self.numerals):
            i, j = (filled_by == layer).nonzero(as_tuple=True)
            numeral.set_data(j.numpy(), i.numpy())
        changed = (~torch.stack(several)).any(0) if depth else torch.zeros(COUNTED, dtype=torch.bool)
        self.dots.set_data(np.full(int(changed.sum()), COUNTED - 0.05), changed.nonzero().flatten().numpy())
        z, log_det = flow.bijection(self.points[::4, ::4])
        return {
            "area before": _shown(areas[0]),
            "area after": _shown(areas[1]),
            "log_det": round(float(log_det.mean()), 6) + 0.0,  # and no minus before a zero
            "mean distance from x to z": float((z - self.points[::4, ::4]).norm(dim=-1).mean()),
            "pairs that depend": f"{int(depends[-1].sum())} of {COUNTED**2}",
            "coordinates changed": f"{int(changed.sum())} of {COUNTED}",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"The set where p is above c has area {numbers['area before']} before the layers and "
            f"{numbers['area after']} after them, and log_det is {numbers['log_det']:.2f}. In six dimensions "
            f"{numbers['pairs that depend']} pairs of output and input depend on each other, and "
            f"{numbers['coordinates changed']} coordinates have been changed."
        )


def _shown(area: float) -> str:
    return "(the outline leaves the picture)" if math.isnan(area) else f"{area:.2f}"


@lru_cache(maxsize=32)
def _couplings(pattern: str, depth: int, seed: int, strength: float) -> Chain:
    return random_couplings(masks(pattern, 2, depth), strength=strength, seed=seed)


def matrices(named: dict[str, Tensor]) -> Figure:
    """Jacobians side by side, blue below 0 and vermilion above; an exact 0 is white, with a dot for a number."""
    figure = Figure(figsize=(3.2 * len(named), 3.5), dpi=90, layout="constrained")
    for axes, (title, J) in zip(figure.subplots(1, len(named), squeeze=False)[0], named.items(), strict=True):
        tidy(axes, title, "input $x_j$", "output $z_i$")
        axes.imshow(J.numpy(), cmap=SIGNED, vmin=-2, vmax=2)
        at = range(len(J))
        axes.set(xticks=at, yticks=at, xticklabels=[j + 1 for j in at], yticklabels=[i + 1 for i in at])
        for i in at:
            for j in at:
                entry = float(J[i, j])
                near = f"{entry:.2f}" if abs(entry) >= 0.01 else f"{entry:.0e}".replace("e-0", "e-")
                shown = "·" if entry == 0 else "1" if entry == 1 else near
                axes.text(j, i, shown, ha="center", va="center", fontsize=9)
    return figure


def filling(rows: dict[str, Sequence[Tensor]]) -> Figure:
    """The dependency matrix after each layer, a row for each list of masks; a cell names the layer that filled it."""
    layers = max(len(several) for several in rows.values())
    figure = Figure(figsize=(1.7 * (layers + 1), 2.35 * len(rows)), dpi=80, layout="constrained")
    strips = np.ravel(figure.subfigures(len(rows), 1))
    for strip, (name, several) in zip(strips, rows.items(), strict=True):
        strip.suptitle(name, fontsize=10, fontweight="bold")
        depends = dependencies(several)
        D = depends.shape[-1]
        for layer, axes in enumerate(strip.subplots(1, layers + 1)):
            filled_by = torch.where(depends[layer], (~depends[: layer + 1]).sum(0), -1)
            tidy(axes, f"after {layer}: {int(depends[layer].sum())} of {D * D}", "$x_j$", "" if layer else "$z_i$")
            axes.imshow((filled_by + 1).numpy(), cmap=FILLED, vmin=0, vmax=7)
            axes.set(xticks=[], yticks=[])
            for i, j in depends[layer].nonzero().tolist():
                color = "white" if filled_by[i, j] > 2 else "black"
                axes.text(j, i, int(filled_by[i, j]), ha="center", va="center", fontsize=7, color=color)
    return figure


def side_by_side(models: dict[str, Any], data: Any = None, *, extent: float = 2.2) -> Figure:
    """Densities of several models in one row, on one frame and one scale of darkness."""
    figure = Figure(figsize=(3.3 * len(models), 3.4), dpi=80, layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, (title, model) in zip(panels, models.items(), strict=True):
        density(model, extent=extent, size=160, title=title, axes=axes)
    for axes in panels[1:]:
        axes.images[0].set_clim(panels[0].images[0].get_clim())
    if data is not None:
        panels[0].scatter(*np.asarray(data)[:400].T, s=3, color=COLORS["data"], alpha=0.5, linewidths=0)
    return figure


def spectrum(named: dict[str, Tensor], truth: Tensor) -> Figure:
    """Sizes of variation in falling order, on a log scale: 1/S of several flows, and the truth dashed."""
    figure = Figure(figsize=(5.6, 3.2), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), "how much each latent dimension varies", "rank", "1/S (log scale)")
    rank = np.arange(1, len(truth) + 1)
    axes.plot(rank, truth.sort(descending=True).values, "k--", lw=1.5, label="true deviations of the data")
    styles = zip("os^DvP", ("latent", "muted", "data", "validation", "model", "accent"), strict=True)
    for (name, sizes), (marker, color) in zip(named.items(), styles, strict=False):
        sizes = sizes.sort(descending=True).values
        axes.plot(rank, sizes, marker + "-", ms=5, lw=1, color=COLORS[color], label=name)
    axes.set_yscale("log")
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
    axes.yaxis.set_minor_formatter("")
    axes.set_ylim(0.8 * float(truth.min()), 1.25 * float(truth.max()))
    axes.legend(frameon=False, fontsize=8)
    return figure


def priors(named: dict[str, Any], reach: float = 6.0) -> Figure:
    """log p_Z of one-dimensional base densities, and its slope: the pull that a point at z has on the training."""
    figure = Figure(figsize=(8.4, 3.0), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    tidy(left, "tails: $\\log p_Z(z)$", "z", "nats")
    tidy(right, "pull: the slope of $\\log p_Z(z)$", "z", "nats per unit of z")
    z = torch.linspace(-reach, reach, 301)[:, None].requires_grad_()
    styles = zip(("latent", "model"), ("-", "--"), strict=True)
    for (name, prior), (color, dash) in zip(named.items(), styles, strict=True):
        log_p = prior.log_prob(z)
        slope = torch.autograd.grad(log_p.sum(), z)[0]
        for axes, values in ((left, log_p), (right, slope)):
            axes.plot(z.detach(), values.detach(), dash, color=COLORS[color], lw=2, label=name)
    left.legend(frameon=False, fontsize=8)
    return figure
