"""What holds for every notebook beyond running: normal form, house rules, exercises and their worked answers."""

import ast
import copy
import inspect
import re
import textwrap
from pathlib import Path

import nbformat
import notebook_format
import pytest

from flowlab import lessons
from flowlab.lessons import exercises
from flowlab.lessons.base import order

COURSE = notebook_format.course()


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.name[:2])
def test_notebook_is_in_normal_form(path):
    assert notebook_format.problems(path) == [], "run: python tests/notebook_format.py --write"


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.name[:2])
def test_notebook_keeps_the_house_rules(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines() if line.strip()]
    assert cells[0].source.startswith(f"# {path.name[:2]} "), "the title opens with the number"
    assert "you will be able to" in text.lower()
    assert "arXiv" in text
    assert len(text.split()) <= 2800 and len(code) <= 200
    tags = [tag for cell in cells for tag in cell.metadata.get("tags", [])]
    asked = {tag.removeprefix("exercise-") for tag in tags if tag.startswith("exercise-")}
    assert asked == set(exercises(order.slug(path))), "every exercise of flowlab.lessons stands in it"
    assert 2 <= len(asked) <= 5
    assert "nbval-check-output" in tags, "a claim that the text leans on is checked"


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.name[:2])
def test_notebook_imports_from_its_own_lesson_alone(path):
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    asked = set(re.findall(r"\bflowlab\.lessons\.(\w+)", code))
    assert asked <= {"base", order.slug(path)}, "what two lessons need belongs into lessons/base or the library"


@pytest.mark.parametrize("slug", lessons.slugs())
def test_the_files_of_a_lesson_stand_on_each_other(slug):
    """Toys at the bottom, then figures and exercises, which do not see each other, and the explorer on figures."""
    below = {"toys": [], "figures": ["toys"], "exercises": ["toys"], "explorer": ["toys", "figures"]}
    folder = Path(lessons.__file__).parent / slug
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} <= below.keys()
    for path in folder.glob("*.py"):
        text = path.read_text()
        asked = set(re.findall(rf"from flowlab\.lessons\.{slug}\.(\w+) import", text))
        asked |= set(re.findall(rf"from flowlab\.lessons\.{slug} import (\w+)", text))
        assert asked <= set(below.get(path.stem, [])), f"{path.name} imports {asked}"
        if path.stem in ("toys", "exercises"):
            assert "matplotlib" not in text and "ipywidgets" not in text, f"{path.name} draws nothing"


def _shapes(source, least=14):
    """The expressions of some code that have at least so many parts, with names replaced in order of appearance."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.expr) or sum(1 for _ in ast.walk(node)) < least:
            continue
        names = {}
        node = copy.deepcopy(node)
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                part.id = names.setdefault(part.id, f"v{len(names)}")
        found.append((sum(1 for _ in ast.walk(node)), ast.dump(node)))
    return sorted(found, reverse=True)


# The later lessons are to follow.
@pytest.mark.parametrize("path", COURSE[:9], ids=lambda p: p.name[:2])
def test_no_exercise_is_answered_by_a_line_that_the_notebook_shows(path):
    """The longest expression of a worked answer stands in no cell of its notebook, whatever the names are."""
    cells = nbformat.read(path, as_version=4).cells
    code = [c.source for c in cells if c.cell_type == "code" and "exercise" not in "".join(c.metadata.get("tags", []))]
    shown = {shape for source in code for _, shape in _shapes(source)}
    for name, exercise in exercises(order.slug(path)).items():
        answer = _shapes(textwrap.dedent(inspect.getsource(exercise.answer)))
        assert not answer or answer[0][1] not in shown, f"the notebook prints what exercise {name} asks for"


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.name[:2])
def test_solutions_are_current(path):
    stored = nbformat.read(notebook_format.solution_path(path), as_version=4)
    made = notebook_format.solutions(path)
    assert nbformat.writes(stored) == nbformat.writes(made), "run: python tests/notebook_format.py --write"


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.name[:2])
def test_solutions_pass_the_checks(path, capsys):
    """Each solution notebook, run from top to bottom in this process: every check in it says so."""
    names = {}
    cells = [cell for cell in nbformat.read(notebook_format.solution_path(path), as_version=4).cells]
    for cell in cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    printed = capsys.readouterr().out
    assert printed.count("✔") == len(exercises(order.slug(path))), printed
    assert "✘" not in printed and "○" not in printed


@pytest.mark.parametrize("name", list(exercises()))
def test_worked_answer_passes_and_stub_is_open(name):
    exercise = exercises()[name]
    assert exercise.verdict(exercise.answer)[0] == "right", exercise.verdict(exercise.answer)
    assert exercise.stub.splitlines()[0] == exercise.solution.splitlines()[0]
    assert len(exercise.hints) >= 2


@pytest.mark.parametrize("name", list(exercises()))
def test_garbage_gets_a_sentence(name):
    def nothing(*_):
        return None

    def words(*_):
        return "area"

    def raises(*_):
        raise RuntimeError("no")

    for garbage in (nothing, words, raises):
        kind, sentence = exercises()[name].verdict(garbage)
        assert kind == "wrong" and len(sentence) > 10 and "Traceback" not in sentence
