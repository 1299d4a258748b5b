"""The MNIST models of the course, by name: what `flowlab train` trains."""

from flowlab.recipes.base import Digits, Recipe, Size, Splits, Trial, splits
from flowlab.recipes.densities import GLOW, MAF, NICE

RECIPES = {recipe.name: recipe for recipe in (NICE, MAF, GLOW)}

__all__ = ["RECIPES", "Digits", "Recipe", "Size", "Splits", "Trial", "splits"]
