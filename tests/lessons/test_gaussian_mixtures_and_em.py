"""The explorers of gaussian_mixtures_and_em show the package's own steps, and so do its worked answers."""

import math

import numpy as np
import pytest
import torch

from flowlab.densities.mixtures import EMGaussianMixture, Prior
from flowlab.lessons.gaussian_mixtures_and_em import exercises as lesson
from flowlab.lessons.gaussian_mixtures_and_em import figures as draw
from flowlab.lessons.gaussian_mixtures_and_em import toys
from flowlab.lessons.gaussian_mixtures_and_em.explorer import BayesRule, EMByHand

# Pictures and explorers


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prior", [0.01, 0.3, 0.99])
def test_the_posterior_is_the_mixture_s_and_is_a_half_on_the_border(prior):
    picture = draw.PriorAndEvidence()
    numbers = picture.update(prior, 181.0, 77.0, "height and weight")
    groups = toys.people(rowers=prior)
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
    x, label = toys.labelled_people(40_000, seed=77, rowers=prior)
    groups = toys.people(rowers=prior)
    heights = EMGaussianMixture(groups.means[:, :1], groups.covariances[:, :1, :1], weights=groups.weights)
    wrong = (heights.expectation(x[:, :1]).argmax(-1) != label).double().mean()
    assert float(numbers["wrong calls in the crowd"].split()[0]) == pytest.approx(100 * float(wrong), abs=1.0)


def test_the_labelled_people_have_the_groups_densities():
    x, label = toys.labelled_people(40_000, seed=1, rowers=0.25)
    assert float(label.double().mean()) == pytest.approx(0.25, abs=0.01)
    groups = toys.people()
    for k in (0, 1):
        torch.testing.assert_close(x[label == k].mean(0), groups.means[k].detach(), atol=0.2, rtol=0)
        torch.testing.assert_close(x[label == k].T.cov(), groups.covariances[k], atol=0.9, rtol=0)


@pytest.mark.parametrize("hard", [False, True])
def test_half_steps_are_those_of_the_package(hard):
    course = toys.Run("three clouds", 3, 4, "random", hard)
    floor = course.mixture.floor
    mixture = EMGaussianMixture.start(course.x, 3, how="random", generator=seeded(4), floor=floor)
    course[9]  # all at once, not one by one
    for i in range(1, 5):
        s = mixture.step(course.x, hard=hard)
        e, m = course[2 * i - 1], course[2 * i]
        assert torch.equal(e.responsibilities, s.responsibilities) and torch.equal(m.means, s.means)
        assert (e.bound, m.bound, m.log_likelihood) == pytest.approx((s.before, s.bound, s.log_likelihood))
        assert e.log_likelihood == course[2 * i - 2].log_likelihood
        gauge = float((course.log_p - mixture.log_prob(course.held_out)).mean())
        assert m.to_the_truth == pytest.approx(gauge)


@pytest.mark.parametrize("data", toys.SCENES)
def test_soft_touches_and_climbs_and_the_hard_bound_climbs_below(data):
    soft, hard = (toys.Run(data, 4, 2, "kmeans++", kind) for kind in (False, True))
    climbs = [soft[i].log_likelihood for i in range(31)]
    assert (np.diff(climbs) > -1e-10).all()
    assert all(abs(soft[i].bound - soft[i].log_likelihood) < 1e-9 for i in range(1, 31, 2))
    bounds = [hard[i].bound for i in range(1, 31)]
    assert (np.diff(bounds) > -1e-10).all()
    assert all(hard[i].log_likelihood > hard[i].bound for i in range(1, 31))


def test_the_bars_are_the_gaps():
    picture = draw.HalfSteps()
    picture.update(6, 3, 0, "three clouds", "random", "soft")
    tops = [segment[1, 1] for segment in picture.gap.get_segments()]
    course = toys.run("three clouds", 3, 0, "random", False)
    gaps = [course[i].log_likelihood - course[i].bound for i in (2, 4, 6)]
    assert tops[1::2] == pytest.approx(gaps) and tops[0::2] == [draw.GAPS[0]] * 3


def held(found, sigma, prior):
    """EM by the package, one component put back on the person after each step; its objective."""
    other = int(found.at[1] < 78)  # of the other group
    mu, S, pi = toys.people().means[other], toys.people().covariances[other], torch.tensor([0.5, 0.5])
    for _ in range(40):
        covariances = torch.stack((S, sigma**2 * torch.eye(2, dtype=torch.float64)))
        mixture = EMGaussianMixture(torch.stack((mu, found.at)), covariances, weights=pi, floor=0.0, prior=prior)
        objective = mixture.objective(found.x)
        mixture.maximization(found.x, mixture.expectation(found.x))
        mu, S, pi = mixture.means[0].detach(), mixture.covariances[0], mixture.weights
    return objective


