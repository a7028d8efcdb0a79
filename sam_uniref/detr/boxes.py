"""Boxes as the network has them, and as people do."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-5
# Less than a pixel of any picture has: it only keeps boxes without an area from dividing by zero.
_LEAST_AREA = 1e-9


def inverse_sigmoid(values: Tensor) -> Tensor:
    """Log-odds of values in [0, 1], which end at 1e-5 and 1 - 1e-5."""
    values = values.clamp(0, 1)
    return (values.clamp(min=_SMALL) / (1 - values).clamp(min=_SMALL)).log()


def corners(boxes: Tensor) -> Tensor:
    """``(..., 4)`` from (cx, cy, w, h) to (x0, y0, x1, y1), whatever the unit."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def centers(boxes: Tensor) -> Tensor:
    """``(..., 4)`` from (x0, y0, x1, y1) to (cx, cy, w, h), whatever the unit."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + second) / 2, second - first], dim=-1)


def overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of boxes by their corners, ``(..., 4)`` that broadcast.

    Returns:
        IoU ``(...)`` in [0, 1] and generalised IoU ``(...)`` in [-1, 1]. Two boxes without an area have an IoU of 0.
    """
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    union = _area(boxes) + _area(others) - intersection
    iou = intersection / union.clamp(min=_LEAST_AREA)
    around = torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(boxes[..., :2], others[..., :2])
    hull = around.prod(-1)
    return iou, iou - (hull - union) / hull.clamp(min=_LEAST_AREA)


def _area(boxes: Tensor) -> Tensor:
    """Of boxes by their corners."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)
