"""What the network puts out for N rows, before anything is chosen. Losses and answers are both made of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TransformerOutput:
    """All layers' outputs.

    N rows, L decoder layers, Q queries, T encoder tokens of all levels together, C channels. All boxes are
    (cx, cy, w, h) in shares of the image's own size, without its padding.

    Attributes:
        logits: ``(L, N, Q, classes)`` of the class heads.
        boxes: ``(L, N, Q, 4)`` in [0, 1].
        references: ``(L, N, Q, 4)`` in [0, 1], the box that each layer refines. Mask coordinates are relative to its
            centre. With "look forward twice" it carries gradients to the layer before, and so do the boxes and, as
            published, the masks.
        hidden: ``(L, N, Q, C)``, what each layer made of the queries.
        encoder_logits: ``(N, T, classes)``, of every encoder token as a proposal; its first class alone ranks them.
        encoder_boxes: ``(N, T, 4)`` in [0, 1]. Tokens that are no valid proposal (in padding, or whose grid box
            touches the border) have exactly (1, 1, 1, 1), without gradient.
        chosen: ``(N, Q)`` int64, the encoder tokens that became queries, the best first; T and more where there are
            not as many tokens as queries.
        iou_logits: ``(L, N, Q, 1)``, or None without an IoU head.
        memory: Per level ``(N, C, h, w)``, the encoder's output.
    """

    logits: Tensor
    boxes: Tensor
    references: Tensor
    hidden: Tensor
    encoder_logits: Tensor
    encoder_boxes: Tensor
    chosen: Tensor
    iou_logits: Tensor | None
    memory: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class DetrOutput(TransformerOutput):
    """All layers' outputs, and what masks are made of.

    Attributes:
        mask_features: ``(N, M, h, w)`` at stride 4, which a query's dynamic convolutions turn to its mask.
    """

    mask_features: Tensor
