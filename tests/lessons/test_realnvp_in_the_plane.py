"""Each known wrong answer of realnvp_in_the_plane meets its own hint, and no other's."""

import math

import numpy as np
import torch

import flowlab
from flowlab.bijections import AffineCoupling, Chain


def coupling(forward=None, back=None, det=None, det_back=None, given=None, scale=lambda raw: 2 * torch.tanh(raw)):
    """A student's coupling: what it does with the moving part, its log-dets, and what it hands to the network."""

    def answer(v, mask, conditioner, inverse=False):
        raw, t = conditioner(given(v, mask) if given else v[:, mask])
        s, out, moving = scale(raw), v.clone(), v[:, ~mask]
        if inverse:
            out[:, ~mask] = (back or (lambda z, s, t: (z - t) * torch.exp(-s)))(moving, s, t)
            return out, (det_back or (lambda s: -s.sum(-1)))(s)
        out[:, ~mask] = (forward or (lambda x, s, t: x * torch.exp(s) + t))(moving, s, t)
        return out, (det or (lambda s: s.sum(-1)))(s)

    return answer


def sorted_coupling(v, mask, conditioner, inverse=False):
    out, log_det = coupling()(v, mask, conditioner, inverse)
    return torch.cat((out[:, mask], out[:, ~mask]), -1), log_det


def in_place(v, mask, conditioner, inverse=False):
    out, log_det = coupling()(v, mask, conditioner, inverse)
    v.copy_(out)
    return v, log_det


def by_columns(v, mask, conditioner, inverse=False):
    """The same coupling, column by column, in numpy."""
    v, mask = np.asarray(v), np.asarray(mask)
    raw, t = (np.asarray(value) for value in conditioner(torch.tensor(v[:, mask])))
    s, columns, moved = 2 * np.tanh(raw), [], 0
    for i, passes in enumerate(mask):
        if passes:
            columns.append(v[:, i])
            continue
        a, b = s[:, moved], t[:, moved]
        columns.append((v[:, i] - b) / np.exp(a) if inverse else v[:, i] * np.exp(a) + b)
        moved += 1
    return np.stack(columns, 1), (-1 if inverse else 1) * s.sum(1, keepdims=True)


def fitted(measure, steps=250, data=lambda x: x):
    """An answer to exercise 2: what is trained on, for how long, and how it is measured."""

    def answer(x, new, log_p):
        flow = flowlab.spline_flow(2, layers=2, hidden=(32, 32), generator=torch.Generator().manual_seed(0))
        flowlab.fit(flow, data(x), steps=steps, batch_size=256, learning_rate=8e-3, progress=False)
        with torch.no_grad():
            return flow, measure(flow, x, new, log_p)

    return answer


def standardized(x):
    return (x - x.mean(0)) / x.std(0)


def with_standardizing(x, new, log_p):
    """The standardizing as a first map of one's own, in a class of one's own."""

    class Mine:
        def __init__(self):
            self.mean, self.std = x.mean(0), x.std(0)
            self.flow = flowlab.realnvp(2, 6, hidden=(32,), generator=torch.Generator().manual_seed(0))
            flowlab.fit(self.flow, (x - self.mean) / self.std, steps=400, learning_rate=8e-3, progress=False)

        def log_prob(self, x):
            return self.flow.log_prob((x - self.mean) / self.std) - self.std.log().sum()

    mine = Mine()
    with torch.no_grad():
        return mine, round(float((log_p - mine.log_prob(new)).mean()), 3)


def nats(peak):
    return math.log(2 * math.pi * peak)


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
def spline(x, x0, x1, y0, y1, d0, d1):
    """The formula of Durkan et al., eq. 4, and its slope by autograd."""
    x = x.clone().requires_grad_()
    w, h = x1 - x0, y1 - y0
    xi = (x - x0) / w
    z = y0 + h * (h / w * xi**2 + d0 * (xi - xi**2)) / (h / w + (d0 + d1 - 2 * h / w) * (xi - xi**2))
    (slope,) = torch.autograd.grad(z.sum(), x)
    return z.detach(), slope.log()


def inside(x, x0, x1, *rest):
    return spline(x, x0, x1, *rest)[1] + math.log(x1 - x0)


def mean(x, x0, x1, y0, y1):
    return 0 * x + math.log((y1 - y0) / (x1 - x0))


