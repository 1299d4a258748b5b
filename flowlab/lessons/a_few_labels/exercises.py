"""The exercises: the loss of labelled points, which two to label, twelve labels, one flow with two modes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.datasets import TwoCircles
from flowlab.lessons.base.exercise import Exercise, expect, numbers


def labelled_loss(log_p, logits, y):
    """−mean over the labelled points of [log p(x | y) + log q(y | x)], one number in nats.

    log_p is (M, K): log p(x | k) of each component; logits is (M, K): what the network of q gives before its softmax;
    y is (M,): the labels, from 0 to K − 1.
    """
    own = y.unsqueeze(-1)  # (M, 1)
    log_q = logits.log_softmax(-1)
    return -(log_p.gather(-1, own) + log_q.gather(-1, own)).mean()


def two_to_label(points, ring):
    """The two points, one of each ring, whose labels contradict the most halvings: two rows of ``points`` (N, 2).

    ring (N,) is 0 for points of the outer ring and 1 for those of the inner one. A halving cuts the plane along a line
    through the origin, all directions of the line equally likely, and gives each side a class of its own.
    """
    angle = torch.atan2(points[:, 1], points[:, 0])
    apart = (angle[:, None] - angle).abs()  # (N, N)
    apart = torch.minimum(apart, 2 * math.pi - apart)  # the shorter way round
    apart[ring[:, None] == ring] = math.inf
    return divmod(int(apart.argmin()), len(points))  # a halving agrees if its line passes between the two


def choose_labels(points):
    """The rows of at most 12 points of two circles that shall be labelled, before any label is known: whole numbers.

    points is (N, 2). Afterwards each point takes the label of the nearest labelled point, and at least 97 % of all
    points have to be right. The outer ring has radius 0.8 and the inner one 0.4.
    """
    rows = []
    for radius, count in ((0.8, 7), (0.4, 5)):
        angle = 2 * math.pi * torch.arange(count) / count
        places = radius * torch.stack((angle.cos(), angle.sin()), -1)  # evenly spaced on the ring
        rows += torch.cdist(places, points).argmin(-1).tolist()
    return rows


def log_joint(z, log_det, means, log_weights):
    """log π_k + log p(x | k) for one flow x → z whose base has K Gaussian modes with covariance I: (N, K).

    z is (N, D), with log_det (N,) of the map x → z; means is (K, D), log_weights (K,).
    """
    D = z.shape[-1]
    squares = ((z.unsqueeze(1) - means) ** 2).sum(-1)  # (N, K)
    return log_weights - 0.5 * squares - 0.5 * D * math.log(2 * math.pi) + log_det.unsqueeze(-1)


def check_loss(answer: Callable) -> None:
    """Three classes, five points, random numbers."""
    g = torch.Generator().manual_seed(10)
    for M, K in ((5, 3), (4, 2)):
        log_p = torch.randn(M, K, generator=g, dtype=torch.float64) - 1
        logits = 2 * torch.randn(M, K, generator=g, dtype=torch.float64) + 1
        y = torch.arange(M).flip(0) % K
        value = numbers(answer(log_p.clone(), logits.clone(), y.clone()), None, "the loss")
        rows, log_q = torch.arange(M), logits.log_softmax(-1)
        p, q = log_p[rows, y], log_q[rows, y]
        expect(
            value.shape != (M,),
            "This is one number a point. Take the mean over the labelled points.",
        )
        value = numbers(value, (), "the loss")

        def gave(*parts: Tensor, value: Tensor = value) -> bool:
            return bool(torch.isclose(value, -sum(part.mean() for part in parts), rtol=1e-6, atol=1e-9))

        expect(
            not torch.isclose(value, (p + q).mean()),
            "The sign is flipped: minimizing this drives each component away from its own labels. A published code "
            "did just that.",
        )
        expect(
            not gave(p, logits[rows, y]),
            "The logits are not log-probabilities yet, and can be raised without end. Which function normalizes them?",
        )
        expect(not gave(p, q.exp()), "You added q(y | x) itself. The loss wants its logarithm.")
        expect(not torch.isclose(value, -(p + q).sum()), "This is the sum over the labelled points. Asked is the mean.")
        expect(
            not gave(p / K, q / K) and not gave(p / M, q / M),
            "You took the mean over more entries than there are labelled points.",
        )
        expect(
            not gave(log_p.sum(-1), q) and not gave(log_p.sum(-1), log_q.sum(-1)),
            "Here each point trains all components. Its label says which one is its own: pick that entry.",
        )
        expect(
            not gave(log_p.mean(-1), q) and not gave(log_p.mean(-1), log_q.mean(-1)),
            "You averaged over the components. The label picks one: no other component should feel this point.",
        )
        expect(
            not gave(log_p.logsumexp(-1), q) and not gave((log_p - math.log(K)).logsumexp(-1), q),
            "With logsumexp the component that fits best takes the point, whatever its label says.",
        )
        expect(not gave(p), "The flows get their share, and q learns nothing: its cross-entropy is missing.")
        expect(not gave(q), "q gets its share, and the flows learn nothing: log p(x | y) is missing.")
        expect(
            gave(p, q), "Not yet. For each labelled point pick two numbers by its label: one of log_p, one of log q."
        )


def _apart(points: Tensor) -> Tensor:
    """The angle between each two points, seen from the origin: (N, N), from 0 to π."""
    unit = points / points.norm(dim=-1, keepdim=True)
    return (unit @ unit.T).clamp(-1, 1).acos()


def check_two(answer: Callable) -> None:
    """Sets of points for each of which some shortcut takes another pair: (degrees, radius, ring) of each point."""
    sets = (
        [(10, 0.9, 0), (14, 0.35, 1), (80, 0.55, 0), (95, 0.45, 1), (200, 0.8, 0), (203, 0.8, 0), (300, 0.4, 1)],
        [(178, 0.8, 0), (-179, 0.4, 1), (60, 0.8, 0), (70, 0.4, 1), (-62, 0.42, 1)],
        [(0, 0.8, 0), (179, 0.4, 1), (90, 0.8, 0), (112, 0.4, 1), (250, 0.4, 1)],
    )
    for rows in sets:
        degrees, radius, ring = (torch.tensor(column) for column in zip(*rows, strict=True))
        turned = degrees.float() * math.pi / 180
        points = radius.unsqueeze(-1) * torch.stack((turned.cos(), turned.sin()), -1)
        value = numbers(answer(points.clone(), ring.clone()), (2,), "the two rows")
        N = len(points)
        expect(
            all(float(v) == int(v) and 0 <= v < N for v in value) and value[0] != value[1],
            f"Expected two different rows, whole numbers from 0 to {N - 1}, but got {value.tolist()}.",
        )
        pair = {int(v) for v in value}
        apart, other = _apart(points), ring[:, None] != ring
        flat = torch.atan2(points[:, 1], points[:, 0])

        def best(of: Tensor, allowed: Tensor = other, N: int = N) -> set[int]:
            return set(divmod(int(torch.where(allowed, of, math.inf).argmin()), N))

        right = best(apart)

        def gave(wrong: set[int], pair: set[int] = pair, right: set[int] = right) -> bool:
            return pair != right and pair == wrong

        expect(
            len({int(ring[i]) for i in pair}) == 2,
            "Both are on one ring. Two labels of the same class contradict the halvings that part them; asked is one "
            "point of each ring.",
        )
        expect(
            not gave(best(torch.cdist(points, points))),
            "These two are the nearest in distance. But a line through the center separates points by their direction: "
            "compare angles.",
        )
        expect(
            not gave(best((flat[:, None] - flat).abs())),
            "Angles begin anew at π: 178° and −179° are 3° apart. Go the shorter way round.",
        )
        expect(
            not gave(best(torch.minimum(apart, math.pi - apart))),
            "Opposite points have one line, but lie on two sides as soon as it turns: every halving agrees with them.",
        )
        expect(
            not gave(best(-apart)),
            "These two are the farthest apart, and nearly every halving passes between them, so it agrees with both "
            "labels.",
        )
        expect(
            pair == right,
            "A halving agrees with two labels if its line passes between the points. For which pair is there the least "
            "room between them, seen from the center?",
        )


def check_labels(answer: Callable) -> None:
    """By what they reach, on three draws of the circles."""
    for seed in (0, 1, 2):
        points, ring = TwoCircles(noise=0.05).labelled(1000, torch.Generator().manual_seed(seed))
        rows = numbers(answer(points.clone()), None, "the rows").flatten()
        expect(bool((rows == rows.round()).all()), "Expected row numbers, which are whole numbers, and not points.")
        rows = rows.long()
        expect(0 < len(rows) <= 12, f"You may label 1 to 12 points, but got {len(rows)}.")
        expect(int(rows.min()) >= 0 and int(rows.max()) < 1000, "Rows go from 0 to len(points) − 1. Yours do not.")
        taken = ring[rows][torch.cdist(points, points[rows]).argmin(-1)]
        right = float((taken == ring).float().mean())
        on_rings = [int((ring[rows] == r).sum()) for r in (0, 1)]
        expect(
            min(on_rings) > 0,
            f"All your labels are on one ring ({right:.0%} right). Then all points take its name. Look at the radius.",
        )
        expect(
            right >= 0.97 or (points[rows].norm(dim=-1).std() > 0 and len(set(rows.tolist())) == len(rows)),
            f"You label a point twice ({right:.0%} right). Spend each label on another point.",
        )
        angles = torch.stack([points[rows][ring[rows] == r].mean(0).norm() / (0.8, 0.4)[r] for r in (0, 1)])
        expect(
            right >= 0.97 or float(angles.max()) < 0.25,
            f"Your labels lie on one side of a ring ({right:.0%} right, {on_rings[0]} outside and {on_rings[1]} "
            f"inside). Spread them over all angles.",
        )
        expect(
            right >= 0.97,
            f"{right:.1%} are right, and 97 % are wanted ({on_rings[0]} labels outside, {on_rings[1]} inside). Where "
            f"two labels of a ring are far apart, the other ring is nearer.",
        )


def check_joint(answer: Callable) -> None:
    """Against torch's normal; a map that shrinks, so that its log_det counts."""
    from torch.distributions import MultivariateNormal

    g = torch.Generator().manual_seed(4)
    for D, K in ((2, 2), (3, 4)):
        x = torch.randn(6, D, generator=g)
        z, log_det = x.sinh(), x.cosh().log().sum(-1)
        means = torch.randn(K, D, generator=g)
        log_weights = torch.randn(K, generator=g).log_softmax(-1)
        log_n = MultivariateNormal(means, torch.eye(D)).log_prob(z.unsqueeze(1))  # (N, K)
        right = log_weights + log_n + log_det.unsqueeze(-1)
        value = numbers(answer(z.clone(), log_det.clone(), means.clone(), log_weights.clone()), None, "the log joint")
        constant = 0.5 * D * math.log(2 * math.pi)

        def gave(other: Tensor, value: Tensor = value) -> bool:
            return value.shape == other.shape and torch.allclose(value, other.double(), rtol=1e-4, atol=5e-3)

        expect(
            not gave(right.logsumexp(-1)),
            "This is log p(x), summed over k already. Asked is one number for each component.",
        )
        expect(value.shape == (6, K), f"Expected shape (6, {K}), but got {tuple(value.shape)}.")
        expect(
            not gave(right.log_softmax(-1)) and not gave(right.softmax(-1)),
            "This is the posterior, normalized over k. Asked is the joint, from which log p(x) follows too.",
        )
        expect(
            not gave(right - log_det.unsqueeze(-1)),
            "The log-det is missing. It is the same for all k, so the posterior would not notice; the likelihood does, "
            "and without it f could shrink everything onto the means at no cost.",
        )
        expect(
            not gave(right - 2 * log_det.unsqueeze(-1)),
            "log_det belongs to x → z, the map just applied: it is added, not taken away.",
        )
        expect(not gave(right - log_weights), "log π_k is missing: this is log p(x | k), not the joint.")
        expect(
            not gave(log_weights.exp() + right - log_weights), "You added the weights themselves, not their logarithms."
        )
        expect(
            not gave(right + constant),
            "The normal's constant is missing, ½ log 2π for each dimension. The posterior would not notice; the "
            "likelihood does.",
        )
        expect(
            not gave(2 * (log_n + constant) - constant + log_weights + log_det.unsqueeze(-1)),
            "A half is missing in front of the squares.",
        )
        expect(gave(right), "Add four things: log π_k, −½ |z − μ_k|², −(D/2) log 2π, and the log-det of the map.")


