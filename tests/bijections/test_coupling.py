"""Couplings of vectors and of images."""

import copy
import re
from itertools import product

import pytest
import torch
from torch import Generator, Tensor

from bijections.battery import image, jacobian, moved, normal_points, randomized
from flowlab.bijections import (
    AdditiveCoupling,
    AdditiveImageCoupling,
    AffineCoupling,
    AffineImageCoupling,
    Bijection,
    Chain,
    ScaleShift,
    ShapeError,
    Spline,
    SplineCoupling,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
)

COUPLINGS = (AdditiveCoupling, AffineCoupling, SplineCoupling)
MASKS = [mask for mask in product((True, False), repeat=4) if any(mask) and not all(mask)]


@pytest.mark.parametrize("law", COUPLINGS)
def test_any_mask_passes_and_moves_what_it_says(law):
    for mask in MASKS:
        f = randomized(law(mask, (6,), activation="tanh")).double()
        passes = torch.tensor(mask)
        x = torch.randn(5, 4, generator=Generator().manual_seed(1), dtype=torch.float64)
        z, _ = f(x)
        assert torch.equal(z[:, passes], x[:, passes])
        assert (z[:, ~passes] != x[:, ~passes]).all()
        J = jacobian(f, x, 1)
        moved = J[:, ~passes][:, :, ~passes]
        assert torch.equal(J[:, passes], torch.eye(4, dtype=torch.float64)[passes].expand(5, -1, -1))
        assert torch.equal(moved, torch.diag_embed(moved.diagonal(dim1=-2, dim2=-1))), "moved ones ignore each other"
        assert (J[:, ~passes][:, :, passes] != 0).any(-1).any(0).all(), "every moved one listens to those that pass"


@pytest.mark.parametrize("law", COUPLINGS)
@pytest.mark.parametrize("mask", ([True, True], [False, False], [True], [False], [], [[True, False]], True))
def test_mask_that_splits_nothing_is_refused(law, mask):
    with pytest.raises(
        ShapeError, match=rf"{law.__name__} expected a mask \(D,\) .* D ≥ 2, but got {re.escape(str(mask))}"
    ):
        law(mask)


def test_alternating_mask_splits_even_from_odd():
    assert alternating_mask(5).tolist() == [True, False, True, False, True]
    assert alternating_mask(4, odd=True).tolist() == [False, True, False, True]


@pytest.mark.parametrize("law", COUPLINGS)
@pytest.mark.parametrize("masks", (([True, False], [False, True]), ([True, True, False], [True, False, True])))
def test_weights_bring_their_mask_along(law, masks):
    f, other = randomized(law(masks[0], (5,))), law(masks[1], (5,))
    other.load_state_dict(f.state_dict())
    x = torch.randn(6, len(masks[0]), generator=Generator().manual_seed(2))
    for one, same in ((f, other), (f.inverse, copy.deepcopy(other).inverse)):
        assert torch.equal(one(x)[0], same(x)[0])


@pytest.mark.parametrize("bound", (2.0, 0.5))
def test_affine_log_scale_is_bounded_and_reaches_its_bound(bound):
    f = randomized(AffineCoupling([True, False], (8,), log_scale_bound=bound), 100.0)
    x = torch.randn(500, 2, generator=Generator().manual_seed(3))
    for value, log_det in (f(x), f.inverse(x)):
        assert torch.isfinite(value).all()
        assert 0.99 * bound < log_det.abs().max() <= bound * (1 + 1e-6)


def test_additive_keeps_volume_exactly():
    f = randomized(AdditiveCoupling([True, False, True]), 2.0)
    assert (f(torch.randn(9, 3))[1] == 0).all() and (f.inverse(torch.randn(9, 3))[1] == 0).all()


def wild_spline(bins: int = 6, bound: float = 3.0, spread: float = 2.0) -> SplineCoupling:
    return randomized(SplineCoupling([True, False], (4,), bins=bins, bound=bound), spread).double()


def with_first(a: float, b: Tensor) -> Tensor:
    return torch.stack((torch.full_like(b, a), b), dim=-1)


