"""The pictures of nice_on_mnist against exact moments; its worked answers are the package's own steps."""

import math

import numpy as np
import pytest
import torch
from matplotlib.image import AxesImage

from flowlab.densities import StandardLogistic, StandardNormal
from flowlab.lessons.nice_on_mnist import exercises as lesson
from flowlab.lessons.nice_on_mnist import figures as draw
from flowlab.lessons.nice_on_mnist import toys
from flowlab.lessons.nice_on_mnist.explorer import CoolDigits, FillHidden
from flowlab.lessons.nice_on_mnist.toys import museum
from flowlab.models import nice
from flowlab.restoration import widths
from flowlab.training import History

# Pictures and explorers


@pytest.fixture(scope="module")
def flow():
    """A small NICE whose S are not all alike."""
    flow = nice(784, 2, hidden=(8,), generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        flow.bijection[-1].log_scale.copy_(torch.linspace(2.0, 5.0, 784))
    return flow


@pytest.fixture(scope="module")
def hidden_pixels(flow):
    return FillHidden(flow, steps=10)


def test_typical_is_what_samples_have(flow):
    mean, spread, mode = toys.typical(flow)
    log_p = flow.log_prob(flow.sample(2000, torch.Generator().manual_seed(1))).detach()
    assert float(log_p.mean()) == pytest.approx(mean, abs=3 * spread / math.sqrt(2000))
    assert float(log_p.std()) == pytest.approx(spread, rel=0.06)
    assert mode - mean == pytest.approx(784 * (2 - 2 * math.log(2)))
    top = flow.log_prob(flow.bijection.inverse(torch.zeros(1, 784))[0]).detach()
    assert float(top) == pytest.approx(mode, abs=0.5)


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 2.0])
def test_cooled_draws_have_the_moments_of_the_power(temperature):
    u = (np.arange(200_000) + 0.5) / 200_000
    z = toys.cooled(np.log(u / (1 - u)), temperature)
    grid = np.linspace(-60, 60, 200_001)
    weight = np.exp(-(np.logaddexp(0, grid) + np.logaddexp(0, -grid)) / temperature)
    weight /= weight.sum()
    assert (z**2).mean() == pytest.approx((weight * grid**2).sum(), rel=0.01)
    assert np.abs(z).mean() == pytest.approx((weight * np.abs(grid)).sum(), rel=0.01)
    assert not toys.cooled(np.ones(3), 0.0).any()


def test_samples_cool_to_the_most_likely_image_and_drop_their_narrow_directions(flow):
    explorer = CoolDigits(flow)
    picture, (low, high) = explorer.picture, draw.COOLING
    explorer.set(tau=0.0)
    assert explorer.errors == [] and explorer.numbers["nats below f⁻¹(0)"] == pytest.approx(0, abs=0.5)
    assert explorer.numbers["deviation of a pixel"] == pytest.approx(0, abs=1e-6)
    explorer.set(tau=1.0)
    assert explorer.numbers["nats below f⁻¹(0)"] == pytest.approx(481, abs=10)
    below = {}
    for cooling in (low, high):
        explorer.set(tau=0.5, cooling=cooling)
        below[cooling] = explorer.numbers["nats below f⁻¹(0)"]
    assert below[high] < below[low] < 481
    z = picture.latent(1.0, low, 10, 0)
    assert set(z.any(0).nonzero().flatten().tolist()) == set(range(10)), "small S are the wide directions"
    assert (np.diff(picture.width) <= 0).all()
    explorer.set(keep=0)
    assert explorer.numbers["nats below f⁻¹(0)"] == pytest.approx(0, abs=0.5)


def test_log_p_of_the_samples_is_the_flows(flow):
    picture = draw.CoolSamples(flow)
    numbers = picture.update(tau=0.8, cooling=draw.COOLING[0], keep=784, seed=3)
    x = flow.bijection.inverse(picture.latent(0.8, draw.COOLING[0], 784, 3))[0]
    assert numbers["mean log p of these samples"] == pytest.approx(float(flow.log_prob(x).detach().mean()), abs=0.5)


def test_masks_hide_what_their_names_say():
    masks = {name: mask.view(28, 28) for name, mask in toys.masks().items()}
    assert masks["top half"][:14].all() and not masks["top half"][14:].any()
    assert masks["left half"][:, :14].all() and not masks["left half"][:, 14:].any()
    assert torch.equal(masks["top half"], ~masks["bottom half"])
    assert torch.equal(masks["left half"], ~masks["right half"])
    square = masks["a square in the middle"]
    assert square.sum() == 100 and square[9:19, 9:19].all()
    assert abs(int(masks["three pixels in four"].sum()) - 588) < 40 and masks["everything"].all()


def test_a_run_leaves_the_seen_pixels_alone_and_climbs(hidden_pixels):
    picture = hidden_pixels.picture
    ((frames, log_p),) = list(picture.runs.values())[:1]
    x, hidden = picture.images[8, 0], picture.masks["top half"]
    assert len(log_p) == 11 and len(frames) == 3
    for frame in frames:
        assert torch.equal(frame[:, ~hidden], x[~hidden].expand(5, -1))
    assert not torch.equal(frames[0][0], frames[-1][0]), "MAP moved"
    torch.testing.assert_close(frames[0][1], frames[0][0])  # MAP and the first chain part from one sample
    assert not torch.equal(frames[0][1], frames[0][2])
    torch.testing.assert_close(log_p[0], picture.flow.log_prob(frames[0]).detach())


