"""The pictures of from_realnvp_to_glow against grids and samples; its worked answers are the package's own steps."""

import math

import numpy as np
import pytest
import torch

from flowlab.bijections import ActNorm, BatchNorm, InvertibleConvolution, LULinear, starting
from flowlab.datasets import TwoMoons
from flowlab.lessons.from_realnvp_to_glow import exercises as lesson
from flowlab.lessons.from_realnvp_to_glow import figures as mixing
from flowlab.lessons.from_realnvp_to_glow import toys
from flowlab.lessons.from_realnvp_to_glow.explorer import ShuffleReverseRotate, TurnAxes, race
from flowlab.lessons.from_realnvp_to_glow.toys import (
    PLANE,
    Bananas,
    OneCoupling,
    Turned,
    axes_at,
    contender,
    learned_angle,
    learner,
)
from flowlab.plotting.plane import plane

# Pictures and explorers


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_banana_and_a_turned_density_integrate_to_one():
    points, cell = plane(9.0, 361), (18 / 360) ** 2
    for density in (Bananas(2), Bananas(2, turned=True), Turned(TwoMoons(), 40)):
        assert float(density.log_prob(points).exp().sum() * cell) == pytest.approx(1, abs=2e-3)


def test_samples_of_bananas_come_from_their_density():
    density = Bananas(4, turned=True, seed=3)
    torch.testing.assert_close(density.Q @ density.Q.T, torch.eye(4), atol=1e-5, rtol=0)
    x = density.sample(20_000, seeded())
    entropy = 2 * (math.log(2 * math.pi * math.e) + math.log(density.width))
    assert float(density.log_prob(x).mean()) == pytest.approx(-entropy, abs=0.05)
    u = x @ density.Q
    pairs = np.corrcoef((u**2)[:, [0, 2]].T, u[:, [1, 3]].T)[:2, 2:]
    assert pairs.diagonal().min() > 0.9 and abs(pairs[0, 1]) < 0.05
    with pytest.raises(ValueError, match="even number"):
        Bananas(3)


@pytest.mark.parametrize("angle", [0, 40, 110])
def test_the_best_coupling_has_the_moments_of_a_grid_in_its_own_axes(angle):
    """Against sums on a grid that is turned with the axes, so that nothing is shared between nodes."""
    toy, best = TwoMoons(), OneCoupling.on_grid(TwoMoons(), 3.0)
    grid = plane(3.0, 241).double()  # rows u₂, columns u₁
    log_p = toy.log_prob((grid @ torch.tensor(axes_at(angle))).float()).double()
    p = log_p.exp() / log_p.exp().sum()
    u = torch.linspace(-3, 3, 241, dtype=torch.float64)
    m = p.sum(0)
    mean = (p * u[:, None]).sum(0) / m
    variance = (p * (u[:, None] - mean) ** 2).sum(0) / m
    middle = (m * u).sum()
    spread = (m * (u - middle) ** 2).sum().sqrt()
    seen = m > 1e-12
    gauge = math.log(2 * math.pi * math.e) + spread.log() + (m * 0.5 * variance.log())[seen].sum() + (p * log_p).sum()
    assert best[angle].gauge == pytest.approx(float(gauge), abs=0.01)
    at = int((u - 0.5).abs().argmin())
    assert np.interp(float(u[at]), best.nodes, best[angle].means) == pytest.approx(float(mean[at]), abs=0.02)


def test_the_gauge_is_the_mean_of_log_p_minus_log_q_and_q_is_a_density():
    for name, angle in (("banana", 20), ("two moons", 242)):
        best, x = toys.one_coupling(name), PLANE[name].sample(40_000, seeded())
        sampled = PLANE[name].log_prob(x).mean() - best.log_q(x.double().numpy(), angle).mean()
        assert best[angle].gauge == pytest.approx(float(sampled), abs=0.03)
        extent = 9.0
        q = np.exp(best.log_q(plane(extent, 361).double().numpy(), angle))
        assert q.sum() * (2 * extent / 360) ** 2 == pytest.approx(1, abs=0.02)


