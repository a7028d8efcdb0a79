"""From the network's output to answers: which queries, with what scores and boxes, and their masks enlarged.

Notation: N rows, Q queries, M answers a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.adapters import FrameReferences, ReferenceFeatures
from sam_uniref.detr.boxes import corners
from sam_uniref.detr.canvases import CanvasGroup, grid_size, paste
from sam_uniref.detr.mask_head import MASK_STRIDE, aligned_upsample
from sam_uniref.detr.output import TransformerOutput
from sam_uniref.transforms import Size


def query_scores(output: TransformerOutput) -> Tensor:
    """``(N, Q, classes)``: the last layer's class probabilities; with an IoU head, the geometric means of both."""
    scores = output.logits[-1].float().sigmoid()
    return scores if output.iou_logits is None else (scores * output.iou_logits[-1].float().sigmoid()).sqrt()


def best_queries(output: TransformerOutput, count: int) -> tuple[Tensor, Tensor]:
    """Scores ``(N, M)`` and int64 indices ``(N, M)`` of each row's best queries, the best first, at most Q."""
    scores = query_scores(output).amax(dim=2)
    return scores.topk(min(count, scores.shape[1]), dim=1)


def canvas_boxes(boxes: Tensor, sizes: Sequence[Size]) -> Tensor:
    """``(N, M, 4)`` (cx, cy, w, h) in shares of the images to (x0, y0, x1, y1) in pixels, not beyond the images.

    Args:
        boxes: Of N rows.
        sizes: Of each row's image, its ``(height, width)`` in the canvas.
    """
    whole = torch.tensor([(w, h, w, h) for h, w in sizes], dtype=boxes.dtype, device=boxes.device)
    return corners(boxes).clamp(0, 1) * whole[:, None]


def enlarge_followed(
    logits: Tensor,
    references: Sequence[ReferenceFeatures | FrameReferences],
    groups: Sequence[CanvasGroup],
    canvas: Size,
) -> Tensor:
    """Logits as the published post-processing enlarges them.

    A row that is followed through frames by its masks alone gets a logit a pixel, by cells whose first pixels are
    aligned. All other rows are left at stride 4, unless there may be such a row beside them: then they are enlarged as
    they would be later, cells' centres aligned. Only where there are both frames and sentences the host waits to know.

    Args:
        logits: ``(N, M, h, w)`` at stride 4.
        references: Of the N rows.
        groups: The rows by their images' canvases.
        canvas: ``(H, W)`` of the batch.

    Returns:
        ``(N, M, h, w)`` or ``(N, M, H, W)``; beyond an image's own canvas its last values are repeated.
    """
    frames, sentences = (
        [reference.present for reference in references if reference.kind == kind] for kind in ("frames", "sentence")
    )
    followed = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for present in frames:
        followed |= present
    for present in sentences:
        followed &= ~present
    factor = MASK_STRIDE if frames and (not sentences or bool(followed.any())) else 1
    parts = []
    for group in groups:
        part = group.cut(logits, MASK_STRIDE)
        if factor > 1:
            plain = F.interpolate(part, scale_factor=factor, mode="bilinear", align_corners=False)
            part = torch.where(followed[group.rows, None, None, None], aligned_upsample(part, factor), plain)
        parts.append(part)
    return paste(groups, parts, grid_size(canvas, MASK_STRIDE // factor), extend=True)
