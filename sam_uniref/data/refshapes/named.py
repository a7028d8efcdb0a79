"""Scenes and clips with the names of all that is in them, as exports and whole evaluations want them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam_uniref.images import RGB


@dataclass(frozen=True)
class NamedScene:
    """A scene's picture and all that is said of it.

    Attributes:
        image: ``(side, side, 3)`` uint8 RGB.
        ids: ``(side, side)`` uint8, 0 = background.
        sentences: Pairs of an object's id and a sentence true of it alone.
    """

    image: RGB
    ids: NDArray[np.uint8]
    sentences: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class NamedClip:
    """A whole clip, for tracking.

    Attributes:
        frames: ``(T, side, side, 3)`` uint8 RGB.
        ids: ``(T, side, side)`` uint8, 0 = background; ids are 1, 2, ... by first frame.
        first_frames: Of each id, the frame in which it appears.
        sentences: Of each id, sentences true of it alone in the whole clip.
    """

    frames: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    first_frames: dict[int, int]
    sentences: dict[int, tuple[str, ...]]
