"""The pictures of the_elbo against sums and the package; each known wrong answer meets its own hint."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.distributions import Normal, kl_divergence

from flowlab.densities.mixtures import EMGaussianMixture
from flowlab.lessons.the_elbo import figures as bound
from flowlab.lessons.the_elbo import toys
from flowlab.lessons.the_elbo.exercises import draw_sample as draw
from flowlab.lessons.the_elbo.exercises import elbo_terms, gaussian_kl, top_of_bound
from flowlab.lessons.the_elbo.explorer import BoundTouches, ForwardAndReverse

# Pictures and explorers


THETA = np.linspace(-4.5, 4.5, 37)


def package(theta):
    return EMGaussianMixture(torch.tensor([[0.0], [theta]], dtype=torch.float64))


@pytest.mark.parametrize("old", [-3.0, 0.6, 2.8])
def test_the_bound_is_the_packages_and_its_gap_is_the_mean_kl(old):
    x, r = torch.as_tensor(toys.points())[:, None], toys.responsibilities(old)
    q = torch.as_tensor(np.stack((1 - r, r), -1))
    torch.testing.assert_close(q, package(old).expectation(x))
    for theta in (-2.0, old, 3.3):
        model = package(theta)
        kl = (q * (q.log() - model.expectation(x).log())).sum(-1).mean()
        assert float(toys.bound(theta, r)) == pytest.approx(model.bound(x, q), abs=1e-9)
        assert float(toys.likelihood(theta) - toys.bound(theta, r)) == pytest.approx(float(kl), abs=1e-9)


@pytest.mark.parametrize("old", [-3.0, 0.6, 2.8])
def test_the_bound_touches_at_the_old_parameter_and_has_its_top_where_m_says(old):
    r = toys.responsibilities(old)
    assert float(toys.likelihood(old) - toys.bound(old, r)) == pytest.approx(0, abs=1e-12)
    assert (toys.bound(THETA, r) <= toys.likelihood(THETA) + 1e-12).all()
    assert (toys.bound(THETA, r) <= toys.bound(toys.top(r), r)).all()


def test_the_start_decides_on_which_summit_em_ends():
    ends = []
    for theta in (-1.0, 0.6):
        for _ in range(60):
            theta = toys.top(toys.responsibilities(theta))
        ends.append(theta)
    assert ends[0] < -2 and ends[1] > 2 and toys.likelihood(ends[1]) > toys.likelihood(ends[0]) + 0.1


def sums(mu, log_sigma, d):
    """KL(p ‖ q) and KL(q ‖ p) by a sum over a fine line."""
    x = np.linspace(-30, 30, 60_001)
    log_p = toys.two_humps(x, d)
    log_q = -0.5 * ((x - mu) / math.exp(log_sigma)) ** 2 - log_sigma - 0.5 * math.log(2 * math.pi)
    p, q = np.exp(log_p), np.exp(log_q)
    return (p * (log_p - log_q)).sum() * 0.001, (q * (log_q - log_p)).sum() * 0.001


@pytest.mark.parametrize("d", toys.SEPARATIONS)
@pytest.mark.parametrize(("mu", "log_sigma"), [(0.0, 0.0), (2.0, -0.7), (-1.3, 0.9)])
def test_both_divergences_are_what_a_sum_says(d, mu, log_sigma):
    forward, reverse = sums(mu, log_sigma, d)
    assert float(toys.forward_kl(mu, log_sigma, d)) == pytest.approx(forward, rel=1e-4, abs=1e-4)
    assert float(toys.reverse_kl(mu, log_sigma, d)) == pytest.approx(reverse, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("d", toys.SEPARATIONS)
def test_nothing_on_the_landscapes_is_below_the_best(d):
    seen = bound.landscape(d)
    assert seen.forward.min() >= float(toys.forward_kl(*toys.forward_best(d), d)) - 1e-9
    best = [float(toys.reverse_kl(*found, d)) for found in toys.reverse_best(d)]
    assert best == sorted(best) and seen.reverse.min() >= best[0] - 1e-6
    assert len(best) == (1 if d <= 1 else 2)


def test_e_and_m_climb():
    explorer = BoundTouches()
    scores = [explorer.numbers["log p at θ_old"]]
    for _ in range(4):
        explorer.m_button.click()
        assert explorer.numbers["bound at θ"] >= scores[-1]
        explorer.e_button.click()
        assert explorer.numbers["gap at θ"] == pytest.approx(0, abs=1e-12)
        scores.append(explorer.numbers["log p at θ_old"])
    assert scores == sorted(scores) and scores[-1] > scores[0] + 0.3


def test_the_pointer_moves_theta_and_q():
    explorer = BoundTouches()
    explorer.on_pointer("move", explorer.picture.right, -2.347, 0.0)
    assert explorer.controls["theta"].value == -2.35
    explorer.on_pointer("move", explorer.picture.left, 1.0, 0.0)
    assert explorer.controls["theta"].value == -2.35
    explorer = ForwardAndReverse()
    explorer.on_pointer("down", explorer.picture.maps[1], -2.0, -0.69)
    assert explorer.numbers["your " + bound.REVERSE] == pytest.approx(-math.log(0.6), abs=0.01)  # all of one hump


def test_what_stands_still_stays_within_its_panels():
    figure = bound.gap([-1.0, -2.0], 0.9)
    assert figure.axes[0].get_legend().get_texts()[3].get_text() == "your gap: 0.088 nats"


# Exercises


def explained(likelihood, log_q):
    return torch.where(log_q.exp() > 0, log_q.exp() * likelihood, 0.0).sum(-1)


def minus_kl(prior, log_q):
    return torch.where(log_q.exp() > 0, log_q.exp() * (prior - log_q), 0.0).sum(-1)


def share(x, theta):
    return torch.sigmoid(theta * x - theta**2 / 2)


def mean(x, weights):
    return (weights * x).sum() / weights.sum()


def many_rounds(x, theta):
    for _ in range(300):
        theta = top_of_bound(x, theta)
    return theta


def by_densities(x, theta):
    one, two = Normal(0.0, 1.0).log_prob(x).exp(), Normal(theta, 1.0).log_prob(x).exp()
    return mean(x, two / (one + two))


def kl(mq, sq, mp, sp):
    return kl_divergence(Normal(mq, sq), Normal(mp, sp))


def noise(mu, g):
    return torch.randn(mu.shape, generator=g)


EPS = torch.linspace(-6, 6, 241, dtype=torch.float64)
MASS = (-0.5 * EPS**2).softmax(0)


def exact_bound(log_joint, mu, sigma):
    """By a sum over q, for mu and sigma of any one shape."""
    z = mu[..., None].double() + sigma[..., None].double() * EPS
    return log_joint(z) @ MASS + sigma.log() + 0.5 * math.log(2 * math.pi * math.e)


def by_grid(log_joint, generator):
    """No descent at all: every q of a grid."""
    mu, sigma = torch.meshgrid(torch.linspace(-6, 6, 121), torch.linspace(0.1, 2.5, 49), indexing="ij")
    bounds = exact_bound(log_joint, mu, sigma).flatten()
    best = bounds.argmax()
    return mu.flatten()[best], sigma.flatten()[best], bounds[best]


def by_scipy(log_joint, generator, starts=(-3.0, 0.0, 3.0), options=None):
    """Two numbers at a time, without gradients, on a bound whose noise is drawn once."""
    noise = torch.randn(1000, generator=generator, dtype=torch.float64)
    noise = torch.cat((noise, -noise))

    def minus(v):
        log_q = -0.5 * noise**2 - 0.5 * math.log(2 * math.pi) - v[1]
        return -float((log_joint(v[0] + math.exp(v[1]) * noise) - log_q).mean())

    found = [minimize(minus, (start, -0.5), method="Nelder-Mead", options=options) for start in starts]
    best = min(found, key=lambda one: one.fun)
    return best.x[0], math.exp(best.x[1]), -best.fun


def by_curvature(log_joint, generator):
    """A climb of one q after the other, by LBFGS, on a bound without noise."""
    found = []
    for start in range(-4, 5, 2):
        v = torch.tensor([start, -0.5], dtype=torch.float64, requires_grad=True)
        climb = torch.optim.LBFGS([v], max_iter=40, line_search_fn="strong_wolfe")

        def loss(v=v, climb=climb):
            climb.zero_grad()
            minus = -exact_bound(log_joint, v[0], v[1].exp())
            minus.backward()
            return minus

        climb.step(loss)
        found.append((-loss().item(), v[0].item(), v[1].exp().item()))
    return max(found)[1], max(found)[2], max(found)[0]


def by_the_posterior(log_joint, generator):
    """The mean and the variance of p(z | x): it lowers the other divergence."""
    z = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    p = log_joint(z).softmax(0)
    mu = p @ z
    sigma = (p @ (z - mu) ** 2).sqrt()
    return mu, sigma, exact_bound(log_joint, mu, sigma)


def reported(change):
    def answer(log_joint, generator):
        return change(log_joint, *by_grid(log_joint, generator))

    return answer


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda a, p, q: explained(a, q) + minus_kl(p, q), "Return two things"),
    (1, lambda a, p, q: (explained(a, q).mean(), minus_kl(p, q).mean()), "One number came"),
    (1, lambda a, p, q: (q.exp() * a, q.exp() * (p - q)), "K parts of each point"),
    (1, lambda a, p, q: (explained(a, q)[:2], minus_kl(p, q)), "a number a point"),
    (1, lambda a, p, q: (a.mean(-1), minus_kl(p, q)), "count alike"),
    (1, lambda a, p, q: (a.sum(-1), minus_kl(p, q)), "count alike"),
    (1, lambda a, p, q: ((a + p).logsumexp(-1), minus_kl(p, q)), "the whole"),
    (1, lambda a, p, q: (explained(a + p, q), minus_kl(p, q)), "belongs into the second"),
    (1, lambda a, p, q: (3 * explained(a, q), minus_kl(p, q)), "first term is not right yet"),
    (1, lambda a, p, q: (explained(a, q), -minus_kl(p, q)), "with a minus sign"),
    (1, lambda a, p, q: (explained(a, q), (q.exp() * (p + q)).sum(-1)), "that is not sure"),
    (1, lambda a, p, q: (explained(a, q), -(q.exp() * q).sum(-1)), "where is log π"),
    (1, lambda a, p, q: (explained(a, q), (q.exp() * p).sum(-1)), "without the entropy"),
    (1, lambda a, p, q: (explained(a, q), (p.exp() * (q - p)).sum(-1)), "over q everywhere"),
    (1, lambda a, p, q: (explained(a, q), 2 * minus_kl(p, q)), "second term is not right yet"),
    (1, lambda a, p, q: ((q.exp() * a).sum(-1), (q.exp() * (p - q)).sum(-1)), "NaN where q = 0"),
    (1, lambda a, p, q: (explained(a, q), minus_kl(p, q) + (q.isinf() * p.exp()).sum(-1)), "first cause remains"),
    (2, lambda x, theta: theta, "θ back"),
    (2, lambda x, theta: mean(x, 1 - share(x, theta)), "the other component's share"),
    (2, lambda x, theta: (share(x, theta) * x).mean(), "divided by N"),
    (2, lambda x, theta: x.mean(), "count alike"),
    (2, lambda x, theta: x[share(x, theta) > 0.5].mean(), "hard"),
    (2, lambda x, theta: mean(x, Normal(theta, 1.0).log_prob(x).exp()), "density N(x; θ, 1) alone"),
    (2, many_rounds, "after many rounds"),
    (2, by_densities, "Stay in logarithms"),
    (2, lambda x, theta: 0.123, "that r weights"),
    (3, kl, "sum over the last axis"),
    (3, lambda *a: kl(*a).sum(), "divergence of each row"),
    (3, lambda *a: kl(*a).sum(0), "Expected shape"),
    (3, lambda mq, sq, mp, sp: kl(mp, sp, mq, sq).sum(-1), "the other direction"),
    (3, lambda *a: kl(*a).mean(-1), "mean over the coordinates"),
    (3, lambda *a: -kl(*a).sum(-1), "never negative"),
    (3, lambda *a: (kl(*a) + 0.5).sum(-1), "it gives D/2"),
    (3, lambda mq, sq, mp, sp: (kl(mq, sq, mp, sp) - 2 * (sp / sq).log()).sum(-1), "the wrong sign"),
    (3, lambda mq, sq, mp, sp: kl(mq, sq.sqrt(), mp, sp.sqrt()).sum(-1), "for variances"),
    (3, lambda mq, sq, mp, sp: (kl(mq, sq, mq, sp) + 0.5 * (mq - mp) ** 2).sum(-1), "in deviations of p"),
    (3, lambda mq, sq, mp, sp: kl(mq, sq, 0 * mp, 1 + 0 * sp).sum(-1), "right for the VAE's prior"),
    (3, lambda *a: 2 * kl(*a).sum(-1), "Twice too much"),
    (3, lambda *a: 3 + kl(*a).sum(-1), "E_q[log q − log p]"),
    (4, lambda mu, v, g: mu, "no noise in it"),
    (4, lambda mu, v, g: mu + (v / 2).exp() * torch.randn(mu.shape), "two different samples"),
    (4, lambda mu, v, g: draw(mu, v, torch.Generator().manual_seed(0)), "Two generators"),
    (4, lambda mu, v, g: mu + (v / 2).exp() * torch.randn(mu.shape[1], generator=g), "All rows share"),
    (4, lambda mu, v, g: mu + (v / 2).exp() * torch.randn(len(mu), 1, generator=g), "All coordinates of a row"),
    (4, lambda mu, v, g: mu + (v / 2).exp() * torch.rand(mu.shape, generator=g), "a standard normal"),
    (
        4,
        lambda mu, v, g: mu + (v / 2).exp() * (2 * torch.rand(mu.shape, generator=g) - 1),
        "a standard normal",
    ),
    (4, lambda mu, v, g: mu + v.exp() * noise(mu, g), "by the variance"),
    (4, lambda mu, v, g: mu + v * noise(mu, g), "by log_var itself"),
    (4, lambda mu, v, g: mu + noise(mu, g), "not scaled"),
    (4, lambda mu, v, g: mu + (v / 4).exp() * noise(mu, g), "One root too many"),
    (4, lambda mu, v, g: mu + 3 * noise(mu, g), "The width is off"),
    (4, lambda mu, v, g: draw(mu, v, g).detach(), "no gradient flows"),
    (4, lambda mu, v, g: torch.normal(mu, (v / 2).exp(), generator=g), "the gradient to mu"),
    (4, lambda mu, v, g: draw(mu, v.detach(), g), "the gradient to log_var"),
    (4, lambda mu, v, g: draw(mu, v, g).tolist(), "through which gradients flow"),
    (6, lambda f, g: by_grid(f, g)[:2], "three numbers"),
    (6, reported(lambda f, mu, s, b: (mu, s.log(), b)), "A deviation is positive"),
    (6, reported(lambda f, mu, s, b: (mu, s, f(torch.linspace(-9, 9, 1801)).logsumexp(0))), "No bound can do that"),
    (6, reported(lambda f, mu, s, b: (mu, s, f(mu + s * EPS) @ MASS)), "add the entropy"),
    (6, reported(lambda f, mu, s, b: (mu, s, b - 1)), "the bound of your q is"),
    (6, reported(lambda f, mu, s, b: (mu, s**2, b)), "the bound of your q is"),
    (6, by_the_posterior, "it covers"),
    (6, lambda f, g: by_scipy(f, g, starts=(-2.5,)), "Start in several places"),
    (6, lambda f, g: by_scipy(f, g, starts=(-4.0, 4.0), options={"maxiter": 4}), "take more steps"),
]


RIGHT = [
    (1, lambda a, p, q: [torch.nan_to_num(q.exp() * v).sum(-1) for v in (a, p - q)]),
    (2, lambda x, theta: mean(x, share(x, theta))),
    (3, lambda *a: kl(*a).sum(-1)),
    (4, lambda mu, v, g: mu - v.exp().sqrt() * noise(mu, g)),
    (6, by_grid),
    (6, by_scipy),
    (6, by_curvature),
]


def test_the_two_terms_of_the_exact_posterior_add_up_to_log_p():
    g = torch.Generator().manual_seed(0)
    likelihood, prior = torch.randn(5, 3, generator=g).double(), torch.tensor([0.5, 0.3, 0.2]).double().log()
    terms = elbo_terms(likelihood, prior, (likelihood + prior).log_softmax(-1))
    torch.testing.assert_close(sum(terms), (likelihood + prior).logsumexp(-1))


def test_the_kl_of_a_gaussian_to_itself_is_zero():
    mu, sigma = torch.randn(4, 2), torch.rand(4, 2) + 0.1
    assert gaussian_kl(mu, sigma, mu, sigma).abs().max() < 1e-6
