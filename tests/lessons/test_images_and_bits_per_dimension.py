"""The pictures of images_and_bits_per_dimension against sums; its worked answers are the package's own steps."""

import math

import numpy as np
import pytest
import torch

from flowlab.datasets import mnist
from flowlab.densities import Dequantized, GaussianMixture
from flowlab.lessons.images_and_bits_per_dimension import exercises as lesson
from flowlab.lessons.images_and_bits_per_dimension import figures as bits
from flowlab.lessons.images_and_bits_per_dimension import toys
from flowlab.lessons.images_and_bits_per_dimension.explorer import Spikes, ThreeScales
from flowlab.lessons.images_and_bits_per_dimension.toys import museum
from flowlab.metrics import bits_per_dim, logit_log_det

# Pictures and explorers


@pytest.mark.parametrize("width", [1e-3, 0.1, 1.5])
def test_the_density_is_a_mixture_with_the_training_shares(width):
    means, weights = torch.arange(8).double()[:, None] + 0.5, torch.tensor(toys.shares(0))
    covariances = torch.full((8, 1, 1), width**2, dtype=torch.float64)
    mixture = GaussianMixture(means, covariances, weights=weights)
    x = torch.linspace(-1, 9, 101, dtype=torch.float64)
    np.testing.assert_allclose(toys.log_density(x.numpy(), width), mixture.log_prob(x[:, None]).numpy(), atol=1e-8)


@pytest.mark.parametrize("noise", [0.4, 1.0])
def test_the_score_is_a_mean_over_noise_around_the_middle_of_the_bin(noise):
    u = np.random.default_rng(0).random((20_000, 1))
    x = np.arange(8) + 0.5 + noise * (u - 0.5)
    by_hand = toys.log_density(x, 0.3).mean(0) @ toys.shares(1)
    assert float(toys.score(0.3, noise)) == pytest.approx(by_hand, abs=0.01)


def test_without_noise_the_score_has_no_ceiling_and_with_it_the_truths():
    bare = toys.score(10.0 ** -np.arange(1, 8), 0.0)
    np.testing.assert_allclose(np.diff(bare), math.log(10), atol=1e-3)
    assert toys.ceiling(0.0) == math.inf
    widths = 10 ** np.linspace(*bits.LOG_WIDTH, 80)
    for noise in (0.3, 1.0):
        assert toys.score(widths, noise).max() < toys.ceiling(noise)
    assert toys.ceiling(0.3) - toys.ceiling(1.0) == pytest.approx(-math.log(0.3))
    assert float(toys.shares(1) @ np.log(toys.P)) == pytest.approx(toys.ceiling(1.0))
    assert toys.P.sum() == pytest.approx(1)


def test_samples_stay_put_while_spikes_sharpen():
    explorer, seen = Spikes(), []
    for log_width in (-1.0, -2.0, -4.0):
        explorer.set(log_width=log_width)
        seen.append([bar.get_height() for bar in explorer.picture.bars])
    assert explorer.errors == [] and seen[0] == seen[1] == seen[2] and sum(seen[0]) == pytest.approx(1)
    assert explorer.numbers["test log-likelihood, nats"] == pytest.approx(float(toys.score(1e-4, 0.0)))
    assert explorer.numbers["of the exact density"] == "∞" and "no noise" in explorer.view.alt
    explorer.set(noise=1.0)
    assert explorer.numbers["test log-likelihood, nats"] < explorer.numbers["of the exact density"] == toys.ceiling(1.0)


def test_the_rulers_agree_with_the_conversions():
    explorer = ThreeScales()
    for b, lambda_ in ((1.06, 1e-6), (4.0, 0.05), (8.0, 1e-3)):
        explorer.set(bits=b, lambda_=lambda_)
        log_det = float(logit_log_det(mnist.digits("test")[0].flatten(1), lambda_).mean())
        logit, unit = (explorer.numbers[f"nats on {name}"] for name in ("the logits", "[0, 1]"))
        assert bits_per_dim(unit, 784, scale="unit") == pytest.approx(b, abs=1e-3)
        assert bits_per_dim(logit, 784, scale="logit", log_det=log_det) == pytest.approx(b, abs=1e-3)
        ticks = explorer.picture.logit_ticks
        shown = [(text.get_position()[0], text.get_text()) for text in ticks[1:] if text.get_text()]
        assert len(shown) == len(ticks[0].get_xdata()) >= 4, "every tick has its number"
        for place, text in shown:
            value = float(text.replace(",", ""))
            assert 8 - (value + log_det) / (784 * math.log(2)) == pytest.approx(place)


