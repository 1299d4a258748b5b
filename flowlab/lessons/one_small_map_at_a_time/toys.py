"""The two fits of this lesson: points pushed to a normal, map by map, and a normal bent onto an energy."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from flowlab.bijections import Chain
from flowlab.datasets import Energy, Toy
from flowlab.densities import Flow, one_map_at_a_time
from flowlab.metrics import evidence
from flowlab.models import planar_flow
from flowlab.training import fit, reverse_kl

TRIED = (0, 1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 160, 250)  # maps tried, at each stop of the slider
DRAWS, SHOWN = 2000, 700


class Film(NamedTuple):
    """A fit after some of its maps, at each stop: its flows, points on the way, and nats to the truth."""

    truth: Toy
    flows: list[Flow]
    maps: list[int]
    points: list[Tensor]
    nats: list[float]
    of: str  # what the nats are


@torch.no_grad()
def to_a_normal(truth: Toy | None = None, n: int = 1500, seed: int = 0) -> Film:
    """Data of a toy, pushed toward N(0, I) by one radial map at a time: the points are z, the nats are KL(p‖q)."""
    truth = Energy(1) if truth is None else truth
    generator = Generator().manual_seed(seed)
    x, new = truth.sample(n, generator), truth.sample(DRAWS, generator)
    exact = truth.log_prob(new)
    grown = list(itertools.islice(one_map_at_a_time(x, generator), TRIED[-1] + 1))
    flows = [grown[tried][0] for tried in TRIED]
    nats = [float((exact - flow.log_prob(new)).mean()) for flow in flows]
    points = [flow.bijection(new[:SHOWN])[0] for flow in flows]
    return Film(truth, flows, [len(flow.bijection) - 1 for flow in flows], points, nats, "KL(p‖q)")


def bent(energy: Energy, layers: int = 8, steps: int = 300, seed: int = 0) -> Flow:
    """A planar flow z → x, fitted to an energy by reverse KL: it sees no data, only U."""
    flow = planar_flow(2, layers, sampling=True, standardize=False, generator=Generator().manual_seed(seed))
    objective = reverse_kl(lambda x: -energy.energy(x), n=128, warm=0.5)
    fit(flow, objective=objective, steps=steps, learning_rate=1e-2, seed=seed, progress=False)
    return flow


@torch.no_grad()
def to_an_energy(energy: Energy | None = None, flow: Flow | None = None) -> Film:
    """Draws of N(0, I), bent onto an energy by the maps of a flow: the points are x, the nats are KL(q‖p)."""
    energy = Energy(1) if energy is None else energy
    flow = bent(energy) if flow is None else flow
    maps = list(flow.bijection)  # in the order x → z; the last one is the scale and shift next to z
    flows = [Flow(Chain(maps[len(maps) - 1 - depth :]), flow.base) for depth in range(len(maps))]
    points, nats = [], []
    for part in flows:
        x, log_q = part.draw(DRAWS, Generator().manual_seed(1))
        points.append(x[:SHOWN])
        nats.append(energy.log_z - float(evidence(-energy.energy(x) - log_q).bound))
    return Film(energy, flows, list(range(len(flows))), points, nats, "KL(q‖p)")


@torch.no_grad()
def joint_kl(energy: Energy, start: Tensor, end: Tensor) -> float:
    """KL(q(x, v)‖π) in nats of a map without volume from ``start`` ~ N(0, I) to ``end``, (n, 4): x, then v.

    π(x, v) = exp(−U(x) − ½|v|²)/(Z · 2π). As log |det| = 0, log q at the end is log N(start; 0, I).
    """
    x, v = end.chunk(2, -1)
    log_two_pi = math.log(2 * math.pi)
    log_q = -0.5 * start.square().sum(-1) - 2 * log_two_pi
    log_pi = -energy.energy(x) - 0.5 * v.square().sum(-1) - energy.log_z - log_two_pi
    return float((log_q - log_pi).mean())
