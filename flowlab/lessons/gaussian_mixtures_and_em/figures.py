"""Gaussian mixtures as pictures: Bayes' rule, EM half-step by half-step, and a component that collapses."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from torch import Generator, Tensor

from flowlab.datasets import EightGaussians, Pinwheel
from flowlab.densities.mixtures import GaussianMixture, Prior
from flowlab.lessons.base.picture import Picture
from flowlab.plotting.plane import plane
from flowlab.plotting.style import COLORS, COMPONENT_COLORS, COMPONENT_MARKERS, DENSITY, tidy

GROUPS = ("runners", "rowers")
HEIGHTS, WEIGHTS = (150.0, 210.0), (45.0, 112.0)  # cm and kg: the frame of every picture of people
PALETTE = np.array([to_rgb(color) for color in COMPONENT_COLORS])
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 61)) for f in (np.cos, np.sin)])  # (2, 61)


def people(rowers: float = 0.5) -> GaussianMixture:
    """Heights (cm) and weights (kg) of two groups: p(x) = (1 − rowers) N(x; μ₀, Σ₀) + rowers N(x; μ₁, Σ₁).

    The numbers are those of Stypułkowski, Zięba and Zamorski's slides, "Introduction to flow-based models"; the names
    of the groups and the units are ours.
    """
    means = torch.tensor([[176.00, 64.86], [184.29, 91.14]])
    covariances = torch.tensor([[[49.67, 17.29], [17.29, 17.13]], [[29.57, 13.39], [13.39, 31.14]]])
    return GaussianMixture(means, covariances, weights=torch.tensor([1 - rowers, rowers]))


def labelled_people(n: int, seed: int = 0, rowers: float = 0.5) -> tuple[Tensor, Tensor]:
    """n people ``(n, 2)`` and the group of each ``(n,)``: 0 for a runner, 1 for a rower."""
    g, groups = Generator().manual_seed(seed), people()
    label = (torch.rand(n, generator=g) < rowers).long()
    e = torch.randn(n, 2, 1, generator=g, dtype=torch.float64)
    return groups.means[label] + (torch.linalg.cholesky(groups.covariances)[label] @ e).squeeze(-1), label


def clouds() -> GaussianMixture:
    """Three Gaussians that overlap, of different sizes, weights and directions."""
    means = torch.tensor([[-1.3, -0.4], [1.2, -0.6], [0.2, 1.5]])
    covariances = torch.tensor([[[0.8, 0.5], [0.5, 0.6]], [[0.5, -0.2], [-0.2, 0.7]], [[0.9, 0.0], [0.0, 0.25]]])
    return GaussianMixture(means, covariances, weights=torch.tensor([0.5, 0.3, 0.2]))


def outline(mean: Tensor, covariance: Tensor, deviations: float = 2.0) -> np.ndarray:
    """The ellipse (x − μ)ᵀ Σ⁻¹ (x − μ) = deviations²: ``(2, 61)``."""
    L = torch.linalg.cholesky(covariance).numpy()
    return np.asarray(mean.detach())[:, None] + deviations * L @ CIRCLE


# --- Bayes' rule -----------------------------------------------------------------------------------------------------

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


# --- EM by hand ------------------------------------------------------------------------------------------------------

POINTS, HELD_OUT = 400, 2000
HALF_STEPS = 40
GAPS = (1e-5, 2.0)  # nats


class Scene(NamedTuple):
    """A data set of the explorer: its exact density, the frame of its picture, and of its curve in nats."""

    density: Any
    frame: tuple[float, float, float, float]
    nats: tuple[float, float]
    names: tuple[str, str] = ("x₁", "x₂")


SCENES = {
    "three clouds": Scene(clouds(), (-4.2, 3.8, -3.6, 3.4), (-3.75, -2.8)),
    "heights and weights": Scene(people(), (*HEIGHTS, *WEIGHTS), (-7.7, -6.6), ("height (cm)", "weight (kg)")),
    "eight islands": Scene(EightGaussians(), (-3.2, 3.2, -3.2, 3.2), (-4.3, -1.6)),
    "pinwheel": Scene(Pinwheel(), (-4.2, 4.2, -4.2, 4.2), (-4.2, -1.5)),
}


class HalfStep(NamedTuple):
    """Where EM stands after a half-step: responsibilities of the last E-step (None at the start), parameters, nats."""

    responsibilities: Tensor | None
    weights: Tensor
    means: Tensor
    covariances: Tensor
    bound: float  # NaN at the start
    log_likelihood: float
    to_the_truth: float


class Run:
    """EM from one start, each half-step computed once, when it is first asked for."""

    def __init__(self, data: str, components: int, seed: int, how: str, hard: bool) -> None:
        self.x, self.held_out, _, self.log_p = _points(data)
        self.hard = hard
        # A floor of 1e-4 of the spread: the explorer is about the steps; collapse has an explorer of its own.
        floor = 1e-4 * float(self.x.var(0).mean())
        generator = Generator().manual_seed(seed)
        self.mixture = GaussianMixture.start(self.x, components, how=how, generator=generator, floor=floor)
        self.past = [self._look(None)]

    def __getitem__(self, half: int) -> HalfStep:
        while len(self.past) <= half:
            r = self.past[-1].responsibilities
            if len(self.past) % 2:  # E
                r = self.mixture.expectation(self.x, hard=self.hard)
            else:
                self.mixture.maximization(self.x, r)
            self.past.append(self._look(r))
        return self.past[half]

    @torch.no_grad()
    def _look(self, r: Tensor | None) -> HalfStep:
        m, before = self.mixture, self.past[-1] if r is not None else None
        bound = math.nan if r is None else m.bound(self.x, r)
        if r is not None and len(self.past) % 2:  # E moves no parameter
            return before._replace(responsibilities=r, bound=bound)
        gauge = float((self.log_p - m.log_prob(self.held_out)).mean())
        where = m.weights, m.means.detach().clone(), m.covariances
        return HalfStep(r, *where, bound, float(m.log_prob(self.x).mean()), gauge)


@functools.lru_cache
def _points(data: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The points to fit, held-out ones, and the exact log-density of both."""
    density = SCENES[data].density
    x, held_out = (
        density.sample(n, Generator().manual_seed(seed)).double() for n, seed in ((POINTS, 0), (HELD_OUT, 1))
    )
    with torch.no_grad():
        return x, held_out, density.log_prob(x), density.log_prob(held_out)


