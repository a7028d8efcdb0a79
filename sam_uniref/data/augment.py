"""Augmentation of a picture with its masks or boxes, through torchvision's ``transforms.v2`` on its ``tv_tensors``."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sam_uniref.data.instances import PictureObjects
from sam_uniref.images import RGB, Mask
from sam_uniref.transforms import Size

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
        crop_sides: In place of that, as detectors have it: smallest and largest side of a crop in pixels, height and
            width each drawn by itself; none larger than the picture.
        crop_at: The short sides in pixels, of which one is drawn, that the picture is brought to for ``crop_sides`` to
            be measured in it; none: as it is.
        views: In place of crops drawn freely, so many windows that a picture always has, whatever is asked about it:
            with the flips, a short list is all that training ever sees of it (`listed`). 0: any window.
        keep: Share of the object's pixels that a crop must keep; of several, at least one keeps it.
        scale: Smallest and largest factor that a picture is scaled by, in its own frame: above 1 its outer parts fall
            away, below 1 it is surrounded by a grey margin. ``(1, 1)`` leaves it.
        color: Strength of changes of brightness, contrast and saturation (factors in 1 ± color) and of hue (a tenth
            of it, of the colour circle). 0 leaves them.
    """

    flip: float = 0.5
    crop: float = 0.5
    smallest: float = 0.6
    crop_sides: tuple[int, int] | None = None
    crop_at: tuple[int, ...] = ()
    views: int = 0
    keep: float = 0.7
    scale: tuple[float, float] = (1.0, 1.0)
    color: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "smallest", "keep", "color"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0-1, got {getattr(self, name)}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be a smallest and a largest factor above 0, got {self.scale}")
        sides = self.crop_sides
        if sides is not None and (len(sides) != 2 or not 1 <= sides[0] <= sides[1]):
            raise ValueError(f"crop_sides must be a smallest and a largest side in pixels, got {sides}")
        if self.crop_at and (sides is None or min(self.crop_at) < 1):
            raise ValueError(
                f"crop_at are positive short sides to measure crop_sides at, got {self.crop_at} and {sides}"
            )
        if self.views < 0:
            raise ValueError(f"views must be at least 0, got {self.views}")
        if self.views and not self._moves_only:
            raise ValueError(
                "views are flips and crops alone, so scale must be (1, 1) and color 0, got "
                f"{self.scale} and {self.color}"
            )

    @property
    def _moves_only(self) -> bool:
        """Whether no pixel gets a value that is not in the picture."""
        return tuple(self.scale) == (1.0, 1.0) and not self.color

    @property
    def most_views(self) -> int | None:
        """How many views of a picture there are at most; None where they are drawn without end."""
        if not self._moves_only or (self.crop and not self.views):
            return None
        return (1 + (self.views if self.crop else 0)) * (2 if self.flip else 1)

    def listed(self, image: RGB) -> list[RGB]:
        """All that a call can make of a picture, the picture itself first.

        Raises:
            ValueError: If there is no end to it.
        """
        if self.most_views is None:
            raise ValueError("views are drawn without end; set views, and leave scale and color as they are")
        windows = self._listed_windows(image) if self.crop else []
        cut = [image, *(image[top : top + rows, left : left + columns] for top, left, rows, columns in windows)]
        mirrored = [view[:, ::-1] for view in cut] if self.flip else []
        return [np.ascontiguousarray(view) for view in (*cut, *mirrored)]

    def __call__(
        self,
        image: RGB,
        mask: Mask,
        rng: np.random.Generator,
        *,
        may_crop: bool = True,
        flip: bool | None = None,
    ) -> tuple[RGB, Mask, bool]:
        """Draw once, for a picture and one object.

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

        parts = (_tv_image(image), tv_tensors.Mask(torch.from_numpy(np.array(mask))[None]))
        (picture, target), flipped = self._draw(parts, rng, may_crop, flip)
        return _rgb(picture), target[0].contiguous().numpy(), flipped

    def of_objects(self, image: RGB, objects: PictureObjects, rng: np.random.Generator) -> tuple[RGB, PictureObjects]:
        """Draw once, for a picture and all its objects; those of which nothing is left leave.

        Args:
            image: HWC uint8 RGB.
            objects: Of the picture.
            rng: Draws in a fixed order, so that a seed gives the same result.
        """
        from torchvision import tv_tensors

        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(objects.boxes), format="XYXY", canvas_size=(image.shape[0], image.shape[1])
        )
        parts: Any = (_tv_image(image), boxes)
        if objects.masks is not None:
            parts = (*parts, tv_tensors.Mask(torch.from_numpy(np.array(objects.masks))))
        (picture, moved, *masks), _ = self._draw(parts, rng, True, None)
        drawn = PictureObjects(moved.numpy(), objects.labels, masks[0].contiguous().numpy() if masks else None)
        return _rgb(picture), drawn.that_are_left()

    def _draw(self, parts: Any, rng: np.random.Generator, may_crop: bool, flip: bool | None) -> tuple[Any, bool]:
        """A picture and what goes with it, and whether they were flipped.

        Args:
            parts: The picture, what a crop is to keep (a mask, or boxes), and others.
            rng: Of the draw.
            may_crop: As in a call.
            flip: As in a call.
        """
        from torchvision.transforms.v2 import functional

        drawn = bool(rng.random() < self.flip)
        flipped = drawn if flip is None else flip
        cropped = bool(rng.random() < self.crop)
        if cropped and may_crop:
            parts = _crop(parts, self._crop_window(parts, rng))
        if self.scale != (1.0, 1.0):
            factor = rng.uniform(*self.scale)
            parts = self._scaled(parts, factor, rng) if may_crop else parts
        if flipped:
            parts = tuple(functional.horizontal_flip(part) for part in parts)
        if self.color:
            parts = (self._recolored(parts[0], rng), *parts[1:])
        return parts, flipped

    def _crop_window(self, parts: Any, rng: np.random.Generator) -> Window | None:
        """A window to crop to; None if none of those tried keeps an object."""
        if not self.views:
            return self._window(parts, self._crop_sizes(parts[0].shape[-2:], rng), rng)
        listed = self._listed_windows(_rgb(parts[0]))
        order = rng.permutation(len(listed)).tolist()
        return next((listed[i] for i in order if self._keeps(parts[1], listed[i])), None)

    def _listed_windows(self, image: RGB) -> list[Window]:
        """The windows that a picture always has: drawn by what is on it."""
        size = (image.shape[0], image.shape[1])
        rng = np.random.default_rng([zlib.crc32(np.ascontiguousarray(image).data), *size])
        return [_placed(next(self._crop_sizes(size, rng)), size, rng) for _ in range(self.views)]

    def _crop_sizes(self, size: Size, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
        """Heights and widths to try for a crop, as shares of the picture's."""
        if self.crop_sides is None:
            for share in rng.uniform(self.smallest, 1.0, _TRIES):
                yield share, share
            return
        height, width = size
        scale = int(rng.choice(self.crop_at)) / min(height, width) if self.crop_at else 1.0
        scaled = (height * scale, width * scale)
        for _ in range(_TRIES):
            low, high = self.crop_sides
            rows, columns = (rng.uniform(min(side, low), min(side, high)) for side in scaled)
            yield rows / scaled[0], columns / scaled[1]

    def _window(self, parts: Any, shares: Iterator[tuple[float, float]], rng: np.random.Generator) -> Window | None:
        """The first window of these shares that keeps most of an object; None if there is none."""
        size = parts[0].shape[-2:]
        windows = (_placed(share, size, rng) for share in shares)
        return next((window for window in windows if self._keeps(parts[1], window)), None)

    def _keeps(self, target: Any, window: Window) -> bool:
        """Whether enough of a mask ``(1, H, W)``, or of one of the boxes ``(M, 4)``, is in a window."""
        from torchvision import tv_tensors

        top, left, rows, columns = window
        if isinstance(target, tv_tensors.Mask):
            inside = target[0, top : top + rows, left : left + columns]
            return int(inside.sum()) >= self.keep * int(target.sum())
        corners = target.as_subclass(torch.Tensor).double()
        low = torch.tensor([left, top], dtype=torch.float64)
        high = low + torch.tensor([columns, rows])
        sides = (corners[:, 2:].minimum(high) - corners[:, :2].maximum(low)).clamp(min=0)
        whole = (corners[:, 2:] - corners[:, :2]).prod(1)
        return not len(corners) or bool((sides.prod(1) >= self.keep * whole).any())

    def _scaled(self, parts: Any, factor: float, rng: np.random.Generator) -> Any:
        """The picture larger or smaller in a frame of its own size.

        A larger one is not resized here: the model's own resize of what is left does that.
        """
        from torchvision import tv_tensors
        from torchvision.transforms.v2 import functional

        if factor >= 1:
            return _crop(parts, self._window(parts, iter([(1 / factor, 1 / factor)] * _TRIES), rng))
        height, width = parts[0].shape[-2:]
        size = [max(1, round(height * factor)), max(1, round(width * factor))]
        top, left = int(rng.integers(0, height - size[0] + 1)), int(rng.integers(0, width - size[1] + 1))
        margins = [left, top, width - size[1] - left, height - size[0] - top]
        image, *others = (functional.resize(part, size, antialias=True) for part in parts)
        if isinstance(others[-1], tv_tensors.Mask) and not others[-1].any():
            return parts  # targets of a few pixels fell between the samples
        surrounded = functional.pad(image, margins, fill=list(_SURROUNDINGS))
        return (surrounded, *(functional.pad(part, margins, fill=0) for part in others))

    def _recolored(self, image: Any, rng: np.random.Generator) -> Any:
        """Other brightness, contrast, saturation and hue."""
        from torchvision.transforms.v2 import functional

        brightness, contrast, saturation = rng.uniform(1 - self.color, 1 + self.color, 3).tolist()
        image = functional.adjust_brightness(image, brightness)
        image = functional.adjust_contrast(image, contrast)
        image = functional.adjust_saturation(image, saturation)
        hue = float(rng.uniform(-self.color, self.color)) * _HUE_SHARE
        return functional.adjust_hue(image, hue)


def _placed(shares: tuple[float, float], size: Size, rng: np.random.Generator) -> Window:
    """A window of so much of a picture's height and width, somewhere in it."""
    height, width = size
    rows, columns = max(1, round(height * shares[0])), max(1, round(width * shares[1]))
    top = int(rng.integers(0, height - rows + 1))
    left = int(rng.integers(0, width - columns + 1))
    return top, left, rows, columns


def _crop(parts: Any, window: Window | None) -> Any:
    """A window of a picture and what goes with it; all of them without one."""
    from torchvision.transforms.v2 import functional

    return parts if window is None else tuple(functional.crop(part, *window) for part in parts)


def _tv_image(image: RGB) -> Any:
    """HWC as torchvision has pictures, ``(3, H, W)``."""
    from torchvision import tv_tensors

    return tv_tensors.Image(torch.from_numpy(np.array(image)).permute(2, 0, 1))


def _rgb(picture: Any) -> RGB:
    """``(3, H, W)`` as HWC."""
    pixels: RGB = picture.permute(1, 2, 0).contiguous().numpy()
    return pixels
