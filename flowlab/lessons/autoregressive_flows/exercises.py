"""The exercises: masks, who feels a change, the two directions of a MAF, and which of them is slow."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, Wrong, expect, numbers
from flowlab.networks import MaskedMLP


def masks(degrees):
    """The masks of a network whose output i sees only inputs that come before input i: a list of booleans.

    degrees is a list of 1-D tensors of whole numbers: the places of the D inputs in the order, 1 to D, then the degrees
    of each hidden layer. The outputs have the degrees of the inputs. Each mask is (units before, units after).
    """
    hidden = [degrees[n][:, None] <= degrees[n + 1] for n in range(len(degrees) - 1)]
    return [*hidden, degrees[-1][:, None] < degrees[0]]


def flickers(orders, j):
    """The outputs that may change when x_j alone changes, after one autoregressive layer for each order: a set.

    Each order is a list that names the coordinates 0 to D − 1, the first one first.
    """
    moved = {j}
    for order in orders:
        first = min(order.index(i) for i in moved)
        moved = set(order[first:])  # the first that moved, and all that come after it
    return moved


def maf_forward(x, mean, log_std):
    """z and log_det of the map x → z that makes the conditionals N(μ_i(x_<i), exp(α_i(x_<i))²) standard normal.

    x is (N, D); mean(x) = μ and log_std(x) = α are masked networks, each to (N, D). Returns (N, D) and (N,).
    """
    mu, alpha = mean(x), log_std(x)
    return (x - mu) * torch.exp(-alpha), -alpha.sum(-1)


def invert(network, z):
    """x with z_i = x_i · exp(s_i(x_<i)) + t_i(x_<i), where network(x) gives s and t, each (N, D): (N, D) to (N, D)."""
    x = torch.zeros_like(z)
    for i in range(z.shape[-1]):
        s, t = network(x)  # right in column i: it sees only what is known already
        x[:, i] = (z[:, i] - t[:, i]) * torch.exp(-s[:, i])
    return x


def passes(model, task, features, layers):
    """How many passes of a network a flow takes: a whole number.

    model is "MAF", "IAF" or "coupling", with D = features and one network a layer. task is "log_prob" (of given data),
    "sample", or "sample with log_prob": draw samples and say their density too.
    """
    slow = {"MAF": "sample", "IAF": "log_prob"}
    if model == "coupling":
        return layers
    if task == "sample with log_prob":
        task = "sample"  # z was drawn, so it is known: the log_det of the one direction is enough
    return layers * features if task == slow[model] else layers


# --- the checks -----------------------------------------------------------------------------------------------------


def check_masks(answer: Callable) -> None:
    """Against leaks and against connections that are cut for nothing, in several orders."""
    for places, hidden in (
        ([1, 2, 3, 4], [[1, 2, 3], [3, 1, 2, 2, 1]]),
        ([3, 1, 4, 2], [[2, 3, 1, 1]]),
        ([2, 1], [[1]]),
    ):
        degrees = [torch.tensor(units) for units in (places, *hidden)]
        given = answer([units.clone() for units in degrees])
        expect(given is not None, "Your function returned None: the masks are missing. Is there a return?")
        expect(isinstance(given, list | tuple), f"Expected a list of masks, but got {type(given).__name__}.")
        expect(
            len(given) == len(degrees),
            f"Expected {len(degrees)} masks, one for each layer of weights and so also into the outputs, but got "
            f"{len(given)}.",
        )
        sizes = [len(units) for units in (*degrees, degrees[0])]
        shapes = list(itertools.pairwise(sizes))
        got = [numbers(mask, None, "a mask") for mask in given]
        turned = [tuple(mask.shape[::-1]) for mask in got]
        expect(
            turned != shapes or [tuple(m.shape) for m in got] == shapes,
            "Your masks are (units after, units before), as torch's own Linear has them. Asked is (before, after).",
        )
        for mask, shape in zip(got, shapes, strict=True):
            expect(tuple(mask.shape) == shape, f"Expected a mask of shape {shape}, but got {tuple(mask.shape)}.")
            expect(
                bool(((mask == 0) | (mask == 1)).all()), "A mask holds True and False, or 1 and 0, and nothing else."
            )
        right = [mask.double() for mask in masks(degrees)]
        place = degrees[0]

        def leaks(several: list[Tensor], place: Tensor = place) -> Tensor:
            product = several[0]
            for mask in several[1:]:
                product = product @ mask
            return (product > 0) & (place[:, None] >= place)  # (inputs, outputs)

        def gave(last: Tensor, got: list[Tensor] = got) -> bool:
            return torch.equal(got[-1], last.double())

        unordered = degrees[-1][:, None] < torch.arange(1, len(place) + 1)
        expect(
            gave(right[-1]) or not gave(degrees[-1][:, None] <= place),
            "Output i sees input i: with ≤ into the outputs, a unit of degree i reaches it. Whoever may look at x_i "
            "to predict x_i learns nothing.",
        )
        expect(
            gave(right[-1]) or not gave(unordered),
            "You numbered the outputs as they stand. Their degrees are those of the inputs, whatever the order.",
        )
        reverse = [(a[:, None] >= b).double() for a, b in itertools.pairwise(degrees)]
        expect(
            not all(torch.equal(a, b) for a, b in zip(got, reverse, strict=False))
            or all(torch.equal(a, b) for a, b in zip(got, right, strict=True)),
            "Your connections lower the degree: each output sees what comes after it. Which way may information flow?",
        )
        strict = [(a[:, None] < b).double() for a, b in itertools.pairwise(degrees)]
        expect(
            not any(torch.equal(a, b) and not torch.equal(a, c) for a, b, c in zip(got, strict, right, strict=False)),
            "Between hidden layers < cuts more than it must: a unit of degree k may feed another one of degree k.",
        )
        expect(
            not leaks(got).any(),
            "Multiply your masks: some output sees itself, or an input that comes after it.",
        )
        expect(
            all(torch.equal(a, b) for a, b in zip(got, right, strict=True)),
            "No leak, but some connection is cut that need not be: ≤ into hidden units, < into outputs.",
        )


def check_flickers(answer: Callable) -> None:
    """Against booleans that go through the layers, in the same and in different orders."""
    forward, back = [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]
    cases = [
        ([forward], 2),
        ([[2, 0, 4, 1, 3]], 4),
        ([forward, forward, forward], 3),
        ([forward, back], 4),
        ([[2, 0, 4, 1, 3], forward], 1),
        ([[3, 1, 0, 2], [2, 3, 0, 1], [0, 1, 2, 3]], 2),
        ([[0, 4, 1, 2, 3], [2, 0, 1, 4, 3]], 1),
    ]
    for orders, j in cases:
        given = answer([list(order) for order in orders], j)
        expect(given is not None, "Your function returned None: the set of outputs is missing. Is there a return?")
        try:
            given = {int(i) for i in given}
        except (TypeError, ValueError):
            raise Wrong(f"Expected a set of coordinates such as {{0, 2}}, but got {type(given).__name__}.") from None
        right = flickers(orders, j)

        def gave(other: set[int], given: set[int] = given, right: set[int] = right) -> bool:
            return given != right and given == other

        def after(order: list[int], i: int) -> set[int]:
            return set(order[order.index(i) :])

        expect(
            not gave(right - {j}) or j not in after(orders[0], j),
            f"x_{j} itself is missing: z_{j} = x_{j} · exp(s) + t, so it moves first of all.",
        )
        expect(
            not gave(after(orders[0], j)),
            "That holds after the first layer. The next one has another order, and its first changed input may stand "
            "at its very front.",
        )
        expect(
            not gave(after(orders[-1], j)),
            "You looked at the last layer only. What had moved before it came to its turn?",
        )
        expect(
            not gave(set.union(*(after(order, j) for order in orders))),
            f"You let x_{j} alone go through each layer. After the first one others have moved too, and move more.",
        )
        by_place = {i for i in range(len(orders[0])) if orders[0][i] >= orders[0][j]}
        expect(
            not gave(by_place),
            "order[j] is the coordinate at place j. You want the place of coordinate j: order.index(j).",
        )
        expect(
            not gave(set(range(len(orders[0])))),
            "Not everything: what stands before the changed input, in this layer's order, does not feel it.",
        )
        expect(
            given == right,
            "Go through the layers: the first coordinate of its order that has moved, and all behind it, move now.",
        )


def _networks(D: int, seed: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A masked network with random weights: (N, D) to s and t."""
    generator = torch.Generator().manual_seed(seed)
    network = MaskedMLP(D, 2, hidden=(12,), activation="tanh", generator=generator).requires_grad_(False)
    network.last.weight.normal_(std=0.6, generator=generator)
    network.last.bias.normal_(std=0.3, generator=generator)
    return lambda x: network(x).unbind(-2)


