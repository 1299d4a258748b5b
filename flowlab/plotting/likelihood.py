"""Fitting by maximum likelihood, as pictures: your sliders against the gradient, overfitting, and a Gaussian on digits."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from flowlab.bijections import Chain, ScaleShift, SinhArcsinh
from flowlab.distributions import StandardNormal
from flowlab.flow import Flow
from flowlab.plotting.picture import Picture
from flowlab.plotting.style import COLORS, tidy

TRUTH = {"location": 1.0, "spread": 1.0, "skew": 0.6, "tail": 0.8}
START = {"location": 0.0, "spread": 1.5, "skew": 0.0, "tail": 1.0}
SIZES = (12, 40, 400)
STEPS = 200


def skewed_flow(location: float = 0.0, spread: float = 1.0, skew: float = 0.0, tail: float = 1.0) -> Flow:
    """A flow on the line with four parameters: z = sinh(tail · arcsinh((x − location)/spread) − skew), z ~ N(0, 1)."""
    flow = Flow(Chain([ScaleShift(1), SinhArcsinh(1)]), StandardNormal(1))
    return set_skewed(flow, location, spread, skew, tail)


@torch.no_grad()
def set_skewed(flow: Flow, location: float, spread: float, skew: float, tail: float) -> Flow:
    """Put these four numbers into a `skewed_flow`."""
    scale, bend = flow.bijection
    scale.log_scale.fill_(-math.log(spread))
    scale.shift.fill_(-location / spread)
    bend.skew.fill_(skew)
    bend.log_tail.fill_(math.log(tail))
    return flow


def skewed_data(n: int, seed: int = 0) -> Tensor:
    """n points ``(n, 1)`` of the truth that the explorer hides."""
    return skewed_flow(**TRUTH).sample(n, torch.Generator().manual_seed(seed))


@functools.lru_cache
@torch.enable_grad()
def gradient_path(points: int) -> tuple[list[dict[str, float]], np.ndarray]:
    """Where Adam goes from START in STEPS steps: the four numbers at each, and nats on training and validation."""
    flow, x, held_out = skewed_flow(**START), skewed_data(points), skewed_data(2000, seed=1)
    adam = torch.optim.Adam(flow.parameters(), lr=0.05)
    path, scores = [], []
    for _ in range(STEPS + 1):
        log_p = flow.log_prob(x).mean()
        with torch.no_grad():
            scores.append((log_p.item(), flow.log_prob(held_out).mean().item()))
        scale, bend = flow.bijection
        spread = math.exp(-scale.log_scale.item())
        location = -scale.shift.item() * spread
        path.append(dict(zip(TRUTH, (location, spread, bend.skew.item(), math.exp(bend.log_tail.item())), strict=True)))
        adam.zero_grad()
        (-log_p).backward()
        adam.step()
    return path, np.array(scores)


class HandAgainstGradient(Picture):
    """Left, the points and three curves: yours, the gradient's, the truth. Right, the same contest scored in nats."""

    def __init__(self) -> None:
        super().__init__(9.6, 3.9)
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1.15, 1))
        tidy(self.left, "the curves", "x", "p(x)").set(xlim=(-5, 9), ylim=(0, 0.62))
        tidy(self.right, "the score: mean log p(x), higher is better", "gradient step", "nats a point")
        self.right.set(xlim=(0, STEPS), ylim=(-3.2, -1.4))
        self.grid = torch.linspace(-5, 9, 400)[:, None]
        self.held_out = skewed_data(2000, seed=1)
        self.truth_flow, self.flow = skewed_flow(**TRUTH), skewed_flow()
        with torch.no_grad():
            exact = self.truth_flow.log_prob(self.grid).exp()
            self.exact_nats = self.truth_flow.log_prob(self.held_out).mean().item()
        plot = self.left.plot
        self.histogram = self.left.stairs(
            np.zeros(42), np.linspace(-5, 9, 43), fill=True, color=COLORS["data"], alpha=0.25
        )
        self.rug = plot([], [], "|", ms=9, color=COLORS["data"], alpha=0.6)[0]
        self.truth = plot(self.grid[:, 0], exact, "--", color=COLORS["truth"], lw=1.2, label="the truth")[0]
        self.gradient = plot([], [], "-.", color=COLORS["accent"], lw=2, label="the gradient's")[0]
        self.yours = plot([], [], color=COLORS["model"], lw=2.5, label="yours")[0]
        self.left.legend(frameon=False, fontsize=8, loc="upper right")
        score = self.right.plot
        self.train_path = score([], [], "-.", color=COLORS["accent"], lw=2, label="gradient, training")[0]
        self.valid_path = score([], [], ":", color=COLORS["validation"], lw=2, label="gradient, validation")[0]
        self.train_dot = score([], [], "o", color=COLORS["accent"], ms=7)[0]
        self.valid_dot = score([], [], "s", color=COLORS["validation"], ms=7)[0]
        self.your_train = score([], [], color=COLORS["model"], lw=2.5, label="you, training")[0]
        self.your_valid = score([], [], color=COLORS["model"], lw=1.2, ls=":", label="you, validation")[0]
        self.right.legend(frameon=False, fontsize=8, loc="lower right")
        self.moves(self.histogram, self.rug, self.truth, self.gradient, self.yours)
        self.moves(self.train_path, self.valid_path, self.your_train, self.your_valid, self.train_dot, self.valid_dot)

    @torch.no_grad()
    def update(
        self,
        location: float,
        spread: float,
        skew: float,
        tail: float,
        points: int,
        step: int,
        truth: bool,
        validation: bool,
    ) -> dict[str, float | str]:
        x = skewed_data(points)
        path, scores = gradient_path(points)
        set_skewed(self.flow, location, spread, skew, tail)
        self.yours.set_data(self.grid[:, 0], self.flow.log_prob(self.grid).exp())
        your_train = self.flow.log_prob(x).mean().item()
        your_valid = self.flow.log_prob(self.held_out).mean().item()
        set_skewed(self.flow, **path[step])
        self.gradient.set_data(self.grid[:, 0], self.flow.log_prob(self.grid).exp())
        counts, edges = np.histogram(x[:, 0], 42, range=(-5, 9))
        self.histogram.set_data(counts / (points * np.diff(edges)), edges)
        self.rug.set_data(x[:, 0], np.full(points, 0.012))
        self.truth.set_visible(truth)
        steps = np.arange(STEPS + 1)
        self.train_path.set_data(steps[: step + 1], scores[: step + 1, 0])
        self.train_dot.set_data([step], [scores[step, 0]])
        self.your_train.set_data([0, STEPS], [your_train] * 2)
        self.valid_path.set_data(steps[: step + 1], scores[: step + 1, 1])
        self.valid_dot.set_data([step], [scores[step, 1]])
        self.your_valid.set_data([0, STEPS], [your_valid] * 2)
        for artist in (self.valid_path, self.valid_dot, self.your_valid):
            artist.set_visible(validation)
        numbers = {"you": your_train, "gradient": float(scores[step, 0])}
        if validation:
            numbers |= {"you on new points": your_valid, "gradient on new points": float(scores[step, 1])}
        if truth:
            numbers["your gauge, KL to the truth"] = self.exact_nats - your_valid
        return numbers

    def describe(self, numbers: dict[str, float | str]) -> str:
        ahead = "you lead" if numbers["you"] > numbers["gradient"] else "the gradient leads"
        return (
            f"Two curves over the points. Your curve scores {numbers['you']:.2f} nats a point and the gradient's "
            f"{numbers['gradient']:.2f}, so {ahead} on the training points."
        )


