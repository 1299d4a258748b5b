"""What every density promises."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


class Base(nn.Module):
    """A density over vectors: ``log_prob`` of ``(..., D)`` is ``(...)``, in nats; ``sample(n)`` is ``(n, D)``.

    With ``stack=K`` a sample is ``(K, n, D)``, one batch for each flow of the stack.
    """

    def __init__(self, features: int, *, stack: int | None = None) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"{type(self).__name__} needs at least one dimension, but was given {features}.")
        self.features, self.stack = features, stack
        # Carries dtype and device, and is no part of a checkpoint.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        raise NotImplementedError

    def forward(self, z: Tensor) -> Tensor:
        return self.log_prob(z)

    def check(self, z: Tensor) -> None:
        """Raise ValueError, in a sentence, unless the last axis of ``z`` is one sample, and the first one the stack."""
        lead = "" if self.stack is None else f"{self.stack}, "
        if z.shape[-1:] != (self.features,) or (self.stack is not None and (z.ndim < 2 or z.shape[0] != self.stack)):
            raise ValueError(
                f"{type(self).__name__} expected shape ({lead}..., {self.features}), but got {tuple(z.shape)}."
            )

    def _shape(self, n: int) -> tuple[int, ...]:
        if n < 1:
            raise ValueError(f"sample expected a count of at least 1, but got {n}.")
        return (n, self.features) if self.stack is None else (self.stack, n, self.features)

    def _uniform(self, n: int, generator: Generator | None) -> Tensor:
        return torch.rand(self._shape(n), generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)

    def _normal(self, n: int, generator: Generator | None) -> Tensor:
        return torch.randn(self._shape(n), generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)
