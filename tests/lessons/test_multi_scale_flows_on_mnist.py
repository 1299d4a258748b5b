"""What the pictures of multi_scale_flows_on_mnist measure and move; its worked answers are the package's own steps."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from flowlab import models
from flowlab.bijections import Chain, FactorOut, Inverse, Squeeze, scales
from flowlab.datasets import mnist
from flowlab.lessons.multi_scale_flows_on_mnist import exercises as lesson
from flowlab.lessons.multi_scale_flows_on_mnist import figures as draw
from flowlab.lessons.multi_scale_flows_on_mnist import toys
from flowlab.lessons.multi_scale_flows_on_mnist.explorer import AlongAttribute, ResampleLevels

# Pictures and explorers


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# --- where the levels lie ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "counts"),
    [
        (models.glow((1, 28, 28), 2, steps=1, hidden=4), [392, 392]),
        (models.glow((2, 8, 8), 3, steps=1, hidden=4), [64, 32, 32]),
        (models.realnvp_image((1, 28, 28), 3, layers=1, hidden=4), [392, 196, 196]),
        (models.realnvp(6), [6]),
    ],
    ids=["glow", "glow of three levels", "RealNVP", "no levels"],
)
def test_each_level_has_its_share(flow, counts):
    D = flow.base.features
    assert scales(flow.bijection, (D,)).bincount().tolist() == counts


def test_levels_of_a_small_image_lie_in_stripes():
    inner = Chain([Squeeze(), FactorOut(8), Inverse(Squeeze())])
    image = Chain([Squeeze(), FactorOut(4, inner), Inverse(Squeeze())])
    rows = scales(image, (1, 4, 4))[0]
    assert rows.dtype == torch.int64 and rows[1::2].eq(0).all()
    assert rows[0].tolist() == rows[2].tolist() and sorted(rows[::2].flatten().tolist()) == [1] * 4 + [2] * 4


def test_a_level_is_what_leaves_there():
    """Latents of level 0 do not reach what went on, and those of the levels after it do."""
    g = seeded(0)
    inner = Chain([Squeeze(), FactorOut(8), Inverse(Squeeze())])
    image = Chain([Squeeze(), FactorOut(4, inner), Inverse(Squeeze())])
    for p in image.parameters():
        p.data += 0.5 * torch.randn(p.shape, generator=g)
    level = scales(image, (1, 4, 4))
    z, e = torch.randn(2, 1, 4, 4, generator=g).unsqueeze(1)
    with torch.no_grad():
        x, *new = (image.inverse(torch.where(level == k, e, z))[0] for k in (9, 0, 1, 2))
    went_on = torch.cat([Squeeze()(one)[0][:, :2] for one in (x, *new)])  # the channels that did not leave at once
    assert torch.equal(went_on[0], went_on[1])
    assert not torch.equal(went_on[0], went_on[2]) and not torch.equal(went_on[0], went_on[3])


# --- what is measured -------------------------------------------------------------------------------------------------


def test_the_extremes_are_those_of_each_digit():
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    low, high = toys.extremes(torch.tensor([3.0, 30, 1, 10, 2, 20]), labels, each=1)
    assert (low.tolist(), high.tolist()) == ([2, 3], [0, 1])


def test_nearest_agrees_with_distances_and_reads_its_own_digit():
    v, labels = mnist.digits("test")
    x = (v[:20].flatten(1) + 0.5) / 256
    row, distance = toys.nearest(x)
    every = torch.cdist(x, toys.training()[0])
    torch.testing.assert_close(distance, every.min(-1).values, rtol=1e-3, atol=1e-3)
    assert torch.equal(row, every.argmin(-1))
    assert float((toys.read((v.flatten(1) + 0.5) / 256) == labels).float().mean()) > 0.9


# --- latents ----------------------------------------------------------------------------------------------------------


def test_decode_undoes_encode():
    v = mnist.digits("test")[0][:4].flatten(1)
    x = toys.decode(toys.encode(v, seed=1))
    assert float((256 * x).floor().sub(v.float()).abs().max()) <= 1
    assert not torch.equal(toys.encode(v, seed=1), toys.encode(v, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("attribute", list(toys.ATTRIBUTES))
def test_a_direction_moves_its_attribute_on_test_digits(attribute):
    measure, z = toys.ATTRIBUTES[attribute], toys.encode(mnist.digits("test")[0][:50].flatten(1))
    low, middle, high = (
        measure(toys.decode(z + amount * toys.direction(attribute))).mean() for amount in (-0.5, 0.0, 0.5)
    )
    assert low < middle < high


def test_ways_lead_from_end_to_end_and_the_arc_stays_normal():
    z0, z1 = torch.randn(2, 3, 784, generator=seeded(0))
    for arc, spread in ((False, math.sqrt(0.5)), (True, 1.0)):
        way = toys.way(z0, z1, 5, arc=arc).view(3, 5, 784)
        torch.testing.assert_close((way[:, 0], way[:, -1]), (z0, z1), atol=1e-6, rtol=1e-6)
        assert float(way[:, 2].std()) == pytest.approx(spread, abs=0.05)


def test_strangers_are_what_their_names_say():
    v = mnist.digits("test")[0][:3].flatten(1)
    sets = toys.strangers(v)
    assert all(images.dtype == torch.uint8 and images.shape[1] == 784 for images in sets.values())
    assert torch.equal(sets["inverted"] + v, torch.full_like(v, 255)) and int(sets["empty"].max()) == 0
    assert torch.equal(sets["turned"].sort(-1).values, v.sort(-1).values) and not torch.equal(sets["turned"], v)
    assert int((sets["one dot"] > 0).sum()) == 4 * len(sets["one dot"])
    assert float(sets["noise"].float().mean()) == pytest.approx(127.5, abs=2)


# --- explorers --------------------------------------------------------------------------------------------------------


def test_nothing_new_gives_the_digit_and_each_slider_its_own_level():
    explorer = ResampleLevels()
    explorer.set(coarse=0.0, fine=0.0, digit=7)
    assert explorer.errors == []
    assert explorer.numbers["mean change of a pixel, in gray levels"] < 1
    assert explorer.numbers["still read as the digit it was"] == "5 of 5"
    assert "5 of 5 still read" in explorer.picture.describe(explorer.numbers)
    new = {}
    for name in ("fine", "coarse"):
        explorer.set(fine=float(name == "fine"), coarse=float(name == "coarse"))
        shown = torch.tensor(explorer.picture.map.get_array())
        assert torch.equal(shown.flatten() == 1, explorer.picture.coarse == (name == "coarse"))
        new[name] = explorer.numbers["mean change of a pixel, in gray levels"]
    assert new["coarse"] > 2 * new["fine"] > 2


def test_half_way_latents_stay_normal():
    """What the explorer hands to the flow, caught on its way."""
    explorer, seen = ResampleLevels(), []
    explorer.picture.z = torch.randn(10, 784, generator=seeded(1))
    real = draw.decode
    try:
        draw.decode = lambda z: seen.append(z) or real(z)
        explorer.set(coarse=0.5, fine=0.3, temperature=1.0)
        explorer.set(coarse=1.0, fine=1.0, temperature=0.5)
    finally:
        draw.decode = real
    assert float(seen[0].std()) == pytest.approx(1, abs=0.04) and float(seen[1].std()) == pytest.approx(0.5, abs=0.02)


def test_the_attribute_explorer_measures_what_it_shows():
    explorer = AlongAttribute()
    for attribute in toys.ATTRIBUTES:
        explorer.set(attribute=attribute, digit=1, amount=0.0)
        n = explorer.numbers
        assert n["after"] == pytest.approx(n[f"mean {attribute} before"], abs=0.03)
        assert n["moved by, in standard deviations of z"] == 0
        explorer.set(amount=0.6)
        assert explorer.numbers["after"] > n["after"] and f"along {attribute}" in explorer.picture.describe(
            explorer.numbers
        )
        marks = [line.get_xdata() for line in (explorer.picture.before, explorer.picture.after)]
        assert float(marks[1].mean()) > float(marks[0].mean())
    assert explorer.errors == []
    assert float(explorer.picture.kind.get_data().values.max()) == 1


# --- figures ----------------------------------------------------------------------------------------------------------


def test_numbered_pixels_stand_in_their_places():
    x = torch.arange(8.0).view(2, 2, 2)
    figure = draw.numbered({"two channels": (x, torch.tensor([0, 1]).view(2, 1, 1))})
    axes = figure.axes[0]
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert sorted(places) == list("01234567") and places["1"][0] > places["0"][0] and places["2"][1] > places["0"][1]
    assert places["4"][0] > places["1"][0] + 1
    assert "0: 0, 1, 2, 3; 1: 4, 5, 6, 7" in figure.get_label()


def test_histograms_of_bits_share_one_axis():
    sets = {"in": (torch.zeros(784), torch.tensor([1.0, 1.2, 1.4])), "out": (torch.ones(784), torch.tensor([0.1, 0.2]))}
    figure = draw.bits_of_sets(sets)
    histograms = figure.axes[1::2]
    assert len({axes.get_xlim() for axes in histograms}) == 1
    assert [sum(bar.get_height() for bar in axes.patches) for axes in histograms] == [3, 2]
    assert "in 1.20, out 0.1" in figure.get_label()


# Exercises


def blocks(z):
    """(N, 4C, H, W) as (N, C, i, j, H, W)."""
    return z.reshape(len(z), -1, 2, 2, *z.shape[2:])


def place(six):
    N, C, _, _, H, W = six.shape
    return six.permute(0, 1, 4, 2, 5, 3).reshape(N, C, 2 * H, 2 * W)


def back(z, conditioner, f_inverse, x_a=None, read=None, x_b=None, log_det=None):
    """The right answer, or one of its parts made by the student's own line."""
    z_a, z_b = z.chunk(2, 1)
    a, first = f_inverse(z_a)
    s, mu = conditioner(a if read is None else read(z_a))
    b = mu + z_b * s.exp() if x_b is None else x_b(z_b, s, mu)
    total = first + s.sum((1, 2, 3)) if log_det is None else log_det(first, s)
    return torch.cat((a if x_a is None else x_a(z_a), b), 1), total


