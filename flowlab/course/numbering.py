"""Move the numbers of lessons: in file names, and in what notebooks and the pages beside them say.

A mention of a lesson is a link to its notebook; "notebook 04", "exercise 04.2", and what follows these in a list; a
number from 00 to 09 with its zero; or "From 04:". Other numbers are left alone: speak of lessons from 10 on by a link
or with the word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from flowlab.course.base import read, write
from flowlab.lessons.base import order

_AND = r"(?:, and|,| and| to| or|–) ?"


def _listed(one: str) -> str:
    return rf"{one}(?:{_AND}{one})*"


_ZERO_FIRST = r"(?<![\w.,:/{^+−-])0\d(?:\.[1-9])?(?![\d:]|\.\d)"
MENTION = re.compile(
    "|".join(
        (
            r"^# \d\d(?= )",  # the title of a notebook
            r"\[\d\d\b(?=[^\]\n]*\]\((?:\w+/)?\d\d_)",  # [04 Coupling layers](04_nice.ipynb)
            r"\b\d\d(?=_[a-z]\w*\b)",  # 04_nice.ipynb, 04_nice/
            r"^\| \d\d(?= \| \[[^\]\n]*\]\((?:\w+/)?\d\d_)",  # | 04 | [Coupling layers](04_nice.ipynb)
            r"\b[Nn]otebooks? " + _listed(r"\d\d(?![\d.]\d)"),
            r"\b[Ee]xercises? " + _listed(r"\d\d\.[1-9](?!\d)"),
            r"\bFrom \d\d(?=:)",
            _ZERO_FIRST + rf"(?:{_AND}[01]\d(?:\.[1-9])?(?![\d:]|\.\d))*",
        )
    ),
    re.MULTILINE,
)
NUMBER = re.compile(r"\b\d\d(?=\b|_)")


def renumber(moves: Mapping[str, str]) -> None:
    """Give lessons other numbers, ``{"04": "05", ...}``, in the names of their notebooks and in all that is written.

    What notebooks have printed of exercises, and the tables that are made from notebooks, are brought in line by
    ``python tests/notebook_format.py --write``.
    """
    folders = [order.NOTEBOOKS, order.NOTEBOOKS / "solutions"]
    for folder in folders:
        there = [path for path in folder.glob("[0-9][0-9]_*.ipynb") if path.name[:2] in moves]
        aside = [path.rename(path.with_name(f"moving_{path.name}")) for path in there]  # or one might land on another
        for path in aside:
            _, number, rest = path.name.split("_", 2)
            path.rename(path.with_name(f"{moves[number]}_{rest}"))
    for folder in folders:
        for path in folder.glob("[0-9][0-9]_*.ipynb"):
            notebook = read(path)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = renumbered(cell["source"], moves)
            write(notebook, path)
    for page in (*order.NOTEBOOKS.glob("*.md"), *order.NOTEBOOKS.parent.glob("README.md")):
        page.write_text(renumbered(page.read_text(encoding="utf-8"), moves), encoding="utf-8")


def renumbered(text: str, moves: Mapping[str, str]) -> str:
    """A Markdown text with its mentions of lessons moved."""

    def moved(mention: re.Match[str]) -> str:
        return NUMBER.sub(lambda number: moves.get(number.group(), number.group()), mention.group())

    return MENTION.sub(moved, text)
