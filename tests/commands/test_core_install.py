"""A core install, without the extra `lab`: nothing below the lessons asks for what it does not have, and no command
does its work only to end in a ModuleNotFoundError."""

import ast
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import flowlab

PACKAGE = Path(flowlab.__file__).parent
COURSE = {"lessons", "publish"}  # these may ask for the extras `lab` and `publish`


def closure(extra: str = "") -> set[str]:
    """The distributions that `pip install flowlab[extra]` brings, by their normalized names."""
    found, left = set(), [("flowlab", {extra})]
    while left:
        name, extras = left.pop()
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            wanted = any(needed.marker is None or needed.marker.evaluate({"extra": e}) for e in extras | {""})
            key = needed.name.lower().replace("_", "-").replace(".", "-")
            if wanted and key not in found:
                try:
                    metadata.distribution(key)
                except metadata.PackageNotFoundError:
                    continue
                found.add(key)
                left.append((key, set(needed.extras)))
    return found | {"flowlab"}


def modules_of(distributions: set[str]) -> set[str]:
    """The top-level modules of these distributions."""
    found = metadata.packages_distributions()
    return {m for m, by in found.items() if {d.lower().replace("_", "-").replace(".", "-") for d in by} & distributions}


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports anywhere in it, if not from Python itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names) - {"flowlab"}


def test_nothing_below_the_lessons_imports_what_a_core_install_does_not_bring():
    declared = {Requirement(line).name.lower() for line in metadata.requires("flowlab") if "extra ==" not in line}
    allowed = modules_of(declared | {"numpy", "torch"})
    strangers = {
        str(path.relative_to(PACKAGE)): others
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in COURSE and (others := imported(path) - allowed)
    }
    assert not strangers, "declare it in [project.dependencies], or do without"


RUN = """
import contextlib, importlib, importlib.machinery, io, json, pkgutil, sys, traceback
blocked, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in blocked else find(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
for name in [name for name in sys.modules if name.partition(".")[0] in blocked]:
    del sys.modules[name]
import flowlab
from flowlab.commands import main
for module in pkgutil.walk_packages(flowlab.__path__, "flowlab."):
    if module.name.split(".")[1] not in ("lessons", "publish"):
        importlib.import_module(module.name)
results = {}
for command in commands:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(command)
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = traceback.format_exc()
    results[" ".join(command)] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(results))
"""

COMMANDS = [
    ["--help"],
    ["progress"],
    ["inventory"],
    ["inventory", "bcadbcadbc"],
    ["inventory", "--answers"],
    ["copy", "mine"],
    ["release", "04", "--out", "class"],
    ["models"],
    ["models", "--json"],
    ["train"],
    ["train", "nice_mnist", "--epochs", "1", "--batch-size", "4500"],
    ["evaluate", "mixture_mnist_five"],
    ["evaluate", "nice_mnist", "--ood"],
    ["sample", "nice_mnist", "--grid", "digits.png", "--n", "4"],
    ["experiment", "pinwheel", "--effort", "0.01", "--seeds", "1", "--recipes", "elbo", "gaussians"],
    ["ablation", "--known"],
    ["ablation", "mixture_mnist_five", "--epochs", "1", "--seeds", "1", "--variants", "ELBO alone"],
]
NEED_MORE = [["lab"], ["release", "04", "--grading", "--out", "x"], ["slides", "04"], ["book", "--out", "x"]]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each command gave where only the core is installed: status, standard output, standard error."""
    core = modules_of(closure())
    blocked = sorted(set(metadata.packages_distributions()) - core - {"setuptools", "pkg_resources", "_distutils_hack"})
    assert {"sklearn", "ipywidgets", "jupyterlab", "nbconvert", "pytest"} <= set(blocked) and "torch" not in blocked
    command = [sys.executable, "-c", RUN, json.dumps(blocked), json.dumps([*COMMANDS, *NEED_MORE])]
    done = subprocess.run(command, cwd=tmp_path_factory.mktemp("core"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_does_its_work_with_the_core_alone(results, command):
    code, out, err = results[" ".join(command)]
    assert code == 0, f"{code}\n{out}\n{err}"


@pytest.mark.slow
@pytest.mark.parametrize("command", NEED_MORE, ids=" ".join)
def test_a_command_that_needs_more_says_so_at_once(results, command):
    code, _, err = results[" ".join(command)]
    assert code == 1 and err.count("\n") == 1 and 'pip install -e ".[' in err
