"""Losses on masks. Padding counts in none of them.

Notation: N masks, S the input square's side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# LISA (Lai et al. 2024) and after it the published SAM variant sum in thousands of pixels.
_DICE_SCALE = 1000.0
_DICE_EPSILON = 1e-6


def bce_loss(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy: mean over each mask's valid pixels, then over masks. All ``(N, S, S)``."""
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * valid
    return (loss.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)).mean()


def dice_loss(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """``1 - (2 |p t| + e) / (|p| + |t| + e)`` over valid pixels, mean over masks. All ``(N, S, S)``."""
    probabilities = logits.sigmoid() * valid / _DICE_SCALE
    targets = targets * valid
    overlap = 2 * (probabilities * targets).flatten(1).sum(1)
    total = probabilities.flatten(1).sum(1) + targets.flatten(1).sum(1) / _DICE_SCALE
    return (1 - (overlap + _DICE_EPSILON) / (total + _DICE_EPSILON)).mean()


def mask_iou(predicted: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """IoU ``(N,)`` of binary masks ``(N, S, S)`` over valid pixels; zero where the target is empty."""
    predicted = predicted.bool() & valid
    targets = targets.bool() & valid
    intersection = (predicted & targets).flatten(1).sum(1)
    union = (predicted | targets).flatten(1).sum(1)
    return intersection / union.clamp(min=1)


def mask_losses(low_res_logits: Tensor, scores: Tensor, targets: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """The losses of one predicted mask a row.

    Args:
        low_res_logits: ``(N, h, w)``.
        scores: ``(N,)`` predicted IoU.
        targets: ``(N, S, S)`` float in {0, 1}.
        valid: ``(N, S, S)`` bool, False in padding.

    Returns:
        Scalars ``bce``, ``dice`` and ``iou`` (the mean squared error of the predicted IoU; inference thresholds
        it, so it is trained. A target that is not there has IoU 0).
    """
    side = targets.shape[-1]
    logits = F.interpolate(low_res_logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)[:, 0]
    with torch.no_grad():
        iou = mask_iou(logits > 0, targets, valid)
    return {
        "bce": bce_loss(logits, targets, valid),
        "dice": dice_loss(logits, targets, valid),
        "iou": F.mse_loss(scores.float(), iou),
    }
