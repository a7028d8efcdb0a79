"""The Deformable-DETR decoder: queries attend to each other and to the image, and refine their boxes layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_uniref.detr.boxes import inverse_sigmoid
from sam_uniref.detr.config import TransformerConfig
from sam_uniref.detr.deformable_attention import DeformableAttention
from sam_uniref.detr.encoder import FeedForward
from sam_uniref.detr.heads import DetectionHeads
from sam_uniref.detr.proposals import Proposals
from sam_uniref.detr.tokens import LevelTokens


class DecoderLayer(nn.Module):
    """Self-attention, deformable attention to the image, feed-forward; each normalised after it was added."""

    def __init__(self, config: TransformerConfig, levels: int) -> None:
        super().__init__()
        width = config.width
        self.self_attention = nn.MultiheadAttention(width, config.heads, dropout=config.dropout, batch_first=True)
        nn.init.xavier_uniform_(self.self_attention.out_proj.weight)
        self.self_norm = nn.LayerNorm(width)
        self.cross_attention = DeformableAttention(width, heads=config.heads, levels=levels, points=config.points)
        self.cross_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.feedforward = FeedForward(width, config.feedforward, config.dropout)

    def forward(self, x: Tensor, positions: Tensor, references: Tensor, memory: Tensor, tokens: LevelTokens) -> Tensor:
        """Queries, their positions ``(N, Q, C)`` and boxes ``(N, Q, levels, 4)`` in shares of the grids to queries."""
        placed = x + positions
        attended = self.self_attention(placed, placed, x, need_weights=False)[0]
        x = self.self_norm(x + self.dropout(attended))
        attended = self.cross_attention(x + positions, references, memory, tokens)
        x = self.cross_norm(x + self.dropout(attended))
        return self.feedforward(x)


class Decoder(nn.Module):
    """All layers of the decoder."""

    def __init__(self, config: TransformerConfig, levels: int) -> None:
        super().__init__()
        self.look_forward_twice = config.look_forward_twice
        self.layers = nn.ModuleList(DecoderLayer(config, levels) for _ in range(config.decoder_layers))

    def forward(
        self, proposals: Proposals, memory: Tensor, tokens: LevelTokens, heads: DetectionHeads
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine the proposals.

        Every layer attends around its box without gradient, but with "look forward twice" (Zhang et al. 2022) the box
        that comes out of it is the sum of its own change and of a reference that carries the gradients of the layer
        before.

        Returns:
            Queries ``(L, N, Q, C)`` as each layer leaves them, the boxes ``(L, N, Q, 4)`` that each was given, and
            those that it makes of them; boxes as (cx, cy, w, h) in [0, 1].
        """
        content = torch.cat([tokens.content, tokens.content], dim=2)[:, None]
        x, reference = proposals.contents, proposals.references
        hidden, references, boxes = [], [], []
        for layer, head in zip(self.layers, heads.boxes, strict=False):  # the last head is the proposals'
            given = reference.detach()
            x = layer(x, proposals.positions, given[:, :, None] * content, memory, tokens)
            change = head(x)
            hidden.append(x)
            references.append(reference)
            boxes.append((change + inverse_sigmoid(reference)).sigmoid())
            reference = (change + inverse_sigmoid(given)).sigmoid() if self.look_forward_twice else boxes[-1].detach()
        return torch.stack(hidden), torch.stack(references), torch.stack(boxes)
