"""Augmentation of a picture with its mask, through torchvision's ``transforms.v2`` on its ``tv_tensors``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sam_uniref.images import RGB, Mask

_TRIES = 10
# What surrounds a shrunken picture: ImageNet's mean colour, which is zero to the network.
_SURROUNDINGS = (124, 116, 104)
# Hue goes round in a circle of length 1; a tenth of the other strengths changes colours about as much.
_HUE_SHARE = 0.1

Window = tuple[int, int, int, int]
"""``(top, left, height, width)`` in pixels."""


@dataclass(frozen=True)
class Augmentation:
    """Random flip, crop, scale and colours, drawn from the generator that is given, so that a seed gives the result.

    Attributes:
        flip: Probability of a horizontal flip.
        crop: Probability of a crop.
        smallest: Smallest side of a crop, as a share of the picture's.
        keep: Share of the object's pixels that a crop must keep.
        scale: Smallest and largest factor that a picture is scaled by, in its own frame: above 1 its outer parts fall
            away, below 1 it is surrounded by a grey margin. ``(1, 1)`` leaves it.
        color: Strength of changes of brightness, contrast and saturation (factors in 1 ± color) and of hue (a tenth
            of it, of the colour circle). 0 leaves them.
    """

    flip: float = 0.5
    crop: float = 0.5
    smallest: float = 0.6
    keep: float = 0.7
    scale: tuple[float, float] = (1.0, 1.0)
    color: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "smallest", "keep", "color"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0-1, got {getattr(self, name)}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be a smallest and a largest factor above 0, got {self.scale}")

    def __call__(
        self,
        image: RGB,
        mask: Mask,
        rng: np.random.Generator,
        *,
        may_crop: bool = True,
        flip: bool | None = None,
    ) -> tuple[RGB, Mask, bool]:
        """Draw once.

        Args:
            image: HWC uint8 RGB.
            mask: HW bool, of the same size.
            rng: Draws in a fixed order, so that a seed gives the same result.
            may_crop: False where a sentence speaks of positions; the picture is not scaled then either.
            flip: Decided elsewhere (the frames of a clip flip together); drawn by default.

        Returns:
            Picture, mask, and whether they were flipped (a sentence must be flipped too).
        """
        from torchvision import tv_tensors
        from torchvision.transforms.v2 import functional

        drawn = bool(rng.random() < self.flip)
        flipped = drawn if flip is None else flip
        cropped = bool(rng.random() < self.crop)
        pair: Any = (
            tv_tensors.Image(torch.from_numpy(np.array(image)).permute(2, 0, 1)),
            tv_tensors.Mask(torch.from_numpy(np.array(mask))[None]),
        )
        if cropped and may_crop:
            pair = _crop(pair, self._window(mask, rng.uniform(self.smallest, 1.0, _TRIES), rng))
        if self.scale != (1.0, 1.0):
            factor = rng.uniform(*self.scale)
            pair = self._scaled(pair, factor, rng) if may_crop else pair
        if flipped:
            pair = tuple(functional.horizontal_flip(part) for part in pair)
        if self.color:
            pair = (self._recolored(pair[0], rng), pair[1])
        picture, target = pair
        return picture.permute(1, 2, 0).contiguous().numpy(), target[0].contiguous().numpy(), flipped

    def _window(self, mask: Mask, shares: Any, rng: np.random.Generator) -> Window | None:
        """The first window of these shares that keeps most of the object; None if there is none."""
        height, width = mask.shape
        total = int(mask.sum())
        for share in shares:
            rows, columns = max(1, round(height * share)), max(1, round(width * share))
            top = int(rng.integers(0, height - rows + 1))
            left = int(rng.integers(0, width - columns + 1))
            if mask[top : top + rows, left : left + columns].sum() >= self.keep * total:
                return top, left, rows, columns
        return None

    def _scaled(self, pair: Any, factor: float, rng: np.random.Generator) -> Any:
        """The picture larger or smaller in a frame of its own size.

        A larger one is not resized here: the model's own resize of what is left does that.
        """
        from torchvision.transforms.v2 import functional

        if factor >= 1:
            return _crop(pair, self._window(pair[1][0].numpy(), [1 / factor] * _TRIES, rng))
        height, width = pair[1].shape[-2:]
        size = [max(1, round(height * factor)), max(1, round(width * factor))]
        top, left = int(rng.integers(0, height - size[0] + 1)), int(rng.integers(0, width - size[1] + 1))
        margins = [left, top, width - size[1] - left, height - size[0] - top]
        image, mask = (functional.resize(part, size, antialias=True) for part in pair)
        if not mask.any():  # a target of a few pixels fell between the samples
            return pair
        return functional.pad(image, margins, fill=list(_SURROUNDINGS)), functional.pad(mask, margins, fill=0)

    def _recolored(self, image: Any, rng: np.random.Generator) -> Any:
        """Other brightness, contrast, saturation and hue."""
        from torchvision.transforms.v2 import functional

        brightness, contrast, saturation = rng.uniform(1 - self.color, 1 + self.color, 3).tolist()
        image = functional.adjust_brightness(image, brightness)
        image = functional.adjust_contrast(image, contrast)
        image = functional.adjust_saturation(image, saturation)
        hue = float(rng.uniform(-self.color, self.color)) * _HUE_SHARE
        return functional.adjust_hue(image, hue)


def _crop(pair: Any, window: Window | None) -> Any:
    """A window of picture and mask; all of them without one."""
    from torchvision.transforms.v2 import functional

    return pair if window is None else tuple(functional.crop(part, *window) for part in pair)
