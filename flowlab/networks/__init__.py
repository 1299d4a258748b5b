"""The conditioners: networks that read one part of a sample and say how to move the other."""

from flowlab.networks.convolution import ConvClassifier, Convolution, ResidualConvNet, beside
from flowlab.networks.masked import MaskedLinear, MaskedMLP
from flowlab.networks.mlp import ACTIVATIONS, MLP, Linear

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "ConvClassifier",
    "Convolution",
    "Linear",
    "MaskedLinear",
    "MaskedMLP",
    "ResidualConvNet",
    "beside",
]
