"""Small trained flows and mixtures that come with the package: for the explorers, and to look at before training.

    flow = flowlab.pretrained.load("pinwheel_spline")    # a Flow in evaluation mode
    flowlab.pretrained.cards()                           # what there is: recipe, data, settings, metrics
    flowlab.pretrained.trajectory("pinwheel_spline")     # the same flow at some steps of its training
    flowlab.pretrained.load("glow_mnist")                # a Dequantized model of digits; its ``density`` is the flow

Each is one safetensors file beside this one: `python -m flowlab.pretrained.make NAME` trains and writes those of the
plane, `flowlab train` those of digits, and `python -m flowlab.pretrained.pack` puts them here. Of models for which
there is no room, the cards alone are here: ``left_out``.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch

from flowlab import models
from flowlab.datasets import TOYS, Toy
from flowlab.densities import Dequantized, Flow, GaussianMixture
from flowlab.densities.mixtures import FlowMixture
from flowlab.training import CheckpointError, History, read_checkpoint
from flowlab.training.checkpoints import name_columns

FOLDER = Path(__file__).parent

Model = Flow | FlowMixture | Dequantized


def load(name: str | Path, step: int | None = None) -> Model:
    """The model of that name as its training left it, or as it was at a ``step`` of its card's ``steps``.

    ``name`` may also be a file that ``flowlab train`` or ``flowlab.training.save_checkpoint`` wrote: then it is the
    model in it, with the columns of its table.

    Raises:
        ValueError: when there is no such model or file, or no copy from that step; the message lists what there is.
        CheckpointError: when the file is not one that flowlab wrote, or does not say how its model is built.
    """
    if step is None:
        return find(name)[0]
    flows = trajectory(str(name))
    if step not in flows:
        raise ValueError(f"{name} was kept at other steps: expected one of {list(flows)}, but got {step}.")
    return flows[step]


def trajectory(name: str) -> dict[int, Model]:
    """The model at each step that was kept, from its start to the step that was best on validation data."""
    return _models(*_read(name))


def find(name: str | Path) -> tuple[Model, dict[str, Any]]:
    """The model of that name, or in a checkpoint of `flowlab train` at that path, in evaluation mode, and its card.

    Raises:
        ValueError: when there is neither.
        CheckpointError: when the file is not one that flowlab wrote, or does not say how its model is built.
    """
    if (FOLDER / f"{name}.safetensors").is_file():
        tensors, card = _read(name)
    elif Path(name).is_file():
        tensors, card = read_checkpoint(name)
    else:
        _explain_absence(str(name))
        raise ValueError(
            f"There is no pretrained model {str(name)!r}, and no file of that name. There are: {', '.join(cards())}. "
            f"`flowlab train` makes a file."
        )
    try:
        kept = _models(tensors, {"steps": [""], **card})
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        why = "its weights are another model's" if isinstance(error, RuntimeError) else error  # else a page of names
        raise CheckpointError(
            f"{name} cannot be built again by its card ({why}). Nothing was loaded: name a file that "
            f"`flowlab train` or flowlab.training.save_checkpoint wrote, with a model of flowlab.models."
        ) from None
    return kept[max(kept)], card


def replay(flow: Flow, history: History) -> dict[int, Flow]:
    """The same for a flow you have just fitted with ``snapshots=``: the kept steps, and last the flow as it is now."""
    last = history.best_step or history.step
    flows = {step: copy.deepcopy(flow) for step in sorted(history.snapshots) if step < last}
    for step, past in flows.items():
        past.load_state_dict(history.snapshots[step])
    return flows | {last: flow}


def density(name: str) -> Toy | GaussianMixture:
    """The exact density of the data that the flow of that name was trained on: it has ``log_prob`` and ``sample``.

    Raises:
        ValueError: for a model of digits, whose density nobody knows, and as ``load``.
    """
    data = _read(name)[1]["data"]
    if data["name"] == "mnist":
        raise ValueError(
            f"{name} was trained on images of digits, and nobody knows their density. "
            f"flowlab.datasets.mnist.digits() has some of them."
        )
    return truth(data)


def cards() -> dict[str, dict[str, Any]]:
    """What comes with the package: for each name the recipe, the data, how it was trained, and what it reached."""
    return {path.stem: read_checkpoint(path)[1] for path in sorted(FOLDER.glob("*.safetensors"))}


def left_out() -> dict[str, dict[str, Any]]:
    """The cards of models for which there is no room in the package: what they reached, and their ``command``."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def truth(data: dict[str, Any]) -> Toy | GaussianMixture:
    """The exact density that a card's ``data`` names: a toy and its settings, or Gaussians and their ``std``."""
    if data["name"] in TOYS:
        return TOYS[data["name"]](**data["settings"])
    means, std = torch.tensor(data["settings"]["means"]), data["settings"]["std"]
    return GaussianMixture(means, torch.eye(means.shape[1]).repeat(len(means), 1, 1) * std**2)


def _models(tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> dict[Any, Model]:
    """A model for each of the card's steps, whose tensors are named STEP.name; for the step "" those without a head."""
    kept = {}
    for step in card["steps"]:
        head = f"{step}." if step != "" else ""
        model = models.rebuild(card["recipe"])
        model.load_state_dict({key.removeprefix(head): value for key, value in tensors.items() if key.startswith(head)})
        name_columns(model, card.get("columns"))
        kept[step] = model.eval()
    return kept


def _explain_absence(name: str) -> None:
    """ValueError, with the command that makes it, for a model that is too large for the package."""
    if card := left_out().get(name):
        raise ValueError(
            f"There was no room for {name} in the package, which has its card alone. {card['command']!r} trains it in "
            f"{card['minutes']:.0f} minutes or so ({card['hardware']}, threads: {card['threads']}); then name the file "
            f"that it writes."
        )


def _read(name: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        _explain_absence(str(name))
        raise ValueError(f"There is no pretrained flow {str(name)!r}. There are: {', '.join(cards())}.")
    return read_checkpoint(path)
