"""Flow: log p(x) = log p_Z(f(x)) + log|det|, samples that follow it, stacks, contexts, dtypes and words."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Generator, Tensor, nn

from flowlab import Flow, fit, realnvp
from flowlab.bijections import (
    AffineCoupling,
    Bijection,
    Chain,
    FullAffine,
    Inverse,
    Logit,
    NotStackable,
    ScaleShift,
    ShapeError,
    SinhArcsinh,
)
from flowlab.datasets import Pinwheel
from flowlab.densities import (
    DensityModule,
    Dequantized,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
)
from flowlab.models import flow_mixture, made


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def shaken(flow: Flow, spread: float = 0.3) -> Flow:
    draw = generator(7)
    for p in flow.bijection.parameters():
        p.data += spread * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return flow.eval()


def test_two_x_plus_three():
    """The slide deck's example: Z = (X − 3) / 2 standard normal makes X normal with mean 3 and deviation 2."""
    f = ScaleShift(1).double()
    f.log_scale.data.fill_(-math.log(2))
    f.shift.data.fill_(-1.5)
    flow = Flow(f, StandardNormal(1).double())
    x = torch.linspace(-5, 11, 33, dtype=torch.float64).unsqueeze(-1)
    truth = scipy.stats.norm(3, 2)
    torch.testing.assert_close(flow.log_prob(x), torch.as_tensor(truth.logpdf(x.squeeze(-1).numpy())))
    assert torch.equal(flow(x), flow.log_prob(x))
    assert scipy.stats.kstest(flow.sample(3000, generator()).squeeze(-1).numpy(), truth.cdf).pvalue > 0.01


@pytest.mark.parametrize("base", (StandardNormal, StandardLogistic))
def test_samples_follow_the_density_on_the_line(base):
    flow = shaken(Flow(Chain([SinhArcsinh(1), ScaleShift(1)]), base(1)).double(), 0.5)
    samples = flow.sample(4000, generator(1)).squeeze(-1)
    assert not samples.requires_grad
    low, high = samples.min().item() - 1, samples.max().item() + 1
    x = torch.linspace(low, high, 20_001, dtype=torch.float64)
    with torch.no_grad():
        cdf = flow.log_prob(x.unsqueeze(-1)).exp().cumsum(0) * float(x[1] - x[0])
    assert scipy.stats.kstest(samples.numpy(), lambda t: np.interp(t, x.numpy(), cdf.numpy())).pvalue > 0.01


def test_samples_follow_the_density_in_the_plane():
    flow = shaken(realnvp(2, layers=2, hidden=(8,), generator=generator())).double()
    samples = flow.sample(20_000, generator(2))
    edge = torch.linspace(-12, 12, 501, dtype=torch.float64)
    with torch.no_grad():
        p = flow.log_prob(torch.cartesian_prod(edge, edge)).exp()
        own = flow.log_prob(samples).exp()
    assert float(p.sum()) * float(edge[1] - edge[0]) ** 2 == pytest.approx(1, abs=1e-2)
    for level in (0.01, 0.05, 0.1):
        mass = float(p[p > level].sum()) * float(edge[1] - edge[0]) ** 2
        assert float((own > level).double().mean()) == pytest.approx(mass, abs=0.015)


def test_bounded_support_ends_where_it_should():
    flow = Flow(Inverse(Logit()), StandardUniform(1))  # sigmoid: x logistic
    x = torch.tensor([[0.0], [2.0], [-30.0]])
    torch.testing.assert_close(flow.log_prob(x), StandardLogistic(1).log_prob(x))
    outside = Flow(ScaleShift(1), StandardUniform(1)).log_prob(torch.tensor([[1.5], [0.5]]))
    assert outside.tolist() == [-math.inf, 0]


