"""`flowlab lab`: open the course in JupyterLab."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

from flowlab.commands import copy
from flowlab.commands.base import needs

ABOUT = "open the notebooks in JupyterLab"
EXAMPLES = """\
flowlab lab 5                  open notebook 05
flowlab lab 5 --in elsewhere   open it in another copy of yours
flowlab lab 5 --original       open the course's own notebook, to change the course

You work in a copy of your own, my-course beside the course's notebooks. It is brought up to date first, and
what you have changed in it stays as it is. Its notebooks come without outputs: predict, then run."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", nargs="?", default="0", help="number or lesson to open, 5 or nice (default: 0)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--in",
        dest="folder",
        type=Path,
        help="work in a copy in this folder (default: my-course, in the clone if there is one)",
    )
    place.add_argument(
        "--original", action="store_true", help="for authors: the course's own notebooks, with stored outputs"
    )
    parser.add_argument("--slides", action="store_true", help="for a class: this notebook alone")
    parser.add_argument("--no-browser", action="store_true", help="start the server, print its address, open nothing")
    parser.add_argument("--port", type=port, help="port to serve on (default: the first free one from 8888)")


def port(text: str) -> int:
    """A port that a server can listen at, as an option."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, but got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    from flowlab.course import base
    from flowlab.lessons.base import order

    [notebook] = base.notebooks([options.notebook])
    needs("jupyterlab", "lab", "JupyterLab")
    if options.port:
        check_free(options.port)
    root = order.NOTEBOOKS
    if not options.original:
        options.folder = options.folder or own_copy()
        copy.run(options)
        root = options.folder.resolve()
        print(f"Your own copy of the course is in {root}")
    # As the default address, and not as a file to open, it is also in the address that --no-browser prints.
    view = "doc" if options.slides else "lab"
    command = [sys.executable, "-m", "jupyterlab", f"--LabApp.default_url=/{view}/tree/{notebook.name}"]
    command += [f"--ServerApp.root_dir={root}"]
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


def own_copy() -> Path:
    """Where a student works who names no folder: in the clone, where git ignores it; without one, in this folder."""
    from flowlab.lessons.base import order

    return (order.NOTEBOOKS.parent if order.IN_CLONE else Path.cwd()) / "my-course"


def check_free(number: int) -> None:
    """ValueError for a port at which this machine listens already, or that is not open to this user."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))  # as Jupyter's server does
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            raise ValueError(
                f"Port {number} cannot be used ({error.strerror}). Leave --port out, and the first free one is taken."
            ) from None
