"""Train the flows that come with the package: `python -m flowlab.pretrained.make NAME ...`, or `all`.

Each takes 2 to 15 seconds of one core. The file holds the weights at some steps, named ``STEP.name``, and the card.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from flowlab import models
from flowlab.flow import Flow
from flowlab.pretrained import FOLDER, replay, truth
from flowlab.training import save_checkpoint, train

TRAINING, VALIDATION, HELD_OUT = 4000, 1000, 20_000
KEPT = (0, 10, 30, 60, 100, 200, 400, 800)  # steps, before the best one


@dataclass(frozen=True)
class Plan:
    """One flow to train: a recipe of flowlab.models, a density to draw data from, and how long."""

    recipe: str
    settings: dict[str, Any]
    data: str
    data_settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 1500
    learning_rate: float = 5e-3
    batch_size: int = 512
    seed: int = 0
    kept: tuple[int, ...] = KEPT


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
}


def training_run(plan: Plan) -> tuple[Flow, Any]:
    """The untrained flow, and the loop that trains it, one History a step."""
    generator = Generator().manual_seed(plan.seed)
    flow = getattr(models, plan.recipe)(2, **plan.settings, generator=generator)
    x = density_of(plan).sample(TRAINING + VALIDATION, generator)
    loop = train(
        flow,
        x[:TRAINING],
        validation=x[TRAINING:],
        steps=plan.steps,
        learning_rate=plan.learning_rate,
        batch_size=plan.batch_size,
        snapshots=plan.kept,
        seed=plan.seed,
    )
    return flow, loop


def density_of(plan: Plan) -> Any:
    """What the plan draws its data from."""
    return truth({"name": plan.data, "settings": plan.data_settings})


def held_out(plan: Plan) -> Tensor:
    """Points that no plan trains on or chooses with."""
    return density_of(plan).sample(HELD_OUT, Generator().manual_seed(10**6))


def make(name: str) -> Path:
    """Train one flow, write its file, and return where it is."""
    plan = PLANS[name]
    flow, loop = training_run(plan)
    *_, history = loop
    flows = replay(flow, history)
    x, exact = held_out(plan), density_of(plan)
    with torch.no_grad():
        log_p, log_q = exact.log_prob(x).mean().item(), flow.log_prob(x).mean().item()
    card = {
        "model": "Flow",
        "recipe": flow.recipe,
        "data": {"name": plan.data, "settings": plan.data_settings},
        "training": {
            "samples": TRAINING,
            "steps": plan.steps,
            "batch_size": plan.batch_size,
            "learning_rate": plan.learning_rate,
            "schedule": "cosine",
            "seed": plan.seed,
        },
        "steps": list(flows),
        "protocol": f"nats a point in the data's own units, on {HELD_OUT} fresh draws of the exact density (generator "
        f"seed {10**6}); weights chosen on {VALIDATION} other draws, never on these",
        "metrics": {"log_likelihood": round(log_q, 4), "exact": round(log_p, 4), "gap": round(log_p - log_q, 4)},
    }
    path = FOLDER / f"{name}.safetensors"
    save_checkpoint(path, nn.ModuleDict({str(step): past for step, past in flows.items()}), card)
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
