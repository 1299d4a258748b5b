"""Gaussian mixtures as pictures: Bayes' rule, EM half-step by half-step, and a component that collapses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from torch import Generator, Tensor

from flowlab.densities.mixtures import EMGaussianMixture
from flowlab.lessons.base.picture import Picture
from flowlab.lessons.gaussian_mixtures_and_em.toys import (
    GROUPS,
    HEIGHTS,
    POINTS,
    POWERS,
    SCENES,
    WEIGHTS,
    HalfStep,
    collapse,
    data_of,
    labelled_people,
    people,
    run,
)
from flowlab.plotting.plane import plane
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, COMPONENT_MARKERS, DENSITY, tidy

PALETTE = np.array([to_rgb(color) for color in COMPONENT_COLORS])
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 61)) for f in (np.cos, np.sin)])  # (2, 61)


def outline(mean: Tensor, covariance: Tensor, deviations: float = 2.0) -> np.ndarray:
    """The ellipse (x − μ)ᵀ Σ⁻¹ (x − μ) = deviations²: ``(2, 61)``."""
    L = torch.linalg.cholesky(covariance).numpy()
    return np.asarray(mean.detach())[:, None] + deviations * L @ CIRCLE


BETWEEN = LinearSegmentedColormap.from_list("between", [COMPONENT_COLORS[0], "#FFFFFF", COMPONENT_COLORS[1]])
KNOWN = {"height and weight": (0, 1), "height only": (0,), "weight only": (1,)}
CROWD = 240


class PriorAndEvidence(Picture):
    """Left, the two groups and who would be called a rower; right, Bayes' rule for the marked person as three bars."""

    def __init__(self) -> None:
        super().__init__(9.6, 4.1)
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1, 1.05))
        tidy(self.left, "the shade is the posterior, the line is where it is ½", "height (cm)", "weight (kg)")
        self.left.set(xlim=HEIGHTS, ylim=WEIGHTS)
        groups = people()
        self.groups = {
            known: [
                torch.distributions.MultivariateNormal(m[list(axes)], S[list(axes)][:, list(axes)])
                for m, S in zip(groups.means.detach(), groups.covariances, strict=True)
            ]
            for known, axes in KNOWN.items()
        }
        self.grid = plane((*HEIGHTS, *WEIGHTS), 90).double()
        # The same crowd for every prior: who has a low number is a rower first.
        g = Generator().manual_seed(3)
        self.rank = torch.rand(CROWD, generator=g)
        self.crowd = [labelled_people(CROWD, seed, rowers=float(seed))[0] for seed in (0, 1)]
        many = [labelled_people(4000, 10 + k, rowers=float(k))[0] for k in (0, 1)]
        self.evidence = {known: self._evidence(known, self.grid) for known in KNOWN}
        self.judged = {known: [self._evidence(known, x) for x in many] for known in KNOWN}
        self.image = self.left.imshow(
            np.zeros((90, 90)),
            origin="lower",
            extent=(*HEIGHTS, *WEIGHTS),
            cmap=BETWEEN,
            vmin=0,
            vmax=1,
            alpha=0.45,
            aspect="auto",
            interpolation="nearest",
        )
        self.dots = [
            self.left.plot([], [], m, ms=4, color=c, mec="white", mew=0.3, label=name)[0]
            for c, m, name in zip(COMPONENT_COLORS, COMPONENT_MARKERS, GROUPS, strict=False)
        ]
        self.boundary = [self.left.plot([], [], color=COLORS["truth"], lw=1.8)[0] for _ in range(2)]
        self.person = self.left.plot([], [], "*", ms=17, color=COLORS["accent"], mec="black", label="the person")[0]
        # Below the frame: inside, the image, which moves, would be drawn over it.
        self.left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=8, frameon=False)
        tidy(self.right).set(xlim=(0, 1), ylim=(-0.75, 3.1))
        self.right.set_axis_off()
        rows = (
            "prior: share of the group",
            "density of this person in each group, as shares",
            "posterior: both, as shares",
        )
        self.bars, self.shares = [], []
        for row, name in enumerate(rows):
            y = 2 - row
            self.right.text(0.0, y + 0.66, name, fontsize=10)
            self.bars.append([self.right.barh([y + 0.3], [0], 0.5, color=c)[0] for c in COMPONENT_COLORS[:2]])
            side = {"va": "center", "fontsize": 10, "fontweight": "bold", "color": "white"}
            self.shares.append(
                [self.right.text(at, y + 0.3, "", ha=ha, **side) for at, ha in ((0.01, "left"), (0.99, "right"))]
            )
        self.odds = self.right.text(0.0, -0.35, "", fontsize=10)
        self.moves(self.image, *self.dots, *self.boundary, self.person, self.odds)
        self.moves(*(b for pair in self.bars for b in pair), *(t for pair in self.shares for t in pair))

    def place_of_prediction(self, value: float) -> tuple[Axes, tuple[float, float], tuple[float, float]]:
        """A posterior share of rowers, across its bar, whose right part is theirs."""
        rowers = min(max(value, 0.0), 1.0)
        return self.right, (1 - rowers, 1 - rowers), (-0.02, 0.62)

    @torch.no_grad()
    def update(self, prior: float, height: float, weight: float, known: str) -> dict[str, float | str]:
        log_prior = math.log(prior / (1 - prior))
        log_odds = self.evidence[known] + log_prior
        self.image.set_data(torch.sigmoid(log_odds).numpy())
        x, y = self.grid[0, :, 0].numpy(), self.grid[:, 0, 1].numpy()
        lines = contour_generator(x, y, log_odds.numpy()).lines(0.0)
        for i, line in enumerate(self.boundary):
            line.set_data(*(lines[i].T if i < len(lines) else ((), ())))
        rower = self.rank < prior
        for dots, crowd, chosen in zip(self.dots, self.crowd, (~rower, rower), strict=True):
            dots.set_data(*crowd[chosen].T.numpy())
        self.person.set_data([height], [weight])
        evidence = float(self._evidence(known, torch.tensor([height, weight], dtype=torch.float64)))
        shares = [1 / (1 + math.exp(-v)) for v in (log_prior, evidence, log_prior + evidence)]
        for (a, b), texts, share in zip(self.bars, self.shares, shares, strict=True):
            a.set_width(1 - share)
            b.set(x=1 - share, width=share)
            for text, name, part in zip(texts, GROUPS, (1 - share, share), strict=True):
                text.set_text(f"{name} {100 * part:.1f} %" if part > 0.3 else "")
        self.odds.set_text(
            f"log-odds: prior {log_prior:+.2f}  + evidence {evidence:+.2f}  =  {log_prior + evidence:+.2f}"
        )
        wrong = [float((e > -log_prior).double().mean()) for e in self.judged[known]]
        return {
            "posterior of rower": shares[2],
            "log-odds of the prior": log_prior,
            "of the evidence": evidence,
            "wrong calls in the crowd": f"{100 * ((1 - prior) * wrong[0] + prior * (1 - wrong[1])):.2f} %",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"Two groups of people by height and weight. The marked person is a rower with probability "
            f"{numbers['posterior of rower']:.2f}, and {numbers['wrong calls in the crowd']} of all are called wrong."
        )

    def _evidence(self, known: str, x: Tensor) -> Tensor:
        """log N(x; rowers) − log N(x; runners), from what is known of a person: ``(..., 2)`` to ``(...)``."""
        runner, rower = self.groups[known]
        x = x[..., list(KNOWN[known])]
        return rower.log_prob(x) - runner.log_prob(x)


