"""What a notebook asks of its reader: words, lines of code, predictions, tasks of an explorer, exercises; and minutes.

Minutes are words/100, and 1 for each prediction, 1½ for each task of an explorer, 7 for each exercise. *More*, which
nobody has to read, is not counted, nor are the references. The text of an exercise is in its seven minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nbformat import NotebookNode

FOLD = re.compile(r"<details>.*?</details>", re.S)
MORE = re.compile(r"<details>\s*<summary>More\b.*?</details>", re.S)
PREDICT = re.compile(r"\*\*Predict\b")
TASK = re.compile(r"^(\d+)\. (.*(?:\n(?!\d+\. |\n).*)*)", re.M)
TRY = "**Try.**"


@dataclass(frozen=True)
class Reading:
    """What there is to do in a notebook."""

    words: int
    lines: int
    predictions: int
    tasks: int
    exercises: int

    @property
    def minutes(self) -> int:
        return round(self.words / 100 + self.predictions + 1.5 * self.tasks + 7 * self.exercises)


def reading(cells: Sequence[NotebookNode]) -> Reading:
    """The counts of a notebook's cells."""
    asked, text, lines = 0, [], 0
    for cell, following in counted(cells):
        if is_exercise(cell):
            asked += 1
        elif cell.cell_type == "code" and "progress" not in tags(cell):
            lines += sum(bool(line.strip()) for line in cell.source.splitlines())
        elif cell.cell_type == "markdown" and not (following and is_exercise(following)):
            text.append(MORE.sub("", cell.source))
    return Reading(
        words=sum(len(part.split()) for part in text),
        lines=lines,
        predictions=sum(len(PREDICT.findall(part)) for part in text),
        tasks=sum(len(tasks(part)) for part in text),
        exercises=asked,
    )


def counted(cells: Sequence[NotebookNode]) -> Iterator[tuple[NotebookNode, NotebookNode | None]]:
    """The cells that every reader comes through, and the cell after each: without *More* and without references."""
    inside = False
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if cell.cell_type == "markdown" and (heading := re.match(r"#{1,2} (.*)", cell.source)):
            inside = heading.group(1).startswith(("More", "References"))
        if not inside:
            yield cell, following


def tasks(text: str) -> list[tuple[str, str]]:
    """The numbered tasks, (number, text), under each "**Try.**" of a cell."""
    found = []
    for part in FOLD.sub("", text).split(TRY)[1:]:
        for number, task in TASK.findall(part):
            if number == "1" and found and any(number == n for n, _ in found):
                break  # another list
            found.append((number, task))
    return found


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def is_exercise(cell: NotebookNode) -> bool:
    return any(tag.startswith("exercise-") for tag in tags(cell))
