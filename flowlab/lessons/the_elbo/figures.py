"""The bound on the likelihood, as pictures: where it touches, which divergence chooses what, and one point's gap."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from scipy.special import logsumexp

from flowlab.lessons.base.picture import Picture
from flowlab.lessons.the_elbo.toys import (
    LOG_2PI,
    SEPARATIONS,
    bound,
    forward_best,
    forward_kl,
    likelihood,
    log_joint,
    points,
    responsibilities,
    reverse_best,
    reverse_kl,
    top,
    two_humps,
)
from flowlab.plotting.style import COLORS, DENSITY, tidy

THETA = (-5.0, 5.0)
LOWEST, HIGHEST = -4.3, -2.9  # nats a point; the axis of the likelihood


class BoundOnCurve(Picture):
    """Right, log p(x; θ) as a curve and the bound that touches it at θ_old; left, the points and the mixture at θ."""

    def __init__(self) -> None:
        super().__init__(10.4, 4.2)
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1, 1.35))
        tidy(self.left, "the mixture at θ; points yellow where q gives them to θ", "x", "p(x; θ)")
        self.left.set(xlim=(-6, 6), ylim=(-0.035, 0.44))
        tidy(self.right, "", "θ", "nats a point")
        self.right.set(xlim=THETA, ylim=(LOWEST, HIGHEST))
        self.x, self.theta = np.linspace(-6, 6, 241), np.linspace(*THETA, 401)
        self.right.plot(
            self.theta, likelihood(self.theta), color=COLORS["model"], lw=2.5, label="log p(x; θ), mean over the points"
        )
        heights, edges = np.histogram(points(), 24, range=(-6, 6), density=True)
        self.left.stairs(heights, edges, fill=True, color=COLORS["data"], alpha=0.15)
        plot, draw = self.left.plot, self.right.plot
        self.fixed = plot([], [], ":", color=COLORS["data"], lw=1.5, label="½ N(x; 0, 1), fixed")[0]
        self.fixed.set_data(self.x, np.exp(log_joint(self.x, 0.0)[:, 0]))
        self.moving = plot([], [], "--", color=COLORS["accent"], lw=1.5, label="½ N(x; θ, 1)")[0]
        self.total = plot([], [], color=COLORS["model"], lw=2, label="p(x; θ)")[0]
        self.dots = self.left.scatter(
            points(), np.full(len(points()), -0.017), c=np.zeros(len(points())), cmap="cividis", vmin=0, vmax=1, s=22
        )
        self.dots.set(edgecolor="black", linewidth=0.4)
        self.next = draw([], [], ":", color=COLORS["muted"], lw=1.5, label="the bound that E would make at θ")[0]
        self.curve = draw([], [], color=COLORS["latent"], lw=2, label="the bound, with q from θ_old")[0]
        self.gap = draw([], [], color="black", lw=3, label="gap at θ: mean KL(q ‖ p(k | x; θ))")[0]
        self.ends = draw([], [], "o", color="black", ms=6)[0]
        self.touch = draw([], [], "o", color=COLORS["accent"], mec="black", ms=10, label="they touch, at θ_old")[0]
        self.summit = draw([], [], "^", color=COLORS["latent"], mec="black", ms=9, label="top of the bound")[0]
        self.below = self.right.text(0, LOWEST + 0.02, "", ha="center", fontsize=9, color=COLORS["latent"])
        self.left.legend(frameon=False, fontsize=8, loc="upper left")
        self.right.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
        self.moves(self.moving, self.total, self.dots, self.next, self.curve, self.gap, self.ends, self.touch)
        self.moves(self.summit, self.below)

    def update(self, old: float, theta: float) -> dict[str, float | str]:
        r = responsibilities(old)
        joint = log_joint(self.x, theta)
        self.moving.set_data(self.x, np.exp(joint[:, 1]))
        self.total.set_data(self.x, np.exp(joint).sum(-1))
        self.dots.set_array(r)
        summit = top(r)
        log_p, below, start = float(likelihood(theta)), float(bound(theta, r)), float(likelihood(old))
        self.curve.set_data(self.theta, bound(self.theta, r))
        self.next.set_data(self.theta, bound(self.theta, responsibilities(theta)))
        self.gap.set_data([theta, theta], [below, log_p])
        self.ends.set_data([theta, theta], [below, log_p])
        self.touch.set_data([old], [start])
        self.summit.set_data([summit], [bound(summit, r)])
        self.below.set_position((min(max(theta, -4.2), 4.2), LOWEST + 0.02))
        self.below.set_text(f"↓ the bound: {below:.1f} ↓" if below < LOWEST else "")
        return {
            "log p at θ_old": start,
            "log p at θ": log_p,
            "bound at θ": below,
            "gap at θ": log_p - below,
            "top of the bound at θ =": summit,
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"The bound touches the log-likelihood at θ_old, at {numbers['log p at θ_old']:.2f} nats. At θ it lies "
            f"{numbers['gap at θ']:.2f} nats below the likelihood of {numbers['log p at θ']:.2f}."
        )


MU, LOG_SIGMA = (-4.0, 4.0), (-1.6, 1.6)
LEVELS = (0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.2, 2.4, 4.8, 9.6, 1e9)  # nats: where the bands of the landscapes end
FORWARD, REVERSE = "KL(p ‖ q), forward", "KL(q ‖ p), reverse"


class Landscape(NamedTuple):
    """Both divergences on a grid of (log σ, mu), for one separation."""

    forward: np.ndarray
    reverse: np.ndarray


@functools.lru_cache
def landscape(d: float) -> Landscape:
    """Both divergences on a grid of 64 values of log σ and 96 of mu."""
    log_sigma, mu = np.meshgrid(np.linspace(*LOG_SIGMA, 64), np.linspace(*MU, 96), indexing="ij")
    return Landscape(forward_kl(mu, log_sigma, d), reverse_kl(mu, log_sigma, d))


class CoverOrChoose(Picture):
    """Left, two humps p and your one Gaussian q; then KL(p ‖ q) and KL(q ‖ p) as landscapes over q's two numbers."""

    def __init__(self) -> None:
        super().__init__(11.4, 3.9)
        self.left, *self.maps = self.figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
        tidy(self.left, "", "x", "density").set(xlim=(-5, 5), ylim=(0, 1.0))
        self.x = np.linspace(-5, 5, 401)
        for d in SEPARATIONS:  # now, and not while someone drags
            landscape(d), reverse_best(d)
        extent = (*MU, *LOG_SIGMA)
        norm = BoundaryNorm(LEVELS, DENSITY.N)
        self.images = []
        for axes, name in zip(self.maps, (FORWARD, REVERSE), strict=True):
            tidy(axes, name, "mean of q", "log σ of q")
            options = {"origin": "lower", "extent": extent, "aspect": "auto", "cmap": DENSITY.reversed(), "norm": norm}
            self.images.append(axes.imshow(np.zeros((64, 96)), interpolation="nearest", **options))
        bar = self.figure.colorbar(self.images[1], ax=self.maps, ticks=LEVELS[:-1], pad=0.01)
        bar.ax.set_yticklabels([f"{level:g}" for level in LEVELS[:-1]], fontsize=8)
        bar.set_label("nats")
        self.target = self.left.plot([], [], "--", color=COLORS["truth"], lw=1.5, label="p, two humps")[0]
        self.yours = self.left.plot([], [], color=COLORS["model"], lw=2.5, label="q, yours")[0]
        self.best = [
            self.left.plot([], [], style, color=COLORS[color], lw=2, label=label)[0]
            for style, color, label in (("-.", "data", "lowest KL(p ‖ q)"), (":", "latent", "lowest KL(q ‖ p)"))
        ]
        self.here = [axes.plot([], [], "o", color=COLORS["model"], mec="white", mew=2, ms=11)[0] for axes in self.maps]
        self.stars = [
            axes.plot([], [], marker, color=COLORS[color], mec="white", ms=11)[0]
            for axes, marker, color in zip(self.maps, "s^", ("data", "latent"), strict=True)
        ]
        # Other valleys, which are lowest only among their neighbors, are hollow.
        self.stars += self.maps[1].plot([], [], "^", mfc="none", mec=COLORS["latent"], mew=2, ms=10)
        self.legend = self.left.legend(frameon=False, fontsize=8, loc="upper right")
        self.moves(*self.images, self.target, self.yours, *self.best, *self.stars, *self.here)

    def update(self, mu: float, log_sigma: float, separation: float, best: bool) -> dict[str, float | str]:
        d, seen = separation, landscape(separation)
        for image, values in zip(self.images, seen, strict=True):
            image.set_data(values)
        self.target.set_data(self.x, np.exp(two_humps(self.x, d)))
        self.yours.set_data(self.x, _normal(self.x, mu, log_sigma))
        covers, chooses = forward_best(d), reverse_best(d)
        for line, (m, s) in zip(self.best, (covers, chooses[0]), strict=True):
            line.set_data(self.x, _normal(self.x, m, s))
        self.stars[0].set_data([covers[0]], [covers[1]])
        self.stars[1].set_data([chooses[0][0]], [chooses[0][1]])
        self.stars[2].set_data([m for m, _ in chooses[1:]], [s for _, s in chooses[1:]])
        for dot in self.here:
            dot.set_data([mu], [log_sigma])
        if best != self.best[0].get_visible() or best != self.legend.get_texts()[2].get_visible():
            self.redraw_all()  # the legend stands still otherwise
        shown = (*self.best, *self.stars, *self.legend.legend_handles[2:], *self.legend.get_texts()[2:])
        for artist in shown:
            artist.set_visible(best)
        numbers: dict[str, float | str] = {
            "your " + FORWARD: float(forward_kl(mu, log_sigma, d)),
            "your " + REVERSE: float(reverse_kl(mu, log_sigma, d)),
        }
        if best:
            numbers["lowest " + FORWARD] = float(forward_kl(*covers, d))
            numbers["lowest " + REVERSE] = float(reverse_kl(*chooses[0], d))
            for m, s in chooses[1:]:
                numbers["its other valley"] = float(reverse_kl(m, s, d))
        return numbers

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"Your Gaussian over two humps: the forward divergence is {numbers['your ' + FORWARD]:.2f} nats and the "
            f"reverse one {numbers['your ' + REVERSE]:.2f}."
        )


