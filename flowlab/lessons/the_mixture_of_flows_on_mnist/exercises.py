"""The exercises: behind shared layers, one image through all components, NMI, an honest number, own clusters."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, expect, numbers
from flowlab.lessons.the_mixture_of_flows_on_mnist.toys import five_digits
from flowlab.metrics import accuracy


def mixture_log_prob(x, shared, flows, log_weights):
    """log p(x) of a mixture of flows behind shared layers, in nats: x (N, D) to (N,).

    shared takes x to (h, log_det). flows is a list of K functions; each takes h to (z, log_det), (N, D) and (N,), and
    the base density of z is N(0, I). log_weights (K,) holds log π_k.
    """
    h, log_det = shared(x)
    log_p = []
    for flow in flows:
        z, own = flow(h)
        log_p.append(-0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi) + own)
    return (torch.stack(log_p, -1) + log_weights).logsumexp(-1) + log_det


def relatives(x, k, shared, flows):
    """The images that the K components make of one latent, that of the image x (D,) under its component k: (K, D).

    shared and each of the K flows have forward(x), from data toward the latent, and inverse(z), back; each of these
    gives (value, log_det). x passes the shared layers first, then the flow of a component.
    """
    z = flows[k].forward(shared.forward(x)[0])[0]
    return torch.stack([shared.inverse(flow.inverse(z)[0])[0] for flow in flows])


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
    """What to print for a recipe *without labels*: mean and standard deviation of its accuracy over R runs.

    In each run S starts are tried and one is kept. losses (R, S) is what each start minimized, and accuracies (R, S)
    were found afterwards with the labels. The deviation is that of a sample (divided by R − 1).
    """
    kept = accuracies[np.arange(len(losses)), np.argmin(losses, axis=1)]
    return kept.mean(), kept.std(ddof=1)


def find_clusters(v):
    """Five clusters of digits from 0 to 4, found without labels: a whole number from 0 to 4 for each image, (N,).

    v is (N, 784), whole numbers from 0 to 255. After the best matching, at least 95 % have to be right. No flow is
    needed, and nothing may be read but v.
    """
    from sklearn.cluster import SpectralClustering

    from flowlab.datasets.augment import upright

    points = upright(v.float() / 256)
    method = SpectralClustering(5, affinity="nearest_neighbors", n_neighbors=10, random_state=0)
    return method.fit_predict(points)


TABLES = (
    [[1, 40, 3], [30, 5, 2], [4, 3, 50]],
    [[30, 2, 0], [28, 9, 1], [3, 0, 44]],  # one component took two digits
    [[0, 50, 40, 0], [3, 45, 0, 0], [20, 0, 0, 25], [0, 5, 0, 30]],  # the best pairs, taken one by one, are not best
    [[10, 10, 4], [0, 8, 12]],  # more components than digits
)


class _Affine:
    """z = a x + b, with forward and inverse as a bijection has them."""

    def __init__(self, D: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.a, self.b = 0.5 + torch.rand(D, generator=g), 0.3 * torch.randn(D, generator=g)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (self.a * x + self.b).sinh(), (self.a * (self.a * x + self.b).cosh()).log().sum(-1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = (z.asinh() - self.b) / self.a
        return x, -self.forward(x)[1]

    __call__ = forward


def check_log_prob(answer: Callable) -> None:
    """Against the definition, and against the usual slips."""
    for K, D in ((3, 2), (2, 3)):
        shared, flows = _Affine(D, 10 + K), [_Affine(D, k) for k in range(K)]
        x = 0.3 * torch.randn(6, D, generator=torch.Generator().manual_seed(K))
        log_weights = torch.arange(1.0, K + 1).log_softmax(-1)
        value = numbers(answer(x.clone(), shared, list(flows), log_weights.clone()), None, "log p(x)")
        value = value.flatten() if value.numel() == 6 else value
        expect(value.shape != (6, K), "This is one number for each component. p(x) is their sum, weighted by π_k.")
        expect(value.shape == (6,), f"Expected one number for each point, shape (6,), but got {tuple(value.shape)}.")

        def parts(h: Tensor, flows: list = flows) -> tuple[Tensor, Tensor]:
            z, own = zip(*(flow(h) for flow in flows), strict=True)
            base = -0.5 * torch.stack(z, -1).square().sum(-2) - 0.5 * h.shape[-1] * math.log(2 * math.pi)
            return base, torch.stack(own, -1)

        h, log_det = shared(x)
        base, own = parts(h)
        joint = base + own + log_weights
        right = joint.logsumexp(-1) + log_det

        def gave(other: Tensor, value: Tensor = value, right: Tensor = right) -> bool:
            def near(a: Tensor) -> bool:
                return torch.allclose(value, a.double(), rtol=1e-4, atol=5e-3)

            return not near(right) and near(other)

        expect(
            not gave(joint.logsumexp(-1)),
            "The shared layers stretch, too: their log_det is missing. This is the density of h, not of x.",
        )
        expect(not gave(right - 2 * log_det), "log_det belongs to x → h, the map just applied: it is added.")
        expect(
            not gave(right + (K - 1) * log_det),
            "You counted the shared log_det once for each component. x passes the shared layers once.",
        )
        expect(
            not gave((base + log_weights).logsumexp(-1) + log_det),
            "Each component's own flow has a log_det too, and it differs from component to component.",
        )
        expect(
            not gave((base + own).logsumexp(-1) + log_det),
            "The weights are missing. Without π_k the density integrates to K.",
        )
        expect(
            not gave((base + own).logsumexp(-1) - math.log(K) + log_det), "Here the components are not equally likely."
        )
        expect(not gave(joint.amax(-1) + log_det), "You took the best component alone. The density sums over all.")
        expect(
            not gave(joint.sum(-1) + log_det) and not gave((log_weights.exp() * (base + own)).sum(-1) + log_det),
            "You summed logarithms. A mixture sums densities, and then takes the log: logsumexp.",
        )
        straight = sum(parts(x)) + log_weights
        expect(
            not gave(straight.logsumexp(-1)) and not gave(straight.logsumexp(-1) + log_det),
            "You gave x itself to the components. They stand behind the shared layers: give them h.",
        )
        expect(
            torch.allclose(value, right.double(), rtol=1e-4, atol=5e-3),
            "log Σ_k π_k p_k(h), with h = f(x), plus the log_det of f.",
        )


def check_relatives(answer: Callable) -> None:
    """Maps that do not commute, so that each slip shows."""
    D, K = 3, 4
    shared, flows = _Affine(D, 20), [_Affine(D, k) for k in range(K)]
    x = torch.tensor([0.2, -0.4, 0.1])
    for k in (2, 1):
        value = numbers(answer(x.clone(), k, shared, list(flows)), (K, D), "the images")
        h = shared.forward(x)[0]

        def made(z: Tensor, back: Callable = shared.inverse) -> Tensor:
            return torch.stack([back(flow.inverse(z)[0])[0] for flow in flows])

        def gave(other: Tensor, value: Tensor = value) -> bool:
            return torch.allclose(value, other.double(), rtol=1e-3, atol=1e-3)

        expect(
            not gave(x.expand(K, D)),
            "All images are x: each component took the latent that it has itself for x. Take one z, that of "
            "component k, and give it to all.",
        )
        expect(not gave(made(h)), "h is not the latent yet: the flow of component k comes after the shared layers.")
        expect(
            not gave(made(flows[k].forward(x)[0])), "On the way to z, x passes the shared layers before the flow of k."
        )
        expect(
            not gave(made(flows[k].forward(h)[0], lambda h: (h, None))),
            "What comes out of a component's flow is h, not an image: the shared layers bring it back.",
        )
        expect(not gave(made(flows[0].forward(h)[0])), f"The image is of component {k}, and you used component 0.")
        right = made(flows[k].forward(h)[0])
        expect(not gave(torch.cat((right[:k], right[k + 1 :], right[k : k + 1]))), "The images are not in their order.")
        expect(
            gave(right), "x → shared → flow of k gives z; then for each component back: its flow, the shared layers."
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
    """Runs in which the lowest loss is not the most accurate."""
    cases = (
        (
            [[-3.1, -3.6, -3.2], [-2.9, -3.3, -3.5], [-3.7, -3.0, -3.4]],
            [[0.91, 0.74, 0.97], [0.6, 0.95, 0.9], [0.85, 0.99, 0.7]],
        ),
        ([[5.0, 4.0, 4.5, 4.2], [3.9, 4.4, 4.1, 4.3]], [[0.7, 0.95, 0.6, 0.96], [0.8, 0.9, 0.5, 0.4]]),
    )
    for losses, accuracies in cases:
        L, A = np.array(losses), np.array(accuracies)
        given = answer(L.copy(), A.copy())
        expect(given is not None, "Your function returned None: mean and deviation are missing. Is there a return?")
        expect(isinstance(given, tuple | list) and len(given) == 2, "Return two numbers: the mean and the deviation.")
        mean, deviation = (
            numbers(v, (), name).item() for v, name in zip(given, ("the mean", "the deviation"), strict=True)
        )
        kept = A[np.arange(len(L)), L.argmin(1)]

        def gave(other: float, mean: float = mean, right: float = kept.mean()) -> bool:
            return abs(mean - right) > 1e-4 and abs(mean - other) < 1e-4

        expect(
            not gave(A.max(1).mean()) and not gave(A.max()),
            "You chose with the labels. A recipe without labels cannot know which start is the most accurate.",
        )
        expect(
            not gave(A[np.arange(len(L)), L.argmax(1)].mean()),
            "Those starts have the largest loss. It was to be made small.",
        )
        expect(
            not gave(A.mean()) and not gave(np.median(A)),
            "Starts that were thrown away are not part of what the recipe gives. Which one does each run keep?",
        )
        expect(
            not gave(A[np.unravel_index(L.argmin(), L.shape)]),
            "That is one run, the one with the lowest loss of all. A recipe is judged by all of its runs.",
        )
        expect(not gave(L.min(1).mean()), "That is the mean of the losses. Which accuracies did these starts have?")
        expect(abs(mean - kept.mean()) < 1e-4, "Not yet. Which start of each run would you keep without labels?")
        spread = kept.std(ddof=1)
        expect(
            abs(spread - deviation) < 1e-4 or abs(kept.std() - deviation) > 1e-4,
            "You divided by R. The mean comes from the same few runs: divide the squares by R − 1.",
        )
        expect(
            abs(spread - deviation) < 1e-4 or abs(spread / len(L) ** 0.5 - deviation) > 1e-4,
            "That is the standard error of the mean. Asked is how much one run differs from another.",
        )
        expect(abs(spread - deviation) < 1e-4, "The mean is right. The deviation is that of the kept accuracies.")


def check_clusters(answer: Callable) -> None:
    """By the accuracy after matching, on bundled digits."""
    v, y = five_digits()
    found = numbers(answer(v.clone()), (len(v),), "the clusters")
    expect(
        bool(((found >= 0) & (found <= 4) & (found == found.round())).all()), "Clusters are whole numbers from 0 to 4."
    )
    found = found.long()
    used = len(found.unique())
    right = accuracy(y, found)
    expect(used == 5, f"Only {used} of the five clusters are used ({right:.0%} right). Is something always the same?")
    expect(
        right > 0.5,
        f"{right:.0%} are right, which is hardly better than chance. Do your clusters depend on the images at all?",
    )
    expect(
        right >= 0.95,
        f"{right:.1%} are right after matching, and 95 % are wanted. k-means on plain pixels reaches about 88 %. What "
        f"did stage 1 do to the images, and what does it know that k-means does not?",
    )


EXERCISES = [
    Exercise(
        name="the_mixture_of_flows_on_mnist.1",
        question=(
            "**Behind shared layers.** Write log p(x) of the mixture of section 2 from its parts. Which log_det is the "
            "same for all components, and does it change p(k | x)?"
        ),
        answer=mixture_log_prob,
        check=check_log_prob,
        praise="right. The shared log_det counts once, in log p(x); in p(k | x) it cancels.",
        hints=(
            "Follow x: first through the shared layers, then through one component after another. Which log_det do you "
            "meet where?",
            "For each component: log N(z; 0, I) + its log_det + log π_k. Add these up as densities, then add the "
            "log_det of the shared layers.",
        ),
        aims=("write",),
        why=(
            "The shared layers add one log-det for all components, so it stands outside of the sum over k. "
            "In p(k | x) it is in the numerator and in the denominator, and cancels."
        ),
    ),
    Exercise(
        name="the_mixture_of_flows_on_mnist.2",
        question=(
            "**One style, K digits.** Take an image of a digit and make its relatives: the images that all components "
            "make of its latent. What should the component of the digit itself give back?"
        ),
        answer=relatives,
        check=check_relatives,
        praise="right. Its own component gives the image back; the others say what they make of the same latent.",
        hints=(
            "The latent of x depends on the component. Which one does the image belong to?",
            "On the way to z: shared.forward, then flows[k].forward. On the way back the other order, for every flow.",
        ),
        aims=("carry",),
        why=(
            "The latent of an image is found through its own component, because only that flow was trained on it. "
            "On the way back the order is reversed: the component's inverse first, then that of the shared layers."
        ),
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
        why=(
            "The mutual information is the sum of the two entropies less the joint one, and it is 0 if digit and "
            "component are independent. Divided by the mean of both entropies it lies between 0 and 1, whatever the "
            "components are called."
        ),
    ),
    Exercise(
        name="the_mixture_of_flows_on_mnist.4",
        question=(
            "**Which number is honest?** A recipe without labels was run R times, each time with S starts. Afterwards "
            "the labels say how accurate each start was. What may you print?"
        ),
        answer=to_report,
        check=check_report,
        praise="right. The best of several starts or runs, found with labels, is a method with labels.",
        hints=(
            "Pretend that nobody ever labelled a digit. By what can you choose a start of each run?",
            "np.argmin(losses, axis=1) is the start that each run keeps. Take the accuracies of these, one a run.",
        ),
        aims=("report",),
        why=(
            "Without labels only the loss can choose a start, so the kept one is the argmin of each run. "
            "Mean and deviation over runs then say what somebody else can expect, and the best accuracy does not."
        ),
    ),
    Exercise(
        name="the_mixture_of_flows_on_mnist.5",
        question=(
            "**Open task: clusters without a flow.** Find the five digits without labels, by any means, with 95 % "
            "right after matching. Say to yourself how you would choose between two methods if nobody ever labelled a "
            "digit."
        ),
        answer=find_clusters,
        check=check_clusters,
        praise="right. So an accuracy alone does not show what a mixture of flows is good for.",
        hints=(
            "Slant moves the pixels of a digit more than its name does. flowlab.datasets.augment.upright takes the "
            "slant out.",
            "SpectralClustering of scikit-learn with affinity='nearest_neighbors' and 10 neighbors, on "
            "upright(v.float() / 256).",
        ),
        aims=("find",),
        why=(
            "Upright images of one digit lie closer to each other, so most neighbors of an image are the same digit. "
            "Spectral clustering follows chains of neighbors, where k-means asks for round groups."
        ),
    ),
]
