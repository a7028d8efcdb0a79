"""The first stage: every encoder token proposes a box; the best become the decoder's queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.detr.config import TransformerConfig
from sam_uniref.detr.heads import DetectionHeads
from sam_uniref.detr.positions import box_positions
from sam_uniref.detr.tokens import LevelTokens

# A token's box before it is refined: a square of this share of the image on the finest level, doubled a level.
_GRID_SIDE = 0.05
# No side or centre of a token's box may be nearer to 0 or 1 than this.
_BORDER = 0.01


@dataclass(frozen=True)
class Proposals:
    """What the encoder proposes for N rows.

    Attributes:
        logits: ``(N, T, classes)``, of all tokens.
        boxes: ``(N, T, 4)`` as (cx, cy, w, h) in [0, 1], of all tokens; (1, 1, 1, 1) of those that are no valid
            proposal.
        chosen: ``(N, Q)`` int64, the tokens that become queries, the best first; T and more where there are not as
            many tokens as queries.
        references: ``(N, Q, 4)``, their boxes, without gradient.
        contents: ``(N, Q, C)`` of the queries to start from.
        positions: ``(N, Q, C)``, added to the queries in every layer.
    """

    logits: Tensor
    boxes: Tensor
    chosen: Tensor
    references: Tensor
    contents: Tensor
    positions: Tensor


class ProposalStage(nn.Module):
    """Score all encoder tokens, and make queries of the best.

    A token of padding, or whose box touches the border, is no valid proposal. As published such tokens are scored as
    zeros are, and could outrank others by their mere number, which depends on how the image is padded; here they come
    after all others. Where an image has fewer valid ones than there are queries, the rest are made of these.

    Args:
        config: Of the transformer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.queries = config.queries
        self.output = nn.Linear(width, width)
        self.output_norm = nn.LayerNorm(width)
        self.position = nn.Linear(2 * width, 2 * width)
        self.position_norm = nn.LayerNorm(2 * width)
        self.contents = nn.Parameter(torch.randn(config.queries, width)) if config.mixed_selection else None
        for linear in (self.output, self.position):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, memory: Tensor, tokens: LevelTokens, heads: DetectionHeads) -> Proposals:
        """Choose queries.

        Args:
            memory: ``(N, T, C)``, the encoder's output.
            tokens: What went into the encoder.
            heads: Their last class and box heads are the proposals'.
        """
        grid, valid = grid_boxes(tokens)
        encoded = self.output_norm(self.output(memory.masked_fill(~valid[..., None], 0.0)))
        logits = heads.classes[-1](encoded)
        unactivated = heads.boxes[-1](encoded) + grid
        # A tiny image may have fewer tokens than there are queries; the rest are queries of no valid proposal too.
        missing = max(0, self.queries - grid.shape[1])
        ranks = F.pad(logits[..., 0].detach().masked_fill(~valid, -torch.inf), (0, missing), value=-torch.inf)
        chosen = ranks.topk(self.queries, dim=1).indices
        everything = F.pad(unactivated.detach(), (0, 0, 0, missing), value=torch.inf)
        picked = everything.gather(1, chosen[..., None].expand(-1, -1, 4))
        references = picked.sigmoid()
        embedded = self.position_norm(self.position(box_positions(references, memory.shape[2] // 2)))
        positions, contents = embedded.chunk(2, dim=2)
        if self.contents is not None:
            contents = self.contents.expand(len(memory), -1, -1)
        return Proposals(logits, unactivated.sigmoid(), chosen, references, contents, positions)


def grid_boxes(tokens: LevelTokens) -> tuple[Tensor, Tensor]:
    """Each token's box before it is refined.

    Returns:
        ``(N, T, 4)`` log-odds of (cx, cy, w, h), infinite where the proposal is not valid; and ``(N, T)`` bool, whether
        it is.
    """
    centers = tokens.cell_centers()
    by_level = [centers.new_full((h * w,), _GRID_SIDE * 2.0**level) for level, (h, w) in enumerate(tokens.sizes)]
    sides = torch.cat(by_level)
    boxes = torch.cat([centers, sides[None, :, None].expand(len(centers), -1, 2)], dim=2)
    valid = ((boxes > _BORDER) & (boxes < 1 - _BORDER)).all(2) & ~tokens.padding
    odds = (boxes / (1 - boxes)).log()
    return odds.masked_fill(~valid[..., None], torch.inf), valid
