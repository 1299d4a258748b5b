"""The exercises: back from a factored 1×1 convolution, arranging coordinates, who looks at the batch, ActNorm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, expect, numbers, yes_or_no


def unmix(z, P, L, U, s):
    """Undo the 1×1 convolution with W = P L (U + diag(s)): (x, log_det) of the way z → x, (N, C, H, W') and (N,).

    P, L and U are (C, C): a permutation, lower triangular with ones on its diagonal, upper triangular with zeros there.
    s is (C,), may be negative, and is never 0. No inverse and no determinant of a matrix is needed.
    """
    N, C, height, width = z.shape
    columns = P.T @ z.transpose(0, 1).reshape(C, -1)  # a column for each pixel of each image
    columns = torch.linalg.solve_triangular(L, columns, upper=False, unitriangular=True)
    columns = torch.linalg.solve_triangular(U + torch.diag(s), columns, upper=True)
    x = columns.reshape(C, N, height, width).transpose(0, 1)
    return x, (-height * width * s.abs().log().sum()).expand(N)


def arrange():
    """Four permutations of eight coordinates, one before each coupling: four lists of the numbers 0 to 7.

    A list [2, 0, …] takes what stands at place 2 to place 0, what stands at place 0 to place 1, and so on. The places
    0 to 3 pass, and the places 4 to 7 are moved. The pairs are the coordinates 0 and 1, 2 and 3, 4 and 5, 6 and 7.
    """
    apart, swap = [0, 2, 4, 6, 1, 3, 5, 7], [4, 5, 6, 7, 0, 1, 2, 3]
    return [apart, swap, swap, [7, 4, 5, 6, 0, 1, 2, 3]]


def looks_at_others(layer, x):
    """Whether the output of one sample, z or log_det, depends on the other samples: True or False.

    layer takes x (N, D) and gives z (N, D) and log_det (N,). x is a batch that you may change.
    """
    z, log_det = layer(x)
    for scale in (0.5, 3.0):
        other = torch.cat((x[:1], scale * x[1:] + 1))  # only the others are changed
        new, new_log_det = layer(other)
        if not torch.allclose(new[0], z[0]) or not torch.allclose(new_log_det[0], log_det[0]):
            return True
    return False


def start(x):
    """log_scale and shift, (D,) each, so that z = x · exp(log_scale) + shift has mean 0 and deviation 1 on x (N, D).

    The deviation is that of the batch (divided by N). A column that does not vary keeps its scale, and has mean 0.
    """
    std = x.std(0, correction=0)
    log_scale = -torch.where(std > 0, std, 1.0).log()
    return log_scale, -x.mean(0) * log_scale.exp()


# --- the checks -----------------------------------------------------------------------------------------------------


def _pair(answer: object, names: str) -> tuple:
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 2,
        f"Return two things, {names}; what came is {type(answer).__name__}.",
    )
    return answer


def check_unmix(answer: Callable) -> None:
    """Permutations that are not their own inverse, negative s, images that are not square."""
    for order, H, width in (([2, 0, 1], 2, 4), ([1, 2, 3, 0], 3, 2)):
        C, N = len(order), 5
        g = torch.Generator().manual_seed(C)
        P = torch.eye(C, dtype=torch.float64)[order]
        L = torch.randn(C, C, generator=g, dtype=torch.float64).tril(-1) + torch.eye(C)
        U = torch.randn(C, C, generator=g, dtype=torch.float64).triu(1)
        s = torch.tensor([-2.0, 0.5, 3.0, -0.25], dtype=torch.float64)[:C]
        R = U + torch.diag(s)
        z = torch.randn(N, C, H, width, generator=g, dtype=torch.float64)
        x, log_det = _pair(answer(z.clone(), P.clone(), L.clone(), U.clone(), s.clone()), "x and log_det")
        x = numbers(x, None, "x")
        expect(x.shape == z.shape, f"x should have the shape of z, {tuple(z.shape)}, but got {tuple(x.shape)}.")

        def is_x(matrix: Tensor, x: Tensor = x, z: Tensor = z) -> bool:
            return bool(torch.allclose(x, torch.einsum("ij,njhw->nihw", matrix, z), rtol=1e-3, atol=1e-3))

        inverse = torch.linalg.inv
        expect(not is_x(P @ L @ R), "That is W z, the way x → z once more. Solve W x = z.")
        expect(not is_x(inverse(L @ R)), "P is not undone. P⁻¹ = Pᵀ, and it comes first.")
        expect(not is_x(inverse(R) @ inverse(L) @ P), "You applied P again. Its inverse is Pᵀ.")
        expect(
            not is_x(P.T @ inverse(L) @ inverse(R)),
            "Each factor is undone, in the wrong order: what was applied last, P, is undone first.",
        )
        expect(is_x(inverse(P @ L @ R)), "x does not solve W x = z at each pixel. Which axis of z holds the channels?")
        log_det = numbers(log_det, None, "log_det")
        log_det = log_det.flatten() if log_det.numel() == N else log_det
        one = float(s.abs().log().sum())

        def gave(value: float, came: Tensor = log_det) -> bool:
            return bool(torch.allclose(came, torch.tensor(value, dtype=torch.float64), rtol=5e-3))

        expect(
            not log_det.isnan().any(), "log_det is not a number: the log of a negative s. A density needs log |det W|."
        )
        expect(not gave(H * width * one), "That is the log_det of x → z. On the way back its sign is the other one.")
        expect(not gave(-one) and not gave(one), "That is one pixel's. The same W acts at each pixel: log-dets add.")
        expect(not gave(-C * H * width * one), "You counted the channels, too. W acts once a pixel, H · W' times.")
        expect(
            log_det.shape == (N,) or not gave(-H * width * one),
            f"One log_det for each image, shape (N,) = ({N},), but got {tuple(log_det.shape)}: use expand.",
        )
        expect(gave(-H * width * one), "−H · W' · Σ log |s|, the same for each image.")


def check_arrange(answer: Callable) -> None:
    """By what the arrangement does: which coordinates pass and move in each coupling, and what depends on what."""
    orders = answer()
    expect(orders is not None, "Your function returned None. Is there a return?")
    orders = numbers(orders, None, "the permutations")
    expect(orders.shape == (4, 8), f"Expected four lists of eight numbers, but got shape {tuple(orders.shape)}.")
    for i, order in enumerate(orders.tolist()):
        expect(
            sorted(order) == list(range(8)),
            f"List {i + 1} is no permutation: each of the numbers 0 to 7 has to stand in it once.",
        )
    who, moved = list(range(8)), [0] * 8
    reads = [{k} for k in range(8)]
    for i, order in enumerate(orders.int().tolist()):
        who = [who[place] for place in order]
        together = [(a, a + 1) for a in (0, 2, 4, 6) if (who.index(a) < 4) == (who.index(a + 1) < 4)]
        if together:
            a, b = together[0]
            raise_for = (
                "as in a plain reverse, which separates no pair"
                if len(together) == 4
                else "so neither learns from the other"
            )
            expect(False, f"In coupling {i + 1} the coordinates {a} and {b} are in the same half, {raise_for}.")
        passed = set().union(*(reads[k] for k in who[:4]))
        for k in who[4:]:
            reads[k], moved[k] = reads[k] | passed, moved[k] + 1
    least = moved.index(min(moved))
    expect(
        min(moved) >= 2,
        f"Coordinate {least} is moved in {min(moved)} of the four couplings. Each coordinate has to be moved in two.",
    )
    narrow = min(range(8), key=lambda k: len(reads[k]))
    expect(
        len(reads[narrow]) == 8,
        f"In the end, coordinate {narrow} depends on {len(reads[narrow])} of the 8. Vary which of them pass together.",
    )


def check_looks(answer: Callable) -> None:
    """Layers that look at the batch in z, in log_det alone, or only when somebody is large; and layers that do not."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, generator=g, dtype=torch.float64)
    scale = torch.tensor([0.5, -3.0], dtype=torch.float64)

    def norm(x: Tensor) -> tuple[Tensor, Tensor]:
        std = x.std(0, correction=0)
        return (x - x.mean(0)) / std, -std.log().sum().expand(len(x))

    def affine(x: Tensor) -> tuple[Tensor, Tensor]:
        return x * scale + 1, scale.abs().log().sum().expand(len(x))

    def curved(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sinh(x), torch.cosh(x).log().sum(-1)

    def shifted(x: Tensor) -> tuple[Tensor, Tensor]:
        return x - x.mean(0), torch.zeros(len(x), dtype=x.dtype)

    def only_log_det(x: Tensor) -> tuple[Tensor, Tensor]:
        return affine(x)[0], -x.std(0).log().sum().expand(len(x))

    layers = {
        "batch normalization by its own statistics": (norm, True),
        "a scale and a shift": (affine, False),
        "sinh of each number": (curved, False),
        "the mean of the batch taken away": (shifted, True),
        "a scale and a shift with a log_det from the batch": (only_log_det, True),
    }
    said = {name: yes_or_no(answer(layer, x.clone())) for name, (layer, _) in layers.items()}
    if len(set(said.values())) == 1:
        word = next(iter(said.values()))
        expect(False, f"Your function says {word} for each layer. Change the other samples, and compare the first.")
    expect(
        said != {name: not right for name, (_, right) in layers.items()},
        "Turned round: True means that a sample's output changes when only the others change.",
    )
    expect(
        not said["sinh of each number"],
        "You said True for sinh of each number. Its log_det differs between samples, and depends on no other sample.",
    )
    expect(not said["a scale and a shift"], "You said True for a scale and a shift, which treats each sample alone.")
    expect(
        said["a scale and a shift with a log_det from the batch"],
        "You looked at z alone. A log_det that depends on the others is just as wrong: compare both.",
    )
    for name, (_, right) in layers.items():
        expect(said[name] == right, f"Wrong for {name}. Change the other samples by more than a factor.")


def check_start(answer: Callable) -> None:
    """A batch of few samples in odd units; then one with a column that never varies."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=g, dtype=torch.float64)
    x = x * torch.tensor([10.0, 0.1, 3.0]) + torch.tensor([7.0, -2.0, 40.0])
    constant = x.clone()
    constant[:, 1] = 4.0
    for batch in (x, constant):
        log_scale, shift = _pair(answer(batch.clone()), "log_scale and shift")
        log_scale, shift = numbers(log_scale, (3,), "log_scale"), numbers(shift, (3,), "shift")
        std, mean = batch.std(0, correction=0), batch.mean(0)
        expect(
            bool(log_scale.isfinite().all() and shift.isfinite().all()),
            "Not finite: a column that does not vary has deviation 0. Let it keep its scale, exp(0) = 1.",
        )
        varies = std > 0

        def is_scale(other: Tensor, came: Tensor = log_scale, varies: Tensor = varies) -> bool:
            return bool(torch.allclose(came[varies], other[varies], rtol=1e-4))

        expect(not is_scale(std.log()), "After this the deviation is std²: you multiply by std. Multiply by 1/std.")
        expect(not is_scale(1 / std), "That is the scale itself. Asked is its log: z = x · exp(log_scale) + shift.")
        expect(not is_scale(-2 * std.log()), "You divide by the variance. The deviation is its root.")
        expect(
            not is_scale(-batch.std(0).log()), "You divided the squares by N − 1. Here the batch is all there is: N."
        )
        expect(is_scale(-std.log()), "After your log_scale the deviations of the batch are not 1.")
        expect(
            bool((log_scale[~varies].abs() < 1e-4).all()),
            "The column that does not vary should keep its scale: log_scale 0.",
        )
        scaled = mean * log_scale.exp()
        expect(
            not torch.allclose(shift, -mean, rtol=1e-6),
            "You subtract the mean of x, but after scaling the mean is mean · exp(log_scale).",
        )
        expect(not torch.allclose(shift, scaled, rtol=1e-6), "The sign of the shift is turned: the mean doubles.")
        expect(torch.allclose(shift, -scaled, rtol=1e-4), "After your shift the means of the batch are not 0.")


EXERCISES = [
    Exercise(
        name="from_realnvp_to_glow.1",
        question=(
            "**Back through a 1×1 convolution.** Undo it from its factors P, L, U and s, at each pixel, and give the "
            "log-det of your way, z → x."
        ),
        answer=unmix,
        check=check_unmix,
        praise="right. Two triangular solves undo the mixing, and the log-det needs s alone.",
        hints=(
            "W x = z with W = P L (U + diag(s)): which factor was applied last? Undo that one first.",
            "Bring z to shape (C, N · H · W'), multiply by P.T, then torch.linalg.solve_triangular twice; log_det is "
            "−H · W' · s.abs().log().sum().",
        ),
        aims=("mix",),
        why=(
            "P⁻¹ is Pᵀ, and a triangular system is solved row by row, so no inverse of a matrix is needed. "
            "On the way back each pixel contributes −log |det W| = −Σ log |s|, and there are H · W' pixels."
        ),
    ),
    Exercise(
        name="from_realnvp_to_glow.2",
        question=(
            "**Open task: a shuffle by design.** For the bananas that are not turned, choose four permutations, one "
            "before each coupling, so that no pair is ever in the same half, each coordinate is moved at least twice, "
            "and in the end each one depends on all eight. Many choices do it."
        ),
        answer=arrange,
        check=check_arrange,
        praise="right. Your couplings see each pair from both sides, which a random shuffle does only by luck.",
        hints=(
            "First bring the even coordinates to the places 0 to 3 and the odd ones to the places 4 to 7. What then "
            "keeps the pairs apart?",
            "[0, 2, 4, 6, 1, 3, 5, 7] first. To swap the halves, [4, 5, 6, 7, 0, 1, 2, 3]: each pair stays apart.",
        ),
        aims=("arrange",),
        why=(
            "As soon as the even coordinates stand in one half and the odd ones in the other, swapping the halves "
            "keeps every pair apart and lets the other member move. After three such couplings every coordinate has "
            "read both halves, as in lesson 05."
        ),
    ),
    Exercise(
        name="from_realnvp_to_glow.3",
        question=(
            "**Who looks at the batch?** You get a layer that you cannot read, and may only run. Find out whether it "
            "treats each sample alone."
        ),
        answer=looks_at_others,
        check=check_looks,
        praise="right. This test finds batch statistics in any code, without reading it.",
        hints=(
            "Keep the first sample, change all the others, and run the layer on both batches.",
            "Compare z[0] and log_det[0] of both runs with torch.allclose. The others may be 3 * x[1:] + 1.",
        ),
        aims=("expose",),
        why=(
            "If a layer treats each sample alone, changing the others cannot change z or log_det of the first. "
            "Both have to be compared, because a wrong log_det can stand beside a right z."
        ),
    ),
    Exercise(
        name="from_realnvp_to_glow.4",
        question="**ActNorm's start.** From the first batch, find log_scale and shift.",
        answer=start,
        check=check_start,
        praise="right. From then on the two are weights like any other, and no sample looks at another.",
        hints=(
            "First the scale: which exp(log_scale) makes the deviation 1? Then look where the mean is.",
            "log_scale = −log std, with std = 1 where it is 0; shift = −mean · exp(log_scale).",
        ),
        aims=("start",),
        why=(
            "Dividing by the deviation makes the deviation 1, so log_scale is −log std, and 0 for a column that does "
            "not vary. After this scaling the mean is mean · exp(log_scale), and the shift takes it away."
        ),
    ),
]
