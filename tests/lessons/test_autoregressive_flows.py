"""The pictures of autoregressive_flows (masks, flicker, sweeps) are the package's; wrong answers meet their hints."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from torch.func import jacrev

from flowlab import Flow, pretrained
from flowlab.bijections import (
    AffineCoupling,
    Chain,
    Inverse,
    InverseAutoregressive,
    MaskedAutoregressive,
    alternating_mask,
)
from flowlab.densities import StandardNormal
from flowlab.lessons.autoregressive_flows import exercises as lesson
from flowlab.lessons.autoregressive_flows import figures as draw
from flowlab.lessons.autoregressive_flows import toys
from flowlab.lessons.autoregressive_flows.explorer import FillImage, MaskedNetwork, OnePixel
from flowlab.networks import MaskedMLP

# Pictures and explorers


@pytest.mark.parametrize("order", [None, [2, 0, 4, 1, 3]])
@pytest.mark.parametrize("width", [2, 6])
def test_what_masks_let_through_is_what_autograd_sees(order, width):
    g = torch.Generator().manual_seed(width)
    network = MaskedMLP(5, 2, hidden=(width, width), order=order, activation="tanh", generator=g).requires_grad_(False)
    network.last.weight.normal_(generator=g)
    J = jacrev(network)(torch.randn(5, generator=g))  # (2, output, input)
    assert torch.equal(toys.sees(network), J[0] != 0) and torch.equal(toys.sees(network), J[1] != 0)


@pytest.mark.parametrize("order", toys.ORDERS)
@pytest.mark.parametrize("arrow", toys.ARROWS)
def test_pairs_that_depend_are_those_of_the_jacobian(order, arrow):
    for depth in (1, 2, 3):
        flow = toys.chain(order, depth, arrow)
        J = jacrev(lambda x, flow=flow: flow(x)[0])(toys.digit())
        assert torch.equal(toys.depends(toys.layers(order)[:depth]), J.abs() > 1e-12), depth


def test_the_orders_are_what_they_say():
    def first(layer):
        return layer.conditioner.place.argsort()[:3].tolist()

    assert [first(layer) for layer in toys.layers(toys.ORDERS[0])] == [[0, 1, 2]] * 3
    assert [first(layer) for layer in toys.layers(toys.ORDERS[1])] == [[0, 1, 2], [48, 47, 46], [0, 1, 2]]
    one, *others = (first(layer) for layer in toys.layers(toys.ORDERS[2]))
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
    explorer.set(depth=2, arrow="MAF", order=toys.ORDERS[1])
    assert explorer.numbers["outputs that flicker"] == "49 of 49" and explorer.numbers["passes z → x"] == 98
    explorer.set(size=0.0)
    assert explorer.numbers["outputs that flicker"] == "0 of 49"


def test_the_bars_show_the_slow_direction_longer():
    picture = draw.Flicker()
    ends = {}
    for arrow in toys.ARROWS:
        picture.update(pixel=3, size=0.5, depth=2, order=toys.ORDERS[0], arrow=arrow)
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
        seen = toys.sees(network)[at][:, at]
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


@pytest.mark.slow
def test_the_sweeps_end_in_the_flows_own_samples():
    flow = pretrained.load("maf_mnist").density
    z = flow.base.sample(2, torch.Generator().manual_seed(1))
    found, x = toys.sweeps(flow.bijection, z)
    assert torch.equal(x, flow.sample(2, torch.Generator().manual_seed(1)))
    layers = [layer for layer in flow.bijection if isinstance(layer, MaskedAutoregressive)]
    assert len(found) == len(layers) and torch.equal(found[0].place, layers[-1].conditioner.place)


@pytest.mark.slow
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
    moon = toys.Moon()
    x1, x2 = torch.linspace(-8, 40, 600).double(), torch.linspace(-12, 12, 300).double()
    grid = torch.stack(torch.meshgrid(x1, x2, indexing="ij"), -1)
    cell = float((x1[1] - x1[0]) * (x2[1] - x2[0]))
    assert float(moon.log_prob(grid).exp().sum()) * cell == pytest.approx(1, abs=1e-3)
    x = moon.sample(40_000, torch.Generator().manual_seed(0))
    entropy = math.log(2) + 1 + math.log(2 * math.pi)  # of a Gaussian of deviation 2, and of one of deviation 1
    assert float(-moon.log_prob(x).mean()) == pytest.approx(entropy, abs=0.02)


def test_the_stopwatch_finds_the_slow_direction():
    maf = MaskedAutoregressive(30, (8,))
    score, sample = toys.stopwatch(Flow(maf, StandardNormal(30)))
    assert sample > 3 * score
    score, sample = toys.stopwatch(Flow(Inverse(maf), StandardNormal(30)))
    assert score > 3 * sample
    figure = draw.stopwatches((2, 30), {"MAF": [(1.0, 2.0), (1.0, 30.0)], "coupling": [(1.0, 1.0)] * 2})
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[1].lines}
    assert lines == {"MAF": [2.0, 30.0], "coupling": [1.0, 1.0]}
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"


def test_moons_stand_on_one_scale():
    moon = toys.Moon()
    figure = draw.moons({"exact": moon, "flat": StandardNormal(2)}, [0.0, 0.5])
    images = [axes.images[0] for axes in figure.axes]
    assert images[0].get_clim() == images[1].get_clim() and figure.axes[1].get_title() == "flat\n0.50 nats"


# Exercises


def between(degrees, compare):
    return [compare(a[:, None], b) for a, b in pairwise(degrees)]


def made(degrees, hidden=torch.le, last=torch.lt):
    return [*between(degrees, hidden), last(degrees[-1][:, None], degrees[0])]


def unordered(degrees):
    return [*between(degrees, torch.le), degrees[-1][:, None] < torch.arange(1, len(degrees[0]) + 1)]


def sparse(degrees):
    first, *rest = made(degrees)
    return [torch.zeros_like(first), *rest]


def leaky(degrees):
    *rest, last = made(degrees)
    return [*rest, torch.ones_like(last)]


def behind(order, i):
    return set(order[order.index(i) :])


def through(orders, j, start=None):
    moved = start or {j}
    for order in orders:
        moved = set().union(*(behind(order, i) for i in moved))
    return moved


def at_once(f, z, start):
    s, t = f(start)
    return (z - t) * (-s).exp()


def loop(f, z, undo, steps=None):
    x = torch.zeros_like(z)
    for i in steps or range(z.shape[1]):
        s, t = f(x)
        x[:, i] = undo(z[:, i], s[:, i], t[:, i])
    return x


def undo(z, s, t):
    return (z - t) * torch.exp(-s)


def fixed_point(f, z):
    x = z
    for _ in range(z.shape[1]):
        x = at_once(f, z, x)
    return x


def climb(D, ask, better=lambda new, old: new > old):
    """Neighbors change places as long as that helps, from a coordinate's place to the front."""
    order = list(range(D))
    best = ask(order)
    for i in range(D):
        tried = [i] + [k for k in order if k != i]
        value = ask(tried)
        if better(value, best):
            order, best = tried, value
    return order


