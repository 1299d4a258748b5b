"""Keep notebooks in one normal form, so that a diff shows what an author changed and nothing else.

    python tests/notebook_format.py                        check all notebooks, say what is wrong
    python tests/notebook_format.py --write                put them in normal form, write the solutions
    python tests/notebook_format.py --execute --write 04   run notebook 04 first, then put it in normal form
    python tests/notebook_format.py --time --write 04      measure the seconds that it states, and write them

Normal form: kernelspec and language as the only metadata, no timings, no widget state, cell ids by position, execution
counts by position, the exercise cells as `flowlab.lessons` has them, no path of any machine, no error output, and for
each picture its alternative in words. A question stands as `flowlab.lessons` has it. Numbers are those of the file
names: in the title, over an exercise and in what its cell has printed. The table of the teacher's guide says what the
notebooks say. `--write` also states the minutes to study, as tests/reading.py counts them.

Seconds are stated for a machine on which `reference()` takes REFERENCE seconds, so that any machine can measure them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
import torch
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from reading import reading

import flowlab
from flowlab.course.base import exercise_of
from flowlab.course.progress import show
from flowlab.lessons import exercises
from flowlab.lessons.base import order

NOTEBOOKS = order.NOTEBOOKS
GUIDE = NOTEBOOKS / "README.md"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What a worked answer solves is not the reader's own progress.
SOLUTIONS_START = """import math
import os

import numpy as np
import torch

import flowlab
from flowlab.lessons import check

os.environ["FLOWLAB_PROGRESS"] = "off\""""
CLOSE = """from flowlab.course.progress import show

show("{}")  # which aims of this notebook have you shown?"""
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MACHINE_PATH = re.compile(r"[\s\"'=(](/(root|home|work|tmp|opt|Users)/|[A-Z]:\\\\)")
SECONDS = re.compile(r"(?<=runs in about )\w+(?= seconds)")
MINUTES = re.compile(r"(\d+) minutes to study")
REFERENCE = 0.9  # seconds of reference() on the machine that the stated seconds are meant for
EXERCISE = re.compile(r"\bExercise (\d\d|[a-z]\w*)\.\d+")
TABLE = re.compile(r"(?<=<!-- written by tests/notebook_format.py -->\n).*?(?=<!-- end -->)", re.S)
NOISE = re.compile(r"0x[0-9a-f]{6,}")


def course() -> list[Path]:
    """The notebooks in teaching order."""
    return list(order.notebooks().values())


def normal(path: Path) -> NotebookNode:
    """The notebook of a lesson in normal form, by the number in its file name."""
    notebook = nbformat.read(path, as_version=4)
    opening = notebook.cells[0]
    opening.source = re.sub(r"^# \d\d ", f"# {path.name[:2]} ", opening.source)
    _close_with_progress(notebook, order.slug(path))
    return normalize(notebook)


