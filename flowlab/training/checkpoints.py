"""Checkpoints: weights and their card in one safetensors file, and beside it all that a killed run needs to go on.

Each file is written under a temporary name and then renamed, so that it is there whole or not at all. Nothing in a file
is ever run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowlab import files
from flowlab.models.registry import same_model
from flowlab.training import distributed
from flowlab.training.fingerprints import other_part, structure

State = dict[str, Tensor]


class CheckpointError(ValueError):
    """A file is no checkpoint, or the checkpoint of another model or run."""


def save_checkpoint(path: str | os.PathLike, model: nn.Module, card: Mapping[str, Any] | None = None) -> None:
    """Write weights and card to one safetensors file, whole or not at all (a temporary name, then a rename).

    ``card`` is what there is to say of the model beside what is known of it: fields of ``Card``, and others. Of several
    processes that train together only the first writes.
    """
    if distributed.rank() == 0:
        write(place(path), copy_of(model), Card.describing(model, card).content())


def load_checkpoint(path: str | os.PathLike, model: nn.Module) -> dict[str, Any]:
    """Load weights into ``model``, leave it in evaluation mode as ``fit`` does, and return the card.

    Raises:
        CheckpointError: when the file is missing, not safetensors, or holds another model's weights.
    """
    tensors, card = read_checkpoint(path)
    check_same_model(model, tensors, card, path)
    model.load_state_dict(tensors)
    name_columns(model, card.get("columns"))
    model.eval()
    return card


def read_checkpoint(path: str | os.PathLike) -> tuple[State, dict[str, Any]]:
    """The tensors and the card in a safetensors file. Nothing in it is ever run.

    Raises:
        CheckpointError: when there is no such file, or it is not one that flowlab wrote.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.path.expanduser(path), framework="pt") as file:
            card = (file.metadata() or {}).get("card")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint at {path}.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}). Nothing was loaded; flowlab never unpickles a file."
        ) from None
    try:
        return tensors, dict(json.loads(card or ""))
    except (TypeError, ValueError):
        raise CheckpointError(f"{path} has no card, so flowlab did not write it. Nothing was loaded.") from None


def place(path: str | os.PathLike[str]) -> Path:
    """Where a checkpoint lies: ``~`` is the home folder. TypeError, ValueError, in a sentence, where no file can be."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"Expected the name of a file first, as in save_checkpoint(path, model), but got a {type(path).__name__}."
        )
    if os.fspath(path) == "":
        raise ValueError(
            "Expected the name of a file as a checkpoint, such as runs/flow.safetensors, but got an empty one."
        )
    try:
        file = Path(path).expanduser()
    except RuntimeError:  # no home folder, or nobody of that name
        raise ValueError(f"There is no home folder for {path}. Name the whole path of the checkpoint.") from None
    if file.is_dir():
        raise ValueError(
            f"Expected a file as a checkpoint, but got the folder {path}. Name a file in it, such as "
            f"{file / 'flow.safetensors'}."
        )
    return file


def training_file(checkpoint: str | os.PathLike) -> Path:
    """The path of the second file, which holds all that a resumed run needs; delete it when the run is done."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.training{path.suffix or '.safetensors'}")


# --- writing ----------------------------------------------------------------------------------------------------------


def write(path: Path, tensors: State, card: Mapping[str, Any]) -> None:
    """Write one file, whole or not at all; OSError, in a sentence, when it cannot be done."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = save(tensors, metadata={"card": json.dumps(dict(card), default=plain)})
    with _in_words(path):
        files.write_whole(path, content)


def make_ready(checkpoint: Path) -> None:
    """Raise OSError before the first step where nothing can be written, and remove temporary files of killed runs."""
    with _in_words(checkpoint):
        files.make_ready(checkpoint, training_file(checkpoint))


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error}). Make room or choose another place; what was there before is as it "
            f"was, and the model in memory is as its last step left it."
        ) from error


# --- what a file says of itself ---------------------------------------------------------------------------------------


def copy_of(model: nn.Module) -> State:
    """A copy of the weights, which later steps do not change."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@dataclass(kw_only=True)