def test_published_numbers_stand_where_they_belong():
    places = {name: round(toys.in_bits(*entry), 2) for name, entry in toys.PUBLISHED.items()}
    assert places["NICE"] == 4.36 and places["Gaussian"] == 2.01 and places["Residual Flow"] == 0.97
    ordered = sorted(places, key=places.get)
    assert ordered[0] == "Residual Flow" and ordered[-1] == "NICE"


def test_figures_of_pixels_and_of_noise():
    x = torch.rand(20, 6)
    figure = bits.pixels(x, x.logit())
    heights = [sum(bar.get_height() for bar in axes.patches) for axes in (figure.axes[0], figure.axes[2])]
    assert heights == pytest.approx([1, 1])
    panels = {name: (np.ones((10, 10)), torch.rand(30, 2)) for name in ("uniform", "learned")}
    figure = bits.noise_in_bins(panels, 4)
    assert [axes.get_title() for axes in figure.axes] == ["uniform", "learned"] and "4 by 4 bins" in figure.get_label()
    assert len(figure.axes[0].lines) == 1 + 2 * 5


# Exercises


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


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda v, f: -constant(v) * math.log(f), "the area under it stays 1"),
    (1, lambda v, f: constant(v) * math.log2(f), "Asked are nats"),
    (1, lambda v, f: v.shape[1] * math.log(f), "spikes of all pixels"),
    (1, lambda v, f: constant(v) * f, "its logarithm"),
    (1, lambda v, f: math.log(f), "for one pixel"),
    (1, lambda v, f: int((v == 0).all(0).sum()) * math.log(f), "always 7"),
    (1, lambda v, f: len(v) * constant(v) * math.log(f), "sum over the images"),
    (1, lambda v, f: 0.1, "How many pixels are the same"),
    (2, lambda p, v, u, n: bound(p, v, u, n, volume=0), "density times volume"),
    (2, lambda p, v, u, n: bound(p, v, u, n, volume=-1), "added or taken"),
    (2, lambda p, v, u, n: bound(p, v, u, n, volume=1 / v.shape[-1]), "It has D of them"),
    (2, lambda p, v, u, n: weights(p, v, u, n).mean(0) - v.shape[-1] * math.log(n), "Average before the log"),
    (2, lambda p, v, u, n: bound(p, v, u, n) + math.log(len(u)), "sum over the draws"),
    (2, lambda p, v, u, n: bound(p, v, u, n).exp(), "P(v) itself"),
    (2, lambda p, v, u, n: bound(p, v, u, n, v / (n - 1) + u / n), "do not tile"),
    (2, lambda p, v, u, n: bound(p, v, u, n, (v + u) / (n - 1)), "do not tile"),
    (2, lambda p, v, u, n: bound(p, v, u, n, (v + 0 * u) / n), "The noise is missing"),
    (2, lambda p, v, u, n: weights(p, v, u, n) - v.shape[-1] * math.log(n), "one number for each draw"),
    (2, lambda p, v, u, n: bound(p, v, u, n) - 0.1, "the log of the mean over draws"),
    (3, lambda x, d, l=None: 8 - unit(x, l) / d, "Nats are not bits"),
    (3, lambda x, d, l=None: 8 - unit(x, l) * math.log(2) / d, "Upside down"),
    (3, lambda x, d, l=None: 8 + unit(x, l) / d / math.log(2), "Your sign says longer"),
    (3, lambda x, d, l=None: -unit(x, l) / d / math.log(2), "costs log₂ 256"),
    (3, lambda x, d, l=None: 8 - unit(x, l) / math.log(2), "for the whole image"),
    (3, lambda x, d, l=None: 8 - x / d / math.log(2), "is not used"),
    (3, lambda x, d, l=None: 8 - (x - (l or 0)) / d / math.log(2), "You subtracted it"),
    (3, lambda x, d, l=None: 1.0, "First to nats on [0, 1]"),
    (4, lambda p, q: -(p * q.log2()).sum(), "0 · log 0"),
    (4, lambda p, q: cross(p, q) * math.log(2), "in nats"),
    (4, lambda p, q: entropy(p), "the code built for p"),
    (4, lambda p, q: cross(p, q) - entropy(p), "what the wrong code wastes"),
    (4, lambda p, q: cross(q, p), "averaged over q"),
    (4, lambda p, q: -cross(p, q), "cannot be negative"),
    (4, lambda p, q: 0.1, "comes with probability p"),
    (5, lambda f, p, n=256, D=784: D * math.log(n * total(f, p, n)), "wants the width of a bin"),
    (5, lambda f, p, n=256, D=784: total(f, p, n), "Take its log, and D pixels"),
    (5, lambda f, p, n=256, D=784: math.log(total(f, p, n)), "The images have D of them"),
    (5, lambda f, p, n=256, D=784: -D * math.log(total(f, p, n)), "The sign is turned"),
    (5, lambda f, p, n=256, D=784: D * math.log2(total(f, p, n)), "in bits"),
    (5, lambda f, p, n=256, D=784: 5.0, "It should be 1 for one pixel"),
]