def test_a_banana_is_one_coupling_along_its_own_axis_and_no_angle_helps_circles():
    gauges = toys.one_coupling("banana").gauges
    assert abs(gauges[0]) < 1e-3 and gauges.max() > 1
    np.testing.assert_allclose(gauges, np.roll(gauges, 90), atol=1e-3)  # half a turn changes nothing
    assert np.ptp(toys.one_coupling("two circles").gauges) < 0.01


def test_hand_and_training_agree():
    """Turning data and axes alike changes nothing; a trained flow comes near the least of all angles."""
    explorer = TurnAxes(steps=150)
    first = explorer.numbers["nats to the truth at your angle"]
    explorer.set(turn=50, angle=20)
    assert explorer.numbers["nats to the truth at your angle"] == pytest.approx(first)
    assert explorer.numbers["at"] == "50°"
    explorer.start_button.click()
    assert explorer.errors == [] and explorer.numbers["step"] == "150"
    last = explorer.picture.snapshots[-1]
    assert -0.05 < last.gauge < 0.4 and abs(last.angle - 50) < 12
    assert explorer.picture.snapshots[0].angle == pytest.approx(20, abs=0.1)
    explorer.set(snapshot=0)
    assert explorer.numbers["step"] == "0" and explorer.numbers["trained flow"] > last.gauge
    explorer.set(turn=0)  # other data: what was trained is not shown
    assert "trained flow" not in explorer.numbers


def test_a_learner_starts_at_its_angle_and_a_half_turn_is_the_same_axis():
    assert learned_angle(learner(70)) == pytest.approx(70, abs=1e-3)
    assert learned_angle(learner(180 + 25)) == pytest.approx(25, abs=1e-3)


def test_contenders_differ_in_their_mixing_alone():
    x = torch.randn(64, 8, generator=seeded())
    sizes = {}
    for kind in toys.MIXINGS:
        flow = contender(kind, 8, seed=1)
        assert len(flow.bijection) == 9
        z = flow.bijection(x)[0]
        torch.testing.assert_close(flow.bijection.inverse(z)[0], x, atol=1e-4, rtol=1e-4)
        sizes[kind] = sum(p.numel() for p in flow.parameters())
    assert sizes["reverse"] == sizes["shuffle"] < sizes["rotate"]
    half = toys.mixing("reverse", 6)(torch.arange(6.0))[0]
    assert half.tolist() == [5, 4, 3, 2, 1, 0]
    with pytest.raises(ValueError, match="among reverse, shuffle, rotate"):
        toys.mixing("turn", 4)


