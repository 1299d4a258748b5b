"""Begin a lesson: a folder, a notebook, its solutions and its tests, which run and pass, to be filled with a subject.

The skeleton is a tiny lesson about a normal density that is stretched. Where a word of one's own belongs, it says TODO.
"""

from __future__ import annotations

import importlib
import keyword
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowlab.course.base import notebooks, read, title, write
from flowlab.course.numbering import renumber
from flowlab.lessons import exercises, slugs
from flowlab.lessons.base import order

SKELETON = Path(__file__).parent / "skeleton"


def new_lesson(slug: str, after: str = "") -> Iterator[str]:
    """Write a lesson with this slug, after another or at the end, and say a line about each thing that is done.

    The lessons behind it get the next numbers: their notebooks are renamed, and what is written of them is brought in
    line. Needs a clone with its tests, since their tool runs the new notebook and puts all notebooks in normal form.
    Raises ValueError for a slug that is taken or is no name, and for a lesson ``after`` that there is none of.
    """
    root = order.NOTEBOOKS.parent
    tool = root / "tests" / "notebook_format.py"
    course = notebooks()
    if not tool.exists():
        raise ValueError(
            f"new-lesson expected a clone of the repository with its tests, but got none: there is no {tool}."
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug) or keyword.iskeyword(slug):
        raise ValueError(f"Expected a slug of small letters, digits and _, as in planar_flows, but got {slug!r}.")
    if slug in (*slugs(), "base", *map(order.slug, course)):
        raise ValueError(f"There is a lesson {slug} already. Choose another slug.")
    before = notebooks([after])[0] if after else course[-1]
    number = f"{int(before.name[:2]) + 1:02d}"
    behind = [path.name[:2] for path in course if path.name[:2] >= number]
    if behind:
        renumber({old: f"{int(old) + 1:02d}" for old in behind})
        yield f"{len(behind)} notebooks have moved one number up"
    yield from (str(path.relative_to(root)) for path in _write_code(slug, root))
    path = order.NOTEBOOKS / f"{number}_{slug}.ipynb"
    write(_notebook(slug, number), path)
    _link(path)
    _list(path, before.name[:2])
    _run(tool, "--execute", "--write", number)
    _run(tool, "--write")
    yield str(path.relative_to(root))
    yield f"Fill in what says TODO, and run: python tests/notebook_format.py --execute --write {number}"


def _write_code(slug: str, root: Path) -> Iterator[Path]:
    folder = root / "flowlab" / "lessons" / slug
    folder.mkdir()
    (folder / "__init__.py").touch()
    for template in SKELETON.glob("*.txt"):
        is_test = template.stem == "tests"
        path = root / "tests" / "lessons" / f"test_{slug}.py" if is_test else folder / f"{template.stem}.py"
        path.write_text(_sorted_imports(_named(template.read_text(encoding="utf-8"), slug)), encoding="utf-8")
        yield path


def _named(text: str, slug: str) -> str:
    words = slug.replace("_", " ")
    camel = "".join(word.capitalize() for word in slug.split("_"))
    text = text.replace("my_lesson", slug).replace("MyLesson", camel)
    return text.replace("My lesson", f"{words[0].upper()}{words[1:]}")


def _sorted_imports(text: str) -> str:
    """Lines that import from flowlab, in the order of the alphabet, which the slug may have changed."""
    block = re.compile(r"(?:^from flowlab.*\n)+", re.MULTILINE)
    return block.sub(lambda found: "".join(sorted(found.group().splitlines(keepends=True), key=str.lower)), text)


def _notebook(slug: str, number: str) -> dict[str, Any]:
    """The skeleton's Markdown as a notebook: comments part the cells, and code is between fences, its tags behind."""
    text = _named((SKELETON / "notebook.md").read_text(encoding="utf-8"), slug)
    text = text.replace("# ", f"# {number} ", 1).replace("solutions/00_", f"solutions/{number}_")
    importlib.invalidate_caches()
    asked = [
        f"### Exercise {exercise.label}\n\n{exercise.question}\n<!-- cell -->\n"
        f"```python exercise-{exercise.name}\n{exercise.stub}\n```"
        for exercise in exercises(slug).values()
    ]
    text = text.replace("<!-- exercises -->", "\n<!-- cell -->\n".join(["", *asked, ""]))
    cells: list[dict[str, Any]] = []
    for part in filter(None, map(str.strip, text.split("<!-- cell -->"))):
        cell: dict[str, Any] = {"cell_type": "markdown", "id": f"cell-{len(cells):02d}", "metadata": {}, "source": part}
        if code := re.fullmatch(r"```python *(.*?)\n(.*)\n```", part, re.DOTALL):
            cell |= {"cell_type": "code", "source": code.group(2), "execution_count": None, "outputs": []}
            cell["metadata"] = {"tags": code.group(1).split()} if code.group(1) else {}
        cells.append(cell)
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def _link(path: Path) -> None:
    """Let a new notebook and its neighbors name each other at the end of their openings."""
    course = notebooks()
    at = course.index(path)
    neighbors = [place for place in (at - 1, at, at + 1) if 0 <= place < len(course)]
    for place in neighbors:
        notebook = read(course[place])
        opening = notebook["cells"][0]
        for word, other in (("Previous", place - 1), ("Next", place + 1)):
            if 0 <= other < len(course):
                link = f"{word}: [{title(course[other])}]({course[other].name})"
                opening["source"] = _with(opening["source"], word, link)
        write(notebook, course[place])


def _list(path: Path, before: str) -> None:
    """A row for a new notebook, behind that of the one before it, in the tables of the README and of the first one."""
    row = f"| {path.name[:2]} | [{title(path)[3:]}]({{}}{path.name}) | TODO |"
    last = re.compile(rf"^\| {before} \| \[[^\]\n]*\]\(((?:\w+/)?){before}_.*$", re.MULTILINE)

    def listed(text: str) -> str:
        return last.sub(lambda found: f"{found.group()}\n{row.format(found.group(1))}", text)

    readme, first = order.NOTEBOOKS.parent / "README.md", notebooks()[0]
    if readme.exists():
        readme.write_text(listed(readme.read_text(encoding="utf-8")), encoding="utf-8")
    notebook = read(first)
    for cell in notebook["cells"]:
        cell["source"] = listed(cell["source"]) if cell["cell_type"] == "markdown" else cell["source"]
    write(notebook, first)


def _with(opening: str, word: str, link: str) -> str:
    """The opening with this link after "Previous" or "Next" in its last line, whether or not one was there."""
    *text, last = opening.split("\n")
    parts = [part for part in last.split(" · ") if not part.startswith(f"{word}: ")]
    parts.insert(len(parts) - 1 if word == "Next" else 0, link)  # before the letters
    return "\n".join([*text, " · ".join(parts)])


def _run(tool: Path, *arguments: str) -> None:
    """Run the tool for notebooks, with this package and no other."""
    path = os.pathsep.join(filter(None, [str(tool.parent.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "FLOWLAB_PROGRESS": "off"}
    done = subprocess.run([sys.executable, str(tool), *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{tool.name} found what it cannot put in order:\n{done.stdout}{done.stderr}")
