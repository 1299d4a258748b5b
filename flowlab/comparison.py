"""How good a flow is on rows that it has not seen, beside one Gaussian and a mixture of Gaussians.

A log-likelihood by itself says little: its unit is that of the table. A difference of two, on the same rows, says how
much more likely one density finds a row than another.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from flowlab.densities import GaussianMixture, evaluating
from flowlab.densities.mixtures import EMGaussianMixture
from flowlab.models import build, flow_for
from flowlab.tables import Table, TableWarning, as_float64, as_rows, as_tensor, check_order, warn
from flowlab.training import train
from flowlab.training.progress import Bar, interruptible, seconds_to_the_next_look

FOLDS = 5
ENOUGH = 2000  # held-out rows: of a large table, so many are enough, and not all are held out in turn
CHUNK = 4096  # rows that are scored at a time


class Score(NamedTuple):
    """How likely one density finds held-out rows: means over rows, in nats, each with its standard error."""

    name: str
    nats: float
    error: float
    above: float  # the difference to one Gaussian, row by row
    above_error: float
    what: str  # how many components, or which flow


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found. It prints as a table; ``comparison["flow"].above`` is a number of it.

    Attributes:
        scores: of "one Gaussian", "mixture" and "flow".
        log_probs: by name, log p of each held-out row, ``(n,)``, in nats.
        rows: which rows of x these are, ``(n,)``; None where the held-out rows are others.
        protocol: how it was measured, in a sentence.
    """

    scores: tuple[Score, ...]
    log_probs: dict[str, Tensor]
    rows: Tensor | None
    protocol: str

    def __getitem__(self, name: str) -> Score:
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(f"A comparison has {', '.join(repr(score.name) for score in self.scores)}, but no {name!r}.")

    def __str__(self) -> str:
        lines = [f"{'':14}{'nats of a held-out row':>24}{'above one Gaussian':>24}"]
        for score in self.scores:
            above = "" if score is self.scores[0] else _told(score.above, score.above_error)
            lines.append(f"{score.name:14}{_told(score.nats, score.error):>24}{above:>24}   {score.what}".rstrip())
        return "\n".join([*lines, self.protocol])

    __repr__ = __str__


