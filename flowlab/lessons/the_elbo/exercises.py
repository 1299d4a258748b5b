"""The exercises: the two terms of the bound, a round of EM, KL of Gaussians, samples with gradients, a fit of q."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, numbers


def elbo_terms(log_likelihood, log_prior, log_q):
    """E_q[log p(x | k)] and −KL(q ‖ π) of each point, two tensors (N,) in nats: together they are the bound.

    From log p(x | k) (N, K), log π (K,) and log q(k | x) (N, K). Where q is 0, log q is −inf, and the term counts 0.
    """
    q = log_q.exp()
    explained = torch.where(q > 0, q * log_likelihood, 0.0).sum(-1)
    minus_kl = torch.where(q > 0, q * (log_prior - log_q), 0.0).sum(-1)
    return explained, minus_kl


def top_of_bound(x, theta):
    """θ at the top of the bound that touches log p at ``theta``: points x (N,) and a number, to a number."""
    log_joint = torch.stack((-0.5 * x**2, -0.5 * (x - theta) ** 2), -1)  # equal constants left out
    r = log_joint.softmax(-1)[:, 1]
    return (r * x).sum() / r.sum()


def gaussian_kl(mu_q, sigma_q, mu_p, sigma_p):
    """KL(q ‖ p) in nats of Gaussians with independent coordinates: means and deviations (N, D) each, to (N,)."""
    ratio = sigma_q / sigma_p
    return (0.5 * (ratio**2 + ((mu_q - mu_p) / sigma_p) ** 2 - 1) - ratio.log()).sum(-1)


def draw_sample(mu, log_var, generator):
    """A sample of each N(mu, exp(log_var)), (N, D), with gradients to mu and log_var, and noise from ``generator``."""
    return mu + (0.5 * log_var).exp() * torch.randn(mu.shape, generator=generator)


def highest_bound(log_joint, generator):
    """mu, sigma and the bound in nats of the Gaussian q(z) = N(mu, sigma²) whose bound on log p(x) is the highest.

    One x is given, and z is a number. log_joint(z) is log p(x, z) for a tensor z of any shape, with gradients.
    p(z | x) may have several humps, all between −6 and 6. ``generator`` is there for noise.
    """
    starts = torch.linspace(-5, 5, 11)
    mu, log_sigma = starts.clone().requires_grad_(), torch.full_like(starts, -0.5).requires_grad_()
    adam = torch.optim.Adam([mu, log_sigma], lr=0.03)

    def bounds(draws):
        noise = torch.randn(draws, len(starts), generator=generator)
        log_q = -0.5 * noise**2 - log_sigma - 0.5 * math.log(2 * math.pi)
        return (log_joint(mu + log_sigma.exp() * noise) - log_q).mean(0)

    for _ in range(300):
        adam.zero_grad()
        (-bounds(64).sum()).backward()
        adam.step()
    with torch.no_grad():
        reached = bounds(5000)
    best = reached.argmax()
    return mu[best].item(), log_sigma[best].exp().item(), reached[best].item()


def check_elbo(answer: Callable) -> None:
    """Each term against its sum, at a q that is not the posterior; then where q is 0."""
    g = torch.Generator().manual_seed(8)
    likelihood = 2 * torch.randn(4, 3, generator=g, dtype=torch.float64) - 3
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    log_q = torch.randn(4, 3, generator=g, dtype=torch.float64).log_softmax(-1)

    def terms(log_q: Tensor) -> tuple[Tensor, Tensor]:
        both = answer(likelihood.clone(), prior.clone(), log_q.clone())
        expect(both is not None, "Your function returned None. Is there a return?")
        two = isinstance(both, tuple | list) and len(both) == 2
        expect(two, "Return two things: E_q[log p(x | k)] and −KL(q ‖ π).")
        return tuple(as_row(numbers(value, None, name)) for value, name in zip(both, ("E_q", "−KL"), strict=True))

    first, second = terms(log_q)
    for value in (first, second):
        expect(value.shape != (), "One number came: give each term for each point, (N,), not its mean over points.")
        expect(value.shape != (4, 3), "These are the K parts of each point. E_q is a sum over them, the last axis.")
        expect(value.shape == (4,), f"Expected shape (4,), a number a point, but got {tuple(value.shape)}.")
    q = log_q.exp()
    explained, minus_kl = (q * likelihood).sum(-1), (q * (prior - log_q)).sum(-1)
    expect(
        not (close(first, likelihood.mean(-1)) or close(first, likelihood.sum(-1))),
        "All k count alike in your first term. E_q weights them by q.",
    )
    expect(
        not close(first, (likelihood + prior).logsumexp(-1)),
        "Your first term is log p(x), the whole. Asked is the mean of log p(x | k) when k is drawn from q.",
    )
    expect(
        not close(first, (q * (likelihood + prior)).sum(-1)),
        "Your first term has the joint π_k p(x | k) in it. The prior belongs into the second term.",
    )
    expect(close(first, explained), "The first term is not right yet: Σ_k q_k log p(x | k).")
    expect(not close(second, -minus_kl), "This is KL(q ‖ π), positive. The bound has it with a minus sign.")
    expect(
        not close(second, (q * (prior + log_q)).sum(-1)),
        "You added E_q[log q]. It is subtracted: −E_q[log q] is the entropy, and it is large for a q that is not sure.",
    )
    expect(not close(second, -(q * log_q).sum(-1)), "This is the entropy of q alone. A KL compares: where is log π?")
    expect(not close(second, (q * prior).sum(-1)), "This is E_q[log π] alone, without the entropy −E_q[log q].")
    expect(
        not close(second, -(prior.exp() * (prior - log_q)).sum(-1)),
        "This is −KL(π ‖ q). The mean in the bound is over q everywhere: it is KL(q ‖ π).",
    )
    expect(close(second, minus_kl), "The second term is not right yet: Σ_k q_k (log π_k − log q_k).")
    first, second = terms(torch.tensor([[0.0, -math.inf, -math.inf]] * 4, dtype=torch.float64))
    expect(
        not bool((first + second).isnan().any()),
        "Right, but NaN where q = 0: there 0 · (−∞) should count as 0. Replace those terms, with torch.where perhaps.",
    )
    expect(
        close(first, likelihood[:, 0]) and close(second, prior[0].expand(4)),
        "Right for every q > 0. Where q = 0 a term counts 0, so only the first cause remains.",
    )


def check_top(answer: Callable) -> None:
    """One E-step and one M-step, then points so far away that densities are 0 in floating point."""
    g = torch.Generator().manual_seed(8)
    x = torch.cat([torch.randn(12, generator=g) - 2.5, torch.randn(20, generator=g) + 2.0]).double()
    for theta in (0.8, -1.5):
        value = float(numbers(answer(x.clone(), theta), (), "θ"))

        def gave(other: Any, value: float = value) -> bool:
            return math.isclose(value, float(other), rel_tol=5e-4)

        r, far = _responsibilities(x, theta), theta
        for _ in range(300):
            far = _mean(x, _responsibilities(x, far))
        expect(not gave(theta), "You gave θ back: that is where the bound touches, not where its top is.")
        expect(not gave(_mean(x, 1 - r)), "You weighted by the other component's share, the one that is fixed at 0.")
        expect(not gave((r * x).mean()), "You divided by N. A weighted mean is divided by the sum of its weights.")
        expect(not gave(x.mean()), "All points count alike here. A point counts by its r, the share that θ claims.")
        expect(
            not gave(x[r > 0.5].mean()),
            "You gave each point to one component, hard. The bound that touches has q = p(k | x), which is soft.",
        )
        expect(
            not gave(_mean(x, (-0.5 * (x - theta) ** 2).exp())),
            "You weighted by the density N(x; θ, 1) alone. Bayes' rule divides by what both components say.",
        )
        expect(not gave(far), "This is where EM ends after many rounds. Asked is the top of the first bound.")
        expect(gave(_mean(x, r)), "Not yet. First r = p(k = 2 | x; θ) for each point, then the mean that r weights.")
    distant = torch.tensor([-60.0, -1.0, 1.0, 50.0, 70.0], dtype=torch.float64)
    value = float(numbers(answer(distant.clone(), 2.0), (), "θ"))
    right = float(_mean(distant, _responsibilities(distant, 2.0)))
    expect(
        math.isclose(value, right, rel_tol=5e-4),
        f"Right for near points. With points at 50 and 70 it gives {value}: both densities round to 0 there. Stay in "
        "logarithms until the softmax.",
    )


def check_kl(answer: Callable) -> None:
    """Against the closed form of torch, several dimensions."""
    g = torch.Generator().manual_seed(8)
    mu_q, mu_p = torch.randn(2, 5, 3, generator=g, dtype=torch.float64)
    s_q, s_p = torch.rand(2, 5, 3, generator=g, dtype=torch.float64) + 0.4
    value = as_row(numbers(answer(mu_q.clone(), s_q.clone(), mu_p.clone(), s_p.clone()), None, "the divergence"))
    expect(value.shape != (5, 3), "Independent coordinates: log-densities add, so sum over the last axis.")
    expect(value.shape != (), "One number came: give the divergence of each row, (N,).")
    expect(value.shape == (5,), f"Expected shape (5,), but got {tuple(value.shape)}.")
    mean, spread, log_ratio = ((mu_q - mu_p) / s_p) ** 2, (s_q / s_p) ** 2, (s_p / s_q).log()
    right = _kl(mu_q, s_q, mu_p, s_p)

    def gave(other: Tensor) -> bool:
        return close(value, other.sum(-1) if other.ndim == 2 else other)

    expect(not gave(_kl(mu_p, s_p, mu_q, s_q)), "This is KL(p ‖ q), the other direction. The mean is over q.")
    expect(not gave(right / 3), "This is the mean over the coordinates. Divergences of independent coordinates add.")
    expect(not gave(-right), "This is minus the divergence. A divergence is never negative.")
    expect(not gave(0.5 * (spread + mean) + log_ratio), "For q = p it gives D/2, and should give 0. What is missing?")
    expect(
        not gave(0.5 * (spread + mean - 1) - log_ratio),
        "The logarithm has the wrong sign: a narrow q knows more than p, and that costs.",
    )
    expect(
        not gave(0.5 * (s_q / s_p + (mu_q - mu_p) ** 2 / s_p - 1 + log_ratio)),
        "You took the deviations for variances: square them.",
    )
    expect(
        not gave(0.5 * (spread + ((mu_q - mu_p) / s_q) ** 2 - 1) + log_ratio)
        and not gave(0.5 * (spread + (mu_q - mu_p) ** 2 - 1) + log_ratio),
        "The distance of the means is measured in deviations of p, because log p is what is averaged.",
    )
    expect(
        not gave(0.5 * (s_q**2 + mu_q**2 - 1) - s_q.log()),
        "This is KL(q ‖ N(0, 1)), right for the VAE's prior. Here p has its own mean and deviation.",
    )
    expect(not gave(spread + mean - 1 + 2 * log_ratio), "Twice too much: a Gaussian has ½ in its exponent.")
    expect(gave(right), "Not yet. E_q[log q − log p], with E_q[(z − μ_p)²] = σ_q² + (μ_q − μ_p)².")


def check_draw(answer: Callable) -> None:
    """Noise from the generator, each entry its own, of the right width; and both gradients."""
    mu = torch.tensor([1.0, -2.0, 0.5]).repeat(20_000, 1).requires_grad_()
    log_var = torch.tensor([-2.0, 0.6, 2.0]).repeat(20_000, 1).requires_grad_()

    def sample(seed: int) -> Tensor:
        return answer(mu, log_var, torch.Generator().manual_seed(seed))

    z = sample(0)
    value = numbers(z, (20_000, 3), "the sample").float()
    if not isinstance(z, Tensor):
        raise Wrong(f"Expected a tensor, through which gradients flow, but got {type(z).__name__}.")
    e = value - mu.detach()
    expect(bool((e != 0).any()), "This is mu for every seed: there is no noise in it.")
    expect(
        torch.equal(value, numbers(sample(0), (20_000, 3), "the sample").float()),
        "The same generator gave two different samples: draw the noise with generator=generator.",
    )
    expect(
        not torch.equal(value, numbers(sample(1), (20_000, 3), "the sample").float()),
        "Two generators with different seeds gave the same sample: draw the noise from the generator that is given.",
    )
    expect(e.std(0).min() > 1e-4, "All rows share one draw of the noise. Each row needs its own: use mu.shape.")
    columns = torch.corrcoef(e.T)
    expect(
        float((columns - torch.eye(3)).abs().max()) < 0.9,
        "All coordinates of a row share one draw of the noise. Each needs its own: use mu.shape.",
    )
    kurtosis = ((e - e.mean(0)) ** 4).mean(0) / e.var(0) ** 2
    expect(
        float(e.mean(0).abs().div(e.std(0)).max()) < 0.05 and bool((kurtosis > 2.5).all()),
        "The noise is not that of a standard normal (uniform, perhaps?). torch.randn draws it.",
    )
    found, deviation, v = e.std(0), (0.5 * log_var[0]).exp().detach(), log_var[0].detach()

    def width(other: Tensor) -> bool:
        return torch.allclose(found, other, rtol=0.05, atol=1e-3)

    expect(not width(v.exp()), "You scaled the noise by the variance. It takes the deviation, exp(½ log_var).")
    expect(not width(v.abs()), "You scaled the noise by log_var itself. The deviation is exp(½ log_var).")
    expect(not width(torch.ones(3)), "The noise is not scaled: its deviation is 1 everywhere.")
    expect(not width((0.25 * v).exp()), "One root too many: exp(½ log_var) is the deviation already.")
    expect(width(deviation), "The width is off. log_var is log σ², so σ = exp(½ log_var).")
    expect(
        z.requires_grad,
        "The sample is right, but no gradient flows through it. Compute it from mu and log_var, without detach, "
        "no_grad or .sample().",
    )
    gradient = torch.autograd.grad(z.sum(), (mu, log_var), allow_unused=True)
    for got, wanted, name in zip(gradient, (torch.ones_like(e), 0.5 * e), ("mu", "log_var"), strict=True):
        expect(
            got is not None and torch.allclose(got, wanted, rtol=1e-3, atol=1e-4),
            f"The sample is right, but the gradient to {name} is not: it is cut, or 0. torch.normal draws and forgets "
            "where it drew; compute the sample as a function of mu, log_var and noise.",
        )


def check_highest(answer: Callable) -> None:
    """By what it reaches: the exact bound of q beside the highest, for humps of which each has another log p(x)."""
    for weights, means, spreads, log_p in (
        ((0.4, 0.6), (-2.0, 2.0), (0.5, 0.5), -3.0),
        ((0.7, 0.3), (-3.0, 1.5), (0.4, 1.0), -1.0),
        ((0.5, 0.5), (-0.8, 0.8), (0.6, 0.6), 2.0),
    ):
        w, m, s = (torch.tensor(v, dtype=torch.float64) for v in (weights, means, spreads))

        def log_joint(z: Any, w: Tensor = w, m: Tensor = m, s: Tensor = s, log_p: float = log_p) -> Tensor:
            e = (torch.as_tensor(z)[..., None] - m.to(z)) / s.to(z)
            return (-0.5 * e**2 + (w / s).log().to(z)).logsumexp(-1) - 0.5 * math.log(2 * math.pi) + log_p

        def bound(v: Any, log_joint: Callable = log_joint) -> float:
            """The bound of q = N(mu, σ²), v = (mu, log σ), by a sum over 401 points of q."""
            e = torch.linspace(-7, 7, 401, dtype=torch.float64)
            q = (-0.5 * e**2).softmax(0)
            return float(q @ log_joint(v[0] + math.exp(v[1]) * e)) + v[1] + 0.5 * math.log(2 * math.pi * math.e)

        def climb(v: Any, bound: Callable = bound) -> float:
            return -float(minimize(lambda v: -bound(v), np.array(v), method="Nelder-Mead").fun)

        mu, sigma, told = three(answer(log_joint, torch.Generator().manual_seed(0)))
        expect(sigma > 0, f"Your second number is {sigma:.2f}. A deviation is positive: return σ, and not log σ.")
        here, highest = bound((mu, math.log(sigma))), max(climb((float(c), 0.5 * math.log(0.3))) for c in m)
        expect(told < log_p + 0.05, f"You report {told:.2f} nats, more than log p(x) = {log_p}. No bound can do that.")
        entropy = math.log(sigma) + 0.5 * math.log(2 * math.pi * math.e)
        expect(
            abs(told - here + entropy) > 0.05 or abs(entropy) < 0.1,
            "You report E_q[log p(x, z)] alone: add the entropy −E_q[log q].",
        )
        expect(
            abs(told - here) < 0.05,
            f"You report {told:.2f} nats, and the bound of your q is {here:.2f}. Average log p(x, z) − log q(z) over "
            "many draws of q, with q as it is at the end.",
        )
        if here > highest - 0.05:
            continue
        mean = float(w @ m)
        deviation = float(w @ (s**2 + (m - mean) ** 2)) ** 0.5
        copies = abs(mu - mean) < 0.1 and abs(sigma - deviation) < 0.1
        expect(not copies, "Your q has the mean and the variance of p(z | x): it covers, and has the lowest KL(p ‖ q).")
        expect(
            climb((mu, math.log(sigma))) - here > 0.05,
            f"Your bound of {here:.2f} nats is a local maximum, and {highest:.2f} can be reached. Start in several "
            "places, and keep the q whose bound is the highest.",
        )
        raise Wrong(
            f"Your bound is {here:.2f} nats, and {highest:.2f} can be reached. Near your q it still rises: take more "
            "steps, or larger ones."
        )


def three(value: Any) -> tuple[float, float, float]:
    """The three numbers that a student returned."""
    expect(value is not None, "Your function returned None. Is there a return?")
    expect(hasattr(value, "__len__") and len(value) == 3, "Return three numbers: mu, sigma and the bound.")
    mu, sigma, told = (float(numbers(v, (), name)) for v, name in zip(value, ("mu", "sigma", "the bound"), strict=True))
    return mu, sigma, told


def as_row(value: Tensor) -> Tensor:
    """A column (N, 1) as (N,): the same numbers."""
    return value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value


def _responsibilities(x: Tensor, theta: Any) -> Tensor:
    return torch.sigmoid(theta * x - 0.5 * theta**2)


def _mean(x: Tensor, weights: Tensor) -> Tensor:
    return (weights * x).sum() / weights.sum()


def _kl(mu_q: Tensor, s_q: Tensor, mu_p: Tensor, s_p: Tensor) -> Tensor:
    q, p = torch.distributions.Normal(mu_q, s_q), torch.distributions.Normal(mu_p, s_p)
    return torch.distributions.kl_divergence(q, p).sum(-1)


EXERCISES = [
    Exercise(
        name="the_elbo.1",
        question=(
            "**The bound in two terms.** Compute both: how well the causes explain x, and how far q is from the prior. "
            "A q that is certain of one cause has to work too."
        ),
        answer=elbo_terms,
        check=check_elbo,
        praise="right. For the exact posterior they add up to log p(x), however bad the model: the gap judges q alone.",
        hints=(
            "E_q is a sum over k, weighted by q. KL(q ‖ π) = E_q[log q − log π].",
            "Σ_k q_k log p(x | k) and Σ_k q_k (log π_k − log q_k); torch.where(q > 0, …, 0.0) takes care of 0 log 0.",
        ),
        aims=("compute",),
        why=(
            "E_q[log p(x, k) − log q] is the sum of E_q[log p(x | k)] and E_q[log π − log q], and the second "
            "is −KL(q ‖ π). Where q is 0 the term q log q has the limit 0, so it counts 0."
        ),
    ),
    Exercise(
        name="the_elbo.2",
        question=(
            "**E, then M.** Compute where the explorer's triangle is: the top of the bound that touches the likelihood "
            "at a given θ. The model is the explorer's, ½ N(x; 0, 1) + ½ N(x; θ, 1)."
        ),
        answer=top_of_bound,
        check=check_top,
        praise="right. Feed its result back in, again and again, and you have written EM.",
        hints=(
            "Which q makes the bound touch at θ? With that q fixed, the bound is a parabola in θ.",
            "r = softmax of the two log-joints; the parabola −½ Σ r (x − θ)² has its top at Σ r x / Σ r.",
        ),
        aims=("climb",),
        why=(
            "With q frozen, θ appears only in the terms r log N(x; θ, 1) of the second component. Their "
            "derivative is zero where θ is the mean of all points, each weighted by its responsibility."
        ),
    ),
    Exercise(
        name="the_elbo.3",
        question="**KL of two Gaussians, in closed form.** The VAE's KL is the case of p = N(0, I). Mind the order.",
        answer=gaussian_kl,
        check=check_kl,
        praise="right. Exchange q and p, and for a narrow q the number is very large: now q has to cover p.",
        hints=(
            "Take log q − log p for one coordinate and average it over q. Which two means of squares do you need?",
            "E_q[(z − μ_q)²] = σ_q² and E_q[(z − μ_p)²] = σ_q² + (μ_q − μ_p)². Then add the coordinates.",
        ),
        aims=("choose",),
        why=(
            "The coordinates are independent, so the divergences of one dimension add. Each is log(σ_p/σ_q) + "
            "(σ_q² + (μ_q − μ_p)²)/(2σ_p²) − ½, which is 0 only where both Gaussians are equal."
        ),
    ),
    Exercise(
        name="the_elbo.4",
        question=(
            "**A sample that gradients pass through.** A network gives log σ² and not σ, because log σ² may be any "
            "number."
        ),
        answer=draw_sample,
        check=check_draw,
        praise="right. The noise is drawn from a law without parameters, and z is a plain function of the parameters.",
        hints=(
            "Which part of z is random, and which part depends on mu and log_var? Keep them apart.",
            "mu + exp(½ log_var) · ε, with ε = torch.randn(mu.shape, generator=generator).",
        ),
        aims=("draw",),
        why=(
            "exp(log σ²/2) is the deviation σ, and z = μ + σ ε has the wanted density. ε does not depend on μ and "
            "σ, so autograd passes through the sum and the product."
        ),
    ),
    Exercise(
        name="the_elbo.6",  # the_elbo.5 is the name that the_vae.2 had
        question=(
            "**Open task: raise the bound as far as it goes.** Somebody gives you log p(x, z) as a function of z, and "
            "the posterior may have two humps. Choose how you search for the best Gaussian q, fit it, and report its "
            "bound. You come through if no other Gaussian has a bound that is 0.05 nats higher."
        ),
        answer=highest_bound,
        check=check_highest,
        praise="right. Over two distant humps the bound has two tops, and you have found the higher one.",
        hints=(
            "A climb ends on the hump next to its start. What can you compare, if you start in many places?",
            "z = mu + exp(log_sigma) · ε; the bound is the mean of log_joint(z) − log q(z). Climb it by Adam from "
            "starts between −5 and 5, all at once as one tensor, and keep the highest.",
        ),
        aims=("choose", "draw"),
        why=(
            "Raising the bound lowers KL(q ‖ p(z | x)), because their sum log p(x) does not depend on q. This "
            "divergence chooses one hump, so each climb may end at a local maximum, and the bounds have to be compared."
        ),
    ),
]
