"""The cells of all feature levels in one sequence, and where each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sam_uniref.transforms import Size


@dataclass(frozen=True)
class LevelTokens:
    """N images' cells of all levels one after another, T in all.

    Attributes:
        tokens: ``(N, T, C)``.
        positions: ``(N, T, C)``, added to queries.
        padding: ``(N, T)`` bool, True = padding.
        sizes: Per level ``(h, w)``.
        grids: ``(levels, 2)`` int64, the same on the tokens' device.
        content: ``(N, levels, 2)``, how many columns and rows of each level's grid hold content, in shares of it.
    """

    tokens: Tensor
    positions: Tensor
    padding: Tensor
    sizes: tuple[Size, ...]
    grids: Tensor
    content: Tensor

    def split(self, tokens: Tensor) -> list[Tensor]:
        """``(N, T, ...)`` to one ``(N, h * w, ...)`` a level."""
        return list(tokens.split([h * w for h, w in self.sizes], dim=1))

    def maps(self, tokens: Tensor) -> list[Tensor]:
        """``(N, T, C)`` to one ``(N, C, h, w)`` a level."""
        return [
            part.transpose(1, 2).unflatten(2, size) for part, size in zip(self.split(tokens), self.sizes, strict=True)
        ]

    def cell_centers(self) -> Tensor:
        """``(N, T, 2)`` centres (x, y) of all cells in shares of the images without their padding."""
        found = []
        for level, (h, w) in enumerate(self.sizes):
            y = torch.arange(h, dtype=torch.float32, device=self.content.device) + 0.5
            x = torch.arange(w, dtype=torch.float32, device=self.content.device) + 0.5
            columns, rows = self.content[:, level, 0, None] * w, self.content[:, level, 1, None] * h
            grid = torch.stack(torch.broadcast_tensors((x / columns)[:, None, :], (y / rows)[:, :, None]), dim=-1)
            found.append(grid.flatten(1, 2))
        return torch.cat(found, dim=1)


def content_shares(padding: Sequence[Tensor]) -> Tensor:
    """``(N, levels, 2)`` shares of columns and rows that hold content, from ``(N, h, w)`` bool a level."""
    shares = []
    for level in padding:
        content = ~level
        columns = content[:, 0, :].float().mean(1)
        rows = content[:, :, 0].float().mean(1)
        shares.append(torch.stack([columns, rows], dim=1))
    return torch.stack(shares, dim=1)
