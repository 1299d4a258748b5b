"""Planar flows push all points along one direction, each by where it lies along another one."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from flowlab.bijections.base import Bijection
from flowlab.bijections.numeric import invert

STANDING = math.log(math.e - 1)  # softplus of it is 1


class Planar(Bijection):
    """z = x + û tanh(w · x + b), with log |det| = log(1 + (w · û)(1 − tanh²)) (arXiv:1505.05770, eq. 10 to 13).

    û is u, moved along w such that w · û = softplus(w · u + log(e − 1)) − 1 > −1: then the map rises along w, and only
    then it is invertible (appendix A.1, where the map of u = 0 is not the identity; here it is). The inverse is
    numeric in any dimension by one root in one dimension, that of α + (w · û) tanh(α + b) = w · z, where α = w · x.
    Shapes ``(..., D)`` and ``(...)``. Starts at the identity, with a random w.

    >>> f = Planar(2, generator=Generator().manual_seed(0))
    >>> _ = f.u.data.fill_(1.0)
    >>> x = torch.tensor([[0.5, -1.0]])
    >>> z, log_det = f(x)
    >>> torch.allclose(f.inverse(z)[0], x)
    True
    """

    inverse_is_numeric = True

    def __init__(self, features: int, *, stack: int | None = None, generator: Generator | None = None) -> None:
        super().__init__(features, stack)
        lead = () if stack is None else (stack,)
        self.w = nn.Parameter(torch.randn(*lead, features, generator=generator))
        self.u = nn.Parameter(torch.zeros(*lead, features))
        self.b = nn.Parameter(torch.zeros(*lead, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        w, u, b, slope = self._ready(x)
        t = torch.tanh((w * x).sum(-1, keepdim=True) + b)
        return x + u * t, _rise(t, slope).log().squeeze(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        w, u, b, slope = self._ready(z)

        def along_w(wx: Tensor) -> tuple[Tensor, Tensor]:
            """w · z as a function of w · x, and its slope."""
            t = torch.tanh(wx + b)
            return wx + (slope - 1) * t, _rise(t, slope)

        wz, reach = (w * z).sum(-1, keepdim=True), (slope - 1).abs().detach()
        wx = invert(along_w, wz, wz.detach() - reach, wz.detach() + reach)
        t = torch.tanh(wx + b)
        return z - u * t, -_rise(t, slope).log().squeeze(-1)

    def direction(self) -> Tensor:
        """û, along which the map pushes: ``(D,)``, or ``(K, D)`` of a stack."""
        return self._ready(self.w)[1]

    def _ready(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w, û, b and 1 + w · û, the slope of the map along w on the plane w · x + b = 0, ready to meet x."""
        w, u, b = (self.align(p, x) for p in (self.w, self.u, self.b))
        wu, ww = (w * u).sum(-1, keepdim=True), (w * w).sum(-1, keepdim=True)
        slope = F.softplus(wu + STANDING)
        u = u + (slope - 1 - wu) * w / ww.clamp_min(
            torch.finfo(ww.dtype).eps ** 2
        )  # by ‖w‖², or w · û is something else
        return w, u, b, slope


def _rise(t: Tensor, slope: Tensor) -> Tensor:
    """1 + (w · û)(1 − t²) as a sum of positive numbers, which loses no digits where the slope is nearly 0."""
    return t * t + slope * (1 - t * t)
