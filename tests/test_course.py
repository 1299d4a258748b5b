"""Teaching with the notebooks: progress, copies that keep one's work, the concept inventory, releases and marks."""

import hashlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from notebook_format import GUIDE, REFERENCE, course, guide, stated_seconds, too_slow

from flowlab import lessons
from flowlab.commands import main
from flowlab.course import base, copying, inventory, release
from flowlab.course.progress import exercises_for
from flowlab.lessons import exercises
from flowlab.lessons.base import order, progress

COURSE = course()
NUMBERS = [path.name[:2] for path in COURSE]
NICE, REALNVP, LINE = (order.numbers()[slug] for slug in ("nice", "realnvp_in_the_plane", "change_of_variables_1d"))


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Progress is kept in a file of this test."""
    path = tmp_path / "a folder" / "progress.json"
    monkeypatch.setenv("FLOWLAB_PROGRESS", str(path))
    return path


def right(name):
    return exercises()[name].answer


# Progress


def test_only_a_right_answer_is_noted_once(kept, capsys):
    lessons.check("start_here.1", lambda z: z)
    lessons.check("start_here.2", lambda log_p, log_q: ...)
    assert not kept.exists()
    lessons.check("start_here.1", right("start_here.1"))
    first = kept.read_text()
    assert list(progress.read()["solved"]) == ["start_here.1"]
    lessons.check("start_here.1", right("start_here.1"))
    lessons.check("start_here.1", lambda z: z)  # trying something else later takes nothing away
    assert kept.read_text() == first
    assert [p.name for p in kept.parent.iterdir()] == ["progress.json"], "no temporary file is left"


def test_without_a_name_progress_lies_in_the_users_own_folder(monkeypatch):
    monkeypatch.delenv("FLOWLAB_PROGRESS")
    assert progress.file().name == "progress.json" and "flowlab" in progress.file().parts
    monkeypatch.setenv("FLOWLAB_PROGRESS", "off")
    assert progress.file() is None


def test_progress_that_cannot_be_kept_costs_nobody_the_feedback(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOWLAB_PROGRESS", str(tmp_path / "file" / "progress.json"))  # its folder is a file
    lessons.check("start_here.1", right("start_here.1"))
    out, error = capsys.readouterr()
    assert out.startswith("✔") and not error


def test_a_failure_while_writing_leaves_the_old_notes(kept, monkeypatch, capsys):
    progress.solved("start_here.1")
    before = kept.read_text()

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    lessons.check("start_here.2", right("start_here.2"))
    assert capsys.readouterr().out.startswith("✔")
    assert kept.read_text() == before and len(list(kept.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "text",
    (
        "{",
        "[]",
        '{"solved": 3}',
        '{"solved": {}, "inventory": [3]}',
        '{"solved": {}, "inventory": [["a", "b"]]}',
        "[" * 99999,
    ),
)
def test_broken_notes_are_named_and_not_written_over(kept, capsys, text):
    kept.parent.mkdir()
    kept.write_text(text)
    lessons.check("start_here.1", right("start_here.1"))
    assert kept.read_text() == text
    assert main(["progress"]) == 1
    error = capsys.readouterr().err
    assert str(kept) in error and "Delete it to start anew" in error


def test_the_home_of_nobody_costs_nobody_the_feedback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWLAB_PROGRESS", "~nobody-of-this-name/progress.json")
    lessons.check("start_here.1", right("start_here.1"))
    assert capsys.readouterr().out.startswith("✔")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_notes_behind_a_link_are_kept_where_they_lie(kept, tmp_path):
    kept.parent.mkdir()
    (tmp_path / "shared.json").write_text('{"solved": {}, "inventory": []}')
    kept.symlink_to(tmp_path / "shared.json")
    progress.solved("start_here.1")
    assert kept.is_symlink() and "start_here.1" in (tmp_path / "shared.json").read_text()


def test_what_an_older_version_has_kept_by_numbers_is_still_solved(kept, capsys):
    kept.parent.mkdir()
    days = {f"{number:02d}.1": f"2026-10-{number + 1:02d}" for number in range(len(order.FORMER))}
    old = {"solved": {"04.3": "2026-11-22", **days, "nice.3": "2026-11-25"}, "inventory": [["2026-11-22", 7]]}
    kept.write_text(json.dumps(old))
    first = {f"{slug}.1": day for slug, day in zip(order.FORMER, days.values(), strict=True)}
    assert progress.read()["solved"] == {"nice.3": "2026-11-22", **first} and first.keys() < exercises().keys()
    assert main(["progress", NICE]) == 0
    assert f"{NICE} Coupling layers: NICE: 2 of 4 exercises solved" in capsys.readouterr().out
    progress.solved("nice.2")
    solved = json.loads(kept.read_text())["solved"]
    assert len(solved) == 19 and solved["nice.1"] == "2026-10-05" and not [name for name in solved if name[0].isdigit()]


def test_progress_says_which_aims_are_shown(kept, capsys):
    progress.solved("nice.1")
    progress.solved("nice.3")
    inventory.mark("a" * 10)
    assert main(["progress", NICE]) == 0
    out = capsys.readouterr().out
    assert f"{NICE} Coupling layers: NICE: 2 of 4 exercises solved" in out
    assert "✔ write a coupling layer" in out and f"(shown by {NICE}.1)" in out
    assert f"○ catch a log-determinant that sums too much (to show it: {NICE}.4)" in out
    assert re.search(r"Concept inventory: \d of 10 on \d{4}-", out) and str(kept) in out
    assert f"{REALNVP} " not in out


@pytest.mark.parametrize("path", COURSE, ids=NUMBERS)
def test_every_aim_is_shown_by_an_exercise_and_every_exercise_shows_an_aim(path):
    listed = exercises_for(path)
    assert 3 <= len(listed) <= 5
    assert not [aim.text for aim, shown_by in listed if not shown_by]
    verbs = [verb for aim, _ in listed for verb in aim.verbs]
    assert len(verbs) == len(set(verbs)), "a verb names one aim"
    for name, exercise in exercises(order.slug(path)).items():
        assert exercise.aims and set(exercise.aims) <= set(verbs), f"{name} names {exercise.aims} of {verbs}"


def test_a_notebook_closes_with_what_has_been_shown(kept, capsys, monkeypatch, tmp_path):
    progress.solved("nice.4")
    for path in COURSE:
        [cell] = [cell for cell in base.read(path)["cells"] if "progress" in cell["metadata"].get("tags", [])]
        exec(cell["source"], {})
        out = capsys.readouterr().out
        assert out.startswith(f"{base.title(path)}: ") and ("✔" in out) == (path.name[:2] == NICE)
    monkeypatch.setattr(order, "NOTEBOOKS", tmp_path)  # as where flowlab is installed without its notebooks
    exec(cell["source"].replace(order.slug(path), "nice"), {})
    assert capsys.readouterr().out.split("\n")[2:4] == ["○ Exercise nice.3", "✔ Exercise nice.4"]


# The student's own copy


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small course; ``publish`` brings out a new version of a file."""
    folder = tmp_path / "clone" / "notebooks"
    (folder / "solutions").mkdir(parents=True)
    (folder / ".ipynb_checkpoints").mkdir()
    for name in ("00_a.ipynb", "01_b.ipynb", "solutions/00_a.ipynb", "README.md", ".ipynb_checkpoints/00_a.ipynb"):
        (folder / name).write_text(f"{name}, version 1")
    monkeypatch.setattr(order, "NOTEBOOKS", folder)
    return folder


