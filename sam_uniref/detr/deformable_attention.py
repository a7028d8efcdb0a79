"""Multi-scale deformable attention (Zhu et al. 2021): a query looks at a few sampled points of every level.

Plain PyTorch everywhere; a fused kernel where one is installed and the tensors are on CUDA in full precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.detr.fused_sampling import fused_kernel, sample_fused
from sam_uniref.detr.tokens import LevelTokens
from sam_uniref.transforms import Size


def sample_levels(values: Tensor, sizes: Sequence[Size], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples; outside of a level there are zeros.

    Args:
        values: ``(N, T, heads, D)``, the cells of all levels one after another.
        sizes: Per level ``(h, w)``; their areas sum to T.
        locations: ``(N, Q, heads, levels, points, 2)`` as (x, y) in shares of each level's grid.
        weights: ``(N, Q, heads, levels, points)``.

    Returns:
        ``(N, Q, heads * D)``.
    """
    rows, _, heads, width = values.shape
    grids = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    by_level = values.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in sizes], dim=2)
    samples = [
        F.grid_sample(level.unflatten(2, size), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        for level, size, grid in zip(by_level, sizes, grids, strict=True)
    ]
    # (N * heads, D, Q, levels * points) times (N * heads, 1, Q, levels * points)
    summed = (torch.cat(samples, dim=3) * weights.transpose(1, 2).flatten(0, 1).flatten(2)[:, None]).sum(3)
    return summed.view(rows, heads * width, -1).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Each head of a query samples P points a level around the query's reference point or box.

    Args:
        channels: Width C of queries, values and output.
        heads: Attention heads.
        levels: Feature levels.
        points: Sampled points P a head and level.
    """

    def __init__(self, channels: int, *, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self._start()

    def _start(self) -> None:
        """Look in as many directions as there are heads, point p at p + 1 cells from the reference, evenly."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        star = torch.stack([angles.cos(), angles.sin()], dim=1)
        star = star / star.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = star[:, None, None] * steps[None, None, :, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, references: Tensor, memory: Tensor, tokens: LevelTokens) -> Tensor:
        """Attend to the tokens of all levels; padding counts as zeros, as what lies outside of the image does.

        Args:
            queries: ``(N, Q, C)``.
            references: ``(N, Q, levels, 2)`` points (x, y), or ``(N, Q, levels, 4)`` boxes (cx, cy, w, h), in shares
                of each level's grid. Offsets are in cells from a point, and in halves of a box's sides over P from
                a box.
            memory: ``(N, T, C)``, the cells of all levels one after another.
            tokens: Where they are, and which are padding.

        Returns:
            ``(N, Q, C)``.
        """
        values = self.value(memory).masked_fill(tokens.padding[..., None], 0.0).unflatten(2, (self.heads, -1))
        shape = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(queries).unflatten(2, (*shape, 2))
        weights = self.attention_weights(queries).unflatten(2, (self.heads, -1)).softmax(3).unflatten(3, shape[1:])
        around = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            locations = around + offsets / tokens.grids.flip(1).to(offsets.dtype)[:, None]
        else:
            locations = around[..., :2] + offsets / self.points * around[..., 2:] * 0.5
        kernel = fused_kernel() if values.is_cuda and values.dtype == torch.float32 else None
        if kernel is not None:
            return self.output(sample_fused(kernel, values, tokens.grids, locations, weights))
        return self.output(sample_levels(values, tokens.sizes, locations, weights))
