"""All objects of a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Published: of two boxes of a class that overlap by more, the worse goes.
_OVERLAP = 0.7


@dataclass(frozen=True)
class Detections:
    """M objects in a picture of H x W pixels, the best first.

    Attributes:
        labels: ``(M,)`` int64, the class of each.
        scores: ``(M,)`` float32 in [0, 1].
        boxes: ``(M, 4)`` float32 as (x0, y0, x1, y1) in the picture's pixels.
        masks: ``(M, H, W)`` bool.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]

    def __len__(self) -> int:
        """The number of objects, M."""
        return len(self.labels)


def check_limits(threshold: float, most: int) -> None:
    """Refuse what no detection could be kept by.

    Raises:
        ValueError: If the threshold is no number, or the number is below 1.
    """
    if math.isnan(threshold):
        raise ValueError(f"score_threshold must be a number, got {threshold}; 0 keeps all")
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}; leave it out for the published 100")


def best_detections(scores: Tensor, boxes: Tensor, *, threshold: float, most: int) -> tuple[Tensor, Tensor]:
    """The best pairs of query and class of one image, without near-duplicates of one class.

    Args:
        scores: ``(Q, classes)``.
        boxes: ``(Q, 4)`` as (x0, y0, x1, y1).
        threshold: Least score.
        most: How many at most.

    Returns:
        int64 queries and labels, ``(M,)`` each, the best first.
    """
    from torchvision.ops import batched_nms

    queries, classes = scores.shape
    ranked = scores.flatten().topk(queries)
    at, labels = ranked.indices // classes, ranked.indices % classes
    kept = batched_nms(boxes[at].float(), ranked.values, labels, _OVERLAP)
    kept = kept[ranked.values[kept] >= threshold][:most]
    return at[kept], labels[kept]


def picture_boxes(boxes: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """``(M, 4)`` (x0, y0, x1, y1) in shares of the picture to pixels of a picture of this ``(height, width)``."""
    height, width = size
    return (boxes * torch.tensor([width, height, width, height], device=boxes.device)).cpu().numpy().astype(np.float32)
