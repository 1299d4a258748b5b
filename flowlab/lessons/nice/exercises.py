"""The exercises: a coupling with another law, who depends on whom, the area that S moves, a bug museum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, numbers, one_of
from flowlab.lessons.nice.toys import museum


def sinh_coupling(x, m):
    """z and log_det, (n, 2) and (n,), of the layer z₁ = x₁ and z₂ = sinh(arcsinh(x₂) + m(x₁))."""
    x1, x2 = x.unbind(-1)
    u = torch.arcsinh(x2) + m(x1)
    log_det = torch.log(torch.cosh(u)) - 0.5 * torch.log(1 + x2**2)  # log ∂z₂/∂x₂
    return torch.stack((x1, torch.sinh(u)), dim=-1), log_det


def layers_needed(masks):
    """After how many of these layers every output depends on every input; None if after none of them.

    ``masks`` holds one list of D booleans for each layer, True where a coordinate passes unchanged.
    """
    D = len(masks[0])
    depends = torch.eye(D, dtype=torch.bool)  # depends[i, j]: z_i depends on x_j
    for count, mask in enumerate(masks, start=1):
        for i in range(D):
            if not mask[i]:  # moved: it keeps what it has, and takes over what the passing ones have
                depends[i] = depends[i] | depends[torch.tensor(mask)].any(0)
        if depends.all():
            return count
    return None


def area_above(c, S):
    """The area of {p > c} for a flow of any additive couplings, then z = S · (…), then a standard normal: a number.

    ``S`` holds the two entries of the diagonal, both positive.
    """
    det = S[0] * S[1]
    if 2 * math.pi * c >= det:  # p is nowhere above c
        return 0.0
    squared_radius = 2 * math.log(det / (2 * math.pi * c))  # of the disc {p_Z(z) · det > c}
    return math.pi * squared_radius / det


def diagnose(layer, x):
    """ "inverse", "log_det" or "sound": what this layer has wrong, found from its behavior at the points x (n, D)."""
    z, log_det = layer.forward(x)
    if not torch.allclose(layer.inverse(z)[0], x, atol=1e-3):
        return "inverse"
    J = torch.func.vmap(torch.func.jacrev(lambda point: layer.forward(point)[0]))(x)  # (n, D, D)
    if not torch.allclose(log_det, torch.linalg.slogdet(J).logabsdet, atol=1e-3):
        return "log_det"
    return "sound"


def check_sinh(answer: Callable) -> None:
    """z by the formula, log_det against ∂z₂/∂x₂, for an m that folds, one that is steep, and one that is flat."""
    x = 2 * torch.randn(40, 2, generator=Generator().manual_seed(4), dtype=torch.float64)
    x1, x2 = x.unbind(-1)
    for m, slope in (
        (lambda u: 0.3 * u**2, 0.6 * x1),
        (lambda u: 3 * u, torch.full_like(x1, 3)),
        (lambda u: 0 * u + 0.7, torch.zeros_like(x1)),
    ):
        pair = answer(x.clone(), m)
        expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: z (n, 2) and log_det (n,).")
        z = numbers(pair[0], (40, 2), "z")
        right_z, right = sinh_coupling(x, m)
        if not close(z, right_z):
            raise Wrong(_which_z(z, x1, x2, m))
        log_det = numbers(pair[1], (40,), "log_det")
        if not close(log_det, right):
            raise Wrong(_which_log_det(log_det, right, slope.abs().log(), torch.arcsinh(x2) + m(x1)))


def _which_z(z: Tensor, x1: Tensor, x2: Tensor, m: Callable) -> str:
    if close(z[:, 1], x2 + m(x1)):
        return "You added m(x₁) to x₂: that is NICE's law. Asked is sinh(arcsinh(x₂) + m(x₁))."
    if close(z[:, 1], x2) and not close(z[:, 0], x1):
        return "Your layer moves x₁ and lets x₂ pass. Asked is the other way: z₁ = x₁."
    if close(z[:, 1], torch.sinh(torch.arcsinh(x2) + m(x2))):
        return (
            "You take m(x₂): the coordinate that moves is also the one that says how. To undo that you would have to "
            "invert m. Condition on x₁, which the other side of the layer still has."
        )
    return "Your z is not (x₁, sinh(arcsinh(x₂) + m(x₁))). Check it at one point by hand."


def _which_log_det(log_det: Tensor, right: Tensor, log_slope: Tensor, u: Tensor) -> str:
    if close(log_det, torch.zeros_like(right)):
        return (
            "Your log_det is 0: true of the additive law, where ∂z₂/∂x₂ = 1. This law stretches: what is its ∂z₂/∂x₂?"
        )
    if close(log_det, right + log_slope) or close(log_det, log_slope):
        return (
            "Your log_det counts the slope of m. But ∂z₂/∂x₁ stands below the diagonal of a triangular Jacobian, and "
            "the determinant does not see it. m may be flat, or not invertible: only ∂z₂/∂x₂ counts."
        )
    if close(log_det, -right):
        return "Your log_det has the wrong sign: it belongs to the map just applied, x to z."
    if close(log_det, u.cosh().log()):
        return (
            "Half of the chain rule is missing: z₂ is sinh of arcsinh(x₂) + m, and what is inside has a slope in "
            "x₂ as well, 1/√(1 + x₂²)."
        )
    if close(log_det, right.exp()):
        return "This is ∂z₂/∂x₂ itself; log_det is its logarithm."
    if close(log_det, log_det[0]):
        return "Your log_det is the same for each sample. Here it depends on the point: one number for each row of x."
    return "z is right, log_det is not yet. Compare it with slogdet of what torch.func.jacrev gives at one point."


def check_layers(answer: Callable) -> None:
    """The count for irregular masks, where each misreading gives another number, then for regular ones."""
    for masks in _MASKS:
        count, right = answer([list(mask) for mask in masks]), layers_needed(masks)
        shown = "masks " + " ".join("".join("1" if passes else "0" for passes in mask) for mask in masks)
        if count is not None:
            count = float(numbers(count, (), "the number of layers, or None,"))
            expect(count == int(count), f"Return a whole number or None, but got {count:g}.")
            count = int(count)
        if count == right:
            continue
        expect(
            count is not None,
            f"You say never, for {shown} (1 passes). Do you hold that a product of triangular matrices is triangular? "
            "Only if all are triangular in the same order of coordinates. Or does your moved coordinate forget itself? "
            "It keeps its own x: z_b = x_b + m(x_a).",
        )
        expect(
            count != _changed(masks),
            f"After {count} layers every coordinate has been *changed*, for {shown}. Asked is when every output "
            "depends on every input: follow one input through the layers.",
        )
        expect(
            count not in (_full(masks, inverted=True), _full(masks, backward=True)),
            f"Your count, {count}, fits layers in reverse order, or masks that say True = moved, for {shown}. Here "
            "True passes, and in a product of Jacobians the *last* layer stands on the left: J = J₂ J₁.",
        )
        expect(
            right is None or count != right - 1,
            f"One too few for {shown}: count layers from 1, and look after the layer, not before.",
        )
        expect(
            right is not None,
            f"For {shown} you say {count}, but the half that passes never changes: it never happens, and the answer is "
            "None.",
        )
        raise Wrong(f"For {shown} (1 passes) it takes {right}, but you say {count}. Draw the matrices by hand.")


def _full(masks: list, *, inverted: bool = False, backward: bool = False) -> int | None:
    """What two misreadings give: masks the other way round, and factors of the product in the wrong order."""
    depends = torch.eye(len(masks[0]), dtype=torch.bool)
    for count, mask in enumerate(masks, start=1):
        passes = torch.tensor(mask) ^ inverted
        layer = torch.eye(len(mask), dtype=torch.bool) | (~passes[:, None] & passes)
        first, last = (layer, depends) if backward else (depends, layer)
        depends = (last.float() @ first.float()) > 0
        if depends.all():
            return count
    return None


def _changed(masks: list) -> int | None:
    for count in range(1, len(masks) + 1):
        if not torch.tensor(masks[:count]).all(0).any():
            return count
    return None


def _mask(passes: str) -> list[bool]:
    return [bit == "1" for bit in passes]


def _in_turn(passes: str, layers: int = 5) -> list[list[bool]]:
    return [[b != (i % 2 == 1) for b in _mask(passes)] for i in range(layers)]


_MASKS = [
    [_mask(passes) for passes in ("00001", "10010", "01110", "00100", "00110", "10001")],  # 6; changed after 2
    _in_turn("1010"),  # 3
    _in_turn("10"),  # 2
    [_mask("1100")] * 5,  # never
    _in_turn("11110"),  # 2
    _in_turn("010"),  # 3
]


def check_area(answer: Callable) -> None:
    """The closed form, for S of large and of unit determinant, and for a level that p never reaches."""
    for c, S in ((0.03, (1.0, 1.0)), (0.05, (2.0, 0.5)), (0.05, (2.0, 1.5)), (0.02, (0.5, 0.8)), (0.2, (2.0, 2.0))):
        area = float(numbers(answer(c, torch.tensor(S, dtype=torch.float64)), (), "the area"))
        det = S[0] * S[1]

        def disc(squared_radius: float) -> float:
            return math.pi * squared_radius

        def off_by(wrong: float, area: float = area) -> bool:
            return math.isclose(area, wrong, rel_tol=5e-3)

        level = 2 * math.log(det / (2 * math.pi * c))
        plain = 2 * math.log(1 / (2 * math.pi * c)) if 2 * math.pi * c < 1 else 0.0
        if off_by(disc(level) / det):
            continue
        where = f" (c = {c}, S = {S})"
        expect(
            not off_by(disc(math.sqrt(level)) / det),
            "You took r for r². Solving p > c gives the *squared* radius of the disc." + where,
        )
        expect(not off_by(level / det), "A disc of radius r has the area π r²: the π is missing." + where)
        expect(
            not off_by(disc(level) / det / 2),
            "Half of it. In exp(−|z|²/2) stands a half: |z|² < 2 log(…)." + where,
        )
        expect(
            not off_by(disc(plain)),
            "This is the area without S. Couplings do not move it, but S does: it enters in two places." + where,
        )
        expect(
            not off_by(disc(level) * det),
            "The wrong way round: z = S·(…), so a large S makes x *small*. Divide the area in z by det S." + where,
        )
        expect(
            not off_by(disc(level)),
            "You have the disc in z. The set is in x, and det S says how areas go from x to z." + where,
        )
        expect(
            not off_by(disc(plain) / det),
            "You scaled the area, but p(x) = p_Z(z) det S: S moves the level too. Which z have p_Z(z) det S > c?"
            + where,
        )
        raise Wrong(f"Not yet: {area:.3f} came, and a grid over the plane counts {disc(level) / det:.3f}{where}.")
    high = float(numbers(answer(0.3, torch.tensor([1.0, 1.0], dtype=torch.float64)), (), "the area"))
    expect(
        math.isclose(high, 0.0, abs_tol=1e-6),
        f"With c = 0.3 and S = (1, 1), p is nowhere above c (its top is 1/2π = 0.159), yet your area is {high:.3f}.",
    )


def check_diagnose(answer: Callable) -> None:
    """Fresh exhibits in several dimensions: sound additive, sound affine, both subtract, log_det over all."""
    truth = {"A": "sound", "B": "inverse", "C": "sound", "D": "log_det"}
    for features, seed in itertools.product((2, 3, 6), (1, 2)):
        x = torch.randn(50, features, generator=Generator().manual_seed(seed))
        for name, layer in museum(features, seed).items():
            said, right = one_of(answer(layer, x.clone()), ("inverse", "log_det", "sound")), truth[name]
            if said != right:
                raise Wrong(_DIAGNOSIS[name, said])


_DIAGNOSIS = {  # exhibit, and what was said of it
    ("A", "log_det"): "You accuse a sound affine coupling of a wrong log_det. Not every coupling keeps volume: "
    "compare with the Jacobian from autograd, not with 0.",
    ("A", "inverse"): "You accuse a sound affine coupling of a wrong inverse. It comes back to within float32 "
    "rounding, so ask for close, not for equal.",
    ("B", "sound"): "A layer whose inverse does not lead back got past you: compare inverse(forward(x)) with x.",
    ("B", "log_det"): "You call it log_det, but this layer's log_det is right (it is additive): its inverse is not. "
    "Compare inverse(forward(x)) with x first.",
    ("C", "log_det"): "You accuse a sound additive coupling of a wrong log_det. Its Jacobian has ones on the diagonal.",
    ("C", "inverse"): "You accuse a sound additive coupling of a wrong inverse. Are you comparing floats with ==?",
    ("D", "sound"): "A layer with a wrong log_det got past you. It comes back to x, and its two log-dets do cancel: "
    "both are wrong alike. Only the Jacobian itself, or an integral of the density, can tell.",
    ("D", "inverse"): "You call it the inverse, but this layer does come back to x. What is wrong is its log_det.",
}


EXERCISES = [
    Exercise(
        name="nice.1",
        question=(
            "**Another law.** Write one coupling layer in the plane with the law z₂ = sinh(arcsinh(x₂) + m(x₁)), "
            "which can stretch, and with any function m as its conditioner. z₁ = x₁ passes. Does m have to be "
            "invertible? Does its slope belong in log_det?"
        ),
        answer=sinh_coupling,
        check=check_sinh,
        praise="right, for an m that folds, a steep one and a flat one: only the law is inverted, only ∂z₂/∂x₂ counts.",
        hints=(
            "The Jacobian is triangular with 1 and ∂z₂/∂x₂ on its diagonal.",
            "With u = arcsinh(x₂) + m(x₁): ∂z₂/∂x₂ = cosh(u) · 1/√(1 + x₂²). Take the logarithm.",
        ),
        aims=("write",),
        why=(
            "The Jacobian is triangular with 1 and ∂z₂/∂x₂ on its diagonal, and the slope of m stands below it. "
            "By the chain rule ∂z₂/∂x₂ = cosh(u)/√(1 + x₂²), and its logarithm is log_det."
        ),
    ),
    Exercise(
        name="nice.2",
        question=(
            "**Who depends on whom?** You are given the masks of a flow, one a layer, in any order and of any kind. "
            "After how many layers does every output depend on every input?"
        ),
        answer=layers_needed,
        check=check_layers,
        praise="right, also where a mask never changes (never) and where one coordinate moves first (two).",
        hints=(
            "Keep a boolean matrix: row i says on which inputs z_i depends. It starts as the identity.",
            "A layer leaves the rows of the passing coordinates alone. A moved row becomes itself OR all passing rows.",
        ),
        aims=("count",),
        why=(
            "A passing coordinate keeps what it depends on. A moved one is a function of itself and of all that "
            "pass, so it depends on all inputs on which any of these depends."
        ),
    ),
    Exercise(
        name="nice.3",
        question=(
            "**The area that S moves.** A flow of additive couplings ends with z = S · (…), S = diag(S₁, S₂), before a "
            "standard normal. What is the area of {p > c}? Compare it with the explorer: S = diag(2, 1) and c = 0.04."
        ),
        answer=area_above,
        check=check_area,
        praise="right: only S₁ · S₂ enters, twice: it raises the density, and it shrinks the area.",
        hints=(
            "p(x) = p_Z(z) · S₁ S₂ = S₁ S₂/(2π) · exp(−|z|²/2). Which disc of z has p > c?",
            "The disc has r² = 2 log(S₁ S₂/(2πc)). From x to z areas grow by S₁ S₂. And if S₁ S₂ ≤ 2πc?",
        ),
        aims=("explain", "read"),
        why=(
            "p(x) = S₁ S₂ p_Z(z), so p > c holds on a disc of z with r² = 2 log(S₁ S₂/(2πc)), if that is "
            "positive. Its area π r² in z is an area π r²/(S₁ S₂) in x, because additive couplings keep areas."
        ),
    ),
    Exercise(
        name="nice.4",
        question=(
            "**Open task: the bug museum.** Here are four coupling layers; two of them hold a mistake. Do not read "
            "their code. Invent a test that finds out from a layer's behavior what is wrong with it."
        ),
        answer=diagnose,
        check=check_diagnose,
        praise="right: a round trip, and the Jacobian from autograd. No layer of this package is trusted without both.",
        hints=(
            "A layer promises two things: that inverse undoes forward, and that log_det is log |det J| of forward.",
            "J at one point is torch.func.jacrev(lambda p: layer.forward(p)[0])(point); torch.linalg.slogdet does the "
            "rest. That the two log-dets cancel proves nothing: both may be wrong alike.",
        ),
        aims=("catch",),
        why=(
            "A layer promises that inverse undoes forward and that log_det is log |det J| of forward. Each "
            "promise can be tested at points, the second by autograd, whatever the code looks like."
        ),
    ),
]
