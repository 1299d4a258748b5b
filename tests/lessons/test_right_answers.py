"""A right answer passes in whatever kind of number it comes: all right answers that are known, in other kinds."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flowlab.lessons import exercises
from flowlab.lessons.base import order

LESSONS = order.FORMER[:9]
# These return a flow that was trained, or a tensor that has to keep its gradient.
NOT_NUMBERS = {
    "start_here.4",
    "change_of_variables_2d.2",
    "maximum_likelihood.2",
    "realnvp_in_the_plane.2",
    "gaussian_mixtures_and_em.5",
    "the_elbo.4",
}
RIGHT = [
    (f"{slug}.{number}", answer)
    for slug in LESSONS
    for number, answer in importlib.import_module(f"test_{slug}").RIGHT
    if f"{slug}.{number}" not in NOT_NUMBERS
]


def significant(value: torch.Tensor) -> torch.Tensor:
    """The same numbers rounded to four digits, as somebody may write them down."""
    return torch.tensor([float(f"{float(v):.4g}") for v in value.flatten()], dtype=torch.float64).view(value.shape)


def column(value: torch.Tensor) -> torch.Tensor:
    return value[..., None] if value.ndim < 2 else value


KINDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "float64": lambda value: value.double(),
    "float32": lambda value: value.float(),
    "numpy": lambda value: value.numpy(),
    "lists and plain numbers": lambda value: value.tolist(),
    "a column": column,
    "four digits": significant,
    "with a gradient": lambda value: value.double().requires_grad_(),
}
WORDS: dict[str, Callable[[str], str]] = {"capitals": str.upper, "spaces": lambda word: f" {word} "}
VERDICTS: dict[str, Callable[[bool], Any]] = {
    "numpy": np.bool_,
    "tensor": torch.tensor,
    "one in an array": lambda verdict: np.array([verdict]),
}


def another(value: Any, kind: str) -> Any:
    """What a student's function returned, in another kind."""
    several = isinstance(value, list) and any(isinstance(v, torch.Tensor | np.ndarray) for v in value)
    if isinstance(value, tuple) or several:
        return type(value)(another(v, kind) for v in value)
    if isinstance(value, str):
        return WORDS.get(kind, str)(value)
    if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) == torch.bool:
        return VERDICTS.get(kind, bool)(bool(value))
    if isinstance(value, int | float | torch.Tensor | np.ndarray | np.generic | list):
        return KINDS[kind](torch.as_tensor(value).detach()) if kind in KINDS else value
    return value  # a flow, or None


@pytest.mark.parametrize("kind", sorted({*KINDS, *WORDS, *VERDICTS}))
@pytest.mark.parametrize(("name", "answer"), RIGHT, ids=[f"{name} {i}" for i, (name, _) in enumerate(RIGHT)])
def test_a_right_answer_passes_in_another_kind(name, answer, kind):
    if (name, kind) == ("start_here.3", "a column"):
        pytest.skip("the exercise is about the format: log_det is (n,)")
    assert exercises()[name].verdict(lambda *given: another(answer(*given), kind))[0] == "right"
