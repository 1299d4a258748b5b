"""Docstrings of the library: each public name has one, which says the shapes that it takes and the errors it raises."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import flowlab

ROOT = Path(flowlab.__file__).parent
LIBRARY = (
    "bijections",
    "densities",
    "networks",
    "models",
    "training",
    "tables",
    "datasets",
    "plotting",
    "pretrained",
    "evaluation.py",
    "metrics.py",
    "study.py",
    "comparison.py",
    "restoration.py",
)
Node = ast.FunctionDef | ast.ClassDef
# A shape in words or signs: (N, D), (...), ``(K,)``, ``()``.
SHAPE = re.compile(r"\((\)|\.\.\.|[A-Z]\w*,|[a-z]\w*,|\d+[,)])")


def modules() -> list[Path]:
    return [
        path for name in LIBRARY for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).glob("**/*.py"))
    ]


def public() -> Iterator[tuple[str, Node, str, str]]:
    """Where each public function and class stands, its node, its docstring, and that of the class around it."""

    def inside(body: list[ast.stmt], where: str, around: str, others: set[str]) -> Iterator[tuple[str, Node, str, str]]:
        for node in body:
            if isinstance(node, Node) and not node.name.startswith("_") and not is_overload(node):
                own = ast.get_docstring(node) or ""
                yield f"{where}{node.name}", node, own, around
                if isinstance(node, ast.ClassDef):
                    yield from inside(node.body, f"{where}{node.name}.", own, others)

    for path in modules():
        yield from inside(ast.parse(path.read_text("utf-8")).body, f"{path.relative_to(ROOT)}: ", "", set())


def is_overload(node: Node) -> bool:
    return any(ast.unparse(d) == "overload" for d in node.decorator_list)


def described() -> set[str]:
    """Methods that some class describes: another that overrides them need not say it again."""
    return {node.name for _, node, own, around in public() if around and own and isinstance(node, ast.FunctionDef)}


def test_every_public_name_has_a_docstring():
    known = described() | {"extra_repr"}
    missing = [where for where, node, own, around in public() if not (own or (around and node.name in known))]
    assert not missing


def raised(function: ast.FunctionDef) -> set[str]:
    """The errors that a function raises in its own body, those within functions of its own aside."""
    found, todo = set(), list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func).split(".")[-1])
        todo += ast.iter_child_nodes(node)
    return found


def test_a_docstring_names_the_errors_that_are_raised():
    """That of the function, or of its class: what its constructor and its methods raise."""
    unsaid = []
    for where, node, own, around in public():
        functions = [node] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.ClassDef):
            functions = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
        for function in functions:
            unsaid += [f"{where} raises {error}" for error in raised(function) if error not in own + around]
    assert not unsaid


def test_a_docstring_of_a_function_of_tensors_says_shapes():
    silent = []
    for where, node, own, _ in public():
        if not isinstance(node, ast.FunctionDef) or not own:
            continue
        given = [a.annotation for a in (*node.args.args, *node.args.kwonlyargs) if a.annotation is not None]
        takes = any(ast.unparse(annotation).startswith("Tensor") for annotation in given)
        gives = node.returns is not None and "Tensor" in ast.unparse(node.returns)
        if takes and gives and not SHAPE.search(own):
            silent.append(where)
    assert not silent


def test_a_log_likelihood_has_a_unit():
    """Where a docstring says log p(x) = ..., it says nats or bits, or that of its class does."""
    names = ("log_prob", "log_weight", "log_density", "log_joint", "elbo", "objective", "bound")
    silent = [
        where
        for where, node, own, around in public()
        if isinstance(node, ast.FunctionDef) and node.name in names and own and not re.search("nats|bits", own + around)
    ]
    assert not silent
