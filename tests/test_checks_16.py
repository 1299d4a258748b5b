"""Each known wrong answer of notebook 16 meets its own hint, and no other's; and what its pictures promise holds."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy

from flowlab.lessons.the_mixture_of_flows_on_mnist.exercises import _greedy


def matched(counts, sign=-1):
    return counts[linear_sum_assignment(sign * counts)].sum()


def shared(counts):
    p = counts / counts.sum()
    return entropy(p.sum(1)) + entropy(p.sum(0)) - entropy(p.ravel())


def over(counts, weigh):
    p = counts / counts.sum()
    return shared(counts) / weigh(entropy(p.sum(1)), entropy(p.sum(0)))


def naive_nmi(counts):  # 0 log 0 is NaN
    p = counts / counts.sum()
    y, k, both = (-(q * np.log(q)).sum() for q in (p.sum(1), p.sum(0), p))
    return (y + k - both) / ((y + k) / 2)


def joint_over_mean(counts):
    p = counts / counts.sum()
    return 2 * entropy(p.ravel()) / (entropy(p.sum(0)) + entropy(p.sum(1)))


WRONG = [
    ("16.1", lambda t: matched(t), "number of images"),
    ("16.1", lambda t: np.trace(t) / t.sum(), "does not know that it should be"),
    ("16.1", lambda t: t.max(0).sum() / t.sum(), "may both stand for one digit"),
    ("16.1", lambda t: t.max(1).sum() / t.sum(), "swallowing two costs nothing"),
    ("16.1", lambda t: matched(t, 1) / t.sum(), "as small as it can"),
    ("16.1", lambda t: _greedy(t) / t.sum(), "gave away the largest entry first"),
    ("16.1", lambda t: 0.5, "add up the matched entries"),
    ("16.2", lambda a, b, s: (1 - s) * a + s * b, "The straight line"),
    ("16.2", lambda a, b, s: np.sqrt(s) * a + np.sqrt(1 - s) * b, "wrong direction"),
    ("16.2", lambda a, b, s: (1 - s**2) * a + s * b, "sum of the squared weights"),
    ("16.2", lambda a, b, s: 0 * a, "should be that latent itself"),
    ("16.2", lambda a, b, s: (lambda z: z / (z**2).sum() ** 0.5)((1 - s) * a + s * b), "a length of your own"),
    ("16.3", lambda t: shared(t), "mutual information itself"),
    ("16.3", lambda t: over(t, lambda y, k: y + k), "not by their mean"),
    ("16.3", lambda t: over(t, max), "divide by one of the entropies"),
    ("16.3", naive_nmi, "should count as 0"),
    ("16.3", joint_over_mean, "What they share"),
    ("16.3", lambda t: 0.5, "From the joint shares"),
    ("16.4", lambda L, A: A.max(), "chose with the labels"),
    ("16.4", lambda L, A: A[L.argmax()], "It was to be made small"),
    ("16.4", lambda L, A: A.mean(), "thrown away"),
    ("16.4", lambda L, A: L.argmin(), "the number of the start"),
    ("16.4", lambda L, A: 0.123, "if you had no labels"),
]
RIGHT = [
    ("16.1", lambda t: matched(t) / t.sum()),
    ("16.2", lambda a, b, s: np.sqrt(1 - s) * a + np.sqrt(s) * b),
    ("16.3", lambda t: over(t, lambda y, k: (y + k) / 2)),
    ("16.4", lambda L, A: sorted(zip(L, A, strict=True))[0][1]),
]
