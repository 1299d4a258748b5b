"""Notebook 14: what is known to go wrong in its exercises, and that its worked answers are the package's."""

import math

import torch
from torch.nn import functional as F

from flowlab.bijections import FactorOut, Squeeze
from flowlab.lessons import exercises


def corners(x):
    return {(i, j): x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)}


def interleaved(x, order):
    N, C, H, W = x.shape
    return torch.stack([corners(x)[k] for k in order], 2).reshape(N, 4 * C, H // 2, W // 2)


def shape_of(x):
    N, C, H, W = x.shape
    return N, 4 * C, H // 2, W // 2


def quarters(x):
    N, C, H, W = x.shape
    return x.reshape(N, C, 2, H // 2, 2, W // 2).transpose(3, 4).reshape(shape_of(x))


BY_ROWS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def left(x, conditioner, z_b=None, log_det=None):
    """The right answer, or one of its two parts made by the student's own line."""
    x_a, x_b = x.chunk(2, 1)
    s, mu = conditioner(x_a)
    b = (x_b - mu) * (-s).exp() if z_b is None else z_b(x_b, s, mu)
    return torch.cat((x_a, b), 1), -s.sum((1, 2, 3)) if log_det is None else log_det(s)


def by_itself(x, conditioner):
    x_a, x_b = x.chunk(2, 1)
    s, mu = conditioner(x_b)
    return torch.cat((x_a, (x_b - mu) * (-s).exp()), 1), -s.sum((1, 2, 3))


def first_half(x, conditioner):
    x_a, x_b = x.chunk(2, 1)
    s, mu = conditioner(x_b)
    return torch.cat(((x_a - mu) * (-s).exp(), x_b), 1), -s.sum((1, 2, 3))


def changed(x, conditioner):
    z, log_det = left(x, conditioner)
    return torch.cat((z[:, : x.shape[1] // 2] + 1, z[:, x.shape[1] // 2 :]), 1), log_det


def in_place(z, e, level, which):
    z[:, level == which] = e[:, level == which]
    return z


def block(z, e, level, which):
    n = int((level == which).sum())
    return torch.cat((e[:, :n], z[:, n:]), 1)


def share(inside, outside, tie=0.5):
    d = outside[:, None] - inside
    return ((d > 0).double() + tie * (d == 0).double()).mean()


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("14.1", lambda x: x.reshape(shape_of(x)), "A reshape alone"),
    ("14.1", quarters, "four quarters"),
    ("14.1", lambda x: interleaved(x, [(0, 0), (1, 0), (0, 1), (1, 1)]), "by columns"),
    ("14.1", lambda x: torch.cat(list(corners(x).values()), 1), "first all channels of one corner"),
    ("14.1", lambda x: interleaved(x, BY_ROWS[::-1]), "in another order"),
    ("14.1", lambda x: F.avg_pool2d(x, 2), "Expected shape"),
    ("14.1", lambda x: F.avg_pool2d(x, 2).repeat_interleave(4, 1), "changes none"),
    ("14.2", lambda x, f: left(x, f)[0], "Return two things"),
    ("14.2", lambda x, f: (left(x, f)[0].chunk(2, 1)[1], left(x, f)[1]), "All scales stay in one latent"),
    ("14.2", first_half, "wrong half left"),
    ("14.2", by_itself, "leaving half itself"),
    ("14.2", lambda x, f: left(x, f, lambda b, s, m: b * (-s).exp() - m), "First take away the mean"),
    ("14.2", lambda x, f: left(x, f, lambda b, s, m: (b - m) / s), "gives log σ"),
    ("14.2", lambda x, f: left(x, f, lambda b, s, m: (b - m) * s.exp()), "the way back"),
    ("14.2", lambda x, f: left(x, f, lambda b, s, m: b * s.exp() + m), "the way back"),
    ("14.2", changed, "first half of z is not that of x"),
    ("14.2", lambda x, f: left(x, f, lambda b, s, m: b - m), "with σ = exp"),
    ("14.2", lambda x, f: left(x, f, None, lambda s: -s.sum()), "one log_det for each"),
    ("14.2", lambda x, f: left(x, f, None, lambda s: torch.zeros(len(s))), "as if this were a shift alone"),
    ("14.2", lambda x, f: left(x, f, None, lambda s: s.sum((1, 2, 3))), "sign is turned"),
    ("14.2", lambda x, f: left(x, f, None, lambda s: -s.mean((1, 2, 3))), "mean of the log σ"),
    ("14.2", lambda x, f: left(x, f, None, lambda s: -s.exp().sum((1, 2, 3))), "1/σ on its diagonal"),
    ("14.3", lambda z, e, level, which: torch.where(level == which, z, e), "The other way round"),
    ("14.3", lambda z, e, level, which: torch.where(level == which, z + e, z), "variance 2, and is no draw"),
    ("14.3", lambda z, e, level, which: torch.where(level == which, 0.0, z), "You set the level to 0"),
    ("14.3", block, "in stripes"),
    ("14.3", lambda z, e, level, which: torch.where(level >= which, e, z), "coarser levels too"),
    ("14.3", lambda z, e, level, which: z, "nothing else changes"),
    ("14.3", in_place, "You changed z itself"),
    ("14.4", lambda z0, z1, w: (1 - w) * z0 + w * z1, "The straight line"),
    ("14.4", lambda z0, z1, w: math.sin(math.pi / 2 * w) * z0 + math.cos(math.pi / 2 * w) * z1, "You start at z1"),
    ("14.4", lambda z0, z1, w: F.normalize((1 - w) * z0 + w * z1, dim=-1), "You set the length to 1"),
    ("14.4", lambda z0, z1, w: z0 + z1, "the variance 2: the squares"),
    ("14.4", lambda z0, z1, w: 0 * z0, "is at z0 for w = 0"),
    ("14.4", lambda z0, z1, w: (1 - w**2) ** 0.5 * z0 + w * z1, "the same weight"),
    ("14.4", lambda z0, z1, w: (1 - w) ** 2 * z0 + w**2 * z1, "The variance of a z0 + b z1"),
    ("14.5", lambda a, b: 1 - share(a, b), "Turned round"),
    ("14.5", lambda a, b: float(b.mean() > a.mean()), "compared two means"),
    ("14.5", lambda a, b: share(a, b) * len(a) * len(b), "a count of pairs"),
    ("14.5", lambda a, b: share(a, b, 0.0), "Yours counts 0"),
    ("14.5", lambda a, b: share(a, b, 1.0), "Yours counts 1"),
    ("14.5", lambda a, b: (b > a.max()).double().mean(), "with one number"),
    ("14.5", lambda a, b: (b > a.mean()).double().mean(), "with one number"),
    ("14.5", lambda a, b: 0.3, "a tie is one half"),
]

RIGHT = [
    ("14.1", lambda x: F.pixel_unshuffle(x, 2)),
    ("14.2", lambda x, f: left(x, f, lambda b, s, m: (b - m) / s.exp(), lambda s: (-s).flatten(1).sum(1))),
    ("14.3", lambda z, e, level, which: z + (level == which) * (e - z)),
    ("14.4", lambda z0, z1, w: (1 - w) ** 0.5 * z0 + w**0.5 * z1),
    ("14.5", lambda a, b: sum((y > x) + 0.5 * (y == x) for x in a for y in b) / (len(a) * len(b))),
]


def test_the_worked_answers_are_the_packages():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 6, 4, 4, generator=g)
    assert torch.equal(exercises()["14.1"].answer(x), Squeeze()(x)[0])
    layer = FactorOut(6)
    for p in layer.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=g)
    z, log_det = exercises()["14.2"].answer(x, layer._scale_and_mean)
    torch.testing.assert_close((z, log_det), layer(x))
    assert bool((log_det.abs() > 0.1).all())
