"""The areas in change_of_variables_2d are measured without a determinant; each known wrong answer meets its hint."""

import math

import numpy as np
import pytest
import torch

from flowlab.lessons.change_of_variables_2d import exercises as lesson
from flowlab.lessons.change_of_variables_2d import toys
from flowlab.lessons.change_of_variables_2d.explorer import DeterminantAsArea, MagnifiedCell
from flowlab.lessons.change_of_variables_2d.figures import CellUnderMap, SquareUnderMatrix
from flowlab.lessons.change_of_variables_2d.toys import PLANAR_MAPS, signed_area
from flowlab.plotting.plane import jacobians

# Pictures and explorers


SHAPES = [(1.5, 0.3, 0.4, 1.2), (-1.2, 0.4, 0.4, 1.2), (2.0, -2.0, 1.0, 0.5)]


@pytest.mark.parametrize("columns", SHAPES)
def test_a_shear_keeps_the_area_and_the_area_is_the_determinant(columns):
    picture = SquareUnderMatrix()
    areas = []
    for shear in (-1.0, 0.0, 0.35, 1.0):
        numbers = picture.update(*columns, shear)
        areas.append(numbers["area of the parallelogram"])
        assert numbers["area of the parallelogram"] == pytest.approx(abs(numbers["det A"]))
        assert numbers["orientation"] == ("mirrored" if numbers["det A"] < 0 else "not mirrored")
    assert areas == pytest.approx([areas[0]] * 4)


def test_a_collapsed_square_says_so():
    numbers = SquareUnderMatrix().update(1.0, 0.5, 2.0, 1.0, 0.3)
    assert numbers["orientation"].startswith("collapsed") and numbers["log |det A|"] == -np.inf


@pytest.mark.parametrize("name", PLANAR_MAPS)
def test_the_area_of_a_cell_s_image_is_the_mean_determinant(name):
    picture = CellUnderMap()
    for h, tolerance in ((0.8, 1e-3), (0.05, 1e-5)):
        numbers = picture.update(name, 0.6, -0.2, 0.5, h)
        ratio, mean = numbers["area of its image / h²"], numbers["mean |det J| over the cell"]
        assert ratio == pytest.approx(mean, rel=tolerance)
    assert ratio == pytest.approx(numbers["|det J| at its center"], rel=2e-3)


@pytest.mark.parametrize("name", PLANAR_MAPS)
def test_strength_zero_is_the_identity_and_a_curved_shear_keeps_areas(name):
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(PLANAR_MAPS[name].value(x, 0.0), x)
    if name == "curved shear":
        det = jacobians(lambda x: PLANAR_MAPS[name].value(x, 0.9), x).det()
        assert torch.allclose(det, torch.ones_like(det))


def test_signed_area_turns_with_the_orientation():
    square = np.array([[5.0, 5.0], [5.01, 5.0], [5.01, 5.01], [5.0, 5.01]])
    assert signed_area(square) == pytest.approx(1e-4)
    assert signed_area(square[::-1]) == pytest.approx(-1e-4)


def drag(explorer, axes, *places):
    """Press at the first place, in the data of the axes, move over the others, and let go at the last."""
    picture = explorer.picture
    width, height = picture.canvas.get_width_height()
    for count, place in enumerate([*places, places[-1]]):
        pixel = axes.transData.transform(place)
        kind = "down" if count == 0 else "up" if count == len(places) else "move"
        explorer.view.pointer = {"kind": kind, "x": pixel[0] / width, "y": 1 - pixel[1] / height, "count": count + 1}
    assert explorer.errors == []


def test_a_column_follows_the_pointer_even_while_sheared():
    explorer = DeterminantAsArea()
    explorer.set(shear=0.5)
    drag(explorer, explorer.picture.right, (1.15, 1.35), (0.0, 1.0), (-0.5, 1.5))
    values = explorer.values()
    assert values["a12"] + 0.5 * values["a11"] == pytest.approx(-0.5, abs=0.02)
    assert values["a22"] + 0.5 * values["a21"] == pytest.approx(1.5, abs=0.02)
    drag(explorer, explorer.picture.right, (1.5, 0.3), (2.0, -1.0))
    assert explorer.values()["a11"] == pytest.approx(2.0) and explorer.values()["a21"] == pytest.approx(-1.0)


def test_the_diamond_moves_the_shear_alone_and_no_area():
    explorer = DeterminantAsArea()
    before, area = explorer.values(), explorer.numbers["area of the parallelogram"]
    drag(explorer, explorer.picture.right, (1.15, 1.35), (1.9, 2.0), (1.9, 1.5))
    after = explorer.values()
    assert after.pop("shear") == pytest.approx(0.5, abs=0.02) and before.pop("shear") == 0
    assert after == before
    assert explorer.numbers["area of the parallelogram"] == pytest.approx(area)


