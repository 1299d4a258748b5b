"""Solvers for inverses without a formula, and their gradients, against what is known in closed form."""

import pytest
import torch
from torch import Generator, Tensor

from flowlab.bijections.numeric import NotConverged, bisect, fixed_point, invert


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype, tolerance", ((torch.float32, 1e-6), (torch.float64, 1e-14)))
def test_bisection_finds_the_crossing_down_to_rounding(dtype, tolerance):
    z = numbers(50).to(dtype)
    x = bisect(torch.sinh, z, z.new_full(z.shape, -10.0), z.new_full(z.shape, 10.0))
    assert x.dtype == dtype and not x.requires_grad
    torch.testing.assert_close(x, torch.asinh(z), rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("sign", (1.0, -1.0))
def test_an_inverse_carries_the_gradient_of_z_and_of_the_parameters(sign):
    """x = asinh(z / a) / s for f(x) = a sinh(s x), rising or falling."""
    z, a = numbers(20).requires_grad_(), torch.tensor(1.7, dtype=torch.float64, requires_grad=True)

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        return a * torch.sinh(sign * x), sign * a * torch.cosh(x)

    ends = torch.full_like(z, 10.0).detach()
    x, exact = invert(f, z, -ends, ends), sign * torch.asinh(z / a)
    torch.testing.assert_close(x, exact, rtol=1e-13, atol=1e-13)
    weights = numbers(20, seed=1)
    for found, known in zip(
        torch.autograd.grad((weights * x).sum(), (z, a)),
        torch.autograd.grad((weights * exact).sum(), (z, a)),
        strict=True,
    ):
        torch.testing.assert_close(found, known, rtol=1e-12, atol=1e-12)


def test_a_fixed_point_carries_the_gradient_of_the_implicit_function():
    """x = z − A x, so x = (I + A)⁻¹ z, in z and in A."""
    z, A = numbers(6, 3).requires_grad_(), (0.2 * numbers(3, 3, seed=1)).requires_grad_()
    assert torch.linalg.matrix_norm(A, 2) < 0.9, "a contraction"
    x = fixed_point(lambda x: z - x @ A.mT, z)
    exact = torch.linalg.solve(torch.eye(3, dtype=torch.float64) + A, z.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(x, exact, rtol=1e-12, atol=1e-12)
    weights = numbers(6, 3, seed=2)
    for found, known in zip(
        torch.autograd.grad((weights * x).sum(), (z, A)),
        torch.autograd.grad((weights * exact).sum(), (z, A)),
        strict=True,
    ):
        torch.testing.assert_close(found, known, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        assert not fixed_point(lambda x: z - x @ A.mT, z).requires_grad


def test_an_iteration_that_does_not_rest_says_so():
    with pytest.raises(NotConverged, match=r"not reached in 30 steps.* lower its Lipschitz constant"):
        fixed_point(lambda x: 1 - 2 * x, torch.ones(3), most=30)
