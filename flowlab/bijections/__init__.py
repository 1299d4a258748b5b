"""The invertible maps, one idea a file. Start with ``base.py``, then ``elementwise.py``, then ``coupling.py``."""

from flowlab.bijections.base import Bijection, Chain, Inverse, InverseNotAvailable, NotStackable, ShapeError
from flowlab.bijections.coupling import AdditiveCoupling, AffineCoupling, SplineCoupling, alternating_mask
from flowlab.bijections.elementwise import Logit, Monotone, MonotoneSum, PReLU, ScaleShift, SinhArcsinh
from flowlab.bijections.linear import FullAffine, LULinear, Permutation
from flowlab.bijections.normalize import ActNorm, BatchNorm

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "BatchNorm",
    "Bijection",
    "Chain",
    "FullAffine",
    "Inverse",
    "InverseNotAvailable",
    "LULinear",
    "Logit",
    "Monotone",
    "MonotoneSum",
    "NotStackable",
    "PReLU",
    "Permutation",
    "ScaleShift",
    "ShapeError",
    "SinhArcsinh",
    "SplineCoupling",
    "alternating_mask",
]
