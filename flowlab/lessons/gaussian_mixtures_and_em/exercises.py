"""The exercises: the two steps of EM, the bound they raise, a floor for a covariance, and a fit of one's own choice."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowlab.densities.mixtures import EMGaussianMixture
from flowlab.lessons.base.exercise import Exercise, Wrong, close, expect, log_prob_of, numbers


def responsibilities(log_density, weights):
    """The E-step: r_nk = π_k N(x_n; μ_k, Σ_k) / Σ_j π_j N(x_n; μ_j, Σ_j), also for points far from everything.

    log_density (N, K) is log N(x_n; μ_k, Σ_k), weights (K,) is π. Returns (N, K).
    """
    log_joint = log_density + weights.log()
    return (log_joint - log_joint.logsumexp(-1, keepdim=True)).exp()


def shared_m_step(x, r):
    """The M-step where all components share one covariance: weights (K,), means (K, D) and Σ (D, D).

    From points x (N, D) and responsibilities r (N, K): what maximizes the bound, if Σ₁ = … = Σ_K = Σ.
    """
    counts = r.sum(0)  # N_k
    means = r.T @ x / counts[:, None]
    e = x - means[:, None]  # (K, N, D)
    return counts / len(x), means, ((r.T[:, :, None] * e).mT @ e).sum(0) / len(x)


def bound(log_joint, r):
    """F(r, θ) = (1/N) Σ_n Σ_k r_nk (log π_k N(x_n; μ_k, Σ_k) − log r_nk), one number in nats a point.

    log_joint (N, K) is log π_k N(x_n; μ_k, Σ_k). r (N, K) has rows that sum to one and may hold zeros: 0 log 0 = 0.
    """
    return ((r * log_joint).sum() + torch.special.entr(r).sum()) / len(r)  # entr(r) = −r log r, and 0 at 0


def raise_to_floor(covariance, floor):
    """The covariance (D, D) with each variance that is below ``floor`` raised to it, in whatever direction it lies.

    Directions with more variance than that stay as they are. ``floor`` is a variance.
    """
    variances, directions = torch.linalg.eigh(covariance)
    return directions @ torch.diag(variances.clamp_min(floor)) @ directions.T


def fit_islands(x):
    """A density fitted to the points x (N, 2) of some islands: a mixture, with its log_prob.

    Choose K, the starts and what guards against a collapse. Nobody tells how many islands there are: from 1 to 8.
    """
    from flowlab.densities.mixtures import EMGaussianMixture, Prior

    generator = torch.Generator().manual_seed(0)
    best = EMGaussianMixture.fit(x, 1, prior=Prior.weak(x, 1))
    for K in range(2, 9):
        more = EMGaussianMixture.fit(x, K, restarts=5, prior=Prior.weak(x, K), tolerance=1e-5, generator=generator)
        if more.bic(x) < best.bic(x):
            best = more
    return best


def check_responsibilities(answer: Callable) -> None:
    """A plain case, then points so far away that every density rounds to 0."""
    g = torch.Generator().manual_seed(7)
    weights = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    log_density = 2 * torch.randn(6, 3, generator=g, dtype=torch.float64)
    joint = log_density + weights.log()
    right = joint.softmax(-1)
    value = numbers(answer(log_density.clone(), weights.clone()), None, "the responsibilities")
    expect(value.shape == (6, 3), f"Expected shape (6, 3), a row a point, but got {tuple(value.shape)}.")
    known = (
        (log_density.softmax(-1), "You forgot the weights π_k: before we look at x, a large group is likelier."),
        (joint.softmax(0), "These sum to one over the points. Each point must share itself out: sum over components."),
        (joint.exp(), "This is π_k N(x; μ_k, Σ_k), the joint. Divide each row by its sum."),
        (joint.log_softmax(-1), "These are log r. Take the exponential at the end."),
        (
            torch.nn.functional.one_hot(joint.argmax(-1), 3),
            "All or nothing: that is the hard E-step. A point between two components belongs to both in part.",
        ),
        (
            weights * log_density.softmax(-1),
            "The weights came in after the division, so the rows do not sum to one. Multiply first, then divide.",
        ),
        ((log_density + weights).softmax(-1), "In log space the weight enters as log π_k, not as π_k."),
        ((log_density * weights).softmax(-1), "π_k multiplies the density, so log π_k is added to its logarithm."),
    )
    _not_one_of(value, right, known)
    expect(close(value, right), "Not yet. Add log π_k, and then make each row of exponentials sum to one.")
    for shift in (-2000.0, 2000.0):
        far = numbers(answer(log_density + shift, weights.clone()), (6, 3), "the responsibilities")
        expect(
            far.isfinite().all(),
            "Far points give NaN: every exp(−2000) rounds to 0, and 0/0 is no number. Subtract the row's log-sum-exp "
            "(or its maximum) before the exponential.",
        )
        expect(
            close(far.sum(-1), torch.ones(6)),
            "Far points get rows that do not sum to one: a small number in the denominator hides the underflow. Stay "
            "in log space until the end.",
        )
        expect(close(far, right), "Far points get other shares, though only the differences in a row matter.")


def check_m_step(answer: Callable) -> None:
    """Random points in three dimensions, with weights, means and the covariance told apart."""
    g = torch.Generator().manual_seed(8)
    N, K, D = 40, 2, 3
    x = torch.randn(N, D, generator=g, dtype=torch.float64) @ torch.randn(D, D, generator=g, dtype=torch.float64) + 3
    r = (1.5 * torch.randn(N, K, generator=g, dtype=torch.float64) + torch.tensor([1.0, 0.0])).softmax(-1)
    given = answer(x.clone(), r.clone())
    expect(given is not None, "Your function returned None. Is there a return?")
    expect(isinstance(given, tuple | list) and len(given) == 3, "Return three things: weights, means, covariance.")
    pi, mu, S = shared_m_step(x, r)
    counts = r.sum(0)

    weights = numbers(given[0], (K,), "the weights")
    _not_one_of(
        weights,
        pi,
        (
            (counts, "Your weights are the counts N_k. Divide by N, so that they sum to one."),
            (
                torch.full((K,), 1 / K),
                "Your weights are all equal. A component's weight is the share of points it owns.",
            ),
            (
                r.argmax(-1).bincount(minlength=K) / N,
                "You counted each point for its likeliest component: that is hard EM.",
            ),
        ),
    )
    expect(close(weights, pi), "The weights are not right yet: N_k / N, with N_k the sum of r over the points.")

    means = numbers(given[1], (K, D), "the means")
    own = torch.nn.functional.one_hot(r.argmax(-1), K).double()
    _not_one_of(
        means,
        mu,
        (
            (r.T @ x / N, "Your means are divided by N. Divide by N_k: a mean has weights that sum to one."),
            (own.T @ x / own.sum(0)[:, None], "Your means count each point for one component only: that is hard EM."),
            (x.mean(0).expand(K, D), "Your means ignore r: they are all the mean of all points."),
            (r.T @ x, "Your means are sums. Divide by N_k."),
        ),
    )
    expect(close(means, mu), "The means are not right yet: Σ_n r_nk x_n / N_k.")

    covariance = numbers(given[2], None, "the covariance")
    expect(
        covariance.shape != (K, D, D),
        "You return one covariance for each component. All share one here: which one raises the bound most?",
    )
    covariance = numbers(covariance, (D, D), "the covariance")
    e, center = x - mu[:, None], x - x.mean(0)
    each = (r.T[:, :, None] * e).mT @ e  # (K, D, D)
    _not_one_of(
        covariance,
        S,
        (
            (
                (each / counts[:, None, None]).mean(0),
                "You averaged the components' covariances as if all were equally large. Each counts by its N_k.",
            ),
            (
                center.T @ center / N,
                "This is the covariance of all points around the mean of all. Take each point around the *components'* "
                "means: what lies between the means is no spread of a component.",
            ),
            (each.sum(0), "Your covariance is a sum. Divide by the number of points."),
            (each.sum(0) / (N - K), "N − K makes it unbiased. The top of the bound, maximum likelihood, divides by N."),
            ((each / counts[:, None, None]).sum(0), "You added the components' covariances. Weigh each by N_k / N."),
            (
                torch.diag(S.diagonal()),
                "Only the diagonal is filled. A full covariance has e eᵀ, products of all pairs of coordinates.",
            ),
            ((e.mT @ e).sum(0) / N, "Your covariance weighs all points alike. Each counts with its r_nk."),
        ),
    )
    expect(
        close(covariance, S), "The covariance is not right yet. Which Σ maximizes the sum over k of the weighted terms?"
    )


def check_bound(answer: Callable) -> None:
    """Soft rows first; then rows that hold a zero, which hard EM makes."""
    g = torch.Generator().manual_seed(9)
    log_joint = torch.randn(5, 3, generator=g, dtype=torch.float64) - 1
    r = torch.randn(5, 3, generator=g, dtype=torch.float64).softmax(-1)
    value = numbers(answer(log_joint.clone(), r.clone()), None, "the bound")
    expect(value.numel() == 1, f"Expected one number, the mean over points, but got shape {tuple(value.shape)}.")
    value = value.reshape(())
    average, entropy = (r * log_joint).sum(-1).mean(), torch.special.entr(r).sum(-1).mean()
    right = average + entropy
    _not_one_of(
        value,
        right,
        (
            (
                average,
                "This is Q, the expected log-joint. Without −r log r it stays below the bound, and never touches.",
            ),
            (average - entropy, "The sign of the entropy is turned: −Σ r log r is positive, and it is added."),
            (5 * right, "This is the sum over points. Divide by N, for nats a point."),
            (right / 3, "You took the mean over components too. Over k it is a sum, weighted by r."),
            (
                log_joint.logsumexp(-1).mean(),
                "This is log p(x) itself, whatever r is. The bound must fall below it when r is not the posterior.",
            ),
            ((r * log_joint.exp()).sum(-1).log().mean(), "The logarithm stands inside the sum over k, not around it."),
            (-right, "The sign of the whole is turned: the bound is to be raised, it is no loss."),
        ),
    )
    expect(close(value, right), "Not yet. Two sums, each weighted by r: of the log-joint, and of −log r.")
    hard = torch.nn.functional.one_hot(torch.tensor([0, 2, 1, 1, 0]), 3).double()
    value = numbers(answer(log_joint.clone(), hard.clone()), (), "the bound")
    expect(
        value.isfinite(),
        "Rows with a zero give NaN: 0 · log 0 must count as 0. torch.special.entr or torch.xlogy do that.",
    )
    expect(
        close(value, (hard * log_joint).sum(-1).mean()), "Rows with a zero come out wrong: a hard row has entropy 0."
    )


def check_floor(answer: Callable) -> None:
    """A thin covariance that lies askew, one that is fine, and a floor between."""
    g = torch.Generator().manual_seed(2)
    eye = torch.eye(3, dtype=torch.float64)
    turn = torch.linalg.qr(eye + 0.3 * torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    thin = turn @ torch.diag(torch.tensor([9.0, 1.0, 1e-4], dtype=torch.float64)) @ turn.T
    right = turn @ torch.diag(torch.tensor([9.0, 1.0, 0.25], dtype=torch.float64)) @ turn.T
    value = numbers(answer(thin.clone(), 0.25), (3, 3), "the covariance")
    variances, directions = torch.linalg.eigh(thin)
    raised = torch.diag(variances.clamp_min(0.25))
    _not_one_of(
        value,
        right,
        (
            (thin, "Nothing has changed: there is still no width across the needle."),
            (
                thin + 0.25 * eye,
                "You added the floor everywhere: that is a ridge, and it widens the good direction too.",
            ),
            (
                torch.where(eye.bool(), thin.clamp_min(0.25), thin),
                "You raised the diagonal entries. They are the variances along the axes, and this needle lies askew.",
            ),
            (thin.clamp_min(0.25), "You raised the entries. A covariance is low in a direction, not in an entry."),
            (0.25 * eye, "You threw the direction with much variance away. Keep what is above the floor."),
            (
                directions.T @ raised @ directions,
                "The variances are right, the directions are not: V diag(λ) Vᵀ, with the eigenvectors in V's columns.",
            ),
            (raised, "These are the variances along the eigenvectors. Turn them back: V diag(λ) Vᵀ."),
            (
                directions @ torch.diag(variances.clamp_min(0.25**2)) @ directions.T,
                "The floor is a variance already, so it is not to be squared.",
            ),
            (
                directions @ torch.diag(variances.clamp_min(0.25**0.5)) @ directions.T,
                "The floor is a variance already, not a standard deviation: no root.",
            ),
        ),
    )
    expect(close(value, right), "Not yet. In which directions does the covariance have the variances λ?")
    wide = turn @ torch.diag(torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)) @ turn.T
    expect(
        close(numbers(answer(wide.clone(), 0.1), (3, 3), "the covariance"), wide),
        "A covariance that is above the floor in every direction should come back as it was.",
    )


def islands(centers: list[list[float]]) -> EMGaussianMixture:
    """The exact density: long Gaussians around the centers, whose directions take turns."""
    covariances = torch.tensor([[[0.3, 0.2], [0.2, 0.3]], [[0.3, -0.2], [-0.2, 0.3]]]).repeat(len(centers), 1, 1)
    return EMGaussianMixture(torch.tensor(centers), covariances[: len(centers)])


def check_fit(answer: Callable) -> None:
    """By what it reaches on new points, for two numbers of islands. No K suits both, and single starts fail on many."""
    few = [[-3.0, 0.0], [2.0, 2.0], [1.0, -3.0]]
    many = [[-6.0, 0.0], [-4.0, 1.5], [-1.0, 5.0], [2.0, 4.0], [5.0, 0.0], [4.0, -3.0], [-1.0, -5.0]]
    for centers, N in ((few, 200), (many, 400)):
        exact = islands(centers)
        x, new = (exact.sample(n, torch.Generator().manual_seed(seed)).double() for n, seed in ((N, 5), (4000, 6)))
        fitted = answer(x.clone())
        log_p = log_prob_of(fitted)
        training, held_out = (
            float(log_p(points).mean() - exact.log_prob(points).detach().mean()) for points in (x, new)
        )
        expect(
            math.isfinite(training + held_out),
            "log p is not finite at some points. A density that is nowhere 0 makes no new point impossible.",
        )
        expect(
            held_out < 0.03,
            f"On new points your density is {held_out:.2f} nats above the exact one. On average nothing is: does it "
            "integrate to one?",
        )
        if held_out > -0.12:
            continue
        where = (
            f"With {N} points of {len(centers)} islands, new points are {-held_out:.2f} nats below the exact density"
        )
        expect(
            training < 0.05,
            f"{where}, and the training points {training:.2f} above it: it fits the noise. Take fewer components, as "
            "many as BIC or held-out points favor, and guard against a collapse.",
        )
        expect(
            len(getattr(fitted, "means", ())) < len(centers),
            f"{where}, though there are enough components. One is stretched over two islands: take the best of several "
            "starts.",
        )
        raise Wrong(f"{where}, and the training points are no better. It has too few components for so many islands.")


def _not_one_of(value: Tensor, right: Tensor, known: tuple[tuple[Tensor, str], ...]) -> None:
    """Name the mistake whose result this is."""
    if not close(value, right):
        for wrong, hint in known:
            expect(not close(value, wrong), hint)


EXERCISES = [
    Exercise(
        name="gaussian_mixtures_and_em.1",
        question=(
            "**The E-step that survives.** From log-densities and weights, write the responsibilities. Points so far "
            "out that every density rounds to zero must get sensible shares too."
        ),
        answer=responsibilities,
        check=check_responsibilities,
        praise="right. A prior moves the shares, distance alone does not break them, and each row sums to one.",
        hints=(
            "Bayes' rule in logarithms: a product becomes a sum, and only differences within a row matter.",
            "Add weights.log(), subtract logsumexp(-1, keepdim=True), and only then take exp.",
        ),
        aims=("compute",),
        why=(
            "Bayes' rule is a softmax of log π_k + log N(x; μ_k, Σ_k). In log space the largest term is "
            "subtracted first, so far points do not round to 0/0."
        ),
    ),
    Exercise(
        name="gaussian_mixtures_and_em.2",
        question=(
            "**Another M-step.** Few points a component make its covariance unsure. So let all components share *one* "
            "covariance Σ. Derive the M-step for that, and write it."
        ),
        answer=shared_m_step,
        check=check_m_step,
        praise="right: the weighted mean of the components' covariances. It makes the borders between them straight.",
        hints=(
            "Each point counts for component k as r_nk of a point. How many points has it then, in all?",
            "Set the derivative of Σ_k Σ_n r_nk log N(x_n; μ_k, Σ) by Σ⁻¹ to zero, as in section 3, but with one Σ: "
            "Σ = (1/N) Σ_k Σ_n r_nk (x_n − μ_k)(x_n − μ_k)ᵀ.",
        ),
        aims=("write",),
        why=(
            "With one Σ for all, the terms of the bound in Σ add up over k to −N/2 log det Σ minus a weighted sum "
            "of squares. Setting the derivative by Σ⁻¹ to zero gives the mean of all weighted squares, divided by "
            "N and not by N_k."
        ),
    ),
    Exercise(
        name="gaussian_mixtures_and_em.3",
        question=(
            "**The bound.** Write F(r, θ). It must take hard rows, too. Then try it: with which r does it equal the "
            "log-likelihood?"
        ),
        answer=bound,
        check=check_bound,
        praise="right. It touches mean log p(x) when r is the posterior, and lies below it for every other r.",
        hints=(
            "Two terms: the log-joint on average under r, and the entropy of r.",
            "(r * log_joint).sum(-1) + torch.special.entr(r).sum(-1), then the mean over the points.",
        ),
        aims=("explain",),
        why=(
            "F is the mean of Σ_k r (log joint − log r), and r log r tends to 0 as r does. It equals mean log "
            "p(x) exactly when r is the posterior, because the gap is a KL divergence."
        ),
    ),
    Exercise(
        name="gaussian_mixtures_and_em.4",
        question=(
            "**Repair a needle.** A component has collapsed onto a line that lies askew. Raise its variances to a "
            "floor, where they are below it, and nowhere else."
        ),
        answer=raise_to_floor,
        check=check_floor,
        praise="right. Of all covariances above the floor this one has the highest likelihood: EM still never falls.",
        hints=(
            "In its own directions a covariance is diagonal. What are these directions called?",
            "torch.linalg.eigh gives λ and V with Σ = V diag(λ) Vᵀ. Clamp λ, and multiply back.",
        ),
        aims=("repair",),
        why=(
            "In the axes of its eigenvectors a covariance is diagonal, and its entries are the variances in these "
            "directions. Raising only those below the floor leaves all other directions as they are."
        ),
    ),
    Exercise(
        name="gaussian_mixtures_and_em.5",
        question=(
            "**Open task: how many islands?** Fit points of some islands, from one to eight. On new points the fit "
            "must be within 0.12 nats of the exact density, for 200 points of few islands and for 400 of many. How "
            "you choose K and the start is up to you. Print what you chose, and why."
        ),
        answer=fit_islands,
        check=check_fit,
        praise="right, on new points, for few islands and for many. Would a single start have done it?",
        hints=(
            "Try every K. What tells you, without new points, that a component more is not worth its parameters?",
            "For each K keep the best of five starts (restarts=5), with a prior or a floor; among these fits keep the "
            "one whose bic(x) is lowest.",
        ),
        aims=("choose",),
        why=(
            "The likelihood in training tends to rise with K, so BIC charges ½ log N nats for each parameter: in the "
            "plane a component has 6, and must gain 3 log N nats. Several starts keep EM from a poor local maximum, "
            "and the prior keeps a component from collapsing onto a few points."
        ),
    ),
]
