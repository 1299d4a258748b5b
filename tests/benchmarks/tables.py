"""How good are the README's three lines on real tables? Held-out nats beside one Gaussian, mixtures and peers.

python tests/benchmarks/tables.py                           # all tables, 5 splits: 40 minutes of one core, most of it
                                                            # that of the peers
python tests/benchmarks/tables.py --only flowlab --tables wine diabetes

Each table of scikit-learn is split at random, 80 % to fit on and 20 % held out, five times. Every method gets the rows
as they are, and its mean log-likelihood of the held-out rows is in nats, in the table's own units. Differences to one
Gaussian are paired: both saw the same split.

- `digits` are whole numbers from 0 to 16, and some pixels never vary. Such columns have no density, and whoever puts
  the sharpest spike on a value wins. So uniform noise is added, x = v + u, before the split: then log p(x) is a bound
  on the log-probability of the digit, and a pixel that never varies has the density 1. `digits, as they come` shows
  what the three lines do without noise, on the pixels that vary in the rows to fit on. A number there says little.
- `diabetes` has a column of two values, which has no density either: the table is measured without that column and
  with it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn import datasets
from sklearn.mixture import GaussianMixture
from torch.distributions import MultivariateNormal

import flowlab

COMPONENTS = range(1, 11)  # among which BIC chooses
STEPS, BATCH, RATE = 2000, 512, 1e-3  # of the peers' loops: as many steps as fit takes, and no held-out rows

Rows = np.ndarray
# Fits on the first rows, and gives the log-likelihood of the second ones (N,), in nats.
Method = Callable[[Rows, Rows, int], np.ndarray]


def digits_with_noise() -> Rows:
    v = datasets.load_digits().data
    return v + np.random.default_rng(0).random(v.shape)


TABLES: dict[str, Callable[[], Rows]] = {
    "wine": lambda: datasets.load_wine().data,
    "diabetes": lambda: np.delete(datasets.load_diabetes().data, 1, 1),
    "diabetes, with sex": lambda: datasets.load_diabetes().data,
    "breast_cancer": lambda: datasets.load_breast_cancer().data,
    "digits, with noise": digits_with_noise,
}
NO_DENSITY = {"digits, as they come": lambda: datasets.load_digits().data}


def three_lines(x: Rows, held_out: Rows, seed: int) -> np.ndarray:
    """As README has them."""
    flow = flowlab.flow_for(x)
    flowlab.fit(flow, x, progress=False)
    return flow.log_prob(held_out).detach().numpy()


def one_gaussian(x: Rows, held_out: Rows, seed: int) -> np.ndarray:
    """The maximum-likelihood Gaussian with a full covariance."""
    rows = torch.as_tensor(x)
    mean, covariance = rows.mean(0), rows.T.cov(correction=0)
    # Columns in units apart by 1e6 leave a covariance that is fine and a Cholesky factor that is not: scale first.
    scale = covariance.diagonal().sqrt()
    gaussian = MultivariateNormal(torch.zeros_like(mean), covariance / scale.outer(scale))
    return (gaussian.log_prob((torch.as_tensor(held_out) - mean) / scale) - scale.log().sum()).numpy()


def mixture_by_bic(x: Rows, held_out: Rows, seed: int) -> np.ndarray:
    """scikit-learn's, on standardized columns, since its floor has no units: the best BIC of one to ten components."""
    (z, new), log_det = standardized(x, held_out)
    tried = [GaussianMixture(k, random_state=seed).fit(z) for k in COMPONENTS if k < len(z)]
    return min(tried, key=lambda mixture: mixture.bic(z)).score_samples(new) + log_det


def zuko_maf(x: Rows, held_out: Rows, seed: int) -> np.ndarray:
    """zuko's MAF of default size, in a plain loop on standardized columns."""
    import zuko

    flow = zuko.flows.MAF(x.shape[1])
    return plain_loop(flow, lambda x: flow().log_prob(x), x, held_out, seed)


def zuko_nsf(x: Rows, held_out: Rows, seed: int) -> np.ndarray:
    """zuko's NSF of default size, in the same loop."""
    import zuko

    flow = zuko.flows.NSF(x.shape[1])
    return plain_loop(flow, lambda x: flow().log_prob(x), x, held_out, seed)


