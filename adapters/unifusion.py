"""UniFusion: inject any list of references into image features (UniRef++ section 3.3, eq. 4-6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sam_uniref.adapters.attention import CrossAttention, ImageQueries
from sam_uniref.adapters.frames import FrameKeys, FrameReference, FrameReferences
from sam_uniref.adapters.references import KINDS, ReferenceFeatures

ORDERS = ("parallel", "in_order", "reversed")
INJECTIONS = ("add", "multiply")


def checked_order(order: str) -> str:
    """The order itself.

    Raises:
        ValueError: If it is none of `ORDERS`.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
    return order


def checked_injection(injection: str) -> str:
    """The way of injection itself.

    Raises:
        ValueError: If it is none of `INJECTIONS`.
    """
    if injection not in INJECTIONS:
        raise ValueError(f"injection must be one of {INJECTIONS}, got {injection!r}")
    return injection


class ReferenceFusion(nn.Module, ABC):
    """Take references in, level by level and kind by kind; whose parameters serve which is for subclasses to say.

    Args:
        order: See `UniFusion`.
        injection: See `UniFusion`.

    Raises:
        ValueError: If either is none of those there are.
    """

    def __init__(self, order: str = "parallel", injection: str = "add") -> None:
        super().__init__()
        self.order = checked_order(order)
        self.injection = checked_injection(injection)

    @abstractmethod
    def part(self, kind: str, level: int) -> UniFusion:
        """Whose parameters serve a kind of reference on a level."""

    def by_kinds(self) -> dict[tuple[str, ...], nn.Module]:
        """All of it, by the kinds of reference that its modules serve."""
        return {KINDS: self}

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
        rows = [reference.present.shape[0] for reference in references]
        if any(count != rows[0] for count in rows):
            raise ValueError(f"all references must have the same number of rows, got {sorted(set(rows))}")
        sequence = references[::-1] if self.order == "reversed" else references
        return [
            self._fuse_level(feature, level, sequence, references[0].image_index)
            for level, feature in enumerate(features)
        ]

    def _fuse_level(
        self,
        feature: Tensor,
        level: int,
        references: Sequence[ReferenceFeatures | FrameReferences],
        image_index: Tensor,
    ) -> Tensor:
        """``(B, C, h, w)`` to ``(N, C, h, w)``."""
        tokens = feature.flatten(2).transpose(1, 2)
        fused = tokens[image_index]
        # Once an image, not once a row: until something is injected, rows about one image are alike.
        unfused: dict[UniFusion, ImageQueries] = {}
        for position, reference in enumerate(references):
            part = self.part(reference.kind, level)
            if position > 0 and self.order != "parallel":
                queries = part.queries(fused, torch.arange(fused.shape[0], device=fused.device))
            else:
                if part not in unfused:
                    unfused[part] = part.queries(tokens, image_index)
                queries = unfused[part]
            added = part.contribution(queries, reference, level)
            fused = fused + added if self.injection == "add" else fused * (1 + added)
        return fused.transpose(1, 2).unflatten(2, feature.shape[-2:])

    def frame_keys(self, keys: Sequence[Tensor]) -> FrameKeys:
        """What attention needs of a picture, to be kept for all objects annotated in it.

        Args:
            keys: Per level ``(L, C)`` features of the tokens that are no padding.
        """
        return FrameKeys(
            tuple(self.part(FrameReferences.kind, level).frame_level_keys(own) for level, own in enumerate(keys))
        )

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


