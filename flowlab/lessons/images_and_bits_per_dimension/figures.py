"""Densities on whole numbers, as pictures: spikes that sharpen, bins that tile, three scales side by side."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.images_and_bits_per_dimension.toys import (
    PIXELS,
    PUBLISHED,
    P,
    ceiling,
    in_bits,
    log_density,
    log_det,
    score,
    shares,
)
from flowlab.metrics import bits_per_dim, nats
from flowlab.plotting.style import COLORS, DENSITY, tidy

LOG_WIDTH = (-4.0, 0.3)  # log₁₀ σ
HIGHEST = 1.3  # of the axis of densities
SCORES = (-4.0, 8.0)  # nats; the axis of the test log-likelihood


@functools.lru_cache
def _curve(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """log₁₀ σ and the log-likelihood, cut off at the ends of its axis."""
    grid = np.linspace(*LOG_WIDTH, 61)
    return grid, np.clip(score(10**grid, noise), *SCORES)


class SharpenSpikes(Picture):
    """Left, a density with a spike on each whole number; middle, samples by bin; right, its test log-likelihood."""

    def __init__(self) -> None:
        super().__init__(10.4, 4.0, dpi=100)
        self.left, self.middle, self.right = self.figure.subplots(1, 3, width_ratios=(1.25, 1, 1.25))
        levels = np.arange(len(P))
        self.x = np.linspace(0, 8, 481)
        fine = (np.arange(8)[:, None] + 0.5 + np.linspace(-0.02, 0.02, 9)).ravel()  # where narrow spikes are
        self.x = np.sort(np.concatenate((self.x, fine)))
        tidy(self.left, "", "x", "density p(x)").set(xlim=(-0.3, 8.3), ylim=(-0.12, HIGHEST))
        self.left.stairs(P, np.arange(9), color=COLORS["truth"], ls="--", lw=1.2, label="the truth, P(v) a bin")
        tidy(self.middle, "samples of the model, by bin", "level v", "share").set(ylim=(0, 0.4), xticks=levels)
        self.bars = self.middle.bar(levels, np.zeros(8), color=COLORS["model"], alpha=0.6, label="samples")
        self.middle.stairs(P, np.arange(9) - 0.5, color=COLORS["truth"], ls="--", lw=1.2, label="the truth")
        tidy(self.right, "log-likelihood of test numbers", "log₁₀ width of the spikes (sharper →)", "nats a number")
        self.right.set(xlim=LOG_WIDTH[::-1], ylim=SCORES)
        for noise in np.linspace(0, 1, 11):  # now, and not while someone drags
            _curve(round(float(noise), 1))
        bare = self.right.plot(*_curve(0.0), ":", color="black", lw=1.5, zorder=4, label="no noise")[0]
        self.curve = self.right.plot([], [], color=COLORS["validation"], lw=2.5, label="your noise")[0]
        self.truth = self.right.plot([], [], "--", color=COLORS["truth"], lw=1.2, label="exact density (with noise)")[0]
        self.here = self.right.plot([], [], "o", color=COLORS["validation"], mec="black", ms=9)[0]
        self.line = self.left.plot([], [], color=COLORS["model"], lw=1.8, label="p(x), yours")[0]
        g = np.random.default_rng(2)
        self.test = np.repeat(levels, np.round(shares(1) * 120).astype(int))
        self.u, self.rise = g.random(len(self.test)), -0.03 - 0.07 * g.random(len(self.test))
        self.dots = self.left.plot([], [], "o", color=COLORS["validation"], ms=2.5, label="test numbers")[0]
        self.k, self.e = g.choice(8, 4000, p=shares(0)), g.standard_normal(4000)
        self.note = self.left.text(8.2, HIGHEST * 1.02, "", ha="right", va="bottom", fontsize=9, color=COLORS["model"])
        for axes in (self.left, self.middle, self.right):
            axes.legend(
                frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, columnspacing=1
            )
        self.moves(self.line, self.dots, self.note, *self.bars, self.curve, bare, self.truth, self.here)

    def update(self, log_width: float, noise: float) -> dict[str, float | str]:
        width, noise = 10.0**log_width, round(noise, 1)
        self.line.set_data(self.x, np.minimum(np.exp(log_density(self.x, width)), 2 * HIGHEST))
        self.dots.set_data(self.test + 0.5 + noise * (self.u - 0.5), self.rise)
        tallest = float(np.exp(log_density(np.arange(8) + 0.5, width)).max())
        self.note.set_text(f"tallest spike: {tallest:,.0f} ↑" if tallest > HIGHEST else "")
        made = np.floor(self.k + 0.5 + width * self.e).clip(0, 7).astype(int)
        heights = np.bincount(made, minlength=8) / len(made)
        for bar, height in zip(self.bars, heights, strict=True):
            bar.set_height(height)
        mine, best = float(score(width, noise)), ceiling(noise)
        self.curve.set_data(*_curve(noise))
        self.here.set_data([log_width], [np.clip(mine, *SCORES)])
        shown = math.isfinite(best)
        self.truth.set_data(LOG_WIDTH, [best if shown else SCORES[1] + 9] * 2)
        return {
            "test log-likelihood, nats": mine,
            "of the exact density": best if shown else "∞",
            "tallest spike": tallest,
            "largest error of a sampled share": float(np.abs(heights - P).max()),
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        best = numbers["of the exact density"]
        return (
            f"Eight spikes, the tallest {numbers['tallest spike']:.3g} high. The test log-likelihood is "
            f"{numbers['test log-likelihood, nats']:.2f} nats, that of the exact density is "
            f"{'infinite, as there is no noise' if best == '∞' else format(best, '.2f')}. The sampled shares are at "
            f"most {numbers['largest error of a sampled share']:.3f} from the truth."
        )


BITS = (0.5, 8.0)


class ThreeRulers(Picture):
    """One likelihood on three rulers: bits per dimension, nats on [0, 1], nats on the logits with your λ."""

    def __init__(self) -> None:
        super().__init__(10.0, 3.8, dpi=100)
        self.axes = self.figure.subplots(1, 1)
        tidy(self.axes, "MNIST, 28 × 28 pixels of 256 levels: one likelihood on three rulers")
        self.axes.set(xlim=(BITS[1] + 0.15, BITS[0] - 0.35), ylim=(-0.55, 3.75), yticks=[])
        self.axes.set_xticks([])
        for side in ("left", "bottom"):
            self.axes.spines[side].set_visible(False)
        self.axes.set_xlabel("better →")
        for height, name in ((2, "bits per dimension"), (1, "nats on [0, 1]"), (0, "nats on the logits")):
            self.axes.axhline(height, color="black", lw=1)
            self.axes.text(BITS[1] + 0.1, height + 0.13, name, fontsize=9, weight="bold", ha="left")
        self._ticks(2, range(1, 9), [f"{b}" for b in range(1, 9)])
        units = range(0, 4001, 1000)
        self._ticks(1, [float(bits_per_dim(u, PIXELS, scale="unit")) for u in units], [f"{u:,}" for u in units])
        for row, (name, (value, scale)) in enumerate(sorted(PUBLISHED.items(), key=lambda e: -in_bits(*e[1]))):
            b, up = in_bits(value, scale), 2.4 + 0.23 * row  # each label to the left, above those left of it
            self.axes.plot([b, b], [2, up], color=COLORS["muted"], lw=0.8)
            self.axes.plot([b], [2], "^", color=COLORS["data"], ms=7)
            unit = {"bits": "bits/dim", "unit": "nats [0, 1]", "logit": "logit nats"}[scale]
            self.axes.text(b + 0.05, up, f"{name}: {value:,} {unit}", fontsize=8, ha="right", va="center")
        self.logit_ticks = [
            self.axes.plot([], [], "|", color="black", ms=9)[0],
            *[self.axes.text(0, -0.3, "", ha="center", fontsize=8) for _ in range(7)],
        ]
        self.line = self.axes.plot([], [], color=COLORS["accent"], lw=2)[0]
        self.dots = self.axes.plot([], [], "o", color=COLORS["accent"], mec="black", ms=9)[0]
        self.values = [self.axes.text(0, y + 0.15, "", fontsize=10, weight="bold", color="#8a5a00") for y in (2, 1, 0)]
        for text in self.values:
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1})
        self.moves(*self.logit_ticks, self.line, self.dots, *self.values)

    def _ticks(self, height: float, places: Any, names: list[str]) -> None:
        self.axes.plot(list(places), [height] * len(names), "|", color="black", ms=9)
        for place, name in zip(places, names, strict=True):
            self.axes.text(place, height - 0.3, name, ha="center", fontsize=8)

    def update(self, bits: float, lambda_: float) -> dict[str, float | str]:
        shift = log_det(lambda_)
        unit = float(nats(bits, PIXELS, scale="unit"))
        logit = float(nats(bits, PIXELS, scale="logit", log_det=shift))
        ticks = np.arange(-7000, 4001, 1000.0)
        places = np.array([8 - (t + shift) / (PIXELS * math.log(2)) for t in ticks])
        inside = (places >= BITS[0]) & (places <= BITS[1])
        self.logit_ticks[0].set_data(places[inside], np.zeros(inside.sum()))
        for text in self.logit_ticks[1:]:
            text.set_text("")
        for text, place, tick in zip(self.logit_ticks[1:], places[inside], ticks[inside], strict=False):
            text.set_position((place, -0.3))
            text.set_text(f"{tick:,.0f}")
        self.line.set_data([bits, bits], [0, 2])
        self.dots.set_data([bits] * 3, [0, 1, 2])
        for text, value in zip(self.values, (f"{bits:.2f}", f"{unit:,.0f}", f"{logit:,.0f}"), strict=True):
            text.set_text(value)
            text.set_x(bits - 0.06)
        return {
            "bits per dimension": float(bits),
            "nats on [0, 1]": round(unit, 1),
            "nats on the logits": round(logit, 1),
            "bytes an image": f"{bits * PIXELS / 8:.0f} of {PIXELS}",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"Three rulers: {numbers['bits per dimension']:.2f} bits per dimension is "
            f"{numbers['nats on [0, 1]']:,} nats on [0, 1] and {numbers['nats on the logits']:,} nats on the logits, "
            f"or {numbers['bytes an image']} bytes an image."
        )


def pixels(x: Tensor, h: Tensor) -> Figure:
    """Histograms of pixels x in [0, 1] and of their logits h, each ``(...)``, and how steep the logit is between."""
    figure = Figure(figsize=(10.0, 2.7), dpi=100, layout="constrained")
    first, middle, last = figure.subplots(1, 3)
    tidy(first, "pixels with noise", "x", "share").hist(
        x.flatten().numpy(), 64, weights=np.full(x.numel(), 1 / x.numel()), color=COLORS["data"]
    )
    y = np.linspace(1e-4, 1 - 1e-4, 400)
    tidy(middle, "slope dh/dx of the logit", "x", "1 / (x (1 − x))").semilogy(
        y, 1 / (y * (1 - y)), color=COLORS["accent"], lw=2, label="slope"
    )
    middle.yaxis.set_major_formatter("{x:,.0f}")  # exponents would be too small to read
    tidy(last, "their logits", "h", "share").hist(
        h.flatten().numpy(), 64, weights=np.full(h.numel(), 1 / h.numel()), color=COLORS["latent"]
    )
    figure.set_label(
        f"Left, a histogram of pixels: {float((x < 1 / 64).double().mean()):.0%} lie below 1/64. Middle, the slope of "
        "the logit on a logarithmic axis: 4 in the middle, without limit at 0 and 1. Right, a histogram of the logits, "
        f"from {float(h.min()):.0f} to {float(h.max()):.0f}, the black ones spread out on the left."
    )
    return figure


def noise_in_bins(panels: Mapping[str, tuple[np.ndarray, Tensor]], levels: int) -> Figure:
    """For each name a density on a grid of the unit square, ``(n, n)`` with x₁ first, and points ``(N, 2)`` in bins."""
    figure = Figure(figsize=(4.2 * len(panels), 3.9), dpi=100, layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (density, x)) in zip(row, panels.items(), strict=True):
        tidy(axes, name, "x₁", "x₂").imshow(
            density.T, origin="lower", extent=(0, 1, 0, 1), cmap=DENSITY, vmin=0, vmax=12, interpolation="bilinear"
        )
        axes.plot(*x.T.numpy(), ".", color=COLORS["data"], ms=2.5, alpha=0.5)
        for edge in range(levels + 1):
            axes.axvline(edge / levels, color="#999999", lw=0.5)
            axes.axhline(edge / levels, color="#999999", lw=0.5)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    figure.set_label(
        f"The unit square cut into {levels} by {levels} bins, once for each of {', '.join(panels)}: the density of the "
        "flow as a shading, and data as points, each within its own bin."
    )
    return figure
