"""Each known wrong answer of notebook 02 meets its own hint, and no other's."""

import math

import pytest
import torch

from flowlab.lessons.change_of_variables_2d import exercises as notebook_02

TWO_PI = 2 * math.pi


def log_normal(a, b, toy):
    u, v = (a - 1) / toy.radial_std, b / toy.tangential_std
    return -0.5 * (u**2 + v**2) - math.log(TWO_PI * toy.radial_std * toy.tangential_std)


def bend(a, b, toy):
    return toy.rate * a.exp() * b


def grid(log_prob, extent, size):
    line = torch.linspace(-extent, extent, size)
    return log_prob(torch.cartesian_prod(line, line))


def cholesky(covariance):
    return torch.linalg.cholesky(covariance)


def turn(stretch):
    return torch.tensor([[math.cos(stretch), -math.sin(stretch)], [math.sin(stretch), math.cos(stretch)]])


def chain(combine, order=lambda maps: maps):
    """An answer to 02.5: how the log-dets of the maps, each at its own point, are put together."""

    def answer(maps, x):
        logs = []
        for f in order(maps):
            x, log_det = f(x)
            logs.append(log_det)
        return combine(logs)

    return answer


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("02.1", lambda m, C: (C, m), "the covariance itself"),
    ("02.1", lambda m, C: (C.sqrt(), m), "root of each entry"),
    ("02.1", lambda m, C: (cholesky(C).mT, m), "Transpose your A"),
    ("02.1", lambda m, C: (torch.linalg.inv(cholesky(C)), m), "the way back"),
    ("02.1", lambda m, C: (torch.eye(len(m)), m), "Compare your A Aᵀ"),
    ("02.1", lambda m, C: (cholesky(C), torch.zeros_like(m)), "+ b got lost"),
    ("02.1", lambda m, C: (cholesky(C), cholesky(C) @ m), "b is A @ mean"),
    ("02.1", lambda m, C: (cholesky(C), -m), "A·0 + b"),
    ("02.1", lambda m, C: cholesky(C), "Return two things"),
    ("02.1", lambda m, C: (cholesky(C), m[None]), "Expected b as shape"),
    ("02.2", turn, "orthogonal"),
    ("02.2", lambda s: torch.tensor([[1.0, 0.0], [0.0, s]]), "so is the area"),
    ("02.2", lambda s: torch.tensor([[1 / s, 0.0], [0.0, s]]), "(1, 0) moved"),
    ("02.2", lambda s: torch.tensor([[1.0, 0.0], [math.sqrt(s**2 - 1), 1.0]]), "(1, 0) moved"),
    ("02.2", lambda s: torch.tensor([[s, 0.0], [0.0, s]]), "(1, 0) has to stay"),
    ("02.2", lambda s: torch.tensor([[1.0, s], [0.0, 2.0]]), "at the lower right"),
    ("02.2", lambda s: torch.tensor([[1.0, s], [0.0, 1.0]]), "Solve for k"),
    ("02.2", lambda s: torch.tensor([[1.0, s - 1], [0.0, 1.0]]), "Which theorem"),
    ("02.2", lambda s: torch.tensor([1.0, s]), "Expected the matrix as shape"),
    ("02.3", lambda a, b, t: log_normal(a, b, t) - 2 * math.log(t.scale), "plain rotation"),
    ("02.3", log_normal, "density of the features"),
    ("02.3", lambda a, b, t: log_normal(a, b, t) + (t.scale**2 * (1 - bend(a, b, t))).abs().log(), "wrong sign"),
    ("02.3", lambda a, b, t: log_normal(a, b, t) - (1 - bend(a, b, t)).abs().log(), "off by the same number"),
    ("02.3", lambda a, b, t: log_normal(a, b, t) - (t.scale * (1 - bend(a, b, t))).abs().log(), "Both axes"),
    ("02.3", lambda a, b, t: log_normal(a, b, t) - (t.scale**2 * (1 + bend(a, b, t))).abs().log(), "other way"),
    (
        "02.3",
        lambda a, b, t: -0.5 * (a**2 + b**2) - math.log(TWO_PI) - (t.scale**2 * (1 - bend(a, b, t))).abs().log(),
        "not standard normal",
    ),
    ("02.3", lambda a, b, t: log_normal(a, b, t) - (t.scale**2 * (1 - bend(a, b, t))).log(), "absolute value"),
    ("02.3", lambda a, b, t: notebook_02.wing_log_prob(a, b, t).exp(), "p(x) itself"),
    ("02.3", lambda a, b, t: log_normal(a, b, t) - a, "torch.func.jacrev"),
    ("02.4", lambda f, e=12.0, n=600: grid(f, e, n).sum() * (2 * e / n) ** 2, "came out negative"),
    ("02.4", lambda f, e=12.0, n=600: grid(f, e, n).exp().mean(), "mean of p over the square"),
    ("02.4", lambda f, e=12.0, n=600: grid(f, e, n).exp().mean() * e**2, "A quarter"),
    ("02.4", lambda f, e=12.0, n=600: grid(f, e, n).exp().sum(), "sum of p at the points"),
    ("02.4", lambda f, e=12.0, n=600: grid(f, e, n).exp().sum() * 2 * e / n, "side of a cell once"),
    ("02.4", lambda f, e=12.0, n=600: grid(f, e, n).exp().mean() * 2 * e, "side of the square once"),
    ("02.4", lambda f, e=12.0, n=600: torch.softmax(grid(f, e, n), 0).sum(), "do not normalize"),
    ("02.4", lambda f, e=12.0, n=600: 3.0, "came out with mass 3"),
    ("02.4", lambda f, e=12.0, n=600: grid(f, e, n).exp(), "one number"),
    ("02.5", lambda maps, x: sum((f(x)[1] for f in maps), 0 * x[:, 0]), "Each acts where the one before it has led"),
    ("02.5", chain(lambda logs: logs[-1]), "the last map's alone"),
    ("02.5", chain(lambda logs: sum(logs) / len(logs)), "the mean of the log-determinants"),
    ("02.5", chain(math.prod), "Determinants multiply"),
    ("02.5", chain(lambda logs: sum(logs).exp()), "the determinant itself"),
    ("02.5", chain(lambda logs: -sum(logs)), "The sign is turned"),
    ("02.5", chain(lambda logs: sum(logs), order=reversed), "from the last to the first"),
    ("02.5", chain(lambda logs: sum(logs).sum()), "one number for each of the 6 points"),
    ("02.5", chain(lambda logs: sum(logs) + 1), "Carry two things along"),
    ("02.5", chain(lambda logs: sum(logs) if logs else 1.0), "With no map at all"),
]


