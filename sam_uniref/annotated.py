"""Annotated images as references: keys are the image's features, values the mask encoder's (UniRef++ eq. 1-2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.adapters.references import ReferenceFeatures
from sam_uniref.interfaces import ImageFeatures


def annotated_images(
    features: ImageFeatures,
    masks: Tensor,
    source_index: Tensor,
    values: Sequence[Tensor],
    *,
    strides: Sequence[int],
    pooling: str,
) -> ReferenceFeatures:
    """N annotated images as references.

    Args:
        features: The reference images, encoded.
        masks: ``(N, H, W)`` in [0, 1], in the canvas.
        source_index: ``(N,)`` int64, which reference image each mask belongs to.
        values: Per level ``(N, C, h, w)``, what the mask encoder makes of them.
        strides: Of the levels.
        pooling: ``"object"``: the pooled vector is the mean of the keys over the object, each cell by its share of it;
            ``"image"``: over the image.

    Returns:
        N rows, about images 0 to N-1 until `ReferenceFeatures.about` says otherwise. A row whose mask is empty is not
        present.
    """
    keys = [level[source_index].flatten(2).transpose(1, 2) for level in features.levels]
    padding = [padded[source_index].flatten(1) for padded in features.padding]
    if pooling == "image":
        weights = [(~padded).to(key.dtype) for key, padded in zip(keys, padding, strict=True)]
    else:
        weights = [_shares(masks.to(keys[0].dtype), stride) for stride in strides]
    return ReferenceFeatures(
        keys=tuple(keys),
        values=tuple(value.flatten(2).transpose(1, 2) for value in values),
        padding=tuple(padding),
        pooled=tuple(_mean(key, weight) for key, weight in zip(keys, weights, strict=True)),
        present=masks.flatten(1).any(1),
        image_index=torch.arange(masks.shape[0], device=masks.device),
    )


def _shares(masks: Tensor, stride: int) -> Tensor:
    """How much of each cell the object fills, ``(N, h * w)``, from ``(N, H, W)`` masks.

    What of a cell hangs over the canvas' edge is not filled.
    """
    return F.avg_pool2d(masks[:, None], stride, ceil_mode=True, divisor_override=stride * stride).flatten(1)


def _mean(keys: Tensor, weights: Tensor) -> Tensor:
    """Mean ``(N, C)`` of keys ``(N, L, C)`` by weights ``(N, L)``."""
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
    return (weights[:, None] @ keys)[:, 0]