class Card:
    """What a checkpoint says of itself. In the file it is one JSON object, without the fields that say nothing.

    Attributes:
        model: the class of the model.
        recipe: how to build it again, as ``flowlab.models.build`` takes it; None where no recipe can say it.
        structure: what tells it from others whose weights have the same shapes: see ``fingerprints.structure``.
        hardware, versions, commit: what it was made with; the commit is flowlab's, where it runs from a checkout.
        about: what it is, and whose.
        plan: which named recipe, size and seed it was made by.
        data: what it was trained on.
        columns: what its columns were called, and those of the context, where they had names.
        run: the settings of the loop that wrote the file, by which it knows its run.
        training: the settings that a recipe asked for.
        seed: of the training.
        step, of: the step that the weights are of, of how many; steps: where a file holds those of several.
        protocol: what the metrics are: which unit, which split, which weights.
        metrics: numbers by name.
        more: what else there is to say, by name.
    """

    model: str | None = None
    recipe: dict[str, Any] | None = None
    structure: dict[str, Any] | None = None
    hardware: str | None = None
    versions: dict[str, str] | None = None
    commit: str | None = None
    about: str | None = None
    plan: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    columns: list[list[str] | None] | None = None
    run: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    seed: int | None = None
    step: int | None = None
    of: int | None = None
    steps: list[Any] | None = None
    protocol: str | None = None
    metrics: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def describing(cls, model: nn.Module, said: Mapping[str, Any] | None = None) -> Card:
        """The card of ``model`` as it is now, with what is ``said`` of it beside; its structure is always its own."""
        device = next(model.parameters(), torch.zeros(())).device
        found = {
            "model": type(model).__name__,
            "recipe": recipe_of(model),
            "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "versions": {"flowlab": version(), "torch": torch.__version__, "python": platform.python_version()},
            "commit": commit(),
            **(said or {}),
            "structure": as_json(structure(model)) or None,
            "columns": as_json(columns) if any(columns := _columns(model)) else (said or {}).get("columns"),
        }
        known = {one.name for one in fields(cls)} - {"more"}
        more = {name: what for name, what in found.items() if name not in known}
        return cls(**{name: what for name, what in found.items() if name in known}, more=more)

    def content(self) -> dict[str, Any]:
        """The card as the file holds it. Its recipe is there even when it is None: then nobody need look for one."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "more"}
        return {n: what for n, what in own.items() if what is not None or n == "recipe"} | self.more


def version() -> str:
    """The version of flowlab."""
    from flowlab import __version__

    return __version__


def _columns(model: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    return getattr(model, "columns", None), getattr(model, "context_columns", None)


def name_columns(model: Any, names: Sequence[Sequence[str] | None] | None) -> None:
    """Tell a density what its columns and those of its context are called in the table that it is trained on."""
    own, context = [*(names or ()), None, None][:2]
    if own and hasattr(model, "columns"):
        model.columns = tuple(own)
    if context and bool(getattr(model, "context_features", None)):
        model.context_columns = tuple(context)


@functools.cache
def commit() -> str | None:
    """The commit of flowlab that runs here; None where it is no checkout of flowlab's own."""
    folder = Path(__file__).resolve().parent.parent

    around = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=around)
        return done.stdout.strip()

    try:
        # The package may lie inside a repository that is somebody else's, installed or copied there.
        top, project = Path(git("rev-parse", "--show-toplevel")).resolve(), folder.parent / "pyproject.toml"
        if top != folder.parent or 'name = "flowlab"' not in project.read_text(encoding="utf-8"):
            return None
        return git("describe", "--always", "--dirty") if git("ls-files", __file__) else None
    except (OSError, subprocess.SubprocessError):
        return None


def recipe_of(model: nn.Module) -> dict[str, Any] | None:
    """How to build the model again, as JSON will give it back: lists for tuples, plain numbers for numpy's."""
    return as_json(getattr(model, "recipe", None))


def as_json(thing: Any) -> Any:
    """What JSON gives back of a thing: lists for tuples, plain numbers for numpy's."""
    return json.loads(json.dumps(thing, default=plain))


def plain(value: Any) -> Any:
    """A numpy number or a tensor as plain numbers; anything else in words."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def check_same_model(model: nn.Module, tensors: State, card: dict[str, Any], path: str | os.PathLike) -> None:
    """Raise CheckpointError for weights of other shapes, and for weights that the model of the file reads otherwise.

    A file from before there was a structure in its card is known by its shapes and its recipe. Where another version of
    flowlab wrote it, a structure that differs is a warning: what is called otherwise now may be the same.
    """
    newer = {f"{n}.{part}".lstrip(".") for n, m in model.named_modules() for part in getattr(m, "newer", ())}
    own = {n: tuple(v.shape) for n, v in model.state_dict().items() if n in tensors or n not in newer}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if own != found:
        name = next(n for n in {**own, **found} if own.get(n) != found.get(n))
        raise CheckpointError(
            f"{path} holds another model: {name} is {found.get(name, 'absent')} there and {own.get(name, 'absent')} "
            f"in this {type(model).__name__}. Build the model with the settings that the file was made with."
        )
    mine, recipe = recipe_of(model), card.get("recipe")
    if mine and recipe and not same_model(mine, recipe):
        raise CheckpointError(
            f"{path} holds another model: {recipe}, and this one is {mine}. Build it as the file says."
        )
    if other := other_part(card.get("structure") or {}, as_json(structure(model))):
        what, there, here = other
        words = (
            f"{path} holds another model: {what} is {there} there and {here} in this {type(model).__name__}. Build it "
            f"as the file says; model.load_state_dict(read_checkpoint(path)[0]) loads the weights all the same."
        )
        if (card.get("versions") or {}).get("flowlab") == version():
            raise CheckpointError(words)
        warnings.warn(words, stacklevel=3)
