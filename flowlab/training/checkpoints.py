"""Checkpoints: weights and their card in one safetensors file, and beside it all that a killed run needs to go on.

Each file is written under a temporary name and then renamed, so that it is there whole or not at all. Nothing in a file
is ever run.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowlab.models.registry import same_model
from flowlab.training import distributed
from flowlab.training.fingerprints import other_part, structure

State = dict[str, Tensor]


class CheckpointError(ValueError):
    """A file is no checkpoint, or the checkpoint of another model or run."""


def save_checkpoint(path: str | os.PathLike, model: nn.Module, card: dict[str, Any] | None = None) -> None:
    """Write weights and card to one safetensors file, whole or not at all (a temporary name, then a rename).

    Of several processes that train together only the first writes.
    """
    if distributed.rank() == 0:
        write(place(path), copy_of(model), card_of(model) | (card or {}))


def load_checkpoint(path: str | os.PathLike, model: nn.Module) -> dict[str, Any]:
    """Load weights into ``model``, leave it in evaluation mode as ``fit`` does, and return the card.

    Raises:
        CheckpointError: when the file is missing, not safetensors, or holds another model's weights.
    """
    tensors, card = read_checkpoint(path)
    check_same_model(model, tensors, card, path)
    model.load_state_dict(tensors)
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
    """Where a checkpoint lies: ``~`` is the home folder. ValueError, in a sentence, where no file can be."""
    if os.fspath(path) == "":
        raise ValueError("A checkpoint is a file, such as runs/flow.safetensors, but its name is empty.")
    try:
        file = Path(path).expanduser()
    except RuntimeError:  # no home folder, or nobody of that name
        raise ValueError(f"There is no home folder for {path}. Name the whole path of the checkpoint.") from None
    if file.is_dir():
        raise ValueError(
            f"A checkpoint is a file, but {path} is a folder. Name a file in it, such as {file / 'flow.safetensors'}."
        )
    return file


def training_file(checkpoint: str | os.PathLike) -> Path:
    """The second file, which holds all that a resumed run needs and can be left out once it is done."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.training{path.suffix or '.safetensors'}")


# --- writing ----------------------------------------------------------------------------------------------------------


def write(path: Path, tensors: State, card: dict[str, Any]) -> None:
    """Write one file, whole or not at all; OSError, in a sentence, when it cannot be done."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = save(tensors, metadata={"card": json.dumps(card, default=plain)})
    temporary = _part(path)
    with _in_words(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def make_ready(checkpoint: str | os.PathLike) -> None:
    """Fail now, and not after the first hundred steps, where nothing can be written; sweep up after killed writers."""
    path = Path(checkpoint)
    with _in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, training_file(path)):
            for part in path.parent.iterdir():
                named = re.fullmatch(rf"\.{re.escape(file.name)}\.(\d+)\.part", part.name)
                if named and not _alive(int(named[1])):
                    part.unlink(missing_ok=True)
        _part(path).touch()
        _part(path).unlink()


def _part(path: Path) -> Path:
    """The name of a file that is still being written, by which process."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _alive(process: int) -> bool:
    """Whether another process of that number may still be writing."""
    if process == os.getpid():
        return False  # an earlier process of the same number, as is common in containers: this one is not writing yet
    if os.name != "posix":
        return True  # elsewhere the question itself would stop it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is someone else's
    return True


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
    """The weights as they are now, whatever happens to the model later."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def card_of(model: nn.Module) -> dict[str, Any]:
    """Which model a file holds, how to build it again, and what it was made with."""
    from flowlab import __version__

    device = next(model.parameters(), torch.zeros(())).device
    return {
        "model": type(model).__name__,
        **identity_of(model),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {"flowlab": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def identity_of(model: nn.Module) -> dict[str, Any]:
    """What tells the model from others whose weights have the same shapes, as JSON will give it back."""
    own = {"recipe": recipe_of(model), "structure": structure(model)}
    return json.loads(json.dumps({name: what for name, what in own.items() if name == "recipe" or what}))


def recipe_of(model: nn.Module) -> dict[str, Any] | None:
    """How to build the model again, as JSON will give it back: lists for tuples, plain numbers for numpy's."""
    return json.loads(json.dumps(getattr(model, "recipe", None), default=plain))


def plain(value: Any) -> Any:
    """A numpy number or a tensor as plain numbers; anything else in words."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def check_same_model(model: nn.Module, tensors: State, card: dict[str, Any], path: str | os.PathLike) -> None:
    """Refuse weights of other shapes, and weights of the same shapes that the model of the file reads otherwise.

    A file from before there was a structure in its card is known by its shapes and its recipe. Where another version of
    flowlab wrote it, a structure that differs is a warning: what is called otherwise now may be the same.
    """
    from flowlab import __version__

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
    if other := other_part(card.get("structure") or {}, identity_of(model)["structure"]):
        what, there, here = other
        words = (
            f"{path} holds another model: {what} is {there} there and {here} in this {type(model).__name__}. Build it "
            f"as the file says; model.load_state_dict(read_checkpoint(path)[0]) loads the weights all the same."
        )
        if card.get("versions", {}).get("flowlab") == __version__:
            raise CheckpointError(words)
        warnings.warn(words, stacklevel=3)
