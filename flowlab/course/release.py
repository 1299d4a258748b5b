"""Notebooks for a class: student versions with nothing answered, and nbgrader assignments marked by the same checks.

The worked answers and the checks are in the package that students install, so nothing here is a secret. Marks say
what a student's notebook computes, not how they came to it.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from flowlab.course import inventory
from flowlab.course.base import exercise_of, notebooks, pip_install, read, write
from flowlab.lessons import Exercise

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#]*)[^)]*\)")
ANSWERS = re.compile(r"(?:^|(?<=[.!?]) +)[^.!?\n]*(?:\(solutions/[^)]*\)|`solutions`)[^.!?\n]*[.!?]", re.M)

CONFIG = '''"""Settings of nbgrader for this course. Run here, `nbgrader autograde NAME` marks what was handed in."""

import os
import sys

os.environ["FLOWLAB_PROGRESS"] = "off"  # what a submission solves is not the teacher's own progress
# nbgrader calls its tools by name: they lie beside this Python, whether or not its environment is active.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "flowlab"
c.ClearSolutions.code_stub = {"python": "..."}  # the stub that flowlab's checks call open
c.Execute.timeout = 600  # seconds for one cell; some train a flow
'''


def release(numbers: Iterable[str | int], folder: Path, *, grading: bool = False, install: str = "") -> Iterator[Path]:
    """Write student versions of these notebooks (of all, if none is named) into a folder, and yield what was written.

    Stubs are open, outputs are cleared (a prediction comes before its result), and links lead to what is released with
    them. ``install``, an address that pip takes, adds a first cell for Colab. With ``grading`` the folder becomes a
    course of nbgrader: one assignment a notebook, a point an exercise. Writes over nothing: raises FileExistsError.
    """
    if grading and importlib.util.find_spec("nbgrader") is None:
        raise ValueError(f"--grading needs nbgrader. Install it with: {pip_install('grading')}")
    paths = notebooks(numbers)
    targets = {path: folder / "source" / path.stem / path.name if grading else folder / path.name for path in paths}
    there = [str(target) for target in targets.values() if target.exists()]
    if there:
        raise FileExistsError(f"{', '.join(there)} exists. Delete it, or name another folder: nothing is written over.")
    folder.mkdir(parents=True, exist_ok=True)
    pages = [page for page in paths[0].parent.glob("*.md") if page.name != "README.md"]  # what notebooks refer to
    for path, target in targets.items():
        beside = {page.name for page in pages} | ({path.name} if grading else {p.name for p in paths})
        notebook = student(read(path), beside, install)
        target.parent.mkdir(parents=True, exist_ok=True)
        write(graded(notebook) if grading else notebook, target)
        for page in pages:
            _unless_there(target.parent / page.name, _linked(page.read_text(encoding="utf-8"), beside))
        yield target
    questions = folder / "concept_inventory.md"
    _unless_there(questions, inventory.questions() + "\n")
    yield questions
    if grading:
        _unless_there(folder / "nbgrader_config.py", CONFIG)
        for path in paths:
            _nbgrader(folder, "generate_assignment", path.stem)
            yield folder / "release" / path.stem / path.name


def _unless_there(path: Path, text: str) -> None:
    """Write a file that several releases share; as it stands in the folder it may hold the teacher's own changes."""
    if not path.exists():
        path.write_text(text, encoding="utf-8")


def student(notebook: dict[str, Any], beside: set[str], install: str = "") -> dict[str, Any]:
    """The notebook with stubs open, outputs cleared, and links only to the files that lie ``beside`` it."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _linked(ANSWERS.sub("", cell["source"]), beside)
        elif cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            if exercise := exercise_of(cell):
                cell["source"] = exercise.stub
    if install:
        notebook["cells"].insert(1, _code(_install(install), "install"))
    return notebook


def _linked(text: str, beside: set[str]) -> str:
    """The text with those links only that lead to a file beside it, or to the web."""
    return LINK.sub(lambda link: link.group() if link.group(2) in beside else link.group(1), text)


def graded(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same as an nbgrader source: the worked answer where the stub was, and after it a cell with a hidden test."""
    cells = []
    for cell in notebook["cells"]:
        cells.append(cell)
        if exercise := exercise_of(cell):
            name = exercise.name.replace(".", "-")
            cell["source"] = _between_marks(exercise)
            cell["metadata"]["nbgrader"] = _nbgrader_cell(f"exercise-{name}", solution=True)
            test = _code(_hidden_test(exercise), f"points-{name}")
            test["metadata"]["nbgrader"] = {**_nbgrader_cell(f"points-{name}", grade=True), "points": 1}
            cells.append(test)
    notebook["cells"] = cells
    return notebook


def _between_marks(exercise: Exercise) -> str:
    """The worked answer, its body between nbgrader's marks: cleared, it is the stub again."""
    head, _, tail = exercise.stub.rpartition("    ...")
    body = exercise.solution.removeprefix(head).removesuffix(tail)
    return f"{head}    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION{tail}"


def _hidden_test(exercise: Exercise) -> str:
    return (
        f"# Exercise {exercise.label}: one point, if check says that your answer is right.\n"
        "### BEGIN HIDDEN TESTS\n"
        "from flowlab.lessons import score\n\n"
        f'score("{exercise.name}", {exercise.answer.__name__})\n'
        "### END HIDDEN TESTS"
    )


def _install(address: str) -> str:
    # All that the notebooks need but JupyterLab, in whose place Colab has its own.
    needed = [line.split(";") for line in metadata.requires("flowlab") or []]
    lab = [name.strip() for name, *when in needed if "lab" in "".join(when) and not name.startswith("jupyterlab")]
    packages = " ".join(f'"{name}"' for name in [f"flowlab @ {address}", *lab])
    return f"""# On Colab this installs the course; where it is installed already, it does nothing.
import importlib.util
import sys

if importlib.util.find_spec("flowlab") is None:
    %pip install --quiet {packages}
if "google.colab" in sys.modules:  # Colab shows widgets that are not its own only when asked
    from google.colab import output

    output.enable_custom_widget_manager()"""


def _code(source: str, name: str) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "id": name, "metadata": {}, "outputs": [], "source": source}


def _nbgrader_cell(name: str, *, solution: bool = False, grade: bool = False) -> dict[str, Any]:
    kind = {"grade": grade, "solution": solution, "locked": grade, "task": False}
    return {**kind, "cell_type": "code", "grade_id": name, "schema_version": 3}


def _nbgrader(folder: Path, *command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "nbgrader", *command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-20:])
        raise ValueError(f"nbgrader {command[0]} failed in {folder}. It said:\n{said}")
