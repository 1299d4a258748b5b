"""The picture of one_small_map_at_a_time against the package; each known wrong answer meets its own hint."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import flowlab
from flowlab.bijections import Leapfrog, Radial
from flowlab.datasets import Energy
from flowlab.lessons.one_small_map_at_a_time import exercises as lesson
from flowlab.lessons.one_small_map_at_a_time import toys
from flowlab.lessons.one_small_map_at_a_time.explorer import MapByMap
from flowlab.models import realnvp
from flowlab.training import reverse_kl


@pytest.fixture(scope="module")
def films():
    return {"data": toys.to_a_normal(n=400), "energy": toys.to_an_energy(flow=toys.bent(Energy(1), layers=3, steps=20))}


def test_the_gauge_is_the_distance_of_the_flow_that_is_shown(films):
    explorer = MapByMap(films)
    p, new = Energy(1), Energy(1).sample(20_000, torch.Generator().manual_seed(9))
    for depth in (0, 5, len(toys.TRIED) - 1):
        explorer.set(depth=depth)
        with torch.no_grad():
            exact = float((p.log_prob(new) - films["data"].flows[depth].log_prob(new)).mean())
        assert explorer.numbers["nats to the truth, KL(p‖q)"] == pytest.approx(exact, abs=0.1)
    explorer.set(direction="energy", depth=3)
    with torch.no_grad():
        x, log_q = films["energy"].flows[-1].draw(20_000, torch.Generator().manual_seed(9))
    kl = float((log_q - p.log_prob(x)).mean())
    assert explorer.numbers["nats to the truth, KL(q‖p)"] == pytest.approx(kl, abs=0.15) and explorer.errors == []


def test_more_maps_come_nearer_to_the_truth_of_points_that_no_map_has_seen(films):
    nats = films["data"].nats
    assert nats[-1] < nats[0] - 0.3 and all(b < a + 0.05 for a, b in itertools.pairwise(nats))


def test_no_map_of_the_flow_is_left_out(films):
    film = films["energy"]
    assert [len(flow.bijection) for flow in film.flows] == [1, 2, 3, 4] and film.maps == [0, 1, 2, 3]


def test_a_hamiltonian_flow_keeps_the_joint_distance():
    """Exactly but for the error of the steps, however long it runs: it moves q and keeps p(x, v)."""
    start = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    before = toys.joint_kl(Energy(1), start, start)
    for steps, size in ((40, 0.05), (80, 0.025)):  # their error falls with the square of the size
        after = toys.joint_kl(Energy(1), start, Leapfrog(4, Energy(1).energy, steps=steps, size=size)(start)[0])
        assert after == pytest.approx(before, abs=20 * size**2)
    assert before == pytest.approx(4.58, abs=0.1)


def by_autograd(x, c, alpha, beta):
    def f(one):
        return one + beta * (one - c) / (alpha + (one - c).norm())

    J = torch.func.vmap(torch.func.jacrev(f))(x)
    return torch.func.vmap(f)(x), J.det().abs().log()


def by_the_package(x, c, alpha, beta):
    f = Radial(len(c)).double()
    f.center.data = c
    f.log_alpha.data.fill_(math.log(alpha))
    f.log_slope.data.fill_(math.log1p(beta / alpha))
    return tuple(part.detach().numpy() for part in f(x))


def wrong_radial(z=lambda x, c, push: x + push, log_det=lambda D, across, along: (D - 1) * across.log() + along.log()):
    def answer(x, c, alpha, beta):
        r = (x - c).norm(dim=-1)
        h = 1 / (alpha + r)
        push = beta * h[:, None] * (x - c)
        return z(x, c, push), log_det(x.shape[1], 1 + beta * h, 1 + beta * h - beta * h**2 * r)

    return answer


def radial_in_numpy(x, c, alpha, beta):
    x, c = x.numpy(), c.numpy()
    r = np.sqrt(((x - c) ** 2).sum(1))
    R = r + beta * r / (alpha + r)  # the new distance
    along = 1 + beta * alpha / (alpha + r) ** 2
    return c + (x - c) * (R / r)[:, None], (x.shape[1] - 1) * np.log(R / r) + np.log(along)


def towards(w, u, by):
    return u + (F.softplus(w @ u) - 1 - w @ u) * by(w)


def slope_by_differences(z, c, alpha, step=1e-5):
    def likelihood(beta):
        moved, log_det = lesson.radial(z, c, alpha, beta)
        return (-0.5 * moved.square().sum(-1) + log_det).mean()

    return float(likelihood(step) - likelihood(-step)) / (2 * step)


def slope_by_autograd(z, c, alpha):
    beta = torch.zeros((), dtype=z.dtype, requires_grad=True)
    moved, log_det = lesson.radial(z, c, alpha, beta)
    return torch.autograd.grad((-0.5 * moved.square().sum(-1) + log_det).mean(), beta)[0]


def slope_in_a_loop(z, c, alpha):
    total = 0.0
    for point in z.tolist():
        away = [a - b for a, b in zip(point, c.tolist(), strict=True)]
        r = math.sqrt(sum(a * a for a in away))
        h = 1 / (alpha + r)
        total += -h * sum(a * b for a, b in zip(point, away, strict=True)) + (len(point) - 1) * h + alpha * h * h
    return total / len(z)


def part_of_slope(pushed=1.0, stretched=1.0, bent=1.0, add=torch.mean):
    def answer(z, c, alpha):
        away = z - c
        r = away.norm(dim=-1)
        h = 1 / (alpha + r)
        return add(-pushed * h * (z * away).sum(-1) + stretched * (z.shape[1] * h - bent * h**2 * r))

    return answer


def weighed(bound=lambda b: b, estimate=lambda e, n: e, share=lambda s, n: s):
    def answer(log_w):
        b, e, s = lesson.weigh(log_w)
        return bound(b), estimate(e, len(log_w)), share(s, len(log_w))

    return answer


def weighed_in_numpy(log_w):
    log_w = np.asarray(log_w)
    p = np.exp(log_w - np.logaddexp.reduce(log_w))  # the weights, as shares of all
    return log_w.mean(), np.logaddexp.reduce(log_w) - np.log(len(log_w)), 1 / (len(log_w) * (p**2).sum())


def untrained(log_target):
    return flowlab.spline_flow(2, 2, standardize=False)


class OneSided:
    """Draws of U1 from its right side alone, with a density that is right there."""

    def draw(self, n, generator=None):
        x = Energy(1).sample(2 * n + 400, generator)
        x = x[x[:, 0] > 0][:n]
        return x, Energy(1).log_prob(x) + math.log(2)


class TooSure(OneSided):
    """Draws of U1, and a log q that is too low."""

    def draw(self, n, generator=None):
        x = Energy(1).sample(n, generator)
        return x, Energy(1).log_prob(x) - 0.5


def by_couplings(log_target):
    flow = realnvp(2, 6, hidden=(24,), standardize=False, generator=torch.Generator().manual_seed(1))
    flowlab.fit(flow, objective=reverse_kl(log_target, n=128, warm=0.6), steps=400, learning_rate=1e-2, progress=False)
    return flow


def by_train(log_target):
    flow = flowlab.spline_flow(2, 3, hidden=(16,), bound=4.5, generator=torch.Generator().manual_seed(0))
    for _ in flowlab.training.train(flow, objective=reverse_kl(log_target, warm=0.4), steps=250, learning_rate=1e-2):
        pass
    return flow


def by_a_loop_of_ones_own(log_target):
    generator = torch.Generator().manual_seed(2)
    flow = flowlab.spline_flow(2, 4, hidden=(16,), bound=4.5, standardize=False, generator=generator)
    optimizer, steps = torch.optim.Adam(flow.parameters(), 1e-2), 350
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        x, log_q = flow.draw(128, generator)
        loss = (log_q - min(1.0, 0.02 + 2 * step / steps) * log_target(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, wrong_radial(z=lambda x, c, push: c + push), "Where has x gone"),
    (1, wrong_radial(z=lambda x, c, push: x - push), "z is not right yet"),
    (1, wrong_radial(log_det=lambda D, across, along: D * across.log()), "its slope is −h²"),
    (1, wrong_radial(log_det=lambda D, across, along: across.log() + along.log()), "In the plane this is right"),
    (1, wrong_radial(log_det=lambda D, across, along: across ** (D - 1) * along), "This is the determinant"),
    (1, wrong_radial(log_det=lambda D, across, along: -(D - 1) * across.log() - along.log()), "not of its inverse"),
    (1, wrong_radial(log_det=lambda D, across, along: along.log()), "log_det is not right yet"),
    (1, lambda x, c, alpha, beta: x, "Return two things"),
    (2, lambda w, u: towards(w, u, lambda w: w / w.norm()), "the slip itself"),
    (2, lambda w, u: u, "u as it came"),
    (2, lambda w, u: towards(w, u, lambda w: w), "Your step w changes it"),
    (2, lambda w, u: 2 * u, "Compute w · û before"),
    (2, lambda w, u: (F.softplus(w @ u) - 1) * w / (w @ w), "Leave alone what is across w"),
    (3, part_of_slope(-1, -1), "slope of the loss"),
    (3, part_of_slope(stretched=0), "Where is that of log |det|"),
    (3, part_of_slope(pushed=0), "slope of log |det| alone"),
    (3, part_of_slope(bent=0), "one more term there"),
    (3, part_of_slope(add=torch.sum), "sum over the points"),
    (3, lambda z, c, alpha: 0.0, "take the slope in β at 0"),
    (4, lambda log_w: (lesson.weigh(log_w)[1],) * 2 + (0.5,), "logarithm of a mean"),
    (4, weighed(bound=lambda b: b + 1), "it is E[log w]"),
    (4, lambda log_w: (log_w.mean(), log_w.exp().mean().log(), lesson.weigh(log_w)[2]), "exp(800) overflows"),
    (4, lambda log_w: (log_w.mean(), log_w.mean(), 0.5), "the bound once more"),
    (4, weighed(estimate=lambda e, n: e + math.log(n)), "sum of the weights"),
    (4, weighed(estimate=lambda e, n: e + 1), "it is log E[w]"),
    (4, weighed(share=lambda s, n: s * n), "a number of draws"),
    (4, weighed(share=lambda s, n: s / 2), "The share is not right yet"),
    (4, lambda log_w: log_w.mean(), "Return three numbers"),
    (5, untrained, "Come below 0.25"),
    (5, lambda t: flowlab.fit(untrained(t), objective=reverse_kl(t), steps=1, progress=False), "That is the history"),
    (5, lambda t: OneSided(), "lost one of two sides"),
    (5, lambda t: TooSure(), "which no density reaches"),
    (5, lambda t: torch.zeros(3), "which has a draw"),
]

# right answers written otherwise than the worked ones
RIGHT = [
    (1, by_autograd),
    (1, by_the_package),
    (1, radial_in_numpy),
    (2, lambda w, u: u - (w @ u) * w / (w @ w) + (F.softplus(w @ u) - 1) * w / (w @ w)),
    (2, lambda w, u: towards(w, u, lambda w: (w / w.norm()) / w.norm())),
    (2, lambda w, u: u.numpy() + float(torch.log1p((w @ u).exp()) - 1 - w @ u) * np.linalg.pinv(w.numpy()[None])[:, 0]),
    (3, slope_by_differences),
    (3, slope_by_autograd),
    (3, slope_in_a_loop),
    (4, weighed_in_numpy),
    (4, lambda log_w: flowlab.metrics.evidence(log_w)[::2][:1] + flowlab.metrics.evidence(log_w)[2:]),
    (
        4,
        lambda log_w: [
            log_w.mean(),
            log_w.logsumexp(0) - math.log(len(log_w)),
            1 / (log_w.softmax(0).square().sum() * len(log_w)),
        ],
    ),
    (5, by_couplings),
    (5, by_train),
    (5, by_a_loop_of_ones_own),
]
