"""Maps that the data start: what they are before any training is what statistics has a formula for."""

import math

import pytest
import torch
from sklearn.covariance import empirical_covariance
from torch import Generator, Tensor

from flowlab.bijections import (
    AffineCoupling,
    Chain,
    FullAffine,
    GaussianizeMargins,
    ScaleShift,
    ShapeError,
    StandardizeContext,
    Whiten,
    starting,
)
from flowlab.bijections.gaussianize import shrunk_covariance
from flowlab.densities import Flow, StandardNormal


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def started(bijection, x, context=None):
    bijection = bijection.double()
    with starting(bijection), torch.no_grad():
        bijection(x, context)
    return bijection


def correlated(N: int = 400, D: int = 4) -> Tensor:
    return normal(N, D) @ (torch.eye(D, dtype=torch.float64) + 0.5 * normal(D, D, seed=1)) + 100


def test_a_whitened_gaussian_is_the_full_covariance_gaussian():
    x = correlated(4000)
    flow = Flow(started(Whiten(4), x), StandardNormal(4))
    truth = torch.distributions.MultivariateNormal(x.mean(0), torch.as_tensor(empirical_covariance(x.numpy())))
    lost = (truth.log_prob(x) - flow.log_prob(x)).detach().mean()
    assert -1e-12 < lost < 1e-3, (
        "no Gaussian is likelier than the truth; with 4,000 rows shrinkage costs next to nothing"
    )
    z = flow.bijection(x)[0].detach()
    torch.testing.assert_close(z.mean(0), torch.zeros(4).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(z.T.cov(correction=0), torch.eye(4).double(), atol=0.02, rtol=0)


def test_whitening_given_a_context_is_linear_regression():
    c = normal(3000, 2, seed=3)
    B, b = normal(3, 2, seed=4), normal(3, seed=5)
    x = c @ B.T + b + 0.3 * normal(3000, 3, seed=6)
    f = started(Whiten(3, context_features=2), x, c)
    design = torch.cat((c, torch.ones(3000, 1)), 1)
    least_squares = torch.linalg.lstsq(design, x).solution
    torch.testing.assert_close(f.regression.data, least_squares[:2].T, atol=0.01, rtol=0)
    rest = x - design @ least_squares
    truth = torch.distributions.MultivariateNormal(torch.zeros(3).double(), rest.T.cov(correction=0)).log_prob(rest)
    assert -1e-12 < (truth - Flow(f, StandardNormal(3)).log_prob(x, c)).detach().mean() < 1e-3


@pytest.mark.parametrize("N, D", ((20, 10), (12, 30), (3, 4), (40, 2)))
def test_shrinkage_makes_held_out_rows_likelier_than_the_sample_covariance_does(N, D):
    train, held_out = correlated(N + 500, D).split((N, 500))

    def nats(S):
        S = S + 1e-9 * torch.eye(D, dtype=S.dtype)
        return float(torch.distributions.MultivariateNormal(train.mean(0), S).log_prob(held_out).mean())

    S = train.T.cov(correction=0)
    assert nats(shrunk_covariance(train)) > nats(S) - 0.02
    assert torch.linalg.eigvalsh(shrunk_covariance(train))[0] > 0
    torch.testing.assert_close(shrunk_covariance(train).diagonal(), S.diagonal())


def test_shrinkage_does_not_depend_on_units():
    x, s = correlated(30, 4), torch.tensor([1e-6, 1.0, 1e3, 1e9], dtype=torch.float64)
    torch.testing.assert_close(shrunk_covariance(x * s), torch.outer(s, s) * shrunk_covariance(x))


MARGINS = {
    "log-normal": lambda e: (0.8 * e).exp(),
    "cubed": lambda e: e**3,
    "uniform": torch.special.ndtr,
    "squared and shifted": lambda e: (e + 3) ** 2,
    "of its own family": lambda e: 5 + 2 * torch.sinh((torch.asinh(e) + 0.4) / 0.7),
}


def moments(x: Tensor) -> tuple[float, float]:
    """Skewness and excess kurtosis."""
    u = (x - x.mean()) / x.std()
    return float(u.pow(3).mean()), float(u.pow(4).mean()) - 3


@pytest.mark.parametrize("name", MARGINS)
def test_margins_come_out_nearly_gaussian(name):
    e = normal(4000, 1)
    x = MARGINS[name](e)
    f = started(GaussianizeMargins(1), x)
    z = f(x)[0].detach()
    (skew, tails), (skew_before, tails_before) = (moments(u) for u in (z, x))
    assert abs(skew) < max(0.1, 0.3 * abs(skew_before)) and abs(tails) < 0.6 * abs(tails_before)
    start = Flow(started(Chain([GaussianizeMargins(1), Whiten(1)]), x), StandardNormal(1)).log_prob(x).mean()
    gaussian = Flow(started(Whiten(1), x), StandardNormal(1)).log_prob(x).mean()
    assert start > gaussian + 0.02


def test_parameters_of_its_own_family_are_found():
    x = MARGINS["of its own family"](normal(20_000, 1))
    start = Flow(started(Chain([GaussianizeMargins(1), Whiten(1)]), x), StandardNormal(1))
    e = normal(20_000, 1)
    slope = torch.autograd.functional.jvp(MARGINS["of its own family"], e, torch.ones_like(e))[1]
    truth = StandardNormal(1).log_prob(e) - slope.log().squeeze(-1)
    assert float(truth.mean() - start.log_prob(x).detach().mean()) == pytest.approx(0, abs=2e-3)


DEGENERATE = {
    "constant": lambda e: torch.full_like(e, 3.0),
    "two values": lambda e: (e > 0).double(),
    "many zeros": lambda e: torch.where(e > 0, e, 0.0),
    "one value far off": lambda e: torch.cat((e[:-1], e[-1:] + 1e9)),
    "Cauchy": lambda e: torch.tan(math.pi * (torch.special.ndtr(e) - 0.5)),
    "two rows": lambda e: e[:2],
    "tiny": lambda e: 1e-30 * e,
    "huge": lambda e: 1e30 * e,
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_no_column_makes_the_map_steep_without_end(name):
    """A column with no density, or with values far off, starts within e^1.5 · 2 of the slope of its own scale."""
    x = DEGENERATE[name](normal(200, 1)).repeat(1, 2)
    x[:, 1] = normal(len(x), seed=7)
    f = started(GaussianizeMargins(2), x)
    z, log_det = f(x)
    assert z.isfinite().all() and log_det.isfinite().all()
    slope = torch.autograd.functional.jvp(lambda t: f(t)[0], x, torch.ones_like(x))[1][:, 0]
    middle = (x[:, 0] - x[:, 0].median()).abs() <= f.scale[0]
    assert (slope[middle] * f.scale[0]).log().max() < 1.5 + math.log(2) + float(f.theta[3, 0].detach().abs()) + 1
    back, back_log_det = f.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6 * float(f.scale.max()))
    torch.testing.assert_close(back_log_det, -log_det)


def test_far_from_the_data_float32_still_finds_the_way_back():
    x = normal(300, 3).float().exp()
    f = GaussianizeMargins(3)
    with starting(f):
        f(x)
    far = torch.tensor([1e-20, 0.0, 1.0, -1.0, 1e3, -1e3, 1e10, -1e10, 1e18, -1e18])[:, None].repeat(1, 3)
    z, log_det = f(far)
    back, back_log_det = f.inverse(z)
    assert z.isfinite().all() and log_det.isfinite().all()
    torch.testing.assert_close(back, far, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-4, atol=1e-3)


def test_stacks_start_each_from_its_own_rows():
    x = torch.stack((correlated(200, 3), correlated(200, 3).exp().log1p() * 3))
    for build in (GaussianizeMargins, Whiten):
        both = started(build(3, stack=2), x)
        for k in range(2):
            torch.testing.assert_close(both(x)[0][k], started(build(3), x[k])(x[k])[0], rtol=1e-4, atol=1e-4)


def test_looking_starts_nothing_and_a_second_start_moves_nothing():
    x = correlated(100, 3)
    for f in (GaussianizeMargins(3).double(), Whiten(3).double()):
        torch.testing.assert_close(f(x)[0], x)
        assert not f.started
        with starting(f):
            f(x)
        weights = {name: w.clone() for name, w in f.state_dict().items()}
        with starting(f):
            f(7 * x)
        assert all(torch.equal(w, f.state_dict()[name]) for name, w in weights.items()) and f.started
        with pytest.raises(ValueError, match="at least two samples"), starting(f, anew=True):
            f(x[0])


def test_contexts_far_from_0_are_centered_before_they_are_rounded():
    """Julian days as context: the float32 map sees what it would see of standardized days."""
    day = 2.46e6 + 0.01 * normal(50, 1)
    x = normal(50, 2).float()
    inner = AffineCoupling([True, False], (8,), context_features=1, generator=generator())
    for p in inner.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator(1))
    f = StandardizeContext(inner)
    with starting(f):
        f(x, day)
    z = ((day - day.mean(0)) / day.std(0, correction=0)).float()
    torch.testing.assert_close(f(x, day)[0], inner(x, z)[0], rtol=1e-4, atol=1e-4)
    flow = Flow(f, StandardNormal(2))
    torch.testing.assert_close(
        flow.log_prob(x, day), Flow(inner, StandardNormal(2)).log_prob(x, z), rtol=1e-4, atol=1e-3
    )
    assert flow.sample(3, generator(2), day).shape == (3, 50, 2)


def test_a_context_that_never_varies_keeps_its_scale():
    f = started(
        StandardizeContext(AffineCoupling([True, False], (4,), context_features=1)),
        normal(9, 2),
        torch.ones(9, 1).double(),
    )
    assert f.scale.tolist() == [1.0] and f.center.tolist() == [1.0]


def test_a_map_without_context_has_none_to_standardize():
    for bijection in (FullAffine(2), ScaleShift(2)):
        with pytest.raises(ShapeError, match="expected a bijection with vectors as context"):
            StandardizeContext(bijection)
