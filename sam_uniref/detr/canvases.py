"""Images of one batch, each on the canvas it would have alone.

A convolution sees padding as black picture, and where it ends. So that an image is the same in any company, everything
that looks beyond single cells runs on images cut to their own canvas: their size rounded up to whole cells. Images that
have the same one run together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.transforms import Size

CANVAS_MULTIPLE = 32


@dataclass(frozen=True)
class CanvasGroup:
    """Rows of a batch that have the same canvas.

    Attributes:
        canvas: ``(height, width)`` in pixels.
        rows: ``(n,)`` int64.
        whole: Whether these are all rows, in their order: then nothing is copied.
    """

    canvas: Size
    rows: Tensor
    whole: bool

    def cut(self, maps: Tensor, stride: int) -> Tensor:
        """The group's rows of ``(N, ..., h, w)`` maps of this stride, without what is beyond its canvas."""
        height, width = grid_size(self.canvas, stride)
        return (maps if self.whole else maps[self.rows])[..., :height, :width]


def grid_size(canvas: Size, stride: int) -> Size:
    """How many cells of this stride a canvas has, begun ones included."""
    return -(-canvas[0] // stride), -(-canvas[1] // stride)


def own_canvas(input_size: Size) -> Size:
    """The canvas of a picture of this size alone."""
    height, width = grid_size(input_size, CANVAS_MULTIPLE)
    return height * CANVAS_MULTIPLE, width * CANVAS_MULTIPLE


def canvas_groups(input_sizes: Sequence[Size], device: torch.device) -> list[CanvasGroup]:
    """Rows whose contents have these sizes, grouped by their own canvases."""
    rows: dict[Size, list[int]] = {}
    for row, size in enumerate(input_sizes):
        rows.setdefault(own_canvas(size), []).append(row)
    return [CanvasGroup(canvas, torch.tensor(found, device=device), len(rows) == 1) for canvas, found in rows.items()]


def paste(groups: Sequence[CanvasGroup], parts: Sequence[Tensor], grid: Size, *, extend: bool = False) -> Tensor:
    """Maps of groups as one batch of maps.

    Args:
        groups: All rows, each once.
        parts: Per group ``(n, C, h, w)``.
        grid: ``(h, w)`` of the batch's maps.
        extend: Repeat the last cells of each map beyond its canvas, so that enlarging it is the same as if it ended
            there; otherwise there are zeros.

    Returns:
        ``(N, C, h, w)``.
    """
    if len(parts) == 1 and parts[0].shape[-2:] == grid:
        return parts[0]  # one group has all rows, in their order
    filled = []
    for part in parts:
        missing = (0, grid[1] - part.shape[-1], 0, grid[0] - part.shape[-2])
        filled.append(F.pad(part, missing, mode="replicate") if extend else F.pad(part, missing))
    order = torch.cat([group.rows for group in groups]).argsort()
    return torch.cat(filled)[order]


def extended(maps: Tensor, input_sizes: Sequence[Size], rows: Tensor, stride: int) -> Tensor:
    """Maps of one batch with their last cells repeated beyond each one's own canvas, as `paste` does.

    Args:
        maps: ``(K, h, w)`` of this stride.
        input_sizes: Of N rows' images.
        rows: ``(K,)`` int64, which row each map is of.
        stride: Of the maps.
    """
    last = torch.tensor([grid_size(own_canvas(size), stride) for size in input_sizes]).sub(1)
    last = last.to(maps.device, non_blocking=True)[rows]
    y = torch.minimum(torch.arange(maps.shape[1], device=maps.device), last[:, :1])
    x = torch.minimum(torch.arange(maps.shape[2], device=maps.device), last[:, 1:])
    own = torch.arange(len(maps), device=maps.device)
    return maps[own[:, None, None], y[:, :, None], x[:, None, :]]
