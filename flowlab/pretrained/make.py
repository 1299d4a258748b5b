"""Train the flows and mixtures that come with the package: `python -m flowlab.pretrained.make NAME ...`, or `all`.

Each takes 2 to 20 seconds of one core. The file holds the weights at some steps, named ``STEP.name``, and the card.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowlab import models
from flowlab.densities.mixtures import Interleaved, Mixture, Objective
from flowlab.metrics import accuracy
from flowlab.pretrained import FOLDER, replay, truth
from flowlab.studies.flow_mixtures import CIRCLES, PINWHEEL, label_sets, short
from flowlab.studies.points import Points
from flowlab.study import Scores, Study, Trial
from flowlab.training import save_checkpoint, train

TRAINING, VALIDATION, HELD_OUT = 4000, 1000, 20_000
KEPT = (0, 10, 30, 60, 100, 200, 400, 800)  # steps, before the best one
SEEDS = {"pinwheel_mixture_elbo": 1}  # of the runs that are kept; 0 for all others

Build = Callable[[Generator], nn.Module]
Start = Callable[[Build, Any, int, int, int], tuple[nn.Module, Tensor, dict[str, Any]]]


@dataclass(kw_only=True)
class PlaneTrial(Trial):
    """A trial on draws of an exact density, ``truth``; ``card`` says what, and ``rounded`` whether to 16 bits."""

    truth: Any
    card: dict[str, Any]
    rounded: bool = False  # which halves the file: K flows and q are many numbers


def by_likelihood(build: Build, exact: Any, samples: int, steps: int, seed: int) -> tuple[nn.Module, Tensor, dict]:
    """A flow, and the points that the best step is chosen on."""
    generator = Generator().manual_seed(seed)
    flow = build(generator)
    x = exact.sample(samples + VALIDATION, generator)
    return flow, x[:samples], {"validation": x[samples:]}


def variant(
    recipe: str,
    settings: Mapping[str, Any],
    data: str,
    data_settings: Mapping[str, Any] | None = None,
    *,
    start: Start = by_likelihood,
    steps: int = 1500,
    learning_rate: float = 5e-3,
    batch_size: int = 512,
    samples: int = TRAINING,
    kept: tuple[int, ...] = KEPT,
    rounded: bool = False,
    how: str = "maximum likelihood",
) -> Callable[[int], PlaneTrial]:
    """One model to train: a recipe of flowlab.models, a density to draw data from, and how long.

    ``start`` gives the untrained model, its data, and the settings of ``train`` other than those here.
    """

    def trial(seed: int) -> PlaneTrial:
        named = {"name": data, "settings": dict(data_settings or {})}
        exact = truth(named)
        build = lambda generator: models.build(  # noqa: E731
            {"name": recipe, "settings": {"features": 2, **settings}}, generator=generator
        )
        model, x, more = start(build, exact, samples, steps, seed)
        run = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
        training = {"how": how, "samples": samples, **run, "schedule": "cosine", "seed": seed}
        return PlaneTrial(
            model=model,
            data=x,
            settings={**run, "snapshots": kept, "seed": seed, **more},
            truth=exact,
            card={"data": named, "training": training},
            rounded=rounded,
        )

    return trial


def _pinwheel(name: str) -> Start:
    """A variant of the study of the pinwheel, the mixture and the points of the seed."""

    def start(build: Build, exact: Any, samples: int, steps: int, seed: int) -> tuple[nn.Module, Tensor, dict]:
        trial = PINWHEEL.trial(name, seed)
        return trial.model, trial.data, {"objective": trial.settings["objective"]}

    return start


def _partition(shares: Callable[[Tensor, Tensor], Tensor]) -> Start:
    """A mixture that is told the component of each point for a third of its steps; then it is left to the ELBO."""

    def start(build: Build, exact: Any, samples: int, steps: int, seed: int) -> tuple[nn.Module, Tensor, dict]:
        generator = Generator().manual_seed(seed)
        mixture = build(generator)
        x, y = exact.labelled(samples, generator)
        told = Interleaved(x, shares(x, y), Objective(distill=1.0), first=steps // 3, every=0)
        return mixture, x, {"objective": told}

    return start


def _labels(name: str) -> Start:
    """The quick variant for two circles with few labels: a named set of them."""

    def start(build: Build, exact: Any, samples: int, steps: int, seed: int) -> tuple[nn.Module, Tensor, dict]:
        x, y = CIRCLES.truth.labelled(samples, Generator().manual_seed(seed))
        rows, labels = label_sets(x, y)[name]
        trial = short(Points(x, x[rows], labels), 2, Generator().manual_seed(seed))
        return trial.model, x, {"objective": trial.settings["objective"]}

    return start


SPLINE = {"layers": 2, "bins": 16, "hidden": (32, 32), "guarded": False}  # as the files that are here were made
RING: dict[str, Any] = {"data": "rings", "data_settings": {"radii": (1.5,), "noise": 0.15}}
BLOBS: dict[str, Any] = {"data": "gaussians", "data_settings": {"means": ((-2.0, 0.0), (2.0, 0.0)), "std": 0.3}}
DEPTHS = (1, 2, 4, 8, 16)

VARIANTS: dict[str, Callable[[int], PlaneTrial]] = {
    "pinwheel_affine": variant("realnvp", {"layers": 8, "hidden": (32, 32)}, "pinwheel", steps=1800),
    "pinwheel_spline": variant("spline_flow", SPLINE, "pinwheel"),
    "two_circles_spline": variant("spline_flow", SPLINE, "two_circles", {"noise": 0.05}),
    "two_moons_affine": variant("realnvp", {"layers": 8, "hidden": (16, 16)}, "two_moons", {"noise": 0.1}),
    **{
        f"{name}_affine_{depth}": variant("realnvp", {"layers": depth, "hidden": (32,), "activation": "tanh"}, **data)
        for name, data in (("ring", RING), ("blobs", BLOBS))
        for depth in DEPTHS
    },
    **{
        f"{name}_spline_2": variant("spline_flow", {**SPLINE, "hidden": (32,)}, **data)
        for name, data in (("ring", RING), ("blobs", BLOBS))
    },
    **{
        f"pinwheel_mixture{end}": variant(
            "flow_mixture",
            {},
            "pinwheel",
            steps=2000,  # 400 epochs, as in the study
            learning_rate=1e-2,
            samples=PINWHEEL.size,
            kept=kept,
            start=_pinwheel(name),
            rounded=True,
            how=f"the variant {name!r} of flowlab.studies.PINWHEEL",
        )
        for end, name, kept in (
            ("", "consistent", (0, 20, 60, 150, 300, 600, 1200)),
            ("_elbo", "elbo", (0, 60, 200, 600)),
        )
    },
    **{
        f"two_circles_mixture_{name}": variant(
            "flow_mixture",
            {"components": 2, "layers": 10, "posterior": (32, 32)},
            "two_circles",
            {"noise": 0.05},
            steps=2500,
            learning_rate=1e-2,
            kept=(0,),
            start=_partition(shares),
            rounded=True,
            how=f"a third of the steps with each point's component given ({given}), then the ELBO alone",
        )
        for name, given, shares in (
            ("rings", "its ring", lambda x, y: y),
            ("left_right", "the sign of x₁", lambda x, y: (x[:, 0] > 0).long()),
            ("up_down", "the sign of x₂", lambda x, y: (x[:, 1] > 0).long()),
        )
    },
    **{
        f"two_circles_labels_{name.replace(' ', '_').replace(',', '')}": variant(
            "flow_mixture",
            {"components": 2},
            "two_circles",
            {"noise": 0.05},
            steps=800,  # 200 epochs
            learning_rate=1e-2,
            batch_size=256,
            samples=CIRCLES.size,
            kept=(0,),
            start=_labels(name),
            rounded=True,
            how=f"the variant 'short' of flowlab.studies.CIRCLES, labels: {name}",
        )
        for name in label_sets(*CIRCLES.truth.labelled(CIRCLES.size, Generator().manual_seed(0)))
    },
}


def held_out(exact: Any) -> Tensor:
    """Points that no model trains on or chooses with."""
    return exact.sample(HELD_OUT, Generator().manual_seed(10**6))


def measure(trial: PlaneTrial) -> Scores:
    """Mean log-likelihood of fresh points, that of the exact density, and how far it is below, in nats a point."""
    model, exact, x = trial.model, trial.truth, held_out(trial.truth)
    log_p, log_q = exact.log_prob(x).mean().item(), model.log_prob(x).mean().item()
    scores = {"log_likelihood": log_q, "exact": log_p, "gap": log_p - log_q}
    if isinstance(model, Mixture):
        y = exact.labelled(HELD_OUT, Generator().manual_seed(10**6))[1]
        scores |= {"elbo": model.elbo(x).total.mean().item(), "accuracy": accuracy(y, model.posterior(x).argmax(-1))}
    return {name: round(value, 4) for name, value in scores.items()}


SHIPPED = Study("shipped", "The flows and mixtures of the plane that come with the package", VARIANTS, measure)


def make(name: str) -> Path:
    """Train one flow or mixture, write its file, and return where it is."""
    trial = SHIPPED.trial(name, SEEDS.get(name, 0))
    *_, history = train(trial.model, trial.data, **trial.settings)
    flows = replay(trial.model, history)
    weights = nn.ModuleDict({str(step): past for step, past in flows.items()})
    if trial.rounded:
        weights.half().float()  # so that the metrics are those of what the file holds
    chosen = f"weights chosen on {VALIDATION} other draws" if history.validation else "weights of the last step"
    card = {
        "model": type(trial.model).__name__,
        "recipe": trial.model.recipe,
        **trial.card,
        "steps": list(flows),
        "protocol": f"nats a point in the data's own units, on {HELD_OUT} fresh draws of the exact density (generator "
        f"seed {10**6}); {chosen}, never on these",
        "metrics": SHIPPED.score(trial),
    }
    path = FOLDER / f"{name}.safetensors"
    save_checkpoint(path, weights.half() if trial.rounded else weights, card)
    return path


def main(names: list[str]) -> int:
    """The command: the names of models to train, or all. Gives 0, or 2 and a sentence on stderr."""
    unknown = [name for name in names if name not in {*VARIANTS, "all"}]
    if unknown or not names:
        print(f"Name flows to train, or all. There are: {', '.join(VARIANTS)}.", file=sys.stderr)  # noqa: T201
        return 2
    torch.set_num_threads(1)
    for name in VARIANTS if "all" in names else names:
        path = make(name)
        print(f"{path.name}: {path.stat().st_size // 1024} kB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
