"""Notebook 12: what is known to go wrong in its exercises, and that its worked answers are the package's."""

import math

import pytest
import torch

from flowlab.densities import StandardLogistic, StandardNormal
from flowlab.lessons import exercises
from flowlab.lessons.nice_on_mnist.exercises import museum
from flowlab.models import nice
from flowlab.restoration import posterior, wander, widths

PER_DIM = {"logistic": 2 - 2 * math.log(2), "normal": 0.5}
AT_ZERO = {"logistic": -2 * math.log(2), "normal": -0.5 * math.log(2 * math.pi)}


def step(drift=1.0, noise=None, where=None):
    """A wrong ``langevin_step``: so much of the drift, this noise of a, these pixels."""

    def answer(x, score, hidden, a, eps):
        size = math.sqrt(2 * a) if noise is None else noise(a)
        chosen = hidden if where is None else where(hidden)
        return torch.where(chosen, x + drift * a * score(x) + size * eps, x)

    return answer


def noise_everywhere(x, score, hidden, a, eps):
    return x + torch.where(hidden, a * score(x), 0.0) + math.sqrt(2 * a) * eps


def run(step, a, points=4000, times=5, score=lambda x: -x, spread=lambda x: x.var()):
    x = torch.zeros(points)
    for _ in range(int(times / a)):
        x = step(x, score, a, torch.randn(points))
    return spread(x)


def terms(z, y, sigma, inverse, log_prior):
    x, log_det = inverse(z)
    return log_prior(z), (y - x).square().sum(-1), log_det


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("12.1", lambda D, prior: -D * PER_DIM[prior], "mode minus mean"),
    ("12.1", lambda D, prior: PER_DIM[prior], "for one dimension"),
    ("12.1", lambda D, prior: D * PER_DIM[prior] / math.log(2), "in bits"),
    ("12.1", lambda D, prior: D * AT_ZERO[prior], "What has a typical sample"),
    ("12.1", lambda D, prior: D * (AT_ZERO[prior] - PER_DIM[prior]), "mean over samples alone"),
    ("12.1", lambda D, prior: D * PER_DIM["logistic"], "the other prior"),
    ("12.1", lambda D, prior: 1.0, "mean of the log density)"),
    ("12.2", lambda s, k: s.argsort(descending=True)[:k], "the largest S"),
    ("12.2", lambda s, k: s.abs().argsort()[:k], "sorted by |log S|"),
    ("12.2", lambda s, k: (-s).exp().sort(descending=True).values[:k], "Those are the values"),
    ("12.2", lambda s, k: s.argsort(), "directions, but got shape"),
    ("12.2", lambda s, k: s.argsort()[:k].flip(0), "in another order"),
    ("12.2", lambda s, k: torch.arange(k) + 100, "Sort by it"),
    ("12.3", step(noise=lambda a: 0.0), "is MAP"),
    ("12.3", step(noise=math.sqrt), "The √2 is missing"),
    ("12.3", step(noise=lambda a: a), "that NICE prints"),
    ("12.3", step(noise=lambda a: math.sqrt(2) * a), "under the root"),
    ("12.3", step(noise=lambda a: 2 * a), "not 2a"),
    ("12.3", step(drift=0.5, noise=math.sqrt), "of size a/2"),
    ("12.3", step(drift=-1.0), "downhill"),
    ("12.3", step(where=lambda hidden: torch.ones_like(hidden)), "The seen pixels moved"),
    ("12.3", step(where=lambda hidden: ~hidden), "True is hidden"),
    ("12.3", noise_everywhere, "if only by noise"),
    ("12.3", step(drift=3.0), "where hidden, else x"),
    ("12.4", lambda step, a: run(step, a, score=lambda x: x), "It ran away"),
    ("12.4", lambda step, a: run(step, a, spread=lambda x: x.std()), "That is the deviation"),
    ("12.4", lambda step, a: 1 / run(step, a), "Upside down"),
    ("12.4", lambda step, a: run(step, a, spread=lambda x: x.mean()), "Is it the mean"),
    ("12.4", lambda step, a: run(step, a, times=0.2), "too early"),
    ("12.4", lambda step, a: 3 * run(step, a), "Give eps a variance of 1"),
    ("12.5", lambda *given: (lambda p, s, d: p - s / 2 / given[2] ** 2 + d)(*terms(*given)), "a density of x"),
    ("12.5", lambda *given: -terms(*given)[1] / 2 / given[2] ** 2, "The prior is missing"),
    ("12.5", lambda *given: terms(*given)[0], "y is not used"),
    ("12.5", lambda *given: (lambda p, s, d: p + s / 2 / given[2] ** 2)(*terms(*given)), "Your sign"),
    ("12.5", lambda *given: (lambda p, s, d: p - s / given[2] ** 2)(*terms(*given)), "The ½ of the Gaussian"),
    ("12.5", lambda *given: (lambda p, s, d: p - s / 2 / given[2])(*terms(*given)), "not by σ"),
    ("12.5", lambda *given: (lambda p, s, d: p - s.sqrt() / 2 / given[2] ** 2)(*terms(*given)), "*squared* distance"),
    (
        "12.5",
        lambda *given: (lambda p, s, d: p - s / 2 / given[2] ** 2 / given[0].shape[-1])(*terms(*given)),
        "A mean over pixels",
    ),
    ("12.5", lambda z, *_: z[:, 0], "may be left out"),
]

