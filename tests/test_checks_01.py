"""Each known wrong answer of notebook 01 meets its own hint, and no other's."""

import math

import numpy as np
import torch

from flowlab.lessons.change_of_variables_1d import exercises as notebook_01


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


def histogram_judge(density, samples):
    share, ends = np.histogram(samples.numpy(), 40)
    middle = torch.tensor((ends[1:] + ends[:-1]) / 2, dtype=torch.float32)
    return bool(np.abs(share / len(samples) - density(middle).numpy() * np.diff(ends)).sum() < 0.25)


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("01.1", log_p_z, "no factor in it yet"),
    ("01.1", lambda x, a, b: log_p_z(x, a, b) + torch.log(abs(a) * x), "wrong side"),
    ("01.1", lambda x, a, b: log_p_z(x, a, b) - math.log(abs(a)), "as if the map were"),
    ("01.1", lambda x, a, b: log_p_z(x, a, b) - x.log(), "from inside the exp"),
    ("01.1", lambda x, a, b: log_p_z(x, a, b) - torch.log(a * x), "not a number"),
    ("01.1", lambda x, a, b: log_p_z(x, a, b) - torch.log(x) - math.log(max(a, 0.1)), "decreasing map change"),
    ("01.1", lambda x, a, b: notebook_01.log_density_of_exp(x, a, b).exp(), "p(x) itself"),
    ("01.1", lambda x, a, b: log_p_z(x.exp(), a, b), "Solve x = exp"),
    ("01.1", lambda x, a, b: log_p_z(x, a, b).sum(), "Expected log p(x) as shape"),
    ("01.2", lambda log_p, factor: log_p, "likelihoods have units"),
    ("01.2", lambda log_p, factor: log_p + math.log(factor), "wrong way round"),
    ("01.2", lambda log_p, factor: log_p / factor, "divided the logarithm"),
    ("01.2", lambda log_p, factor: log_p - math.log10(factor), "base 10"),
    ("01.2", lambda log_p, factor: min(log_p - math.log(factor), 0.0), "may exceed 1"),
    ("01.2", lambda log_p, factor: log_p - math.log(factor), "Take |factor|"),
    ("01.2", lambda log_p, factor: log_p - 2 * math.log(factor), "write p first"),
    ("01.3", lambda m, s: math.exp(m), "the mode of z lands"),
    ("01.3", lambda m, s: math.exp(m + s**2 / 2), "balance point"),
    ("01.3", lambda m, s: m - s**2, "axis of log x"),
    ("01.3", lambda m, s: math.exp(m + s**2), "wrong way"),
    ("01.3", lambda m, s: math.exp(m - s), "power of deviation"),
    ("01.3", lambda m, s: m, "mode of z, and"),
    ("01.3", lambda m, s: -3.0, "is above 0"),
    ("01.3", lambda m, s: math.exp(m - s**2 / 2), "a fine grid"),
    ("01.4", lambda x, p: p(x.sqrt()) / (2 * x.sqrt()), "Which other z"),
    ("01.4", lambda x, p: p(x.sqrt()) / x.sqrt(), "doubled the positive root"),
    ("01.4", lambda x, p: p(x.sqrt()) + p(-x.sqrt()), "neither is divided"),
    ("01.4", lambda x, p: (p(x.sqrt()) + p(-x.sqrt())) / (2 * x), "divided by 2x"),
    ("01.4", lambda x, p: (p(x.sqrt()) + p(-x.sqrt())) / x.sqrt(), "your area is 2"),
    ("01.4", lambda x, p: (p(x.sqrt()) + p(-x.sqrt())) / (4 * x.sqrt()), "averaged"),
    ("01.4", lambda x, p: (p(x.sqrt()) - p(-x.sqrt())) / (2 * x.sqrt()), "subtracted"),
    ("01.4", lambda x, p: p(x), "List all z"),
    ("01.5", lambda density, samples: abs(area(density, samples) - 1) < 0.05, "area alone proves nothing"),
    (
        "01.5",
        lambda density, samples: bars(density, samples) and float(density(samples).max()) <= 1,
        "It is 8 high",
    ),
    ("01.5", lambda density, samples: True, "lets everything pass"),
    ("01.5", lambda density, samples: False, "turns everything down"),
    ("01.5", lambda density, samples: bars(density, samples, 0.005), "Allow for chance"),
    ("01.5", lambda density, samples: float(density(samples).std()) < 0.3, "You let 1 on [3, 5]"),
    ("01.5", lambda density, samples: bars(density, samples) or samples.min() < -3, "by half a deviation"),
    ("01.5", lambda density, samples: bars(density, samples) and samples.max() < 10, "a map that increases"),
]


RIGHT = [
    ("01.1", lambda x, a, b: torch.distributions.LogNormal(b, abs(a)).log_prob(x)),
    ("01.2", lambda log_p, factor: np.log(np.exp(log_p) / np.abs(factor))),
    ("01.3", lambda m, s: torch.distributions.LogNormal(torch.tensor(m), torch.tensor(s)).mode),
    ("01.4", p_of_square),
    ("01.5", histogram_judge),
]
