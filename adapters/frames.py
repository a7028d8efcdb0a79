"""References to frames of a video, laid out for many objects: a picture's keys are kept once for all of them.

What `references` holds for training, a row a reference, is held here as attention needs it and no more: of a
picture its projected keys, of an object in it the mask encoder's values and a pooled vector; and of neither the tokens
that are padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FrameKeys:
    """A picture as attention looks at it. It is told from others by identity.

    Attributes:
        keys: Per level ``(heads, L, D)``, normalised and projected; L tokens, none of them padding.
    """

    keys: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class FrameReference:
    """One object in one picture, or in several that are looked at as one (K examples).

    Attributes:
        frame: The picture, shared with the other objects in it.
        values: Per level ``(L, C)``.
        pooled: Per level ``(C,)``.
    """

    frame: FrameKeys
    values: tuple[Tensor, ...]
    pooled: tuple[Tensor, ...]


@dataclass(frozen=True)
class FrameReferences:
    """References of one kind for N query rows, as `ReferenceFeatures`, but with their pictures shared.

    Attributes:
        rows: What each row refers to: any number of annotated pictures. A row with none contributes nothing.
        image_index: ``(N,)`` int64, which image of the batch each row is about.
        kind: As `ReferenceFeatures` have it.

    Raises:
        ValueError: If no row refers to anything, or the rows are not N.
    """

    kind: ClassVar[str] = "frames"

    rows: tuple[tuple[FrameReference, ...], ...]
    image_index: Tensor

    def __post_init__(self) -> None:
        if not any(self.rows):
            raise ValueError("at least one row must have a reference")
        if self.image_index.shape != (len(self.rows),):
            raise ValueError(f"image_index must be ({len(self.rows)},), got {tuple(self.image_index.shape)}")

    def __len__(self) -> int:
        """The number of query rows, N."""
        return len(self.rows)

    @property
    def present(self) -> Tensor:
        """``(N,)`` bool: which rows have a reference."""
        return torch.tensor([bool(row) for row in self.rows], device=self.image_index.device)

    @property
    def pooled(self) -> tuple[Tensor, ...]:
        """Per level ``(N, C)``: the mean over a row's pictures; zero where there is none."""
        some = next(reference for row in self.rows for reference in row)

        def mean(row: Sequence[FrameReference], level: int) -> Tensor:
            vectors = [reference.pooled[level] for reference in row]
            return torch.stack(vectors).mean(dim=0) if vectors else torch.zeros_like(some.pooled[level])

        return tuple(torch.stack([mean(row, level) for row in self.rows]) for level in range(len(some.pooled)))

    def select(self, rows: Tensor) -> FrameReferences:
        """The given rows (int64 indices or a bool mask), in that order."""
        at = torch.arange(len(self.rows), device=rows.device)[rows].tolist()
        return FrameReferences(tuple(self.rows[i] for i in at), self.image_index[rows])

    @property
    def share(self) -> bool:
        """Whether any two rows have a picture in common."""
        frames = [id(reference.frame) for row in self.rows for reference in row]
        return len(set(frames)) < len(frames)

    def by_frame(self, level: int) -> list[SharedFrame]:
        """Every picture once, with the rows that refer to it."""
        frames: dict[int, list[tuple[int, FrameReference]]] = {}
        for number, row in enumerate(self.rows):
            for reference in row:
                frames.setdefault(id(reference.frame), []).append((number, reference))
        device = self.image_index.device
        return [
            SharedFrame(
                keys=found[0][1].frame.keys[level],
                rows=torch.tensor([number for number, _ in found], device=device),
                values=torch.stack([reference.values[level] for _, reference in found], dim=1),
            )
            for found in frames.values()
        ]


@dataclass(frozen=True)
class SharedFrame:
    """One level of a picture, and the n of N rows that refer to it.

    Attributes:
        keys: ``(heads, L, D)``.
        rows: ``(n,)`` int64.
        values: ``(L, n, C)``.
    """

    keys: Tensor
    rows: Tensor
    values: Tensor


def attend_frames(
    queries: Tensor, frames: Sequence[SharedFrame], rows: int, finish: Callable[[Tensor], Tensor], *, block: int = 2**24
) -> Tensor:
    """Scaled dot-product attention of one image's queries to pictures that rows share.

    The weights of a picture are computed once and multiplied by the values of all its rows side by side. A row's
    pictures are joined exactly: the softmax over all of a row's tokens is the mean of the pictures' own softmaxes,
    weighted by the exponentials of their log-sum-exps.

    Args:
        queries: ``(heads, Lq, D)``.
        frames: At least one.
        rows: Number of rows, N; those that are in no picture get zeros.
        finish: From ``(N, l, heads, C)``, weights times values of l queries, to ``(N, l, C)``.
        block: Attention weights that are held at a time.

    Returns:
        ``(N, Lq, C)``.
    """
    heads = len(queries)
    scaled = queries * queries.shape[2] ** -0.5
    step = max(1, block // (heads * max(frame.keys.shape[1] for frame in frames)))
    parts = []
    for part in scaled.split(step, dim=1):
        values = frames[0].values
        joined = values.new_zeros(rows, heads, part.shape[1], values.shape[2])
        total = part.new_full((rows, heads, part.shape[1]), float("-inf"), dtype=torch.float32)
        for frame in frames:
            attended, log_sum = _attend(part, frame)
            both = torch.logaddexp(total[frame.rows], log_sum)
            new = (log_sum - both).exp().to(joined.dtype)[..., None]
            joined[frame.rows] = torch.lerp(joined[frame.rows], attended, new)
            total[frame.rows] = both
        parts.append(finish(joined.transpose(1, 2)))
    return torch.cat(parts, dim=1)


def _attend(queries: Tensor, frame: SharedFrame) -> tuple[Tensor, Tensor]:
    """One picture.

    Returns:
        ``(n, heads, l, C)`` weights times values, and ``(1, heads, l)`` logarithms of what the weights sum to before
        they are normalised.
    """
    logits = (queries @ frame.keys.transpose(1, 2)).float()
    largest = logits.amax(dim=2, keepdim=True)
    # In place, and normalised after the product, which is smaller: each pass over the weights counts.
    weights = logits.sub_(largest).exp_()
    total = weights.sum(dim=2, keepdim=True)
    heads, length, tokens = weights.shape
    attended = weights.view(heads * length, tokens).to(frame.values.dtype) @ frame.values.flatten(1)
    attended = attended.view(heads, length, -1).div_(total).view(heads, length, len(frame.rows), -1)
    return attended.permute(2, 0, 1, 3), (largest + total.log())[None, :, :, 0]
