"""Which modules have hooks: a shortcut that computes a result without calling the module would not run them."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_module

_NAMES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Those of all modules, as profilers set them.
_GLOBAL = [getattr(torch_module, f"_global{name}", {}) for name in _NAMES]


def watched(*modules: nn.Module) -> bool:
    """Whether one of the modules has a hook of its own, or all modules have one."""
    return any(_GLOBAL) or any(own[name] for own in map(vars, modules) for name in _NAMES)
