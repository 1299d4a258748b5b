"""Train the flows and mixtures that come with the package: `python -m flowlab.pretrained.make NAME ...`, or `all`.

Each takes 2 to 20 seconds of one core. The file holds the weights at some steps, named ``STEP.name``, and the card.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowlab import models
from flowlab.densities.mixtures import Interleaved, Mixture, Objective
from flowlab.experiments import CIRCLES, PINWHEEL, Points, label_sets, short
from flowlab.metrics import accuracy
from flowlab.pretrained import FOLDER, replay, truth
from flowlab.training import save_checkpoint, train

TRAINING, VALIDATION, HELD_OUT = 4000, 1000, 20_000
KEPT = (0, 10, 30, 60, 100, 200, 400, 800)  # steps, before the best one

Started = tuple[nn.Module, Tensor, dict[str, Any]]
Start = Callable[["Plan"], Started]


@dataclass(frozen=True)
class Plan:
    """One flow to train: a recipe of flowlab.models, a density to draw data from, and how long.

    ``start`` gives the untrained model, its data, and the settings of ``train`` other than those below.
    """

    recipe: str
    settings: dict[str, Any]
    data: str
    data_settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 1500
    learning_rate: float = 5e-3
    batch_size: int = 512
    samples: int = TRAINING
    seed: int = 0
    kept: tuple[int, ...] = KEPT
    start: Start = lambda plan: _flow(plan)
    rounded: bool = False  # to 16 bits, which halves the file: K flows and q are many numbers
    how: str = "maximum likelihood"


def _flow(plan: Plan) -> Started:
    """A flow, and the points that the best step is chosen on."""
    generator = Generator().manual_seed(plan.seed)
    flow = getattr(models, plan.recipe)(2, **plan.settings, generator=generator)
    x = density_of(plan).sample(plan.samples + VALIDATION, generator)
    return flow, x[: plan.samples], {"validation": x[plan.samples :]}


def _pinwheel(recipe: str) -> Start:
    """A recipe of the experiment on the pinwheel, the mixture and the points of the plan's seed."""

    def start(plan: Plan) -> Started:
        trial = PINWHEEL.trial(recipe, plan.seed)
        return trial.model, trial.x, {"objective": trial.settings["objective"]}

    return start