def normflows_realnvp(x: Rows, held_out: Rows, seed: int) -> np.ndarray:
    """normflows' Real NVP as in its first example, eight couplings of width 64, in the same loop."""
    import normflows as nf

    D = x.shape[1]
    layers: list[Any] = []
    for _ in range(8):
        network = nf.nets.MLP([(D + 1) // 2, 64, 64, 2 * (D // 2)], init_zeros=True)
        layers += [nf.flows.AffineCouplingBlock(network), nf.flows.Permute(D, mode="shuffle")]
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(D), layers)
    return plain_loop(flow, flow.log_prob, x, held_out, seed)


METHODS: dict[str, Method] = {
    "one Gaussian": one_gaussian,
    "mixture by BIC": mixture_by_bic,
    "flowlab": three_lines,
    "zuko MAF": zuko_maf,
    "zuko NSF": zuko_nsf,
    "normflows RealNVP": normflows_realnvp,
}


def installed(method: str) -> bool:
    return (
        importlib.util.find_spec(method.split()[0]) is not None if method.split()[0] in ("zuko", "normflows") else True
    )


def standardized(x: Rows, held_out: Rows) -> tuple[tuple[Rows, Rows], float]:
    """Both in the deviations of the first, and the log-determinant of the map."""
    mean, scale = x.mean(0), x.std(0)
    return ((x - mean) / scale, (held_out - mean) / scale), -float(np.log(scale).sum())


def plain_loop(
    flow: torch.nn.Module, log_prob: Callable[[torch.Tensor], torch.Tensor], x: Rows, held_out: Rows, seed: int
) -> np.ndarray:
    (z, new), log_det = standardized(x, held_out)
    rows, adam = torch.as_tensor(z).float(), torch.optim.Adam(flow.parameters(), lr=RATE)
    g = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        batch = rows[torch.randperm(len(rows), generator=g)[:BATCH]]
        adam.zero_grad()
        loss = -log_prob(batch).mean()
        if not loss.isfinite():
            break  # as it is then, so it stays
        loss.backward()
        adam.step()
    with torch.no_grad():
        return (log_prob(torch.as_tensor(new).float()) + log_det).numpy()


def splits(table: Rows, count: int) -> Iterator[tuple[int, Rows, Rows]]:
    """Each split's number, the rows to fit on, and those held out; without columns that are constant in the former."""
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(table))
        x, held_out = table[order[len(table) // 5 :]], table[order[: len(table) // 5]]
        varies = x.std(0) > 0
        yield seed, x[:, varies], held_out[:, varies]


def measure(table: str, method: str, count: int) -> list[dict[str, Any]]:
    """One record a split: the mean log-likelihood of held-out rows in nats, and seconds of one core for the fit."""
    records = []
    for seed, x, held_out in splits((TABLES | NO_DENSITY)[table](), count):
        torch.manual_seed(seed)  # of the peers, which have no generators
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                nats = float(METHODS[method](x, held_out, seed).mean())
            except (ValueError, AssertionError):  # how torch's distributions and zuko meet NaN
                nats = -math.inf
        seconds = time.process_time() - began
        records.append({"table": table, "method": method, "split": seed, "nats": nats, "seconds": round(seconds, 2)})
    return records


def told(values: list[float]) -> str:
    """Mean ± standard error."""
    if not all(map(math.isfinite, values)):
        return f"not finite in {sum(not math.isfinite(v) for v in values)} of {len(values)}"
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):,.2f} ± {error:,.2f}"


def report(records: list[dict[str, Any]]) -> str:
    """A table in Markdown: the nats of each method; flowlab's difference to one Gaussian, and its seconds."""
    methods = [m for m in METHODS if any(r["method"] == m for r in records)]
    last = ["flowlab above one Gaussian", "at least", "seconds a fit"] if "flowlab" in methods else []
    lines = [f"| {' | '.join(['table', *methods, *last])} |", "| --- " * (1 + len(methods) + len(last)) + "|"]
    for table in dict.fromkeys(r["table"] for r in records):
        of = {m: {r["split"]: r for r in records if (r["table"], r["method"]) == (table, m)} for m in methods}
        cells = [told([r["nats"] for r in found.values()]) if found else "" for found in of.values()]
        if last and of["flowlab"]:
            flow, gaussian = of["flowlab"], of["one Gaussian"]
            above = [r["nats"] - gaussian[split]["nats"] for split, r in flow.items()]
            seconds = statistics.mean(r["seconds"] for r in flow.values())
            cells += [told(above), f"{min(above):,.2f}", f"{seconds:.0f}"]
        lines.append(f"| {' | '.join([table, *cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f"tables: {', '.join(TABLES | NO_DENSITY)}; methods: {', '.join(METHODS)}",
    )
    parser.add_argument("--tables", nargs="+", default=[*TABLES], choices=[*TABLES, *NO_DENSITY], metavar="TABLE")
    parser.add_argument("--only", nargs="+", default=[*METHODS], choices=METHODS, metavar="METHOD", help="the methods")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the records there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    absent = [method for method in given.only if not installed(method)]
    for method in absent:
        print(f"{method}: not installed, pip install -e '.[bench]'")
    methods = [m for m in METHODS if m == "one Gaussian" or (m in given.only and m not in absent)]
    records = []
    for table in given.tables:
        for method in methods:
            records += measure(table, method, given.splits)
            with contextlib.suppress(BrokenPipeError):
                print(f"{table}, {method}: {told([r['nats'] for r in records[-given.splits :]])}", flush=True)
    print("\n" + report(records))
    if given.json:
        given.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
