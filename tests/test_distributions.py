"""DensityModule densities against scipy and torch.distributions, and samples against the densities."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from flowlab.densities import (
    AutoregressiveMixture,
    DensityModule,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    StandardUniform,
)

STANDARD = {
    "normal": (StandardNormal, scipy.stats.norm()),
    "logistic": (StandardLogistic, scipy.stats.logistic()),
    "uniform": (StandardUniform, scipy.stats.uniform()),
}


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def mixture(**settings) -> GaussianMixture:
    means = torch.tensor([[0.0, 0.0], [3.0, 1.0], [-2.0, 4.0]], dtype=torch.float64)
    A = torch.randn(3, 2, 2, generator=generator(4), dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    return GaussianMixture(means, A @ A.mT + 0.3 * torch.eye(2), weights=weights, **settings)


def made(D: int = 2, components: int = 3, spread: float = 0.5, **settings) -> AutoregressiveMixture:
    draw = generator(6)
    base = AutoregressiveMixture(D, components, hidden=(9, 8), activation="tanh", generator=draw, **settings).double()
    for p in base.parameters():
        p.data += spread * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return base.requires_grad_(False)


def as_torch(base: GaussianMixture, covariances: Tensor | None = None) -> torch.distributions.MixtureSameFamily:
    L = base._scale_tril().detach()
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=base.logits.detach()),
        torch.distributions.MultivariateNormal(base.means.detach(), scale_tril=L),
    )


@pytest.mark.parametrize("name", STANDARD)
@given(seed=st.integers(0, 2**31), D=st.integers(1, 5), batch=st.lists(st.integers(0, 3), max_size=2).map(tuple))
def test_standard_densities_are_scipys(name, seed, D, batch):
    build, truth = STANDARD[name]
    z = 3 * torch.randn(*batch, D, generator=generator(seed), dtype=torch.float64)
    value = build(D).log_prob(z)
    assert value.shape == batch and value.dtype == torch.float64
    expected = torch.as_tensor(truth.logpdf(z.numpy())).sum(-1)
    torch.testing.assert_close(value, expected.reshape(batch), rtol=1e-12, atol=1e-12)


def test_far_out_values_stay_finite():
    far = torch.tensor([[1e4], [-1e4]])
    assert StandardNormal(1).log_prob(far).tolist() == pytest.approx([-5e7, -5e7])
    assert StandardLogistic(1).log_prob(far).tolist() == pytest.approx([-1e4, -1e4])
    assert StandardUniform(1).log_prob(far).tolist() == [-math.inf, -math.inf]
    assert StandardUniform(2).log_prob(torch.tensor([[0.0, 1.0], [0.5, 1.001]])).tolist() == [0, -math.inf]
    assert torch.isfinite(mixture().log_prob(torch.full((1, 2), 1e4, dtype=torch.float64))).all()


@pytest.mark.parametrize("name", STANDARD)
def test_standard_samples_follow_the_density(name):
    build, truth = STANDARD[name]
    z = build(2).sample(4000, generator(1))
    assert z.shape == (4000, 2)
    for coordinate in z.T:
        assert scipy.stats.kstest(coordinate.numpy(), truth.cdf).pvalue > 0.01
    assert abs(scipy.stats.pearsonr(*z.T.numpy()).statistic) < 0.05


def test_mixture_is_torchs_and_responsibilities_are_bayes():
    base = mixture()
    z = 4 * torch.randn(50, 3, 2, generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close(base.log_prob(z), as_torch(base).log_prob(z), rtol=1e-10, atol=1e-10)
    r = base.responsibilities(z)
    assert r.shape == (50, 3, 3)
    joint = torch.stack(
        [
            w.log() + torch.distributions.MultivariateNormal(m, scale_tril=L).log_prob(z)
            for w, m, L in zip(base.logits.softmax(-1), base.means, base._scale_tril(), strict=True)
        ],
        dim=-1,
    )
    torch.testing.assert_close(base.log_joint(z), joint)
    torch.testing.assert_close(r, (joint - joint.logsumexp(-1, keepdim=True)).exp())


def test_mixture_keeps_the_covariances_it_was_given():
    covariances = torch.tensor([[[2.0, 0.6], [0.6, 0.5]], [[1.0, 0.0], [0.0, 9.0]]])
    base = GaussianMixture(torch.zeros(2, 2), covariances)
    torch.testing.assert_close(base._scale_tril() @ base._scale_tril().mT, covariances)
    torch.testing.assert_close(base.logits.softmax(-1), torch.tensor([0.5, 0.5]))
    plain = GaussianMixture(torch.tensor([[1.0, 2.0]]))
    z = torch.randn(5, 2, generator=generator(0))
    torch.testing.assert_close(plain.log_prob(z), StandardNormal(2).log_prob(z - torch.tensor([1.0, 2.0])))


def test_mixture_samples_follow_the_density():
    base = mixture()
    z = base.sample(20_000, generator(3))
    weights = base.logits.softmax(-1)
    mean = weights @ base.means
    within = base._scale_tril() @ base._scale_tril().mT
    spread = (base.means - mean).unsqueeze(-1)
    covariance = (weights[:, None, None] * (within + spread @ spread.mT)).sum(0)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.1)
    torch.testing.assert_close(z.T.cov(), covariance, rtol=0.05, atol=0.1)
    # The share of samples above a density level is the mass of that region, whatever its shape: compare by quadrature.
    edge = torch.linspace(-15, 15, 601, dtype=torch.float64)
    p = base.log_prob(torch.cartesian_prod(edge, edge)).exp()
    for level in (0.01, 0.03, 0.06):
        mass = float(p[p > level].sum() * (edge[1] - edge[0]) ** 2)
        assert float((base.log_prob(z).exp() > level).double().mean()) == pytest.approx(mass, abs=0.015)


def every_base(stack: int | None = None) -> list[DensityModule]:
    own = [build(2, stack=stack) for build, _ in STANDARD.values()]
    own += [made(stack=stack).float()]
    return own if stack else [*own, GaussianMixture(torch.eye(2))]


@pytest.mark.parametrize("base", every_base(), ids=lambda base: type(base).__name__)
def test_samples_come_from_the_generator_alone(base):
    state = torch.get_rng_state()
    a, b, c = base.sample(5, generator(1)), base.sample(5, generator(1)), base.sample(5, generator(2))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("base", every_base(3), ids=lambda base: type(base).__name__)
def test_a_stack_draws_a_batch_for_each(base):
    z = base.sample(5, generator(1))
    assert z.shape == (3, 5, 2) and not torch.equal(z[0], z[1])
    assert base.log_prob(z).shape == (3, 5)
    for wrong in ((2, 5, 2), (2,), (5, 2)):
        with pytest.raises(ValueError) as error:
            base.log_prob(torch.zeros(wrong))
        assert f"expected shape (3, ..., 2), but got {wrong}" in str(error.value)


@pytest.mark.parametrize("base", every_base(), ids=lambda base: type(base).__name__)
def test_dtype_follows_to(base):
    for dtype in (torch.float64, torch.float32):
        base = base.to(dtype)
        z = base.sample(4, generator(0))
        assert z.dtype == base.log_prob(z).dtype == base(z).dtype == base.anchor.dtype == dtype
    assert not any("anchor" in name for name in base.state_dict())


def test_mixture_takes_dtype_from_its_means():
    base = mixture()
    assert base.anchor.dtype == base.logits.dtype == base.lower.dtype == base.sample(3).dtype == torch.float64
    single = GaussianMixture(torch.zeros(2, 2), torch.eye(2, dtype=torch.float64).repeat(2, 1, 1))
    assert single.log_prob(torch.zeros(5, 2)).dtype == torch.float32


@pytest.mark.parametrize("trainable", (True, False))
def test_mixture_trains_only_when_told(trainable):
    base = mixture(trainable=trainable)
    z = torch.randn(10, 2, generator=generator(0), dtype=torch.float64, requires_grad=True)
    base.log_prob(z).sum().backward()
    assert torch.isfinite(z.grad).all()
    for name, p in base.named_parameters():
        assert (p.grad is not None) == p.requires_grad == trainable, name
        assert not trainable or (torch.isfinite(p.grad).all() and (p.grad != 0).any()), name


def test_logistic_samples_stay_near_when_uniform_is_at_its_end(monkeypatch):
    for dtype, nearest in ((torch.float32, 2**-24), (torch.float64, 2**-53)):
        base = StandardLogistic(2).to(dtype)
        u = torch.tensor([[0.0, 1 - nearest]], dtype=dtype)
        monkeypatch.setattr(base, "_uniform", lambda n, generator, u=u: u)
        z = base.sample(1)
        # u = 0 stands for all below the smallest step, so it lies hardly farther out than u = 1 - step.
        assert torch.isfinite(z).all() and 0 < z[0, 1] < -z[0, 0] < z[0, 1] + 1


@pytest.mark.parametrize("base", every_base(), ids=lambda base: type(base).__name__)
def test_wrong_shapes_and_counts_are_refused_in_words(base):
    who = type(base).__name__
    for wrong in ((5, 3), (5,), ()):
        with pytest.raises(ValueError) as error:
            base.log_prob(torch.zeros(wrong))
        assert f"{who} expected shape (..., 2), but got {wrong}" in str(error.value)
    with pytest.raises(ValueError, match="whole number of samples, at least 1, but got 0"):
        base.sample(0)


def test_no_dimension_is_refused():
    with pytest.raises(ValueError, match="StandardNormal expected dimensions of at least 1, but got 0"):
        StandardNormal(0)


eye = torch.eye(2)


@pytest.mark.parametrize(
    "settings, words",
    (
        ({"means": torch.zeros(2)}, r"means of shape \(K, D\), but got .*\(2,\)"),
        ({"means": torch.zeros(2, 2).long()}, "floating-point means .* but got torch.int64"),
        ({"covariances": eye}, r"covariances \(2, 2, 2\) .*but got \(2, 2\)"),
        ({"weights": torch.ones(3) / 3}, r"weights \(2,\), but got .* and \(3,\)"),
        ({"weights": torch.tensor([0.5, 0.6])}, r"sum to one, but got \[0.5, 0.6"),
        ({"weights": torch.tensor([1.5, -0.5])}, "positive weights"),
        ({"weights": torch.tensor([1.0, 0.0])}, "positive weights"),
        ({"covariances": torch.stack((eye, -eye))}, "positive definite"),
        ({"covariances": torch.stack((eye, torch.ones(2, 2)))}, "positive definite"),
        ({"covariances": torch.stack((eye, torch.tensor([[1.0, 0.5], [0.0, 1.0]])))}, "symmetric"),
    ),
)
def test_what_is_no_mixture_is_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        GaussianMixture(**{"means": torch.zeros(2, 2), **settings})


# --- MADE with mixture conditionals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", (None, [2, 0, 3, 1]))
@pytest.mark.parametrize("components", (1, 5))
def test_autoregressive_mixture_is_a_product_of_torchs_mixtures(order, components):
    base, z = made(4, components, order=order), 2 * torch.randn(50, 4, generator=generator(2), dtype=torch.float64)
    total = torch.zeros(50, dtype=torch.float64)
    known = torch.full_like(z, 9.0)  # what comes later may be anything
    for i in order or range(4):
        log_weight, mean, log_std = (p[..., i] for p in base.conditionals(known))
        truth = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=log_weight), torch.distributions.Normal(mean, log_std.exp())
        )
        total += truth.log_prob(z[:, i])
        known[:, i] = z[:, i]
    torch.testing.assert_close(base.log_prob(z), total, rtol=1e-10, atol=1e-10)
    assert base.log_prob(z).std() > 0.5


@pytest.mark.parametrize("order", (None, [1, 0]))
def test_autoregressive_mixture_integrates_to_one_and_samples_follow_it(order):
    base = made(order=order, log_scale_bound=1.0)
    edge = torch.linspace(-14, 14, 701, dtype=torch.float64)
    grid, area = torch.cartesian_prod(edge, edge), (edge[1] - edge[0]) ** 2
    p = base.log_prob(grid).exp() * area
    assert float(p.sum()) == pytest.approx(1, abs=1e-4)
    z = base.sample(20_000, generator(3))
    mean = p @ grid
    covariance = (p.unsqueeze(-1) * (grid - mean)).T @ (grid - mean)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.06)
    torch.testing.assert_close(z.T.cov(), covariance, rtol=0.05, atol=0.05)
    for level in (0.01, 0.03, 0.06):  # the mass of a region of any shape
        mass = float(p[p > level * area].sum())
        assert mass > 0.02 and float((base.log_prob(z).exp() > level).double().mean()) == pytest.approx(mass, abs=0.015)


@pytest.mark.parametrize("stack", (None, 2))
def test_autoregressive_mixture_of_one_starts_as_the_normal_and_of_more_apart(stack):
    z = torch.randn(*([stack] if stack else []), 9, 3, generator=generator(0))
    one = AutoregressiveMixture(3, 1, stack=stack)
    torch.testing.assert_close(one.log_prob(z), StandardNormal(3, stack=stack).log_prob(z))
    base = AutoregressiveMixture(3, 4, stack=stack, generator=generator(0))
    base.log_prob(z).sum().backward()
    _, mean, _ = base.conditionals(z)
    assert (mean.diff(dim=-2) > 0.5).all() and (mean.mean(-2).abs() < 1e-6).all()
    for number in base.network.last.bias.grad.unflatten(-1, (3, 4, 3)).unbind(-3):
        assert (number.diff(dim=-2) != 0).any(), "equal components would never part"


def test_autoregressive_mixture_log_scale_is_bounded():
    base = made(spread=50.0, log_scale_bound=1.5)
    *_, log_std = base.conditionals(torch.randn(100, 2, generator=generator(0), dtype=torch.float64))
    assert 1.49 < log_std.abs().max() <= 1.5


def test_autoregressive_mixture_of_none_is_refused():
    with pytest.raises(ValueError, match="AutoregressiveMixture expected at least one component, but got 0"):
        AutoregressiveMixture(2, 0)