def check_forward(answer: Callable) -> None:
    """Against autograd's Jacobian, and against the usual slips."""
    for D, N in ((3, 4), (5, 2)):
        network = _networks(D, D)
        x = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
        given = answer(x.clone(), lambda x, f=network: f(x)[0], lambda x, f=network: f(x)[1])
        expect(given is not None, "Your function returned None: z and log_det are missing. Is there a return?")
        expect(isinstance(given, tuple | list) and len(given) == 2, "Expected two things, z and log_det.")
        z = numbers(given[0], (N, D), "z")
        mu, alpha = (part.double() for part in network(x))
        for other, hint in (
            (mu + x * alpha.exp(), "This is z → x, how one *draws*: x = z · exp(α) + μ. Asked is the way back."),
            ((x - mu) * alpha.exp(), "You multiplied by the deviation: x − μ is *divided* by exp(α)."),
            ((x - mu) * (-alpha / 2).exp(), "You took α for the log of a variance. It is that of a deviation."),
            ((x - mu) * (-2 * alpha).exp(), "You divided by the variance. Divide by the deviation exp(α)."),
            (x * (-alpha).exp() - mu, "First take μ away, then divide."),
        ):
            expect(not torch.allclose(z, other), hint)
        expect(
            torch.allclose(z, (x - mu) * (-alpha).exp()),
            "z is how many deviations x_i lies from its mean: (x − μ) · exp(−α).",
        )
        right = -alpha.sum(-1)
        log_det = numbers(given[1], None, "log_det")
        log_det = log_det.flatten() if log_det.numel() == N else log_det
        expect(
            log_det.shape != (N, D),
            "log_det has a number for each coordinate. The determinant of a triangle is one number: sum.",
        )
        expect(log_det.shape == (N,), f"Expected log_det as shape ({N},), but got {tuple(log_det.shape)}.")
        for other, hint in (
            (
                -right,
                "The sign is turned: that is the log_det of z → x. A wide conditional is squeezed to make z.",
            ),
            (-alpha.mean(-1), "A log-determinant is a sum over the diagonal, not a mean."),
            (right.exp(), "That is the determinant itself. Asked is its log."),
            (right + z.square().sum(-1) * -0.5, "The base density is not part of log_det."),
            (-mu.sum(-1), "A shift does not stretch. The diagonal holds exp(−α)."),
            (torch.zeros_like(right), "log_det is not 0: the map divides by exp(α)."),
        ):
            expect(not torch.allclose(log_det, other), hint)
        expect(torch.allclose(log_det, right), "∂z_i/∂x_i = exp(−α_i). The log of their product is −Σ α.")


