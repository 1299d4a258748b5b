import dataclasses
import itertools
import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import i0e
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from flowlab.datasets import (
    TOYS,
    Checkerboard,
    EightGaussians,
    Pinwheel,
    Rings,
    Spirals,
    Toy,
    TwoCircles,
    TwoMoons,
    toys,
)

DEFAULTS = {name: toy() for name, toy in TOYS.items()}
# Cells along a side of the grid, at most half a noise wide, where the midpoint rule of a Gaussian is exact to rounding;
# for the two thin circles one noise, where it is right to 1e-8.
CASES = {
    **{name: (toy, 192) for name, toy in DEFAULTS.items()},
    "pinwheel": (Pinwheel(), 256),
    "two_circles": (TwoCircles(), 384),
    "two_circles wide": (TwoCircles(noise=0.05), 256),
    "pinwheel folded": (Pinwheel(0.3, 0.2, wings=3, rate=0.5), 256),
    "pinwheel mirrored": (Pinwheel(rate=-0.4, wings=2), 192),
    "moons wide": (TwoMoons(0.4), 128),
    "three arms": (Spirals(0.2, 3, turns=1.0, radius=2.0), 256),
    "odd board": (Checkerboard(3, 1.5), 192),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def midpoints(half_width, cells):
    """Midpoints of the cells of a square grid, (cells, cells, 2) with x₂ first, and the area of a cell."""
    side = (torch.arange(cells, dtype=torch.float64) + 0.5) * (2 * half_width / cells) - half_width
    second, first = torch.meshgrid(side, side, indexing="ij")
    return torch.stack([first, second], -1), (2 * half_width / cells) ** 2


def rotate(x, angle):
    c, s = math.cos(angle), math.sin(angle)
    return x @ torch.tensor([[c, s], [-s, c]], dtype=x.dtype)


@pytest.fixture(scope="module")
def on_grid():
    """Each case's log-density on a grid over its extent, found once: name -> (log_p, area of a cell)."""
    cache = {}

    def find(name):
        if name not in cache:
            toy, cells = CASES[name]
            grid, area = midpoints(toy.extent, cells)
            cache[name] = toy.log_prob(grid), area
        return cache[name]

    return find


@pytest.mark.parametrize("name", CASES)
def test_density_integrates_to_one(name, on_grid):
    log_p, area = on_grid(name)
    tolerance = 1e-3 if "folded" in name else 2e-4  # where a wing folds, its edge goes like 1/√distance
    assert log_p.exp().sum() * area == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_mean_of_samples_is_the_entropy_of_the_grid(name, on_grid):
    toy, _ = CASES[name]
    log_p, area = on_grid(name)
    p = log_p.exp()
    entropy = -(p * log_p.clamp(min=-1e4)).sum() * area
    found = -toy.log_prob(toy.sample(20_000, generator()).double())
    assert found.mean() == pytest.approx(entropy.item(), abs=5 * found.std().item() / math.sqrt(20_000) + 3e-3)


@pytest.mark.parametrize("name", CASES)
def test_boxes_hold_their_share_of_a_million_points(name, on_grid):
    toy, cells = CASES[name]
    log_p, area = on_grid(name)
    n = 1_000_000
    p = log_p.exp().reshape(8, cells // 8, 8, cells // 8).sum((1, 3)) * area
    box = ((toy.sample(n, generator(1)) + toy.extent) / (2 * toy.extent / 8)).floor().long()
    box = box[((box >= 0) & (box < 8)).all(-1)]
    share = torch.bincount(8 * box[:, 1] + box[:, 0], minlength=64).reshape(8, 8) / n
    assert (share - p).abs().sub(5 * (p * (1 - p) / n).clamp(min=0).sqrt()).max() < 2e-4


def test_exact_means_of_the_thesis_settings(on_grid):
    """Two circles: by quadrature over the radius. Pinwheel: five Gaussians, bent, hardly overlap."""
    for name, noise, known in (("two_circles", 0.005, 1.9181), ("two_circles wide", 0.05, -0.3819)):

        def p(r, v=noise**2):
            rings = (math.exp(-((r - rho) ** 2) / (2 * v)) * i0e(r * rho / v) for rho in (0.8, 0.4))
            return sum(rings) / (4 * math.pi * v)

        kinks = [rho + i * noise for rho in (0.4, 0.8) for i in (-8, -3, 0, 3, 8)]
        mean, _ = quad(lambda r: 2 * math.pi * r * p(r) * math.log(max(p(r), 1e-300)), 0, 1.4, points=kinks, limit=500)
        log_p, area = on_grid(name)
        assert mean == pytest.approx(known, abs=1e-4)
        assert (log_p.exp() * log_p.clamp(min=-1e4)).sum() * area == pytest.approx(mean, abs=1e-3)
    log_p, area = on_grid("pinwheel")
    mean = (log_p.exp() * log_p).sum() * area
    # −log 5 − entropy of a Gaussian − log 2² − E log|1 − 0.4 eᵃ b|, the last by a million features
    a, b = torch.randn(2, 1_000_000, generator=generator(), dtype=torch.float64) * torch.tensor([[0.3], [0.05]])
    log_det = (1 - 0.4 * (1 + a).exp() * b).abs().log().mean()
    apart = -math.log(5) - math.log(2 * math.pi * math.e * 0.3 * 0.05) - math.log(4) - log_det
    assert apart < mean < apart + 0.01  # overlap makes it a little more likely
    assert mean == pytest.approx(-1.6295, abs=1e-3)


@pytest.mark.parametrize("name", DEFAULTS)
def test_samples_have_shape_type_and_balanced_labels(name):
    toy = DEFAULTS[name]
    n = 3 * toy.components + 1
    x, labels = toy.labelled(n, generator())
    assert (x.shape, x.dtype) == ((n, 2), torch.float32)
    assert (labels.shape, labels.dtype) == ((n,), torch.int64)
    counts = labels.bincount(minlength=toy.components)
    assert len(counts) == toy.components and sorted(counts.tolist()) == [3] * (toy.components - 1) + [4]
    assert labels.tolist() != sorted(labels.tolist())
    assert torch.equal(toy.sample(n, generator()), x)
    assert toy.labelled()[0].shape == (toy.size, 2)
    # so that even single points come from all parts
    assert len({toy.labelled(1, generator(seed))[1].item() for seed in range(100)}) == toy.components


def test_sizes_of_the_thesis():
    assert (Pinwheel().size, TwoCircles().size) == (5 * 512, 2 * 512)
    assert Pinwheel(wings=3, points_a_wing=10).labelled()[1].bincount().tolist() == [10] * 3


@pytest.mark.parametrize("name", DEFAULTS)
def test_randomness_is_the_generators_alone(name):
    toy = DEFAULTS[name]
    before = torch.get_rng_state()
    first, second, other = (toy.labelled(50, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", DEFAULTS)
def test_log_prob_keeps_dtype_and_batch_shape(name):
    toy = DEFAULTS[name]
    x = toy.sample(12, generator())
    log_p = toy.log_prob(x)
    assert (log_p.shape, log_p.dtype) == ((12,), torch.float32)
    assert toy.log_prob(x.double()).dtype == torch.float64
    assert torch.equal(toy.log_prob(x.double()).float(), log_p)
    assert torch.equal(toy.log_prob(x.reshape(3, 4, 2)), log_p.reshape(3, 4))
    assert toy.log_prob(x[0]).shape == () and toy.log_prob(x[:0]).shape == (0,)
    assert torch.isfinite(log_p).all()
    away = toy.log_prob(torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [0.0, 0.0], [1e6, -1e6]]))
    assert away[0].isnan() and away[1] == -math.inf and not away[2:].isnan().any() and away[3] < -1e10


def test_labels_are_the_parts():
    x, labels = Rings().labelled(400, generator())
    assert torch.equal((x.norm(dim=-1, keepdim=True) - torch.tensor(Rings().radii)).abs().argmin(-1), labels)
    x, labels = TwoCircles().labelled(400, generator())
    assert ((x.norm(dim=-1) - torch.tensor([0.8, 0.4])[labels]).abs() < 0.03).all()
    x, labels = EightGaussians(noise=0.05).labelled(400, generator())
    assert torch.equal((torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)).round().long() % 8, labels)
    x, labels = Checkerboard().labelled(400, generator())
    column, row = ((x + 4) / 2).floor().long().T
    assert torch.equal(2 * row + column // 2, labels) and ((row + column) % 2 == 0).all()
    x, labels = TwoMoons(0.01).labelled(400, generator())
    x = x * (1 - 2 * labels)[:, None] + torch.tensor([0.5, 0.25])
    assert ((x.norm(dim=-1) - 1).abs() < 0.06).all() and (x[:, 1] > -0.06).all()


@pytest.mark.parametrize("toy", [Pinwheel(), Spirals(), Spirals(0.2, 3)], ids=str)
def test_part_k_is_part_0_turned(toy):
    one = dataclasses.replace(toy, wings=1) if isinstance(toy, Pinwheel) else dataclasses.replace(toy, arms=1)
    x, labels = toy.labelled(5000, generator())
    expected = one.log_prob(one.sample(5000, generator())).mean().item()
    for k in range(toy.components):
        part = one.log_prob(rotate(x[labels == k], -2 * math.pi * k / toy.components))
        assert part.mean() == pytest.approx(expected, abs=5 * part.std().item() / len(part) ** 0.5)


def test_pinwheel_winds_like_the_published_generator():
    """Johnson et al.'s code multiplies from the left, and so turns the other way."""
    features, labels = torch.randn(20, 2, generator=generator(), dtype=torch.float64), torch.arange(20) % 5
    a, b = features.T
    angle = labels.double() * (2 * math.pi / 5) + 0.4 * a.exp()
    published = 2 * torch.stack([a * angle.cos() + b * angle.sin(), -a * angle.sin() + b * angle.cos()], -1)
    torch.testing.assert_close(Pinwheel(rate=-0.4).wind(features, -labels % 5), published, rtol=1e-12, atol=1e-12)


def features_on(pinwheel, x):
    """All features (a, b, k) that land on x: the circle in small steps, each crossing found by Brent's method."""
    r = math.hypot(*x) / pinwheel.scale
    psi = math.atan2(x[1], x[0])
    t = np.linspace(-math.pi, math.pi, 4001)
    found = []
    for k in range(pinwheel.wings):

        def turned(t, k=k):
            return t + pinwheel.rate * np.exp(r * np.cos(t)) + 2 * math.pi * k / pinwheel.wings - psi

        h = turned(t)
        for turns in range(math.floor(h.min() / (2 * math.pi)), math.ceil(h.max() / (2 * math.pi)) + 1):
            crossing = np.flatnonzero(np.diff(np.sign(h - 2 * math.pi * turns)))
            for i in crossing:
                root = brentq(lambda t, n=turns: turned(t) - 2 * math.pi * n, t[i], t[i + 1], xtol=1e-15, rtol=1e-14)
                found.append((r * math.cos(root), r * math.sin(root), k))
    return found


@pytest.mark.parametrize(
    "pinwheel",
    [
        Pinwheel(0.5, 0.5, wings=1, rate=1.0, scale=1.0),
        Pinwheel(0.3, 0.8, wings=3, rate=0.7),
        Pinwheel(0.6, 0.2, wings=2, rate=-1.0),
        Pinwheel(),
    ],
    ids=str,
)
def test_pinwheel_sums_over_every_preimage(pinwheel):
    """p(x) = Σ N(a, b)/|det|, with the features found by brute force and the determinant by autograd."""
    stds = torch.tensor([pinwheel.radial_std, pinwheel.tangential_std], dtype=torch.float64)
    gaussian = MultivariateNormal(torch.tensor([1.0, 0.0], dtype=torch.float64), torch.diag(stds**2))
    spread = torch.randn(20, 2, generator=generator(), dtype=torch.float64) * 0.4 * pinwheel.extent
    numbers = []
    for x in spread:
        total, several = torch.zeros((), dtype=torch.float64), 0
        for a, b, k in features_on(pinwheel, x.tolist()):
            f, label = torch.tensor([a, b], dtype=torch.float64), torch.tensor(k)
            torch.testing.assert_close(pinwheel.wind(f, label), x, rtol=1e-9, atol=1e-9)
            jacobian = torch.autograd.functional.jacobian(lambda f, label=label: pinwheel.wind(f, label), f)
            total += gaussian.log_prob(f).exp() / jacobian.det().abs() / pinwheel.wings
            several += 1
        numbers.append(several / pinwheel.wings)
        if total > 1e-300:
            assert pinwheel.log_prob(x) == pytest.approx(total.log().item(), rel=1e-9, abs=1e-9)
    assert min(numbers) == 1 < max(numbers)  # one for each wing near the origin; several where wings fold


def test_point_with_three_known_preimages():
    """On the circle r = 2, h(t) = t + exp(2 cos t) goes up from −3.0 to 7.4, down to 2.4 and up to 3.3. So it meets
    5 − 2π once and 5 twice, and no other 5 + 2πj.
    """
    pinwheel = Pinwheel(0.5, 0.5, wings=1, rate=1.0, scale=1.0)
    x = torch.tensor([2 * math.cos(5.0), 2 * math.sin(5.0)], dtype=torch.float64)
    features = features_on(pinwheel, x.tolist())
    assert len(features) == 3
    terms = [
        math.exp(-((a - 1) ** 2 + b**2) / 0.5) / (math.pi * 0.5) / abs(1 - math.exp(a) * b) for a, b, _ in features
    ]
    assert pinwheel.log_prob(x) == pytest.approx(math.log(sum(terms)), rel=1e-11)
    assert pinwheel.log_prob(x) != pytest.approx(math.log(max(terms)), abs=0.01)  # none of them is negligible


@pytest.mark.parametrize("wings", [1, 4, 5])
def test_pinwheel_that_does_not_turn_is_a_mixture_of_gaussians(wings):
    pinwheel = Pinwheel(0.3, 0.2, wings=wings, rate=0.0, scale=1.5)
    angles = [2 * math.pi * k / wings for k in range(wings)]
    means = torch.stack([rotate(torch.tensor([1.5, 0.0], dtype=torch.float64), angle) for angle in angles])
    axes = torch.stack([rotate(torch.eye(2, dtype=torch.float64), -angle) for angle in angles])
    spread = torch.diag(torch.tensor([0.45, 0.3], dtype=torch.float64) ** 2)
    parts = MultivariateNormal(means, axes @ spread @ axes.mT)
    mixture = MixtureSameFamily(Categorical(torch.ones(wings, dtype=torch.float64)), parts)
    on_axes = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [-1, -0.0], [0, 1], [0, -1]], dtype=torch.float64)
    x = torch.cat([on_axes, torch.randn(100, 2, generator=generator(), dtype=torch.float64)])
    torch.testing.assert_close(pinwheel.log_prob(x), mixture.log_prob(x), rtol=1e-10, atol=1e-10)