def normalize(notebook: NotebookNode) -> NotebookNode:
    """The same notebook in normal form."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02d}"
        cell.source = cell.source.rstrip()
        cell.metadata = nbformat.from_dict({"tags": list(cell.metadata.tags)} if cell.metadata.get("tags") else {})
        if cell.cell_type != "code":
            continue
        _refresh_exercise(cell, notebook.cells[index - 1])
        count += 1
        cell.execution_count = count
        kept = _merged(_printed(output) for output in cell.outputs if not _is_noise(output))
        cell.outputs = [_normal_output(output, count) for output in kept]
    return notebook


def problems(path: Path) -> list[str]:
    """What keeps a notebook from being in normal form, a line each."""
    notebook = nbformat.read(path, as_version=4)
    found = []
    if nbformat.writes(notebook) != nbformat.writes(normal(path)):
        found.append("is not in normal form")
    text = nbformat.writes(notebook)
    if MACHINE_PATH.search(text):
        found.append(f"names a path of a machine: {MACHINE_PATH.search(text).group()!r}")
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        if any(output.output_type == "error" for output in outputs):
            found.append(f"{cell.id} holds an error")
        if any("image/png" in o.get("data", {}) and not o.metadata.get("image/png", {}).get("alt") for o in outputs):
            found.append(f"{cell.id} holds a picture that no words stand in for: run it with --execute")
        if (
            cell.cell_type == "code"
            and cell.source
            and not outputs
            and "nbval-check-output" in cell.metadata.get("tags", [])
        ):
            found.append(f"{cell.id} is to be checked, but holds no output: run it with --execute")
        if exercise := exercise_of(cell):
            before = notebook.cells[notebook.cells.index(cell) - 1].source
            if exercise.question not in before or f"Exercise {exercise.label}" not in before:
                found.append(f"asks exercise {exercise.name} in other words than flowlab.lessons, or by another number")
    if not MINUTES.search(notebook.cells[0].source):
        found.append("does not state how many minutes to study")
    if stated_seconds(path) is None:
        found.append("does not state that it runs in about N seconds: run it with --time")
    return [f"{path.name} {line}" for line in found]


def solutions(path: Path) -> NotebookNode:
    """The worked answers of one notebook, from `flowlab.lessons`."""
    opening = f"# {title_of(path)}: worked answers\n\nEach answer below passes the check that yours is given."
    cells = [new_markdown_cell(opening), new_code_cell(SOLUTIONS_START)]
    for exercise in exercises(order.slug(path)).values():
        cells.append(new_markdown_cell(f"## Exercise {exercise.label}\n\n{exercise.question}"))
        cells.append(new_code_cell(exercise.solution))
        if exercise.why:
            cells.append(new_markdown_cell(f"*Why.* {exercise.why}"))
    return normalize(new_notebook(cells=cells))


def solution_path(path: Path) -> Path:
    """Where the worked answers of a notebook are."""
    return NOTEBOOKS / "solutions" / path.name


def reference() -> float:
    """Seconds that this machine takes, now, for the kind of work that the notebooks do: a short training."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    for steps in (10, 300):  # the first time, torch loads what it trains with
        started = time.perf_counter()
        flow = flowlab.spline_flow(2, layers=2, generator=torch.Generator().manual_seed(0))
        flowlab.fit(flow, x, steps=steps, batch_size=256, progress=False)
    torch.set_num_threads(threads)
    return time.perf_counter() - started


def stated_seconds(path: Path) -> float | None:
    """What a notebook's opening says; None where it says nothing."""
    found = SECONDS.search(nbformat.read(path, as_version=4).cells[0].source)
    return float(found.group()) if found and found.group().isdecimal() else None


def too_slow(seconds: Mapping[Path, float], unit: float) -> list[str]:
    """Where a notebook took grossly longer than it states, on a machine on which reference() takes ``unit`` seconds.

    Gross is over four times, and ten seconds more: a busy machine is no fault of the notebook.
    """
    found = []
    for path, took in seconds.items():
        stated = stated_seconds(path)
        if stated is not None and took > (4 * stated + 10) * unit / REFERENCE:
            found.append(
                f"{path.name} took {took:.0f} s. It states {stated:.0f} s, here {stated * unit / REFERENCE:.0f} s. "
                f"Make it faster, or run python tests/notebook_format.py --time --write {path.name[:2]}"
            )
    return found


def measured_seconds(path: Path) -> int:
    """What a notebook should state: its seconds here, by reference() before and after, rounded for a reader."""
    before, started = reference(), time.perf_counter()
    _execute(normal(path))
    took = time.perf_counter() - started
    unit = (before + reference()) / 2
    seconds = took * REFERENCE / unit
    seconds = max(round(seconds), 1) if seconds < 10 else 5 * round(seconds / 5)
    print(f"{path.name}: {took:.1f} s here, where the reference takes {unit:.2f} s, so about {seconds} seconds")
    return seconds


def guide(text: str) -> str:
    """The teacher's guide with its table of times as the notebooks state them."""
    rows = ["| | notebook | minutes to study | seconds to run | exercises |", "| --- | --- | --- | --- | --- |"]
    for number, path in order.notebooks().items():
        opening = nbformat.read(path, as_version=4).cells[0].source
        minutes, seconds = MINUTES.search(opening), stated_seconds(path)
        times = f"{minutes.group(1) if minutes else '?'} | {'?' if seconds is None else round(seconds)}"
        title = title_of(path).removeprefix(number).strip()
        rows.append(f"| {number} | [{title}]({path.name}) | {times} | {len(exercises(order.slug(path)))} |")
    return TABLE.sub("\n".join(["", *rows, "", ""]), text)


def title_of(path: Path) -> str:
    """The first heading of a notebook."""
    return nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")


