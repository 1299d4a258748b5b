"""Each known wrong answer of notebook 08 meets its own hint, and no other's."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from flowlab.lessons.the_elbo.exercises import draw_sample as draw
from flowlab.lessons.the_elbo.exercises import elbo_terms, gaussian_kl, importance_bound, top_of_bound


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


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("08.1", lambda a, p, q: explained(a, q) + minus_kl(p, q), "Return two things"),
    ("08.1", lambda a, p, q: (explained(a, q).mean(), minus_kl(p, q).mean()), "One number came"),
    ("08.1", lambda a, p, q: (q.exp() * a, q.exp() * (p - q)), "K parts of each point"),
    ("08.1", lambda a, p, q: (explained(a, q)[:2], minus_kl(p, q)), "a number a point"),
    ("08.1", lambda a, p, q: (a.mean(-1), minus_kl(p, q)), "count alike"),
    ("08.1", lambda a, p, q: (a.sum(-1), minus_kl(p, q)), "count alike"),
    ("08.1", lambda a, p, q: ((a + p).logsumexp(-1), minus_kl(p, q)), "the whole"),
    ("08.1", lambda a, p, q: (explained(a + p, q), minus_kl(p, q)), "belongs into the second"),
    ("08.1", lambda a, p, q: (3 * explained(a, q), minus_kl(p, q)), "first term is not right yet"),
    ("08.1", lambda a, p, q: (explained(a, q), -minus_kl(p, q)), "with a minus sign"),
    ("08.1", lambda a, p, q: (explained(a, q), (q.exp() * (p + q)).sum(-1)), "an open mind"),
    ("08.1", lambda a, p, q: (explained(a, q), -(q.exp() * q).sum(-1)), "where is log π"),
    ("08.1", lambda a, p, q: (explained(a, q), (q.exp() * p).sum(-1)), "without the entropy"),
    ("08.1", lambda a, p, q: (explained(a, q), (p.exp() * (q - p)).sum(-1)), "over q everywhere"),
    ("08.1", lambda a, p, q: (explained(a, q), 2 * minus_kl(p, q)), "second term is not right yet"),
    ("08.1", lambda a, p, q: ((q.exp() * a).sum(-1), (q.exp() * (p - q)).sum(-1)), "NaN where q = 0"),
    ("08.1", lambda a, p, q: (explained(a, q), minus_kl(p, q) + (q.isinf() * p.exp()).sum(-1)), "first cause remains"),
    ("08.2", lambda x, theta: theta, "θ back"),
    ("08.2", lambda x, theta: mean(x, 1 - share(x, theta)), "the other component's share"),
    ("08.2", lambda x, theta: (share(x, theta) * x).mean(), "divided by N"),
    ("08.2", lambda x, theta: x.mean(), "count alike"),
    ("08.2", lambda x, theta: x[share(x, theta) > 0.5].mean(), "hard"),
    ("08.2", lambda x, theta: mean(x, Normal(theta, 1.0).log_prob(x).exp()), "density N(x; θ, 1) alone"),
    ("08.2", many_rounds, "after many rounds"),
    ("08.2", by_densities, "Stay in logarithms"),
    ("08.2", lambda x, theta: 0.123, "that r weights"),
    ("08.3", kl, "sum over the last axis"),
    ("08.3", lambda *a: kl(*a).sum(), "divergence of each row"),
    ("08.3", lambda *a: kl(*a).sum(0), "Expected shape"),
    ("08.3", lambda mq, sq, mp, sp: kl(mp, sp, mq, sq).sum(-1), "the other direction"),
    ("08.3", lambda *a: kl(*a).mean(-1), "mean over the coordinates"),
    ("08.3", lambda *a: -kl(*a).sum(-1), "never negative"),
    ("08.3", lambda *a: (kl(*a) + 0.5).sum(-1), "it gives D/2"),
    ("08.3", lambda mq, sq, mp, sp: (kl(mq, sq, mp, sp) - 2 * (sp / sq).log()).sum(-1), "the wrong sign"),
    ("08.3", lambda mq, sq, mp, sp: kl(mq, sq.sqrt(), mp, sp.sqrt()).sum(-1), "for variances"),
    ("08.3", lambda mq, sq, mp, sp: (kl(mq, sq, mq, sp) + 0.5 * (mq - mp) ** 2).sum(-1), "in deviations of p"),
    ("08.3", lambda mq, sq, mp, sp: kl(mq, sq, 0 * mp, 1 + 0 * sp).sum(-1), "right for the VAE's prior"),
    ("08.3", lambda *a: 2 * kl(*a).sum(-1), "Twice too much"),
    ("08.3", lambda *a: 3 + kl(*a).sum(-1), "E_q[log q − log p]"),
    ("08.4", lambda mu, v, g: mu, "no noise in it"),
    ("08.4", lambda mu, v, g: mu + (v / 2).exp() * torch.randn(mu.shape), "two different samples"),
    ("08.4", lambda mu, v, g: draw(mu, v, torch.Generator().manual_seed(0)), "Two generators"),
    ("08.4", lambda mu, v, g: mu + (v / 2).exp() * torch.randn(mu.shape[1], generator=g), "All rows share"),
    ("08.4", lambda mu, v, g: mu + (v / 2).exp() * torch.randn(len(mu), 1, generator=g), "All coordinates of a row"),
    ("08.4", lambda mu, v, g: mu + (v / 2).exp() * torch.rand(mu.shape, generator=g), "a standard normal"),
    (
        "08.4",
        lambda mu, v, g: mu + (v / 2).exp() * (2 * torch.rand(mu.shape, generator=g) - 1),
        "a standard normal",
    ),
    ("08.4", lambda mu, v, g: mu + v.exp() * noise(mu, g), "by the variance"),
    ("08.4", lambda mu, v, g: mu + v * noise(mu, g), "by log_var itself"),
    ("08.4", lambda mu, v, g: mu + noise(mu, g), "not scaled"),
    ("08.4", lambda mu, v, g: mu + (v / 4).exp() * noise(mu, g), "One root too many"),
    ("08.4", lambda mu, v, g: mu + 3 * noise(mu, g), "The width is off"),
    ("08.4", lambda mu, v, g: draw(mu, v, g).detach(), "no gradient flows"),
    ("08.4", lambda mu, v, g: torch.normal(mu, (v / 2).exp(), generator=g), "the gradient to mu"),
    ("08.4", lambda mu, v, g: draw(mu, v.detach(), g), "the gradient to log_var"),
    ("08.4", lambda mu, v, g: draw(mu, v, g).tolist(), "through which gradients flow"),
    ("08.5", lambda w: importance_bound(w).mean(), "One number came"),
    ("08.5", lambda w: w.logsumexp(1) - math.log(w.shape[1]), "averaged over the points"),
    ("08.5", lambda w: importance_bound(w)[:2], "Expected shape"),
    ("08.5", lambda w: -importance_bound(w), "minus the bound"),
    ("08.5", lambda w: w.mean(0), "mean of the logs"),
    ("08.5", lambda w: w.logsumexp(0), "log of the sum"),
    ("08.5", lambda w: w.logsumexp(0) / len(w), "inside the logarithm"),
    ("08.5", lambda w: w.logsumexp(0) + math.log(len(w)), "log S has the wrong sign"),
    ("08.5", lambda w: w.exp().mean(0), "Take its logarithm"),
    ("08.5", lambda w: w.amax(0), "best sample alone"),
    ("08.5", lambda w: w.exp().mean(0).log(), "Use logsumexp"),
    ("08.5", lambda w: w.median(0).values, "then its logarithm"),
]


RIGHT = [
    ("08.1", lambda a, p, q: [torch.nan_to_num(q.exp() * v).sum(-1) for v in (a, p - q)]),
    ("08.2", lambda x, theta: mean(x, share(x, theta))),
    ("08.3", lambda *a: kl(*a).sum(-1)),
    ("08.4", lambda mu, v, g: mu - v.exp().sqrt() * noise(mu, g)),
    ("08.5", lambda w: w.amax(0) + (w - w.amax(0)).exp().mean(0).log()),
]


def test_the_two_terms_of_the_exact_posterior_add_up_to_log_p():
    g = torch.Generator().manual_seed(0)
    likelihood, prior = torch.randn(5, 3, generator=g).double(), torch.tensor([0.5, 0.3, 0.2]).double().log()
    terms = elbo_terms(likelihood, prior, (likelihood + prior).log_softmax(-1))
    torch.testing.assert_close(sum(terms), (likelihood + prior).logsumexp(-1))


def test_the_kl_of_a_gaussian_to_itself_is_zero():
    mu, sigma = torch.randn(4, 2), torch.rand(4, 2) + 0.1
    assert gaussian_kl(mu, sigma, mu, sigma).abs().max() < 1e-6
