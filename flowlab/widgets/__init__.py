"""Explorers: controls around plotting, one file a notebook family."""

from __future__ import annotations

import importlib
import pkgutil


def explorers() -> dict[str, type]:
    """Every explorer of the course by name, each ready to be made without arguments."""
    from flowlab.widgets.base import Explorer

    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    found = (cls for cls in Explorer.__subclasses__() if cls.__module__.startswith(__name__))
    return {cls.__name__: cls for cls in sorted(found, key=lambda cls: (cls.__module__, cls.__name__))}