def _normal(x: np.ndarray, mu: float, log_sigma: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mu) / math.exp(log_sigma)) ** 2 - log_sigma - 0.5 * LOG_2PI)


def gap(log_joint: Any, mine: float | None = None) -> Figure:
    """The bound at one point x with two causes, against q(k = 1): ``log_joint`` is log p(x, k), two numbers in nats."""
    joint = np.asarray(log_joint, float)
    log_p = float(logsumexp(joint))
    posterior = float(np.exp(joint[0] - log_p))

    def elbo(q: Any) -> np.ndarray:
        q = np.stack((np.asarray(q), 1 - np.asarray(q)), -1)
        return (q * (joint - np.log(q))).sum(-1)

    q = np.linspace(1e-4, 1 - 1e-4, 400)
    figure = Figure(figsize=(6.6, 3.2), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), "one point x, every possible q", "q(k = 1)", "nats")
    axes.axhline(log_p, color=COLORS["model"], lw=2, label="log p(x)")
    axes.plot(q, elbo(q), color=COLORS["latent"], lw=2.5, label="the bound")
    axes.plot(posterior, log_p, "o", ms=10, color=COLORS["accent"], mec="black", label="q = p(k | x)")
    if mine is not None:
        at = min(max(float(mine), 1e-4), 1 - 1e-4)
        below = float(elbo(at))
        axes.plot([at, at], [below, log_p], color="black", lw=2.5, label=f"your gap: {log_p - below:.3f} nats")
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, fontsize=8)
    return figure
