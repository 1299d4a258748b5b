"""The exercises: the most likely image, the spectrum, one Langevin step, a museum of steps, noisy pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, expect, numbers


def excess_of_the_mode(features, prior):
    """By how many nats log p(f⁻¹(0)) exceeds the mean of log p over samples, if |det J| is the same everywhere.

    features is D; prior is "logistic" (log density at 0: −2 log 2; mean of the log density: −2) or "normal".
    """
    at_zero = {"logistic": -2 * math.log(2), "normal": -0.5 * math.log(2 * math.pi)}[prior]
    mean = {"logistic": -2.0, "normal": -0.5 * math.log(2 * math.pi) - 0.5}[prior]
    return features * (at_zero - mean)  # log |det J| is in both, and cancels


def widest(log_scale, k):
    """The k latent directions in which x reaches farthest, farthest first: (k,) whole numbers.

    log_scale is log S, (D,), of the diagonal scaling z = S · (…).
    """
    return log_scale.argsort()[:k]  # x reaches 1/S: small S, wide


def langevin_step(x, score, hidden, a, eps):
    """x after one Langevin step of size a that moves the hidden pixels alone: (N, D).

    score takes x to ∂log p/∂x, (N, D) to (N, D); hidden is (D,), True where a pixel is to be filled in; eps is (N, D),
    drawn from N(0, I).
    """
    moved = x + a * score(x) + math.sqrt(2 * a) * eps
    return torch.where(hidden, moved, x)


def temperature(step, a):
    """T of the density ∝ p^(1/T) that a rule draws from, measured: one number.

    step(x, score, a, eps) is one step of the rule, for any shape of x. Try it where you know the answer: p = N(0, 1),
    whose score is −x, and p^(1/T) = N(0, T).
    """
    x = torch.zeros(5000)
    for _ in range(int(5 / a)):
        x = step(x, lambda x: -x, a, torch.randn(5000))
    return x.var()


def log_posterior(z, y, sigma, inverse, log_prior):
    """log p(z | y) up to a constant, for y = x + sigma · noise with x = f⁻¹(z): (N,).

    z and y are (N, D); inverse takes z to (x, log_det); log_prior takes z to log p_Z(z), (N,). The noise is N(0, I).
    """
    x, _ = inverse(z)
    return log_prior(z) - ((y - x) ** 2).sum(-1) / (2 * sigma**2)


def check_excess(answer: Callable) -> None:
    """Both priors, and a few dimensions."""
    at_zero = {"logistic": -2 * math.log(2), "normal": -0.5 * math.log(2 * math.pi)}
    per_dim = {"logistic": 2 - 2 * math.log(2), "normal": 0.5}
    for D, prior in ((784, "logistic"), (10, "logistic"), (784, "normal"), (3, "normal")):
        value = float(numbers(answer(D, prior), (), "the excess"))
        right = D * per_dim[prior]
        other = D * per_dim["normal" if prior == "logistic" else "logistic"]

        def gave(number: float, value: float = value, right: float = right) -> bool:
            return not math.isclose(value, right, rel_tol=0.01) and math.isclose(value, number, rel_tol=0.01)

        expect(not gave(-right), "The most likely image is the more likely one: mode minus mean, not mean minus mode.")
        expect(not gave(per_dim[prior]), "That is for one dimension. An image has D of them, and their nats add up.")
        expect(not gave(right / math.log(2)), "That is in bits. Asked are nats.")
        expect(not gave(D * at_zero[prior]), "That is log p_Z(0) alone. What has a typical sample?")
        expect(
            not gave(D * (at_zero[prior] - per_dim[prior])) and not gave(D * (per_dim[prior] - at_zero[prior])),
            "That is the mean over samples alone. How far is log p_Z(0) above it?",
        )
        expect(
            not gave(other),
            "That is for the other prior: a logistic loses 2 − 2 log 2 nats a dimension, a normal ½, the mean of ½ z².",
        )
        expect(math.isclose(value, right, rel_tol=0.01), "D · (log density at 0 − mean of the log density).")


def check_widest(answer: Callable) -> None:
    """Scales above and below 1."""
    g = torch.Generator().manual_seed(0)
    for D, k in ((12, 4), (30, 7), (6, 1)):
        log_scale = torch.randn(D, generator=g) * 2 + 0.5
        value = numbers(answer(log_scale.clone(), k), None, "the directions")
        value = value.flatten() if value.numel() == k else value
        order = log_scale.argsort()
        right = order[:k]

        def gave(other: Tensor, value: Tensor = value) -> bool:
            return value.shape == other.shape and torch.allclose(value, other.double())

        def is_right(value: Tensor = value, right: Tensor = right) -> bool:
            return gave(right, value)

        expect(
            is_right() or not gave(order.flip(0)[:k]),
            "Those have the largest S. z = S · (…): where S is large, a small move of x is a large one of z, so x "
            "hardly varies there.",
        )
        expect(
            is_right() or not gave(log_scale.abs().argsort()[:k]),
            "You sorted by |log S|. S = 1/8 and S = 8 are not alike: one is wide, the other narrow.",
        )
        expect(
            is_right() or not (gave((-log_scale[right]).exp()) or gave(log_scale[right])),
            "Those are the values. Asked are the directions: whole numbers from 0 to D − 1.",
        )
        expect(is_right() or value.numel() == k, f"Asked are {k} directions, but got shape {tuple(value.shape)}.")
        expect(
            is_right() or not torch.equal(value.flatten().sort().values, right.sort().values.double()),
            "The right directions, in another order: the farthest first.",
        )
        expect(is_right(), "x reaches 1/S. Sort by it, and take the first k.")


def check_step(answer: Callable) -> None:
    """On a density whose score is known."""

    def score(x: Tensor) -> Tensor:
        return torch.tanh(0.3 - x) * 5

    for N, D, a in ((3, 8, 0.04), (2, 5, 0.3)):
        g = torch.Generator().manual_seed(D)
        x, eps = (torch.randn(N, D, generator=g, dtype=torch.float64) for _ in range(2))
        hidden = torch.arange(D) % 3 > 0
        value = numbers(answer(x.clone(), score, hidden.clone(), a, eps.clone()), (N, D), "x after the step")

        def gave(drift: float, noise: float, where: Tensor = hidden, value: Tensor = value, x: Tensor = x) -> bool:
            moved = x + drift * score(x) + noise * eps  # noqa: B023
            return torch.allclose(value, torch.where(where, moved, x), rtol=1e-4, atol=1e-5)

        right = gave(a, math.sqrt(2 * a))
        everywhere = torch.ones(D, dtype=torch.bool)
        expect(right or not gave(a, 0.0), "That climbs, and is MAP: the noise is missing.")
        expect(
            right or not gave(a, math.sqrt(a)),
            "The √2 is missing. With noise √a the rule draws from p², and stays far too likely.",
        )
        expect(right or not gave(a, a), "That is the rule that NICE prints, noise of size a. Langevin's is larger.")
        expect(right or not gave(a, math.sqrt(2) * a), "The a belongs under the root: √(2a).")
        expect(right or not gave(a, 2 * a), "The noise is √(2a), not 2a: its variance is what grows with a.")
        expect(
            right or not gave(a / 2, math.sqrt(a)), "A Langevin step, but of size a/2. Asked is a; look at both terms."
        )
        expect(
            right or not gave(-a, math.sqrt(2 * a)), "Your step goes downhill: the score points to where p is higher."
        )
        expect(right or not gave(a, math.sqrt(2 * a), everywhere), "The seen pixels moved. They are given.")
        expect(
            right or not gave(a, math.sqrt(2 * a), ~hidden),
            "You moved the seen pixels and kept the hidden ones. True is hidden.",
        )
        expect(
            right or torch.allclose(value[:, ~hidden], x[:, ~hidden]),
            "The seen pixels changed, if only by noise. They are given.",
        )
        expect(right, "x + a · score(x) + √(2a) · eps where hidden, else x.")


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


def check_posterior(answer: Callable) -> None:
    """With a map whose determinant is not the same everywhere."""

    def inverse(z: Tensor) -> tuple[Tensor, Tensor]:
        return z + 0.5 * torch.sin(z), (1 + 0.5 * torch.cos(z)).log().sum(-1)

    def log_prior(z: Tensor) -> Tensor:
        return -2 * torch.log(2 * torch.cosh(z / 2)).sum(-1)

    for N, D, sigma in ((6, 3, 0.4), (5, 4, 2.0)):
        g = torch.Generator().manual_seed(D)
        z, y = (torch.randn(N, D, generator=g, dtype=torch.float64) for _ in range(2))
        value = numbers(answer(z.clone(), y.clone(), sigma, inverse, log_prior), (N,), "log p(z | y)")
        x, log_det = inverse(z)
        square, prior = (y - x).square().sum(-1), log_prior(z)
        fit = -square / (2 * sigma**2)

        def gave(other: Tensor, value: Tensor = value) -> bool:
            off = value - other
            return torch.allclose(off, off[:1].expand_as(off), rtol=1e-4, atol=1e-4)  # up to a constant

        right = gave(prior + fit)
        expect(
            right or not (gave(prior + fit + log_det) or gave(prior + fit - log_det)),
            "This is a density of z, and p_Z is one already: log_det belongs to a density of x.",
        )
        expect(right or not gave(fit), "The prior is missing: this believes the noisy pixels alone.")
        expect(right or not gave(prior), "y is not used: this is the prior. How likely is y, given x?")
        expect(right or not gave(prior - fit), "Your sign: the farther x is from y, the less likely.")
        expect(right or not gave(prior - square / sigma**2), "The ½ of the Gaussian is missing.")
        expect(right or not gave(prior - square / (2 * sigma)), "Divide by the variance, σ², not by σ.")
        expect(
            right or not gave(prior - square.sqrt() / (2 * sigma**2)),
            "A Gaussian falls with the *squared* distance.",
        )
        expect(right or not gave(prior + fit / D), "A mean over pixels. The nats of independent pixels add up.")
        expect(right, "log p_Z(z) + log N(y; f⁻¹(z), σ²); the constant of the Gaussian may be left out.")


EXERCISES = [
    Exercise(
        name="nice_on_mnist.1",
        question=(
            "**The most likely image.** By how many nats is f⁻¹(0) more likely than a typical sample, for any D, and "
            "for a logistic or a normal prior? Then: why has no sample ever looked like it?"
        ),
        answer=excess_of_the_mode,
        check=check_excess,
        praise=(
            "right. 481 nats for D = 784, whatever the data. Typical samples lie where there is room, not where "
            "the density is highest."
        ),
        hints=(
            "log p = log p_Z(z) + log |det J|, and the second term is the same for both. What does one dimension give?",
            'For "logistic": D · (−2 log 2 + 2). For "normal" take the mean of −½ z² from the value at 0.',
        ),
        aims=("explain",),
    ),
    Exercise(
        name="nice_on_mnist.2",
        question="**The spectrum.** Which k latent directions are the widest? Mind what a large S means.",
        answer=widest,
        check=check_widest,
        praise="right. Small S, wide direction: S is where x is squeezed on its way to z.",
        hints=(
            "z = S · (…), so (…) = z/S. If z varies by about 2 in each direction, by how much does x?",
            "By about 2/S: the smallest log_scale first. argsort sorts upward.",
        ),
        aims=("read",),
    ),
    Exercise(
        name="nice_on_mnist.3",
        question="**One step.** Write the Langevin step that fills in hidden pixels.",
        answer=langevin_step,
        check=check_step,
        praise="right. Leave the noise out and it climbs; leave the √2 out and it draws from p².",
        hints=(
            "Uphill by a times the score, then noise; and the pixels that are seen stay as they are.",
            "torch.where(hidden, x + a * score(x) + math.sqrt(2 * a) * eps, x).",
        ),
        aims=("fill in",),
    ),
    Exercise(
        name="nice_on_mnist.4",
        question=(
            "**The bug museum.** Measure the temperature of a rule, then judge A, B, C and D of section 6: "
            '`temperature(museum()["A"], 0.05)`. Which is Langevin, and which two have the same fault?'
        ),
        answer=temperature,
        check=check_temperature,
        praise=(
            "right. C has T = 1. A and D both have T = ½, and draw from p². B, which the paper prints, has T = a/2."
        ),
        hints=(
            "Start thousands of points at 0, and let the rule run with score −x. When they have come to rest, measure "
            "their spread.",
            "for _ in range(int(5 / a)): x = step(x, lambda x: -x, a, torch.randn(5000)); then x.var().",
        ),
        aims=("measure",),
    ),
    Exercise(
        name="nice_on_mnist.5",
        question="**Noisy pixels.** Write log p(z | y), the function that section 7 climbs.",
        answer=log_posterior,
        check=check_posterior,
        praise="right. The flow says what digits are like, the Gaussian says what was seen, and they add up.",
        hints=(
            "Bayes: log p(z | y) = log p_Z(z) + log p(y | z) + a constant. Given z, y is N(f⁻¹(z), σ²).",
            "log_prior(z) - ((y - inverse(z)[0]) ** 2).sum(-1) / (2 * sigma**2). No log_det: it is a density of z.",
        ),
        aims=("restore",),
    ),
]
