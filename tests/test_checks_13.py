"""Notebook 13: what is known to go wrong in its exercises, and that its worked answers are the package's."""

import math

import torch

from flowlab.bijections import ActNorm, BatchNorm, InvertibleConvolution, LULinear, starting
from flowlab.lessons import exercises


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


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("13.1", lambda W, x: (mixed(W, x), each(size(W), x)), "one pixel's"),
    ("13.1", lambda W, x: (mixed(W, x), each(pixels(x) * torch.linalg.det(W).log(), x)), "det W is below 0"),
    ("13.1", lambda W, x: (mixed(W.T, x), each(pixels(x) * size(W), x)), "You used Wᵀ"),
    ("13.1", lambda W, x: (mixed(W, x), each(len(W) * pixels(x) * size(W), x)), "counted the channels"),
    ("13.1", lambda W, x: (mixed(W, x), each(-pixels(x) * size(W), x)), "forward multiplies by W"),
    ("13.1", lambda W, x: (mixed(W, x), each(pixels(x) * torch.linalg.det(W).abs(), x)), "determinants multiply"),
    ("13.1", lambda W, x: (mixed(W, x), pixels(x) * size(W)), "use expand"),
    ("13.1", lambda W, x: (x @ torch.eye(x.shape[-1], dtype=x.dtype), each(0.0, x)), "Which axis of x"),
    ("13.1", lambda W, x: (mixed(W, x), each(0.1, x)), "blocks W on the diagonal"),
    ("13.1", lambda W, x: mixed(W, x), "Return two things"),
    ("13.2", lambda P, l, u, s: (P @ l.tril() @ (u.triu(1) + s.diag()), logs(s)), "keeps the diagonal of ``lower``"),
    ("13.2", lambda P, l, u, s: (P @ l.tril(-1) @ (u.triu(1) + s.diag()), logs(s)), "W is singular"),
    ("13.2", lambda P, l, u, s: (product(P, l, u, s), 0.1), "the third factor"),
    (
        "13.2",
        lambda P, l, u, s: (P @ (l.tril(-1) + torch.eye(len(s))) @ (u.triu() + s.diag()), logs(s)),
        "keeps the diagonal of ``upper``",
    ),
    ("13.2", lambda P, l, u, s: (product(P, l, u, s, torch.eye(len(s)).double()), logs(s)), "P is missing"),
    ("13.2", lambda P, l, u, s: (product(P, l, u, s, P.T), logs(s)), "You used Pᵀ"),
    ("13.2", lambda P, l, u, s: (product(P, l, u, s, torch.eye(len(s)).double()) @ P, logs(s)), "leftmost factor"),
    ("13.2", lambda P, l, u, s: (product(P, l, u, s), s.log().sum()), "the log of a negative s"),
    ("13.2", lambda P, l, u, s: (product(P, l, u, s), s.abs().prod()), "That is the product"),
    ("13.2", lambda P, l, u, s: (product(P, l, u, s), s.sum()), "You summed s"),
    (
        "13.2",
        lambda P, l, u, s: (product(P, l, u, s), torch.linalg.det(product(P, l, u, s)).sign() * logs(s)),
        "says that W mirrors",
    ),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), each(-spread(x, e).sum(), x)), "γ stretches as well"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), each(logs(g) + spread(x, e).sum(), x)), "*divided* by that root"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), each((g.log() - spread(x, e)).sum(), x)), "γ may be negative"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), each(logs(g) - 2 * spread(x, e).sum(), x)), "makes it a half"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), each(logs(g) - spread(x, 0).sum(), x)), "so it is in log_det"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e, x.var(0)), each(logs(g) - spread(x, e).sum(), x)), "by N − 1"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, 0), each(logs(g) - spread(x, e).sum(), x)), "ε is missing in z"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), each(len(x) * (logs(g) - spread(x, e).sum()), x)), "the sum over"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), logs(g) - spread(x, e).sum()), "one number a sample"),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), each(0.1, x)), "plus something, in each column"),
    ("13.4", lambda x: begun(x, log=safe(x).log()), "Multiply by 1/std"),
    ("13.4", lambda x: begun(x, log=1 / safe(x)), "the scale itself"),
    ("13.4", lambda x: begun(x, log=-2 * safe(x).log()), "divide by the variance"),
    ("13.4", lambda x: begun(x, std=x.std(0)), "by N − 1"),
    ("13.4", lambda x: begun(x, shift=-x.mean(0)), "after scaling the mean is"),
    ("13.4", lambda x: begun(x, shift=-begun(x)[1]), "the mean doubles"),
    ("13.4", lambda x: begun(x, log=-x.std(0, correction=0).log()), "has deviation 0"),
    ("13.4", lambda x: begun(x, log=-(safe(x) + 1e-9 - (x.std(0) == 0) * 0.5).log()), "should keep its scale"),
    ("13.4", lambda x: begun(x, shift=0 * x.mean(0)), "the means of the batch are not 0"),
    ("13.5", lambda a, b: (a.min() - b.min(), error(a, b)), "the best seeds"),
    ("13.5", lambda a, b: (-apart(a, b), error(a, b)), "Asked is a minus b"),
    ("13.5", lambda a, b: (a.median() - b.median(), error(a, b)), "Those are medians"),
    ("13.5", lambda a, b: (apart(a, b), (a.var() + b.var()).sqrt()), "two single runs"),
    ("13.5", lambda a, b: (apart(a, b), a.std() / len(a) ** 0.5 + b.std() / len(b) ** 0.5), "the variances add"),
    ("13.5", lambda a, b: (apart(a, b), error(a, b) ** 2), "Take its root"),
    ("13.5", lambda a, b: (apart(a, b), error(a, b, 0)), "divide the squares by n − 1"),
    ("13.5", lambda a, b: (apart(a, b), (a.var() / len(a) - b.var() / len(b)).abs().sqrt()), "two sources of luck"),
    ("13.5", lambda a, b: (apart(a, b), 0.01), "the root of var(a)/n"),
]

