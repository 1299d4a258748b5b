"""Feedback for the exercises: ``check("02.1", my_function)`` and ``hint("02.1")``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from flowlab.checks.base import Exercise, Wrong, expect

__all__ = ["Exercise", "Wrong", "check", "exercises", "expect", "hint"]

MARKS = {"right": "✔", "wrong": "✘", "open": "○"}
_given: dict[str, int] = {}


def exercises(notebook: str = "") -> dict[str, Exercise]:
    """The exercises of one notebook ("02"), or of all of them, by number."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(f"notebook_{notebook}"):
            found += importlib.import_module(f"{__name__}.{module.name}").EXERCISES
    return {exercise.number: exercise for exercise in sorted(found, key=lambda e: e.number)}


def check(number: str, answer: Callable) -> None:
    """Say whether the answer is right, and if not, what to think about. Never raises for a wrong answer."""
    kind, sentence = _exercise(number).verdict(answer)
    print(f"{MARKS[kind]} Exercise {number}: {sentence}")  # noqa: T201


def hint(number: str) -> None:
    """Print the next hint; ask again for a more telling one."""
    hints = _exercise(number).hints
    count = min(_given.get(number, 0), len(hints) - 1)
    _given[number] = count + 1
    print(f"Hint {count + 1} of {len(hints)}: {hints[count]}")  # noqa: T201


def _exercise(number: str) -> Exercise:
    found = exercises(number.partition(".")[0])
    if number not in found:
        raise ValueError(f"There is no exercise {number!r}. There are: {', '.join(exercises())}.")
    return found[number]
