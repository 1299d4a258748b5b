"""The exercises: drawing from a mixture, a loose bound, cutting a density in two, diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from flowlab.lessons.base.exercise import Exercise, expect, numbers
from flowlab.metrics import accuracy


def draw_points(flows, weights, n, generator):
    """n independent points of a mixture, in random order, and the component of each: x (n, D) and k (n,).

    weights (K,) are the probabilities of the components. flows is a list of K functions; flows[j](m, generator) draws
    m points (m, D) of component j.
    """
    k = torch.multinomial(weights, n, replacement=True, generator=generator)
    each = torch.stack([flow(n, generator) for flow in flows])  # (K, n, D)
    return each[k, torch.arange(n)], k


def loosen(log_joint):
    """A q that names the same component as Bayes at every point, and whose bound is loose: (N, K), rows summing to 1.

    log_joint (N, K) holds log π_k + log p(x | k). The mean of log p(x) − ELBO over the points has to be 1 nat or more.
    """
    return torch.softmax(log_joint / 20, -1)


def cut(log_p, inside, weight):
    """Log-densities (N, 2) of two components that share out p: component 0 lives inside, component 1 outside.

    log_p (N,) holds log p(x); inside (N,) is True in a region of probability ``weight``, a number. As a mixture with
    weights (weight, 1 − weight) the two must give p(x) again.
    """
    nothing = torch.full_like(log_p, -math.inf)
    first = torch.where(inside, log_p - math.log(weight), nothing)
    second = torch.where(inside, nothing, log_p - math.log(1 - weight))
    return torch.stack((first, second), -1)


def diagnose(q, labels):
    """(dead, accuracy) of a clustering: q (N, K), rows summing to one; labels (N,), whole numbers from 0 to K − 1.

    A component claims the points where its q is the largest. dead: a list of those that claim less than 1 % of all
    points. accuracy: the share of points that are right when each component stands for one class, in the best way.
    """
    from scipy.optimize import linear_sum_assignment

    K, k = q.shape[-1], q.argmax(-1)
    dead = [j for j in range(K) if (k == j).float().mean() < 0.01]
    table = torch.zeros(K, K, dtype=torch.long)
    table.index_put_((labels, k), torch.ones_like(k), accumulate=True)  # classes × components
    rows, columns = linear_sum_assignment(table, maximize=True)
    return dead, float(table[rows, columns].sum() / len(q))


def check_draw(answer: Callable) -> None:
    """Three far islands with unequal weights."""
    centers = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    weights, n = torch.tensor([0.2, 0.7, 0.1]), 4000

    def island(center: Tensor) -> Callable:
        return lambda m, generator: center + torch.randn(m, 2, generator=generator)

    given = answer([island(c) for c in centers], weights.clone(), n, Generator().manual_seed(9))
    x, k = _pair(given, "the points and their components")
    x, k = numbers(x, (n, 2), "the points"), numbers(k, (n,), "the components").long()
    distance = torch.cdist(x, centers.double())
    expect(
        (distance.min(-1).values < 20).all(),
        "Some points lie between the islands, where no component has anything. A mixture mixes densities, it does not "
        "average points: each point comes from one component.",
    )
    from_island = distance.argmin(-1)
    share = torch.bincount(from_island, minlength=3) / n
    expect(share.max() < 1, "All points come from one component. Draw k anew for each point.")
    expect(
        (share - 1 / 3).abs().max() > 0.05,
        "Each component gave a third of the points. Component k comes with probability π_k.",
    )
    expect((k == from_island).all(), "k does not say where the points come from: x[i] must be of component k[i].")
    expect(
        (from_island.diff() < 0).any(),
        "The points come in blocks, first all of component 0. Each point draws its own k, so the order is random too.",
    )
    expect((share - weights).abs().max() < 0.03, "The shares are not the weights. Try torch.multinomial.")
    expect(len(x.unique(dim=0)) == n, "Some points are the same. Each needs a draw of its own.")


def check_loosen(answer: Callable) -> None:
    """By what it reaches, on points that their components hold firmly."""
    g = torch.Generator().manual_seed(0)
    for N, K in ((200, 3), (100, 5)):
        log_joint = 12 * torch.randn(N, K, generator=g, dtype=torch.float64) - 5
        q = numbers(answer(log_joint.clone()), (N, K), "q")
        expect(bool((q >= 0).all()), "Some of your q are negative. Return probabilities, and not their logs.")
        expect(bool(((q.sum(-1) - 1).abs() < 2e-3).all()), "Each row of q has to sum to 1. A softmax does that.")
        ranked = q.topk(2, -1).values
        expect(
            bool((ranked[:, 0] > ranked[:, 1]).all()),
            "At some points your q does not decide: two components are equally likely. It has to name one.",
        )
        same = float((q.argmax(-1) == log_joint.argmax(-1)).double().mean())
        expect(same == 1, f"Your q names Bayes' component at {same:.0%} of the points. Asked are all.")
        gap = (q * (q.clamp_min(1e-300).log() - log_joint.log_softmax(-1))).sum(-1).mean()
        expect(
            gap >= 1,
            f"The mean gap is {gap:.2f} nats, and 1 is wanted. The gap is KL(q ‖ p(k | x)): it grows where q gives "
            f"weight to components that Bayes rules out.",
        )


def check_cut(answer: Callable) -> None:
    """p comes back, and Bayes' rule names the side."""
    g = Generator().manual_seed(9)
    log_p = torch.randn(8, generator=g) - 2
    inside = torch.tensor([True, False, False, True, True, False, True, False])
    w = 0.3
    value = numbers(answer(log_p.clone(), inside.clone(), w), (8, 2), "the log-densities")
    value, log_p = torch.where(value < -600, -math.inf, value), log_p.double()  # e⁻⁶⁰⁰ is as good as 0
    nothing = torch.full_like(log_p, -math.inf)

    def sides(first: Tensor, second: Tensor, empty: Tensor) -> Tensor:
        return torch.stack((torch.where(inside, first, empty), torch.where(inside, empty, second)), -1)

    def gave(other: Tensor) -> bool:
        return torch.allclose(value, other, atol=1e-4)

    a, b = log_p - math.log(w), log_p - math.log(1 - w)
    right = sides(a, b, nothing)
    expect(
        not gave(torch.stack((log_p, log_p), -1)),
        "Two copies of p: a fine mixture, and just as likely, but it cuts nothing. Each component stays on its side.",
    )
    expect(
        not gave(sides(log_p, log_p, nothing)),
        "Each of these integrates to the probability of its side only. A density integrates to 1: divide.",
    )
    expect(
        not gave(sides(log_p + math.log(w), log_p + math.log(1 - w), nothing)),
        "You multiplied by the weight; the mixture will do that. Divide here, so that the product is p.",
    )
    expect(not gave(sides(a, a, nothing)), "The outside has probability 1 − weight, and you divided it by weight.")
    expect(not gave(sides(b, a, nothing)), "You divided each side by the other's probability.")
    expect(not gave(right.flip(-1)), "Swapped: component 0 lives inside.")
    expect(not gave(right.exp()), "These are densities. Asked are their logarithms.")
    expect(
        not gave(sides(a, b, torch.zeros_like(log_p))),
        "Where a component has nothing, its density is 0, and log 0 is not 0. Which number is it?",
    )
    expect(gave(right), "Not yet. Inside, weight · p(x | 0) must be p(x); what is p(x | 1) there?")


