"""`flowlab inventory`: ten questions, before the course and after it."""

from __future__ import annotations

import argparse

ABOUT = "ten questions, to answer before the course and once more after it"
EXAMPLES = """\
flowlab inventory               print the questions
flowlab inventory YOUR-LETTERS  mark your ten letters, keep the score, and say which notebooks to revisit
flowlab inventory --answers     print all answers, for those who teach"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letters", nargs="?", default="", help="your ten answers, as ten letters from a to d")
    parser.add_argument("--answers", action="store_true", help="print the right answers, and why")


def run(options: argparse.Namespace) -> int:
    from flowlab.course import inventory

    if options.answers:
        print(inventory.answers())
    elif options.letters:
        print(inventory.mark(options.letters))
    else:
        print(inventory.questions())
        print("\nMark yours with: flowlab inventory, followed by your ten letters.")
    return 0
