"""A flow for a table of numbers: it begins as a Gaussian with flexible margins, started from the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from flowlab.bijections import (
    Bijection,
    Bounded,
    Chain,
    GaussianizeMargins,
    SplineAutoregressive,
    SplineCoupling,
    Standardize,
    StandardizeContext,
    Whiten,
    alternating_mask,
    starting,
)
from flowlab.densities import Flow, StandardNormal
from flowlab.models.registry import recipe
from flowlab.tables import Table, as_rows, check_finite, check_order

SMALLEST = 1e-36  # range of a column: float32 has no smaller numbers in full precision
STARTING_ROWS = 10_000  # are enough to start from
# Fewest rows, and what so many can train: measured on scikit-learn's tables and on toys of 300 to 10,000 rows.
SIZES: tuple[tuple[int, dict[str, Any]], ...] = (
    (50_000, {"layers": 8, "hidden": (64, 64)}),
    (5_000, {"layers": 6, "hidden": (64,)}),
    (500, {"layers": 4, "hidden": (32,)}),
    (0, {"layers": 4, "hidden": (16,)}),
)


@recipe
def table_flow(
    features: int,
    layers: int = 4,
    *,
    hidden: Sequence[int] = (16,),
    bins: int = 8,
    activation: str = "tanh",
    bounds: Sequence[Sequence[float | None] | None] | None = None,
    context_features: int = 0,
    stack: int | None = None,
    generator: Generator | None = None,
) -> Flow:
    """z = spline couplings of a whitened x with Gaussianized margins: a Gaussian copula, and what it leaves over.

    Takes ``(..., D)``, and a context ``(..., C)`` beside it when built for one, of any location and scale. Margins and
    covariance start from the data, ahead of all training; the couplings start as the identity, so that few rows do not
    mislead them far. For one coordinate the splines see the context alone. ``bounds`` are the ends of each column, as
    ``Bounded`` takes them, None for none. ``flow_for`` chooses the sizes.

    Raises:
        ValueError: for another number of bounds than features.
    """
    if bounds is not None and len(bounds) != features:
        raise ValueError(f"table_flow expected bounds for each of {features} columns, but got {len(bounds)}.")
    own = {"stack": stack, "generator": generator}
    maps: list[Bijection] = [
        *([] if bounds is None else [Bounded(bounds)]),
        Standardize(features, stack=stack),
        GaussianizeMargins(features, stack=stack),
        Whiten(features, context_features=context_features, stack=stack),
    ]
    for i in range(layers):
        settings: dict[str, Any] = {"bins": bins, "activation": activation, "context_features": context_features, **own}
        if features == 1:
            maps.append(SplineAutoregressive(1, hidden, **settings))
        else:
            maps.append(SplineCoupling(alternating_mask(features, odd=i % 2 == 1), hidden, **settings))
    chain = Chain(maps)
    return Flow(StandardizeContext(chain) if context_features else chain, StandardNormal(features, stack=stack))


def flow_for(
    x: Any,
    context: Any = None,
    *,
    bounds: Mapping[str | int, tuple[float | None, float | None]] | None = None,
    generator: Generator | None = None,
) -> Flow:
    """A ``table_flow`` for the table x ``(N, D)``, of a size that N rows can train, started from these rows.

        flow = flowlab.flow_for(x)
        flowlab.fit(flow, x)

    Before ``fit`` it is a Gaussian copula: already a density of x. Takes what ``flowlab.tables`` takes. With a
    ``context`` ``(N, C)`` it is the density of x given the context: ``fit(flow, (x, context))``. ``bounds`` names the
    ends that a column cannot pass, ``{"share": (0, 1), "age": (0, None)}``: nothing is beyond them, and nothing on an
    end that is the only one.

    Raises:
        TypeError, ValueError: for what holds no table of at least two rows of finite numbers, for another number of
            contexts than rows, and for rows beyond the bounds.
    """
    rows, names = as_rows(x, "x")
    rows = rows.cpu()
    check_finite(Table(rows.float(), names), "x in torch.float32")
    check_order(x, context)
    contexts, context_names = (None, None) if context is None else as_rows(context, "the context")
    N, D = rows.shape
    if contexts is not None and len(contexts) != N:
        raise ValueError(f"flow_for expected a context for each of {N} rows, but got {len(contexts)}.")
    if N < 2:
        raise ValueError(f"flow_for expected at least two rows to start from, but got {N}: one row has no spread.")
    ends = None if bounds is None else _ends(bounds, rows.double(), names)
    width = rows.double().amax(0) - rows.double().amin(0)
    if bool((narrow := (width > 0) & (width < SMALLEST)).any()):
        column = int(narrow.nonzero()[0])
        raise ValueError(
            f"flow_for expected columns that vary by more than {SMALLEST:g}, which float32 can hold, but got "
            f"{float(width[column]):g} in column {names[column] if names else column!r}: multiply it by a power of ten."
        )
    C = 0 if contexts is None else contexts.shape[1]
    size = next(size for least, size in SIZES if least <= N)
    flow = table_flow(D, bounds=ends, context_features=C, generator=generator, **size)
    flow.columns, flow.context_columns = names, context_names
    some = slice(None, None, -(-N // STARTING_ROWS))
    with starting(flow), torch.no_grad():
        flow.log_prob(rows[some].double(), None if contexts is None else contexts[some].double())
    return flow.eval()


def _ends(
    bounds: Mapping[str | int, tuple[float | None, float | None]], rows: Tensor, names: tuple[str, ...] | None
) -> list[tuple[float | None, float | None] | None]:
    """The ends of each column, None for a column without; ValueError for other columns, and for rows beyond."""
    known: Sequence[str | int] = names or range(rows.shape[1])
    if unknown := [name for name in bounds if name not in known]:
        raise ValueError(f"flow_for expected bounds of columns among {list(known)}, but got {unknown[0]!r}.")
    ends = [bounds.get(name) for name in known]
    for name, (low, high), column in zip(known, Bounded(ends).ends, rows.T, strict=True):
        alone = low is None or high is None
        beyond = torch.zeros_like(column, dtype=torch.bool)
        if low is not None:
            beyond |= (column < low) | (alone & (column == low))
        if high is not None:
            beyond |= (column > high) | (alone & (column == high))
        if bool(beyond.any()):
            row = int(beyond.nonzero()[0])
            raise ValueError(
                f"flow_for expected column {name!r} within its bounds ({low}, {high}), but got {float(column[row]):g} "
                f"in row {row}: correct the bounds, or remove such rows."
            )
    return ends
