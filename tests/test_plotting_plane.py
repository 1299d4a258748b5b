"""Densities and grids in the plane: what is drawn is right, and looking changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator

import flowlab
from flowlab.bijections import BatchNorm, Chain, ScaleShift
from flowlab.densities import StandardNormal
from flowlab.plotting.plane import density, grid_lines, log_density, plane, warped_grid


def test_looking_is_not_training():
    x = 3 * torch.randn(1000, 2, generator=Generator().manual_seed(0)) + 5
    flow = flowlab.realnvp(2, 2)
    density(flow, x)
    warped_grid(flow.bijection)
    assert flow.training and not flow.bijection[0].initialized, "a look starts no layer"
    norm = flowlab.Flow(Chain([BatchNorm(2)]), StandardNormal(2))
    log_density(norm, x)
    assert torch.equal(norm.bijection[0].running_mean, torch.zeros(2))


def test_chunks_give_what_one_pass_gives():
    flow = flowlab.realnvp(2, 2).eval()
    points = plane(3.0, 90)
    assert torch.allclose(log_density(flow, points), flow.log_prob(points), atol=1e-6)


def test_the_plane_is_in_the_order_of_an_image():
    points = plane((0.0, 1.0, 5.0, 6.0), 11)
    assert points[0, 0].tolist() == [0.0, 5.0] and points[0, -1].tolist() == [1.0, 5.0]
    assert points[-1, 0].tolist() == [0.0, 6.0]
    assert torch.equal(plane(np.float32(2), 3), plane(2.0, 3))


def test_a_warped_grid_is_the_image_of_its_lines():
    double = ScaleShift(2)
    double.log_scale.data.fill_(np.log(0.5))  # x -> z halves, so z -> x doubles
    assert torch.allclose(warped_grid(double), 2 * grid_lines(3.0))
    assert warped_grid(double.double()).dtype == torch.float64


@pytest.mark.parametrize("dimensions", (1, 2))
def test_own_data_is_drawn_with_its_axes_named(dimensions):
    x = torch.randn(200, dimensions, generator=Generator().manual_seed(0)) + 170
    figure = density(
        flowlab.spline_flow(2).eval() if dimensions == 2 else flowlab.Flow(ScaleShift(1), StandardNormal(1)), x
    )
    axes = figure.axes[0]
    assert axes.get_xlabel() and axes.get_ylabel()
    assert axes.get_xlim()[0] < x[:, 0].min() and axes.get_xlim()[1] > x[:, 0].max()


def test_bad_data_has_a_sentence():
    x = torch.zeros(10, 2)
    x[3, 0] = torch.nan
    with pytest.raises(ValueError, match="the first in row 3"):
        density(flowlab.realnvp(2), x)
    with pytest.raises(ValueError, match="one or two dimensions, but got 5"):
        density(flowlab.nice(5), torch.zeros(10, 5))


def test_data_come_through_the_door_and_name_the_axes():
    z = torch.randn(100, 2, generator=Generator().manual_seed(0)).double().numpy()
    x = pd.DataFrame(z * [86400, 1] + [1.7e9, 48], columns=["seconds", "latitude"])
    flow = flowlab.flow_for(x)
    axes = density(flow, x[["latitude", "seconds"]]).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("seconds", "latitude"), "in the model's order"
    height = axes.get_ylim()[1] - axes.get_ylim()[0]
    assert height < 10 and axes.get_aspect() == "auto", "each axis has its own range, or all points lay on a line"
    shown = axes.images[0].get_array()
    span = (axes.get_xlim()[1] - axes.get_xlim()[0]) * height
    assert shown.mean() * span == pytest.approx(1, abs=0.15), "float64 points: float32 is 128 seconds wide there"
    with pytest.raises(TypeError, match="read the file first"):
        density(flow, "my.csv")


def test_what_is_no_density_in_the_plane_has_a_sentence():
    with pytest.raises(ValueError, match="has a context"):
        density(flowlab.realnvp(2, context_features=1))
    with pytest.raises(ValueError, match="a stack of 3"):
        density(flowlab.realnvp(2, stack=3))
    with pytest.raises(ValueError, match="at least one row"):
        density(flowlab.realnvp(2), np.empty((0, 2)))


def test_one_dimension_is_known_without_data():
    assert density(StandardNormal(1)).axes[0].get_ylabel() == "p(x)"
