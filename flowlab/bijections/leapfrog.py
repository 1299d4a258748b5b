"""Hamiltonian flow by leapfrog steps: additive couplings of place and momentum whose shifts an energy gives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.bijections.base import Bijection, ShapeError

EnergyFunction = Callable[[Tensor], Tensor]


class Leapfrog(Bijection):
    """(x, v) → (x', v') after time steps · size of dx/dt = v, dv/dt = −∇U(x), with log |det| = 0.

    One step is v ← v − ½ size ∇U(x), x ← x + size v, v ← v − ½ size ∇U(x): three additive couplings, each of which
    keeps every volume, so that no Jacobian is needed (Neal, arXiv:1206.1901, section 2.3; a Hamiltonian flow as in
    arXiv:1505.05770, section 3.2). The inverse is the same steps backward, to rounding. The energy H = U(x) + ½ v² is
    kept up to an error of size².

    Takes ``(..., 2D)``, the D places and then the D momenta, to the same shape and ``(...)``. It has no parameters of
    its own.

    Args:
        features: 2D.
        energy: U, from ``(..., D)`` to ``(...)``; gradients must pass.
        steps: how many.
        size: of a step.

    Raises:
        ShapeError: for an odd number of features.
        ValueError: for fewer than one step, and for a size that is not positive.
    """

    def __init__(self, features: int, energy: EnergyFunction, *, steps: int = 1, size: float = 0.1) -> None:
        super().__init__(features)
        if features % 2:
            raise ShapeError(f"Leapfrog expected D places and D momenta, an even number, but got {features}.")
        if steps < 1 or not size > 0:
            raise ValueError(f"Leapfrog expected at least one step of a positive size, but got {steps} of {size}.")
        self.energy, self.steps, self.size = energy, steps, size

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(x, self.size)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(z, -self.size)

    def _run(self, points: Tensor, size: float) -> tuple[Tensor, Tensor]:
        self.check(points)
        x, v = points.chunk(2, -1)
        for _ in range(self.steps):
            v = v - size / 2 * gradient(self.energy, x)
            x = x + size * v
            v = v - size / 2 * gradient(self.energy, x)
        return torch.cat([x, v], -1), x.new_zeros(x.shape[:-1])

    def extra_repr(self) -> str:
        name = getattr(self.energy, "__qualname__", type(self.energy).__qualname__)  # no address in memory
        return f"{super().extra_repr()}, energy={name}, steps={self.steps}, size={self.size}"


def gradient(energy: EnergyFunction, x: Tensor) -> Tensor:
    """∇U(x), the slope of each sample's energy with respect to that sample: ``(..., D)`` to the same shape."""
    slope: Tensor = torch.func.grad(lambda at: energy(at).sum())(x)
    return slope