def test_a_copy_holds_the_course_and_a_second_one_changes_nothing(clone, tmp_path, capsys):
    mine = tmp_path / "mine"
    assert main(["copy", str(mine)]) == 0
    assert {p.relative_to(mine).as_posix() for p in mine.rglob("*") if p.is_file()} == {
        "00_a.ipynb",
        "01_b.ipynb",
        "solutions/00_a.ipynb",
        copying.RECORD,
    }
    capsys.readouterr()
    assert main(["copy", str(mine)]) == 0
    assert "has all that is new already" in capsys.readouterr().out


def notebook(source: str, output: str = "1\n", **metadata) -> dict:
    out = {"output_type": "stream", "name": "stdout", "text": output}
    cell = {"cell_type": "code", "source": source, "outputs": [out], "execution_count": 1, "metadata": {}}
    return {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def test_a_copy_shows_no_output_and_a_copy_made_with_outputs_is_brought_up_to_date(clone, tmp_path):
    """Older versions copied with outputs. Who has left such a copy alone gets one without."""
    mine, name = tmp_path / "mine", "05_opened.ipynb"
    (clone / name).write_text(json.dumps(notebook("print(1)")))
    list(copying.copy(mine))
    [cell] = base.read(mine / name)["cells"]
    assert cell["source"] == "print(1)" and cell["outputs"] == [] and cell["execution_count"] is None
    (mine / name).write_text(json.dumps(notebook("print(1)")))
    old = (mine / name).read_bytes()
    record = json.loads((mine / copying.RECORD).read_text())
    record[name] = {key: hashlib.sha256(old).hexdigest() for key in ("copied", "offered")} | {"cells": None}
    (mine / copying.RECORD).write_text(json.dumps(record))
    assert list(copying.copy(mine)) == [f"{name}: brought up to date"]
    assert base.read(mine / name)["cells"][0]["outputs"] == []


def test_a_notebook_that_was_only_opened_counts_as_untouched(clone, tmp_path):
    """Jupyter fills in metadata and breaks the lines otherwise; to write or to run something is the student's work."""
    mine, names = tmp_path / "mine", ("05_opened.ipynb", "06_written.ipynb", "07_run.ipynb")
    for name in names:
        (clone / name).write_text(json.dumps(notebook("a = 1\nprint(a)")))
    list(copying.copy(mine))
    opened = notebook("a = 1\nprint(a)", language_info={"name": "python"})
    opened["cells"][0]["source"] = ["a = 1\n", "print(a)"]
    opened["cells"][0]["outputs"] = []
    (mine / names[0]).write_text(json.dumps(opened))
    (mine / names[1]).write_text(json.dumps(notebook("a = 2\nprint(a)")))
    (mine / names[2]).write_text(json.dumps(notebook("a = 1\nprint(a)", output="2\n")))
    assert list(copying.copy(mine)) == []
    for name in names:
        (clone / name).write_text(json.dumps(notebook("a = 3\nprint(a)")))
    said = list(copying.copy(mine))
    assert said[0] == f"{names[0]}: brought up to date" and "a = 3" in (mine / names[0]).read_text()
    assert ["left as it is" in line for line in said] == [False, True, True]
    assert "a = 2" in (mine / names[1]).read_text() and '"2' in (mine / names[2]).read_text()


def test_untouched_files_are_brought_up_to_date_and_new_ones_come(clone, tmp_path):
    mine = tmp_path / "mine"
    list(copying.copy(mine))
    (clone / "00_a.ipynb").write_text("version 2")
    (clone / "02_c.ipynb").write_text("new")
    assert list(copying.copy(mine)) == ["00_a.ipynb: brought up to date", "02_c.ipynb: new"]
    assert (mine / "00_a.ipynb").read_text() == "version 2" and (mine / "02_c.ipynb").read_text() == "new"


def test_an_edited_notebook_is_never_written_over(clone, tmp_path):
    mine = tmp_path / "mine"
    list(copying.copy(mine))
    own = mine / "00_a.ipynb"
    own.write_text("my work")
    assert list(copying.copy(mine)) == [], "no new version, nothing to say"
    for version in (2, 3):
        (clone / "00_a.ipynb").write_text(f"version {version}")
        beside = f"00_a_version_{version}.ipynb"
        [line] = copying.copy(mine)
        assert "left as it is" in line and beside in line
        assert own.read_text() == "my work" and (mine / beside).read_text() == f"version {version}"
        (mine / beside).write_text(f"work in {version}")
        assert list(copying.copy(mine)) == [], "a version is put beside once"
    assert (mine / "00_a_version_2.ipynb").read_text() == "work in 2"


def test_a_notebook_follows_its_lesson_to_another_number(clone, tmp_path):
    """A lesson is put before 01: the student's work in the old 01 is in 02 now, to the byte."""
    mine = tmp_path / "mine"
    (clone / "02_c.ipynb").write_text("c, version 1")
    (clone / "03_d.ipynb").write_text("d, version 1")
    list(copying.copy(mine))
    (mine / "01_b.ipynb").write_text("my work")
    (mine / "03_d.ipynb").unlink()
    for old, new in (("03_d", "04_d"), ("02_c", "03_c"), ("01_b", "02_b")):
        (clone / f"{old}.ipynb").rename(clone / f"{new}.ipynb").write_text(f"{new}, version 2")
    (clone / "01_a_new_one.ipynb").write_text("new")
    said = list(copying.copy(mine))
    assert "01_b.ipynb: is 02_b.ipynb now, as you have left it" in said
    assert "03_c.ipynb: brought up to date" in said and "01_a_new_one.ipynb: new" in said
    assert {path.name: path.read_text() for path in mine.glob("*.ipynb")} == {
        "00_a.ipynb": "00_a.ipynb, version 1",
        "01_a_new_one.ipynb": "new",
        "02_b.ipynb": "my work",
        "02_b_version_2.ipynb": "02_b, version 2",
        "03_c.ipynb": "03_c, version 2",
        "04_d.ipynb": "04_d, version 2",
    }
    assert list(copying.copy(mine)) == []


def test_an_edited_notebook_that_is_deleted_comes_back_as_it_is_now(clone, tmp_path):
    mine = tmp_path / "mine"
    list(copying.copy(mine))
    (mine / "00_a.ipynb").write_text("my work")
    (clone / "00_a.ipynb").write_text("version 2")
    list(copying.copy(mine))
    (mine / "00_a.ipynb").unlink()
    assert list(copying.copy(mine)) == ["00_a.ipynb: was gone, and is back"]
    assert (mine / "00_a.ipynb").read_text() == "version 2"
    (clone / "00_a.ipynb").write_text("version 3")
    assert list(copying.copy(mine)) == ["00_a.ipynb: brought up to date"]


@pytest.mark.parametrize("record", (None, "{", "[1]", "3", "null", '{"00_a.ipynb": 3}'))
def test_where_the_record_is_lost_every_file_counts_as_the_students(clone, tmp_path, record):
    mine = tmp_path / "mine"
    list(copying.copy(mine))
    (mine / copying.RECORD).unlink()
    if record:
        (mine / copying.RECORD).write_text(record)
    (clone / "00_a.ipynb").write_text("version 2")
    [line] = copying.copy(mine)
    assert "left as it is" in line and (mine / "00_a.ipynb").read_text() == "00_a.ipynb, version 1"


def test_work_done_in_the_clone_itself_is_kept_too(clone, tmp_path):
    """The student worked in the clone, copies, lets git take the new version, and copies again."""
    git = ["git", "-C", str(clone.parent), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "1"]):
        subprocess.run([*git, *command], check=True)
    (clone / "00_a.ipynb").write_text("my work")
    (clone / "notes").mkdir()
    (clone / "notes" / "mine.ipynb").write_text("my notes")
    mine = tmp_path / "mine"
    list(copying.copy(mine))
    (clone / "00_a.ipynb").write_text("version 2")
    (clone / "notes" / "mine.ipynb").write_text("the course's own notes")
    (clone / "01_b.ipynb").write_text("version 2")
    subprocess.run([*git, "commit", "-qam", "2"], check=True)
    list(copying.copy(mine))
    assert (mine / "00_a.ipynb").read_text() == "my work"
    assert (mine / "notes" / "mine.ipynb").read_text() == "my notes"
    assert (mine / "01_b.ipynb").read_text() == "version 2"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("there", (True, False))
