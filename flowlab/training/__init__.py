"""One training loop for every model, its history, and checkpoints from which a killed run goes on.

Start with ``loop.py``: ``fit`` and ``train``, and the ``Run`` that they drive.
"""

from flowlab.training.checkpoints import Card, CheckpointError, load_checkpoint, read_checkpoint, save_checkpoint
from flowlab.training.compiling import CompilerMissing, compiled
from flowlab.training.history import History, NonFiniteLoss, OutOfMemory
from flowlab.training.loop import fit, train
from flowlab.training.objectives import LossFunction, Step, negative_log_likelihood, reverse_kl
from flowlab.training.progress import Progress
from flowlab.training.settings import Settings

__all__ = [
    "Card",
    "CheckpointError",
    "CompilerMissing",
    "History",
    "LossFunction",
    "NonFiniteLoss",
    "OutOfMemory",
    "Progress",
    "Settings",
    "Step",
    "compiled",
    "fit",
    "load_checkpoint",
    "negative_log_likelihood",
    "read_checkpoint",
    "reverse_kl",
    "save_checkpoint",
    "train",
]
