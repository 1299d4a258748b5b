"""The exercises: squeeze, factor out, draw a level anew, a path that stays normal, who is the outsider."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, expect, numbers


def squeeze(x):
    """Each 2×2 block of pixels becomes one pixel with four times the channels: (N, C, H, W) to (N, 4C, H/2, W/2).

    Channel 4c + 2i + j holds row i, column j of the blocks of channel c.
    """
    N, C, H, W = x.shape
    corners = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]  # each (N, C, H/2, W/2)
    return torch.stack(corners, dim=2).reshape(N, 4 * C, H // 2, W // 2)


def factor_out(x, conditioner):
    """Let the second half of the channels leave: (z, log_det), of shapes (N, C, H, W) and (N,).

    C is even. conditioner takes the half that goes on and gives log σ and μ, each (N, C/2, H, W). What goes on stays
    as it is.
    """
    x_a, x_b = x.chunk(2, dim=1)
    log_sigma, mu = conditioner(x_a)
    z_b = (x_b - mu) * torch.exp(-log_sigma)
    return torch.cat((x_a, z_b), dim=1), -log_sigma.sum((1, 2, 3))


def resample(z, e, level, which):
    """Latents with one level drawn anew: where level == which the numbers of e, elsewhere those of z.

    z and e are (N, D), level is (D,), whole numbers.
    """
    return torch.where(level == which, e, z)


def normal_path(z0, z1, w):
    """A point on a path from z0 (w = 0) to z1 (w = 1), halfway at w = 0.5; z0, z1 and the point are (N, D).

    If z0 and z1 are independent draws of N(0, I), then so is, for every w, the point.
    """
    return math.cos(math.pi / 2 * w) * z0 + math.sin(math.pi / 2 * w) * z1


def caught(bits_inside, bits_outside):
    """How often the rule "the one with more bits is the outsider" is right, over all pairs of an insider, an outsider.

    (n,) and (m,) bits per dimension, to a number from 0 to 1. A tie counts one half.
    """
    difference = bits_outside[:, None] - bits_inside  # (m, n)
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean()


# --- the checks -----------------------------------------------------------------------------------------------------


def check_squeeze(answer: Callable) -> None:
    """Numbered pixels in one channel and in several, not square."""
    for shape in ((2, 1, 4, 6), (1, 3, 6, 4), (2, 2, 4, 4)):
        N, C, H, W = shape
        x = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
        z = numbers(answer(x.clone()), None, "the squeezed image")
        wanted = (N, 4 * C, H // 2, W // 2)
        expect(z.shape == wanted, f"Expected shape {wanted} from {shape}, but got {tuple(z.shape)}.")
        corner = {(i, j): x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)}
        right = torch.stack([corner[i, j] for i in (0, 1) for j in (0, 1)], 2).reshape(wanted)
        halves = x.reshape(N, C, 2, H // 2, 2, W // 2).transpose(3, 4)  # (N, C, 2, 2, H/2, W/2)
        expect(
            torch.equal(z, right) or not torch.equal(z, x.reshape(wanted)),
            "A reshape alone takes the pixels as they lie in memory: a channel then holds whole stretches of rows, and "
            "neighbors are torn apart. Take every second row and column.",
        )
        expect(
            torch.equal(z, right) or not torch.equal(z, halves.reshape(wanted)),
            "Your channels are the four quarters of the picture. Each should see the whole of it, at half the size: "
            "the channels hold the corners of the 2×2 blocks.",
        )
        expect(
            torch.equal(z, right)
            or not torch.equal(z, torch.stack([corner[i, j] for j in (0, 1) for i in (0, 1)], 2).reshape(wanted)),
            "The blocks are right, the order of their corners is by columns. Channel 2i + j: upper left, upper right, "
            "lower left, lower right.",
        )
        expect(
            torch.equal(z, right) or not torch.equal(z, torch.cat([corner[i, j] for i in (0, 1) for j in (0, 1)], 1)),
            "One channel is right, several are not: you put first all channels of one corner. Asked is channel "
            "4c + 2i + j: the four corners of a channel stay together.",
        )
        expect(
            torch.equal(z, right) or not torch.equal(z.flatten().sort().values, x.flatten().sort().values),
            "All pixels are there, in another order. Where should pixel (2h + i, 2w + j) of channel c be?",
        )
        expect(torch.equal(z, right), "A squeeze moves pixels and changes none. Some of yours are new.")


def check_factor(answer: Callable) -> None:
    """Against a conditioner whose scales are all different."""
    for N, C, H, W in ((3, 4, 2, 2), (2, 2, 3, 1)):
        g = torch.Generator().manual_seed(C)
        x = torch.randn(N, C, H, W, generator=g, dtype=torch.float64)

        def conditioner(a: Tensor) -> tuple[Tensor, Tensor]:
            return 0.4 * torch.tanh(a) + 0.3, a.square() - 0.5

        result = answer(x.clone(), conditioner)
        expect(
            isinstance(result, tuple | list) and len(result) == 2,
            "Return two things: z and log_det. Each map of the course brings its log-determinant along.",
        )
        z, log_det = numbers(result[0], None, "z"), numbers(result[1], None, "log_det")
        log_det = log_det.flatten() if log_det.numel() == N else log_det
        expect(
            z.shape == x.shape,
            f"All scales stay in one latent: expected z of {tuple(x.shape)}, but got {tuple(z.shape)}.",
        )
        x_a, x_b = x.chunk(2, dim=1)
        s, mu = conditioner(x_a)
        right_b, right = (x_b - mu) * torch.exp(-s), -s.sum((1, 2, 3))
        (s_b, mu_b) = conditioner(x_b)

        def same(value: Tensor, other: Tensor) -> bool:
            return value.shape == other.shape and torch.allclose(value, other, rtol=1e-4, atol=1e-5)

        def gave(a: Tensor, b: Tensor, z: Tensor = z, same: Callable = same) -> bool:
            return same(z, torch.cat((a, b), 1))

        expect(
            not gave((x_a - mu_b) * torch.exp(-s_b), x_b),
            "The wrong half left: the first half goes on and conditions, the second is measured against it.",
        )
        expect(
            not gave(x_a, (x_b - mu_b) * torch.exp(-s_b)),
            "You asked the leaving half itself what to expect of it. Then nobody can go back: give the conditioner "
            "what goes on.",
        )
        expect(
            not gave(x_a, x_b * torch.exp(-s) - mu),
            "First take away the mean, then divide by σ: yours divides x_b alone.",
        )
        expect(not gave(x_a, (x_b - mu) / s), "The conditioner gives log σ. σ itself is its exponential.")
        expect(
            not gave(x_a, (x_b - mu) * torch.exp(s)) and not gave(x_a, x_b * torch.exp(s) + mu),
            "That is the way back, or half of it. x → z takes away μ and divides by σ.",
        )
        expect(same(z[:, : C // 2], x_a), "What goes on must stay as it is: the first half of z is not that of x.")
        expect(gave(x_a, right_b), "z_b = (x_b − μ(x_a)) / σ(x_a), with σ = exp(log σ).")
        expect(
            log_det.shape == (N,),
            f"Expected one log_det for each of the {N} images, but got shape {tuple(log_det.shape)}: sum over all of "
            "channels, height and width, and not over images.",
        )
        expect(
            not same(log_det, torch.zeros(N, dtype=torch.float64)),
            "Your log_det is 0, as if this were a shift alone. Dividing by σ packs or spreads: −Σ log σ.",
        )
        expect(not same(log_det, -right), "The sign is turned: dividing by a large σ makes volumes smaller.")
        expect(not same(log_det, -s.mean((1, 2, 3))), "You took the mean of the log σ. Each number that leaves counts.")
        expect(same(log_det, right), "The Jacobian is triangular with 1 and 1/σ on its diagonal. Log, and sum.")


def check_resample(answer: Callable) -> None:
    """Three levels in a striped order."""
    g = torch.Generator().manual_seed(0)
    level = torch.tensor([1, 1, 0, 0, 2, 2, 0, 0, 2, 1, 0, 0])
    z, e = (torch.randn(4, len(level), generator=g, dtype=torch.float64) for _ in range(2))
    for which in (0, 1, 2):
        before, draws, table = z.clone(), e.clone(), level.clone()
        value = numbers(answer(before, draws, table, which), tuple(z.shape), "the latents")
        new, n = level == which, int((level == which).sum())
        first = torch.arange(len(level)) < n

        def gave(a: Tensor, b: Tensor, mask: Tensor, value: Tensor = value) -> bool:
            return torch.allclose(value, torch.where(mask, a, b), rtol=1e-4, atol=1e-5)

        expect(
            not gave(z, e, new),
            "The other way round: you kept the level that was to be new, and drew all others.",
        )
        expect(
            not gave(z + e, z, new),
            "You added the new draw to the old one: a sum of two normals has variance 2, and is no draw of N(0, 1).",
        )
        expect(
            not gave(torch.zeros_like(z), z, new),
            "You set the level to 0. That is its most likely value, and none that is ever drawn: use e.",
        )
        for block in (first, first.flip(0)):
            expect(
                gave(e, z, new) or not gave(e, z, block),
                "You took a block at one end of the vector. The levels lie in stripes: ask the table ``level``.",
            )
        expect(
            gave(e, z, new) or not gave(e, z, level >= which),
            "You drew the coarser levels too. Asked is this one alone.",
        )
        expect(gave(e, z, new), "e where level == which, z elsewhere: nothing else changes.")
        expect(torch.equal(before, z), "You changed z itself. Return new latents, and leave the old ones as they are.")


def check_path(answer: Callable) -> None:
    """Many normal draws: ends, halfway, and the spread on the way."""
    g = torch.Generator().manual_seed(0)
    z0, z1 = (torch.randn(3, 40_000, generator=g, dtype=torch.float64) for _ in range(2))
    value = {w: numbers(answer(z0.clone(), z1.clone(), w), tuple(z0.shape), "the point") for w in (0.0, 0.3, 0.5, 1.0)}
    half = value[0.5]

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, atol=5e-3)

    expect(
        not (same(value[0.0], z1) and same(value[1.0], z0)), "You start at z1. At w = 0 the path should still be at z0."
    )
    expect(
        not same(half, (z0 + z1) / 2),
        "The straight line: halfway its points have the variance ½, as if drawn at temperature 0.71. Which two weights "
        "have squares that add up to 1?",
    )
    unit = (z0 + z1) / (z0 + z1).norm(dim=-1, keepdim=True)
    expect(
        not same(half, unit),
        "You set the length to 1. Draws of N(0, I) in D dimensions are about √D long.",
    )
    expect(
        abs(float(half.var()) - 2) > 0.05,
        "Halfway your points have the variance 2: the squares of the weights add up to more than 1.",
    )
    expect(
        same(value[0.0], z0) and same(value[1.0], z1),
        "A path from z0 to z1 is at z0 for w = 0 and at z1 for w = 1. Yours is not.",
    )
    along = [float((half * z).mean() / z.square().mean()) for z in (z0, z1)]
    expect(abs(along[0] - along[1]) < 0.05, "Halfway, z0 and z1 should have the same weight.")
    for w, points in value.items():
        spread = float(points.std())
        expect(
            abs(spread - 1) < 0.02,
            f"At w = {w:g} your points have the standard deviation {spread:.2f}, and those of N(0, I) have 1. The "
            "variance of a z0 + b z1 is a² + b².",
        )


def check_caught(answer: Callable) -> None:
    """Sets of different size, that overlap, with a tie."""
    cases = (
        ([1.0, 1.2, 1.5, 0.9], [1.1, 3.0, 1.6]),
        ([1.0, 1.2, 1.5], [0.1, 0.1, 0.1, 0.1]),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 5.0, 0.5]),
    )
    for inside, outside in ((torch.tensor(a).double(), torch.tensor(b).double()) for a, b in cases):
        value = float(numbers(answer(inside.clone(), outside.clone()), (), "the share"))
        difference = outside[:, None] - inside
        more, ties = float((difference > 0).double().mean()), float((difference == 0).double().mean())
        right = more + ties / 2

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return not math.isclose(value, right, abs_tol=1e-6) and math.isclose(value, other, abs_tol=1e-6)

        expect(
            not gave(1 - right),
            "Turned round: more bits mean a lower likelihood, so the rule points at the one with more bits.",
        )
        expect(
            not gave(float(outside.mean() > inside.mean())),
            "You compared two means: that is one yes or no. How often is the rule right, pair by pair?",
        )
        expect(not gave(right * difference.numel()), "That is a count of pairs. Asked is their share.")
        expect(not gave(more), "A tie counts one half: there the rule can only toss a coin. Yours counts 0.")
        expect(not gave(more + ties), "A tie counts one half: there the rule can only toss a coin. Yours counts 1.")
        expect(
            not gave(float((outside > inside.mean()).double().mean()))
            and not gave(float((outside > inside.max()).double().mean())),
            "You compared each outsider with one number. Compare it with every insider: outside[:, None] > inside.",
        )
        expect(
            math.isclose(value, right, abs_tol=1e-6),
            "Over all pairs, the share in which the outsider has more bits; a tie is one half.",
        )


EXERCISES = [
    Exercise(
        name="multi_scale_flows_on_mnist.1",
        question="**Squeeze.** Write it for any number of images and channels.",
        answer=squeeze,
        check=check_squeeze,
        praise="right. Every pixel is still there, neighbors have become channels: log |det| = 0.",
        hints=(
            "x[:, :, i::2, j::2] is one corner of every block, at half the size. There are four of them.",
            "Stack the four corners in a new axis after the channels, (N, C, 4, H/2, W/2), then reshape.",
        ),
        aims=("squeeze",),
    ),
    Exercise(
        name="multi_scale_flows_on_mnist.2",
        question="**Factor out.** Let half of the channels leave, measured against the other half, with the log-det.",
        answer=factor_out,
        check=check_factor,
        praise="right. It is an affine coupling that runs backward, and nothing has been thrown away.",
        hints=(
            "Which half can the conditioner still see on the way back? And what does dividing by σ do to volumes?",
            "(x_b − μ) · exp(−log σ), joined to x_a; log_det is −log σ summed over the axes 1, 2 and 3.",
        ),
        aims=("factor",),
    ),
    Exercise(
        name="multi_scale_flows_on_mnist.3",
        question=(
            "**One level anew.** Replace one level of the latents and keep the others. (Then try levels 0 and 1 on "
            "digits of your choice, with `toys.encode` and `toys.decode`.)"
        ),
        answer=resample,
        check=check_resample,
        praise="right. With level 0 new the digit stays what it is; with level 1 new, hardly one does.",
        hints=(
            "level == which is a mask (D,), and it broadcasts over the N images.",
            "torch.where(mask, a, b) takes a where the mask is True and b elsewhere.",
        ),
        aims=("resample",),
    ),
    Exercise(
        name="multi_scale_flows_on_mnist.4",
        question="**A path that stays normal.** Lead from z0 to z1 without passing through colder latents.",
        answer=normal_path,
        check=check_path,
        praise="right. a² + b² = 1 all the way: each point is as typical as the ends.",
        hints=(
            "z0 and z1 are independent. What is the variance of a z0 + b z1, and what should it be?",
            "a² + b² = 1 with a = 1, b = 0 at the start and the reverse at the end: cos and sin of w · π/2.",
        ),
        aims=("move",),
    ),
    Exercise(
        name="multi_scale_flows_on_mnist.5",
        question=(
            "**Who is the outsider?** Score the rule that the image with more bits is the one from outside. 1 is "
            "perfect, 0.5 is a coin, 0 is always wrong. Then call it on the sets of section 9: "
            '`caught(ood["test digits"], ood["empty"])`.'
        ),
        answer=caught,
        check=check_caught,
        praise="right. It is the area under the ROC curve, and on empty images it is worse than a coin.",
        hints=(
            "bits_outside[:, None] − bits_inside has a row for each outsider and a column for each insider.",
            "The mean of (difference > 0), plus half the mean of (difference == 0).",
        ),
        aims=("judge",),
    ),
]
