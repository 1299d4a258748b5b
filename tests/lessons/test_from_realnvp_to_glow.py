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


@pytest.mark.slow
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


@pytest.mark.slow
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


APART, SWAP = [0, 2, 4, 6, 1, 3, 5, 7], [4, 5, 6, 7, 0, 1, 2, 3]


def back(z, matrix):
    return torch.einsum("ij,njhw->nihw", matrix, z)


def undone(z, P, L, U, s, matrix=None, times=None):
    """The right answer, or one of its parts made by the student's own matrix or count."""
    W = P @ L @ (U + s.diag())
    count = -z.shape[2] * z.shape[3] if times is None else times
    return back(z, torch.linalg.inv(W) if matrix is None else matrix), (count * s.abs().log().sum()).expand(len(z))


def compared(layer, x, what=(0, 1), change=lambda x: torch.cat((x[:1], 2 * x[1:] + 3))):
    before, after = layer(x), layer(change(x))
    return any(not torch.allclose(before[i][0], after[i][0]) for i in what)


def by_gradient(layer, x):
    """Whether the gradient of a sample's outputs reaches the others."""
    x = x.clone().requires_grad_()
    z, log_det = layer(x)
    total = z[0].sum() + z[0].square().sum() + log_det[0]
    return bool(torch.autograd.grad(total, x)[0][1:].abs().max() > 1e-9)


def begun(x, std=None, log=None, shift=None):
    std = x.std(0, correction=0) if std is None else std
    log = -torch.where(std > 0, std, 1.0).log() if log is None else log
    return log, -x.mean(0) * log.exp() if shift is None else shift


def safe(x):
    std = x.std(0, correction=0)
    return torch.where(std > 0, std, 1.0)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda *given: undone(*given)[0], "Return two things"),
    (1, lambda z, P, L, U, s: undone(z, P, L, U, s, P @ L @ (U + s.diag())), "W z, the way x → z"),
    (1, lambda z, P, L, U, s: undone(z, P, L, U, s, torch.linalg.inv(L @ (U + s.diag()))), "P is not undone"),
    (1, lambda z, P, L, U, s: undone(z, P, L, U, s, torch.linalg.inv(L @ (U + s.diag())) @ P), "applied P again"),
    (
        1,
        lambda z, P, L, U, s: undone(z, P, L, U, s, P.T @ torch.linalg.inv(L) @ torch.linalg.inv(U + s.diag())),
        "wrong order",
    ),
    (1, lambda z, P, L, U, s: undone(z, P, L, U, s, torch.eye(len(s), dtype=s.dtype)), "Which axis of z"),
    (1, lambda z, P, L, U, s: (undone(z, P, L, U, s)[0], s.log().sum().expand(len(z))), "the log of a negative s"),
    (1, lambda z, *given: undone(z, *given, times=z.shape[2] * z.shape[3]), "log_det of x → z"),
    (1, lambda z, *given: undone(z, *given, times=-1), "one pixel's"),
    (1, lambda z, *given: undone(z, *given, times=-z[0].numel()), "counted the channels"),
    (1, lambda *given: (undone(*given)[0], undone(*given)[1][0]), "use expand"),
    (1, lambda *given: (undone(*given)[0], torch.full((5,), 0.1)), "the same for each image"),
    (2, lambda: [APART, SWAP], "Expected four lists"),
    (2, lambda: [[0] * 8] * 4, "is no permutation"),
    (2, lambda: [list(range(7, -1, -1))] * 4, "a plain reverse"),
    (2, lambda: [APART, [5, 1, 2, 3, 4, 0, 6, 7], SWAP, SWAP], "neither learns from the other"),
    (2, lambda: [APART] + [list(range(8))] * 3, "has to be moved in two"),
    (3, lambda layer, x: True, "for each layer"),
    (3, lambda layer, x: not compared(layer, x), "Turned round"),
    (3, lambda layer, x: not torch.allclose(layer(x)[1][0], layer(x)[1][1]) or compared(layer, x), "sinh of each"),
    (3, lambda layer, x: compared(layer, x, (0,)), "You looked at z alone"),
    (4, lambda x: begun(x, log=safe(x).log()), "Multiply by 1/std"),
    (4, lambda x: begun(x, log=1 / safe(x)), "the scale itself"),
    (4, lambda x: begun(x, log=-2 * safe(x).log()), "divide by the variance"),
    (4, lambda x: begun(x, std=x.std(0)), "by N − 1"),
    (4, lambda x: begun(x, shift=-x.mean(0)), "after scaling the mean is"),
    (4, lambda x: begun(x, shift=-begun(x)[1]), "the mean doubles"),
    (4, lambda x: begun(x, log=-x.std(0, correction=0).log()), "has deviation 0"),
    (4, lambda x: begun(x, log=-(safe(x) + 1e-9 - (x.std(0) == 0) * 0.5).log()), "should keep its scale"),
    (4, lambda x: begun(x, shift=0 * x.mean(0)), "the means of the batch are not 0"),
]

RIGHT = [
    (1, undone),
    (1, lambda z, P, L, U, s: [part.float() for part in undone(z, P, L, U, s)]),
    (
        1,
        lambda z, P, L, U, s: (
            torch.linalg.solve(P @ L @ (U + s.diag()), z.flatten(2)).view_as(z).numpy(),
            torch.full((len(z), 1), -z.shape[2] * z.shape[3] * float(torch.linalg.slogdet(U + s.diag())[1])),
        ),
    ),
    (2, lambda: [APART, SWAP, SWAP, SWAP]),
    (2, lambda: np.array([[1, 3, 5, 7, 0, 2, 4, 6], SWAP, SWAP, SWAP])),
    (2, lambda: torch.tensor([[0, 3, 4, 7, 1, 2, 5, 6], SWAP, SWAP, SWAP])),
    (3, compared),
    (3, by_gradient),
    (3, lambda layer, x: np.bool_(compared(layer, x, change=lambda x: torch.cat((x[:1], -5 * x[1:3] + 1))))),
    (4, lambda x: (lambda m, s: (-s.log(), -m / s))(x.mean(0), safe(x))),
    (4, lambda x: (lambda m, s: (-np.log(s), -m / s))(x.numpy().mean(0), safe(x).numpy())),
    (4, lambda x: (lambda m, s: (-np.log(s), -m / s))(x.numpy().mean(0), safe(x).numpy())),
    (4, lambda x: [part.float() for part in begun(x)]),
]


def test_the_worked_answers_are_the_packages():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(6, 4, 3, 5, generator=g)
    layer = InvertibleConvolution(4, generator=g)
    lu = layer.bijection
    with torch.no_grad():
        lu.log_scale.normal_(generator=g)
        L, U = lu.lower.tril(-1) + torch.eye(4), lu.upper.triu(1)
        by_hand, package = lesson.unmix(z, lu.permutation, L, U, lu.sign * lu.log_scale.exp()), layer.inverse(z)
    torch.testing.assert_close(by_hand, package, rtol=1e-3, atol=1e-4)
    assert torch.allclose(LULinear(3, rotate=False).permutation, torch.eye(3))

    rows = torch.randn(7, 3, generator=g) * 4 + 1
    assert lesson.looks_at_others(BatchNorm(3), rows) and not lesson.looks_at_others(ActNorm(3), rows)
    norm = ActNorm(3)
    with starting(norm):
        norm(rows)
    for ours, theirs in zip(lesson.start(rows), (norm.log_scale, norm.shift), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
