"""A grid of tokens cut into square windows and joined again."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def cut(tokens: Tensor, window: int, padding: Tensor | None) -> Tensor:
    """Queries, keys and values of a grid by windows and heads; the last windows are filled up.

    Args:
        tokens: ``(B, H, W, 3, heads, D)``.
        window: Side of a window, S.
        padding: ``(3, heads, D)``, what stands where a window reaches beyond the grid; None where none does.

    Returns:
        ``(3, B, down, across, heads, S, S, D)``, contiguous; ``down`` and ``across`` are the numbers of windows.
    """
    batch, height, width, kinds, heads, head_width = tokens.shape
    if torch.compiler.is_exporting():
        return _exported_cut(tokens, window, padding)
    shape = (kinds, batch, -(-height // window), -(-width // window), heads, window, window, head_width)
    if padding is None:
        windows = tokens.new_empty(shape)
    else:
        windows = padding[:, None, None, None, :, None, None].expand(shape).contiguous()
    target = windows.permute(1, 2, 5, 3, 6, 0, 4, 7)  # as the grid: (B, down, S, across, S, 3, heads, D)
    for lines, down, inner_lines in _spans(height, window):
        for columns, across, inner_columns in _spans(width, window):
            part = target[:, down, :inner_lines, across, :inner_columns]
            part.copy_(tokens[:, lines, columns].view(part.shape))
    return windows


def join(windows: Tensor, height: int, width: int) -> Tensor:
    """Windows of all heads to a grid; what reaches beyond it is left out.

    Args:
        windows: ``(B, down, across, heads, S, S, D)``.
        height: H.
        width: W.

    Returns:
        ``(B, H, W, heads * D)``, contiguous.
    """
    batch, down, across, heads, window, _, head_width = windows.shape
    if torch.compiler.is_exporting():
        grid = windows.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, down * window, across * window, heads * head_width)
        return grid[:, :height, :width].contiguous()
    joined = windows.new_empty(batch, height, width, heads * head_width)
    source = windows.permute(0, 1, 4, 2, 5, 3, 6)
    for lines, rows, inner_lines in _spans(height, window):
        for columns, stacks, inner_columns in _spans(width, window):
            part = source[:, rows, :inner_lines, stacks, :inner_columns]
            joined[:, lines, columns].view(part.shape).copy_(part)
    return joined


def _exported_cut(tokens: Tensor, window: int, padding: Tensor | None) -> Tensor:
    """As `cut` without a write, which a graph of operations does not have."""
    for side in (1, 2):
        missing = -tokens.shape[side] % window
        if missing and padding is not None:
            shape = [*tokens.shape[:3], *padding.shape]
            shape[side] = missing
            tokens = torch.cat([tokens, padding.expand(shape)], dim=side)
    by_window = tokens.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, down, S, across, S, 3, heads, D)
    return by_window.permute(5, 0, 1, 3, 6, 2, 4, 7).contiguous()


def _spans(length: int, window: int) -> Iterator[tuple[slice, slice, int]]:
    """A side's whole windows, then the last one if it is not: where in the grid, which windows, how much of each."""
    whole = length // window
    if whole:
        yield slice(0, whole * window), slice(0, whole), window
    if length % window:
        yield slice(whole * window, length), slice(whole, whole + 1), length % window
