"""Two-stage Deformable-DETR (Zhu et al. 2021): encoder, proposals, decoder, and the heads of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam_uniref.detr.config import TransformerConfig
from sam_uniref.detr.decoder import Decoder
from sam_uniref.detr.encoder import Encoder
from sam_uniref.detr.heads import DetectionHeads
from sam_uniref.detr.output import TransformerOutput
from sam_uniref.detr.positions import sine_positions
from sam_uniref.detr.proposals import ProposalStage
from sam_uniref.detr.tokens import LevelTokens, content_shares


class DetectionTransformer(nn.Module):
    """Feature levels to scored boxes.

    Args:
        config: Widths and options.
        levels: Feature levels.
        classes: Number of classes.
        iou_head: Also predict the IoU of a query's box.
    """

    def __init__(self, config: TransformerConfig, *, levels: int, classes: int, iou_head: bool = False) -> None:
        super().__init__()
        self.level_embedding = nn.Parameter(torch.randn(levels, config.width))
        self.encoder = Encoder(config, levels)
        self.proposals = ProposalStage(config)
        self.decoder = Decoder(config, levels)
        self.heads = DetectionHeads(
            config.width, classes=classes, decoder_layers=config.decoder_layers, iou_head=iou_head
        )
        for feedforward in (layer.feedforward for layer in (*self.encoder.layers, *self.decoder.layers)):
            nn.init.xavier_uniform_(feedforward.linear1.weight)
            nn.init.xavier_uniform_(feedforward.linear2.weight)

    def tokens(self, levels: Sequence[Tensor], padding: Sequence[Tensor]) -> LevelTokens:
        """All levels ``(N, C, h, w)`` and their padding ``(N, h, w)`` as one sequence."""
        channels = levels[0].shape[1]
        positions = [
            sine_positions(padded, channels).to(level.dtype) + embedding[:, None, None]
            for level, padded, embedding in zip(levels, padding, self.level_embedding, strict=True)
        ]
        sizes = tuple((level.shape[2], level.shape[3]) for level in levels)
        return LevelTokens(
            tokens=torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2),
            positions=torch.cat([position.flatten(2) for position in positions], dim=2).transpose(1, 2),
            padding=torch.cat([padded.flatten(1) for padded in padding], dim=1),
            sizes=sizes,
            # Once for all layers, and without waiting for the device.
            grids=torch.tensor(sizes).to(levels[0].device, non_blocking=True),
            content=content_shares(padding),
        )

    def forward(self, levels: Sequence[Tensor], padding: Sequence[Tensor]) -> TransformerOutput:
        """Detect in N rows.

        Args:
            levels: Per level ``(N, C, h, w)``, fused features.
            padding: Per level ``(N, h, w)`` bool, True = padding.
        """
        tokens = self.tokens(levels, padding)
        memory = self.encoder(tokens)
        proposals = self.proposals(memory, tokens, self.heads)
        hidden, references, boxes = self.decoder(proposals, memory, tokens, self.heads)
        logits = torch.stack([head(x) for head, x in zip(self.heads.classes, hidden, strict=False)])
        ious = self.heads.ious
        return TransformerOutput(
            logits=logits,
            boxes=boxes,
            references=references,
            hidden=hidden,
            encoder_logits=proposals.logits,
            encoder_boxes=proposals.boxes,
            chosen=proposals.chosen,
            iou_logits=None if ious is None else torch.stack([h(x) for h, x in zip(ious, hidden, strict=True)]),
            memory=tuple(tokens.maps(memory)),
        )
