"""A figure's text alternative says what stands in it."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from flowlab.plotting.words import describe


def test_axes_curves_and_points_are_told():
    axes = Figure().subplots()
    axes.plot([0, 1, 2, 3], [1.0, 5.0, 0.5, 2.0], label="loss")
    axes.plot([0, 3], [0.25, 0.25], "--", label="floor")
    axes.plot([1, 1], [0, 5])
    axes.scatter(np.arange(7), np.arange(7), label="held out")
    axes.set(title="$J_1$ and\nmore", xlabel="step", ylabel="nats", xlim=(0, 3), ylim=(0, 5))
    assert describe(axes.figure) == (
        "J_1 and more; step from 0 to 3; nats from 0 to 5; loss: from 1 to 2, lowest 0.5 at 2, highest 5 at 1; "
        "floor: level at 0.25; 1 line without a name; 7 points, held out."
    )


def test_a_shading_is_strongest_where_its_largest_value_is():
    x, y = np.linspace(-2, 2, 41), np.linspace(-1, 3, 81)
    p = np.exp(-((x - 1) ** 2) - (y[:, None] - 2) ** 2)
    figure = Figure()
    mesh, lower, upper = figure.subplots(1, 3)
    mesh.pcolormesh(x, y, p)
    lower.imshow(p, origin="lower", extent=(-2.05, 2.05, -1.025, 3.025))
    upper.imshow(p[::-1], extent=(-2.05, 2.05, -1.025, 3.025))
    assert describe(figure).count("strongest near (1, 2)") == 3
    assert describe(figure).startswith("Panel 1 of 3: ")


def test_holes_and_colors_do_not_get_in_the_way():
    figure = Figure()
    left, middle, right = figure.subplots(1, 3)
    holed = np.arange(400.0).reshape(20, 20)
    holed[-1] = np.nan
    left.imshow(holed, extent=(0, 20, 20, 0))
    middle.pcolormesh(np.random.default_rng(0).random((4, 5, 3)))
    right.imshow(np.zeros((30, 30, 3)))
    words = describe(figure)
    assert "strongest near (20, 18)" in words or "strongest near (20, 19)" in words
    assert "a shading in several colors" in words and "an image of 30 by 30 pixels" in words


def test_bars_remarks_and_many_of_a_kind():
    axes = Figure().subplots()
    axes.bar([1, 2, 3], [2.0, 7.0, 1.0], label="counts")
    axes.text(0, 0, "here")
    for k in range(9):
        axes.plot([0, 1], [0, k + 1], label=f"seed {k}")
    words = describe(axes.figure)
    assert "3 bars, counts, the tallest 7 high" in words and "the remark 'here'" in words
    assert "seed 4: from 0 to 5" in words and "seed 5" not in words and "4 more named curves" in words


def test_an_author_who_says_it_better_is_heard():
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1], label="x")
    figure.set_label("A straight line")
    assert describe(figure) == "A straight line."


@pytest.mark.slow
def test_a_notebook_gets_picture_and_words():
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as Shell\n"
        "shell = Shell.instance()\n"
        "from flowlab import plotting\n"
        "from matplotlib.figure import Figure\n"
        "figure = Figure(); figure.subplots().plot([0, 1], [0, 2], label='a <b>')\n"
        "data, metadata = shell.display_formatter.format(figure)\n"
        "assert data['image/png'][:4] == b'\\x89PNG', data\n"
        "assert metadata['image/png']['alt'] == 'a <b>: from 0 to 2.', metadata\n"
        "assert 'alt=\"a &lt;b&gt;: from 0 to 2.\"' in data['text/html']\n"
        "assert data['text/plain'].startswith('<Figure')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
