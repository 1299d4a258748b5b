"""Every model that ships is the file that it was, and gives the log-likelihoods that it gave.

    python tests/test_shipped.py    adds the numbers of models that have none yet, and changes no number

A number in ``data/shipped_log_probs.json`` that moves means that a released file now means something else.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from flowlab import pretrained
from flowlab.datasets import mnist

FILE = Path(__file__).parent / "data" / "shipped_log_probs.json"
KNOWN = json.loads(FILE.read_text(encoding="utf-8"))
PLANE = torch.stack([1.5 * torch.sin(torch.arange(12) * w + 0.3) for w in (1.0, 2.3)], dim=-1)  # (12, 2)


def digest(name: str) -> str:
    return hashlib.sha256((pretrained.FOLDER / f"{name}.safetensors").read_bytes()).hexdigest()


@torch.no_grad()
def log_probs(name: str) -> list[float]:
    """log p at twelve points of the plane, or of twelve digits at the middle of their bins; of mixtures also log q."""
    model = pretrained.load(name)
    density, x = model, PLANE
    if pretrained.cards()[name]["data"]["name"] == "mnist":
        density = model.density
        x = (mnist.digits("test")[0][:12].flatten(1) + 0.5) / 256
    values = [density.log_prob(x)]
    if hasattr(density, "log_posterior"):
        values.append(density.log_posterior(x).max(-1).values)
    return [round(value, 6) for value in torch.cat(values).double().tolist()]


def test_each_model_that_ships_has_its_numbers_here():
    assert KNOWN.keys() == pretrained.cards().keys(), f"run: python tests/{Path(__file__).name}"


@pytest.mark.parametrize("name", KNOWN)
def test_a_shipped_model_gives_the_numbers_that_it_gave(name):
    assert digest(name) == KNOWN[name]["sha256"], "the file has changed"
    assert log_probs(name) == pytest.approx(KNOWN[name]["log_probs"], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "mnist" in n else ()) for n in KNOWN])
def test_a_shipped_model_scores_its_own_samples(name):
    model = pretrained.load(name)
    n = 100 if "mnist" in name else 1000
    for density in (model, getattr(model, "density", model)):
        x = density.sample(n, torch.Generator().manual_seed(0))
        assert torch.isfinite(density.log_prob(x, generator=torch.Generator().manual_seed(0))).all()


if __name__ == "__main__":
    new = pretrained.cards().keys() - KNOWN.keys()
    KNOWN.update({name: {"sha256": digest(name), "log_probs": log_probs(name)} for name in sorted(new)})
    FILE.write_text(json.dumps(KNOWN, indent=1) + "\n", encoding="utf-8")
