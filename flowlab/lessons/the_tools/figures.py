"""Sets and their sizes, a measure that is pushed forward, a descent on contours, and a network that bends."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.the_tools.toys import MOST, best, loss, path, points
from flowlab.plotting.style import COLORS, DENSITY, tidy

W, B = (-1.5, 4.0), (-3.0, 2.5)  # the frame of the contours


def two_measures() -> Figure:
    """Left, two dice by counting; right, N(0, 0.1²) by length: a probability is a sum of heights, or an area."""
    figure = Figure(figsize=(9.4, 3.2), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    total = np.arange(2, 13)
    p = (6 - np.abs(total - 7)) / 36
    tidy(left, "sum of two dice: P(A) is a sum of heights", "k", "p(k), probability")
    inside = total >= 10
    for chosen, color, hatch, name in ((~inside, "data", "", "p(k)"), (inside, "model", "//", "A: k ≥ 10, 1/6 in all")):
        left.bar(total[chosen], p[chosen], color=COLORS[color], hatch=hatch, edgecolor="white", width=0.6, label=name)
    x = np.linspace(-0.4, 0.4, 401)
    q = np.exp(-0.5 * (x / 0.1) ** 2) / (0.1 * np.sqrt(2 * np.pi))
    tidy(right, "N(0, 0.1²): P(A) is an area", "x", "p(x), for each unit of x")
    right.plot(x, q, color=COLORS["data"], lw=2, label="p(x)")
    part = x >= 0.1
    right.fill_between(x[part], q[part], color=COLORS["model"], alpha=0.5, hatch="//", label="A: x ≥ 0.1, 0.159 in all")
    right.axhline(1, color=COLORS["muted"], ls="--", lw=1)
    right.text(-0.39, 1.07, "height 1", fontsize=9)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=9, loc="upper left")
    left.set_ylim(0, 0.24)
    right.set_ylim(0, 5.6)
    return figure


def pushed(x: Tensor, y: Tensor, low: float, high: float) -> Figure:
    """Draws x and what a map makes of them, y, with the draws marked that land in B = [low, high]."""
    figure = Figure(figsize=(9.4, 3.0), dpi=80, layout="constrained")
    inside = (y >= low) & (y <= high)
    for axes, values, letter, title in zip(
        figure.subplots(1, 2), (x, y), "xy", ("x, and the part that lands in B", "y = f(x), and B"), strict=True
    ):
        tidy(axes, title, letter, "number of draws")
        edges = np.linspace(float(values.min()), float(values.max()), 71)
        axes.hist(values.numpy(), edges, color=COLORS["data"], alpha=0.45, label="all draws")
        axes.hist(values[inside].numpy(), edges, color=COLORS["model"], hatch="//", label="those with f(x) in B")
        axes.set_ylim(0, 1.35 * axes.get_ylim()[1])  # the legend stands above the bars
        axes.legend(frameon=False, fontsize=9, loc="upper right")
    return figure


class DescentOnContours(Picture):
    """Left, the loss of all lines y = w u + b with the path of a descent; right, the points and the line of now."""

    def __init__(self) -> None:
        super().__init__(10.0, 4.2)
        self.contours, self.line_axes = self.figure.subplots(1, 2)
        w, b = np.meshgrid(np.linspace(*W, 120), np.linspace(*B, 120))
        tidy(self.contours, "the loss of each line: darker is lower", "w", "b").set(xlim=W, ylim=B)
        levels = [0.15, 0.3, 0.6, 1.2, 2.5, 5, 10, 20, 40]
        height = loss(w, b)
        self.contours.contourf(w, b, np.log(height), np.log([0.1, *levels, 200]), cmap=DENSITY.reversed(), alpha=0.55)
        self.contours.plot(*best(), "*", ms=15, color=COLORS["truth"], label="the lowest place")
        self.way = self.contours.plot([], [], "o-", ms=4, lw=1.5, color=COLORS["data"], label="the descent")[0]
        self.start = self.contours.plot([], [], "s", ms=9, color=COLORS["latent"], mec="black", label="start")[0]
        self.here = self.contours.plot([], [], "D", ms=9, color=COLORS["accent"], mec="black", label="now")[0]
        self.contours.legend(frameon=True, fontsize=9, loc="lower right")
        u, y = points()
        tidy(self.line_axes, "the points, and the line of now", "u", "y").set(xlim=(-1.3, 3.3), ylim=(-4, 6.5))
        self.line_axes.plot(u, y, "o", ms=5, color=COLORS["data"], label="points")
        self.ends = np.array([-1.3, 3.3])
        self.line = self.line_axes.plot([], [], color=COLORS["accent"], lw=2.5, label="y = w u + b")[0]
        self.line_axes.legend(frameon=False, fontsize=9, loc="upper left")
        self.moves(self.way, self.start, self.here, self.line)

    def update(self, rate: float, steps: int, w0: float, b0: float) -> dict[str, float | str]:
        places = path(rate, w0, b0)
        now = places[steps]
        self.way.set_data(*places[: steps + 1].T)
        self.start.set_data([w0], [b0])
        self.here.set_data(*now[:, None])
        self.line.set_data(self.ends, now[0] * self.ends + now[1])
        return {
            "w": float(now[0]),
            "b": float(now[1]),
            "loss now": float(loss(*now)),
            "lowest loss": float(loss(*best())),
            f"loss after {MOST} steps": float(loss(*places[-1])),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        w, b, now, lowest, _ = numbers.values()
        return (
            f"A descent on the contours of a loss has come to w = {w:.2f}, b = {b:.2f}, with loss {now:.3f}; the "
            f"lowest is {lowest:.3f}."
        )


def bends(u: Any, y: Any, fits: dict[str, Any]) -> Figure:
    """Points, and what several models that map a column to a column make of them."""
    figure = Figure(figsize=(6.4, 3.2), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), "", "u", "y")
    axes.plot(u[:, 0], y[:, 0], "o", ms=3.5, color=COLORS["data"], alpha=0.6, label="points")
    at = torch.linspace(float(u.min()), float(u.max()), 200)[:, None]
    for (name, fit), color, dash in zip(fits.items(), ("muted", "model"), ("--", "-"), strict=True):
        with torch.no_grad():
            axes.plot(at[:, 0], fit(at)[:, 0], dash, color=COLORS[color], lw=2.5, label=name)
    axes.legend(frameon=False, fontsize=9)
    return figure
