"""Masks and what they let depend on what, couplings with random networks, and a bug museum of couplings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from flowlab.bijections import AdditiveCoupling, AffineCoupling, Bijection, Chain, alternating_mask
from flowlab.densities import Flow, StandardNormal
from flowlab.networks import MLP
from flowlab.plotting.plane import jacobians


def _one_first(features: int) -> Tensor:
    """Passes all coordinates but the last."""
    return torch.arange(features) < features - 1


# How the layers of a flow split the coordinates: (features, layer) to a mask, True where it passes unchanged.
PATTERNS: dict[str, Callable[[int, int], Tensor]] = {
    "even and odd in turn": lambda D, layer: alternating_mask(D, odd=layer % 2 == 1),
    "the same half each time": lambda D, layer: torch.arange(D) < D // 2,
    "move one, then the rest": lambda D, layer: _one_first(D) ^ (layer % 2 == 1),
    "first and second half in turn": lambda D, layer: (torch.arange(D) < D // 2) ^ (layer % 2 == 1),
}


def masks(pattern: str, features: int, layers: int) -> list[Tensor]:
    """The masks of a flow, one for each layer, each bool ``(D,)``: a pattern named in ``PATTERNS``."""
    return [PATTERNS[pattern](features, layer) for layer in range(layers)]


def dependencies(masks: Sequence[Tensor]) -> Tensor:
    """Which output may depend on which input, after 0, 1, … L coupling layers: bool ``(L + 1, D, D)``.

    Entry [l, i, j] says that z_i after l layers may depend on x_j. A moved coordinate takes over all that the passing
    ones depend on and keeps what it depends on itself: a product of boolean matrices.
    """
    depends = [torch.eye(len(masks[0]), dtype=torch.bool)]
    for mask in masks:
        inherited = depends[-1][mask].any(0)  # (D,): whatever a passing coordinate depends on
        depends.append(depends[-1] | (~mask[:, None] & inherited))
    return torch.stack(depends)


def random_couplings(
    masks: Sequence[Tensor],
    *,
    strength: float = 1.0,
    seed: int = 0,
    hidden: Sequence[int] = (16,),
    activation: str = "tanh",
) -> Chain:
    """Additive couplings with random conditioners m, each with |m| up to ``strength`` where most points are.

    The same seed gives the same m at every strength, but for the factor.
    """
    generator = Generator().manual_seed(seed)
    layers = []
    for mask in masks:
        layer = AdditiveCoupling(mask, hidden, activation=activation, generator=generator).requires_grad_(False)
        m, last = layer.conditioner, layer.conditioner.last
        last.weight.normal_(generator=generator)
        probe = m(2 * torch.randn(256, int(mask.sum()), generator=generator))
        middle, reach = probe.mean(0), (probe - probe.mean(0)).abs().amax(0).clamp_min(1e-6)
        last.weight.mul_(strength / reach)
        last.bias.copy_(-middle * strength / reach)
        layers.append(layer)
    return Chain(layers)


def jacobian(bijection: Bijection, x: Tensor) -> Tensor:
    """∂f/∂x at one point, by autograd: ``(D,)`` to ``(D, D)``, row i the gradient of z_i."""
    return jacobians(lambda x: bijection(x)[0], x)


SCALINGS = {
    "off": (1.0, 1.0),
    "S = diag(2, 1)": (2.0, 1.0),
    "S = diag(3/2, 2/3)": (1.5, 2 / 3),
    "S = diag(0.8, 0.8)": (0.8, 0.8),
}


class BothSubtract(AdditiveCoupling):
    """An exhibit of the bug museum, with a real mistake in it: its ``forward`` subtracts m, and so does ``inverse``."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().inverse(x, context)


class SummedOverAll(AffineCoupling):
    """An exhibit of the bug museum, with a real mistake in it: s comes for all D coordinates, log_det sums all.

    The coordinates that pass unchanged have an s too, which scales nothing. Both directions agree on the wrong number.
    """

    def __init__(self, mask: Any, hidden: tuple[int, ...] = (32,), *, generator: Generator | None = None) -> None:
        super().__init__(mask, hidden, generator=generator)
        passes = self.sizes[0]
        self.conditioner = MLP(passes, 2 * len(self.order), hidden=hidden, generator=generator)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_a, x_b = self.split(x)
        s, t, log_det = self._scales(x_a)
        return self.join(x_a, x_b * s.exp() + t), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_b = self.split(z)
        s, t, log_det = self._scales(z_a)
        return self.join(z_a, (z_b - t) * (-s).exp()), -log_det

    def _scales(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, t = self.conditioner(a).chunk(2, dim=-1)  # (..., D) each, and only the last D_b are used
        s = self.law.log_scale_bound * torch.tanh(s)
        return s[..., self.sizes[0] :], t[..., self.sizes[0] :], s.sum(-1)


def too_good(layers: int = 4) -> Flow:
    """A flow from the bug museum, made of layers with a real mistake: train it, and it beats the truth."""
    generator = Generator().manual_seed(0)
    masks = [alternating_mask(2, odd=i % 2 == 1) for i in range(layers)]
    return Flow(Chain([SummedOverAll(mask, generator=generator) for mask in masks]), StandardNormal(2))


def museum(features: int = 4, seed: int = 0) -> dict[str, Bijection]:
    """Four coupling layers with random weights, named A to D: the bug museum of the last exercise. Two are sound."""
    generator = Generator().manual_seed(seed)
    exhibits = {}
    for name, kind in zip("ABCD", (AffineCoupling, BothSubtract, AdditiveCoupling, SummedOverAll), strict=True):
        layer = kind(alternating_mask(features, odd=seed % 2 == 1), (16,), generator=generator).requires_grad_(False)
        layer.conditioner.last.weight.normal_(0, 0.5, generator=generator)
        exhibits[name] = layer
    return exhibits
