"""Between a picture and the network's square input: resize the longest side, normalise, pad right and bottom.

The same steps as segment-anything's ``ResizeLongestSide`` and ``Sam.preprocess``, so that frozen weights see
what they were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.images import RGB, Mask

Size = tuple[int, int]


@dataclass(frozen=True)
class ImageTransform:
    """The way into and out of a host's input square.

    Attributes:
        size: Side S of the square, in pixels.
        mean: Of R, G, B, in 0-255.
        std: Of R, G, B, in 0-255.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]

    def input_size(self, original_size: Size) -> Size:
        """``(height, width)`` of a picture's content in the square, each at least 1."""
        scale = self.size / max(original_size)
        return max(1, int(original_size[0] * scale + 0.5)), max(1, int(original_size[1] * scale + 0.5))

    def image(self, image: RGB, out: Tensor | None = None) -> tuple[Tensor, Size]:
        """A picture as normalised, zero-padded ``(3, S, S)`` float32, and its content's ``(height, width)``.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            out: ``(3, S, S)`` float32 zeros to write into, such as a place in a batch; a new tensor by default.
        """
        from torchvision.transforms.functional import resize, to_pil_image

        size = self.input_size(image.shape[:2])
        resized = torch.from_numpy(np.array(resize(to_pil_image(image), list(size)))).permute(2, 0, 1)
        mean, std = (torch.tensor(tuple(v), dtype=torch.float32).view(3, 1, 1) for v in (self.mean, self.std))
        square = torch.zeros(3, self.size, self.size) if out is None else out
        square[:, : size[0], : size[1]].copy_(resized).sub_(mean).div_(std)
        return square, size

    def mask(self, mask: Mask) -> Tensor:
        """A mask ``(H, W)`` as ``(S, S)`` float32 in {0, 1}, by nearest neighbour, zero in the padding."""
        size = self.input_size(mask.shape)
        scaled = F.interpolate(torch.from_numpy(np.asarray(mask, np.float32))[None, None], size, mode="nearest-exact")
        if mask.any() and not scaled.any():
            # A target of a few pixels can fall between the samples; keep it rather than train on nothing.
            scaled = (
                F.interpolate(torch.from_numpy(mask.astype(np.float32))[None, None], size, mode="area") > 0
            ).float()
        return self._pad(scaled[0])[0]

    def points(self, points: NDArray[np.float64], original_size: Size) -> Tensor:
        """Points ``(..., 2)`` as (x, y) in the picture's pixels to the square's, float32."""
        height, width = self.input_size(original_size)
        scaled = points.astype(np.float64) * np.array([width / original_size[1], height / original_size[0]])
        return torch.from_numpy(scaled).float()

    def logits(self, logits: Tensor, input_size: Size, original_size: Size) -> Tensor:
        """Low-res logits ``(N, M, h, w)`` to ``(N, M, H, W)`` at the picture's size, bilinear, padding cut."""
        logits = F.interpolate(logits, (self.size, self.size), mode="bilinear", align_corners=False)
        logits = logits[..., : input_size[0], : input_size[1]]
        return F.interpolate(logits, original_size, mode="bilinear", align_corners=False)

    def _pad(self, content: Tensor) -> Tensor:
        """Zeros to the right and below, up to the square."""
        return F.pad(content, (0, self.size - content.shape[-1], 0, self.size - content.shape[-2]))


def content_mask(input_sizes: Sequence[Size], grid: Size, stride: int, device: torch.device) -> Tensor:
    """Which cells of a feature grid hold content: ``(B, h, w)`` bool, False where a cell is padding only."""
    sizes = torch.tensor(list(input_sizes), device=device)
    rows = torch.arange(grid[0], device=device) * stride < sizes[:, :1]
    columns = torch.arange(grid[1], device=device) * stride < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]
