"""Videos whose masks stand in a JSON file, a list of segmentations an object with an entry a frame."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from sam_uniref.data.formats.video_frames import SoundFrames
from sam_uniref.data.formats.video_masks import Track
from sam_uniref.data.prepared.masks import EncodedMask, read_segmentation
from sam_uniref.data.prepared.problems import Problems


def pack(content: Any) -> bytes:
    """A piece of JSON, small: thousands of such stand in memory together until their video's turn comes."""
    return zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 1)


def unpack(packed: bytes) -> Any:
    """What `pack` was given."""
    return json.loads(zlib.decompress(packed))


def masked_frames(lists: Sequence[Any], length: int) -> set[str]:
    """Keys, as `frame_keys` gives them, of the frames in which one of the lists has a segmentation."""
    whole = (
        segmentations for segmentations in lists if isinstance(segmentations, list) and len(segmentations) == length
    )
    return {str(place) for segmentations in whole for place, entry in enumerate(segmentations) if entry}


def frame_keys(paths: Sequence[str]) -> dict[str, str]:
    """Paths of frames by their places in the file's lists, as `sound_frames` takes them."""
    return {str(place): path for place, path in enumerate(paths)}


def read_lists(lists: Mapping[str, Any], length: int, frames: SoundFrames, problems: Problems) -> Track | None:
    """An object's masks from one list, or the union of several.

    Args:
        lists: Segmentations, ``null`` where it is not seen, by a name for messages.
        length: Number of frames that the video has in the file.
        frames: That can be used.
        problems: Takes what can't be used. A mask that is broken leaves the whole object out: its frame would
            otherwise say that the object is not there.

    Returns:
        None if the object can't be used.
    """
    for name, segmentations in lists.items():
        if not isinstance(segmentations, list) or len(segmentations) != length:
            found = len(segmentations) if isinstance(segmentations, list) else type(segmentations).__name__
            problems.broken("masks of another number than the video's frames", f"{name}: {found}, not {length}")
            return None
    track = Track()
    for key, number in frames.numbers.items():
        masks = []
        for name, segmentations in lists.items():
            try:
                mask = read_mask(segmentations[int(key)], frames.size)
            except ValueError as error:
                problems.broken("broken mask, its object left out", f"{name} frame {key}: {error}")
                return None
            if mask is not None:
                masks.append(mask)
        if masks:
            track.add(number, union(masks).counts)
    return track


def read_mask(segmentation: Any, size: tuple[int, int]) -> EncodedMask | None:
    """One entry of a list; None if the object is not seen.

    Raises:
        ValueError: If it is no segmentation of that ``(height, width)``, or polygons that mark nothing.
    """
    if segmentation is None or segmentation == []:
        return None
    mask = read_segmentation(segmentation, size)
    if mask is None and isinstance(segmentation, list):
        raise ValueError("its polygons mark nothing")
    return mask


def union(masks: Sequence[EncodedMask]) -> EncodedMask:
    """What any of several masks of one picture covers."""
    from pycocotools import mask as coco

    merged = coco.merge([{"size": list(mask.size), "counts": mask.counts} for mask in masks])
    return EncodedMask(merged["counts"], masks[0].size)
