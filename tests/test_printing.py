"""What ``print`` says of a model: all that changes its function and is no weight."""

import inspect

import pytest
import torch
from torch import nn

from flowlab import bijections, densities, networks
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AdditiveImageCoupling,
    AffineCoupling,
    AffineImageCoupling,
    AsImage,
    Autoregressive,
    BatchNorm,
    Bounded,
    Chain,
    Channelwise,
    Coupling,
    Elementwise,
    FactorOut,
    FullAffine,
    GaussianizeMargins,
    ImageCoupling,
    Inverse,
    InverseAutoregressive,
    InvertibleConvolution,
    Leapfrog,
    Logit,
    LULinear,
    MaskedAutoregressive,
    Monotone,
    MonotoneSum,
    Permutation,
    Planar,
    PReLU,
    Radial,
    ScaleAndShift,
    ScaleShift,
    Shift,
    SinhArcsinh,
    Spline,
    SplineAutoregressive,
    SplineCoupling,
    SplineImageCoupling,
    Squeeze,
    Standardize,
    StandardizeContext,
    Whiten,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
)
from flowlab.densities import (
    AutoregressiveMixture,
    Dequantized,
    Flow,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
    VariationalDequantized,
    mixtures,
)
from flowlab.densities.mixtures import FlowMixture, LatentGaussianMixture
from flowlab.models import realnvp
from flowlab.networks import MLP, ConvClassifier, Convolution, Linear, MaskedLinear, MaskedMLP, ResidualConvNet

ABSTRACT = {"Bijection", "ImageBijection", "Law", "DensityModule", "Factorized", "Bound", "Mixture"}
# Where a layer starts, and whether it is trained; each is in the weights, or changes no number.
WEIGHTS = {
    "generator",
    "rotate",
    "slope",
    "zero",
    "weights",
    "covariances",
    "trainable",
    "learn_weights",
    "unit",
    "random_degrees",
}

mlp = {"hidden": (5,), "activation": "tanh", "context_features": 3, "stack": 2}
made = {**mlp, "order": [1, 2, 0]}
spline = {"bins": 5, "bound": 2.0, "guarded": False}
conv = {"hidden": 5, "blocks": 1, "context_features": 3, "context_dim": 3, "stack": 2}
mask = {"mask": alternating_mask(3, odd=True)}
board = {"mask": checkerboard_mask(1, 4, 4, odd=True)}
means = torch.zeros(2, 3)


def flow(D: int = 2, **settings) -> Flow:
    return realnvp(D, 2, hidden=(4,), **settings)


def coupling(context: int) -> AffineCoupling:
    return AffineCoupling(alternating_mask(2), (4,), context_features=context)


def stacks(D: int, context: int, base: type = StandardNormal) -> Flow:
    return Flow(coupling(context), base(D))