def likelihood_of_sigma(x: Tensor) -> Figure:
    """The likelihood of σ for Gaussian data of mean 0, and the posteriors under a flat prior on σ and on log σ."""
    sigma = torch.linspace(0.3, 4.0, 400)
    log_like = -len(x) * sigma.log() - (x**2).sum() / (2 * sigma**2)
    figure = Figure(figsize=(8.6, 3.2), dpi=80, layout="constrained")
    for axes, u, name, own in zip(figure.subplots(1, 2), (sigma, sigma.log()), ("σ", "log σ"), (0.0, 1.0), strict=True):
        tidy(axes, f"as a function of {name}", name, "relative height")
        curves = {
            "likelihood": (log_like, COLORS["truth"], "-"),
            "posterior, prior flat in σ": (log_like + own * sigma.log(), COLORS["model"], "--"),
            "posterior, prior flat in log σ": (log_like + (own - 1) * sigma.log(), COLORS["latent"], "-."),
        }
        for label, (log_p, color, style) in curves.items():
            p = (log_p - log_p.max()).exp()
            axes.plot(u, p, style, color=color, lw=2, label=label)
            axes.plot(u[p.argmax()], 1.0, "o", color=color, ms=6)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def overfitting(curves: dict[str, tuple[Sequence[float], Sequence[float]]], exact: float, every: int) -> Figure:
    """Training and validation nats of several models by step, a panel each; the exact density's as the dashed line."""
    figure = Figure(figsize=(9, 3), dpi=80, layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True)
    for axes, (name, (train, valid)) in zip(panels, curves.items(), strict=True):
        tidy(axes, name, "step", "")
        steps = every * np.arange(len(train))
        axes.plot(steps, train, color=COLORS["model"], lw=2, label="training points")
        axes.plot(steps, valid, "s-", markevery=4, ms=4, color=COLORS["validation"], lw=2, label="new points")
        axes.axhline(exact, color=COLORS["truth"], ls="--", lw=1, label="exact density, new points")
    panels[0].set(ylabel="mean log p(x), nats", ylim=(exact - 1.4, exact + 1.2))
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def digit_rows(rows: dict[str, Tensor], size: int = 28) -> Figure:
    """Rows of pictures ``(n, size²)`` in [0, 1], one row for each name."""
    count = max(len(images) for images in rows.values())
    figure = Figure(figsize=(0.72 * count + 1.3, 0.85 * len(rows)), dpi=80, layout="constrained")
    for line, (name, images) in zip(figure.subplots(len(rows), count, squeeze=False), rows.items(), strict=True):
        for axes in line:
            axes.axis("off")
        for axes, image in zip(line, images, strict=False):
            axes.imshow(image.reshape(size, size).clamp(0, 1), cmap="gray_r", vmin=0, vmax=1)
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    return figure
