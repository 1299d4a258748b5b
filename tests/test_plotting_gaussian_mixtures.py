"""The explorers of notebook 07 tell the truth: posterior, half-steps and collapse are the package's."""

import numpy as np
import pytest
import torch

from flowlab.densities.mixtures import GaussianMixture, Prior
from flowlab.lessons.gaussian_mixtures_and_em import figures as draw
from flowlab.lessons.gaussian_mixtures_and_em.explorer import BayesRule, EMByHand


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prior", [0.01, 0.3, 0.99])
def test_the_posterior_is_the_mixture_s_and_is_a_half_on_the_border(prior):
    picture = draw.PriorAndEvidence()
    numbers = picture.update(prior, 181.0, 77.0, "height and weight")
    groups = draw.people(rowers=prior)
    person = torch.tensor([[181.0, 77.0]], dtype=torch.float64)
    assert numbers["posterior of rower"] == pytest.approx(float(groups.responsibilities(person)[0, 1].detach()))
    border = torch.as_tensor(np.array(picture.boundary[0].get_data()).T)
    assert len(border) > 50
    r = groups.responsibilities(border).detach()
    torch.testing.assert_close(r[:, 0], r[:, 1], atol=0.03, rtol=0)  # between the points of a grid


@pytest.mark.parametrize("prior", [0.05, 0.6])
def test_the_crowd_and_its_wrong_calls_follow_the_prior(prior):
    picture = draw.PriorAndEvidence()
    numbers = picture.update(prior, 181.0, 77.0, "height only")
    shown = [len(dots.get_xdata()) for dots in picture.dots]
    assert sum(shown) == draw.CROWD and shown[1] / draw.CROWD == pytest.approx(prior, abs=0.08)
    x, label = draw.labelled_people(40_000, seed=77, rowers=prior)
    groups = draw.people(rowers=prior)
    heights = GaussianMixture(groups.means[:, :1], groups.covariances[:, :1, :1], weights=groups.weights)
    wrong = (heights.expectation(x[:, :1]).argmax(-1) != label).double().mean()
    assert float(numbers["wrong calls in the crowd"].split()[0]) == pytest.approx(100 * float(wrong), abs=1.0)


def test_the_labelled_people_have_the_groups_densities():
    x, label = draw.labelled_people(40_000, seed=1, rowers=0.25)
    assert float(label.double().mean()) == pytest.approx(0.25, abs=0.01)
    groups = draw.people()
    for k in (0, 1):
        torch.testing.assert_close(x[label == k].mean(0), groups.means[k].detach(), atol=0.2, rtol=0)
        torch.testing.assert_close(x[label == k].T.cov(), groups.covariances[k], atol=0.9, rtol=0)


@pytest.mark.parametrize("hard", [False, True])
def test_half_steps_are_those_of_the_package(hard):
    course = draw.Run("three clouds", 3, 4, "random", hard)
    floor = course.mixture.floor
    mixture = GaussianMixture.start(course.x, 3, how="random", generator=seeded(4), floor=floor)
    course[9]  # all at once, not one by one
    for i in range(1, 5):
        s = mixture.step(course.x, hard=hard)
        e, m = course[2 * i - 1], course[2 * i]
        assert torch.equal(e.responsibilities, s.responsibilities) and torch.equal(m.means, s.means)
        assert (e.bound, m.bound, m.log_likelihood) == pytest.approx((s.before, s.bound, s.log_likelihood))
        assert e.log_likelihood == course[2 * i - 2].log_likelihood
        gauge = float((course.log_p - mixture.log_prob(course.held_out)).mean())
        assert m.to_the_truth == pytest.approx(gauge)


@pytest.mark.parametrize("data", draw.SCENES)
def test_soft_touches_and_climbs_and_the_hard_bound_climbs_below(data):
    soft, hard = (draw.Run(data, 4, 2, "kmeans++", kind) for kind in (False, True))
    scores = [soft[i].log_likelihood for i in range(31)]
    assert (np.diff(scores) > -1e-10).all()
    assert all(abs(soft[i].bound - soft[i].log_likelihood) < 1e-9 for i in range(1, 31, 2))
    bounds = [hard[i].bound for i in range(1, 31)]
    assert (np.diff(bounds) > -1e-10).all()
    assert all(hard[i].log_likelihood > hard[i].bound for i in range(1, 31))