def test_the_curves_while_shrinking_are_the_package_s():
    found = toys.collapse(30, 4)
    prior, i, j = Prior.weak(found.x, 2), 1, 7  # at 6 and at 0.4 cm the start on the other group is the better one
    first, second = (held(found, 10.0 ** toys.POWERS[k], prior) for k in (i, j))
    assert float(found.penalized[i] - found.penalized[j]) == pytest.approx(first - second, abs=1e-6)
    for k in (i, j):
        assert float(found.training[k]) == pytest.approx(held(found, 10.0 ** toys.POWERS[k], None), abs=1e-6)


@pytest.mark.parametrize("crowd", draw.CROWDS)
def test_a_shrinking_component_gains_two_nats_for_each_factor_e_and_a_prior_stops_it(crowd):
    found = toys.collapse(crowd, 4)
    folds = -np.log(10) * np.diff(toys.POWERS)[-20:]
    assert crowd * np.diff(found.training.numpy())[-20:] / folds == pytest.approx(2 * np.ones(20), rel=1e-3)
    assert toys.POWERS[int(found.penalized.argmax())] > 0  # a top at some centimeters
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
    middle = sum(toys.HEIGHTS) / 2, sum(toys.WEIGHTS) / 2
    assert (explorer.values()["height"], explorer.values()["weight"]) == pytest.approx(middle, abs=0.5)
    explorer.view.pointer = {"kind": "move", "x": 0.9, "y": 0.5, "count": 2}  # over the bars: stays
    assert explorer.values()["height"] == pytest.approx(middle[0], abs=0.5) and explorer.errors == []


# Exercises


def joint(log_density, weights):
    return log_density + weights.log()


def m_step(weights=None, means=None, covariance=None):
    """A student's M-step that is right but for the parts given: functions of x, r, N_k and the right value."""

    def answer(x, r):
        parts, wrong = lesson.shared_m_step(x, r), (weights, means, covariance)
        return tuple(p if w is None else w(x, r, r.sum(0), p) for p, w in zip(parts, wrong, strict=True))

    return answer


def each(x, r, counts):
    """The covariance of each component, (K, D, D)."""
    e = deviations(x, r, counts)
    return (r.T[..., None] * e).mT @ e / counts[:, None, None]


def deviations(x, r, counts):
    return x - (r.T @ x / counts[:, None])[:, None]  # (K, N, D)


def pooled(x, r):
    """Point by point, component by component, in numpy."""
    x, r = np.asarray(x), np.asarray(r)
    weights = r.mean(0)
    means = np.stack([np.average(x, axis=0, weights=r[:, k]) for k in range(r.shape[1])])
    total = 0
    for k, mean in enumerate(means):
        for n in range(len(x)):
            total = total + r[n, k] * np.outer(x[n] - mean, x[n] - mean)
    return weights, means, total / len(x)


def one_hot(r):
    return torch.nn.functional.one_hot(r.argmax(-1), r.shape[1]).to(r)


def entropy(r):
    return torch.special.entr(r).sum(-1).mean()


def average(log_joint, r):
    return (r * log_joint).sum(-1).mean()


def eigen(change, back=lambda V, values: V @ torch.diag(values) @ V.T):
    """A student's floor by eigenvalues: what they make of them, and how they turn back."""

    def answer(covariance, floor):
        values, V = torch.linalg.eigh(covariance)
        return back(V, change(values, floor))

    return answer


def fitted(K, restarts=1, **settings):
    """A student's fit that takes the same K whatever the points are."""
    return lambda x: EMGaussianMixture.fit(x, K, restarts=restarts, tolerance=1e-4, generator=seeded(0), **settings)


class Raised:
    """A density that claims more than it has."""

    def __init__(self, mixture):
        self.mixture = mixture

    def log_prob(self, x):
        return self.mixture.log_prob(x) + 1


