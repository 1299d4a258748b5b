"""Networks with connections cut, so that output i sees only the inputs before it (MADE, arXiv:1502.03509)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import cast

import torch
from torch import Generator, Tensor

from flowlab.networks.mlp import MLP, Linear


class MaskedLinear(Linear):
    """y = x (M ⊙ W) + b: a layer with some of its connections cut, by a mask M ``(in, out)`` of zeros and ones."""

    mask: Tensor

    def __init__(self, in_features: int, out_features: int, **settings) -> None:
        super().__init__(in_features, out_features, **settings)
        self.register_buffer("mask", torch.ones(in_features, out_features), persistent=False)
        self.masked: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.mask * self.weight if self.masked is None else self.masked
        if self.stack is None:
            return torch.addmm(self.bias, x, weight)
        return torch.baddbmm(self.bias.unsqueeze(1), x, weight)


class MaskedMLP(MLP):
    """An MLP whose output i sees only the inputs that come before input i (MADE, arXiv:1502.03509, section 4).

    Input i has a degree, its place 1 to D in the order, and each hidden unit has one too. A connection is kept when it
    does not lower the degree, and into output i only when it raises it. So whatever reaches output i began at a lower
    degree: one pass computes all D functions θ_i(x_<i) at once.

    ``(..., D)``, and a context ``(..., C)`` that every output may see, to ``(..., P, D)``: P numbers for each input.
    They start at zero.

    Args:
        features: D.
        outputs_per_feature: P.
        order: a permutation of 0 to D − 1: which input comes first, which second, ...; as they stand when left out.
        random_degrees: draws the degrees of hidden units from ``generator`` instead of spreading them evenly.

    Raises:
        ValueError: when ``order`` does not name each input once; and all that MLP raises.
    """

    linear = MaskedLinear
    last: MaskedLinear
    degrees: Tensor

    def __init__(
        self,
        features: int,
        outputs_per_feature: int = 1,
        *,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | Tensor | None = None,
        random_degrees: bool = False,
        generator: Generator | None = None,
        **settings,
    ) -> None:
        super().__init__(features, outputs_per_feature * features, hidden=hidden, generator=generator, **settings)
        order = torch.arange(features) if order is None else torch.as_tensor(order, dtype=torch.long)
        if sorted(order.tolist()) != list(range(features)):
            raise ValueError(f"MaskedMLP expected an order of 0 to {features - 1}, but got {order.tolist()}.")
        self.shape = (outputs_per_feature, features)
        degrees = [order.argsort() + 1, torch.zeros(self.context_features, dtype=torch.long)]
        # Degree 0 sees no input: good for nothing, unless there is a context to see.
        low = 0 if self.context_features or features == 1 else 1
        for width in hidden:
            if random_degrees:
                degrees.append(torch.randint(low, features, (width,), generator=generator))
                low = int(degrees[-1].min())  # below it a unit of the next layer would see nothing
            else:  # the highest degree is always among them, so that every input but the last is seen
                degrees.append(features - 1 - torch.arange(width).flip(0) * (features - low) // width)
        self.register_buffer("degrees", torch.cat(degrees))
        self._cut()
        self.register_load_state_dict_post_hook(type(self)._cut)  # the weights bring their degrees along

    @property
    def layers(self) -> list[MaskedLinear]:
        """The hidden layers and the last one."""
        return [*cast("Iterable[MaskedLinear]", self.hidden), self.last]

    @property
    def place(self) -> Tensor:
        """The place of each input in the order, 1 to D: ``(D,)``."""
        return self.degrees[: self.shape[1]]

    def _cut(self, *_: object) -> None:
        """Set the masks: ≤ between hidden layers, < into the outputs."""
        degrees = self.degrees.split([len(layer.mask) for layer in self.layers])
        for layer, (before, after) in zip(self.layers[:-1], pairwise(degrees), strict=True):
            layer.mask.copy_(before.unsqueeze(-1) <= after)
        self.last.mask.copy_(degrees[-1].unsqueeze(-1) < self.place.repeat(self.shape[0]))

    def extra_repr(self) -> str:
        order = [] if self.place.is_meta else self.place.argsort().tolist()
        return f"order={order}, {super().extra_repr()}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x, context).unflatten(-1, self.shape)

    @contextmanager
    def masked_once(self) -> Iterator[None]:
        """A block for many passes with the same weights: masks are applied once, since that costs more than a pass.

        No other thread may train the network meanwhile: it would find these weights, and its gradients would be lost.
        """
        try:
            for layer in self.layers:
                layer.masked = layer.mask * layer.weight
            yield
        finally:
            for layer in self.layers:
                layer.masked = None
