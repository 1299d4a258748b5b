"""The input on which a student's function and the worked answer differ most, as words for a small table."""

from __future__ import annotations

import functools
import inspect
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowlab.lessons.base.card import number

if TYPE_CHECKING:
    from torch import Tensor

FEW = 6  # numbers that a table can show
KEPT = 40  # calls that are remembered
LARGE = 100_000  # numbers that are too many to be kept of each


class Calls:
    """A function that remembers what it was last called with, and what it gave."""

    def __init__(self, function: Callable) -> None:
        self.kept: deque[tuple[tuple, dict[str, Any], Tensor]] = deque(maxlen=KEPT)

        @functools.wraps(function)
        def remembering(*args: Any, **settings: Any) -> Any:
            given = [_as_it_is(value) for value in args], {name: _as_it_is(value) for name, value in settings.items()}
            result = function(*args, **settings)
            value = _numbers(result)
            if value is not None:
                self.kept.append((tuple(given[0]), given[1], value))
            return result

        self.function = remembering

    def example(self, answer: Callable) -> dict[str, str]:
        """The call whose value is farthest from that of a right answer: {what was given or came: in words}, or {}.

        Nothing is said of functions without arguments, which would give the answer away, nor of those that draw.
        """
        import torch

        worst, found = 0.0, {}
        for args, settings, value in self.kept:
            names = [*inspect.signature(answer).parameters]
            given = dict(zip(names, args, strict=False)) | settings
            if not given or any(isinstance(v, torch.Generator) for v in given.values()):
                continue
            try:
                right = _numbers(answer(*args, **settings))
            except Exception:  # the student's function may have been asked what a worked answer refuses
                continue
            if right is None or right.shape != value.shape or torch.allclose(value, right, rtol=5e-3, atol=5e-3):
                continue
            gap = (value - right).abs().nan_to_num(math.inf).reshape(-1)
            place = int(gap.argmax())
            if float(gap[place]) > worst:
                worst = float(gap[place])
                at = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), value.shape))
                of = f" [{', '.join(map(str, at))}]" if value.numel() > 1 else ""
                found = {name: _in_words(v, value, at) for name, v in given.items()}
                found |= {f"yours{of}": number(value[at]), f"a right answer{of}": number(right[at])}
        return found


def _as_it_is(value: Any) -> Any:
    """The value as it is now, where the function may change it."""
    import torch

    small = isinstance(value, torch.Tensor) and value.numel() <= LARGE
    return value.detach().clone() if small else value


def _numbers(result: Any) -> Tensor | None:
    """What a function gave, as float64, if it is numbers and not too many."""
    import torch

    if isinstance(result, (str, bool)) or result is None:
        return None
    try:
        value = torch.as_tensor(result).detach().to(torch.float64, copy=True)
    except (TypeError, ValueError, RuntimeError):
        return None
    return value if 0 < value.numel() <= LARGE else None


def _in_words(given: Any, value: Tensor, at: tuple[int, ...]) -> str:
    """An argument for a table: of many rows the one that the value at this place belongs to."""
    import torch

    if isinstance(given, torch.Tensor):
        own = at and given.ndim and len(given) == len(value) and (given.numel() > FEW or given.shape == value.shape)
        row = given[at[0]] if own else given
        if row.numel() > FEW:
            return f"{' × '.join(map(str, given.shape))} numbers"
        text = number(row) if row.ndim == 0 else f"[{', '.join(number(n) for n in row.reshape(-1))}]"
        return f"{text} (row {at[0]})" if own else text
    if isinstance(given, (float, int)):
        return number(given)
    text = getattr(given, "__name__", "") or (repr(given) if isinstance(given, (str, tuple, list)) else "")
    return text if 0 < len(text) <= 40 else type(given).__name__
