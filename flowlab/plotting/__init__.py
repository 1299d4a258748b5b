"""Figures: pure functions of data and models to matplotlib. ``density`` and ``training_curve`` are where to start."""

from flowlab.plotting.plane import density, training_curve

__all__ = ["density", "training_curve"]
