"""The recipes of images: the multi-scale flows, their latent of all scales, their sizes, and what they learn."""

import math

import pytest
import torch
from torch import Generator

import flowlab
from flowlab.bijections import (
    ActNorm,
    AdditiveImageCoupling,
    AffineImageCoupling,
    AsImage,
    Chain,
    Channelwise,
    FactorOut,
    Inverse,
    InvertibleConvolution,
    Logit,
    Permutation,
    ShapeError,
    Squeeze,
    starting,
)
from flowlab.datasets import mnist
from flowlab.densities.mixtures import FlowMixture
from flowlab.models import glow, realnvp_image

OF_IMAGES = {"realnvp_image": realnvp_image, "glow": glow}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def kinds(flow: flowlab.Flow) -> list[type]:
    return [type(b) for b in flow.bijection]


def layers(f: Chain) -> list:
    """What a chain of images is made of, a FactorOut as a list of its own: what goes on from there."""
    found = []
    for b in f:
        found.append(type(b.bijection) if type(b) in (Channelwise, Inverse) else type(b))
        if isinstance(b, FactorOut):
            found.append(layers(b.rest))
    return found


def images_of(flow: flowlab.Flow) -> Chain:
    assert isinstance(flow.bijection[-1], AsImage)
    return flow.bijection[-1].bijection


def test_what_a_flow_of_images_is_made_of():
    step = [ActNorm, InvertibleConvolution, AffineImageCoupling]
    flow = glow((1, 8, 8), 2, steps=2)
    # InvertibleConvolution is a Channelwise of its own kind.
    assert layers(images_of(flow)) == [Squeeze, *step, *step, FactorOut, [Squeeze, *step, *step, Squeeze], Squeeze]
    assert kinds(flow) == [Logit, AsImage] and flow.bijection[0].lambda_ == 1e-5
    assert kinds(glow((1, 8, 8), logit=None)) == [AsImage]
    flow = glow((1, 8, 8), 1, steps=1, mixing="reverse", coupling="additive")
    assert layers(images_of(flow)) == [Squeeze, ActNorm, Permutation, AdditiveImageCoupling, Squeeze]
    assert images_of(flow)[2].bijection.order.tolist() == [3, 2, 1, 0]
    step = [ActNorm, AffineImageCoupling]
    flow = realnvp_image((3, 4, 8), 2, layers=2)
    assert layers(images_of(flow)) == [*step, *step, Squeeze, *step, *step, FactorOut, [*step, *step, *step], Squeeze]
    boards = [b.mask for b in images_of(flow) if isinstance(b, AffineImageCoupling)]
    assert [b.shape for b in boards] == [(3, 4, 8)] * 2 + [(12, 1, 1)] * 2
    assert all(torch.equal(~boards[i], boards[i + 1]) for i in (0, 2)), "what passed moves next"
    rest = next(b for b in images_of(flow) if isinstance(b, FactorOut)).rest
    assert [b.mask.shape for b in rest if isinstance(b, AffineImageCoupling)] == [(6, 2, 4)] * 3


def test_settings_reach_the_layers_of_images():
    for build, count in ((glow, {"steps": 1}), (realnvp_image, {"layers": 1})):
        flow = build((1, 4, 4), 1, hidden=5, blocks=3, context_features=2, logit=0.01, **count)
        coupling = next(b for b in images_of(flow) if isinstance(b, AffineImageCoupling))
        network = coupling.network
        assert (len(network.first.bias), len(network.blocks), network.context_features) == (5, 3, 2)
        assert flow.bijection[0].lambda_ == 0.01
    assert float(images_of(realnvp_image((1, 2, 2), 1, log_scale_bound=1.5))[1].law.log_scale_bound) == 1.5


def small(name: str, stack: int | None = None, **settings) -> flowlab.Flow:
    """Two scales on 4×4 pixels, in float64, started from data and then shaken."""
    draw = generator(1)
    count = {"steps": 1} if name == "glow" else {"layers": 1}
    flow = OF_IMAGES[name]((1, 4, 4), 2, hidden=3, blocks=1, stack=stack, generator=draw, **count, **settings).double()
    context = settings.get("context_features")
    flow.log_prob(pixels(9, 16, stack), torch.ones(context).double() if context else None)
    for p in flow.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return flow.eval()


