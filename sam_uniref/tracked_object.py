"""What a tracker knows of one object, and which frames of the clip it keeps as references of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam_uniref.adapters.frames import FrameReference
from sam_uniref.adapters.references import ReferenceFeatures
from sam_uniref.images import RGB, Mask, MaskLike, load_id_map, load_mask
from sam_uniref.transforms import Size

# Which masks of the clip itself an object is found by (UniRef++ table 9; "none" is "Lang" in its table 7).
FRAME_REFERENCES = ("both", "first", "previous", "none")


@dataclass(frozen=True)
class GivenMask:
    """A mask for the next frame, and what to call it in messages."""

    mask: Mask
    name: str


@dataclass
class TrackedObject:
    """References of one object.

    Attributes:
        frame_references: Which of the clip's frames are kept, one of `FRAME_REFERENCES`.
        text: A sentence, as one row.
        examples: Annotated images from elsewhere, all of them as one.
        first: The frame in which the object was first seen, or in which its mask was last given.
        previous: The last frame after that in which it was seen. With ``"previous"``, the last one of all.
        given: Its mask in the next frame.
    """

    frame_references: str = "both"
    text: ReferenceFeatures | None = None
    examples: FrameReference | None = None
    first: FrameReference | None = None
    previous: FrameReference | None = None
    given: GivenMask | None = None

    def masks(self) -> tuple[FrameReference, ...]:
        """Examples, first and previous frame; the previous one only once it differs from the first."""
        return tuple(r for r in (self.examples, self.first, self.previous) if r is not None)

    def wants_frame(self) -> bool:
        """Whether a frame in which the object is seen becomes one of its references, and is worth encoding."""
        if self.frame_references == "first":
            return self._starts()
        return self.frame_references != "none"

    def see(self, reference: FrameReference | None) -> None:
        """Count the current frame, in which the object is seen.

        Args:
            reference: The frame with the object's mask, if it `wants_frame`. It is the first one if the object is new
                or its mask was given, and the previous one otherwise.
        """
        if reference is not None:
            if self._starts() and self.frame_references != "previous":
                self.first, self.previous = reference, None
            else:
                self.previous = reference
        self.given = None

    def _starts(self) -> bool:
        """Whether the current frame is the object's first one: a given mask is the truth and starts it anew."""
        return self.first is None or self.given is not None


def given_mask(mask: MaskLike, object_id: int, size: Size | None) -> GivenMask:
    """The object's mask, checked; at the frame's size once it is known."""
    name = str(mask) if isinstance(mask, str | Path) else f"the mask of object {object_id}"
    ids = load_id_map(mask)
    several = np.count_nonzero(np.unique(ids)) > 1
    fitting = (ids.shape[0], ids.shape[1]) if size is None else size
    return GivenMask(load_mask(ids, fitting, object_id=object_id if several else None, name=name), name)


def checked_id(object_id: int) -> int:
    """The id as an int."""
    if isinstance(object_id, bool) or not isinstance(object_id, int | np.integer) or object_id <= 0:
        raise ValueError(f"an object id must be a positive integer (0 is the background), got {object_id!r}")
    return int(object_id)


def checked_size(picture: RGB, before: Size | None, frame: int) -> Size:
    """``(height, width)`` of a frame, which must be that of the frames before it.

    Args:
        picture: ``(H, W, 3)``.
        before: ``(height, width)`` of the frames before it, if there are any.
        frame: Its number, for the message.

    Raises:
        ValueError: If it is of another size.
    """
    size = (picture.shape[0], picture.shape[1])
    if before is not None and size != before:
        raise ValueError(
            f"frame {frame} is {size[1]}x{size[0]}, those before it {before[1]}x{before[0]} (width x height); start a "
            "new tracker, or resize the frames"
        )
    return size
