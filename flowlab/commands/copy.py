"""`flowlab copy`: a copy of the notebooks of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

ABOUT = "copy the notebooks into a folder of your own, or bring it up to date"
EXAMPLES = """\
flowlab copy my-course              the first time, and after each new version of the course
flowlab lab --in my-course          the same, and open it

Notebooks come without outputs, so that you predict before you see. One that you have changed (or run) stays as
it is, and a new version is put beside it. One that you have left alone is brought up to date. One that you have
deleted comes back: so you start it anew."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="your own folder; it is made if it is not there")


def run(options: argparse.Namespace) -> int:
    from flowlab.course.copying import copy

    news = False
    for line in copy(options.folder):
        news = True
        print(line)
    if not news:
        print(f"{options.folder} has all that is new already.")
    return 0
