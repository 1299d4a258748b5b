"""Notebook 15: what is known to go wrong in its exercises, and that its worked answers are the package's."""

from itertools import pairwise

import pytest
import torch

from flowlab.bijections import AffineCoupling, Chain, InverseAutoregressive, MaskedAutoregressive, alternating_mask
from flowlab.lessons import exercises
from flowlab.networks import MaskedMLP


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


def forward(x, mean, log_std, sign=-1):
    return (x - mean(x)) * torch.exp(-log_std(x)), sign * log_std(x).sum(-1)


def with_z(z):
    return lambda x, m, a: (z(x, m(x), a(x)), -a(x).sum(-1))


def with_log_det(log_det):
    return lambda x, m, a: (forward(x, m, a)[0], log_det(x, m(x), a(x)))


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


def count(model, task, D, L):
    slow = {"MAF": ("sample", "sample with log_prob"), "IAF": ("log_prob",), "coupling": ()}
    return L * D if task in slow[model] else L


OTHER = {"MAF": "IAF", "IAF": "MAF", "coupling": "coupling"}

# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("15.1", lambda d: made(d, last=torch.le), "Output i sees input i"),
    ("15.1", lambda d: made(d, hidden=torch.lt), "cuts more than it must"),
    ("15.1", lambda d: [m.T for m in made(d)], "torch's own Linear"),
    ("15.1", lambda d: made(d, torch.ge, torch.gt), "lower the degree"),
    ("15.1", lambda d: made(d)[:-1], "also into the outputs"),
    ("15.1", unordered, "numbered the outputs as they stand"),
    ("15.1", leaky, "Multiply your masks"),
    ("15.1", sparse, "some connection is cut"),
    ("15.1", lambda d: [0.5 * m for m in made(d)], "True and False"),
    ("15.2", lambda o, j: through(o, j) - {j}, "itself is missing"),
    ("15.2", lambda o, j: behind(o[0], j), "after the first layer"),
    ("15.2", lambda o, j: behind(o[-1], j), "the last layer only"),
    ("15.2", lambda o, j: set().union(*(behind(order, j) for order in o)), "alone go through"),
    ("15.2", lambda o, j: {i for i in range(len(o[0])) if o[0][i] >= o[0][j]}, "at place j"),
    ("15.2", lambda o, j: set(range(len(o[0]))), "Not everything"),
    ("15.2", lambda o, j: set(), "Go through the layers"),
    ("15.3", lambda x, m, a: forward(x, m, a, sign=1), "sign is turned"),
    ("15.3", with_z(lambda x, m, a: x * a.exp() + m), "how one *draws*"),
    ("15.3", with_z(lambda x, m, a: (x - m) * a.exp()), "is *divided* by"),
    ("15.3", with_z(lambda x, m, a: (x - m) * (-a / 2).exp()), "log of a variance"),
    ("15.3", with_z(lambda x, m, a: (x - m) * (-2 * a).exp()), "divided by the variance"),
    ("15.3", with_z(lambda x, m, a: x * (-a).exp() - m), "First take μ away"),
    ("15.3", with_log_det(lambda x, m, a: -a), "a number for each coordinate"),
    ("15.3", with_log_det(lambda x, m, a: -a.mean(-1)), "not a mean"),
    ("15.3", with_log_det(lambda x, m, a: (-a.sum(-1)).exp()), "the determinant itself"),
    ("15.3", with_log_det(lambda x, m, a: -a.sum(-1) - 0.5 * (undo(x, a, m) ** 2).sum(-1)), "base density"),
    ("15.3", with_log_det(lambda x, m, a: 0 * a.sum(-1)), "is not 0"),
    ("15.4", lambda f, z: at_once(f, z, z), "once, at z"),
    ("15.4", lambda f, z: at_once(f, z, 0 * z), "at zeros"),
    ("15.4", lambda f, z: loop(f, z, lambda z, s, t: z * s.exp() + t), "instead of undoing"),
    ("15.4", lambda f, z: loop(f, z, lambda z, s, t: (z - t) * s.exp()), "now *divide*"),
    ("15.4", lambda f, z: loop(f, z, lambda z, s, t: z * (-s).exp() - t), "Undo the last thing first"),
    ("15.4", lambda f, z: loop(f, z, undo, range(z.shape[1] - 1, -1, -1)), "at zeros"),
    ("15.4", lambda f, z: loop(f, z, undo, range(z.shape[1] - 1)), "All but the last"),
    ("15.4", lambda f, z: z, "does not come back"),
    ("15.5", lambda m, t, D, L: count(OTHER[m], t, D, L), "are swapped"),
    ("15.5", lambda m, t, D, L: count(m, t, D, 1), "for one layer"),
    (
        "15.5",
        lambda m, t, D, L: (
            count(m, "sample", D, L) + (count(m, "log_prob", D, L) if "with" in t else 0)
            if "sample" in t
            else count(m, t, D, L)
        ),
        "the log_det came along",
    ),
    ("15.5", lambda m, t, D, L: D**L if count(m, t, D, L) > L else L, "do not multiply"),
    ("15.5", lambda m, t, D, L: 2 * L if m == "coupling" else count(m, t, D, L), "known in both directions"),
    ("15.5", lambda m, t, D, L: count("MAF" if m == "coupling" else m, t, D, L), "only two places"),
    ("15.5", lambda m, t, D, L: L, "Which of x and z"),
]

