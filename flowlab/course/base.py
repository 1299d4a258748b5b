"""Where the notebooks are, what they promise, and how to read and write one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowlab.lessons import Exercise, exercises
from flowlab.lessons.base import order


@dataclass(frozen=True)
class Aim:
    """One line of a notebook's "You will be able to".

    Attributes:
        text: the line, without its emphasis.
        verbs: its emphasized words, by which an ``Exercise`` names the aims it shows.
    """

    text: str
    verbs: tuple[str, ...]


def pip_install(extra: str) -> str:
    """The command that installs an extra, in a clone or without one."""
    return f'pip install -e ".[{extra}]"' if order.IN_CLONE else f'pip install "flowlab[{extra}]"'


def notebooks(chosen: Iterable[str | int] = ()) -> list[Path]:
    """The notebooks of the course in teaching order, or those chosen by number (4, "4", "04") or by lesson ("nice").

    Raises ValueError for what is neither, and where no notebooks are installed.
    """
    found = order.notebooks()
    if not found:
        raise ValueError(
            "This works from a clone of the course, and this installation has no notebooks beside it. "
            'Clone the repository and run: pip install -e ".[lab]"'
        )
    numbers = order.numbers()
    wanted = [_two_digits(numbers.get(str(name), str(name))) for name in chosen] or list(found)
    for number in wanted:
        if number not in found:
            raise ValueError(f"There is no notebook {number}. There are: {', '.join(found)}.")
    return [found[number] for number in dict.fromkeys(wanted)]


def _two_digits(number: str) -> str:
    return f"{int(number):02d}" if number.isdecimal() else number


def read(path: Path) -> dict[str, Any]:
    """A notebook as nested dicts, the source of each cell as one string. Raises ValueError where it is none."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not a notebook ({error}). If git has left the marks of a conflict in it, take one side: "
            f"git checkout --theirs {path.name}"
        ) from None
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def write(notebook: dict[str, Any], path: Path) -> None:
    """Write a notebook, as Jupyter lays it out."""
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def title(path: Path) -> str:
    """The first heading, "04 Coupling layers: NICE"."""
    return read(path)["cells"][0]["source"].splitlines()[0].lstrip("# ")


def aims(path: Path) -> list[Aim]:
    """What the opening cell lists under "You will be able to"."""
    _, _, rest = read(path)["cells"][0]["source"].partition("You will be able to")
    listed = re.match(r"[^\n]*\n+((?:- .*\n+)+)", rest + "\n")
    lines = re.findall(r"- (.*)", listed.group(1)) if listed else []
    return [Aim(line.replace("*", "").rstrip(";.").strip(), tuple(re.findall(r"\*([^*]+)\*", line))) for line in lines]


def exercise_of(cell: dict[str, Any]) -> Exercise | None:
    """The exercise with whose name a cell is tagged, as in exercise-the_elbo.1; None where there is no such tag."""
    for tag in cell["metadata"].get("tags", []):
        if tag.startswith("exercise-"):
            name = tag.removeprefix("exercise-")
            return exercises(name.partition(".")[0])[name]
    return None