def compare(
    x: Any,
    flow: Any = None,
    *,
    context: Any = None,
    held_out: Any = None,
    components: int = 10,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> Comparison:
    """Mean log p of held-out rows, in nats: of one Gaussian, of a Gaussian mixture, and of a flow, on the same rows.

        print(flowlab.compare(x))                            # makes and fits a flow for each fifth of the rows
        print(flowlab.compare(x, flow, held_out=new_rows))   # scores a flow that is fitted, as it is

    The Gaussian has a full covariance, and so have the components of the mixture, whose number K is the best by BIC
    among 1, 2, ..., but for mixtures with a component on points that span no space. With a context all three are
    conditional: those two are fitted to (context, x) together. The standard errors are those of a mean over rows, and
    know nothing of how much other training rows would change. Where rows belong together, as in a time series, hold
    out some yourself.

    The interrupt button ends it with the parts of the table that are done, or by a KeyboardInterrupt where none is.
    Random numbers come from ``seed``.

    Args:
        x: ``(N, D)``, whatever ``flowlab.tables`` takes; or (x, context), as ``fit`` takes them.
        flow: a flow. With ``held_out`` it is taken as it is, and should be fitted; without, an untrained one of its
            recipe is fitted to each part of the rows. ``flow_for`` makes one if left out.
        context: ``(N, C)``, if the densities are to be conditional on it.
        held_out: rows ``(n, D)`` that no fit sees, or (rows, context). If left out, each fifth of x is held out in
            turn, and the rest is fitted to; of more than 2,000 rows, as many fifths as hold 2,000.
        components: the most that are tried.
        progress: whether to show a bar.
        settings: of the ``fit`` of a flow.

    Raises:
        TypeError, ValueError: for what holds no table of finite numbers, for fewer than ten rows where none are held
            out, and for a flow that is to be fitted anew and has no recipe.
    """
    if flow is not None and (isinstance(flow, type) or not hasattr(flow, "log_prob")):
        raise TypeError(f"compare expected a flow, or none to make one, but got {flow!r:.60}.")
    if isinstance(components, bool) or not isinstance(components, Integral) or components < 1:
        raise ValueError(f"compare expected a whole number of components, at least 1, but got {components!r}.")
    if not isinstance(seed, Integral):
        raise TypeError(f"compare expected a whole number as seed, but got {seed!r}.")
    parts = _parts((x, context) if context is not None else x, "x", flow)
    if held_out is None:
        N = len(parts[0].values)
        if N < 10:
            raise ValueError(f"compare expected at least ten rows to hold out a fifth of them, but got {N}.")
        if flow is not None and getattr(flow, "recipe", None) is None:
            raise ValueError(
                f"compare expected held_out rows that this {type(flow).__name__} has not seen, but got none, and "
                f"cannot fit another one, since it was built by no recipe: compare(x, flow, held_out=rows)."
            )
        new, folds = parts, list(_folds(N, seed))
    else:
        new = _parts(held_out, "held_out", flow, parts)
        folds = [(torch.arange(len(parts[0].values)), torch.arange(len(new[0].values)))]
    if flow is not None and len(parts) != (2 if flow.context_features else 1):
        raise ValueError(
            f"compare expected {'context=, as this flow has one' if flow.context_features else 'a flow with a context'}"
            f", but got {'none' if len(parts) == 1 else 'one without'}."
        )
    warn(parts[0], stacklevel=2)

    found: dict[str, list[Tensor]] = {"one Gaussian": [], "mixture": [], "flow": []}
    chosen: list[int] = []
    trained: Any = None
    bar = _Parts(len(folds)) if progress else None
    given = flow if held_out is not None else None
    with interruptible() as interrupted:
        for done, (rows, others) in enumerate(folds):
            tell: Callable[[float, str], None] = bar.of(done) if bar else lambda share, words: None
            fitted, scored = _at(parts, rows), _at(new, others)
            mixtures = _mixtures(fitted, components, seed, tell, interrupted)
            if mixtures is None:
                break
            trained = given or _fitted(flow, fitted, seed + done, settings, tell, interrupted)
            if trained is None:
                break
            for name, density in zip(found, (*mixtures, trained), strict=True):
                found[name].append(_log_probs(density, scored))
            chosen.append(len(mixtures[1].means))
    if bar:
        bar.close()
    if not chosen:
        raise KeyboardInterrupt("compare was interrupted before the first part of it was done.")
    held = [others for _, others in folds[: len(chosen)]]
    log_probs = {name: torch.cat(of) for name, of in found.items()}
    K = f"K = {min(chosen)}" if min(chosen) == max(chosen) else f"K = {min(chosen)} to {max(chosen)}"
    name = trained.recipe["name"] if getattr(trained, "recipe", None) else type(trained).__name__
    which = f"the {name} as given" if given is not None else f"a new {name} in each part"
    scores = _scores(log_probs, ("full covariance", f"{K} by BIC", which))
    n, N = sum(map(len, held)), len(parts[0].values)
    protocol = f"{n:,} rows were held out, and {len(folds[0][0]):,} others fitted to."
    if held_out is None:
        protocol = (
            f"{n:,} of {N:,} rows were held out, in {len(chosen)} of {FOLDS} parts, each from fits to the others."
        )
    if len(chosen) < len(folds):
        protocol += f" Interrupted: {len(folds) - len(chosen)} more parts were to come."
    return Comparison(scores, log_probs, torch.cat(held) if held_out is None else None, protocol + " ± standard error.")


# --- the rows ---------------------------------------------------------------------------------------------------------


Rows = tuple[Table, ...]  # x, and the context where there is one


def _parts(x: Any, what: str, flow: Any, like: Rows = ()) -> Rows:
    """x, and the context beside it, as float64 tables in the order of columns that the flow or ``like`` has."""
    given = x if isinstance(x, tuple) else (x,)
    if len(given) > 2:
        raise ValueError(f"compare expected x or (x, context) as {what}, but got a tuple of {len(given)}.")
    known = (getattr(flow, "columns", None), getattr(flow, "context_columns", None))
    check_order(given[0], given[-1])
    parts = []
    for i, part in enumerate(given):
        called = what if i == 0 else f"the context of {what}"
        values, names = as_rows(part, called)
        wanted = like[i].names if i < len(like) else known[i]
        if wanted and names:
            values, names = as_tensor(Table(values, names), called, names=wanted), wanted
        parts.append(Table(as_float64(values).cpu(), names))
    if len({len(part.values) for part in parts}) > 1:
        raise ValueError(
            f"compare expected a context for each row of {what}, but got {[len(p.values) for p in parts]}."
        )
    widths = [[part.values.shape[1] for part in these] for these in (parts, like or parts)]
    if widths[0] != widths[1]:
        raise ValueError(f"compare expected {what} of {widths[1]} columns, like x, but got {widths[0]}.")
    return tuple(parts)


def _at(parts: Rows, rows: Tensor) -> Rows:
    return tuple(part._replace(values=part.values[rows]) for part in parts)


def _folds(N: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Which rows are fitted to, and which are held out: each fifth in turn, until enough have been."""
    order = torch.randperm(N, generator=Generator().manual_seed(seed)).tensor_split(FOLDS)
    for i in range(min(FOLDS, math.ceil(ENOUGH / len(order[0])))):
        yield torch.cat([part for j, part in enumerate(order) if j != i]).sort().values, order[i].sort().values


# --- the densities ----------------------------------------------------------------------------------------------------


class _GivenContext:
    """p(x | c) = p(c, x) / p(c) of a Gaussian mixture of both, c being the first columns."""

    def __init__(self, both: GaussianMixture, C: int) -> None:
        L, kept = both._scale_tril().detach(), both.logits > -math.inf  # what no point chose has no weight
        L = L[kept]
        self.both, self.means = both, both.means
        self.context = GaussianMixture(
            both.means[kept, :C], (L @ L.mT)[:, :C, :C], weights=both.logits[kept].softmax(-1)
        )

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """log p(x | context) in nats: ``(n, D)`` and ``(n, C)`` to ``(n,)``."""
        return self.both.log_prob(torch.cat((context, x), -1)) - self.context.log_prob(context)


def _is_flat(mixture: EMGaussianMixture, C: int) -> bool:
    """Whether the floor holds a component's spread of x given the first C columns, the context."""
    L = mixture._scale_tril()[:, C:, C:] / mixture.unit[C:, None]  # L Lᵀ is the covariance of x given the context
    return bool((torch.linalg.svdvals(L).amin(-1) ** 2 < 10 * mixture.floor).any())


def _mixtures(
    parts: Rows, most: int, seed: int, tell: Callable[[float, str], None], interrupted: Callable[[], bool]
) -> tuple[Any, Any] | None:
    """One Gaussian, and the mixture of the best BIC; None when interrupted. Two rises of the BIC end it."""
    x = torch.cat([part.values for part in reversed(parts)], -1)  # (N, C + D)
    generator, C = Generator().manual_seed(seed), x.shape[1] - parts[0].values.shape[1]
    tried: list[tuple[float, EMGaussianMixture]] = []
    most = min(most, len(x.unique(dim=0)))
    for K in range(1, most + 1):
        tell(0.1 * K / most, f"a mixture of K = {K}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TableWarning)  # said once of the whole table
            mixture = EMGaussianMixture.fit(
                x, K, restarts=2 if K > 1 else 1, steps=200, tolerance=1e-4, generator=generator
            )
        # A component on a few points that span no space is as likely as the floor lets it be, and BIC would take it.
        tried.append((math.inf if K > 1 and _is_flat(mixture, C) else mixture.bic(x), mixture))
        if interrupted():
            return None
        if K > 2 and tried[-1][0] >= tried[-2][0] >= tried[-3][0]:
            break
    pair = tried[0][1], min(tried, key=lambda one: one[0])[1]
    if len(parts) == 1:
        return pair
    return _GivenContext(pair[0], C), _GivenContext(pair[1], C)


def _fitted(
    flow: Any,
    parts: Rows,
    seed: int,
    settings: dict[str, Any],
    tell: Callable[[float, str], None],
    interrupted: Callable[[], bool],
) -> Any:
    """A flow for these rows, or an untrained one of the recipe of ``flow``, fitted to them; None when interrupted."""
    generator = Generator().manual_seed(seed)
    if flow is None:
        new = flow_for(*parts, generator=generator)
    else:
        new = build(flow.recipe, generator=generator).to(flow.anchor)
        new.columns, new.context_columns = parts[0].names, parts[1].names if len(parts) > 1 else None
    x = parts[0].values if len(parts) == 1 else tuple(part.values for part in parts)
    steps = train(new, x, **{"seed": seed, **settings})
    for history in steps:
        tell(0.1 + 0.9 * history.step / history.total, f"the flow, step {history.step}")
        if interrupted():
            steps.close()
            return None
    return new


@torch.no_grad()
def _log_probs(density: Any, parts: Rows) -> Tensor:
    """log p of each row, ``(n,)`` in float64, some rows at a time."""
    device = getattr(getattr(density, "anchor", None), "device", "cpu")
    with evaluating(density):
        found = [
            density.log_prob(*(part.to(device) for part in some)).cpu().double()
            for some in zip(*(part.values.split(CHUNK) for part in parts), strict=True)
        ]
    return torch.cat(found)


# --- the numbers ------------------------------------------------------------------------------------------------------


def _scores(log_probs: dict[str, Tensor], what: tuple[str, ...]) -> tuple[Score, ...]:
    gaussian = next(iter(log_probs.values()))
    return tuple(
        Score(name, *_mean(of), *_mean(of - gaussian), words)
        for (name, of), words in zip(log_probs.items(), what, strict=True)
    )


def _mean(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error, which one number does not tell."""
    n = len(values)
    return float(values.mean()), float(values.std()) / math.sqrt(n) if n > 1 else math.nan


def _told(value: float, error: float) -> str:
    return f"{value:,.2f} ± {error:,.2f}" if max(abs(value), abs(error)) < 1e6 else f"{value:.3g} ± {error:.2g}"


class _Parts(Bar):
    """A bar over the parts of a comparison, with what is done in each."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total

    def of(self, done: int) -> Callable[[float, str], None]:
        """How to report, in part number ``done``, the share of it that is done, and what is being done."""
        return lambda share, words: self._try(self._draw, done + share, words)

    def _draw(self, done: float, words: str) -> None:
        if self.bar is None:
            from tqdm.auto import tqdm

            form = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
            self.bar = tqdm(total=self.total, desc="comparing", bar_format=form, mininterval=seconds_to_the_next_look())
        self.bar.set_postfix_str(words, refresh=False)
        self.bar.update(done - self.bar.n)
