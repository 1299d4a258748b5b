"""Maps of images."""

import pytest
import torch
from torch import Generator, Tensor

from bijections.battery import image, jacobian, randomized
from flowlab.bijections import (
    ActNorm,
    AffineImageCoupling,
    AsImage,
    Chain,
    Channelwise,
    FactorOut,
    Inverse,
    InvertibleConvolution,
    Logit,
    MonotoneSum,
    NotStackable,
    Permutation,
    ScaleShift,
    ShapeError,
    Squeeze,
    channel_mask,
    starting,
)
from flowlab.densities import Flow, StandardNormal


def test_squeeze_makes_channels_of_blocks():
    x = torch.arange(16.0).reshape(1, 4, 4)
    z, log_det = Squeeze()(x)
    assert z.tolist() == [[[0, 2], [8, 10]], [[1, 3], [9, 11]], [[4, 6], [12, 14]], [[5, 7], [13, 15]]]
    assert log_det == 0
    x = image(2, 5, 3, 6, 4)
    assert torch.equal(Squeeze()(x)[0], torch.nn.functional.pixel_unshuffle(x, 2))
    assert torch.equal(Squeeze().inverse(Squeeze()(x)[0])[0], x)


@pytest.mark.parametrize("size", ((3, 4), (4, 3), (1, 1)))
def test_squeeze_refuses_odd_sizes_in_words(size):
    with pytest.raises(
        ShapeError, match=rf"even height and width, but got \(9, 2, {size[0]}, {size[1]}\): pad or crop"
    ):
        Squeeze()(image(9, 2, *size))


def test_squeeze_undoes_only_what_it_can_have_made():
    with pytest.raises(ShapeError, match=r"channels in fours, but got \(9, 6, 2, 2\)"):
        Squeeze().inverse(image(9, 6, 2, 2))


def test_invertible_convolution_is_torchs_convolution():
    f, x = randomized(InvertibleConvolution(3), 0.5).double(), image(5, 3, 4, 2)
    W = f.bijection(torch.eye(3, dtype=torch.float64))[0].mT
    z, log_det = f(x)
    torch.testing.assert_close(z, torch.nn.functional.conv2d(x, W[:, :, None, None]))
    torch.testing.assert_close(log_det, (4 * 2 * torch.linalg.slogdet(W).logabsdet).expand(5))
    rotation = InvertibleConvolution(6, generator=Generator().manual_seed(0)).bijection(torch.eye(6))[0]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(6), rtol=0, atol=1e-5)
    same = InvertibleConvolution(3, rotate=False)
    assert torch.equal(same(x.float())[0], x.float())


def test_actnorm_for_images_starts_each_channel_from_all_pixels():
    x = 3 + image(20, 2, 4, 5) * torch.tensor([1.0, 7.0])[:, None, None]
    f = Channelwise(ActNorm(2)).double()
    with starting(f):
        z, log_det = f(x)
    assert f.bijection.log_scale.shape == (2,), "one scale a channel"
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(log_det, (-20 * x.std((0, 2, 3), correction=0).log().sum()).expand(20))


@pytest.mark.parametrize(
    "f",
    (Channelwise(ActNorm(3)), InvertibleConvolution(3), FactorOut(3), AffineImageCoupling(channel_mask(3), 2)),
    ids=lambda f: type(f),
)
def test_other_channels_are_refused_in_words(f):
    for apply in (f, f.inverse):
        with pytest.raises(
            ShapeError, match=rf"{type(f).__name__} expected shape \(..., 3, H, W\), but got \(7, 2, 4, 4\)"
        ):
            apply(torch.zeros(7, 2, 4, 4))


def two_scales(stack: int | None = None) -> FactorOut:
    rest = Chain([Squeeze(), InvertibleConvolution(8, stack=stack), FactorOut(8, stack=stack), Inverse(Squeeze())])
    return randomized(FactorOut(4, rest, stack=stack), 0.2).double()


def test_factor_out_is_the_unsplit_computation():
    """The same numbers by the chain rule of densities: log p(x) = log p(z_fine | x_a) + log p(x_a), scale by scale."""
    f, x = two_scales(), image(6, 4, 4, 4)

    def half(layer: FactorOut, h: Tensor) -> tuple[Tensor, Tensor]:
        a, b = h.chunk(2, dim=1)
        weight, bias = layer.conditioner.parameters()
        s, mean = torch.nn.functional.conv2d(a, weight, bias, padding=1).chunk(2, dim=1)
        fine = torch.distributions.Normal(mean, (2 * torch.tanh(s)).exp())
        return a, fine.log_prob(b).sum((1, 2, 3))

    a, first = half(f, x)
    h, log_det = f.rest[1](torch.nn.functional.pixel_unshuffle(a, 2))
    a, second = half(f.rest[2], h)
    last = torch.distributions.Normal(0, 1).log_prob(a).sum((1, 2, 3))
    flow = Flow(AsImage((4, 4, 4), f), StandardNormal(64)).double()
    torch.testing.assert_close(flow.log_prob(x.flatten(1)), first + log_det + second + last)
    x = flow.sample(5, Generator().manual_seed(0))
    assert x.shape == (5, 64) and torch.isfinite(flow.log_prob(x)).all()