RIGHT = [
    ("12.1", lambda D, prior: D / 2 if prior == "normal" else 2 * D * (1 - math.log(2))),
    ("12.2", lambda s, k: (1 / s.exp()).topk(k).indices),
    ("12.3", lambda x, score, hidden, a, eps: x + hidden * (a * score(x) + (2 * a) ** 0.5 * eps)),
    ("12.4", lambda step, a: run(step, a, spread=lambda x: (x**2).mean())),
    (
        "12.5",
        lambda z, y, sigma, inverse, log_prior: (
            torch.distributions.Normal(inverse(z)[0], sigma).log_prob(y).sum(-1) + log_prior(z)
        ),
    ),
]


def test_the_worked_answers_are_the_packages():
    g = torch.Generator().manual_seed(0)
    for prior, base in (("logistic", StandardLogistic(200)), ("normal", StandardNormal(200))):
        measured = base.log_prob(torch.zeros(200)) - base.log_prob(base.sample(4000, g)).mean()
        assert exercises()["12.1"].answer(200, prior) == pytest.approx(float(measured), rel=0.01)
    flow = nice(6, generator=g)
    with torch.no_grad():
        flow.bijection[-1].log_scale.normal_(generator=g)
    by_hand = exercises()["12.2"].answer(flow.bijection[-1].log_scale, 3)
    assert torch.equal(by_hand, widths(flow).topk(3).indices)
    x, y, hidden = flow.sample(4, g), torch.randn(4, 6, generator=g), torch.arange(6) > 2
    run = wander(
        flow.log_prob, x, "langevin", rate=lambda _: 0.01, free=hidden, generator=torch.Generator().manual_seed(1)
    )
    next(run)
    eps = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))

    def score(x):
        return torch.func.grad(lambda x: flow.log_prob(x).sum())(x)

    torch.testing.assert_close(exercises()["12.3"].answer(x, score, hidden, 0.01, eps), next(run)[0])
    answer = exercises()["12.5"].answer(x, y, 0.3, flow.bijection.inverse, flow.base.log_prob)
    torch.testing.assert_close(answer, posterior(flow, y, 0.3)(x))


def test_the_museum_is_as_hot_as_the_praise_says():
    torch.manual_seed(0)
    hot = {name: float(exercises()["12.4"].answer(step, 0.05)) for name, step in museum().items()}
    assert hot == pytest.approx({"A": 0.5, "B": 0.025, "C": 1.0, "D": 0.5}, rel=0.15)
