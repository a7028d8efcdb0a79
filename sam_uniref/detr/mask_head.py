"""Masks of chosen queries: a pixel branch, and per query three small convolutions over it (CondInst, Tian et al. 2020).

Masks are built for the queries that are asked for and for no others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.detr.config import MaskHeadConfig
from sam_uniref.detr.heads import Mlp

MASK_STRIDE = 4
_BRANCH_LEVELS = 3
# The published branch narrows from 256 by way of 64: a quarter.
_NARROWING = 4


class MaskBranch(nn.Module):
    """Encoder memory of strides 32, 16 and 8, from coarse to fine, to a few channels at stride 8."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        narrow = max(out, channels // _NARROWING)
        # From the finest level to the coarsest, as the levels come.
        self.levels = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(_BRANCH_LEVELS))
        self.narrow = nn.Conv2d(channels, narrow, 3, padding=1)
        self.reduce = nn.Conv2d(narrow, out, 3, padding=1)
        for convolution in (*self.levels, self.narrow, self.reduce):
            _start(convolution)

    def forward(self, memory: Sequence[Tensor]) -> Tensor:
        """Levels ``(N, C, h, w)`` of strides 8, 16, 32 to ``(N, out, h, w)`` at stride 8."""
        finer, convolutions = list(memory[:_BRANCH_LEVELS]), list(self.levels)
        x = F.relu(convolutions.pop()(finer.pop()))
        while finer:
            level = finer.pop()
            x = level + F.interpolate(x, size=level.shape[-2:], mode="nearest")
            x = F.relu(convolutions.pop()(x))
        return F.relu(self.reduce(F.relu(self.narrow(x))))


class MaskHead(nn.Module):
    """Mask features of an image, and masks of queries in it.

    Args:
        channels: Width C of memory and queries.
        fine_channels: Of the backbone's map at stride 4.
        config: Widths.
    """

    def __init__(self, channels: int, fine_channels: int, config: MaskHeadConfig) -> None:
        super().__init__()
        out, inner = config.channels, config.dynamic_channels
        # Inputs and outputs of a query's three convolutions; two channels more are the coordinates.
        self.dynamic = ((out + 2, inner), (inner, inner), (inner, 1))
        self.branch = MaskBranch(channels, out)
        self.lateral = nn.Conv2d(fine_channels, out, 1)
        self.smooth = nn.Conv2d(out, out, 3, padding=1)
        self.output = nn.Conv2d(out, out, 1)
        self.controller = Mlp(channels, channels, sum(a * b + b for a, b in self.dynamic), 3)
        for convolution in (self.lateral, self.smooth):
            _start(convolution)

    def features(self, memory: Sequence[Tensor], fine: Tensor) -> Tensor:
        """Mask features ``(N, M, h, w)`` at stride 4.

        Args:
            memory: Per level ``(N, C, h, w)``, finest first; the first three are used.
            fine: ``(N, M, h, w)``, what ``lateral`` makes of the backbone's map at stride 4, once an image.
        """
        coarse = self.branch(memory)
        larger = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.output(F.relu(self.smooth(fine + larger)))

    def build(
        self,
        mask_features: Tensor,
        hidden: Tensor,
        reference_xy: Tensor,
        row_index: Tensor,
    ) -> Tensor:
        """Mask logits of K queries, in float32 also under autocast: coordinates are pixels, which half precision blurs.

        Args:
            mask_features: ``(N, M, h, w)`` at stride 4.
            hidden: ``(K, C)``, the queries as a decoder layer left them.
            reference_xy: ``(K, 2)`` as (x, y) in the canvas' pixels: the centres of the boxes that layer was given.
            row_index: ``(K,)`` int64, which of the N rows each query is of.

        Returns:
            ``(K, h, w)``.
        """
        height, width = mask_features.shape[-2:]
        x = torch.arange(width, device=hidden.device, dtype=torch.float32) * MASK_STRIDE + MASK_STRIDE // 2
        y = torch.arange(height, device=hidden.device, dtype=torch.float32) * MASK_STRIDE + MASK_STRIDE // 2
        relative_x = (reference_xy[:, :1].float() - x)[:, None, :].expand(-1, height, -1)
        relative_y = (reference_xy[:, 1:].float() - y)[:, :, None].expand(-1, -1, width)
        coordinates = torch.stack([relative_x, relative_y], dim=1)
        with torch.autocast(hidden.device.type, enabled=False):
            values = torch.cat([coordinates, mask_features[row_index].float()], dim=1).flatten(2)
            for position, (weight, bias) in enumerate(self._convolutions(hidden.float())):
                values = torch.baddbmm(bias[..., None], weight, F.relu(values) if position else values)
        return values.unflatten(2, (height, width))[:, 0]

    def _convolutions(self, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weights ``(K, out, in)`` and biases ``(K, out)`` of each query's convolutions."""
        sizes = [a * b for a, b in self.dynamic] + [b for _, b in self.dynamic]
        parts = self.controller(hidden).split(sizes, dim=1)
        weights = [part.unflatten(1, (b, a)) for part, (a, b) in zip(parts, self.dynamic, strict=False)]
        return list(zip(weights, parts[len(self.dynamic) :], strict=True))


def aligned_upsample(maps: Tensor, factor: int) -> Tensor:
    """``(K, M, h, w)`` to ``(K, M, factor * h, factor * w)``, bilinear, cells' first pixels aligned (CondInst)."""
    if factor == 1:
        return maps
    height, width = maps.shape[-2:]
    maps = F.pad(maps, (0, 1, 0, 1), mode="replicate")
    maps = F.interpolate(maps, size=(factor * height + 1, factor * width + 1), mode="bilinear", align_corners=True)
    maps = F.pad(maps, (factor // 2, 0, factor // 2, 0), mode="replicate")
    return maps[..., : factor * height, : factor * width]


def _start(convolution: nn.Module) -> None:
    """Random weights as Detectron2 draws them, and a bias of zero."""
    nn.init.kaiming_uniform_(convolution.get_parameter("weight"), a=1)
    nn.init.zeros_(convolution.get_parameter("bias"))
