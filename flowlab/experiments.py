"""The experiments on mixtures of flows: named recipes, run over seeds, scored against exact densities and true labels.

    trial = experiments.PINWHEEL.trial("consistent", seed=0)
    fit(trial.model, trial.x, **trial.settings)
    experiments.PINWHEEL.run("consistent", seed=0)       # fits and scores: one record

The same from the command line: `flowlab experiment pinwheel --seeds 20`. The thesis is Pires, "Variational Mixture of
Normalizing Flows", chapter 5.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from flowlab.datasets import Pinwheel, Toy, TwoCircles
from flowlab.metrics import accuracy, ari
from flowlab.mixtures import GaussianMixture, Interleaved, Objective, consistent_posterior, falling_temperature
from flowlab.models import flow_mixture
from flowlab.training import fit


class Points(NamedTuple):
    """What a recipe is given: points without labels ``(N, D)``, and few with them ``(M, D)``, ``(M,)`` (M may be 0)."""

    x: Tensor
    labelled: Tensor
    labels: Tensor


class Plan(NamedTuple):
    """A model, and the settings of ``training.fit`` that fit it; None for a model that is fitted already."""

    model: nn.Module
    settings: dict[str, Any] | None
    by_bayes: bool = False  # whether clusters are named by p(k | x), because no q was trained


class Trial(NamedTuple):
    """One seed of one recipe, before its training: ``fit(trial.model, trial.x, **trial.settings)``."""

    model: nn.Module
    x: Tensor
    settings: dict[str, Any] | None
    by_bayes: bool
    points: Points
    test: Tensor
    test_labels: Tensor


class Record(NamedTuple):
    """What one seed of one recipe gave: shares of 1, nats a point on fresh points, and seconds."""

    recipe: str
    seed: int
    accuracy: float  # after matching
    ari: float
    log_prob: float
    exact_log_prob: float
    seconds: float


Recipe = Callable[[Points, int, Generator], Plan]


@dataclass(frozen=True)
class Experiment:
    """A density with known labels, how many points of it are given, and the recipes tried on it.

    ``recipes`` need no labels; ``labelled_recipes`` need some. All take (points, K, generator).
    """

    truth: Toy
    size: int
    recipes: dict[str, Recipe]
    labelled_recipes: dict[str, Recipe]

    def trial(self, recipe: str, seed: int = 0, *, labels: int = 0, effort: float = 1.0) -> Trial:
        """Draw the points of a seed and build the recipe's model on them.

        Args:
            labels: how many points come with their label, as balanced as the number allows.
            effort: the share of the recipe's steps to take; below 1 only to try whether all works.

        Raises:
            ValueError: for a recipe that does not exist, or that needs labels where there are none.
        """
        known = self.labelled_recipes if labels else self.recipes
        if recipe not in known:
            raise ValueError(
                f"With {labels} labels the recipes are {', '.join(known) or 'none'}, but {recipe!r} was asked for."
            )
        if not 0 <= labels <= self.size or not 0 < effort <= 1:
            raise ValueError(f"Expected from 0 to {self.size} labels and an effort in (0, 1], got {labels}, {effort}.")
        generator = Generator().manual_seed(seed)
        x, y = self.truth.labelled(self.size, generator)
        test, test_labels = self.truth.labelled(self.size, generator)
        first = torch.cat([(y == k).nonzero()[:, 0][: -(-labels // self.truth.components)] for k in y.unique()])
        first = first.sort().values[:labels]
        points = Points(x, x[first], y[first])
        plan = known[recipe](points, self.truth.components, generator)
        settings = plan.settings
        if settings is not None:
            settings = {"seed": seed, **settings, "epochs": max(1, round(effort * settings["epochs"]))}
        return Trial(plan.model, x, settings, plan.by_bayes, points, test, test_labels)

    def run(
        self, recipe: str, seed: int = 0, *, labels: int = 0, effort: float = 1.0, progress: bool = False
    ) -> Record:
        """Fit one trial and score it on as many fresh points as it was given. Arguments and errors as ``trial``."""
        started = time.perf_counter()
        trial = self.trial(recipe, seed, labels=labels, effort=effort)
        if trial.settings is not None:
            fit(trial.model, trial.x, progress=progress, **trial.settings)
        seconds = time.perf_counter() - started
        return Record(recipe, seed, **self.score(trial), seconds=round(seconds, 2))

    @torch.no_grad()
    def score(self, trial: Trial) -> dict[str, float]:
        """Accuracy after matching, ARI and log-likelihood on the trial's fresh points, and the exact log-likelihood."""
        q = trial.model.responsibilities if trial.by_bayes else trial.model.posterior
        clusters = q(trial.test).argmax(-1)
        return {
            "accuracy": accuracy(trial.test_labels, clusters),
            "ari": ari(trial.test_labels, clusters),
            "log_prob": float(trial.model.log_prob(trial.test).mean()),
            "exact_log_prob": float(self.truth.log_prob(trial.test).mean()),
        }