def test_a_normalized_flow_has_a_normalization_before_each_coupling():
    flow = toys.normalized(ActNorm, seed=1, features=4, couplings=3)
    assert len(flow.bijection) == 6 and all(isinstance(layer, ActNorm) for layer in flow.bijection[::2])
    x = 50 + 7 * torch.randn(100, 4, generator=seeded())
    with starting(flow):
        z = flow.bijection(x)[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    masks = [layer.parts[0] for layer in flow.bijection[1::2]]
    assert masks[0] == masks[2] != masks[1]


def test_the_race_can_be_run_scrubbed_and_left():
    explorer = ShuffleReverseRotate(steps=20)
    short = explorer.numbers
    explorer.couplings.value = 1
    explorer.start_button.click()
    assert explorer.errors == [] and explorer.numbers["after step"] == "20" != short["after step"]
    assert explorer.controls["banana"].max == 4 and not explorer.start_button.disabled
    explorer.set(snapshot=0, banana=4)
    first, *_, last = explorer.picture.snapshots
    assert {kind: explorer.numbers[kind] for kind in first} == {kind: lap.gauge for kind, lap in first.items()}
    assert all(last[kind].gauge < first[kind].gauge for kind in toys.MIXINGS)
    broken_off = race(explorer.picture, 4, 2, steps=20)
    next(broken_off)
    broken_off.close()  # as the Stop button does
    assert explorer.picture.snapshots[0]["rotate"].step == 1


def test_patches_have_ink_and_lie_in_their_bins():
    x = toys.patches("test", 300)
    assert x.shape == (300, 16) and float(x.min()) >= 0 and float(x.max()) < 1
    assert int(((256 * x).floor() > 0).sum(1).min()) >= 8
    assert torch.equal(x, toys.patches("test", 300)) and not torch.equal(x, toys.patches("test", 300, seed=1))


def test_figures_of_the_notebook():
    class History:
        validation, loss = {10: 3.0, 20: 2.0}, [50.0, 5.0, 2.0, 1.5]

    figure = mixing.race_curves({"a": {"rotate": [History, History]}}, {"a": -1.0})
    np.testing.assert_allclose(figure.axes[0].lines[-1].get_ydata(), [2.0, 1.0])
    flow = learner(30)
    figure = mixing.matrix_axes({"one": flow, "two": flow}, torch.randn(50, 2))
    x, y = figure.axes[0].lines[1].get_data()
    assert math.degrees(math.atan2(y[1], x[1])) == pytest.approx(30, abs=1e-3)
    figure = mixing.starts({"none": History}, -1.0)
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(49)


# Exercises


def mixed(W, x):
    return torch.einsum("ij,njhw->nihw", W, x)


def pixels(x):
    return x.shape[2] * x.shape[3]


def size(W):
    return torch.linalg.slogdet(W).logabsdet


def each(value, x):
    return torch.as_tensor(value).expand(len(x))


def product(P, lower, upper, s, left=None):
    L = lower.tril(-1) + torch.eye(len(s))
    return (P if left is None else left) @ L @ (upper.triu(1) + torch.diag(s))


def logs(s):
    return s.abs().log().sum()


def normed(x, gamma, beta, epsilon, variance=None):
    variance = x.var(0, correction=0) if variance is None else variance
    return gamma * (x - x.mean(0)) / (variance + epsilon).sqrt() + beta


def spread(x, epsilon):
    return 0.5 * (x.var(0, correction=0) + epsilon).log()


def begun(x, std=None, log=None, shift=None):
    std = x.std(0, correction=0) if std is None else std
    log = -torch.where(std > 0, std, 1.0).log() if log is None else log
    return log, -x.mean(0) * log.exp() if shift is None else shift


def safe(x):
    std = x.std(0, correction=0)
    return torch.where(std > 0, std, 1.0)


def error(a, b, correction=1):
    return (a.var(correction=correction) / len(a) + b.var(correction=correction) / len(b)).sqrt()


def apart(a, b):
    return a.mean() - b.mean()


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda W, x: (mixed(W, x), each(size(W), x)), "one pixel's"),
    (1, lambda W, x: (mixed(W, x), each(pixels(x) * torch.linalg.det(W).log(), x)), "det W is below 0"),
    (1, lambda W, x: (mixed(W.T, x), each(pixels(x) * size(W), x)), "You used Wᵀ"),
    (1, lambda W, x: (mixed(W, x), each(len(W) * pixels(x) * size(W), x)), "counted the channels"),
    (1, lambda W, x: (mixed(W, x), each(-pixels(x) * size(W), x)), "forward multiplies by W"),
    (1, lambda W, x: (mixed(W, x), each(pixels(x) * torch.linalg.det(W).abs(), x)), "determinants multiply"),
    (1, lambda W, x: (mixed(W, x), pixels(x) * size(W)), "use expand"),
    (1, lambda W, x: (x @ torch.eye(x.shape[-1], dtype=x.dtype), each(0.0, x)), "Which axis of x"),
    (1, lambda W, x: (mixed(W, x), each(0.1, x)), "blocks W on the diagonal"),
    (1, lambda W, x: mixed(W, x), "Return two things"),
    (2, lambda P, l, u, s: (P @ l.tril() @ (u.triu(1) + s.diag()), logs(s)), "keeps the diagonal of ``lower``"),
    (2, lambda P, l, u, s: (P @ l.tril(-1) @ (u.triu(1) + s.diag()), logs(s)), "W is singular"),
    (2, lambda P, l, u, s: (product(P, l, u, s), 0.1), "the third factor"),
    (
        2,
        lambda P, l, u, s: (P @ (l.tril(-1) + torch.eye(len(s))) @ (u.triu() + s.diag()), logs(s)),
        "keeps the diagonal of ``upper``",
    ),
    (2, lambda P, l, u, s: (product(P, l, u, s, torch.eye(len(s))), logs(s)), "P is missing"),
    (2, lambda P, l, u, s: (product(P, l, u, s, P.T), logs(s)), "You used Pᵀ"),
    (2, lambda P, l, u, s: (product(P, l, u, s, torch.eye(len(s))) @ P, logs(s)), "leftmost factor"),
    (2, lambda P, l, u, s: (product(P, l, u, s), s.log().sum()), "the log of a negative s"),
    (2, lambda P, l, u, s: (product(P, l, u, s), s.abs().prod()), "That is the product"),
    (2, lambda P, l, u, s: (product(P, l, u, s), s.sum()), "You summed s"),
    (
        2,
        lambda P, l, u, s: (product(P, l, u, s), torch.linalg.det(product(P, l, u, s)).sign() * logs(s)),
        "says that W mirrors",
    ),
    (3, lambda x, g, b, e: (normed(x, g, b, e), each(-spread(x, e).sum(), x)), "γ stretches as well"),
    (3, lambda x, g, b, e: (normed(x, g, b, e), each(logs(g) + spread(x, e).sum(), x)), "*divided* by that root"),
    (3, lambda x, g, b, e: (normed(x, g, b, e), each((g.log() - spread(x, e)).sum(), x)), "γ may be negative"),
    (3, lambda x, g, b, e: (normed(x, g, b, e), each(logs(g) - 2 * spread(x, e).sum(), x)), "makes it a half"),
    (3, lambda x, g, b, e: (normed(x, g, b, e), each(logs(g) - spread(x, 0).sum(), x)), "so it is in log_det"),
    (3, lambda x, g, b, e: (normed(x, g, b, e, x.var(0)), each(logs(g) - spread(x, e).sum(), x)), "by N − 1"),
    (3, lambda x, g, b, e: (normed(x, g, b, 0), each(logs(g) - spread(x, e).sum(), x)), "ε is missing in z"),
    (3, lambda x, g, b, e: (normed(x, g, b, e), each(len(x) * (logs(g) - spread(x, e).sum()), x)), "the sum over"),
    (3, lambda x, g, b, e: (normed(x, g, b, e), logs(g) - spread(x, e).sum()), "one number a sample"),
    (3, lambda x, g, b, e: (normed(x, g, b, e), each(0.1, x)), "plus something, in each column"),
    (4, lambda x: begun(x, log=safe(x).log()), "Multiply by 1/std"),
    (4, lambda x: begun(x, log=1 / safe(x)), "the scale itself"),
    (4, lambda x: begun(x, log=-2 * safe(x).log()), "divide by the variance"),
    (4, lambda x: begun(x, std=x.std(0)), "by N − 1"),
    (4, lambda x: begun(x, shift=-x.mean(0)), "after scaling the mean is"),
    (4, lambda x: begun(x, shift=-begun(x)[1]), "the mean doubles"),
    (4, lambda x: begun(x, log=-x.std(0, correction=0).log()), "has deviation 0"),
    (4, lambda x: begun(x, log=-(safe(x) + 1e-9 - (x.std(0) == 0) * 0.5).log()), "should keep its scale"),
    (4, lambda x: begun(x, shift=0 * x.mean(0)), "the means of the batch are not 0"),
    (5, lambda a, b: (a.min() - b.min(), error(a, b)), "the best seeds"),
    (5, lambda a, b: (-apart(a, b), error(a, b)), "Asked is a minus b"),
    (5, lambda a, b: (a.median() - b.median(), error(a, b)), "Those are medians"),
    (5, lambda a, b: (apart(a, b), (a.var() + b.var()).sqrt()), "two single runs"),
    (5, lambda a, b: (apart(a, b), a.std() / len(a) ** 0.5 + b.std() / len(b) ** 0.5), "the variances add"),
    (5, lambda a, b: (apart(a, b), error(a, b) ** 2), "Take its root"),
    (5, lambda a, b: (apart(a, b), error(a, b, 0)), "divide the squares by n − 1"),
    (5, lambda a, b: (apart(a, b), (a.var() / len(a) - b.var() / len(b)).abs().sqrt()), "two sources of luck"),
    (5, lambda a, b: (apart(a, b), 0.01), "the root of var(a)/n"),
]


