"""`flowlab lab`: the notebook, the folder and the port that JupyterLab is started with."""

import contextlib
import importlib.util
import json
import socket

import pytest

from flowlab.commands import lab, main
from flowlab.course import copying
from flowlab.lessons.base import order


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Catch the command that would start JupyterLab; what it brings up to date is in a folder of this test."""
    calls = []
    monkeypatch.setattr(copying, "_changed_in_clone", set)  # git cannot be asked while nothing really starts
    monkeypatch.setattr(lab, "own_copy", lambda: tmp_path / "my-course")

    class Server(contextlib.nullcontext):
        def __init__(self, command, **settings):
            super().__init__(self)
            calls.append((command, settings))
            self.interrupts = 2

        def wait(self):
            """Two interrupts come while it runs; it asks, is answered, and ends by itself."""
            self.interrupts -= 1
            if self.interrupts >= 0:
                raise KeyboardInterrupt
            return 0

    monkeypatch.setattr(lab.subprocess, "Popen", Server)
    return calls


def test_lab_opens_notebook_00(started):
    assert main(["lab"]) == 0
    command, settings = started[0]
    assert any(part.endswith("00_start_here.ipynb") for part in command)
    assert "--no-browser" not in command
    assert "JUPYTER_CONFIG_PATH" in settings["env"]


def test_lab_takes_a_number_a_port_and_no_browser(started):
    assert main(["lab", "5", "--port", "9123", "--no-browser"]) == 0
    command, _ = started[0]
    assert any("05_" in part for part in command)
    assert "--port=9123" in command and "--no-browser" in command


def outputs(folder):
    """What the notebooks in a folder show before anybody has run them."""
    cells = [cell for path in folder.rglob("*.ipynb") for cell in json.loads(path.read_text())["cells"]]
    assert len(cells) > 300
    return [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def test_what_lab_opens_holds_no_outputs(started, tmp_path):
    """A student predicts first: neither without an option nor in a named folder does lab open a stored result."""
    assert outputs(order.NOTEBOOKS), "the course itself has stored outputs, which the book shows"
    for options, folder in (([], tmp_path / "my-course"), (["--in", str(tmp_path / "mine")], tmp_path / "mine")):
        assert main(["lab", "nice", *options]) == 0
        assert f"--ServerApp.root_dir={folder}" in started[-1][0] and outputs(folder) == []


def test_an_author_opens_the_course_itself(started, tmp_path):
    assert main(["lab", "nice", "--original"]) == 0
    assert f"--ServerApp.root_dir={order.NOTEBOOKS}" in started[0][0] and not (tmp_path / "my-course").exists()
    with pytest.raises(SystemExit, match="2"):
        main(["lab", "--original", "--in", str(tmp_path / "mine")])


def test_lab_in_a_folder_of_ones_own_works_on_a_copy(started, tmp_path):
    mine = tmp_path / "my course"
    nice = f"{order.label('nice')}_nice.ipynb"
    assert main(["lab", "nice", "--in", str(mine)]) == 0
    command, _ = started[0]
    assert f"--ServerApp.root_dir={mine}" in command and any(part.endswith(f"/{nice}") for part in command)
    (mine / nice).write_text("my work")
    assert main(["lab", "nice", "--in", str(mine)]) == 0
    assert (mine / nice).read_text() == "my work"


@pytest.mark.parametrize("user", (0, 1000))
def test_lab_starts_in_a_container_too(started, monkeypatch, user):
    monkeypatch.setattr(lab.os, "geteuid", lambda: user, raising=False)
    assert main(["lab"]) == 0
    assert ("--allow-root" in started[0][0]) == (user == 0)


def test_lab_says_which_notebooks_there_are(started, capsys):
    assert main(["lab", "77"]) == 1
    assert "There is no notebook 77. There are: 00, " in capsys.readouterr().err
    assert not started


def test_lab_outside_a_clone_says_so(started, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(order, "NOTEBOOKS", tmp_path / "notebooks")
    assert main(["lab"]) == 1
    assert "works from a clone" in capsys.readouterr().err
    assert not started


def test_lab_without_jupyterlab_says_what_to_install(started, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else find(name))
    assert main(["lab"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and 'pip install -e ".[lab]"' in error
    assert not started


@pytest.mark.parametrize("wrong", ["0", "-1", "65536", "80000", "http", "8888.0", ""])
def test_a_port_that_is_none_is_refused_at_once(started, capsys, wrong):
    with pytest.raises(SystemExit, match="2"):
        main(["lab", "--port", wrong])
    assert f"expected a port from 1 to 65535, but got {wrong!r}" in capsys.readouterr().err and not started


def test_a_port_that_is_taken_is_refused_with_a_way_out(started, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert main(["lab", "--port", str(number)]) == 1
        error = capsys.readouterr().err
        assert f"Port {number} cannot be used" in error and "Leave --port out" in error and not started
    assert main(["lab", "--port", str(number)]) == 0 and f"--port={number}" in started[0][0]
