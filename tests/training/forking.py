"""What the tests of killed and of parallel runs share: processes that fork after the slow imports."""

import torch
from torch import nn


def momentum(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def ready_to_fork() -> None:
    """Import here, once and not in each fork, what safetensors and torch's optimizers import when first used."""
    import safetensors.torch  # noqa: F401

    torch.set_num_threads(1)
    p = nn.Parameter(torch.zeros(1))
    p.grad = torch.zeros(1)
    for optimizer in (torch.optim.Adam([p], fused=True), momentum([p])):
        optimizer.step()
