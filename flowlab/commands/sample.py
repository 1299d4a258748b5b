"""`flowlab sample`: digits drawn from a model, as a picture."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from flowlab.commands.base import add_device, plural, reserved
from flowlab.commands.evaluate import of_digits

if TYPE_CHECKING:
    from torch import Tensor

    from flowlab.densities import Dequantized

SIDE = 3  # screen pixels for each pixel of a digit

ABOUT = "draw digits from a model, into a picture"
EXAMPLES = """\
flowlab sample glow_mnist --grid digits.png
flowlab sample glow_mnist --grid digits.png --n 100 --temperature 0.7 --seed 1
flowlab sample glow_mnist_full.safetensors --grid digits.png

A temperature below 1 draws nearer to the middle of the latent space: neater digits, less varied."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|CHECKPOINT", help="a name of 'flowlab models', or a file")
    parser.add_argument("--grid", type=Path, required=True, metavar="FILE.png", help="the picture to write")
    parser.add_argument("--n", type=int, default=64, help="how many digits (default: 64)")
    parser.add_argument("--temperature", type=float, default=1.0, help="factor on the latent draw (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    from flowlab.plotting import images

    if options.n < 1:
        raise ValueError(f"Expected --n of at least 1, but got {options.n}.")
    if not 0 < options.temperature < math.inf:
        raise ValueError(f"Expected --temperature above 0 and finite, but got {options.temperature:g}.")
    if options.grid.suffix.lower() != ".png":
        raise ValueError(f"Expected the name of a PNG, but got {options.grid}. Name it FILE.png.")
    model, _ = of_digits(options.model, options.device)
    with reserved(options.grid):
        digits = draw(model, options.n, options.temperature, options.seed)
        images.save_sheet(options.grid, digits.cpu() / (model.levels - 1), scale=SIDE)
    at = f" at temperature {options.temperature:g}" if options.temperature != 1 else ""
    print(f"{plural(options.n, 'digit')} drawn from {options.model}{at}: {options.grid}")
    return 0


def draw(model: Dequantized, n: int, temperature: float, seed: int) -> Tensor:
    """n digits ``(n, 784)``; ValueError where the model knows no temperature."""
    from torch import Generator

    from flowlab.densities import Flow
    from flowlab.densities.mixtures import FlowMixture

    generator = Generator(next(model.parameters()).device).manual_seed(seed)
    if temperature == 1:
        return model.sample(n, generator)
    if not isinstance(model.density, Flow | FlowMixture):
        raise ValueError(f"A {type(model.density).__name__} has no temperature. Leave it out.")
    return model.sample(n, generator, temperature=temperature)
