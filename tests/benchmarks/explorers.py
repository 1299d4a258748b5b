"""How fast the explorers answer: kernel (control set to picture ready) and end to end (key press to changed picture).

    python tests/benchmarks/explorers.py [--kernel-only] [--only ScrubFlow,...] [--book FOLDER] [--start] [--json FILE]

Kernel: 95th percentile over a sweep of every slider, one thread. End to end: median over key presses in JupyterLab in
a headless Chromium, from the key press to the drawn canvas; and a count of blank frames seen while a slider is moved.
Play: the fewest drawn canvases a second, over the sliders of the explorer that play, from a second after the press.
Targets on two idle cores: kernel under 40 ms, end to end under 80 ms, no blank frame, at least 30 frames a second of
play; ScrubFlow (layers) and MagnifiedCell (maps of the plane) under 33 ms end to end.

`--book` measures the explorers of a book that `flowlab book` has written: from moving a slider to the drawn canvas,
with no kernel, and the bytes of each page. Targets: 33 ms, 3 MB a page, 40 MB in all.

`--start` measures another wait, in seconds: from `flowlab lab` to a first moved picture in notebook 00. Target: 15.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch

from flowlab.lessons import explorers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "browser"))

WATCH = """(canvas) => {
    window.flowlabSeen = { changed: 0 };
    new MutationObserver(() => { window.flowlabSeen.changed = performance.now(); })
        .observe(canvas, { attributes: true, attributeFilter: ["data-frames"] });
    window.addEventListener("keydown", () => { window.flowlabSeen.pressed = performance.now(); }, true);
}"""
# Apart from the clock, since reading pixels back takes time: a corner of the picture is opaque in every frame.
WATCH_BLANK = """(canvas) => {
    window.flowlabSeen.blank = 0;
    const look = () => {
        if (canvas.getContext("2d").getImageData(0, 0, 1, 1).data[3] !== 255) window.flowlabSeen.blank += 1;
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}"""
PLAYED = 2.0  # seconds of play that are counted
# From an input event to the picture on the canvas, a slider or a list at a time.
MOVE = """async (figure, moves) => {
    const { explorer } = figure, times = [];
    for (let n = 0; n < moves; n++) {
        const i = n % explorer.inputs.length, input = explorer.inputs[i];
        const count = explorer.tape.controls[i].shown.length;
        const to = (explorer.setting[i] + 1) % count, before = explorer.canvas.dataset.frames;
        if (input.type === "checkbox") input.checked = to === 1;
        else if (input.tagName === "SELECT") input.selectedIndex = to;
        else input.value = to;
        const start = performance.now();
        input.dispatchEvent(new Event("input"));
        while (explorer.canvas.dataset.frames === before) await new Promise((go) => setTimeout(go));
        times.push(performance.now() - start);
        await new Promise(requestAnimationFrame);
    }
    return times;
}"""
AT_END = "h => h.getAttribute('aria-valuenow') === h.getAttribute('aria-valuemax')"


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


def frames_a_second(page, explorer) -> float | None:
    """The fewest frames a second of any slider that plays; None where none does."""
    canvas, found = explorer.locator("canvas.flowlab-picture"), []
    for button in explorer.locator(".flowlab-play").all():
        button.locator("xpath=..").locator(".noUi-handle").focus()
        page.keyboard.press("Home")
        page.wait_for_timeout(500)
        button.click()
        page.wait_for_timeout(1000)
        count = "c => [Number(c.dataset.frames), performance.now()]"
        before, start = canvas.evaluate(count)
        page.wait_for_timeout(1000 * PLAYED)
        after, end = canvas.evaluate(count)
        found.append(1000 * (after - before) / (end - start))
        if button.get_attribute("title").startswith("Pause"):
            button.click()
        page.wait_for_timeout(500)
    return min(found, default=None)


def end_to_end(names: list[str], presses: int = 25) -> dict[str, tuple[float, int, float | None]]:
    """Median milliseconds from key press to changed picture, blank frames, and frames a second of play, for each."""
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
                    canvas = explorer.locator("canvas.flowlab-picture")
                    canvas.evaluate(WATCH)
                    handle.focus()
                    keys = ("ArrowLeft", "ArrowRight") if handle.evaluate(AT_END) else ("ArrowRight", "ArrowLeft")

                    def time_press(key, page=page):
                        page.evaluate("() => { window.flowlabSeen.changed = 0; }")
                        page.keyboard.press(key)
                        page.wait_for_function("() => window.flowlabSeen.changed > 0", timeout=5000, polling=10)
                        page.wait_for_timeout(60)
                        return page.evaluate("() => window.flowlabSeen.changed - window.flowlabSeen.pressed")

                    times = [time_press(keys[i % 2]) for i in range(presses)]
                    canvas.evaluate(WATCH_BLANK)
                    for i in range(10):
                        time_press(keys[(presses + i) % 2])
                    blank = page.evaluate("() => window.flowlabSeen.blank")
                    page.reload()  # without the two watchers, which take time of their own
                    lab.open_and_run(page, address, f"{name}.ipynb")
                    measured[name] = (float(np.median(times)), blank, frames_a_second(page, explorer))
    return measured


def book(folder: Path, moves: int = 25) -> list[dict[str, float | str]]:
    """For each explorer of a book: its page, the bytes of that page and of the tape, and milliseconds to the frame."""
    import lab

    records: list[dict[str, float | str]] = []
    with lab.chromium() as page:
        for file in sorted(folder.glob("*.html")):
            page.goto(file.as_uri())
            asked = {
                file,
                *(
                    file.parent / name
                    for name in re.findall(r'(?:href|src)="([^"#:]+[.](?:css|js|png))"', file.read_text())
                ),
            }
            tapes = {
                key: folder / "tapes" / f"{key}.js" for key in re.findall(r'data-tape="([^"]+)"', file.read_text())
            }
            size = sum(path.stat().st_size for path in {*asked, *tapes.values()})
            for key, tape in tapes.items():
                figure = page.locator(f"figure[data-tape='{key}']")
                figure.scroll_into_view_if_needed()
                page.locator(f"figure[data-tape='{key}'][data-ready]").wait_for(timeout=60_000)
                times = figure.evaluate(MOVE, moves)
                record = {"explorer": key, "page": file.name, "page_bytes": size, "tape_bytes": tape.stat().st_size}
                records.append(
                    {**record, "median_ms": float(np.median(times)), "p95_ms": float(np.percentile(times, 95))}
                )
    return records


def start() -> dict[str, float]:
    """Seconds from `flowlab lab` to each station on the way to a first moved picture in notebook 00."""
    import lab

    command = [sys.executable, "-c", "import sys; from flowlab.commands import main; sys.exit(main(sys.argv[1:]))"]
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        root = Path(folder)
        settings = {"IdentityProvider": {"token": ""}, "LabApp": {"expose_app_in_browser": True}}
        (root / "jupyter_lab_config.json").write_text(json.dumps(settings))
        places = {f"JUPYTER_{what}": str(root / what) for what in ("RUNTIME_DIR", "DATA_DIR")}
        places |= {f"JUPYTERLAB_{what}": str(root / what) for what in ("SETTINGS_DIR", "WORKSPACES_DIR")}
        environment = os.environ | places | {"JUPYTER_CONFIG_DIR": folder}
        subprocess.run([*command, "copy", str(root / "course")], check=True, stdout=subprocess.DEVNULL)
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        free.close()
        seconds, before = {}, time.perf_counter()

        def reached(station):
            seconds[station] = time.perf_counter() - before

        options = ["lab", "--in", str(root / "course"), "--no-browser", "--port", address.rpartition(":")[2]]
        with (root / "log").open("w") as log:
            server = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)
        try:
            with lab.chromium() as page:
                while True:
                    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api", timeout=2):
                        break
                    if server.poll() is not None:
                        raise RuntimeError(f"flowlab lab did not start:\n{(root / 'log').read_text()}")
                    time.sleep(0.1)
                reached("the server answers")
                lab.open_notebook(page, address, "00_start_here.ipynb")
                reached("the notebook is open, and its kernel answers")
                page.evaluate(
                    """async () => {
                        const notebook = window.flowlabPanel.content, { commands } = window.jupyterapp;
                        const isFirst = (cell) => cell.model.sharedModel.source.includes("BendTheGaussian()");
                        const first = notebook.widgets.findIndex(isFirst);
                        notebook.activeCellIndex = first;
                        commands.execute("notebook:run-all-above");
                        notebook.activeCellIndex = first;
                        commands.execute("notebook:run-cell");
                    }"""
                )
                handle = page.locator(".flowlab-explorer .noUi-handle").first
                handle.wait_for(timeout=60_000)
                canvas = page.locator("canvas.flowlab-picture[data-frames]")
                canvas.wait_for(timeout=60_000)
                reached("the first picture is there")
                canvas.evaluate(WATCH)
                handle.focus()
                page.keyboard.press("ArrowLeft" if handle.evaluate(AT_END) else "ArrowRight")
                page.wait_for_function("() => window.flowlabSeen.changed > 0", timeout=5000, polling=10)
                reached("it has moved")
        finally:
            server.terminate()
            server.wait(10)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel-only", action="store_true", help="leave the browser out")
    parser.add_argument("--only", help="names of explorers, with commas")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--start", action="store_true", help="measure the way from `flowlab lab` to a moved picture")
    parser.add_argument(
        "--book", type=Path, metavar="FOLDER", help="measure a book that flowlab book has written there"
    )
    options = parser.parse_args()
    if options.book:
        found = book(options.book)
        print(f"{'explorer':<40}{'median':>8}{'p95':>8} ms{'tape':>9}{'page':>9} kB")
        for line in found:
            sizes = f"{line['tape_bytes'] / 1e3:9.0f}{line['page_bytes'] / 1e3:9.0f}"
            print(f"{line['explorer']:<40}{line['median_ms']:8.1f}{line['p95_ms']:8.1f}   {sizes}    {line['page']}")
        everything = sum(path.stat().st_size for path in options.book.rglob("*") if path.is_file())
        print(f"the whole book: {everything / 1e6:.1f} MB")
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))
        return
    if options.start:
        seconds = start()
        for station, when in seconds.items():
            print(f"{when:6.1f} s  {station}")
        if options.json:
            options.json.write_text(json.dumps(seconds, indent=1))
        return
    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else list(explorers())
    browser = {} if options.kernel_only else end_to_end(names)
    records = []
    heads = f"{'explorer':<24}{'kernel p95':>12}{'median':>9}{'end to end':>12}{'blank':>7}{'play':>7}"
    print(f"{heads}   (ms, and frames a second)")
    for name in names:
        times = kernel_times(explorers()[name]())
        record = {
            "explorer": name,
            "kernel_p95_ms": float(np.percentile(times, 95)),
            "kernel_ms": float(np.median(times)),
        }
        record |= dict(
            zip(("end_to_end_ms", "blank_frames", "frames_a_second"), browser.get(name, (None,) * 3), strict=True)
        )
        records.append(record)
        shown = [
            f"{v:.1f}" if isinstance(v, float) else "-" if v is None else str(v) for v in list(record.values())[1:]
        ]
        print(f"{name:<24}{shown[0]:>12}{shown[1]:>9}{shown[2]:>12}{shown[3]:>7}{shown[4]:>7}")
    if options.json:
        options.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
