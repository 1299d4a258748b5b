"""The exercises: a density with its factor, other units, where the mode goes, a fold, and a judge."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, numbers, yes_or_no


def log_density_of_exp(x, a, b):
    """log p(x) in nats for x = exp(a z + b), z standard normal: x (n,) above 0 to (n,). a may be negative, not 0."""
    z = (torch.log(x) - b) / a
    log_p_z = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    return log_p_z - torch.log(abs(a) * x)  # dx/dz = a exp(a z + b) = a x


def in_other_units(log_p, factor):
    """log p at the same point, in nats, when every x is written as factor · x.

    The factor is 100 for meters to centimeters, and −1 for heights above a level to depths below it.
    """
    return log_p - math.log(abs(factor))


def mode_of_exp(mean, deviation):
    """The x > 0 where the density of x = exp(z) is highest, for z ~ N(mean, deviation²)."""
    # log p(x) = −½ ((log x − mean) / deviation)² − log x + a constant; set its derivative by log x to zero.
    return math.exp(mean - deviation**2)


def density_of_square(x, p):
    """p(x) for x = z², where p is the density of z, any function (n,) to (n,): x (n,) above 0 to (n,)."""
    z = torch.sqrt(x)
    return (p(z) + p(-z)) / (2 * z)


def agrees(density, samples):
    """True if the samples (n,) can have come from the density, a function (n,) to (n,); False if not."""
    ends = torch.quantile(samples, torch.linspace(0, 1, 11)).tolist()  # ten bars, a tenth of the samples in each
    bars = [torch.linspace(ends[i], ends[i + 1], 200) for i in range(10)]
    areas = [float(torch.trapezoid(density(x), x)) for x in bars]
    return all(0.08 < area < 0.12 for area in areas)


def check_exp(answer: Callable) -> None:
    """Equal to the log-normal density, for an increasing and for a decreasing map."""
    x = torch.linspace(0.2, 5, 49, dtype=torch.float64)

    def compare(a: float, b: float) -> Tensor:
        z = (torch.log(x) - b) / a
        log_p_z, right = -0.5 * z**2 - 0.5 * math.log(2 * math.pi), log_density_of_exp(x, a, b)
        value = numbers(answer(x.clone(), a, b), x.shape, "log p(x)")
        _not_one_of(
            value,
            (right.exp(), "This is p(x) itself; asked is its logarithm, in nats."),
            (log_p_z, "This is log p_Z(z), the height before the rubber was stretched: there is no factor in it yet."),
            (
                log_p_z + torch.log(abs(a) * x),
                "The factor is right, but on the wrong side: where the map stretches, the density must fall.",
            ),
            (
                log_p_z - math.log(abs(a)),
                "You divided by |a| only, as if the map were a z + b. The slope of exp(a z + b) changes from place "
                "to place.",
            ),
            (log_p_z - torch.log(x), "Almost: the chain rule gives dx/dz one more factor, from inside the exp."),
        )
        return value - right

    off = compare(0.7, 0.3)
    expect(
        close(off, 0.0),
        "Not yet. Solve x = exp(a z + b) for z, then compare your factor with the slope from torch.autograd.",
    )
    off = compare(-0.5, 1.0)
    expect(
        off.isfinite().all(), "With a negative a your answer is not a number: a log-density takes the log of |r′(z)|."
    )
    expect(close(off, 0.0), "Right for a = 0.7, wrong for a = −0.5: what does a decreasing map change, and what not?")


def check_units(answer: Callable) -> None:
    """Off by the log of the factor, in the right direction, above 0 too, and blind to the factor's sign."""
    for log_p, factor in ((-2.5, 100.0), (-1.9, 0.01), (0.3, 0.1)):
        right = log_p - math.log(factor)
        value = numbers(answer(log_p, factor), (), "log p")
        _not_one_of(
            value,
            (
                torch.tensor(log_p),
                "You left it as it was. But p(x) is probability for each unit of x: likelihoods have units.",
            ),
            (
                torch.tensor(log_p + math.log(factor)),
                "The wrong way round: with numbers 100 times as large, the same probability lies on a stretch 100 "
                "times as long.",
            ),
            (
                torch.tensor(log_p / factor),
                "You divided the logarithm. It is p that is divided by the factor; what happens to log p?",
            ),
            (
                torch.tensor(log_p - math.log10(factor)),
                "That is the logarithm to the base 10. Nats are natural logarithms: math.log.",
            ),
        )
        expect(
            not (right > 0 and float(value) <= 0),
            f"Your log p is {float(value):.3g}, and it should be above 0 here. A density may exceed 1: only areas "
            "may not.",
        )
        expect(close(value, right), f"log p = {log_p} and factor {factor:g} gave {float(value):.4g}: write p first.")
    hint = "Turn x over (height to depth, factor −1): no stretch at all, so log p stays. Take |factor|."
    try:
        value = numbers(answer(-1.0, -2.0), (), "log p")
    except ValueError:
        raise Wrong(hint) from None
    expect(close(value, -1.0 - math.log(2)), hint)


