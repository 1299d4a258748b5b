"""Mixtures of flows in the plane: ways to train them, compared on a pinwheel and on two circles.

The same from the command line: `flowlab experiment pinwheel --seeds 20`. The thesis is Pires, "Variational Mixture of
Normalizing Flows", chapter 5.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from flowlab import densities
from flowlab.datasets import Pinwheel, TwoCircles
from flowlab.densities.mixtures import (
    EMGaussianMixture,
    Interleaved,
    LatentGaussianMixture,
    Objective,
    consistent_posterior,
    falling_temperature,
)
from flowlab.models import flow_mixture, realnvp
from flowlab.studies.points import Points, PointStudy, PointTrial

# The thesis' pinwheel, as printed; and ours.
PRINTED: dict[str, Any] = {"epochs": 400, "batch_size": 512, "learning_rate": 1e-3, "schedule": "constant"}
OURS: dict[str, Any] = {"epochs": 400, "batch_size": 512, "learning_rate": 1e-2}


def consistent(points: Points, K: int, generator: Generator) -> PointTrial:
    """q first, from the shape of the data and from labels if any; each component to its share; then the ELBO."""
    mixture = flow_mixture(2, K, generator=generator)
    labelled = (points.labelled, points.labels) if len(points.labels) else None
    mixture.network = consistent_posterior(points.x, K, labelled=labelled, generator=generator)
    with torch.no_grad():
        shares = mixture.posterior(points.x)
    half = OURS["epochs"] * (len(points.x) // OURS["batch_size"]) // 2
    return PointTrial(
        mixture, points.x, {"objective": Interleaved(points.x, shares, Objective(distill=1.0), half, every=0), **OURS}
    )


def elbo(points: Points, K: int, generator: Generator) -> PointTrial:
    """The plain ELBO from a random start, same model and steps."""
    return PointTrial(flow_mixture(2, K, generator=generator), points.x, {"objective": Objective(), **OURS})


def em(points: Points, K: int, generator: Generator) -> PointTrial:
    """Generalized EM: each step's q is the exact posterior."""
    return PointTrial(
        flow_mixture(2, K, generator=generator), points.x, {"objective": Objective("em"), **OURS}, by_bayes=True
    )


def likelihood(points: Points, K: int, generator: Generator) -> PointTrial:
    """log p(x) itself. Its gradient is that of generalized EM (Fisher's identity), so its fits are too."""
    return PointTrial(
        flow_mixture(2, K, generator=generator), points.x, {"objective": Objective("likelihood"), **OURS}, by_bayes=True
    )


def warm(points: Points, K: int, generator: Generator) -> PointTrial:
    """300 steps toward the responsibilities of K Gaussians, then the ELBO."""
    gaussians = EMGaussianMixture.fit(points.x, K, restarts=10, generator=generator)
    start = Interleaved(points.x, gaussians.responsibilities(points.x).float(), Objective(), first=300, every=0)
    return PointTrial(flow_mixture(2, K, generator=generator), points.x, {"objective": start, **OURS})


def gaussians(points: Points, K: int, generator: Generator) -> PointTrial:
    """K Gaussians by EM, the best of ten starts: what curved wings do to it."""
    mixture = EMGaussianMixture.fit(points.x, K, restarts=10, generator=generator)
    return PointTrial(mixture, points.x, fitted=True, by_bayes=True)


def thesis_pinwheel(points: Points, K: int, generator: Generator) -> PointTrial:
    """The thesis' settings as printed: 8 couplings of width 8, q of 3 hidden units, falling temperature (5.1.1).

    Ours where nothing is printed: ReLUs, log-scales within ±2, couplings that start at the identity. And s and t share
    the layer of width 8, where the thesis may mean one for each.
    """
    mixture = flow_mixture(2, K, layers=8, hidden=(8,), activation="relu", posterior=(3,), generator=generator)
    return PointTrial(
        mixture, points.x, {"objective": Objective(temperature=falling_temperature(floor=0.01)), **PRINTED}
    )


PINWHEEL = PointStudy(
    name="pinwheel",
    about="Five bent wings without labels, 512 points each: which way of training finds them?",
    truth=Pinwheel(),
    size=5 * 512,
    variants={
        "consistent": consistent,
        "elbo": elbo,
        "em": em,
        "likelihood": likelihood,
        "warm": warm,
        "gaussians": gaussians,
        "thesis": thesis_pinwheel,
    },
    labelled={"consistent": consistent},
)


