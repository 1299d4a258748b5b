"""One battery for every bijection of the table: Jacobians, gradients, and densities that integrate to 1."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from bijections.battery import (
    SMOOTH,
    Case,
    assert_close,
    battery,
    directions,
    draw,
    in_float64,
    jacobian,
    midpoints,
    rows,
    strain,
)
from bijections.table import TABLE
from flowlab.bijections import Bijection, Inverse
from flowlab.densities import StandardNormal


@battery(*SMOOTH)
def test_log_det_is_that_of_the_jacobian(name, case):
    row, (f, x, context) = TABLE[name], draw(name, case)
    exact, wide = in_float64(f, context)
    scale = strain(f, x, context, row.surface)
    for way, point in directions(row, f, x, context):
        J = jacobian(lambda x, way=way: getattr(exact, way)(x, wide), point.double(), f.event_dim, row.surface)
        log_det = getattr(f, way)(point, context)[1]
        assert log_det.dtype == case.dtype
        assert_close(log_det, torch.linalg.slogdet(J).logabsdet, case.dtype, scale)


@battery(*SMOOTH)
def test_gradients_are_finite(name, case):
    f, x, context = draw(name, case)
    for way, point in directions(TABLE[name], f, x, context):
        point = point.clone().requires_grad_()
        f.zero_grad()
        value, log_det = getattr(f, way)(point, context)
        weights = 1 + torch.arange(value.shape[-1])  # on a sphere the plain sum of squares never changes
        ((weights * value**2).sum() - log_det.sum()).backward()
        for what, p in (("the input", point), *f.named_parameters()):
            assert p.grad is not None, f"no gradient reaches {what}"
            assert torch.isfinite(p.grad).all(), f"the gradient of {what} is not finite"
            if p is point and p.numel():
                assert (p.grad != 0).any()


def flows_of(dimensions: int, *kinds: str) -> list[str]:
    return [name for name in rows(*kinds) if any(math.prod(event) == dimensions for event in TABLE[name].events)]


def tame(name: str, dimensions: int, seed: int) -> tuple[Bijection, tuple[int, ...], Tensor | None]:
    """A map that a grid can follow, its event shape, and a context or None."""
    row = TABLE[name]
    event = next(event for event in row.events if math.prod(event) == dimensions)
    generator = Generator().manual_seed(seed)
    f = row.make(event, None, generator, spread=0.15)
    return f, event, row.points(event, None, (), generator)[1]


def mass(f: Bijection, event: tuple[int, ...], context: Tensor | None, box: Tensor, points: int) -> float:
    """∫ p(x) dx of a flow with a normal base, by the midpoint rule on a box ``(2, D)``."""
    dimensions = box.shape[1]
    axes = [midpoints(low, high, points) for low, high in box.T.tolist()]
    grid = torch.cartesian_prod(*[middle for middle, _ in axes]).reshape(-1, *event)
    width = torch.cartesian_prod(*[width for _, width in axes]).reshape(len(grid), -1).prod(-1)
    with torch.no_grad():
        parts = [f(part, context) for part in grid.split(20_000)]
    log_p = [StandardNormal(dimensions).log_prob(z.flatten(1)) + log_det for z, log_det in parts]
    return float((torch.cat(log_p).exp() * width).sum())


def integral(name: str, dimensions: int, seed: int, reach: float, points: int) -> float:
    """∫ p(x) dx over a box that holds all x whose z is within ``reach``; over a wide one if there is no inverse."""
    f, event, context = tame(name, dimensions, seed)
    if TABLE[name].kind == "one way":
        return mass(f, event, context, 4 * reach * torch.tensor([[-1.0], [1.0]]).expand(2, dimensions), points)
    edge = torch.linspace(-reach, reach, 61, dtype=torch.float64)
    with torch.no_grad():
        z = torch.cartesian_prod(*[edge] * dimensions).reshape(-1, *event)
        x = f.inverse(z, context)[0].flatten(1)
    return mass(f, event, context, torch.stack((x.amin(0), x.amax(0))), points)


@pytest.mark.parametrize("name", flows_of(1, "real", "one way"))
@given(seed=st.integers(0, 2**31))
def test_density_integrates_to_one_on_the_line(name, seed):
    assert integral(name, 1, seed, reach=6.5, points=1000) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", flows_of(2, "real", "one way"))
@pytest.mark.parametrize("seed", (1, 2))
def test_density_integrates_to_one_in_the_plane(name, seed):
    assert integral(name, 2, seed, reach=4.0, points=200) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", rows("real", "one way"))
@pytest.mark.parametrize("direction", ("forward", "inverse"))
def test_gradients_agree_with_finite_differences(name, direction):
    f, x, context = draw(name, Case(batch=(2,), seed=5))
    if direction == "inverse":
        if TABLE[name].kind == "one way":
            return
        x, f = f(x, context)[0].detach(), Inverse(f)
    names, parameters = zip(*f.named_parameters(), strict=True) if list(f.parameters()) else ((), ())

    def apply(x, *parameters):
        z, log_det = torch.func.functional_call(f, dict(zip(names, parameters, strict=True)), (x, context))
        return z, log_det + 0 * z.sum()  # of what needs no gradient, gradcheck asks none

    inputs = (x.requires_grad_(), *(p.detach().requires_grad_() for p in parameters))
    assert torch.autograd.gradcheck(apply, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)
