"""`flowlab evaluate`: the likelihood of a model of digits, with its protocol."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowlab.commands.base import add_device, chosen, reserved

if TYPE_CHECKING:
    from flowlab.densities import Dequantized

ABOUT = "print the likelihood of a model of digits, with its protocol; of a mixture also how well it clusters"
EXAMPLES = """\
flowlab evaluate glow_mnist                  one that ships, on the 1,000 test digits inside the package
flowlab evaluate glow_mnist --data full      on all 10,000
flowlab evaluate glow_mnist --ood            and on images that are no digits
flowlab evaluate nice_mnist_quick.safetensors --draws 10 --json nice.json"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|CHECKPOINT", help="a name of 'flowlab models', or a file")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help="(default: test)")
    parser.add_argument("--data", choices=("bundled", "full"), default="bundled", help="(default: bundled)")
    parser.add_argument("--draws", type=int, default=1, help="of the noise; more are a tighter bound (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--ood", action="store_true", help="also the likelihood of what is no digit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it here too")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    from flowlab import evaluation, studies

    model, card = of_digits(options.model, options.device)
    digits = tuple(card.get("plan", {}).get("digits", range(10)))
    how = {"draws": options.draws, "seed": options.seed}
    with reserved(options.json):
        images = getattr(studies.splits(options.data, digits), options.split)
        result = {
            "model": options.model,
            "about": card.get("about", ""),
            "chosen": card.get("chosen", ""),
            **evaluation.evaluate(model, *images, split=studies.named(options.data, options.split), **how),
        }
        if options.ood:
            result["out_of_distribution"] = evaluation.out_of_distribution(model, images.images, **how)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(report(result))
    if options.json:
        print(f"Written to {options.json}.")
    return 0


def report(result: dict[str, Any]) -> str:
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


def of_digits(name: str, device: str) -> tuple[Dequantized, dict[str, Any]]:
    """The model of digits of that name or file, on the device, and its card; ValueError for another."""
    from flowlab import pretrained
    from flowlab.densities import Dequantized

    model, card = pretrained.find(name)
    if not isinstance(model, Dequantized):
        there = [known for known, one in pretrained.cards().items() if one["data"]["name"] == "mnist"]
        raise ValueError(
            f"{name} is a {type(model).__name__} of points, and this command is for models of digits: "
            f"{', '.join(there)}, or a file of `flowlab train`. `flowlab models` says how good the others are."
        )
    return model.to(chosen(device)), card