def thesis_circles(points: Points, K: int, generator: Generator) -> PointTrial:
    """As printed: 10 couplings of width 8, q of 2×16; labels, if any, have the first 300 steps alone (5.1.2).

    Then one step on the labels, an epoch of theirs, to eight on all points, an epoch of those: the 500 printed epochs
    are all steps here, the first 300 among them. The labelled points are some of the 1,024. As in ``thesis_pinwheel``
    for what is not printed; CIRCLES are drawn with more noise than the thesis' (0.05, not 0.005).
    """
    mixture = flow_mixture(2, K, layers=10, hidden=(8,), activation="relu", posterior=(16, 16), generator=generator)
    plain = Objective(temperature=falling_temperature(floor=0.01))
    settings = {"epochs": 500, "batch_size": 128, "learning_rate": 1e-3, "schedule": "constant"}
    if len(points.labels) == 0:
        return PointTrial(mixture, points.x, {"objective": plain, **settings})
    return PointTrial(mixture, points.x, {"objective": Interleaved(points.labelled, points.labels, plain), **settings})


def interleaved(points: Points, K: int, generator: Generator) -> PointTrial:
    """Labels alone first, then one step in nine on them among steps of the ELBO with consistency. Recommended."""
    mixture = flow_mixture(2, K, layers=10, generator=generator)
    plain = Objective(consistency=5.0, noise=0.05, distill=1.0)
    start = Interleaved(points.labelled, points.labels, plain)
    return PointTrial(mixture, points.x, {"objective": start, "epochs": 500, "batch_size": 256, "learning_rate": 1e-2})


def flowgmm(points: Points, K: int, generator: Generator) -> PointTrial:
    """One flow with K modes: log p(x, y) on the labels and log p(x) on all points (FlowGMM).

    The paper adds the two in each step. Here labels have the first 300 steps and then one in nine, as in the others.
    """
    angle = 2 * math.pi / K * torch.arange(K)
    base = densities.GaussianMixture(3 * torch.stack((angle.cos(), angle.sin()), -1))
    mixture = LatentGaussianMixture(
        realnvp(2, 12, hidden=(32,), activation="tanh", generator=generator).bijection, base
    )
    start = Interleaved(points.labelled, points.labels, Objective("likelihood"), classify=0.0)
    return PointTrial(mixture, points.x, {"objective": start, **OURS})


def short(points: Points, K: int, generator: Generator) -> PointTrial:
    """Walks so short that labels decide, and small steps: seconds, for the explorer. Without labels it halves."""
    mixture = flow_mixture(2, K, generator=generator)
    quick: dict[str, Any] = {"walk": 40, "starts": 1, "batch_size": 256, "learning_rate": 1e-2}
    labelled = (points.labelled, points.labels) if len(points.labels) else None
    mixture.network = consistent_posterior(points.x, K, labelled=labelled, generator=generator, **quick)
    with torch.no_grad():
        shares = mixture.posterior(points.x)
    start = Interleaved(points.x, shares, Objective(distill=1.0), first=400, every=0)
    return PointTrial(mixture, points.x, {"objective": start, "epochs": 200, "batch_size": 256, "learning_rate": 1e-2})


def pair(x: Tensor, y: Tensor, apart: float = 0.0, at: float = 0.8) -> Tensor:
    """Rows ``(2,)`` of the points nearest to angle ``at`` of the outer circle, and ``apart`` further on the inner."""
    angles = torch.tensor([at, at + apart])
    places = torch.tensor(TwoCircles().radii).unsqueeze(-1) * torch.stack((angles.cos(), angles.sin()), -1)
    distances = torch.cdist(places, x) + 9.0 * (y != torch.tensor([[0], [1]]))
    return distances.argmin(-1)


def label_sets(x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Some ways to label few of the points of two circles, by name: rows of x ``(M,)`` and their labels ``(M,)``."""

    def first(count: int) -> Tensor:
        return torch.cat([(y == k).nonzero()[:, 0][: -(-count // 2)] for k in (0, 1)]).sort().values[:count]

    many = {str(count): first(count) for count in (11, 32, 64)}
    rows = {"none": first(0), "two, side by side": pair(x, y), "two, opposite": pair(x, y, math.pi), **many}
    wrong = y[many["32"]].clone()
    wrong[0] = 1 - wrong[0]
    sets = {name: (r, y[r]) for name, r in rows.items()}
    return {**sets, "32, one wrong": (many["32"], wrong)}


CIRCLES = PointStudy(
    name="circles",
    about="Two rings, 512 points each: what do labels, and how many, do for a mixture of two flows?",
    truth=TwoCircles(noise=0.05),
    size=1024,
    variants={"elbo": elbo, "consistent": consistent, "thesis": thesis_circles},
    labelled={
        "consistent": consistent,
        "short": short,
        "interleaved": interleaved,
        "flowgmm": flowgmm,
        "thesis": thesis_circles,
    },
)
