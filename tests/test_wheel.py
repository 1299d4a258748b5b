"""The wheel: it is built, installed into an empty environment and used in an empty folder, with no network."""

import contextlib
import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST = 30e6  # bytes
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of an environment that has the wheel, and all else from the environment of the tests."""
    home = tmp_path_factory.mktemp("home") / "venv"
    venv.create(home, with_pip=False, symlinks=os.name == "posix")
    where = {"base": str(home), "platbase": str(home)}
    (Path(sysconfig.get_path("purelib", vars=where)) / "tests.pth").write_text(sysconfig.get_path("purelib"))
    python = Path(sysconfig.get_path("scripts", vars=where)) / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*command, str(wheel)], check=True)
    return python


def said(python, folder, code):
    """What this environment prints, in another folder and without the paths of the tests."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run([python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_it_holds_what_git_holds_and_nothing_else(wheel):
    held = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "flowlab", "notebooks"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    files = [name for name in held.stdout.split("\0") if name and (ROOT / name).exists()]
    expected = {f"flowlab/{name}" if name.startswith("notebooks/") else name for name in files}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert "flowlab/notebooks/notation.md" in found and wheel.stat().st_size < MOST


def test_lab_puts_a_copy_into_an_empty_folder(installed, tmp_path):
    where = said(installed, tmp_path, "import flowlab; print(flowlab.__file__)")
    assert Path(where).is_relative_to(installed.parents[1]), "the wheel, and not this clone"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {f"JUPYTER_{what}_DIR": str(tmp_path / ".jupyter" / what) for what in ("CONFIG", "RUNTIME", "DATA")}
    log = tmp_path / "log"
    with log.open("w") as out:
        command = [installed.parent / "flowlab", "lab", "--no-browser", "--port", str(port)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        server = subprocess.Popen(command, cwd=tmp_path, env=environment | settings, stdout=out, stderr=out)
    try:
        deadline = time.time() + 90
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2):
                break
            assert server.poll() is None and time.time() < deadline, log.read_text()
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait(20)
    assert f"Your own copy of the course is in {tmp_path.resolve() / 'my-course'}" in log.read_text()
    names = {path.name for path in (tmp_path / "my-course").glob("*.ipynb")}
    assert names == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert (tmp_path / "my-course" / "solutions").is_dir() and (tmp_path / "my-course" / "images").is_dir()


def test_what_is_missing_is_installed_without_a_clone(installed, tmp_path):
    code = "from flowlab.course.base import pip_install; print(pip_install('lab'))"
    assert said(installed, tmp_path, code) == 'pip install "flowlab[lab]"'
    code = "from flowlab.lessons.base import order; print(order.label('nice'))"
    assert said(installed, tmp_path, code).isdecimal()
