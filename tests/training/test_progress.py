"""What a run shows while it lasts."""

import math
import re

import numpy as np
import pytest
import torch
from runs import gaussian, generator, quiet, small

from flowlab import Flow, fit
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
