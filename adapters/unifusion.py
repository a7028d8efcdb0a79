"""UniFusion: inject any list of references into image features (UniRef++ section 3.3, eq. 4-6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam_uniref.adapters.attention import CrossAttention
from sam_uniref.adapters.frames import FrameKeys, FrameReference, FrameReferences
from sam_uniref.adapters.references import ReferenceFeatures

ORDERS = ("parallel", "in_order", "reversed")


def checked_order(order: str) -> str:
    """The order itself.

    Raises:
        ValueError: If it is none of `ORDERS`.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
    return order


class UniFusion(nn.Module):
    """Cross-attention to references, modulated by adaLN-zero, added to the image features.

    For each reference r: ``O_r = Attention(Q(LN F), K(LN keys), V(values))``; shift, scale and gate are the
    thirds, in this order, of ``Linear(SiLU(pooled))``, zero-initialised; and
    ``F' = F + sum_r gate_r * (O_r * (1 + scale_r) + shift_r)``. All references are taken in parallel from the
    same F, and one set of parameters serves all levels and kinds of reference. With fresh weights F' = F.

    In sequence instead (UniRef's supplement, table 2), F' of the first kind is the F of the second, and so on. One
    kind alone is the same in any order.

    Args:
        channels: Width C of image and reference features.
        heads: Attention heads (published: 8).
        head_width: Width of one head (published: 256).
        dropout: Dropout on attention weights in training (published: 0.1).
        zero_init: Start from the identity (adaLN-zero). Off only for the ablation.
        order: ``"parallel"`` as published; ``"in_order"``, one kind after another as they are given; or
            ``"reversed"``, the last kind first. The latter two only for the ablation.
        start_alike: Queries and keys start as the same projection, so that an object is looked for from the first step
            on where the image is like it; off: apart, as published. On RefShapes few-shot learning takes two thirds of
            the steps to the same loss.

    Raises:
        ValueError: If the order is none of `ORDERS`.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        head_width: int = 256,
        dropout: float = 0.1,
        zero_init: bool = True,
        order: str = "parallel",
        start_alike: bool = True,
    ) -> None:
        super().__init__()
        self.order = checked_order(order)
        self.query_norm = nn.LayerNorm(channels)
        self.key_norm = nn.LayerNorm(channels)
        self.attention = CrossAttention(
            channels, heads=heads, head_width=head_width, dropout=dropout, start_alike=start_alike
        )
        modulate = nn.Linear(channels, 3 * channels)
        if zero_init:
            nn.init.zeros_(modulate.weight)
            nn.init.zeros_(modulate.bias)
        self.modulation = nn.Sequential(nn.SiLU(), modulate)

    def forward(
        self, features: Sequence[Tensor], references: Sequence[ReferenceFeatures | FrameReferences]
    ) -> list[Tensor]:
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
        sequence = references[::-1] if self.order == "reversed" else references
        fused_levels = []
        for level, feature in enumerate(features):
            tokens = feature.flatten(2).transpose(1, 2)
            # Once an image, not once a row: until something is injected, rows about one image are alike.
            queries = self._queries(tokens)
            if len(feature) > 1:
                queries = queries[image_index]
            fused = tokens[image_index]
            for position, reference in enumerate(sequence):
                if position > 0 and self.order != "parallel":
                    queries = self._queries(fused)
                fused = fused + self.contribution(queries, reference, level)
            fused_levels.append(fused.transpose(1, 2).unflatten(2, feature.shape[-2:]))
        return fused_levels

    def _queries(self, tokens: Tensor) -> Tensor:
        """``(B, h * w, C)`` image tokens to ``(B, heads, h * w, D)`` queries."""
        return self.attention.project_queries(self.query_norm(tokens))

    def frame_keys(self, keys: Sequence[Tensor]) -> FrameKeys:
        """What attention needs of a picture, to be kept for all objects annotated in it.

        Args:
            keys: Per level ``(L, C)`` features of the tokens that are no padding.
        """
        return FrameKeys(tuple(self.attention.project_keys(self.key_norm(level)) for level in keys))

    def frame_references(self, annotated: ReferenceFeatures) -> list[FrameReference]:
        """Rows of annotations of one picture, or of pictures that all rows share, as references that share it.

        Args:
            annotated: N rows that have the same keys and padding and are all present.
        """
        kept = [~padding[0] for padding in annotated.padding]
        frame = self.frame_keys([keys[0, at] for keys, at in zip(annotated.keys, kept, strict=True)])
        # Copies, as a view would keep what all objects have for as long as one of them is there.
        return [
            FrameReference(
                frame,
                tuple(values[row, at] for values, at in zip(annotated.values, kept, strict=True)),
                tuple(pooled[row].clone() for pooled in annotated.pooled),
            )
            for row in range(len(annotated))
        ]

    def contribution(self, queries: Tensor, reference: ReferenceFeatures | FrameReferences, level: int) -> Tensor:
        """What one kind of reference adds to one level, ``(N, h * w, C)``; zero for absent rows.

        Args:
            queries: ``(1, heads, h * w, D)`` where all rows have the same, else ``(N, heads, h * w, D)``.
            reference: N rows.
            level: Of the image features.
        """
        if isinstance(reference, FrameReferences):
            pooled = reference.pooled[level]
            attended = self.attention.frames(queries, reference, level)
        else:
            keys, values, padding, pooled = reference.level(level)
            padding = padding | ~reference.present[:, None]
            shared = queries.expand(len(reference), -1, -1, -1)
            attended = self.attention(shared, self.key_norm(keys), values, padding)
        shift, scale, gate = self.modulation(pooled)[:, None, :].chunk(3, dim=-1)
        added = gate * (attended * (1 + scale) + shift)
        return torch.where(reference.present[:, None, None], added, 0.0)
