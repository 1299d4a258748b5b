"""The house itself: its walls, its environments, its two commands."""

import ast
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

import flowlab

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# The layers, lowest first: a module imports only from layers below its own.
LAYERS = [
    ["files", "tables"],
    ["networks"],
    ["bijections"],
    ["densities"],
    ["datasets", "metrics"],
    ["evaluation", "restoration"],
    ["models"],
    ["training"],
    ["comparison", "study"],
    ["studies"],
    ["pretrained"],
    ["plotting"],
    ["lessons"],
    ["course"],
    ["publish"],
    ["commands"],
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
ALLOWED = {"README.md", "LICENSE", "pyproject.toml", "environment.yml", "flowlab", "notebooks", "tests"}


def modules():
    return [p for p in (ROOT / "flowlab").rglob("*.py") if p.parent.name != "flowlab" or p.stem != "__init__"]


def imports(path):
    """The flowlab modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowlab"):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("flowlab"))


def place(path):
    """A module's place in the package: ("lessons", "nice", "figures")."""
    return path.relative_to(ROOT / "flowlab").with_suffix("").parts


def test_imports_run_down_the_layers():
    wrong = []
    for path in modules():
        own, *inside = place(path)
        for name in imports(path):
            target, *rest = name.split(".")[1:] or [own]
            if target != own and HEIGHT[target] >= HEIGHT[own]:
                wrong.append(f"{'.'.join(place(path))} imports {name}, which is not below it")
            if target == own == "lessons" and inside[:1] != ["base"] and rest[:1] not in (inside[:1], ["base"], []):
                wrong.append(f"{'.'.join(place(path))} imports {name}, and lessons do not import each other")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_way_of_others():
    """Within a folder too: a module is read after those it imports. Packages' lists of names are left aside."""
    names = {".".join(("flowlab", *p.relative_to(ROOT / "flowlab").with_suffix("").parts)): p for p in modules()}
    leaves = {name: path for name, path in names.items() if not name.endswith("__init__")}
    graph = {name: {target for target in imports(path) if target in leaves} for name, path in leaves.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_heavy_imports_stay_in_their_layer():
    wrong = []
    for path in modules():
        own, text = place(path)[0], path.read_text()
        refused = [] if own == "lessons" else ["ipywidgets", "anywidget"]
        refused += ["matplotlib"] if HEIGHT[own] < HEIGHT["plotting"] else []
        for name in refused:
            if re.search(rf"^\s*(import|from) {name}\b", text, re.M):
                wrong.append(f"{'.'.join(place(path))} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_import_loads_nothing_heavier_than_torch_and_numpy():
    code = "import sys, torch; before = set(sys.modules); import flowlab; flowlab.realnvp, flowlab.fit; "
    code += "print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "flowlab.densities" in loaded
    heavy = {"matplotlib", "scipy", "sklearn", "ipywidgets", "tqdm", "pooch", "safetensors", "PIL"}
    assert not heavy & {name.split(".")[0] for name in loaded}


def test_jupyters_server_goes_without_torch():
    code = "import sys, flowlab.commands.jupyter.prompt; print('torch' in sys.modules, 'numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "False"]


def test_all_that_the_package_exports_is_there():
    for name in dir(flowlab):
        assert getattr(flowlab, name) is not None
    for name in flowlab.MODULES:
        assert (ROOT / "flowlab" / name).is_dir() or (ROOT / "flowlab" / f"{name}.py").is_file()
    with pytest.raises(AttributeError, match="flowlab has no 'sofa'"):
        _ = flowlab.sofa


def requirements(lines):
    return {re.split(r"[\[<>=~! ]", line)[0].lower(): line.replace(" ", "") for line in lines}


def test_environment_yml_asks_for_the_same_as_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"]
    assert requirements(line for line in pip if not line.startswith("-e")) == requirements(wanted)
    assert f"python{PROJECT['requires-python']}" in environment


def test_test_extra_has_all_that_the_lab_has():
    assert "flowlab[lab,grading]" in PROJECT["optional-dependencies"]["test"]


def test_nothing_else_at_the_top():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= ALLOWED


def test_ruff_has_nothing_to_say():
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "flowlab", "tests"], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout


def test_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert 'python3 -m venv .venv && .venv/bin/pip install -e ".[lab]" && .venv/bin/flowlab lab' in text
    assert 'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest' in text


def found(name):
    """What a dotted name of flowlab stands for: attributes, and modules where there is none."""
    parts, thing = name.split("."), flowlab
    for n, part in enumerate(parts[1:], 2):
        thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(".".join(parts[:n]))
    return thing


@pytest.mark.parametrize("page", ("README.md", ".github/CONTRIBUTING.md", ".github/RENAMED.md"))
def test_a_page_links_to_files_that_exist(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith("http")]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_readme_names_what_the_package_has():
    """All dotted names of flowlab, and in the map each name beside its package, or an attribute of what is in it."""
    text = (ROOT / "README.md").read_text()
    for name in set(re.findall(r"\bflowlab(?:\.[A-Za-z_]\w*)+", text)):
        found(name)
    rows = re.findall(r"^\| (`flowlab[^|]*) \| (.*) \|$", text.split("## Map of the package")[1], re.M)
    assert {"flowlab.bijections", "flowlab.densities"} <= {name for left, _ in rows for name in left.split("`")}
    missing = []
    for left, right in rows:
        packages = [found(name) for name in re.findall(r"`([^`]+)`", left)]
        homes = [*packages, flowlab, *(thing for package in packages for thing in vars(package).values())]
        for name in re.findall(r"`@?(\w+)[^`]*`", right):
            if not any(hasattr(home, name) for home in homes):
                missing.append((left, name))
    assert missing == []


def test_renamed_names_what_there_is_now():
    """The right column of the page of what was renamed: each dotted name of flowlab can be imported."""
    rows = re.findall(r"^\| .* \| (.*) \|$", (ROOT / ".github/RENAMED.md").read_text(), re.M)
    names = [name for row in rows for name in re.findall(r"`(flowlab\.[\w.]+)`", row)]
    assert len(names) > 15
    for name in names:
        found(name)


def test_ruff_is_one_version_everywhere():
    pinned = next(line for line in PROJECT["optional-dependencies"]["test"] if line.startswith("ruff"))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert pinned == "ruff==" + next(r["rev"] for r in hooks if r["repo"].endswith("ruff-pre-commit")).removeprefix("v")


def test_each_package_has_a_lowest_version():
    """The workflow installs it: without one, nobody knows since when flowlab runs."""
    extras = PROJECT["optional-dependencies"].values()
    asked = [*PROJECT["dependencies"], *(line for lines in extras for line in lines)]
    assert [line for line in asked if not re.search(r"[>=]=\d", line) and not line.startswith("flowlab[")] == []


def test_the_oldest_and_the_newest_python_and_torch_are_tested():
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    runs = {(run["python"], run["versions"]) for run in jobs["fast"]["strategy"]["matrix"]["include"]}
    oldest = PROJECT["requires-python"].removeprefix(">=")
    named = [
        c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    ]
    assert {(oldest, "lowest"), (max(named, key=lambda v: int(v[2:])), "newest")} <= runs
    steps = " ".join(str(step.get("run")) for step in jobs["fast"]["steps"])
    assert "'lowest-direct' || 'highest'" in steps and 'pytest -m "not slow"' in steps
    assert "bash .ci/run" in [step.get("run") for step in jobs["whole"]["steps"]]


def messages():
    """(place, text) of each message that flowlab raises, with what is formatted into it left out."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                parts = [n for arg in node.exc.args for n in ast.walk(arg) if isinstance(n, ast.Constant)]
                text = "".join(n.value for n in parts if isinstance(n.value, str))
                yield f"{'.'.join(place(path))}:{node.lineno}", text


def test_errors_say_what_was_expected_and_what_came():
    """In these words, so that a reader knows where to look: expected ..., but got ..."""
    one_sided = [(at, text) for at, text in messages() if ("xpected" in text) != ("but got" in text)]
    assert not [each for each in one_sided if "but found" not in each[1]]
    others = r"but (was|were) given|(was|were) given\.|but came|was asked for|needs at least|was built for"
    assert not [(at, text) for at, text in messages() if re.search(others, text)]