HALF_STEPS = 40
GAPS = (1e-5, 2.0)  # nats


class HalfSteps(Picture):
    """Left, points colored by responsibility, and components as ellipses; right, bound, log-likelihood and their gap.

    Even half-steps end an M-step (0 is the start), odd ones an E-step.
    """

    def __init__(self) -> None:
        super().__init__(10.0, 4.3)
        panels = self.figure.subplot_mosaic([["left", "right"], ["left", "below"]], height_ratios=(2.2, 1))
        self.left, self.right, self.below = (panels[name] for name in ("left", "right", "below"))
        tidy(self.left, "color: who takes responsibility; ellipses: 2 standard deviations")
        tidy(self.right, "what each half-step raises", "", "nats a point")
        tidy(self.below, "", "half-step: odd ends an E-step, even an M-step", "gap, nats")
        for axes in (self.right, self.below):
            axes.set_xlim(-1, HALF_STEPS + 1)
        self.below.set(yscale="log", ylim=GAPS)
        self.dots = self.left.scatter(np.zeros(POINTS), np.zeros(POINTS), s=14, linewidths=0)
        self.ellipses = [self.left.plot([], [], color=c, lw=2)[0] for c in COMPONENT_COLORS[:8]]
        self.centers = [
            self.left.plot([], [], m, ms=10, color=c, mec="white", mew=1.2)[0]
            for c, m in zip(COMPONENT_COLORS[:8], COMPONENT_MARKERS, strict=False)
        ]
        marks = [MarkerStyle(m) for m in COMPONENT_MARKERS]
        self.marks = np.array([m.get_path().transformed(m.get_transform()) for m in marks], dtype=object)
        line, touch = {"color": COLORS["model"], "lw": 2}, {"color": COLORS["accent"], "ms": 5, "lw": 1.2}
        self.likelihood = self.right.plot([], [], label="log-likelihood, log p(x; θ)", drawstyle="steps-post", **line)[
            0
        ]
        self.bound = self.right.plot([], [], "o-", label="bound F(r, θ)", **touch)[0]
        self.exact = self.right.plot(
            [-1, HALF_STEPS + 1], [0, 0], "--", color=COLORS["truth"], lw=1, label="exact density"
        )[0]
        self.here = self.right.plot([], [], "o", ms=11, mfc="none", mec="black", mew=1.6)[0]
        self.gap = self.below.vlines([], [], [], color=COLORS["truth"], lw=2)
        self.step_name = self.right.text(0.02, 0.04, "", transform=self.right.transAxes, fontsize=10, weight="bold")
        self.right.legend(loc="lower right", fontsize=8, frameon=False)
        self.moves(self.dots, *self.ellipses, *self.centers, self.likelihood, self.bound, self.gap, self.here)
        self.moves(self.step_name)
        self.shown: str | None = None

    def update(
        self, half_step: int, components: int, seed: int, data: str, start: str, kind: str
    ) -> dict[str, float | str]:
        scene, course = SCENES[data], run(data, components, seed, start, kind == "hard")
        now = course[half_step]
        if data != self.shown:
            self.left.set(xlim=scene.frame[:2], ylim=scene.frame[2:], xlabel=scene.names[0], ylabel=scene.names[1])
            self.right.set_ylim(scene.nats)
            self.dots.set_offsets(course.x.numpy())
            self.exact.set_ydata([float(data_of(data)[2].mean())] * 2)
            self.redraw_all()
            self.shown = data
        if now.responsibilities is None:
            self.dots.set(facecolors=COLORS["muted"], paths=self.marks[:1])
        else:
            r = now.responsibilities.numpy()
            self.dots.set(facecolors=r @ PALETTE[:components], paths=self.marks[r.argmax(-1)])
        for k, (ellipse, center) in enumerate(zip(self.ellipses, self.centers, strict=True)):
            alive = k < components
            ellipse.set_data(*(outline(now.means[k], now.covariances[k]) if alive else ((), ())))
            center.set_data(*(now.means[k, :, None].numpy() if alive else ((), ())))
        past = course.past[: half_step + 1]
        self._trace(past, scene.nats[0])
        name = "the start" if half_step == 0 else f"{'E' if half_step % 2 else 'M'}-step {(half_step + 1) // 2}"
        self.step_name.set_text(name)
        numbers: dict[str, float | str] = {"after": name, "log-likelihood": now.log_likelihood}
        if half_step:
            change = now.log_likelihood - past[-2].log_likelihood
            numbers |= {
                "change": f"{change:+.4f}" if half_step % 2 == 0 else "0",
                "bound": now.bound,
                "gap": abs(now.log_likelihood - now.bound),
            }
        return numbers | {"nats to the truth, held out": now.to_the_truth}

    def _trace(self, past: list[HalfStep], lowest: float) -> None:
        """The two curves up to here, what is below the frame drawn on its edge, and a bar for each gap."""
        halves = range(len(past))
        likelihood = np.maximum([step.log_likelihood for step in past], lowest)
        self.likelihood.set_data(halves, likelihood)
        self.bound.set_data(halves, np.maximum([step.bound for step in past], lowest))
        self.here.set_data(halves[-1:], likelihood[-1:])
        gaps = (max(step.log_likelihood - step.bound, GAPS[0]) for step in past[1:])
        self.gap.set_segments([[(half, GAPS[0]), (half, gap)] for half, gap in enumerate(gaps, 1)])

    def describe(self, numbers: dict[str, float | str]) -> str:
        gap = f", {numbers['gap']:.3f} above the bound" if "gap" in numbers else ""
        return (
            f"Points colored by the component that is responsible for them, after {numbers['after']}: the "
            f"log-likelihood is {numbers['log-likelihood']:.3f} nats a point{gap}."
        )


