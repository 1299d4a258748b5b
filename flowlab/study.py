"""Studies: models compared over several seeds, since a single seed may be lucky.

A *trial* is one model before its training, with all that its training needs; a *record* is what one trial gave.

    trial = PINWHEEL.trial("consistent", seed=0)
    fit(trial.model, trial.data, **trial.settings)
    PINWHEEL.score(trial)                              # {"accuracy": 0.996, ...}

    records = list(run(PINWHEEL, range(20), path=Path("pinwheel.json")))     # the same for all variants and seeds
    print(table(records, PINWHEEL.columns))

A study of one's own is a name, some variants, and a score:

    def planar(layers):
        def trial(seed):
            generator = Generator().manual_seed(seed)
            x = Pinwheel().sample(2000, generator)
            return Trial(planar_flow(2, layers, generator=generator), x, {"steps": 500, "seed": seed})
        return trial

    STUDY = Study("planar", "planar maps on the pinwheel", {"4 maps": planar(4), "16 maps": planar(16)}, score)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Generic, NamedTuple, TypeVar

from flowlab.densities import evaluating
from flowlab.files import write_whole
from flowlab.training import fit

Scores = dict[str, Any]


@dataclass
class Trial:
    """A model before its training: ``fit(trial.model, trial.data, **trial.settings)``.

    Attributes:
        model: anything that ``training.fit`` trains.
        settings: of ``training.fit``.
        fitted: whether the model is fitted already, by steps of its own, and needs no training.
    """

    model: Any
    data: Any
    settings: dict[str, Any] = field(default_factory=dict)
    fitted: bool = False


@dataclass(frozen=True)
class Record:
    """What one seed of one variant gave: ``scores`` by name, the ``seconds`` of its training, and how it was run."""

    study: str
    variant: str
    seed: int
    scores: Scores
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, score: str) -> Any:
        return self.scores[score]


class TableColumn(NamedTuple):
    """A column of a table: its title, and what it says of the records of one row; ``left`` for words."""

    title: str
    of: Callable[[list[Record]], str]
    left: bool = False


T = TypeVar("T", bound=Trial)


@dataclass(frozen=True)
class Study(Generic[T]):
    """Variants of a model, each tried on several seeds and scored alike.

    Args:
        name: by which `flowlab experiment` knows it.
        about: what is compared, in words.
        variants: by name, what makes the ``Trial`` of a seed: called with the seed, and the study's settings by name.
        measure: what a trained trial reached, by name; it is called in evaluation mode and without gradients.
        settings: what can be set for all variants, such as a number of labels, and the usual values.
        columns: of its table; mean and spread of each score unless given.
    """

    name: str
    about: str
    variants: Mapping[str, Callable[..., T]]
    measure: Callable[[T], Scores] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[TableColumn] = ()

    def names(self, **settings: Any) -> list[str]:
        """The variants that there are under these settings."""
        return list(self.variants)

    def check(self, variant: str, **settings: Any) -> dict[str, Any]:
        """All settings, the usual ones too, as a record keeps them.

        Raises:
            ValueError: for a variant or a setting that does not exist.
        """
        if variant not in self.variants:
            raise ValueError(f"{self.name} expected a variant among {_listed(self.variants)}, but got {variant!r}.")
        self._refuse(set(settings) - set(self.settings))
        return {**self.settings, **settings}

    def _refuse(self, unknown: Iterable[str]) -> None:
        """ValueError for settings that do not exist."""
        if unknown := sorted(unknown):
            raise ValueError(
                f"{self.name} expected settings among {_listed(self.settings)}, but got {_listed(unknown)}."
            )

    def trial(self, variant: str, seed: int = 0, **settings: Any) -> T:
        """The untrained model of a variant, and its data, all drawn from the seed. Errors as ``check``."""
        return self.variants[variant](seed, **self.check(variant, **settings))

    def score(self, trial: T) -> Scores:
        """What a trained trial reached, by name. NotImplementedError for a study that has no ``measure``."""
        if self.measure is None:
            raise NotImplementedError(f"The study {self.name} measures nothing. Give it measure=.")
        with evaluating(trial.model):
            return self.measure(trial)

    def line(self, record: Record) -> str:
        """One record in words."""
        scores = "   ".join(f"{name} {score:.3f}" for name, score in record.scores.items() if score is not None)
        return f"{record.variant:12} seed {record.seed:<4} {scores}   {record.seconds:.1f} s"

    def record(self, variant: str, seed: int = 0, *, progress: bool = False, **settings: Any) -> Record:
        """Fit one trial and score it. Errors as ``trial`` and ``fit``.

        An interrupt ends it without a record: a fit that was stopped says nothing of its variant.
        """
        what = self.check(variant, **settings)
        began = time.perf_counter()
        trial = self.trial(variant, seed, **settings)
        if not trial.fitted:
            history = fit(trial.model, trial.data, progress=progress, **trial.settings)
            if not history.ended:
                raise KeyboardInterrupt
        seconds = round(time.perf_counter() - began, 2)
        return Record(self.name, variant, seed, self.score(trial), seconds, what)


# --- many seeds -------------------------------------------------------------------------------------------------------


def run(
    study: Study[Any],
    seeds: Sequence[int],
    variants: Sequence[str] | None = None,
    *,
    path: Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> Iterator[Record]:
    """One record for each seed and variant (all when left out), each as it is ready.

    Args:
        path: a JSON file that holds all records so far after each. For one run at a time.
        resume: go on from the records in the file: those that are there, run with the same settings, are not run anew,
            and what else the file holds is kept.
        settings: of the study.

    Raises:
        ValueError: for no seeds, a variant or setting that does not exist, and a file that is there already, holds no
            records, or cannot be written.
    """
    names = list(dict.fromkeys(study.names(**settings) if variants is None else variants))
    if len(seeds) < 1 or min(seeds) < 0:
        raise ValueError(
            f"Expected at least one seed, the first at least 0, but got {len(seeds)} from {min(seeds, default=0)}."
        )
    what = {variant: study.check(variant, **settings) for variant in names}
    if resume and path is None:
        raise ValueError("Expected a file to resume from, but got none.")
    known = _open(path, resume) if path is not None else []

    def records() -> Iterator[Record]:
        for seed in seeds:
            for variant in names:
                same = (study.name, variant, seed, what[variant])
                record = next((r for r in known if (r.study, r.variant, r.seed, r.settings) == same), None)
                if record is None:
                    record = study.record(variant, seed, **settings)
                    known.append(record)
                    if path is not None:
                        write(path, known)
                yield record

    return records()


def write(path: Path, records: Sequence[Record]) -> None:
    """Write records to a JSON file, whole or not at all."""
    write_whole(path, json.dumps([_flat(record) for record in records], indent=1))


def read(path: Path) -> list[Record]:
    """The records in a JSON file; ValueError where it holds none."""
    try:
        return [_record(**flat) for flat in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} holds no records of a study, so it cannot be resumed. Name another file.") from error


def _flat(record: Record) -> dict[str, Any]:
    """As it stands in a file: the scores beside the rest."""
    head = {"study": record.study, "variant": record.variant, "seed": record.seed}
    return {**head, **record.scores, "seconds": record.seconds, "settings": record.settings}


def _record(
    *, study: str, variant: str, seed: int, seconds: float, settings: dict[str, Any], **scores: float | None
) -> Record:
    if any(isinstance(score, (str, list, dict)) for score in (seconds, *scores.values())):
        raise TypeError("a score is a number")
    return Record(study, variant, seed, scores, seconds, settings)


def _open(path: Path, resume: bool) -> list[Record]:
    """The records to go on from; ValueError, before anything is run, for a file that cannot be written."""
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} to write {path.name} to. Make it first.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Name a file to write the records to.")
    if path.exists() and not resume:
        raise ValueError(f"{path} is there already. Go on from it with --resume, or name another file.")
    return read(path) if path.exists() else []


# --- tables -----------------------------------------------------------------------------------------------------------


def table(records: Sequence[Record], columns: Sequence[TableColumn] = ()) -> str:
    """One line for each study, variant and settings: what their records say, in the columns of the study.

    Without ``columns`` these are the variant, the settings that differ, how many seeds there are, and mean and spread
    of each score.
    """
    if not records:
        return "There are no records."
    columns = columns or _usual(records)
    rows: dict[tuple, list[Record]] = {}
    for record in records:
        key = (record.study, record.variant, json.dumps(record.settings, sort_keys=True, default=str))
        rows.setdefault(key, []).append(record)
    cells = [[column.title for column in columns], *([column.of(row) for column in columns] for row in rows.values())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column.left else text.rjust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in cells
    )


def _usual(records: Sequence[Record]) -> list[TableColumn]:
    """Columns for any records."""
    first = records[0]
    differ = [name for name, value in first.settings.items() if any(r.settings.get(name) != value for r in records)]
    scores = [name for name, value in first.scores.items() if value is not None]
    return [
        VARIANT,
        *(TableColumn(name, setting(name), left=True) for name in differ),
        SEEDS,
        *(TableColumn(name, mean_of(name)) for name in scores),
    ]


def setting(name: str) -> Callable[[list[Record]], str]:
    """A setting, which is the same in all records of a row."""
    return lambda row: str(row[0].settings.get(name, ""))


def mean_of(score: str, scale: float = 1.0, digits: int = 3) -> Callable[[list[Record]], str]:
    """Mean ± deviation over the seeds; of one seed nobody knows the deviation."""

    def of(row: list[Record]) -> str:
        values = [scale * record[score] for record in row]
        return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")

    return of


def median_of(value: Callable[[Record], float], digits: int = 3) -> Callable[[list[Record]], str]:
    """The median over the seeds."""
    return lambda row: f"{median(map(value, row)):.{digits}f}"


VARIANT = TableColumn("variant", lambda row: row[0].variant, left=True)
SEEDS = TableColumn("seeds", lambda row: str(len(row)))


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "nothing"
