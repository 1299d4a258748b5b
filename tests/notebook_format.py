"""Keep notebooks in one normal form, so that a diff shows what an author changed and nothing else.

    python tests/notebook_format.py                        check all notebooks, say what is wrong
    python tests/notebook_format.py --write                put them in normal form, write the solutions
    python tests/notebook_format.py --execute --write 04   run notebook 04 first, then put it in normal form

Normal form: kernelspec and language as the only metadata, no timings, no widget state, cell ids by position, execution
counts by position, the exercise cells as `flowlab.checks` has them, no path of any machine, no error output.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from flowlab.checks import exercises

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MACHINE_PATH = re.compile(r"[\s\"'=(](/(root|home|work|tmp|opt|Users)/|[A-Z]:\\\\)")
NOISE = re.compile(r"0x[0-9a-f]{6,}")


def course() -> list[Path]:
    """The notebooks in teaching order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


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
        _refresh_exercise(cell)
        count += 1
        cell.execution_count = count
        kept = _merged(output for output in cell.outputs if not _is_noise(output))
        cell.outputs = [_normal_output(output, count) for output in kept]
    return notebook


def problems(path: Path) -> list[str]:
    """What keeps a notebook from being in normal form, a line each."""
    notebook = nbformat.read(path, as_version=4)
    found = []
    if nbformat.writes(notebook) != nbformat.writes(normalize(nbformat.read(path, as_version=4))):
        found.append("is not in normal form")
    text = nbformat.writes(notebook)
    if MACHINE_PATH.search(text):
        found.append(f"names a path of a machine: {MACHINE_PATH.search(text).group()!r}")
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        if any(output.output_type == "error" for output in outputs):
            found.append(f"{cell.id} holds an error")
        if (
            cell.cell_type == "code"
            and cell.source
            and not outputs
            and "nbval-check-output" in cell.metadata.get("tags", [])
        ):
            found.append(f"{cell.id} is to be checked, but holds no output: run it with --execute")
    return [f"{path.name} {line}" for line in found]


def solutions(number: str, title: str) -> NotebookNode:
    """The worked answers of one notebook, from `flowlab.checks`."""
    cells = [
        new_markdown_cell(f"# {title}: worked answers\n\nEach answer below passes the check that yours is given."),
        new_code_cell("import math\n\nimport numpy as np\nimport torch\n\nfrom flowlab.checks import check"),
    ]
    for exercise in exercises(number).values():
        cells.append(new_markdown_cell(f"## Exercise {exercise.number}\n\n{exercise.question}"))
        cells.append(new_code_cell(exercise.solution))
    return normalize(new_notebook(cells=cells))


def solution_path(path: Path) -> Path:
    """Where the worked answers of a notebook are."""
    return NOTEBOOKS / "solutions" / path.name


def title_of(path: Path) -> str:
    """The first heading of a notebook."""
    return nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")


def _refresh_exercise(cell: NotebookNode) -> None:
    """An exercise cell is tagged exercise-NN.N and holds the stub; this puts the current one in."""
    for tag in cell.metadata.get("tags", []):
        if tag.startswith("exercise-"):
            number = tag.removeprefix("exercise-")
            cell.source = exercises(number[:2])[number].stub


def _is_noise(output: NotebookNode) -> bool:
    """Progress bars and warnings go to stderr; neither belongs in a stored notebook."""
    return output.output_type == "stream" and output.name == "stderr"


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
    output.metadata = nbformat.from_dict({}) if "metadata" in output else output.get("metadata")
    if output.output_type == "execute_result":
        output.execution_count = count
    if "data" in output:
        output.data.pop(WIDGET_VIEW, None)
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
    return WIDGET_VIEW in output.get("data", {}) and "image/png" not in output.data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="notebooks, by number; all when none is given")
    parser.add_argument("--write", action="store_true", help="write the normal form and the solutions")
    parser.add_argument("--execute", action="store_true", help="run the notebooks first")
    options = parser.parse_args()
    paths = [p for p in course() if not options.numbers or p.name[:2] in options.numbers]
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if options.execute:
            notebook = _execute(normalize(notebook))
        if options.write:
            nbformat.write(normalize(notebook), path)
            solution_path(path).parent.mkdir(exist_ok=True)
            nbformat.write(solutions(path.name[:2], title_of(path)), solution_path(path))
    found = [line for path in paths for line in problems(path)]
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
