"""What the floors of what_a_flow_cannot_do promise; each known wrong answer meets its own hint."""

import math
import statistics

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from flowlab import fit, pretrained, realnvp
from flowlab.densities import GaussianMixture
from flowlab.lessons.what_a_flow_cannot_do import exercises as lesson
from flowlab.lessons.what_a_flow_cannot_do import toys

NORMAL = Normal(0.0, 1.0)


def jacobian(f, x):
    return torch.func.vmap(torch.func.jacrev(lambda point: f(point[None])[0]))(x)


def right_factors(f, x):
    return torch.linalg.svdvals(jacobian(f, x))


def ratios(z, x):
    off = ~torch.eye(len(z), dtype=torch.bool)
    return torch.cdist(x, x)[off] / torch.cdist(z, z)[off]


def loop(z, x):
    """All pairs in a plain loop, in numpy."""
    z, x, most = z.numpy(), x.numpy(), 0.0
    for i in range(len(z)):
        for j in range(i):
            most = max(most, np.linalg.norm(x[i] - x[j]) / np.linalg.norm(z[i] - z[j]))
    return most


def at(share):
    return statistics.NormalDist().inv_cdf(share)


def needed_for(w, P, a=0.5):
    return w / (at(a + P) - at(a)) if P else math.inf


def by_search(w, P, a=0.5):
    """Double the stretch until little enough is left, then halve the interval."""
    if P == 0:
        return float("inf")
    low, high = 1e-3, 1e9
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if statistics.NormalDist().cdf(at(a) + w / middle) - a <= P else (middle, high)
    return high


def gap(width, distance, std):
    island = Normal(torch.tensor(distance, dtype=torch.float64), std)
    return float(island.cdf(torch.tensor(width / 2)) - island.cdf(torch.tensor(-width / 2)))


def needed(width, left):
    return width / float(NORMAL.icdf(torch.tensor(0.5 + left, dtype=torch.float64)))


def left_by(density, between, area):
    with torch.no_grad():
        return density, density.log_prob(between).exp().sum() * area


class Pieces:
    """One Gaussian of independent coordinates for each label."""

    def __init__(self, x, labels, width=1.0):
        parts = [x[labels == k] for k in labels.unique()]
        self.parts = [(len(part) / len(x), Normal(part.mean(0), width * part.std(0))) for part in parts]

    def log_prob(self, x):
        return torch.stack([math.log(w) + part.log_prob(x).sum(-1) for w, part in self.parts]).logsumexp(0)


def nearest(x):
    """The label of each point: the nearest of three points that lie far from each other."""
    chosen = x[:1]
    for _ in range(2):
        chosen = torch.cat((chosen, x[torch.cdist(x, chosen).amin(-1).argmax()][None]))
    return torch.cdist(x, chosen).argmin(-1)


def with_islands(x, between, area):
    means = torch.stack([x[nearest(x) == k].mean(0) for k in range(3)])
    base = GaussianMixture(means, torch.eye(2).repeat(3, 1, 1) * 0.1)
    flow = realnvp(2, 2, hidden=(8,), base=base, generator=torch.Generator().manual_seed(0))
    fit(flow, x, steps=300, learning_rate=1e-2, progress=False)
    return left_by(flow, between, area)


def twice(x, between, area):
    density = Pieces(x, nearest(x))
    density.parts = [(2 * w, part) for w, part in density.parts]
    return left_by(density, between, area)


