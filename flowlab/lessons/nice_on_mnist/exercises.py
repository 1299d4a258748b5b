"""The exercises: the most likely image among cooled samples, the spectrum, an own schedule, a museum of steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, expect, numbers


def excess_over_cooled(features, prior, tau):
    """By how many nats log p(f⁻¹(0)) exceeds the mean of log p over f⁻¹(τ z), with z from the prior: one number.

    features is D; |det J| is the same everywhere. prior is "logistic" or "normal".
    """
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000  # evenly spaced, as the ranks of many draws are
    if prior == "normal":
        base, z = torch.distributions.Normal(0.0, 1.0), torch.special.ndtri(u)
        log_p = base.log_prob(tau * z) - base.log_prob(torch.tensor(0.0))
    else:
        z = torch.logit(u)
        log_p = 2 * math.log(2) - tau * z - 2 * torch.nn.functional.softplus(-tau * z)
    return -features * log_p.mean()


def directions_needed(log_scale, share):
    """The smallest number of latent directions that hold at least this share of Σ 1/S²: a whole number.

    log_scale is log S, (D,), of the diagonal scaling z = S · (…); share is between 0 and 1.
    """
    squares = torch.exp(-2 * log_scale).sort(descending=True).values
    held = squares.cumsum(0) / squares.sum()
    return int((held < share).sum()) + 1


def own_schedule(steps):
    """One pair (α, c) for each of the steps of x ← x + α ∇log p + c ε: a list of pairs of numbers.

    The chain starts at 0. After 60 steps it should draw from p = N(0, s²) for each s from 0.5 to 2: all variances
    within 5 % of s².
    """
    rates = [max(0.5 * 0.93**i, 0.01) for i in range(steps)]
    return [(a, math.sqrt(2 * a)) for a in rates]


def temperature(step, a):
    """T of the density ∝ p^(1/T) that a rule draws from, measured: one number.

    step(x, score, a, eps) is one step of the rule, for any shape of x. Try it where you know the answer: p = N(0, 1),
    whose score is −x, and p^(1/T) = N(0, T).
    """
    x = torch.zeros(5000)
    for _ in range(int(5 / a)):
        x = step(x, lambda x: -x, a, torch.randn(5000))
    return x.var()


# --- the checks -----------------------------------------------------------------------------------------------------


def _excess(prior: str, tau: float) -> float:
    """Of one dimension, by the worked answer."""
    return float(excess_over_cooled(1, prior, tau))


def check_excess(answer: Callable) -> None:
    """Both priors, a few dimensions and temperatures."""
    for D, prior, tau in (
        (784, "logistic", 1.0),
        (784, "normal", 1.0),
        (10, "normal", 0.5),
        (10, "logistic", 0.5),
        (3, "logistic", 2.0),
    ):
        value = float(numbers(answer(D, prior, tau), (), "the excess"))
        right = D * _excess(prior, tau)

        def gave(number: float, value: float = value, right: float = right) -> bool:
            return not math.isclose(value, right, rel_tol=0.02) and math.isclose(value, number, rel_tol=0.02)

        expect(not gave(-right), "The most likely image is the more likely one: mode minus mean, not mean minus mode.")
        expect(not gave(right / D), "That is for one dimension. An image has D of them, and their nats add up.")
        expect(not gave(right / math.log(2)), "That is in bits. Asked are nats.")
        expect(
            not gave(D * _excess("normal" if prior == "logistic" else "logistic", tau)),
            "That is for the other prior. At τ = 1, a dimension of a logistic has 2 − 2 log 2 nats, and of a normal ½.",
        )
        expect(not gave(D * _excess(prior, 1.0)), "That is at τ = 1. Cooled latents τ z lie nearer to 0: put τ in.")
        expect(
            not gave(D * _excess(prior, 1.0) * tau) and not gave(D * _excess(prior, 1.0) * tau**2),
            "You scaled the nats of τ = 1 by a power of τ. That is right for a normal and τ²: a logistic falls like z² "
            "near 0 and like |z| far out. Take the mean over draws.",
        )
        expect(
            not gave(D * (_excess(prior, 1.0) - _excess(prior, tau))),
            "That is how many nats cooling brings. How far from the mode are the cooled samples still?",
        )
        expect(
            math.isclose(value, right, rel_tol=0.02),
            "D times the mean of log p_Z(0) − log p_Z(τ z), over draws z of the prior. log |det J| is in both.",
        )


def check_directions(answer: Callable) -> None:
    """Scales above and below 1."""
    g = torch.Generator().manual_seed(0)
    for D, share in ((12, 0.8), (40, 0.95), (40, 0.5), (6, 0.999)):
        log_scale = torch.randn(D, generator=g, dtype=torch.float64) + 0.5
        value = float(numbers(answer(log_scale.clone(), share), (), "the number of directions"))

        def count(parts: Tensor, upward: bool = False, share: float = share) -> int:
            held = parts.sort(descending=not upward).values.cumsum(0) / parts.sum()
            return int((held < share).sum()) + 1

        squares = (-2 * log_scale).exp()
        right = count(squares)

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return value != right and value == other

        expect(0 < value <= D and value == int(value), f"Expected a whole number from 1 to {D}, but got {value:g}.")
        expect(
            not gave(count(1 / squares)),
            "You took the directions with the largest S. z = S · (…): where S is large, x hardly varies.",
        )
        expect(not gave(count(squares.sqrt())), "You added up 1/S. Asked is the share of Σ 1/S², of variances.")
        expect(
            not gave(count(squares, upward=True)),
            "You began with the narrowest directions. The fewest are needed if you begin with the widest.",
        )
        expect(
            not gave(right - 1) and not gave(right + 1),
            "One off. Add directions until their share is reached, and count the one that reaches it.",
        )
        expect(
            not gave(math.ceil(share * D)),
            "That is the share of the directions. They are not equally wide: a few wide ones hold more.",
        )
        expect(value == right, "Sort 1/S² from the largest, add up, and count until the sum reaches share · Σ 1/S².")


def check_schedule(answer: Callable) -> None:
    """By the variance that each chain has at its end, which has a formula for a normal p."""
    pairs = answer(60)
    expect(pairs is not None, "Your function returned None. Is there a return?")
    try:
        pairs = [(float(a), float(c)) for a, c in pairs]
    except (TypeError, ValueError):
        expect(False, "Expected a list of pairs (α, c), one for each step.")
    expect(len(pairs) == 60, f"Expected 60 pairs, one for each step, but got {len(pairs)}.")
    expect(all(a > 0 and c >= 0 for a, c in pairs), "A step α is above 0, and the size c of a noise is not below 0.")

    def ratio(s: float) -> float:
        variance = 0.0
        for a, c in pairs:
            variance = min((1 - a / s**2) ** 2 * variance + c**2, 1e9)
        return variance / s**2

    narrow, wide = ratio(0.5), ratio(2.0)
    reached = f"variance over s²: {narrow:.2f} for s = 0.5, {ratio(1.0):.2f} for s = 1, {wide:.2f} for s = 2"
    expect(narrow < 100, f"The chain runs away where p is narrow ({reached}). α has to stay below 2 s² there.")
    expect(wide > 0.01, f"Your chain stands still ({reached}). Where is the noise?")
    cold = max(c * c / (2 * a) for a, c in pairs[-10:])
    expect(
        cold > 0.9,
        f"The last steps draw at the temperature {cold:.2f} ({reached}). Which size of c goes with α for T = 1?",
    )
    expect(
        wide > 0.95 or narrow > 1.05,
        f"Where p is wide, the chain has not arrived ({reached}). Take larger steps at the beginning.",
    )
    expect(
        narrow < 1.05 or wide < 0.95,
        f"Where p is narrow, the last steps are too long ({reached}). Let α fall toward the end.",
    )
    expect(
        all(abs(ratio(s) - 1) < 0.05 for s in (0.5, 0.7, 1.0, 1.4, 2.0)),
        f"Not within 5 % everywhere ({reached}). Large steps first, so that wide directions arrive; small ones last.",
    )


def check_temperature(answer: Callable) -> None:
    """Rules of known temperature."""
    for drift, noise, a in ((1.0, 2.0, 0.05), (1.0, 0.5, 0.1), (2.0, 1.0, 0.05)):
        right = noise / drift  # T of x + drift · a · score + √(2 a · noise) ε

        def step(
            x: Tensor, score: Callable, a: float, eps: Tensor, drift: float = drift, noise: float = noise
        ) -> Tensor:
            return x + drift * a * score(x) + math.sqrt(2 * a * noise) * eps

        value = float(numbers(answer(step, a), (), "the temperature"))
        expect(
            math.isfinite(value) and value < 1e3,
            "It ran away. The score of N(0, 1) is −x: it points back to the middle.",
        )

        def gave(other: float, value: float = value, right: float = right) -> bool:
            return not _near(value, right) and _near(value, other)

        expect(not gave(math.sqrt(right)), "That is the deviation. p^(1/T) of N(0, 1) has the *variance* T.")
        expect(not gave(1 / right), "Upside down: hot is wide, so T is large where the variance is.")
        expect(abs(value) > 0.05 * right, "That is about 0. Is it the mean? Their spread says how hot they are.")
        expect(
            _near(value, right) or value > 0.9 * right,
            "Too cold, or too early: from one point it takes some 1/a steps until the points have spread. Run longer.",
        )
        expect(
            _near(value, right),
            "Thousands of points, some 5/a steps each, then the variance across the points. Give eps a variance of 1.",
        )


def _near(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=0.17)


EXERCISES = [
    Exercise(
        name="nice_on_mnist.1",
        question=(
            "**The most likely image, among cooled samples.** By how many nats is f⁻¹(0) still more likely than a "
            "typical sample, if the latents are scaled by τ? The prior is logistic or normal."
        ),
        answer=excess_over_cooled,
        check=check_excess,
        praise=(
            "right. At τ = 1 these are 481 nats for a logistic and D = 784. At τ = 0 nothing is left, and no variety "
            "either."
        ),
        hints=(
            "log p = log p_Z(z) + log |det J|, and the second term is the same for both. What does one dimension give?",
            "Draw z from the prior, torch.logit(torch.rand(100_000)) for a logistic, and take the mean of "
            "log p_Z(0) − log p_Z(τ z). For a normal it is τ²/2.",
        ),
        aims=("explain",),
        why=(
            "The determinant is the same everywhere, so only log p_Z differs between f⁻¹(0) and a sample, and "
            "dimensions add up. For a normal prior the mean of τ² z²/2 is τ²/2, and for a logistic, which has two "
            "kinds of slope, one takes the mean over draws."
        ),
    ),
    Exercise(
        name="nice_on_mnist.2",
        question=(
            "**The spectrum.** How many latent directions are needed to hold a given share of Σ 1/S²? Mind what a "
            "large S means."
        ),
        answer=directions_needed,
        check=check_directions,
        praise="right. Begin with the smallest S, since S is where x is squeezed on its way to z.",
        hints=(
            "z = S · (…), so (…) = z/S. Which S belong to the directions in which x varies most?",
            "Sort exp(−2 log S) downward, take cumsum, and count how many sums lie below share times the whole sum.",
        ),
        aims=("read",),
        why=(
            "x varies by about 1/S in a latent direction, so the widest directions have the smallest S. Sorted "
            "downward, every further direction adds the most that is left, so no smaller set reaches the share."
        ),
    ),
    Exercise(
        name="nice_on_mnist.3",
        question=(
            "**Open task: a schedule of your own.** The widths of section 6 are only roughly right. Choose the steps "
            "and the noise of 60 steps, so that the chain arrives where p is twice as wide as you think, and is not "
            "too hot where it is half as wide. Many schedules do it."
        ),
        answer=own_schedule,
        check=check_schedule,
        praise="right. Your long first steps reach the wide directions, and your short last ones cool the narrow ones.",
        hints=(
            "Which c makes T = 1 in the table of section 6? With it, try one α for all steps, and read both ends.",
            "c = √(2α), with α from about 0.5 in the first step down to about 0.01 in the last.",
        ),
        aims=("choose",),
        why=(
            "With c = √(2α) each step draws at T = 1, up to an error that grows with α/s²: so the last steps must be "
            "short where p is narrow. A wide direction is reached only if the sum of all α is some multiples of s², so "
            "the first steps must be long."
        ),
    ),
    Exercise(
        name="nice_on_mnist.4",
        question=(
            "**The bug museum.** Measure the temperature of a rule, then judge A, B, C and D: "
            '`temperature(museum()["A"], 0.05)`. Which is Langevin, and which two have the same fault?'
        ),
        answer=temperature,
        check=check_temperature,
        praise=(
            "right. C has T = 1. A and D both have T = ½, and draw from p². B, which the paper prints, has T = a/2."
        ),
        hints=(
            "Start thousands of points at 0, and let the rule run with score −x. When their spread no longer changes, "
            "measure it.",
            "for _ in range(int(5 / a)): x = step(x, lambda x: -x, a, torch.randn(5000)); then x.var().",
        ),
        aims=("measure",),
        why=(
            "For p = N(0, 1) the density p^(1/T) is N(0, T), so the variance of the points is the temperature. It "
            "takes some 1/a steps until the points have forgotten where they started, so 5/a are enough."
        ),
    ),
]
