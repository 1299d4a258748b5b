"""The lessons, one folder each; and what their notebooks call: ``check("02.1", my_function)`` and ``hint("02.1")``."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import pkgutil
from collections.abc import Callable
from types import ModuleType

from flowlab.lessons.base import progress
from flowlab.lessons.base.exercise import Exercise, Wrong, expect

__all__ = ["Exercise", "Wrong", "check", "exercises", "expect", "explorers", "hint", "score", "slugs"]

MARKS = {"right": "✔", "wrong": "✘", "open": "○"}
_given: dict[str, int] = {}


def exercises(notebook: str = "") -> dict[str, Exercise]:
    """The exercises of one notebook ("02"), or of all of them, by number."""
    found = [exercise for slug in slugs() for exercise in _module(slug, "exercises").EXERCISES]
    return {e.number: e for e in sorted(found, key=lambda e: e.number) if e.number.startswith(notebook)}


def explorers() -> dict[str, type]:
    """Every explorer of the course by name, each ready to be made without arguments."""
    from flowlab.lessons.base.explorer import Explorer

    for slug in slugs():
        _module(slug, "explorer")
    found = (cls for cls in Explorer.__subclasses__() if cls.__module__.startswith(__name__))
    return {cls.__name__: cls for cls in sorted(found, key=lambda cls: (cls.__module__, cls.__name__))}


def slugs() -> list[str]:
    """The lessons by the names of their folders, such as "the_elbo", in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def _module(slug: str, part: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{slug}.{part}")


def check(number: str, answer: Callable) -> None:
    """Say whether the answer is right, and if not, what to think about. Never raises for a wrong answer.

    A right answer is noted for ``flowlab progress``.
    """
    if _told(number, answer) == "right":
        progress.solved(number)


def score(number: str, answer: Callable) -> float:
    """What ``check`` says, and 1.0 point if that is "right", else 0.0: the last line of a cell that nbgrader marks.

    Warnings and logs go unheard, because nbgrader gives no points to a cell that prints one.
    """
    heard = logging.root.manager.disable
    logging.disable()  # a handler may have been given the true stderr long ago
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return float(_told(number, answer) == "right")
    finally:
        logging.disable(heard)


def hint(number: str) -> None:
    """Print the next hint; ask again for a more telling one."""
    hints = _exercise(number).hints
    count = min(_given.get(number, 0), len(hints) - 1)
    _given[number] = count + 1
    print(f"Hint {count + 1} of {len(hints)}: {hints[count]}")  # noqa: T201


def _told(number: str, answer: Callable) -> str:
    kind, sentence = _exercise(number).verdict(answer)
    print(f"{MARKS[kind]} Exercise {number}: {sentence}")  # noqa: T201
    return kind


def _exercise(number: str) -> Exercise:
    if not isinstance(number, str):
        raise TypeError(f'An exercise is named by a string, as in check("02.1", f), but got {number!r}.')
    found = exercises(number.partition(".")[0])
    if number not in found:
        raise ValueError(f"There is no exercise {number!r}. There are: {', '.join(exercises())}.")
    return found[number]
