"""A tracker driven over a whole video, with objects that join in the middle."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sam_uniref.images import RGB, ImageLike, Mask, MaskLike, fit_to_image, load_id_map
from sam_uniref.reference import MaskReference
from sam_uniref.tracked_object import checked_id, given_mask
from sam_uniref.tracking import FrameResult
from sam_uniref.transforms import Size
from sam_uniref.video import FrameReader, FrameSource, read_frames

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """What can be driven over a video: `sam_uniref.tracking.VideoTracker`, or another with its methods."""

    @property
    def object_ids(self) -> list[int]:
        """Ids of the tracked objects."""

    def check_followed(self, object_id: int, named: bool) -> None:
        """Refuse an object that has a mask in the video only, if it can't be followed by that."""

    def add(
        self,
        object_id: int,
        *,
        mask: MaskLike | None = None,
        text: str | None = None,
        examples: Sequence[MaskReference] | None = None,
    ) -> None:
        """Add an object; it is looked for from the next `step` on."""

    def update(self, object_id: int, *, mask: MaskLike | None = None) -> None:
        """Start a tracked object anew from its mask in the next frame."""

    def checked_size(self, picture: RGB) -> Size:
        """``(height, width)`` of the next frame, if it may be the next."""

    def step(self, frame: ImageLike) -> FrameResult:
        """Segment all objects in the next frame."""


def track_video(
    tracker: Tracker,
    frames: FrameSource | FrameReader,
    *,
    masks: Mapping[int, MaskLike] | MaskLike | None = None,
    texts: Mapping[int, str] | None = None,
    examples: Mapping[int, Sequence[MaskReference]] | None = None,
    new_masks: Mapping[int, Mapping[int, MaskLike] | MaskLike] | None = None,
) -> Iterator[FrameResult]:
    """Drive a fresh tracker over a video. Arguments and errors as `Predictor.track`'s.

    Everything that can be checked without a frame is checked at the call, not at the first ``next``.
    """
    joining = {}
    for index, given in (new_masks or {}).items():
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
            raise ValueError(f"new_masks= has the frame number {index!r}; frames are counted from 0")
        joining[int(index)] = given
    if masks is not None and not (isinstance(masks, Mapping) and not masks):
        if 0 in joining:
            raise ValueError("masks of the first frame come in masks= or in new_masks[0], not in both")
        joining[0] = masks
    if not (joining or texts or examples):
        raise ValueError("nothing to track: give masks=, texts=, examples= or new_masks=")
    reader = read_frames(frames)
    if reader.count == 0:
        raise ValueError("there is not a single frame to track in")
    if reader.count is not None and joining and max(joining) >= reader.count:
        raise ValueError(f"new_masks= names frame {max(joining)}, but there are {reader.count} frames, counted from 0")
    named = {*(texts or ()), *(examples or ())}
    for given in joining.values():
        for object_id in _masks_by_id(given, None):
            tracker.check_followed(object_id, object_id in named)
    texts, examples = texts or {}, examples or {}
    for object_id in dict.fromkeys([*texts, *examples]):
        tracker.add(object_id, text=texts.get(object_id), examples=examples.get(object_id))
    return _drive(tracker, reader, joining)


def _drive(
    tracker: Tracker,
    frames: FrameReader,
    joining: Mapping[int, Mapping[int, MaskLike] | MaskLike],
) -> Iterator[FrameResult]:
    """A result a frame; masks join in theirs."""
    count = 0
    for index, frame in enumerate(frames):
        picture = frame.picture
        if index in joining:
            for object_id, mask in _masks_by_id(joining[index], tracker.checked_size(picture)).items():
                if object_id in tracker.object_ids:
                    tracker.update(object_id, mask=mask)
                else:
                    tracker.add(object_id, mask=mask)
        yield tracker.step(picture)
        count += 1
    if count == 0:
        raise ValueError("there is not a single frame to track in")
    late = sorted(index for index in joining if index >= count)
    if late:
        logger.warning("the video ended after %d frames: the masks of frames %s were not used", count, late)


def _masks_by_id(masks: Mapping[int, MaskLike] | MaskLike, size: Size | None) -> dict[int, Mask]:
    """``{object id: mask}`` from that or from one map of ids, at the frame's size once it is known."""
    if isinstance(masks, Mapping):
        return {checked_id(i): given_mask(mask, int(i), size).mask for i, mask in masks.items()}
    name = str(masks) if isinstance(masks, str | Path) else "the mask"
    ids = load_id_map(masks)
    ids = ids if size is None else fit_to_image(ids, size, name)
    found = [int(i) for i in np.unique(ids) if i > 0]
    if not found:
        raise ValueError(f"{name} is empty: a map of ids must mark at least one object")
    return {object_id: ids == object_id for object_id in found}
