"""The command `flowlab`: one file a command, its parser beside what it does.

A file has ``ABOUT``, one line; ``EXAMPLES``, which its --help ends with; ``arguments(parser)``; and ``run(options)``,
which returns the exit status. It imports what is slow to import in ``run``, so that help is there at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from types import ModuleType

from flowlab import __version__
from flowlab.commands.console import forgiving

COMMANDS = (
    "lab",
    "copy",
    "progress",
    "inventory",
    "release",
    "slides",
    "book",
    "new-lesson",
    "experiment",
    "train",
    "evaluate",
    "sample",
    "ablation",
    "models",
    "data",
)

EXAMPLES = """examples:
  flowlab lab                        open your copy of the course at notebook 00
  flowlab lab 5                      open notebook 05
  flowlab copy my-course             bring your copy up to date; what you changed stays as it is
  flowlab progress 4                 which aims of notebook 04 you have shown
  flowlab inventory                  ten questions, before and after the course
  flowlab release 04 05 --out class  notebooks for a class, with nothing answered
  flowlab slides 04                  slides from notebook 04, one file for the browser
  flowlab book --out book            all notebooks as pages to read, for any web host or none
  flowlab new-lesson planar_flows    begin a lesson: its folder, its notebook, its tests
  flowlab experiment pinwheel        the tables of the lessons on mixtures, on your seeds
  flowlab models                     the trained models inside the package
  flowlab sample glow_mnist --grid digits.png
  flowlab evaluate glow_mnist        its likelihood, with the protocol
  flowlab train nice_mnist           train one: a minute on a laptop, or a paper's size on a GPU
  flowlab ablation --known           what each ingredient of the mixtures of digits is worth
  flowlab data mnist                 fetch and verify the full MNIST

'flowlab COMMAND --help' says more about each."""

GREETING = f"""flowlab {__version__}: learn normalizing flows by moving them.

  flowlab lab                  open the course at its first notebook, in a copy of your own
  flowlab models               the trained models inside the package
  flowlab --help               all commands

For your own data, in Python: import flowlab; the README has the three lines."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    with forgiving():
        try:
            options = parser().parse_args(arguments)
            return options.run(options)
        except BrokenPipeError:  # whoever read, as in flowlab progress | head, has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (OSError, ValueError, ArithmeticError, MemoryError) as error:
            print(f"flowlab: {_sentence(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="flowlab",
        description="Learn normalizing flows by moving them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"flowlab {__version__}")
    whole.set_defaults(run=_greet)
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = command(name)
        own = commands.add_parser(
            name,
            help=module.ABOUT,
            description=f"{module.ABOUT[0].upper()}{module.ABOUT[1:]}.",
            epilog="examples:\n" + "\n".join(f"  {line}".rstrip() for line in module.EXAMPLES.splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(own)
        own.set_defaults(run=module.run)
    return whole


def command(name: str) -> ModuleType:
    """The file of a command."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def _greet(options: argparse.Namespace) -> int:
    print(GREETING)
    return 0


def _sentence(error: Exception) -> str:
    """What went wrong; what the system says of a file, with its name first and a word on what to do."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        todo = "See that it is there and yours to write, or name another place."
        return f"{error.filename} cannot be used: {error.strerror}. {todo}"
    return str(error)
