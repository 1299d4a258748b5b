"""The command `flowlab`, as a person types it."""

import contextlib
import importlib.util
import re

import pytest

from flowlab import cli
from flowlab.course import base, copying


@pytest.fixture
def started(monkeypatch):
    """Catch the command that would start JupyterLab."""
    calls = []

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

    monkeypatch.setattr(cli.subprocess, "Popen", Server)
    return calls


def test_lab_opens_notebook_00(started):
    assert cli.main(["lab"]) == 0
    command, settings = started[0]
    assert any(part.endswith("00_start_here.ipynb") for part in command)
    assert "--no-browser" not in command
    assert "JUPYTER_CONFIG_PATH" in settings["env"]


def test_lab_takes_a_number_a_port_and_no_browser(started):
    assert cli.main(["lab", "5", "--port", "9123", "--no-browser"]) == 0
    command, _ = started[0]
    assert any("05_" in part for part in command)
    assert "--port=9123" in command and "--no-browser" in command


def test_lab_in_a_folder_of_ones_own_works_on_a_copy(started, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_changed_in_clone", set)  # git cannot be asked while nothing really starts
    mine = tmp_path / "my course"
    assert cli.main(["lab", "4", "--in", str(mine)]) == 0
    command, _ = started[0]
    assert f"--ServerApp.root_dir={mine}" in command and any(part.endswith("04_nice.ipynb") for part in command)
    (mine / "04_nice.ipynb").write_text("my work")
    assert cli.main(["lab", "4", "--in", str(mine)]) == 0
    assert (mine / "04_nice.ipynb").read_text() == "my work"


@pytest.mark.parametrize("user", (0, 1000))
def test_lab_starts_in_a_container_too(started, monkeypatch, user):
    monkeypatch.setattr(cli.os, "geteuid", lambda: user, raising=False)
    assert cli.main(["lab"]) == 0
    assert ("--allow-root" in started[0][0]) == (user == 0)


def test_lab_says_which_notebooks_there_are(started, capsys):
    assert cli.main(["lab", "77"]) == 1
    assert "There is no notebook 77. There are: 00, 01" in capsys.readouterr().err
    assert not started


def test_lab_outside_a_clone_says_so(started, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(base, "NOTEBOOKS", tmp_path / "notebooks")
    assert cli.main(["lab"]) == 1
    assert "works from a clone" in capsys.readouterr().err
    assert not started


def test_lab_without_jupyterlab_says_what_to_install(started, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else find(name))
    assert cli.main(["lab"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and 'pip install -e ".[lab]"' in error
    assert not started


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert "flowlab lab 5" in out
    for name in re.findall(r"^  flowlab (\w+)", out, re.M):
        with pytest.raises(SystemExit, match="0"):
            cli.main([name, "--help"])
        assert f"examples:\n  flowlab {name}" in capsys.readouterr().out