def check_mode(answer: Callable) -> None:
    """The highest point of the log-normal density, and not the image of the base's highest point."""
    for mean, deviation in ((0.4, 0.5), (-0.3, 1.2)):
        value = numbers(answer(mean, deviation), (), "the mode")
        m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(deviation, dtype=torch.float64)
        _not_one_of(
            value,
            (
                m.exp(),
                "This is where the mode of z lands. The factor moves the peak: left of exp(mean) the rubber is less "
                "stretched. (What stays put is the median.)",
            ),
            ((m + s**2 / 2).exp(), "This is the mean of x, the balance point. Asked is the place of the peak."),
            (m - s**2, "This is the place of the peak on the axis of log x. Which x is that?"),
            ((m + s**2).exp(), "The peak moved the wrong way: it goes to where the rubber is less stretched."),
            (
                (m - s).exp(),
                "Almost: set the derivative of log p(x) to zero once more, and watch the power of deviation.",
            ),
            (m, "This is the mode of z, and x = exp(z) is another variable."),
        )
        expect(value > 0, "x = exp(z) is above 0, and so is its mode.")
        x = torch.linspace(0.01, 6, 60_000, dtype=torch.float64)
        log_p = -0.5 * ((x.log() - m) / s) ** 2 - x.log()
        peak = float(x[log_p.argmax()])
        expect(
            close(value, peak),
            f"For mean {mean} and deviation {deviation} a fine grid puts the peak at {peak:.3f}, you at {value:.3f}.",
        )


def check_square(answer: Callable) -> None:
    """Both preimages, each with its slope, for a base that is not symmetric."""

    def normal(z: Tensor) -> Tensor:
        return torch.exp(-0.5 * (z - 0.5) ** 2) / math.sqrt(2 * math.pi)

    def uniform(z: Tensor) -> Tensor:
        return ((z > -1) & (z < 2)).to(z) / 3

    x = torch.linspace(0.05, 3.5, 50, dtype=torch.float64)
    for p in (normal, uniform):
        value, z = numbers(answer(x.clone(), p), x.shape, "p(x)"), torch.sqrt(x)
        both = p(z) + p(-z)
        _not_one_of(
            value,
            (p(z) / (2 * z), "You counted one z. Which other z has the same square?"),
            (p(z) / z, "You doubled the positive root. That is right only if p(z) = p(−z), and here it is not."),
            (both, "Both roots are there, but neither is divided by its |r′(z)|."),
            (both / (2 * x), "You divided by 2x. The slope of z² is 2z, taken at the roots."),
            (both / z, "You divided by z. The slope of z² is 2z: your area is 2."),
            (both / (4 * z), "You averaged the two roots. Probability adds up: both bars land here, whole."),
            (
                (p(z) - p(-z)) / (2 * z),
                "You subtracted: at −√x the slope is negative, and the factor is its absolute value.",
            ),
        )
        expect(close(value, both / (2 * z)), "Not yet. List all z with z² = x; each adds p(z) / |r′(z)|.")


