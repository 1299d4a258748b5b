"""A linear VAE whose bound has a formula, a VAE of small digits, log p(x) by a grid, and a density by all preimages."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from flowlab.datasets import mnist
from flowlab.networks import MLP

PIXELS = 14 * 14


def seeded(seed: int) -> Generator:
    """A generator that starts at this seed."""
    return Generator().manual_seed(seed)


class VAE(torch.nn.Module):
    """z ~ N(0, I); the decoder gives each pixel a probability of ink; the encoder gives q(z∣x) = N(μ, diag σ²).

    (arXiv:1312.6114.) Images are rows of 196 pixels, each 0 or 1, so p(x) is a probability and log p(x) ≤ 0, in nats.
    """

    def __init__(self, latents: int, generator: Generator, hidden: int = 128) -> None:
        super().__init__()
        self.latents = latents
        self.encoder = MLP(PIXELS, 2 * latents, hidden=(hidden, hidden), generator=generator)
        self.decoder = MLP(latents, PIXELS, hidden=(hidden, hidden), generator=generator)
        self.float()  # like the digits, whatever the default is

    def q(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of q(z∣x): (N, 196) to (N, L) each."""
        mu, log_var = self.encoder(x).chunk(2, -1)
        return mu, (0.5 * log_var).exp()

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x∣z): each pixel is ink with probability sigmoid(logit)."""
        logits = self.decoder(z)
        return (x * logits - F.softplus(logits)).sum(-1)

    def terms(self, x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """One draw's log p(x∣z), and KL(q(z∣x) ‖ N(0, I)), of each row: their difference is the bound."""
        mu, sigma = self.q(x)
        z = mu + sigma * torch.randn(mu.shape, generator=generator, dtype=mu.dtype)
        return self.log_likelihood(x, z), kl_by_latent(mu, sigma).sum(-1)


def kl_by_latent(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½(μ² + σ² − 1 − log σ²) of each latent number, in nats."""
    return 0.5 * (mu**2 + sigma**2 - 1 - 2 * sigma.log())


@functools.lru_cache
def digits(split: str) -> tuple[Tensor, Tensor]:
    """The bundled digits, halved to 14 × 14 pixels and each pixel 0 or 1: rows ``(N, 196)`` and labels ``(N,)``."""
    images, labels = mnist.digits(split)
    return (mnist.halve(images).flatten(1) > 127).float(), torch.as_tensor(labels)


def learn(vae: VAE, x: Tensor, steps: int, seed: int = 0, every: int = 25) -> list[tuple[int, float, float]]:
    """Raise the bound by Adam on batches of 200; (step, log p(x∣z), KL) of the batch at every so many steps."""
    g, adam, seen = seeded(seed), torch.optim.Adam(vae.parameters(), lr=5e-3), []
    for step in range(steps + 1):
        likelihood, kl = (term.mean() for term in vae.terms(x[torch.randint(len(x), (200,), generator=g)], g))
        if step % every == 0:
            seen.append((step, float(likelihood.detach()), float(kl.detach())))
        adam.zero_grad()
        (kl - likelihood).backward()
        adam.step()
    return seen


@functools.lru_cache
def trained() -> VAE:
    """A small VAE with two latents, trained for a few seconds."""
    vae = VAE(2, seeded(0), hidden=64)
    learn(vae, digits("train")[0], 700)
    return vae.eval()


def log_joint_on_grid(vae: VAE, x: Tensor, edge: float = 5.0, size: int = 121) -> Tensor:
    """log p(x, z) dz at a square grid of z, (N, size²): summed over the grid it is p(x), for a VAE with two latents."""
    axis = torch.linspace(-edge, edge, size, dtype=x.dtype)
    z = torch.cartesian_prod(axis, axis)
    logits = vae.decoder(z)
    base = -0.5 * z.square().sum(-1) - math.log(2 * math.pi) + 2 * math.log(float(axis[1] - axis[0]))
    return x @ logits.T - F.softplus(logits).sum(-1) + base


def by_preimages(make: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Density at ``at`` ``(n, 1)`` of x = G(z), z ~ N(0, 1): the sum of p(z)/|G′(z)| over all z with G(z) = at.

    ``make`` is G, ``(M, 1)`` to ``(M, 1)``, or to ``(K, M, 1)`` for K of them; ``(n,)`` or ``(K, n)`` comes back. G is
    looked at where |z| ≤ 6, and taken as straight between 6,001 points; where no z is found the density is 0.
    """
    z = torch.linspace(-6, 6, 6001).to(at)
    p = torch.exp(-0.5 * ((z[1:] + z[:-1]) / 2) ** 2) / math.sqrt(2 * math.pi)
    made, found = make(z[:, None])[..., 0], []
    for x in made.reshape(-1, len(z)):
        crossed = (x[:-1] < at) != (x[1:] < at)  # (n, 6000)
        found.append(torch.where(crossed, p * z.diff() / x.diff().abs(), 0.0).sum(-1))
    return torch.stack(found).reshape(*made.shape[:-1], len(at))
