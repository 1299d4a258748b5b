"""The command `flowlab`: open the course, fetch the data."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = """examples:
  flowlab lab          open the course at notebook 00
  flowlab lab 5        open notebook 05
  flowlab data mnist   fetch and verify the full MNIST"""

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="flowlab",
        description="Learn normalizing flows by moving them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    lab = commands.add_parser("lab", help="open the notebooks in JupyterLab")
    lab.add_argument("notebook", nargs="?", type=int, default=0, help="number of the notebook to open (default: 0)")
    lab.add_argument("--no-browser", action="store_true", help="start the server, print its address, open nothing")
    lab.add_argument("--port", type=int, help="port to serve on (default: the first free one from 8888)")
    lab.set_defaults(run=_lab)

    data = commands.add_parser("data", help="fetch a data set and verify it")
    data.add_argument("name", choices=["mnist"])
    data.set_defaults(run=_data)

    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (OSError, ValueError) as error:
        print(f"flowlab: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def _lab(options: argparse.Namespace) -> int:
    if not NOTEBOOKS.is_dir():
        raise ValueError(
            "'flowlab lab' works from a clone of the course, and this installation has no notebooks beside it. "
            'Clone the repository and run: pip install -e ".[lab]"'
        )
    matches = sorted(NOTEBOOKS.glob(f"{options.notebook:02d}_*.ipynb"))
    if not matches:
        numbers = ", ".join(sorted({p.name[:2] for p in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")}))
        raise ValueError(f"There is no notebook {options.notebook:02d}. There are: {numbers}.")
    if importlib.util.find_spec("jupyterlab") is None:
        raise ValueError('JupyterLab is not installed here. Install it with: pip install -e ".[lab]"')
    # As the default address, and not as a file to open, it is also in the address that --no-browser prints.
    command = [sys.executable, "-m", "jupyterlab", f"--LabApp.default_url=/lab/tree/{matches[0].name}"]
    command += [f"--ServerApp.root_dir={NOTEBOOKS}"]
    if options.port:
        command.append(f"--port={options.port}")
    if options.no_browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container; whoever is root already gains nothing by a refusal
    # A configuration folder beside this file: without it the first start offers news, and asks the network for them.
    paths = [str(Path(__file__).parent / "jupyter"), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    environment = {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, env=environment) as server:
        while True:
            try:
                return server.wait()
            except KeyboardInterrupt:
                pass  # Jupyter hears it too, and asks whether to shut down; killing it here would lose work


def _data(options: argparse.Namespace) -> int:
    from flowlab.datasets import mnist

    mnist.fetch()
    return 0
