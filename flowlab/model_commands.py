"""The commands about models of digits: `flowlab train`, `evaluate`, `sample` and `models`."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from flowlab import evaluation, pretrained, recipes
from flowlab.densities import Dequantized, Flow
from flowlab.densities.mixtures import FlowMixture
from flowlab.recipes import RECIPES, Recipe, Trial, mixtures
from flowlab.training import distributed

DEVICES = ("auto", "cpu", "cuda")
SIDE = 3  # screen pixels for each pixel of a digit


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the four commands: ``command(name, run, description, examples)`` gives the parser of each."""
    train = command(
        "train",
        _train,
        "train a model of digits by its recipe, in a size for this machine",
        "flowlab train                                   the recipes, their sizes and what each takes\n"
        "flowlab train nice_mnist                        the quick size, on the digits inside the package\n"
        "flowlab train glow_mnist --size full --out runs the full MNIST, on a GPU if there is one\n"
        "flowlab train glow_mnist --size full --out runs --resume\n"
        "torchrun --nproc-per-node 2 --no-python flowlab train glow_mnist --size full\n\n"
        "Stop it when you like, with Ctrl-C or any other way: --resume goes on from the last checkpoint. At the end\n"
        "it is evaluated on the test images, and the card with the numbers is in the file. OMP_NUM_THREADS says how\n"
        "many cores it may use.",
    )
    train.add_argument("recipe", nargs="?", help="name of a recipe; none lists them")
    train.add_argument("--size", default="quick", help="quick, full, or what else there is of it (default: quick)")
    train.add_argument("--out", dest="folder", type=Path, default=Path(), help="folder for the file (default: here)")
    train.add_argument("--resume", action="store_true", help="go on where the file there stands")
    train.add_argument("--seed", type=int, default=0, help="of starting weights, batches and noise (default: 0)")
    train.add_argument("--epochs", type=_count, help="in place of the size's own, as are the next two")
    train.add_argument("--batch-size", type=_count)
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--shards", type=_count, help="send each batch through in so many parts, in less memory")
    _device(train)

    evaluate = command(
        "evaluate",
        _evaluate,
        "print the likelihood of a model of digits, with its protocol; of a mixture also how well it clusters",
        "flowlab evaluate glow_mnist                  one that ships, on the 1,000 test digits inside the package\n"
        "flowlab evaluate glow_mnist --data full      on all 10,000\n"
        "flowlab evaluate glow_mnist --ood            and on images that are no digits\n"
        "flowlab evaluate nice_mnist_quick.safetensors --draws 10 --json nice.json",
    )
    evaluate.add_argument("model", metavar="NAME|CHECKPOINT", help="a name of 'flowlab models', or a file")
    evaluate.add_argument("--split", choices=recipes.Splits._fields, default="test", help="(default: test)")
    evaluate.add_argument("--data", choices=("bundled", "full"), default="bundled", help="(default: bundled)")
    evaluate.add_argument("--draws", type=int, default=1, help="of the noise; more are a tighter bound (default: 1)")
    evaluate.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    evaluate.add_argument("--ood", action="store_true", help="also the likelihood of what is no digit")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write all of it here too")
    _device(evaluate)

    sample = command(
        "sample",
        _sample,
        "draw digits from a model, into a picture",
        "flowlab sample glow_mnist --grid digits.png\n"
        "flowlab sample glow_mnist --grid digits.png --n 100 --temperature 0.7 --seed 1\n"
        "flowlab sample glow_mnist_full.safetensors --grid digits.png\n\n"
        "A temperature below 1 draws nearer to the middle of the latent space: neater digits, less varied.",
    )
    sample.add_argument("model", metavar="NAME|CHECKPOINT", help="a name of 'flowlab models', or a file")
    sample.add_argument("--grid", type=Path, required=True, metavar="FILE.png", help="the picture to write")
    sample.add_argument("--n", type=int, default=64, help="how many digits (default: 64)")
    sample.add_argument("--temperature", type=float, default=1.0, help="factor on the latent draw (default: 1)")
    sample.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    _device(sample)

    ablation = command(
        "ablation",
        _ablation,
        "fit a mixture of digits with one ingredient of its recipe left out at a time, over seeds",
        "flowlab ablation mixture_mnist --seeds 3 --json ablation.json\n"
        "flowlab ablation mixture_mnist_five --size compact --variants all --seeds 5\n"
        "flowlab ablation --known                       the records that notebook 16 shows\n\n"
        "A fit of the quick size takes a minute or so of one core. The file is written after each; the same command\n"
        "again goes on from it.",
    )
    names = [recipe.name for recipe in mixtures.MIXTURES]
    ablation.add_argument("recipe", nargs="?", choices=names, default="mixture_mnist", help="(default: mixture_mnist)")
    ablation.add_argument("--size", default="quick", help="quick, compact or full (default: quick)")
    ablation.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    ablation.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    ablation.add_argument("--variants", nargs="+", metavar="VARIANT", help=f"of {', '.join(mixtures.VARIANTS)}")
    ablation.add_argument("--epochs", type=int, help="in place of the size's own")
    ablation.add_argument("--json", type=Path, metavar="FILE", help="write one record a seed and variant here")
    ablation.add_argument("--known", action="store_true", help="run nothing: print what the package holds")

    models = command(
        "models",
        _models,
        "list the trained models inside the package",
        "flowlab models           one line each\nflowlab models --json    their whole cards",
    )
    models.add_argument(
        "--json", action="store_true", help="print the cards: recipe, data, training, protocol, metrics"
    )


