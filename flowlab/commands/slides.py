"""`flowlab slides`: slides from notebooks."""

from __future__ import annotations

import argparse
from pathlib import Path

from flowlab.commands.base import needs

ABOUT = "write slides from notebooks as they stand: one file each, which needs no network"
EXAMPLES = """\
flowlab slides 04              writes 04_nice.slides.html here; open it, press S for the speaker's notes
flowlab slides 04 05 --out talks
flowlab lab 4 --slides         the notebook itself, when the pictures are to move; for large type, choose
                               Presentation Mode in its menu View

A heading starts a slide; long text and long code go to the notes. Tags on cells change it: skip, slide,
fragment, notes. The first time, reveal.js and KaTeX are downloaded, and checked."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="number or lesson, 5 or nice")
    parser.add_argument("--out", dest="folder", type=Path, default=Path(), help="folder to write to (default: here)")


def run(options: argparse.Namespace) -> int:
    from flowlab.course import base

    paths = base.notebooks(options.notebooks)
    needs("nbconvert", "publish", "What makes slides, nbconvert,")
    from flowlab.publish import slides

    for path in paths:
        print(slides.write(path, options.folder))
    return 0
