"""What is built: a coupling and a stack as drawings; its curve and its samples; one point on its way through it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Generator, Tensor

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.build_it_yourself.toys import Coupling, Flow, train, two_moons
from flowlab.plotting.style import COLORS, tidy

EDGE = 3.4  # half the width of the frame of points
POINTS = 400


def _box(axes: Axes, x: float, y: float, text: str, color: str = "white", width: float = 1.5) -> None:
    axes.add_patch(
        FancyBboxPatch((x - width / 2, y - 0.3), width, 0.6, boxstyle="round,pad=0.05", fc=color, ec="black", lw=1.2)
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=11)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = "black") -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=color, lw=1.5))


def schematic(depth: int = 4) -> Figure:
    """Left, one coupling from x to z; right, a stack of ``depth`` of them, with its masks, between x and z."""
    figure = Figure(figsize=(10.4, 4.2), dpi=80, layout="constrained")
    one, stack = figure.subplots(1, 2)
    light = {"passes": "#CCE3F0", "moves": "#F7DFCC"}
    one.set(xlim=(-0.3, 8.3), ylim=(-0.7, 4.4), title="one coupling")
    _box(one, 0.7, 3.6, "x, passes", light["passes"], 1.8)
    _box(one, 0.7, 0.4, "x, moves", light["moves"], 1.8)
    _box(one, 7.2, 3.6, "z = x", light["passes"], 1.9)
    _box(one, 7.2, 0.4, "z = x·eˢ + t", light["moves"], 1.9)
    _box(one, 3.9, 2.4, "network", width=1.8)
    _box(one, 3.2, 0.4, "· eˢ", width=0.9)
    _box(one, 4.9, 0.4, "+ t", width=0.9)
    _arrow(one, (1.7, 3.6), (6.1, 3.6))
    _arrow(one, (1.7, 3.5), (3.0, 2.6))
    _arrow(one, (1.7, 0.4), (2.65, 0.4))
    _arrow(one, (3.75, 0.4), (4.35, 0.4))
    _arrow(one, (5.45, 0.4), (6.1, 0.4))
    for x, name in ((3.2, "s"), (4.9, "t")):
        _arrow(one, (3.9 + 0.4 * (x > 3.9) - 0.4 * (x < 3.9), 2.05), (x, 0.8))
        one.text(x + (0.35 if x > 3.9 else -0.3), 1.4, name, fontsize=12, style="italic", ha="center")
    one.text(3.9, -0.4, "log |det| = the sum of s", ha="center", fontsize=11)
    stack.set(xlim=(-0.4, 2 * depth + 2.4), ylim=(-0.7, 4.4), title=f"a flow: {depth} couplings, masks in turn, a base")
    _box(stack, 0.4, 2.0, "x", COLORS["accent"], 0.6)
    for k in range(depth):
        at = 2.0 * k + 2.2
        for i, y in enumerate((2.4, 1.6)):
            passes = (i + k) % 2 == 0
            _box(stack, at, y, "passes" if passes else "moves", light["passes" if passes else "moves"], 1.2)
        stack.text(at, 3.05, f"layer {k}", ha="center", fontsize=11)
        _arrow(stack, (at - 1.35 if k else 0.8, 2.0), (at - 0.7, 2.0))
    last = 2.0 * depth + 1.8
    _arrow(stack, (last - 0.9, 2.0), (last - 0.35, 2.0))
    _box(stack, last, 2.0, "z", "#BFE6DB", 0.6)
    stack.text(last, 1.3, "N(0, I)", ha="center", fontsize=11)
    _arrow(stack, (0.4, 3.9), (last, 3.9))
    stack.text(last / 2, 4.0, "forward: log_prob", ha="center", va="bottom", fontsize=11)
    _arrow(stack, (last, 0.4), (0.4, 0.4))
    stack.text(last / 2, 0.25, "inverse: sample", ha="center", va="top", fontsize=11)
    for axes in (one, stack):
        axes.axis("off")
    return figure


def curve_and_samples(curve: Sequence[tuple[int, float]], samples: Tensor, x: Tensor, truth: float) -> Figure:
    """Left, the mean log-likelihood of held-out rows by step, with the exact density's; right, samples on the data."""
    figure = Figure(figsize=(9.2, 3.4), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    tidy(left, "held-out rows", "training step", "log p(x), nats a row")
    left.plot(*zip(*curve, strict=True), "o-", color=COLORS["validation"], ms=5, label="the flow")
    left.axhline(truth, color=COLORS["truth"], ls="--", lw=1.5, label="the exact density")
    left.legend(frameon=False, loc="lower right")
    tidy(right, "data and samples", "x₁", "x₂")
    right.plot(*x[:800].T, "o", ms=3, mew=0, alpha=0.5, color=COLORS["data"], label="data")
    right.plot(*samples[:800].T, "^", ms=3.5, mew=0, alpha=0.6, color=COLORS["model"], label="samples")
    right.set(xlim=(-2.4, 2.4), ylim=(-1.7, 1.7))
    right.legend(frameon=False, loc="upper right", markerscale=2)
    return figure


@functools.lru_cache
def trained() -> Flow:
    """The flow of the worked answers, in a smaller size, on two moons."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = Flow(2, 6, lambda mask: Coupling(mask, 32))
    x = two_moons(2000, Generator().manual_seed(1))
    train(flow, x, x[:200], 300, rate=1e-2, generator=Generator().manual_seed(0))
    return flow


class PointThroughLayers(Picture):
    """Left, points after some layers, and the way of one of them; right, what that point's log-density is made of.

    ``flow`` has ``layers``, each with ``layer(x) -> (z, log_det)``, and a standard normal base of the plane.
    """

    def __init__(self, flow: Any = None, x: Tensor | None = None) -> None:
        super().__init__(10.2, 4.2)
        flow = trained() if flow is None else flow
        x = two_moons(POINTS, Generator().manual_seed(4)) if x is None else torch.as_tensor(x)[:POINTS].float()
        at, dets = [x], [torch.zeros(len(x))]
        with torch.no_grad():
            for layer in flow.layers:
                h, det = layer(at[-1])
                at.append(h)
                dets.append(dets[-1] + det)
        self.at, self.dets = torch.stack(at).numpy(), torch.stack(dets).numpy()  # (L + 1, N, 2) and (L + 1, N)
        self.base = -0.5 * (self.at**2).sum(-1) - math.log(2 * math.pi)
        self.depth, self.upper = len(at) - 1, (x[:, 1] > 0).numpy()
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1, 1.25))
        tidy(self.left, "points on their way from x to z", "first coordinate", "second coordinate")
        self.left.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
        angle = np.linspace(0, 2 * np.pi, 100)
        for radius in (1, 2):
            self.left.plot(radius * np.cos(angle), radius * np.sin(angle), color=COLORS["muted"], lw=0.8)
        self.clouds = [
            self.left.plot([], [], marker, ms=4, mew=0, alpha=0.6, color=COLORS[color], label=label)[0]
            for marker, color, label in (("o", "data", "started above x₂ = 0"), ("s", "latent", "started below"))
        ]
        self.way = self.left.plot([], [], ".-", color="black", lw=1.2, ms=5)[0]
        self.here = self.left.plot([], [], "D", ms=10, color=COLORS["accent"], mec="black", label="your point")[0]
        self.left.legend(frameon=False, loc="upper left", fontsize=9)
        tidy(self.right, "the log-density of your point", "couplings applied", "nats")
        ends = np.concatenate((self.base + self.dets, self.dets))
        low, high = np.quantile(ends, (0.01, 0.99))
        self.right.set(xlim=(-0.4, self.depth + 0.4), ylim=(low - 1, high + 1), xticks=range(self.depth + 1))
        self.right.axhline(0, color=COLORS["muted"], lw=0.8)
        self.sums = self.right.plot([], [], "s-", color=COLORS["data"], lw=2, label="Σ log |det| so far")[0]
        self.whole = self.right.plot([], [], "o-", color=COLORS["model"], lw=2, label="log N(h; 0, I) + Σ log |det|")[0]
        self.right.legend(frameon=False, loc="lower right", fontsize=9)
        self.moves(*self.clouds, self.way, self.here, self.sums, self.whole)

    def update(self, layer: int, point: int) -> dict[str, float | str]:
        for cloud, chosen in zip(self.clouds, (self.upper, ~self.upper), strict=True):
            cloud.set_data(*self.at[layer, chosen].T)
        self.way.set_data(*self.at[: layer + 1, point].T)
        self.here.set_data(*self.at[layer, [point]].T)
        steps = range(layer + 1)
        self.sums.set_data(steps, self.dets[: layer + 1, point])
        self.whole.set_data(steps, (self.base + self.dets)[: layer + 1, point])
        base, det = float(self.base[layer, point]), float(self.dets[layer, point])
        return {
            "couplings applied": f"{layer} of {self.depth}",
            "log N(h; 0, I)": base,
            "Σ log |det|": det,
            "together, log p(x) if the flow ended here": base + det,
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        applied, base, det, both = numbers.values()
        return (
            f"Points of two moons after {applied} couplings, and one of them with log N(h; 0, I) = {base:.2f}, "
            f"Σ log |det| = {det:.2f}, together {both:.2f} nats."
        )