def test_a_link_that_the_student_made_is_left_as_it_is(clone, tmp_path, there):
    mine, elsewhere = tmp_path / "mine", tmp_path / "on another disk.ipynb"
    list(copying.copy(mine))
    (mine / "00_a.ipynb").replace(elsewhere)
    (mine / "00_a.ipynb").symlink_to(elsewhere)
    (clone / "00_a.ipynb").write_text("version 2")
    if not there:  # the disk is away
        elsewhere.unlink()
    [line] = copying.copy(mine)
    assert "left as it is" in line and (mine / "00_a.ipynb").readlink() == elsewhere
    assert (mine / "00_a_version_2.ipynb").read_text() == "version 2" and list(copying.copy(mine)) == []


def test_a_copy_into_what_is_no_folder_says_so_in_a_sentence(clone, tmp_path, capsys):
    (tmp_path / "mine").write_text("a file")
    assert main(["copy", str(tmp_path / "mine")]) == 1
    error = capsys.readouterr().err
    assert "mine cannot be used: " in error and "Errno" not in error and error.endswith("name another place.\n")


@pytest.mark.parametrize("name", ("04_a_version_2.ipynb", "04_a-Copy1.ipynb"))
def test_a_copy_beside_a_notebook_is_not_taken_for_it(clone, name):
    (clone / "04_a.ipynb").write_text("the course's")
    (clone / name).write_text("mine")
    assert base.notebooks([4]) == [clone / "04_a.ipynb"] and len(base.notebooks()) == 3


