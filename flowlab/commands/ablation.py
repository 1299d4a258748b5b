"""`flowlab ablation`: a mixture of digits with one ingredient left out at a time, over seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

from flowlab.commands.base import whole

ABOUT = "fit a mixture of digits with one ingredient of its training left out at a time, over seeds"
EXAMPLES = """\
flowlab ablation mixture_mnist --seeds 3 --json ablation.json
flowlab ablation mixture_mnist_five --size compact --variants all --seeds 5
flowlab ablation --known                       the records that the last lesson on MNIST shows

A fit of the quick size takes a minute or so of one core. The file is written after each; the same command
again goes on from it. The variants are 'all', 'without neighbors', 'without augmentation', 'without balance',
'without flows' and 'ELBO alone'."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="mixture_mnist", help="(default: mixture_mnist)")
    parser.add_argument("--size", default="quick", help="quick, compact or full (default: quick)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--variants", nargs="+", metavar="VARIANT", help="which variants (default: all of them)")
    parser.add_argument("--epochs", type=whole, help="in place of the size's own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one record a seed and variant here")
    parser.add_argument("--known", action="store_true", help="run nothing: print what the package holds")


def run(options: argparse.Namespace) -> int:
    import torch

    from flowlab import study
    from flowlab.studies import digit_mixtures

    if options.known:
        print(study.table(digit_mixtures.known(), digit_mixtures.COLUMNS))
        return 0
    mixtures = {one.name: one for one in digit_mixtures.MIXTURES}
    if options.model not in mixtures:
        raise ValueError(f"Expected a mixture among {', '.join(mixtures)}, but got {options.model!r}.")
    chosen = mixtures[options.model]
    torch.set_num_threads(1)  # so that the seconds can be compared
    settings = {"size": options.size} | ({} if options.epochs is None else {"epochs": options.epochs})
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    resume = options.json is not None
    records = []
    for record in study.run(chosen, seeds, options.variants, path=options.json, resume=resume, **settings):
        records.append(record)
        print(chosen.line(record), flush=True)
    print(f"\n{study.table(records, chosen.columns)}")
    return 0