def test_pinwheel_mirrored_is_the_mirror_image():
    x = torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    mirrored = Pinwheel(rate=-0.4).log_prob(x * torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(mirrored, Pinwheel().log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pinwheel", [Pinwheel(), Pinwheel(1.0, 1.0, rate=1.0), Pinwheel(0.3, 0.8)], ids=str)
def test_pinwheel_far_out_is_cheap_and_right(pinwheel, monkeypatch):
    """Beyond the roots that are summed one by one stands an integral; with room for all of them the sum is the same."""
    for r in (5.0, 9.0):
        t = torch.linspace(-3, 3, 20, dtype=torch.float64)
        x = pinwheel.scale * r * torch.stack([t.cos(), t.sin()], -1)
        log_p = pinwheel.log_prob(x)
        monkeypatch.setattr(toys, "ROOTS", 100_000)
        exact = pinwheel.log_prob(x)
        monkeypatch.undo()
        assert (log_p - exact).abs().max() < 1e-4
        # and not because the integral had nothing to add
        if r == 9.0 and pinwheel.rate == 1.0:
            monkeypatch.setattr(toys, "_log_integral", lambda log_f, start, end: torch.full_like(start, -math.inf))
            assert (pinwheel.log_prob(x) - exact).abs().max() > 0.1
            monkeypatch.undo()


@pytest.mark.parametrize("pinwheel", [Pinwheel(), Pinwheel(1.0, 1.0, rate=1.0), Pinwheel(0.3, 0.8)], ids=str)
def test_pinwheel_farther_than_float64_can_turn_is_its_mean_around(pinwheel):
    t = torch.linspace(-3, 3, 500, dtype=torch.float64)
    limit = math.log(toys.MOST_TURNS / pinwheel.rate)  # the radius at which rate·eʳ is MOST_TURNS

    def around(r):
        return pinwheel.log_prob(pinwheel.scale * r * torch.stack([t.cos(), t.sin()], -1))

    inside, outside = around(limit * (1 - 1e-9)), around(limit * (1 + 1e-9))
    assert outside.std() < 1e-6 < inside.std()
    assert inside.logsumexp(0).item() - math.log(500) == pytest.approx(outside.mean().item(), abs=0.02)
    assert around(100.0).mean() < outside.mean()


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_plot_takes_well_under_two_seconds(name):
    grid, _ = midpoints(1.1 * DEFAULTS[name].extent, 200)
    start = time.process_time()  # not what others on the machine take
    DEFAULTS[name].log_prob(grid)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("toy", [curve(noise) for noise in (0.03, 0.1, 2.0) for curve in (TwoMoons, Spirals)], ids=str)
def test_quadrature_along_a_curve_has_nodes_enough(toy):
    x = toy.sample(100, generator()).double()
    away = torch.nn.functional.normalize(torch.randn(100, 2, generator=generator(), dtype=torch.float64))
    for noises, tolerance in ((0, 1e-8), (5, 1e-6), (10, 1e-3)):
        points = x + noises * toy.noise * away
        fine = toy._log_density(points, piece=0.2)
        assert (toy.log_prob(points) - fine).abs().max() < tolerance
    points = x + 100 * toy.noise * away
    torch.testing.assert_close(toy.log_prob(points), toy._log_density(points, piece=0.2), rtol=1e-3, atol=0)


@pytest.mark.parametrize("toy", [TwoMoons(0.3), Spirals(0.3)], ids=str)
def test_density_along_a_curve_is_the_mean_of_gaussians_on_it(toy):
    """The arbiter needs no nodes: the mean over a million points of the curve itself, sampled without their noise."""
    on_curve = dataclasses.replace(toy, noise=1e-9).sample(1_000_000, generator()).double()
    for x in toy.sample(5, generator(1)).double():
        kernel = (-(x - on_curve).square().sum(-1) / (2 * 0.09)).exp() / (2 * math.pi * 0.09)
        assert toy.log_prob(x).exp() == pytest.approx(kernel.mean().item(), abs=5 * kernel.std().item() / 1000)


def test_ring_density_is_the_mean_of_gaussians_on_it():
    t = torch.arange(20_000, dtype=torch.float64) * (2 * math.pi / 20_000)  # exact to rounding: periodic
    x = torch.tensor([[0.0, 0.0], [0.7, -0.3], [0.1, 0.9]], dtype=torch.float64)
    rings = Rings((0.5, 1.0, 1.2), 0.1)
    on_rings = torch.stack([rho * torch.stack([t.cos(), t.sin()], -1) for rho in rings.radii]).reshape(-1, 2)
    kernel = -(x[:, None] - on_rings).square().sum(-1) / 0.02
    expected = kernel.logsumexp(-1) - math.log(len(on_rings) * 2 * math.pi * 0.01)
    torch.testing.assert_close(rings.log_prob(x), expected, rtol=1e-11, atol=1e-11)


def test_closed_forms():
    x = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    assert EightGaussians(2.0, 0.1).log_prob(x) == pytest.approx(-math.log(8 * 2 * math.pi * 0.01), abs=1e-9)
    corners = torch.tensor(list(itertools.product([-3.0, -1.0, 1.0, 3.0, 5.0], repeat=2)))
    log_p = Checkerboard().log_prob(corners).reshape(5, 5)
    filled = log_p == -math.log(32)
    assert filled[:4, :4].sum() == 8 and filled[0, 0] and (log_p[~filled] == -math.inf).all()
    assert not filled[4].any() and not filled[:, 4].any()


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_no_point_falls_off_the_board(u, monkeypatch):
    """Not even the two extremes of torch.rand, where float32 cannot hold the edges of the squares."""
    monkeypatch.setattr(toys, "_uniform", lambda labels, generator, *event: torch.full((len(labels), *event), u))
    for board in (Checkerboard(3, 0.7), Checkerboard(5, 0.3), Checkerboard()):
        assert torch.isfinite(board.log_prob(board.sample(board.components))).all()


def test_integral_far_out_is_exact_where_it_is_known():
    start, end = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1e-3]], dtype=torch.float64)
    found = toys._log_integral(lambda t: -0.5e4 * (t - start[:, None]).square() + 7, start, end)
    expected = [math.log(0.005 * math.sqrt(2 * math.pi))] * 2 + [
        math.log(0.01 * quad(lambda t: math.exp(-t * t / 2), 0, 0.1)[0])
    ]
    torch.testing.assert_close(found, 7 + torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=0)


