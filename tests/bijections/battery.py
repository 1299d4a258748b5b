"""What the batteries share: a case, points, Jacobians by autograd, and how close is close."""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from bijections.surfaces import Surface
from bijections.table import TABLE, VECTORS, Row
from flowlab.bijections import Bijection, numeric

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# The last axis is as long as the stack: parameters that meet the wrong axis give wrong numbers, not errors of shape.
STACKS, BATCHES, DTYPES = (None, 3), ((), (7,), (4, 3)), (torch.float32, torch.float64)


# The kinds of rows that a check is for.
THERE_AND_BACK = ("real", "manifold")
SMOOTH = (*THERE_AND_BACK, "one way")
ALL_BUT_NOISY = (*SMOOTH, "whole")
ALL = (*ALL_BUT_NOISY, "noisy")


@dataclass(frozen=True)
class Case:
    """One draw: which event shape of the row, stacked or not, batch shape, dtype, and the seed of all numbers."""

    event: int = 1
    stack: int | None = None
    batch: tuple[int, ...] = (7,)
    dtype: torch.dtype = torch.float64
    seed: int = 0


# Every pair of an event shape, a stack, a batch and a dtype is visited. Hypothesis then draws more combinations.
SWEEP = [
    Case(i, STACKS[(i + j) % 2], batch, DTYPES[(i + (j > 0)) % 2], seed=len(BATCHES) * i + j)
    for i in range(len(VECTORS))
    for j, batch in enumerate(BATCHES)
] + [Case(stack=stack, batch=(0,)) for stack in STACKS]
DRAWS = st.builds(
    Case,
    event=st.integers(0, len(VECTORS) - 1),
    stack=st.none() | st.integers(1, 4),
    batch=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
)


def rows(*kinds: str) -> list[str]:
    """The names of the table's rows of these kinds."""
    return [name for name, row in TABLE.items() if row.kind in kinds]


def sweep(row: Row) -> list[Case]:
    """The cases that visit every pair for a row: for one of few event shapes, the later ones would only repeat them."""
    shapes = max(len(row.events), 2)  # fewer would not visit every pair of the others
    return [case for case in SWEEP if case.event < shapes]


# Two event shapes with every pair of the rest: a first look.
FIRST = [case for case in SWEEP if case.event in (1, 2)]


def battery(*kinds: str) -> Callable[[Callable], Callable]:
    """Run ``check(name, case)`` for every row of these kinds: few cases; as slow, the rest of its sweep, and draws."""

    def every(check: Callable) -> Callable:
        drawn = given(case=DRAWS)(check)

        def test(name: str, cases: str) -> None:
            for case in FIRST if cases == "few" else [c for c in sweep(TABLE[name]) if c not in FIRST]:
                check(name, case)
            if cases == "rest":
                drawn(name)

        test.__name__, test.__doc__, test.every_case = check.__name__, check.__doc__, check
        test = pytest.mark.parametrize("name", rows(*kinds))(test)
        return pytest.mark.parametrize("cases", ("few", pytest.param("rest", marks=pytest.mark.slow)))(test)

    return every


def draw(name: str, case: Case) -> tuple[Bijection, Tensor, Tensor | None]:
    """A bijection with random parameters, points, and a context or None, of the dtype of the case."""
    bijection, x, context = copy.deepcopy(_made(TABLE[name], case))
    x = x.to(case.dtype) if x.is_floating_point() else x
    return bijection.to(case.dtype), x, None if context is None else context.to(case.dtype)


@cache
def _made(row: Row, case: Case) -> tuple[Bijection, Tensor, Tensor | None]:
    """What ``draw`` copies, in float64: a map takes longer to build and to start than to copy, and each check asks."""
    event = row.events[case.event % len(row.events)]
    generator = Generator().manual_seed(case.seed)
    bijection = row.make(event, case.stack, generator)
    return bijection, *row.points(event, case.stack, case.batch, generator)


