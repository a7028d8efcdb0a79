"""Losses on masks. Padding counts in none of them.

Notation: N masks, H and W the input's sides.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.transforms import Size

# LISA (Lai et al. 2024) and after it the published SAM variant sum in thousands of pixels.
_DICE_UNIT = 1000.0
_DICE_SMOOTHING = 1e-6


def bce_loss(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy: mean over each mask's valid pixels, then over masks. All ``(N, H, W)``."""
    return mean_of_valid(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), valid).mean()


def dice_loss(
    logits: Tensor, targets: Tensor, valid: Tensor, *, unit: float = _DICE_UNIT, smoothing: float = _DICE_SMOOTHING
) -> Tensor:
    """The mean over masks of `dice_values`, which says what the arguments are."""
    return dice_values(logits, targets, valid, unit=unit, smoothing=smoothing).mean()


def dice_values(logits: Tensor, targets: Tensor, valid: Tensor, *, unit: float, smoothing: float) -> Tensor:
    """``1 - (2 |p t| + e) / (|p| + |t| + e)`` over each mask's valid pixels, ``(N,)``.

    Args:
        logits: ``(N, H, W)`` of the prediction.
        targets: ``(N, H, W)`` float in {0, 1}.
        valid: ``(N, H, W)`` bool, False in padding.
        unit: How many pixels the sums count as one.
        smoothing: The e, in that unit.
    """
    probabilities = logits.sigmoid() * valid / unit
    targets = targets * valid
    overlap = 2 * (probabilities * targets).flatten(1).sum(1)
    total = probabilities.flatten(1).sum(1) + targets.flatten(1).sum(1) / unit
    return 1 - (overlap + smoothing) / (total + smoothing)


def mask_iou(predicted: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """IoU ``(N,)`` of binary masks ``(N, H, W)`` over valid pixels; zero where the target is empty."""
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
        targets: ``(N, H, W)`` float in {0, 1}.
        valid: ``(N, H, W)`` bool, False in padding.

    Returns:
        Scalars ``bce``, ``dice`` and ``iou`` (the mean squared error of the predicted IoU; inference thresholds
        it, so it is trained. A target that is not there has IoU 0).
    """
    logits = enlarge(low_res_logits, (targets.shape[-2], targets.shape[-1]))
    with torch.no_grad():
        iou = mask_iou(logits > 0, targets, valid)
    return {
        "bce": bce_loss(logits, targets, valid),
        "dice": dice_loss(logits, targets, valid),
        "iou": F.mse_loss(scores.float(), iou),
    }


def focal_loss(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Focal loss: mean over each mask's valid pixels, then over masks. All ``(N, H, W)``."""
    return mean_of_valid(focal_values(logits, targets), valid).mean()


def focal_values(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017) of each element. All of one shape.

    Args:
        logits: Of the prediction.
        targets: Float in {0, 1}.
        alpha: Weight of the foreground; the background has 1 - alpha.
        gamma: Power of the share by which an element is wrong.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = (logits.sigmoid() - targets).abs()
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return balance * wrong**gamma * cross_entropy


def dice_focal_losses(low_res_logits: Tensor, targets: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """RefSAM's losses of one predicted mask a row.

    Args:
        low_res_logits: ``(N, h, w)``.
        targets: ``(N, H, W)`` float in {0, 1}.
        valid: ``(N, H, W)`` bool, False in padding.

    Returns:
        Scalars ``dice``, smoothed by one pixel, and ``focal``; PerSAM-F has the same.
    """
    logits = enlarge(low_res_logits, (targets.shape[-2], targets.shape[-1]))
    dice = dice_loss(logits, targets, valid, unit=1.0, smoothing=1.0)
    return {"dice": dice, "focal": focal_loss(logits, targets, valid)}


def enlarge(low_res_logits: Tensor, size: Size) -> Tensor:
    """``(N, h, w)`` to float32 ``(N, H, W)`` of the size, bilinear."""
    return F.interpolate(low_res_logits[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]


def mean_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over each row's valid pixels, ``(N,)``; 0 where none is valid. Both ``(N, H, W)``."""
    return (values * valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)
