"""The conditioners: networks that read one part of a sample and say how to move the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

# ReLU in place: its gradient needs only its own result, so nothing is lost, and a copy is saved.
ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh, "silu": F.silu, "gelu": F.gelu}


class Linear(nn.Module):
    """y = x W + b, or K of them side by side when ``stack=K``.

    ``(N, in)`` to ``(N, out)`` with W of shape ``(in, out)``; a stack takes ``(K, N, in)`` and has W of shape
    ``(K, in, out)``. Weights start uniform within ±1/√in, drawn from ``generator``.
    """

    def __init__(
        self, in_features: int, out_features: int, *, stack: int | None = None, generator: Generator | None = None
    ) -> None:
        super().__init__()
        self.stack = stack
        lead = () if stack is None else (stack,)
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = nn.Parameter(bound * (2 * torch.rand(*lead, in_features, out_features, generator=generator) - 1))
        self.bias = nn.Parameter(bound * (2 * torch.rand(*lead, out_features, generator=generator) - 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.stack is None:
            return torch.addmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight)


class MLP(nn.Module):
    """A multilayer perceptron whose last layer starts at zero, so that what it conditions starts at the identity.

    ``(..., in)``, and a context ``(..., C)`` beside it when built with ``context_features=C``, to ``(..., out)``.

    Raises:
        ValueError: when the activation is unknown, or a context is missing, not expected, or of another width.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        context_features: int = 0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"MLP expected an activation among {sorted(ACTIVATIONS)}, but came {activation!r}.")
        sizes = [in_features + context_features, *hidden]
        self.hidden = nn.ModuleList(Linear(a, b, stack=stack, generator=generator) for a, b in pairwise(sizes))
        self.last = Linear(sizes[-1], out_features, stack=stack, generator=generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.activation = ACTIVATIONS[activation]
        self.context_features = context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        given = 0 if context is None else context.shape[-1]
        if given != self.context_features:
            raise ValueError(
                f"This network was built for {self.context_features or 'no'} context features, but came "
                f"{given or 'none'}."
            )
        if context is not None:
            x = torch.cat((x, context.expand(*x.shape[:-1], self.context_features)), dim=-1)
        # Flat once, not for each layer, and not at all where it is flat: small layers would spend their time reshaping.
        batch, stack = x.shape[:-1], self.last.stack
        flat = len(batch) == (1 if stack is None else 2)
        if not flat:
            x = x.reshape(*(() if stack is None else (stack,)), -1, x.shape[-1])  # (N, in) or (K, N, in)
        for layer in self.hidden:
            x = self.activation(layer(x))
        x = self.last(x)
        return x if flat else x.view(*batch, x.shape[-1])
