"""`flowlab progress`: which aims a student has shown."""

from __future__ import annotations

import argparse

ABOUT = "print which aims of each notebook you have shown"
EXAMPLES = """\
flowlab progress          all notebooks
flowlab progress 4 5      these two

An aim is shown when all its exercises are solved. What is solved is kept on this machine only, in one small
file; FLOWLAB_PROGRESS names another file, or is 'off'."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="number or lesson, 5 or nice (default: all)")


def run(options: argparse.Namespace) -> int:
    from flowlab.course.progress import report

    print(report(options.notebooks))
    return 0
