"""Small trained flows and mixtures that come with the package: for the explorers, and to look at before training.

    flow = flowlab.pretrained.load("pinwheel_spline")    # a Flow in evaluation mode
    flowlab.pretrained.cards()                           # what there is: recipe, data, settings, metrics
    flowlab.pretrained.trajectory("pinwheel_spline")     # the same flow at some steps of its training

Each is one safetensors file beside this one, which `python -m flowlab.pretrained.make NAME` trains and writes.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from flowlab import models
from flowlab.datasets import TOYS, Toy
from flowlab.distributions import GaussianMixture
from flowlab.flow import Flow
from flowlab.mixtures import FlowMixture
from flowlab.training import History, read_checkpoint

FOLDER = Path(__file__).parent


def load(name: str, step: int | None = None) -> Flow | FlowMixture:
    """The flow or mixture of that name as its training left it, or as it was at a ``step`` of its card's ``steps``.

    Raises:
        ValueError: when there is no such flow, or no copy of it from that step; the message lists what there is.
    """
    flows = trajectory(name)
    if step is None:
        step = max(flows)
    if step not in flows:
        raise ValueError(f"{name} was kept at the steps {list(flows)}, but {step} was asked for.")
    return flows[step]


def trajectory(name: str) -> dict[int, Flow | FlowMixture]:
    """The flow or mixture at each step that was kept, from its start to the step that was best on validation data."""
    tensors, card = _read(name)
    recipe = card["recipe"]
    flows = {}
    for step in card["steps"]:
        head = f"{step}."
        flow = models.build(recipe)
        flow.load_state_dict({key.removeprefix(head): value for key, value in tensors.items() if key.startswith(head)})
        flows[step] = flow.eval()
    return flows


def replay(flow: Flow, history: History) -> dict[int, Flow]:
    """The same for a flow you have just fitted with ``snapshots=``: the kept steps, and last the flow as it is now."""
    last = history.best_step or history.step
    flows = {step: copy.deepcopy(flow) for step in sorted(history.snapshots) if step < last}
    for step, past in flows.items():
        past.load_state_dict(history.snapshots[step])
    return flows | {last: flow}


def density(name: str) -> Toy | GaussianMixture:
    """The exact density of the data that the flow of that name was trained on: it has ``log_prob`` and ``sample``."""
    return truth(_read(name)[1]["data"])


def cards() -> dict[str, dict[str, Any]]:
    """What comes with the package: for each name the recipe, the data, how it was trained, and what it reached."""
    return {path.stem: read_checkpoint(path)[1] for path in sorted(FOLDER.glob("*.safetensors"))}


def truth(data: dict[str, Any]) -> Toy | GaussianMixture:
    """The exact density that a card's ``data`` names: a toy and its settings, or Gaussians and their ``std``."""
    if data["name"] in TOYS:
        return TOYS[data["name"]](**data["settings"])
    means, std = torch.tensor(data["settings"]["means"]), data["settings"]["std"]
    return GaussianMixture(means, torch.eye(means.shape[1]).repeat(len(means), 1, 1) * std**2)


def _read(name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise ValueError(f"There is no pretrained flow {name!r}. There are: {', '.join(cards())}.")
    return read_checkpoint(path)
