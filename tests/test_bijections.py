"""One battery for every bijection of the table, then what each bijection promises on its own."""

import copy
import inspect
import math
from dataclasses import dataclass
from itertools import pairwise, product

import pytest
import torch
from bijection_table import TABLE, VECTORS, Row, alternating_mask
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Generator, Tensor

import flowlab.bijections
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    BatchNorm,
    Bijection,
    Chain,
    FullAffine,
    Inverse,
    InverseNotAvailable,
    Logit,
    LULinear,
    Monotone,
    MonotoneSum,
    NotStackable,
    Permutation,
    PReLU,
    ScaleShift,
    ShapeError,
    SinhArcsinh,
    SplineCoupling,
)
from flowlab.distributions import StandardNormal
from flowlab.flow import Flow

# --- the battery ------------------------------------------------------------------------------------------------------

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Case:
    """One draw: which event shape of the row, stacked or not, batch shape, dtype, and the seed of all numbers."""

    event: int = 1
    stack: int | None = None
    batch: tuple[int, ...] = (7,)
    dtype: torch.dtype = torch.float64
    seed: int = 0


# Every combination is visited, and then Hypothesis draws more of them, with other stacks, batches and seeds.
SWEEP = [
    Case(*combination, seed=seed)
    for seed, combination in enumerate(
        product(range(len(VECTORS)), (None, 3), ((), (7,), (3, 4)), (torch.float32, torch.float64))
    )
]
DRAWS = st.builds(
    Case,
    event=st.integers(0, len(VECTORS) - 1),
    stack=st.none() | st.integers(1, 4),
    batch=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    seed=st.integers(0, 2**31),
)


def battery(check):
    """Run ``check(name, case)`` for every row of the table and every case of the sweep, and for drawn ones."""
    check = given(case=DRAWS)(check)
    for case in SWEEP:
        check = example(case=case)(check)
    return pytest.mark.parametrize("name", TABLE)(check)


def draw(name: str, case: Case) -> tuple[Bijection, Tensor, Tensor | None]:
    """A bijection with random parameters, points, and a context or None, of the dtype of the case."""
    row = TABLE[name]
    event = row.events[case.event % len(row.events)]
    generator = Generator().manual_seed(case.seed)
    bijection = row.make(event, case.stack, generator)
    x, context = row.points(event, case.stack, case.batch, generator)
    return bijection.to(case.dtype), x.to(case.dtype), None if context is None else context.to(case.dtype)


def in_float64(bijection: Bijection, context: Tensor | None) -> tuple[Bijection, Tensor | None]:
    """The same map, its rounded weights included, in the arithmetic of the reference."""
    return copy.deepcopy(bijection).double(), None if context is None else context.double()


def jacobian(function, x: Tensor, event_dim: int) -> Tensor:
    """∂f/∂x by autograd, ``(*batch, n, n)`` with events flattened; samples do not depend on each other."""
    x = x.detach().requires_grad_()
    batch = x.shape[: x.ndim - event_dim]
    z = function(x)[0].flatten(len(batch))
    if not batch:
        z = z.flatten()
    rows = [torch.autograd.grad(z[..., i].sum(), x, retain_graph=True)[0] for i in range(z.shape[-1])]
    return torch.stack(rows, dim=len(batch)).reshape(*batch, len(rows), len(rows))


def strain(f: Bijection, x: Tensor, context: Tensor | None) -> Tensor:
    """How much a condition number above 100 excuses in float32, ``(*batch)``; in float64 it excuses nothing."""
    if x.dtype == torch.float64:
        return torch.ones(x.shape[: x.ndim - f.event_dim])
    exact, wide = in_float64(f, context)
    J = jacobian(lambda x: exact(x, wide), x.double(), f.event_dim)
    return (torch.linalg.cond(J) / 100).clamp_min(1)


def per_sample(scale: Tensor, f: Bijection) -> Tensor:
    return scale.reshape(*scale.shape, *[1] * f.event_dim)


