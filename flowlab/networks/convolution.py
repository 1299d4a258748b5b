"""Networks for images: convolutions, a residual network as conditioner, a classifier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab.networks.mlp import Linear, check_context


class Convolution(nn.Module):
    """y = W ∗ x + b over 3×3 windows, with zeros beyond the border, or K of them side by side when ``stack=K``.

    ``(..., in, H, W)`` to ``(..., out, H, W)``; a stack takes ``(K, ..., in, H, W)``. W is ``(out, in, 3, 3)``, with K
    before it in a stack. Weights start uniform within ±1/√(9 in), drawn from ``generator``; at zero with ``zero=True``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        zero: bool = False,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.stack = stack
        lead = () if stack is None else (stack,)
        shapes = (*lead, out_channels, in_channels, 3, 3), (*lead, out_channels)
        bound = 1 / math.sqrt(9 * in_channels)
        self.weight, self.bias = (
            nn.Parameter(torch.zeros(s) if zero else bound * (2 * torch.rand(s, generator=generator) - 1))
            for s in shapes
        )

    def forward(self, x: Tensor) -> Tensor:
        K, batch, size = self.stack or 1, x.shape[:-3], x.shape[-2:]
        x = x.reshape(K, -1, *x.shape[-3:]).transpose(0, 1).flatten(1, 2)  # (N, K·in, H, W): in K groups of channels
        weight = self.weight.reshape(-1, *self.weight.shape[-3:])
        y = F.conv2d(x, weight, self.bias.flatten(), padding=1, groups=K)
        return y.unflatten(1, (K, y.shape[1] // K)).transpose(0, 1).reshape(*batch, y.shape[1] // K, *size)

    def extra_repr(self) -> str:
        stack = "" if self.stack is None else f", stack={self.stack}"
        return f"{self.weight.shape[-3]}, {self.weight.shape[-4]}{stack}"


def beside(x: Tensor, context: Tensor | None, features: int, context_dim: int = 1) -> Tensor:
    """Images with their context as further channels: ``(..., C, H, W)`` to ``(..., C + E, H, W)``.

    Raises:
        ValueError: when a context is missing, not expected, or of another width.
    """
    if context is None or context_dim == 1:
        check_context(context, features)
        if context is None:
            return x
        context = context[..., None, None].expand(*context.shape, *x.shape[-2:])
    else:
        if context.ndim < 3 or context.shape[-3] != features:
            raise ValueError(
                f"This network expected a context of shape (..., {features}, H, W), but got {tuple(context.shape)}."
            )
        if context.shape[-2:] != x.shape[-2:]:
            H, W = x.shape[-2:]
            flat = context.reshape(-1, *context.shape[-3:])
            context = F.adaptive_avg_pool2d(flat, (H, W)).reshape(*context.shape[:-2], H, W)
    return torch.cat((x, context.expand(*x.shape[:-3], features, *x.shape[-2:])), dim=-3)


class ResidualConvNet(nn.Module):
    """h ← h + W₂ ∗ relu(W₁ ∗ relu(h)), ``blocks`` times, between a first and a last 3×3 convolution (arXiv:1512.03385).

    RealNVP's conditioner for images (arXiv:1605.08803, section 4.1), without its batch normalization.

    ``(..., in, H, W)``, and a context when built with ``context_features=E``, to ``(..., out, H, W)``, for any H and W.
    The context is ``(..., E)``, the same for all pixels, or with ``context_dim=3`` an image ``(..., E, H', W')``, which
    is averaged or repeated to H × W. The last layer starts at zero, so that what it conditions starts at the identity.
    A pixel sees 2 · ``blocks`` + 2 pixels far.

    Raises:
        ValueError: when a context is missing, not expected, or of another width.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 64,
        blocks: int = 2,
        *,
        context_features: int = 0,
        context_dim: int = 1,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()

        def convolution(channels: int) -> Convolution:
            return Convolution(channels, hidden, stack=stack, generator=generator)

        self.first = convolution(in_channels + context_features)
        self.blocks = nn.ModuleList(nn.ModuleList(convolution(hidden) for _ in range(2)) for _ in range(blocks))
        self.last = Convolution(hidden, out_channels, zero=True, stack=stack)
        self.context_features, self.context_dim, self.stack = context_features, context_dim, stack

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.first(beside(x, context, self.context_features, self.context_dim))
        for one, two in cast("Iterable[tuple[Convolution, Convolution]]", self.blocks):
            h = h + two(one(h.relu()).relu())
        return self.last(h.relu())

    def extra_repr(self) -> str:
        return f"context_features={self.context_features}, context_dim={self.context_dim}"


class ConvClassifier(nn.Module):
    """Logits of K classes: 3×3 convolutions of stride 2 with ReLUs, then one linear layer.

    Rows of pixels in [0, 1], ``(..., H·W)``, to ``(..., K)``. Each convolution halves H and W, rounded up. Weights
    start uniform within ±√(6/in), which keeps the scale of what passes a ReLU (He et al., arXiv:1502.01852); the last
    layer's are drawn too, as a classifier that starts at zero tells no class from another.

    Args:
        classes: K.
        side: H = W.
        channels: of each convolution.
        generator: draws the starting weights.
    """

    def __init__(
        self,
        classes: int,
        side: int = 28,
        *,
        channels: Sequence[int] = (16, 32, 64),
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.side = side
        sizes = [1, *channels]
        shapes = [(b, a, 3, 3) for a, b in pairwise(sizes)]
        self.weights = nn.ParameterList(_uniform(shape, math.sqrt(6 / (9 * shape[1])), generator) for shape in shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in channels)
        for _ in channels:
            side = -(-side // 2)
        self.last = Linear(sizes[-1] * side**2, classes, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        h = 2 * x.reshape(x.shape[:-1].numel(), 1, self.side, self.side) - 1
        for W, b in zip(self.weights, self.biases, strict=True):
            h = F.conv2d(h, W, b, stride=2, padding=1).relu_()
        return self.last(h.flatten(1)).reshape(*x.shape[:-1], len(self.last.bias))

    def extra_repr(self) -> str:
        return f"{len(self.last.bias)}, side={self.side}, channels={[len(b) for b in self.biases]}"


def _uniform(shape: Sequence[int], bound: float, generator: Generator | None) -> nn.Parameter:
    return nn.Parameter(bound * (2 * torch.rand(*shape, generator=generator) - 1))