@functools.lru_cache(maxsize=256)
def run(data: str, components: int, seed: int, how: str, hard: bool) -> Run:
    """EM on a data set of the explorer; the same arguments give the same run, kept."""
    return Run(data, components, seed, how, hard)


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
            self.exact.set_ydata([float(_points(data)[2].mean())] * 2)
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


# --- A component that collapses --------------------------------------------------------------------------------------

POWERS = np.round(np.linspace(1.0, -12.0, 66), 1)  # log₁₀ σ
CROWDS = (30, 60, 200)
PERSONS = 8  # whom one can shrink onto
NEW_PEOPLE = 1000
SCORES = (-9.0, -4.4)


class Collapse(NamedTuple):
    """For each σ of POWERS: the other component as EM fits it, the small one's weight, and three scores in nats."""

    x: Tensor  # (N, 2)
    at: Tensor  # (2,)
    means: Tensor  # (S, 2)
    covariances: Tensor  # (S, 2, 2)
    share: Tensor  # (S,)
    training: Tensor  # (S,)
    held_out: Tensor  # (S,)
    penalized: Tensor  # (S,): training + log p(θ)/N, the other component fitted to that, up to a constant
    sensible: tuple[float, float]  # training and held-out nats of the fit that EM finds from the true parameters


@functools.lru_cache
def collapse(crowd: int, person: int) -> Collapse:
    """Hold one component on a person with covariance σ²I, fit all else by EM, for every σ at once.

    The other component starts once on the other group and once on everybody; the better of the two is kept.
    """
    (x, label), (held_out, _) = labelled_people(crowd, 5), labelled_people(NEW_PEOPLE, 6)
    at, truth = x[person - 1], people()
    other = int(1 - label[person - 1])
    sigma = torch.as_tensor(10.0**POWERS)[:, None]  # (S, 1)
    prior = Prior.weak(x, 2)
    power = 0.5 * (prior.degrees + 3)  # of |Σ| in the prior, for D = 2

    def small(points: Tensor) -> Tensor:
        return -0.5 * ((points - at) ** 2).sum(-1) / sigma**2 - 2 * sigma.log() - math.log(2 * math.pi)  # (S, N)

    def large(points: Tensor, mu: Tensor, S: Tensor) -> Tensor:
        L = torch.linalg.cholesky(S)
        e = torch.linalg.solve_triangular(L, (points - mu[..., None, :]).mT, upper=False)  # (..., S, 2, N)
        return -0.5 * (e * e).sum(-2) - L.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True) - math.log(2 * math.pi)

    def score(points: Tensor, mu: Tensor, S: Tensor, share: Tensor) -> Tensor:
        return torch.logaddexp(share.log() + small(points), (-share).log1p() + large(points, mu, S)).mean(-1)

    def log_prior(S: Tensor) -> Tensor:
        return -power * torch.logdet(S) - 0.5 * torch.linalg.inv(S).mul(prior.scale).sum((-2, -1))

    # All fits in one batch: without and with the prior, two starts, every σ.
    shape = (2, 2, len(sigma))
    mu = torch.stack((truth.means[other].detach(), x.mean(0)))[:, None].expand(*shape, 2)
    S = torch.stack((truth.covariances[other], x.T.cov(correction=0)))[:, None].expand(*shape, 2, 2)
    share = torch.tensor([0.5, 1 / crowd], dtype=x.dtype)[:, None, None].expand(*shape, 1)
    psi = torch.stack((torch.zeros_like(prior.scale), prior.scale))[:, None, None]  # (2, 1, 1, 2, 2)
    extra = torch.tensor([0.0, 2 * power], dtype=x.dtype)[:, None, None, None]
    for _ in range(40):
        r = torch.sigmoid(torch.logit(share) + small(x) - large(x, mu, S))  # (2, 2, S, N)
        w = 1 - r
        N = w.sum(-1, keepdim=True)
        mu = w @ x / N
        e = x - mu[..., None, :]
        S = (psi + (w[..., None] * e).mT @ e) / (N + extra)[..., None]
        share = r.mean(-1, keepdim=True)
    scores = score(x, mu, S, share)  # (2, 2, S)
    needle = -4 * power * sigma[:, 0].log() - 0.5 * prior.scale.trace() / sigma[:, 0] ** 2
    penalized = (scores[1] + (log_prior(S[1]) + needle) / crowd).amax(0)
    k, every = scores[0].argmax(0), torch.arange(len(sigma))
    training, mu, S, share = (value[0, k, every] for value in (scores, mu, S, share))
    # log p(θ) has a constant that nobody needs: choose it so that the two curves meet at the top of the penalized one.
    top = penalized.argmax()
    penalized = penalized - penalized[top] + training[top]
    *_, good = truth.run(x)
    sensible = good, truth.objective(held_out)
    return Collapse(x, at, mu, S, share[:, 0], training, score(held_out, mu, S, share), penalized, sensible)


