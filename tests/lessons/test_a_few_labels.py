"""Each known wrong answer of a_few_labels meets its own hint, and no other's; what its pictures promise holds."""

import math

import numpy as np
import pytest
import torch

from flowlab.densities.mixtures import LatentGaussianMixture, supervised
from flowlab.lessons.a_few_labels import exercises as lesson
from flowlab.lessons.a_few_labels.explorer import ClickLabels
from flowlab.lessons.a_few_labels.figures import YOURS, regions
from flowlab.models import flow_mixture
from flowlab.studies.flow_mixtures import CIRCLES, label_sets, pair


def pick(t, y):
    return t[torch.arange(len(y)), y]


def log_q(logits, y):
    return pick(logits.log_softmax(-1), y)


def binomial(count, wrong, r):
    return math.comb(count, r) * (1 - wrong) ** r * wrong ** (count - r)


def most(count, wrong, tie=0.5):
    total = sum(binomial(count, wrong, r) for r in range(count // 2 + 1, count + 1))
    return total + (tie * binomial(count, wrong, count // 2) if count % 2 == 0 else 0.0)


def squares(z, means):
    return ((z.unsqueeze(1) - means) ** 2).sum(-1)


def joint(z, log_det, means, log_weights):
    return log_weights - squares(z, means) / 2 - z.shape[-1] / 2 * math.log(2 * math.pi) + log_det[:, None]


def angles(p):
    return torch.atan2(p[:, 1], p[:, 0])


def between(p):
    return torch.cosine_similarity(p[:, None], p, dim=-1).clamp(-1, 1).acos()


def pair_of(p, ring, value):
    """The two rows, of different rings, with the least value."""
    return divmod(int(torch.where(ring[:, None] != ring, value, math.inf).argmin()), len(p))


def by_counting_lines(p, ring):
    turn = (torch.arange(2000) + 0.5) / 2000 * math.pi
    side = p @ torch.stack((turn.cos(), turn.sin())) > 0  # on which side of each line a point lies
    rows = [(i, j) for i in range(len(p)) for j in range(i) if ring[i] != ring[j]]
    return max(rows, key=lambda pair: int((side[pair[0]] == side[pair[1]]).sum()))


def nearest(points, places):
    """Rows of the points that are nearest to (radius, share of a turn)."""
    places = torch.tensor([(r * math.cos(2 * math.pi * a), r * math.sin(2 * math.pi * a)) for r, a in places])
    return torch.cdist(places, points).argmin(-1).tolist()


def even(points, outer, inner, start=0.0):
    places = [(0.8, (start + i) / outer) for i in range(outer)] + [(0.4, (start + i) / inner) for i in range(inner)]
    return nearest(points, places)


# the exercise, what the student does, and words that stand in the hint for it alone
WRONG = [
    (2, lambda p, r: pair_of(p, r, torch.cdist(p, p)), "nearest in distance"),
    (2, lambda p, r: pair_of(p, r, -between(p)), "farthest apart"),
    (2, lambda p, r: pair_of(p, r, (angles(p)[:, None] - angles(p)).abs()), "begin anew"),
    (2, lambda p, r: pair_of(p, r, torch.minimum(between(p), math.pi - between(p))), "Opposite points have one line"),
    (2, lambda p, r: pair_of(p, torch.arange(len(p)), between(p)), "Both are on one ring"),
    (2, lambda p, r: (0, int((r == 1).nonzero()[-1])), "least room between them"),
    (2, lambda p, r: (0.5, 1), "two different rows"),
    (1, lambda p, o, y: (pick(p, y) + log_q(o, y)).mean(), "sign is flipped"),
    (1, lambda p, o, y: -(pick(p, y) + pick(o, y)).mean(), "can be raised without end"),
    (1, lambda p, o, y: -(pick(p, y) + log_q(o, y).exp()).mean(), "q(y | x) itself"),
    (1, lambda p, o, y: -(pick(p, y) + log_q(o, y)).sum(), "Asked is the mean"),
    (1, lambda p, o, y: -(pick(p, y) + log_q(o, y)), "one number a point"),
    (1, lambda p, o, y: -(pick(p, y) + log_q(o, y)).mean() / p.shape[-1], "more entries"),
    (1, lambda p, o, y: -(p.sum(-1) + log_q(o, y)).mean(), "trains all components"),
    (1, lambda p, o, y: -(p.mean(-1) + log_q(o, y)).mean(), "averaged over the components"),
    (1, lambda p, o, y: -(p.logsumexp(-1) + log_q(o, y)).mean(), "fits best takes the point"),
    (1, lambda p, o, y: -pick(p, y).mean(), "q learns nothing"),
    (1, lambda p, o, y: -log_q(o, y).mean(), "the flows learn nothing"),
    (1, lambda p, o, y: 1 - (pick(p, y) + log_q(o, y)).mean(), "pick two numbers"),
    (4, lambda z, d, m, w: 3 * joint(z, d, m, w), "Add four things"),
    (4, lambda z, d, m, w: joint(z, 0 * d, m, w), "log-det is missing"),
    (4, lambda z, d, m, w: joint(z, -d, m, w), "not taken away"),
    (4, lambda z, d, m, w: joint(z, d, m, 0 * w), "not the joint"),
    (4, lambda z, d, m, w: joint(z, d, m, w.exp()), "the weights themselves"),
    (4, lambda z, d, m, w: w - squares(z, m) / 2 + d[:, None], "normal's constant"),
    (4, lambda z, d, m, w: joint(z, d, m, w) - squares(z, m) / 2, "half is missing"),
    (4, lambda z, d, m, w: joint(z, d, m, w).logsumexp(-1), "summed over k already"),
    (4, lambda z, d, m, w: joint(z, d, m, w).log_softmax(-1), "normalized over k"),
    (3, lambda points: points[:12], "and not points"),
    (3, lambda points: range(40), "1 to 12 points"),
    (3, lambda points: [-1, 5], "Rows go from 0"),
    (3, lambda points: points.norm(dim=-1).argsort()[-12:], "on one ring"),
    (3, lambda points: [*even(points, 3, 1)[:1]] * 2 + even(points, 0, 1), "a point twice"),
    (
        3,
        lambda points: nearest(points, [(r, a / 9) for r in (0.8, 0.4) for a in range(6)]),
        "one side",
    ),
    (3, lambda points: even(points, 3, 9), "the other ring is nearer"),
]


RIGHT = [
    (2, lambda p, r: sorted(pair_of(p, r, -(torch.cosine_similarity(p[:, None], p, dim=-1))))),
    (2, by_counting_lines),
    (2, lambda p, r: np.array(pair_of(p, r, between(p)))),
    (1, lambda p, o, y: torch.nn.functional.cross_entropy(o, y) - pick(p, y).mean()),
    (4, joint),
    (1, lambda p, o, y: -(torch.nn.functional.one_hot(y, p.shape[-1]) * (p + o.log_softmax(-1))).sum(-1).mean()),
    (1, lambda p, o, y: np.float32(-(pick(p, y) + pick(o.log_softmax(-1), y)).mean())),
    (4, lambda z, d, m, w: w + torch.distributions.Normal(m, 1.0).log_prob(z[:, None]).sum(-1) + d[:, None]),
    (
        4,
        lambda z, d, m, w: (
            w + torch.distributions.MultivariateNormal(m, torch.eye(z.shape[1])).log_prob(z[:, None]) + d[:, None]
        ),
    ),
    (4, lambda z, d, m, w: w - ((z[:, None] - m) ** 2).sum(-1) / 2 - z.shape[1] / 2 * 1.84 + d[:, None]),
    (3, lambda points: even(points, 8, 4)),
    (3, lambda points: np.array(even(points, 6, 6, 0.3))),
    (3, lambda points: torch.tensor(even(points, 7, 5, 1.0))[:, None]),
]


def test_the_worked_loss_and_joint_are_the_packages():
    g = torch.Generator().manual_seed(0)
    x, y = CIRCLES.truth.labelled(8, g)
    mixture = flow_mixture(2, 2, generator=g)
    loss = lesson.labelled_loss(mixture.log_prob_components(x), mixture.network(x), y)
    torch.testing.assert_close(loss, supervised(mixture, (x, y)))

    from flowlab.bijections import ScaleShift
    from flowlab.densities import GaussianMixture

    f = ScaleShift(2)
    torch.nn.init.constant_(f.log_scale, 0.7)
    one = LatentGaussianMixture(f, GaussianMixture(torch.tensor([[-2.0, 0.0], [2.0, 0.0]])))
    z, log_det = f(x)
    by_hand = lesson.log_joint(z, log_det, one.flow.base.means, one.log_weights)
    torch.testing.assert_close(by_hand, one.log_joint(x))


def test_sets_of_labels_are_what_their_names_say():
    x, y = CIRCLES.truth.labelled(1024, torch.Generator().manual_seed(3))
    sets = label_sets(x, y)
    for name in ("11", "32", "64"):
        rows, labels = sets[name]
        assert len(rows) == len(set(rows.tolist())) == int(name) and abs(int((2 * labels - 1).sum())) <= 1
        assert bool((labels == y[rows]).all())
    assert int((sets["32, one wrong"][1] != y[sets["32"][0]]).sum()) == 1
    assert len(sets["none"][0]) == 0
    for apart in (0.0, 1.0, math.pi):
        outer, inner = x[pair(x, y, apart)]
        cosine = float(outer @ inner / outer.norm() / inner.norm())
        assert cosine == pytest.approx(math.cos(apart), abs=0.05) and outer.norm() > 0.6 > inner.norm()


def click(explorer, row):
    explorer.on_pointer("down", explorer.picture.left, *explorer.picture.x[row].tolist())


def test_a_click_labels_a_point_and_training_uses_the_labels():
    explorer = ClickLabels(epochs=2)
    for row, times in zip(pair(explorer.picture.x, explorer.picture.y).tolist(), (1, 2), strict=True):
        for _ in range(times):
            click(explorer, row)
    assert list(explorer.picture.clicked.values()) == [0, 1] and explorer.values()["labels"] == YOURS
    assert "press Train" in explorer.numbers["state"]
    explorer.start_button.click()
    assert explorer.errors == [] and explorer.numbers["accuracy"] > 0.98  # q finds the rings before the flows do
    scrub = explorer.controls["snapshot"]
    assert scrub.value == scrub.max == len(explorer.picture.snapshots) - 1 > 1
    last = explorer.picture.png()
    explorer.set(snapshot=0)
    assert explorer.picture.png() != last
    click(explorer, next(iter(explorer.picture.clicked)))  # A becomes B
    assert list(explorer.picture.clicked.values()).count(1) == 2 and "press Train" in explorer.numbers["state"]


def test_a_click_beside_the_points_or_outside_does_nothing():
    explorer = ClickLabels()
    explorer.on_pointer("down", explorer.picture.left, 0.0, 0.0)
    explorer.on_pointer("down", explorer.picture.right, *explorer.picture.x[0].tolist())
    explorer.on_pointer("move", explorer.picture.left, *explorer.picture.x[0].tolist())
    assert explorer.picture.clicked == {} and explorer.values()["labels"] == "none"


def test_a_click_on_a_named_set_changes_a_copy_of_it():
    explorer = ClickLabels()
    explorer.set(labels="32")
    row, label = next(iter(explorer.picture.sets["32"].items()))
    click(explorer, row)
    assert explorer.picture.sets["32"][row] == label and len(explorer.picture.sets["32"]) == 32
    assert explorer.picture.clicked.get(row) == (1 if label == 0 else None)


def test_regions_are_white_where_q_is_unsure():
    q = torch.tensor([0.95, 0.6, 0.4, 0.02]).numpy()
    white = (regions(q, 0.9) == 1).all(-1)
    assert white.tolist() == [False, True, True, False]
    assert not (regions(q, 0.5) == 1).all(-1).any()
    assert (regions(q)[0] == regions(q)[1]).all() and (regions(q)[1] != regions(q)[2]).any()
