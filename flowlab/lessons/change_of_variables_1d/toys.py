"""Base densities and maps of the line, each with its exact density, slope and inverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

Function = Callable[[np.ndarray], np.ndarray]


class Base(NamedTuple):
    """A density on the line: p_Z(z), its distribution function F(z), and the inverse of that."""

    density: Function
    distribution: Function
    quantile: Function


class Map(NamedTuple):
    """x = r(z) = a m(z) + b: m and its slope, which z it takes, and whether it folds, m(z) = m(−z).

    Both functions take z and the base, because one of the maps is the base's own distribution function.
    """

    value: Callable[[np.ndarray, Base], np.ndarray]
    slope: Callable[[np.ndarray, Base], np.ndarray]
    positive_only: bool = False
    folds: bool = False


BASES = {
    "uniform on [0, 1]": Base(stats.uniform.pdf, stats.uniform.cdf, stats.uniform.ppf),
    "standard normal": Base(stats.norm.pdf, stats.norm.cdf, stats.norm.ppf),
    "standard logistic": Base(stats.logistic.pdf, stats.logistic.cdf, stats.logistic.ppf),
    "exponential": Base(stats.expon.pdf, stats.expon.cdf, stats.expon.ppf),
}

MAPS = {
    "a z + b": Map(lambda z, base: z, lambda z, base: np.ones_like(z)),
    "a √z + b": Map(lambda z, base: np.sqrt(z), lambda z, base: 0.5 / np.sqrt(z), positive_only=True),
    "a z² + b": Map(lambda z, base: z * z, lambda z, base: 2 * z, folds=True),
    "a exp(z) + b": Map(lambda z, base: np.exp(z), lambda z, base: np.exp(z)),
    "a F(z) + b": Map(lambda z, base: base.distribution(z), lambda z, base: base.density(z)),
}