def of_kernels(x, between, area):
    """No fit: a narrow Gaussian around each of 300 points."""
    kernels = GaussianMixture(x[:300], torch.eye(2).repeat(300, 1, 1) * 0.02)
    return left_by(kernels, between, area)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda z, x: ratios(x, z).max(), "by the distance in x"),
    (1, lambda z, x: ratios(z, x).min(), "the smallest ratio"),
    (1, lambda z, x: ratios(z, x).mean(), "the mean over pairs"),
    (1, lambda z, x: (x.diff(dim=0).norm(dim=-1) / z.diff(dim=0).norm(dim=-1)).max(), "neighbors in the list"),
    (1, lambda z, x: (x.norm(dim=-1) / z.norm(dim=-1)).max(), "from the origin"),
    (1, lambda z, x: ratios(z, x).max() ** 2, "Take the root"),
    (1, lambda z, x: torch.cdist(x, x).max() / torch.cdist(z, z).max(), "the largest of the ratios"),
    (1, lambda z, x: (torch.cdist(x, x) / torch.cdist(z, z)).max(), "Leave these pairs out"),
    (1, lambda z, x: 3 * ratios(z, x).max(), "at least that factor"),
    (1, ratios, "one number"),
    (2, lambda w, P, a=0.5: 1 / needed_for(w, P, a), "upside down"),
    (2, lambda w, P, a=0.5: needed_for(1, P, a), "twice the stretch"),
    (2, lambda w, P, a=0.5: needed_for(w, P), "use side"),
    (2, lambda w, P, a=0.5: w / (P * math.sqrt(2 * math.pi)), "on each side. Use"),
    (2, lambda w, P, a=0.5: w * math.exp(-0.5 * at(a) ** 2) / math.sqrt(2 * math.pi) / P, "Density times width"),
    (2, lambda w, P, a=0.5: w / (2 * at(0.5 + P / 2)), "a strip around z = 0"),
    (2, lambda w, P, a=0.5: w / abs(at(P)), "of what is left alone"),
    (2, lambda w, P, a=0.5: 7.0, "Solve P = "),
    (2, lambda w, P, a=0.3: needed_for(w, P, a), "Keep side=0.5"),
    (2, lambda w, P, a=0.5: w / (at(a + P) - at(a)), "Return math.inf"),
    (3, lambda nats: math.exp(-nats), "share of good samples"),
    (3, lambda nats: nats, "above 1 makes no sense"),
    (3, lambda nats: 1 - 2**-nats, "for bits"),
    (3, lambda nats: math.expm1(nats), "sign by sign"),
    (3, lambda nats: math.log1p(nats), "sign by sign"),
    (3, lambda nats: 0.5, "there is no garbage"),
    (4, lambda w, d, s: (2 * gap(w, d, s), 1.0), "weigh it by ½"),
    (4, lambda w, d, s: (gap(w, d, s) / 2, 1.0), "one island's share"),
    (4, lambda w, d, s: (gap(2 * w, d, s), 1.0), "twice as wide"),
    (4, lambda w, d, s: (gap(w, d, s**2), 1.0), "divided by the variance"),
    (4, lambda w, d, s: (0.0, 1.0), "What is left is 0."),
    (4, lambda w, d, s: (gap(w, d, s), w / gap(w, d, s) / math.sqrt(2 * math.pi)), "of a thin gap"),
    (4, lambda w, d, s: (gap(w, d, s), 1 / needed(w, gap(w, d, s))), "upside down"),
    (4, lambda w, d, s: (gap(w, d, s), 7.0), "For the stretch solve"),
    (4, lambda w, d, s: gap(w, d, s), "two numbers"),
    (5, lambda x, b, a: Pieces(x, nearest(x)), "Return two things"),
    (5, twice, "integrates to"),
    (5, lambda x, b, a: (Pieces(x, nearest(x)), 0.5), "You report"),
    (5, lambda x, b, a: left_by(Pieces(x, torch.zeros(len(x))), b, a), "Does it consist of several pieces"),
    (5, lambda x, b, a: left_by(Pieces(x, nearest(x), 0.5), b, a), "from the truth"),
]


RIGHT = [
    (1, lambda z, x: ratios(z, x).max()),
    (1, loop),
    (1, lambda z, x: torch.nan_to_num(torch.cdist(x, x) / torch.cdist(z, z)).max()),
    (2, needed_for),
    (2, by_search),
    (2, lambda w, P, a=0.5: w / torch.special.ndtri(torch.tensor([a, a + P], dtype=torch.float64)).diff()),
    (3, lambda nats: np.round(1 - 2.718 ** (-nats), 4)),
    (3, lambda nats: -math.expm1(-nats)),
    (4, lambda w, d, s: [gap(w, -d, s), needed(w, gap(w, d, s))]),
    (5, lambda x, b, a: left_by(Pieces(x, nearest(x)), b, a)),
    (5, with_islands),
    (5, of_kernels),
]


def test_the_packages_factors_are_those_of_autograd():
    flow = pretrained.load("ring_affine_4")
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = toys.singular_values(flow.bijection, x)
    torch.testing.assert_close(found, right_factors(lambda x: flow.bijection(x)[0], x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.log().sum(-1), flow.bijection(x)[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["blobs_affine_2", "blobs_affine_8", "ring_affine_1", "ring_affine_16", "ring_spline_2"]
)
def test_no_flow_goes_below_its_floor(name):
    region = toys.gap() if name.startswith("blobs") else toys.hole()
    for flow in pretrained.trajectory(name).values():
        probability, _, floor = toys.measure(flow, region)
        assert 0 < floor <= probability < 1


def test_the_floor_of_a_gap_is_reached_by_half_planes():
    side, width, L = 0.3, 2.0, 5.0
    z = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    a, b = NORMAL.icdf(torch.tensor(side)), NORMAL.icdf(torch.tensor(side)) + width / L
    mass = torch.exp(-0.5 * z**2)[(z > a) & (z < b)].sum() * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    assert float(toys.least_between(width, L, side)) == pytest.approx(float(mass), rel=1e-3)
    assert lesson.stretch_needed(width, float(mass), side) == pytest.approx(L, rel=1e-3)


@pytest.mark.parametrize("region", [toys.hole(), toys.gap()], ids=["hole", "gap"])
def test_the_cells_of_a_region_fill_it(region):
    area = math.pi * 0.75**2 if region.name == "hole" else 2 * 8
    assert float(region.areas.sum()) == pytest.approx(area, rel=1e-4)
