"""Sine embeddings of positions and of boxes (Vaswani et al. 2017, Carion et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TEMPERATURE = 10000.0
_SMALL = 1e-6


def sine_positions(padding: Tensor, channels: int) -> Tensor:
    """Where each cell is in its image, whatever padding is around it.

    Args:
        padding: ``(B, h, w)`` bool, True = padding.
        channels: C, a multiple of 4; the first half tells y, the second half x.

    Returns:
        ``(B, C, h, w)`` float32.
    """
    content = (~padding).float()
    y, x = content.cumsum(1), content.cumsum(2)
    y = (y - 0.5) / (y[:, -1:, :] + _SMALL) * 2 * math.pi
    x = (x - 0.5) / (x[:, :, -1:] + _SMALL) * 2 * math.pi
    return torch.cat([_waves(y, channels // 2), _waves(x, channels // 2)], dim=3).permute(0, 3, 1, 2)


def box_positions(boxes: Tensor, channels: int) -> Tensor:
    """Boxes ``(..., 4)`` in [0, 1] to ``(..., 4 * channels)``, each of the four numbers by itself."""
    return _waves(boxes * 2 * math.pi, channels).flatten(-2)


def _waves(angles: Tensor, channels: int) -> Tensor:
    """``(...)`` to ``(..., channels)``: sines and cosines in turn, of lower and lower frequency."""
    pair = torch.arange(channels // 2, dtype=torch.float32, device=angles.device)
    scaled = angles[..., None] / _TEMPERATURE ** (2 * pair / channels)
    return torch.stack([scaled.sin(), scaled.cos()], dim=-1).flatten(-2)
