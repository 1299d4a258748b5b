"""Linear maps: every output is a weighted sum of the inputs, and the Jacobian is the matrix itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from flowlab.bijections.base import Bijection, Channelwise


def times(A: Tensor, x: Tensor) -> Tensor:
    """A x for each sample, as one product: ``(..., D)``, or for a stack, with A ``(K, D, D)``, ``(K, ..., D)``."""
    return _rows(lambda v: A @ v, x, None if A.ndim == 2 else len(A))


def _rows(linear: Callable[[Tensor], Tensor], x: Tensor, stack: int | None) -> Tensor:
    """A linear map of columns, ``(D, N)`` or ``(K, D, N)``, applied to all samples at once."""
    lead = () if stack is None else (stack,)
    columns = x.reshape(*lead, -1, x.shape[-1]).mT
    return linear(columns).mT.reshape(x.shape)


class FullAffine(Bijection):
    """z = A x + b with any invertible A: log |det| = log |det A|, at a cost of O(D³).

    Shapes ``(..., D)`` and ``(...)``. Starts at the identity. It takes N(0, I) to N(b, A Aᵀ).
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__(features, stack)
        lead = () if stack is None else (stack,)
        self.matrix = nn.Parameter(torch.eye(features).repeat(*lead, 1, 1))  # (D, D) or (K, D, D)
        self.shift = nn.Parameter(torch.zeros(*lead, features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z = times(self.matrix, x) + self.align(self.shift, x)
        return z, self.batch_log_det(torch.linalg.slogdet(self.matrix).logabsdet, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x = _rows(lambda v: torch.linalg.solve(self.matrix, v), z - self.align(self.shift, z), self.stack)
        return x, self.batch_log_det(-torch.linalg.slogdet(self.matrix).logabsdet, z)


class LULinear(Bijection):
    """z = P L (U + diag(s)) x, with log |det| = Σ log |s| in O(D) (Glow, arXiv:1807.03039, eq. 10 and 11).

    P is a fixed random permutation, L has ones on its diagonal, U has zeros there, and the signs of s are fixed.
    Shapes ``(..., D)`` and ``(...)``. Starts at a random rotation, as in Glow; at the identity with ``rotate=False``.
    A stack shares one P.
    """

    permutation: Tensor
    sign: Tensor

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
        L, U = self._factors()
        z = times(self.permutation @ L @ U, x)  # one product for all samples, and D × D ones for the matrix
        return z, self.batch_log_det(self.log_scale.sum(-1), x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        L, U = self._factors()

        def solve(v: Tensor) -> Tensor:  # (D, N), or (K, D, N)
            v = torch.linalg.solve_triangular(L, self.permutation.mT @ v, upper=False, unitriangular=True)
            return torch.linalg.solve_triangular(U, v, upper=True)

        return _rows(solve, z, self.stack), self.batch_log_det(-self.log_scale.sum(-1), z)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """L, and U with s on its diagonal, both ``(D, D)``, or ``(K, D, D)`` in a stack."""
        L = self.lower.tril(-1) + torch.eye(self.lower.shape[-1], dtype=self.lower.dtype, device=self.lower.device)
        U = self.upper.triu(1) + torch.diag_embed(self.sign * self.log_scale.exp())
        return L, U


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

    order: Tensor

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

    def extra_repr(self) -> str:
        return "order=" + ("?" if self.order.is_meta else str(self.order.tolist()))
