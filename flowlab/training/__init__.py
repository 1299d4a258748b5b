"""One training loop for every model, its history, and checkpoints from which a killed run goes on."""

from flowlab.training.checkpoints import CheckpointError, load_checkpoint, read_checkpoint, save_checkpoint
from flowlab.training.loop import (
    CompilerMissing,
    History,
    NonFiniteLoss,
    Objective,
    OutOfMemory,
    Progress,
    Step,
    compiled,
    fit,
    negative_log_likelihood,
    train,
)

__all__ = [
    "CheckpointError",
    "CompilerMissing",
    "History",
    "NonFiniteLoss",
    "Objective",
    "OutOfMemory",
    "Progress",
    "Step",
    "compiled",
    "fit",
    "load_checkpoint",
    "negative_log_likelihood",
    "read_checkpoint",
    "save_checkpoint",
    "train",
]