def pixels(n: int, features: int, stack: int | None = None) -> torch.Tensor:
    return torch.rand(*((stack,) if stack else ()), n, features, generator=generator(3), dtype=torch.float64)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_log_prob_of_images_is_that_of_the_whole_jacobian(name):
    flow, x = small(name), pixels(3, 16)
    z, log_det = flow.bijection(x)
    assert z.shape == (3, 16), "all scales in one latent"
    J = torch.stack([torch.autograd.functional.jacobian(lambda x: flow.bijection(x)[0], one) for one in x])
    torch.testing.assert_close(log_det, torch.linalg.slogdet(J).logabsdet)
    expected = torch.distributions.Normal(0, 1).log_prob(z).sum(-1) + log_det
    torch.testing.assert_close(flow.log_prob(x), expected)
    back, inverse_log_det = flow.bijection.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_samples_of_images_are_rows_of_pixels(name):
    x = small(name).sample(7, generator(2))
    assert x.shape == (7, 16) and x.dtype == torch.float64
    assert (x >= -1e-4).all() and (x <= 1 + 1e-4).all(), "the Logit brings them back to pixels"
    flow = small(name, logit=None)
    x = flow.sample(7, generator(2))
    assert (x < -0.1).any() and torch.isfinite(flow.log_prob(x)).all()
    torch.testing.assert_close(flow.bijection(x)[0], flow.base.sample(7, generator(2)), rtol=1e-6, atol=1e-6)
    assert flow.float().sample(7, generator(2)).dtype == torch.float32