WRONG = [
    (1, coupling(scale=lambda raw: raw), "the raw output of the network"),
    (1, sorted_coupling, "not in their places"),
    (1, in_place, "Write into v.clone()"),
    (1, coupling(lambda x, s, t: (x + t) * torch.exp(s)), "scales first and shifts then"),
    (1, coupling(lambda x, s, t: x), "Forward is not right yet"),
    (1, coupling(det=lambda s: -s.sum(-1)), "its log_det is +Σ s"),
    (1, coupling(det=lambda s: torch.atanh(s / 2).sum(-1)), "Your log_det adds up raw"),
    (1, coupling(det=lambda s: s.exp().prod(-1)), "take its logarithm"),
    (1, coupling(det=lambda s: 2 * s.sum(-1)), "what is log |det|"),
    (1, coupling(back=lambda z, s, t: z * torch.exp(-s) - t), "undo the shift first"),
    (1, coupling(back=lambda z, s, t: (z - t) * torch.exp(s)), "once more. It divides"),
    (1, coupling(back=lambda z, s, t: (z + t) * torch.exp(-s)), "so the inverse subtracts it"),
    (1, lambda v, mask, c, inverse=False: coupling()(v, mask, c), "look at ``inverse``"),
    (1, coupling(back=lambda z, s, t: z), "Solve z_b"),
    (1, coupling(given=lambda v, mask: v[:, ~mask]), "the part that passes, v[:, mask]"),
    (1, coupling(given=lambda v, mask: v * mask), "the part that passes, v[:, mask]"),
    (1, coupling(det_back=lambda s: s.sum(-1)), "there and back is 0"),
    (1, coupling(det=lambda s: s), "sum over the last axis"),
    (1, coupling(det=lambda s: s.sum()), "Each sample has its own"),
    (1, coupling(det_back=lambda s: -2 * s.sum(-1)), "for one unit of its z_b"),
    (1, lambda v, mask, c, inverse=False: coupling()(v, mask, c, inverse)[0], "Return two things"),
    (2, fitted(lambda q, x, new, p: (q.log_prob(new) - p).mean(), steps=3), "The sign is turned"),
    (
        2,
        lambda x, new, p: (flowlab.fit(flowlab.spline_flow(2), x, steps=1, progress=False), 0.1),
        "the history that fit",
    ),
    (2, fitted(lambda q, x, new, p: -q.log_prob(new).mean(), steps=3), "That is the loss"),
    (
        2,
        fitted(lambda q, x, new, p: (p - q.log_prob(standardized(new))).mean(), steps=3, data=standardized),
        "Σ log std",
    ),
    (2, fitted(lambda q, x, new, p: (p - q.log_prob(new)).mean(), steps=3), "Come below 0.2"),
    (2, fitted(lambda q, x, new, p: 0.0, steps=3), "and you report 0.00"),
    (2, fitted(lambda q, x, new, p: p - q.log_prob(new), steps=3), "one number"),
    (2, lambda x, new, p: 0.1, "Return two things"),
    (3, lambda p, q: bool((q > 0).any()), "may exceed 1"),
    (3, lambda p, q: bool((q - p).mean() > 3 * (q - p).std()), "spread of single points"),
    (3, lambda p, q: False, "spread of single points"),
    (3, lambda p, q: bool(((q > p).double().mean() > 0.52) and q.mean() < 3), "as long as it is below at others"),
    (3, lambda p, q: bool((q - p).mean() > 0), "mere luck of the draw"),
    (3, lambda p, q: bool((p - q).mean() > 0), "Which of p and q is which"),
    (3, lambda p, q: bool((q - p).mean() > 0.2), "cannot be luck"),
    (3, lambda p, q: q > p, "Return True or False"),
    (4, lambda x, *bin: spline(x, *bin)[0], "Return two things"),
    (4, lambda x, x0, x1, y0, y1, d0, d1: spline(x, x0, x1, y0, y1, d1, d0), "at the wrong ends"),
    (4, lambda x, x0, x1, y0, y1, *_: (y0 + (y1 - y0) / (x1 - x0) * (x - x0), 0 * x), "the straight line"),
    (4, lambda x, *bin: (2 * spline(x, *bin)[0] + 1, 0 * x), "not the formula"),
    (4, lambda x, *bin: (spline(x, *bin)[0], spline(x, *bin)[1].exp()), "That is the slope itself"),
    (4, lambda x, x0, x1, *rest: (spline(x, x0, x1, *rest)[0], inside(x, x0, x1, *rest)), "the slope by ξ"),
    (4, lambda x, x0, x1, y0, y1, *d: (spline(x, x0, x1, y0, y1, *d)[0], mean(x, x0, x1, y0, y1)), "the mean slope"),
    (4, lambda x, *bin: (spline(x, *bin)[0], 0 * x - 7), "compare it with autograd"),
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
    (1, coupling(lambda x, s, t: t + x / torch.exp(-s), lambda z, s, t: (z - t) / s.exp())),
    (1, by_columns),
    (2, fitted(lambda q, x, new, p: float(p.mean() - q.log_prob(new).mean()))),
    (2, with_standardizing),
    (3, lambda p, q: (q - p).mean() > 4 * (q - p).std() / len(p) ** 0.5),
    (4, spline),
    (5, lambda z: fits(z, "mean", "spread", "lean", "distance")),
]


def test_couplings_without_any_scale_stretch_a_coordinate_as_far_as_one_likes():
    """No number of couplings follows from a stretch: shears, with log_det 0, make z₁ = 800 x₁, and diag(800, 1/800)."""

    class Slope(torch.nn.Module):
        def __init__(self, slope):
            super().__init__()
            self.slope = slope

        def forward(self, a, context=None):
            return torch.cat((0 * a, self.slope * a), -1)

    def shear(moves, slope):
        layer = AffineCoupling([moves == 1, moves == 0], hidden=(1,))
        layer.conditioner = Slope(slope)
        return layer

    a = 800.0
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    z, log_det = Chain([shear(0, -1 / a), shear(1, a - 1), shear(0, 1), shear(1, (1 - a) / a)])(x)
    torch.testing.assert_close(z, x * torch.tensor([a, 1 / a]).double(), rtol=1e-9, atol=1e-8)
    three, log_det_of_three = Chain([shear(0, -1 / a), shear(1, a - 1), shear(0, 1)])(x)
    torch.testing.assert_close(three[:, 0], a * x[:, 0], rtol=1e-9, atol=1e-8)
    assert not log_det.any() and not log_det_of_three.any()
