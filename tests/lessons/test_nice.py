"""Each known wrong answer of nice meets its own hint, and no other's."""

import math

import pytest
import torch

from flowlab.lessons.nice import exercises as lesson
from flowlab.lessons.nice import toys
from flowlab.lessons.nice.figures import AreaAndDependence, level_set
from flowlab.lessons.nice.toys import PATTERNS, SCALINGS, dependencies, masks
from flowlab.plotting.plane import plane


def sinh_layer(*, condition=0, log_det=None):
    """The right answer of exercise 1 with one thing changed."""

    def answer(x, m):
        x1, x2 = x.unbind(-1)
        u = torch.arcsinh(x2) + m(x.unbind(-1)[condition])
        right = u.cosh().log() - 0.5 * (1 + x2**2).log()
        return torch.stack((x1, u.sinh()), -1), right if log_det is None else log_det(x1, x2, u, right, m)

    return answer


def slope(m, x1):
    return torch.func.vmap(torch.func.grad(m))(x1)


def count(*, stop=None, inverted=False, backward=False, forgets=False):
    """The right answer of exercise 2 with one thing changed."""

    def answer(all_masks):
        D = len(all_masks[0])
        total = torch.eye(D)
        for number, mask in enumerate(all_masks, start=1):
            passes = torch.tensor(mask) ^ inverted
            keeps = torch.diag(passes) if forgets else torch.eye(D, dtype=torch.bool)
            layer = (keeps | (~passes[:, None] & passes)).float()
            total = ((total @ layer if backward else layer @ total) > 0).float()
            if total.bool().all():
                return number if stop is None else stop(number)
        return None

    return answer


def changed(all_masks):
    return next((n for n in range(1, len(all_masks) + 1) if not torch.tensor(all_masks[:n]).all(0).any()), None)


def level(c, det):
    return max(2 * math.log(det / (2 * math.pi * c)), 0)


def museum_answer(judge):
    """A verdict from what a student measured: round trip, log-dets against 0, each other and the Jacobian."""

    def answer(layer, x):
        z, log_det = layer.forward(x)
        back, log_det_back = layer.inverse(z)
        J = torch.func.vmap(torch.func.jacrev(lambda point: layer.forward(point)[0]))(x)
        return judge(x, back, log_det, log_det_back, torch.linalg.slogdet(J).logabsdet)

    return answer


def near(a, b):
    return torch.allclose(a, b, atol=1e-3)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda x, m: (torch.stack((x[:, 0], x[:, 1] + m(x[:, 0])), -1), 0 * x[:, 0]), "NICE's law"),
    (1, lambda x, m: tuple(v.flip(-1) if v.ndim == 2 else v for v in sinh_layer()(x.flip(-1), m)), "moves x₁"),
    (1, sinh_layer(condition=1), "You take m(x₂)"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: 0 * right), "Your log_det is 0"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: right + slope(m, x1).abs().log()), "counts the slope of m"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: slope(m, x1).abs().log()), "counts the slope of m"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: -right), "wrong sign"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: u.cosh().log()), "Half of the chain rule"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: right.exp()), "This is ∂z₂/∂x₂ itself"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: right.mean().expand(len(x1))), "the same for each sample"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: right + x1), "log_det is not yet"),
    (1, sinh_layer(log_det=lambda x1, x2, u, right, m: right.sum()), "Expected log_det as shape"),
    (1, lambda x, m: sinh_layer()(x, m)[0], "Return two things"),
    (1, lambda x, m: (x, x[:, 0]), "Your z is not"),
    (2, lambda all_masks: None, "You say never"),
    (2, count(forgets=True), "You say never"),
    (2, changed, "has been *changed*"),
    (2, count(inverted=True), "in reverse order"),
    (2, count(backward=True), "in reverse order"),
    (2, count(stop=lambda n: n - 1), "One too few"),
    (2, lambda all_masks: 2 if len(all_masks[0]) == 2 else 3, "in reverse order"),
    (2, lambda all_masks: 4, "by hand"),
    (2, lambda all_masks: count()(all_masks) or 3, "it never happens"),
    (2, lambda all_masks: "three", "or None, as numbers"),
    (2, lambda all_masks: 2.5, "Return a whole number"),
    (3, lambda c, S: math.pi * level(c, 1.0), "without S"),
    (3, lambda c, S: math.pi * level(c, S[0] * S[1]) * S[0] * S[1], "wrong way round"),
    (3, lambda c, S: math.pi * level(c, S[0] * S[1]), "the disc in z"),
    (3, lambda c, S: math.pi * level(c, 1.0) / (S[0] * S[1]), "moves the level too"),
    (3, lambda c, S: math.pi * math.sqrt(level(c, S[0] * S[1])) / (S[0] * S[1]), "*squared* radius"),
    (3, lambda c, S: math.pi * level(c, S[0] * S[1]) / (S[0] * S[1]) / 2, "Half of it"),
    (3, lambda c, S: level(c, S[0] * S[1]) / (S[0] * S[1]), "π is missing"),
    (
        3,
        lambda c, S: 2 * math.pi * math.log(S[0] * S[1] / (2 * math.pi * c)) / (S[0] * S[1]),
        "nowhere above c",
    ),
    (3, lambda c, S: 1.0, "Not yet"),
    (
        4,
        museum_answer(lambda x, back, f, b, J: "log_det" if f.any() else "sound" if near(back, x) else "inverse"),
        "Not every coupling keeps volume",
    ),
    (
        4,
        museum_answer(
            lambda x, back, f, b, J: "inverse" if (back != x).any() else "sound" if near(f, J) else "log_det"
        ),
        "not for equal",
    ),
    (
        4,
        museum_answer(
            lambda x, back, f, b, J: "inverse" if not near(back, x) else "sound" if near(f + b, 0 * f) else "log_det"
        ),
        "Only the Jacobian itself",
    ),
    (4, museum_answer(lambda x, back, f, b, J: "sound" if near(f, J) else "log_det"), "got past you: compare"),
    (4, museum_answer(lambda x, back, f, b, J: "sound" if near(back, x) else "log_det"), "You call it log_det"),
    (
        4,
        museum_answer(lambda x, back, f, b, J: "sound" if near(back, x) and near(f, J) else "inverse"),
        "You call it the inverse",
    ),
    (4, lambda layer, x: True, "Return"),
]


