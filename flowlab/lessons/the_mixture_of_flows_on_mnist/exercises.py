"""The exercises: accuracy and NMI from a contingency table, a walk between latents, an honest choice."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import scipy.optimize
import torch

from flowlab.lessons.base.exercise import Exercise, expect, numbers


def matched_accuracy(counts):
    """The share of images whose component stands for their digit, when components are given to digits one to one.

    counts is a (C, K) array of numbers of images, digit by component; components are matched so that the share is as
    large as it can be. scipy.optimize.linear_sum_assignment finds such a matching.
    """
    from scipy.optimize import linear_sum_assignment

    digits, components = linear_sum_assignment(-np.asarray(counts))
    return counts[digits, components].sum() / counts.sum()


def blend(one, two, share):
    """A latent on the way from ``one`` (at share 0) to ``two`` (at share 1), both (D,) and drawn from N(0, I).

    What comes back must be a draw from N(0, I) too, at every share between.
    """
    angle = share * np.pi / 2
    return np.cos(angle) * one + np.sin(angle) * two


def nmi(counts):
    """Mutual information of digit and component over the mean of their two entropies: 0 to 1.

    counts is a (C, K) array of numbers of images, digit by component; 0 log 0 is 0.
    """

    def entropy(p):
        p = p[p > 0]
        return -(p * np.log(p)).sum()

    joint = counts / counts.sum()
    digit, component = entropy(joint.sum(1)), entropy(joint.sum(0))
    return (digit + component - entropy(joint.ravel())) / ((digit + component) / 2)


def to_report(losses, accuracies):
    """The accuracy to print for a recipe *without labels* that tries several starts and keeps one of them.

    losses are (S,), what each start minimized, and accuracies (S,), found afterwards with the labels.
    """
    return accuracies[np.argmin(losses)]


TABLES = (
    [[1, 40, 3], [30, 5, 2], [4, 3, 50]],
    [[30, 2, 0], [28, 9, 1], [3, 0, 44]],  # one component took two digits
    [[0, 50, 40, 0], [3, 45, 0, 0], [20, 0, 0, 25], [0, 5, 0, 30]],  # the best pairs, taken one by one, are not best
    [[10, 10, 4], [0, 8, 12]],  # more components than digits
)


def check_accuracy(answer: Callable) -> None:
    """Against all matchings."""
    for rows in TABLES:
        counts = np.array(rows)
        C, K = counts.shape
        value = numbers(answer(counts.copy()), (), "the share").item()
        best = max(sum(counts[c, k] for c, k in enumerate(p)) for p in itertools.permutations(range(K), C))
        N, diagonal = counts.sum(), np.trace(counts)

        def gave(right: float, value: float = value, N: int = N) -> bool:
            return abs(value - right / N) < 1e-4

        if gave(best):
            continue
        expect(value <= 1 or value != best, "This is a number of images. Which share of all of them is it?")
        expect(
            not gave(diagonal),
            "You took the diagonal. But component 0 does not know that it should be the zeros: which name is best for "
            "each?",
        )
        expect(
            not gave(counts.max(0).sum()),
            "Here two components may both stand for one digit. One to one, each digit has a single component.",
        )
        expect(
            not gave(counts.max(1).sum()),
            "Here one component may stand for two digits, so swallowing two costs nothing. One to one, please.",
        )
        worst = scipy.optimize.linear_sum_assignment(counts)
        expect(
            not gave(counts[worst].sum()),
            "linear_sum_assignment makes its sum as small as it can. You want it large.",
        )
        expect(
            not gave(_greedy(counts)),
            "You gave away the largest entry first, then the next. What is best for one pair can cost the others more.",
        )
        expect(False, "Not yet. Match components to digits one to one, add up the matched entries, divide by all.")


def _greedy(counts: np.ndarray) -> int:
    left, total = counts.astype(float).copy(), 0
    for _ in range(min(counts.shape)):
        c, k = np.unravel_index(left.argmax(), left.shape)
        total += counts[c, k]
        left[c], left[:, k] = -1, -1
    return total


def check_blend(answer: Callable) -> None:
    """Ends, and the weights that two perpendicular directions get."""
    basis = torch.eye(6, dtype=torch.float64)
    one, two = 2.0 * basis[0] + basis[2], -1.5 * basis[1] + 0.5 * basis[3]
    for kind in (torch.Tensor.clone, lambda t: t.numpy().copy()):

        def at(share: float, first=one, second=two, kind=kind):
            return numbers(answer(kind(first), kind(second), share), (6,), "the latent")

        expect(
            not (torch.allclose(at(0.0), two) and torch.allclose(at(1.0), one)),
            "Right road, wrong direction: share 0 is the first latent, share 1 the second.",
        )
        for end, z in ((0.0, one), (1.0, two)):
            expect(
                not (torch.allclose(at(end) / at(end).norm(), z / z.norm()) and not torch.allclose(at(end), z)),
                "You force the result to a length of your own. A draw from N(0, I) has no fixed length: leave "
                "it to the weights.",
            )
            expect(torch.allclose(at(end), z), f"At share {end:g} what comes back should be that latent itself.")
        for share in (0.5, 0.25, 0.8):
            z = at(share)
            a, b = float(z[0] / one[0]), float(z[1] / two[1])
            variance = a * a + b * b
            expect(
                abs(a + b - 1) > 1e-6,
                f"The straight line: at share {share:g} its variance is {variance:.2f}, where a draw has 1. In 784 "
                "dimensions that is far from where draws are.",
            )
            expect(
                abs(variance - 1) < 1e-6,
                f"At share {share:g} your weights are {a:.2f} and {b:.2f}. The variance of a sum of independent draws "
                f"is the sum of the squared weights, here {variance:.2f}: it should be 1.",
            )


def check_nmi(answer: Callable) -> None:
    """Against the definition, with the usual other choices told apart."""

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    for rows in TABLES:
        counts = np.array(rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = numbers(answer(counts.copy()), (), "the NMI").item()
        expect(
            not np.isnan(value),
            "NaN: some entries of the table are 0, and 0 · log 0 should count as 0. Leave them out of the sum.",
        )
        joint = counts / counts.sum()
        H_y, H_k, H = entropy(joint.sum(1)), entropy(joint.sum(0)), entropy(joint.ravel())
        shared = H_y + H_k - H

        def gave(right: float, value: float = value) -> bool:
            return abs(value - right) < 1e-4

        expect(
            not gave(shared) and not gave(shared / np.log(2)),
            "This is the mutual information itself. Divided by what would it be 1 for a perfect clustering?",
        )
        expect(not gave(shared / (H_y + H_k)), "You divided by the sum of the two entropies, not by their mean.")
        expect(
            not gave(shared / max(H_y, H_k)) and not gave(shared / min(H_y, H_k)) and not gave(shared / H_y),
            "There are NMIs that divide by one of the entropies. This one, scikit-learn's, divides by their mean.",
        )
        expect(
            not gave(H / ((H_y + H_k) / 2)),
            "The numerator is the entropy of both together. What they share is H(y) + H(k) minus that.",
        )
        expect(gave(shared / ((H_y + H_k) / 2)), "Not yet. From the joint shares p(y, k): H(y) + H(k) − H(y, k).")


def check_report(answer: Callable) -> None:
    """Starts where the lowest loss is not the most accurate."""
    starts = ([-3.1, -3.6, -3.2], [0.91, 0.74, 0.97]), ([5.0, 4.0, 4.5, 4.2], [0.7, 0.95, 0.6, 0.96])
    for losses, accuracies in starts:
        L, A = np.array(losses), np.array(accuracies)
        value = numbers(answer(L.copy(), A.copy()), (), "the accuracy").item()
        expect(
            abs(value - A.max()) > 1e-4,
            "You chose with the labels. A recipe without labels cannot know which start is the most accurate.",
        )
        expect(
            abs(value - A[L.argmax()]) > 1e-4,
            "That start has the largest loss. It was to be made small.",
        )
        expect(
            abs(value - A.mean()) > 1e-4 and abs(value - np.median(A)) > 1e-4,
            "Starts that were thrown away are not part of what the recipe gives. Which one does it keep?",
        )
        expect(value != L.argmin(), "That is the number of the start. Which accuracy did it have?")
        expect(abs(value - A[L.argmin()]) < 1e-4, "Not yet. Which start would you keep if you had no labels?")


EXERCISES = [
    Exercise(
        name="the_mixture_of_flows_on_mnist.1",
        question=(
            "**Give the components names.** Compute the accuracy from a contingency table. Then put the published "
            "table's diagonal beside it: for which tables is the diagonal enough?"
        ),
        answer=matched_accuracy,
        check=check_accuracy,
        praise="right. Names cost labels, so this number says how good a clustering is, and cannot help to find it.",
        hints=(
            "Each component may stand for one digit only, and each digit for one component. Which pairing catches most "
            "images?",
            "linear_sum_assignment(-counts) gives rows and columns of the best pairing; counts[rows, columns].sum() is "
            "what it catches.",
        ),
        aims=("compute",),
    ),
    Exercise(
        name="the_mixture_of_flows_on_mnist.2",
        question=(
            "**Between two draws.** In the explorer you dragged z between four latents. Do it for two, so that every "
            "point on the way is a draw from the base as well."
        ),
        answer=blend,
        check=check_blend,
        praise="right. The squares of the weights add up to 1, and so does the variance. The straight line sags.",
        hints=(
            "Let z = a·one + b·two. What is the variance of each coordinate of z?",
            "a² + b² = 1 is a circle: a = cos θ, b = sin θ, and θ goes from 0 to π/2.",
        ),
        aims=("carry",),
    ),
    Exercise(
        name="the_mixture_of_flows_on_mnist.3",
        question=(
            "**What a component says of the digit.** Compute the normalized mutual information of a table. What is it "
            "for a component that took two digits whole?"
        ),
        answer=nmi,
        check=check_nmi,
        praise="right. No matching is needed: NMI does not care what the components are called.",
        hints=(
            "Divide the table by its sum: that is p(y, k). Its row sums are p(y), its column sums p(k). You need three "
            "entropies.",
            "I = H(y) + H(k) − H(y, k); divide by (H(y) + H(k))/2. Leave out the zeros before taking logarithms.",
        ),
        aims=("compute",),
    ),
    Exercise(
        name="the_mixture_of_flows_on_mnist.4",
        question=(
            "**Which start?** Three starts of q end with three losses, and, once you look at the labels, three "
            "accuracies. Which accuracy may you print for a method without labels?"
        ),
        answer=to_report,
        check=check_report,
        praise="right. The best of several seeds, found with labels, is a method with labels.",
        hints=(
            "Pretend that nobody ever labelled a digit. What do you still have to choose by?",
            "np.argmin(losses) is the start you would keep; its accuracy is what you get.",
        ),
        aims=("report",),
    ),
]
