"""What a run shows while it lasts."""

import io
import math
import os
import re
import signal
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import gaussian, generator, quiet, same, small, state

from flowlab import Flow, fit, training
from flowlab.bijections import Chain, Logit, ScaleShift
from flowlab.densities import Dequantized, StandardNormal, negative_bound
from flowlab.training import History


def test_progress_may_be_a_function():
    seen = []
    history = fit(small(), gaussian(), steps=6, progress=lambda history: seen.append((history, history.step)))
    assert [step for _, step in seen] == [1, 2, 3, 4, 5, 6] and all(h is history for h, _ in seen)


def test_progress_bar_ends_full_and_silence_is_silent(capfd):
    fit(small(), gaussian(), steps=40)
    text = capfd.readouterr()
    assert "40/40" in text.err and "loss" in text.err and "nats" in text.err and text.out == ""
    fit(small(), gaussian(), steps=40, progress=False)
    assert capfd.readouterr() == ("", "")


def test_progress_says_nats_and_for_whole_numbers_bits(capfd):
    pixels = torch.randint(0, 256, (100, 6), generator=generator(), dtype=torch.uint8)
    unit = Flow(Chain([Logit(1e-3), ScaleShift(6)]), StandardNormal(6))
    history = quiet(Dequantized(unit), pixels, steps=20, objective=negative_bound, batch_size=10)
    unit = Flow(Chain([Logit(1e-3), ScaleShift(6)]), StandardNormal(6))
    fit(Dequantized(unit), pixels, steps=20, objective=negative_bound, batch_size=10)
    nats, text = np.mean(history.loss), capfd.readouterr().err
    assert f"loss {nats:.3f} nats, {nats / (6 * math.log(2)):.3f} bits/dim" in text
    assert re.search(r"bits/dim, [\d,]+ images/s", text)
    fit(small(), gaussian(), steps=20)
    text = capfd.readouterr().err
    assert re.search(r"nats, [\d,]+ samples/s", text) and "bits/dim" not in text


def test_an_exception_in_a_callback_is_not_swallowed():
    def fail(history: History) -> None:
        raise RuntimeError("planted")

    flow = small()
    with pytest.raises(RuntimeError, match="planted"):
        fit(flow, gaussian(), steps=5, progress=fail)
    assert not flow.training


# --- nothing decorative can end work ----------------------------------------------------------------------------------


class Gone(io.StringIO):
    """A console that is gone: from the n-th write on, all fails."""

    def __init__(self, error: Exception, after: int = 0) -> None:
        super().__init__()
        self.error, self.after = error, after

    def write(self, text: str) -> int:
        self.after -= 1
        if self.after < 0:
            raise self.error
        return len(text)

    def flush(self) -> None:
        if self.after < 0:
            raise self.error


def narrow(encoding: str) -> io.TextIOWrapper:
    """A console that knows few signs."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def closed() -> io.StringIO:
    console = io.StringIO()
    console.close()
    return console


CONSOLES = {
    "none": lambda: None,
    "closed": closed,
    "a pipe that is gone": lambda: Gone(BrokenPipeError(32, "Broken pipe")),
    "a pipe that goes later": lambda: Gone(BrokenPipeError(32, "Broken pipe"), after=3),
    "a full disk": lambda: Gone(OSError(28, "No space left on device"), after=2),
    "no sign at all": lambda: Gone(UnicodeEncodeError("ascii", "█", 0, 1, "ordinal not in range"), after=1),
    "ascii": lambda: narrow("ascii"),
    "cp1252": lambda: narrow("cp1252"),
    "no isatty": lambda: types.SimpleNamespace(write=lambda text: None, flush=lambda: None),
    "no write": lambda: types.SimpleNamespace(isatty=lambda: False),
}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, torch.Tensor]:
    flow = small()
    quiet(flow, gaussian(), steps=60)
    return state(flow)


@pytest.mark.parametrize("console", CONSOLES.values(), ids=CONSOLES)
def test_a_console_that_cannot_show_a_bar_does_not_end_the_work(monkeypatch, undisturbed, console):
    flow = small()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", console())
        history = fit(flow, gaussian(), steps=60)
    assert history.stopped == "finished 60 steps" and same(state(flow), undisturbed)


class Broken:
    """A bar that fails at one of the things that one does with a bar."""

    def __init__(self, **settings) -> None:
        self.n = settings["initial"]
        self._fail("made")

    def _fail(self, at: str) -> None:
        if at == self.at:
            raise AttributeError("planted")

    def update(self, count: int) -> None:
        self.n += count
        self._fail("moved")

    def set_postfix_str(self, words: str, refresh: bool) -> None:
        self._fail("described")

    def close(self) -> None:
        self._fail("closed")


@pytest.mark.parametrize("at", ("imported", "made", "moved", "described", "closed"))
def test_a_bar_that_fails_does_not_end_the_work(monkeypatch, undisturbed, at):
    bars = types.SimpleNamespace(tqdm=type("Failing", (Broken,), {"at": at}))
    monkeypatch.setitem(sys.modules, "tqdm.auto", None if at == "imported" else bars)
    flow = small()
    assert fit(flow, gaussian(), steps=60).step == 60 and same(state(flow), undisturbed)


def test_a_notebook_without_ipywidgets_trains(monkeypatch, undisturbed):
    """There tqdm.auto warns, or raises when the bar is made; pytest here makes errors of warnings."""
    notebook = pytest.importorskip("tqdm.notebook")
    monkeypatch.setattr(notebook, "IProgress", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", notebook)
    flow = small()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(flow, gaussian(), steps=60).step == 60
    assert same(state(flow), undisturbed)


@pytest.mark.slow
def test_bars_that_are_switched_off_are(tmp_path):
    code = "import flowlab, torch; print(flowlab.fit(flowlab.realnvp(2), torch.randn(200, 2), steps=40).stopped)"
    where = {**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": str(Path(training.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where, timeout=120)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "finished 40 steps", "")


def test_an_interrupt_handler_that_python_cannot_put_back_is_no_error(monkeypatch):
    """Where Python is embedded, the handler may be the host's."""
    before = signal.getsignal(signal.SIGINT)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(signal, "getsignal", lambda number: None)
            assert quiet(small(), gaussian(), steps=2).step == 2
    finally:
        signal.signal(signal.SIGINT, before)
