"""What the floors of what_a_flow_cannot_do promise; each known wrong answer meets its own hint."""

import math

import pytest
import torch
from torch.distributions import Normal

from flowlab import pretrained
from flowlab.lessons.what_a_flow_cannot_do import exercises as lesson
from flowlab.lessons.what_a_flow_cannot_do import toys

NORMAL = Normal(0.0, 1.0)


def jacobian(f, x):
    return torch.func.vmap(torch.func.jacrev(lambda point: f(point[None])[0]))(x)


def right_factors(f, x):
    return torch.linalg.svdvals(jacobian(f, x))


def grown(side, step):
    return float(NORMAL.cdf(NORMAL.icdf(torch.tensor(side)) + step))


def gap(width, distance, std):
    island = Normal(torch.tensor(distance, dtype=torch.float64), std)
    return float(island.cdf(torch.tensor(width / 2)) - island.cdf(torch.tensor(-width / 2)))


def needed(width, left):
    return width / float(NORMAL.icdf(torch.tensor(0.5 + left, dtype=torch.float64)))


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda f, x: jacobian(f, x).det().abs(), "the factor of areas"),
    (1, lambda f, x: right_factors(f, x).flip(-1), "comes first"),
    (
        1,
        lambda f, x: torch.linalg.eigvals(jacobian(f, x)).abs().sort(-1, descending=True).values,
        "keep their direction",
    ),
    (1, lambda f, x: right_factors(f, x) ** 2, "Take the root"),
    (1, lambda f, x: 1 / right_factors(f, x), "factors of the inverse"),
    (1, lambda f, x: jacobian(f, x).norm(dim=-2), "lengths of the columns"),
    (1, lambda f, x: jacobian(f, x).norm(dim=-1), "lengths of the rows"),
    (1, lambda f, x: right_factors(f, x).max(0).values, "two factors a point"),
    (1, lambda f, x: 3 * right_factors(f, x), "how long can J d be"),
    (2, lambda w, L, a=0.5: grown(a, w * L) - a, "wider in z than in x"),
    (2, lambda w, L, a=0.5: grown(a, w) - a, "the width in x"),
    (2, lambda w, L, a=0.5: grown(a, w / L), "Take the side away"),
    (2, lambda w, L, a=0.5: grown(0.5, w / L) - 0.5, "use side"),
    (2, lambda w, L, a=0.5: 2 * grown(0.5, w / L / 2) - 1, "strip around z = 0"),
    (2, lambda w, L, a=0.5: w / L / math.sqrt(2 * math.pi), "thin gaps only"),
    (2, lambda w, L, a=0.5: 0.0, "Where does it end"),
    (2, lambda w, L, a=0.3: grown(a, w / L) - a, "Keep side=0.5"),
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
]


RIGHT = [
    (1, lambda f, x: torch.linalg.eigvalsh(jacobian(f, x).mT @ jacobian(f, x)).sqrt().flip(-1)),
    (2, lambda w, L, a=0.5: grown(a, w / L) - a),
    (3, lambda nats: -math.expm1(-nats)),
    (4, lambda w, d, s: [gap(w, -d, s), needed(w, gap(w, d, s))]),
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
    assert lesson.least_in_gap(width, L, side) == pytest.approx(float(mass), rel=1e-3)


@pytest.mark.parametrize("region", [toys.hole(), toys.gap()], ids=["hole", "gap"])
def test_the_cells_of_a_region_fill_it(region):
    area = math.pi * 0.75**2 if region.name == "hole" else 2 * 8
    assert float(region.areas.sum()) == pytest.approx(area, rel=1e-4)
