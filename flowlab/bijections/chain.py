"""Maps one after the other: z = f_L(... f_2(f_1(x))). Log-determinants add, and the inverse runs backward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import groupby
from typing import cast, overload

import torch
from torch import Tensor, nn

from flowlab.bijections.base import Bijection, NotStackable, ShapeError
from flowlab.bijections.coupling import Coupling, total
from flowlab.networks.hooks import watched


class Chain(Bijection):
    """z = f_L(... f_2(f_1(x))): log-determinants add, and the inverse runs backward.

    A chain is a sequence: ``len(chain)``, ``chain[2]``, and ``chain[:3]``, a chain that shares its maps.

    Raises:
        NotStackable: when stacks of different K are chained.
        ShapeError: when maps of vectors and of images are, whose log-determinants have other shapes and do not add; or
            maps of vectors of different lengths.
        ValueError: when maps of real and of whole numbers are.

    >>> from flowlab.bijections import PReLU
    >>> f = Chain([PReLU(1, slope=2.0), PReLU(1, slope=3.0)])
    >>> z, log_det = f(torch.tensor([-1.0]))  # −1 · 2 · 3, and log 2 + log 3
    >>> print(f"{z.item():.4f} {log_det.item():.4f}")
    -6.0000 1.7918
    """

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        maps = list(bijections)
        stacks = {b.stack for b in maps if b.stack is not None}
        shapes = [b.event_shape for b in maps if b.event_shape is not None]
        contexts = {b.context_features for b in maps} - {0}
        if len(stacks) > 1:
            raise NotStackable(f"Chain expected stacks of one size, but got {sorted(stacks)}.")
        if len({b.event_dim for b in maps}) > 1:
            raise ShapeError(
                "Chain expected maps of vectors or maps of images, but got both: Channelwise takes a map of vectors "
                "to the channels of images, AsImage one of images to vectors."
            )
        if len({b.domain for b in maps}) > 1:
            raise ValueError(
                "Chain expected maps of real numbers or maps of whole numbers, but got both: a whole number becomes a "
                "real one by noise, as in Dequantized."
            )
        if len(contexts) > 1:
            raise ShapeError(f"Chain expected maps that see one context, but got widths of {sorted(contexts)}.")
        _check_that_they_meet(maps)
        super().__init__(shapes[0] if shapes else None, stacks.pop() if stacks else None)
        self.bijections = nn.ModuleList(maps)
        self.event_dim = max((b.event_dim for b in maps), default=1)
        self.domain = maps[0].domain if maps else "real"
        self.context_features = max(contexts, default=0)
        self.context_dim = max((b.context_dim for b in maps if b.context_features), default=1)
        self.inverse_is_numeric = any(b.inverse_is_numeric for b in maps)
        # A map without parameters, such as a Logit, computes in the dtype that it is given.
        first = next((b for b in maps if any(True for _ in b.parameters())), None)
        self.centers_float64 = first is not None and first.centers_float64
        seeing = [b for b in maps if b.context_features]
        self.centers_context = bool(seeing) and all(b.centers_context for b in seeing)

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        shapes = [b.latent_shape for b in self if b.latent_shape is not None]
        return shapes[-1] if shapes else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(list(self), x, context, inverse=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(list(self)[::-1], z, context, inverse=True)

    def _run(self, maps: list[Bijection], x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        self.check(x)
        sum_of_log_dets = None
        for part, same in groupby(maps, key=_parts_that_alternate):
            for f in [list(same)] if part else [[f] for f in same]:
                if len(f) > 1:
                    x, log_det = _alternate(cast("list[Coupling]", f), x, context, inverse)
                else:
                    x, log_det = (f[0].inverse if inverse else f[0])(x, context)
                sum_of_log_dets = log_det if sum_of_log_dets is None else sum_of_log_dets + log_det
        return x, x.new_zeros(x.shape[: x.ndim - self.event_dim]) if sum_of_log_dets is None else sum_of_log_dets

    def __len__(self) -> int:
        return len(self.bijections)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(cast("Iterable[Bijection]", self.bijections))

    @overload
    def __getitem__(self, index: int) -> Bijection: ...
    @overload
    def __getitem__(self, index: slice) -> Chain: ...
    def __getitem__(self, index: int | slice) -> Bijection:
        if not isinstance(index, slice):
            return list(self)[index]
        part = Chain(list(self)[index])
        part.event_dim, part.domain = self.event_dim, self.domain  # of an empty part of a chain of images too
        return part


def _check_that_they_meet(maps: Sequence[Bijection]) -> None:
    """Raise ShapeError where a map gives another shape than the next one takes."""
    shape = None
    for f in maps:
        if None not in (shape, f.event_shape) and shape != f.event_shape:
            raise ShapeError(
                f"Chain expected maps that fit together, but got a {type(f).__name__} of {f.event_shape} where the "
                f"maps "
                f"before it give {shape}."
            )
        shape = f.latent_shape or shape


# --- couplings in a row -----------------------------------------------------------------------------------------------
# Couplings that move the same two parts in turn can split once and join once, which saves a tenth of a small training
# step. Nobody should notice, so it is not done where a hook waits for the result of a single coupling.


def _parts_that_alternate(f: Bijection) -> frozenset[tuple[int, ...]] | None:
    """The two parts of a plain coupling, by which neighbors can be fused with it; None for any other map."""
    if (
        not isinstance(f, Coupling)
        or type(f).forward is not Coupling.forward
        or type(f).inverse is not Coupling.inverse
    ):
        return None
    if "forward" in vars(f) or "inverse" in vars(f) or watched(f):
        return None
    return frozenset(f.parts)


def _alternate(
    couplings: Sequence[Coupling], x: Tensor, context: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor]:
    """z_b = h(x_b; θ(x_a)) for each of the couplings, and the sum of their log |det|."""
    first = couplings[0]
    first.check(x)
    a, b = first.split(x)
    parts, log_dets = first.parts, []
    for f in couplings:
        if f.parts != parts:
            parts, a, b = f.parts, b, a
        b, log_slope = (f.law.inverse if inverse else f.law)(b, f.theta(a, context))
        log_dets.append(total(log_slope))
    return couplings[-1].join(a, b), reduce(torch.add, log_dets)