def check_diagnose(answer: Callable) -> None:
    """Two tables on which every shortcut is off; in one a component is dead, though its q is not zero."""
    classes = torch.tensor([[5, 250, 40, 5], [205, 20, 70, 5], [195, 30, 60, 15], [20, 45, 0, 235]])
    greedy_fails = torch.tensor([[100, 90, 0, 0], [95, 0, 0, 0], [0, 0, 55, 60], [0, 0, 0, 50]])
    for table in (torch.cat((classes[:, :3], torch.tensor([[1], [1], [1], [0]])), -1), classes, greedy_fails):
        y = torch.arange(4).repeat_interleave(table.sum(-1))
        k = torch.cat([torch.arange(4).repeat_interleave(row) for row in table])
        order = torch.randperm(len(y), generator=Generator().manual_seed(9))
        y, k = y[order], k[order]
        q = 0.6 * nn.functional.one_hot(k, 4).double() + 0.1
        dead, value = _pair(answer(q.clone(), y.clone()), "dead, accuracy")
        many = isinstance(dead, list | tuple | set) or hasattr(dead, "tolist")
        expect(many, "dead is a list of components, such as [2].")
        dead = dead.tolist() if hasattr(dead, "tolist") else [int(j) for j in dead]
        value = float(numbers(value, (), "the accuracy"))
        N, right = len(y), accuracy(y, k)
        shares = table.sum(0) / N

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return math.isclose(value, other, abs_tol=1e-4) and not math.isclose(value, right, abs_tol=1e-4)

        expect(
            not gave(float(q.max(-1).values.mean())),
            "This is how sure q is, and takes no labels. Accuracy cannot be had without them: q may be sure and wrong.",
        )
        expect(
            not gave(float(table.diag().sum() / N)),
            "You compared the numbers of components and classes. But components have no names: match them first.",
        )
        expect(
            not gave(float(table.max(0).values.sum() / N)),
            "This is purity: two components may stand for the same class, so K = N would reach 100 %. One to one.",
        )
        expect(
            not gave(float(table.max(1).values.sum() / N)),
            "Each class took its favorite component, and two took the same one. One to one.",
        )
        expect(
            not gave(_greedy(table) / N),
            "Greedy: taking the largest entry first can spoil the rest. Try all, or Kuhn's method.",
        )
        expect(not gave(1 - right), "This is the share of errors.")
        expect(
            math.isclose(value, right, abs_tol=1e-4),
            "The accuracy is not right yet: make the table of classes × components, and match its columns to its rows.",
        )
        truly = [j for j in range(4) if shares[j] < 0.01]
        expect(
            not (truly and dead == []),
            "A component that claims 3 points of 903 is dead, though q never says 0. Count where it has the largest q.",
        )
        expect(
            sorted(dead) == truly,
            f"Here the shares claimed are {[round(float(s), 3) for s in shares]}, and you called {dead} dead.",
        )


