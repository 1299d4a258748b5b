"""Radial flows: the paper's formula, the quadratic that inverts them, the center and what is far away."""

import math

import pytest
import torch
from torch import Generator

from flowlab.bijections import Radial


def radial(center, alpha: float, slope: float, dtype=torch.float64) -> Radial:
    f = Radial(len(center)).to(dtype)
    for parameter, value in ((f.center, center), (f.log_alpha, [math.log(alpha)]), (f.log_slope, [math.log(slope)])):
        parameter.data = torch.as_tensor(value, dtype=dtype)
    return f


@pytest.mark.parametrize("slope", (0.1, 1.0, 6.0))
def test_it_is_the_formula_of_the_paper(slope):
    alpha, c = 0.7, torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
    x = torch.randn(50, 3, generator=Generator().manual_seed(0), dtype=torch.float64)
    beta = alpha * (slope - 1)  # above −α, as appendix A.2 asks
    r = (x - c).norm(dim=-1)
    h, falls = 1 / (alpha + r), -1 / (alpha + r) ** 2
    z, log_det = radial(c, alpha, slope)(x)
    torch.testing.assert_close(z, x + beta * h[:, None] * (x - c))  # eq. 14
    torch.testing.assert_close(log_det, 2 * (1 + beta * h).log() + (1 + beta * h + beta * falls * r).log())


@pytest.mark.parametrize("alpha", (0.01, 1.0, 30.0))
@pytest.mark.parametrize("slope", (1e-4, 0.5, 1.0, 3.0, 1e4))
def test_a_quadratic_inverts_it(alpha, slope):
    f = radial([0.0, 0.0], alpha, slope)  # where the distance to the center is not rounded
    distance = torch.logspace(-6, 4, 200, dtype=torch.float64)
    x = distance[:, None] * torch.tensor([0.6, -0.8], dtype=torch.float64)
    z, log_det = f(x)
    back, inverse_log_det = f.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-9, atol=1e-9)
    assert not f.inverse_is_numeric


def test_the_center_stays_and_has_the_slope_in_all_directions():
    f = radial([0.3, 0.4, -2.0], 0.5, 3.0)
    at = f.center.detach().clone().requires_grad_()
    for way, factor in ((f, 3.0), (f.inverse, 1 / 3)):
        value, log_det = way(at)
        torch.testing.assert_close(value, at)
        assert log_det.item() == pytest.approx(3 * math.log(factor))
        J = torch.autograd.functional.jacobian(lambda x, way=way: way(x)[0], at.detach())
        torch.testing.assert_close(J, factor * torch.eye(3, dtype=torch.float64))
        f.zero_grad()
        (value.sum() + log_det).backward()
        assert all(p.grad.isfinite().all() for p in f.parameters())


def test_no_point_moves_further_than_beta():
    for slope in (0.01, 0.5, 4.0):
        f = radial([0.0, 0.0], 0.8, slope)
        x = torch.logspace(-3, 8, 500, dtype=torch.float64)[:, None] * torch.tensor([[0.6, 0.8]]).double()
        moved = (f(x)[0] - x).norm(dim=-1)
        assert (moved <= abs(0.8 * (slope - 1)) * (1 + 1e-6)).all()
        assert moved[-100].item() == pytest.approx(abs(0.8 * (slope - 1)), rel=1e-3), "far away all move by β"


@pytest.mark.parametrize("slope", (1e-6, 1e6))
def test_float32_loses_no_digits_where_the_map_nearly_folds(slope):
    exact, rounded = radial([0.0, 0.0], 1.0, slope), radial([0.0, 0.0], 1.0, slope, torch.float32)
    x = torch.logspace(-5, 3, 300)[:, None] * torch.tensor([[0.6, 0.8]])
    for way in ("forward", "inverse"):
        assert (getattr(rounded, way)(x)[1] - getattr(exact, way)(x.double())[1]).abs().max() < 2e-5