RIGHT = [
    (1, lambda v, f: math.log(f) * sum(len(set(column.tolist())) == 1 for column in v.T)),
    (2, lambda p, v, u, n: (p((v + u) / n).exp().mean(0) / n ** v.shape[-1]).log()),
    (3, lambda x, d, l=None: math.log2(256) - unit(x, l) / d / math.log(2)),
    (4, lambda p, q: sum(a * -math.log2(b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a)),
    (5, lambda f, p, levels=256, features=784: features * math.log(total(f, p, levels, S=200))),
    (1, lambda v, f: float((v.std(0) == 0).sum() * np.log(f))),
    (1, lambda v, f: (v.amin(0) == v.amax(0)).sum() * torch.log(torch.tensor(f))),
    (3, lambda x, d, l=None: 8 - (x + (l or 0)) / (d * 0.693)),
    (3, lambda x, d, l=None: 8 - (x + (0 if l is None else l)) * 1.4427 / d),
    (4, lambda p, q: np.nansum(-p.numpy() * np.log2(np.where(p > 0, q, 1)))),
    (4, lambda p, q: torch.special.xlogy(p, q.clamp_min(1e-30)).sum() / -0.693),
]


def test_the_worked_answers_are_the_packages():
    density = GaussianMixture(torch.tensor([[0.3, 0.6]]).double(), torch.eye(2).double()[None] / 20)
    v = torch.tensor([[0, 3], [7, 4], [2, 2]])
    g = torch.Generator().manual_seed(3)
    u = torch.stack([torch.rand(3, 2, generator=g, dtype=torch.float64) for _ in range(6)])
    by_hand = lesson.dequantized_bound(density.log_prob, v, u, 8)
    package = Dequantized(density, 8, draws=6).log_prob(v, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(by_hand, package)
    for nats, log_det in ((1980.5, None), (-1300.5, 4619.95)):
        scale = "unit" if log_det is None else "logit"
        assert math.isclose(lesson.to_bits(nats, 784, log_det), bits_per_dim(nats, 784, scale=scale, log_det=log_det))


def test_the_museum_is_off_by_what_the_notebook_says():
    log_p = torch.distributions.Normal(0.5, 0.1).log_prob
    off = {name: round(lesson.nats_off(loader, log_p), 2) for name, loader in museum().items()}
    assert off == {"A": -3.07, "B": 0.0, "C": -3.07}


def test_seventeen_pixels_of_the_halved_digits_are_always_black():
    v = mnist.halve(mnist.digits()[0]).flatten(1)
    assert math.isclose(lesson.nats_gained(v, 10.0), 17 * math.log(10))
    assert bool((v[:, (v == v[:1]).all(0)] == 0).all())