def test_stack_is_k_densities_in_one_pass():
    stack = shaken(realnvp(2, layers=3, hidden=(5,), stack=3, generator=generator()))
    x = torch.randn(7, 2, generator=generator(1))
    log_p = stack.log_prob(x.expand(3, 7, 2))
    assert log_p.shape == (3, 7)
    for k in range(3):
        single = realnvp(2, layers=3, hidden=(5,), generator=generator())
        own = single.state_dict()
        single.load_state_dict({n: v if v.shape == own[n].shape else v[k] for n, v in stack.state_dict().items()})
        torch.testing.assert_close(single.eval().log_prob(x), log_p[k])
    samples = stack.sample(6, generator(3))
    assert samples.shape == (3, 6, 2) and not torch.equal(samples[0], samples[1])
    with pytest.raises(ShapeError, match=r"shape \(3, .* x\.expand\(3, \*x\.shape\)"):
        stack.log_prob(x)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_a_stack_drops_gradients_too_small_for_float32_alone(dtype):
    """Flow 0 has a part in all points, flow 1 next to none, flow 2 a small one. Double precision keeps them all."""
    flow = shaken(realnvp(2, layers=2, hidden=(5,), stack=3, generator=generator())).to(dtype)
    x = torch.randn(3, 7, 2, generator=generator(2), dtype=dtype)
    weight = next(p for n, p in flow.named_parameters() if n.endswith("last.weight"))
    ones, small = (
        torch.autograd.grad(flow.log_prob(x), weight, torch.tensor(g, dtype=dtype)[:, None].expand(3, 7))[0]
        for g in ((1.0, 1.0, 1.0), (1.0, 1e-31, 1e-20))
    )
    assert (ones.flatten(1).abs().amax(1) > 1e-3).all()
    torch.testing.assert_close(small[0], ones[0], rtol=0, atol=0)
    torch.testing.assert_close(1e20 * small[2], ones[2])
    torch.testing.assert_close(1e31 * small[1], ones[1] if dtype == torch.float64 else torch.zeros_like(ones[1]))


def test_context_reaches_density_and_samples():
    flow = shaken(Flow(AffineCoupling([True, False], context_features=1), StandardNormal(2)))
    x, c = torch.randn(6, 2, generator=generator()), torch.randn(6, 1, generator=generator(1))
    assert not torch.allclose(flow.log_prob(x, c), flow.log_prob(x, c + 1))
    same = [flow.sample(4, generator(2), context=context) for context in (c, c, c + 1)]
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])
    assert same[0].shape == (4, 6, 2), "four for each of six contexts"
    x, log_p = flow.draw(4, generator(2), c)
    torch.testing.assert_close(log_p, flow.log_prob(x, c))
    torch.testing.assert_close(flow.sample(4, generator(3), c[0]), flow.sample(4, generator(3), c[:1])[:, 0])


def test_one_context_serves_many_points_and_one_point_many_contexts():
    flow = shaken(Flow(AffineCoupling([True, False], context_features=1), StandardNormal(2)))
    x, c = torch.randn(6, 2, generator=generator()), torch.randn(6, 1, generator=generator(1))
    torch.testing.assert_close(flow.log_prob(x, c[0]), flow.log_prob(x, c[:1].expand(6, 1)))
    torch.testing.assert_close(flow.log_prob(x[0], c), flow.log_prob(x[:1].expand(6, 2), c))
    for bad, words in (
        (c[:5], r"one context for all x, or one for each, .* \(6, 2\) .* \(5, 1\)"),
        (torch.zeros(6, 3), r"expected a context of 1 features, but got .*\(6, 3\)"),
        (None, "expected a context of 1 features beside x, but got none"),
    ):
        with pytest.raises(ValueError, match=words):
            flow.log_prob(x, bad)
    for density in (realnvp(2), StandardNormal(2), GaussianMixture(torch.eye(2))):
        with pytest.raises(ValueError, match="expected no context features, but got"):
            density.log_prob(x, c)
        with pytest.raises(ValueError, match="expected no context features, but got"):
            density.sample(3, context=c)


def test_gradients_pass_through_draws_to_weights_and_context():
    flow = shaken(Flow(AffineCoupling([True, False], context_features=1), StandardNormal(2)))
    c = torch.randn(6, 1, generator=generator(1), requires_grad=True)
    x, log_p = flow.draw(4, generator(2), c)
    (x.sum() + log_p.sum()).backward()
    assert c.grad.abs().min() > 0
    assert all(p.grad.isfinite().all() for p in flow.parameters())
    assert not flow.sample(4, generator(2), c).requires_grad


