"""Mixtures: Gaussians by EM (``gaussian.py``), flows by the ELBO (``variational.py``), images (``clustering.py``)."""

from flowlab.densities.mixtures.clustering import Invariance
from flowlab.densities.mixtures.gaussian import EMGaussianMixture, EMStep, Prior, SingularComponent
from flowlab.densities.mixtures.variational import (
    Elbo,
    FlowMixture,
    Interleaved,
    LatentGaussianMixture,
    Mixture,
    Objective,
    consistent_posterior,
    falling_temperature,
    supervised,
)

__all__ = [
    "EMGaussianMixture",
    "EMStep",
    "Elbo",
    "FlowMixture",
    "Interleaved",
    "Invariance",
    "LatentGaussianMixture",
    "Mixture",
    "Objective",
    "Prior",
    "SingularComponent",
    "consistent_posterior",
    "falling_temperature",
    "supervised",
]
