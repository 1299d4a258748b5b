"""Augmentation: nothing at strength zero, known maps by hand, the same from the same seed, and moments set upright."""

import math

import pytest
import torch
from torch import Generator

from flowlab.datasets import mnist
from flowlab.datasets.augment import affine, slant, thickness, upright

NONE = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def digits(n: int = 50) -> torch.Tensor:
    return mnist.digits("train")[0][:n].flatten(1) / 256


def test_no_strength_is_no_change():
    torch.testing.assert_close(affine(digits(), generator(), **NONE), digits(), atol=1e-5, rtol=0)


def test_values_stay_in_range_and_the_same_seed_gives_the_same_copies():
    x = digits()
    y = affine(x, generator(3))
    assert y.shape == x.shape and float(y.min()) >= 0 and float(y.max()) <= 1
    assert torch.equal(y, affine(x, generator(3))) and not torch.equal(y, affine(x, generator(4)))
    assert float((y - x).abs().mean()) > 0.02, "each digit moves"
    twins = affine(x[:1].expand(2, -1), generator())
    assert not torch.allclose(*twins), "each image has a map of its own"


def moments(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Center (x, y) in pixels, and the second moments xx, xy and yy about it."""
    p = x.unflatten(-1, (28, 28))
    p = p / p.sum((-2, -1), keepdim=True)
    at = torch.arange(28.0)
    cx, cy = p.sum(-2) @ at, p.sum(-1) @ at
    dx, dy = at - cx[:, None], at - cy[:, None]
    return cx, cy, *(torch.einsum("nij,ni,nj->n", p, a, b) for a, b in ((dx**0, dx**2), (dy, dx), (dy**2, dy**0)))


def blobs(n: int = 2000, a: float = 3.0, b: float = 1.5) -> torch.Tensor:
    """A lying Gaussian blob in the middle, deviations a across and b down: smooth, so that bilinear is exact enough."""
    at = torch.arange(28) - 13.5
    blob = torch.exp(-(at**2) / (2 * b**2))[:, None] * torch.exp(-(at**2) / (2 * a**2))
    return blob.flatten().expand(n, -1)


def test_a_shift_moves_the_center_by_at_most_so_many_pixels():
    cx, cy, *_ = moments(affine(blobs(), generator(), **NONE | {"shift": 2.0}))
    for c in (cx, cy):
        assert 1.9 < float((c - 13.5).abs().max()) <= 2.01 and abs(float((c - 13.5).mean())) < 0.1


def test_a_rotation_turns_the_long_axis_by_at_most_so_many_degrees():
    *_, xx, xy, yy = moments(affine(blobs(), generator(), **NONE | {"rotation": 20.0}))
    angle = 0.5 * torch.atan2(2 * xy, xx - yy) * 180 / math.pi
    assert 18.5 < float(angle.abs().max()) < 20.5 and abs(float(angle.mean())) < 1


def test_a_scale_stretches_width_and_height_apart():
    *_, xx, xy, yy = moments(affine(blobs(), generator(), **NONE | {"scale": 0.2}))
    for second, plain in ((xx, 9.0), (yy, 1.5**2)):
        stretch = (second / plain).log() / 2
        assert 0.18 < float(stretch.max()) < 0.26 and -0.24 < float(stretch.min()) < -0.13
    assert abs(float(torch.corrcoef(torch.stack((xx, yy)))[0, 1])) < 0.1 and float(xy.abs().max()) < 0.05


def test_a_shear_slants_rows_aside():
    """x is read at x + h y, so the covariance is −h times the variance of y."""
    *_, xy, yy = moments(affine(blobs(), generator(), **NONE | {"shear": 0.3}))
    aside = xy / yy
    assert 0.28 < float(aside.abs().max()) < 0.31 and abs(float(aside.mean())) < 0.02


def test_upright_takes_center_and_slant_out():
    slanted = affine(blobs(20), generator(), **NONE | {"shift": 2.0, "shear": 0.5})
    for x in (slanted, digits()):
        cx, cy, _, xy, yy = moments(upright(x))
        assert float((cx - 13.5).abs().max()) < 0.25 and float((cy - 13.5).abs().max()) < 0.25
        before = moments(x)
        assert float((xy / yy).abs().max()) < 0.15 < float((before[3] / before[4]).abs().max())


def test_upright_leaves_an_empty_image():
    empty = torch.zeros(1, 784)
    torch.testing.assert_close(upright(empty), empty)


@pytest.mark.parametrize("function", (affine, upright))
@pytest.mark.parametrize("images", (torch.zeros(3, 784).byte(), torch.zeros(3, 28, 28), torch.zeros(3, 783)))
def test_what_is_no_row_of_pixels_is_refused_in_words(function, images):
    with pytest.raises(ValueError, match=r"rows \(N, 784\) of floating-point numbers.*divide pixels by 256 first"):
        function(images)


def stroke(shift):
    """A line of ink through the middle that goes ``shift`` columns to the right for each row up."""
    x = torch.zeros(28, 28)
    for i in range(8, 20):
        x[i, round(14 - shift * (i - 14))] = 1
    return x.flatten()


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_slant_is_the_slope_of_a_stroke(shift):
    assert float(slant(stroke(shift))) == pytest.approx(shift, abs=1e-5)
    assert float(slant(0.3 * stroke(shift))) == pytest.approx(shift, abs=1e-5), "not a matter of how dark it is"


def test_slant_of_no_ink_is_a_number_and_thickness_is_mean_ink():
    assert float(slant(torch.zeros(784))) == 0
    assert float(thickness(stroke(0.0))) == pytest.approx(12 / 784)
