"""The exercises: the loss of labelled points, which two to label, wrong labels, one flow with two modes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, expect, numbers


def labelled_loss(log_p, logits, y):
    """−mean over the labelled points of [log p(x | y) + log q(y | x)], one number in nats.

    log_p is (M, K): log p(x | k) of each component; logits is (M, K): what the network of q gives before its softmax;
    y is (M,): the labels, from 0 to K − 1.
    """
    own = y.unsqueeze(-1)  # (M, 1)
    log_q = logits.log_softmax(-1)
    return -(log_p.gather(-1, own) + log_q.gather(-1, own)).mean()


def ruled_out(angle):
    """The share of all halvings that two labels contradict: A on the outer ring, B on the inner, ``angle`` apart.

    A halving cuts the plane along a line through the center; all directions of the line are equally likely. Radians,
    from −2π to 2π; a number from 0 to 1.
    """
    apart = abs(angle) % (2 * math.pi)
    apart = min(apart, 2 * math.pi - apart)  # the shorter way round
    return 1 - apart / math.pi  # only a line between the two points gives them two classes


def majority_right(count, wrong):
    """The probability that most of ``count`` labels are right, each wrong with probability ``wrong``, independently.

    A tie counts half.
    """
    total = 0.0
    for right in range(count + 1):
        chance = math.comb(count, right) * (1 - wrong) ** right * wrong ** (count - right)
        total += chance if 2 * right > count else chance / 2 if 2 * right == count else 0.0
    return total


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


def check_ruled_out(answer: Callable) -> None:
    """Against counting lines."""
    directions = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 * math.pi
    normals = torch.stack((directions.cos(), directions.sin()), -1)
    for angle in (0.5, 2.0, 0.0, math.pi, -0.5, 5.0):
        value = float(numbers(answer(angle), (), "the share"))
        outer, inner = (
            torch.tensor([0.8, 0.0]).double(),
            0.4 * torch.tensor([math.cos(angle), math.sin(angle)]).double(),
        )
        right = float(((normals @ outer) * (normals @ inner) > 0).double().mean())

        def gave(other: float, value: float = value) -> bool:
            return math.isclose(value, other, abs_tol=1e-3)

        expect(
            gave(right) or not gave(1 - right),
            "This is the share that agrees with both labels. Asked is the share that contradicts them.",
        )
        expect(
            gave(right) or not gave(1 - angle / (2 * math.pi)),
            "A line has no arrow: turned by π it is the same line, so directions fill π, not 2π.",
        )
        expect(gave(right) or not gave(1 - angle / 180), "The angle comes in radians: a half turn is π, not 180.")
        expect(
            gave(right) or not gave(1 - angle / math.pi),
            "Right from 0 to π. Beyond, and for negative angles, go the shorter way round: a share lies in [0, 1].",
        )
        expect(
            gave(right) or not gave(0.5),
            "That would be so if the line did not care where the points are. Which lines pass between them?",
        )
        expect(
            gave(right),
            "Draw the two points and turn a line through the center by half a turn: when does it pass between them?",
        )


def check_majority(answer: Callable) -> None:
    """Against the binomial sum."""
    for count, wrong in ((3, 0.2), (5, 0.1), (16, 0.3), (1, 0.25), (2, 0.25)):
        value = float(numbers(answer(count, wrong), (), "the probability"))
        chances = [math.comb(count, r) * (1 - wrong) ** r * wrong ** (count - r) for r in range(count + 1)]
        more = sum(chances[count // 2 + 1 :])
        tie = chances[count // 2] if count % 2 == 0 else 0.0
        right = more + tie / 2

        def gave(other: float, value: float = value) -> bool:
            return math.isclose(value, other, rel_tol=1e-4, abs_tol=1e-5)

        expect(
            gave(right) or not gave(1 - wrong),
            "This is the chance of one label. Several outvote a wrong one, so the chance should grow with count.",
        )
        expect(
            gave(right) or not gave((1 - wrong) ** count),
            "This is the chance that no label is wrong. A majority survives some wrong ones.",
        )
        expect(
            gave(right) or not gave(1 - right),
            "This is the chance that most are wrong. Asked is the other.",
        )
        expect(gave(right) or tie == 0 or not gave(more), "Right but for ties: a tie counts half.")
        expect(gave(right) or tie == 0 or not gave(more + tie), "Right but for ties: you counted a tie in full.")
        expect(
            gave(right) or not gave((1 - wrong) ** (count // 2 + 1)),
            "So many right labels are needed, but which ones may vary: count the ways, math.comb(count, right).",
        )
        expect(
            gave(right),
            "How likely are exactly r right labels of count? Add that up over each r that is more than half.",
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
        praise="right. Each label speaks to two pupils: to its own flow, and to q.",
        hints=(
            "Of each row of log_p, and of each row of log q, only one entry counts: the one that the label names.",
            "log_q = logits.log_softmax(-1); rows = torch.arange(len(y)); then minus the mean of two picks [rows, y].",
        ),
        aims=("write",),
    ),
    Exercise(
        name="a_few_labels.2",
        question=(
            "**Which two?** Of all halvings through the center, which share do two labels rule out, as a function of "
            "the angle between them? Compare with the columns of section 4."
        ),
        answer=ruled_out,
        check=check_ruled_out,
        praise="right. Side by side they contradict every halving, opposite none: there the labels say nothing new.",
        hints=(
            "A halving agrees with both labels when its line passes between the two points. Seen from the center, how "
            "much room does the line have?",
            "Lines through the center have directions in [0, π). Those between the points fill the angle between them.",
        ),
        aims=("choose",),
    ),
    Exercise(
        name="a_few_labels.3",
        question=(
            "**Wrong labels.** Suppose q is the same all over a ring, so that the labels on it can only vote. How "
            "likely is the majority right? Compare one label of two, and 16 a ring, at 10 % wrong labels."
        ),
        answer=majority_right,
        check=check_majority,
        praise="right. At 10 % wrong, one label a ring fails one time in ten, sixteen about once in 30,000.",
        hints=(
            "How likely is it that exactly r of the labels are right? For which r does the right side win?",
            "math.comb(count, r) · (1 − wrong)^r · wrong^(count − r), added over 2r > count, and half of it at "
            "2r = count.",
        ),
        aims=("predict",),
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
    ),
]