class Box:
    """The uniform density on the smallest box around the points it was given."""

    def __init__(self, x):
        self.low, self.high = x.amin(0), x.amax(0)

    def log_prob(self, x):
        inside = ((x >= self.low) & (x <= self.high)).all(-1)
        return torch.where(inside, -(self.high - self.low).log().sum(), -math.inf)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda d, w: d.softmax(-1), "forgot the weights"),
    (1, lambda d, w: joint(d, w).softmax(0), "sum to one over the points"),
    (1, lambda d, w: joint(d, w).exp(), "Divide each row by its sum"),
    (1, lambda d, w: joint(d, w).log_softmax(-1), "These are log r"),
    (1, lambda d, w: one_hot(joint(d, w)), "All or nothing"),
    (1, lambda d, w: w * d.softmax(-1), "after the division"),
    (1, lambda d, w: (d + w).softmax(-1), "not as π_k"),
    (1, lambda d, w: (d * w).softmax(-1), "is added to its logarithm"),
    (1, lambda d, w: joint(d, w).softmax(-1).T, "a row a point"),
    (1, lambda d, w: joint(d, w).softmax(-1) / 2, "make each row of exponentials sum to one"),
    (1, lambda d, w: joint(d, w).exp() / joint(d, w).exp().sum(-1, keepdim=True), "0/0 is no number"),
    (
        1,
        lambda d, w: (
            joint(d, w).exp().clamp(max=1e30) / (joint(d, w).exp().clamp(max=1e30).sum(-1, keepdim=True) + 1e-30)
        ),
        "hides the underflow",
    ),
    (1, lambda d, w: joint(d.clamp(-500, 500), w).softmax(-1), "only the differences in a row"),
    (2, lambda x, r: r.sum(0), "Return three things"),
    (2, m_step(weights=lambda x, r, N, p: N), "are the counts N_k"),
    (2, m_step(weights=lambda x, r, N, p: torch.full_like(N, 1 / len(N))), "are all equal"),
    (2, m_step(weights=lambda x, r, N, p: one_hot(r).mean(0)), "for its likeliest component"),
    (2, m_step(weights=lambda x, r, N, p: p**2), "The weights are not right yet"),
    (2, m_step(means=lambda x, r, N, p: r.T @ x / len(x)), "means are divided by N"),
    (
        2,
        m_step(means=lambda x, r, N, p: (one_hot(r).T @ x) / one_hot(r).sum(0)[:, None]),
        "for one component only",
    ),
    (2, m_step(means=lambda x, r, N, p: x.mean(0).expand_as(p)), "means ignore r"),
    (2, m_step(means=lambda x, r, N, p: r.T @ x), "means are sums"),
    (2, m_step(means=lambda x, r, N, p: -p), "The means are not right yet"),
    (2, m_step(covariance=lambda x, r, N, p: each(x, r, N)), "All share one here"),
    (2, m_step(covariance=lambda x, r, N, p: each(x, r, N).mean(0)), "as if all were equally large"),
    (2, m_step(covariance=lambda x, r, N, p: torch.cov(x.T, correction=0)), "around the mean of all"),
    (2, m_step(covariance=lambda x, r, N, p: p * len(x)), "Your covariance is a sum"),
    (2, m_step(covariance=lambda x, r, N, p: p * len(x) / (len(x) - len(N))), "unbiased"),
    (2, m_step(covariance=lambda x, r, N, p: each(x, r, N).sum(0)), "You added the components"),
    (2, m_step(covariance=lambda x, r, N, p: torch.diag(p.diagonal())), "Only the diagonal"),
    (
        2,
        m_step(covariance=lambda x, r, N, p: (deviations(x, r, N).mT @ deviations(x, r, N)).sum(0) / len(x)),
        "weighs all points alike",
    ),
    (2, m_step(covariance=lambda x, r, N, p: 2 * p), "Which Σ maximizes"),
    (3, average, "expected log-joint"),
    (3, lambda j, r: average(j, r) - entropy(r), "sign of the entropy"),
    (3, lambda j, r: len(r) * (average(j, r) + entropy(r)), "the sum over points"),
    (3, lambda j, r: (r * j + torch.special.entr(r)).mean(), "over components too"),
    (3, lambda j, r: j.logsumexp(-1).mean(), "whatever r is"),
    (3, lambda j, r: (r * j.exp()).sum(-1).log().mean(), "inside the sum over k"),
    (3, lambda j, r: -average(j, r) - entropy(r), "sign of the whole"),
    (3, lambda j, r: (r * j + torch.special.entr(r)).sum(-1), "one number, the mean"),
    (3, lambda j, r: average(j, r) + 2 * entropy(r), "each weighted by r"),
    (3, lambda j, r: (r * (j - r.log())).sum(-1).mean(), "must count as 0"),
    (3, lambda j, r: (r * (j - (r + 0.05 * (r == 0).any()).log())).sum(-1).mean(), "has entropy 0"),
    (4, lambda S, f: S, "Nothing has changed"),
    (4, lambda S, f: S + f * torch.eye(3), "that is a ridge"),
    (4, lambda S, f: torch.where(torch.eye(3).bool(), S.clamp_min(f), S), "raised the diagonal entries"),
    (4, lambda S, f: S.clamp_min(f), "You raised the entries"),
    (4, lambda S, f: f * torch.eye(3), "threw the direction"),
    (4, eigen(torch.clamp_min, lambda V, v: V.T @ torch.diag(v) @ V), "the directions are not"),
    (4, eigen(torch.clamp_min, lambda V, v: torch.diag(v)), "Turn them back"),
    (4, eigen(lambda v, f: v.clamp_min(f**2)), "not to be squared"),
    (4, eigen(lambda v, f: v.clamp_min(f**0.5)), "no root"),
    (4, eigen(lambda v, f: 2 * v.clamp_min(f)), "In which directions"),
    (4, eigen(lambda v, f: torch.cat((torch.full_like(v[:1], f), v[1:]))), "come back as it was"),
    (5, lambda x: None, "Is there a return?"),
    (5, lambda x: 3, "Expected a flow"),
    (5, fitted(1), "It has too few components"),
    (5, fitted(3), "It has too few components"),
    (5, fitted(20, floor=1e-4), "it fits the noise"),
    (5, lambda x: fitted(3)(x) if len(x) == 200 else fitted(7)(x), "take the best of several starts"),
    (5, lambda x: Raised(fitted(3)(x)), "does it integrate to one?"),
    (5, lambda x: Box(x), "is not finite"),
]


