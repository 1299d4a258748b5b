"""The exercises: the encoder of a linear VAE, a tighter bound, latents that say nothing, and a VAE of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from flowlab.lessons.base.exercise import Exercise, close, expect, numbers

LOG_2PI = math.log(2 * math.pi)


def best_encoder(x, W, b, sigma):
    """The q(z | x) = N(mu, diag(s²)) with the highest bound, for p(z) = N(0, I) and p(x | z) = N(W z + b, sigma² I).

    x is (N, D), W (D, L), b (D,) and sigma a number. Returns mu (N, L) and the deviations s (L,), which serve every x.
    """
    precision = torch.eye(W.shape[1]).to(W) + W.T @ W / sigma**2  # of the exact posterior, a full matrix
    mu = torch.linalg.solve(precision, W.T @ (x - b).T / sigma**2).T
    return mu, precision.diagonal().rsqrt()


def importance_bound(log_w):
    """The bound with S samples, log(1/S Σ_s w_s): from log w (S, N) in nats to (N,)."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def says_nothing(mu, sigma):
    """Which latents have collapsed: True where q(z_d | x) is as good as N(0, 1) for *every* x; (L,) bools.

    mu and sigma (N, L) are what an encoder gives N images. An average of 0.02 nats is as good as nothing.
    """
    kl = 0.5 * (mu**2 + sigma**2 - 1) - sigma.log()
    return kl.mean(0) < 0.02


def fit_vae(x):
    """Train a VAE with one or two latents on the rows x (n, 4), and return its bound, as a function.

    The function takes rows (m, 4) and a torch.Generator, and returns for each row a bound on log p(x), or an estimate
    of one from draws of q, in nats: (m,).
    """
    parts = {"A": torch.zeros(2, 4), "c": torch.zeros(2), "s": torch.zeros(2), "W": torch.eye(4)[:, :2] + 0.1}
    parts |= {"b": x.mean(0), "t": torch.zeros(4)}
    A, c, s, W, b, t = (value.clone().requires_grad_() for value in parts.values())

    def bound(rows, generator):
        mu = rows @ A.T + c
        z = mu + s.exp() * torch.randn(mu.shape, generator=generator)
        likelihood = -0.5 * ((rows - z @ W.T - b) * (-t).exp()).square().sum(-1) - t.sum() - 2 * math.log(2 * math.pi)
        return likelihood - (0.5 * (mu**2 + (2 * s).exp() - 1) - s).sum(-1)

    adam, g = torch.optim.Adam([A, c, s, W, b, t], lr=0.02), torch.Generator().manual_seed(0)
    for _ in range(800):
        adam.zero_grad()
        (-bound(x[torch.randint(len(x), (200,), generator=g)], g).mean()).backward()
        adam.step()
    return bound


def check_encoder(answer: Callable) -> None:
    """No other q with independent coordinates has a smaller KL to the exact posterior."""
    g = Generator().manual_seed(1)
    for D, L, sigma in ((5, 2, 0.5), (3, 3, 1.5), (4, 1, 0.2)):
        x, W, b = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((6, D), (D, L), (D,)))
        pair = answer(x.clone(), W.clone(), b.clone(), sigma)
        expect(isinstance(pair, tuple | list) and len(pair) == 2, "Return two things: mu and the deviations.")
        mu, s = numbers(pair[0], (6, L), "mu"), numbers(pair[1], (L,), "the deviations")
        precision = torch.eye(L, dtype=torch.float64) + W.T @ W / sigma**2
        covariance = precision.inverse()
        mean = (covariance @ W.T @ (x - b).T).T / sigma**2
        expect(
            not close(mu, (x - b) @ torch.linalg.pinv(W).T) or close(mu, mean),
            "This is least squares. The prior N(0, I) pulls z toward 0: its precision is I + WᵀW/σ².",
        )
        expect(not close(mu, (covariance @ W.T @ x.T).T / sigma**2), "Where is b? What z has to explain is x − b.")
        expect(
            close(mu, mean),
            "mu is not yet the mean of the exact posterior. log p(x, z) is quadratic in z: where is its top?",
        )
        marginal, best = covariance.diagonal().sqrt(), precision.diagonal().rsqrt()
        expect(not close(s, best**2), "These are variances. Asked are deviations.")
        expect(
            L == 1 or not close(s, marginal) or close(marginal, best),
            "These are the deviations of the posterior's margins. A q with independent coordinates does better when it "
            "is narrower: minimize KL(q ‖ posterior), a mean over q.",
        )
        expect(close(s, best), "mu is right. For which s is −½ Σ Λ_dd s_d² + Σ log s_d highest, Λ the precision?")


