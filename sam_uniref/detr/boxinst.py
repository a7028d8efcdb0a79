"""Masks learnt from boxes: the projection and the pairwise loss of BoxInst (Tian et al. 2021).

Notation: N rows, K masks, H and W the canvas' sides, h and w those of the masks, at stride 4.

Where the released code does otherwise:

* It reverses the channels of an RGB picture before it asks how alike colours are, so that red counts as blue. Here
  colours are what they are; on a picture with its channels reversed the recorded similarities come out.
* It raises the weight of the pairwise loss over 10,000 calls, but calls once a decoder layer, so over 1,667 steps.
  Here the loss is unweighted, and its weight is the trainer's, by the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.transforms import Size, content_mask

STRIDE = 4
# Neighbours two cells away, of which those count that are at least so alike.
_DILATION, _ALIKE = 2, 0.3
# The lowest rows of a picture often are artefacts of its compression.
_BOTTOM_PIXELS = 10
_EPSILON = 1e-5

# sRGB to CIE XYZ, and the white of D65, as ITU-R BT.709 and CIE 1931 have them.
_XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def box_masks(boxes: Tensor, canvas: Size) -> Tensor:
    """Boxes ``(K, 4)`` as (x0, y0, x1, y1) in pixels, filled: ``(K, H, W)`` float in {0, 1}.

    From the pixel that the upper left corner is in to the one that the lower right corner is in.
    """
    low, high = boxes[:, :2].int(), boxes[:, 2:].int()
    rows = torch.arange(canvas[0], device=boxes.device)
    columns = torch.arange(canvas[1], device=boxes.device)
    in_rows = (rows >= low[:, 1:]) & (rows <= high[:, 1:])
    in_columns = (columns >= low[:, :1]) & (columns <= high[:, :1])
    return (in_rows[:, :, None] & in_columns[:, None, :]).float()


@torch.no_grad()
def colour_similarity(pictures: Tensor, input_sizes: Sequence[Size], original_sizes: Sequence[Size]) -> Tensor:
    """How alike each cell's colour and those of its eight neighbours are: exp(-half their distance in CIE Lab).

    Args:
        pictures: ``(N, 3, H, W)`` RGB in 0-255.
        input_sizes: Their contents' ``(height, width)``.
        original_sizes: Their own; the lowest ten rows of the originals count as nobody's neighbours.

    Returns:
        ``(N, 8, h, w)`` in [0, 1]; zero for neighbours in padding, in those rows, or outside.
    """
    lab = _lab(F.avg_pool2d(pictures.float(), STRIDE).floor() / 255)
    trusted = [
        (max(0, height - int(_BOTTOM_PIXELS * height / original)), width)
        for (height, width), (original, _) in zip(input_sizes, original_sizes, strict=True)
    ]
    canvas = (pictures.shape[-2], pictures.shape[-1])
    valid = content_mask(trusted, canvas, 1, pictures.device)[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    distance = torch.linalg.vector_norm(lab[:, :, None] - neighbours(lab), dim=1)
    return torch.exp(-0.5 * distance) * neighbours(valid[:, None].float())[:, 0]


def projection_loss(logits: Tensor, boxes: Tensor) -> Tensor:
    """How far masks' shadows on both axes are from their boxes', ``(K,)`` in [0, 2].

    Args:
        logits: ``(K, h, w)`` of masks.
        boxes: ``(K, h, w)`` float in {0, 1}, their boxes filled.
    """
    probabilities = logits.sigmoid()
    columns, rows = (_dice(probabilities.amax(over), boxes.amax(over)) for over in (1, 2))
    return columns + rows


def pairwise_loss(logits: Tensor, boxes: Tensor, similarity: Tensor) -> tuple[Tensor, Tensor]:
    """How surely cells inside a box differ from neighbours of the same colour.

    Args:
        logits: ``(K, h, w)`` of masks.
        boxes: ``(K, h, w)`` float in {0, 1}, their boxes filled.
        similarity: ``(K, 8, h, w)`` from `colour_similarity`.

    Returns:
        The sum over such pairs of -log of the probability that both are object or both are not, and their number,
        both ``(K,)``: published is the one's sum over all masks through the other's.
    """
    inside, outside = F.logsigmoid(logits)[:, None], F.logsigmoid(-logits)[:, None]
    both = inside + neighbours(inside)[:, 0]
    neither = outside + neighbours(outside)[:, 0]
    counted = (similarity >= _ALIKE) * boxes[:, None]
    return -(torch.logaddexp(both, neither) * counted).flatten(1).sum(1), counted.flatten(1).sum(1)


def neighbours(values: Tensor) -> Tensor:
    """Each cell's eight neighbours two cells away, row by row, of ``(N, C, h, w)``: ``(N, C, 8, h, w)``, 0 outside."""
    unfolded = F.unfold(values, 3, dilation=_DILATION, padding=_DILATION).unflatten(1, (values.shape[1], 9))
    around = torch.cat([unfolded[:, :, :4], unfolded[:, :, 5:]], dim=2)
    return around.unflatten(3, values.shape[-2:])


def _dice(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 - Dice coefficient with squares in its denominator, of ``(K, l)``."""
    common = 2 * (probabilities * targets).sum(1)
    return 1 - common / ((probabilities**2).sum(1) + (targets**2).sum(1) + _EPSILON)


def _lab(rgb: Tensor) -> Tensor:
    """From sRGB ``(N, 3, h, w)`` in [0, 1] to CIE Lab for the white of D65."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = torch.tensor(_XYZ_OF_RGB, device=rgb.device) / torch.tensor(_WHITE, device=rgb.device)[:, None]
    xyz = torch.einsum("oc,nchw->nohw", matrix, linear)
    x, y, z = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
