"""`flowlab book`: a site from notebooks."""

from __future__ import annotations

import argparse
from pathlib import Path

from flowlab.commands.base import needs

ABOUT = "write notebooks as a static site whose explorers move: no kernel, no network, any web host or none"
EXAMPLES = """\
flowlab book --out book          all notebooks; open book/index.html
flowlab book 04 05 --out book    these two

The first time, KaTeX is downloaded, and checked, and each explorer is recorded over its controls: some minutes for all
of them. Both are kept in your cache, the recordings until a file of the package changes."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="number or lesson, 5 or nice (default: all)")
    parser.add_argument("--out", dest="folder", type=Path, required=True, help="folder to write to")


def run(options: argparse.Namespace) -> int:
    from flowlab.course import base

    paths = base.notebooks(options.notebooks)
    needs("nbconvert", "publish", "What makes pages, nbconvert,")
    from flowlab.publish import book

    print(book.write(paths, options.folder))
    return 0
