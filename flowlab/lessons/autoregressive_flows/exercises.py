"""The exercises: masks, who feels a change, the slow direction of a MAF, and an order of the coordinates."""

from __future__ import annotations

import itertools
import math
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


def invert(network, z):
    """x with z_i = x_i · exp(s_i(x_<i)) + t_i(x_<i), where network(x) gives s and t, each (N, D): (N, D) to (N, D)."""
    x = torch.zeros_like(z)
    for i in range(z.shape[-1]):
        s, t = network(x)  # right in column i: it sees only what is known already
        x[:, i] = (z[:, i] - t[:, i]) * torch.exp(-s[:, i])
    return x


def choose_order(features, log_likelihood):
    """An order of the coordinates 0 to D − 1 in which Gaussian conditionals fit well: a list, the first one first.

    features is D. log_likelihood(order) fits every conditional as a Gaussian whose mean is a quadratic function of what
    comes before, and gives the mean log-likelihood on held-out data, in nats. You may call it 60 times.
    """
    order = list(range(features))
    best = log_likelihood(order)
    for i in range(features):  # to the front, and back if it does not help
        tried = [i, *(k for k in order if k != i)]
        if (found := log_likelihood(tried)) > best + 1e-3:
            order, best = tried, found
    return order


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


def _moons(D: int, seed: int) -> tuple[Tensor, list[int], float]:
    """D/2 bent moons (6000, D), their columns shuffled; the columns to read first; the mean log-density."""
    g = torch.Generator().manual_seed(seed)
    first = 2 * torch.randn(6000, D // 2, generator=g, dtype=torch.float64)
    eps = torch.randn(6000, D // 2, generator=g, dtype=torch.float64)
    place = torch.randperm(D, generator=g)
    x = torch.cat((first, first.square() / 4 + eps), 1)[:, place]
    truth = -0.5 * (eps.square() + (first / 2).square()) - math.log(2 * math.pi) - math.log(2)
    return x, [i for i in range(D) if place[i] < D // 2], float(truth[3000:].sum(1).mean())


def _log_likelihood(x: Tensor, order: list[int]) -> float:
    """Of the second half of x, by Gaussian conditionals with quadratic means that least squares fits to the first."""
    total = 0.0
    for n, i in enumerate(order):
        before = x[:, order[:n]]
        terms = torch.cat((torch.ones_like(x[:, :1]), before, before.square()), 1)  # (6000, 1 + 2n)
        fitted = terms @ torch.linalg.lstsq(terms[:3000], x[:3000, i : i + 1]).solution
        error = (x[:, i : i + 1] - fitted).square()
        variance = error[:3000].mean()
        total += float(-0.5 * (error[3000:].mean() / variance + torch.log(2 * math.pi * variance)))
    return total


def check_order(answer: Callable) -> None:
    """By what the order reaches, with a limited number of looks."""
    for D, seed in ((4, 0), (6, 1), (8, 2)):
        x, first, truth = _moons(D, seed)
        calls = 0

        def log_likelihood(order: Any, x: Tensor = x, D: int = D) -> float:
            nonlocal calls
            calls += 1
            expect(calls <= 60, "You asked more than 60 times. Which moves of one coordinate would tell you most?")
            return _log_likelihood(x, _order(order, D))

        order = _order(answer(D, log_likelihood), D)
        lost = truth - _log_likelihood(x, order)
        wrong = sum(order.index(i) > D // 4 for i in first)
        if lost > 0.05 and order == list(range(D)):
            raise Wrong(f"That is the order of the columns as they came. It loses {lost:.2f} nats in {D} dimensions.")
        expect(
            lost < 0.6 or wrong < len(first) - 1,
            f"Your order loses {lost:.2f} nats in {D} dimensions, nearly as much as the worst. Is it turned round? The "
            "higher log-likelihood is the better one.",
        )
        expect(
            lost < 0.05,
            f"Your order loses {lost:.2f} nats in {D} dimensions. A pair is still read in its bad direction: move one "
            "coordinate to the front, and keep the move if the log-likelihood rises.",
        )


def _order(order: Any, D: int) -> list[int]:
    """What a student gave as an order, as a list."""
    found = [int(i) for i in numbers(order, None, "the order").flatten()]
    expect(
        sorted(found) == list(range(D)), f"An order names each of the coordinates 0 to {D - 1} once; yours is {found}."
    )
    return found


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
        why=(
            "Along a path the degree never falls, and into an output it rises, so no path leads from an input to an "
            "output at the same place or before it. With < between hidden layers as well, nothing would leak either, "
            "but connections would be cut for nothing."
        ),
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
        why=(
            "In one layer a change reaches the coordinate itself and all that stand after it in the order of this "
            "layer. The next layer starts from all of these, and only a common order keeps those before them unchanged."
        ),
    ),
    Exercise(
        name="autoregressive_flows.3",
        question="**The slow direction.** Undo z = x · exp(s) + t, where s and t come from a masked network of x.",
        answer=invert,
        check=check_invert,
        praise="right. D passes, and each is needed: this loop is what sampling from a MAF costs.",
        hints=(
            "x_1 needs nothing: s_1 and t_1 are constants. What can you ask the network once you know x_1?",
            "Start with zeros. For each i: s, t = network(x), then x[:, i] = (z[:, i] − t[:, i]) · exp(−s[:, i]).",
        ),
        aims=("undo",),
        why=(
            "s and t of a coordinate depend only on those before it, so they are right as soon as these are known. "
            "Each pass of the network settles one coordinate, and D passes settle all."
        ),
    ),
    Exercise(
        name="autoregressive_flows.4",
        question=(
            "**Open task: an order.** The columns of a table are bent moons, two columns each, in an unknown order. "
            "Find an order in which Gaussian conditionals lose less than 0.05 nats, and ask for the log-likelihood at "
            "most 60 times. Many ways lead there."
        ),
        answer=choose_order,
        check=check_order,
        praise="right. Your order reads each moon in the direction in which its conditionals are Gaussian.",
        hints=(
            "There are D! orders, too many to try. What happens to the log-likelihood if one coordinate moves to the "
            "front?",
            "For each coordinate: put it first, ask, and keep the new order only if the log-likelihood rose.",
        ),
        aims=("choose",),
        why=(
            "A coordinate that others depend on in a simple way should stand before them, and at the front it does. "
            "The pairs do not depend on each other, so each of these moves can be judged by itself, and D + 1 calls "
            "are enough."
        ),
    ),
]
