"""Recipes by name: a function that builds a model, and a card that says how to build it again.

    @recipe
    def wave_flow(features: int, layers: int = 8, *, generator: Generator | None = None) -> Flow:
        ...

    model = wave_flow(2)
    model.recipe            # {"name": "wave_flow", "settings": {"features": 2, "layers": 8}}; checkpoints hold it
    build(model.recipe)     # an untrained model like it

A recipe may stand in any module: from there on its models can be saved, loaded, evaluated and sampled by its name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from torch import Generator, nn

from flowlab.densities.base import check_generator

Settings = Mapping[str, Any]
Build = TypeVar("Build", bound=Callable[..., nn.Module])

HERE = __name__.rpartition(".")[0]  # flowlab.models; recipes of other modules name theirs in the card
UNWRITTEN = ("generator", "base")  # arguments that no card can hold: a source of random numbers, a module


@dataclass(frozen=True)
class Recipe:
    """A function that builds a model, where it is defined, and what its arguments were in earlier cards."""

    build: Callable[..., nn.Module]
    signature: inspect.Signature
    module: str
    absent: Settings
    renamed: Mapping[str, str]

    def arguments(self, *args: Any, **settings: Any) -> inspect.BoundArguments:
        """All arguments of a call, defaults too, whole numbers as ints. TypeError and ValueError for what cannot be."""
        name = self.build.__name__
        try:
            call = self.signature.bind(*args, **self.by_new_names(settings))
        except TypeError as error:
            raise TypeError(f"{name}: {error}.") from None
        check_generator(call.arguments.get("generator"))
        call.apply_defaults()
        for key, value in call.arguments.items():
            call.arguments[key] = _whole_numbers(name, self.signature.parameters[key], value)
        return call

    def by_new_names(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by the names that the arguments have now; TypeError for one that comes by both its names."""
        if twice := [new for old, new in self.renamed.items() if {old, new} <= set(settings)]:
            raise TypeError(f"got multiple values for argument {twice[0]!r}")
        return {self.renamed.get(name, name): value for name, value in settings.items()}


RECIPES: dict[str, Recipe] = {}
PRESETS: dict[str, dict[str, Any]] = {}  # settings that a paper printed: nice(784, **PRESETS["nice_mnist"])


@overload
def recipe(build: Build) -> Build: ...
@overload
def recipe(*, absent: Settings = ..., renamed: Mapping[str, str] = ...) -> Callable[[Build], Build]: ...
def recipe(build: Any = None, *, absent: Settings | None = None, renamed: Mapping[str, str] | None = None) -> Any:
    """Make a function that builds a model a recipe: its models know how they were built, and ``build`` knows its name.

    Arguments annotated as ``int`` or ``Sequence[int]`` take whole numbers of any kind, numpy's among them, and one
    number where a sequence is meant.

    Args:
        build: the function. Its settings are plain values, or recipes like those that ``build`` takes. ``generator``
            and ``base`` are not written down, and a model with a ``base`` of its own has no recipe.
        absent: for each argument that was added later, or whose default has changed, the value that models had before:
            ``rebuild`` takes it where an old card does not name the argument.
        renamed: for each argument that once had another name, {old: new}; the old one is still understood.

    Raises:
        ValueError: when another module has a recipe of that name, or ``absent`` or ``renamed`` name no argument.
    """
    if build is None:
        return functools.partial(recipe, absent=absent, renamed=renamed)
    own = Recipe(build, inspect.signature(build), build.__module__, dict(absent or {}), dict(renamed or {}))
    name = build.__name__
    if unknown := {*own.absent, *own.renamed.values()} - set(own.signature.parameters):
        raise ValueError(
            f"absent= and renamed= name {', '.join(sorted(unknown))}, but the recipe {name!r} has no such argument."
        )
    if name in RECIPES and RECIPES[name].module != own.module:
        raise ValueError(
            f"There is a recipe {name!r} in {RECIPES[name].module} already. Give yours another name: a card knows a "
            f"recipe by its name alone."
        )
    RECIPES[name] = own

    @functools.wraps(build)
    def built(*args: Any, **settings: Any) -> nn.Module:
        call = own.arguments(*args, **settings)
        model: Any = build(*call.args, **call.kwargs)
        model.recipe = _written(own, call) if call.arguments.get("base") is None else None
        return model

    return built


