"""Densities: simple ones, flows, and bounds; mixtures are in ``flowlab.densities.mixtures``. Start with ``base.py``."""

from flowlab.densities.autoregressive import AutoregressiveMixture
from flowlab.densities.base import Density, DensityModule
from flowlab.densities.bounds import Bound, Dequantized, VariationalDequantized, negative_bound
from flowlab.densities.evaluating import evaluating
from flowlab.densities.flow import Flow
from flowlab.densities.gaussian_mixture import GaussianMixture
from flowlab.densities.langevin import langevin
from flowlab.densities.simple import Factorized, StandardLogistic, StandardNormal, StandardUniform
from flowlab.densities.small_maps import one_map_at_a_time

__all__ = [
    "AutoregressiveMixture",
    "Bound",
    "Density",
    "DensityModule",
    "Dequantized",
    "Factorized",
    "Flow",
    "GaussianMixture",
    "StandardLogistic",
    "StandardNormal",
    "StandardUniform",
    "VariationalDequantized",
    "evaluating",
    "langevin",
    "negative_bound",
    "one_map_at_a_time",
]