def directions(row: Row, f: Bijection, x: Tensor, context: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """ "forward" and where it is asked, then, unless the row goes one way, "inverse" and where that is asked."""
    yield "forward", x
    if row.kind != "one way":
        with torch.no_grad():
            z = f(x, context)[0]
        yield "inverse", z


def in_float64(bijection: Bijection, context: Tensor | None) -> tuple[Bijection, Tensor | None]:
    """The same map, its rounded weights included, in the arithmetic of the reference."""
    return copy.deepcopy(bijection).double(), None if context is None else context.double()


def jacobian(function: Callable, x: Tensor, event_dim: int, surface: Surface | None = None) -> Tensor:
    """∂f/∂x by autograd, ``(*batch, n, n)`` with events flattened; samples do not depend on each other.

    On a surface the Jacobian is between the tangent spaces at x and at f(x), in orthonormal bases of them.
    """
    x = x.detach().requires_grad_()
    batch = x.shape[: x.ndim - event_dim]
    value = function(x)[0]
    z = value.flatten(len(batch)) if batch else value.flatten()
    columns = [torch.autograd.grad(z[..., i].sum(), x, retain_graph=True)[0] for i in range(z.shape[-1])]
    J = torch.stack(columns, dim=len(batch)).reshape(*batch, len(columns), len(columns))
    return J if surface is None else surface.tangent(value.detach()).mT @ J @ surface.tangent(x.detach())


def strain(f: Bijection, x: Tensor, context: Tensor | None, surface: Surface | None = None) -> Tensor:
    """How much condition numbers above 100, of map and log-det, excuse in float32, ``(*batch)``; in float64 nothing."""
    if x.dtype != torch.float32:
        return torch.ones(x.shape[: x.ndim - f.event_dim])
    exact, wide = in_float64(f, context)
    x = x.double().requires_grad_()
    J = jacobian(lambda x: exact(x, wide), x, f.event_dim, surface)
    z, log_det = exact(x, wide)
    by_x = torch.autograd.grad(log_det.sum() + 0 * x.sum(), x)[0].flatten(J.ndim - 2)  # how steep the log-det is
    x, z = x.detach().flatten(J.ndim - 2), z.detach().flatten(J.ndim - 2)
    if surface is not None:  # along the surface, where every point is at a distance of about 1
        by_x = (surface.tangent(x).mT @ by_x.unsqueeze(-1)).squeeze(-1)
        x = z = torch.ones_like(by_x)
    by_z = torch.linalg.solve(J.mT, by_x.unsqueeze(-1)).squeeze(-1)
    steep = [(by * (1 + at.abs())).abs().sum(-1) for by, at in ((by_x, x), (by_z, z))]
    return (torch.stack((torch.linalg.cond(J), *steep)).amax(0).detach() / 100).clamp_min(1)


def per_sample(scale: Tensor, f: Bijection) -> Tensor:
    return scale.reshape(*scale.shape, *[1] * f.event_dim)


def assert_close(
    value: Tensor,
    expected: Tensor,
    dtype: torch.dtype,
    scale: Tensor | float = 1.0,
    surface: Surface | None = None,
) -> None:
    """Within the tolerance of the dtype, relative above 1, times ``scale``; on a surface as it measures distances."""
    assert value.shape == expected.shape
    value, expected = value.double(), expected.double()
    difference = value - expected if surface is None else surface.difference(value, expected)
    error = difference.abs() / (1 + expected.abs())
    worst = (error / scale).max().item() if error.numel() else 0.0
    assert worst <= TOLERANCE[dtype], f"off by {worst:.2g}, more than {TOLERANCE[dtype]:.0e}"


def midpoints(low: float, high: float, points: int) -> tuple[Tensor, Tensor]:
    """Middles and widths of cells; 0 is an edge between two of them, since the density of a PReLU jumps there."""
    ends = (low, 0.0, high) if low < 0 < high else (low, high)
    each = points // (len(ends) - 1)
    edges = [torch.linspace(a, b, each + 1, dtype=torch.float64) for a, b in pairwise(ends)]
    return torch.cat([(e[1:] + e[:-1]) / 2 for e in edges]), torch.cat([e.diff() for e in edges])


@contextmanager
def iterations() -> Iterator[list[str]]:
    """The names of the solvers of numeric.py that are called inside the block, wherever they are called from."""
    found: list[str] = []

    def look(frame, event, _):
        if event == "call" and frame.f_code.co_filename == numeric.__file__:
            found.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(before)


# --- for tests of single maps -----------------------------------------------------------------------------------------


def randomized(f: Bijection, spread: float = 1.0) -> Bijection:
    generator = Generator().manual_seed(8)
    for p in f.parameters():
        p.data = spread * torch.randn(p.shape, generator=generator)
    return f


def moved(f: Bijection) -> Bijection:
    """Away from the identity, and in float64."""
    g = Generator().manual_seed(2)
    with torch.no_grad():
        for p in f.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return f.double()


def normal_points(n: int, D: int, seed: int = 1) -> Tensor:
    return torch.randn(n, D, generator=Generator().manual_seed(seed), dtype=torch.float64)


def image(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)
