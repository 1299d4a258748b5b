"""`flowlab models`: the trained models inside the package."""

from __future__ import annotations

import argparse
import json
from typing import Any

ABOUT = "list the trained models inside the package"
EXAMPLES = """\
flowlab models           one line each
flowlab models --json    their whole cards"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print the cards: recipe, data, training, protocol, metrics"
    )


def run(options: argparse.Namespace) -> int:
    from flowlab import pretrained

    cards, left_out = pretrained.cards(), pretrained.left_out()
    if options.json:
        inside = {name: {"inside": name in cards, **card} for name, card in (cards | left_out).items()}
        print(json.dumps(inside, indent=1, ensure_ascii=False))
        return 0
    sizes = {name: (pretrained.FOLDER / f"{name}.safetensors").stat().st_size for name in cards}
    rows = [(name, *_summary(card), f"{sizes[name] / 1000:,.0f} kB") for name, card in cards.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    print(
        "\nbits/dim: a bound by dequantization, on test images of MNIST. nats: the mean log-density on fresh points,\n"
        f"below that of the exact density. {sum(sizes.values()) / 1e6:.1f} MB in all. The whole protocol of each: "
        "flowlab models --json."
    )
    if left_out:
        print("\nMeasured like these, and too large to be inside:")
    for name, card in left_out.items():
        metrics = card["metrics"]
        print(
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
