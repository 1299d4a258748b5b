"""The pictures of notebook 15: masks against the package's, flicker against masks, sweeps against samples."""

import math

import numpy as np
import pytest
import torch
from torch.func import jacrev

from flowlab import Flow, pretrained
from flowlab.bijections import Inverse, MaskedAutoregressive
from flowlab.densities import StandardNormal
from flowlab.lessons.autoregressive_flows import figures as draw
from flowlab.lessons.autoregressive_flows.explorer import FillImage, MaskedNetwork, OnePixel
from flowlab.networks import MaskedMLP


@pytest.mark.parametrize("order", [None, [2, 0, 4, 1, 3]])
@pytest.mark.parametrize("width", [2, 6])
def test_what_masks_let_through_is_what_autograd_sees(order, width):
    g = torch.Generator().manual_seed(width)
    network = MaskedMLP(5, 2, hidden=(width, width), order=order, activation="tanh", generator=g).requires_grad_(False)
    network.last.weight.normal_(generator=g)
    J = jacrev(network)(torch.randn(5, generator=g))  # (2, output, input)
    assert torch.equal(draw.sees(network), J[0] != 0) and torch.equal(draw.sees(network), J[1] != 0)


@pytest.mark.parametrize("order", draw.ORDERS)
@pytest.mark.parametrize("arrow", draw.ARROWS)
def test_pairs_that_depend_are_those_of_the_jacobian(order, arrow):
    for depth in (1, 2, 3):
        flow = draw.chain(order, depth, arrow)
        J = jacrev(lambda x, flow=flow: flow(x)[0])(draw.digit())
        assert torch.equal(draw.depends(draw.layers(order)[:depth]), J.abs() > 1e-12), depth


def test_the_orders_are_what_they_say():
    def first(layer):
        return layer.conditioner.place.argsort()[:3].tolist()

    assert [first(layer) for layer in draw.layers(draw.ORDERS[0])] == [[0, 1, 2]] * 3
    assert [first(layer) for layer in draw.layers(draw.ORDERS[1])] == [[0, 1, 2], [48, 47, 46], [0, 1, 2]]
    one, *others = (first(layer) for layer in draw.layers(draw.ORDERS[2]))
    assert one == [0, 1, 2] and all(other not in ([0, 1, 2], [48, 47, 46]) for other in others)


def test_one_pixel_flickers_as_the_masks_say_and_the_arrow_swaps_the_stopwatch():
    explorer = OnePixel()
    for pixel in (1, 18, 49):
        explorer.set(pixel=pixel, depth=1, arrow="MAF")
        maf = dict(explorer.numbers)
        assert maf["outputs that flicker"] == f"{50 - pixel} of 49" and maf["that may, by the masks"] == 50 - pixel
        assert np.ma.getmaskarray(explorer.picture.change.get_array()).sum() == pixel - 1, "dots where nothing moves"
        assert len(explorer.picture.same.get_xdata()) == pixel - 1
        explorer.set(arrow="IAF")
        iaf = explorer.numbers
        assert iaf["outputs that flicker"] == maf["outputs that flicker"]
        assert (maf["passes x → z"], maf["passes z → x"]) == (iaf["passes z → x"], iaf["passes x → z"]) == (1, 49)
    explorer.set(depth=2, arrow="MAF", order=draw.ORDERS[1])
    assert explorer.numbers["outputs that flicker"] == "49 of 49" and explorer.numbers["passes z → x"] == 98
    explorer.set(size=0.0)
    assert explorer.numbers["outputs that flicker"] == "0 of 49"


def test_the_bars_show_the_slow_direction_longer():
    picture = draw.Flicker()
    ends = {}
    for arrow in draw.ARROWS:
        picture.update(pixel=3, size=0.5, depth=2, order=draw.ORDERS[0], arrow=arrow)
        ends[arrow] = [bar.get_xdata()[1] for bar in picture.bars]
    assert ends["MAF"] == ends["IAF"][::-1] and ends["MAF"][1] > 3 * ends["MAF"][0]


def test_a_click_chooses_the_pixel():
    explorer = OnePixel()
    explorer.on_pointer("down", explorer.picture.before, 6.4, 1.6)
    assert explorer.controls["pixel"].value == 2 * 7 + 7
    explorer.on_pointer("down", explorer.picture.watch, 0.0, 0.0)
    explorer.on_pointer("up", explorer.picture.before, 0.0, 0.0)
    assert explorer.controls["pixel"].value == 21 and explorer.errors == []