def _pair(given: object, name: str) -> tuple:
    """The two things that a student returned."""
    expect(given is not None, f"Your function returned None: {name} are missing. Is there a return?")
    expect(isinstance(given, tuple | list) and len(given) == 2, f"Return two things: {name}.")
    return tuple(given)


def _greedy(table: Tensor) -> float:
    """Points that are right when the largest entry is matched first, then the largest of the rest, and so on."""
    left, total = table.clone(), 0
    for _ in range(len(table)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        total += max(int(left[row, column]), 0)
        left[row], left[:, column] = -1, -1
    return float(total)


EXERCISES = [
    Exercise(
        name="the_variational_mixture_of_flows.1",
        question=(
            "**Draw from a mixture.** First the component, then the point. What is the mean of very many draws, and "
            "need there be any point near it?"
        ),
        answer=draw_points,
        check=check_draw,
        praise="right. The mean of a mixture is the weighted mean of its components, and there may be nothing there.",
        hints=(
            "A mixture says where each point comes from: one component, chosen with probability π_k.",
            "torch.multinomial(weights, n, replacement=True) draws k; then x[i] is a draw of flows[k[i]].",
        ),
        aims=("sample",),
        why=(
            "A mixture draws k first and then a point of component k, so each point comes from one component. An "
            "average of points of several components would lie between them, where the mixture has hardly any density."
        ),
    ),
    Exercise(
        name="the_variational_mixture_of_flows.2",
        question=(
            "**Open task: a loose bound.** Find a q that names the same component as Bayes' rule at every point, and "
            "whose bound is at least 1 nat loose in the mean. Many do it. What does the agreement say about the bound?"
        ),
        answer=loosen,
        check=check_loosen,
        praise="right. Who agrees with Bayes at every point can still have a loose bound: q is judged as a density.",
        hints=(
            "The gap is KL(q ‖ p(k | x)). Where does q have to put weight, so that it is large?",
            "A high temperature keeps the order: torch.softmax(log_joint / 20, -1). So does a mixture with the uniform "
            "q.",
        ),
        aims=("loosen",),
        why=(
            "A temperature does not change which component is the largest, so q and Bayes agree everywhere. "
            "But it gives weight to components whose log-density is many nats lower, and the bound pays for each."
        ),
    ),
    Exercise(
        name="the_variational_mixture_of_flows.3",
        question=(
            "**Any cut is as likely.** Take any density p and any region. Write the two components whose mixture is p "
            "again, one living inside the region and one outside."
        ),
        answer=cut,
        check=check_cut,
        praise="right. The likelihood is p's for every region you choose, so it cannot choose the region.",
        hints=(
            "Inside, only component 0 has anything, and weight · p(x | 0) must be p(x).",
            "log p(x | 0) = log p(x) − log weight inside and −inf outside; component 1 likewise with 1 − weight.",
        ),
        aims=("explain",),
        why=(
            "Inside the region, weight times p(x | 0) has to be p(x), and component 1 has nothing there; outside it is "
            "the reverse. The sum is p for every region, so the likelihood cannot choose between regions."
        ),
    ),
    Exercise(
        name="the_variational_mixture_of_flows.4",
        question=(
            "**Diagnose a clustering.** Which components are dead, and how accurate is it? Which of the two could you "
            "have found without any labels?"
        ),
        answer=diagnose,
        check=check_diagnose,
        praise="right. The dead show without labels; accuracy needs a label for every point, and a matching.",
        hints=(
            "Make the table: how many points of class c has component k claimed? Then choose one entry in each row and "
            "column.",
            "scipy.optimize.linear_sum_assignment(table, maximize=True) gives rows and columns of the best choice.",
        ),
        aims=("diagnose",),
        why=(
            "A dead component claims hardly any point, which q alone shows. For the accuracy each component has to be "
            "matched with a class of its own, and this takes labels and an assignment of the whole table."
        ),
    ),
]