def check_importance(answer: Callable) -> None:
    """Against the logarithm of the mean, then for logarithms of the size that images have."""
    g = torch.Generator().manual_seed(8)
    log_w = torch.randn(7, 4, generator=g, dtype=torch.float64) - 2
    value = _as_row(numbers(answer(log_w.clone()), None, "the bound"))
    expect(value.shape != (), "One number came: give one bound a point, (N,).")
    expect(value.shape != (7,), "You averaged over the points. The samples are on the first axis.")
    expect(value.shape == (4,), f"Expected shape (4,), one bound a point, but got {tuple(value.shape)}.")
    right = log_w.logsumexp(0) - math.log(7)

    def gave(other: Tensor) -> bool:
        return close(value, other)

    expect(not gave(-right), "This is minus the bound. Asked is the bound.")
    expect(not gave(log_w.mean(0)), "The mean of the logs is the ELBO, however many samples. First the mean, then log.")
    expect(not gave(log_w.logsumexp(0)), "This is the log of the sum: it grows without end with S. Where did 1/S go?")
    expect(not gave(log_w.logsumexp(0) / 7), "1/S stands inside the logarithm, so outside it is subtracted as log S.")
    expect(not gave(log_w.logsumexp(0) + math.log(7)), "log S has the wrong sign: log(a/S) = log a − log S.")
    expect(not gave(log_w.exp().mean(0)), "This is the mean of the weights. Take its logarithm.")
    expect(not gave(log_w.amax(0)), "This is the best sample alone. Average all S weights.")
    expect(gave(right), "Not yet: the mean of w over the samples, then its logarithm.")
    for shift in (-900.0, 900.0):
        far = numbers(answer(log_w + shift), (4,), "the bound")
        expect(
            close(far, right + shift),
            f"Right for small numbers, but at log w ≈ {shift:.0f} nats, as for images, exp() leaves floating point. "
            "Use logsumexp.",
        )


def check_collapse(answer: Callable) -> None:
    """Collapsed latents, one that is used for few images, one whose mean moves, one whose deviation does."""
    g = Generator().manual_seed(4)
    n = 500

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(n, generator=g, dtype=torch.float64)

    few = torch.zeros(n, dtype=torch.float64)
    few[::10] = 2.0
    one = torch.ones(n, dtype=torch.float64)
    latents = {
        "dead": (noise(0.02), one + noise(0.01)),
        "used": (noise(1.0), 0.1 * one),
        "used by one image in ten": (few, one),
        "as dead as the first": (noise(0.05), one + noise(0.02)),
        "used with a wide q": (noise(0.8), 0.6 * one),
        "used with means that are small": (noise(0.3), 0.95 * one),
        "shifted, and turned up and down": (1.0 * (-1.0) ** torch.arange(n, dtype=torch.float64), one),
    }
    mu, sigma = (torch.stack(columns, -1) for columns in zip(*latents.values(), strict=True))
    value = answer(mu.clone(), sigma.clone())
    expect(value is not None, "Your function returned None. Is there a return?")
    value = numbers(value, (len(latents),), "the verdicts")
    expect(bool(((value == 0) | (value == 1)).all()), "Return True or False for each latent.")
    said = dict(zip(latents, value.bool().tolist(), strict=True))
    dead, alive = said.pop("dead"), said.pop("used")
    expect(dead or not alive, "You have it the other way round: a latent with q = N(0, 1) says nothing about x.")
    second = said.pop("as dead as the first")
    expect(dead and second, "q of a dead latent is N(0, 1) up to a little noise, and you call one of them alive.")
    expect(not alive, "You call a latent dead whose q is narrow and elsewhere for each x.")
    expect(
        not said["shifted, and turned up and down"],
        "You look at sigma alone. This latent has sigma = 1, and its means are −1 and 1.",
    )
    expect(
        not said["used by one image in ten"],
        "A latent that one image in ten uses is alive: its KL is 2 nats there, 0.2 on average. (Is it the median?)",
    )
    wrong = [name for name, verdict in said.items() if verdict]
    expect(
        not wrong,
        f"You call a latent dead that is {', '.join(wrong)}: its mean KL to the prior is above 0.02 nats.",
    )


