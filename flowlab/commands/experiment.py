"""`flowlab experiment`: a study, over seeds."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowlab.study import Study

ABOUT = "fit the variants of a study on several seeds, and print how often each succeeds"
EXAMPLES = """\
flowlab experiment                                  the studies that there are
flowlab experiment pinwheel --seeds 20 --json pinwheel.json
flowlab experiment pinwheel --variants consistent --first-seed 100
flowlab experiment circles --seeds 20               without labels
flowlab experiment circles --labels 32 --seeds 20
flowlab experiment circles --noise 0.005            as thin as the thesis draws them
flowlab experiment small_maps --seeds 5             energies, known up to a constant
flowlab experiment pinwheel --seeds 1 --effort 0.02 only to see that all works

A fit of these takes 5 to 20 seconds of one core. The file is written after each, so nothing is lost when you
stop; --resume goes on from it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="name of a study; none lists them")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--variants", "--recipes", nargs="+", metavar="VARIANT", help="which variants (default: all)")
    parser.add_argument("--labels", type=int, help="how many points have a label (default: none)")
    parser.add_argument("--noise", type=float, help="of circles: spread across the ring (default: 0.05)")
    parser.add_argument("--effort", type=float, help="share of each variant's steps to take (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one record a seed and variant here")
    parser.add_argument("--resume", action="store_true", help="keep the records in FILE, and run what is missing")


def run(options: argparse.Namespace) -> int:
    import torch

    from flowlab import study
    from flowlab.datasets import TwoCircles
    from flowlab.studies import PointStudy

    known = studies()
    if options.name is None:
        print("flowlab experiment STUDY. There are:")
        for one in known.values():
            print(f"\n{one.name}\n  {one.about}\n  variants: {', '.join(one.variants)}")
        return 0
    if options.name not in known:
        raise ValueError(f"Expected a study among {', '.join(known)}, but got {options.name!r}.")
    chosen = known[options.name]
    torch.set_num_threads(1)  # tensors this small are faster so
    if options.noise is not None:
        if not (isinstance(chosen, PointStudy) and isinstance(chosen.truth, TwoCircles)):
            raise ValueError(f"Expected circles with --noise, but got {options.name}. Leave --noise out.")
        chosen = replace(chosen, truth=replace(chosen.truth, noise=options.noise))
    settings = {name: value for name in ("labels", "effort") if (value := getattr(options, name)) is not None}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    records = []
    for record in study.run(chosen, seeds, options.variants, path=options.json, resume=options.resume, **settings):
        records.append(record)
        print(chosen.line(record), flush=True)
    print(f"\n{study.table(records, chosen.columns)}")
    return 0


def studies() -> dict[str, Study[Any]]:
    """All studies by name: the library's, and those of lessons, each the STUDY in a file ``study.py`` of its lesson."""
    import importlib
    import importlib.util

    from flowlab import lessons
    from flowlab.pretrained.make import SHIPPED
    from flowlab.studies import CIRCLES, PINWHEEL, SMALL_MAPS

    found: list[Study[Any]] = [PINWHEEL, CIRCLES, SMALL_MAPS, SHIPPED]
    for slug in lessons.slugs():
        module = f"{lessons.__name__}.{slug}.study"
        if importlib.util.find_spec(module) is not None:
            found.append(importlib.import_module(module).STUDY)
    return {study.name: study for study in found}
