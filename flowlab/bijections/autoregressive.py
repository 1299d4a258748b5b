"""Autoregressive flows: every coordinate is scaled and shifted as the coordinates before it say.

    z_i = x_i · exp(s_i) + t_i        s_i, t_i = θ_i(x_1, ..., x_{i−1}), any functions at all

∂z_i/∂x_j = 0 for j > i, so the Jacobian is triangular and log |det| = Σ s. From x to z one pass of a masked network
gives all s and t at once. From z to x there is no such luck: x_i must be known before θ_{i+1} can be asked, which takes
D passes. Both are exact. Which of the two directions a model needs fast is the whole difference between MAF and IAF.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from flowlab.bijections.base import Bijection, Inverse
from flowlab.networks import MaskedMLP


class MaskedAutoregressive(Bijection):
    """z_i = x_i · exp(s_i(x_<i)) + t_i(x_<i), with log |det| = Σ s (MAF, arXiv:1705.07057, eq. 4 and 5).

    ``forward`` is one pass of the network; ``inverse`` is D of them, one coordinate after another, and so is sampling.
    With the paper's letters, α = −s and μ = −t · exp(−s). As in AffineCoupling, s = c tanh(·) with
    c = ``log_scale_bound``. Shapes ``(..., D)`` and ``(...)``. Starts at the identity.

    Args:
        features: D.
        hidden: widths of the hidden layers of the network.
        order: which coordinate comes first, which second, ...: a permutation of 0 to D − 1, as they stand if left out.
        random_degrees: draws the degrees of the network's hidden units instead of spreading them evenly.
        activation: of the network: "relu", "tanh", "silu" or "gelu".
        context_features: width of the context that all s and t may see, 0 for none.
        log_scale_bound: c, the largest |s|.
        stack: K for K layers side by side, of one order.
        generator: draws the starting weights.

    Raises:
        ValueError: when ``order`` does not name each coordinate once.
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (64, 64),
        *,
        order: Sequence[int] | Tensor | None = None,
        random_degrees: bool = False,
        activation: str = "relu",
        context_features: int = 0,
        log_scale_bound: float = 2.0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(features, stack)
        self.conditioner = MaskedMLP(
            features,
            2,
            hidden=hidden,
            order=order,
            random_degrees=random_degrees,
            activation=activation,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )
        self.register_buffer("log_scale_bound", torch.tensor(float(log_scale_bound)), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        s, t = self._scale_and_shift(x, context)
        return x * s.exp() + t, s.sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x, place = torch.zeros_like(z), self.conditioner.place
        with self.conditioner.masked_once():
            for i in range(1, z.shape[-1] + 1):
                s, t = self._scale_and_shift(x, context)  # right up to place i, since x is right before it
                x = torch.where(place <= i, (z - t) * (-s).exp(), 0.0)
        return x, -s.sum(-1)

    def _scale_and_shift(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        s, t = self.conditioner(x, context).unbind(-2)
        return self.log_scale_bound * torch.tanh(s), t


class InverseAutoregressive(Inverse):
    """x_i = z_i · exp(s_i(z_<i)) + t_i(z_<i): MAF with the arrow flipped (IAF, arXiv:1606.04934, eq. 8 to 10).

    ``inverse``, z → x, is one pass of the network, so samples are cheap, and so is the density *of these samples*,
    whose z is known. ``forward``, x → z, is D passes: the density of given data is slow, and so is training by maximum
    likelihood. Shapes, arguments and errors are those of MaskedAutoregressive. Starts at the identity.
    """

    def __init__(self, features: int, hidden: Sequence[int] = (64, 64), **settings) -> None:
        super().__init__(MaskedAutoregressive(features, hidden, **settings))