CROWDS = (30, 60, 200)
PERSONS = 8  # whom one can shrink onto
NATS = (-9.0, -4.4)


class Needle(Picture):
    """Left, one component on a person, the other as EM fits it then; right, three curves in nats against its σ."""

    def __init__(self) -> None:
        super().__init__(10.0, 4.3)
        self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1, 1.25))
        for person in range(1, PERSONS + 1):  # now, so that the slider need not wait
            collapse(CROWDS[0], person)
        tidy(self.left, "p(x), and both components at 2σ", "height (cm)", "weight (kg)")
        self.left.set(xlim=HEIGHTS, ylim=WEIGHTS)
        tidy(
            self.right,
            "how good is that fit?",
            "σ of the small component, shrinking to the right (1 Å: an atom)",
            "nats a point",
        )
        self.right.set(xlim=(13, 10**-12.7), ylim=NATS, xscale="log")
        ticks = [0, -2, -4, -6, -8, -10, -12]
        self.right.set_xticks([10.0**t for t in ticks], ["1 cm", "0.1 mm", "1 μm", "10 nm", "1 Å", "1 pm", "10 fm"])
        self.grid = plane((*HEIGHTS, *WEIGHTS), 70).double()
        frame = {
            "origin": "lower",
            "extent": (*HEIGHTS, *WEIGHTS),
            "cmap": DENSITY,
            "aspect": "auto",
            "interpolation": "bilinear",
        }
        top = float(people().log_prob(self.grid).max().exp())
        self.image = self.left.imshow(np.zeros((70, 70)), vmin=0, vmax=top, alpha=0.7, **frame)
        self.dots = self.left.plot([], [], "o", ms=4, color=COLORS["data"], alpha=0.7, mew=0)[0]
        self.large = self.left.plot([], [], color=COMPONENT_COLORS[2], lw=2)[0]
        self.small = self.left.plot([], [], color=COMPONENT_COLORS[3], lw=2)[0]
        self.person = self.left.plot([], [], "*", ms=13, color=COLORS["accent"], mec="black")[0]
        plot = self.right.plot
        self.curves = {
            "training": plot([], [], color=COLORS["model"], lw=2.2, label="training: log p(x; θ)")[0],
            "held_out": plot([], [], "-.", color=COLORS["validation"], lw=2, label="1,000 new people")[0],
            "penalized": plot([], [], ":", color=COLORS["truth"], lw=2, label="training + log p(θ)/N, with a prior")[0],
        }
        self.sensible = [
            plot([], [], "--", color=self.curves[name].get_color(), lw=1, label=label)[0]
            for name, label in (
                ("training", "training, the sensible fit"),
                ("held_out", "new people, the sensible fit"),
            )
        ]
        self.now = plot([], [], color=COLORS["muted"], lw=1, zorder=1)[0]
        self.marks = [
            plot([], [], m, ms=9, color=self.curves[name].get_color(), mec="black")[0]
            for name, m in (("training", "o"), ("held_out", "s"))
        ]
        self.right.legend(loc="upper left", fontsize=8, frameon=False)
        self.moves(self.image, self.dots, self.large, self.small, self.person, *self.curves.values())
        self.moves(*self.sensible)
        self.moves(self.now, *self.marks)

    def update(self, shrink: float, person: int, crowd: int) -> dict[str, float | str]:
        found = collapse(crowd, person)
        i = int(np.abs(POWERS + shrink).argmin())
        sigma = 10.0 ** POWERS[i]
        mixture = EMGaussianMixture(
            torch.stack((found.means[i], found.at)),
            torch.stack((found.covariances[i], sigma**2 * torch.eye(2, dtype=torch.float64))),
            weights=torch.stack((1 - found.share[i], found.share[i])),
            floor=0.0,
        )
        with torch.no_grad():
            self.image.set_data(mixture.log_prob(self.grid).exp().numpy())
            height = float(mixture.log_prob(found.at[None])) / math.log(10)
        self.dots.set_data(*found.x.T.numpy())
        self.person.set_data(*found.at[:, None].numpy())
        self.large.set_data(*outline(found.means[i], found.covariances[i]))
        self.small.set_data(*outline(found.at, mixture.covariances[1]))
        sigmas = 10.0**POWERS
        for name, curve in self.curves.items():
            curve.set_data(sigmas, getattr(found, name).numpy().clip(NATS[0] - 1))
        for line, value in zip(self.sensible, found.sensible, strict=True):
            line.set_data(sigmas[[0, -1]], [value] * 2)
        self.now.set_data([sigma] * 2, NATS)
        values = float(found.training[i]), float(found.held_out[i])
        for mark, value in zip(self.marks, values, strict=True):
            mark.set_data([sigma], [value])
        return {
            "σ": f"{sigma:.1e} cm",
            "training": values[0],
            "ahead of the sensible fit": values[0] - found.sensible[0],
            "new people": values[1],
            "ahead there": values[1] - found.sensible[1],
            "density at the person": f"10^{height:.0f}",
        }

    def describe(self, numbers: dict[str, float | str]) -> str:
        return (
            f"One Gaussian sits on one person with σ = {numbers['σ']}: the log-likelihood in training is "
            f"{numbers['training']:.2f} nats a point, and that of new people {numbers['new people']:.2f}."
        )