def test_spline_is_the_identity_outside():
    f = wild_spline()
    outside = torch.tensor([-1e6, -50.0, -3.0001, -3.0, 3.0, 3.0001, 50.0, 1e6], dtype=torch.float64)
    for apply in (f, f.inverse):
        value, log_det = apply(with_first(0.3, outside))
        assert torch.equal(value[:, 1], outside) and (log_det == 0).all()
        assert (apply(with_first(0.3, outside[3:5] / 2))[1] != 0).all()


def test_spline_goes_through_its_knots_smoothly():
    f = wild_spline()
    a = torch.tensor([[0.3]], dtype=torch.float64)
    X, Y, D = (table[0, 0] for table in f.law.knots(f.theta(a)))
    assert X[0] == Y[0] == -3 and X[-1] == Y[-1] == 3 and D[0] == D[-1] == 1 and len(X) == 7
    step = 1e-9
    for side in (-step, 0.0, step):
        z, log_slope = f(with_first(0.3, X + side))
        torch.testing.assert_close(z[:, 1], Y, rtol=0, atol=1e-7)
        torch.testing.assert_close(log_slope, D.log(), rtol=0, atol=1e-5)
        x, log_slope = f.inverse(with_first(0.3, Y + side))
        torch.testing.assert_close(x[:, 1], X, rtol=0, atol=1e-5)
        torch.testing.assert_close(log_slope, -D.log(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("bins, spread", ((2, 1.0), (8, 5.0), (100, 30.0)))
def test_spline_rises_however_wild_its_weights(bins, spread):
    f = wild_spline(bins, spread=spread)
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    z, log_slope = f(with_first(0.7, x))
    assert (z[:, 1].diff() > 0).all() and torch.isfinite(log_slope).all()
    back, _ = f.inverse(z)
    torch.testing.assert_close(back[:, 1], x, rtol=0, atol=1e-6)


def test_spline_inverse_keeps_its_digits_where_bins_bend_hard():
    """A bin that is flat on one side and steep on the other: one form of the quadratic's root cancels there."""
    f = wild_spline(spread=5.0).float()
    z = with_first(0.7, torch.linspace(-2.99, 2.99, 5001)).float()
    exact = copy.deepcopy(f).double()
    x, expected = f.inverse(z)[0][:, 1].double(), exact.inverse(z.double())[0][:, 1]
    slope = exact.inverse(z.double())[1].exp()  # dx/dz: how much rounding of z and of the knots is magnified
    error = ((x - expected).abs() / (1 + slope)).max().item()
    assert error < 2e-6


@pytest.mark.parametrize("bins", (3, 8, 30))
@pytest.mark.parametrize("guarded", (True, False))
def test_spline_is_inverted_at_its_knots_too(bins, guarded):
    """Where a slope is steep, the discriminant of eq. 6 to 8 is 0 up to rounding, which may leave it below 0."""
    law = Spline(bins=bins, guarded=guarded)
    theta = 10 * torch.randn(law.parameters_per_number, 3000, generator=Generator().manual_seed(bins))
    _, knots, _ = law.knots(theta)
    for z in knots[:, 1:-1].unbind(-1):
        for at in (z, z.nextafter(torch.tensor(9.0)), z.nextafter(torch.tensor(-9.0))):
            x, log_slope = law.inverse(at, theta)
            assert torch.isfinite(x).all() and torch.isfinite(log_slope).all()


def test_spline_settings_out_of_range_are_refused():
    for settings in ({"bins": 1}, {"bins": 501}, {"bound": 0.0}, {"bound": -1.0}):
        with pytest.raises(ValueError, match=r"2 to 500 bins and a bound above 0, but got"):
            SplineCoupling([True, False], **settings)


def couplings_in_a_row() -> Chain:
    """Two masks in turn, one mask twice, another split, and a map between that is no coupling."""
    g, mask = Generator().manual_seed(0), torch.tensor([True, False, False, True, False])
    masks = (mask, ~mask, ~mask, mask, alternating_mask(5), mask)
    laws = (AffineCoupling, AdditiveCoupling, SplineCoupling, AffineCoupling, AffineCoupling, AffineCoupling)
    maps = [law(b, (8,), generator=g) for law, b in zip(laws, masks, strict=True)]
    return moved(Chain([*maps[:4], ScaleShift(5), *maps[4:]]))


def test_couplings_in_a_row_are_each_of_them():
    """A chain splits and joins once for neighbors of the same two parts; the numbers are those of one at a time."""
    chain, x = couplings_in_a_row(), normal_points(7, 5)
    z, total = x, 0.0
    for f in chain:
        z, log_det = f(z)
        total = total + log_det
    torch.testing.assert_close(chain(x), (z, total))
    back, minus = chain.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(minus, -total)


def test_a_coupling_that_someone_changed_runs_as_changed():
    """A subclass with its own forward, and a hook that waits for a result, are not passed by in a chain."""

    class WrongSign(AffineCoupling):
        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            return z, -log_det

    masks = (alternating_mask(2), alternating_mask(2, odd=True), alternating_mask(2))
    x = normal_points(6, 2)
    right = moved(Chain([AffineCoupling(b, (8,)) for b in masks]))
    wrong = Chain([WrongSign(b, (8,)) for b in masks]).double()
    wrong.load_state_dict(right.state_dict())
    torch.testing.assert_close(wrong(x), (right(x)[0], -right(x)[1]))
    seen = []
    right[1].register_forward_hook(lambda module, given, result: seen.append(result[0]))
    right(x)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], right[:2](x)[0])


