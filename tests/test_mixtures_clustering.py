"""q by invariance: each term against numbers by hand, the stages in their order, and what is refused."""

import math

import pytest
import torch
from torch import Generator, Tensor, nn

from flowlab import models
from flowlab.densities import Dequantized
from flowlab.densities.mixtures import FlowMixture, Invariance
from flowlab.metrics import accuracy
from flowlab.training import Step, fit

K, D = 2, 4


class Table(nn.Module):
    """Logits of q that say log of what is asked: pixels below the middle in their first place are of component 0."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.tensor([[low, 1 - low], [high, 1 - high]]).log())

    def forward(self, x: Tensor) -> Tensor:
        return self.q[(x[..., 0] >= 0.5).long()]


def model(low: float = 0.9, high: float = 0.2) -> Dequantized:
    g = Generator().manual_seed(0)
    flows = models.realnvp(D, 2, hidden=(4,), standardize=False, stack=K, generator=g)
    with torch.no_grad():
        for p in flows.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return Dequantized(FlowMixture(flows, posterior=Table(low, high))).train()


def step(index: int = 0, total: int = 100) -> Step:
    return Step(index, total, Generator().manual_seed(index))


def mirrored(x: Tensor, generator: Generator) -> Tensor:
    return 1 - x


# Three of four images are below the middle.
V = torch.tensor([[10, 0, 0, 0], [20, 0, 9, 0], [30, 1, 0, 0], [250, 0, 0, 0]], dtype=torch.uint8)
Q_ALONE = {"first": 0.0, "flows": 1.0, "joint": 1.0}


def entropy(*p: float) -> float:
    return -sum(one * math.log(one) for one in p)


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_consistency_and_balance_are_those_of_the_formula():
    low, high = [0.9, 0.1], [0.2, 0.8]
    apart = (3 * kl(low, high) + kl(high, low)) / 4
    mean = (3 * 0.9 + 0.2) / 4
    information = entropy(mean, 1 - mean) - (3 * entropy(*low) + entropy(*high)) / 4
    for c, b in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0)):
        loss = Invariance(mirrored, consistency=c, balance=b, **Q_ALONE)(model(), V, step())
        assert loss.item() == pytest.approx(c * apart - b * information, rel=1e-5)


def test_labels_and_the_start_are_cross_entropies_at_the_changed_image():
    rows = V[[0, 3]]  # mirrored, the first is above the middle and the second below it
    told = Invariance(
        mirrored, labelled=(rows, torch.tensor([0, 1])), consistency=0, balance=0, classify=2.0, **Q_ALONE
    )
    assert told(model(), V, step()).item() == pytest.approx(-2 * (math.log(0.2) + math.log(0.1)) / 2, rel=1e-5)
    shares = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    start = Invariance(mirrored, start=(rows, shares), consistency=0, balance=1.0, first=0.1)
    by_hand = -(0.5 * math.log(0.2) + 0.5 * math.log(0.8) + math.log(0.9)) / 2
    assert start(model(), V, step(9)).item() == pytest.approx(by_hand, rel=1e-5)
    assert start(model(), V, step(10)).item() < 0, "from then on its own loss: here minus the mutual information"


def test_the_flows_join_a_dimension_for_a_dimension_first_alone_then_by_the_elbo():
    m = model(1 - 1e-6, 1e-6)  # so sure that k is no matter of chance
    objective = Invariance(mirrored, consistency=0, balance=0, first=0.0, flows=0.3, joint=0.6)
    assert objective(m, V, step(29)).item() == 0
    x = m.dequantize(V, m.noise(V, step(30).generator)[0])
    k = torch.tensor([0, 0, 0, 1])
    own = m.density.log_prob_of(x, k)
    assert objective(m, V, step(30)).item() == pytest.approx(-own.mean().item() / D, rel=1e-5)
    x = m.dequantize(V, m.noise(V, step(60).generator)[0])
    assert objective(m, V, step(60)).item() == pytest.approx(-m.density.elbo(x).total.mean().item() / D, rel=1e-5)


@pytest.mark.parametrize(
    ("index", "q_learns", "flows_learn"), ((29, False, False), (30, False, True), (60, True, True))
)
def test_drawn_components_teach_the_flows_alone_and_the_elbo_teaches_q_too(index, q_learns, flows_learn):
    m = model()
    objective = Invariance(mirrored, consistency=0, balance=1e-9, first=0.0, flows=0.3, joint=0.6)
    objective(m, V, step(index)).backward()
    moved = m.density.network.q.grad.abs().max() > 1e-6
    flows = [p.grad for p in m.density.flows.parameters()]
    assert bool(moved) == q_learns and all((g is not None) == flows_learn for g in flows)


def test_in_evaluation_mode_it_is_the_bound():
    m = model().eval()
    loss = Invariance(mirrored)(m, V, step(7))
    assert loss.item() == pytest.approx(-m.log_prob(V, generator=step(7).generator).mean().item())


def test_a_tiny_clustering_is_solved_without_a_label():
    """Two kinds of 6×6 images, a bar across and a bar down; moving a bar aside leaves it what it is."""
    g = Generator().manual_seed(0)
    place, y = torch.randint(1, 5, (400,), generator=g), torch.arange(400) % 2
    down = nn.functional.one_hot(place, 6)[:, None, :].expand(-1, 6, -1)
    images = torch.where(y[:, None, None] == 1, down, down.mT).mul(200).flatten(1).to(torch.uint8)

    def move(x: Tensor, generator: Generator) -> Tensor:
        square = x.unflatten(-1, (6, 6))
        steps = torch.randint(-1, 2, (2,), generator=generator).tolist()
        return square.roll(steps, (-2, -1)).flatten(1)

    shared = {"name": "realnvp", "settings": {"features": 36, "layers": 1, "hidden": [4], "logit": 1e-3}}
    density = {"name": "image_mixture", "settings": {"features": 36, "components": 2, "shared": shared, "hidden": [2]}}
    m = models.build({"name": "dequantized", "settings": {"density": density}}, generator=g)
    history = fit(m, images, epochs=30, batch_size=100, learning_rate=5e-3, objective=Invariance(move), progress=False)
    assert history.step == 120
    with torch.no_grad():
        assert accuracy(y, m.density.posterior((images + 0.5) / 256).argmax(-1)) > 0.98


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"consistency": -1.0}, "weights of at least 0"),
        ({"first": 0.5, "flows": 0.4}, "times 0 ≤ first ≤ flows ≤ joint ≤ 1"),
        ({"joint": 1.1}, "times 0 ≤ first"),
        ({"labelled": (V, torch.zeros(3).long())}, "a label for each, but got 4 and 3"),
        ({"start": (V[:0], torch.zeros(0, 2))}, "at least one labelled point"),
    ],
)
def test_what_makes_no_objective_is_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        Invariance(mirrored, **settings)


def test_labels_out_of_range_are_refused_in_words():
    objective = Invariance(mirrored, labelled=(V, torch.tensor([0, 1, 2, 0])))
    with pytest.raises(ValueError, match=r"whole labels .* from 0 to 1, one for each component"):
        objective(model(), V, step())
