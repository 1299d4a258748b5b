"""Maps of each coordinate on its own."""

import math

import pytest
import torch
from torch import Generator

from flowlab.bijections import Chain, Inverse, Logit, Monotone, PReLU, ScaleShift, SinhArcsinh
from flowlab.densities import Flow, StandardNormal


def test_prelu_counts_negative_coordinates():
    z, log_det = PReLU(4, 0.5)(torch.tensor([-2.0, 3.0, -4.0, 0.0]))
    torch.testing.assert_close(z, torch.tensor([-1.0, 3.0, -2.0, 0.0]))
    assert log_det.item() == pytest.approx(2 * math.log(0.5))


@pytest.mark.parametrize("slope", (0.0, -0.5, math.nan))
def test_prelu_that_folds_is_refused(slope):
    with pytest.raises(ValueError, match=f"slope above 0, .*but got {slope}"):
        PReLU(2, slope)


def test_logit_gives_what_lies_outside_no_density():
    x = torch.tensor([[0.5, -0.1], [1.5, 0.5], [0.5, 0.3]])
    for lambda_ in (0.0, 1e-6):
        z, log_det = Logit(lambda_)(x)
        assert z.isfinite().all() and log_det.isneginf().tolist() == [True, True, False]
        assert Flow(Logit(lambda_), StandardNormal(2)).log_prob(x).isneginf().tolist() == [True, True, False]
    for bad in (0.5, -0.01):
        with pytest.raises(ValueError, match=rf"λ in \[0, 0.5\), but got {bad}"):
            Logit(bad)


def test_logit_at_the_ends():
    ends = torch.tensor([[0.0], [1.0]])
    z, log_det = Logit()(ends)
    assert z.isfinite().all() and log_det.isfinite().all() and z[0] < -15 and z[1] > 15
    z, log_det = Logit(0.05)(ends)
    torch.testing.assert_close(z.flatten(), torch.tensor([-1.0, 1.0]) * math.log(19))
    torch.testing.assert_close(log_det, torch.full((2,), math.log(0.9 / (0.05 * 0.95))))
    x, log_det = Logit().inverse(torch.tensor([[-80.0], [80.0]]))
    assert x.flatten().tolist() == pytest.approx([0, 1], abs=1e-7) and log_det.tolist() == pytest.approx([-80, -80])


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("lambda_", (0.0, 1e-6, 1e-5, 0.05))
def test_a_flow_that_begins_with_a_logit_scores_all_of_its_own_samples(lambda_, dtype):
    """However wide its logits are: what rounds to an end of the interval is inside it."""
    for width in (1.0, 9.0, 100.0):
        scale = ScaleShift(3)
        scale.log_scale.data.fill_(-math.log(width))
        flow = Flow(Chain([Logit(lambda_), scale]), StandardNormal(3)).to(dtype)
        x, log_p = flow.draw(20_000, Generator().manual_seed(0))
        assert flow.log_prob(x).isfinite().all() and log_p.isfinite().all(), width


def test_sinh_arcsinh_is_jones_and_pewseys():
    f = SinhArcsinh(1)
    f.skew.data.fill_(0.4)
    f.log_tail.data.fill_(math.log(0.7))
    assert f(torch.tensor([2.0]))[0].item() == pytest.approx(math.sinh(0.7 * math.asinh(2) - 0.4))
    f.log_tail.data.fill_(math.log(2))  # cosh(2 arcsinh 1e25) is more than float32 holds, its logarithm is not
    assert torch.isfinite(f(torch.tensor([[1e25], [-1e25]]))[1]).all()


def test_monotone_square_root_has_the_textbook_log_det():
    f = Monotone(torch.sqrt, torch.square)
    x = torch.tensor([[0.25], [4.0]])
    torch.testing.assert_close(f(x)[1], -(2 * x.sqrt()).log().sum(-1))
    numeric = Monotone(torch.sqrt, interval=(0, 100))
    torch.testing.assert_close(numeric.inverse(x)[0], x**2)
    torch.testing.assert_close(numeric.inverse(x)[1], (2 * x).log().sum(-1))
    assert numeric.inverse_is_numeric and not f.inverse_is_numeric


@pytest.mark.parametrize("sign", (1, -1))
def test_monotone_refuses_values_that_are_not_reached(sign):
    f = Monotone(lambda x: sign * torch.tanh(x), interval=(-3, 3))
    assert f.inverse(torch.tensor([[0.5]]))[0].item() == pytest.approx(sign * math.atanh(0.5))
    for z in (1.5, -1.5, math.tanh(3) + 1e-3):
        with pytest.raises(ValueError, match=r"not reached by the function on \(-3, 3\)"):
            f.inverse(torch.tensor([[0.5], [z]]))


def test_monotone_refuses_an_interval_that_the_function_cannot_take():
    for function in (torch.sqrt, lambda x: 0 * x):  # NaN below zero; not monotone at all
        with pytest.raises(ValueError, match="not reached by the function"):
            Monotone(function, interval=(-1, 9)).inverse(torch.tensor([[2.0]]))


def test_monotone_trains_a_module_through_its_numeric_inverse():
    class Cubic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def forward(self, x):
            return x + self.a * x**3

    f = Inverse(Monotone(Cubic(), interval=(-20, 20)))
    z = torch.tensor([[0.3], [-2.0]], dtype=torch.float64)

    def apply(a):
        return torch.func.functional_call(f, {"bijection.function.a": a}, (z,))

    assert torch.autograd.gradcheck(apply, (torch.tensor(0.7, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_monotone_without_gradients_gives_plain_numbers(dtype):
    with torch.no_grad():
        z, log_det = Monotone(torch.sinh)(torch.ones(3, 1, dtype=dtype, requires_grad=True))
    assert not z.requires_grad and not log_det.requires_grad