# --- couplings of images ---------------------------------------------------------------------------------------------


IMAGE_COUPLINGS = (AdditiveImageCoupling, AffineImageCoupling)
IMAGE_MASKS = {
    "checkerboard": checkerboard_mask(2, 3, 4),
    "odd checkerboard": checkerboard_mask(2, 3, 4, odd=True),
    "channels": channel_mask(2),
    "odd channels": channel_mask(2, odd=True),
    "a hole": torch.arange(24).reshape(2, 3, 4) != 17,
}


@pytest.mark.parametrize("C, H, W", ((1, 4, 4), (2, 3, 5), (3, 1, 2)))
def test_masks_partition_the_pixels(C, H, W):
    even, odd = checkerboard_mask(C, H, W), checkerboard_mask(C, H, W, odd=True)
    assert even.shape == (C, H, W) and torch.equal(even, ~odd) and even[:, 0, 0].all()
    assert (even[:, 1:] != even[:, :-1]).all() and (even[:, :, 1:] != even[:, :, :-1]).all(), "neighbors take turns"
    first, second = channel_mask(2 * C + 1), channel_mask(2 * C + 1, odd=True)
    assert first.shape == (2 * C + 1, 1, 1) and torch.equal(first, ~second)
    assert first.flatten().tolist() == [True] * C + [False] * (C + 1)


def image_coupling(law, mask: Tensor, **settings) -> Bijection:
    return randomized(law(mask, 3, blocks=1, **settings), 0.3).double()


@pytest.mark.parametrize("mask", IMAGE_MASKS.values(), ids=IMAGE_MASKS)
@pytest.mark.parametrize("law", IMAGE_COUPLINGS)
def test_image_coupling_is_its_equation(law, mask):
    """RealNVP, eq. 9, and what it says of the Jacobian: what passes passes, what moves moves by itself."""
    f, x = image_coupling(law, mask), image(5, 2, 3, 4)
    z, log_det = f(x)
    b = mask.double()
    theta = f.network(b * x)
    s, t = (0 * theta, theta) if law is AdditiveImageCoupling else theta.chunk(2, dim=1)
    s = 2 * torch.tanh(s)
    torch.testing.assert_close(z, b * x + (1 - b) * (x * s.exp() + t))
    torch.testing.assert_close(log_det, ((1 - b) * s).sum((1, 2, 3)))
    passes = mask.expand(2, 3, 4)
    assert torch.equal(z[:, passes], x[:, passes]) and (z != x)[:, ~passes].all()
    J, passes = jacobian(f, x, 3), passes.flatten()
    moved = J[:, ~passes][:, :, ~passes]
    assert torch.equal(moved, torch.diag_embed(moved.diagonal(dim1=1, dim2=2)))
    assert torch.equal(J[:, passes], torch.eye(24).double()[passes].expand(5, -1, -1))
    assert (J[:, ~passes][:, :, passes] != 0).any()


