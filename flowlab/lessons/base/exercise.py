"""Exercises: question, worked answer, hints and check stand together; stub and solution follow from them.

In a notebook a student writes the function and calls ``check("the_elbo.1", elbo_terms)``. The check tests properties,
not text, and answers a wrong function with a sentence that names the likely misunderstanding.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowlab.lessons.base import order
from flowlab.lessons.base.example import Calls

if TYPE_CHECKING:
    from torch import Tensor


class Wrong(Exception):
    """The answer is not right yet; the message is the hint that fits this mistake."""


def expect(condition: Any, hint: str) -> None:
    """Go on if the condition holds, else stop with this hint."""
    if not bool(condition):
        raise Wrong(hint)


def numbers(value: Any, shape: tuple[int, ...] | None, name: str) -> Tensor:
    """What a student returned, as float64, of the wanted shape if one is given; a sentence where it cannot be.

    An axis of length one more or less is no mistake: one number may come as shape (1,), a column as (N, 1).
    """
    import torch  # here, so that commands such as `flowlab lab`, which read the order of lessons, start without it

    expect(value is not None, f"Your function returned None: {name} is missing. Is there a return?")
    try:
        value = torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(
            f"Expected {name} as numbers (a tensor, an array or a list), but got {type(value).__name__}."
        ) from None
    if shape is not None and [n for n in value.shape if n > 1] == [n for n in shape if n > 1] and value.numel():
        return value.reshape(shape)
    wanted = "one number" if shape == () else f"shape {tuple(shape)}" if shape is not None else ""
    expect(shape is None or value.shape == shape, f"Expected {name} as {wanted}, but got shape {tuple(value.shape)}.")
    return value


def close(value: Tensor, right: Any, *, rtol: float = 5e-3, atol: float = 5e-3) -> bool:
    """Whether all numbers agree as far as they do where a student writes 0.69 for log 2, or 1.84 for log 2π."""
    import torch

    return torch.allclose(value, torch.as_tensor(right).to(value), rtol=rtol, atol=atol)


def log_prob_of(density: Any) -> Callable[[Tensor], Tensor]:
    """log p of points ``(n, D)`` as the density has it that a student returned, ``(n,)``; a hint where it is none."""
    expect(density is not None, "Your function returned None. Is there a return?")
    expect(
        not hasattr(density, "loss"),
        "That is the history that fit gives back. fit changes the flow itself: return the flow.",
    )
    expect(hasattr(density, "log_prob"), f"Expected a flow, which has a log_prob, but got {type(density).__name__}.")

    def log_prob(points: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            return numbers(density.log_prob(points), (len(points),), "log_prob").float()

    return log_prob


def yes_or_no(value: Any) -> bool:
    """The one verdict that a student returned: a bool of Python, of numpy or of torch."""
    expect(value is not None, "Your function returned None. Is there a return?")
    single = isinstance(value, bool) or (
        str(getattr(value, "dtype", "")).endswith("bool") and math.prod(value.shape) == 1
    )
    expect(single, "Return True or False, one for all points together.")
    return bool(value)


def one_of(value: Any, choices: tuple[str, ...]) -> str:
    """The word that a student chose, in small letters."""
    word = value.strip().lower() if isinstance(value, str) else value
    listed = ", ".join(f'"{choice}"' for choice in choices[:-1]) + f' or "{choices[-1]}"'
    expect(word in choices, f"Return {listed}, but got {value!r}.")
    return str(word)


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        name: "the_elbo.1": the lesson, and the number of the exercise in it. Readers see ``label``.
        question: what is asked, in Markdown.
        answer: the worked answer, a function or a class whose docstring is the stub's docstring too.
        check: takes a student's function or class; raises ``Wrong`` with a hint.
        praise: what a right answer shows, one sentence.
        hints: from gentle to almost told.
        aims: which of the notebook's aims it shows, each by a verb emphasized there, as "compute".
        why: why the worked answer is right, in two sentences; they stand under it in the solutions.
    """

    name: str
    question: str
    answer: Callable
    check: Callable[[Callable], None]
    praise: str
    hints: tuple[str, ...]
    aims: tuple[str, ...] = ()
    why: str = ""

    @property
    def lesson(self) -> str:
        """The lesson's slug, "the_elbo"."""
        return self.name.partition(".")[0]

    @property
    def label(self) -> str:
        """What readers see, "08.1", by the number of the lesson's notebook; the name where none is installed."""
        return order.label(self.name)

    @property
    def stub(self) -> str:
        """The cell a student finds: signature and docstring of the answer, and a body of three dots."""
        source = textwrap.dedent(inspect.getsource(self.answer))
        function = ast.parse(source).body[0]
        docstring = function.body[0]
        head = source.splitlines()[: docstring.end_lineno]
        return "\n".join([*head, "    ...", "", "", f'check("{self.name}", {self.answer.__name__})'])

    @property
    def solution(self) -> str:
        """The worked answer with its check, as one cell."""
        source = textwrap.dedent(inspect.getsource(self.answer)).rstrip()
        return f'{source}\n\n\ncheck("{self.name}", {self.answer.__name__})'

    def verdict(self, answer: Callable) -> tuple[str, str]:
        """("right" | "wrong" | "open", a sentence) for a student's function."""
        if _is_stub(answer):
            return "open", "not answered yet. Replace the three dots, then run this cell again."
        if not callable(answer):
            function = self.answer.__name__
            return "wrong", f'give the function itself, without brackets: check("{self.name}", {function}).'
        try:
            self.check(answer)
        except Wrong as wrong:
            return "wrong", str(wrong)
        except Exception as error:
            return "wrong", f"your function raised {type(error).__name__}: {error}"
        return "right", self.praise

    def judged(self, answer: Callable) -> tuple[str, str, dict[str, str]]:
        """The verdict on a student's function; where it is wrong, also an input with both values, in words, by name."""
        if not inspect.isfunction(answer):
            return *self.verdict(answer), {}
        calls = Calls(answer)
        kind, sentence = self.verdict(calls.function)
        return kind, sentence, calls.example(self.answer) if kind == "wrong" else {}


def _is_stub(answer: Callable) -> bool:
    """Whether the body is still a docstring and three dots."""
    if isinstance(answer, type):  # before Python 3.13 nobody finds the source of a class that a notebook has made
        parent = answer.__bases__[0].__module__.partition(".")[0]
        return parent in ("builtins", "torch") and not any(callable(part) for part in vars(answer).values())
    try:
        function = ast.parse(textwrap.dedent(inspect.getsource(answer))).body[0]
    except (OSError, TypeError, SyntaxError):
        return False
    if not isinstance(function, ast.FunctionDef):  # a lambda, say
        return False
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in function.body)
