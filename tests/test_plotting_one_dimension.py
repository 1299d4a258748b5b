"""The picture of notebook 01 against the package: its claim is what a Flow computes, and its bars keep their area."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from flowlab import Flow
from flowlab.bijections import Monotone, ScaleShift
from flowlab.densities import StandardLogistic, StandardNormal, StandardUniform
from flowlab.lessons.change_of_variables_1d.figures import BASES, MAPS, A, B, PushForward

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
