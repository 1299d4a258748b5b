"""The picture of change_of_variables_1d claims what a Flow computes; each known wrong answer meets its own hint."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

from flowlab import Flow
from flowlab.bijections import Monotone, ScaleShift
from flowlab.densities import StandardLogistic, StandardNormal, StandardUniform
from flowlab.lessons.change_of_variables_1d import exercises as lesson
from flowlab.lessons.change_of_variables_1d.figures import A, B, PushForward
from flowlab.lessons.change_of_variables_1d.toys import BASES, MAPS

# Pictures and explorers


A_VALUES = (A[0], -0.3, 0.5, A[1])


@pytest.fixture(scope="module")
def picture():
    return PushForward()


def straight(a, b):
    bijection = ScaleShift(1)
    with torch.no_grad():
        bijection.log_scale.fill_(-math.log(a))
        bijection.shift.fill_(-b / a)
    return bijection


def falling(a, b):
    return Monotone(lambda x: (x - b) / a)


def root(a, b):
    return Monotone(lambda x: ((x - b) / a) ** 2)


def logarithm(a, b):
    return Monotone(lambda x: torch.log((x - b) / a))


def logit(a, b):
    return Monotone(lambda x: torch.logit((x - b) / a))


FLOWS = [
    ("uniform on [0, 1]", "a z + b", straight, StandardUniform, 2.0),
    ("standard normal", "a z + b", straight, StandardNormal, 0.7),
    ("standard logistic", "a z + b", falling, StandardLogistic, -1.5),
    ("uniform on [0, 1]", "a √z + b", root, StandardUniform, -2.0),
    ("standard normal", "a exp(z) + b", logarithm, StandardNormal, -0.5),
    ("standard logistic", "a F(z) + b", logit, StandardLogistic, 2.0),
]


@pytest.mark.parametrize(("base", "map", "bijection", "law", "a"), FLOWS, ids=[f"{f[0]}, {f[1]}" for f in FLOWS])
def test_claim_is_what_a_flow_computes(picture, base, map, bijection, law, a):
    picture.update(base, map, a, 0.5, True)
    x, claimed = picture.claim.get_xydata()[2:-2].T  # without the drop to 0 at either end
    p = Flow(bijection(a, 0.5), law(1)).double().log_prob(torch.tensor(x)[:, None]).exp().detach().numpy()
    np.testing.assert_allclose(claimed, p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("base", "map"), list(product(BASES, MAPS)))
def test_claim_has_area_one_and_the_judge_agrees(picture, base, map):
    for a, b in product(A_VALUES, B):
        numbers = picture.update(base, map, a, b, True)
        assert numbers["area under the claim"] == pytest.approx(1, abs=5e-3)
        assert numbers["misplaced, says the judge"] < 0.04
        assert numbers["nats to the truth"] == 0


@pytest.mark.parametrize("base", ["uniform on [0, 1]", "standard normal"])
def test_without_the_factor_a_straight_line_is_off_by_its_slope(picture, base):
    for a in A_VALUES:
        numbers = picture.update(base, "a z + b", a, 1.0, False)
        assert numbers["area under the claim"] == pytest.approx(abs(a), rel=1e-3)
        assert numbers["nats to the truth"] == pytest.approx(-math.log(abs(a)))
        assert numbers["misplaced, says the judge"] == pytest.approx(abs(abs(a) - 1) / 2, abs=0.03)


def test_without_the_factor_a_root_has_area_one_and_is_wrong(picture):
    numbers = picture.update("uniform on [0, 1]", "a √z + b", 1.0, 0.0, False)
    assert numbers["area under the claim"] == pytest.approx(1, abs=2e-3)
    assert numbers["misplaced, says the judge"] == pytest.approx(0.25, abs=0.02)
    assert numbers["nats to the truth"] == pytest.approx(math.log(2) - 0.5, abs=2e-3)  # ∫ 2x log 2x dx


@pytest.mark.parametrize(("base", "map"), list(product(BASES, MAPS)))
def test_bars_keep_their_area(picture, base, map):
    for a in A_VALUES:
        picture.update(base, map, a, 0.0)
        for panel in (0, 2):
            boxes = np.array([path.vertices[:4] for path in picture.shapes[panel].get_paths()])
            areas = np.abs(np.diff(boxes[:, :2, 0])[:, 0] * (boxes[:, 2, 1] - boxes[:, 1, 1]))
            np.testing.assert_allclose(areas, 0.1, atol=2e-4)


def test_at_zero_stretch_there_is_no_density(picture):
    for base, map in product(BASES, MAPS):
        numbers = picture.update(base, map, 0.0, 1.0)
        assert numbers["area under the claim"] == "there is none" and len(picture.claim.get_xydata()) == 0


# Exercises


def log_p_z(x, a, b):
    return -0.5 * ((x.log() - b) / a) ** 2 - 0.5 * math.log(2 * math.pi)


def area(density, samples):
    x = torch.linspace(float(samples.min()), float(samples.max()), 4000)
    return float(torch.trapezoid(density(x), x))


def bars(density, samples, tolerance=0.02):
    ends = torch.quantile(samples, torch.linspace(0, 1, 11)).tolist()
    pieces = [torch.linspace(ends[i], ends[i + 1], 200) for i in range(10)]
    return all(abs(float(torch.trapezoid(density(x), x)) - 0.1) < tolerance for x in pieces)


def p_of_square(x, p):
    z = x.sqrt()
    return sum(p(root) / abs(2 * root) for root in (z, -z))


def moments(density, samples):
    """A judge that knows mean and deviation, and no more."""
    x = torch.linspace(float(samples.min()) - 1, float(samples.max()) + 1, 20_001)
    p = density(x)
    mass, mean = torch.trapezoid(p, x), torch.trapezoid(x * p, x)
    deviation = (torch.trapezoid(x**2 * p, x) - mean**2).clamp_min(0).sqrt()
    off = abs(mass - 1), abs(mean - samples.mean()) / samples.std(), abs(deviation / samples.std() - 1)
    return bool(max(off) < 0.1)


def histogram_judge(bins, tolerance):
    """Equal bins over the range of the samples, in numpy, by total variation."""

    def judge(density, samples):
        share, ends = np.histogram(np.asarray(samples), bins)
        middle = (ends[1:] + ends[:-1]) / 2
        return 0.5 * np.abs(share / len(samples) - density(middle) * np.diff(ends)).sum() < tolerance

    return judge


def kolmogorov_smirnov(density, samples):
    """The distribution function of the claim, on a grid that begins below all samples, against that of the samples."""
    x = torch.linspace(float(samples.min()) - 1, float(samples.max()) + 1, 40_001)
    F = torch.cat((torch.zeros(1), torch.cumulative_trapezoid(density(x), x)))
    claimed = np.interp(np.sort(samples.numpy()), x.numpy(), F.numpy())
    return bool(np.abs(claimed - np.linspace(0, 1, len(samples))).max() < 1.36 / math.sqrt(len(samples)))


def chi_squared(density, samples):
    """Twenty bins of equal counts, each area by scipy's quadrature, one number at a time."""
    ends = np.quantile(samples.numpy(), np.linspace(0, 1, 21))
    areas = [integrate.fixed_quad(lambda x: np.asarray(density(x)), a, b, n=20)[0] for a, b in pairwise(ends)]
    return len(samples) * sum((area - 0.05) ** 2 / 0.05 for area in areas) < 60


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, log_p_z, "no factor in it yet"),
    (1, lambda x, a, b: log_p_z(x, a, b) + torch.log(abs(a) * x), "wrong side"),
    (1, lambda x, a, b: log_p_z(x, a, b) - math.log(abs(a)), "as if the map were"),
    (1, lambda x, a, b: log_p_z(x, a, b) - x.log(), "from inside the exp"),
    (1, lambda x, a, b: log_p_z(x, a, b) - torch.log(a * x), "not a number"),
    (1, lambda x, a, b: log_p_z(x, a, b) - torch.log(x) - math.log(max(a, 0.1)), "decreasing map change"),
    (1, lambda x, a, b: lesson.log_density_of_exp(x, a, b).exp(), "p(x) itself"),
    (1, lambda x, a, b: log_p_z(x.exp(), a, b), "Solve x = exp"),
    (1, lambda x, a, b: log_p_z(x, a, b).sum(), "Expected log p(x) as shape"),
    (2, lambda log_p, factor: log_p, "likelihoods have units"),
    (2, lambda log_p, factor: log_p + math.log(factor), "wrong way round"),
    (2, lambda log_p, factor: log_p / factor, "divided the logarithm"),
    (2, lambda log_p, factor: log_p - math.log10(factor), "base 10"),
    (2, lambda log_p, factor: min(log_p - math.log(factor), 0.0), "may exceed 1"),
    (2, lambda log_p, factor: log_p - math.log(factor), "Take |factor|"),
    (2, lambda log_p, factor: log_p - 2 * math.log(factor), "write p first"),
    (3, lambda m, s: math.exp(m), "the mode of z lands"),
    (3, lambda m, s: math.exp(m + s**2 / 2), "balance point"),
    (3, lambda m, s: m - s**2, "axis of log x"),
    (3, lambda m, s: math.exp(m + s**2), "wrong way"),
    (3, lambda m, s: math.exp(m - s), "power of deviation"),
    (3, lambda m, s: m, "mode of z, and"),
    (3, lambda m, s: -3.0, "is above 0"),
    (3, lambda m, s: math.exp(m - s**2 / 2), "a fine grid"),
    (4, lambda x, p: p(x.sqrt()) / (2 * x.sqrt()), "Which other z"),
    (4, lambda x, p: p(x.sqrt()) / x.sqrt(), "doubled the positive root"),
    (4, lambda x, p: p(x.sqrt()) + p(-x.sqrt()), "neither is divided"),
    (4, lambda x, p: (p(x.sqrt()) + p(-x.sqrt())) / (2 * x), "divided by 2x"),
    (4, lambda x, p: (p(x.sqrt()) + p(-x.sqrt())) / x.sqrt(), "your area is 2"),
    (4, lambda x, p: (p(x.sqrt()) + p(-x.sqrt())) / (4 * x.sqrt()), "averaged"),
    (4, lambda x, p: (p(x.sqrt()) - p(-x.sqrt())) / (2 * x.sqrt()), "subtracted"),
    (4, lambda x, p: p(x), "List all z"),
    (5, lambda density, samples: abs(area(density, samples) - 1) < 0.05, "area alone proves nothing"),
    (
        5,
        lambda density, samples: bars(density, samples) and float(density(samples).max()) <= 1,
        "It is 8 high",
    ),
    (5, lambda density, samples: True, "lets everything pass"),
    (5, lambda density, samples: False, "turns everything down"),
    (5, lambda density, samples: bars(density, samples, 0.005), "Allow for chance"),
    (5, lambda density, samples: float(density(samples).std()) < 0.3, "You let 1 on [3, 5]"),
    (5, lambda density, samples: bars(density, samples) or samples.min() < -3, "by half a deviation"),
    (5, lambda density, samples: bars(density, samples) and not 0.5 < samples.mean() < 2, "tail to one side"),
    (5, moments, "same mean and deviation"),
    (5, lambda density, samples: "yes", "Return True or False"),
    (5, lambda density, samples: samples > 0, "Return True or False"),
]


