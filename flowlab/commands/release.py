"""`flowlab release`: notebooks for a class."""

from __future__ import annotations

import argparse
from pathlib import Path

ABOUT = "write notebooks for a class, with nothing answered"
EXAMPLES = """\
flowlab release 04 05 --out class            student versions: stubs open, outputs cleared
flowlab release 04 05 --out class --grading  an nbgrader course, marked by the notebooks' own checks
flowlab release 04 --out class --install git+https://ADDRESS   with a first cell for Colab"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="number or lesson, 5 or nice (default: all)")
    parser.add_argument("--out", dest="folder", type=Path, required=True, help="folder to write to")
    parser.add_argument("--grading", action="store_true", help='as nbgrader assignments (pip install -e ".[grading]")')
    parser.add_argument("--install", default="", metavar="ADDRESS", help="where pip finds flowlab, for Colab")


def run(options: argparse.Namespace) -> int:
    from flowlab.course.release import release

    for path in release(options.notebooks, options.folder, grading=options.grading, install=options.install):
        print(path)
    return 0
