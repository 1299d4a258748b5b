"""The flow made by hand in start_here is exact, its explorer can be moved, and wrong answers meet their hints."""

import asyncio
import math
from importlib import metadata

import numpy as np
import pytest
import torch
from torch.func import jacrev, vmap

import flowlab
from flowlab.course import installation
from flowlab.lessons.start_here.explorer import BendTheGaussian
from flowlab.lessons.start_here.toys import START, hand_flow

# Pictures and explorers


BENT = {"size": 1.7, "push": 0.4, "wings": 0.7, "swirl": 0.6}


def test_each_step_has_its_inverse_and_its_log_det():
    x = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bijection = hand_flow(**BENT).bijection
    for step in [*bijection, bijection]:
        z, log_det = step(x)
        back, back_log_det = step.inverse(z)
        jacobian = vmap(jacrev(lambda one, step=step: step(one)[0]))(x)
        assert torch.allclose(log_det, torch.linalg.slogdet(jacobian).logabsdet, atol=1e-9)
        assert torch.allclose(back, x, atol=1e-9) and torch.allclose(log_det, -back_log_det, atol=1e-9)


def test_the_hand_made_density_integrates_to_one():
    line = torch.linspace(-10, 10, 1000)
    p = hand_flow(**BENT).log_prob(torch.cartesian_prod(line, line)).exp()
    assert abs(float(p.sum()) * (20 / 999) ** 2 - 1) < 1e-3


def test_untouched_it_is_the_gaussian():
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(hand_flow(**START).log_prob(x), -0.5 * x.square().sum(-1) - math.log(2 * math.pi), atol=1e-5)


@pytest.fixture
def explorer():
    return BendTheGaussian(steps=60)


def test_a_gripped_point_of_the_grid_follows_the_hand(explorer):
    explorer.set(**BENT)
    z, _ = hand_flow(**BENT).bijection(torch.tensor([[1.2, 0.8]]))
    explorer.on_pointer("down", explorer.picture.yours, 1.2, 0.8)
    for t in np.linspace(0, 1, 6):
        explorer.on_pointer("move", explorer.picture.yours, 1.2 - t, 0.8 + 0.9 * t)
    x, _ = hand_flow(**explorer.values()).bijection.inverse(z)
    assert torch.allclose(x, torch.tensor([[0.2, 1.7]]), atol=0.03)
    explorer.on_pointer("up", explorer.picture.yours, 0.2, 1.7)
    before = explorer.values()
    explorer.on_pointer("move", explorer.picture.yours, 2.0, 2.0)
    explorer.on_pointer("down", explorer.picture.race, 2.0, 2.0)
    explorer.on_pointer("move", explorer.picture.race, 20.0, 1.0)
    assert explorer.values() == before and explorer.errors == []


@pytest.mark.slow
def test_training_lowers_the_gauge_and_can_be_scrubbed(explorer):
    assert "snapshot" not in explorer.controls
    start = explorer.numbers["trained flow"]
    explorer.start_button.click()
    assert explorer.errors == [] and explorer.progress.value == 60 and not explorer.start_button.disabled
    assert explorer.numbers["trained flow"] < 0.5 * start and explorer.numbers["after training step"] == "60"
    last = explorer.picture.png()
    explorer.scrub.value = 0
    assert explorer.numbers["trained flow"] == start and explorer.picture.png() != last
    explorer.scrub.value = explorer.scrub.max
    assert explorer.picture.png() == last
    explorer.start_button.click()
    assert explorer.picture.png() == last, "the same training gives the same picture"


def test_training_stops_when_asked():
    explorer = BendTheGaussian(steps=100_000)

    async def press():
        explorer.start_button.click()
        assert explorer.start_button.disabled and not explorer.stop_button.disabled, "one run at a time"
        await asyncio.sleep(0.6)
        explorer.controls["swirl"].value = 0.5  # the sliders stay alive meanwhile
        explorer.stop_button.click()
        await asyncio.sleep(0.4)

    asyncio.run(press())
    assert explorer.errors == [] and 0 < explorer.progress.value < 100_000
    assert explorer.stop_button.disabled and not explorer.start_button.disabled


# Exercises


LOG3 = math.log(3)


def logs(value):
    """A wrong answer to exercise 3: z is right, log_det is this number for each point."""
    return lambda x: (3 * x, torch.full((len(x),), value))


def small():
    return flowlab.spline_flow(2, layers=1, hidden=(16,))


def fitted(make, *, steps, data=lambda x: x):
    """An answer to exercise 4: the flow, for how long it is trained, and what is done to the points."""

    def answer(x):
        flow = make()
        flowlab.fit(flow, data(x), steps=steps, learning_rate=1e-2, progress=False)
        return flow

    return answer


class Spikes:
    """A narrow Gaussian on each training point."""

    def __init__(self, x):
        self.x = x

    def log_prob(self, x):
        near = torch.distributions.Normal(self.x, 0.05).log_prob(x[:, None]).sum(-1)
        return near.logsumexp(-1) - math.log(len(self.x))


