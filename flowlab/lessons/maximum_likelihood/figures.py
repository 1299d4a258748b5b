"""Fitting by maximum likelihood, as pictures: your sliders against the gradient, overfitting, a Gaussian on digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.maximum_likelihood.toys import STEPS, TRUTH, gradient_path, set_skewed, skewed_data, skewed_flow
from flowlab.plotting.style import COLORS, tidy

LOWEST = -3.2  # nats; the axis of log p ends here


class HandAgainstGradient(Picture):
    """Left, the points and three curves: yours, the gradient's, the truth. Right, their mean log p in nats.

    You are solid lines and the gradient is dash-dotted; values on new points are pink.
    """

    def __init__(self) -> None:
        super().__init__(9.6, 4.1)
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1.15, 1))
        tidy(self.left, "blue: the training points", "x", "p(x)").set(xlim=(-5, 9), ylim=(0, 0.62))
        tidy(self.right, "mean log p(x): higher is better", "gradient steps", "nats a point")
        self.right.set(xlim=(-4, STEPS + 4), ylim=(LOWEST, -1.5))
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
        self.gradient = plot([], [], "-.", color=COLORS["accent"], lw=2, label="the gradient's")[0]
        self.yours = plot([], [], color=COLORS["model"], lw=2.5, label="yours")[0]
        self.truth = plot(self.grid[:, 0], exact, "--", color=COLORS["truth"], lw=1.2, label="the truth")[0]
        score, new = self.right.plot, COLORS["validation"]
        self.your_train = score([], [], color=COLORS["model"], lw=2.5, label="you")[0]
        self.train_path = score([], [], "-.", color=COLORS["accent"], lw=2, label="the gradient")[0]
        self.your_valid = score([], [], color=new, lw=1.5, label="you, on new points")[0]
        self.valid_path = score([], [], "-.", color=new, lw=1.5, label="the gradient, on new points")[0]
        self.train_dot = score([], [], "o", color=COLORS["accent"], ms=7)[0]
        self.valid_dot = score([], [], "s", color=new, ms=6)[0]
        self.off = self.right.text(STEPS / 2, LOWEST + 0.03, "", ha="center", color=COLORS["model"], fontsize=9)
        legends = [
            self.left.legend(frameon=False, fontsize=8, loc="upper right"),
            self.right.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2),
        ]
        # The lines of the legends for what can be switched off.
        self.truth_entry = (legends[0].legend_handles[2], legends[0].get_texts()[2])
        self.valid_entries = (*legends[1].legend_handles[2:], *legends[1].get_texts()[2:])
        self.moves(self.histogram, self.rug, self.truth, self.gradient, self.yours, self.off)
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
        steps = np.arange(STEPS + 1)
        self.train_path.set_data(steps[: step + 1], scores[: step + 1, 0])
        self.train_dot.set_data([step], [scores[step, 0]])
        self.your_train.set_data([0, STEPS], [your_train] * 2)
        self.valid_path.set_data(steps[: step + 1], scores[: step + 1, 1])
        self.valid_dot.set_data([step], [scores[step, 1]])
        self.your_valid.set_data([0, STEPS], [your_valid] * 2)
        self.off.set_text(f"↓ you: −{-your_train:.1f}, below this picture ↓" if your_train < LOWEST else "")
        if (truth, validation) != (self.truth_entry[0].get_visible(), self.valid_entries[0].get_visible()):
            self.redraw_all()  # the legends stand still otherwise
        for artist in (self.truth, *self.truth_entry):
            artist.set_visible(truth)
        for artist in (self.valid_path, self.valid_dot, self.your_valid, *self.valid_entries):
            artist.set_visible(validation)
        numbers = {"you": your_train, "the gradient": float(scores[step, 0])}
        if validation:
            numbers |= {"you on new points": your_valid, "the gradient on new points": float(scores[step, 1])}
        if truth:
            numbers["your KL to the truth"] = self.exact_nats - your_valid
            numbers["the gradient's"] = self.exact_nats - float(scores[step, 1])
        return numbers

    def describe(self, numbers: dict[str, float | str]) -> str:
        you, gradient = numbers["you"], numbers["the gradient"]
        lead = "the lead is yours" if you > gradient else "the gradient leads"
        lead = "the two are level" if abs(you - gradient) < 5e-4 else lead
        return (
            f"Two curves over the points. Your curve has {you:.2f} nats per point and the gradient's {gradient:.2f}, "
            f"so {lead} on the training points."
        )


def likelihood_of_sigma(x: Tensor) -> Figure:
    """The likelihood of σ for Gaussian data of mean 0, and the posteriors under a flat prior on σ and on log σ."""
    sigma = torch.linspace(0.3, 3.6, 2000)
    log_like = -len(x) * sigma.log() - (x**2).sum() / (2 * sigma**2)
    figure = Figure(figsize=(9.6, 3.6), dpi=80, layout="constrained")
    for axes, u, name, own in zip(figure.subplots(1, 2), (sigma, sigma.log()), ("σ", "log σ"), (0.0, 1.0), strict=True):
        tidy(axes, f"drawn over {name}", name, "height, as a share of the highest").set(ylim=(0, 1.3))
        curves = {  # log-height, color, line, marker and its size: where two curves coincide, both are seen
            "likelihood": (log_like, COLORS["truth"], "-", "o", 13),
            "posterior, prior flat in σ": (log_like + own * sigma.log(), COLORS["model"], "--", "^", 7),
            "posterior, prior flat in log σ": (log_like + (own - 1) * sigma.log(), COLORS["latent"], "-.", "s", 6),
        }
        peaks = set()
        for label, (log_p, color, style, marker, size) in curves.items():
            top = log_p.argmax()
            axes.plot(u, (log_p - log_p.max()).exp(), style, color=color, lw=4 if style == "-" else 2, label=label)
            axes.plot(u[top], 1.0, marker, color=color, ms=size, mfc="white" if marker == "o" else color, mew=1.5)
            peaks.add(int(top))
        low, high = sorted(peaks)
        for top, side, shift in ((low, "right", -9), (high, "left", 9)):
            where = {"xytext": (shift, 9), "textcoords": "offset points", "ha": side, "fontsize": 9}
            axes.annotate(f"σ = {sigma[top]:.2f}", (u[top], 1.0), **where)
    figure.axes[0].legend(frameon=False, fontsize=8, loc="center right")
    return figure


def overfitting(curves: dict[str, tuple[Sequence[float], Sequence[float]]], exact: float, every: int) -> Figure:
    """Nats on training and on new points of several models by step, a panel each; the exact density's is dashed."""
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