def test_the_steps_are_scrubbed_and_a_new_mask_waits_for_its_run(hidden_pixels):
    explorer = hidden_pixels
    explorer.set(digit=8, which=0, mask="top half", step=10)
    late = explorer.numbers
    explorer.set(step=0)
    assert late["state"] == "step 10" and explorer.numbers["state"] == "step 0"
    assert late["MAP"] != explorer.numbers["MAP"]
    explorer.set(mask="left half", step=10)
    assert explorer.numbers["state"] == "press Fill in" and explorer.numbers["hidden pixels"] == "392"
    explorer._fill()
    assert explorer.errors == [] and explorer.numbers["state"] == "step 10" and explorer.progress.value == 10
    assert not explorer.start_button.disabled and explorer.stop_button.disabled
    explorer.set(digit=3)
    assert explorer.numbers["state"] == "press Fill in"


def test_painting_hides_pixels_of_the_left_image_alone(hidden_pixels):
    explorer = hidden_pixels
    explorer.set(digit=8, which=0, mask="top half")
    explorer.on_pointer("down", explorer.picture.strips[0].axes, 10.0, 20.0)
    assert explorer.controls["mask"].value == "top half"
    explorer.on_pointer("down", explorer.picture.left, 10.2, 19.8)
    explorer.on_pointer("move", explorer.picture.left, 0.0, 27.0)
    hidden = explorer.picture.hidden(draw.YOURS).view(28, 28)
    assert explorer.controls["mask"].value == draw.YOURS and explorer.errors == []
    assert hidden[18:23, 8:13].all() and hidden[25:28, 0:3].all() and hidden.sum() == 25 + 9
    assert explorer.numbers["hidden pixels"] == "34"
    shown = np.asarray(explorer.picture.given.get_array())
    assert np.ptp(shown[20, 10]) > 0.3 and np.ptp(shown[5, 5]) == 0, "hidden is orange, seen is gray"
    explorer._clear()
    assert explorer.numbers["hidden pixels"] == "0"


def test_figures_show_what_they_are_given():
    a = torch.linspace(0, 1, 11)[:, None] * torch.ones(784)
    path = {"in z": torch.linspace(3, 5, 11), "in pixels": torch.linspace(5, 1, 11)}
    figure = draw.interpolation({"in z": a, "in pixels": a}, path, 3.0)
    assert [sum(isinstance(c, AxesImage) for c in axes.get_children()) for axes in figure.axes] == [1, 1, 0]
    assert "in z 3, in pixels 1" in figure.get_label()
    figure = draw.log_likelihoods({"test": torch.arange(100.0), "samples": torch.arange(100.0) + 50}, 200.0)
    assert "test 50, samples 100; the most likely image 200" in figure.get_label()
    figure = draw.spectra({"one": torch.linspace(0.1, 0.001, 784), "two": torch.full((784,), 0.5)})
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(0.1) and "two 0.5 to 0.5" in figure.get_label()

    history = History(100, [toys.BITS * 8] * 40 + [toys.BITS * 6] * 60, {50: toys.BITS * 7, 100: toys.BITS * 5.5})
    figure = draw.bits_falling(history, {"published": 4.36})
    assert "from 7.00 to 5.50" in figure.get_label() and figure.axes[0].get_ylim()[0] < 4.36


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_two_ways_to_cool_are_densities(tau):
    figure = draw.temperatures(tau)
    p, scaled, power = (line.get_xydata() for line in figure.axes[0].lines)
    for curve in (p, scaled, power):
        assert curve[:, 1].sum() * (curve[1, 0] - curve[0, 0]) == pytest.approx(1, abs=2e-3)
    if tau == 1:
        np.testing.assert_allclose(scaled, power, atol=1e-3)
    else:
        assert power[1000, 1] > scaled[1000, 1] and power[200, 1] < scaled[200, 1]


# Exercises


def per_dim(prior, tau):
    return float(lesson.excess_over_cooled(1, prior, tau))


def by_draws(D, prior, tau):
    g = torch.Generator().manual_seed(0)
    base = StandardNormal(1) if prior == "normal" else StandardLogistic(1)
    z = base.sample(200_000, g)
    return D * float(base.log_prob(torch.zeros(1)) - base.log_prob(tau * z).mean())


def needed(parts, share, more=0):
    held = parts.sort(descending=True).values.cumsum(0) / parts.sum()
    return int((held < share).sum()) + 1 + more


def needed_by_loop(s, share):
    parts, count = sorted((math.exp(-2 * v) for v in s.tolist()), reverse=True), 0
    while sum(parts[:count]) < share * sum(parts):
        count += 1
    return count


def schedule(rates, noise=lambda a: math.sqrt(2 * a)):
    return lambda steps: [(a, noise(a)) for a in rates]


