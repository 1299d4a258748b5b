"""The bug museum of this lesson: a flow that is no density."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from flowlab.densities import StandardNormal
from flowlab.networks import MLP


class MuseumFlow(nn.Module):
    """A flow as published code had it, with the mistake kept: find it by what it says, ``log_prob`` (N, 2) to (N,)."""

    def __init__(self, layers: int = 8, generator: Generator | None = None) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            MLP(2, 4, hidden=(8,), activation="tanh", generator=generator) for _ in range(layers)
        )
        self.base = StandardNormal(2)

    def log_prob(self, x: Tensor) -> Tensor:
        log_det = 0.0
        for i, network in enumerate(self.networks):
            b = torch.tensor([i % 2, 1 - i % 2]).to(x)
            s, t = network(b * x).chunk(2, -1)
            s = s.tanh()
            x = b * x + (1 - b) * (x * s.exp() + t)
            log_det = log_det + s.sum(-1)
        return self.base.log_prob(x) + log_det

    def forward(self, x: Tensor) -> Tensor:
        return self.log_prob(x)
