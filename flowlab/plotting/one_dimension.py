"""Change of variables on the line, as pictures: a base density, a map, and what the map does to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from flowlab.plotting.picture import Picture
from flowlab.plotting.style import COLORS, tidy


class Map(NamedTuple):
    """An increasing or decreasing function y = r(x), its slope r′, and the interval on which it is meant."""

    formula: str
    value: Callable[[np.ndarray, float, float], np.ndarray]
    slope: Callable[[np.ndarray, float, float], np.ndarray]
    domain: tuple[float, float] = (-math.inf, math.inf)


BASES = {
    "uniform on [0, 1]": stats.uniform(0, 1),
    "standard normal": stats.norm(0, 1),
    "standard logistic": stats.logistic(0, 1),
    "exponential": stats.expon(0, 1),
}

MAPS = {
    "a x + b": Map("y = a x + b", lambda x, a, b: a * x + b, lambda x, a, b: np.full_like(x, a)),
    "√x": Map("y = √x", lambda x, a, b: np.sqrt(x), lambda x, a, b: 0.5 / np.sqrt(x), (0, math.inf)),
    "exp(a x + b)": Map("y = exp(a x + b)", lambda x, a, b: np.exp(a * x + b), lambda x, a, b: a * np.exp(a * x + b)),
    "sinh-arcsinh": Map(
        "y = sinh(a · arcsinh x + b)",
        lambda x, a, b: np.sinh(a * np.arcsinh(x) + b),
        lambda x, a, b: a * np.cosh(a * np.arcsinh(x) + b) / np.sqrt(1 + x * x),
    ),
}


class PushForward(Picture):
    """Left, the map with ten bars of equal probability on its axis; right, what they become, and a histogram as judge.

    Each bar holds a tenth of the probability before and after: where the map stretches, a bar widens and sinks.
    """

    def __init__(self, samples: int = 20_000, bars: int = 10) -> None:
        super().__init__(9.6, 3.6)
        self.quantiles = np.linspace(0, 1, bars + 1)
        # Quantiles of a fixed draw: the histogram moves because the map does, not because the draw changed.
        self.uniforms = np.sort(np.random.default_rng(0).random(samples))
        self.left, self.middle, self.right = self.figure.subplots(1, 3)
        tidy(self.left, "before: the density of x", "x", "p(x)")
        tidy(self.middle, "the map", "x", "y = r(x)")
        tidy(self.right, "after: the density of y", "y", "p(y)")
        self.base_line = self.left.plot([], [], color=COLORS["latent"], lw=2)[0]
        self.base_bars = self.left.stairs(np.zeros(bars), self.quantiles, color=COLORS["latent"], fill=True, alpha=0.25)
        self.map_line = self.middle.plot([], [], color=COLORS["accent"], lw=2)[0]
        self.judge = self.right.stairs(
            np.zeros(60), np.linspace(0, 1, 61), color=COLORS["muted"], fill=True, alpha=0.35
        )
        self.pushed_bars = self.right.stairs(np.zeros(bars), self.quantiles, color=COLORS["model"], alpha=0.9)
        self.claim = self.right.plot([], [], color=COLORS["model"], lw=2)[0]
        self.moves(self.base_line, self.base_bars, self.map_line, self.judge, self.pushed_bars, self.claim)

    def update(self, base: str, map: str, a: float, b: float, jacobian: bool, **_: Any) -> dict[str, float | str]:
        density, r = BASES[base], MAPS[map]
        if density.support()[0] < r.domain[0]:
            raise ValueError(f"{r.formula} takes x ≥ 0 only, and this base has mass below 0: choose another base.")
        low, high = density.ppf([0.001, 0.999])
        x = np.linspace(low, high, 400)
        if low == 0:
            x = np.maximum(x, 1e-4)
        p = density.pdf(x)
        y, slope = r.value(x, a, b), np.abs(r.slope(x, a, b))
        claimed = p / slope if jacobian else p
        self.base_line.set_data(x, p)
        edges = density.ppf(np.clip(self.quantiles, 0.001, 0.999))
        tenth = np.diff(self.quantiles)
        self.base_bars.set_data(tenth / np.diff(edges), edges)
        self.map_line.set_data(x, y)
        pushed = np.sort(r.value(edges, a, b))
        self.pushed_bars.set_data(tenth / np.diff(pushed), pushed)
        counts, bins = np.histogram(
            r.value(density.ppf(self.uniforms), a, b), 60, range=(y.min(), y.max()), density=True
        )
        self.judge.set_data(counts, bins)
        self.claim.set_data(y, claimed)
        top = min(1.1 * max(counts.max(), p.max()), 5.0)
        for axes, xs, height in ((self.left, x, 1.15 * p.max()), (self.right, y, top)):
            axes.set_xlim(xs.min(), xs.max())
            axes.set_ylim(0, height)
        self.middle.set_xlim(x.min(), x.max())
        self.middle.set_ylim(y.min(), y.max())
        self.redraw_all()
        order = np.argsort(y)
        area = float(np.trapezoid(claimed[order], y[order]))
        return {"area under the claimed p(y)": area, "mean |r′|": float((p * slope).sum() / p.sum())}