def test_the_network_that_is_drawn_is_the_packages():
    explorer = MaskedNetwork()
    for width, seed, random in ((6, 0, False), (2, 3, False), (5, 4, True), (1, 1, False)):
        explorer.set(width=width, seed=seed, degrees=next(k for k, v in draw.DEGREES.items() if v == random))
        g = torch.Generator().manual_seed(seed)
        order = torch.randperm(6, generator=g) if seed else None
        network = MaskedMLP(6, hidden=(width, width), order=order, random_degrees=random, generator=g)
        at = network.place.argsort()
        seen = draw.sees(network)[at][:, at]
        shown = explorer.picture.cells.get_array() > 0
        assert np.array_equal(shown, seen.numpy()) and explorer.numbers["leaks"] == 0
        assert explorer.numbers["pairs connected"] == f"{int(seen.sum())} of 15 allowed"
        kept = sum(int(layer.mask.sum()) for layer in (*network.hidden, network.last))
        drawn = [len(strokes.get_segments()) for strokes in (explorer.picture.kept, explorer.picture.paths)]
        assert explorer.numbers["connections kept"].startswith(f"{kept} of ") and sum(drawn) == kept
        assert len(explorer.picture.lost.get_xdata()) == 15 - int(seen.sum())


def test_the_bug_lets_an_output_see_itself_and_orange_begins_at_what_it_sees():
    explorer, (made, bug) = MaskedNetwork(), draw.RULES
    for output in (1, 4, 5):
        explorer.set(rule=made, output=output)
        starts = {y for x, y in (stroke[0] for stroke in explorer.picture.paths.get_segments()) if x == 0}
        assert len(starts) == output - 1, "one path at least from each input before it, none from another"
        assert explorer.picture.leaks.get_xdata().size == 0
        explorer.set(rule=bug)
        assert explorer.numbers["leaks"] == 5 and len(explorer.picture.leaks.get_xdata()) == 5
        assert f"x{output}" in explorer.numbers[f"inputs that output {output} sees"]


def test_the_sweeps_end_in_the_flows_own_samples():
    flow = pretrained.load("maf_mnist").density
    z = flow.base.sample(2, torch.Generator().manual_seed(1))
    found, x = draw.sweeps(flow.bijection, z)
    assert torch.equal(x, flow.sample(2, torch.Generator().manual_seed(1)))
    layers = [layer for layer in flow.bijection if isinstance(layer, MaskedAutoregressive)]
    assert len(found) == len(layers) and torch.equal(found[0].place, layers[-1].conditioner.place)


def test_an_image_fills_in_the_order_of_its_sweep():
    explorer = FillImage()
    picture, D = explorer.picture, 784

    def unknown():
        return [int(np.ma.getmaskarray(image.get_array()).sum()) for image in picture.images]

    explorer.set(passes=0)
    assert unknown() == [0] + [D] * len(picture.sweeps)
    explorer.set(passes=D + 28)
    assert unknown()[:3] == [0, 0, D - 28] and explorer.numbers["pixels of the digit known"] == "0 of 784"
    for image, sweep in zip(picture.images[1:3], picture.sweeps, strict=False):
        explorer.set(passes=28 if image is picture.images[1] else D + 28)
        known = ~np.ma.getmaskarray(image.get_array())
        from_the_top = int(sweep.place[0]) == 1
        assert known[0 if from_the_top else -1].all() and image.axes.get_title().endswith(
            "top to bottom" if from_the_top else "bottom to top"
        )
    explorer.set(passes=picture.total)
    assert unknown()[-1] == 0 and explorer.errors == []
    assert float(picture.images[-1].get_array().min()) > -0.1, "the last image is of pixels, not of logits"


def test_the_moon_is_a_density_and_its_samples_follow_it():
    moon = draw.Moon()
    x1, x2 = torch.linspace(-8, 40, 600).double(), torch.linspace(-12, 12, 300).double()
    grid = torch.stack(torch.meshgrid(x1, x2, indexing="ij"), -1)
    cell = float((x1[1] - x1[0]) * (x2[1] - x2[0]))
    assert float(moon.log_prob(grid).exp().sum()) * cell == pytest.approx(1, abs=1e-3)
    x = moon.sample(40_000, torch.Generator().manual_seed(0))
    entropy = math.log(2) + 1 + math.log(2 * math.pi)  # of a Gaussian of deviation 2, and of one of deviation 1
    assert float(-moon.log_prob(x).mean()) == pytest.approx(entropy, abs=0.02)


def test_the_stopwatch_finds_the_slow_direction():
    maf = MaskedAutoregressive(30, (8,))
    score, sample = draw.stopwatch(Flow(maf, StandardNormal(30)))
    assert sample > 3 * score
    score, sample = draw.stopwatch(Flow(Inverse(maf), StandardNormal(30)))
    assert score > 3 * sample
    figure = draw.stopwatches((2, 30), {"MAF": [(1.0, 2.0), (1.0, 30.0)], "coupling": [(1.0, 1.0)] * 2})
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[1].lines}
    assert lines == {"MAF": [2.0, 30.0], "coupling": [1.0, 1.0]}
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"


def test_moons_stand_on_one_scale():
    moon = draw.Moon()
    figure = draw.moons({"exact": moon, "flat": StandardNormal(2)}, [0.0, 0.5])
    images = [axes.images[0] for axes in figure.axes]
    assert images[0].get_clim() == images[1].get_clim() and figure.axes[1].get_title() == "flat\n0.50 nats"