def check_judge(answer: Callable) -> None:
    """Tells true claims from false ones, also when areas are 1, when heights are above 1, and when moments agree."""
    g = torch.Generator().manual_seed(1)
    u, z = torch.rand(20_000, generator=g), torch.randn(20_000, generator=g)

    def claim(density: Callable[[Tensor], Tensor]) -> Callable:
        """The same density for whatever a student hands to it: a number, a list, an array or a tensor."""

        def of(x: Any) -> Any:
            values = density(torch.as_tensor(x))
            return values.numpy() if isinstance(x, np.ndarray) else values

        return of

    def flat(low: float, high: float, height: float) -> Callable:
        return claim(lambda x: torch.where((x >= low) & (x <= high), height, 0.0))

    def normal(mean: float = 0.0, deviation: float = 1.0) -> Callable:
        height = deviation * math.sqrt(2 * math.pi)
        return claim(lambda x: torch.exp(-0.5 * ((x - mean) / deviation) ** 2) / height)

    def of_exp(x: Tensor) -> Tensor:  # of exp(−z/4): 0 where no sample can be
        s = x.clamp_min(1e-9)
        return torch.where(x > 0, torch.exp(-8 * s.log() ** 2) * 4 / (s * math.sqrt(2 * math.pi)), 0.0)

    # Claim, samples, whether they agree, and what to say to those who think otherwise.
    cases = (
        (flat(3, 5, 0.5), 2 * u + 3, True, "0.5 on [3, 5] is right for 2z + 3 of a uniform z, and you say it is not."),
        (
            flat(3, 5, 1.0),
            2 * u + 3,
            False,
            "You let 1 on [3, 5] pass for 2z + 3 of a uniform z. Hold the claim against the samples, bar by bar.",
        ),
        (
            normal(0, 0.05),
            0.05 * z,
            True,
            "You turned down a narrow normal, which is right. It is 8 high at its peak, and a density may exceed 1.",
        ),
        (
            claim(of_exp),
            torch.exp(-z / 4),
            True,
            "You turned down a right density with a long tail to one side. Give each piece of the axis its own area.",
        ),
        (
            flat(0, 1, 1.0),
            u.sqrt(),
            False,
            "You let 1 on [0, 1] pass for √z. Its area is exactly 1, and yet it is wrong: area alone proves nothing.",
        ),
        (
            normal(0.5),
            z,
            False,
            "You let a normal pass that is shifted by half a deviation. Compare more than its height, spread and area.",
        ),
        (
            normal(),
            math.sqrt(12) * (u - 0.5),
            False,
            "You let a normal pass for samples of a uniform with the same mean and deviation. Two numbers are not the "
            "shape: compare piece by piece.",
        ),
        (
            normal(),
            z[:5000],
            True,
            "You turned down a right claim because 5,000 samples are a little uneven. Allow for chance.",
        ),
    )
    given = [yes_or_no(answer(density, samples.clone())) for density, samples, _, _ in cases]
    expect(any(given), "Your judge turns everything down. 0.5 on [3, 5] is right for 2z + 3 of a uniform z.")
    expect(not all(given), "Your judge lets everything pass. Let it look at the samples, and not only at the density.")
    for verdict, (_, _, truth, hint) in zip(given, cases, strict=True):
        expect(verdict == truth, hint)


def _not_one_of(value: Tensor, *wrong: tuple[Tensor, str]) -> None:
    """Stop with the hint that belongs to the value, if it is one of these."""
    for known, hint in wrong:
        expect(not close(value, known), hint)