def check_invert(answer: Callable) -> None:
    """By going there and back, in several dimensions."""
    for D in (4, 7):
        f = _networks(D, 10 + D)
        x = torch.randn(5, D, generator=torch.Generator().manual_seed(2))
        s, t = f(x)
        z = x * s.exp() + t
        given = numbers(answer(f, z.clone()), (5, D), "x")

        def gave(other: Tensor, given: Tensor = given) -> bool:
            return torch.allclose(given, other.double(), rtol=1e-4, atol=1e-4)

        if gave(x):
            continue
        for start, hint in (
            (z, "You asked the network once, at z. But s and t are functions of x, and x is what is wanted."),
            (
                0 * z,
                "These are s and t at zeros: right for x_1 and for no other. Once is not enough, and a loop has to "
                "begin at x_1, where nothing needs to be known.",
            ),
        ):
            s, t = f(start)
            expect(not gave((z - t) * (-s).exp()), hint)

        def one_by_one(undo: Callable[[Tensor, Tensor, Tensor], Tensor], z: Tensor = z, f: Any = f) -> Tensor:
            h = torch.zeros_like(z)
            for i in range(z.shape[-1]):
                s, t = f(h)
                h[:, i] = undo(z[:, i], s[:, i], t[:, i])
            return h

        expect(
            not gave(one_by_one(lambda z, s, t: z * s.exp() + t)),
            "One after another, yes; but you applied the map instead of undoing it: first take t away, then divide.",
        )
        expect(
            not gave(one_by_one(lambda z, s, t: (z - t) * s.exp())),
            "t is taken away; now *divide* by exp(s).",
        )
        expect(
            not gave(one_by_one(lambda z, s, t: z * (-s).exp() - t)),
            "The map scales, then shifts. Undo the last thing first: take t away before you divide.",
        )
        expect(
            not torch.allclose(given[:, : D - 1], x[:, : D - 1].double(), rtol=1e-4, atol=1e-4),
            "All but the last coordinate come back. How many passes does it take?",
        )
        expect(gave(x), "x does not come back. Ask the network again after each coordinate that you have found.")


