"""What commands share: whole numbers, devices, files that must be writable, and words."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path


def whole(text: str) -> int:
    """A whole number of at least 1, as an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, but got {text!r}")
    return int(text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option --device."""
    devices = ("auto", "cpu", "cuda")
    parser.add_argument("--device", choices=devices, default="auto", help="auto is a GPU if there is one (default)")


def chosen(device: str) -> str:
    """The device to compute on; ValueError where a GPU was asked for and there is none."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU, and torch finds none here. Leave it out, or say --device cpu.")
    return "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")


@contextlib.contextmanager
def reserved(file: Path | None) -> Iterator[None]:
    """OSError now, and not after minutes of work, for a file that cannot be written; work that fails leaves none."""
    if file is None:
        yield
        return
    new = not file.exists()
    file.open("ab").close()
    try:
        yield
    except BaseException:
        if new:
            file.unlink()
        raise


def plural(count: int, what: str) -> str:
    """ "1 step", "2 steps"."""
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def needs(module: str, extra: str, what: str) -> None:
    """ValueError, with the command that installs it, where a module of an extra is missing."""
    import importlib.util

    if importlib.util.find_spec(module) is None:
        from flowlab.course.base import pip_install

        raise ValueError(f"{what} is not installed here. Install it with: {pip_install(extra)}")
