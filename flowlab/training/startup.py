"""Layers that start from data, such as ActNorm, in a run that has none, or that has others than they started from."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from flowlab.bijections import BatchNorm, Logit
from flowlab.bijections.normalize import StartsFromData

FAR = 10.0  # deviations off, or times as wide: then the data are others than those that a layer was started from


def check_place(model: Any, rows: Tensor, names: Sequence[str] | None) -> None:
    """Warn of a column far from 0, or of an unusual scale, where no layer of the model centers and scales it.

    Nothing is said of a model with a Logit, which is for numbers in [0, 1].
    """
    kinds = (StartsFromData, BatchNorm, Logit)
    if len(getattr(model, "event_shape", ())) != 1 or any(isinstance(part, kinds) for part in model.modules()):
        return
    mean, deviation = rows.mean(0), rows.std(0, correction=0)
    odd = (deviation > 0) & ((mean.abs() > FAR * deviation) | (deviation > 100) | (deviation < 0.01))
    if bool(odd.any()):
        j = int(odd.nonzero()[0])
        warnings.warn(
            f"This model has no layer that centers and scales its data, and column {repr(names[j]) if names else j} "
            f"has mean {mean[j]:.3g} and standard deviation {deviation[j]:.3g}: training may never get there. Build it "
            f"with standardize=True, where its recipe has that, or give it standardized columns, (x - x.mean(0)) / "
            f"x.std(0).",
            stacklevel=7,
        )


class _Seen(Exception):
    """Raised inside ``compare`` when the first layer has its input: the rest of the pass is not needed."""


def stay(layers: Sequence[Any]) -> None:
    """Mark layers as started without changing them: a later run with data would otherwise reset what was learned."""
    for layer in layers:
        layer.initialized.fill_(True)


def compare(layers: Sequence[Any], look: Callable[[], object]) -> None:
    """Warn when what ``look`` sends through the first of the layers is far from what that layer was started from.

    A layer that started from these data gives numbers of mean 0 and standard deviation 1, or near that after training.
    """
    seen: list[Tensor] = []

    def hook(layer: Any, given: Any, result: tuple[Tensor, Tensor]) -> None:
        seen.append(result[0].detach().flatten(0, -2))
        raise _Seen

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        with contextlib.suppress(_Seen):
            look()
    finally:
        for handle in handles:
            handle.remove()
    if seen and len(seen[0]) > 1:
        mean, deviation = seen[0].mean(0), seen[0].std(0)
        off = (mean.abs() > FAR) | (deviation > FAR) | ((deviation < 1 / FAR) & (deviation > 0))
        if bool(off.any()):
            j = int(off.nonzero()[0])
            warnings.warn(
                f"This model was started on other data: its first normalization layer should see mean 0 and standard "
                f"deviation 1, but coordinate {j} of these data has {mean[j]:.3g} and {deviation[j]:.3g} there. It is "
                f"trained on from where it stands. Build a new model for new data, or start its normalization layers "
                f"anew by fit(..., restart=True).",
                stacklevel=8,
            )
