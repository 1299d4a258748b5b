"""The invertible maps, one idea a file. Start with ``base.py``, then ``elementwise.py``, then ``coupling.py``."""

from flowlab.bijections.autoregressive import InverseAutoregressive, MaskedAutoregressive
from flowlab.bijections.base import (
    Bijection,
    Chain,
    Channelwise,
    Inverse,
    InverseNotAvailable,
    NotStackable,
    ShapeError,
)
from flowlab.bijections.coupling import (
    AdditiveCoupling,
    AdditiveImageCoupling,
    AffineCoupling,
    AffineImageCoupling,
    SplineCoupling,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
)
from flowlab.bijections.elementwise import Logit, Monotone, MonotoneSum, PReLU, ScaleShift, SinhArcsinh
from flowlab.bijections.image import AsImage, FactorOut, Squeeze, levels
from flowlab.bijections.linear import FullAffine, InvertibleConvolution, LULinear, Permutation
from flowlab.bijections.normalize import ActNorm, BatchNorm, Standardize, starting

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AdditiveImageCoupling",
    "AffineCoupling",
    "AffineImageCoupling",
    "AsImage",
    "BatchNorm",
    "Bijection",
    "Chain",
    "Channelwise",
    "FactorOut",
    "FullAffine",
    "Inverse",
    "InverseAutoregressive",
    "InverseNotAvailable",
    "InvertibleConvolution",
    "LULinear",
    "Logit",
    "MaskedAutoregressive",
    "Monotone",
    "MonotoneSum",
    "NotStackable",
    "PReLU",
    "Permutation",
    "ScaleShift",
    "ShapeError",
    "SinhArcsinh",
    "SplineCoupling",
    "Squeeze",
    "Standardize",
    "alternating_mask",
    "channel_mask",
    "checkerboard_mask",
    "levels",
    "starting",
]
