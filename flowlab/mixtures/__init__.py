"""Mixtures: Gaussians by EM (``gaussian.py``), flows by the ELBO (``variational.py``), images (``clustering.py``)."""

from flowlab.mixtures.clustering import Invariance
from flowlab.mixtures.gaussian import EMStep, GaussianMixture, Prior, SingularComponent
from flowlab.mixtures.variational import (
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
    "EMStep",
    "Elbo",
    "FlowMixture",
    "GaussianMixture",
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
