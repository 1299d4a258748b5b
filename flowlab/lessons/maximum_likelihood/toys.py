"""A flow on the line with four numbers: the truth that is hidden, data of it, and the path of a gradient descent."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from flowlab.bijections import Chain, ScaleShift, SinhArcsinh
from flowlab.densities import Flow, StandardNormal

TRUTH = {"location": 1.0, "spread": 1.0, "skew": 0.6, "tail": 0.8}
START = {"location": 0.0, "spread": 1.5, "skew": 0.0, "tail": 1.0}
SIZES = (12, 40, 400)
STEPS = 200


def skewed_flow(location: float = 0.0, spread: float = 1.0, skew: float = 0.0, tail: float = 1.0) -> Flow:
    """A flow on the line with four parameters: z = sinh(tail · arcsinh((x − location)/spread) − skew), z ~ N(0, 1)."""
    flow = Flow(Chain([ScaleShift(1), SinhArcsinh(1)]), StandardNormal(1))
    return set_skewed(flow, location, spread, skew, tail)


@torch.no_grad()
def set_skewed(flow: Flow, location: float, spread: float, skew: float, tail: float) -> Flow:
    """Put these four numbers into a `skewed_flow`."""
    scale, bend = flow.bijection
    scale.log_scale.fill_(-math.log(spread))
    scale.shift.fill_(-location / spread)
    bend.skew.fill_(skew)
    bend.log_tail.fill_(math.log(tail))
    return flow


def skewed_data(n: int, seed: int = 0) -> Tensor:
    """n points ``(n, 1)`` of the truth that the explorer hides."""
    return skewed_flow(**TRUTH).sample(n, torch.Generator().manual_seed(seed))


@functools.lru_cache
@torch.enable_grad()
def gradient_path(points: int) -> tuple[list[dict[str, float]], np.ndarray]:
    """Where Adam goes from START in STEPS steps: the four numbers at each, and nats on training and on new points."""
    flow, x, held_out = skewed_flow(**START), skewed_data(points), skewed_data(2000, seed=1)
    adam = torch.optim.Adam(flow.parameters(), lr=0.05)
    path, scores = [], []
    for _ in range(STEPS + 1):
        log_p = flow.log_prob(x).mean()
        with torch.no_grad():
            scores.append((log_p.item(), flow.log_prob(held_out).mean().item()))
        scale, bend = flow.bijection
        spread = math.exp(-scale.log_scale.item())
        location = -scale.shift.item() * spread
        path.append(dict(zip(TRUTH, (location, spread, bend.skew.item(), math.exp(bend.log_tail.item())), strict=True)))
        adam.zero_grad()
        (-log_p).backward()
        adam.step()
    return path, np.array(scores)