def test_marks_of_a_conflict_are_told_from_a_notebook(clone, capsys):
    (clone / "00_a.ipynb").write_text("<<<<<<< HEAD")
    assert main(["progress", "0"]) == 1
    assert "00_a.ipynb is not a notebook" in capsys.readouterr().err


@pytest.mark.parametrize("place", (".", "..", "solutions"))
def test_the_course_is_not_copied_onto_itself(clone, capsys, place):
    assert main(["copy", str(clone / place)]) == 1
    assert "holds the course itself" in capsys.readouterr().err


# The concept inventory


def test_the_inventory_asks_ten_fair_questions():
    assert len(inventory.QUESTIONS) == 10
    letters = "".join(question.right for question in inventory.QUESTIONS)
    assert all(letters.count(letter) >= 2 for letter in "abcd") and not re.search(r"(.)\1\1", letters)
    for question in inventory.QUESTIONS:
        assert len(set(question.choices)) == 4 and question.right in "abcd"
        assert question.lesson in lessons.slugs()


def test_the_longest_choice_is_no_way_to_pass():
    right = sum(max("abcd", key=lambda x: len(q.choices["abcd".index(x)])) == q.right for q in inventory.QUESTIONS)
    assert 1 <= right <= 4


def test_marking_names_what_was_missed_and_where_to_look(kept, capsys):
    letters = "".join(question.right for question in inventory.QUESTIONS)
    assert main(["inventory", letters.upper()]) == 0
    assert capsys.readouterr().out == "10 of 10 are right.\n"
    wrong = "d" if letters[3] != "d" else "a"
    assert main(["inventory", letters[:3] + wrong + letters[4:]]) == 0
    out = capsys.readouterr().out
    assert out.startswith("9 of 10 are right.") and "\n4. d) Nothing: any function" in out
    assert f"Revisit notebook {NICE}." in out and f"Revisit notebook {LINE}." not in out
    assert [right for _, right in progress.read()["inventory"]] == [10, 9]