RIGHT = [
    ("13.1", lambda W, x: ((W @ x.flatten(2)).view_as(x), pixels(x) * torch.linalg.det(W).abs().log().repeat(len(x)))),
    ("13.2", lambda P, l, u, s: (product(P, l, u, s), torch.linalg.slogdet(product(P, l, u, s))[1])),
    ("13.3", lambda x, g, b, e: (normed(x, g, b, e), (logs(g) - spread(x, e).sum()).repeat(len(x)))),
    ("13.4", lambda x: (lambda m, s: (-s.log(), -m / s))(x.mean(0), safe(x))),
    ("13.5", lambda a, b: (sum(a) / len(a) - b.mean(), math.hypot(a.std() / len(a) ** 0.5, b.std() / len(b) ** 0.5))),
]


def test_the_worked_answers_are_the_packages():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 3, 5, generator=g)
    layer = InvertibleConvolution(4, generator=g)
    lu = layer.bijection
    with torch.no_grad():
        lu.log_scale.normal_(generator=g)
        W, log_det = exercises()["13.2"].answer(lu.permutation, lu.lower, lu.upper, lu.sign * lu.log_scale.exp())
        by_hand, package = exercises()["13.1"].answer(W, x), layer(x)
    torch.testing.assert_close(by_hand[0], package[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_hand[1], package[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_det * 15, package[1][0], rtol=1e-4, atol=1e-5)
    assert torch.allclose(LULinear(3, rotate=False).permutation, torch.eye(3))

    rows = torch.randn(7, 3, generator=g) * 4 + 1
    one, zero = torch.ones(3), torch.zeros(3)
    for ours, theirs in zip(exercises()["13.3"].answer(rows, one, zero, 1e-5), BatchNorm(3)(rows), strict=True):
        torch.testing.assert_close(ours, theirs)
    norm = ActNorm(3)
    with starting(norm):
        norm(rows)
    for ours, theirs in zip(exercises()["13.4"].answer(rows), (norm.log_scale, norm.shift), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
