"""The pictures of notebook 08: a bound that touches, divergences against sums, a density by all preimages."""

import math

import numpy as np
import pytest
import torch

from flowlab import Flow
from flowlab.bijections import ScaleShift
from flowlab.densities import StandardNormal
from flowlab.densities.mixtures import GaussianMixture
from flowlab.lessons.the_elbo import figures as bound
from flowlab.lessons.the_elbo.explorer import BoundTouches, ForwardAndReverse

THETA = np.linspace(-4.5, 4.5, 37)


def package(theta):
    return GaussianMixture(torch.tensor([[0.0], [theta]], dtype=torch.float64))


@pytest.mark.parametrize("old", [-3.0, 0.6, 2.8])
def test_the_bound_is_the_packages_and_its_gap_is_the_mean_kl(old):
    x, r = torch.as_tensor(bound.points())[:, None], bound.responsibilities(old)
    q = torch.as_tensor(np.stack((1 - r, r), -1))
    torch.testing.assert_close(q, package(old).expectation(x))
    for theta in (-2.0, old, 3.3):
        model = package(theta)
        kl = (q * (q.log() - model.expectation(x).log())).sum(-1).mean()
        assert float(bound.bound(theta, r)) == pytest.approx(model.bound(x, q), abs=1e-9)
        assert float(bound.likelihood(theta) - bound.bound(theta, r)) == pytest.approx(float(kl), abs=1e-9)


@pytest.mark.parametrize("old", [-3.0, 0.6, 2.8])
def test_the_bound_touches_at_the_old_parameter_and_has_its_top_where_m_says(old):
    r = bound.responsibilities(old)
    assert float(bound.likelihood(old) - bound.bound(old, r)) == pytest.approx(0, abs=1e-12)
    assert (bound.bound(THETA, r) <= bound.likelihood(THETA) + 1e-12).all()
    assert (bound.bound(THETA, r) <= bound.bound(bound.top(r), r)).all()


def test_the_start_decides_on_which_summit_em_ends():
    ends = []
    for theta in (-1.0, 0.6):
        for _ in range(60):
            theta = bound.top(bound.responsibilities(theta))
        ends.append(theta)
    assert ends[0] < -2 and ends[1] > 2 and bound.likelihood(ends[1]) > bound.likelihood(ends[0]) + 0.1


def sums(mu, log_sigma, d):
    """KL(p ‖ q) and KL(q ‖ p) by a sum over a fine line."""
    x = np.linspace(-30, 30, 60_001)
    log_p = bound.two_humps(x, d)
    log_q = -0.5 * ((x - mu) / math.exp(log_sigma)) ** 2 - log_sigma - 0.5 * math.log(2 * math.pi)
    p, q = np.exp(log_p), np.exp(log_q)
    return (p * (log_p - log_q)).sum() * 0.001, (q * (log_q - log_p)).sum() * 0.001


@pytest.mark.parametrize("d", bound.SEPARATIONS)
@pytest.mark.parametrize(("mu", "log_sigma"), [(0.0, 0.0), (2.0, -0.7), (-1.3, 0.9)])
def test_both_divergences_are_what_a_sum_says(d, mu, log_sigma):
    forward, reverse = sums(mu, log_sigma, d)
    assert float(bound.forward_kl(mu, log_sigma, d)) == pytest.approx(forward, rel=1e-4, abs=1e-4)
    assert float(bound.reverse_kl(mu, log_sigma, d)) == pytest.approx(reverse, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("d", bound.SEPARATIONS)
def test_nothing_on_the_landscapes_is_below_the_best(d):
    seen = bound.landscape(d)
    assert seen.forward.min() >= float(bound.forward_kl(*bound.forward_best(d), d)) - 1e-9
    best = [float(bound.reverse_kl(*found, d)) for found in bound.reverse_best(d)]
    assert best == sorted(best) and seen.reverse.min() >= best[0] - 1e-6
    assert len(best) == (1 if d <= 1 else 2)


def test_preimages_of_a_flow_and_of_a_map_that_folds():
    flow = Flow(ScaleShift(1), StandardNormal(1)).double()
    with torch.no_grad():
        flow.bijection.log_scale.fill_(-0.7)
        at = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
        found = bound.by_preimages(lambda z: flow.bijection.inverse(z)[0], at)
        torch.testing.assert_close(found.log(), flow.log_prob(at), rtol=1e-3, atol=1e-3)
    at = torch.tensor([-0.5, 0.51, 2.03], dtype=torch.float64)  # z² has no z, and two
    chi = torch.where(at > 0, (-at / 2).exp() / (2 * math.pi * at.abs()).sqrt(), 0.0)
    found = bound.by_preimages(lambda z: torch.stack((z, z**2)), at[:, None])  # a stack
    torch.testing.assert_close(found[0], StandardNormal(1).log_prob(at[:, None]).exp(), rtol=5e-3, atol=0)
    torch.testing.assert_close(found[1], chi, rtol=1e-2, atol=0)


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
    log_p = torch.full((1, 41, 41), -50.0)
    log_p[0, 30, 10] = 0.0  # z₁ = 2.5, z₂ = −2.5
    axes = bound.posteriors(torch.zeros(1, 16), log_p, torch.tensor([[2.0, -2.0]]), torch.ones(1, 2) / 2, 5.0).axes[1]
    assert axes.get_xlim()[0] < 1.0 < 3.0 < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < -3.0 < -1.0 < axes.get_ylim()[1]