def build(recipe: Mapping[str, Any], *, generator: Generator | None = None) -> Any:
    """An untrained model by its recipe, {"name": ..., "settings": ...}; what it does not say is the recipe's default.

    Raises:
        ValueError: when there is no recipe of that name, or it takes no such settings.
    """
    found = _find(recipe)
    call = _call(found, recipe)
    if "generator" in found.signature.parameters:
        call.arguments["generator"] = generator
    model: Any = found.build(*call.args, **call.kwargs)
    model.recipe = _written(found, call)
    return model


def rebuild(recipe: Mapping[str, Any]) -> Any:
    """The untrained model that a card describes. Errors as ``build``.

    A setting that the card does not name has the ``absent`` value of its recipe, or else the default.
    """
    return build(complete(recipe))


def complete(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a card with all settings written out, also of recipes within it, as ``rebuild`` takes them.

    Raises:
        ValueError: when there is no recipe of that name, or it takes no such settings.
    """
    found = _find(recipe)
    try:
        settings = found.by_new_names(recipe.get("settings", {}))
    except TypeError as error:
        raise ValueError(f"The recipe {recipe['name']!r} cannot be built: {error}.") from None
    said = {key: complete(v) if is_recipe(v) else v for key, v in settings.items()}
    return _written(found, _call(found, {**recipe, "settings": {**found.absent, **said}}))


def same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the recipes of two cards build the same model, whichever settings each of them says."""
    try:
        first, second = (json.dumps(complete(recipe), sort_keys=True, default=str) for recipe in (one, other))
    except ValueError:  # one of them cannot be built here
        return one == other
    return first == second


def is_recipe(value: Any) -> bool:
    """Whether a setting is the recipe of another model."""
    return isinstance(value, Mapping) and set(value) >= {"name", "settings"}


def _find(recipe: Mapping[str, Any]) -> Recipe:
    """The recipe of that name. Of the modules that a card may name, only flowlab's own are imported for it."""
    name, module = recipe.get("name"), recipe.get("module", HERE)
    own = isinstance(module, str) and re.fullmatch(r"flowlab(\.\w+)*", module)
    if name not in RECIPES and own:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)
    if name in RECIPES:
        return RECIPES[name]
    if not own:
        raise ValueError(
            f"The recipe {name!r} is defined in {module}, which is not imported. flowlab imports no module because a "
            f"file names it: import it yourself, if you trust it, and then do the same again."
        )
    raise ValueError(f"Expected a recipe among {', '.join(RECIPES)}, but got {name!r}.")


def _call(found: Recipe, recipe: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments that a recipe says, and the defaults of the others; ValueError where it says what cannot be."""
    settings = recipe.get("settings", {})
    try:
        return found.arguments(**settings)
    except TypeError as error:
        raise ValueError(f"The recipe {recipe['name']!r} cannot be built from {settings}: {error}") from None


def _written(found: Recipe, call: inspect.BoundArguments) -> dict[str, Any]:
    """What a card keeps of a call: every setting, so that a new default changes no old model."""
    settings = {
        key: _written(_find(value), _call(_find(value), value)) if is_recipe(value) else value
        for key, value in call.arguments.items()
        if key not in UNWRITTEN
    }
    elsewhere = {} if found.module.startswith(f"{HERE}.") else {"module": found.module}
    return {"name": found.build.__name__, "settings": settings, **elsewhere}


def _whole_numbers(name: str, parameter: inspect.Parameter, value: Any) -> Any:
    """The argument with its whole numbers as ints, where it is annotated to have any; else ValueError, in a sentence.

    A number is at least 0, as of layers, and of features at least 1. One that may be None, and each of a sequence, is
    at least 1.
    """
    annotation = parameter.annotation
    annotation = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    annotation = annotation.removeprefix("collections.abc.")
    if annotation == "int":
        return _whole(name, parameter.name, value, 1 if parameter.name == "features" else 0)
    if annotation == "int | None":
        return None if value is None else _whole(name, parameter.name, value, 1)
    if annotation in ("Sequence[int]", "tuple[int, int, int]"):
        several = isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0
        return tuple(_whole(name, parameter.name, one, 1) for one in (value if several else (value,)))
    return value


def _whole(recipe: str, what: str, value: Any, least: int) -> int:
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{recipe} expected {what} in whole numbers of at least {least}, but got {value!r}.")
    return number
