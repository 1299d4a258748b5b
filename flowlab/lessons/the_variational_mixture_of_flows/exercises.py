"""The exercises: drawing from a mixture, generalized EM, cutting a density in two, diagnosis, the museum."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from flowlab.lessons.base.exercise import Exercise, expect, numbers
from flowlab.lessons.the_variational_mixture_of_flows.toys import MuseumFlow
from flowlab.metrics import accuracy


def draw_points(flows, weights, n, generator):
    """n independent points of a mixture, in random order, and the component of each: x (n, D) and k (n,).

    weights (K,) are the probabilities of the components. flows is a list of K functions; flows[j](m, generator) draws
    m points (m, D) of component j.
    """
    k = torch.multinomial(weights, n, replacement=True, generator=generator)
    each = torch.stack([flow(n, generator) for flow in flows])  # (K, n, D)
    return each[k, torch.arange(n)], k


def em_loss(log_p, weights):
    """One step's loss of generalized EM with exact responsibilities: log p(x | k) (N, K), weights (K,), to one number.

    A mean over the N points. Its gradient in log_p must be the one that EM follows, with the E-step's responsibilities
    held fixed.
    """
    log_joint = weights.log() + log_p
    r = log_joint.softmax(-1).detach()
    return -(r * log_joint).sum(-1).mean()


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


def find_broken(log_densities):
    """The index of the one among several functions, each log p of points (M, 2) to (M,), that is no density.

    All have next to everything inside the square from −6 to 6, and nothing smaller than 0.1 in it.
    """
    side = torch.linspace(-6, 6, 600)
    points = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    with torch.no_grad():
        area = (side[1] - side[0]) ** 2
        off = [abs(float((f(points).exp().sum() * area).log())) for f in log_densities]  # log of ∫ p, which is log 1
    return off.index(max(off))


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


def check_em(answer: Callable) -> None:
    """The gradient in log p(x | k) is −r/N, whatever the value."""
    g = Generator().manual_seed(9)
    log_p = (3 * torch.randn(6, 3, generator=g)).double().requires_grad_()
    weights = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    loss = answer(log_p, weights)
    numbers(loss, (), "the loss")
    expect(
        isinstance(loss, Tensor) and loss.requires_grad,
        "No gradient passes: the loss is cut off from log_p. Hold the responsibilities fixed, and nothing else.",
    )
    (grad,) = torch.autograd.grad(loss, log_p, allow_unused=True)
    expect(grad is not None, "The loss does not depend on log_p.")
    log_joint = weights.log() + log_p.detach()
    r = log_joint.softmax(-1)
    right = -r / len(log_p)

    def gave(other: Tensor) -> bool:
        return torch.allclose(grad, other, atol=1e-7)

    attached = log_p.detach().requires_grad_()
    joint = weights.log() + attached
    (moving,) = torch.autograd.grad(-(joint.softmax(-1) * joint).sum(-1).mean(), attached)
    hard = nn.functional.one_hot(r.argmax(-1), 3).double()
    expect(
        not gave(moving), "The responsibilities move with θ here: the E-step is over when the M-step begins. Detach."
    )
    expect(not gave(-hard / len(r)), "This is hard EM: each point counts for its best component alone. r is soft.")
    expect(
        not gave(-log_p.detach().softmax(-1) / len(r)),
        "These responsibilities forget the weights. Bayes' rule has π_k p(x | k).",
    )
    expect(not gave(-right), "The sign: a loss is minimized, so it is minus the bound.")
    expect(not gave(right * len(r)), "This is the sum over the points. Take the mean, so that it is in nats a point.")
    expect(
        not gave(torch.full_like(r, -1 / r.numel())) and not gave(torch.full_like(r, -1 / len(r))),
        "Every component is pulled to every point alike. Weigh by the responsibilities.",
    )
    expect(
        not gave(-weights.expand_as(r) / len(r)),
        "You weighed by π, the same for all points: that is before x is seen. Use p(k | x).",
    )
    expect(gave(right), "Not yet. The gradient in log p(x | k) should be −p(k | x)/N.")


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
            "This is purity: two components may stand for the same class, so K = N would score 100 %. One to one.",
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


def check_broken(answer: Callable) -> None:
    """A needle that is right, a flow that is too good, a map whose log-det was forgotten: all orders."""
    museum = MuseumFlow(4, Generator().manual_seed(3))
    with torch.no_grad():
        for network in museum.networks:
            network.last.bias.copy_(torch.tensor([0.35, 0.35, 0.0, 0.0]))  # as training would push it

    def normal(std: float) -> Callable:
        return lambda x: (-0.5 * (x / std).square()).sum(-1) - 2 * math.log(std) - math.log(2 * math.pi)

    def forgot(x: Tensor) -> Tensor:  # z = 2x, without the log 4 of its log-det
        return (-0.5 * (2 * x).square()).sum(-1) - math.log(2 * math.pi)

    needle, wide = normal(0.12), normal(1.0)
    for specimens, at in (
        ((needle, museum.log_prob, wide), 1),
        ((wide, needle, forgot), 2),
        ((forgot, needle, wide), 0),
        ((museum.log_prob, wide, needle), 0),
    ):
        value = numbers(answer(list(specimens)), (), "the index")
        expect(
            float(value) == int(value) and 0 <= value < 3, f"Expected an index, 0, 1 or 2, but got {float(value):.4g}."
        )
        found = specimens[int(value)]
        expect(
            found is not needle,
            "You accuse the needle, whose density is above 1 at its peak. It may be: only its integral must be 1.",
        )
        expect(
            int(value) == at or specimens[at] is not forgot,
            "One specimen holds a quarter of the probability, and you passed it by. Too little is wrong too.",
        )
        expect(
            int(value) == at,
            "Yours passes an integral of about 4. How far is each integral from 1, as a factor?",
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
    ),
    Exercise(
        name="the_variational_mixture_of_flows.2",
        question=(
            "**Generalized EM in three lines.** Write the loss whose gradient is EM's. On paper: what is its gradient "
            "in log p(x | k), and what is that of −log p(x)?"
        ),
        answer=em_loss,
        check=check_em,
        praise="right. Its gradient is −p(k | x)/N, and so is that of −mean log p(x): Fisher's identity.",
        hints=(
            "The E-step gives r = p(k | x). For the M-step r is a table of numbers, no function of θ any more.",
            "r = softmax(log π + log p(x | k)), detached; the loss is −mean Σ r (log π + log p(x | k)).",
        ),
        aims=("show",),
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
    ),
    Exercise(
        name="the_variational_mixture_of_flows.5",
        question=(
            "**The bug museum.** Three functions claim to be log-densities. You may not read their code. Find the one "
            "that is none."
        ),
        answer=find_broken,
        check=check_broken,
        praise="right. Two lines of integration find what a training curve hides: a broken loss falls most gladly.",
        hints=(
            "What must hold for every density, however high or wide it is?",
            "Sum p(x) · (area of a cell) over a grid of the square. Which sum is farthest from 1, as a factor?",
        ),
        aims=("find",),
    ),
]
