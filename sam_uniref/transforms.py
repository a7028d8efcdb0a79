"""Between a picture and a network's input: resize, normalise, pad right and bottom to the batch's canvas.

A canvas is the rectangle that all pictures of a batch are padded to: always the same square for a SAM, the largest
picture's sides rounded up for a network that takes any size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.images import RGB, Mask

Size = tuple[int, int]
"""``(height, width)`` in pixels."""


@dataclass(frozen=True)
class ImageTransform(ABC):
    """The way into and out of a host's input.

    Attributes:
        size: What the size of the input is called by, in pixels: the square's side, or the short side.
        mean: Of R, G, B, in 0-255.
        std: Of R, G, B, in 0-255.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]

    @abstractmethod
    def input_size(self, original_size: Size) -> Size:
        """``(height, width)`` of a picture's content in the input, each at least 1."""

    @abstractmethod
    def canvas(self, input_sizes: Sequence[Size]) -> Size:
        """``(height, width)`` that pictures of these input sizes are padded to when they share a batch."""

    def image(self, image: RGB, out: Tensor | None = None) -> tuple[Tensor, Size]:
        """A picture as normalised, zero-padded ``(3, H, W)`` float32, and its content's ``(height, width)``.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            out: ``(3, H, W)`` float32 zeros to write into, such as a place in a batch; by default a new tensor as large
                as the picture's own canvas.
        """
        from torchvision.transforms.functional import resize, to_pil_image

        size = self.input_size(image.shape[:2])
        resized = torch.from_numpy(np.array(resize(to_pil_image(image), list(size)))).permute(2, 0, 1)
        mean, std = (torch.tensor(tuple(v), dtype=torch.float32).view(3, 1, 1) for v in (self.mean, self.std))
        canvas = torch.zeros(3, *self.canvas([size])) if out is None else out
        canvas[:, : size[0], : size[1]].copy_(resized).sub_(mean).div_(std)
        return canvas, size

    def batch(self, images: Sequence[RGB]) -> tuple[Tensor, tuple[Size, ...]]:
        """Pictures as ``(P, 3, H, W)`` float32 on one canvas, and the ``(height, width)`` of each one's content."""
        sizes = tuple(self.input_size(image.shape[:2]) for image in images)
        pixels = torch.zeros(len(images), 3, *self.canvas(sizes))
        for image, place in zip(images, pixels, strict=True):
            self.image(image, place)
        return pixels, sizes

    def mask(self, mask: Mask, canvas: Size | None = None) -> Tensor:
        """A mask ``(h, w)`` as ``(H, W)`` float32 in {0, 1}, by nearest neighbour, zero in the padding.

        Args:
            mask: Of a picture.
            canvas: ``(H, W)`` of the batch; by default the picture's own.
        """
        size = self.input_size(mask.shape)
        scaled = F.interpolate(torch.from_numpy(np.asarray(mask, np.float32))[None, None], size, mode="nearest-exact")
        if mask.any() and not scaled.any():
            # A target of a few pixels can fall between the samples; keep it rather than train on nothing.
            scaled = (
                F.interpolate(torch.from_numpy(mask.astype(np.float32))[None, None], size, mode="area") > 0
            ).float()
        height, width = canvas or self.canvas([size])
        return F.pad(scaled[0, 0], (0, width - size[1], 0, height - size[0]))

    def points(self, points: NDArray[np.floating], original_size: Size) -> Tensor:
        """Points ``(..., 2)`` as (x, y) in the picture's pixels to the input's, float32."""
        height, width = self.input_size(original_size)
        scaled = points.astype(np.float64) * np.array([width / original_size[1], height / original_size[0]])
        return torch.from_numpy(scaled).float()

    def logits(self, logits: Tensor, input_size: Size, original_size: Size, canvas: Size | None = None) -> Tensor:
        """Low-res logits ``(N, M, h, w)`` to ``(N, M, H, W)`` at the picture's size, bilinear, padding cut.

        Args:
            logits: Of the whole canvas.
            input_size: ``(height, width)`` of the content in it.
            original_size: ``(H, W)`` of the picture.
            canvas: Of the batch; by default the picture's own.
        """
        logits = F.interpolate(logits, canvas or self.canvas([input_size]), mode="bilinear", align_corners=False)
        logits = logits[..., : input_size[0], : input_size[1]]
        return F.interpolate(logits, original_size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class SquareTransform(ImageTransform):
    """A SAM's: the longest side becomes the square's.

    The same steps as segment-anything's ``ResizeLongestSide`` and ``Sam.preprocess``, so that frozen weights see what
    they were trained on.
    """

    def input_size(self, original_size: Size) -> Size:
        """``(height, width)`` of a picture's content in the square, each at least 1."""
        return _scaled(original_size, self.size / max(original_size))

    def canvas(self, input_sizes: Sequence[Size]) -> Size:
        """The square."""
        return self.size, self.size


@dataclass(frozen=True)
class StretchTransform(ImageTransform):
    """A SAM 2's: both sides become the square's, whatever the picture's shape, so that nothing is padding."""

    def input_size(self, original_size: Size) -> Size:
        """The square."""
        return self.size, self.size

    def canvas(self, input_sizes: Sequence[Size]) -> Size:
        """The square."""
        return self.size, self.size

    def logits(self, logits: Tensor, input_size: Size, original_size: Size, canvas: Size | None = None) -> Tensor:
        """Low-res logits ``(N, M, h, w)`` to ``(N, M, H, W)`` at the picture's size in one step, bilinear."""
        return F.interpolate(logits, original_size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class ShortSideTransform(ImageTransform):
    """A detector's: the short side becomes ``size``, unless the long one would become longer than ``longest``.

    Attributes:
        longest: Most that the long side may become, in pixels.
        multiple: A canvas' sides are multiples of this.
    """

    longest: int
    multiple: int = 32

    def input_size(self, original_size: Size) -> Size:
        """``(height, width)`` of a picture's content in the input, each at least 1."""
        return _scaled(original_size, min(self.size / min(original_size), self.longest / max(original_size)))

    def canvas(self, input_sizes: Sequence[Size]) -> Size:
        """The largest height and width, rounded up."""
        height, width = (max(sides) for sides in zip(*input_sizes, strict=True))
        return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple


def _scaled(size: Size, scale: float) -> Size:
    """Both sides times a factor, rounded, each at least 1."""
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def content_mask(input_sizes: Sequence[Size], grid: Size, stride: int, device: torch.device) -> Tensor:
    """Which cells of a feature grid hold content: ``(B, h, w)`` bool, False where a cell is padding only."""
    sizes = torch.tensor(list(input_sizes), device=device)
    rows = torch.arange(grid[0], device=device) * stride < sizes[:, :1]
    columns = torch.arange(grid[1], device=device) * stride < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]
