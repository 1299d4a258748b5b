"""What a check answers: in a notebook a card, elsewhere a line of text, and both say the same."""

from __future__ import annotations

import html
import re
import sys
from dataclasses import dataclass, field
from typing import Any

# The sign, the word and the color of each kind of answer: a color of the palette, dark enough for white letters.
KINDS = {
    "right": ("✔", "Right", "#00694D"),
    "wrong": ("✘", "Not yet", "#A8480A"),
    "open": ("○", "To do", "#5A5A5A"),
    "missed": ("→", "Not so", "#00568C"),
}
CODE = re.compile(r"`([^`]+)`")
EMPHASIS = re.compile(r"(?<![\w*)\]])\*(?=\S)([^*]+?)(?<=\S)\*(?![\w*(])")  # and no product


@dataclass(frozen=True)
class Card:
    """A sentence with its sign, and what belongs to it.

    Attributes:
        kind: "right", "wrong", "open" or "missed".
        about: what it is about, "Exercise 08.1".
        sentence: what is said, in one line.
        rows: for a small table, what was given and what came, by name.
        hints: to be opened one by one.
    """

    kind: str
    about: str
    sentence: str
    rows: dict[str, str] = field(default_factory=dict)
    hints: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The card as one line."""
        return f"{KINDS[self.kind][0]} {self.about}: {self.sentence}"

    @property
    def html(self) -> str:
        """The card as HTML that needs no kernel: its hints open by themselves, and screen readers hear that it came."""
        sign, word, color = KINDS[self.kind]
        badge = f'<b style="background:{color};color:#fff;border-radius:4px;padding:1px 8px">{sign} {word}</b>'
        return (
            f'<div role="status" style="border-left:5px solid {color};padding:4px 12px;margin:4px 0;max-width:46em;'
            f'line-height:1.5;overflow-wrap:break-word;font-family:var(--jp-content-font-family, sans-serif)">'
            f'<p style="margin:4px 0">{badge} &nbsp;{html.escape(self.about)}: {_marked(self.sentence)}</p>'
            f"{self._table()}{self._folds(self.hints)}</div>"
        )

    def show(self) -> None:
        """Show the card where the cell of a notebook runs, and print its text elsewhere."""
        ipython = sys.modules.get("IPython")
        shell = ipython.get_ipython() if ipython else None
        if shell is not None and hasattr(shell, "kernel"):
            from IPython.display import display

            display(self)
        else:
            print(self.text)  # noqa: T201

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text, "text/html": self.html}

    def _table(self) -> str:
        if not self.rows:
            return ""
        cell = 'style="text-align:left;padding:2px 16px 2px 0"'
        head = "".join(f'<th scope="col" {cell}>{html.escape(name)}</th>' for name in self.rows)
        body = "".join(f"<td {cell}>{html.escape(value)}</td>" for value in self.rows.values())
        return f'<table style="margin:4px 0"><thead><tr>{head}</tr></thead><tbody><tr>{body}</tr></tbody></table>'

    def _folds(self, hints: tuple[str, ...]) -> str:
        """Each hint in a fold, which holds the next."""
        if not hints:
            return ""
        name = f"Hint {len(self.hints) - len(hints) + 1} of {len(self.hints)}"
        inside = f'<p style="margin:2px 0">{_marked(hints[0])}</p>{self._folds(hints[1:])}'
        return f'<details style="margin:4px 0"><summary style="cursor:pointer">{name}</summary>{inside}</details>'


def number(value: Any) -> str:
    """A number as cards show it: four significant digits, large ones whole, with a minus as it is printed in books."""
    value = float(value)
    return (f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}").replace("-", "−")


def _marked(sentence: str) -> str:
    """A sentence with its *emphasis* and its `code` as HTML."""
    return EMPHASIS.sub(r"<em>\1</em>", CODE.sub(r"<code>\1</code>", html.escape(sentence)))
