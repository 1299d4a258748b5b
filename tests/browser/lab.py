"""JupyterLab in a headless Chromium: start both, open a notebook, run it, move the controls by keyboard."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

import flowlab

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browser_path() -> str | None:
    """Where a Chromium or Chrome is, if anywhere; FLOWLAB_BROWSER names another."""
    return os.environ.get("FLOWLAB_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def jupyterlab(root: Path) -> Iterator[str]:
    """A JupyterLab on the loopback that serves ``root`` and keeps its settings there; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = root / ".lab" / "settings" / "@jupyterlab"
    for name, content in (
        ("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False}),
        ("notebook-extension/tracker", {"windowingMode": "none"}),
    ):
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(settings.parent),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / ".lab" / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(root / ".lab" / "runtime"),
        "JUPYTER_CONFIG_DIR": str(root / ".lab" / "config"),
        "JUPYTER_CONFIG_PATH": str(Path(flowlab.__file__).parent / "commands" / "jupyter"),  # as `flowlab lab` sets it
        "OMP_NUM_THREADS": "1",
    }
    options = ["--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"]
    options += ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", "--allow-root"]
    log = (root / ".lab" / "server.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={root}"],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api", timeout=2):
                break
            if server.poll() is not None:
                raise RuntimeError(f"JupyterLab did not start:\n{(root / '.lab' / 'server.log').read_text()}")
            time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()
        log.close()


@contextlib.contextmanager
def chromium() -> Iterator:
    """A headless Chromium page."""
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=[*quiet, "--disable-sync"])
        try:
            yield browser.new_page(viewport={"width": 1280, "height": 1000})
        finally:
            browser.close()


def write_notebook(path: Path, sources: list[str]) -> Path:
    """A notebook of these code cells."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [new_code_cell(source) for source in sources]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def open_notebook(page, address: str, path: str) -> None:
    """Open a notebook in Lab, and wait until its kernel answers."""
    page.goto(f"{address}/lab/tree/{path}", wait_until="domcontentloaded")
    # An idle toolbar is not readiness: run-all is dropped in silence until the kernel has answered.
    page.wait_for_function(
        """(path) => {
            const app = window.jupyterapp;
            if (!app || !app.shell) return false;
            const panel = [...app.shell.widgets("main")].find(w => w.context && w.context.path === path);
            const kernel = panel && panel.context.isReady && panel.sessionContext.session?.kernel;
            if (!kernel || !panel.sessionContext.isReady || kernel.status !== "idle") return false;
            window.flowlabPanel = panel;
            return true;
        }""",
        arg=path,
        timeout=60_000,
        polling=200,
    )


def open_and_run(page, address: str, path: str, timeout: float = 120) -> None:
    """Open a notebook in Lab, wait until its kernel answers, run all cells, and wait until they are done."""
    open_notebook(page, address, path)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(
        """() => {
            const cells = window.flowlabPanel.content.widgets.map(c => c.model);
            const code = cells.filter(c => c.type === "code" && c.sharedModel.source);
            return code.length && code.every(c => c.executionCount !== null && c.executionState !== "running");
        }""",
        timeout=timeout * 1000,
    )


def picture(explorer) -> tuple[np.ndarray, list]:
    """The picture an explorer shows now, as pixels of the size that the kernel draws, and where its axes are."""
    canvas = explorer.locator("canvas.flowlab-picture")
    url, size, regions = canvas.evaluate("c => [c.toDataURL(), c.dataset.size, c.dataset.regions]")
    return pixels_of(url.partition(",")[2], json.loads(size)), json.loads(regions)


def pixels_of(png: str, size: list[int] | None = None) -> np.ndarray:
    """The pixels, (height, width, 3), of a PNG in base 64, brought to a size."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    return np.asarray(image if size is None else image.resize(size, Image.Resampling.BOX))


def inside_axes(pixels: np.ndarray, regions: list) -> list[np.ndarray]:
    """The part of the pixels that lies inside each of the axes."""
    height, width = pixels.shape[:2]
    return [pixels[int(t * height) : int(b * height), int(x * width) : int(r * width)] for x, t, r, b in regions]


