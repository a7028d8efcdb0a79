"""Following a visitor's objects through a visitor's video, into files to take home."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam_uniref.images import RGB, Mask
from sam_uniref.track_files import TrackFiles
from sam_uniref.tracking import FrameResult, VideoTracker
from sam_uniref.video import read_frames
from sam_uniref.web.answers import Asked
from sam_uniref.web.limits import Limits, RefusedError
from sam_uniref.web.uploads import UploadedVideo
from sam_uniref.web.visits import VideoObject, Visit

Report = Callable[[int, int], None]
"""Told ``(frames done, frames in all)``."""


@dataclass(frozen=True)
class Followed:
    """What came of a track.

    Attributes:
        overlay: ``.mp4`` with the objects painted on.
        masks: ``.zip`` of a palette PNG a frame.
        rle: ``.json``: COCO run-length encodings.
        frames: How many there were.
        seen: Per object, in how many of them it was found.
    """

    overlay: Path
    masks: Path
    rle: Path
    frames: int
    seen: dict[int, int]


def next_object(visit: Visit, limits: Limits, frame: int, mask: Mask | None, sentence: str | None) -> VideoObject:
    """Add an object to a visitor's list.

    Args:
        visit: With a video.
        limits: Tell how many there may be.
        frame: Where it joins, from 0.
        mask: ``(H, W)`` bool in that frame, or None.
        sentence: That names it, or None.

    Raises:
        RefusedError: If neither is given, or there are too many already.
    """
    if mask is None and sentence is None:
        raise RefusedError("Paint or click the object in the frame, or name it by a sentence, then add it.")
    if len(visit.objects) >= limits.objects:
        raise RefusedError(f"At most {limits.objects} objects are followed at once.")
    added = VideoObject(len(visit.objects) + 1, frame, mask, sentence)
    visit.objects.append(added)
    return added


def follow(
    asked: Asked, video: UploadedVideo, objects: Sequence[VideoObject], folder: Path, report: Report | None = None
) -> Followed:
    """Follow objects from the frames where they join, and write what is found.

    Args:
        asked: Asked a frame at a time, so that others wait for a frame and not for a video.
        video: To follow them in.
        objects: At least one.
        folder: For the files.
        report: Told how far it is.

    Raises:
        RefusedError: If there is no object, or the model can't be asked by one.
    """
    if not objects:
        raise RefusedError("Add at least one object to follow.")
    total = len(video.previews)
    pngs = folder / "masks"
    overlay, rle = folder / "overlay.mp4", folder / "masks.json"
    names = {o.object_id: o.sentence for o in objects if o.sentence is not None}
    seen = {o.object_id: 0 for o in objects}
    tracker = VideoTracker(asked.model)
    files = TrackFiles(masks=pngs, overlay=overlay, rle=rle, names=names, frames_per_second=video.frames_per_second)
    count = 0
    with read_frames(video.path) as reader, files:
        for index, frame in enumerate(reader):
            with asked.lock:
                result = _step(tracker, frame.picture, [joining for joining in objects if joining.frame == index])
            files.write(frame, result)
            count += 1
            for object_id, visible in result.visible.items():
                seen[object_id] += visible
            if report is not None:
                report(count, total)
    return Followed(overlay, _zipped(pngs, count, folder / "masks.zip"), rle, count, seen)


def _step(tracker: VideoTracker, picture: RGB, joining: Sequence[VideoObject]) -> FrameResult:
    """One frame with the objects that join at it; the model may be of a kind that can't be asked by them."""
    try:
        for one in joining:
            tracker.add(one.object_id, mask=one.mask, text=one.sentence)
        return tracker.step(picture)
    except ValueError as error:
        raise RefusedError(f"The model refuses: {error}.") from error


def _zipped(pngs: Path, count: int, archive: Path) -> Path:
    """The masks of this track in one file."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        for number in range(count):
            name = f"{number:05d}.png"
            opened.write(pngs / name, f"masks/{name}")
    return archive
