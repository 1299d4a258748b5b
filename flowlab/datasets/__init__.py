"""Data to learn on: toys in the plane whose exact density is known, and real handwritten digits."""

from flowlab.datasets import mnist
from flowlab.datasets.energies import Energy
from flowlab.datasets.toys import (
    TOYS,
    Checkerboard,
    EightGaussians,
    Pinwheel,
    Rings,
    Spirals,
    Toy,
    TwoCircles,
    TwoMoons,
)

__all__ = [
    "TOYS",
    "Checkerboard",
    "EightGaussians",
    "Energy",
    "Pinwheel",
    "Rings",
    "Spirals",
    "Toy",
    "TwoCircles",
    "TwoMoons",
    "mnist",
]
