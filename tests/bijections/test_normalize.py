"""Normalization layers."""

import copy

import pytest
import torch
from torch import Generator, Tensor

from bijections.battery import jacobian
from flowlab.bijections import ActNorm, BatchNorm, Bijection, Chain, ScaleShift, Standardize, learning, starting
from flowlab.densities import Flow, StandardNormal
from flowlab.training import train


def spread_points(*shape: int) -> Tensor:
    return 3 + 5 * torch.randn(*shape, generator=Generator().manual_seed(0))


def started(f: Bijection, x: Tensor) -> tuple[Tensor, Tensor]:
    """What comes out of the batch that starts the layers of f."""
    with starting(f):
        return f(x)


@pytest.mark.parametrize("layer", (ActNorm, Standardize))
def test_a_layer_starts_from_data_when_told_and_never_otherwise(layer):
    f, x = layer(3), spread_points(50, 4, 3)
    for mode in (f.eval(), f.train()):
        assert torch.equal(mode(x)[0], x) and not f.started, "looking does not start it"
    z, log_det = started(f, x)
    torch.testing.assert_close(z.mean((0, 1)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std((0, 1), correction=0), torch.ones(3))
    torch.testing.assert_close(log_det, -x.std((0, 1), correction=0).log().sum().expand(50, 4))
    before = copy.deepcopy(f.state_dict())
    f(7 * x)
    started(f, 7 * x)
    assert all(torch.equal(before[entry], value) for entry, value in f.state_dict().items())
    with starting(f, anew=True):
        torch.testing.assert_close(f(7 * x)[0], z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("center, scale", ((2460000.0, 30.0), (1e4, 1e-3), (1.7e9, 2e4), (-5e5, 1e-6)))
def test_standardize_centers_float64_before_it_rounds(center, scale):
    u = torch.randn(300, 2, generator=Generator().manual_seed(0), dtype=torch.float64)
    x, f = center + scale * u, Standardize(2)
    z, log_det = started(f, x)
    assert z.dtype == log_det.dtype == torch.float32
    wanted = (u - u.mean(0)) / u.std(0, correction=0)
    torch.testing.assert_close(z.double(), wanted, rtol=0, atol=1e-5 + 1e-15 * abs(center) / scale)
    expected = -(scale * u.std(0, correction=0)).log().sum()
    torch.testing.assert_close(log_det.double(), expected.expand(300), rtol=1e-5, atol=1e-5)
    back, inverse_log_det = f.inverse(z)
    torch.testing.assert_close(inverse_log_det, -log_det)
    torch.testing.assert_close(back.double(), x, rtol=2e-7, atol=1e-6 * scale)


def test_standardize_takes_the_weights_of_an_actnorm():
    norm, f, x = ActNorm(3), Standardize(3), spread_points(50, 3)
    started(norm, x)
    f.load_state_dict(norm.state_dict())
    assert f.started and torch.equal(f(x)[0], norm(x)[0])


def test_actnorm_starts_each_of_a_stack_from_its_own_batch():
    x = spread_points(3, 40, 2) * torch.tensor([1.0, 2.0, 5.0]).reshape(3, 1, 1)
    z, log_det = started(ActNorm(2, stack=3), x)
    torch.testing.assert_close(z.std(1, correction=0), torch.ones(3, 2))
    assert log_det[2, 0] < log_det[0, 0]


def test_actnorm_reloaded_does_not_start_again():
    f, x = ActNorm(3), spread_points(50, 3)
    started(f, x)
    other = ActNorm(3)
    other.load_state_dict(f.state_dict())
    assert torch.equal(started(other, 2 * x)[0], f(2 * x)[0])
    assert "initialized" in dict(f.named_buffers())


@pytest.mark.parametrize("layer", (ActNorm, BatchNorm))
@pytest.mark.parametrize("shape, stack", (((1, 3), None), ((3,), None), ((4, 1, 3), 4), ((0, 3), None)))
def test_a_batch_of_one_has_no_spread(layer, shape, stack):
    f = layer(3, stack=stack)
    with pytest.raises(ValueError, match=rf"{layer.__name__}.* at least two samples .* but got [01]\."):
        started(f, torch.ones(shape))
    assert torch.isfinite(f.eval()(torch.ones(shape))[0]).all()


def test_actnorm_takes_a_coordinate_that_never_varies_and_one_that_hardly_does():
    x = torch.stack((torch.full((9,), 4.0), 1e-9 * torch.arange(9.0)), dim=-1).double()
    z, log_det = started(ActNorm(2).double(), x)
    assert (z[:, 0] == 0).all(), "never: keeps its scale"
    torch.testing.assert_close(z[:, 1].std(correction=0), z.new_tensor(1.0))
    torch.testing.assert_close(log_det, -x[:, 1].std(correction=0).log().expand(9))


def test_batchnorm_in_training_is_the_map_with_statistics_held_fixed():
    f, x = BatchNorm(3).double(), spread_points(20, 3).double()
    with learning(f):
        z, log_det = f(x)
    mean, variance = x.mean(0), x.var(0, correction=0)
    torch.testing.assert_close(z, (x - mean) / (variance + 1e-5).sqrt())
    fixed = jacobian(lambda x: ((x - mean) / (variance + 1e-5).sqrt(), None), x, 1)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(fixed).logabsdet)
    back, inverse_log_det = f.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_log_det, -log_det)
    with learning(f):
        f(10 * x + 1)  # other statistics: now these were learned from last
    torch.testing.assert_close(f.inverse(f(10 * x + 1)[0])[0], 10 * x + 1)


