"""The lessons, one folder each; and what their notebooks call: ``check("the_elbo.1", f)``, ``hint("the_elbo.1")``."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from flowlab.lessons.base import order, progress
from flowlab.lessons.base.card import Card
from flowlab.lessons.base.exercise import Exercise, Wrong, expect

__all__ = [
    "Exercise",
    "Wrong",
    "check",
    "exercises",
    "expect",
    "explorers",
    "hint",
    "predict",
    "score",
    "slugs",
    "yours",
]

_given: dict[str, int] = {}


def __getattr__(name: str) -> Any:
    """``predict`` is a widget, and widgets take long to load: they come when they are asked for."""
    if name == "predict":
        return importlib.import_module(f"{__name__}.base.prediction").predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def slugs() -> list[str]:
    """The lessons by the names of their folders, in teaching order; by alphabet where no notebooks are installed."""
    numbers = order.numbers()
    folders = (module.name for module in pkgutil.iter_modules(__path__) if module.ispkg and module.name != "base")
    return sorted(folders, key=lambda slug: (numbers.get(slug, "99"), slug))


def exercises(lesson: str = "") -> dict[str, Exercise]:
    """The exercises of one lesson, such as "the_elbo", or of all of them in teaching order, by name."""
    chosen = [slug for slug in slugs() if lesson in ("", slug)]
    return {exercise.name: exercise for slug in chosen for exercise in _module(slug, "exercises").EXERCISES}


def explorers() -> dict[str, type]:
    """Every explorer of the course by name, each ready to be made without arguments."""
    from flowlab.lessons.base.explorer import Explorer

    for slug in slugs():
        _module(slug, "explorer")
    found, below = [], [Explorer]
    while below:
        below = [cls for parent in below for cls in parent.__subclasses__()]
        found += [cls for cls in below if cls.__module__.endswith(".explorer") and cls.__module__.startswith(__name__)]
    return {cls.__name__: cls for cls in sorted(found, key=lambda cls: (cls.__module__, cls.__name__))}


def check(name: str, answer: Callable) -> None:
    """Say whether the answer is right, and if not, what to think about. Never raises for a wrong answer.

    A right answer is noted for ``flowlab progress``. The exercise is named "the_elbo.1", or by its number, "08.1".
    Raises ValueError where there is no such exercise, and TypeError where the name is no string.
    """
    exercise = _exercise(name)
    if _told(exercise, answer) == "right":
        progress.solved(exercise.name)


def score(name: str, answer: Callable) -> float:
    """What ``check`` says, and 1.0 point if that is "right", else 0.0: the last line of a cell that nbgrader marks.

    Warnings and logs go unheard, because nbgrader gives no points to a cell that prints one.
    """
    heard = logging.root.manager.disable
    logging.disable()  # a handler may have been given the true stderr long ago
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return float(_told(_exercise(name), answer) == "right")
    finally:
        logging.disable(heard)


def hint(name: str) -> None:
    """Print the next hint; ask again for a more telling one."""
    exercise = _exercise(name)
    hints = exercise.hints
    count = min(_given.get(exercise.name, 0), len(hints) - 1)
    _given[exercise.name] = count + 1
    print(f"Hint {count + 1} of {len(hints)}: {hints[count]}")  # noqa: T201


def yours(name: str, answer: Callable) -> Callable:
    """The student's answer where it passes its check, else the worked one, so that a notebook can go on; say which."""
    exercise = _exercise(name)
    right = exercise.verdict(answer)[0] == "right"
    print(f"{exercise.label}: {'yours' if right else 'the worked answer stands in until yours passes'}")  # noqa: T201
    return answer if right else exercise.answer


def _module(slug: str, part: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{slug}.{part}")


def _told(exercise: Exercise, answer: Callable) -> str:
    kind, sentence, example = exercise.judged(answer)
    hints = () if kind == "right" else exercise.hints
    Card(kind, f"Exercise {exercise.label}", sentence, example, hints).show()
    return kind


def _exercise(name: str) -> Exercise:
    if not isinstance(name, str):
        raise TypeError(
            f'Expected the name of an exercise as a string, as in check("the_elbo.1", f), but got {name!r}.'
        )
    name = order.meant(name)
    lesson = name.partition(".")[0]
    found = exercises(lesson)
    if name not in found:
        there = f"Those of {lesson} are" if found else "The lessons are"
        raise ValueError(f"There is no exercise {name!r}. {there}: {', '.join(found or slugs())}.")
    return found[name]