def _refresh_exercise(cell: NotebookNode, before: NotebookNode) -> None:
    """A cell tagged exercise-SLUG.N holds the stub of that exercise, and the cell above it the number."""
    if exercise := exercise_of(cell):
        cell.source = exercise.stub
        before.source = EXERCISE.sub(f"Exercise {exercise.label}", before.source, count=1)
        for output in cell.outputs:
            if "text" in output:
                output.text = EXERCISE.sub(f"Exercise {exercise.label}", output.text)


def _close_with_progress(notebook: NotebookNode, lesson: str) -> None:
    """Before its references, a notebook of the course says which of its aims have been shown."""
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    references = [i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## References")]
    if references and "progress" not in tags and any(tag.startswith("exercise-") for tag in tags):
        notebook.cells.insert(references[-1], new_code_cell(metadata={"tags": ["progress"]}))
    for cell in notebook.cells:
        if "progress" in cell.metadata.get("tags", []):
            cell.source, text = CLOSE.format(lesson), io.StringIO()
            with contextlib.redirect_stdout(text):
                show(lesson)
            cell.outputs = [new_output("stream", name="stdout", text=text.getvalue())]


def _is_noise(output: NotebookNode) -> bool:
    """Progress bars and warnings go to stderr; neither belongs in a stored notebook."""
    return output.output_type == "stream" and output.name == "stderr"


def _printed(output: NotebookNode) -> NotebookNode:
    """The card of a check as the line that it prints where there is no notebook; any other output as it is."""
    data = output.get("data", {})
    if "".join(data.get("text/html", "")).startswith('<div role="status"'):
        return new_output("stream", name="stdout", text=f"{data['text/plain']}\n")
    return output


def _merged(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """What one cell printed in several pieces, as timing had it, in one piece."""
    kept = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream" and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _normal_output(output: NotebookNode, count: int) -> NotebookNode:
    alt = output.get("metadata", {}).get("image/png", {}).get("alt")
    kept = {"image/png": {"alt": alt}} if alt else {}
    output.metadata = nbformat.from_dict(kept) if "metadata" in output else output.get("metadata")
    if output.output_type == "execute_result":
        output.execution_count = count
    if "data" in output:
        output.data.pop(WIDGET_VIEW, None)
        if "image/png" in output.data:
            output.data.pop("text/html", None)  # the same picture once more, with its alternative, for JupyterLab
        if "text/plain" in output.data:
            output.data["text/plain"] = NOISE.sub("0x", output.data["text/plain"])
    if output.get("metadata") is None:
        output.pop("metadata", None)
    return output


def _execute(notebook: NotebookNode) -> NotebookNode:
    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS)}})
    client.execute()
    for cell in notebook.cells:  # a bar that only lived while training ran has nothing to say afterwards
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not _is_bar(o)]
    return notebook


def _is_bar(output: NotebookNode) -> bool:
    """Whether it is a widget of which nothing is left to see: no picture, and no question that asks to predict."""
    data = output.get("data", {})
    asks = "".join(data.get("text/plain", "")).startswith("Predict: ")
    return WIDGET_VIEW in data and "image/png" not in data and not asks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="notebooks, by number; all when none is given")
    parser.add_argument("--write", action="store_true", help="write the normal form and the solutions")
    parser.add_argument("--execute", action="store_true", help="run the notebooks first")
    parser.add_argument("--time", action="store_true", help="run them, and measure the seconds that they state")
    options = parser.parse_args()
    os.environ["FLOWLAB_PROGRESS"] = "off"  # stored notebooks show nobody's progress
    paths = [p for p in course() if not options.numbers or p.name[:2] in options.numbers]
    for path in paths:
        seconds = measured_seconds(path) if options.time else None
        notebook = nbformat.read(path, as_version=4)
        if options.time:
            notebook.cells[0].source = SECONDS.sub(str(seconds), notebook.cells[0].source)
        if options.execute:
            notebook = _execute(normalize(notebook))
        if options.write:
            minutes = f"{reading(notebook.cells).minutes} minutes to study"
            notebook.cells[0].source = MINUTES.sub(minutes, notebook.cells[0].source)
            nbformat.write(normalize(notebook), path)
            for _ in range(2):  # its last cell reads its first, as stored
                nbformat.write(normal(path), path)
            solution_path(path).parent.mkdir(exist_ok=True)
            nbformat.write(solutions(path), solution_path(path))
    if options.write:
        GUIDE.write_text(guide(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
    found = [line for path in paths for line in problems(path)]
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
