"""`flowlab new-lesson`: begin a lesson."""

from __future__ import annotations

import argparse

ABOUT = "write the skeleton of a lesson, which is green in the tests at once"
EXAMPLES = """\
flowlab new-lesson planar_flows                  behind the last lesson
flowlab new-lesson planar_flows --after nice     between two others, whose notebooks are renumbered

It writes flowlab/lessons/SLUG/, a notebook with its solutions, and tests/lessons/test_SLUG.py, in the clone that this
flowlab belongs to. Then look for TODO."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slug", help="the lesson's name in code, such as planar_flows")
    parser.add_argument("--after", default="", metavar="LESSON", help="slug or number of the lesson before it")


def run(options: argparse.Namespace) -> int:
    from flowlab.course.new_lesson import new_lesson

    for line in new_lesson(options.slug, options.after):
        print(line)
    return 0