# Of each class: how one is made, and for each argument another value than the one made with, or than the default.
TABLE = {
    ActNorm: ({"features": 2}, {"features": 3, "stack": 2}),
    AdditiveCoupling: ({"mask": alternating_mask(3)}, {**mask, **mlp}),
    AdditiveImageCoupling: ({"mask": checkerboard_mask(1, 4, 4)}, {**board, **conv}),
    AffineCoupling: ({"mask": alternating_mask(3)}, {**mask, **mlp, "log_scale_bound": 1.0}),
    AffineImageCoupling: ({"mask": channel_mask(4)}, {"mask": channel_mask(4, True), **conv, "log_scale_bound": 1.0}),
    AsImage: ({"shape": (1, 2, 8), "bijection": Chain([Squeeze(), Inverse(Squeeze())])},
              {"shape": (1, 4, 4), "bijection": Channelwise(ActNorm(1))}),
    Autoregressive: ({"features": 3, "law": Shift()}, {"features": 2, "law": Spline(), **made}),
    BatchNorm: ({"features": 2}, {"features": 3, "momentum": 0.2, "epsilon": 1e-3, "stack": 2}),
    Bounded: ({"ends": [(0, 1)]}, {"ends": [(0, None), None]}),
    Chain: ({"bijections": [Logit()]}, {"bijections": [Logit(), Logit()]}),
    Channelwise: ({"bijection": ActNorm(2)}, {"bijection": ActNorm(3)}),
    Coupling: ({"mask": alternating_mask(3), "law": Shift()}, {**mask, "law": Spline(), **mlp}),
    Elementwise: ({"features": 2, "law": Shift()}, {"features": 3, "law": Spline(), "stack": 2}),
    FactorOut: ({"channels": 4, "context_features": 2},
                {"channels": 6, "rest": Channelwise(ActNorm(2)), "log_scale_bound": 1.0,
                 "context_features": 3, "context_dim": 3, "stack": 2}),
    FullAffine: ({"features": 2}, {"features": 3, "stack": 2}),
    ImageCoupling: ({"mask": checkerboard_mask(1, 4, 4), "law": Shift()}, {**board, "law": Spline(), **conv}),
    Inverse: ({"bijection": Squeeze()}, {"bijection": Logit()}),
    InverseAutoregressive: ({"features": 3}, {"features": 2, **made, "log_scale_bound": 1.0}),
    InvertibleConvolution: ({"channels": 2}, {"channels": 3, "stack": 2}),
    Logit: ({}, {"lambda_": 0.1}),
    LULinear: ({"features": 2}, {"features": 3, "stack": 2}),
    MaskedAutoregressive: ({"features": 3}, {"features": 2, **made, "log_scale_bound": 1.0}),
    Monotone: ({"function": torch.exp}, {"function": torch.tanh, "inverse": torch.log, "interval": (-1.0, 1.0)}),
    MonotoneSum: ({"features": 2}, {"features": 3, "terms": 4, "stack": 2}),
    Permutation: ({"order": [0, 2, 1]}, {"order": [2, 0, 1]}),
    Leapfrog: ({"features": 2, "energy": torch.abs}, {"features": 4, "energy": torch.square, "steps": 2, "size": 0.2}),
    Planar: ({"features": 2}, {"features": 3, "stack": 2}),
    PReLU: ({"features": 2}, {"features": 3, "stack": 2}),
    Radial: ({"features": 2}, {"features": 3, "stack": 2}),
    ScaleAndShift: ({}, {"log_scale_bound": 1.0}),
    ScaleShift: ({"features": 2}, {"features": 3, "stack": 2, "shift": False}),
    Shift: ({}, {}),
    SinhArcsinh: ({"features": 2}, {"features": 3, "stack": 2}),
    Spline: ({}, spline),
    SplineAutoregressive: ({"features": 3}, {"features": 2, **made, **spline}),
    SplineCoupling: ({"mask": alternating_mask(3)}, {**mask, **mlp, **spline}),
    SplineImageCoupling: ({"mask": checkerboard_mask(1, 4, 4)}, {**board, **conv, **spline}),
    GaussianizeMargins: ({"features": 2}, {"features": 3, "stack": 2}),
    Whiten: ({"features": 2}, {"features": 3, "context_features": 3, "stack": 2}),
    StandardizeContext: ({"bijection": coupling(2)}, {"bijection": coupling(3)}),
    Squeeze: ({}, {"event_shape": (1, 2, 2), "stack": 2}),
    Standardize: ({"features": 2}, {"features": 3, "stack": 2}),
    AutoregressiveMixture: ({"features": 3}, {"features": 2, "components": 3, **mlp, "order": [1, 2, 0],
                                              "log_scale_bound": 1.0}),
    Dequantized: ({"density": flow()}, {"density": flow(3), "levels": 4, "draws": 2}),
    Flow: ({"bijection": Logit(), "base": StandardNormal(2)},
           {"bijection": ActNorm(2), "base": StandardLogistic(2)}),
    GaussianMixture: ({"means": means}, {"means": means[:, :2]}),
    StandardLogistic: ({"event_shape": 2}, {"event_shape": (1, 2), "stack": 2}),
    StandardNormal: ({"event_shape": 2}, {"event_shape": (1, 2), "stack": 2}),
    StandardUniform: ({"event_shape": 2}, {"event_shape": (1, 2), "stack": 2}),
    VariationalDequantized: ({"density": flow(), "noise": stacks(2, 2)},
                             {"density": flow(3), "noise": stacks(2, 2, StandardLogistic), "levels": 4, "draws": 2}),
    FlowMixture: ({"components": [flow(), flow()]},
                  {"components": flow(stack=3), "posterior": nn.Linear(2, 2), "hidden": (5,), "shared": ActNorm(2)}),
    mixtures.EMGaussianMixture: ({"means": means}, {"means": means[:, :2], "diagonal": True, "floor": 0.1, "ridge": 0.1,
                                                  "prior": mixtures.Prior(torch.eye(3), 5.0)}),
    LatentGaussianMixture: ({"bijection": ActNorm(3), "base": GaussianMixture(means)},
                            {"bijection": FullAffine(3), "base": GaussianMixture(means.repeat(2, 1))}),
    Linear: ({"in_features": 2, "out_features": 3}, {"in_features": 3, "out_features": 2, "stack": 2}),
    MaskedLinear: ({"in_features": 2, "out_features": 3}, {"in_features": 3, "out_features": 2, "stack": 2}),
    MLP: ({"in_features": 2, "out_features": 3}, {"in_features": 3, "out_features": 2, **mlp}),
    MaskedMLP: ({"features": 3}, {"features": 2, "outputs_per_feature": 2, **made}),
    Convolution: ({"in_channels": 2, "out_channels": 3}, {"in_channels": 3, "out_channels": 2, "stack": 2}),
    ResidualConvNet: ({"in_channels": 2, "out_channels": 3}, {"in_channels": 3, "out_channels": 2, **conv}),
    ConvClassifier: ({"classes": 3}, {"classes": 4, "side": 14, "channels": (4, 8)}),
}  # fmt: skip


def of_the_packages() -> set[type]:
    found = [getattr(p, name) for p in (bijections, densities, networks, mixtures) for name in p.__all__]
    classes = {c for c in found if inspect.isclass(c) and issubclass(c, nn.Module)}
    return {c for c in classes if c.__name__ not in ABSTRACT}


def test_no_class_and_no_argument_is_left_out():
    assert of_the_packages() == set(TABLE)
    for kind, (made_with, others) in TABLE.items():
        parameters = inspect.signature(kind).parameters.values()
        named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        assert named <= set(others) | WEIGHTS, kind
        assert set(made_with) <= set(others), kind


@pytest.mark.parametrize(
    ("kind", "argument"),
    [(kind, name) for kind, (_, others) in TABLE.items() for name in others],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
def test_print_tells_apart_what_computes_something_else(kind, argument):
    made_with, others = TABLE[kind]
    one, two = kind(**made_with), kind(**{**made_with, argument: others[argument]})
    assert repr(one) != repr(two)
    assert repr(kind(**made_with)) == repr(one)
    assert " at 0x" not in repr(one) + repr(two)