RIGHT = [
    ("02.1", lambda m, C: (cholesky(C) @ torch.linalg.qr(torch.ones(len(m), len(m)).triu().double()).Q, m)),
    ("02.1", lambda m, C: (_symmetric_root(C), m)),
    ("02.2", lambda s: [[1.0, -math.sqrt(s**2 - 1)], [0.0, 1.0]]),
    ("02.3", lambda a, b, t: log_normal(a, b, t) - 2 * math.log(t.scale) - (1 - bend(a, b, t)).abs().log()),
    ("02.4", lambda f, e=12.0, n=600: grid(f, e, n).exp().mean() * (2 * e) ** 2),
    ("02.5", chain(lambda logs: torch.stack(logs).sum(0) if logs else 0.0)),
]


def _symmetric_root(covariance):
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.sqrt()) @ vectors.mT


def test_the_museum_holds_one_sound_density():
    masses = {name: float(notebook_02.total_mass(f)) for name, f in notebook_02.museum().items()}
    assert masses["A"] == pytest.approx(1 / 16, rel=1e-3)
    assert masses["B"] == pytest.approx(1.151, abs=1e-3)
    assert masses["C"] == pytest.approx(1, abs=1e-4)
    assert masses["D"] == pytest.approx(4, rel=1e-3)