# number, a right answer that is not written as the worked one
RIGHT = [
    ("15.1", lambda d: tuple(m.float() for m in made(d))),
    ("15.2", lambda o, j: sorted(through(o, j))),
    ("15.3", lambda x, m, a: ((x - m(x)) / a(x).exp(), torch.log((-a(x)).exp().prod(-1)))),
    ("15.4", fixed_point),
    ("15.5", count),
]


@pytest.mark.parametrize(("places", "hidden"), [([2, 0, 3, 1], (5, 7)), ([0, 1, 2], (4,))])
def test_the_worked_masks_are_the_packages(places, hidden):
    network = MaskedMLP(len(places), hidden=hidden, order=places)
    layers = [*network.hidden, network.last]
    degrees = network.degrees.split([len(layer.mask) for layer in layers])
    worked = exercises()["15.1"].answer(list(degrees))
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
        assert set(moved.nonzero().flatten().tolist()) == exercises()["15.2"].answer(orders, j)


def test_the_worked_directions_are_the_packages():
    g = torch.Generator().manual_seed(0)
    layer = MaskedAutoregressive(4, (16,), activation="tanh", generator=g).double().requires_grad_(False)
    layer.conditioner.last.weight.normal_(generator=g)
    x = torch.randn(6, 4, dtype=torch.float64, generator=g)

    def network(x):
        s, t = layer.conditioner(x).unbind(-2)
        return 2 * torch.tanh(s), t

    z, log_det = layer(x)
    assert torch.allclose(exercises()["15.4"].answer(network, z), x)
    # The paper's letters: α = −s, μ = −t · exp(−s).
    worked = exercises()["15.3"].answer(x, lambda x: -network(x)[1] * (-network(x)[0]).exp(), lambda x: -network(x)[0])
    assert torch.allclose(worked[0], z) and torch.allclose(worked[1], log_det)


def test_the_worked_passes_are_counted_in_the_package():
    D, L, calls = 6, 3, []
    builders = {
        "MAF": lambda: MaskedAutoregressive(D, (8,)),
        "IAF": lambda: InverseAutoregressive(D, (8,)),
        "coupling": lambda: AffineCoupling(alternating_mask(D), (8,)),
    }
    for model, build in builders.items():
        flow = Chain([build() for _ in range(L)])
        for module in flow.modules():
            if type(module).__name__ in ("MaskedMLP", "MLP"):
                module.register_forward_hook(lambda *_: calls.append(1))
        for task, run in (("log_prob", flow.forward), ("sample", flow.inverse), ("sample with log_prob", flow.inverse)):
            calls.clear()
            run(torch.randn(2, D))
            assert len(calls) == exercises()["15.5"].answer(model, task, D, L), (model, task)
