"""Evaluation that leaves no trace in a model that is being trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put ``model`` into evaluation mode and record no gradients while the block lasts; then restore the mode it had.

    Each part of the model gets back the mode of its own. A density that is no ``nn.Module`` has no mode to restore.

        with evaluating(flow):
            log_p = flow.log_prob(x)
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    trained = [part for part in parts if part.training]
    if trained:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in trained:
            part.training = True