def shares(inside, outside, known, tie=0.5):
    d = (outside - known.median()).abs()[:, None] - (inside - known.median()).abs()
    return ((d > 1e-9).double() + tie * (d.abs() <= 1e-9).double()).mean()


def turned(z, level, w, fine=True):
    """The coarse latents turned by w toward new ones, the fine ones new."""
    e = torch.randn(z.shape, generator=seeded(1))
    arc = math.cos(math.pi / 2 * w) * z + math.sin(math.pi / 2 * w) * e
    return torch.where(level > 0, arc, e if fine else z)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda z: z.reshape(place(blocks(z)).shape), "A reshape alone"),
    (1, lambda z: blocks(z).permute(0, 1, 2, 4, 3, 5).reshape(place(blocks(z)).shape), "as one quarter"),
    (1, lambda z: place(blocks(z).transpose(2, 3)), "are exchanged"),
    (1, lambda z: place(z.reshape(len(z), 2, 2, -1, *z.shape[2:]).permute(0, 3, 1, 2, 4, 5)), "c, C + c"),
    (1, lambda z: place(blocks(z).flip(2, 3)), "in another order"),
    (1, lambda z: z, "Expected shape"),
    (1, lambda z: F.interpolate(z[:, ::4], scale_factor=2), "changes none"),
    (2, lambda *given: back(*given)[0], "Return two things"),
    (2, lambda *given: (back(*given)[0].chunk(2, 1)[1], back(*given)[1]), "Both halves belong in x"),
    (2, lambda *given: back(*given, x_a=lambda a: a), "undo f first"),
    (2, lambda *given: back(*given, x_a=lambda a: 0 * a), "and nothing else"),
    (2, lambda *given: back(*given, read=lambda a: a), "about z_a"),
    (2, lambda *given: back(*given, x_b=lambda b, s, m: (b - m) / s.exp()), "the way x → z once more"),
    (2, lambda *given: back(*given, x_b=lambda b, s, m: m + b * s), "gives log σ"),
    (2, lambda *given: back(*given, x_b=lambda b, s, m: (m + b) * s.exp()), "First multiply by σ"),
    (2, lambda *given: back(*given, x_b=lambda b, s, m: b * s.exp()), "for x_b, with σ = exp"),
    (2, lambda *given: back(*given, log_det=lambda first, s: s.sum()), "one log_det for each"),
    (2, lambda *given: back(*given, log_det=lambda first, s: s.sum((1, 2, 3))), "log-dets of two maps"),
    (2, lambda *given: back(*given, log_det=lambda first, s: first - s.sum((1, 2, 3))), "that of x → z"),
    (2, lambda *given: back(*given, log_det=lambda first, s: first), "Σ log σ is missing"),
    (2, lambda *given: back(*given, log_det=lambda first, s: first + s.mean((1, 2, 3))), "all numbers that come back"),
    (3, lambda z, level: z, "those that came in"),
    (3, lambda z, level: turned(z, level, 0.0), "the fine latents alone"),
    (3, lambda z, level: turned(z, level, 0.1), "Take a larger step"),
    (3, lambda z, level: turned(z, level, 1.0), "and the digit with it"),
    (3, lambda z, level: z / 0, "not finite"),
    (4, lambda a, b, k: ((b[:, None] > a) + 0.5 * (b[:, None] == a)).double().mean(), "the one-sided rule"),
    (4, lambda a, b, k: 1 - shares(a, b, k), "Turned round"),
    (4, lambda a, b, k: shares(a, b, k) * len(a) * len(b), "a count of pairs"),
    (4, lambda a, b, k: shares(a, b, k, 0.0), "Yours counts 0"),
    (4, lambda a, b, k: shares(a, b, k, 1.0), "Yours counts 1"),
    (4, lambda a, b, k: ((b - k.median()).abs() > (a - k.median()).abs().max()).double().mean(), "with one number"),
    (4, lambda a, b, k: 0.3, "a tie is one half"),
]

