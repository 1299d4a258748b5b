"""Radial flows pull all points toward one center, or push them away, and leave those far from it nearly alone."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from flowlab.bijections.base import Bijection


class Radial(Bijection):
    """z = x + β (x − c)/(α + r), with r = ‖x − c‖ and h = 1/(α + r) (Rezende and Mohamed, arXiv:1505.05770, eq. 14).

    log |det| = (D − 1) log(1 + βh) + log(1 + βh − βh²r): D − 1 directions across the radius, and one along it. With
    α > 0 the map is invertible where β > −α (appendix A.2), which α = exp(log_alpha) and β = α (exp(log_slope) − 1)
    always keep: exp(log_slope) is the slope at the center. The inverse is the root of a quadratic. Shapes ``(..., D)``
    and ``(...)``. Starts at the identity, with a random center.

    >>> f = Radial(2)
    >>> _ = f.center.data.fill_(0.0), f.log_slope.data.fill_(1.0)
    >>> z, log_det = f(torch.zeros(1, 2))
    >>> print(f"{log_det.item():.4f}")  # at the center the map is x → e x in both directions
    2.0000
    """

    def __init__(self, features: int, *, stack: int | None = None, generator: Generator | None = None) -> None:
        super().__init__(features, stack)
        lead = () if stack is None else (stack,)
        self.center = nn.Parameter(torch.randn(*lead, features, generator=generator))
        self.log_alpha = nn.Parameter(torch.zeros(*lead, 1))
        self.log_slope = nn.Parameter(torch.zeros(*lead, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        c, alpha, slope = self._ready(x)
        away = x - c
        r = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        across, log_det = self._stretch(r, alpha, slope)
        return c + away * across, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        c, alpha, slope = self._ready(z)
        away = z - c
        R = torch.linalg.vector_norm(away, dim=-1, keepdim=True)  # ‖z − c‖ = r (r + α slope)/(r + α), solved for r
        q = R - alpha * slope
        root = q.abs() + (q * q + 4 * alpha * R).sqrt()
        r = torch.where(q > 0, root / 2, 2 * alpha * R / root)  # of the two forms, the one that subtracts nothing
        across, log_det = self._stretch(r, alpha, slope)
        return c + away / across, -log_det

    def _ready(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The center, α, and the slope at the center, 1 + β/α, ready to meet x."""
        center, log_alpha, log_slope = (self.align(p, x) for p in (self.center, self.log_alpha, self.log_slope))
        return center, log_alpha.exp(), log_slope.exp()

    def _stretch(self, r: Tensor, alpha: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """1 + βh, the factor across the radius, and log |det|, at the distance r: both by sums of positive numbers."""
        near = alpha / (alpha + r)  # αh: 1 at the center, 0 far away
        far = r / (alpha + r)
        across = far + slope * near
        along = far * (1 + near) + slope * near * near
        assert self.event_shape is not None
        return across, ((self.event_shape[0] - 1) * across.log() + along.log()).squeeze(-1)
