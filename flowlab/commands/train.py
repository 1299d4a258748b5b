"""`flowlab train`: a model of digits, in a size for this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flowlab.commands.base import add_device, chosen, plural, whole
from flowlab.commands.evaluate import report

if TYPE_CHECKING:
    from flowlab.studies import ImageStudy, ImageTrial

ABOUT = "train a model of digits by name, in a size for this machine"
EXAMPLES = """\
flowlab train                                   the models, their sizes and what each takes
flowlab train nice_mnist                        the quick size, on the digits inside the package
flowlab train glow_mnist --size full --out runs the full MNIST, on a GPU if there is one
flowlab train glow_mnist --size full --out runs --resume
torchrun --nproc-per-node 2 --no-python flowlab train glow_mnist --size full

Stop it when you like, with Ctrl-C or any other way: --resume goes on from the last checkpoint. At the end
it is evaluated on the test images, and the card with the numbers is in the file. OMP_NUM_THREADS says how
many cores it may use."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="name of a model; none lists them")
    parser.add_argument("--size", default="quick", help="quick, full, or what else there is of it (default: quick)")
    parser.add_argument("--out", dest="folder", type=Path, default=Path(), help="folder for the file (default: here)")
    parser.add_argument("--resume", action="store_true", help="go on where the file there stands")
    parser.add_argument("--seed", type=int, default=0, help="of starting weights, batches and noise (default: 0)")
    parser.add_argument("--epochs", type=whole, help="in place of the size's own, as are the next two")
    parser.add_argument("--batch-size", type=whole)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--shards", type=whole, help="send each batch through in so many parts, in less memory")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    from flowlab.studies import MNIST
    from flowlab.training import distributed

    if options.model is None:
        print(listed())
        return 0
    if options.model not in MNIST:
        raise ValueError(f"Expected a model among {', '.join(MNIST)}, but got {options.model!r}.")
    study = MNIST[options.model]
    study.size(options.size)
    with distributed.launched(chosen(options.device)) as device:
        return train_on(study, options, str(device))


def train_on(study: ImageStudy, options: argparse.Namespace, device: str) -> int:
    """Train on one device, or take part in it, and say what came out."""
    from flowlab import studies
    from flowlab.training import checkpoints, distributed

    path = options.folder / f"{study.name}_{options.size}{f'_{options.seed}' if options.seed else ''}.safetensors"
    say = print if distributed.rank() == 0 else lambda *_: None  # of several processes one speaks
    going_on = path.exists() or checkpoints.training_file(path).exists()
    if going_on and not options.resume:
        raise ValueError(f"{path} is there already. Go on from it with --resume, or name another folder with --out.")
    changes = {name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate", "shards")}
    changes = {name: value for name, value in changes.items() if value is not None}
    trial = study.trial(seed=options.seed, size=options.size, device=device, **changes)
    say(announcement(study, options.size, trial, path, device))
    if options.resume:
        say(f"Going on from {path}." if going_on else f"There is nothing at {path} to go on from, so this starts anew.")
    history, card = studies.fit_and_evaluate(trial, path)
    minutes = f"after {history.seconds / 60:.1f} minutes of training"
    if not history.ended:
        say(f"\nStopped at step {history.step:,} of {history.total:,}, {minutes}. What it learned is in {path};")
        say("the same command with --resume goes on.")
        return 130
    say(f"\nThe run {history.stopped}, {minutes}.\n\n{report(card)}")
    say(f"\nThe model is in {path}. Look at it: flowlab sample {path} --grid digits.png")
    return 0


def listed() -> str:
    """All models with their sizes."""
    from flowlab.studies import MNIST

    lines = ["flowlab train MODEL --size SIZE. There are:"]
    for study in MNIST.values():
        lines += ["", study.name, f"  {study.about}"]
        lines += [f"  {name:8} {images(size.data)}; {size.cost}" for name, size in study.sizes.items()]
    return "\n".join(lines)


def images(data: str) -> str:
    """The images of a size, in words."""
    return "the full MNIST" if data == "full" else "the digits inside the package"


def announcement(study: ImageStudy, size: str, trial: ImageTrial, path: Path, device: str) -> str:
    """What a run is going to do."""
    import torch

    from flowlab.training import distributed

    chosen, settings = study.sizes[size], trial.settings
    learn, choose, test = (len(part.images) for part in trial.splits)
    batch, how_long = min(settings["batch_size"], learn), plural(settings["epochs"], "epoch")
    parameters = sum(p.numel() for p in trial.model.parameters())
    where = device if device != "cpu" else f"cpu, {plural(torch.get_num_threads(), 'thread')}"
    processes = f", {distributed.size()} processes" if distributed.size() > 1 else ""
    rest = {name: value for name, value in trial.card["training"].items() if name not in ("epochs", "batch_size")}
    return "\n".join(
        [
            f"{study.name}, size {size}: {study.about}",
            f"  model     {parameters:,} parameters",
            f"  data      {images(chosen.data)}: {learn:,} to learn from, {choose:,} to choose with, {test:,} to test",
            f"  training  {how_long} of {learn // batch} steps, batches of {batch}, seed {settings['seed']}",
            f"            {', '.join(f'{name} {value}' for name, value in rest.items())}",
            f"  takes     {chosen.cost}; here it is {where}{processes}",
            f"  writes    {path}",
            *(
                f"  or        --size {name}: {images(other.data)}; {other.cost}"
                for name, other in study.sizes.items()
                if name != size
            ),
            "",
        ]
    )
