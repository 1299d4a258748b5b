"""What a file remembers of a run and of a model, so that another run or model is not taken for the same.

A fingerprint is plain JSON. What cannot be written down so is known by the name of its class or function alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

LIBRARIES = ("flowlab", "torch", "functools", "builtins")  # a function of these is known by its name
POINTS = 33  # of its way from 0 to 1 at which a schedule is remembered
FEW = 16  # numbers of a tensor that are written out
NO_SETTINGS = ("training", "columns", "context_columns")  # attributes that change no number
LONG = 80  # letters of a setting that are written out


def digest(parts: Iterable[Tensor]) -> str:
    """A fingerprint of data: the same rows in the same order, bit for bit, of any dtype."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]


def told(thing: Any) -> Any:
    """A fingerprint of an objective, an optimizer or one of their settings.

    Of a dataclass and of a ``functools.partial`` it holds their fields, of a function its qualified name, and where the
    function is not a library's also its code, its defaults, and the plain values around it: see ``code``.
    """
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, Tensor):  # what was computed, such as the shares q starts from, may be rounded otherwise here
        return [list(thing.shape), None if thing.is_floating_point() else digest([thing])]
    if isinstance(thing, (list, tuple)):
        return [told(part) for part in thing]
    if isinstance(thing, dict):
        return {str(name): told(part) for name, part in thing.items()}
    if isinstance(thing, functools.partial):
        return [told(thing.func), told(thing.args), told(thing.keywords)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {field.name: told(getattr(thing, field.name)) for field in dataclasses.fields(thing)}
        return {"name": _name(type(thing)), **fields}
    return _name(thing if hasattr(thing, "__qualname__") else type(thing))


def code(thing: Any) -> dict[str, Any] | None:
    """The code of the functions in ``thing`` that are no library's, and the plain values that they read.

    Bytecode differs between versions of Python, so ``same_code`` compares it within one version. A value that is not
    plain, such as a list or a model that a function has around it, cannot be written down: nothing is known of it.
    """
    found: dict[str, Any] = {}
    _collect(thing, found)
    return {"python": "{}.{}".format(*sys.version_info), "functions": found} if found else None


def same_code(a: dict[str, Any] | None, b: dict[str, Any] | None) -> bool:
    """Whether two fingerprints by ``code`` may be of the same functions."""
    comparable = a is not None and b is not None and a["python"] == b["python"]
    return not comparable or a == b


def law(schedule: Callable[[float], float]) -> list[float]:
    """The fingerprint of a schedule: its values at 33 points from 0 to 1, to six digits."""
    return [float(f"{float(schedule(i / (POINTS - 1))):.6g}") for i in range(POINTS)]


def hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    """The settings of an optimizer that change its result, and not those of its speed, such as ``fused``."""
    how = {"params", "foreach", "fused", "capturable", "differentiable"}
    return {name: told(value) for name, value in group.items() if value and name not in how}


# --- models -----------------------------------------------------------------------------------------------------------


def structure(model: nn.Module) -> dict[str, dict[str, Any]]:
    """All that decides what ``model`` computes apart from its weights, by the name of each part.

    Of each part these are its class, the plain values among its attributes, such as a bound or a count of bins, the
    functions among them, such as an activation, and the buffers that a checkpoint leaves out. A mere container of
    models computes nothing, and has no structure.
    """
    if isinstance(model, (nn.ModuleDict, nn.ModuleList)):
        return {}
    return {name: _part(part) for name, part in model.named_modules()}


def _part(part: nn.Module) -> dict[str, Any]:
    own = _settings(part)
    for name, value in part.named_buffers(recurse=False):
        if name in part._non_persistent_buffers_set:
            own[name] = value.tolist() if value.numel() <= FEW and value.device.type != "meta" else list(value.shape)
    return own


def _settings(thing: Any, depth: int = 0) -> dict[str, Any]:
    """The class of an object, and the settings among its attributes."""
    own: dict[str, Any] = {"class": type(thing).__qualname__}  # a class may move between files
    for name, value in _attributes(thing).items():
        if name in NO_SETTINGS or name.startswith("_"):
            continue
        # A list of the library's holds a mask or an order; one of the user's may hold what was seen, and grow.
        if _plain(value) or (isinstance(value, list) and not _own(type(thing)) and _plain(tuple(value))):
            own[name] = told(value) if len(repr(value)) <= LONG else _brief(value)
        elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
            own[name] = {"name": _name(value), "code": code(value)}
        elif depth < 2 and not isinstance(value, (Tensor, nn.Module, dict, list, tuple, torch.Generator)):
            own[name] = _settings(value, depth + 1)
    return own


def _brief(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def other_part(a: dict[str, Any], b: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first thing that two structures say differently: what, as in ``a``, and as in ``b``; None where all agree.

    What only one of them mentions is no difference: another version of the package may say more, or less.
    """
    for part in a.keys() & b.keys():
        for name in a[part].keys() & b[part].keys():
            if not _alike(a[part][name], b[part][name]):
                return ".".join(filter(None, (part, name))), a[part][name], b[part][name]
    return None


def _alike(a: Any, b: Any) -> bool:
    """Whether two fingerprints agree; numbers to the digits that 16 bits keep, in which a model may be stored."""
    if isinstance(a, float) and isinstance(b, (int, float)):
        return a == b or math.isclose(a, b, rel_tol=5e-3)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        if "python" in a and "python" in b:
            return same_code(a, b)
        return all(_alike(a[name], b[name]) for name in a.keys() & b.keys())
    return bool(a == b)


# --- functions --------------------------------------------------------------------------------------------------------


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_plain(part) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _own(thing: Any) -> bool:
    """Whether a class or function is the user's, and no library's."""
    return _name(thing).split(".")[0] not in LIBRARIES


def _collect(thing: Any, found: dict[str, Any]) -> None:
    """Add to ``found`` what is known of each function in ``thing`` that is no library's."""
    if isinstance(thing, functools.partial):
        for part in (thing.func, *thing.args, *thing.keywords.values()):
            _collect(part, found)
    elif isinstance(thing, types.MethodType):
        _collect(thing.__func__, found)
    elif isinstance(thing, types.FunctionType):
        function = inspect.unwrap(thing)  # who wraps a function under its name says that it is that function
        if isinstance(function, types.FunctionType) and _own(function):
            _read(function, found)
    elif not isinstance(thing, (type, nn.Module)):
        if dataclasses.is_dataclass(thing):
            for field in dataclasses.fields(thing):
                _collect(getattr(thing, field.name), found)
        if callable(thing) and _own(type(thing)):
            found[f"{_name(type(thing))} holds"] = {n: told(v) for n, v in _attributes(thing).items() if _plain(v)}
            _collect(type(thing).__call__, found)


def _read(function: types.FunctionType, found: dict[str, Any]) -> None:
    around = inspect.getclosurevars(function)
    values = {**around.globals, **around.nonlocals}
    what = {
        "code": hashlib.sha256(_bytecode(function.__code__)).hexdigest()[:16],
        "defaults": told([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]),
        "values": {n: told(value) for n, value in values.items() if _plain(value) or isinstance(value, Tensor)},
    }
    versions = found.setdefault(_name(function), [])
    if what not in versions:
        versions.append(what)
        for value in values.values():
            _collect(value, found)


def _attributes(thing: Any) -> dict[str, Any]:
    return getattr(thing, "__dict__", {})


def _bytecode(block: types.CodeType) -> bytes:
    """What a function does, whatever the file and the lines it stands in."""
    constants = [_bytecode(c) if isinstance(c, types.CodeType) else _constant(c) for c in block.co_consts]
    names = repr((block.co_names, block.co_varnames, block.co_freevars)).encode()
    return b"\0".join((block.co_code, names, *constants))


def _constant(value: Any) -> bytes:
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value).encode()