@pytest.mark.parametrize("letters", ("abc", "abcdeabcde", "abcdabcdabc"))
def test_what_is_not_ten_letters_is_told_so(kept, capsys, letters):
    assert main(["inventory", letters]) == 1
    assert "Expected 10 letters from a to d" in capsys.readouterr().err and not kept.exists()


def test_questions_tell_no_answer_and_answers_tell_all(capsys):
    assert main(["inventory"]) == 0
    asked = capsys.readouterr().out
    assert main(["inventory", "--answers"]) == 0
    told = capsys.readouterr().out
    for question in inventory.QUESTIONS:
        assert question.text in asked and question.why not in asked
        assert question.why in told and f"Revisit notebook {order.label(question.lesson)}." in told


# Releases


def markdown(notebook):
    return "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def test_a_release_is_open_clear_and_complete(tmp_path, capsys):
    assert main(["release", "--out", str(tmp_path / "class")]) == 0
    written = {path.name for path in (tmp_path / "class").iterdir()}
    pages = {page.name for page in order.NOTEBOOKS.glob("*.md")} - {"README.md"}
    assert written == {*(path.name for path in COURSE), "concept_inventory.md", *pages}
    answers = [exercise.solution.split('"""')[-1].split("\n\n\ncheck")[0].strip() for exercise in exercises().values()]
    for path in COURSE:
        notebook = base.read(tmp_path / "class" / path.name)
        text = json.dumps(notebook, ensure_ascii=False)
        asked = [base.exercise_of(cell) for cell in notebook["cells"]]
        stubs = [cell["source"] for cell, exercise in zip(notebook["cells"], asked, strict=True) if exercise]
        assert stubs == [exercise.stub for exercise in asked if exercise] and len(stubs) >= 2
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
        assert not [answer for answer in answers if json.dumps(answer, ensure_ascii=False)[1:-1] in text]
        assert "solutions" not in markdown(notebook), "the worked answers do not lie beside it"
        links = re.findall(r"\]\((?!http|#)([^)#]*)", markdown(notebook))
        assert set(links) <= written, "no link leads nowhere"
        before = base.read(path)
        assert len(before["cells"]) == len(notebook["cells"]) and before["metadata"] == notebook["metadata"]


