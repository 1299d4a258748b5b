"""The conditioners against torch's own layers, stacks against separate networks, and a start at zero."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor, nn

from flowlab.networks import ACTIVATIONS, MLP, Linear

BATCHES = ((), (5,), (2, 3), (0,))


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def shaken(network: nn.Module, seed: int = 1) -> nn.Module:
    draw = generator(seed)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=draw)
    return network


def test_linear_is_torchs():
    """Torch's layer takes the transpose; both start uniform within ±1/√in."""
    ours, theirs = Linear(25, 4000, generator=generator()), nn.Linear(25, 4000)
    assert ours.weight.shape == (25, 4000) and ours.bias.shape == theirs.bias.shape
    x = torch.randn(3, 25, generator=generator())
    theirs.load_state_dict({"weight": ours.weight.T, "bias": ours.bias})
    torch.testing.assert_close(ours(x), theirs(x))
    for p in (ours.weight.detach(), ours.bias.detach()):
        assert 0.99 / 5 < p.abs().max() <= 1 / 5
        assert abs(float(p.mean())) < 0.01 and float(p.std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.05)


def textbook(f: MLP, x: Tensor, activation: nn.Module) -> Tensor:
    for layer in f.hidden:
        x = activation(x @ layer.weight + layer.bias)
    return x @ f.last.weight + f.last.bias


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", ((), (7,), (7, 5)))
@pytest.mark.parametrize("batch", BATCHES)
def test_mlp_is_the_textbook_one(activation, hidden, batch):
    f = shaken(MLP(3, 2, hidden=hidden, activation=activation))
    assert [tuple(layer.bias.shape) for layer in (*f.hidden, f.last)] == [(n,) for _, n in pairwise((3, *hidden, 2))]
    law = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "silu": nn.SiLU(), "gelu": nn.GELU()}[activation]
    x = torch.randn(*batch, 3, generator=generator())
    before = x.clone()
    y = f(x)
    assert y.shape == (*batch, 2) and torch.equal(x, before), "the input is left as it was"
    torch.testing.assert_close(y, textbook(f, x, law))


@pytest.mark.parametrize("hidden", ((), (7, 5)))
@pytest.mark.parametrize("batch", BATCHES)
def test_stack_of_mlps_is_separate_ones(hidden, batch):
    f, single = shaken(MLP(3, 2, hidden=hidden, stack=4)), MLP(3, 2, hidden=hidden)
    x = torch.randn(4, *batch, 3, generator=generator())
    for points in (x, x[:1].expand_as(x)):
        y = f(points)
        assert y.shape == (4, *batch, 2)
        for k in range(4):
            single.load_state_dict({name: value[k] for name, value in f.state_dict().items()})
            torch.testing.assert_close(y[k], single(points[k]))


@pytest.mark.parametrize("stack", (None, 3))
def test_mlp_starts_at_zero_and_learns_from_there(stack):
    f = MLP(3, 2, hidden=(8,), stack=stack, generator=generator())
    y = f(torch.randn(*((stack,) if stack else ()), 9, 3, generator=generator()))
    assert (y == 0).all()
    (y - 1).square().sum().backward()
    assert (f.last.weight.grad != 0).any() and (f.last.bias.grad != 0).all()
    assert (f.hidden[0].weight != 0).all()


def test_context_stands_beside_x():
    f, plain = MLP(2, 3, hidden=(6,), context_features=2), MLP(4, 3, hidden=(6,))
    plain.load_state_dict(shaken(f).state_dict())
    x, c = torch.randn(2, 5, 2, generator=generator()), torch.randn(2, 5, 2, generator=generator(3))
    torch.testing.assert_close(f(x, c), plain(torch.cat((x, c), -1)))
    torch.testing.assert_close(f(x, c[0, 0]), plain(torch.cat((x, c[0, 0].expand(2, 5, 2)), -1)))


@pytest.mark.parametrize(
    "built, given, words",
    (
        (2, None, "2 context features, but came none"),
        (2, 3, "2 context features, but came 3"),
        (0, 3, "no context .* 3"),
    ),
)
def test_wrong_context_is_refused_in_words(built, given, words):
    with pytest.raises(ValueError, match=words):
        MLP(2, 2, context_features=built)(torch.zeros(5, 2), None if given is None else torch.zeros(5, given))


def test_unknown_activation_is_refused_in_words():
    with pytest.raises(ValueError, match=r"among \['gelu', 'relu', 'silu', 'tanh'\], but came 'sine'"):
        MLP(2, 2, activation="sine")


def test_weights_come_from_the_generator_alone():
    state = torch.get_rng_state()
    a, b, c = (MLP(3, 2, generator=generator(seed)).hidden[0].weight for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "the global seed was touched"
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_stack_starts_with_different_weights():
    weight = MLP(3, 2, stack=2, generator=generator()).hidden[0].weight
    assert len(weight) == 2 and not torch.equal(weight[0], weight[1])