def _count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, but got {text!r}")
    return int(text)


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto is a GPU if there is one (default)")


def _chosen(device: str) -> str:
    """The device to compute on; ValueError where a GPU was asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU, and torch finds none here. Leave it out, or say --device cpu.")
    return "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")


# --- train --------------------------------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> int:
    if options.recipe is None:
        print(_recipes())  # noqa: T201
        return 0
    if options.recipe not in RECIPES:
        raise ValueError(f"The recipes are {', '.join(RECIPES)}, but {options.recipe!r} was asked for.")
    recipe = RECIPES[options.recipe]
    recipe.size(options.size)
    with distributed.launched(_chosen(options.device)) as device:
        return _train_on(recipe, options, str(device))


def _train_on(recipe: Recipe, options: argparse.Namespace, device: str) -> int:
    path = options.folder / f"{recipe.name}_{options.size}{f'_{options.seed}' if options.seed else ''}.safetensors"
    say = print if distributed.rank() == 0 else lambda *_: None  # of several processes one speaks
    going_on = path.exists() or path.with_name(f"{path.stem}.training{path.suffix}").exists()
    if going_on and not options.resume:
        raise ValueError(f"{path} is there already. Go on from it with --resume, or name another folder with --out.")
    changes = {name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate", "shards")}
    changes = {name: value for name, value in changes.items() if value is not None}
    trial = recipe.trial(options.size, options.seed, device=device, **changes)
    say(_announcement(recipe, options.size, trial, path, device))
    if options.resume:
        say(f"Going on from {path}." if going_on else f"There is nothing at {path} to go on from, so this starts anew.")
    history, card = recipes.train(trial, path)
    minutes = f"after {history.seconds / 60:.1f} minutes of training"
    if not history.ended:
        say(f"\nStopped at step {history.step:,} of {history.total:,}, {minutes}. What it learned is in {path};")
        say("the same command with --resume goes on.")
        return 130
    say(f"\nThe run {history.stopped}, {minutes}.\n\n{_report(card)}")
    say(f"\nThe model is in {path}. Look at it: flowlab sample {path} --grid digits.png")
    return 0


def _recipes() -> str:
    """All recipes with their sizes."""
    lines = ["flowlab train RECIPE --size SIZE. There are:"]
    for recipe in RECIPES.values():
        lines += ["", recipe.name, f"  {recipe.about}"]
        lines += [f"  {name:8} {_images(size.data)}; {size.cost}" for name, size in recipe.sizes.items()]
    return "\n".join(lines)


def _images(data: str) -> str:
    return "the full MNIST" if data == "full" else "the digits inside the package"


def _announcement(recipe: Recipe, size: str, trial: Trial, path: Path, device: str) -> str:
    """What a run is going to do."""
    chosen, settings = recipe.sizes[size], trial.settings
    learn, choose, test = (len(part.images) for part in trial.splits)
    batch, how_long = min(settings["batch_size"], learn), _plural(settings["epochs"], "epoch")
    parameters = sum(p.numel() for p in trial.model.parameters())
    where = device if device != "cpu" else f"cpu, {_plural(torch.get_num_threads(), 'thread')}"
    processes = f", {distributed.size()} processes" if distributed.size() > 1 else ""
    rest = {name: value for name, value in trial.card["training"].items() if name not in ("epochs", "batch_size")}
    return "\n".join(
        [
            f"{recipe.name}, size {size}: {recipe.about}",
            f"  model     {parameters:,} parameters",
            f"  data      {_images(chosen.data)}: {learn:,} to learn from, {choose:,} to choose with, {test:,} to test",
            f"  training  {how_long} of {learn // batch} steps, batches of {batch}, seed {settings['seed']}",
            f"            {', '.join(f'{name} {value}' for name, value in rest.items())}",
            f"  takes     {chosen.cost}; here it is {where}{processes}",
            f"  writes    {path}",
            *(
                f"  or        --size {name}: {_images(other.data)}; {other.cost}"
                for name, other in recipe.sizes.items()
                if name != size
            ),
            "",
        ]
    )


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def _ablation(options: argparse.Namespace) -> int:
    if options.known:
        print(mixtures.table(mixtures.known()))  # noqa: T201
        return 0
    torch.set_num_threads(1)  # so that the seconds can be compared
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    changes = {} if options.epochs is None else {"epochs": options.epochs}
    variants = options.variants or tuple(mixtures.VARIANTS)
    recipe = RECIPES[options.recipe]
    records = []
    for record in mixtures.ablation(seeds, variants, recipe=recipe, size=options.size, path=options.json, **changes):
        records.append(record)
        print(f"seed {record.seed}, {record.variant}: {record.accuracy:.2%}, {record.seconds:.0f} s", flush=True)  # noqa: T201
    print(f"\n{mixtures.table(records)}")  # noqa: T201
    return 0


# --- evaluate, sample, models ---------------------------------------------------------------------------------------


def _of_digits(name: str, device: str) -> tuple[Dequantized, dict[str, Any]]:
    """The model of digits of that name or file, on the device, and its card."""
    model, card = pretrained.find(name)
    if not isinstance(model, Dequantized):
        there = [known for known, one in pretrained.cards().items() if one["data"]["name"] == "mnist"]
        raise ValueError(
            f"{name} is a {type(model).__name__} of points, and this command is for models of digits: "
            f"{', '.join(there)}, or a file of `flowlab train`. `flowlab models` says how good the others are."
        )
    return model.to(_chosen(device)), card


@contextlib.contextmanager
def _reserved(file: Path | None) -> Iterator[None]:
    """OSError now, and not after minutes of work, for a file that cannot be written; work that fails leaves none."""
    if file is None:
        yield
        return
    new = not file.exists()
    file.open("ab").close()
    try:
        yield
    except BaseException:
        if new:
            file.unlink()
        raise


def _evaluate(options: argparse.Namespace) -> int:
    model, card = _of_digits(options.model, options.device)
    digits = tuple(card.get("plan", {}).get("digits", range(10)))
    how = {"draws": options.draws, "seed": options.seed}
    with _reserved(options.json):
        images = getattr(recipes.splits(options.data, digits), options.split)
        result = {
            "model": options.model,
            "about": card.get("about", ""),
            "chosen": card.get("chosen", ""),
            **evaluation.evaluate(model, *images, split=recipes.named(options.data, options.split), **how),
        }
        if options.ood:
            result["out_of_distribution"] = evaluation.out_of_distribution(model, images.images, **how)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(_report(result))  # noqa: T201
    if options.json:
        print(f"Written to {options.json}.")  # noqa: T201
    return 0


def _report(result: dict[str, Any]) -> str:
    """What ``evaluation.evaluate`` found, in lines: numbers first, and under them what they are numbers of."""
    metrics = result["metrics"]
    error = metrics["standard_error"]
    lines = [
        f"{metrics['bits_per_dim']:9.4f} {'' if error is None else f'± {error:.4f} '}bits per dimension",
        f"{metrics['nats_unit']:9.2f} nats on [0, 1]",
        f"{metrics['nats_logit']:9.2f} nats of the logits",
    ]
    by_digit = metrics["bits_per_dim_by_digit"]
    lines += ["", "digit     " + "".join(f"{digit:>7}" for digit in by_digit)]
    lines += ["bits/dim  " + "".join(f"{bits:7.3f}" for bits in by_digit.values())]
    if "accuracy" in metrics:
        lines += ["", f"{100 * metrics['accuracy']:9.2f} % right after matching, NMI {metrics['nmi']:.4f}"]
        lines += [f"digit {digit} by component: {counts}" for digit, counts in metrics["contingency"].items()]
    if "out_of_distribution" in result:
        lines += ["", "what it is shown          bits/dim   passes a threshold that 95 % of the test images pass"]
        lines += [
            f"{name:24} {of['bits_per_dim']:9.3f} {100 * of['accepted']:8.0f} %"
            for name, of in result["out_of_distribution"].items()
        ]
        lines += ["Where others pass as often as test images or oftener, likelihood does not tell them apart."]
    chosen = f"\nThe weights are {result['chosen']}." if result.get("chosen") else ""
    return "\n".join([*lines, "", f"Protocol: {result['protocol']}.{chosen}"])


def _sample(options: argparse.Namespace) -> int:
    from flowlab.plotting import images

    if options.n < 1 or not 0 < options.temperature < math.inf:
        raise ValueError(f"Expected --n of at least 1 and --temperature above 0, and finite, but got "
                         f"{options.n} and {options.temperature:g}.")  # fmt: skip
    if options.grid.suffix.lower() != ".png":
        raise ValueError(f"The picture is a PNG, but {options.grid} was to be written. Name it FILE.png.")
    model, _ = _of_digits(options.model, options.device)
    with _reserved(options.grid):
        digits = draw(model, options.n, options.temperature, options.seed)
        images.save_sheet(options.grid, digits.cpu() / (model.levels - 1), scale=SIDE)
    at = f" at temperature {options.temperature:g}" if options.temperature != 1 else ""
    print(f"{_plural(options.n, 'digit')} drawn from {options.model}{at}: {options.grid}")  # noqa: T201
    return 0


def draw(model: Dequantized, n: int, temperature: float, seed: int) -> torch.Tensor:
    """n digits ``(n, 784)``; ValueError where the model knows no temperature."""
    generator = Generator(next(model.parameters()).device).manual_seed(seed)
    if temperature == 1:
        return model.sample(n, generator)
    if not isinstance(model.density, Flow | FlowMixture):
        raise ValueError(f"A {type(model.density).__name__} has no temperature. Leave it out.")
    return model.sample(n, generator, temperature=temperature)


def _models(options: argparse.Namespace) -> int:
    cards, left_out = pretrained.cards(), pretrained.left_out()
    if options.json:
        inside = {name: {"inside": name in cards, **card} for name, card in (cards | left_out).items()}
        print(json.dumps(inside, indent=1, ensure_ascii=False))  # noqa: T201
        return 0
    sizes = {name: (pretrained.FOLDER / f"{name}.safetensors").stat().st_size for name in cards}
    rows = [(name, *_summary(card), f"{sizes[name] / 1000:,.0f} kB") for name, card in cards.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())  # noqa: T201
    print(  # noqa: T201
        "\nbits/dim: a bound by dequantization, on test images of MNIST. nats: the mean log-density on fresh points,\n"
        f"below that of the exact density. {sum(sizes.values()) / 1e6:.1f} MB in all. The whole protocol of each: "
        "flowlab models --json."
    )
    if left_out:
        print("\nMeasured like these, and too large to be inside:")  # noqa: T201
    for name, card in left_out.items():
        metrics = card["metrics"]
        print(  # noqa: T201
            f"{name}: {metrics['bits_per_dim']:.3f} bits/dim, {metrics['nats_logit']:.1f} nats of the logits; "
            f"{card['minutes']:.0f} minutes by {card['command']}"
        )
    return 0


def _summary(card: dict[str, Any]) -> tuple[str, str, str]:
    """What it is, what it learned from, and how good it is."""
    metrics, data = card["metrics"], card["data"]
    if data["name"] != "mnist":
        return card["recipe"]["name"], data["name"], f"{metrics['gap']:.3f} nats below"
    number = f"{metrics['bits_per_dim']:.3f} bits/dim"
    if "accuracy" in metrics:
        number = f"{100 * metrics['accuracy']:.1f} % right, {number}"
    return card["recipe"]["settings"]["density"]["name"], f"mnist, {data['training']:,} images", number