def exact_solution(layer, x):
    """Another way: the Jacobian by central differences in float64, at one point."""
    layer, h = layer.double(), 1e-5
    x = x[:3].double()
    if (layer.inverse(layer.forward(x)[0])[0] - x).abs().max() > 1e-6:
        return "inverse"
    I = torch.eye(x.shape[1], dtype=torch.float64)
    for point in x:
        J = torch.stack([(layer.forward(point + h * e)[0] - layer.forward(point - h * e)[0]) / (2 * h) for e in I], -1)
        if abs(float(layer.forward(point)[1] - torch.linalg.slogdet(J).logabsdet)) > 1e-4:
            return "log_det"
    return "sound"


RIGHT = [
    (1, lambda x, m: [v.clone() for v in sinh_layer()(x, m)]),
    (2, count()),
    (3, lambda c, S: torch.tensor(math.pi * level(c, float(S.prod())) / float(S.prod()))),
    (4, exact_solution),
]


def test_the_museum_piece_claims_more_than_probability_one():
    flow = toys.too_good().requires_grad_(False)
    for layer in flow.bijection:
        layer.conditioner.last.bias[:2] = 0.5
    x = torch.cartesian_prod(torch.linspace(-12, 12, 500), torch.linspace(-12, 12, 500))
    mass = float(flow.log_prob(x).exp().sum()) * (24 / 499) ** 2
    # Each layer counts one s too many, 2 tanh(0.5): the mass is e to the sum of them.
    assert math.log(mass) == pytest.approx(4 * 2 * math.tanh(0.5), abs=0.01)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("features", [2, 3, 5, 6])
def test_dependencies_are_those_of_the_worked_answer(pattern, features):
    several = masks(pattern, features, 5)
    depends = dependencies(several)
    full = [layer for layer in range(6) if depends[layer].all()]
    assert (full[0] if full else None) == lesson.layers_needed([mask.tolist() for mask in several])


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_area_in_the_explorer_is_that_of_the_worked_answer(scaling):
    picture = AreaAndDependence()
    for depth, seed in ((0, 0), (2, 3), (6, 5)):
        numbers = picture.update(
            depth=depth, pattern="even and odd in turn", strength=1.0, seed=seed, scaling=scaling, c=0.04
        )
        assert float(numbers["area after"]) == pytest.approx(lesson.area_above(0.04, SCALINGS[scaling]), abs=0.011)


def test_a_hole_does_not_count_as_area_and_an_open_outline_has_none():
    radius = plane(3.0, 121).norm(dim=-1)
    ring = -((radius - 1.5) ** 2)  # above -0.25 between the radii 1 and 2
    assert level_set(ring, -0.25, 3.0)[1] == pytest.approx(3 * math.pi, rel=0.002)
    assert math.isnan(level_set(plane(3.0, 121)[..., 0], 0.0, 3.0)[1])
