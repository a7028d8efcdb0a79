"""Augmentation of a picture with its mask: horizontal flip and a crop that keeps the object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam_uniref.images import RGB, Mask

_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """Random flip and crop.

    Attributes:
        flip: Probability of a horizontal flip.
        crop: Probability of a crop.
        smallest: Smallest side of a crop, as a share of the picture's.
        keep: Share of the object's pixels that a crop must keep.
    """

    flip: float = 0.5
    crop: float = 0.5
    smallest: float = 0.6
    keep: float = 0.7

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "smallest", "keep"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0-1, got {getattr(self, name)}")

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
            may_crop: False where a sentence speaks of positions.
            flip: Decided elsewhere (the frames of a clip flip together); drawn by default.

        Returns:
            Picture, mask, and whether they were flipped (a sentence must be flipped too).
        """
        drawn = bool(rng.random() < self.flip)
        flipped = drawn if flip is None else flip
        cropped = bool(rng.random() < self.crop)
        if cropped and may_crop:
            rows, columns = self._box(mask, rng)
            image, mask = image[rows, columns], mask[rows, columns]
        if flipped:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return np.ascontiguousarray(image), np.ascontiguousarray(mask), flipped

    def _box(self, mask: Mask, rng: np.random.Generator) -> tuple[slice, slice]:
        """A crop that keeps most of the object; the whole picture if none is found."""
        height, width = mask.shape
        total = int(mask.sum())
        for _ in range(_TRIES):
            share = rng.uniform(self.smallest, 1.0)
            crop_height, crop_width = max(1, round(height * share)), max(1, round(width * share))
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            rows, columns = slice(top, top + crop_height), slice(left, left + crop_width)
            if mask[rows, columns].sum() >= self.keep * total:
                return rows, columns
        return slice(None), slice(None)
