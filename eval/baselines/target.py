"""What PerSAM knows of an object from its mask in one picture, and where in another it finds that again.

Facts from ZrrSkywalker/Personalize-SAM at a7e8724.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.eval.baselines.mask_method import EncodedExample
from sam_uniref.eval.baselines.prompting import Box, Prompt, grown_box
from sam_uniref.images import Mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.transforms import ImageTransform, Size

IMAGE_BRIGHTNESS = 128
"""What an object's pixels are in the red channel of PerSeg's masks."""
VIDEO_BRIGHTNESS = 215
"""And what the video programs make of them."""


def object_cells(mask: Mask, transform: ImageTransform, grid: Size, brightness: int) -> Tensor:
    """Which cells of the image embedding belong to an object.

    The mask goes through the same steps as its picture, normalisation included, so that a cell belongs to the object
    where its interpolated brightness is above the mean of red, 123.675. With PerSeg's 128 this trims the border.

    Of an object too small for any such cell the published program makes NaN; here it is the cells with the largest
    share of it.

    Args:
        mask: ``(H, W)`` bool, not empty.
        transform: SAM's.
        grid: ``(h, w)`` of the image embedding.
        brightness: Of the object's pixels, 0-255.

    Returns:
        ``(h, w)`` bool.
    """
    painted = np.zeros((*mask.shape, 3), np.uint8)
    painted[mask, 0] = brightness
    red = transform.image(painted)[0][None, :1]
    cells = F.interpolate(red, grid, mode="bilinear", align_corners=False)[0, 0] > 0
    if bool(cells.any()):
        return cells
    shares = F.adaptive_avg_pool2d(transform.mask(mask)[None], grid)[0]
    return shares == shares.max()


def object_features(features: ImageFeatures, mask: Mask, transform: ImageTransform, brightness: int) -> Tensor:
    """The image embedding in an object's cells, ``(cells, C)``; arguments as `object_cells`'s."""
    (level,) = features.levels
    cells = object_cells(mask, transform, (level.shape[2], level.shape[3]), brightness)
    return level[0][:, cells.to(level.device)].T.float()


def mean_embedding(cells: Tensor) -> Tensor:
    """Target embedding ``(C,)`` of PerSAM, from ``(cells, C)``: their mean."""
    return cells.mean(dim=0)


def mean_and_max_embedding(cells: Tensor) -> Tensor:
    """Target embedding ``(C,)`` of PerSAM-F, and of both in videos: halfway between mean and maximum."""
    return cells.amax(dim=0) / 2 + cells.mean(dim=0) / 2


def image_target(
    examples: Sequence[EncodedExample], transform: ImageTransform, embedding: Callable[[Tensor], Tensor]
) -> Tensor:
    """Target embedding ``(C,)`` from annotated pictures: the mean of each one's.

    Args:
        examples: One or more; the published programs know one.
        transform: SAM's.
        embedding: `mean_embedding` or `mean_and_max_embedding`.
    """
    each = [embedding(object_features(e.features, e.mask, transform, IMAGE_BRIGHTNESS)) for e in examples]
    return torch.stack(each).mean(dim=0)


def video_target(features: ImageFeatures, mask: Mask, transform: ImageTransform) -> Tensor:
    """``(C,)`` target embedding of PerSAM and PerSAM-F in videos; arguments as `object_cells`'s."""
    return mean_and_max_embedding(object_features(features, mask, transform, VIDEO_BRIGHTNESS))


def cosine(target: Tensor, features: ImageFeatures) -> Tensor:
    """Of a target embedding ``(C,)``, of any length, and each cell of one picture's features: ``(h, w)``."""
    (level,) = features.levels
    flat = F.normalize(target, dim=0) @ F.normalize(level[0].float().flatten(1), dim=0)
    return flat.reshape(level.shape[2:])


def similarity(target: Tensor, features: ImageFeatures, transform: ImageTransform) -> Tensor:
    """`cosine` at the picture's size, ``(H, W)``: enlarged four times first, as SAM's own masks are.

    Args:
        target: ``(C,)``, of any length.
        features: Of one picture.
        transform: SAM's.
    """
    small = cosine(target, features)[None, None]
    low_res = F.interpolate(small, scale_factor=4, mode="bilinear", align_corners=False)
    return transform.logits(low_res, features.input_sizes[0], features.original_sizes[0])[0, 0]


def location_prompt(
    found: Tensor, positives: int, *, negative: bool = False, previous_box: Box | None = None
) -> Prompt:
    """Points at the most similar pixels, as a prompt.

    Args:
        found: ``(H, W)`` similarity.
        positives: How many of the most similar pixels are foreground points.
        negative: The least similar pixel is a background point.
        previous_box: Of the mask in the frame before. Grown, it becomes the prompt's box; its own centre (rounded down)
            the last foreground point, which at the picture's edge is not the grown box's.
    """
    flat = found.flatten()
    pixels = flat.topk(min(positives, len(flat))).indices.tolist()
    labels = [1] * len(pixels)
    if negative:
        pixels.append(int(flat.topk(1, largest=False).indices))
        labels.append(0)
    points = [(pixel % found.shape[1], pixel // found.shape[1]) for pixel in pixels]
    box = None
    if previous_box is not None:
        x0, y0, x1, y1 = previous_box
        points.append((math.floor((x0 + x1) / 2), math.floor((y0 + y1) / 2)))
        labels.append(1)
        box = grown_box(previous_box, (found.shape[0], found.shape[1]))
    return Prompt(np.array(points, np.float64), np.array(labels, np.int64), box)


def attention_prior(found: Tensor, grid: Size) -> Tensor:
    """Where PerSAM's first step looks: the sigmoid of the similarity's z-score.

    The map is squeezed to the grid straight from the picture's size, so that it does not line up with the padded
    embedding unless the picture is square. So does the published program.

    Args:
        found: ``(H, W)`` similarity.
        grid: ``(h, w)`` of the image embedding.

    Returns:
        ``(1, 1, 1, h * w)`` in 0-1, for all heads and tokens.
    """
    # Of a picture of one pixel there is no deviation.
    score = ((found - found.mean()) / found.std()).nan_to_num(0.0) if found.numel() > 1 else torch.zeros_like(found)
    return F.interpolate(score[None, None], grid, mode="bilinear", align_corners=False).sigmoid().flatten(2)[None]
