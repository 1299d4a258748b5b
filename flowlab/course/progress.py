"""Which aims of each notebook have been shown: the exercises that show an aim are all solved."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from flowlab.course.base import Aim, aims, notebooks, title
from flowlab.lessons import Exercise, exercises
from flowlab.lessons.base import order, progress


def exercises_for(path: Path) -> list[tuple[Aim, list[Exercise]]]:
    """Each aim of a notebook, with the exercises that show it."""
    here = exercises(order.slug(path)).values()
    return [(aim, [exercise for exercise in here if set(exercise.aims) & set(aim.verbs)]) for aim in aims(path)]


def report(chosen: Iterable[str | int] = ()) -> str:
    """A line for each aim of these notebooks (of all, if none is named), with what is solved and what is open."""
    solved = progress.read()["solved"]
    lines = [line for path in notebooks(chosen) for line in _notebook(path, solved)]
    scores = [f"{right} of 10 on {day}" for day, right in progress.read()["inventory"]]
    if scores:
        lines.append(f"Concept inventory: {', then '.join(scores)}")
    file = progress.file()
    lines.append(f"Kept in {file}; delete it to start anew." if file else "Not kept: FLOWLAB_PROGRESS is off.")
    return "\n".join(lines)


def show(lesson: str) -> None:
    """Print which aims of one lesson, such as "the_elbo", have been shown: the cell with which each notebook closes."""
    lesson, solved = order.meant(lesson), progress.read()["solved"]
    try:
        [path] = notebooks([lesson])
        lines = _notebook(path, solved)
    except ValueError:  # installed without the notebooks, and so without the words of their aims
        lines = [f"{'✔' if name in solved else '○'} Exercise {e.label}" for name, e in exercises(lesson).items()]
    print("\n".join(lines))  # noqa: T201


def _notebook(path: Path, solved: Collection[str]) -> list[str]:
    here = exercises(order.slug(path))
    head = f"{title(path)}: {len(here.keys() & solved)} of {len(here)} exercises solved"
    return [head, *(f"  {_line(aim, needed, solved)}" for aim, needed in exercises_for(path))]


def _line(aim: Aim, needed: list[Exercise], solved: Collection[str]) -> str:
    left = [exercise.label for exercise in needed if exercise.name not in solved]
    if left:
        return f"○ {aim.text} (to show it: {', '.join(left)})"
    shown = ", ".join(exercise.label for exercise in needed)
    return f"✔ {aim.text} (shown by {shown})" if needed else f"· {aim.text} (no exercise asks for it)"