EXERCISES = [
    Exercise(
        name="change_of_variables_1d.1",
        question=(
            "**The formula, on your own.** Write log p(x) for x = exp(a z + b), with z standard normal. "
            "The map increases or decreases, by the sign of a."
        ),
        answer=log_density_of_exp,
        check=check_exp,
        praise="right, and for decreasing maps too. With mean b and deviation |a| this is the log-normal density.",
        hints=(
            "Three steps: which z made this x? How high is p_Z there? How much does the map stretch there?",
            "z = (log x − b) / a, and dx/dz = a · exp(a z + b) = a x. Subtract log |a x|.",
        ),
        aims=("compute",),
        why=(
            "z = (log x − b)/a made this x, and the map stretches by |dx/dz| = |a| x there. The density of z is "
            "divided by that factor, so its logarithm is subtracted; the absolute value serves a decreasing map."
        ),
    ),
    Exercise(
        name="change_of_variables_1d.2",
        question=(
            "**Can a density exceed 1? Has it a unit?** A model gives a log p to heights in meters. "
            "What does it give to the same heights in centimeters? Write it for any factor between two units."
        ),
        answer=in_other_units,
        check=check_units,
        praise="right: log-likelihoods are comparable only in the same units, and nothing stops them at 0.",
        hints=(
            "Changing units is the map x → factor · x. Stretching by 100 does what to the height of a density?",
            "p is divided by |factor|. In nats: subtract a logarithm.",
        ),
        aims=("tell",),
        why=(
            "Changing units is the map x → factor · x, which stretches every length by |factor|. The density is "
            "divided by |factor|, and −1 only mirrors it."
        ),
    ),
    Exercise(
        name="change_of_variables_1d.3",
        question=(
            "**Does the mode go to the mode?** z ~ N(mean, deviation²) is highest at mean, and x = exp(z) is "
            "increasing. Where is p(x) highest?"
        ),
        answer=mode_of_exp,
        check=check_mode,
        praise="right: the peak moves to where the map stretches less. Medians do go to medians.",
        hints=(
            "Write log p(x) first, as in the first exercise with a = deviation, b = mean. Then find its highest point.",
            "With u = log x: log p = −½ ((u − mean) / deviation)² − u + a constant. Set the derivative by u to zero.",
        ),
        aims=("tell",),
        why=(
            "log p(x) is the normal log-density of log x minus log x, the factor. With u = log x its derivative "
            "by u is −(u − mean)/deviation² − 1, which is 0 at u = mean − deviation²."
        ),
    ),
    Exercise(
        name="change_of_variables_1d.4",
        question="**A fold.** Write p(x) for x = z² and any density p of z, symmetric or not.",
        answer=density_of_square,
        check=check_square,
        praise="right: every z that lands on x adds its own p(z) / |r′(z)|.",
        hints=(
            "How many z have the square x? How steep is z² at each of them?",
            "At z = √x and at z = −√x the slope is ±2√x. Divide by its absolute value, then add.",
        ),
        aims=("compute",),
        why=(
            "z and −z both land on x = z², and the slope of z² has the absolute value 2√x at each. Their two "
            "contributions p(z)/|r′(z)| add, and they differ where p is not symmetric."
        ),
    ),
    Exercise(
        name="change_of_variables_1d.5",
        question=(
            "**Open task: be the judge.** Somebody claims a density. You see its values and some samples, and no "
            "formula. Invent a test that says whether they agree. (An area of 1 is not enough: remember √z.)"
        ),
        answer=agrees,
        check=check_judge,
        praise="right: piece by piece. So it sees wrong factors that area, mean and deviation all let pass.",
        hints=(
            "Cut the axis so that each piece holds a tenth of the samples. What area should the density have there?",
            "torch.quantile gives the ends of the pieces, torch.trapezoid(density(x), x) the area over a grid x.",
        ),
        aims=("catch",),
        why=(
            "If the density is right, each tenth of the samples lies on a piece with area 0.1. A wrong factor "
            "moves probability from piece to piece, so some piece shows it, even where the whole area, the mean "
            "and the deviation are right."
        ),
    ),
]