def from_the_largest(log_density, weights):
    p = (log_density - log_density.amax(-1, keepdim=True)).exp() * weights
    return p / p.sum(-1, keepdim=True)


def by_held_out(x):
    """K by every second point, which the fits have not seen, and then all points for that K."""
    seen, unseen = x[::2], x[1::2]
    fits = {K: fitted(K, restarts=5, prior=Prior.weak(seen, K))(seen) for K in range(1, 9)}
    K = max(fits, key=lambda K: float(fits[K].log_prob(unseen).mean()))
    return fitted(K, restarts=5, prior=Prior.weak(x, K))(x)


def by_the_last_gain(x):
    """One component more, as long as it gains 3 log N nats; many random starts, and a floor."""
    best, K = fitted(1)(x), 1
    while K < 8:
        more = fitted(K + 1, restarts=10, how="random", floor=3e-3)(x)
        if float(more.log_prob(x).sum() - best.log_prob(x).sum()) < 3 * math.log(len(x)):
            break
        best, K = more, K + 1
    return best


RIGHT = [
    (1, from_the_largest),
    (2, pooled),
    (2, lambda x, r: [*lesson.shared_m_step(x, r)[:2], (each(x, r, r.sum(0)) * r.mean(0)[:, None, None]).sum(0)]),
    (3, lambda j, r: j.logsumexp(-1).mean() - (torch.xlogy(r, r) - r * j.log_softmax(-1)).sum(-1).mean()),
    (4, lambda S, f: f * torch.eye(3) + eigen(lambda v, f: (v - f).clamp_min(0))(S, f)),
    (5, by_held_out),
    (5, by_the_last_gain),
    (5, lambda x: min((fitted(K, restarts=5, floor=3e-3)(x) for K in range(1, 9)), key=lambda fit: fit.bic(x))),
]


def test_the_worked_answers_are_the_package_s():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixture = EMGaussianMixture.start(x, 3, generator=torch.Generator().manual_seed(1))
    density = mixture.log_joint(x) - mixture.weights.log()
    r = lesson.responsibilities(density, mixture.weights)
    torch.testing.assert_close(r, mixture.expectation(x))
    assert float(lesson.bound(mixture.log_joint(x), r)) == pytest.approx(mixture.bound(x, r))
    mixture.maximization(x, r)
    weights, means, covariance = lesson.shared_m_step(x, r)
    torch.testing.assert_close(weights, mixture.weights)
    torch.testing.assert_close(means, mixture.means.detach())
    torch.testing.assert_close(covariance, (mixture.weights[:, None, None] * mixture.covariances).sum(0))
    thin = torch.diag(torch.tensor([1.0, 1e-8], dtype=torch.float64))
    raised = EMGaussianMixture(torch.zeros(1, 2, dtype=torch.float64), thin[None], floor=0.01).covariances[0]
    torch.testing.assert_close(lesson.raise_to_floor(thin, 0.01), raised)


def test_no_other_shared_covariance_raises_the_bound_more():
    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    r = torch.randn(80, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64).softmax(-1)
    weights, means, best = lesson.shared_m_step(x, r)

    def height(covariance):
        return EMGaussianMixture(means, covariance.expand(3, 2, 2), weights=weights).bound(x, r)

    for scale in (0.9, 0.99, 1.01, 1.1):
        assert height(best) > height(scale * best)
    assert height(best) > height(torch.cov(x.T, correction=0))