def assert_close(value: Tensor, expected: Tensor, dtype: torch.dtype, scale: Tensor | float = 1.0) -> None:
    assert value.shape == expected.shape
    error = (value.double() - expected.double()).abs() / (1 + expected.double().abs())
    worst = (error / scale).max().item() if error.numel() else 0.0
    assert worst <= TOLERANCE[dtype], f"off by {worst:.2g}, more than {TOLERANCE[dtype]:.0e}"


def test_every_bijection_is_in_the_table():
    public = {c for c in vars(flowlab.bijections).values() if inspect.isclass(c) and issubclass(c, Bijection)}
    tabled = {type(row.make(row.events[-1], None, Generator().manual_seed(0))) for row in TABLE.values()}
    assert public - {Bijection} == tabled


@battery
def test_inverse_undoes_forward(name, case):
    f, x, context = draw(name, case)
    with torch.no_grad():
        z, forward_log_det = f(x, context)
        back, inverse_log_det = f.inverse(z, context)
        again, _ = f(back, context)
    assert z.dtype == back.dtype == forward_log_det.dtype == inverse_log_det.dtype == case.dtype
    lead = x.shape[: x.ndim - f.event_dim]
    assert forward_log_det.shape == inverse_log_det.shape == lead
    scale = strain(f, x, context)
    assert_close(back, x, case.dtype, per_sample(scale, f))
    assert_close(again, z, case.dtype, per_sample(scale, f))
    assert_close(forward_log_det + inverse_log_det, torch.zeros(lead), case.dtype, scale)


@battery
def test_log_det_is_that_of_the_jacobian(name, case):
    f, x, context = draw(name, case)
    z = f(x, context)[0].detach()
    exact, wide = in_float64(f, context)
    scale = strain(f, x, context)
    for apply, reference, point in ((f, exact, x), (f.inverse, exact.inverse, z)):
        J = jacobian(lambda x, reference=reference: reference(x, wide), point.double(), f.event_dim)
        assert_close(apply(point, context)[1], torch.linalg.slogdet(J).logabsdet, case.dtype, scale)


@battery
def test_gradients_are_finite(name, case):
    f, x, context = draw(name, case)
    z = f(x, context)[0].detach()
    for apply, point in ((f, x), (f.inverse, z)):
        point = point.clone().requires_grad_()
        f.zero_grad()
        value, log_det = apply(point, context)
        ((value**2).sum() - log_det.sum()).backward()
        for what, p in (("the input", point), *f.named_parameters()):
            assert p.grad is not None, f"no gradient reaches {what}"
            assert torch.isfinite(p.grad).all(), f"the gradient of {what} is not finite"
            if p is point and p.numel():
                assert (p.grad != 0).any()


@battery
def test_samples_do_not_depend_on_each_other(name, case):
    f, x, context = draw(name, case)
    f.double()  # in float32 a matrix product may sum in another order
    x, context = x.double(), None if context is None else context.double()
    lead = 0 if case.stack is None else 1
    flat = x.flatten(lead, lead + len(case.batch) - 1) if case.batch else x.unsqueeze(lead)
    if flat.shape[lead] == 0:
        return
    wide = context
    if context is not None:
        wide = context.flatten(lead, lead + len(case.batch) - 1) if case.batch else context.unsqueeze(lead)
    for apply in (f, f.inverse):
        value, log_det = apply(flat, wide)
        last = flat.select(lead, -1), None if wide is None else wide.select(lead, -1)
        alone, its_log_det = apply(*last)
        assert_close(alone, value.select(lead, -1), torch.float64)
        assert_close(its_log_det, log_det.select(lead, -1), torch.float64)
        flat = value.detach()


@battery
def test_state_dict_brings_it_back(name, case):
    f, x, context = draw(name, case)
    other, *_ = draw(name, Case(case.event, case.stack, case.batch, case.dtype, case.seed + 1))
    other.load_state_dict(f.state_dict())
    z = f(x, context)[0]
    for one, same in ((f(x, context), other(x, context)), (f.inverse(z, context), other.inverse(z, context))):
        assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])


