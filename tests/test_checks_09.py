"""Each known wrong answer of notebook 09 meets its own hint, and no other's; and the museum's piece is what it says."""

import itertools
import math

import torch
from torch import Generator

from flowlab.lessons.the_variational_mixture_of_flows import exercises as notebook_09
from flowlab.metrics import accuracy


def each(flows, n, g):
    return torch.stack([flow(n, g) for flow in flows])


def picked(flows, k, n, g):
    return each(flows, n, g)[k, torch.arange(n)], k


def joint(log_p, w):
    return w.log() + log_p


def sides(inside, a, b, empty=-math.inf):
    e = torch.full_like(a, empty)
    return torch.stack((torch.where(inside, a, e), torch.where(inside, e, b)), -1)


def table(q, y):
    found = torch.zeros(q.shape[-1], q.shape[-1])
    return found.index_put_((y, q.argmax(-1)), torch.ones(len(y)), accumulate=True)


def dead(q):
    return [k for k in range(q.shape[-1]) if (q.argmax(-1) == k).float().mean() < 0.01]


def right(q, y):
    return accuracy(y, q.argmax(-1))


def integral(f, half=6.0, size=500):
    side = torch.linspace(-half, half, size)
    points = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    with torch.no_grad():
        return float(f(points).exp().sum() * (side[1] - side[0]) ** 2)


def peak(f):
    side = torch.linspace(-6, 6, 501)
    with torch.no_grad():
        return float(f(torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)).max())


def index_of(values, best=max):
    values = list(values)
    return values.index(best(values))


def greedy(q, y):
    counts, total = table(q, y), 0
    for _ in range(len(counts)):
        row, column = divmod(int(counts.argmax()), counts.shape[1])
        total += max(float(counts[row, column]), 0)
        counts[row], counts[:, column] = -1, -1
    return total / len(y)


# number, what the student does, and words that stand in the hint for it alone
WRONG = [
    ("09.1", lambda f, w, n, g: ((w[:, None, None] * each(f, n, g)).sum(0), torch.zeros(n).long()), "does not average"),
    ("09.1", lambda f, w, n, g: picked(f, torch.ones(n).long(), n, g), "from one component. Draw k anew"),
    ("09.1", lambda f, w, n, g: picked(f, torch.randint(3, (n,), generator=g), n, g), "gave a third"),
    (
        "09.1",
        lambda f, w, n, g: (picked(f, torch.multinomial(w, n, True, generator=g), n, g)[0], torch.zeros(n).long()),
        "does not say where",
    ),
    (
        "09.1",
        lambda f, w, n, g: picked(f, torch.arange(3).repeat_interleave((w * n).round().long()), n, g),
        "come in blocks",
    ),
    ("09.1", lambda f, w, n, g: picked(f, torch.multinomial(w.sqrt(), n, True, generator=g), n, g), "not the weights"),
    (
        "09.1",
        lambda f, w, n, g: (lambda k: (torch.stack([flow(1, g)[0] for flow in f])[k], k))(
            torch.multinomial(w, n, True, generator=g)
        ),
        "a draw of its own",
    ),
    ("09.1", lambda f, w, n, g: picked(f, torch.multinomial(w, n, True, generator=g), n, g)[0], "Return two things"),
    ("09.2", lambda p, w: -(joint(p, w).softmax(-1) * joint(p, w)).sum(-1).mean(), "move with θ"),
    ("09.2", lambda p, w: -joint(p, w).max(-1).values.mean(), "hard EM"),
    ("09.2", lambda p, w: -(p.softmax(-1).detach() * joint(p, w)).sum(-1).mean(), "forget the weights"),
    ("09.2", lambda p, w: joint(p, w).logsumexp(-1).mean(), "minus the bound"),
    ("09.2", lambda p, w: -joint(p, w).logsumexp(-1).sum(), "the sum over the points"),
    ("09.2", lambda p, w: -joint(p, w).mean(), "pulled to every point alike"),
    ("09.2", lambda p, w: -(w * p).sum(-1).mean(), "before x is seen"),
    ("09.2", lambda p, w: -joint(p, w).detach().logsumexp(-1).mean(), "No gradient passes"),
    ("09.2", lambda p, w: -joint(p, w).logsumexp(0).mean(), "should be −p(k | x)/N"),
    ("09.3", lambda p, i, w: torch.stack((p, p), -1), "it cuts nothing"),
    ("09.3", lambda p, i, w: sides(i, p, p), "probability of its side only"),
    ("09.3", lambda p, i, w: sides(i, p + math.log(w), p + math.log(1 - w)), "You multiplied by the weight"),
    ("09.3", lambda p, i, w: sides(i, p - math.log(w), p - math.log(w)), "divided it by weight"),
    ("09.3", lambda p, i, w: sides(i, p - math.log(1 - w), p - math.log(w)), "by the other's probability"),
    ("09.3", lambda p, i, w: sides(~i, p - math.log(1 - w), p - math.log(w)), "Swapped"),
    ("09.3", lambda p, i, w: sides(i, p - math.log(w), p - math.log(1 - w)).exp(), "Asked are their logarithms"),
    ("09.3", lambda p, i, w: sides(i, p - math.log(w), p - math.log(1 - w), 0.0), "log 0 is not 0"),
    ("09.3", lambda p, i, w: sides(i, 2 * p, p), "what is p(x | 1) there"),
    ("09.4", lambda q, y: (dead(q), float(q.max(-1).values.mean())), "how sure q is"),
    ("09.4", lambda q, y: (dead(q), float((q.argmax(-1) == y).float().mean())), "match them first"),
    ("09.4", lambda q, y: (dead(q), float(table(q, y).max(0).values.sum() / len(y))), "This is purity"),
    ("09.4", lambda q, y: (dead(q), float(table(q, y).max(1).values.sum() / len(y))), "its favorite component"),
    ("09.4", lambda q, y: (dead(q), greedy(q, y)), "Greedy"),
    ("09.4", lambda q, y: (dead(q), 1 - right(q, y)), "share of errors"),
    ("09.4", lambda q, y: (dead(q), 0.5), "make the table"),
    ("09.4", lambda q, y: ([k for k in range(4) if q[:, k].max() < 0.01], right(q, y)), "never says 0"),
    ("09.4", lambda q, y: ([0], right(q, y)), "you called [0] dead"),
    ("09.4", lambda q, y: right(q, y), "Return two things"),
    ("09.5", lambda fs: index_of(map(peak, fs)), "You accuse the needle"),
    ("09.5", lambda fs: index_of(map(integral, fs)), "Too little is wrong too"),
    ("09.5", lambda fs: index_of(map(peak, fs), min), "an integral of about 4"),
    ("09.5", lambda fs: fs.index(fs[-1]) + 1, "Expected an index"),
    ("09.5", lambda fs: [integral(f) for f in fs], "as one number"),
]


