"""The invertible maps, one idea a file. Start with ``base.py``, then ``laws.py`` and ``coupling.py``."""

from flowlab.bijections.autoregressive import (
    Autoregressive,
    InverseAutoregressive,
    MaskedAutoregressive,
    SplineAutoregressive,
)
from flowlab.bijections.base import (
    Bijection,
    Channelwise,
    Inverse,
    InverseNotAvailable,
    NotStackable,
    ShapeError,
)
from flowlab.bijections.bounded import Bounded
from flowlab.bijections.chain import Chain
from flowlab.bijections.coupling import (
    AdditiveCoupling,
    AdditiveImageCoupling,
    AffineCoupling,
    AffineImageCoupling,
    Coupling,
    ImageCoupling,
    SplineCoupling,
    SplineImageCoupling,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
)
from flowlab.bijections.elementwise import (
    Elementwise,
    Logit,
    Monotone,
    MonotoneSum,
    PReLU,
    ScaleShift,
    SinhArcsinh,
)
from flowlab.bijections.gaussianize import GaussianizeMargins, Whiten
from flowlab.bijections.image import AsImage, FactorOut, Squeeze, scales
from flowlab.bijections.laws import Law, ScaleAndShift, Shift, Spline, partway
from flowlab.bijections.leapfrog import Leapfrog
from flowlab.bijections.linear import FullAffine, InvertibleConvolution, LULinear, Permutation
from flowlab.bijections.normalize import ActNorm, BatchNorm, Standardize, StandardizeContext, learning, starting
from flowlab.bijections.planar import Planar
from flowlab.bijections.radial import Radial

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AdditiveImageCoupling",
    "AffineCoupling",
    "AffineImageCoupling",
    "AsImage",
    "Autoregressive",
    "BatchNorm",
    "Bijection",
    "Bounded",
    "Chain",
    "Channelwise",
    "Coupling",
    "Elementwise",
    "FactorOut",
    "FullAffine",
    "GaussianizeMargins",
    "ImageCoupling",
    "Inverse",
    "InverseAutoregressive",
    "InverseNotAvailable",
    "InvertibleConvolution",
    "LULinear",
    "Law",
    "Leapfrog",
    "Logit",
    "MaskedAutoregressive",
    "Monotone",
    "MonotoneSum",
    "NotStackable",
    "PReLU",
    "Permutation",
    "Planar",
    "Radial",
    "ScaleAndShift",
    "ScaleShift",
    "ShapeError",
    "Shift",
    "SinhArcsinh",
    "Spline",
    "SplineAutoregressive",
    "SplineCoupling",
    "SplineImageCoupling",
    "Squeeze",
    "Standardize",
    "StandardizeContext",
    "Whiten",
    "alternating_mask",
    "channel_mask",
    "checkerboard_mask",
    "learning",
    "partway",
    "scales",
    "starting",
]
