"""The explorers of notebook 02 tell the truth: areas measured without a determinant agree with the determinant."""

import numpy as np
import pytest
import torch

from flowlab.lessons.change_of_variables_2d.explorer import DeterminantAsArea, MagnifiedCell
from flowlab.lessons.change_of_variables_2d.figures import PLANAR_MAPS, CellUnderMap, SquareUnderMatrix, signed_area
from flowlab.plotting.plane import jacobians

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