def factors_in_place(P, lower, upper, s):
    L, U, below = torch.eye(len(s)), torch.diag(s), torch.tril_indices(len(s), len(s), -1)
    L[tuple(below)] = lower[tuple(below)]
    U[tuple(below.flip(0))] = upper[tuple(below.flip(0))]
    return P @ L @ U, torch.log(torch.abs(torch.prod(s)))


RIGHT = [
    (1, lambda W, x: ((W @ x.flatten(2)).view_as(x), pixels(x) * torch.linalg.det(W).abs().log().repeat(len(x)))),
    (2, lambda P, l, u, s: (product(P, l, u, s), torch.linalg.slogdet(product(P, l, u, s))[1])),
    (3, lambda x, g, b, e: (normed(x, g, b, e), (logs(g) - spread(x, e).sum()).repeat(len(x)))),
    (4, lambda x: (lambda m, s: (-s.log(), -m / s))(x.mean(0), safe(x))),
    (5, lambda a, b: (sum(a) / len(a) - b.mean(), math.hypot(a.std() / len(a) ** 0.5, b.std() / len(b) ** 0.5))),
    (
        1,
        lambda W, x: (
            torch.einsum("ij,njhw->nihw", W, x),
            torch.full((len(x), 1), pixels(x) * torch.logdet(W.T @ W) / 2),
        ),
    ),
    (
        1,
        lambda W, x: (
            (x.movedim(1, -1) @ W.T).movedim(-1, 1),
            [pixels(x) * float(torch.linalg.slogdet(W)[1])] * len(x),
        ),
    ),
    (2, lambda P, l, u, s: (product(P, l, u, s).numpy(), float(np.log(np.abs(s.numpy())).sum()))),
    (2, factors_in_place),
    (4, lambda x: (lambda m, s: (-np.log(s), -m / s))(x.numpy().mean(0), safe(x).numpy())),
    (
        5,
        lambda a, b: (
            np.mean(a.numpy()) - np.mean(b.numpy()),
            (np.var(a.numpy(), ddof=1) / len(a) + b.var() / len(b)) ** 0.5,
        ),
    ),
]


def test_the_worked_answers_are_the_packages():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 3, 5, generator=g)
    layer = InvertibleConvolution(4, generator=g)
    lu = layer.bijection
    with torch.no_grad():
        lu.log_scale.normal_(generator=g)
        W, log_det = lesson.from_factors(lu.permutation, lu.lower, lu.upper, lu.sign * lu.log_scale.exp())
        by_hand, package = lesson.mix_pixels(W, x), layer(x)
    torch.testing.assert_close(by_hand[0], package[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_hand[1], package[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_det * 15, package[1][0], rtol=1e-4, atol=1e-5)
    assert torch.allclose(LULinear(3, rotate=False).permutation, torch.eye(3))

    rows = torch.randn(7, 3, generator=g) * 4 + 1
    one, zero = torch.ones(3), torch.zeros(3)
    for ours, theirs in zip(lesson.batch_norm(rows, one, zero, 1e-5), BatchNorm(3)(rows), strict=True):
        torch.testing.assert_close(ours, theirs)
    norm = ActNorm(3)
    with starting(norm):
        norm(rows)
    for ours, theirs in zip(lesson.start(rows), (norm.log_scale, norm.shift), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
