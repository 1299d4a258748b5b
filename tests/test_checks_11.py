"""Notebook 11: what is known to go wrong in its exercises, and that its worked answers are the package's."""

import math

import torch

from flowlab.datasets import mnist
from flowlab.densities import Dequantized, GaussianMixture
from flowlab.lessons import exercises
from flowlab.lessons.images_and_bits_per_dimension.exercises import museum
from flowlab.metrics import bits_per_dim


def constant(v):
    return int((v == v[:1]).all(0).sum())


def weights(log_p, v, u, levels, x=None):
    return log_p((v + u) / levels if x is None else x)


def bound(log_p, v, u, levels, x=None, volume=1.0):
    log_w = weights(log_p, v, u, levels, x)
    return log_w.logsumexp(0) - math.log(len(u)) - volume * v.shape[-1] * math.log(levels)


def unit(nats, log_det):
    return nats + (log_det or 0)


def cross(p, q):
    return -torch.where(p > 0, p * q.log2(), 0.0).sum()


def entropy(p):
    return cross(p, p)


def total(loader, log_p, levels, S=50):
    v, u = torch.arange(levels).double()[:, None], (torch.arange(S).double() + 0.5) / S
    return float(log_p(loader(v, u)).exp().mean(-1).sum() / levels)


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("11.1", lambda v, f: -constant(v) * math.log(f), "the area under it stays 1"),
    ("11.1", lambda v, f: constant(v) * math.log2(f), "Asked are nats"),
    ("11.1", lambda v, f: v.shape[1] * math.log(f), "spikes of all pixels"),
    ("11.1", lambda v, f: constant(v) * f, "its logarithm"),
    ("11.1", lambda v, f: math.log(f), "for one pixel"),
    ("11.1", lambda v, f: int((v == 0).all(0).sum()) * math.log(f), "always 7"),
    ("11.1", lambda v, f: len(v) * constant(v) * math.log(f), "sum over the images"),
    ("11.1", lambda v, f: 0.1, "How many pixels are the same"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n, volume=0), "density times volume"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n, volume=-1), "added or taken"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n, volume=1 / v.shape[-1]), "It has D of them"),
    ("11.2", lambda p, v, u, n: weights(p, v, u, n).mean(0) - v.shape[-1] * math.log(n), "Average before the log"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n) + math.log(len(u)), "sum over the draws"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n).exp(), "P(v) itself"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n, v / (n - 1) + u / n), "do not tile"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n, (v + u) / (n - 1)), "do not tile"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n, (v + 0 * u) / n), "The noise is missing"),
    ("11.2", lambda p, v, u, n: weights(p, v, u, n) - v.shape[-1] * math.log(n), "one number for each draw"),
    ("11.2", lambda p, v, u, n: bound(p, v, u, n) - 0.1, "the log of the mean over draws"),
    ("11.3", lambda x, d, l=None: 8 - unit(x, l) / d, "Nats are not bits"),
    ("11.3", lambda x, d, l=None: 8 - unit(x, l) * math.log(2) / d, "Upside down"),
    ("11.3", lambda x, d, l=None: 8 + unit(x, l) / d / math.log(2), "Your sign says longer"),
    ("11.3", lambda x, d, l=None: -unit(x, l) / d / math.log(2), "costs log₂ 256"),
    ("11.3", lambda x, d, l=None: 8 - unit(x, l) / math.log(2), "for the whole image"),
    ("11.3", lambda x, d, l=None: 8 - x / d / math.log(2), "is not used"),
    ("11.3", lambda x, d, l=None: 8 - (x - (l or 0)) / d / math.log(2), "You took it away"),
    ("11.3", lambda x, d, l=None: 1.0, "First to nats on [0, 1]"),
    ("11.4", lambda p, q: -(p * q.log2()).sum(), "0 · log 0"),
    ("11.4", lambda p, q: cross(p, q) * math.log(2), "in nats"),
    ("11.4", lambda p, q: entropy(p), "the code built for p"),
    ("11.4", lambda p, q: cross(p, q) - entropy(p), "what the wrong code wastes"),
    ("11.4", lambda p, q: cross(q, p), "averaged over q"),
    ("11.4", lambda p, q: -cross(p, q), "cannot be negative"),
    ("11.4", lambda p, q: 0.1, "comes with probability p"),
    ("11.5", lambda f, p, n=256, D=784: D * math.log(n * total(f, p, n)), "wants the width of a bin"),
    ("11.5", lambda f, p, n=256, D=784: total(f, p, n), "Take its log, and D pixels"),
    ("11.5", lambda f, p, n=256, D=784: math.log(total(f, p, n)), "The images have D of them"),
    ("11.5", lambda f, p, n=256, D=784: -D * math.log(total(f, p, n)), "The sign is turned"),
    ("11.5", lambda f, p, n=256, D=784: D * math.log2(total(f, p, n)), "in bits"),
    ("11.5", lambda f, p, n=256, D=784: 5.0, "It should be 1 for one pixel"),
]

RIGHT = [
    ("11.1", lambda v, f: math.log(f) * sum(len(set(column.tolist())) == 1 for column in v.T)),
    ("11.2", lambda p, v, u, n: (p((v + u) / n).exp().mean(0) / n ** v.shape[-1]).log()),
    ("11.3", lambda x, d, l=None: math.log2(256) - unit(x, l) / d / math.log(2)),
    ("11.4", lambda p, q: sum(a * -math.log2(b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a)),
    ("11.5", lambda f, p, levels=256, features=784: features * math.log(total(f, p, levels, S=200))),
]


def test_the_worked_answers_are_the_packages():
    density = GaussianMixture(torch.tensor([[0.3, 0.6]]).double(), torch.eye(2).double()[None] / 20)
    v = torch.tensor([[0, 3], [7, 4], [2, 2]])
    g = torch.Generator().manual_seed(3)
    u = torch.stack([torch.rand(3, 2, generator=g, dtype=torch.float64) for _ in range(6)])
    by_hand = exercises()["11.2"].answer(density.log_prob, v, u, 8)
    package = Dequantized(density, 8, draws=6).log_prob(v, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(by_hand, package)
    for nats, log_det in ((1980.5, None), (-1300.5, 4619.95)):
        scale = "unit" if log_det is None else "logit"
        assert math.isclose(
            exercises()["11.3"].answer(nats, 784, log_det), bits_per_dim(nats, 784, scale=scale, log_det=log_det)
        )


def test_the_museum_is_off_by_what_the_notebook_says():
    log_p = torch.distributions.Normal(0.5, 0.1).log_prob
    off = {name: round(exercises()["11.5"].answer(loader, log_p), 2) for name, loader in museum().items()}
    assert off == {"A": -3.07, "B": 0.0, "C": -3.07}


def test_seventeen_pixels_of_the_halved_digits_are_always_black():
    v = mnist.halve(mnist.digits()[0]).flatten(1)
    assert math.isclose(exercises()["11.1"].answer(v, 10.0), 17 * math.log(10))
    assert bool((v[:, (v == v[:1]).all(0)] == 0).all())