def run(page, code: str, value: str = "None") -> str:
    """Run code in the notebook's kernel; the repr of an expression after it."""
    answer = page.evaluate(
        """async ([code, value]) => {
            const kernel = window.flowlabPanel.sessionContext.session.kernel;
            const reply = await kernel.requestExecute({ code, user_expressions: { value } }).done;
            return reply.content;
        }""",
        [code, value],
    )
    assert answer["status"] == "ok", answer
    return answer["user_expressions"]["value"]["data"]["text/plain"]


def kernel_png(page, expression: str) -> np.ndarray:
    """The pixels of a PNG that this expression gives in the kernel."""
    return pixels_of(run(page, "from base64 import b64encode", f"b64encode({expression}).decode()").strip("'"))


def strayed(page, explorer, variable: str) -> tuple[float, float]:
    """How far the canvas is from the still picture of the explorer of this name in the kernel: 0, 0 if they agree.

    First of all that moves, then of all that stands still, each in units of its own ink: whatever is drawn nowhere, or
    twice, counts with its share. Pixels are taken in blocks of nine, since edges and letters are smoothed in two ways.
    """
    canvas = explorer.locator("canvas.flowlab-picture")
    # As large as the still picture, a dot for a dot.
    canvas.evaluate("c => { c.style.width = `${JSON.parse(c.dataset.size)[0]}px`; c.style.maxWidth = 'none'; }")
    page.wait_for_function("c => c.width === JSON.parse(c.dataset.size)[0]", arg=canvas.element_handle())
    whole, _ = picture(explorer)
    frames = canvas.get_attribute("data-frames")
    run(page, f"kept = {variable}.view.scene; {variable}.view.scene = dict(steps=[], numbers=b'', images=[])")
    page.wait_for_function("([c, n]) => c.dataset.frames !== n", arg=[canvas.element_handle(), frames])
    ground, _ = picture(explorer)
    run(page, f"{variable}.view.scene = kept")
    still = blocks(kernel_png(page, f"{variable}._repr_mimebundle_()[0]['image/png']"))
    behind = blocks(kernel_png(page, f"{variable}.picture.png(moving=False)"))
    moving = np.abs((blocks(whole) - blocks(ground)) - (still - behind)).sum() / np.abs(still - behind).sum()
    return float(moving), float(np.abs(blocks(ground) - behind).sum() / (255 - behind).sum())


def blocks(pixels: np.ndarray) -> np.ndarray:
    """Means of 3×3 pixels."""
    height, width = (n // 3 for n in pixels.shape[:2])
    return pixels[: 3 * height, : 3 * width].reshape(height, 3, width, 3, 3).mean((1, 3))


def readout(explorer) -> str:
    """The numbers beside the picture."""
    return explorer.locator(".flowlab-readout").inner_text()


def numbers(explorer) -> str:
    """The values in that line, without their names."""
    return " ".join(explorer.locator(".flowlab-readout b").all_inner_texts())


def wait_for_change(explorer, before: np.ndarray, seconds: float = 10.0) -> np.ndarray:
    """The next picture that differs inside the axes; AssertionError when none comes."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        pixels, regions = picture(explorer)
        if pixels.shape == before.shape:
            pairs = zip(inside_axes(pixels, regions), inside_axes(before, regions), strict=True)
            if any((a != b).any() for a, b in pairs):
                return pixels
        time.sleep(0.05)
    raise AssertionError("no pixel inside the axes changed")


def controls(explorer) -> list:
    """What a keyboard can reach in an explorer, in order: slider handles, drop-downs, boxes to tick, buttons.

    Without the presets of a training to come, which change no picture before it.
    """
    kinds = (
        ".noUi-handle",
        "select",
        "input[type=checkbox]",
        ".widget-toggle-buttons button",
        ".widget-radio-box input",
    )
    return explorer.locator(", ".join(f"{kind}:not(.flowlab-preset {kind})" for kind in kinds)).all()


def press(page, control) -> None:
    """Move one control by keyboard, one step, to a value that it does not have yet."""
    tag = control.evaluate("c => c.tagName.toLowerCase()")
    control.scroll_into_view_if_needed()
    control.focus()
    if tag == "select":
        last = control.evaluate("c => c.selectedIndex === c.options.length - 1")
        page.keyboard.press("ArrowUp" if last else "ArrowDown")
    elif tag in ("input", "button"):
        page.keyboard.press("Space")
    else:
        at_end = control.evaluate("c => c.getAttribute('aria-valuenow') === c.getAttribute('aria-valuemax')")
        page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