@battery
def test_stack_equals_separate_maps(name, case):
    K = case.stack or 3
    f, x, context = draw(name, Case(case.event, K, case.batch, case.dtype, case.seed))
    scale = strain(f, x, context)
    if f.stack is None:
        assert not list(f.parameters()), "only a map without parameters may be taken by a stack as it is"
    single, *_ = draw(name, Case(case.event, None, case.batch, case.dtype, case.seed))
    expanded = x[:1].expand_as(x)  # all K get the same points
    for points in (x, expanded):
        z, log_det = f(points, context)
        back, inverse_log_det = f.inverse(z, context)
        for k in range(K):
            own = single.state_dict()
            for entry, value in f.state_dict().items():
                stacked = value.shape != own[entry].shape
                assert not stacked or value.shape == (K, *own[entry].shape)
                own[entry] = value[k] if stacked else value
            single.load_state_dict(own)
            c = None if context is None else context[k]
            for (value, total), (its_value, its_total) in (
                ((z[k], log_det[k]), single(points[k], c)),
                ((back[k], inverse_log_det[k]), single.inverse(z[k], c)),
            ):
                assert_close(value, its_value, case.dtype, per_sample(scale[k], f))
                assert_close(total, its_total, case.dtype, scale[k])


def flows_of(dimensions: int) -> list[str]:
    return [name for name, row in TABLE.items() if any(math.prod(event) == dimensions for event in row.events)]


def midpoints(low: float, high: float, points: int) -> tuple[Tensor, Tensor]:
    """Middles and widths of cells; 0 is an edge between two of them, since the density of a PReLU jumps there."""
    ends = (low, 0.0, high) if low < 0 < high else (low, high)
    each = points // (len(ends) - 1)
    edges = [torch.linspace(a, b, each + 1, dtype=torch.float64) for a, b in pairwise(ends)]
    return torch.cat([(e[1:] + e[:-1]) / 2 for e in edges]), torch.cat([e.diff() for e in edges])


def integral(name: str, dimensions: int, seed: int, reach: float, points: int) -> float:
    """∫ p(x) dx of a flow with a normal base, by the midpoint rule on a box that holds all z within ``reach``."""
    row = TABLE[name]
    event = next(event for event in row.events if math.prod(event) == dimensions)
    generator = Generator().manual_seed(seed)
    f = row.make(event, None, generator, spread=0.15)  # tame enough for a grid
    context = row.points(event, None, (), generator)[1]
    flow = Flow(f, StandardNormal(dimensions).double())
    edge = torch.linspace(-reach, reach, 61, dtype=torch.float64)
    with torch.no_grad():
        z = torch.cartesian_prod(*[edge] * dimensions).reshape(-1, *event)
        x = f.inverse(z, context)[0].flatten(1)
        axes = [midpoints(x[:, d].min().item(), x[:, d].max().item(), points) for d in range(dimensions)]
        grid = torch.cartesian_prod(*[middle for middle, _ in axes]).reshape(-1, *event)
        width = torch.cartesian_prod(*[width for _, width in axes]).reshape(len(grid), -1).prod(-1)
        density = torch.cat([flow.log_prob(part, context).exp() for part in grid.split(20_000)])
    return float((density * width).sum())


@pytest.mark.parametrize("name", flows_of(1))
@given(seed=st.integers(0, 2**31))
def test_density_integrates_to_one_on_the_line(name, seed):
    assert integral(name, 1, seed, reach=6.5, points=1000) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", flows_of(2))
@pytest.mark.parametrize("seed", (1, 2))
def test_density_integrates_to_one_in_the_plane(name, seed):
    assert integral(name, 2, seed, reach=4.0, points=200) == pytest.approx(1, abs=1e-3)
