"""What holds for every notebook beyond running: normal form, house rules, exercises and their worked answers."""

import re
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
    assert cells[0].source.startswith(f"# {path.name[:2]} "), "the title opens with the number"
    assert "you will be able to" in text.lower()
    assert "arXiv" in text
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


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.name[:2])
def test_solutions_are_current(path):
    stored = nbformat.read(notebook_format.solution_path(path), as_version=4)
    made = notebook_format.solutions(path)
    assert nbformat.writes(stored) == nbformat.writes(made), "run: python tests/notebook_format.py --write"


@pytest.mark.slow
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


def test_a_run_drops_bars_and_keeps_predictions():
    """A bar has nothing to say afterwards; the question of a prediction does."""
    for text, is_bar in (("FloatProgress(value=0.0)", True), ("Predict: How many?", False)):
        data = {"text/plain": text, notebook_format.WIDGET_VIEW: {"model_id": "0"}}
        assert notebook_format._is_bar(nbformat.v4.new_output("display_data", data=data)) == is_bar
