"""Which aims of each notebook have been shown: the exercises that show an aim are all solved."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from flowlab.course.base import Aim, aims, notebooks, title
from flowlab.lessons import exercises
from flowlab.lessons.base import progress


def exercises_for(path: Path) -> list[tuple[Aim, list[str]]]:
    """Each aim of a notebook, with the numbers of the exercises that show it."""
    here = exercises(path.name[:2])
    return [(aim, [n for n, e in here.items() if set(e.aims) & set(aim.verbs)]) for aim in aims(path)]


def report(numbers: Iterable[str | int] = ()) -> str:
    """A line for each aim of these notebooks (of all, if none is named), with what is solved and what is open."""
    solved = progress.read()["solved"]
    lines = [line for path in notebooks(numbers) for line in _notebook(path, solved)]
    scores = [f"{right} of 10 on {day}" for day, right in progress.read()["inventory"]]
    if scores:
        lines.append(f"Concept inventory: {', then '.join(scores)}")
    file = progress.file()
    lines.append(f"Kept in {file}; delete it to start anew." if file else "Not kept: FLOWLAB_PROGRESS is off.")
    return "\n".join(lines)


def show(number: str) -> None:
    """Print which aims of one notebook have been shown: the cell with which each notebook closes."""
    solved = progress.read()["solved"]
    try:
        lines = _notebook(*notebooks([number]), solved)
    except ValueError:  # installed without the notebooks, and so without the words of their aims
        lines = [f"{'✔' if exercise in solved else '○'} Exercise {exercise}" for exercise in exercises(number)]
    print("\n".join(lines))  # noqa: T201


def _notebook(path: Path, solved: Collection[str]) -> list[str]:
    here = exercises(path.name[:2])
    head = f"{title(path)}: {len(here.keys() & solved)} of {len(here)} exercises solved"
    return [head, *(f"  {_line(aim, needed, solved)}" for aim, needed in exercises_for(path))]


def _line(aim: Aim, needed: list[str], solved: Collection[str]) -> str:
    left = [number for number in needed if number not in solved]
    if not left:
        return f"✔ {aim.text} (shown by {', '.join(needed)})" if needed else f"· {aim.text} (no exercise asks for it)"
    return f"○ {aim.text} (to show it: {', '.join(left)})"