def draw_one_by_one(flows, weights, n, generator):
    k = torch.multinomial(weights, n, replacement=True, generator=generator)
    return torch.cat([flows[j](1, generator) for j in k.tolist()]), k


def match_by_trying_all(q, y):
    counts, K = table(q, y), q.shape[-1]
    best = max(sum(float(counts[c, k]) for c, k in enumerate(order)) for order in itertools.permutations(range(K)))
    return dead(q), best / len(y)


RIGHT = [
    ("09.1", draw_one_by_one),
    ("09.2", lambda p, w: -joint(p, w).logsumexp(-1).mean()),  # Fisher's identity
    (
        "09.3",
        lambda p, inside, w: torch.stack(
            [p + share.double().log() - math.log(part) for share, part in ((inside, w), (~inside, 1 - w))], -1
        ),
    ),
    ("09.4", match_by_trying_all),
    ("09.5", lambda fs: index_of(abs(math.log(integral(f))) for f in fs)),
]


def test_the_museums_flow_has_a_wrong_log_det_and_a_right_map():
    """Against autograd: what it adds too much is the scale of the dimension that passes unchanged."""
    museum = notebook_09.MuseumFlow(1, Generator().manual_seed(0)).double()
    network = museum.networks[0]
    torch.nn.init.normal_(network.last.weight, generator=Generator().manual_seed(1))
    x = torch.randn(5, 2, generator=Generator().manual_seed(2), dtype=torch.float64)
    b = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def forward(x):
        s, t = network(b * x).chunk(2, -1)
        return b * x + (1 - b) * (x * s.tanh().exp() + t)

    J = torch.func.vmap(torch.func.jacrev(lambda point: forward(point[None])[0]))(x)
    honest = museum.base.log_prob(forward(x)) + J.det().abs().log()
    too_much = network(b * x).chunk(2, -1)[0].tanh()[:, 1]
    torch.testing.assert_close(museum.log_prob(x), honest + too_much)
    assert too_much.abs().min() > 1e-3
