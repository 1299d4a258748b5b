"""The oldest version of each package that pyproject.toml allows, as constraints for pip.

python tests/lowest.py > lowest.txt && pip install -c lowest.txt -e ".[test]"
"""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
INSTALLED = ("lab", "grading", "publish", "test")  # the extras that a test run installs; benchmarks are on their own


def requirements() -> list[str]:
    """What the package and its tests ask for, without flowlab itself."""
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(line for extra in INSTALLED for line in extras[extra])]
    return [line for line in asked if not line.startswith("flowlab")]


def lowest(line: str) -> str:
    """numpy>=1.26,<3 becomes numpy==1.26; what holds for some systems only stays so."""
    name, version, marker = re.fullmatch(r"([\w.-]+)[>=]=([\d.]+)[^;]*(;.*)?", line.replace(" ;", ";")).groups()
    return f"{name}=={version}{marker or ''}"


if __name__ == "__main__":
    print("\n".join(sorted({lowest(line) for line in requirements()})))
