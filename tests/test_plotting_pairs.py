"""Pairs of columns: what is drawn where is right, and looking changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, Tensor

import flowlab
from flowlab import flow_for
from flowlab.bijections import ScaleShift
from flowlab.densities import StandardNormal
from flowlab.plotting import pairs
from flowlab.plotting.words import describe


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def table(n: int = 300) -> pd.DataFrame:
    return pd.DataFrame(normal(n, 3).numpy() * [1, 10, 100] + [0, 1000, 1.7e9], columns=["a", "b", "c"])


def grid(figure, side):
    assert len(figure.axes) == side**2
    return np.array(figure.axes).reshape(side, side)


def test_data_below_samples_above_and_margins_on_the_diagonal():
    x = table()
    flow = flowlab.flow_for(x)
    panels = grid(pairs(flow, x), 3)
    below, above = panels[2, 1].collections[0], panels[1, 2].collections[0]
    found = {tuple(point) for point in below.get_offsets().data}
    assert found == {tuple(row) for row in x[["b", "c"]].to_numpy()}, "all data: b to the right, c upward"
    samples = np.asarray(above.get_offsets())
    assert len(samples) == 1000 and not found & {tuple(row[::-1]) for row in samples}
    assert np.abs(samples.mean(0) - [1.7e9, 1000]).max() < 20, "c to the right, b upward"
    assert not np.array_equal(below.get_facecolor(), above.get_facecolor())
    assert not np.array_equal(below.get_paths()[0].vertices, above.get_paths()[0].vertices), "markers beside colors"
    for i in range(3):
        assert panels[2, i].get_xlabel() == panels[i, 0].get_ylabel() == "abc"[i]
        assert panels[0, i].get_xlim() == panels[2, i].get_xlim() == panels[i, i].get_xlim()


def test_a_margin_is_the_models_density():
    x = 3 * normal(2000, 2) + 50
    model = flowlab.Flow(ScaleShift(2), StandardNormal(2))
    model.bijection.log_scale.data.fill_(-np.log(2.0))  # N(10, 2²), which the data are not
    model.bijection.shift.data.fill_(-5.0)
    line = grid(pairs(model, 2 * normal(2000, 2, seed=1) + 10), 2)[0, 0].lines[0]
    at, p = line.get_data()
    exact = np.exp(-0.5 * ((at - 10) / 2) ** 2) / (2 * np.sqrt(2 * np.pi))
    assert np.abs(p - exact).max() < 0.01
    axes = grid(pairs(model, x), 2)[0, 0]
    bars = axes.patches
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1, abs=0.02)
    assert max(bar.get_x() + bar.get_width() for bar in bars) > 55 and max(axes.lines[0].get_ydata()) < 1e-3


@pytest.mark.slow
def test_eight_columns_or_those_that_are_chosen():
    x = pd.DataFrame(normal(60, 10).numpy(), columns=list("abcdefghij"))
    flow = flowlab.flow_for(x)
    figure = pairs(flow, x)
    assert [axes.get_xlabel() for axes in grid(figure, 8)[-1]] == list("abcdefgh")
    assert "first 8 of 10 columns" in figure.get_suptitle().replace("\n", " ") and "columns=['i', 'j']" in describe(
        figure
    )
    chosen = pairs(flow, x, columns=["j", 0, -2])
    assert [axes.get_xlabel() for axes in grid(chosen, 3)[-1]] == ["j", "a", "i"]
    assert "first" not in chosen.get_suptitle()
    for wrong in ("k", 10, 1.5):
        with pytest.raises(ValueError, match="columns among 'a', "):
            pairs(flow, x, columns=[wrong])
    with pytest.raises(ValueError, match="at least one column"):
        pairs(flow, x, columns=[])


def test_arrays_have_numbered_columns_and_one_column_is_a_margin():
    flow = flowlab.flow_for(normal(50, 1))
    assert grid(pairs(flow, normal(50, 1)), 1)[0, 0].get_xlabel() == "column 0"
    named = flowlab.flow_for(table()[["a", "b"]])
    assert grid(pairs(named, normal(50, 2)), 2)[1, 0].get_xlabel() == "a"


def test_samples_are_for_the_contexts_of_the_rows():
    c = (normal(400) > 0).double()
    x = torch.stack((normal(400, seed=1) + 100 * c, normal(400, seed=2)), 1)
    flow = flowlab.flow_for(x, context=c)
    samples = np.asarray(grid(pairs(flow, x, context=c), 2)[0, 1].collections[0].get_offsets())
    assert np.mean(samples[:, 1] > 50) == pytest.approx(float(c.mean()), abs=0.06)
    with pytest.raises(ValueError, match="expected context="):
        pairs(flow, x)
    with pytest.raises(ValueError, match="a context for each of 400 rows"):
        pairs(flow, x, context=c[:9])


def test_looking_is_not_training():
    x = normal(50, 2).float()
    flow, state = flowlab.realnvp(2, 2), torch.get_rng_state()
    pairs(flow, x)
    assert flow.training and not flow.bijection[0].initialized and torch.equal(state, torch.get_rng_state())


def test_a_value_far_off_does_not_squeeze_the_rest():
    x = normal(500, 2)
    x[7, 0] = 1e6
    axes = grid(pairs(flowlab.flow_for(x), x), 2)
    assert axes[1, 0].get_xlim()[1] < 20
    constant = torch.cat((x[:, 1:], torch.ones(500, 1)), 1)
    low, high = grid(pairs(flowlab.flow_for(constant), constant), 2)[1, 1].get_xlim()
    assert low < 1 < high


def test_letters_can_be_read():
    figure = pairs(flowlab.flow_for(table()), table())
    figure.draw_without_rendering()
    texts = [
        text for axes in figure.axes for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label)
    ]
    least = min(text.get_fontsize() for text in texts if text.get_text() and text.get_visible())
    assert least * figure.dpi / 72 >= 11, "pixels"


def test_what_cannot_be_drawn_has_a_sentence():
    with pytest.raises(ValueError, match="data of 2 columns, as the model has, but got 3"):
        pairs(flowlab.realnvp(2), normal(9, 3))
    with pytest.raises(TypeError, match="read the file first"):
        pairs(flowlab.realnvp(2), "my.csv")


@pytest.mark.parametrize("columns", ("a", "ab", 1))
def test_one_column_is_given_in_a_list_too(columns):
    with pytest.raises(TypeError, match=rf"pairs expected columns as a list, \[{columns!r}\], but got {columns!r}"):
        pairs(flow_for(torch.eye(5)[:, :2]), torch.eye(5)[:, :2], columns=columns)


@pytest.mark.parametrize("model", (3, None, [1.0, 2.0]))
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError, match="Expected a model first, such as a flow, and then data, but got a"):
        pairs(model, torch.eye(5)[:, :2])
