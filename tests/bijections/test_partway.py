"""Maps on their way from the identity: at 0 the identity, at 1 the map, and a bijection at each place between."""

import itertools

import pytest
import torch

from bijections.battery import image, jacobian, normal_points, randomized
from flowlab.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    AffineImageCoupling,
    Chain,
    Elementwise,
    MaskedAutoregressive,
    Spline,
    SplineCoupling,
    alternating_mask,
    channel_mask,
    partway,
)

MADE = {
    "AdditiveCoupling": lambda: AdditiveCoupling(alternating_mask(4), (6,)),
    "AffineCoupling": lambda: AffineCoupling(alternating_mask(4), (6,)),
    "SplineCoupling": lambda: SplineCoupling(alternating_mask(4), (6,)),
    "SplineCoupling, not guarded": lambda: SplineCoupling(alternating_mask(4), (6,), guarded=False),
    "MaskedAutoregressive": lambda: MaskedAutoregressive(4, (6,)),
    "Elementwise": lambda: Elementwise(4, Spline()),
    "a stack": lambda: AffineCoupling(alternating_mask(4), (6,), stack=3),
    "AffineImageCoupling": lambda: AffineImageCoupling(channel_mask(4), 6),
}


@pytest.fixture(params=MADE, scope="module")
def made(request):
    f = randomized(MADE[request.param]()).double()
    x = image(5, 4, 2, 2) if f.event_dim == 3 else normal_points(5, 4)
    return f, x.expand(3, *x.shape) if f.stack else x


def test_it_begins_at_the_identity_and_ends_at_the_map(made):
    f, x = made
    z, log_det = partway(f, 0.0)(x)
    torch.testing.assert_close(z, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-12)
    for there, f_there in zip(partway(f, 1.0)(x), f(x), strict=True):
        torch.testing.assert_close(there, f_there, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("share", (0.1, 0.5, 0.9))
def test_it_is_a_bijection_at_each_place_between(made, share):
    f, x = made
    part = partway(f, share)
    z, log_det = part(x)
    back, log_det_back = part.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-7, atol=1e-7)
    if f.event_dim == 1 and f.stack is None:
        volume = jacobian(part, x, 1).slogdet()[1]
        torch.testing.assert_close(log_det, volume, rtol=1e-8, atol=1e-8)


def test_an_affine_coupling_takes_the_path_of_its_formula():
    f = randomized(AffineCoupling([True, False], (6,))).double()
    x = normal_points(50, 2)
    s, t = f.theta(x[:, :1]).unbind(-2)
    s = f.law.log_scale_bound * torch.tanh(s)
    for share in (0.25, 0.7):
        z, log_det = partway(f, share)(x)
        torch.testing.assert_close(z[:, 1:], x[:, 1:] * (share * s).exp() + share * t)
        torch.testing.assert_close(log_det, share * s.squeeze(-1))


def test_it_moves_little_where_the_share_changes_little(made):
    f, x = made
    places = [partway(f, share / 50)(x)[0] for share in range(51)]
    steps = torch.stack([(b - a).abs().max() for a, b in itertools.pairwise(places)])
    assert steps.max() < 0.3 * steps.sum()


def test_it_shares_the_weights_and_leaves_the_map_alone():
    f = randomized(AffineCoupling([True, False], (6,))).double()
    x, before = normal_points(5, 2), repr(f)
    z, part = f(x)[0], partway(f, 0.5)
    assert torch.equal(f(x)[0], z) and repr(f) == before and "share=0.5" in repr(part)
    assert all(a is b for a, b in zip(part.parameters(), f.parameters(), strict=True))
    assert torch.equal(Chain([part, f])(x)[0], f(part(x)[0])[0])


def test_what_has_no_law_or_no_share_is_refused():
    with pytest.raises(TypeError, match="expected a map with a law, such as a coupling, but got ActNorm"):
        partway(ActNorm(2), 0.5)
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="expected a share between 0 and 1, but got"):
            partway(AffineCoupling([True, False]), share)
