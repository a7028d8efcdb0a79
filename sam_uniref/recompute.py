"""Activation checkpointing (Chen et al. 2016): memory for time, the same gradients."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(module: nn.Module) -> None:
    """Keep of a module's forward pass only what goes in, and run it once more when gradients are asked for.

    Dropout draws the same again, so gradients are those of the module as it was. Parameters keep their names.
    Without gradients nothing is different.
    """
    # A method, not a closure: a copy of the module must run the copy.
    module.forward = MethodType(_recomputed, module)


def _recomputed(module: nn.Module, *arguments: Any, **named: Any) -> Any:
    """What stands in for a module's own forward."""
    forward = MethodType(type(module).forward, module)
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)
