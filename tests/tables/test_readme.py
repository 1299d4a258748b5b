"""README's tables of containers and oddities are those of the cases, and a command prints them."""

import subprocess
import sys

import pytest

from tables import cases


def test_readme_has_the_tables_of_the_cases():
    readme = cases.README.read_text(encoding="utf-8")
    assert readme == cases.written(readme), "run: python tests/tables/cases.py --write"
    for case in (*cases.TAKEN, *cases.REFUSED, *cases.ODD):
        assert f"\n| {case.name} | " in readme


def test_a_case_that_changes_makes_the_tables_differ(monkeypatch):
    readme = cases.README.read_text(encoding="utf-8")
    monkeypatch.setattr(cases, "REFUSED", cases.REFUSED[1:])
    assert cases.written(readme) != readme


@pytest.mark.slow
def test_a_command_prints_them():
    said = subprocess.run(
        [sys.executable, cases.__file__], capture_output=True, text=True, encoding="utf-8", timeout=300
    )
    assert said.returncode == 0, said.stderr
    tables = said.stdout.strip()
    assert all(make() in tables for make in cases.TABLES.values())