EXERCISES = [
    Exercise(
        name="a_few_labels.1",
        question=(
            "**What a label teaches.** Write the loss of labelled points from the components' log-densities and the "
            "network's logits. A published code has a slip here that the check will recognize."
        ),
        answer=labelled_loss,
        check=check_loss,
        praise="right. Each label is used twice: by its own flow, and by q.",
        hints=(
            "Of each row of log_p, and of each row of log q, only one entry counts: the one that the label names.",
            "log_q = logits.log_softmax(-1); rows = torch.arange(len(y)); then minus the mean of two picks [rows, y].",
        ),
        aims=("write",),
        why=(
            "A labelled point should be likely under its own component, and q should give its name, so both logs are "
            "picked at the column y. q sees logits, and only after log_softmax are they log-probabilities."
        ),
    ),
    Exercise(
        name="a_few_labels.2",
        question=(
            "**Which two?** You may ask for the labels of two points, one of each ring. Which two rule out the most "
            "halvings? Compare with the columns of section 4."
        ),
        answer=two_to_label,
        check=check_two,
        praise="right. Two labels an angle φ apart rule out a share 1 − φ/π of all halvings: the smaller φ, the more.",
        hints=(
            "A halving agrees with both labels when its line passes between the two points. Seen from the center, how "
            "much room does the line have?",
            "Compare the angles between the points, not their distances, and mind that angles begin anew at ±π.",
        ),
        aims=("choose",),
        why=(
            "A halving agrees with two labels if its line passes between the two points as seen from the center, and "
            "this share of lines is the angle over π. So the smallest angle rules out the most halvings, whatever the "
            "distances are."
        ),
    ),
    Exercise(
        name="a_few_labels.3",
        question=(
            "**Open task: twelve labels.** You may ask for the labels of twelve points of the circles, and each other "
            "point then takes the label of the nearest one. Choose the twelve so that 97 % are right. Many choices do "
            "it, and a random one does not."
        ),
        answer=choose_labels,
        check=check_labels,
        praise="right. Twelve labels in the right places do what a random dozen does not.",
        hints=(
            "Every point should have a label of its own ring nearer than one of the other ring. How far apart may "
            "labels on a ring be?",
            "Seven evenly spaced on the outer ring and five on the inner one. Or the centers of KMeans(12), each "
            "replaced by its nearest point.",
        ),
        aims=("spread",),
        why=(
            "The rings are 0.4 apart, so a point is right as long as a label of its own ring is nearer than that. "
            "The outer ring is twice as long and needs more labels, and even spacing leaves no long gap."
        ),
    ),
    Exercise(
        name="a_few_labels.4",
        question=(
            "**One flow, K modes.** Write log π_k + log p(x | k) for FlowGMM from z = f(x) and its log-det. Which term "
            "cancels in p(k | x), and which mixture of section 7 pays for q?"
        ),
        answer=log_joint,
        check=check_joint,
        praise="right. The log-det is the same for all k: it cancels in the posterior and stays in the likelihood.",
        hints=(
            "Given k, z is normal around μ_k. How does the density of z become one of x?",
            "log π_k − ½ |z − μ_k|² − (D/2) log 2π + log_det, with shapes (K,), (N, K), () and (N, 1).",
        ),
        aims=("compare",),
        why=(
            "Given k, z is normal around μ_k, and the change of variables adds the log-det of f, which is the same for "
            "all k. So it cancels in p(k | x), and it stays in the likelihood, which training needs."
        ),
    ),
]
