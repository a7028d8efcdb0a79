"""Predictions and targets for the losses of sets: small random ones, and a network's output that holds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sam_uniref.detr.boxes import corners
from sam_uniref.detr.output import DetrOutput
from sam_uniref.detr.set_targets import SetTargets, set_targets
from sam_uniref.interfaces import Instances, Targets

SIDE = 64
CPU = torch.device("cpu")


def targets_of(
    boxes: Sequence[Tensor],
    masks: Sequence[Tensor | None] | None = None,
    labels: Sequence[Tensor] | None = None,
    side: int = SIDE,
) -> SetTargets:
    """Rows of boxes ``(M, 4)`` as (cx, cy, w, h) in shares of a square image."""
    known = tuple(
        Instances(
            corners(of_row) * side,
            torch.zeros(len(of_row), dtype=torch.int64) if labels is None else labels[row],
            None if masks is None else masks[row],
        )
        for row, of_row in enumerate(boxes)
    )
    return set_targets(Targets(torch.zeros(0, side, side), known), [(side, side)] * len(boxes), (side, side), CPU)


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """``(count, 4)`` as (cx, cy, w, h), inside the image."""
    size = 0.1 + 0.4 * torch.rand(count, 2, generator=generator)
    return torch.cat([size / 2 + (1 - size) * torch.rand(count, 2, generator=generator), size], dim=1)


def output_of(
    logits: Tensor,
    boxes: Tensor,
    encoder_logits: Tensor | None = None,
    encoder_boxes: Tensor | None = None,
    iou_logits: Tensor | None = None,
) -> DetrOutput:
    """What the losses read of an output: ``(L, N, Q, ...)`` and ``(N, T, ...)``; by default one poor token a row."""
    rows = logits.shape[1]
    nothing = torch.zeros(0)
    return DetrOutput(
        logits=logits,
        boxes=boxes,
        references=boxes.detach(),
        hidden=nothing,
        encoder_logits=torch.zeros(rows, 1, logits.shape[-1]) if encoder_logits is None else encoder_logits,
        encoder_boxes=torch.ones(rows, 1, 4) if encoder_boxes is None else encoder_boxes,
        chosen=nothing,
        iou_logits=iou_logits,
        memory=(),
        mask_features=nothing,
    )
