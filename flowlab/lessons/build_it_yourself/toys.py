"""A coupling flow in plain PyTorch, with its training and two uses: the whole lesson as one file that needs no flowlab.

    python toys.py             fits two moons
    python toys.py table.csv   fits a table: a line of names, then numbers; rows in any order, no empty fields

Both print the held-out log-likelihood, in nats a row, of a Gaussian and of the flow.
"""

import math
import sys

import numpy as np
import torch


class Coupling(torch.nn.Module):
    """One affine coupling: z = x where mask (D,) is True, and z = x · exp(s) + t elsewhere; s and t read x · mask only.

    A network gives raw and t, s = 2 tanh(raw). ``forward(x)`` returns z (n, D) and log|det| (n,); ``inverse(z)``
    returns x and the log|det| of *that* direction. Where the mask is True, s and t count for nothing.
    """

    def __init__(self, mask, hidden=64):
        super().__init__()
        self.register_buffer("mask", torch.as_tensor(mask, dtype=torch.float32))  # 1: passes, 0: moves
        D, Linear, ReLU = len(mask), torch.nn.Linear, torch.nn.ReLU
        self.net = torch.nn.Sequential(Linear(D, hidden), ReLU(), Linear(hidden, hidden), ReLU(), Linear(hidden, 2 * D))

    def scale_and_shift(self, v):
        raw, t = self.net(v * self.mask).chunk(2, -1)
        return 2 * torch.tanh(raw) * (1 - self.mask), t * (1 - self.mask)

    def forward(self, x):
        s, t = self.scale_and_shift(x)
        return x * s.exp() + t, s.sum(-1)

    def inverse(self, z):
        s, t = self.scale_and_shift(z)
        return (z - t) * (-s).exp(), -s.sum(-1)


class Flow(torch.nn.Module):
    """``depth`` couplings in ``layers``, one after the other, on a standard normal base in D dimensions.

    ``coupling(mask)`` makes a layer; its mask is a list of D bools. The masks take turns: even coordinates pass, then
    odd ones. ``log_prob(x)`` takes (n, D) to (n,) nats; ``sample(n, generator)`` gives (n, D), without a gradient.
    """

    def __init__(self, D, depth, coupling):
        super().__init__()
        masks = [[(i + k) % 2 == 0 for i in range(D)] for k in range(depth)]
        self.D, self.layers = D, torch.nn.ModuleList(coupling(mask) for mask in masks)

    def log_prob(self, x):
        total = torch.zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return total - 0.5 * (x**2).sum(-1) - 0.5 * self.D * math.log(2 * math.pi)

    @torch.no_grad()
    def sample(self, n, generator=None):
        x = torch.randn(n, self.D, generator=generator)
        for layer in reversed(self.layers):
            x, _ = layer.inverse(x)
        return x


def train(flow, x, held_out, steps, rate=5e-3, batch=256, generator=None):
    """Fit ``flow`` to the rows x by Adam, on batches that are drawn anew for each step, and watch it.

    Returns the curve: a list of pairs (steps done, mean log-likelihood of the rows ``held_out`` in nats), plain
    numbers, at least ten of them, the last one after the last step. The rows held out never move a parameter.
    """
    adam, curve = torch.optim.Adam(flow.parameters(), lr=rate), []
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)  # the rate falls to 0
    for step in range(1, steps + 1):
        rows = torch.randint(len(x), (batch,), generator=generator)
        adam.zero_grad()
        (-flow.log_prob(x[rows]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)  # no single batch may throw the weights far
        adam.step()
        falling.step()
        if step % max(1, steps // 20) == 0 or step == steps:
            with torch.no_grad():
                curve.append((step, float(flow.log_prob(held_out).mean())))
    return curve


def beside_a_gaussian(x, new, steps=400):
    """Fit a Gaussian and a flow to the rows x (n, D), and return how well they do on other rows ``new`` (m, D).

    Two numbers: the mean log-likelihood of the rows ``new``, of the Gaussian and of the flow, both in nats a row and
    both in the units of the rows as they are given. The columns may have any means and scales.
    """
    x, new = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(new, dtype=torch.float64)
    mean, std, D = x.mean(0), x.std(0), x.shape[1]
    u, v = ((rows - mean) / std for rows in (x, new))  # standardized by the training rows alone
    gaussian = torch.distributions.MultivariateNormal(u.mean(0), torch.cov(u.T, correction=0))
    flow = Flow(D, 6, lambda mask: Coupling(mask, 32))
    train(flow, u.float(), v.float(), steps, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return [float(q.log_prob(rows).mean() - std.log().sum()) for q, rows in ((gaussian, v), (flow, v.float()))]


def two_moons(n, generator):
    """n points (n, 2) on two half circles of radius 1 that are hooked into each other, with noise of deviation 0.1."""
    t, side = math.pi * torch.rand(n, generator=generator), 1 - 2.0 * (torch.rand(n, generator=generator) < 0.5)
    curve = side[:, None] * torch.stack((t.cos() - 0.5, t.sin() - 0.25), -1)
    return curve + 0.1 * torch.randn(n, 2, generator=generator)


if __name__ == "__main__":
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # the first weights of the networks
    table = np.genfromtxt(sys.argv[1], delimiter=",", skip_header=1) if sys.argv[1:] else two_moons(5000, g).numpy()
    table = torch.as_tensor(table)[torch.randperm(len(table), generator=g)]
    cut = len(table) * 4 // 5  # a fifth of the rows is held out
    print("Gaussian {:.3f}, flow {:.3f} nats a row".format(*beside_a_gaussian(table[:cut], table[cut:])))  # noqa: T201