@pytest.mark.parametrize("name", OF_IMAGES)
def test_half_of_the_latent_says_nothing_of_the_coarse_half(name):
    """A level lets half of the numbers go: what they are changes nothing in the half that goes on."""
    f = images_of(small(name))
    split = next(i for i, b in enumerate(f) if isinstance(b, FactorOut))
    x = pixels(2, 16).reshape(2, 1, 4, 4)
    h = f[:split](x)[0]
    z = f[split](h)[0]
    z[:, 2:] += 1
    again = f[split].inverse(z)[0]
    torch.testing.assert_close(again[:, :2], h[:, :2], rtol=1e-9, atol=1e-9)
    assert (again[:, 2:] - h[:, 2:]).abs().min() > 1e-3


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("stack", (None, 2))
def test_first_batch_starts_every_actnorm_of_every_level(name, stack):
    flow = OF_IMAGES[name]((1, 8, 8), 2, hidden=3, blocks=1, stack=stack, generator=generator())
    norms = [m for m in flow.modules() if isinstance(m, ActNorm)]
    # All couplings are moved off the identity first, so that a wrong order of starting would show.
    for m in flow.modules():
        if isinstance(m, AffineImageCoupling):
            last = m.network.last.weight
            last.data = 0.1 * torch.randn(last.shape, generator=generator(4))
    x = pixels(20, 64, stack).float() ** 3
    with starting(flow):
        flow.log_prob(x)
    out = []
    for m in norms:
        assert m.initialized
        m.register_forward_hook(lambda m, _, result: out.append(result[0]))
    flow.eval().log_prob(x)
    assert len(out) == len(norms) > 5
    for z in out:
        z = z.reshape(stack or 1, -1, z.shape[-1])
        torch.testing.assert_close(z.mean(1), torch.zeros_like(z[:, 0]), rtol=0, atol=1e-4)
        torch.testing.assert_close(z.std(1, correction=0), torch.ones_like(z[:, 0]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_stack_of_flows_of_images_is_separate_ones_and_mixes(name):
    flows, single, x = small(name, stack=2), small(name), pixels(5, 16, 2)
    log_p = flows.log_prob(x)
    for k in range(2):
        own = single.state_dict()
        for entry, value in flows.state_dict().items():
            own[entry] = value if value.shape == own[entry].shape else value[k]
        single.load_state_dict(own)
        torch.testing.assert_close(log_p[k], single.log_prob(x[k]))
    mixture = FlowMixture(flows.float(), hidden=(4,), generator=generator())
    assert mixture.log_prob(x[0].float()).shape == (5,) and mixture.sample(3, generator()).shape == (3, 16)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_context_moves_a_flow_of_images(name):
    flow, x = small(name, context_features=2, logit=None).float().eval(), pixels(3, 16).float()
    assert not torch.allclose(flow.log_prob(x, torch.zeros(3, 2)), flow.log_prob(x, torch.ones(3, 2)))
    assert flow.sample(3, generator(), torch.ones(2)).shape == (3, 16)


FEWER = ", or take scales=2"


@pytest.mark.parametrize(
    "build, shape, scales, words",
    (
        (
            glow,
            (1, 28, 28),
            3,
            r"scales=3 halves height and width 3 times: expected multiples of 8, but got images of 28×28: .* 32×32"
            + FEWER,
        ),
        (glow, (1, 27, 28), 2, r"2 times: expected multiples of 4, but got images of 27×28: pad them to 28×28\."),
        (
            glow,
            (1, 7, 7),
            1,
            r"scales=1 halves height and width once: expected multiples of 2, but got images of 7×7: pad them to 8×8\.",
        ),
        (
            realnvp_image,
            (1, 14, 12),
            3,
            r"2 times: expected .* of 4, but got images of 14×12: pad them to 16×12" + FEWER,
        ),
        (
            realnvp_image,
            (1, 7, 7),
            2,
            r"once: expected multiples of 2, but got images of 7×7: pad them to 8×8, or take scales=1",
        ),
        (glow, (28, 28), 2, r"expected images of a shape \(C, H, W\), but got \(28, 28\)"),
        (glow, (1, 28, 28), 0, "glow expected at least one scale, but got 0"),
    ),
)
def test_sizes_that_do_not_halve_are_refused_with_what_would_do(build, shape, scales, words):
    with pytest.raises(ShapeError, match=words):
        build(shape, scales)


def test_odd_images_are_fine_where_nothing_halves_them():
    flow = realnvp_image((1, 7, 5), 1, hidden=2, blocks=1, generator=generator())
    assert flow.sample(2, generator()).shape == (2, 35)


def test_unknown_coupling_or_mixing_is_refused_in_words():
    with pytest.raises(ValueError, match="coupling to be one of 'affine', 'additive', but got 'spline'"):
        glow((1, 4, 4), coupling="spline")
    with pytest.raises(ValueError, match="mixing to be one of 'convolution', 'shuffle', 'reverse', but got 'none'"):
        glow((1, 4, 4), mixing="none")


@pytest.mark.parametrize("name", OF_IMAGES)
def test_weights_of_images_come_from_the_generator_alone(name):
    state = torch.get_rng_state()
    a, b, c = (OF_IMAGES[name]((1, 4, 4), 2, hidden=2, generator=generator(seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert all(torch.equal(a[entry], b[entry]) for entry in a)
    assert any(not torch.equal(a[entry], c[entry]) for entry in a)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_few_steps_on_digits_help(name):
    """Bits per dimension of test digits at half the resolution, with uniform noise; before, ActNorm has its start."""
    size = {"scales": 1, "steps": 3} if name == "glow" else {"scales": 2, "layers": 1}
    flow = OF_IMAGES[name]((1, 14, 14), hidden=8, blocks=1, generator=generator(), **size)
    draw = generator(1)

    def batch(split: str, n: int) -> torch.Tensor:
        v = mnist.halve(mnist.digits(split)[0][::17][:n]).flatten(1)
        return (v + torch.rand(v.shape, generator=draw)) / 256

    def bits() -> float:
        with torch.no_grad():
            return 8 - float(flow.eval()(held_out).mean()) / (196 * math.log(2))

    x, held_out = batch("train", 256), batch("test", 50)
    with starting(flow):
        flow(x)
    before = bits()
    adam = torch.optim.Adam(flow.train().parameters(), lr=1e-2)
    for _ in range(20):
        adam.zero_grad()
        (-flow(x[torch.randperm(len(x), generator=draw)[:64]]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 500)
        adam.step()
    assert bits() < before - 0.5
