"""The command `flowlab`: open the course, keep one's work, see one's progress, teach a class."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flowlab import model_commands
from flowlab.course import base
from flowlab.lessons.base import order

EXAMPLES = """examples:
  flowlab lab                        open the course at notebook 00
  flowlab lab 5                      open notebook 05
  flowlab copy my-course             your own copy, which no new version overwrites
  flowlab progress 4                 which aims of notebook 04 you have shown
  flowlab inventory                  ten questions, before and after the course
  flowlab release 04 05 --out class  notebooks for a class, with nothing answered
  flowlab slides 04                  slides from notebook 04, one file for the browser
  flowlab book --out book            all notebooks as pages to read, for any web host or none
  flowlab experiment pinwheel        the tables of notebooks 09 and 10, on your seeds
  flowlab models                     the trained models inside the package
  flowlab sample glow_mnist --grid digits.png
  flowlab evaluate glow_mnist        its likelihood, with the protocol
  flowlab train nice_mnist           train one: a minute on a laptop, or a paper's size on a GPU
  flowlab data mnist                 fetch and verify the full MNIST

'flowlab COMMAND --help' says more about each."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="flowlab",
        description="Learn normalizing flows by moving them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    lab = command(
        commands,
        "lab",
        _lab,
        "open the notebooks in JupyterLab",
        "flowlab lab 5                  open notebook 05\n"
        "flowlab lab 5 --in my-course   open it in your own copy, brought up to date first",
    )
    lab.add_argument("notebook", nargs="?", type=int, default=0, help="number of the notebook to open (default: 0)")
    lab.add_argument("--in", dest="folder", type=Path, help="work in a copy in this folder; see 'flowlab copy --help'")
    lab.add_argument("--slides", action="store_true", help="for a class: this notebook alone")
    lab.add_argument("--no-browser", action="store_true", help="start the server, print its address, open nothing")
    lab.add_argument("--port", type=int, help="port to serve on (default: the first free one from 8888)")

    copy = command(
        commands,
        "copy",
        _copy,
        "copy the notebooks into a folder of your own, or bring it up to date",
        "flowlab copy my-course              the first time, and after each new version of the course\n"
        "flowlab lab --in my-course          the same, and open it\n\n"
        "A notebook that you have changed (or run) stays as it is, and a new version is put beside it. One that you\n"
        "have left alone is brought up to date. One that you have deleted comes back: so you start it anew.",
    )
    copy.add_argument("folder", type=Path, help="your own folder; it is made if it is not there")

    progress = command(
        commands,
        "progress",
        _progress,
        "print which aims of each notebook you have shown",
        "flowlab progress          all notebooks\n"
        "flowlab progress 4 5      these two\n\n"
        "An aim is shown when all its exercises are solved. What is solved is kept on this machine only, in one small\n"
        "file; FLOWLAB_PROGRESS names another file, or is 'off'.",
    )
    progress.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="number of a notebook (default: all)")

    inventory = command(
        commands,
        "inventory",
        _inventory,
        "ten questions, to answer before the course and once more after it",
        "flowlab inventory               print the questions\n"
        "flowlab inventory bcadbcadbc    mark these ten letters, and say which notebooks to revisit\n"
        "flowlab inventory --answers     print all answers, for those who teach",
    )
    inventory.add_argument("letters", nargs="?", default="", help="your ten answers, as in bcadbcadbc")
    inventory.add_argument("--answers", action="store_true", help="print the right answers, and why")

    release = command(
        commands,
        "release",
        _release,
        "write notebooks for a class, with nothing answered",
        "flowlab release 04 05 --out class            student versions: stubs open, outputs cleared\n"
        "flowlab release 04 05 --out class --grading  an nbgrader course, marked by the notebooks' own checks\n"
        "flowlab release 04 --out class --install git+https://ADDRESS   with a first cell for Colab",
    )
    release.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="number of a notebook (default: all)")
    release.add_argument("--out", dest="folder", type=Path, required=True, help="folder to write to")
    release.add_argument("--grading", action="store_true", help='as nbgrader assignments (pip install -e ".[grading]")')
    release.add_argument("--install", default="", metavar="ADDRESS", help="where pip finds flowlab, for Colab")

    slides = command(
        commands,
        "slides",
        _slides,
        "write slides from notebooks as they stand: one file each, which needs no network",
        "flowlab slides 04              writes 04_nice.slides.html here; open it, press S for the speaker's notes\n"
        "flowlab slides 04 05 --out talks\n"
        "flowlab lab 4 --slides         the notebook itself, when the pictures are to move; for large type, choose\n"
        "                               Presentation Mode in its menu View\n\n"
        "A heading starts a slide; long text and long code go to the notes. Tags on cells change it: skip, slide,\n"
        "fragment, notes. The first time, reveal.js and KaTeX are downloaded, and checked.",
    )
    slides.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="number of a notebook")
    slides.add_argument("--out", dest="folder", type=Path, default=Path(), help="folder to write to (default: here)")

    book = command(
        commands,
        "book",
        _book,
        "write notebooks as a static site that needs no network: to read, to search, to host anywhere",
        "flowlab book --out book          all notebooks; open book/index.html\n"
        "flowlab book 04 05 --out book    these two\n\n"
        "The first time, KaTeX is downloaded, and checked.",
    )
    book.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="number of a notebook (default: all)")
    book.add_argument("--out", dest="folder", type=Path, required=True, help="folder to write to")

    experiment = command(
        commands,
        "experiment",
        _experiment,
        "fit mixtures of flows by several recipes on several seeds, and print how often each succeeds",
        "flowlab experiment pinwheel --seeds 20 --json pinwheel.json\n"
        "flowlab experiment pinwheel --recipes consistent --first-seed 100\n"
        "flowlab experiment circles --seeds 20               without labels\n"
        "flowlab experiment circles --labels 32 --seeds 20\n"
        "flowlab experiment circles --noise 0.005            as thin as the thesis draws them\n"
        "flowlab experiment pinwheel --seeds 1 --effort 0.02 only to see that all works\n\n"
        "A fit takes 5 to 20 seconds of one core. The file is written after each, so nothing is lost when you stop;\n"
        "--resume goes on from it.",
    )
    experiment.add_argument("name", choices=["pinwheel", "circles"])
    experiment.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    experiment.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    experiment.add_argument("--recipes", nargs="+", metavar="RECIPE", help="which recipes (default: all)")
    experiment.add_argument("--labels", type=int, default=0, help="how many points have a label (default: none)")
    experiment.add_argument("--noise", type=float, help="of circles: spread across the ring (default: 0.05)")
    experiment.add_argument("--effort", type=float, default=1.0, help="share of each recipe's steps to take")
    experiment.add_argument("--json", type=Path, metavar="FILE", help="write one record a seed and recipe here")
    experiment.add_argument("--resume", action="store_true", help="keep the records in FILE, and run what is missing")

    model_commands.add(functools.partial(command, commands))

    data = command(commands, "data", _data, "fetch a data set and verify it", "flowlab data mnist")
    data.add_argument("name", choices=["mnist"])

    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except BrokenPipeError:  # whoever read, as in flowlab progress | head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, ArithmeticError, MemoryError) as error:
        print(f"flowlab: {_sentence(error)}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def command(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int],
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Add one command, with examples under its --help; returns its parser, to take the arguments."""
    parser = commands.add_parser(
        name,
        help=description,
        description=f"{description[0].upper()}{description[1:]}.",
        epilog="examples:\n" + "\n".join(f"  {line}".rstrip() for line in examples.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _sentence(error: Exception) -> str:
    """What went wrong; what the system says of a file, with its name first and a word on what to do."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        todo = "See that it is there and yours to write, or name another place."
        return f"{error.filename} cannot be used: {error.strerror}. {todo}"
    return str(error)


def _lab(options: argparse.Namespace) -> int:
    [notebook] = base.notebooks([options.notebook])
    if importlib.util.find_spec("jupyterlab") is None:
        raise ValueError('JupyterLab is not installed here. Install it with: pip install -e ".[lab]"')
    root = order.NOTEBOOKS
    if options.folder:
        _copy(options)
        root = options.folder.resolve()
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


def _copy(options: argparse.Namespace) -> int:
    from flowlab.course.copying import copy

    news = False
    for line in copy(options.folder):
        news = True
        print(line)  # noqa: T201
    if not news:
        print(f"{options.folder} has all that is new already.")  # noqa: T201
    return 0


def _progress(options: argparse.Namespace) -> int:
    from flowlab.course.progress import report

    print(report(options.notebooks))  # noqa: T201
    return 0


def _inventory(options: argparse.Namespace) -> int:
    from flowlab.course import inventory

    if options.answers:
        print(inventory.answers())  # noqa: T201
    elif options.letters:
        print(inventory.mark(options.letters))  # noqa: T201
    else:
        print(inventory.questions())  # noqa: T201
        print("\nMark yours with: flowlab inventory followed by ten letters, as in bcadbcadbc.")  # noqa: T201
    return 0


def _release(options: argparse.Namespace) -> int:
    from flowlab.course.release import release

    for path in release(options.notebooks, options.folder, grading=options.grading, install=options.install):
        print(path)  # noqa: T201
    return 0


def _slides(options: argparse.Namespace) -> int:
    paths = base.notebooks(options.notebooks)
    _needs_nbconvert()
    from flowlab.publish import slides

    for path in paths:
        print(slides.write(path, options.folder))  # noqa: T201
    return 0


def _book(options: argparse.Namespace) -> int:
    paths = base.notebooks(options.notebooks)
    _needs_nbconvert()
    from flowlab.publish import book

    print(book.write(paths, options.folder))  # noqa: T201
    return 0


def _needs_nbconvert() -> None:
    if importlib.util.find_spec("nbconvert") is None:
        raise ValueError('This needs nbconvert. Install it with: pip install -e ".[publish]"')


def _experiment(options: argparse.Namespace) -> int:
    import torch

    from flowlab import experiments

    torch.set_num_threads(1)  # tensors this small are faster so
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    chosen = experiments.EXPERIMENTS[options.name]
    if options.noise is not None:
        if options.name != "circles":
            raise ValueError(f"--noise belongs to circles, and {options.name} was asked for. Leave it out.")
        chosen = replace(chosen, truth=replace(chosen.truth, noise=options.noise))
    records = []
    for record in experiments.run_all(
        chosen,
        seeds,
        options.recipes,
        labels=options.labels,
        effort=options.effort,
        path=options.json,
        resume=options.resume,
    ):
        records.append(record)
        print(experiments.line(record), flush=True)  # noqa: T201
    print(f"\n{experiments.table(records)}")  # noqa: T201
    return 0


def _data(options: argparse.Namespace) -> int:
    from flowlab.datasets import mnist

    mnist.fetch()
    return 0
