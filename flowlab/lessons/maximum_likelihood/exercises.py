"""The exercises: likelihood, its maximum, priors and parametrizations, description length."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from flowlab.lessons.base.exercise import Exercise, Wrong, expect


def mean_log_likelihood(x, mu, sigma):
    """Mean log p(x) in nats a point for N(mu, sigma²): x (N,) and the floats mu and sigma to a number."""
    z = (x - mu) / sigma
    return (-0.5 * z**2 - math.log(sigma) - 0.5 * math.log(2 * math.pi)).mean()


def gaussian_maximum_likelihood(x):
    """The mu and the sigma that maximize the likelihood of the points x (N,): two numbers."""
    mu = x.mean()
    return mu, ((x - mu) ** 2).mean().sqrt()


def log_prior_of_log_sigma(log_prior_of_sigma, s):
    """The log-density of s = log σ, given a function σ ↦ log p(σ): (N,) to (N,)."""
    return log_prior_of_sigma(torch.exp(s)) + s


def extra_bits(log_p, log_q):
    """Bits a point that a code built for q wastes on points of p: from log p(x) and log q(x) in nats, (N,) each."""
    return (log_p - log_q).mean() / math.log(2)


def _check_mean_log_likelihood(f: Callable) -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.7 + 0.4
    mu, sigma = 0.3, 1.6
    value = f(x, mu, sigma)
    expect(value is not None, "your function returns nothing. Does it end with return?")
    value = torch.as_tensor(value, dtype=torch.float64)
    expect(
        value.ndim == 0,
        f"one number was asked for, but got shape {tuple(value.shape)}. Take the mean over the points.",
    )
    right = torch.distributions.Normal(mu, sigma).log_prob(x).mean()

    def is_(other: torch.Tensor) -> bool:
        return bool(torch.isclose(value, other, rtol=1e-5))

    z = (x - mu) / sigma
    c = 0.5 * math.log(2 * math.pi)
    expect(not is_(right * len(x)), "that is the sum. The score in this notebook is nats a point: divide by N.")
    expect(not is_(-right), "the sign is turned: that is the loss, −mean log p. Higher should be better here.")
    expect(
        not is_((-0.5 * z**2).mean() - c),
        "the factor 1/σ is missing: it is the Jacobian of z = (x − μ)/σ. Integrate your density and you get σ, not 1.",
    )
    expect(not is_((-0.5 * z**2).mean() - math.log(sigma)), "the constant ½ log 2π is missing, so the area is not 1.")
    expect(
        not is_((-0.5 * (x - mu) ** 2 / sigma).mean() - 0.5 * math.log(sigma) - c),
        "sigma was taken for the variance. It is the standard deviation: divide (x − μ)² by σ².",
    )
    expect(not is_(right / math.log(2)), "that is in bits. Nats use the natural logarithm.")
    expect(
        is_(right),
        f"expected {right:.4f} on our points, but got {value:.4f}. Compare with torch.distributions.Normal.",
    )


def _check_gaussian_maximum_likelihood(f: Callable) -> None:
    x = torch.tensor([1.0, 2.0, 2.5, 4.0, 7.5], dtype=torch.float64)
    answer = f(x)
    expect(
        isinstance(answer, tuple | list) and len(answer) == 2,
        "two numbers were asked for: return mu, sigma.",
    )
    mu, sigma = (torch.as_tensor(a, dtype=torch.float64) for a in answer)
    expect(not torch.isclose(mu, x.median()), "that mu is the median, which maximizes the Laplace likelihood instead.")
    expect(
        torch.isclose(mu, x.mean()), f"mu should be {x.mean():.3f} here, but got {mu:.3f}. Set d/dμ of the score to 0."
    )
    expect(
        not torch.isclose(sigma, x.std(correction=1)),
        "that sigma divides by N − 1. It is the unbiased variance's root, and not where the likelihood is highest.",
    )
    expect(not torch.isclose(sigma, x.var(correction=0)), "that is the variance σ²; take its root.")
    expect(
        not torch.isclose(sigma, x.var(correction=1)),
        "two slips: the root is missing, and N − 1 stands where N belongs.",
    )
    expect(
        torch.isclose(sigma, x.std(correction=0)),
        f"sigma should be {x.std(correction=0):.3f} here, but got {sigma:.3f}. Set d/dσ of the score to 0.",
    )


def _check_log_prior_of_log_sigma(f: Callable) -> None:
    def log_prior(sigma):  # half of a Gaussian, on σ > 0
        return 0.5 * math.log(2 / math.pi) - 0.5 * sigma**2

    s = torch.linspace(-12, 4, 4001, dtype=torch.float64)
    right = log_prior(s.exp()) + s
    value = f(log_prior, s)
    expect(value is not None, "your function returns nothing. Does it end with return?")
    value = torch.as_tensor(value, dtype=torch.float64)
    expect(value.shape == s.shape, "one log-density for each s was asked for, shape (N,).")
    expect(not value.isnan().any(), "for some s that is not a number. s may be negative, so it has no logarithm.")
    expect(
        not torch.allclose(value, right - s),
        "renaming the point is not enough: s = log σ stretches the axis, and the Jacobian dσ/ds is missing.",
    )
    expect(
        not torch.allclose(value, right - 2 * s),
        "the Jacobian is upside down: p(s) = p(σ) |dσ/ds|, and σ = eˢ, so dσ/ds = eˢ.",
    )
    expect(
        not any(torch.allclose(value, log_prior(s) + extra) for extra in (0 * s, s, -s)),
        "p(σ) must be evaluated at σ = eˢ, not at s.",
    )
    expect(
        not torch.allclose(value, log_prior(s.exp()) * s.exp()),
        "add the logarithm of the Jacobian, log eˢ = s. You multiplied by the Jacobian: right for p, wrong for log p.",
    )
    expect(
        not torch.allclose(value, log_prior(s.exp()) + s.exp()),
        "you added the Jacobian eˢ itself. To a log-density one adds its logarithm.",
    )
    area = torch.trapezoid(value.exp(), s)
    expect(abs(area - 1) < 1e-3, f"your density of s has area {area:.3f}. A density has area 1: check the Jacobian.")
    expect(torch.allclose(value, right), "the area is 1, but the density is not that of log σ.")


def _check_extra_bits(f: Callable) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(4000, generator=generator, dtype=torch.float64)
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.5, 1.5)
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    value = f(log_p, log_q)
    expect(value is not None, "your function returns nothing. Does it end with return?")
    value = torch.as_tensor(value, dtype=torch.float64)
    expect(value.ndim == 0, "one number was asked for: the mean over the points.")
    nats = (log_p - log_q).mean()
    expect(not value.isnan(), "that is not a number. log_p and log_q are logarithms already: take no second one.")
    expect(
        not torch.isclose(value, nats * len(x) / math.log(2)),
        "that is the waste on all points together. Bits *a point* were asked for: take the mean.",
    )
    expect(not torch.isclose(value, nats), "that is in nats. One bit is log 2 nats: divide by it.")
    expect(value > 0, "a wrong code cannot save bits on average. Which of the two is the truth? Check the sign.")
    expect(
        not torch.isclose(value, nats * math.log(2)),
        "the conversion is upside down: a bit is less than a nat, so there are more bits than nats.",
    )
    expect(
        not torch.isclose(value, -log_q.mean() / math.log(2)),
        "that is the whole length of q's code. The waste is what it needs beyond the best code's −log₂ p(x).",
    )
    expect(
        torch.isclose(value, nats / math.log(2)),
        f"expected {nats / math.log(2):.4f} on our points, but got {value:.4f}.",
    )


def ailment(on_training, on_new, exact):
    """What ails a fit: "variance", "bias", "both" or "nothing", from three scores, the higher the better.

    Scores in nats a point: of the fit on its own points and on new ones, and of the exact density on the new ones. Less
    than 0.1 nats counts as no difference.
    """
    too_supple = on_training - on_new > 0.1  # part of what it knows is about its own points only
    too_stiff = exact - on_training > 0.1  # it falls short of the truth even where it has every advantage
    return {(1, 1): "both", (1, 0): "variance", (0, 1): "bias", (0, 0): "nothing"}[too_supple, too_stiff]


def check_ailment(answer: Callable) -> None:
    """Clear cases of each kind, small differences, and densities above 1."""
    cases = (
        (-1.2, -1.9, -1.5, "variance"),
        (-2.0, -2.03, -1.5, "bias"),
        (-1.47, -1.53, -1.5, "nothing"),
        (-1.9, -2.6, -1.5, "both"),
        (0.9, 0.2, 0.6, "variance"),
        (2.0, 2.02, 2.6, "bias"),
    )
    for on_training, on_new, exact, right in cases:
        said = answer(on_training, on_new, exact)
        expect(
            isinstance(said, str) and said in ("variance", "bias", "both", "nothing"),
            f'Return "variance", "bias", "both" or "nothing", but got {said!r}.',
        )
        if said != right:
            where = f" ({on_training} on its own points, {on_new} on new ones, exact {exact}.)"
            raise Wrong(_AILMENT[right, said] + where)


_AILMENT = {  # what ails it, and what was said
    ("variance", "nothing"): "You let this pass, yet on new points it is far below its own: it learned accidents.",
    ("variance", "bias"): "You call it bias, but on its own points the fit is even above the truth: not too stiff.",
    ("variance", "both"): "It is below the truth on new points, but on its own points it is above: no bias to see.",
    ("bias", "nothing"): "New points score as the fit's own do, and yet both are far below the truth: it cannot take "
    "that shape.",
    ("bias", "variance"): "You call it variance, but new points score as the fit's own do: more data will not help.",
    ("bias", "both"): "Its own points score no better than new ones: it is stiff, and that is all.",
    ("nothing", "variance"): "Every fit is a little better on its own points. Less than 0.1 nats counts as nothing.",
    ("nothing", "bias"): "A gap of 0.03 nats to the truth counts as nothing here: the line is at 0.1.",
    ("nothing", "both"): "All three scores lie within 0.1 nats of each other.",
    ("both", "variance"): "Too supple it is. But even on its own points, with every advantage, it falls short of the "
    "truth.",
    ("both", "bias"): "Too stiff it is. But it also loses much from its own points to new ones.",
    ("both", "nothing"): "On its own points it is below the truth, and on new ones lower still.",
}


EXERCISES = [
    Exercise(
        "maximum_likelihood.1",
        "Write the score of this notebook for the simplest model, a Gaussian. Use no library density.",
        mean_log_likelihood,
        _check_mean_log_likelihood,
        "right: log p_Z(z) of the standardized point, plus the log-determinant −log σ, averaged.",
        (
            "With z = (x − μ)/σ, log p(x) = log p_Z(z) + log |dz/dx|. What is dz/dx?",
            "log p_Z(z) = −z²/2 − ½ log 2π, and log |dz/dx| = −log σ. Take the mean over the points.",
        ),
        aims=("score",),
    ),
    Exercise(
        "maximum_likelihood.2",
        "Where is the maximum? For a Gaussian there is a formula. Set the two derivatives of the score to zero.",
        gaussian_maximum_likelihood,
        _check_gaussian_maximum_likelihood,
        "right: dividing by N, not N − 1. On average that is a little too narrow: overfitting, in a single number.",
        (
            "d/dμ: Σ (xᵢ − μ) = 0. d/dσ: −N/σ + Σ (xᵢ − μ)²/σ³ = 0.",
            "σ² = (1/N) Σ (xᵢ − μ)²: the mean squared distance, with N and not N − 1.",
        ),
        aims=("fit",),
    ),
    Exercise(
        "maximum_likelihood.3",
        "A prior is a density *over the parameter*, so it changes when the parameter is renamed. Given log p(σ) as a "
        "function, write the log-density of s = log σ.",
        log_prior_of_log_sigma,
        _check_log_prior_of_log_sigma,
        "right: the change of variables, with σ = eˢ as the map. That extra + s is what moves the MAP estimate.",
        (
            "Change of variables on the line: p(s) = p(σ) |dσ/ds|, with σ = eˢ.",
            "log p(s) = log p(σ = eˢ) + log eˢ. What is log eˢ?",
        ),
        aims=("explain",),
    ),
    Exercise(
        "maximum_likelihood.4",
        "A code built for q spends −log₂ q(x) bits on x. How many bits a point does it waste when points come from p?",
        extra_bits,
        _check_extra_bits,
        "right: KL(p‖q)/log 2. The gauge of this course, read as bits on a bill.",
        (
            "The best code spends −log₂ p(x). Subtract, and average over points of p.",
            "mean(log p − log q) is the waste in nats. One bit is log 2 = 0.693 nats.",
        ),
        aims=("read",),
    ),
    Exercise(
        name="maximum_likelihood.5",
        question=(
            "**What ails it?** You see three scores of a fit, and no picture. Is it too supple for its points "
            "(variance), too stiff for the truth (bias), both, or is nothing the matter?"
        ),
        answer=ailment,
        check=check_ailment,
        praise="right. More data mend variance, another model mends bias, and one needs held-out points to know which.",
        hints=(
            "Which two scores drift apart when a fit has learned the accidents of its points?",
            "Variance: own points minus new ones. Bias: the truth minus *own* points, where it has every advantage.",
        ),
        aims=("tell",),
    ),
]
