"""The guide for contributors, followed to the letter: the system that it adds passes the whole battery."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(file: str) -> str:
    """The code that the guide gives for a file."""
    return re.search(rf"`{re.escape(file)}`[^`]*(?:`\w+`:)?\n\n```python\n(.*?)```", GUIDE, re.S).group(1)


def insert(path: Path, text: str, before: str) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count(before) == 1
    path.write_text(source.replace(before, text + before), encoding="utf-8")


@pytest.mark.slow
def test_a_wave_is_one_file_and_one_row(tmp_path):
    shutil.copytree(ROOT / "flowlab", tmp_path / "flowlab", ignore=shutil.ignore_patterns("pretrained", "lessons"))
    shutil.copytree(ROOT / "tests" / "bijections", tmp_path / "tests" / "bijections")
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "flowlab/bijections/wave.py").write_text(block("flowlab/bijections/wave.py"), encoding="utf-8")
    package, table = tmp_path / "flowlab/bijections/__init__.py", tmp_path / "tests/bijections/table.py"
    insert(package, block("flowlab/bijections/__init__.py"), "\n__all__ = [\n")
    insert(package, '    "Wave",\n', '    "Whiten",\n')
    insert(table, block("tests/bijections/table.py"), '    "Inverse": Row(')
    insert(table, "    Wave,\n", "    Whiten,\n")
    command = re.search(r"Now run\n\n```bash\npython (.*?)\n```", GUIDE, re.S).group(1)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *command.split(), "-vv"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    passed = re.findall(r"::(test_\w+)\[.*Wave.*\] PASSED", done.stdout)
    assert done.returncode == 0, done.stdout[-4000:]
    assert len(set(passed)) >= 12, done.stdout
    style = [sys.executable, "-m", "ruff", "check", "--no-cache", "flowlab/bijections/wave.py"]
    assert subprocess.run(style, cwd=tmp_path, capture_output=True).returncode == 0


def test_the_guide_names_what_is_there():
    for path in re.findall(r"\]\((\.\./[^)]+)\)", GUIDE):
        assert (ROOT / ".github" / path).exists(), path
    for path in re.findall(r"`((?:flowlab|tests)/[\w/.]+)`", GUIDE):
        assert "wave" in path or (ROOT / path).exists(), path
