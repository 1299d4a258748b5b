"""Mixtures: Gaussian ones by EM (``gaussian.py``), and mixtures of flows by the ELBO (``variational.py``)."""

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
    "LatentGaussianMixture",
    "Mixture",
    "Objective",
    "Prior",
    "SingularComponent",
    "consistent_posterior",
    "falling_temperature",
    "supervised",
]