def fits(x: Tensor, mixtures: Mapping[str, EMGaussianMixture], names: tuple[str, str] = ("x₁", "x₂")) -> Figure:
    """Each mixture on the same points, a panel each: points by likeliest component, components at 2 deviations."""
    figure = Figure(figsize=(2.9 * len(mixtures), 3.0), dpi=80, layout="constrained")
    panels = figure.subplots(1, len(mixtures), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, mixture) in zip(panels, mixtures.items(), strict=True):
        _fit(tidy(axes, title, names[0]), x, mixture)
    panels[0].set_ylabel(names[1])
    figure.set_label(
        "The same points in each panel, colored by their likeliest component, and the components as ellipses of two "
        f"standard deviations: {'; '.join(mixtures)}."
    )
    return figure


def _fit(axes: Axes, x: Tensor, mixture: EMGaussianMixture) -> None:
    r = mixture.expectation(x)
    k = r.argmax(-1)
    for j in range(len(mixture.means)):
        color, marker = COMPONENT_COLORS[j % 10], COMPONENT_MARKERS[j % 10]
        axes.scatter(*x[k == j].T, s=12, color=color, marker=marker, alpha=0.5, linewidths=0)
        axes.plot(*outline(mixture.means[j], mixture.covariances[j]), color=color, lw=2)


def choosing(components: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Curves in nats a point against the number of components; the best of each is ringed."""
    figure = Figure(figsize=(6.4, 3.0), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), "", "number of components K", "nats a point, higher is better")
    colors = (COLORS["model"], COLORS["validation"], COLORS["truth"])
    for (name, values), color, style in zip(curves.items(), colors, ("-o", "-.s", ":^"), strict=False):
        axes.plot(components, values, style, color=color, ms=4, label=name)
        best = int(np.argmax(values))
        axes.plot(components[best], values[best], "o", ms=12, mfc="none", mec="black")
    axes.legend(frameon=False, fontsize=8)
    tops = (f"{name} is best at {components[int(np.argmax(values))]}" for name, values in curves.items())
    figure.set_label(f"Nats a point against the number of components: {'; '.join(tops)}.")
    return figure
