"""A student's own copy of the notebooks, without outputs, which a new version of the course never overwrites."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowlab.course import base
from flowlab.files import write_whole
from flowlab.lessons.base import order

RECORD = ".flowlab_copy.json"


def copy(folder: Path) -> Iterator[str]:
    """Bring the course's notebooks, solutions and pictures into a folder, and say a line about each that is new.

    Notebooks come without outputs: a student predicts before they see the result. Stored outputs serve the book.

    A file that the student has left alone is brought up to date, and one that they have deleted comes back. A file that
    they have changed stays as it is, to the byte: a new version is put beside it. So does a link that they have put in
    its place. Jupyter writes a notebook anew that was only opened; while its cells are the same, it counts as left
    alone. Where a lesson has another number now, its notebook is renamed. What was copied is remembered, as hashes, in
    ``.flowlab_copy.json`` in the folder. Raises ValueError where the folder is the course's own.
    """
    base.notebooks()
    if folder.resolve().is_relative_to(order.NOTEBOOKS) or order.NOTEBOOKS.is_relative_to(folder.resolve()):
        raise ValueError(f"{folder} holds the course itself. Name a folder of your own, as in: flowlab copy my-course")
    folder.mkdir(parents=True, exist_ok=True)
    record = _record(folder)
    yield from _follow(folder, record)
    touched_in_clone = _changed_in_clone()
    for source in _files():
        name = source.relative_to(order.NOTEBOOKS).as_posix()
        # Work done inside the clone itself is the student's from the first: no later version may replace it, and its
        # outputs stay in it.
        worked_on = name in touched_in_clone
        content = source.read_bytes() if worked_on else _without_outputs(source)
        own, new = folder / name, _hash(content)
        last = record.get(name, {})
        copied = None if worked_on else new
        cells = _cells(content) if copied and own.suffix == ".ipynb" else None
        theirs = own.is_symlink()  # also one that leads nowhere now, as to a disk that is not there today
        if not theirs and not own.exists():
            yield f"{name}: {'was gone, and is back' if last else 'new'}"
            write_whole(own, content)
        elif own.exists() and _left_alone(own, {"copied": new, "cells": None if theirs else cells}):
            pass
        elif not theirs and _left_alone(own, last):
            yield f"{name}: brought up to date"
            write_whole(own, content)
        else:
            copied, cells = last.get("copied"), last.get("cells")
            if last.get("offered") != new:
                beside = _free_name(own, new)
                yield f"{name}: yours, and left as it is; the new version is beside it, as {beside.name}"
                write_whole(beside, content)
        record[name] = {"copied": copied, "offered": new, "cells": cells}
        _write(folder, record)


def _follow(folder: Path, record: dict[str, dict[str, str | None]]) -> Iterator[str]:
    """Rename notebooks whose lesson has another number now, with whatever the student has done in them."""
    for old in [name for name in record if not (order.NOTEBOOKS / name).exists()]:
        place = Path(old)
        lesson = order.slug(place)
        now = [path.name for path in (order.NOTEBOOKS / place.parent).glob(f"[0-9][0-9]_{lesson}.ipynb")]
        if len(now) != 1:
            continue  # the course has it no more, and the student keeps theirs
        new = place.with_name(now[0])
        known = record.pop(old)
        own, moved = folder / old, folder / new
        if (own.exists() or own.is_symlink()) and not moved.exists() and not moved.is_symlink():
            own.rename(moved)
            record[new.as_posix()] = known
            _write(folder, record)
            yield f"{old}: is {new.as_posix()} now, as you have left it"


def _files() -> list[Path]:
    """What the course hands out: all under notebooks/ but the teacher's guide and what Jupyter leaves there."""
    everything = (path for path in sorted(order.NOTEBOOKS.rglob("*")) if path.is_file())
    return [
        path
        for path in everything
        if path.name != "README.md"
        and not any(part.startswith(".") for part in path.relative_to(order.NOTEBOOKS).parts)
    ]


def _without_outputs(source: Path) -> bytes:
    """A file of the course as a student gets it: a notebook has no outputs, and any other file is as it is."""
    content = source.read_bytes()
    if source.suffix != ".ipynb":
        return content
    try:
        notebook = json.loads(content)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
    except (ValueError, KeyError, TypeError, RecursionError):
        return content  # no notebook: it is not for a copy to judge what it is
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def _left_alone(own: Path, last: dict[str, str | None]) -> bool:
    """Whether a file is still what was copied, at least by its cells."""
    content = own.read_bytes()
    return _hash(content) == last.get("copied") or bool(last.get("cells") and _cells(content) == last["cells"])


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _cells(content: bytes) -> str | None:
    """A hash of a notebook's cells with their outputs, however Jupyter breaks the lines; None for what is none."""
    try:
        cells = json.loads(content)["cells"]
        kept = [{key: cell.get(key) for key in ("cell_type", "source", "outputs")} for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return hashlib.sha256(json.dumps(_joined(kept), sort_keys=True).encode()).hexdigest()


def _joined(value: Any) -> Any:
    """The same with lists of lines as one text."""
    if isinstance(value, dict):
        return {key: _joined(v) for key, v in value.items()}
    if isinstance(value, list):
        lines = value and all(isinstance(v, str) for v in value)
        return "".join(value) if lines else "" if value == [] else [_joined(v) for v in value]
    return value


def _record(folder: Path) -> dict[str, dict[str, str | None]]:
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        return {name: dict(known) for name, known in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}  # then every file counts as the student's, and nothing is overwritten


def _write(folder: Path, record: dict[str, dict[str, str | None]]) -> None:
    """After each file, so that a copy that was broken off goes on where it was."""
    write_whole(folder / RECORD, json.dumps(record, indent=1))


def _free_name(own: Path, new: str) -> Path:
    """A name beside the student's file that holds nothing, or this very version already."""
    count = 2
    while True:
        beside = own.with_name(f"{own.stem}_version_{count}{own.suffix}")
        if not beside.exists() or _hash(beside.read_bytes()) == new:
            return beside
        count += 1


def _changed_in_clone() -> set[str]:
    """Files under notebooks/ that differ from what git holds; none where there is no git to ask."""
    if not order.IN_CLONE:  # a git that is asked here would speak of another repository, around this installation
        return set()
    git = ["git", "-C", str(order.NOTEBOOKS)]
    command = [*git, "status", "--porcelain", "-z", "--no-renames", "-uall", "--", "."]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
        top = subprocess.run([*git, "rev-parse", "--show-prefix"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return set()
    prefix = top.stdout.strip()
    return {entry[3:].removeprefix(prefix) for entry in asked.stdout.split("\0") if entry}
