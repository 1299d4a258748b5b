"""The exercises: undo a squeeze, put back what left, draw a digit otherwise, who is the outsider."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, close, expect, numbers
from flowlab.lessons.multi_scale_flows_on_mnist import toys


def unsqueeze(z):
    """Undo a squeeze: (N, 4C, H, W) to (N, C, 2H, 2W).

    Channel 4c + 2i + j of z holds row i, column j of the blocks of channel c.
    """
    N, channels, H, W = z.shape
    x = z.new_empty(N, channels // 4, 2 * H, 2 * W)
    for i in (0, 1):
        for j in (0, 1):
            x[:, :, i::2, j::2] = z[:, 2 * i + j :: 4]
    return x


def put_back(z, conditioner, f_inverse):
    """Undo a factor-out: (x, log_det) of the way z → x, of shapes (N, C, H, W) and (N,).

    C is even, the first half of the channels of z is z_a. f_inverse takes z_a and gives x_a and its log_det, (N,).
    conditioner takes (N, C/2, H, W) and gives log σ and μ, of that shape each.
    """
    z_a, z_b = z.chunk(2, dim=1)
    x_a, log_det = f_inverse(z_a)
    log_sigma, mu = conditioner(x_a)
    return torch.cat((x_a, mu + z_b * torch.exp(log_sigma)), dim=1), log_det + log_sigma.flatten(1).sum(1)


def draw_otherwise(z, level):
    """New latents whose images are other drawings of the same digits; z and the new latents are (N, 784).

    level is (784,): 0 for the fine latents, 1 for the coarse ones. At least 80 % of the new images are read as the
    digits that they were, and their pixels change by 10 gray levels or more in the mean.
    """
    from flowlab.lessons.multi_scale_flows_on_mnist import toys

    return z + 0.5 * toys.direction("thickness")


def caught(inside, outside, known):
    """How often the two-sided rule is right, over all pairs of one image from inside and one from outside: 0 to 1.

    The rule: of two images, the one whose bits lie farther from the median bits of known digits is the outsider. A tie
    counts one half. All three are bits per dimension, of shapes (n,), (m,) and (k,).
    """
    center = known.median()
    difference = (outside - center).abs()[:, None] - (inside - center).abs()  # (m, n)
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean()


# --- the checks -----------------------------------------------------------------------------------------------------


def check_unsqueeze(answer: Callable) -> None:
    """Numbered pixels in one channel and in several, not square."""
    for shape in ((2, 4, 2, 3), (1, 12, 3, 2), (2, 8, 2, 2)):
        N, channels, H, W = shape
        C, wanted = channels // 4, (N, channels // 4, 2 * H, 2 * W)
        z = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
        x = numbers(answer(z.clone()), None, "the image")
        expect(x.shape == wanted, f"Expected shape {wanted} from {shape}, but got {tuple(x.shape)}.")

        def put(blocks: Tensor, wanted: tuple[int, ...] = wanted) -> Tensor:
            """The image of blocks (N, C, i, j, H, W)."""
            return blocks.permute(0, 1, 4, 2, 5, 3).reshape(wanted)

        right = put(z.reshape(N, C, 2, 2, H, W))
        wrong = {
            "A reshape alone fills the rows one after the other: the corners of a block are then far apart. Each "
            "channel belongs on every second row and column.": z.reshape(wanted),
            "Your image has each channel as one quarter. A channel shows the whole picture at half the size: put it on "
            "every second row and column.": z.reshape(N, C, 2, 2, H, W).permute(0, 1, 2, 4, 3, 5).reshape(wanted),
            "The blocks are right, but rows and columns of their corners are exchanged. Channel 4c + 2i + j: i is the "
            "row.": put(z.reshape(N, C, 2, 2, H, W).transpose(2, 3)),
            "One channel is right, several are not: you took the channels that belong together as c, C + c, ... The "
            "four corners of channel c are 4c to 4c + 3.": put(z.reshape(N, 2, 2, C, H, W).permute(0, 3, 1, 2, 4, 5)),
        }
        for hint, value in wrong.items():
            expect(close(x, right) or not close(x, value), hint)
        expect(
            close(x, right) or not close(x.flatten().sort().values, z.flatten()),
            "All pixels are there, in another order. Which channel holds pixel (2h + i, 2w + j) of channel c?",
        )
        expect(close(x, right), "An unsqueeze moves pixels and changes none. Some of yours are new.")


def check_put_back(answer: Callable) -> None:
    """Against a conditioner whose scales are all different, and an f that is not the identity."""
    for N, C, H, W in ((3, 4, 2, 2), (2, 2, 3, 1)):
        g = torch.Generator().manual_seed(C)
        z = torch.randn(N, C, H, W, generator=g, dtype=torch.float64)
        z_a, z_b = z.chunk(2, dim=1)

        def conditioner(a: Tensor) -> tuple[Tensor, Tensor]:
            return 0.4 * torch.tanh(a) + 0.3, a.square() - 0.5

        def f_inverse(a: Tensor) -> tuple[Tensor, Tensor]:
            return 3 * a + 1, torch.full((len(a),), math.log(3) * a[0].numel(), dtype=a.dtype)

        result = answer(z.clone(), conditioner, f_inverse)
        expect(
            isinstance(result, tuple | list) and len(result) == 2,
            "Return two things: x and log_det. Each map of the course gives its log-determinant too.",
        )
        x, log_det = numbers(result[0], None, "x"), numbers(result[1], None, "log_det")
        log_det = log_det.flatten() if log_det.numel() == N else log_det
        expect(
            x.shape == z.shape,
            f"Both halves belong in x: expected {tuple(z.shape)}, but got {tuple(x.shape)}.",
        )
        x_a, first = f_inverse(z_a)
        (s, mu), (s_z, mu_z) = conditioner(x_a), conditioner(z_a)
        gave_a, gave_b = x.chunk(2, dim=1)
        expect(
            not close(gave_a, z_a),
            "The first half of your x is z_a itself. What went on has passed f: undo f first.",
        )
        expect(close(gave_a, x_a), "The first half of x is what f_inverse makes of z_a, and nothing else.")
        expect(
            not close(gave_b, mu_z + z_b * s_z.exp()),
            "You asked the conditioner about z_a. On the way x → z it read x_a, before f: give it the same here.",
        )
        expect(
            not close(gave_b, (z_b - mu) * (-s).exp()) and not close(gave_b, (z_b - mu) / s.exp()),
            "That is the way x → z once more. Solve z_b = (x_b − μ)/σ for x_b.",
        )
        expect(not close(gave_b, mu + z_b * s), "The conditioner gives log σ. σ itself is its exponential.")
        expect(
            not close(gave_b, (mu + z_b) * s.exp()),
            "First multiply by σ, then add μ: on the way x → z the mean was taken away first.",
        )
        expect(close(gave_b, mu + z_b * s.exp()), "Solve z_b = (x_b − μ(x_a))/σ(x_a) for x_b, with σ = exp(log σ).")
        right, own = first + s.flatten(1).sum(1), s.flatten(1).sum(1)
        expect(
            log_det.shape == (N,),
            f"Expected one log_det for each of the {N} images, but got shape {tuple(log_det.shape)}: sum over all of "
            "channels, height and width, and not over images.",
        )
        expect(not close(log_det, own), "The log_det of f_inverse is missing: log-dets of two maps in a row add.")
        expect(
            not close(log_det, first - own),
            "The sign of Σ log σ is that of x → z. Multiplying by a large σ makes volumes larger.",
        )
        expect(not close(log_det, first), "Multiplying by σ changes volumes too: Σ log σ is missing.")
        expect(
            close(log_det, right), "The log_det of f_inverse, plus the sum of log σ over all numbers that come back."
        )


def check_otherwise(answer: Callable) -> None:
    """By what it reaches: sixty test digits, read by the nearest training digit before and after."""
    v = torch.cat([toys.examples(digit, 6) for digit in range(10)])
    level, was = toys.levels(), torch.arange(10).repeat_interleave(6)
    z = toys.encode(v)
    new = numbers(answer(z.clone(), level), tuple(z.shape), "the new latents").float()
    expect(
        torch.isfinite(new).all(), "Some of your latents are not finite numbers. Which of your steps divides or grows?"
    )
    x = toys.decode(new)
    kept = float((toys.read(x) == was).float().mean())
    change = 255 * float((x - (v + 0.5) / 256).abs().mean())
    reached = f"{kept:.0%} of the digits stay, and a pixel changes by {change:.1f} gray levels in the mean"
    fine = bool(torch.equal(new[:, level > 0], z[:, level > 0]))
    expect(change > 1, f"Your images are those that came in: {reached}. Change some latents.")
    expect(
        change >= 10 or not fine,
        f"You changed the fine latents alone: {reached}. They hold the edges, and edges are not enough. "
        "Change the coarse latents a little, or move along a direction.",
    )
    expect(
        change >= 10, f"The digits stay, but the drawing hardly changes: {reached}. Wanted are 10. Take a larger step."
    )
    expect(
        kept >= 0.8,
        f"The drawing changes, and the digit with it: {reached}. Wanted are 80 %. Take a smaller step in the coarse "
        "latents, or another direction.",
    )


def check_caught(answer: Callable) -> None:
    """Sets of different size, that overlap, with a tie, on both sides of the known digits."""
    cases = (
        ([1.0, 1.2, 1.5, 0.9], [1.1, 3.0, 1.6, 0.2], [1.0, 1.1, 1.3]),
        ([1.0, 1.25, 1.5], [0.125, 0.125, 0.25, 0.125], [1.0, 1.25, 1.75]),
        ([1.0, 2.0, 2.5], [2.0, 2.0, 5.0, 0.5, 1.25, 4.0], [2.0, 1.0, 3.0, 2.5, 1.5]),
    )
    for inside, outside, known in ([torch.tensor(part).double() for part in case] for case in cases):
        value = float(numbers(answer(inside.clone(), outside.clone(), known.clone()), (), "the share"))
        center = known.median()
        difference = (outside - center).abs()[:, None] - (inside - center).abs()
        more, ties = float((difference > 1e-9).double().mean()), float((difference.abs() <= 1e-9).double().mean())
        right = more + ties / 2
        plain = outside[:, None] - inside
        one_sided = float(((plain > 0).double() + 0.5 * (plain == 0).double()).mean())

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return not math.isclose(value, right, abs_tol=2e-3) and math.isclose(value, other, abs_tol=2e-3)

        expect(
            not gave(one_sided),
            "That is the one-sided rule: more bits, so an outsider. Here far too few bits are strange as well: compare "
            "distances from the median of the known digits.",
        )
        expect(not gave(1 - right), "Turned round: the rule points at the image that lies farther from the median.")
        expect(not gave(right * difference.numel()), "That is a count of pairs. Asked is their share.")
        expect(not gave(more), "A tie counts one half: there the rule can only toss a coin. Yours counts 0.")
        expect(not gave(more + ties), "A tie counts one half: there the rule can only toss a coin. Yours counts 1.")
        for limit in ((inside - center).abs().mean(), (inside - center).abs().max()):
            expect(
                not gave(float(((outside - center).abs() > limit).double().mean())),
                "You compared each outsider with one number. Compare it with every insider: use outside[:, None].",
            )
        expect(
            math.isclose(value, right, abs_tol=2e-3),
            "Over all pairs, the share in which the outsider lies farther from known.median(); a tie is one half.",
        )


EXERCISES = [
    Exercise(
        name="multi_scale_flows_on_mnist.1",
        question="**Back from the channels.** Undo a squeeze, for any number of images and channels.",
        answer=unsqueeze,
        check=check_unsqueeze,
        praise="right. Every number is back in its place, so log |det| is 0 this way too.",
        hints=(
            "Make an empty image of the right shape first. Which rows and columns of it does channel 4c + 2i + j fill?",
            "z[:, 2 * i + j :: 4] is that corner of every channel c. Assign it to a slice of x with a step of 2.",
        ),
        aims=("squeeze",),
        why=(
            "Every channel goes back to the corner of the blocks that it came from. "
            "A slice with a step of 2 names these places all at once, and nothing is computed: log |det| is 0 again."
        ),
    ),
    Exercise(
        name="multi_scale_flows_on_mnist.2",
        question=(
            "**Back together.** Undo a factor-out whose first half has passed a further map f, and give the log-det of "
            "your way, z → x."
        ),
        answer=put_back,
        check=check_put_back,
        praise="right. The half that went on is found first, and it says where the other half belongs.",
        hints=(
            "What did the conditioner read on the way x → z? Find that first. And what does σ do to volumes?",
            "x_a, log_det = f_inverse(z_a); then x_b = μ(x_a) + σ(x_a) z_b, and the sum of log σ is added to log_det.",
        ),
        aims=("factor",),
        why=(
            "The conditioner reads x_a, so f has to be undone first. "
            "Multiplying by σ makes volumes larger, so the log-det is +Σ log σ, and that of f_inverse is added."
        ),
    ),
    Exercise(
        name="multi_scale_flows_on_mnist.3",
        question=(
            "**Open task: another drawing of the same digit.** Find a change of the latents that changes the images "
            "much and keeps their digits. There are many good answers. Try yours on `some` and `z` of section 4 with "
            "`toys.decode` and `toys.read` before you check it."
        ),
        answer=draw_otherwise,
        check=check_otherwise,
        praise="right. Your change moves the drawing far and the digit hardly ever.",
        hints=(
            "New fine latents change too little, and new coarse latents too much. What lies between? Section 6 too has "
            "a way to change a drawing.",
            "Turn the coarse latents a little toward new ones: cos(πw/2) z + sin(πw/2) e with w near 0.25. "
            "Or take half a step along a direction.",
        ),
        aims=("change",),
        why=(
            "Fine latents alone change too little, and new coarse latents lose the digit, so the step must be "
            "short and have a direction. "
            "Half a step along the thickness changes nearly every pixel of a stroke, and hardly ever which digit it is."
        ),
    ),
    Exercise(
        name="multi_scale_flows_on_mnist.4",
        question=(
            "**Who is the outsider?** Measure the two-sided rule by one number that needs no limits: 1 is perfect, "
            '0.5 is a coin, 0 is always wrong. Then try `caught(ood["test digits"], ood["empty"], known)`, '
            'and the same with `ood["turned"]`.'
        ),
        answer=caught,
        check=check_caught,
        praise="right. It is the area under the ROC curve: 1 on empty images, and a coin on turned digits.",
        hints=(
            "How far is each image from known.median()? Compare these distances and not the bits.",
            "difference = far_outside[:, None] − far_inside; the mean of (difference > 0), plus half that of (== 0).",
        ),
        aims=("judge",),
        why=(
            "With the distance from the median, far too few bits are as strange as far too many. "
            "Every outsider is compared with every insider, so that no limit has to be chosen."
        ),
    ),
]
