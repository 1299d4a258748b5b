"""What a canvas is told to draw: the same marks, at the same pixels, in the same colors as in the still picture."""

import io

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from PIL import Image

from flowlab.lessons.base.picture import Picture


class Sheet(Picture):
    """Axes over the whole figure: x from 0 to 200 pixels, y from 0 to 100 upward."""

    def __init__(self):
        super().__init__(2.0, 1.0, dpi=100)
        self.figure.set_layout_engine("none")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, 200), ylim=(0, 100))
        self.axes.axis("off")

    def record(self, *artists):
        """Steps, and for each its numbers as rows of its outline and of its places."""
        self.moves(*artists)
        scene, at, rows = self.scene(), 0, []
        numbers = np.frombuffer(scene["numbers"], np.float32)
        for step in scene["steps"]:
            corners, places = 3 * step.get("count", 0), 2 * step.get("places", 0)
            outline, spots = np.split(numbers[at : at + corners + places], [corners])
            rows.append((outline.reshape(-1, 3), spots.reshape(-1, 2)))
            at += corners + places
        assert at == len(numbers)
        return scene["steps"], rows, scene["images"]


def test_a_line_keeps_its_gap_its_color_and_its_width():
    sheet = Sheet()
    line = sheet.axes.plot([10, 50, np.nan, 90, 130], [20, 80, 0, 10, 70], color="#D55E00", lw=2, ls="--", alpha=0.5)
    [step], [(outline, _)], _ = sheet.record(*line)
    assert step["edge"] == "#d55e0080" and step["width"] == pytest.approx(2 * 100 / 72) and len(step["dash"]) == 2
    assert "face" not in step and step["clip"] == pytest.approx([0, 0, 200, 100])
    pen = outline[np.isin(outline[:, 2], (1, 2))]
    np.testing.assert_allclose(pen, [[10, 80, 1], [50, 20, 2], [90, 90, 1], [130, 30, 2]], atol=1e-3)


def test_markers_come_as_one_shape_and_its_places():
    sheet = Sheet()
    dots = sheet.axes.plot([10, 30.4], [20, 60], "s", ms=7.2, color="#0072B2", mec="black")
    [step], [(outline, places)], _ = sheet.record(*dots)
    assert step["face"] == "#0072b2ff" and step["edge"] == "#000000ff"
    np.testing.assert_array_equal(places, [[10, 80], [30, 40]])
    assert np.ptp(outline[:4, :2], axis=0) == pytest.approx([10, 10])


def test_points_of_many_colors_are_one_step():
    sheet = Sheet()
    colors = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    spots = sheet.axes.scatter([10, 20, 30], [20, np.nan, 60], s=36, c=colors, alpha=0.5, linewidths=0)
    [step], [(_, places)], _ = sheet.record(spots)
    assert step["faces"] == ["#ff000080", "#0000ff80"] and "edge" not in step
    np.testing.assert_array_equal(places, [[10, 80], [30, 40]])


def test_each_line_of_a_collection_is_a_step():
    sheet = Sheet()
    lines = sheet.axes.add_collection(LineCollection([[(0, 0), (50, 50)], [(10, 0), (60, 50)]], colors=["r", "b"]))
    steps, rows, _ = sheet.record(lines)
    assert [step["edge"] for step in steps] == ["#ff0000ff", "#0000ffff"]
    np.testing.assert_allclose(rows[1][0][:2, :2], [[10, 100], [60, 50]], atol=1e-3)


def test_letters_are_outlines_where_the_text_stands():
    sheet = Sheet()
    [step], [(outline, _)], _ = sheet.record(sheet.axes.text(100, 50, "nats", color="#009E73", ha="center"))
    assert step["face"] == "#009e73ff" and "edge" not in step
    pen = outline[np.isin(outline[:, 2], (1, 2)), :2]
    assert pen.mean(0) == pytest.approx([100, 45], abs=8) and 20 < np.ptp(pen[:, 0]) < 60