def test_a_click_moves_the_cell():
    explorer = MagnifiedCell()
    drag(explorer, explorer.picture.left, (-1.0, 1.2))
    assert explorer.values()["x1"] == pytest.approx(-1.0, abs=0.01)
    assert explorer.values()["x2"] == pytest.approx(1.2, abs=0.01)
    drag(explorer, explorer.picture.right, (0.0, 0.0))
    assert explorer.values()["x1"] == pytest.approx(-1.0, abs=0.01)


# Exercises


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


def triangular(scale=lambda before: before.sin(), shift=lambda before: before**2, det=lambda s: s.sum(-1)):
    """An answer to exercise 2: each coordinate scaled and shifted by what stands before it."""

    def answer(x):
        before = x.cumsum(-1) - x
        s = scale(before)
        return x * s.exp() + shift(before), det(s)

    return answer


def row_by_row(x):
    """Autoregressive, in a plain loop, each step in an exponential of its own."""
    columns, log_det = [x[:, 0] ** 3 + x[:, 0]], (3 * x[:, 0] ** 2 + 1).log()
    for i in range(1, x.shape[1]):
        s = x[:, :i].mean(1).cos()
        columns.append(x[:, i] * s.exp())
        log_det = log_det + s
    return torch.stack(columns, 1), log_det


def by_slogdet(x):
    z, _ = triangular()(x)
    J = torch.func.vmap(torch.func.jacrev(lambda v: triangular()(v[None])[0][0]))(x)
    return z, torch.linalg.slogdet(J).logabsdet


LOG_2PI = math.log(TWO_PI)


def draw(combine=lambda base, logs, z, x: base - sum(logs), order=reversed, way="inverse", constant=LOG_2PI):
    """An answer to exercise 5: the order of the maps, their direction, and what is made of their log-dets."""

    def answer(maps, z):
        x, logs = z, [0 * z[:, 0]]
        for f in order(maps):
            x, log_det = getattr(f, way)(x)
            logs.append(log_det)
        return x, combine(-0.5 * z.square().sum(-1) - constant, logs, z, x)

    return answer


def draw_backward(maps, z):
    """Sample first, then score the samples by the forward direction."""
    x, log_p = z, -0.5 * z.square().sum(-1) - 1.8379
    for f in maps[::-1]:
        x, _ = f.inverse(x)
    there = x
    for f in maps:
        there, log_det = f.forward(there)
        log_p = log_p + log_det
    return x, log_p


def everywhere_at_z(maps, z):
    return draw()(maps, z)[0], log_standard(z) - sum((f.inverse(z)[1] for f in maps), 0 * z[:, 0])


