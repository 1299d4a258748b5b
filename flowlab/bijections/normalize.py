"""Normalization layers: keep what flows through a deep chain at mean 0 and standard deviation 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowlab.bijections.base import Bijection


def _batch(x: Tensor, stack: int | None, who: str) -> Tensor:
    """All samples of a batch in one axis, ``(N, D)`` or ``(K, N, D)``; refuse a batch of one, which has no spread."""
    lead = () if stack is None else (stack,)
    rows = x.reshape(*lead, -1, x.shape[-1])
    if rows.shape[-2] < 2:
        raise ValueError(f"{who} needs at least two samples to measure a spread, but got {rows.shape[-2]}.")
    return rows


class ActNorm(Bijection):
    """z = x · exp(log_scale) + shift, started so that the first batch comes out with mean 0 and deviation 1.

    log |det| = Σ log_scale (Glow, arXiv:1807.03039, section 3.1). Shapes ``(..., D)`` and ``(...)``. The first forward
    in training mode sets the parameters from its batch, once; until then the map is the identity. After that it is an
    ordinary trained layer: no sample depends on another, which is what batch normalization cannot say.

    Raises:
        ValueError: when that first batch holds fewer than two samples.
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        lead = () if stack is None else (stack,)
        self.log_scale = nn.Parameter(torch.zeros(*lead, features))
        self.shift = nn.Parameter(torch.zeros(*lead, features))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        if self.training and not self.initialized:
            self._initialize(x)
        z = x * self.align(self.log_scale, x).exp() + self.align(self.shift, x)
        return z, self.batch_log_det(self.log_scale.sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x = (z - self.align(self.shift, z)) * (-self.align(self.log_scale, z)).exp()
        return x, self.batch_log_det(-self.log_scale.sum(-1), z)

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        rows = _batch(x, self.stack, "ActNorm's first batch")
        std = rows.std(-2, correction=0)
        log_scale = -torch.where(std > 0, std, 1.0).log()  # a coordinate that never varies keeps its scale
        self.log_scale.copy_(log_scale)
        self.shift.copy_(-rows.mean(-2) * log_scale.exp())
        self.initialized.fill_(True)


class BatchNorm(Bijection):
    """z = (x − μ) / √(σ² + ε), with log |det| = −½ Σ log(σ² + ε) (RealNVP, arXiv:1605.08803, appendix E).

    In training μ and σ² are the batch's own, in evaluation their running averages. With batch statistics the map of a
    whole batch is not injective (shift every sample alike and nothing changes), so the log-determinant is that of
    the map *with the statistics held fixed*. ``inverse`` uses the same: in training the statistics that were last
    applied, in evaluation the running averages, so that samples belong to the density.
    Shapes ``(..., D)`` and ``(...)``.

    Raises:
        ValueError: when a training batch holds fewer than two samples.
    """

    def __init__(
        self, features: int, *, momentum: float = 0.1, epsilon: float = 1e-5, stack: int | None = None
    ) -> None:
        super().__init__(features, stack)
        lead = () if stack is None else (stack,)
        self.momentum, self.epsilon = momentum, epsilon
        for name, start in (("running_mean", 0.0), ("running_variance", 1.0), ("mean", 0.0), ("variance", 1.0)):
            self.register_buffer(name, torch.full((*lead, features), start))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        if self.training:
            rows = _batch(x, self.stack, "BatchNorm in training")
            mean, variance = rows.mean(-2), rows.var(-2, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_variance.lerp_(variance, self.momentum)
                self.mean.copy_(mean)
                self.variance.copy_(variance)
        else:
            mean, variance = self.running_mean, self.running_variance
        log_std = 0.5 * (variance + self.epsilon).log()
        z = (x - self.align(mean, x)) * (-self.align(log_std, x)).exp()
        return z, self.batch_log_det(-log_std.sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        mean, variance = self.running_mean, self.running_variance
        if self.training:
            mean, variance = self.mean, self.variance
        log_std = 0.5 * (variance + self.epsilon).log()
        x = z * self.align(log_std, z).exp() + self.align(mean, z)
        return x, self.batch_log_det(log_std.sum(-1), z)
