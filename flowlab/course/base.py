"""Where the notebooks are, what they promise, and how to read and write one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@dataclass(frozen=True)
class Aim:
    """One line of a notebook's "You will be able to".

    Attributes:
        text: the line, without its emphasis.
        verbs: its emphasized words, by which an ``Exercise`` names the aims it shows.
    """

    text: str
    verbs: tuple[str, ...]


def notebooks(numbers: Iterable[str | int] = ()) -> list[Path]:
    """The notebooks of the course in teaching order, or those with these numbers (4, "4" and "04" are the same).

    Where somebody keeps copies beside a notebook, such as 04_nice-Copy1, the shortest name is the course's own.
    Raises ValueError for a number that no notebook has, and where no notebooks are installed.
    """
    there = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"), key=lambda path: (path.name[:2], -len(path.name), path.name))
    found = {path.name[:2]: path for path in there}
    if not found:
        raise ValueError(
            "This works from a clone of the course, and this installation has no notebooks beside it. "
            'Clone the repository and run: pip install -e ".[lab]"'
        )
    wanted = [f"{int(n):02d}" if str(n).isdecimal() else str(n) for n in numbers] or list(found)
    for number in wanted:
        if number not in found:
            raise ValueError(f"There is no notebook {number}. There are: {', '.join(found)}.")
    return [found[number] for number in dict.fromkeys(wanted)]


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
