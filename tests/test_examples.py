"""Examples in docstrings are run: what a reader copies gives what the docstring says."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import flowlab

LIBRARY = (
    "networks",
    "bijections",
    "densities",
    "datasets",
    "models",
    "training",
    "metrics",
    "evaluation",
    "comparison",
)


def modules() -> list[str]:
    """The modules of the library, by name."""
    found = []
    for name in LIBRARY:
        module = importlib.import_module(f"flowlab.{name}")
        found.append(module.__name__)
        if hasattr(module, "__path__"):
            found += [sub.name for sub in pkgutil.walk_packages(module.__path__, f"{module.__name__}.")]
    return found


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name):
    known = {"torch": torch, "flowlab": flowlab}
    result = doctest.testmod(importlib.import_module(name), extraglobs=known, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, "run: python -m doctest with this module"


MAPS = ("Chain", "AffineCoupling", "SplineCoupling", "MaskedAutoregressive")
DENSITIES = ("Flow", "StandardNormal", "GaussianMixture", "Dequantized", "FlowMixture")


@pytest.mark.parametrize("name", MAPS + DENSITIES)
def test_the_first_classes_that_one_meets_have_an_example(name):
    homes = (flowlab.bijections, flowlab.densities, flowlab.densities.mixtures)
    kind = next(getattr(home, name) for home in homes if hasattr(home, name))
    assert doctest.DocTestParser().get_examples(kind.__doc__)
