"""PyTorch's counter of floating-point operations, and the fused attention that it passes over."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count


def flop_counter() -> FlopCounterMode:
    """A counter that prints nothing, to be entered; before torch 2.15 PyTorch's own lacks the CPU's fused attention."""
    return FlopCounterMode(display=False, custom_mapping={k: f for k, f in _FORMULAS.items() if k not in flop_registry})


def _forward(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
    """Of the shapes."""
    return int(sdpa_flop_count(query, key, value))


def _backward(gradient: Any, query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
    """Of the shapes."""
    return int(sdpa_backward_flop_count(gradient, query, key, value))


_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
