"""Simulated clicks, boxes and mask prompts, as SAM was trained with (Kirillov et al. 2023, appendix A).

Notation: N masks of objects, S the input square's side, coordinates (x, y) in its pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

# SAM's noise on boxes: a tenth of the side as standard deviation, at most 20 pixels of 1024.
_BOX_NOISE = 0.1
_LARGEST_BOX_NOISE = 20 / 1024


def random_points(regions: Tensor) -> Tensor:
    """One uniformly drawn pixel of each region ``(N, S, S)`` bool, as ``(N, 1, 2)`` float (x, y).

    An empty region gives a pixel anywhere.
    """
    weights = regions.flatten(1).float()
    weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, 1.0)
    index = torch.multinomial(weights, 1)
    side = regions.shape[-1]
    return torch.stack([index % side, index // side], dim=-1).float()


def noisy_boxes(masks: Tensor) -> Tensor:
    """Boxes ``(N, 4)`` (x0, y0, x1, y1) around masks ``(N, S, S)`` bool, each side moved a little.

    Masks must not be empty.
    """
    side = masks.shape[-1]
    corners = []
    for axis in (2, 1):  # any over rows leaves columns, and so x
        filled = masks.any(dim=3 - axis).float()
        first = filled.argmax(dim=1)
        last = side - 1 - filled.flip(1).argmax(dim=1)
        corners.append((first, last))
    (x0, x1), (y0, y1) = corners
    boxes = torch.stack([x0, y0, x1, y1], dim=1).float()
    size = torch.stack([x1 - x0, y1 - y0, x1 - x0, y1 - y0], dim=1).float()
    limit = _LARGEST_BOX_NOISE * side
    noise = (torch.randn_like(boxes) * _BOX_NOISE * size).clamp(-limit, limit)
    return (boxes + noise).clamp(0, side - 1)


def correction_points(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """A click in each prediction's error region, as a user would correct it.

    Args:
        logits: ``(N, S, S)`` of the prediction.
        masks: ``(N, S, S)`` bool truth.

    Returns:
        Points ``(N, 1, 2)`` and labels ``(N, 1)``: 1 where the object was missed, 0 where too much was marked. A
        perfect prediction gets a click inside the object.
    """
    predicted = logits > 0
    wrong = predicted ^ masks
    perfect = ~wrong.flatten(1).any(1)
    points = random_points(torch.where(perfect[:, None, None], masks, wrong))
    x, y = points[:, 0].long().unbind(1)
    labels = masks[torch.arange(len(masks), device=masks.device), y, x]
    return points, labels[:, None].long()
