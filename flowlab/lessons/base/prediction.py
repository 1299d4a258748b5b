"""Predictions: a student types a number, or chooses, before they see the result, and later the two are compared."""

from __future__ import annotations

import html
import re
from typing import Any

import IPython
import ipywidgets as widgets

from flowlab.lessons.base.card import Card, number

_kept: dict[str, Any] = {}  # by question, so that a cell that runs again still shows what was predicted


def predict(question: str, choices: tuple[str, ...] | None = None, *, unit: str = "") -> Prediction:
    """Ask for a prediction, a number or one of the choices, under the cell; ``compare`` it with what comes.

    Nobody has to answer: the value is then None, and ``compare`` says nothing.

    Args:
        question: one sentence, which stands alone where no kernel runs.
        choices: the words to choose from; a number is asked for without them.
        unit: of the number, "nats".
    """
    prediction = Prediction(question, choices, unit=unit)
    shell = IPython.get_ipython()
    if shell is not None and hasattr(shell, "kernel"):
        IPython.display.display(prediction)
    return prediction


class Prediction(widgets.VBox):
    """A question with a field for its answer; ``value`` is a number, one of the choices, or None."""

    def __init__(self, question: str, choices: tuple[str, ...] | None = None, *, unit: str = "") -> None:
        self.question, self.choices, self.unit = question, choices, unit
        self.value: float | str | None = None
        kept = _kept.get(question)
        if choices:
            self.field = widgets.RadioButtons(options=choices, value=kept if kept in choices else None)
        else:
            typed = kept if isinstance(kept, str) else ""
            self.field = widgets.Text(typed, placeholder="a number, then Enter", continuous_update=False)
            self.field.description = f"your prediction{f' ({unit})' if unit else ''}"
            self.field.style.description_width = "initial"
        self.said = widgets.HTML()
        self.field.observe(lambda _: self._take(), names="value")
        super().__init__([widgets.HTML(f"<b>{html.escape(question)}</b>"), self.field, self.said])
        self.listeners: list[Any] = []  # called when it changes
        self._take()

    def compare(self, truth: Any, *, within: float = 0.02) -> None:
        """Show the prediction beside what came: a number with its distance, a choice with right or wrong.

        A number is right if it is off by no more than this share of the truth.

        Raises:
            ValueError: for a truth that is none of the choices.
        """
        if self.choices and truth not in self.choices:
            raise ValueError(f"Expected what came as one of {self.choices}, but got {truth!r}.")
        if self.value is None:
            return
        if isinstance(self.value, str):
            right, sentence = self.value == truth, f"you chose {self.value}, and it is {truth}."
        else:
            truth, unit = float(truth), f" {self.unit}" if self.unit else ""
            off = self.value - truth
            right = abs(off) <= within * abs(truth)
            distance = "" if off == 0 else f", {number(abs(off))}{unit} too {'high' if off > 0 else 'low'}"
            sentence = f"you predicted {number(self.value)}{unit}, and it is {number(truth)}{unit}{distance}."
        Card("right" if right else "missed", "Your prediction", sentence).show()

    def _take(self) -> None:
        """Read the field, and say what was understood."""
        given = self.field.value
        _kept[self.question] = given
        self.value = given if self.choices else _read(given or "")
        if self.value is not None:
            words = self.value if isinstance(self.value, str) else number(self.value)
            said = f"You predict {html.escape(words)}. Now run the next cell."
        else:
            said = "Expected a number, such as 0.5, 1/2 or 50 %." if given else ""
        self.said.value = f'<span role="status">{said}</span>' if said else ""
        for listener in self.listeners:
            listener()

    def __str__(self) -> str:
        return str(self.value)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live widget, and the plain question for pages that run no code."""
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": f"Predict: {self.question}"}


def _read(text: str) -> float | None:
    """The number that somebody typed: 0.5, 0,5, −0.5, 1/2, 50 % or 4,612; None where it is none."""
    text = re.sub(r"\s", "", text.replace("−", "-"))
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", text):  # commas between thousands, and no decimal comma
        text = text.replace(",", "")
    text = text.replace(",", ".")
    found = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?:/(\d+\.?\d*))?(%?)", text, re.IGNORECASE)
    if not found or (found[2] and float(found[2]) == 0):
        return None
    return float(found[1]) / float(found[2] or 1) / (100 if found[3] else 1)
