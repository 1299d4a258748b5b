"""Log-likelihoods of every shipped model at fixed points: `python tests/shipped_log_probs.py` compares them.

The numbers in ``data/shipped_log_probs.json`` were computed before the package was reordered. A change that moves one
of them has changed what a shipped file means.
"""

import json
import sys
from pathlib import Path

import torch

from flowlab import pretrained
from flowlab.datasets import mnist

FILE = Path(__file__).parent / "data" / "shipped_log_probs.json"
PLANE = torch.stack([1.5 * torch.sin(torch.arange(12) * w + 0.3) for w in (1.0, 2.3)], dim=-1)  # (12, 2)


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


def main() -> int:
    now = {name: log_probs(name) for name in pretrained.cards()}
    if not FILE.exists():
        FILE.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        return 0
    known = json.loads(FILE.read_text(encoding="utf-8"))
    worst = {n: max(abs(a - b) / max(1, abs(b)) for a, b in zip(now[n], known[n], strict=True)) for n in known}
    for name, error in worst.items():
        print(f"{error:.1e}  {name}")
    return int(max(worst.values()) > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
