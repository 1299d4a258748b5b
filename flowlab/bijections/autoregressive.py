"""Autoregressive flows: every coordinate is moved as the coordinates before it say.

    z_i = h(x_i; θ_i(x_1, ..., x_{i−1}))        h a law, increasing in its first argument; θ_i any functions at all

∂z_i/∂x_j = 0 for j > i, so the Jacobian is triangular and log |det| = Σ log ∂h/∂x_i. From x to z one pass of a masked
network gives all θ at once. From z to x there is no such luck: x_i must be known before θ_{i+1} can be asked, which
takes D passes. Both are exact. Which of the two directions a model needs fast is the whole difference between MAF and
IAF.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from flowlab.bijections.base import Bijection, Inverse
from flowlab.bijections.laws import Law, ScaleAndShift, Spline
from flowlab.networks import MaskedMLP


class Autoregressive(Bijection):
    """z_i = h(x_i; θ_i(x_<i)), with log |det| = Σ log ∂h/∂x_i.

    ``forward`` is one pass of the network; ``inverse`` is D of them, one coordinate after another, and so is sampling.
    Shapes ``(..., D)`` and ``(...)``. Starts at the identity: θ is 0 before training.

    Args:
        features: D.
        law: h.
        hidden: widths of the hidden layers of the network.
        order: which coordinate comes first, which second, ...: a permutation of 0 to D − 1, as they stand if left out.
        random_degrees: draws the degrees of the network's hidden units instead of spreading them evenly.
        activation: of the network: "relu", "tanh", "silu" or "gelu".
        context_features: width of the context that all θ may see, 0 for none.
        stack: K for K layers side by side, of one order.
        generator: draws the starting weights.

    Raises:
        ValueError: when ``order`` does not name each coordinate once.
    """

    def __init__(
        self,
        features: int,
        law: Law,
        *,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | Tensor | None = None,
        random_degrees: bool = False,
        activation: str = "relu",
        context_features: int = 0,
        stack: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(features, stack)
        self.law = law
        self.conditioner = MaskedMLP(
            features,
            law.parameters_per_number,
            hidden=hidden,
            order=order,
            random_degrees=random_degrees,
            activation=activation,
            context_features=context_features,
            stack=stack,
            generator=generator,
        )
        self.context_features = context_features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        z, log_slope = self.law(x, self.theta(x, context))
        return z, log_slope.sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(z)
        x, place = torch.zeros_like(z), self.conditioner.place
        log_slope = x
        with self.conditioner.masked_once():
            for i in range(1, z.shape[-1] + 1):
                # Right up to place i, since x is right before it.
                moved, log_slope = self.law.inverse(z, self.theta(x, context))
                x = torch.where(place <= i, moved, 0.0)
        return x, log_slope.sum(-1)

    def theta(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """θ_i(x_<i) for all i at once, P numbers each: ``(..., D)`` to ``(..., P, D)``."""
        return self.conditioner(self.law.seen(x), context)

    def extra_repr(self) -> str:
        order = [] if self.conditioner.place.is_meta else self.conditioner.place.argsort().tolist()
        return f"order={order}" + ("" if self.stack is None else f", stack={self.stack}")


class MaskedAutoregressive(Autoregressive):
    """z_i = x_i · exp(s_i(x_<i)) + t_i(x_<i), with log |det| = Σ s (MAF, arXiv:1705.07057, eq. 4 and 5).

    An Autoregressive map by the law ScaleAndShift, with |s| at most ``log_scale_bound``; the other arguments, shapes
    and errors are those of Autoregressive. With the paper's letters, α = −s and μ = −t · exp(−s).

    >>> f = MaskedAutoregressive(3)
    >>> _ = torch.nn.init.normal_(f.conditioner.last.weight)  # any weights: z_i never sees what comes after x_i
    >>> J = torch.autograd.functional.jacobian(lambda x: f(x)[0], torch.ones(3))
    >>> torch.equal(J, J.tril()), torch.allclose(J.diagonal().log().sum(), f(torch.ones(3))[1])
    (True, True)
    """

    def __init__(
        self, features: int, hidden: Sequence[int] = (64, 64), *, log_scale_bound: float = 2.0, **settings: Any
    ) -> None:
        super().__init__(features, ScaleAndShift(log_scale_bound), hidden=hidden, **settings)


class SplineAutoregressive(Autoregressive):
    """z_i = a monotone rational-quadratic spline of x_i, its knots given by x_<i (arXiv:1906.04032, section 3.2).

    An Autoregressive map by the law Spline with K = ``bins`` pieces on [−B, B], B = ``bound``, ``guarded`` or not; the
    other arguments, shapes and errors are those of Autoregressive.
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (64, 64),
        *,
        bins: int = 8,
        bound: float = 4.0,
        guarded: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(features, Spline(bins, bound, guarded=guarded), hidden=hidden, **settings)


class InverseAutoregressive(Inverse):
    """x_i = z_i · exp(s_i(z_<i)) + t_i(z_<i): MAF with the arrow flipped (IAF, arXiv:1606.04934, eq. 8 to 10).

    ``inverse``, z → x, is one pass of the network, so samples are cheap, and so is the density *of these samples*,
    whose z is known. ``forward``, x → z, is D passes: the density of given data is slow, and so is training by maximum
    likelihood. Shapes, arguments and errors are those of MaskedAutoregressive. Starts at the identity.
    """

    def __init__(self, features: int, hidden: Sequence[int] = (64, 64), **settings: Any) -> None:
        super().__init__(MaskedAutoregressive(features, hidden, **settings))