def check_passes(answer: Callable) -> None:
    """All models and tasks, with answers that no other rule gives."""
    tasks = ("log_prob", "sample", "sample with log_prob")
    table = {
        (model, task, D, L): answer(model, task, D, L)
        for D, L in ((784, 5), (10, 3))
        for model in ("MAF", "IAF", "coupling")
        for task in tasks
    }
    table = {key: float(numbers(value, (), "the passes")) for key, value in table.items()}

    def all_are(rule: Callable[[str, str, int, int], int]) -> bool:
        return all(value == rule(*key) for key, value in table.items())

    def swapped(model: str, task: str, D: int, L: int) -> int:
        return passes({"MAF": "IAF", "IAF": "MAF"}.get(model, model), task, D, L)

    def twice(model: str, task: str, D: int, L: int) -> int:
        if task != "sample with log_prob":
            return passes(model, task, D, L)
        return passes(model, "sample", D, L) + passes(model, "log_prob", D, L)

    expect(
        not all_are(swapped),
        "MAF and IAF are swapped. MAF's networks read x: whoever *has* x asks all of them at once.",
    )
    expect(
        not all_are(lambda m, t, D, L: passes(m, t, D, 1)) and not all_are(lambda m, t, D, L: swapped(m, t, D, 1)),
        "That is for one layer. Each layer has a network, and they follow one another.",
    )
    expect(
        not all_are(twice),
        "For the density of its own samples nobody needs to go back: z was drawn, and the log_det came along.",
    )
    expect(
        not all_are(lambda m, t, D, L: D**L if passes(m, t, D, L) > L else L),
        "The layers follow one another: D passes for each of them. They add up, they do not multiply.",
    )
    expect(
        not all_are(lambda m, t, D, L: 2 * L if m == "coupling" else passes(m, t, D, L)),
        "A coupling asks its network once: the part that it reads is known in both directions.",
    )
    expect(
        not all_are(lambda m, t, D, L: passes("MAF", t, D, L) if m == "coupling" else passes(m, t, D, L)),
        "A coupling has only two places in its order: the part that passes, and the part that moves.",
    )
    for key, value in table.items():
        model, task, D, L = key
        expect(
            value == passes(*key),
            f"{model} with {L} layers in {D} dimensions, {task!r}: {value:.0f} passes? Which of x and z do its "
            "networks read, and is it known?",
        )


EXERCISES = [
    Exercise(
        name="autoregressive_flows.1",
        question=(
            "**Masks.** Write MADE's masks from the degrees of all units, for any number of hidden layers. Multiply "
            "them: is the product strictly lower triangular, once inputs and outputs are sorted by place?"
        ),
        answer=masks,
        check=check_masks,
        praise="right. One ≤ and one <, and D functions come out of one pass.",
        hints=(
            "A degree says up to which place a unit knows. What may it hear from, if it is not to know more?",
            "before[:, None] <= after into each hidden layer; degrees[-1][:, None] < degrees[0] into the outputs.",
        ),
        aims=("build",),
    ),
    Exercise(
        name="autoregressive_flows.2",
        question=(
            "**Who flickers?** Change x_j and nothing else. Which outputs may change after several layers, each with "
            "an order of its own? Then settle it: when is a product of triangular Jacobians triangular?"
        ),
        answer=flickers,
        check=check_flickers,
        praise="right. Only a common order keeps the triangle; one reversal, and everything may feel everything.",
        hints=(
            "In one layer: x_j itself and all that come later in *that layer's* order. In the next layer, start from "
            "all of them.",
            "Keep the set of what has moved. In each layer find the smallest order.index(i) over it; the new set is "
            "order[first:].",
        ),
        aims=("trace",),
    ),
    Exercise(
        name="autoregressive_flows.3",
        question=(
            "**In the paper's letters.** MAF's paper has conditionals with means μ and log-deviations α. Write x → z "
            "and its log_det. Mind the sign."
        ),
        answer=maf_forward,
        check=check_forward,
        praise="right. So s = −α and t = −μ · exp(−α): the package's letters and the paper's are the same map.",
        hints=(
            "z says how many deviations x_i lies from its mean. What is ∂z_i/∂x_i?",
            "z = (x − μ) · exp(−α); the diagonal of the Jacobian is exp(−α), so log_det = −α.sum(-1).",
        ),
        aims=("write",),
    ),
    Exercise(
        name="autoregressive_flows.4",
        question="**The slow direction.** Undo z = x · exp(s) + t, where s and t come from a masked network of x.",
        answer=invert,
        check=check_invert,
        praise="right. D passes, and each is needed: this loop is what sampling from a MAF costs.",
        hints=(
            "x_1 needs nothing: s_1 and t_1 are constants. What can you ask the network once you know x_1?",
            "Start with zeros. For each i: s, t = network(x), then x[:, i] = (z[:, i] − t[:, i]) · exp(−s[:, i]).",
        ),
        aims=("write",),
    ),
    Exercise(
        name="autoregressive_flows.5",
        question=(
            "**The stopwatch.** How many passes of a network does each model take for each task? Which one would you "
            "take to fit data, and which one for the ELBO, which needs samples of q and their density?"
        ),
        answer=passes,
        check=check_passes,
        praise=(
            "right. MAF to fit data, IAF for q in an ELBO, couplings where both directions must be fast, and each buys "
            "its speed with something."
        ),
        hints=(
            "A network can be asked at once if all that it reads is known. What do MAF's networks read, what IAF's?",
            "What it reads is known: one pass a layer. It is not: D passes a layer. Whoever has drawn a sample has met "
            "its s on the way, and needs no second journey for the density.",
        ),
        aims=("predict",),
    ),
]