def test_a_notebook_released_alone_has_no_links_to_others(tmp_path):
    list(release.release([REALNVP], tmp_path))
    text = markdown(base.read(tmp_path / f"{REALNVP}_realnvp_in_the_plane.ipynb"))
    assert f"{NICE} Coupling layers: NICE" in text and f"{NICE}_nice" not in text
    assert "(https://arxiv.org/abs/1605.08803)" in text


def test_a_release_writes_over_nothing(tmp_path, capsys):
    name = f"{NICE}_nice.ipynb"
    (tmp_path / name).write_text("marked by hand")
    assert main(["release", "nice", REALNVP, "--out", str(tmp_path)]) == 1
    assert f"{name} exists" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "marked by hand"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_later_release_leaves_what_the_teacher_changed(tmp_path):
    for name in ("concept_inventory.md", "notation.md"):
        (tmp_path / name).write_text("my own words")
    list(release.release([NICE], tmp_path))
    assert {(tmp_path / name).read_text() for name in ("concept_inventory.md", "notation.md")} == {"my own words"}


def test_a_release_of_what_is_not_there_says_what_is(tmp_path, capsys):
    assert main(["release", "77", "--out", str(tmp_path)]) == 1
    assert "There is no notebook 77. There are: 00, " in capsys.readouterr().err