class Needle(Picture):
    """Left, one component on a person, the other as EM fits it then; right, three scores against the small one's σ."""

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
        self.right.set(xlim=(13, 10**-12.7), ylim=SCORES, xscale="log")
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
        mixture = GaussianMixture(
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
            curve.set_data(sigmas, getattr(found, name).numpy().clip(SCORES[0] - 1))
        for line, value in zip(self.sensible, found.sensible, strict=True):
            line.set_data(sigmas[[0, -1]], [value] * 2)
        self.now.set_data([sigma] * 2, SCORES)
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
            f"One Gaussian sits on one person with σ = {numbers['σ']}: the training score is {numbers['training']:.2f} "
            f"nats a point, that on new people {numbers['new people']:.2f}."
        )


# --- Figures ---------------------------------------------------------------------------------------------------------


def fits(x: Tensor, mixtures: Mapping[str, GaussianMixture], names: tuple[str, str] = ("x₁", "x₂")) -> Figure:
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


def _fit(axes: Axes, x: Tensor, mixture: GaussianMixture) -> None:
    r = mixture.expectation(x)
    k = r.argmax(-1)
    for j in range(len(mixture.means)):
        color, marker = COMPONENT_COLORS[j % 10], COMPONENT_MARKERS[j % 10]
        axes.scatter(*x[k == j].T, s=12, color=color, marker=marker, alpha=0.5, linewidths=0)
        axes.plot(*outline(mixture.means[j], mixture.covariances[j]), color=color, lw=2)


def choosing(components: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Scores in nats a point against the number of components; the best of each is ringed."""
    figure = Figure(figsize=(6.4, 3.0), dpi=80, layout="constrained")
    axes = tidy(figure.subplots(), "", "number of components K", "nats a point, higher is better")
    colors = (COLORS["model"], COLORS["validation"], COLORS["truth"])
    for (name, values), color, style in zip(curves.items(), colors, ("-o", "-.s", ":^"), strict=False):
        axes.plot(components, values, style, color=color, ms=4, label=name)
        best = int(np.argmax(values))
        axes.plot(components[best], values[best], "o", ms=12, mfc="none", mec="black")
    axes.legend(frameon=False, fontsize=8)
    tops = (f"{name} is best at {components[int(np.argmax(values))]}" for name, values in curves.items())
    figure.set_label(f"Scores in nats a point against the number of components: {'; '.join(tops)}.")
    return figure