def test_a_toy_without_a_density_says_so():
    class Scatter(Toy):
        components, extent = 1, 1.0

    with pytest.raises(NotImplementedError, match="Scatter has no density that can be computed"):
        Scatter().log_prob(torch.zeros(3, 2))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Pinwheel(radial_std=-0.3), "Pinwheel expected a positive number for radial_std, but got -0.3"),
        (lambda: Pinwheel(0.3, 0), "tangential_std, but got 0"),
        (lambda: Pinwheel(wings=0), "whole number, at least 1, for wings, but got 0"),
        (lambda: Pinwheel(wings=2.5), "wings, but got 2.5"),
        (lambda: Pinwheel(scale=math.inf), "scale, but got inf"),
        (lambda: Pinwheel(rate=math.nan), "finite rate"),
        (lambda: Pinwheel(points_a_wing=0), "points_a_wing"),
        (lambda: TwoCircles(noise=-0.1), "TwoCircles expected a positive number for noise"),
        (lambda: TwoCircles((1.0, 2.0, 3.0)), "two radii"),
        (lambda: Rings(()), "at least one"),
        (lambda: Rings((1.0, -2.0)), "positive radii"),
        (lambda: TwoMoons(0.0), "positive number for noise"),
        (lambda: Spirals(noise="0.1"), "positive number for noise, but got '0.1'"),
        (lambda: Spirals(arms=0), "arms"),
        (lambda: Spirals(turns=0), "turns"),
        (lambda: EightGaussians(radius=0), "radius"),
        (lambda: Checkerboard(0), "squares"),
        (lambda: Checkerboard(4, -1), "half_width"),
        (lambda: TwoMoons().sample(0), "TwoMoons expected a whole number of points, at least 1, but got 0"),
        (lambda: TwoMoons().labelled(-3), "but got -3"),
        (lambda: TwoMoons().labelled(10.0), "but got 10.0"),
        (lambda: TwoMoons().log_prob(torch.zeros(4, 3)), r"expected shape \(\.\.\., 2\), but got \(4, 3\)"),
        (lambda: TwoMoons().log_prob(torch.zeros(())), "shape"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_numbers_of_numpy_are_numbers():
    x = Pinwheel(np.float32(0.3), wings=np.int64(3)).sample(np.int64(7))
    assert x.shape == (7, 2) and x.dtype == torch.float32


def test_only_the_first_two_arguments_have_places():
    with pytest.raises(TypeError):
        Pinwheel(0.3, 0.05, 5)
    with pytest.raises(TypeError):
        Spirals(0.1, 2, 1.5)


@pytest.mark.slow
def test_importing_toys_is_light():
    heavy = "['scipy', 'pooch', 'requests', 'matplotlib', 'sklearn']"
    code = f"import sys, flowlab.datasets; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