def _partition(shares: Callable[[Tensor, Tensor], Tensor]) -> Start:
    """A mixture that is told the component of each point for a third of its steps; then it is left to the ELBO."""

    def start(plan: Plan) -> Started:
        generator = Generator().manual_seed(plan.seed)
        mixture = getattr(models, plan.recipe)(2, **plan.settings, generator=generator)
        x, y = density_of(plan).labelled(plan.samples, generator)
        told = Interleaved(x, shares(x, y), Objective(distill=1.0), first=plan.steps // 3, every=0)
        return mixture, x, {"objective": told}

    return start


def _labels(name: str) -> Start:
    """The quick recipe for two circles with few labels: a named set of them."""

    def start(plan: Plan) -> Started:
        x, y = CIRCLES.truth.labelled(plan.samples, Generator().manual_seed(plan.seed))
        rows, labels = label_sets(x, y)[name]
        mixture, settings, _ = short(Points(x, x[rows], labels), 2, Generator().manual_seed(plan.seed))
        return mixture, x, {"objective": settings["objective"]}

    return start


SPLINE = {"layers": 2, "bins": 16, "hidden": (32, 32)}
RING = {"data": "rings", "data_settings": {"radii": (1.5,), "noise": 0.15}}
BLOBS = {"data": "gaussians", "data_settings": {"means": ((-2.0, 0.0), (2.0, 0.0)), "std": 0.3}}
DEPTHS = (1, 2, 4, 8, 16)

PLANS = {
    "pinwheel_affine": Plan("realnvp", {"layers": 8, "hidden": (32, 32)}, "pinwheel", steps=1800),
    "pinwheel_spline": Plan("spline_flow", SPLINE, "pinwheel"),
    "two_circles_spline": Plan("spline_flow", SPLINE, "two_circles", {"noise": 0.05}),
    "two_moons_affine": Plan("realnvp", {"layers": 8, "hidden": (16, 16)}, "two_moons", {"noise": 0.1}),
    **{
        f"{name}_affine_{depth}": Plan("realnvp", {"layers": depth, "hidden": (32,), "activation": "tanh"}, **data)
        for name, data in (("ring", RING), ("blobs", BLOBS))
        for depth in DEPTHS
    },
    **{
        f"{name}_spline_2": Plan("spline_flow", {**SPLINE, "hidden": (32,)}, **data)
        for name, data in (("ring", RING), ("blobs", BLOBS))
    },
    **{
        f"pinwheel_mixture{end}": Plan(
            "flow_mixture",
            {},
            "pinwheel",
            steps=2000,  # 400 epochs, as in the experiment
            learning_rate=1e-2,
            samples=PINWHEEL.size,
            seed=seed,
            kept=kept,
            start=_pinwheel(recipe),
            rounded=True,
            how=f"the recipe {recipe!r} of flowlab.experiments.PINWHEEL",
        )
        for end, recipe, seed, kept in (
            ("", "consistent", 0, (0, 20, 60, 150, 300, 600, 1200)),
            ("_elbo", "elbo", 1, (0, 60, 200, 600)),
        )
    },
    **{
        f"two_circles_mixture_{name}": Plan(
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
        f"two_circles_labels_{name.replace(' ', '_').replace(',', '')}": Plan(
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
            how=f"the recipe 'short' of flowlab.experiments.CIRCLES, labels: {name}",
        )
        for name in label_sets(*CIRCLES.truth.labelled(CIRCLES.size, Generator().manual_seed(0)))
    },
}


def training_run(plan: Plan) -> tuple[nn.Module, Any]:
    """The untrained flow or mixture, and the loop that trains it, one History a step."""
    flow, x, more = plan.start(plan)
    loop = train(
        flow,
        x,
        steps=plan.steps,
        learning_rate=plan.learning_rate,
        batch_size=plan.batch_size,
        snapshots=plan.kept,
        seed=plan.seed,
        **more,
    )
    return flow, loop


def density_of(plan: Plan) -> Any:
    """What the plan draws its data from."""
    return truth({"name": plan.data, "settings": plan.data_settings})


def held_out(plan: Plan) -> Tensor:
    """Points that no plan trains on or chooses with."""
    return density_of(plan).sample(HELD_OUT, Generator().manual_seed(10**6))


def make(name: str) -> Path:
    """Train one flow or mixture, write its file, and return where it is."""
    plan = PLANS[name]
    flow, loop = training_run(plan)
    *_, history = loop
    flows = replay(flow, history)
    weights = nn.ModuleDict({str(step): past for step, past in flows.items()})
    if plan.rounded:
        weights.half().float()  # so that the metrics are those of what the file holds
    x, exact = held_out(plan), density_of(plan)
    with torch.no_grad():
        log_p, log_q = exact.log_prob(x).mean().item(), flow.log_prob(x).mean().item()
        metrics = {"log_likelihood": log_q, "exact": log_p, "gap": log_p - log_q}
        if isinstance(flow, Mixture):
            y = exact.labelled(HELD_OUT, Generator().manual_seed(10**6))[1]
            metrics |= {"elbo": flow.elbo(x).total.mean().item(), "accuracy": accuracy(y, flow.posterior(x).argmax(-1))}
    chosen = f"weights chosen on {VALIDATION} other draws" if history.validation else "weights of the last step"
    card = {
        "model": type(flow).__name__,
        "recipe": flow.recipe,
        "data": {"name": plan.data, "settings": plan.data_settings},
        "training": {
            "how": plan.how,
            "samples": plan.samples,
            "steps": plan.steps,
            "batch_size": plan.batch_size,
            "learning_rate": plan.learning_rate,
            "schedule": "cosine",
            "seed": plan.seed,
        },
        "steps": list(flows),
        "protocol": f"nats a point in the data's own units, on {HELD_OUT} fresh draws of the exact density (generator "
        f"seed {10**6}); {chosen}, never on these",
        "metrics": {what: round(value, 4) for what, value in metrics.items()},
    }
    path = FOLDER / f"{name}.safetensors"
    save_checkpoint(path, weights.half() if plan.rounded else weights, card)
    return path


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in {*PLANS, "all"}]
    if unknown or not names:
        print(f"Name flows to train, or all. There are: {', '.join(PLANS)}.", file=sys.stderr)  # noqa: T201
        return 2
    torch.set_num_threads(1)
    for name in PLANS if "all" in names else names:
        path = make(name)
        print(f"{path.name}: {path.stat().st_size // 1024} kB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
