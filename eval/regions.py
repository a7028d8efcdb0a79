"""Overlap of masks in images: oIoU, mIoU, Prec@t, few-shot mIoU and FB-IoU.

Two conventions differ silently in the literature, so they stand in the names here: what counts as a hit at a threshold
(`precision_at_least`, `precision_above`), and over what a mean is taken (`mean_iou` over images,
`mean_iou_by_class` over classes). A third is an argument: what a sample scores whose two masks are both empty.
Everything is a share in 0-1, and is computed from integer counts, so that no order of summation matters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from sam_uniref.images import Mask

HSNET_SIZE = 400


class Overlap(NamedTuple):
    """What all metrics of a predicted mask against the true one are made of, in pixels.

    Attributes:
        intersection: In both.
        union: In either.
        pixels: Of the picture.
    """

    intersection: int
    union: int
    pixels: int

    def iou(self, both_empty: float = 0.0) -> float:
        """Intersection over union; ``both_empty`` where neither mask has a pixel."""
        return self.intersection / self.union if self.union else both_empty


def overlap(predicted: Mask, truth: Mask) -> Overlap:
    """Count the pixels of two masks ``(H, W)`` bool.

    Raises:
        ValueError: If they are of different sizes.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"the prediction is {predicted.shape}, the truth {truth.shape} (height, width)")
    return Overlap(int(np.count_nonzero(predicted & truth)), int(np.count_nonzero(predicted | truth)), int(truth.size))


def at_hsnet_size(mask: Mask) -> Mask:
    """A mask ``(H, W)`` bool at ``(400, 400)``, where HSNet compares masks: pixel i comes from floor(i * H / 400).

    The published FSS-1000 mIoU by class are of masks of this size, UniRef's by image of the pictures' own.

    Raises:
        ValueError: If the mask has no pixel.
    """
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f"a mask must be (H, W), got {mask.shape}")
    rows, columns = (np.arange(HSNET_SIZE) * side // HSNET_SIZE for side in mask.shape)
    return mask[rows[:, None], columns]


def overall_iou(overlaps: Sequence[Overlap]) -> float:
    """RIS oIoU (cIoU): the sum of intersections over the sum of unions. Large objects count for more.

    Both masks empty: adds nothing; 0 if that is all there is.

    Raises:
        ValueError: If there is no sample.
    """
    _at_least_one(overlaps)
    return sum(o.intersection for o in overlaps) / max(1, sum(o.union for o in overlaps))


def mean_iou(overlaps: Sequence[Overlap], *, both_empty: float = 0.0) -> float:
    """Mean of each sample's IoU: RIS mIoU (gIoU; a sample is a sentence), and FSS mIoU by image as UniRef has it.

    Args:
        overlaps: A sample each.
        both_empty: What such a sample counts: 0 in LAVT's and UniRef's programs, 1 in some others.

    Raises:
        ValueError: If there is no sample.
    """
    _at_least_one(overlaps)
    return sum(o.iou(both_empty) for o in overlaps) / len(overlaps)


def precision_at_least(overlaps: Sequence[Overlap], threshold: float, *, both_empty: float = 0.0) -> float:
    """RIS Prec@t as LAVT and its descendants have it: the share of samples whose IoU is ``>= threshold``.

    Raises:
        ValueError: If there is no sample.
    """
    _at_least_one(overlaps)
    return sum(o.iou(both_empty) >= threshold for o in overlaps) / len(overlaps)


def precision_above(overlaps: Sequence[Overlap], threshold: float, *, both_empty: float = 0.0) -> float:
    """RIS Prec@t as UniRef has it: the share of samples whose IoU is ``> threshold``.

    Raises:
        ValueError: If there is no sample.
    """
    _at_least_one(overlaps)
    return sum(o.iou(both_empty) > threshold for o in overlaps) / len(overlaps)


def iou_by_class(overlaps: Sequence[Overlap], classes: Sequence[Hashable]) -> dict[Hashable, float]:
    """Of each class the sum of intersections over the sum of unions of its samples, as HSNet accumulates them.

    A class in which every mask is empty has 0.

    Args:
        overlaps: A sample each.
        classes: The class of each.

    Raises:
        ValueError: If there is no sample, or not one class for each.
    """
    _at_least_one(overlaps)
    members: dict[Hashable, list[Overlap]] = {}
    for sample, name in zip(overlaps, classes, strict=True):
        members.setdefault(name, []).append(sample)
    return {name: overall_iou(samples) for name, samples in members.items()}


def mean_iou_by_class(overlaps: Sequence[Overlap], classes: Sequence[Hashable]) -> float:
    """FSS mIoU by class as HSNet and PerSeg have it: `iou_by_class`, then the mean over classes.

    Not the quantity that UniRef publishes under this name: that one is `mean_iou`.

    Raises:
        ValueError: If there is no sample, or not one class for each.
    """
    by_class = iou_by_class(overlaps, classes)
    return sum(by_class.values()) / len(by_class)


def foreground_background_iou(overlaps: Sequence[Overlap]) -> float:
    """FSS FB-IoU: accumulated over all samples, the mean of the foreground's IoU and the background's.

    A side without a pixel has 0. An empty prediction does not score 0: the background is still right.

    Raises:
        ValueError: If there is no sample.
    """
    background = [Overlap(o.pixels - o.union, o.pixels - o.intersection, o.pixels) for o in overlaps]
    return (overall_iou(overlaps) + overall_iou(background)) / 2


def _at_least_one(overlaps: Sequence[Overlap]) -> None:
    """Refuse a mean over nothing."""
    if not overlaps:
        raise ValueError("there is no sample to take a mean over")