def log_standard(z):
    return -0.5 * z.square().sum(-1) - math.log(TWO_PI)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda m, C: (C, m), "the covariance itself"),
    (1, lambda m, C: (C.sqrt(), m), "root of each entry"),
    (1, lambda m, C: (cholesky(C).mT, m), "Transpose your A"),
    (1, lambda m, C: (torch.linalg.inv(cholesky(C)), m), "the way back"),
    (1, lambda m, C: (torch.eye(len(m)), m), "Compare your A Aᵀ"),
    (1, lambda m, C: (cholesky(C), torch.zeros_like(m)), "+ b got lost"),
    (1, lambda m, C: (cholesky(C), cholesky(C) @ m), "b is A @ mean"),
    (1, lambda m, C: (cholesky(C), -m), "A·0 + b"),
    (1, lambda m, C: cholesky(C), "Return two things"),
    (1, lambda m, C: (cholesky(C), m[:1]), "Expected b as shape"),
    (2, lambda x: 2 * x, "Return two things"),
    (2, lambda x: (2 * x, torch.full((len(x),), x.shape[1] * math.log(2))), "Let it bend"),
    (2, lambda x: (x.sinh(), x.cosh().log().sum(-1)), "may depend on all of them"),
    (2, triangular(lambda before: 0 * before), "the same at every point"),
    (2, triangular(det=lambda s: -s.sum(-1)), "sign of your log_det is turned"),
    (2, triangular(det=lambda s: s.exp().prod(-1)), "That is |det J| itself"),
    (2, triangular(det=lambda s: 0 * s[:, 0]), "but your map changes areas"),
    (2, triangular(det=lambda s: 2 * s.sum(-1)), "add log |∂z_i/∂x_i|"),
    (2, triangular(det=lambda s: s), "Expected log_det as shape"),
    (2, lambda x: (x**2 + x.cumsum(-1) - x, (2 * x).abs().log().sum(-1)), "so your map folds"),
    (2, by_slogdet, "longer than a second"),
    (2, lambda x: tuple(v.detach().numpy() for v in triangular()(x)), "Return tensors here"),
    (3, lambda a, b, t: log_normal(a, b, t) - 2 * math.log(t.scale), "plain rotation"),
    (3, log_normal, "density of the features"),
    (3, lambda a, b, t: log_normal(a, b, t) + (t.scale**2 * (1 - bend(a, b, t))).abs().log(), "wrong sign"),
    (3, lambda a, b, t: log_normal(a, b, t) - (1 - bend(a, b, t)).abs().log(), "off by the same number"),
    (3, lambda a, b, t: log_normal(a, b, t) - (t.scale * (1 - bend(a, b, t))).abs().log(), "Both axes"),
    (3, lambda a, b, t: log_normal(a, b, t) - (t.scale**2 * (1 + bend(a, b, t))).abs().log(), "other way"),
    (
        3,
        lambda a, b, t: -0.5 * (a**2 + b**2) - math.log(TWO_PI) - (t.scale**2 * (1 - bend(a, b, t))).abs().log(),
        "not standard normal",
    ),
    (3, lambda a, b, t: log_normal(a, b, t) - (t.scale**2 * (1 - bend(a, b, t))).log(), "absolute value"),
    (3, lambda a, b, t: lesson.wing_log_prob(a, b, t).exp(), "p(x) itself"),
    (3, lambda a, b, t: log_normal(a, b, t) - a, "torch.func.jacrev"),
    (4, lambda f, e=12.0, n=600: grid(f, e, n).sum() * (2 * e / n) ** 2, "came out negative"),
    (4, lambda f, e=12.0, n=600: grid(f, e, n).exp().mean(), "mean of p over the square"),
    (4, lambda f, e=12.0, n=600: grid(f, e, n).exp().mean() * e**2, "A quarter"),
    (4, lambda f, e=12.0, n=600: grid(f, e, n).exp().sum(), "sum of p at the points"),
    (4, lambda f, e=12.0, n=600: grid(f, e, n).exp().sum() * 2 * e / n, "side of a cell once"),
    (4, lambda f, e=12.0, n=600: grid(f, e, n).exp().mean() * 2 * e, "side of the square once"),
    (4, lambda f, e=12.0, n=600: torch.softmax(grid(f, e, n), 0).sum(), "do not normalize"),
    (4, lambda f, e=12.0, n=600: 3.0, "came out with mass 3"),
    (4, lambda f, e=12.0, n=600: grid(f, e, n).exp(), "one number"),
    (5, draw(order=iter), "undone last"),
    (5, draw(way="forward", order=iter), "Samples go the other way"),
    (5, draw(order=lambda maps: list(maps)[-1:]), "The samples are not right yet"),
    (5, draw(lambda base, logs, z, x: base + sum(logs)), "the density falls"),
    (5, draw(lambda base, logs, z, x: base), "no map is in it yet"),
    (5, everywhere_at_z, "Each acts where the one before it has led"),
    (5, draw(lambda base, logs, z, x: -sum(logs)), "The base is missing"),
    (5, draw(lambda base, logs, z, x: log_standard(x) - sum(logs)), "The base is the density of z"),
    (5, draw(constant=0.0), "The constant of N(0, I)"),
    (5, draw(lambda base, logs, z, x: (base - sum(logs)).exp()), "This is p(x) itself"),
    (5, draw(lambda base, logs, z, x: base - 2 * sum(logs)), "which sign has log |det|"),
    (5, draw(lambda base, logs, z, x: (base - sum(logs)).sum()), "Expected log p as shape"),
    (5, lambda maps, z: draw()(maps, z)[0], "Return two things"),
    (5, lambda maps, z: draw()(maps, z) if maps else (0 * z, 0 * z[:, 0]), "With no map at all"),
]


RIGHT = [
    (1, lambda m, C: (cholesky(C) @ torch.linalg.qr(torch.ones(len(m), len(m)).triu().double()).Q, m)),
    (1, lambda m, C: (_symmetric_root(C), m)),
    (1, lambda m, C: (np.linalg.cholesky(np.asarray(C)), np.asarray(m))),
    (1, lambda m, C: (cholesky(C).tolist(), m[:, None].tolist())),
    (2, triangular()),
    (2, triangular(shift=lambda before: 0 * before)),
    (2, row_by_row),
    (2, lambda x: (row_by_row(x)[0] + 1, row_by_row(x)[1])),
    (3, lambda a, b, t: log_normal(a, b, t) - 2 * math.log(t.scale) - (1 - bend(a, b, t)).abs().log()),
    (4, lambda f, e=12.0, n=600: grid(f, e, n).exp().mean() * (2 * e) ** 2),
    (
        3,
        lambda a, b, t: (
            log_normal(a, b, t) - torch.tensor([math.log(t.scale**2 * abs(1 - float(v))) for v in bend(a, b, t)])
        ),
    ),
    (4, lambda f, e=12.0, n=600: np.sum(np.exp(np.asarray(grid(f, e, n)))) * (2 * e / (n - 1)) ** 2),
    (5, draw()),
    (5, draw_backward),
    (5, lambda maps, z: [v.numpy() for v in draw()(maps, z)]),
]


def _symmetric_root(covariance):
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.sqrt()) @ vectors.mT


def test_the_museum_holds_one_sound_density():
    masses = {name: float(lesson.total_mass(f)) for name, f in toys.museum().items()}
    assert masses["A"] == pytest.approx(1 / 16, rel=1e-3)
    assert masses["B"] == pytest.approx(1.151, abs=1e-3)
    assert masses["C"] == pytest.approx(1, abs=1e-4)
    assert masses["D"] == pytest.approx(4, rel=1e-3)
