"""UniFusion: inject any list of references into image features (UniRef++ section 3.3, eq. 4-6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam_uniref.adapters.attention import CrossAttention
from sam_uniref.adapters.references import ReferenceFeatures


class UniFusion(nn.Module):
    """Cross-attention to references, modulated by adaLN-zero, added to the image features.

    For each reference r: ``O_r = Attention(Q(LN F), K(LN keys), V(values))``; shift, scale and gate are the
    thirds, in this order, of ``Linear(SiLU(pooled))``, zero-initialised; and
    ``F' = F + sum_r gate_r * (O_r * (1 + scale_r) + shift_r)``. All references are taken in parallel from the
    same F, and one set of parameters serves all levels and kinds of reference. With fresh weights F' = F.

    Args:
        channels: Width C of image and reference features.
        heads: Attention heads (published: 8).
        head_width: Width of one head (published: 256).
        dropout: Dropout on attention weights in training (published: 0.1).
        zero_init: Start from the identity (adaLN-zero). Off only for the ablation.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        head_width: int = 256,
        dropout: float = 0.1,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(channels)
        self.key_norm = nn.LayerNorm(channels)
        self.attention = CrossAttention(channels, heads=heads, head_width=head_width, dropout=dropout)
        modulate = nn.Linear(channels, 3 * channels)
        if zero_init:
            nn.init.zeros_(modulate.weight)
            nn.init.zeros_(modulate.bias)
        self.modulation = nn.Sequential(nn.SiLU(), modulate)

    def forward(self, features: Sequence[Tensor], references: Sequence[ReferenceFeatures]) -> list[Tensor]:
        """Fuse references into image features.

        Args:
            features: Per level ``(B, C, h, w)``.
            references: Any number of kinds (sentences, annotated images), each with the same N rows. Their
                ``image_index`` says which of the B images a row is about; the first one's is used.

        Returns:
            Per level ``(N, C, h, w)``: image features of each row, with its references injected.

        Raises:
            ValueError: If there are no references, or if they differ in their number of rows.
        """
        if not references:
            raise ValueError("UniFusion needs at least one reference; without any, use the features as they are")
        rows = {len(reference) for reference in references}
        if len(rows) != 1:
            raise ValueError(f"all references must have the same number of rows, got {sorted(rows)}")
        image_index = references[0].image_index
        fused_levels = []
        for level, feature in enumerate(features):
            tokens = feature.flatten(2).transpose(1, 2)
            queries = self.attention.project_queries(self.query_norm(tokens))[image_index]
            fused = tokens[image_index]
            for reference in references:
                fused = fused + self.contribution(queries, reference, level)
            fused_levels.append(fused.transpose(1, 2).unflatten(2, feature.shape[-2:]))
        return fused_levels

    def contribution(self, queries: Tensor, reference: ReferenceFeatures, level: int) -> Tensor:
        """What one kind of reference adds to one level, ``(N, h * w, C)``; zero for absent rows."""
        keys, values, padding, pooled = reference.level(level)
        attended = self.attention(queries, self.key_norm(keys), values, padding | ~reference.present[:, None])
        shift, scale, gate = self.modulation(pooled)[:, None, :].chunk(3, dim=-1)
        added = gate * (attended * (1 + scale) + shift)
        return torch.where(reference.present[:, None, None], added, 0.0)