def test_samples_come_from_the_generator_alone():
    flow, state = shaken(realnvp(2, layers=2)), torch.get_rng_state()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, c = (flow.sample(5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_dtype_follows_to():
    flow = shaken(realnvp(3, layers=2, base=GaussianMixture(torch.eye(3))))
    x = torch.randn(5, 3, generator=generator())
    wide = flow.log_prob(x).double()
    flow = flow.to(torch.float64)
    assert flow.sample(2).dtype == torch.float64
    torch.testing.assert_close(flow.log_prob(x.double()), wide, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "convert", (Tensor.double, Tensor.half, Tensor.numpy, lambda x: x.double().numpy(), Tensor.tolist)
)
def test_a_flow_takes_numbers_of_other_dtypes(convert):
    flow, x = shaken(realnvp(2)), torch.randn(5, 2, generator=generator()).half().float()
    log_p = flow.log_prob(convert(x))
    assert log_p.dtype == torch.float32
    torch.testing.assert_close(log_p, flow.log_prob(x))


def test_a_flow_of_two_dtypes_takes_the_wider_one():
    flow = Flow(FullAffine(2), GaussianMixture(torch.eye(2).double()))
    assert flow.sample(3).dtype == flow.log_prob(torch.zeros(5, 2)).dtype == torch.float64


@pytest.mark.parametrize("shape", ((5, 3), (2,), ()))
def test_other_shape_is_refused_in_words(shape):
    flow = Flow(FullAffine(4), StandardNormal(4))
    with pytest.raises(ShapeError) as error:
        flow.log_prob(torch.zeros(shape))
    assert f"expected shape (..., 4), but got {shape}" in str(error.value)


def test_a_map_without_a_size_takes_that_of_the_base():
    with pytest.raises(ValueError, match=r"Flow expected shape \(..., 2\), but got \(5, 3\)"):
        Flow(Logit(), StandardNormal(2)).log_prob(torch.full((5, 3), 0.5))


def test_bijection_and_base_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"base of 3 dimensions, .* but got 2"):
        Flow(ScaleShift(3), StandardNormal(2))
    with pytest.raises(NotStackable, match="stack=3, but got stack=None"):
        Flow(ScaleShift(2, stack=3), StandardNormal(2))
    with pytest.raises(NotStackable, match="stack=3, but got stack=None"):
        realnvp(2, stack=3, base=GaussianMixture(torch.eye(2)))


# --- samples of any shape, and of whole numbers -----------------------------------------------------------------------


class ScaleOfOne(Bijection):
    """z = e^a x of single numbers: a sample has no axis."""

    def __init__(self) -> None:
        super().__init__(())
        self.a = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, context=None):
        self.check(x)
        return x * self.a.exp(), self.batch_log_det(self.a, x)

    def inverse(self, z, context=None):
        self.check(z)
        return z * (-self.a).exp(), self.batch_log_det(-self.a, z)


@pytest.mark.parametrize("base", (StandardNormal, StandardLogistic, StandardUniform))
def test_a_sample_may_be_a_single_number(base):
    f, p = Chain([ScaleOfOne(), Inverse(ScaleOfOne()), ScaleOfOne()]), base(())
    flow = Flow(f, p)
    x = flow.sample(7, generator())
    assert f.event_dim == 0 and flow.event_shape == () and flow.features == 1 and x.shape == (7,)
    z = x * math.exp(0.5)
    expected = base(1).log_prob(z.unsqueeze(-1)) + 0.5
    torch.testing.assert_close(flow.log_prob(x), expected)
    torch.testing.assert_close(flow.log_prob(x[0]), expected[0])
    torch.testing.assert_close(flow.draw(7, generator())[1], expected)
    assert f[:0](x)[1].shape == (7,) and "ScaleOfOne(())" in str(flow)
    history = fit(flow, x, steps=3, progress=False)
    assert history.step == 3


def test_the_shape_of_an_event_says_how_many_axes_it_has():
    """A map that gives the shape of its images need not say a second time that these have three axes."""
    f = Bijection((1, 2, 3))
    assert f.event_dim == 3 and f.batch_log_det(torch.zeros(()), torch.zeros(5, 4, 1, 2, 3)).shape == (5, 4)


class OneMore(Bijection):
    """v + 1, of whole numbers."""

    domain = "whole"

    def __init__(self) -> None:
        super().__init__(3)

    def forward(self, x, context=None):
        self.check(x)
        return x + 1, torch.zeros(x.shape[:-1])

    def inverse(self, z, context=None):
        self.check(z)
        return z - 1, torch.zeros(z.shape[:-1])


