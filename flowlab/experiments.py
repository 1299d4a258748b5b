"""The experiments on mixtures of flows: named recipes, run over seeds, scored against exact densities and true labels.

    trial = experiments.PINWHEEL.trial("consistent", seed=0)
    fit(trial.model, trial.x, **trial.settings)
    experiments.PINWHEEL.run("consistent", seed=0)       # fits and scores: one record

The same from the command line: `flowlab experiment pinwheel --seeds 20`. The thesis is Pires, "Variational Mixture of
Normalizing Flows", chapter 5.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from flowlab import densities
from flowlab.datasets import Pinwheel, Toy, TwoCircles
from flowlab.densities.mixtures import (
    GaussianMixture,
    Interleaved,
    LatentGaussianMixture,
    Objective,
    consistent_posterior,
    falling_temperature,
)
from flowlab.metrics import accuracy, ari
from flowlab.models import flow_mixture, realnvp
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
    """What one seed of one recipe gave: shares of 1, nats a point on fresh points, and seconds; and of what."""

    recipe: str
    seed: int
    accuracy: float  # after matching
    ari: float
    log_prob: float
    exact_log_prob: float
    seconds: float
    data: str = ""  # the density, as Python writes it
    labels: int = 0
    effort: float = 1.0


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
        make = self.check(recipe, labels, effort)
        generator = Generator().manual_seed(seed)
        x, y = self.truth.labelled(self.size, generator)
        test, test_labels = self.truth.labelled(self.size, generator)
        first = _balanced(y, labels)
        points = Points(x, x[first], y[first])
        plan = make(points, self.truth.components, generator)
        settings = plan.settings
        if settings is not None:
            objective = settings["objective"]
            if isinstance(objective, Interleaved):  # its first phase takes the same share of a shorter run
                objective = replace(objective, first=round(effort * objective.first))
            epochs = max(1, round(effort * settings["epochs"]))
            settings = {"seed": seed, **settings, "epochs": epochs, "objective": objective}
        return Trial(plan.model, x, settings, plan.by_bayes, points, test, test_labels)

    def check(self, recipe: str, labels: int = 0, effort: float = 1.0) -> Recipe:
        """The recipe of that name; ValueError as ``trial``."""
        known = self.labelled_recipes if labels else self.recipes
        if recipe not in known:
            raise ValueError(
                f"With {labels} labels the recipes are {', '.join(known) or 'none'}, but {recipe!r} was asked for."
            )
        if not 0 <= labels <= self.size or not 0 < effort <= 1:
            raise ValueError(f"Expected 0 to {self.size} labels and an effort in (0, 1], but got {labels}, {effort}.")
        return known[recipe]

    def run(
        self, recipe: str, seed: int = 0, *, labels: int = 0, effort: float = 1.0, progress: bool = False
    ) -> Record:
        """Fit one trial and score it on as many fresh points as it was given. Arguments and errors as ``trial``.

        An interrupt ends it without a record: a fit that was stopped says nothing of its recipe.
        """
        started = time.perf_counter()
        trial = self.trial(recipe, seed, labels=labels, effort=effort)
        if trial.settings is not None:
            history = fit(trial.model, trial.x, progress=progress, **trial.settings)
            if history is None or history.step < history.total:
                raise KeyboardInterrupt
        seconds = time.perf_counter() - started
        what = {"data": repr(self.truth), "labels": labels, "effort": effort}
        return Record(recipe, seed, **self.score(trial), seconds=round(seconds, 2), **what)

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


def _balanced(y: Tensor, count: int) -> Tensor:
    """Rows of y, ``(count,)``, in order: the first of each class, then the second of each, as far as ``count`` goes."""
    nth = torch.nn.functional.one_hot(y).cumsum(0).gather(1, y[:, None])[:, 0]  # how often its label has come
    return nth.argsort(stable=True)[:count].sort().values


# --- recipes ------------------------------------------------------------------------------------------------------

PRINTED = {"epochs": 400, "batch_size": 512, "learning_rate": 1e-3, "schedule": "constant"}  # the thesis' pinwheel
OURS = {"epochs": 400, "batch_size": 512, "learning_rate": 1e-2}


def consistent(points: Points, K: int, generator: Generator) -> Plan:
    """q first, from the shape of the data and from labels if any; each component to its share; then the ELBO."""
    mixture = flow_mixture(2, K, generator=generator)
    labelled = (points.labelled, points.labels) if len(points.labels) else None
    mixture.network = consistent_posterior(points.x, K, labelled=labelled, generator=generator)
    with torch.no_grad():
        shares = mixture.posterior(points.x)
    half = OURS["epochs"] * (len(points.x) // OURS["batch_size"]) // 2
    return Plan(mixture, {"objective": Interleaved(points.x, shares, Objective(distill=1.0), half, every=0), **OURS})


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
    """The thesis' settings as printed: 8 couplings of width 8, q of 3 hidden units, falling temperature (5.1.1).

    Ours where nothing is printed: ReLUs, log-scales within ±2, couplings that start at the identity. And s and t share
    the layer of width 8, where the thesis may mean one for each.
    """
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
    {"consistent": consistent},
)


def thesis_circles(points: Points, K: int, generator: Generator) -> Plan:
    """As printed: 10 couplings of width 8, q of 2×16; labels, if any, have the first 300 steps alone (5.1.2).

    Then one step on the labels, an epoch of theirs, to eight on all points, an epoch of those: the 500 printed epochs
    are all steps here, the first 300 among them. The labelled points are some of the 1,024. As in ``thesis_pinwheel``
    for what is not printed; CIRCLES are drawn with more noise than the thesis' (0.05, not 0.005).
    """
    mixture = flow_mixture(2, K, layers=10, hidden=(8,), activation="relu", posterior=(16, 16), generator=generator)
    plain = Objective(temperature=falling_temperature(floor=0.01))
    settings = {"epochs": 500, "batch_size": 128, "learning_rate": 1e-3, "schedule": "constant"}
    if len(points.labels) == 0:
        return Plan(mixture, {"objective": plain, **settings})
    return Plan(mixture, {"objective": Interleaved(points.labelled, points.labels, plain), **settings})


def interleaved(points: Points, K: int, generator: Generator) -> Plan:
    """Labels alone first, then one step in nine on them among steps of the ELBO with consistency. Recommended."""
    mixture = flow_mixture(2, K, layers=10, generator=generator)
    plain = Objective(consistency=5.0, noise=0.05, distill=1.0)
    start = Interleaved(points.labelled, points.labels, plain)
    return Plan(mixture, {"objective": start, "epochs": 500, "batch_size": 256, "learning_rate": 1e-2})


def flowgmm(points: Points, K: int, generator: Generator) -> Plan:
    """One flow with K modes: log p(x, y) on the labels and log p(x) on all points (FlowGMM).

    The paper adds the two in each step. Here labels have the first 300 steps and then one in nine, as in the others.
    """
    angle = 2 * math.pi / K * torch.arange(K)
    base = densities.GaussianMixture(3 * torch.stack((angle.cos(), angle.sin()), -1))
    mixture = LatentGaussianMixture(
        realnvp(2, 12, hidden=(32,), activation="tanh", generator=generator).bijection, base
    )
    start = Interleaved(points.labelled, points.labels, Objective("likelihood"), classify=0.0)
    return Plan(mixture, {"objective": start, **OURS})


def short(points: Points, K: int, generator: Generator) -> Plan:
    """Walks so short that labels decide, and small steps: seconds, for the explorer. Without labels it halves."""
    mixture = flow_mixture(2, K, generator=generator)
    quick = {"walk": 40, "starts": 1, "batch_size": 256, "learning_rate": 1e-2}
    labelled = (points.labelled, points.labels) if len(points.labels) else None
    mixture.network = consistent_posterior(points.x, K, labelled=labelled, generator=generator, **quick)
    with torch.no_grad():
        shares = mixture.posterior(points.x)
    start = Interleaved(points.x, shares, Objective(distill=1.0), first=400, every=0)
    return Plan(mixture, {"objective": start, "epochs": 200, "batch_size": 256, "learning_rate": 1e-2})


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


CIRCLES = Experiment(
    TwoCircles(noise=0.05),
    1024,
    {"elbo": elbo, "consistent": consistent, "thesis": thesis_circles},
    {
        "consistent": consistent,
        "short": short,
        "interleaved": interleaved,
        "flowgmm": flowgmm,
        "thesis": thesis_circles,
    },
)

EXPERIMENTS = {"pinwheel": PINWHEEL, "circles": CIRCLES}


# --- many seeds ---------------------------------------------------------------------------------------------------


def run_all(
    experiment: Experiment,
    seeds: range,
    recipes: list[str] | None = None,
    *,
    labels: int = 0,
    effort: float = 1.0,
    path: Path | None = None,
    resume: bool = False,
) -> Iterator[Record]:
    """Recipes (all when left out) on seeds, one record each as it is ready; each sees the same points of a seed.

    Args:
        path: a JSON file with a list of all records, written anew after each. For one run at a time.
        resume: keep the records that the file holds, which must be of this experiment, and run only what is missing.

    Raises:
        ValueError: for no seeds, a recipe that does not exist, no file to resume, and one that holds no records or
            those of other data, labels or effort.
    """
    known = experiment.labelled_recipes if labels else experiment.recipes
    recipes = list(dict.fromkeys(known if recipes is None else recipes))
    if len(seeds) < 1 or seeds.start < 0:
        raise ValueError(f"Expected at least one seed, the first at least 0, but got {len(seeds)} from {seeds.start}.")
    for recipe in recipes:
        experiment.check(recipe, labels, effort)
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write {path.name} to. Make it first.")
    if path is not None and path.is_dir():
        raise ValueError(f"{path} is a folder. Name a file to write the records to.")
    if resume and path is None:
        raise ValueError("Expected a file to resume from, but none was named.")
    records = _read(path) if resume and path.exists() else []
    what = (repr(experiment.truth), labels, effort)
    for record in records:
        if record[-3:] != what:
            raise ValueError(
                f"{path} holds records of {_words(*record[-3:])}, but this run is of {_words(*what)}. Name another "
                "file."
            )
    yield from records
    done = {(record.recipe, record.seed) for record in records}
    for seed in seeds:
        for recipe in recipes:
            if (recipe, seed) in done:
                continue
            records.append(experiment.run(recipe, seed, labels=labels, effort=effort))
            if path is not None:
                _write(path, records)
            yield records[-1]


def _words(data: str, labels: int, effort: float) -> str:
    return f"{data or 'unnamed data'} with {labels} labels at effort {effort:g}"


def line(record: Record) -> str:
    """One record in words."""
    return (
        f"{record.recipe:12} seed {record.seed:<4} accuracy {100 * record.accuracy:6.2f} %   ARI {record.ari:.3f}   "
        f"log p {record.log_prob:.3f} (exact {record.exact_log_prob:.3f})   {record.seconds:.1f} s"
    )


def table(records: list[Record], success: float = 0.99) -> str:
    """What each recipe reached over its seeds: how often at least ``success``, and medians."""
    lines = [f"{'recipe':12}  at least {success:.0%}  accuracy: median (least)  nats to the exact density  seconds"]
    for recipe in dict.fromkeys(record.recipe for record in records):
        own = [record for record in records if record.recipe == recipe]
        right = [record.accuracy for record in own]
        gap = median(record.exact_log_prob - record.log_prob for record in own)
        lines.append(
            f"{recipe:12}  {f'{sum(a >= success for a in right)} of {len(own)}':>12}  "
            f"{f'{100 * median(right):.2f} % ({100 * min(right):.2f} %)':>24}  {gap:25.3f}  "
            f"{median(record.seconds for record in own):7.1f}"
        )
    return "\n".join(lines)


def _read(path: Path) -> list[Record]:
    try:
        records = [Record(**record) for record in json.loads(path.read_text())]
        table(records) if records else ""  # fails where a number is none
        return records
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no records of an experiment, so it cannot be resumed. Name another.") from error


def _write(path: Path, records: list[Record]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps([record._asdict() for record in records], indent=1))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