def test_batchnorm_learns_in_the_steps_of_training_alone():
    """A look at a model in training mode uses the statistics of what it is shown, and changes nothing."""
    f, x = BatchNorm(2, momentum=0.25), spread_points(30, 2)
    before = copy.deepcopy(f.state_dict())
    torch.testing.assert_close(f(x)[0].mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    f.inverse(x)
    assert all(torch.equal(before[entry], value) for entry, value in f.state_dict().items())
    flow = Flow(Chain([f, ScaleShift(2)]), StandardNormal(2))
    expected, looked = torch.zeros(2), 0
    for history in train(flow, x, steps=3, batch_size=30):
        expected = expected.lerp(x.mean(0), 0.25)
        torch.testing.assert_close(f.running_mean, expected)
        flow.log_prob(x + 100)
        looked = history.step
    assert looked == 3 and not f.learning
    torch.testing.assert_close(f.running_mean, expected)


def test_batchnorm_in_training_passes_gradients_through_its_statistics():
    x = spread_points(20, 3).double().requires_grad_()
    z, _ = BatchNorm(3).double()(x)
    (gradient,) = torch.autograd.grad(z[:, 0].sum(), x)
    assert gradient.abs().max() < 1e-12  # a shift of all samples alike changes nothing


def test_batchnorm_averages_and_evaluation_uses_the_averages():
    f, x = BatchNorm(2, momentum=0.25), spread_points(30, 2)
    with learning(f):
        f(x)
    torch.testing.assert_close(f.running_mean, 0.25 * x.mean(0))
    torch.testing.assert_close(f.running_variance, 0.75 + 0.25 * x.var(0, correction=0))
    f.eval()
    before = copy.deepcopy(f.state_dict())
    # The inverse belongs to the same density as forward does, whichever of them is called first.
    x_back, inverse_log_det = f.inverse(torch.zeros(5, 2))
    torch.testing.assert_close(x_back, f.running_mean.expand(5, 2))
    torch.testing.assert_close(f(x_back)[1], -inverse_log_det)
    assert all(torch.equal(before[entry], value) for entry, value in f.state_dict().items())


def test_batchnorm_stack_keeps_statistics_apart():
    f = BatchNorm(2, stack=2)
    x = torch.stack((spread_points(30, 2), 100 * spread_points(30, 2)))
    with learning(f):
        torch.testing.assert_close(f(x)[0].mean(1), torch.zeros(2, 2), rtol=0, atol=1e-5)
    assert f.running_variance[1].min() > 100 * f.running_variance[0].max()


def test_standardize_centers_where_float32_has_no_digits_for_the_center():
    """Half a second around a moment of the year 2024, in Unix seconds: float32 has a number every 128 seconds there."""
    x = 1.7e9 + 77 + 0.1 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = Standardize(2)
    with starting(layer):
        layer(x)
    assert layer.shift.abs().max() < 1e-3, "what is trained lies in standardized units"