def test_grading_without_nbgrader_says_what_to_install(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nbgrader" else find(name))
    assert main(["release", NICE, "--out", str(tmp_path / "class"), "--grading"]) == 1
    assert 'pip install -e ".[grading]"' in capsys.readouterr().err and not (tmp_path / "class").exists()


def test_the_first_cell_for_colab_installs_only_where_flowlab_is_missing(tmp_path):
    from IPython.core.inputtransformer2 import TransformerManager

    list(release.release([NICE], tmp_path, install="git+https://example.org/flowlab"))
    cells = base.read(tmp_path / f"{NICE}_nice.ipynb")["cells"]
    assert cells[0]["source"].startswith(f"# {NICE}")
    [line] = [line for line in cells[1]["source"].splitlines() if "%pip" in line]
    assert '"flowlab @ git+https://example.org/flowlab"' in line and "ipywidgets" in line and "anywidget" in line
    assert "jupyterlab" not in line and "pytest" not in line, "what Colab has itself, and what students do not need"
    ran = []
    code = TransformerManager().transform_cell(cells[1]["source"])
    exec(code, {"get_ipython": lambda: ran.append("pip")})
    assert not ran


@pytest.mark.parametrize("name", list(exercises()))
def test_cleared_by_nbgrader_a_worked_answer_is_the_stub_and_uncleared_it_is_right(name):
    exercise = exercises()[name]
    source = release._between_marks(exercise)
    cleared = re.sub(r"    ### BEGIN SOLUTION.*### END SOLUTION", "    ...", source, flags=re.S)
    assert cleared == exercise.stub
    assert source.replace("    ### BEGIN SOLUTION\n", "").replace("\n    ### END SOLUTION", "") == exercise.solution


def test_a_score_is_the_verdict_and_hears_no_warnings(capsys):
    log = logging.getLogger("of a student")
    log.addHandler(logging.StreamHandler())

    def noisy(z):
        print("careful", file=sys.stderr)
        log.warning("careful")
        return right("start_here.1")(z)

    assert lessons.score("start_here.1", noisy) == 1.0 and lessons.score("start_here.1", lambda z: z) == 0.0
    out, error = capsys.readouterr()
    assert "✔" in out and "✘" in out and not error
    log.warning("heard again")
    assert "heard again" in capsys.readouterr().err


# What a student hands in for notebook 01: answers as they would be typed, and the points they should get.
COMMON_MISTAKES = {
    "change_of_variables_1d.1": (
        "z = (torch.log(x) - b) / a\n    return -0.5 * z**2 - 0.5 * math.log(2 * math.pi)  # no factor",
        0.0,
    ),
    "change_of_variables_1d.2": (
        "import sys\n    print('a warning', file=sys.stderr)\n    return log_p - math.log(abs(factor))",
        1.0,
    ),
    "change_of_variables_1d.3": ("return math.exp(mean)  # the mode goes to the mode", 0.0),
    "change_of_variables_1d.4": ("return (p(torch.sqrt(x)  # a syntax error: the cell never ran", 0.0),
    "change_of_variables_1d.5": ("...", 0.0),
}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nbgrader") is None, reason='needs nbgrader: pip install -e ".[grading]"')
def test_autograding_gives_each_student_what_check_says(tmp_path):
    """Release notebook 01, hand in one right submission and one with common mistakes, and let nbgrader mark both."""
    name = f"{LINE}_change_of_variables_1d"
    list(release.release([LINE], tmp_path, grading=True))
    for student in ("right", "mistaken"):
        notebook = base.read(tmp_path / "release" / name / f"{name}.ipynb")
        assert "score(" not in json.dumps(notebook), "the tests are hidden"
        # The cells that teach take their time and are tested elsewhere: mark the exercises alone.
        graded = [c for c in notebook["cells"] if "nbgrader" in c["metadata"] or "import torch" in c["source"]]
        for cell in graded:
            if exercise := base.exercise_of(cell):
                if student == "right":
                    cell["source"] = exercise.solution
                else:
                    body, _ = COMMON_MISTAKES[exercise.name]
                    cell["source"] = exercise.stub.replace("    ...", f"    {body}")
        handed_in = tmp_path / "submitted" / student / name / f"{name}.ipynb"
        handed_in.parent.mkdir(parents=True)
        base.write({**notebook, "cells": graded}, handed_in)
    release._nbgrader(tmp_path, "autograde", name)

    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}", "flowlab") as gradebook:
        for student in ("right", "mistaken"):
            submission = gradebook.find_submission(name, student).notebooks[0]
            points = {grade.name: grade.auto_score for grade in submission.grades}
            expected = {
                f"points-{name.replace('.', '-')}": 1.0 if student == "right" else points
                for name, (_, points) in COMMON_MISTAKES.items()
            }
            assert points == expected and submission.max_score == 5
    told = (tmp_path / "autograded" / "mistaken" / name / f"{name}.ipynb").read_text()
    assert "no factor in it yet" in told, "the marked notebook holds the hint"


# The teacher's guide


def test_the_guide_states_what_the_notebooks_state():
    text = GUIDE.read_text(encoding="utf-8")
    assert text == guide(text), "run: python tests/notebook_format.py --write"
    assert all(f"| {number} | [" in text for number in NUMBERS)
    for said in re.findall(r"`flowlab ([\w-]+)", text):
        with pytest.raises(SystemExit, match="0"):
            main([said, "--help"])


@pytest.mark.skipif(importlib.util.find_spec("nbgrader") is None, reason='needs nbgrader: pip install -e ".[grading]"')
def test_the_guide_names_commands_that_nbgrader_has():
    from nbgrader.apps.nbgraderapp import NbGraderApp

    said = set(re.findall(r"`nbgrader (\w+)", GUIDE.read_text(encoding="utf-8")))
    assert said and said <= set(NbGraderApp().subcommands)


def test_commands_that_only_read_the_order_of_lessons_start_without_torch():
    code = "import sys, flowlab.course.base, flowlab.course.copying; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False"]


@pytest.mark.parametrize("machine", (1, 10))
def test_only_a_gross_excess_over_the_stated_seconds_counts(machine):
    path, unit = order.notebooks()[NICE], machine * REFERENCE
    stated = stated_seconds(path)
    assert too_slow({path: 3 * stated * machine}, unit) == []
    [line] = too_slow({path: (5 * stated + 10) * machine}, unit)
    assert f"states {stated:.0f} s, here {stated * machine:.0f} s" in line and f"--time --write {NICE}" in line
