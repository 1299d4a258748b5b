"""Six flows fitted to the energies U1 to U4 by reverse KL: how near each comes, over seeds, and what failed.

The same from the command line: `flowlab experiment small_maps --seeds 5`; the records in ``small_maps.json`` are of a
tenth of the steps, `--effort 0.1`. The energies are those of Rezende and Mohamed, arXiv:1505.05770, table 1; their
figure 3 shows 2, 8 and 32 planar maps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Generator, Tensor

from flowlab.datasets import Energy
from flowlab.densities import Flow
from flowlab.metrics import evidence
from flowlab.models import planar_flow, radial_flow, realnvp, spline_flow
from flowlab.study import SEEDS, VARIANT, Record, Scores, Study, TableColumn, Trial, read
from flowlab.training import reverse_kl

ENERGIES = tuple(Energy(number) for number in (1, 2, 3, 4))
DRAWS = 20_000  # of each flow, to measure it by
LOST = 0.5  # nats from which a fit counts as failed: it has lost a branch, or never bent to the energy


def log_target(x: Tensor) -> Tensor:
    """−U of the four energies, each at its own points: ``(4, n, 2)`` to ``(4, n)``."""
    return -torch.stack([p.energy(part) for p, part in zip(ENERGIES, x, strict=True)])


def fitted(build: Callable[[Generator], Flow], steps: int, learning_rate: float) -> Callable[..., Trial]:
    """One flow for each energy, the four in one stack."""

    def trial(seed: int, effort: float = 1.0) -> Trial:
        flow = build(Generator().manual_seed(seed))
        settings = {"steps": max(1, round(effort * steps)), "learning_rate": learning_rate, "seed": seed}
        return Trial(flow, None, {"objective": reverse_kl(log_target, n=128, warm=0.5), **settings})

    return trial


def measure(trial: Trial) -> Scores:
    """Of each energy, in nats: KL(q‖p), the bound and the estimate of log Z; and the share of draws that count."""
    x, log_q = trial.model.draw(DRAWS, Generator().manual_seed(1))
    found = evidence((log_target(x) - log_q).double())
    scores: Scores = {}
    for k, p in enumerate(ENERGIES):
        bound, estimate, effective = (float(each[k]) for each in (found.bound, found.estimate, found.effective))
        name = f"U{p.number}"
        scores |= {f"{name} KL": p.log_z - bound, f"{name} bound": bound, f"{name} estimate": estimate}
        scores[f"{name} effective"] = effective
    return scores


def _kl(name: str) -> Callable[[list[Record]], str]:
    def of(row: list[Record]) -> str:
        values = [record[f"{name} KL"] for record in row]
        return f"{median(values):.2f} ({max(values):.2f})"

    return of


def _log_z(name: str) -> Callable[[list[Record]], str]:
    return lambda row: " ".join(f"{median(r[f'{name} {kind}'] for r in row):.2f}" for kind in ("bound", "estimate"))


def _failed(row: list[Record]) -> str:
    return f"{sum(r[f'U{p.number} KL'] > LOST for r in row for p in ENERGIES)} of {len(row) * len(ENERGIES)}"


DISTANCE = (
    VARIANT,
    SEEDS,
    *(TableColumn(f"U{p.number}: KL (worst)", _kl(f"U{p.number}")) for p in ENERGIES),
    TableColumn(f"over {LOST} nats", _failed),
)
EVIDENCE = (VARIANT, *(TableColumn(f"{p.log_z:.3f}: bound, estimate", _log_z(f"U{p.number}")) for p in ENERGIES))
SECONDS = TableColumn("seconds", lambda row: f"{median(record.seconds for record in row):.0f}")


def records() -> list[Record]:
    """What five seeds of each variant gave, with a tenth of the steps."""
    return read(Path(__file__).parent / "small_maps.json")


OWN: dict[str, Any] = {"standardize": False, "stack": len(ENERGIES)}


def planar(layers: int) -> Callable[..., Trial]:
    return fitted(lambda g: planar_flow(2, layers, sampling=True, generator=g, **OWN), 3000, 1e-2)


SMALL_MAPS: Study[Trial] = Study(
    name="small_maps",
    about="U1 to U4, known up to a constant: how near do small maps come to them, how near couplings, by reverse KL?",
    variants={
        "planar 2": planar(2),
        "planar 8": planar(8),
        "planar 32": planar(32),
        "radial 8": fitted(lambda g: radial_flow(2, 8, sampling=True, generator=g, **OWN), 3000, 1e-2),
        "coupling 8": fitted(lambda g: realnvp(2, 8, hidden=(32, 32), generator=g, **OWN), 1500, 5e-3),
        "spline 4": fitted(lambda g: spline_flow(2, 4, hidden=(32, 32), bound=4.5, generator=g, **OWN), 1500, 5e-3),
    },
    measure=measure,
    settings={"effort": 1.0},
    columns=(*DISTANCE, *EVIDENCE[1:], SECONDS),
)