def test_factored_out_half_listens_to_the_other_and_not_the_reverse():
    f, x = randomized(FactorOut(3), 0.5).double(), image(4, 3, 3, 3)
    J = jacobian(f, x, 3).reshape(4, 3, 9, 3, 9)
    assert torch.equal(J[:, 0, :, 0], torch.eye(9, dtype=torch.float64).expand(4, 9, 9)), "one of three goes on"
    assert (J[:, 0, :, 1:] == 0).all()
    for b in (1, 2):
        near = (J[:, b, :, 0] != 0).any(0)
        assert near[4].all() and not near[0, 8], "a pixel listens to its neighbors"
        assert (J[:, b, :, 3 - b] == 0).all(), "and the channels that leave ignore each other"


def test_factor_out_starts_at_the_identity_and_its_log_scale_is_bounded():
    x = image(500, 2, 1, 1).float()
    assert torch.equal(FactorOut(2)(x)[0], x)
    f = randomized(FactorOut(2, log_scale_bound=0.5), 100.0)
    for _, log_det in (f(x), f.inverse(x)):
        assert 0.99 * 0.5 < log_det.abs().max() <= 0.5 * (1 + 1e-6)


def test_what_cannot_be_factored_out_is_refused_in_words():
    with pytest.raises(ShapeError, match="two channels or more, but got 1: squeeze first"):
        FactorOut(1)
    with pytest.raises(NotStackable, match="stack=2 expected the rest to be one too, but got 3"):
        FactorOut(4, InvertibleConvolution(2, stack=3), stack=2)
    with pytest.raises(NotStackable, match="stack=None"):
        FactorOut(4, InvertibleConvolution(2, stack=3))
    for f in (FactorOut(8, Squeeze()), AsImage((8, 4, 4), Squeeze())):
        x = torch.zeros(5, 8, 4, 4) if isinstance(f, FactorOut) else torch.zeros(5, 128)
        for apply in (f, f.inverse):
            with pytest.raises(ShapeError, match=rf"{type(f).__name__} expected a map that keeps .*Inverse\(Squeeze"):
                apply(x)


VECTOR_AND_IMAGE = "maps of vectors or maps of images, but got both"


@pytest.mark.parametrize(
    "build, words",
    (
        (lambda: Chain([Logit(), InvertibleConvolution(4)]), VECTOR_AND_IMAGE),
        (lambda: Chain([InvertibleConvolution(4), Chain([])]), VECTOR_AND_IMAGE),
        (lambda: FactorOut(4, Chain([])), "FactorOut expected a map of images, but got Chain"),
        (lambda: FactorOut(4, ScaleShift(4)), "FactorOut expected a map of images, but got ScaleShift"),
        (lambda: AsImage((4, 4, 4), ScaleShift(4)), "AsImage expected a map of images, but got ScaleShift"),
        (lambda: AsImage((4, 4), Squeeze()), r"AsImage expected a shape \(C, H, W\), but got \(4, 4\)"),
        (lambda: Channelwise(Logit()), "Channelwise expected a map of vectors of a known length, .* but got Logit"),
        (lambda: Channelwise(Squeeze()), "Channelwise expected a map of vectors .* but got Squeeze"),
        (lambda: Flow(InvertibleConvolution(4), StandardNormal(4)), r"of vectors, .* put it in AsImage\(\(C, H, W\)"),
    ),
)
def test_a_map_of_vectors_is_none_of_images(build, words):
    """On images of 4×4×4 each of these once gave a log |det| for every row of pixels, or every pixel, and no error."""
    with pytest.raises(ShapeError, match=words):
        build()


def test_as_image_reads_rows_of_pixels():
    f = AsImage((1, 2, 2), Chain([Squeeze(), Channelwise(Permutation([3, 2, 1, 0])), Inverse(Squeeze())]))
    assert f(torch.tensor([1.0, 2.0, 3.0, 4.0]))[0].tolist() == [4, 3, 2, 1]
    assert f.event_shape == (4,) and f.event_dim == 1


@pytest.mark.parametrize("wrap", (Channelwise, lambda b: AsImage((2, 1, 1), Channelwise(b))))
def test_numeric_inverses_show_through_images(wrap):
    assert wrap(MonotoneSum(2)).inverse_is_numeric and not wrap(ScaleShift(2)).inverse_is_numeric
    assert FactorOut(4, Channelwise(MonotoneSum(2))).inverse_is_numeric
