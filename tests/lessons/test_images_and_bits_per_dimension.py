"""The pictures of images_and_bits_per_dimension against sums; its worked answers are the package's own steps."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.mixture import GaussianMixture as SklearnMixture

from flowlab import fit as train_flow
from flowlab import realnvp
from flowlab.datasets import mnist
from flowlab.densities import Dequantized, GaussianMixture
from flowlab.lessons.images_and_bits_per_dimension import exercises as lesson
from flowlab.lessons.images_and_bits_per_dimension import figures as draw
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
    widths = 10 ** np.linspace(*draw.LOG_WIDTH, 80)
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
    figure = draw.pixels(x, x.logit())
    heights = [sum(bar.get_height() for bar in axes.patches) for axes in (figure.axes[0], figure.axes[2])]
    assert heights == pytest.approx([1, 1])
    panels = {name: (np.ones((10, 10)), torch.rand(30, 2)) for name in ("uniform", "learned")}
    figure = draw.noise_in_bins(panels, 4)
    assert [axes.get_title() for axes in figure.axes] == ["uniform", "learned"] and "4 by 4 bins" in figure.get_label()
    assert len(figure.axes[0].lines) == 1 + 2 * 5


# Exercises


def constant(v):
    return int((v == v[:1]).all(0).sum())


def fit(draws, x):
    """log P by a density that learns from noisy points, from the mean of its densities over draws."""

    def answer(v, images, levels):
        density = x((v + torch.rand(8, *v.shape, dtype=torch.float64)).flatten(0, 1) / levels)
        points = (images + torch.rand(draws, *images.shape, dtype=torch.float64)) / levels
        log_p = density(points.flatten(0, 1)).view(draws, -1)
        return reported(log_p.logsumexp(0) - math.log(draws) - 2 * math.log(levels))

    return answer


def reported(log_P, factor=1.0):
    return log_P, -factor * log_P.mean() / 2 / math.log(2)


def gaussians(k):
    def density(x):
        mixture = SklearnMixture(k, random_state=0).fit(x.numpy())
        return lambda points: torch.tensor(mixture.score_samples(points.numpy()))

    return density


def flow(x):
    torch.manual_seed(0)
    model = realnvp(2, 4, hidden=(32, 32)).double()
    train_flow(model, x, steps=150, batch_size=400, learning_rate=1e-2, progress=False)
    return lambda points: model.log_prob(points).detach()


def counted(v, levels, smooth=0.0, extra=0.02):
    """The table of probabilities by counts; with ``smooth``, each count is shared with its neighbors."""
    table = torch.zeros(levels, levels, dtype=torch.float64)
    table.index_put_((v[:, 0], v[:, 1]), torch.ones(len(v), dtype=torch.float64), accumulate=True)
    if smooth:
        level = torch.arange(levels, dtype=torch.float64)
        blur = torch.exp(-0.5 * ((level[:, None] - level) / smooth) ** 2)
        blur = blur / blur.sum(1, keepdim=True)
        table = blur.T @ table @ blur
    return (table + extra) / (table + extra).sum()


def by_table(make):
    def answer(v, images, levels):
        table = make(v, levels)
        return reported(table[images[:, 0], images[:, 1]].log())

    return answer


def independent(v, levels):
    table = counted(v, levels)
    return table.sum(1, keepdim=True) * table.sum(0, keepdim=True)


def curve(v, images, levels):
    """The first pixel from a Gaussian, the second from a Gaussian around a parabola: exact, by areas."""
    a, b = v.double().T.numpy()
    fitted = np.polyfit(a, b, 2)
    spread = (b - np.polyval(fitted, a)).std()
    first, second = images.double().T.numpy()

    def log_area(v, mean, spread):
        edges = (v - 0.5 - mean) / spread, (v + 0.5 - mean) / spread
        return np.log(np.maximum(norm.cdf(edges[1]) - norm.cdf(edges[0]), 1e-12))

    return reported(
        torch.tensor(log_area(first, a.mean(), a.std()) + log_area(second, np.polyval(fitted, first), spread))
    )


def changed(log_P=lambda log_P: log_P, bits=lambda bits: bits):
    """A right answer, and then a mistake in what is returned."""

    def answer(*given):
        right = curve(*given)
        return log_P(right[0]), bits(right[1])

    return answer


def log_P(nats, dims, width, levels, log_det):
    return nats + (log_det or 0) + dims * math.log(width / levels)


def bits(nats, dims, width=1.0, levels=256, log_det=None):
    return -log_P(nats, dims, width, levels, log_det) / dims / math.log(2)


def cross(p, q):
    return -torch.where(p > 0, p * q.log2(), 0.0).sum()


def entropy(p):
    return cross(p, p)


def wasted(p, q):
    return cross(p, q) - entropy(p)


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
    (2, fit(20, gaussians(1)), "flexible enough"),
    (2, by_table(counted), "levels have neighbors"),
    (2, by_table(independent), "as independent"),
    (2, by_table(lambda v, n: counted(v, n, extra=0.0)), "must not be impossible"),
    (2, changed(lambda log_P: log_P + 2 * math.log(32)), "by the volume of its bin"),
    (2, changed(bits=lambda bits: bits * math.log(2)), "your number is in nats"),
    (2, changed(bits=lambda bits: 2 * bits), "is for a whole image"),
    (2, changed(bits=lambda bits: -bits), "is negative"),
    (2, changed(bits=lambda bits: 3.0), "By your own log P"),
    (2, lambda v, images, n: curve(v, images, n)[0], "Return two things"),
    (3, lambda x, d, w=1.0, n=256, l=None: math.log2(n) - (x + (l or 0) + d * math.log(w)) / d, "Nats are not bits"),
    (
        3,
        lambda x, d, w=1.0, n=256, l=None: math.log2(n) - (x + (l or 0) + d * math.log(w)) * math.log(2) / d,
        "Upside down",
    ),
    (3, lambda x, d, w=1.0, n=256, l=None: 2 * math.log2(n) - bits(x, d, w, n, l), "Your sign says longer"),
    (3, lambda x, d, w=1.0, n=256, l=None: bits(x, d, w, n, l) - math.log2(n), "How wide is a bin, and"),
    (
        3,
        lambda x, d, w=1.0, n=256, l=None: math.log2(n) - (x + (l or 0) + d * math.log(w)) / math.log(2),
        "for the whole image. Asked",
    ),
    (3, lambda x, d, w=1.0, n=256, l=None: bits(x, d, w, n), "is not used"),
    (3, lambda x, d, w=1.0, n=256, l=None: bits(x, d, w, n, -(l or 0)), "You subtracted it"),
    (3, lambda x, d, w=1.0, n=256, l=None: bits(x, d, w, 256, l), "right for 256 levels"),
    (3, lambda x, d, w=1.0, n=256, l=None: bits(x, d, 1.0, n, l), "took the interval for [0, 1]"),
    (3, lambda x, d, w=1.0, n=256, l=None: bits(x, d, 1 / w, n, l), "the wrong way round"),
    (3, lambda x, d, w=1.0, n=256, l=None: bits(x + math.log(w), d, 1.0, n, l), "counts once for the whole image"),
    (3, lambda x, d, w=1.0, n=256, l=None: 1.0, "First to nats on the interval"),
    (4, lambda p, q, t: t / (p * (p / q).log2()).sum(), "0 · log 0"),
    (4, lambda p, q, t: t / wasted(p, q) / math.log(2), "divided by nats"),
    (4, lambda p, q, t: t / cross(p, q), "all bits of a symbol"),
    (4, lambda p, q, t: t / entropy(p), "What do they save?"),
    (4, lambda p, q, t: t / wasted(q, p), "That is KL(q‖p)"),
    (4, lambda p, q, t: t / (entropy(q) - entropy(p)), "H(q) is the length"),
    (4, lambda p, q, t: -t / wasted(p, q), "Which of the two codes"),
    (4, lambda p, q, t: t * wasted(p, q), "Turned over"),
    (4, lambda p, q, t: 100.0, "pay for the table"),
    (5, lambda f, p, n=256, D=784: D * math.log(n * total(f, p, n)), "wants the width of a bin"),
    (5, lambda f, p, n=256, D=784: total(f, p, n), "Take its log, and D pixels"),
    (5, lambda f, p, n=256, D=784: math.log(total(f, p, n)), "The images have D of them"),
    (5, lambda f, p, n=256, D=784: -D * math.log(total(f, p, n)), "The sign is turned"),
    (5, lambda f, p, n=256, D=784: D * math.log2(total(f, p, n)), "in bits"),
    (5, lambda f, p, n=256, D=784: 5.0, "It should be 1 for one pixel"),
]

RIGHT = [
    (1, lambda v, f: math.log(f) * sum(len(set(column.tolist())) == 1 for column in v.T)),
    (1, lambda v, f: float((v.std(0) == 0).sum() * np.log(f))),
    (1, lambda v, f: (v.amin(0) == v.amax(0)).sum() * torch.log(torch.tensor(f))),
    (2, fit(20, flow)),
    (2, fit(1, gaussians(5))),
    (2, curve),
    (2, by_table(lambda v, levels: counted(v, levels, smooth=0.7))),
    (3, lambda x, d, w=1.0, n=256, l=None: math.log2(n / w) - (x + (l or 0)) / (d * 0.693)),
    (3, lambda x, d, w=1.0, n=256, l=None: math.log2(n) - math.log2(w) - (x + (0 if l is None else l)) * 1.4427 / d),
    (3, bits),
    (4, lambda p, q, t: t / sum(a * math.log2(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a)),
    (4, lambda p, q, t: math.ceil(t / wasted(p, q))),
    (4, lambda p, q, t: t / (np.nansum(p.numpy() * np.log2(np.where(p > 0, p / q, 1))))),
    (5, lambda f, p, levels=256, features=784: features * math.log(total(f, p, levels, S=200))),
]


def test_the_conversion_of_the_worked_answer_is_the_packages():
    for nats, log_det in ((1980.5, None), (-1300.5, 4619.95)):
        scale = "unit" if log_det is None else "logit"
        right = bits_per_dim(nats, 784, scale=scale, log_det=log_det)
        assert math.isclose(lesson.to_bits(nats, 784, log_det=log_det), right)


@pytest.mark.parametrize(("width", "levels"), [(1.0, 256), (2.0, 256), (256.0, 256), (2.0, 32)])
def test_an_even_density_needs_the_bits_of_its_levels_on_each_interval(width, levels):
    even = -10 * math.log(width)  # nats of 10 pixels
    assert math.isclose(lesson.to_bits(even, 10, width, levels), math.log2(levels))


def test_the_worked_answer_is_near_the_best_code_and_its_bound_is_the_packages():
    P = lesson.bent_images()
    assert P.shape == (lesson.LEVELS,) * 2 and P.sum() == pytest.approx(1)
    every = torch.cartesian_prod(*[torch.arange(lesson.LEVELS)] * 2)
    train = every[torch.multinomial(P.flatten(), 300, True, generator=torch.Generator().manual_seed(5))]
    torch.manual_seed(1)
    found, said = lesson.few_bits(train, every, lesson.LEVELS)
    torch.manual_seed(1)
    x = (train + torch.rand(20, *train.shape, dtype=torch.float64)) / lesson.LEVELS  # as the answer draws it
    fitted = SklearnMixture(6, random_state=0).fit(x.flatten(0, 1).numpy())
    mixture = GaussianMixture(
        torch.tensor(fitted.means_), torch.tensor(fitted.covariances_), weights=torch.tensor(fitted.weights_)
    )
    package = Dequantized(mixture, lesson.LEVELS, draws=200).log_prob(every, generator=torch.Generator().manual_seed(2))
    assert float(bits_per_dim(found.mean(), 2, scale="integers")) == pytest.approx(float(said))
    above = float((P.flatten() * (P.flatten().log() - found)).sum()) / 2 / math.log(2)
    gap = float((P.flatten() * (package - found)).sum())
    assert above < lesson.MOST and -0.02 < gap < 0.05


def test_the_museum_is_off_by_what_the_notebook_says():
    log_p = torch.distributions.Normal(0.5, 0.1).log_prob
    off = {name: round(lesson.nats_off(loader, log_p), 2) for name, loader in museum().items()}
    assert off == {"A": -3.07, "B": 0.0, "C": -3.07}


def test_seventeen_pixels_of_the_halved_digits_are_always_black():
    v = mnist.halve(mnist.digits()[0]).flatten(1)
    assert math.isclose(lesson.nats_gained(v, 10.0), 17 * math.log(10))
    assert bool((v[:, (v == v[:1]).all(0)] == 0).all())