RIGHT = [
    (1, lambda z: F.pixel_shuffle(z, 2)),
    (1, lambda z: Squeeze().inverse(z)[0].numpy()),
    (1, lambda z: place(blocks(z)).tolist()),
    (2, lambda *given: back(*given, x_b=lambda b, s, m: s.exp() * b + m)),
    (2, lambda *given: [part.float() for part in back(*given)]),
    (2, lambda *given: back(*given, log_det=lambda first, s: first[:, None] + s.flatten(1).sum(1, keepdim=True))),
    (3, lambda z, level: turned(z, level, 0.25)),
    (3, lambda z, level: (z + 0.6 * toys.direction("thickness")).numpy()),
    (3, lambda z, level: z + 0.4 * toys.direction("thickness") + 0.1 * toys.direction("slant")),
    (4, lambda a, b, k: float(shares(a, b, k))),
    (
        4,
        lambda a, b, k: roc_auc_score(
            [0] * len(a) + [1] * len(b), (torch.cat((a, b)) - k.median()).abs().round(decimals=9)
        ),
    ),
    (
        4,
        lambda a, b, k: np.mean(
            [
                np.sign(round(abs(y - np.median(k)) - abs(x - np.median(k)), 9)) / 2 + 0.5
                for x in a.tolist()
                for y in b.tolist()
            ]
        ),
    ),
]


def test_the_worked_answers_are_the_packages():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(3, 8, 4, 4, generator=g)
    assert torch.equal(lesson.unsqueeze(z), Squeeze().inverse(z)[0])
    layer = FactorOut(8, Squeeze())
    for p in layer.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=g)
    # a factor-out reads its latent in the shape of the image: z_a as f leaves it, laid out anew
    x, log_det = lesson.put_back(z, lambda x_a: layer._scale_and_mean(x_a, None), lambda z_a: (z_a, torch.zeros(3)))
    plain = FactorOut(8)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close((x, log_det), plain.inverse(z))
    assert bool((log_det.abs() > 0.1).all())