@pytest.mark.parametrize("interpolation", ("none", "nearest"))
def test_an_image_keeps_its_place_and_its_side_up(interpolation):
    sheet = Sheet()
    values = np.array([[0.0, 1.0], [1.0, 1.0]])  # dark only at the first row's start, which is at the bottom
    image = sheet.axes.imshow(
        values, "gray", extent=(20, 60, 10, 50), origin="lower", interpolation=interpolation, aspect="auto"
    )
    [step], _, [sent] = sheet.record(image)
    width, height = step["size"]
    pixels = np.frombuffer(sent, np.uint8).reshape(height, width, 4)[:, :, 0]
    a, b, c, d, e, f = step["matrix"]
    rows, columns = np.nonzero(pixels < 128)
    x, y = columns.mean() + 0.5, rows.mean() + 0.5
    assert (a * x + c * y + e, b * x + d * y + f) == pytest.approx((30, 80), abs=1)
    assert (interpolation == "none") == (pixels.shape == (2, 2))


@pytest.mark.parametrize(("columns", "small"), [(300, True), (400, False)])  # 24 rows, 4 bytes a pixel: 32 KB between
def test_a_small_image_travels_as_its_pixels_and_a_large_one_as_a_png(columns, small):
    sheet = Sheet()
    values = np.linspace(0, 1, 24 * columns).reshape(24, columns)
    image = sheet.axes.imshow(values, interpolation="none", origin="lower", extent=(0, 200, 0, 100))
    [step], _, [sent] = sheet.record(image)
    if small:
        assert step["size"] == (columns, 24)
        got = np.frombuffer(sent, np.uint8).reshape(24, columns, 4)
    else:
        assert "size" not in step
        got = np.asarray(Image.open(io.BytesIO(sent)))
    np.testing.assert_allclose(got.astype(int), image.to_rgba(values, bytes=True), atol=3)  # a color of the map


def test_the_background_holds_what_stands_still_and_is_made_anew_only_when_told():
    sheet = Sheet()
    sheet.axes.plot([0, 200], [50, 50], color="#000000", lw=4)
    sheet.moves(*sheet.axes.plot([100, 100], [0, 100], color="#ff0000", lw=4))
    background = sheet.background()
    assert sheet.background() is background
    assert [step["edge"] for step in background["steps"] if "edge" in step] == ["#000000ff"], "the moving one is not in"
    sheet.png()
    sheet.axes.lines[0].set_color("#0000ff")
    assert sheet.background() is background
    sheet.redraw_all()
    assert [step["edge"] for step in sheet.background()["steps"] if "edge" in step] == ["#0000ffff"]


def test_the_still_picture_can_leave_out_what_moves():
    sheet = Sheet()
    sheet.axes.plot([0, 200], [50, 50], color="black", lw=4)
    sheet.moves(*sheet.axes.plot([100, 100], [0, 100], color="red", lw=4))
    still, whole = (np.asarray(Image.open(io.BytesIO(sheet.png(moving=moving)))) for moving in (False, True))
    assert still[50, 40].max() < 50 and still[10, 100].min() > 250
    assert whole[50, 40].max() < 50 and whole[10, 100].tolist() == [255, 0, 0]


def test_what_a_canvas_cannot_draw_is_refused():
    sheet = Sheet()
    line = sheet.axes.plot([0, 200], [0, 100])[0]
    line.set_clip_path(Circle((100, 50), 20, transform=sheet.axes.transData))
    sheet.moves(line)
    with pytest.raises(NotImplementedError, match="clip it to a rectangle"):
        sheet.scene()


def test_a_layout_is_settled_once_and_a_change_costs_no_whole_drawing(monkeypatch):
    picture, drawn = Picture(3.0, 2.0), []
    axes = picture.figure.subplots()
    picture.moves(*axes.plot([0, 1], [0, 1]))
    draw = picture.canvas.draw
    monkeypatch.setattr(picture.canvas, "draw", lambda: drawn.append(1) or draw())
    for _ in range(3):
        picture.scene()
        picture.background()
        picture.redraw_all()
    assert len(drawn) == 1