def test_image_couplings_in_a_row_are_each_of_them():
    x = image(5, 1, 3, 3)
    each = [image_coupling(law, checkerboard_mask(1, 3, 3, odd=odd)) for odd in (0, 1) for law in IMAGE_COUPLINGS]
    z, log_det = Chain(each)(x)
    expected, total = x, 0
    for f in each:
        expected, part = f(expected)
        total = total + part
    assert torch.equal(z, expected) and torch.equal(log_det, total)


def test_channel_mask_takes_images_of_any_size_and_checkerboard_of_its_own():
    f = image_coupling(AffineImageCoupling, channel_mask(2))
    for x in (image(4, 2, 5, 3), image(4, 2, 1, 1)):
        torch.testing.assert_close(f.inverse(f(x)[0])[0], x)
    f = image_coupling(AffineImageCoupling, checkerboard_mask(2, 3, 4))
    for size in ((1, 1), (4, 3), (3, 5)):
        for apply in (f, f.inverse):
            with pytest.raises(ShapeError) as error:
                apply(image(7, 2, *size))
            assert "AffineImageCoupling expected shape (..., 2, 3, 4), but got (7, 2, " in str(error.value)


@pytest.mark.parametrize("law", IMAGE_COUPLINGS)
@pytest.mark.parametrize(
    "mask, came",
    (
        (torch.ones(2, 1, 1), r"\(2, 1, 1\) that passes 2 of 2"),
        (torch.zeros(1, 3, 3), r"\(1, 3, 3\) that passes 0 of 9"),
        (torch.tensor([True, False]), r"\(2,\) that passes 1 of 2"),
        (checkerboard_mask(1, 1, 1), "passes 1 of 1"),
    ),
)
def test_image_mask_that_splits_nothing_is_refused(law, mask, came):
    with pytest.raises(ShapeError, match=rf"{law.__name__} expected a mask \(C, H, W\) or \(C, 1, 1\).*{came}"):
        law(mask)


@pytest.mark.parametrize("law", IMAGE_COUPLINGS)
def test_image_weights_bring_their_mask_along(law):
    f, other = (image_coupling(law, checkerboard_mask(1, 3, 3, odd=odd)) for odd in (False, True))
    x = image(4, 1, 3, 3)
    assert not torch.equal(f(x)[0], other(x)[0])
    other.load_state_dict(f.state_dict())
    assert torch.equal(f(x)[0], other(x)[0])


@pytest.mark.parametrize("bound", (2.0, 0.5))
def test_image_log_scale_is_bounded_and_reaches_its_bound(bound):
    f = randomized(AffineImageCoupling(channel_mask(2), 4, log_scale_bound=bound), 100.0).double()
    x = image(500, 2, 1, 1)
    for _, log_det in (f(x), f.inverse(x)):
        assert 0.99 * bound < log_det.abs().max() <= bound * (1 + 1e-6)


def test_a_guarded_spline_is_not_steep_beside_a_flat_bin_and_its_network_sees_no_farther_than_it_bends():
    theta = 4 * torch.randn(500, 23, 1, generator=Generator().manual_seed(0), dtype=torch.float64)
    for guarded in (True, False):
        law = Spline(bins=8, bound=2.0, guarded=guarded)
        X, Y, D = law.knots(theta)
        s = Y.diff() / X.diff()
        most = 10 * torch.minimum(s[..., :-1], s[..., 1:])
        assert bool((D[..., 1:-1] <= most * (1 + 1e-9)).all()) == guarded
        a = torch.tensor([-5.0, -1.0, 0.5, 3.0])
        assert law.seen(a).tolist() == ([-2.0, -1.0, 0.5, 2.0] if guarded else a.tolist())


@pytest.mark.parametrize("guarded", (True, False))
def test_the_network_of_a_guarded_spline_sees_its_inputs_clipped(guarded):
    """Beyond [−B, B] it would only extrapolate."""
    f = randomized(SplineCoupling([True, False], bound=3.0, guarded=guarded))
    at_the_bound, far = torch.tensor([[3.0, 0.5], [30.0, 0.5]])
    assert torch.equal(f(at_the_bound)[0][1], f(far)[0][1]) == guarded
    assert f(far)[0][0] == 30