class UniFusion(ReferenceFusion):
    """Cross-attention to references, modulated by adaLN-zero, added to the image features.

    For each reference r: ``O_r = Attention(Q(LN F), K(LN keys), V(values))``; shift, scale and gate are the
    thirds, in this order, of ``Linear(SiLU(pooled))``, zero-initialised; and
    ``F' = F + sum_r gate_r * (O_r * (1 + scale_r) + shift_r)``. All references are taken in parallel from the
    same F, and one set of parameters serves all levels and kinds of reference. With fresh weights F' = F.

    In sequence instead (UniRef's supplement, table 2), F' of the first kind is the F of the second, and so on. One
    kind alone is the same in any order.

    The first UniRef multiplies what it fused (its supplement, figure 2). ``"multiply"`` is
    ``F' = F * prod_r (1 + gate_r * (O_r * (1 + scale_r) + shift_r))``: with fresh weights still F, and with a gate of 1
    and a shift of -1 just ``F * prod_r O_r``.

    Args:
        channels: Width C of image and reference features.
        heads: Attention heads (published: 8).
        head_width: Width of one head (published: 256).
        dropout: Dropout on attention weights in training (published: 0.1).
        zero_init: Start from the identity (adaLN-zero). Off only for the ablation.
        order: ``"parallel"`` as published; ``"in_order"``, one kind after another as they are given; or
            ``"reversed"``, the last kind first. The latter two only for the ablation.
        injection: ``"add"`` as in UniRef++, or ``"multiply"``.
        start_alike: Queries and keys start as the same projection, so that an object is looked for from the first step
            on where the image is like it; off: apart, as published.

    Raises:
        ValueError: If the order or the injection is none of those there are.
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
        injection: str = "add",
        start_alike: bool = True,
    ) -> None:
        super().__init__(order, injection)
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

    def part(self, kind: str, level: int) -> UniFusion:
        """Itself: one set of parameters serves all."""
        return self

    def queries(self, tokens: Tensor, image_index: Tensor) -> ImageQueries:
        """``(B, h * w, C)`` image tokens and the image that each of N rows is about as what is asked."""
        return ImageQueries(self.attention, self.query_norm(tokens), image_index)

    def frame_level_keys(self, tokens: Tensor) -> Tensor:
        """``(L, C)`` tokens of one level of a picture to ``(heads, L, D)`` keys."""
        return self.attention.project_keys(self.key_norm(tokens))

    def contribution(self, queries: ImageQueries, reference: ReferenceFeatures | FrameReferences, level: int) -> Tensor:
        """What one kind of reference adds to one level, ``(N, h * w, C)``; zero for absent rows.

        Args:
            queries: For N rows.
            reference: N rows.
            level: Of the image features.
        """
        if isinstance(reference, FrameReferences):
            pooled = reference.pooled[level]
            attended = self.attention.frames(queries.projected, reference, level)
        else:
            keys, values, padding, pooled = reference.level(level)
            attended = self.attend(queries, keys, values, padding | ~reference.present[:, None])
        shift, scale, gate = self.modulation(pooled)[:, None, :].chunk(3, dim=-1)
        added = gate * (attended * (1 + scale) + shift)
        return torch.where(reference.present[:, None, None], added, 0.0)

    def attend(self, queries: ImageQueries, keys: Tensor, values: Tensor, padding: Tensor) -> Tensor:
        """Attention with its products in whichever order costs least.

        Args:
            queries: For N rows.
            keys: ``(N, L, C)``.
            values: ``(N, L, C)``.
            padding: ``(N, L)`` bool, True = padding.

        Returns:
            ``(N, h * w, C)``.
        """
        attention = self.attention
        if torch.compiler.is_exporting():  # one graph for any number of images, rows and tokens
            return attention(attention.project_queries(queries.of_rows), self.key_norm(keys), values, padding)
        if keys.shape[1] <= attention.head_width:
            return attention.to_few(queries, self.key_norm(keys), values, padding)
        if attention.shares_on(keys.device):
            normal = nn.functional.layer_norm(keys, keys.shape[-1:], eps=self.key_norm.eps)
            return attention.shared(queries, normal, values, padding, self.key_norm.weight)
        projected = queries.projected.expand(len(keys), -1, -1, -1)
        return attention(projected, self.key_norm(keys), values, padding)


class SeparateUniFusion(ReferenceFusion):
    """A `UniFusion` of its own for each level, for each kind of reference, or for each of both (UniRef++ table 6b).

    Kinds stand for tasks: sentences for RIS, examples for FSS, frames for VOS. RVOS has sentences and frames, and uses
    the modules of both; the paper does not say what it did.

    Args:
        channels: Width C of image and reference features.
        levels: Number of levels of the image features.
        shared_levels: One serves all levels.
        shared_kinds: One serves all kinds of reference.
        order: See `UniFusion`.
        injection: See `UniFusion`.
        options: What else a `UniFusion` takes.
    """

    def __init__(
        self,
        channels: int,
        *,
        levels: int,
        shared_levels: bool,
        shared_kinds: bool,
        order: str = "parallel",
        injection: str = "add",
        **options: Any,
    ) -> None:
        super().__init__(order, injection)
        self.shared_levels, self.shared_kinds = shared_levels, shared_kinds
        names = {self._name(kind, level) for kind in KINDS for level in range(levels)}
        self.parts = nn.ModuleDict({name: UniFusion(channels, **options) for name in sorted(names)})

    def part(self, kind: str, level: int) -> UniFusion:
        """The one for this kind and level."""
        return cast(UniFusion, self.parts[self._name(kind, level)])

    def by_kinds(self) -> dict[tuple[str, ...], nn.Module]:
        """All of it, by the kinds of reference that its modules serve."""
        if self.shared_kinds:
            return super().by_kinds()
        own = {kind: [part for name, part in self.parts.items() if name.split("_")[0] == kind] for kind in KINDS}
        return {(kind,): nn.ModuleList(parts) for kind, parts in own.items()}

    def _name(self, kind: str, level: int) -> str:
        """Such as ``frames_0``, or ``frames`` where levels are shared."""
        return "_".join(([] if self.shared_kinds else [kind]) + ([] if self.shared_levels else [f"level{level}"]))


def build_fusion(
    channels: int, levels: int, *, shared_levels: bool = True, shared_kinds: bool = True, **options: Any
) -> ReferenceFusion:
    """One `UniFusion` for everything, as published; or a `SeparateUniFusion`.

    Args:
        channels: Width C of image and reference features.
        levels: Number of levels of the image features.
        shared_levels: One set of parameters serves all levels.
        shared_kinds: One set of parameters serves all kinds of reference.
        options: What else a `UniFusion` takes.

    Raises:
        ValueError: If the order or the injection is none of those there are.
    """
    if shared_levels and shared_kinds:
        return UniFusion(channels, **options)
    return SeparateUniFusion(channels, levels=levels, shared_levels=shared_levels, shared_kinds=shared_kinds, **options)
