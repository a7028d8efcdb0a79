"""What any reference becomes before UniFusion: keys, values and a pooled vector for each query row.

Notation: N query rows (one object asked for in one image), L tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# What a reference can be: words; annotated images of the like; frames of the video that is asked about.
KINDS = ("sentence", "examples", "frames")


@dataclass(frozen=True)
class ReferenceFeatures:
    """References of one kind (sentences, or annotated images) for N query rows.

    Per-level fields are tuples. One entry serves every level of the image features (a sentence);
    otherwise there is one entry a level (an annotated image).

    Attributes:
        keys: Per level ``(N, L, C)``.
        values: Per level ``(N, L, C)``. A sentence has keys and values alike.
        padding: Per level ``(N, L)`` bool, True where a token is padding.
        pooled: Per level ``(N, C)``, the vector that eq. 5 of UniRef++ regresses scale, shift and gate from.
        present: ``(N,)`` bool. A row without this kind of reference contributes exactly nothing.
        image_index: ``(N,)`` int64, which image of the batch each row is about.
        kind: One of `KINDS`. It counts only where kinds have parameters of their own (an ablation).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    padding: tuple[Tensor, ...]
    pooled: tuple[Tensor, ...]
    present: Tensor
    image_index: Tensor
    kind: str = "examples"

    def __post_init__(self) -> None:
        levels = {len(self.keys), len(self.values), len(self.padding), len(self.pooled)}
        if len(levels) != 1 or levels == {0}:
            raise ValueError(f"keys, values, padding and pooled need one entry a level, got {sorted(levels)} entries")
        if self.present.ndim != 1 or self.present.dtype != torch.bool:
            raise ValueError(f"present must be bool (N,), got {self.present.dtype} {tuple(self.present.shape)}")
        rows = self.present.shape[0]
        for keys, values, padding, pooled in zip(self.keys, self.values, self.padding, self.pooled, strict=True):
            if keys.shape != values.shape or keys.ndim != 3 or keys.shape[0] != rows:
                raise ValueError(
                    f"keys and values must both be ({rows}, L, C), got {tuple(keys.shape)} and {tuple(values.shape)}"
                )
            if padding.shape != keys.shape[:2] or padding.dtype != torch.bool:
                raise ValueError(
                    f"padding must be bool {tuple(keys.shape[:2])}, got {padding.dtype} {tuple(padding.shape)}"
                )
            if pooled.shape != (rows, keys.shape[2]):
                raise ValueError(f"pooled must be ({rows}, {keys.shape[2]}), got {tuple(pooled.shape)}")
        if self.image_index.shape != (rows,):
            raise ValueError(f"image_index must be ({rows},), got {tuple(self.image_index.shape)}")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}")

    def __len__(self) -> int:
        """The number of query rows, N."""
        return self.present.shape[0]

    def level(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys, values, padding and pooled vector that serve level ``index`` of the image features."""
        at = 0 if len(self.keys) == 1 else index
        return self.keys[at], self.values[at], self.padding[at], self.pooled[at]

    def about(self, image_index: Tensor) -> ReferenceFeatures:
        """The same references, asked of other images: ``image_index`` is ``(N,)`` int64."""
        return replace(self, image_index=image_index.to(self.present.device))

    def of_kind(self, kind: str) -> ReferenceFeatures:
        """The same references as another of `KINDS`."""
        return replace(self, kind=kind)

    def select(self, rows: Tensor) -> ReferenceFeatures:
        """The given rows (int64 indices or a bool mask), in that order; a row may be repeated."""
        return self.map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ReferenceFeatures:
        """Everything on ``device``, floating tensors in ``dtype``."""
        return self.map(
            lambda tensor: tensor.to(device, dtype if dtype and tensor.is_floating_point() else tensor.dtype)
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> ReferenceFeatures:
        """Apply ``function`` to every tensor, all of which have N rows."""
        return replace(
            self,
            keys=tuple(map(function, self.keys)),
            values=tuple(map(function, self.values)),
            padding=tuple(map(function, self.padding)),
            pooled=tuple(map(function, self.pooled)),
            present=function(self.present),
            image_index=function(self.image_index),
        )


def concat(references: Sequence[ReferenceFeatures]) -> ReferenceFeatures:
    """Join references of a kind in one step: K support images, or the first and the previous frame.

    Tokens are concatenated (those of absent rows become padding), pooled vectors are averaged over the
    references that are present in the row, and a row is present if any of its references is.

    Args:
        references: One or more, with the same rows, levels and channels.

    Raises:
        ValueError: If there are none, or if their rows or levels differ.
    """
    if not references:
        raise ValueError("concat needs at least one reference, got none")
    first = references[0]
    if len(references) == 1:
        return first
    if any(len(r) != len(first) or len(r.keys) != len(first.keys) for r in references):
        raise ValueError(
            "references to concatenate must have the same rows and levels, got "
            f"{[(len(r), len(r.keys)) for r in references]} (rows, levels)"
        )
    weights = torch.stack([r.present for r in references]).to(first.pooled[0].dtype)
    weights = weights / weights.sum(0).clamp(min=1)
    levels = range(len(first.keys))
    return ReferenceFeatures(
        keys=tuple(torch.cat([r.keys[i] for r in references], dim=1) for i in levels),
        values=tuple(torch.cat([r.values[i] for r in references], dim=1) for i in levels),
        padding=tuple(torch.cat([r.padding[i] | ~r.present[:, None] for r in references], dim=1) for i in levels),
        pooled=tuple(
            torch.stack(
                [
                    torch.where(w[:, None] > 0, r.pooled[i], 0) * w[:, None]
                    for r, w in zip(references, weights, strict=True)
                ]
            ).sum(0)
            for i in levels
        ),
        present=torch.stack([r.present for r in references]).any(0),
        image_index=first.image_index,
        kind=first.kind,
    )


def stack_rows(references: Sequence[ReferenceFeatures]) -> ReferenceFeatures:
    """Put the rows of several references of a kind under one another, padding the shorter ones with tokens.

    Args:
        references: One or more, with the same levels and channels.

    Raises:
        ValueError: If there are none, or if their levels differ.
    """
    if not references:
        raise ValueError("stack_rows needs at least one reference, got none")
    if len({len(r.keys) for r in references}) != 1:
        raise ValueError(f"references must have the same levels, got {[len(r.keys) for r in references]}")

    def join(name: str, level: int, filler: bool | float) -> Tensor:
        tensors = [getattr(r, name)[level] for r in references]
        longest = max(t.shape[1] for t in tensors)
        padded = []
        for tensor in tensors:
            missing = tensor.new_full((tensor.shape[0], longest - tensor.shape[1], *tensor.shape[2:]), filler)
            padded.append(torch.cat([tensor, missing], dim=1))
        return torch.cat(padded)

    levels = range(len(references[0].keys))
    return ReferenceFeatures(
        keys=tuple(join("keys", i, 0.0) for i in levels),
        values=tuple(join("values", i, 0.0) for i in levels),
        padding=tuple(join("padding", i, True) for i in levels),
        pooled=tuple(torch.cat([r.pooled[i] for r in references]) for i in levels),
        present=torch.cat([r.present for r in references]),
        image_index=torch.cat([r.image_index for r in references]),
        kind=references[0].kind,
    )