# --- recipes ------------------------------------------------------------------------------------------------------

PRINTED = {"epochs": 400, "batch_size": 512, "learning_rate": 1e-3, "schedule": "constant"}  # the thesis' pinwheel
OURS = {"epochs": 400, "batch_size": 512, "learning_rate": 1e-2}


def consistent(points: Points, K: int, generator: Generator) -> Plan:
    """q first, by consistency and balance; then the ELBO from there, q held to the exact posterior. Recommended."""
    mixture = flow_mixture(2, K, generator=generator)
    mixture.network = consistent_posterior(points.x, K, generator=generator)
    return Plan(mixture, {"objective": Objective(distill=1.0), **OURS})


def elbo(points: Points, K: int, generator: Generator) -> Plan:
    """The plain ELBO from a random start, same model and steps."""
    return Plan(flow_mixture(2, K, generator=generator), {"objective": Objective(), **OURS})


def em(points: Points, K: int, generator: Generator) -> Plan:
    """Generalized EM: each step's q is the exact posterior."""
    return Plan(flow_mixture(2, K, generator=generator), {"objective": Objective("em"), **OURS}, by_bayes=True)


def likelihood(points: Points, K: int, generator: Generator) -> Plan:
    """log p(x) itself. Its gradient is that of generalized EM (Fisher's identity), so its fits are too."""
    return Plan(flow_mixture(2, K, generator=generator), {"objective": Objective("likelihood"), **OURS}, by_bayes=True)


def warm(points: Points, K: int, generator: Generator) -> Plan:
    """300 steps toward the responsibilities of K Gaussians, then the ELBO."""
    gaussians = GaussianMixture.fit(points.x, K, restarts=10, generator=generator)
    start = Interleaved(points.x, gaussians.responsibilities(points.x).float(), Objective(), first=300, every=0)
    return Plan(flow_mixture(2, K, generator=generator), {"objective": start, **OURS})


def gaussians(points: Points, K: int, generator: Generator) -> Plan:
    """K Gaussians by EM, the best of ten starts: what curved wings do to it."""
    return Plan(GaussianMixture.fit(points.x, K, restarts=10, generator=generator), None, by_bayes=True)


def thesis_pinwheel(points: Points, K: int, generator: Generator) -> Plan:
    """The thesis' settings as printed: 8 couplings of width 8, q of 3 hidden units, falling temperature (5.1.1)."""
    mixture = flow_mixture(2, K, layers=8, hidden=(8,), activation="relu", posterior=(3,), generator=generator)
    return Plan(mixture, {"objective": Objective(temperature=falling_temperature(floor=0.01)), **PRINTED})


PINWHEEL = Experiment(
    Pinwheel(),
    5 * 512,
    {
        "consistent": consistent,
        "elbo": elbo,
        "em": em,
        "likelihood": likelihood,
        "warm": warm,
        "gaussians": gaussians,
        "thesis": thesis_pinwheel,
    },
    {},
)


def thesis_circles(points: Points, K: int, generator: Generator) -> Plan:
    """As printed: 10 couplings of width 8, q of two layers of 16; with labels, 300 epochs on them alone first (5.1.2)."""
    mixture = flow_mixture(2, K, layers=10, hidden=(8,), activation="relu", posterior=(16, 16), generator=generator)
    plain = Objective(temperature=falling_temperature(floor=0.01))
    settings = {"epochs": 500, "batch_size": 128, "learning_rate": 1e-3, "schedule": "constant"}
    if len(points.labels) == 0:
        return Plan(mixture, {"objective": plain, **settings})
    return Plan(mixture, {"objective": Interleaved(points.labelled, points.labels, plain), **settings})


def interleaved(points: Points, K: int, generator: Generator) -> Plan:
    """Labels alone first, then one step in ten on them among steps of the ELBO with consistency. Recommended."""
    mixture = flow_mixture(2, K, layers=10, generator=generator)
    plain = Objective(consistency=5.0, noise=0.05, distill=1.0)
    start = Interleaved(points.labelled, points.labels, plain)
    return Plan(mixture, {"objective": start, "epochs": 500, "batch_size": 256, "learning_rate": 1e-2})


CIRCLES = Experiment(
    TwoCircles(noise=0.05),
    1024,
    {"elbo": elbo, "consistent": consistent, "thesis": thesis_circles},
    {"interleaved": interleaved, "thesis": thesis_circles},
)

EXPERIMENTS = {"pinwheel": PINWHEEL, "circles": CIRCLES}


def run_all(
    experiment: Experiment, recipes: list[str], seeds: range, *, labels: int = 0, effort: float = 1.0
) -> Iterator[Record]:
    """All recipes on all seeds, one record each as it is ready; every recipe sees the same points of a seed."""
    for seed in seeds:
        for recipe in recipes:
            yield experiment.run(recipe, seed, labels=labels, effort=effort)