def test_the_bars_are_the_gaps():
    picture = draw.HalfSteps()
    picture.update(6, 3, 0, "three clouds", "random", "soft")
    tops = [segment[1, 1] for segment in picture.gap.get_segments()]
    course = draw.run("three clouds", 3, 0, "random", False)
    gaps = [course[i].log_likelihood - course[i].bound for i in (2, 4, 6)]
    assert tops[1::2] == pytest.approx(gaps) and tops[0::2] == [draw.GAPS[0]] * 3


def held(found, sigma, prior):
    """EM by the package, one component put back on the person after each step; its objective."""
    other = int(found.at[1] < 78)  # of the other group
    mu, S, pi = draw.people().means[other], draw.people().covariances[other], torch.tensor([0.5, 0.5])
    for _ in range(40):
        covariances = torch.stack((S, sigma**2 * torch.eye(2, dtype=torch.float64)))
        mixture = GaussianMixture(torch.stack((mu, found.at)), covariances, weights=pi, floor=0.0, prior=prior)
        objective = mixture.objective(found.x)
        mixture.maximization(found.x, mixture.expectation(found.x))
        mu, S, pi = mixture.means[0].detach(), mixture.covariances[0], mixture.weights
    return objective


def test_the_scores_while_shrinking_are_the_package_s():
    found = draw.collapse(30, 4)
    prior, i, j = Prior.weak(found.x, 2), 1, 7  # at 6 and at 0.4 cm the start on the other group is the better one
    first, second = (held(found, 10.0 ** draw.POWERS[k], prior) for k in (i, j))
    assert float(found.penalized[i] - found.penalized[j]) == pytest.approx(first - second, abs=1e-6)
    for k in (i, j):
        assert float(found.training[k]) == pytest.approx(held(found, 10.0 ** draw.POWERS[k], None), abs=1e-6)


@pytest.mark.parametrize("crowd", draw.CROWDS)
def test_a_shrinking_component_gains_two_nats_for_each_factor_e_and_a_prior_stops_it(crowd):
    found = draw.collapse(crowd, 4)
    folds = -np.log(10) * np.diff(draw.POWERS)[-20:]
    assert crowd * np.diff(found.training.numpy())[-20:] / folds == pytest.approx(2 * np.ones(20), rel=1e-3)
    assert draw.POWERS[int(found.penalized.argmax())] > 0  # a top at some centimeters
    assert float(found.held_out[-1]) < found.sensible[1]
    assert (float(found.training[-1]) > found.sensible[0]) == (crowd < 200)  # more people only delay it


def test_the_buttons_step_and_the_one_without_effect_is_off():
    explorer = EMByHand()
    explorer.set(half_step=0)
    assert not explorer.e_button.disabled and explorer.m_button.disabled
    explorer.e_button.click()
    assert explorer.numbers["after"] == "E-step 1" and explorer.e_button.disabled
    explorer.m_button.click()
    assert explorer.numbers["after"] == "M-step 1" and explorer.m_button.disabled
    explorer.set(half_step=draw.HALF_STEPS)
    assert explorer.e_button.disabled and explorer.m_button.disabled and explorer.errors == []


def test_the_person_follows_the_pointer_within_the_axes():
    explorer = BayesRule()
    x0, y0, x1, y1 = explorer.view.regions[0]
    explorer.view.pointer = {"kind": "down", "x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "count": 1}
    middle = sum(draw.HEIGHTS) / 2, sum(draw.WEIGHTS) / 2
    assert (explorer.values()["height"], explorer.values()["weight"]) == pytest.approx(middle, abs=0.5)
    explorer.view.pointer = {"kind": "move", "x": 0.9, "y": 0.5, "count": 2}  # over the bars: stays
    assert explorer.values()["height"] == pytest.approx(middle[0], abs=0.5) and explorer.errors == []