def run(step, a, points=4000, times=5, score=lambda x: -x, spread=lambda x: x.var()):
    x = torch.zeros(points)
    for _ in range(int(times / a)):
        x = step(x, score, a, torch.randn(points))
    return spread(x)


FALLING = [max(0.5 * 0.93**i, 0.01) for i in range(60)]

# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda D, prior, tau: -D * per_dim(prior, tau), "mode minus mean"),
    (1, lambda D, prior, tau: per_dim(prior, tau), "for one dimension"),
    (1, lambda D, prior, tau: D * per_dim(prior, tau) / math.log(2), "in bits"),
    (1, lambda D, prior, tau: D * per_dim("logistic", tau), "the other prior"),
    (1, lambda D, prior, tau: D * per_dim(prior, 1.0), "That is at τ = 1"),
    (1, lambda D, prior, tau: D * per_dim(prior, 1.0) * tau**2, "a power of τ"),
    (1, lambda D, prior, tau: D * per_dim(prior, 1.0) * tau, "a power of τ"),
    (1, lambda D, prior, tau: 1.0, "over draws z of the prior"),
    (2, lambda s, share: needed((2 * s).exp(), share), "the largest S"),
    (2, lambda s, share: needed((-s).exp(), share), "You added up 1/S"),
    (2, lambda s, share: needed((-2 * s).exp(), share, -1) or 1, "One off"),
    (2, lambda s, share: math.ceil(share * len(s)), "not equally wide"),
    (2, lambda s, share: share, "whole number from 1"),
    (2, lambda s, share: needed((-2 * s).exp(), share, 2), "count until the sum"),
    (3, lambda steps: 0.1, "a list of pairs"),
    (3, schedule([0.1] * 10), "Expected 60 pairs"),
    (3, schedule([-0.1] * 60, abs), "is not below 0"),
    (3, schedule([0.9] * 60), "runs away"),
    (3, schedule(FALLING, lambda a: 0.0), "stands still"),
    (3, schedule(FALLING, math.sqrt), "draw at the temperature"),
    (3, schedule([0.01] * 60), "has not arrived"),
    (3, schedule([0.1] * 60), "the last steps are too long"),
    (4, lambda step, a: run(step, a, score=lambda x: x), "It ran away"),
    (4, lambda step, a: run(step, a, spread=lambda x: x.std()), "That is the deviation"),
    (4, lambda step, a: 1 / run(step, a), "Upside down"),
    (4, lambda step, a: run(step, a, spread=lambda x: x.mean()), "Is it the mean"),
    (4, lambda step, a: run(step, a, times=0.2), "too early"),
    (4, lambda step, a: 3 * run(step, a), "Give eps a variance of 1"),
]

RIGHT = [
    (1, by_draws),
    (1, lambda D, prior, tau: D * tau**2 / 2 if prior == "normal" else by_draws(D, prior, tau)),
    (1, lambda D, prior, tau: torch.tensor([D * per_dim(prior, tau)])),
    (2, lambda s, share: needed((-2 * s).exp(), share)),
    (2, needed_by_loop),
    (
        2,
        lambda s, share: (
            np.searchsorted(np.cumsum(np.sort(np.exp(-2 * s.numpy()))[::-1]), share * np.exp(-2 * s.numpy()).sum()) + 1
        ),
    ),
    (3, schedule([max(0.45 * 0.94**i, 0.01) for i in range(60)])),
    (3, schedule([0.4] * 20 + [0.2] * 10 + [0.05] * 15 + [0.01] * 15)),
    (3, lambda steps: np.array([(a, np.sqrt(2 * a)) for a in np.geomspace(0.45, 0.008, steps)])),
    (4, lambda step, a: run(step, a, spread=lambda x: (x**2).mean())),
    (4, lambda step, a: run(step, a, spread=lambda x: float(np.var(x.numpy())))),
    (4, lambda step, a: run(step, a, times=8, spread=lambda x: x.std() ** 2)),
]


def test_the_worked_answers_are_the_packages():
    for prior, tau in (("logistic", 1.0), ("normal", 0.7), ("logistic", 0.4)):
        assert lesson.excess_over_cooled(200, prior, tau) == pytest.approx(by_draws(200, prior, tau), rel=0.01)
    assert lesson.excess_over_cooled(784, "logistic", 1.0) == pytest.approx(784 * (2 - 2 * math.log(2)), rel=1e-3)
    flow = nice(30, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        flow.bijection[-1].log_scale.normal_(generator=torch.Generator().manual_seed(0))
    k = lesson.directions_needed(flow.bijection[-1].log_scale, 0.9)
    squares = widths(flow).square()
    assert squares.topk(k).values.sum() >= 0.9 * squares.sum() > squares.topk(k - 1).values.sum()


def test_the_museum_is_as_hot_as_the_praise_says():
    torch.manual_seed(0)
    hot = {name: float(lesson.temperature(step, 0.05)) for name, step in museum().items()}
    assert hot == pytest.approx({"A": 0.5, "B": 0.025, "C": 1.0, "D": 0.5}, rel=0.15)
