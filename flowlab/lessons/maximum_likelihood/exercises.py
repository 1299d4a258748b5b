"""The exercises: a likelihood by hand, a fit that is judged, a prior renamed, bias and variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import flowlab
from flowlab.densities import GaussianMixture
from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, log_prob_of, numbers, one_of


def mean_log_likelihood(x, location, spread, tail, skew):
    """Mean log p(x) in nats per point for the map z = sinh(tail · arcsinh(u) − skew), u = (x − location)/spread.

    The base is N(0, 1); spread and tail are above 0. x is (N,), the rest are numbers. Returns a number.
    """
    u = (x - location) / spread
    w = tail * torch.asinh(u) - skew
    log_p_z = -0.5 * torch.sinh(w) ** 2 - 0.5 * math.log(2 * math.pi)
    log_det = torch.log(torch.cosh(w)) + math.log(tail) - 0.5 * torch.log(1 + u**2) - math.log(spread)  # dz/dx
    return (log_p_z + log_det).mean()


def fit_a_density(x):
    """A density fitted to the points x (N, 1), two groups on a line: anything whose log_prob takes (n, 1) to (n,)."""
    b = flowlab.bijections
    chain = b.Chain([b.ScaleShift(1), b.MonotoneSum(1, terms=10), b.ScaleShift(1)])
    flow = flowlab.Flow(chain, flowlab.densities.StandardNormal(1))
    flowlab.fit(flow, x[:240], steps=400, validation=x[240:], learning_rate=3e-2, progress=False)
    return flow


def log_prior_of_log_sigma(log_prior_of_sigma, s):
    """The log-density of s = log σ, given a function σ ↦ log p(σ): (N,) to (N,)."""
    return log_prior_of_sigma(torch.exp(s)) + s


def _check_mean_log_likelihood(f: Callable) -> None:
    x = 1.5 * torch.randn(500, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.4
    for location, spread, tail, skew in ((-0.5, 2.0, 0.7, 0.4), (1.0, 0.5, 1.2, -0.8), (0.3, 1.6, 1.0, 0.0)):
        value = numbers(f(x.clone(), location, spread, tail, skew), None, "the mean log-likelihood")
        expect(value.shape != x.shape, "That is one number for each point. Take the mean over the points.")
        value = numbers(value, (), "the mean log-likelihood")
        u = (x - location) / spread
        w = tail * u.asinh() - skew
        base = -0.5 * w.sinh() ** 2 - 0.5 * math.log(2 * math.pi)
        parts = {
            "the slope 1/spread of u": torch.full_like(x, -math.log(spread)),
            "the factor tail": torch.full_like(x, math.log(tail)),
            "the slope of arcsinh, 1/√(1 + u²)": -0.5 * (1 + u**2).log(),
            "the slope of sinh, which is cosh": w.cosh().log(),
        }
        log_det = sum(parts.values())
        right = (base + log_det).mean()

        def is_(other: Any, value: Tensor = value, right: Tensor = right) -> bool:
            return close(value, other, atol=2e-3) and not close(right, other, atol=2e-3)

        expect(not is_(right * len(x)), "That is the sum over the points. Nats per point need the mean: divide by N.")
        expect(not is_(-right), "The sign is turned: that is the loss, −mean log p. Higher is better here.")
        expect(not is_(base.mean()), "That is log p_Z(z), the base alone. log p(x) has one more term: log |dz/dx|.")
        expect(
            not is_((base - log_det).mean()),
            "You subtracted log |dz/dx|. The map here runs from x to z, so its log-determinant is added.",
        )
        expect(not is_((base + log_det.exp()).mean()), "You added dz/dx itself. Add its logarithm.")
        expect(not is_(right / math.log(2)), "That is in bits. Nats use the natural logarithm.")
        expect(
            not is_(right + 0.5 * math.log(2 * math.pi)),
            "The constant ½ log 2π is missing, so your density has an area of 2.5 and not of 1.",
        )
        for name, part in parts.items():
            expect(
                not is_((base + log_det - part).mean()),
                f"The chain rule needs one factor for each step of the map. Yours has not {name}.",
            )
        expect(
            close(value, right, atol=2e-3),
            f"Expected {right:.4f} on our points, but got {value:.4f}. Compare log |dz/dx| with autograd at a point.",
        )


def _check_fit(f: Callable) -> None:
    """300 points of two groups of unequal width; the density is judged on others, and has to have area 1."""
    means, variances = torch.tensor([[-1.0], [3.0]]), torch.tensor([0.09, 1.44]).view(2, 1, 1)
    truth = GaussianMixture(means, variances, weights=torch.tensor([0.4, 0.6]))
    x, new = (truth.sample(n, torch.Generator().manual_seed(seed)) for n, seed in ((300, 4), (4000, 5)))
    log_q = log_prob_of(f(x.clone()))
    line = torch.linspace(-30, 40, 70_001)[:, None]
    area = float(log_q(line).exp().sum() * 1e-3)
    expect(
        abs(area - 1) < 0.05,
        f"What you return has area {area:.2f}. A density has area 1: is each log-determinant in it?",
    )
    gauge = float((truth.log_prob(new) - log_q(new)).mean())
    own = float((truth.log_prob(x) - log_q(x)).mean())
    gaussian = torch.distributions.Normal(x.mean(), x.std())
    stiff = float((truth.log_prob(new) - gaussian.log_prob(new)[:, 0]).mean())
    where = f" It is {gauge:.2f} nats from the truth on new points, and {own:.2f} on its own; asked is less than 0.25."
    if gauge < 0.25:
        return
    if gauge > stiff - 0.02 and own > -0.05:
        raise Wrong(
            f"Your density is no better than one Gaussian, which has {stiff:.2f}: too rigid, or hardly trained." + where
        )
    if own < -0.05:
        raise Wrong(
            "Your density fits the noise of its own points. Hold some of them out, by validation=, or stop earlier."
            + where
        )
    raise Wrong("Nearly. Try more terms, more steps or another learning rate." + where)


def _check_log_prior_of_log_sigma(f: Callable) -> None:
    def log_prior(sigma: Tensor) -> Tensor:  # half of a Gaussian, on σ > 0
        return 0.5 * math.log(2 / math.pi) - 0.5 * sigma**2

    s = torch.linspace(-12, 4, 4001, dtype=torch.float64)
    right = log_prior(s.exp()) + s
    value = numbers(f(log_prior, s.clone()), tuple(s.shape), "the log-density")
    expect(not value.isnan().any(), "for some s that is not a number. s may be negative, so it has no logarithm.")
    expect(
        not close(value, right - s),
        "renaming the point is not enough: s = log σ stretches the axis, and the Jacobian dσ/ds is missing.",
    )
    expect(
        not close(value, right - 2 * s),
        "the Jacobian is upside down: p(s) = p(σ) |dσ/ds|, and σ = eˢ, so dσ/ds = eˢ.",
    )
    expect(
        not any(close(value, log_prior(s) + extra) for extra in (0 * s, s, -s)),
        "p(σ) must be evaluated at σ = eˢ, not at s.",
    )
    expect(
        not close(value, log_prior(s.exp()) * s.exp()),
        "add the logarithm of the Jacobian, log eˢ = s. You multiplied by the Jacobian: right for p, wrong for log p.",
    )
    expect(
        not close(value, log_prior(s.exp()) + s.exp()),
        "you added the Jacobian eˢ itself. To a log-density one adds its logarithm.",
    )
    area = torch.trapezoid(value.exp(), s)
    expect(abs(area - 1) < 5e-3, f"your density of s has area {area:.3f}. A density has area 1: check the Jacobian.")
    expect(close(value, right), "the area is 1, but the density is not that of log σ.")


def ailment(few, many):
    """What is wrong with the fit to few points: "variance", "bias", "both" or "nothing".

    few and many are nats to the truth on new points, of the same model fitted to few points and to very many, both as
    means over several data sets. Less than 0.03 nats counts as nothing.
    """
    too_rigid = many > 0.03  # what no number of points removes
    too_flexible = few - many > 0.03  # what more points do remove
    return {(1, 1): "both", (1, 0): "bias", (0, 1): "variance", (0, 0): "nothing"}[too_rigid, too_flexible]


def check_ailment(answer: Callable) -> None:
    """The models of section 4 at 20 and at 200 points, as its table has them, and clear cases of each kind."""
    cases = (
        (0.77, 0.01, "variance"),  # flexible, 20 points
        (0.15, 0.14, "bias"),  # Gaussian, 200 points
        (0.27, 0.14, "both"),  # Gaussian, 20 points
        (0.02, 0.00, "nothing"),  # sinh-arcsinh, 200 points
        (0.42, 0.00, "variance"),  # sinh-arcsinh, 20 points
        (0.60, 0.59, "bias"),
        (3.00, 1.00, "both"),
        (0.025, 0.02, "nothing"),
    )
    for few, many, right in cases:
        said = one_of(answer(few, many), ("variance", "bias", "both", "nothing"))
        if said != right:
            raise Wrong(_AILMENT[right, said] + f" ({few} nats from few points, {many} from very many.)")


_AILMENT = {  # what ails it, and what was said
    ("variance", "nothing"): "You let this pass, yet with few points it is far from the truth.",
    ("variance", "bias"): "You call it bias, but with very many points nearly nothing of it is left.",
    ("variance", "both"): "With very many points it reaches the truth, so its shape is no obstacle: there is no bias.",
    ("bias", "nothing"): "More points hardly help, and yet it stays far from the truth: it cannot take that shape.",
    ("bias", "variance"): "You call it variance, but more points would hardly help.",
    ("bias", "both"): "Few points do as well as very many: nothing of this is variance.",
    ("nothing", "variance"): "So small a difference counts as nothing here: the line is at 0.03.",
    ("nothing", "bias"): "A gauge of 0.02 nats counts as nothing here: the line is at 0.03.",
    ("nothing", "both"): "Both numbers are below 0.03.",
    ("both", "variance"): "More points help, but not all the way: what is left with very many is bias.",
    (
        "both",
        "bias",
    ): "Something is left with very many points, but with few there is much more: that part is variance.",
    ("both", "nothing"): "It is far from the truth with few points, and still with very many.",
}


EXERCISES = [
    Exercise(
        "maximum_likelihood.1",
        "**The log-likelihood of a bent map.** Write the mean log-likelihood of section 2's model from its two "
        "formulas, with no density and no map of a library.",
        mean_log_likelihood,
        _check_mean_log_likelihood,
        "right: log p_Z(z), and the logarithm of one factor for each step of the map, averaged over the points.",
        (
            "log p(x) = log p_Z(z) + log |dz/dx|. The map has several steps: x to u, arcsinh, times tail, minus skew, "
            "sinh. The chain rule multiplies their slopes.",
            "With w = tail · arcsinh(u) − skew: dz/dx = cosh(w) · tail · 1/√(1 + u²) · 1/spread. Take logarithms.",
        ),
        aims=("compute",),
        why=(
            "The map is a chain of simple steps, so its slope is the product of their slopes: 1/spread, 1/√(1 + "
            "u²), tail and cosh(w). log p(x) is log p_Z(z) plus the logarithm of that product, and the mean over "
            "the points makes data sets of any size comparable."
        ),
    ),
    Exercise(
        "maximum_likelihood.2",
        "**Open task: fit, and do not overfit.** You get 300 points in two groups of unequal width. Choose a model, "
        "train it, and return it. It is judged on new points.",
        fit_a_density,
        _check_fit,
        "right: less than 0.25 nats from the truth on points that you never saw.",
        (
            "Section 4 has three models. Which of them can have two humps? What keeps it from "
            "fitting the noise of its points?",
            "Flow(Chain([ScaleShift(1), MonotoneSum(1, terms=10), ScaleShift(1)]), StandardNormal(1)); give fit some "
            "of the points as validation=.",
        ),
        aims=("fit",),
        why=(
            "Ten smooth steps are enough for two groups, and few enough not to follow the noise. The 60 points "
            "that are held out stop the training where log p on them is highest."
        ),
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
        why=(
            "s = log σ is a change of variables with σ = eˢ, so p(s) = p(σ) |dσ/ds| = p(eˢ) eˢ. In logarithms the "
            "factor becomes + s, and it moves the place of the maximum."
        ),
    ),
    Exercise(
        name="maximum_likelihood.4",
        question=(
            "**Bias or variance?** You know how far a model is from the truth after learning from few points, and "
            "after very many. Is it too flexible for few points (variance), too rigid for the truth (bias), both, or "
            "neither?"
        ),
        answer=ailment,
        check=check_ailment,
        praise="right. More data mend variance, another model mends bias, and only a change of N tells them apart.",
        hints=(
            "What is left of the error when a model has all the points that it could wish for?",
            "Bias: the gauge with very many points. Variance: what the gauge has beyond that with few.",
        ),
        aims=("tell",),
        why=(
            "What is left with very many points cannot come from the choice of the points, so it is bias. What "
            "the model has beyond that with few points goes away with more data, so it is variance."
        ),
    ),
]