class UpToNine(DensityModule):
    """Whole numbers from 0 to 9, all as probable."""

    domain = "whole"

    def log_prob(self, x, context=None, *, generator=None):
        x = self.accept(x)
        outside = ((x < 0) | (x > 9)).any(-1)
        return torch.where(outside, -math.inf, self.anchor - 3 * math.log(10))

    def draw(self, n, generator=None, context=None):
        x = torch.randint(10, (n, 3), generator=generator)
        return x, self.log_prob(x)


def test_a_flow_of_whole_numbers():
    """They pass no float on their way, where large ones would be rounded."""
    flow = Flow(Chain([OneMore(), Inverse(OneMore()), OneMore()]), UpToNine(3))
    assert flow.domain == flow.bijection.domain == Inverse(OneMore()).domain == "whole"
    v = flow.sample(50, generator())
    assert v.dtype == torch.int64 and (v.min(), v.max()) == (-1, 8)
    expected = torch.full((50,), -3 * math.log(10))
    for given in (v, v.numpy(), v.tolist(), v.to(torch.int8)):
        torch.testing.assert_close(flow.log_prob(given), expected)
    assert flow.log_prob(v + 10).isneginf().all()
    large = OneMore()(torch.tensor([2**53, 2**53, 2**53]))[0]
    assert large.tolist() == [2**53 + 1] * 3
    with pytest.raises(TypeError, match="Flow expected whole numbers, but got torch"):
        flow.log_prob(v.float())


def test_real_and_whole_numbers_are_not_mixed():
    with pytest.raises(ValueError, match="Chain expected maps of real numbers or maps of whole numbers, but got both"):
        Chain([OneMore(), ScaleShift(3)])
    for bijection, base in ((OneMore(), StandardNormal(3)), (ScaleShift(3), UpToNine(3))):
        with pytest.raises(ValueError, match="Flow expected bijection and base of one domain, but got a bijection of"):
            Flow(bijection, base)


def test_a_base_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match="Flow expected a DensityModule as its base, but got Pinwheel"):
        Flow(ScaleShift(2), Pinwheel())


# --- many contexts, and none ------------------------------------------------------------------------------------------


def test_contexts_may_be_none_at_all_and_a_stack_wants_its_own():
    flow = shaken(realnvp(2, 2, hidden=(5,), context_features=3, generator=generator()))
    x, log_p = flow.draw(4, generator(), torch.zeros(0, 3))
    assert x.shape == (4, 0, 2) and log_p.shape == (4, 0) and flow.log_prob(x, torch.zeros(0, 3)).shape == (4, 0)
    stack = realnvp(2, 2, hidden=(5,), context_features=3, stack=2, generator=generator())
    for context in (torch.zeros(3), torch.zeros(5, 3)):
        with pytest.raises(
            ValueError, match=r"Flow is a stack of 2 and expected contexts with a leading axis of 2, bu"
        ):
            stack.draw(4, generator(), context)
    assert stack.draw(4, generator(), torch.zeros(5, 3).expand(2, 5, 3))[0].shape == (2, 4, 5, 2)


@pytest.mark.parametrize(
    "wrong", (0, "cpu", np.random.default_rng(0), torch.zeros(4, 3)), ids=lambda w: type(w).__name__
)
def test_what_is_no_generator_is_refused_wherever_one_is_drawn_from(wrong):
    """A seed in its place is the usual mistake."""
    pixels = Dequantized(realnvp(2, 1, logit=1e-6))
    for call in (
        lambda: realnvp(2, generator=wrong),
        lambda: flow_mixture(2, 2, generator=wrong),
        lambda: realnvp(2, 1).sample(3, wrong),
        lambda: made(2).draw(3, wrong),
        lambda: flow_mixture(2, 2).sample(3, wrong),
        lambda: GaussianMixture(torch.eye(2)).sample(3, wrong),
        lambda: pixels.sample(3, wrong),
        lambda: pixels.log_prob(torch.zeros(3, 2, dtype=torch.uint8), generator=wrong),
    ):
        with pytest.raises(TypeError, match=f"Expected a torch.Generator, .* but got a {type(wrong).__name__}"):
            call()
