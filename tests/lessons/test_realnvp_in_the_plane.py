"""Each known wrong answer of realnvp_in_the_plane meets its own hint, and no other's."""

import math

import pytest
import torch

from flowlab.lessons.realnvp_in_the_plane import exercises as lesson


def inverse(step, log_det=lambda s: -s.sum(-1), given=lambda a, b: a):
    """A student's inverse: what they do with z_b, s and t, their log_det, and what they hand to the conditioner."""

    def answer(z_a, z_b, conditioner):
        s, t = conditioner(given(z_a, z_b))
        return step(z_b, s, t), log_det(s)

    return answer


def right_step(z, s, t):
    return (z - t) * torch.exp(-s)


def fits(z, *looks, tolerance=None):
    """A test of exercise 5 that looks at some of what a normal is known by."""
    off = {
        "mean": z.mean(0),
        "spread": z.std(0) - 1,
        "lean": (z[:, 0] * z[:, 1]).mean() - z[:, 0].mean() * z[:, 1].mean(),
        "distance": (z.norm(dim=-1) < 1).double().mean() - 0.3935,
    }
    return all(float(off[look].abs().max()) < (tolerance or 5 / math.sqrt(len(z))) for look in looks)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, inverse(lambda z, s, t: z * torch.exp(-s) - t), "undo the shift first"),
    (1, inverse(lambda z, s, t: (z - t) * torch.exp(s)), "Going back divides"),
    (1, inverse(lambda z, s, t: (z + t) * torch.exp(-s)), "so subtract it"),
    (1, inverse(lambda z, s, t: z * torch.exp(s) + t), "the forward map, applied again"),
    (1, inverse(lambda z, s, t: z), "Solve z_b"),
    (1, inverse(right_step, given=lambda a, b: b), "Give the conditioner z_a"),
    (1, inverse(right_step, lambda s: s.sum(-1)), "there and back is 0"),
    (1, inverse(right_step, lambda s: -s), "sum over the last axis"),
    (1, inverse(right_step, lambda s: -s.sum()), "Each sample has its own"),
    (1, inverse(right_step, lambda s: torch.exp(-s).prod(-1)), "take its logarithm"),
    (1, inverse(right_step, lambda s: -2 * s.sum(-1)), "for one unit of its z_b"),
    (1, lambda a, b, c: right_step(b, *c(a)), "Return two things"),
    (2, lambda nats, std: nats, "not free of units"),
    (2, lambda nats, std: nats + std.log().sum(), "The sign is turned"),
    (2, lambda nats, std: nats - std.log().mean(), "logarithms add up"),
    (2, lambda nats, std: nats - std.mean().log(), "by its own"),
    (2, lambda nats, std: nats - std.log()[0], "one coordinate only"),
    (2, lambda nats, std: nats - (std**2).log().sum(), "not its square"),
    (2, lambda nats, std: nats / std.prod(), "It scales p"),
    (2, lambda nats, std: nats - std.prod(), "Subtract its logarithm"),
    (2, lambda nats, std: nats - std, "one number"),
    (2, lambda nats, std: 7.0, "diagonal Jacobian"),
    (3, lambda p, q: bool((q > 0).any()), "may exceed 1"),
    (3, lambda p, q: bool((q - p).mean() > 3 * (q - p).std()), "spread of single points"),
    (3, lambda p, q: False, "spread of single points"),
    (3, lambda p, q: bool(((q > p).double().mean() > 0.52) and q.mean() < 3), "as long as it is below at others"),
    (3, lambda p, q: bool((q - p).mean() > 0), "mere luck of the draw"),
    (3, lambda p, q: bool((p - q).mean() > 0), "Which of p and q is which"),
    (3, lambda p, q: bool((q - p).mean() > 0.2), "cannot be luck"),
    (3, lambda p, q: q > p, "Return True or False"),
    (4, lambda factor, bound: math.ceil(abs(math.log(factor)) / bound), "every second one moves the other"),
    (4, lambda factor, bound: 2 * math.ceil(abs(math.log(factor)) / bound), "One too many"),
    (4, lambda factor, bound: 2 * math.ceil(factor / bound) - 1, "Factors multiply"),
    (4, lambda factor, bound: 2 * math.floor(abs(math.log(factor)) / bound) - 1, "You rounded down"),
    (4, lambda factor, bound: max(2 * math.ceil(math.log(factor) / bound) - 1, 0), "as many couplings as for"),
    (4, lambda factor, bound: 2 * abs(math.log(factor)) / bound - 1, "Half a coupling"),
    (4, lambda factor, bound: 2 * math.ceil(abs(math.log(factor)) / bound) - 1, "two that move it"),
    (5, lambda z: True, "lets everything pass"),
    (5, lambda z: False, "turns everything down"),
    (5, lambda z: fits(z, "spread", "lean", "distance"), "moved by 0.3 got past"),
    (5, lambda z: fits(z, "mean", "lean"), "stretched by 1.3 got past"),
    (5, lambda z: fits(z, "mean", "spread"), "leaning cloud got past"),
    (5, lambda z: fits(z, "mean", "spread", "lean"), "A ring got past"),
    (5, lambda z: fits(z, "mean", "spread", "lean", "distance", tolerance=0.06), "let the tolerance depend"),
    (5, lambda z: z.mean(0) < 0.1, "Return True or False"),
]


RIGHT = [
    (1, inverse(lambda z, s, t: (z - t) / s.exp())),
    (2, lambda nats, std: nats - math.log(float(std.prod()))),
    (3, lambda p, q: (q - p).mean() > 4 * (q - p).std() / len(p) ** 0.5),
    (4, lambda factor, bound: max(0, 1 + 2 * (math.ceil(max(math.log(factor), -math.log(factor)) / bound) - 1))),
    (5, lambda z: fits(z, "mean", "spread", "lean", "distance")),
]


def test_raw_nats_agree_with_the_gaussian():
    std = torch.tensor([0.5, 4.0])
    u = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(torch.zeros(2), 1.0)
    raw = torch.distributions.Normal(torch.zeros(2), std).log_prob(u * std).sum(-1).mean()
    assert lesson.raw_nats(normal.log_prob(u).sum(-1).mean(), std) == pytest.approx(float(raw), abs=1e-4)
