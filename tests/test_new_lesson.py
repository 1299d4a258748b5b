"""A lesson begun by `flowlab new-lesson` is green at once, and the lessons behind it move one number up everywhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowlab import commands
from flowlab.course import base
from flowlab.course.numbering import renumbered
from flowlab.lessons.base import order

ROOT = Path(__file__).resolve().parent.parent
SLUG = "a_lesson_of_this_test"
MOVES = {f"{number:02d}": f"{number + 1:02d}" for number in range(4, 17)}


@pytest.mark.parametrize(
    ("text", "moved"),
    (
        ("# 04 Coupling layers", "# 05 Coupling layers"),
        ("[04 Coupling layers: NICE](04_nice.ipynb)", "[05 Coupling layers: NICE](05_nice.ipynb)"),
        ("the gauge of [03](03_maximum_likelihood.ipynb)", "the gauge of [03](03_maximum_likelihood.ipynb)"),
        ("answers are in [solutions](solutions/16_x.ipynb).", "answers are in [solutions](solutions/17_x.ipynb)."),
        ("| 10 | [A few labels](10_a_few_labels.ipynb) |", "| 11 | [A few labels](11_a_few_labels.ipynb) |"),
        ("| 04 | [NICE](notebooks/04_nice.ipynb) | 10 |", "| 05 | [NICE](notebooks/05_nice.ipynb) | 10 |"),
        ("| week 10 | [09](09_x.ipynb) | 09.1 to 09.5 |", "| week 10 | [10](10_x.ipynb) | 10.1 to 10.5 |"),
        ("Notebooks 01, 04 and 11 prove it; notebook 16.", "Notebooks 01, 05 and 12 prove it; notebook 17."),
        ("Exercises 10.1 to 10.4, exercise 04.2", "Exercises 11.1 to 11.4, exercise 05.2"),
        ("(1) From 11: what? (02); (04, 05)", "(1) From 12: what? (02); (05, 06)"),
        ("do 00 to 06, then 07 to 10", "do 00 to 07, then 08 to 11"),
        ("0.05 nats, 1.04, −0.04, 10 draws, at 09:45, $x^{04}$, 2026-11-04", None),
        ("14 × 14 pixels in 10 seconds; 10,000 images; section 4; 0 to 10", None),
        ("05 of 04.", "06 of 05."),
        ("submitted/ANNA/04_nice/04_nice.ipynb", "submitted/ANNA/05_nice/05_nice.ipynb"),
        ("far off: 1e+06 in column 1", None),
    ),
)
def test_mentions_of_lessons_move_and_other_numbers_do_not(text, moved):
    assert renumbered(text, MOVES) == (text if moved is None else moved)


def test_every_number_in_a_link_to_a_notebook_is_that_of_its_file():
    pages = {page: page.read_text(encoding="utf-8") for page in order.NOTEBOOKS.glob("*.md")}
    for path in base.notebooks():
        cells = base.read(path)["cells"]
        pages[path] = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    links = [
        found for text in pages.values() for found in re.findall(r"\[(\d\d)\b[^\]\n]*\]\((\d\d)_(\w+)\.ipynb", text)
    ]
    assert len(links) > 100
    assert not [(shown, number) for shown, number, _ in links if shown != number]
    assert all(order.numbers()[slug] == number for _, number, slug in links)


@pytest.mark.parametrize(
    ("arguments", "said"),
    (
        (["Planar Flows"], "a slug of small letters, digits and _"),
        (["class"], "a slug of small letters"),
        (["../nice"], "a slug of small letters"),
        (["nice"], "There is a lesson nice already"),
        (["base"], "There is a lesson base already"),
        (["planar", "--after", "spheres"], "There is no notebook spheres"),
        (["planar", "--after", "77"], "There is no notebook 77"),
    ),
)
def test_what_cannot_be_begun_is_refused_and_nothing_is_written(arguments, said, capsys):
    before = {path.name for path in order.NOTEBOOKS.iterdir()}
    assert commands.main(["new-lesson", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert {path.name for path in order.NOTEBOOKS.iterdir()} == before


def test_without_a_clone_it_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_a.ipynb").touch()
    monkeypatch.setattr(order, "NOTEBOOKS", tmp_path / "notebooks")
    assert commands.main(["new-lesson", "planar"]) == 1
    assert "expected a clone of the repository with its tests" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("after", ("nice", ""), ids=("between two others", "at the end"))
def test_a_new_lesson_is_green_at_once(tmp_path, after):
    """In a copy of the repository, whose package and tests are run by processes of their own."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("flowlab", "notebooks", "tests"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, clone)
    environment = {**os.environ, "PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command], cwd=clone, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    assert str(clone) in run("-c", "import flowlab; print(flowlab.__file__)")
    arguments = ["new-lesson", SLUG, *(["--after", after] if after else [])]
    said = run("-c", f"import sys; from flowlab import commands; sys.exit(commands.main({arguments}))")
    number = f"{int(order.numbers()[after]) + 1:02d}" if after else f"{len(base.notebooks()):02d}"
    assert f"notebooks/{number}_{SLUG}.ipynb" in said
    run("-m", "ruff", "check", "flowlab", "tests")
    run("-m", "ruff", "format", "--check", "flowlab", "tests")
    words = (
        f"{SLUG} or {''.join(map(str.capitalize, SLUG.split('_')))} or normal_form or house_rules or current or number"
    )
    tests = ["tests/lessons", "tests/test_new_lesson.py", "-k", f"({words}) and not green", "-p", "no:cacheprovider"]
    found = run("-m", "pytest", "-q", "-o", "addopts=", "-p", "no:nbval", *tests)
    assert int(re.search(r"(\d+) passed", found).group(1)) > 60
    row = f"| {number} | [A lesson of this test](notebooks/{number}_{SLUG}.ipynb) | TODO |"
    assert row in (clone / "README.md").read_text()
    if after:
        course = [path.name for path in sorted((clone / "notebooks").glob("*.ipynb"))]
        assert course[int(number) - 1 : int(number) + 2] == [
            f"{int(number) - 1:02d}_nice.ipynb",
            f"{number}_{SLUG}.ipynb",
            f"{int(number) + 1:02d}_{order.slug(base.notebooks()[int(number)])}.ipynb",
        ]
