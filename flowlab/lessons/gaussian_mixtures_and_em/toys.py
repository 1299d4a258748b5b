"""People and clouds as Gaussian mixtures, EM half-step by half-step, and a component that collapses."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from flowlab.datasets import EightGaussians, Pinwheel
from flowlab.densities.mixtures import EMGaussianMixture, Prior

GROUPS = ("runners", "rowers")
HEIGHTS, WEIGHTS = (150.0, 210.0), (45.0, 112.0)  # cm and kg: the frame of every picture of people


def people(rowers: float = 0.5) -> EMGaussianMixture:
    """Heights (cm) and weights (kg) of two groups: p(x) = (1 − rowers) N(x; μ₀, Σ₀) + rowers N(x; μ₁, Σ₁).

    The numbers are those of Stypułkowski, Zięba and Zamorski's slides, "Introduction to flow-based models"; the names
    of the groups and the units are ours.
    """
    means = torch.tensor([[176.00, 64.86], [184.29, 91.14]])
    covariances = torch.tensor([[[49.67, 17.29], [17.29, 17.13]], [[29.57, 13.39], [13.39, 31.14]]])
    return EMGaussianMixture(means, covariances, weights=torch.tensor([1 - rowers, rowers]))


def labelled_people(n: int, seed: int = 0, rowers: float = 0.5) -> tuple[Tensor, Tensor]:
    """n people ``(n, 2)`` and the group of each ``(n,)``: 0 for a runner, 1 for a rower."""
    g, groups = Generator().manual_seed(seed), people()
    label = (torch.rand(n, generator=g) < rowers).long()
    e = torch.randn(n, 2, 1, generator=g, dtype=torch.float64)
    return groups.means[label] + (torch.linalg.cholesky(groups.covariances)[label] @ e).squeeze(-1), label


def clouds() -> EMGaussianMixture:
    """Three Gaussians that overlap, of different sizes, weights and directions."""
    means = torch.tensor([[-1.3, -0.4], [1.2, -0.6], [0.2, 1.5]])
    covariances = torch.tensor([[[0.8, 0.5], [0.5, 0.6]], [[0.5, -0.2], [-0.2, 0.7]], [[0.9, 0.0], [0.0, 0.25]]])
    return EMGaussianMixture(means, covariances, weights=torch.tensor([0.5, 0.3, 0.2]))


POINTS, HELD_OUT = 400, 2000


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
        self.x, self.held_out, _, self.log_p = data_of(data)
        self.hard = hard
        # A floor of 1e-4 of the variance: the explorer is about the steps; collapse has an explorer of its own.
        generator = Generator().manual_seed(seed)
        self.mixture = EMGaussianMixture.start(self.x, components, how=how, generator=generator, floor=1e-4)
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
def data_of(data: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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


POWERS = np.round(np.linspace(1.0, -12.0, 66), 1)  # log₁₀ σ
NEW_PEOPLE = 1000


class Collapse(NamedTuple):
    """For each σ of POWERS: the other component as EM fits it, the small one's weight, and how good each fit is."""

    x: Tensor  # (N, 2)
    at: Tensor  # (2,)
    means: Tensor  # (S, 2)
    covariances: Tensor  # (S, 2, 2)
    share: Tensor  # (S,)
    training: Tensor  # (S,): mean log p(x), in nats
    held_out: Tensor  # (S,): the same on new people
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

    def mean_log_p(points: Tensor, mu: Tensor, S: Tensor, share: Tensor) -> Tensor:
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
    reached = mean_log_p(x, mu, S, share)  # (2, 2, S)
    needle = -4 * power * sigma[:, 0].log() - 0.5 * prior.scale.trace() / sigma[:, 0] ** 2
    penalized = (reached[1] + (log_prior(S[1]) + needle) / crowd).amax(0)
    k, every = reached[0].argmax(0), torch.arange(len(sigma))
    training, mu, S, share = (value[0, k, every] for value in (reached, mu, S, share))
    # log p(θ) has a constant that nobody needs: choose it so that the two curves meet at the top of the penalized one.
    top = penalized.argmax()
    penalized = penalized - penalized[top] + training[top]
    *_, good = truth.run(x)
    sensible = good, truth.objective(held_out)
    return Collapse(x, at, mu, S, share[:, 0], training, mean_log_p(held_out, mu, S, share), penalized, sensible)