class Smooth(Spikes):
    """Wider ones: a kernel density, which is no flow, and good enough."""

    def log_prob(self, x):
        near = torch.distributions.Normal(self.x, 0.4).log_prob(x[:, None]).sum(-1)
        return near.logsumexp(-1) - math.log(len(self.x))


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (1, lambda z: 2 * z + 3, "the map itself"),
    (1, lambda z: 2 * z - 3, "2 still multiplies"),
    (1, lambda z: 2 * (z - 3), "divide by 2"),
    (1, lambda z: z / 2 - 3, "wrong order"),
    (1, lambda z: z / 2 + 3, "Only the product"),
    (1, lambda z: (z + 3) / 2, "You add 3 where"),
    (1, lambda z: (3 - z) / 2, "sign is reversed"),
    (1, lambda z: z, "Try it"),
    (1, lambda z: None, "None: x is missing"),
    (1, lambda z: 1.0, "Expected x as shape"),
    (1, lambda z: "x", "Expected x as numbers"),
    (1, lambda z: z / 0 / "a", "raised TypeError"),
    (2, lambda a, b: a - b, "one number for each point"),
    (2, lambda a, b: (b - a).mean(), "sign is reversed"),
    (2, lambda a, b: (a - b).sum(), "took the sum"),
    (2, lambda a, b: (a - b).abs().mean(), "No absolute value"),
    (2, lambda a, b: ((a - b) ** 2).mean(), "No square"),
    (2, lambda a, b: (a.exp() * (a - b)).mean(), "weigh the points"),
    (2, lambda a, b: (a.exp() - b.exp()).mean(), "compares densities"),
    (2, lambda a, b: (a - b).exp().mean(), "mean ratio"),
    (2, lambda a, b: a.mean() / b.mean(), "A ratio of logarithms"),
    (2, lambda a, b: (a - b).mean() / math.log(2), "Those are bits"),
    (2, lambda a, b: -a.mean(), "loss of A alone"),
    (2, lambda a, b: (a > b).double().mean(), "share of points"),
    (2, lambda a, b: b.mean(), "At the test points"),
    (2, lambda a, b: None, "the difference is missing"),
    (3, lambda x: 3 * x, "Return two things"),
    (3, lambda x: (x / 3, torch.full((len(x),), 2 * LOG3)), "That is the inverse"),
    (3, lambda x: (x + 3, torch.full((len(x),), 2 * LOG3)), "not 3x yet"),
    (3, lambda x: (3 * x[0], 2 * LOG3), "Expected z as shape"),
    (3, lambda x: (3 * x, 2 * LOG3), "one number for each of the n points"),
    (3, logs(LOG3), "Only one direction"),
    (3, logs(-2 * LOG3), "the way back"),
    (3, logs(9.0), "9 is the determinant"),
    (3, logs(3.0), "3 is the stretch"),
    (3, logs(6.0), "directions multiply"),
    (3, logs(2 * math.log2(3)), "Those are bits"),
    (3, logs(2 * math.log10(3)), "not log10"),
    (3, logs(0.0), "areas stay"),
    (3, logs(7.0), "the matrix with 3, 3"),
    (3, lambda x: (None, None), "None: z is missing"),
    (4, lambda x: flowlab.fit(flowlab.spline_flow(2, layers=1), x, steps=1, progress=False), "the history"),
    (4, lambda x: flowlab.spline_flow(2), "nothing has moved it"),
    (4, fitted(small, steps=40, data=lambda x: (x - x.mean(0)) / x.std(0)), "its own units"),
    (4, fitted(small, steps=2), "Nearly: try more steps"),
    (4, Spikes, "it overfits"),
    (4, lambda x: None, "returned None"),
    (4, lambda x: x, "which has a log_prob"),
]


RIGHT = [
    (1, lambda z: 0.5 * z - 1.5),
    (1, lambda z: (np.asarray(z) - 3) / 2),
    (1, lambda z: [(float(v) - 3) / 2 for v in z]),
    (2, lambda a, b: float(a.mean() - b.mean())),
    (2, lambda a, b: np.mean(np.asarray(a)) - np.mean(np.asarray(b))),
    (2, lambda a, b: sum(a.tolist()) / len(a) - sum(b.tolist()) / len(b)),
    (3, lambda x: (x * 3, torch.ones(len(x)) * math.log(9))),
    (3, lambda x: (x @ (3 * torch.eye(2)), 2.2 + 0 * x[:, 0])),
    (3, lambda x: [3 * x.numpy(), np.full(len(x), np.log(9))]),
    (4, fitted(lambda: flowlab.realnvp(2, 6, hidden=(32,), generator=torch.Generator().manual_seed(0)), steps=400)),
    (4, Smooth),
]


@pytest.mark.slow
def test_the_installation_is_reported_line_by_line(capsys):
    installation.report()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Everything works." and len(lines) == len(installation.LOOKS) + 1
    assert all(line.startswith("✔") for line in lines[:-1])
    assert torch.__version__ in lines[0] and "5,000" in lines[2]


@pytest.mark.slow
def test_a_missing_package_is_named_with_what_to_do(capsys, monkeypatch):
    def version(name, real=metadata.version):
        if name == "anywidget":
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "torch" else real(name)

    monkeypatch.setattr(installation.metadata, "version", version)
    installation.report()
    out = capsys.readouterr().out
    assert "✘ versions: " in out and "anywidget is missing" in out and "torch is 1.0" in out and ".[lab]" in out
    assert "Not ready yet" in out
