"""A small map of each kind that the package has none of, so that each battery has something to test."""

import math

import torch
from torch import Generator, Tensor, nn

from flowlab.bijections import Bijection, ShapeError


def _lead(stack: int | None) -> tuple[int, ...]:
    return () if stack is None else (stack,)


class ModularShift(Bijection):
    """Whole numbers: z_i = v_i + t_i + Σ_j<i W_ij v_j modulo ``levels``, a permutation of all v in 0 to levels − 1."""

    domain = "whole"

    def __init__(self, features: int, levels: int, *, generator: Generator | None = None) -> None:
        super().__init__(features)
        self.levels = levels
        self.register_buffer("weight", torch.randint(levels, (features, features), generator=generator).tril(-1))
        self.register_buffer("shift", torch.randint(levels, (features,), generator=generator))

    def check(self, x: Tensor) -> None:
        if x.is_floating_point():
            raise TypeError(f"ModularShift expected whole numbers, but got {x.dtype}: use x.long().")
        if x.shape[-1:] != self.event_shape:
            raise ShapeError(f"ModularShift expected shape (..., {self.event_shape[0]}), but got {tuple(x.shape)}.")

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z = (x + self.shift + (self.weight * x.unsqueeze(-2)).sum(-1)) % self.levels
        return z, torch.zeros(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x = torch.zeros_like(z)
        for _ in range(z.shape[-1]):  # each pass makes one more coordinate right
            x = (z - self.shift - (self.weight * x.unsqueeze(-2)).sum(-1)) % self.levels
        return x, torch.zeros(z.shape[:-1])


class Projective(Bijection):
    """A sphere's points, moved by a matrix and put back: z = A x / |A x|, log |det| = log |det A| − n log |A x|.

    The uniform density becomes the angular central Gaussian (Tyler, Biometrika 1987, eq. 1).
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        self.matrix = nn.Parameter(torch.eye(features).repeat(*_lead(stack), 1, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_matrix(self.matrix, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_matrix(torch.linalg.inv(self.matrix), z)

    def _apply_matrix(self, A: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        self.check(x)
        y = (self.align(A, x.unsqueeze(-1)) @ x.unsqueeze(-1)).squeeze(-1)
        r = y.norm(dim=-1)
        log_det = self.batch_log_det(torch.linalg.slogdet(A).logabsdet, x) - x.shape[-1] * r.log()
        return y / r.unsqueeze(-1), log_det


class TorusShear(Bijection):
    """Angles: z_0 = x_0 + b_0, and z_i = x_i + b_i + a_i sin x_0, all modulo 2π, with log |det| = 0."""

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        self.amplitude = nn.Parameter(torch.zeros(*_lead(stack), features))
        self.shift = nn.Parameter(torch.zeros(*_lead(stack), features))
        self.register_buffer("moves", torch.arange(features) > 0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z = x + self._by(x[..., :1], x)
        return torch.remainder(z, 2 * math.pi), x.new_zeros(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x_0 = z[..., :1] - self.align(self.shift, z)[..., :1]
        return torch.remainder(z - self._by(x_0, z), 2 * math.pi), z.new_zeros(z.shape[:-1])

    def _by(self, x_0: Tensor, x: Tensor) -> Tensor:
        return self.align(self.shift, x) + self.moves * self.align(self.amplitude, x) * torch.sin(x_0)


class OneWay(Bijection):
    """z = x + u tanh(w · x + b), kept invertible by w · u > −1, but with no inverse to compute.

    log |det| = log |1 + (u · w) (1 − tanh²)| (Rezende and Mohamed, arXiv:1505.05770, eq. 10 to 12).
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        for name in ("u", "w"):
            self.register_parameter(name, nn.Parameter(torch.zeros(*_lead(stack), features)))
        self.b = nn.Parameter(torch.zeros(*_lead(stack), 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        w, b, u = (self.align(p, x) for p in (self.w, self.b, self.u))
        along = (w * u).sum(-1, keepdim=True)
        u = u + (torch.nn.functional.softplus(along) - 1 - along) * w / (w * w).sum(-1, keepdim=True).clamp_min(1e-6)
        t = torch.tanh((w * x).sum(-1, keepdim=True) + b)
        return x + u * t, (1 + (w * u).sum(-1) * (1 - t.squeeze(-1) ** 2)).log()


class NoisyLinear(Bijection):
    """z = e^A x. Of log |det| = tr A it gives a draw, ε · A ε with ε ~ N(0, I) (Hutchinson; FFJORD, eq. 7)."""

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        self.A = nn.Parameter(torch.zeros(*_lead(stack), features, features))

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._flow(1, x, generator)

    def inverse(
        self, z: Tensor, context: Tensor | None = None, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._flow(-1, z, generator)

    def _flow(self, time: int, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        self.check(x)
        A = time * self.align(self.A, x.unsqueeze(-1))
        e = torch.randn(x.shape, generator=generator, dtype=x.dtype).unsqueeze(-1)
        return (torch.linalg.matrix_exp(A) @ x.unsqueeze(-1)).squeeze(-1), (e * (A @ e)).sum((-2, -1))
