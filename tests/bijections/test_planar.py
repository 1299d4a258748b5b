"""Planar flows: the paper's formula, the constraint that keeps them invertible, and the edge of it."""

import math

import pytest
import torch
from torch import Generator
from torch.nn import functional as F

from flowlab.bijections import Planar


def planar(w, u, b=0.0, dtype=torch.float64) -> Planar:
    f = Planar(len(w)).to(dtype)
    for parameter, value in ((f.w, w), (f.u, u), (f.b, [b])):
        parameter.data = torch.as_tensor(value, dtype=dtype)
    return f


def along(size: float, D: int = 3) -> Planar:
    """A map with w · u = size, and a w whose length is 2."""
    w = torch.zeros(D, dtype=torch.float64)
    w[0] = 2.0
    return planar(w, size / 4 * w, 0.3)


def test_it_is_the_formula_of_the_paper():
    generator = Generator().manual_seed(0)
    w, u, x = (torch.randn(4, generator=generator, dtype=torch.float64) for _ in range(3))
    a = w @ u
    u_hat = u + (F.softplus(a + math.log(math.e - 1)) - 1 - a) * w / (w @ w)  # appendix A.1, shifted to m(0) = 0
    t = torch.tanh(w @ x - 0.7)
    z, log_det = planar(w, u, -0.7)(x)
    torch.testing.assert_close(z, x + u_hat * t)  # eq. 10
    psi = (1 - t * t) * w  # eq. 11
    torch.testing.assert_close(log_det, (1 + u_hat @ psi).abs().log())  # eq. 12


def test_w_u_is_above_minus_one_whatever_the_parameters():
    # With ‖w‖ in place of ‖w‖², a slip of several public codes, 2.6 % of such draws cannot be inverted.
    generator = Generator().manual_seed(1)
    f = Planar(5, stack=10_000, generator=generator).double()
    f.u.data = torch.randn(f.u.shape, generator=generator, dtype=torch.float64)
    slope = 1 + (f.w * f.direction()).sum(-1)
    torch.testing.assert_close(slope, F.softplus((f.w * f.u).sum(-1) + math.log(math.e - 1)))
    assert (slope > 0).all() and slope.min() < 0.05, "some of these draws come near to the edge"


@pytest.mark.parametrize("size", (-40.0, -16.0, -5.0, 0.0, 5.0, 200.0))
def test_no_digits_are_lost_at_the_edge(size):
    exact = along(size)
    x = torch.linspace(-1.5, 1.5, 601, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.2, -0.1]).double()
    approximate = planar(exact.w.data, exact.u.data, 0.3, torch.float32)
    log_det = approximate(x.float())[1]
    assert log_det.isfinite().all()
    a = 2 * x[:, 0] + 0.3  # where the slope is nothing but rounding, float32 cannot know it
    known = (a.tanh().abs() > 1e-3) | (size > -10)
    torch.testing.assert_close(log_det.double()[known], exact(x)[1][known], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", (-5.0, -1.0, 3.0, 50.0))
def test_one_root_inverts_it_in_any_dimension(size):
    f = along(size, D=30)
    x = torch.randn(200, 30, generator=Generator().manual_seed(2), dtype=torch.float64)
    z, log_det = f(x)
    back, inverse_log_det = f.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-9)


def test_b_is_one_number_and_points_across_w_stay_in_step():
    f = planar([1.0, 0.0], [0.5, 2.0], b=0.2)
    assert sum(p.numel() for p in f.parameters()) == 2 * 2 + 1
    line = torch.tensor([[0.3, -5.0], [0.3, 0.0], [0.3, 7.0]], dtype=torch.float64)  # w · x is the same on it
    z, log_det = f(line)
    torch.testing.assert_close(z - line, (z - line)[:1].expand(3, 2))
    assert log_det.unique().numel() == 1


def test_w_of_zero_is_a_shift_and_not_a_nan():
    f = planar([0.0, 0.0], [1.0, -2.0], b=0.5)
    x = torch.randn(5, 2, generator=Generator().manual_seed(3), dtype=torch.float64)
    z, log_det = f(x)
    torch.testing.assert_close(z, x + torch.tanh(torch.tensor(0.5)) * torch.tensor([1.0, -2.0]).double())
    assert (log_det == 0).all()
    (z.sum() + log_det.sum() + f.inverse(z)[0].sum()).backward()
    assert all(p.grad.isfinite().all() for p in f.parameters())