def to_the_back(D, ask):
    order = list(range(D))
    for i in range(D):
        tried = [k for k in order if k != i] + [i]
        if ask(tried) > ask(order):
            order = tried
    return order


def by_effect(D, ask):
    """Sorted by what each gains at the front of the order as it came."""
    start = list(range(D))
    gain = {i: ask([i] + [k for k in start if k != i]) - ask([k for k in start if k != i] + [i]) for i in start}
    return np.array(sorted(start, key=lambda i: -gain[i]))


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda d: made(d, last=torch.le), "Output i sees input i"),
    (1, lambda d: made(d, hidden=torch.lt), "cuts more than it must"),
    (1, lambda d: [m.T for m in made(d)], "torch's own Linear"),
    (1, lambda d: made(d, torch.ge, torch.gt), "lower the degree"),
    (1, lambda d: made(d)[:-1], "also into the outputs"),
    (1, unordered, "numbered the outputs as they stand"),
    (1, leaky, "Multiply your masks"),
    (1, sparse, "some connection is cut"),
    (1, lambda d: [0.5 * m for m in made(d)], "True and False"),
    (2, lambda o, j: through(o, j) - {j}, "itself is missing"),
    (2, lambda o, j: behind(o[0], j), "after the first layer"),
    (2, lambda o, j: behind(o[-1], j), "the last layer only"),
    (2, lambda o, j: set().union(*(behind(order, j) for order in o)), "alone go through"),
    (2, lambda o, j: {i for i in range(len(o[0])) if o[0][i] >= o[0][j]}, "at place j"),
    (2, lambda o, j: set(range(len(o[0]))), "Not everything"),
    (2, lambda o, j: set(), "Go through the layers"),
    (3, lambda f, z: at_once(f, z, z), "once, at z"),
    (3, lambda f, z: at_once(f, z, 0 * z), "at zeros"),
    (3, lambda f, z: loop(f, z, lambda z, s, t: z * s.exp() + t), "instead of undoing"),
    (3, lambda f, z: loop(f, z, lambda z, s, t: (z - t) * s.exp()), "now *divide*"),
    (3, lambda f, z: loop(f, z, lambda z, s, t: z * (-s).exp() - t), "Undo the last thing first"),
    (3, lambda f, z: loop(f, z, undo, range(z.shape[1] - 1, -1, -1)), "at zeros"),
    (3, lambda f, z: loop(f, z, undo, range(z.shape[1] - 1)), "All but the last"),
    (3, lambda f, z: z, "does not come back"),
    (4, lambda D, ask: list(range(D)), "as they came"),
    (4, lambda D, ask: [0] * D, "each of the coordinates"),
    (4, lambda D, ask: max(permutations(range(D)), key=ask), "more than 60 times"),
    (4, lambda D, ask: climb(D, ask, lambda new, old: new < old), "Is it turned round"),
    (4, lambda D, ask: (lambda order: [order[-1], *order[:-1]])(climb(D, ask)), "in its bad direction"),
]


