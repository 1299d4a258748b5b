"""How fast the explorers answer: kernel (control set to picture bytes) and end to end (key press to changed picture).

    python tests/benchmarks/explorers.py [--kernel-only] [--json FILE]

Kernel: 95th percentile over a sweep of every slider, one thread. End to end: median over key presses in JupyterLab in
a headless Chromium, from the key press to the loaded picture; and a count of blank frames seen on the way.
Targets: kernel under 60 ms, end to end under 100 ms, no blank frame.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch

from flowlab.widgets import explorers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "browser"))

WATCH = """(image) => {
    window.flowlabSeen = { changed: 0, blank: 0 };
    const look = () => {
        if (image.isConnected && image.complete && image.naturalWidth === 0) window.flowlabSeen.blank += 1;
        requestAnimationFrame(look);
    };
    image.addEventListener("load", () => { window.flowlabSeen.changed = performance.now(); });
    window.addEventListener("keydown", () => { window.flowlabSeen.pressed = performance.now(); }, true);
    requestAnimationFrame(look);
}"""


def kernel_times(explorer, steps: int = 25) -> list[float]:
    """Milliseconds from setting a slider to having the picture, over a sweep of each slider."""
    times = []
    for control in explorer.controls.values():
        default = control.value
        if isinstance(control, widgets.SelectionSlider):
            values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        elif hasattr(control, "min"):
            values = sorted({type(default)(value) for value in np.linspace(control.min, control.max, steps)})
        else:
            continue
        for value in (v for v in values if v != control.value):
            start = time.perf_counter()
            control.value = value
            times.append(1000 * (time.perf_counter() - start))
        control.value = default
    return times


def end_to_end(names: list[str], presses: int = 25) -> dict[str, tuple[float, int]]:
    """Median milliseconds from key press to changed picture, and blank frames, for each explorer."""
    import lab

    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = explorers()
        for name in names:
            cell = f"from {found[name].__module__} import {name}\n{name}()"
            lab.write_notebook(root / f"{name}.ipynb", ["import torch\ntorch.set_num_threads(1)", cell])
        with lab.jupyterlab(root) as address:
            for name in names:
                with lab.chromium() as page:
                    lab.open_and_run(page, address, f"{name}.ipynb")
                    explorer = page.locator(f".flowlab-explorer.{name}")
                    handle = explorer.locator(".noUi-handle").first
                    explorer.locator("img.flowlab-picture").evaluate(WATCH)
                    handle.focus()
                    at_end = "h => h.getAttribute('aria-valuenow') === h.getAttribute('aria-valuemax')"
                    keys = ("ArrowLeft", "ArrowRight") if handle.evaluate(at_end) else ("ArrowRight", "ArrowLeft")
                    times = []
                    for i in range(presses):
                        page.evaluate("() => { window.flowlabSeen.changed = 0; }")
                        page.keyboard.press(keys[i % 2])
                        page.wait_for_function("() => window.flowlabSeen.changed > 0", timeout=5000, polling=10)
                        times.append(page.evaluate("() => window.flowlabSeen.changed - window.flowlabSeen.pressed"))
                        page.wait_for_timeout(60)
                    measured[name] = (float(np.median(times)), page.evaluate("() => window.flowlabSeen.blank"))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel-only", action="store_true", help="leave the browser out")
    parser.add_argument("--only", help="names of explorers, with commas")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else list(explorers())
    browser = {} if options.kernel_only else end_to_end(names)
    records = []
    print(f"{'explorer':<24}{'kernel p95':>12}{'median':>9}{'end to end':>12}{'blank':>7}   (ms)")
    for name in names:
        times = kernel_times(explorers()[name]())
        record = {
            "explorer": name,
            "kernel_p95_ms": float(np.percentile(times, 95)),
            "kernel_ms": float(np.median(times)),
        }
        record |= dict(zip(("end_to_end_ms", "blank_frames"), browser.get(name, (None, None)), strict=True))
        records.append(record)
        shown = [
            f"{v:.1f}" if isinstance(v, float) else "-" if v is None else str(v) for v in list(record.values())[1:]
        ]
        print(f"{name:<24}{shown[0]:>12}{shown[1]:>9}{shown[2]:>12}{shown[3]:>7}")
    if options.json:
        options.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
