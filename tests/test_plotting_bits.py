"""The pictures of notebook 11: spikes and their score against sums, rulers against the conversions they show."""

import math

import numpy as np
import pytest
import torch

from flowlab.datasets import mnist
from flowlab.densities import GaussianMixture
from flowlab.lessons.images_and_bits_per_dimension import figures as bits
from flowlab.lessons.images_and_bits_per_dimension.explorer import Spikes, ThreeScales
from flowlab.metrics import bits_per_dim, logit_log_det


@pytest.mark.parametrize("width", [1e-3, 0.1, 1.5])
def test_the_density_is_a_mixture_with_the_training_shares(width):
    means, weights = torch.arange(8).double()[:, None] + 0.5, torch.tensor(bits.shares(0))
    covariances = torch.full((8, 1, 1), width**2, dtype=torch.float64)
    mixture = GaussianMixture(means, covariances, weights=weights)
    x = torch.linspace(-1, 9, 101, dtype=torch.float64)
    np.testing.assert_allclose(bits.log_density(x.numpy(), width), mixture.log_prob(x[:, None]).numpy(), atol=1e-8)


@pytest.mark.parametrize("noise", [0.4, 1.0])
def test_the_score_is_a_mean_over_noise_around_the_middle_of_the_bin(noise):
    u = np.random.default_rng(0).random((20_000, 1))
    x = np.arange(8) + 0.5 + noise * (u - 0.5)
    by_hand = bits.log_density(x, 0.3).mean(0) @ bits.shares(1)
    assert float(bits.score(0.3, noise)) == pytest.approx(by_hand, abs=0.01)


def test_without_noise_the_score_has_no_ceiling_and_with_it_the_truths():
    bare = bits.score(10.0 ** -np.arange(1, 8), 0.0)
    np.testing.assert_allclose(np.diff(bare), math.log(10), atol=1e-3)
    assert bits.ceiling(0.0) == math.inf
    widths = 10 ** np.linspace(*bits.LOG_WIDTH, 80)
    for noise in (0.3, 1.0):
        assert bits.score(widths, noise).max() < bits.ceiling(noise)
    assert bits.ceiling(0.3) - bits.ceiling(1.0) == pytest.approx(-math.log(0.3))
    assert float(bits.shares(1) @ np.log(bits.P)) == pytest.approx(bits.ceiling(1.0))
    assert bits.P.sum() == pytest.approx(1)


def test_samples_stay_put_while_spikes_sharpen():
    explorer, seen = Spikes(), []
    for log_width in (-1.0, -2.0, -4.0):
        explorer.set(log_width=log_width)
        seen.append([bar.get_height() for bar in explorer.picture.bars])
    assert explorer.errors == [] and seen[0] == seen[1] == seen[2] and sum(seen[0]) == pytest.approx(1)
    assert explorer.numbers["test score, nats"] == pytest.approx(float(bits.score(1e-4, 0.0)))
    assert explorer.numbers["the truth's score"] == "∞" and "no noise" in explorer.view.alt
    explorer.set(noise=1.0)
    assert explorer.numbers["test score, nats"] < explorer.numbers["the truth's score"] == bits.ceiling(1.0)


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
    places = {name: round(bits.in_bits(*entry), 2) for name, entry in bits.PUBLISHED.items()}
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