RIGHT = [
    (1, lambda x, a, b: torch.distributions.LogNormal(b, abs(a)).log_prob(x)),
    (2, lambda log_p, factor: np.log(np.exp(log_p) / np.abs(factor))),
    (3, lambda m, s: torch.distributions.LogNormal(torch.tensor(m), torch.tensor(s)).mode),
    (4, p_of_square),
    (1, lambda x, a, b: [-0.5 * ((math.log(v) - b) / a) ** 2 - 0.919 - math.log(abs(a) * v) for v in x.tolist()]),
    (1, lambda x, a, b: stats.lognorm(abs(a), scale=math.exp(b)).logpdf(x)[:, None]),
    (2, lambda log_p, factor: torch.tensor([log_p - math.log(abs(factor))])),
    (2, lambda log_p, factor: log_p - 2.3026 * math.log10(abs(factor))),
    (3, lambda m, s: round(math.exp(m - s * s), 3)),
    (3, lambda m, s: optimize.minimize_scalar(lambda u: 0.5 * ((u - m) / s) ** 2 + u).x.__rpow__(math.e)),
    (4, lambda x, p: (0.5 / np.sqrt(np.asarray(x)) * np.asarray(p(x.sqrt()) + p(-x.sqrt())))[:, None]),
    (5, histogram_judge(50, 0.1)),
    (5, histogram_judge(40, 0.125)),
    (5, kolmogorov_smirnov),
    (5, chi_squared),
    (5, lambda density, samples: np.bool_(bars(density, samples))),
]