def check_vae(answer: Callable) -> None:
    """On a linear model whose log p(x) is known: a bound below it, and near."""
    g = Generator().manual_seed(6)
    W = torch.tensor([[1.0, 0.3], [-0.6, 0.9], [0.8, 0.8], [0.2, -1.2]])
    b, sigma = torch.tensor([0.5, -1.0, 0.0, 2.0]), 0.4
    x = torch.randn(3000, 2, generator=g) @ W.T + b + sigma * torch.randn(3000, 4, generator=g)
    p = torch.distributions.MultivariateNormal(b, W @ W.T + sigma**2 * torch.eye(4))
    x, new = x[:1000], x[1000:]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bound = answer(x.clone())
        expect(callable(bound), f"Return the bound as a function of rows and a generator, not {type(bound).__name__}.")
        value = bound(new.clone(), Generator().manual_seed(1))
    value, log_p = numbers(value, (2000,), "the bounds"), p.log_prob(new)
    gap, luck = float((log_p - value).mean()), 4 * float((log_p - value).std()) / math.sqrt(len(new))
    full = torch.distributions.MultivariateNormal(x.mean(0), torch.diag(x.var(0)))
    alone = float((log_p - full.log_prob(new)).mean())
    expect(value.mean() < 0, "These are positive: the loss, perhaps? Asked is the bound itself.")
    expect(
        gap > -luck,
        f"Your bound is {-gap:.2f} nats above the exact log p(x), which no bound can be. Is the KL there?",
    )
    expect(
        gap < alone,
        f"Your bound is {gap:.2f} nats below log p(x). A Gaussian with independent columns is only {alone:.2f} below, "
        "so the latents are not used yet.",
    )
    expect(
        gap < 0.35,
        f"Your bound is {gap:.2f} nats below the exact log p(x) on new rows. Come within 0.35: two latents, a learned "
        "deviation of p(x | z), more steps or another rate.",
    )


def _as_row(value: Tensor) -> Tensor:
    """A column (N, 1) as (N,): the same numbers."""
    return value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value


EXERCISES = [
    Exercise(
        name="the_vae.1",
        question=(
            "**The best encoder of a linear VAE.** No training: which q with independent coordinates has the highest "
            "bound? Its gap is what it cannot express."
        ),
        answer=best_encoder,
        check=check_encoder,
        praise="right. It is narrower than the posterior's margins wherever the latents are correlated given x.",
        hints=(
            "log p(x, z) is a quadratic in z. Its second derivative is −Λ, Λ = I + WᵀW/σ², and its top is the mean.",
            "The bound holds −½ Σ Λ_dd s_d² + Σ log s_d, and no Λ_de with d ≠ e: the coordinates of q are independent.",
        ),
        why=(
            "The exact posterior is Gaussian with precision Λ = I + WᵀW/σ², and q takes its mean. "
            "Its deviations 1/√Λ_dd make the bound highest, because a mean over q sees the diagonal of Λ alone."
        ),
        aims=("compute",),
    ),
    Exercise(
        name="the_vae.2",
        question="**Many samples, a tighter bound.** Turn log-weights of S samples into the bound of section 3.",
        answer=importance_bound,
        check=check_importance,
        praise="right. With S = 1 it is the ELBO, and with more samples, on average, it only rises, toward log p(x).",
        hints=(
            "log of the mean, not mean of the log. And the mean of S things is a sum divided by S.",
            "log_w.logsumexp(0) sums in logarithms without leaving floating point. Then take log S away.",
        ),
        why=(
            "The mean of the weights is p(x) on average, and the log of a mean of more of them strays less. "
            "logsumexp takes the largest out first, so that nothing rounds to 0."
        ),
        aims=("tighten",),
    ),
    Exercise(
        name="the_vae.3",
        question="**Which latents have collapsed?** Read it off what the encoder gives, without the decoder.",
        answer=says_nothing,
        check=check_collapse,
        praise="right. The mean KL bounds how many nats a latent tells about x, so one with KL 0 tells nothing.",
        hints=(
            "What is q(z_d | x) if z_d says nothing about x? And how far is q from that, in nats?",
            "KL(q ‖ N(0, 1)) = ½(μ² + σ² − 1) − log σ for each image and latent; average it over the images.",
        ),
        why=(
            "A latent that costs nothing is one whose q is the prior whatever x is. "
            "The mean over the images counts the few that use it, which a median would not."
        ),
        aims=("recognize",),
    ),
    Exercise(
        name="the_vae.4",
        question=(
            "**Open task: a VAE of your own.** The rows have four columns, and come from two hidden numbers. Take "
            "networks or matrices: come within 0.35 nats of the exact log p(x) on new rows."
        ),
        answer=fit_vae,
        check=check_vae,
        praise="right. You never saw log p(x), and your bound is known to lie below it: that is what makes it useful.",
        hints=(
            "Encoder: mean and log-deviation of q from x. Decoder: mean of p(x | z) from z, and a log-deviation for "
            "each column. Loss: minus the bound, with z = mu + s · ε.",
            "Matrices suffice, since the rows are Gaussian. Adam with rate 0.02, batches of 200, some 800 steps.",
        ),
        why=(
            "Encoder and decoder climb one bound, and a sample μ + sε lets its gradient reach both. "
            "What remains is the gap of a q with independent coordinates, and the error of some hundred steps."
        ),
        aims=("train",),
    ),
]
