"""Autoregressive maps: MAF and IAF."""

import pytest
import torch
from torch import Generator

from bijections.battery import assert_close, jacobian, normal_points
from flowlab.bijections import (
    Bijection,
    InverseAutoregressive,
    MaskedAutoregressive,
)

ORDER = [2, 0, 3, 1]


def autoregressive(law=MaskedAutoregressive, D: int = 4, order=ORDER, spread: float = 1.0, **settings) -> Bijection:
    generator = Generator().manual_seed(8)
    f = law(D, (12, 9), order=order, activation="tanh", **settings).double()
    for p in f.parameters():
        p.data = spread * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return f


@pytest.mark.parametrize("law", (MaskedAutoregressive, InverseAutoregressive))
def test_autoregressive_jacobian_is_triangular_in_the_order(law):
    f = autoregressive(law)
    for apply in (f, f.inverse):
        J = jacobian(apply, normal_points(6, 4), 1)[:, ORDER][:, :, ORDER]
        assert (J.triu(1) == 0).all(), "no coordinate listens to one that comes later"
        assert (J.diagonal(dim1=-2, dim2=-1) > 0).all()
        assert ((J != 0).any(0) == torch.ones(4, 4).tril().bool()).all(), "and each listens to all before it"


def test_maf_is_its_equation_one_coordinate_at_a_time():
    f, z = autoregressive(), normal_points(5, 4)
    x, total = torch.full_like(z, 7.0), 0.0  # what is not known yet may be anything
    for i in ORDER:
        s, t = f.conditioner(x).unbind(-2)
        s = 2 * torch.tanh(s[:, i])
        x[:, i], total = (z[:, i] - t[:, i]) / s.exp(), total + s
    assert_close(f.inverse(z)[0], x.detach(), torch.float64)
    assert_close(f(x)[0], z, torch.float64)
    assert_close(f(x)[1], total, torch.float64)
    assert_close(f.inverse(z)[1], -total, torch.float64)


@pytest.mark.parametrize("context_features", (0, 3))
def test_iaf_is_maf_with_the_arrow_flipped(context_features):
    iaf = autoregressive(InverseAutoregressive, context_features=context_features)
    maf = MaskedAutoregressive(4, (12, 9), activation="tanh", context_features=context_features).double()
    maf.load_state_dict({name.removeprefix("bijection."): p for name, p in iaf.state_dict().items()})
    z, c = normal_points(5, 4), normal_points(5, 3) if context_features else None
    s, t = maf.conditioner(z, c).unbind(-2)
    s = 2 * torch.tanh(s)
    x, log_det = iaf.inverse(z, c)
    assert_close(x, z * s.exp() + t, torch.float64)  # Kingma's equation: generation in one pass
    assert_close(log_det, s.sum(-1), torch.float64)
    for (value, total), (same, its_total) in (
        (iaf.inverse(z, c), maf(z, c)),
        (iaf(x, c), maf.inverse(x, c)),
        (iaf(x, c), (z, -log_det)),
    ):
        assert_close(value, same, torch.float64)
        assert_close(total, its_total, torch.float64)
    assert not iaf.inverse_is_numeric and not maf.inverse_is_numeric


@pytest.mark.parametrize("law, passes", ((MaskedAutoregressive, (1, 4)), (InverseAutoregressive, (4, 1))))
def test_one_direction_takes_one_pass_and_the_other_one_for_each_coordinate(law, passes):
    f, ran = autoregressive(law), []
    network = f.conditioner if law is MaskedAutoregressive else f.bijection.conditioner
    network.register_forward_hook(lambda *_: ran.append(1))
    for apply, expected in zip((f, f.inverse), passes, strict=True):
        ran.clear()
        apply(normal_points(3, 4))
        assert len(ran) == expected


def test_autoregressive_inverse_is_exact_where_a_wrong_guess_would_overflow():
    """t_i = x_1 + ... + x_{i−1}, so x_i = z_i − z_{i−1}; wrong guesses for x_j grow like binomials, to 1e58."""
    D = 200
    f = MaskedAutoregressive(D, ())
    f.conditioner.last.weight.data[:, D:] = 1
    z = normal_points(5, D).float()
    torch.testing.assert_close(f.inverse(z)[0], z.diff(prepend=torch.zeros(5, 1)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bound", (2.0, 0.5))
def test_autoregressive_log_scale_is_bounded_and_reaches_its_bound(bound):
    f = autoregressive(D=2, order=None, spread=100.0, log_scale_bound=bound)
    for value, log_det in (f(normal_points(500, 2)), f.inverse(normal_points(500, 2))):
        assert torch.isfinite(value).all()
        assert 1.9 * bound < log_det.abs().max() <= 2 * bound * (1 + 1e-6)


def test_autoregressive_settings_reach_the_network():
    f = MaskedAutoregressive(9, (50,), random_degrees=True, activation="silu", generator=Generator().manual_seed(0))
    degrees = f.conditioner.degrees[9:]
    assert (degrees.diff() < 0).any() and f.conditioner.activation is torch.nn.functional.silu
    with pytest.raises(ValueError, match=r"an order of 0 to 1, but got \[1, 1\]"):
        InverseAutoregressive(2, order=[1, 1])