def one_after_another(network, z):
    x = torch.zeros(z.shape)
    for i in range(z.shape[1]):
        s, t = network(x)
        x[:, i] = (z[:, i] - t[:, i]) / s[:, i].exp()
    return x.numpy()


# number, a right answer that is not written as the worked one
RIGHT = [
    (1, lambda d: tuple(m.float() for m in made(d))),
    (2, lambda o, j: sorted(through(o, j))),
    (3, fixed_point),
    (1, lambda d: [m.numpy() for m in made(d)]),
    (2, lambda o, j: torch.tensor(sorted(through(o, j)))),
    (3, one_after_another),
    (4, climb),
    (4, lambda D, ask: torch.tensor(to_the_back(D, ask))),
    (4, by_effect),
    (1, lambda d: [m.tolist() for m in made(d)]),
    (2, through),
    (3, lambda f, z: loop(f, z, undo).tolist()),
]


@pytest.mark.parametrize(("places", "hidden"), [([2, 0, 3, 1], (5, 7)), ([0, 1, 2], (4,))])
def test_the_worked_masks_are_the_packages(places, hidden):
    network = MaskedMLP(len(places), hidden=hidden, order=places)
    layers = [*network.hidden, network.last]
    degrees = network.degrees.split([len(layer.mask) for layer in layers])
    worked = lesson.masks(list(degrees))
    assert all(torch.equal(a, layer.mask.bool()) for a, layer in zip(worked, layers, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_the_worked_flicker_is_what_smooth_layers_do(seed):
    g, D = torch.Generator().manual_seed(seed), 5
    orders = [torch.randperm(D, generator=g).tolist() for _ in range(2)]
    layers = [MaskedAutoregressive(D, (16,), order=order, activation="tanh", generator=g) for order in orders]
    flow = Chain(layers).double().requires_grad_(False)
    for layer in layers:
        layer.conditioner.last.weight.normal_(generator=g)
    for j in range(D):
        x = torch.randn(D, dtype=torch.float64, generator=g)
        changed = x.clone()
        changed[j] += 0.5
        moved = (flow(x)[0] - flow(changed)[0]).abs() > 1e-12
        assert set(moved.nonzero().flatten().tolist()) == lesson.flickers(orders, j)


def test_the_worked_directions_are_the_packages():
    g = torch.Generator().manual_seed(0)
    layer = MaskedAutoregressive(4, (16,), activation="tanh", generator=g).double().requires_grad_(False)
    layer.conditioner.last.weight.normal_(generator=g)
    x = torch.randn(6, 4, dtype=torch.float64, generator=g)

    def network(x):
        s, t = layer.conditioner(x).unbind(-2)
        return 2 * torch.tanh(s), t

    z, _ = layer(x)
    assert torch.allclose(lesson.invert(network, z), x)


def test_the_table_of_passes_is_counted_in_the_package():
    """Section 5: MAF samples in D passes a layer, IAF evaluates in D, a coupling takes one each way."""
    D, L, calls = 6, 3, []
    builders = {
        "MAF": (lambda: MaskedAutoregressive(D, (8,)), (L, L * D)),
        "IAF": (lambda: InverseAutoregressive(D, (8,)), (L * D, L)),
        "coupling": (lambda: AffineCoupling(alternating_mask(D), (8,)), (L, L)),
    }
    for model, (build, counts) in builders.items():
        flow = Chain([build() for _ in range(L)])
        for module in flow.modules():
            if type(module).__name__ in ("MaskedMLP", "MLP"):
                module.register_forward_hook(lambda *_: calls.append(1))
        for run, wanted in zip((flow.forward, flow.inverse), counts, strict=True):
            calls.clear()
            run(torch.randn(2, D))
            assert len(calls) == wanted, model


def test_the_worked_order_is_near_the_truth():
    x, first, truth = lesson._moons(6, 3)
    order = lesson.choose_order(6, lambda order: lesson._log_likelihood(x, order))
    assert truth - lesson._log_likelihood(x, order) < 0.05
    assert truth - lesson._log_likelihood(x, [i for i in range(6) if i not in first] + first) > 0.6
