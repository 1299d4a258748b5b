"""The MNIST models of the course, by name: what `flowlab train` trains."""

from flowlab.recipes.base import Digits, Recipe, Size, Splits, Trial, named, splits, train
from flowlab.recipes.densities import DENSITIES
from flowlab.recipes.mixtures import MIXTURES

RECIPES = {recipe.name: recipe for recipe in (*DENSITIES, *MIXTURES)}

__all__ = ["RECIPES", "Digits", "Recipe", "Size", "Splits", "Trial", "named", "splits", "train"]
