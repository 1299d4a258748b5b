"""Linear maps: every output is a weighted sum of the inputs, and the Jacobian is the matrix itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from flowlab.bijections.base import Bijection, Channelwise


class FullAffine(Bijection):
    """z = A x + b with any invertible A: log |det| = log |det A|, at a cost of O(D³).

    Shapes ``(..., D)`` and ``(...)``. Starts at the identity. Takes what N(0, I) becomes under A x + b to N(b, A Aᵀ).
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        lead = () if stack is None else (stack,)
        self.matrix = nn.Parameter(torch.eye(features).repeat(*lead, 1, 1))  # (D, D) or (K, D, D)
        self.shift = nn.Parameter(torch.zeros(*lead, features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        A = self.align(self.matrix, x.unsqueeze(-1))
        z = (A @ x.unsqueeze(-1)).squeeze(-1) + self.align(self.shift, x)
        return z, self.batch_log_det(torch.linalg.slogdet(self.matrix).logabsdet, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        A = self.align(self.matrix, z.unsqueeze(-1))
        x = torch.linalg.solve(A, (z - self.align(self.shift, z)).unsqueeze(-1)).squeeze(-1)
        return x, self.batch_log_det(-torch.linalg.slogdet(self.matrix).logabsdet, z)


class LULinear(Bijection):
    """z = P L (U + diag(s)) x, with log |det| = Σ log |s| in O(D) (Glow, arXiv:1807.03039, eq. 10 and 11).

    P is a fixed random permutation, L has ones on its diagonal, U has zeros there, and the signs of s are fixed.
    Shapes ``(..., D)`` and ``(...)``. Starts at a random rotation, as in Glow; at the identity with ``rotate=False``.
    A stack shares one P.
    """

    def __init__(
        self, features: int, *, rotate: bool = True, stack: int | None = None, generator: Generator | None = None
    ) -> None:
        super().__init__(features, stack)
        start = torch.eye(features)
        if rotate:
            start = torch.linalg.qr(torch.randn(features, features, generator=generator)).Q
        P, L, U = torch.linalg.lu(start)
        s = U.diagonal()
        lead = () if stack is None else (stack,)
        self.register_buffer("permutation", P)
        self.register_buffer("sign", s.sign())
        self.lower = nn.Parameter(L.tril(-1).repeat(*lead, 1, 1))
        self.upper = nn.Parameter(U.triu(1).repeat(*lead, 1, 1))
        self.log_scale = nn.Parameter(s.abs().log().repeat(*lead, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        L, U = self._factors(x)
        z = (self.permutation @ (L @ (U @ x.unsqueeze(-1)))).squeeze(-1)
        return z, self.batch_log_det(self.log_scale.sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        L, U = self._factors(z)
        x = self.permutation.mT @ z.unsqueeze(-1)
        x = torch.linalg.solve_triangular(L, x, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(U, x, upper=True)
        return x.squeeze(-1), self.batch_log_det(-self.log_scale.sum(-1), z)

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """L, and U with s on its diagonal, both ``(D, D)``, or ``(K, 1, ..., D, D)`` in a stack."""
        L = self.lower.tril(-1) + torch.eye(self.lower.shape[-1], dtype=x.dtype, device=x.device)
        U = self.upper.triu(1) + torch.diag_embed(self.sign * self.log_scale.exp())
        column = x.unsqueeze(-1)
        return self.align(L, column), self.align(U, column)


class InvertibleConvolution(Channelwise):
    """z_hw = W x_hw at every pixel: a 1×1 convolution, log |det| = H · W · log |det W| (Glow, arXiv:1807.03039, eq. 9).

    Takes ``(..., C, H, W)`` to the same shape and ``(...)``. W is an LULinear, which makes the determinant a sum:
    Glow's generalized permutation of the channels. Starts at a random rotation, at the identity with ``rotate=False``.
    """

    def __init__(self, channels: int, **settings) -> None:
        super().__init__(LULinear(channels, **settings))


class Permutation(Bijection):
    """z_i = x_{order[i]}: a shuffle of the coordinates, with log |det| = 0.

    Shapes ``(..., D)`` and ``(...)``. The determinant is ±1. Has no weights, so a stack takes it too.

    Raises:
        ValueError: when ``order`` does not name each coordinate once.
    """

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        order = torch.as_tensor(order, dtype=torch.long)
        if sorted(order.tolist()) != list(range(len(order))):
            raise ValueError(f"Permutation expected each of 0 to {len(order) - 1} once, but got {order.tolist()}.")
        super().__init__(len(order))
        self.register_buffer("order", order)

    @classmethod
    def random(cls, features: int, generator: Generator | None = None) -> Permutation:
        """A shuffle drawn from ``generator``."""
        return cls(torch.randperm(features, generator=generator))

    @classmethod
    def reverse(cls, features: int) -> Permutation:
        """The last coordinate first: with two halves, the other half becomes the one that changes."""
        return cls(torch.arange(features).flip(0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        return x[..., self.order], x.new_zeros(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        return z[..., self.order.argsort()], z.new_zeros(z.shape[:-1])
