"""The losses of single predictions, a value each; `criterion` averages them.

Notation: K matched predictions, h and w the sides of their masks. Losses that other models have too are in
`sam_uniref.losses`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.detr.boxes import corners, overlap
from sam_uniref.losses import focal_values

# Which of a mask's pixels count in the bootstrapped cross-entropy: those with the largest loss.
_HARDEST = 0.4
# Published: how far probabilities are kept from 0 and from 1.
_EPSILON = 1e-7


def class_loss(logits: Tensor, assigned: Tensor, labels: Tensor, counted: Tensor | None = None) -> Tensor:
    """Focal loss of every query and class, summed over a layer, ``(L,)``.

    Args:
        logits: ``(L, N, Q, classes)``.
        assigned: ``(L, N, Q)`` int64, the target of the row that each query is to become, -1 for none.
        labels: ``(N, M)`` int64.
        counted: ``(N, Q)`` bool, False for queries that are left out.
    """
    goals = torch.zeros_like(logits, dtype=torch.float32)
    if labels.shape[1]:
        classes = labels.expand(len(logits), -1, -1).gather(2, assigned.clamp(min=0))
        goals.scatter_(3, classes[..., None], (assigned >= 0).float()[..., None])
    values = focal_values(logits.float(), goals)
    if counted is not None:
        values = values * counted[..., None]
    return values.flatten(1).sum(1)


def box_losses(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L1 distance, 1 - generalised IoU, and IoU.

    Args:
        boxes: ``(K, 4)`` as (cx, cy, w, h) in shares of the image.
        targets: ``(K, 4)``.

    Returns:
        Three of ``(K,)``; the last without gradient.
    """
    iou, giou = overlap(corners(boxes), corners(targets))
    return (boxes - targets).abs().sum(1), 1 - giou, iou.detach()


def aggregated_logits(logits: Tensor) -> Tensor:
    """The logits of masks after soft aggregation with the background: of ``p^2 / (p^2 + (1 - p)^2)``.

    Soft aggregation (STM, Oh et al. 2019) is a softmax over the logits of the object and of the background. They are
    taken from probabilities, as published, so that gradients end where a probability has no more digits.
    """
    probabilities = logits.float().sigmoid()
    own, other = (share.clamp(_EPSILON, 1 - _EPSILON).logit() for share in (probabilities, 1 - probabilities))
    return own - other


def bootstrapped_cross_entropy(aggregated: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the 40 % of a mask's valid pixels where it is largest (at least one), ``(K,)``.

    Args:
        aggregated: ``(K, h, w)`` logits from `aggregated_logits`.
        targets: ``(K, h, w)`` float in {0, 1}.
        valid: ``(K, h, w)`` bool; 0 for a mask without valid pixels.
    """
    values = F.binary_cross_entropy_with_logits(aggregated, targets, reduction="none")
    # Invalid pixels come last: a cross-entropy is not negative.
    hardest = values.masked_fill(~valid, -1.0).flatten(1).sort(dim=1, descending=True).values
    counted = (valid.flatten(1).sum(1, keepdim=True) * _HARDEST).int().clamp(min=1)
    among = torch.arange(hardest.shape[1], device=values.device) < counted
    return (hardest.clamp(min=0) * among).sum(1) / counted[:, 0]


def soft_mask_iou(aggregated: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """1 - sum of minima / sum of maxima of probabilities and targets, ``(K,)``; arguments as above."""
    probabilities = aggregated.sigmoid() * valid
    targets = targets * valid
    intersection = torch.minimum(probabilities, targets).flatten(1).sum(1)
    union = torch.maximum(probabilities, targets).flatten(1).sum(1)
    return 1 - (intersection + _EPSILON) / (union + _EPSILON)
