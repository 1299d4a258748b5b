"""`flowlab data`: fetch a data set."""

from __future__ import annotations

import argparse

ABOUT = "fetch a data set and verify it"
EXAMPLES = "flowlab data mnist"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=["mnist"])


def run(options: argparse.Namespace) -> int:
    from flowlab.datasets import mnist

    mnist.fetch()
    return 0
