"""Uploaded files, decided on by what is in them: a name or an announced type says nothing.

A picture's size is read from its header, and nothing is decoded that is above the limit. Videos are opened by the one
demuxer that their first bytes call for, so that no playlist can send the server to other files or addresses.
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sam_uniref.images import RGB, Mask, fit_to_image, load_id_map, load_image
from sam_uniref.video import FrameReader, read_frames
from sam_uniref.web.limits import Limits, RefusedError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Pillow's decoders that are let at a visitor's file. JPEG's takes telephones' MPO too.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_KNOWN_PICTURES = "JPEG, PNG, WebP, BMP or GIF"
_MOVING = ("GIF", "PNG", "WEBP")
SMALLEST_SIDE = 8
# A longer side would leave nothing of the shorter one at the model's size.
LARGEST_RATIO = 32
# Demuxer by the bytes from an offset on, and the suffix that the server's copy gets.
_VIDEOS = (
    (4, b"ftyp", "mov", ".mp4"),
    (0, b"\x1a\x45\xdf\xa3", "matroska", ".mkv"),
    (0, b"RIFF", "avi", ".avi"),
    (0, b"GIF8", "gif", ".gif"),
)
_HEAD = 16
PREVIEW_SIDE = 1024


@dataclass(frozen=True)
class UploadedVideo:
    """A video that was read from its first frame to its last.

    Attributes:
        path: The server's own copy.
        previews: A JPEG a frame, at most `PREVIEW_SIDE` wide and high.
        size: ``(height, width)`` of all frames.
        frames_per_second: As it says itself; 10 where it says nothing.
        note: What a visitor should know, or nothing.
    """

    path: Path
    previews: tuple[Path, ...]
    size: tuple[int, int]
    frames_per_second: float
    note: str = ""


def checked_picture(file: Path | bytes, limits: Limits) -> RGB:
    """An uploaded picture, HWC uint8 RGB.

    Raises:
        RefusedError: If it is no picture, broken, moving, too large or too narrow.
    """
    return _decoded(file, limits, load_image)


def checked_ids(file: Path | bytes, size: tuple[int, int], limits: Limits) -> NDArray[np.int64]:
    """An uploaded mask as a map ``(height, width)`` of object ids, 0 = background; one id where it is black and white.

    Raises:
        RefusedError: As `checked_picture`, or if it is empty or of another size than its picture.
    """

    def read(image: PILImage.Image) -> NDArray[np.int64]:
        try:
            return fit_to_image(load_id_map(image), size)
        except ValueError as error:
            raise RefusedError(f"The mask can't be used: {error}.") from error

    ids = _decoded(file, limits, read)
    if not ids.any():
        raise RefusedError("The mask is empty: nothing in it is marked.")
    return ids


def checked_mask(file: Path | bytes, size: tuple[int, int], limits: Limits) -> Mask:
    """An uploaded mask ``(height, width)`` bool of one object.

    Raises:
        RefusedError: As `checked_ids`, or if several objects are marked.
    """
    ids = checked_ids(file, size, limits)
    if len(np.unique(ids[ids > 0])) > 1:
        raise RefusedError("The mask marks several objects; an example shows one.")
    marked: Mask = ids > 0
    return marked


def _decoded(file: Path | bytes, limits: Limits, read: Callable[[PILImage.Image], T]) -> T:
    """What is read from a whole decoded picture in its own mode.

    Raises:
        RefusedError: If it is not as it must be.
    """
    data = _read(file, limits)
    try:
        with PILImage.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
            _check_shape(image.size, limits)
            if image.format in _MOVING and getattr(image, "is_animated", False):
                raise RefusedError("That picture moves; it can be given as a video.")
            image.verify()
        with PILImage.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
            image.load()
            return read(image)
    except RefusedError:
        raise
    except PILImage.DecompressionBombError as error:
        raise RefusedError(_too_large("It has far too many pixels", limits)) from error
    except Exception as error:  # decoders meet hostile bytes here, and raise whatever they like
        logger.info("refused a picture of %d bytes: %s", len(data), error)
        raise RefusedError(f"That is no whole picture: {_KNOWN_PICTURES} is needed.") from error


def _read(file: Path | bytes, limits: Limits) -> bytes:
    """A file's bytes, if they are not too many."""
    if isinstance(file, bytes):
        size = len(file)
    else:
        _check_file(file)
        size = file.stat().st_size
    if size > limits.upload_bytes:
        raise RefusedError(f"The file has {size / 2**20:.0f} MB; at most {limits.upload_megabytes:g} MB are taken.")
    if size == 0:
        raise RefusedError("The file is empty.")
    return file if isinstance(file, bytes) else file.read_bytes()


def _check_file(file: Path) -> None:
    """Refuse what is no plain file, or is gone."""
    try:
        plain = file.is_file() and not file.is_symlink()
    except (OSError, ValueError):  # a name that no file can have
        plain = False
    if not plain:
        raise RefusedError("The file is not there any more; please give it again.")


def _too_large(what: str, limits: Limits) -> str:
    return f"{what}; at most {limits.megapixels:g} million are taken."


def _check_shape(size: tuple[int, int], limits: Limits) -> None:
    """Refuse a picture or frame by its width and height."""
    width, height = size
    if width * height > limits.pixels:
        raise RefusedError(_too_large(f"It is {width} x {height} pixels", limits))
    if min(size) < SMALLEST_SIDE:
        raise RefusedError(f"It is {width} x {height} pixels; {SMALLEST_SIDE} on a side are the least.")
    if max(size) > LARGEST_RATIO * min(size):
        raise RefusedError(f"It is {width} x {height} pixels; one side may be {LARGEST_RATIO} times the other at most.")


# ---- Videos ----


def checked_video(file: Path, folder: Path, limits: Limits) -> UploadedVideo:
    """An uploaded video, read once from end to end, with a copy of it and a preview of each frame in an empty folder.

    Raises:
        RefusedError: If it is no video, has no frame, or has too many, too large or too different ones.
    """
    _check_file(file)
    size = file.stat().st_size
    if size > limits.upload_bytes:
        raise RefusedError(f"The file has {size / 2**20:.0f} MB; at most {limits.upload_megabytes:g} MB are taken.")
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    demuxer, suffix = _demuxer(head)
    copy = folder / f"video{suffix}"
    shutil.copyfile(file, copy)
    _probe(copy, demuxer, limits)
    return _previewed(copy, folder, limits)


def _demuxer(head: bytes) -> tuple[str, str]:
    """The demuxer that a file's first bytes call for, and the suffix of such files."""
    for offset, magic, demuxer, suffix in _VIDEOS:
        if head[offset : offset + len(magic)] == magic and (magic != b"RIFF" or head[8:12] == b"AVI "):
            return demuxer, suffix
    raise RefusedError("That is no video that can be read: mp4, mov, webm, mkv, avi or a moving GIF is needed.")


def _probe(path: Path, demuxer: str, limits: Limits) -> None:
    """Check what a video says of itself, before a frame is decoded."""
    import av

    try:
        with av.open(
            str(path), format=demuxer, options={"protocol_whitelist": "file"}, metadata_errors="replace"
        ) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise RefusedError("There is no video in the file.")
            _check_shape((stream.codec_context.width, stream.codec_context.height), limits)
            seconds = (container.duration or 0) / 1e6
            frames = stream.frames or 0
    except RefusedError:
        raise
    except Exception as error:  # hostile bytes
        logger.info("refused a video: %s", error)
        raise RefusedError("That is no whole video.") from error
    if seconds > limits.seconds:
        raise RefusedError(f"The video lasts {seconds:.0f} seconds; at most {limits.seconds:g} are taken.")
    if frames > limits.frames:
        raise RefusedError(_too_many(limits))


def _too_many(limits: Limits) -> str:
    return f"The video has more than {limits.frames} frames, which is the most that is taken; please cut it shorter."


def _previewed(path: Path, folder: Path, limits: Limits) -> UploadedVideo:
    """Read a video to its end and keep a small picture of each frame."""
    previews: list[Path] = []
    size: tuple[int, int] | None = None
    shown = folder / "previews"
    shown.mkdir()
    try:
        with read_frames(path) as reader:
            for frame in reader:
                height, width = frame.picture.shape[:2]
                if size not in (None, (height, width)):
                    raise RefusedError("The video's frames are of several sizes.")
                _check_shape((width, height), limits)
                if len(previews) >= limits.frames:
                    raise RefusedError(_too_many(limits))
                size = (height, width)
                previews.append(shown / f"{len(previews):05d}.jpg")
                small(frame.picture).save(previews[-1], format="JPEG", quality=88)
            rate, broke_off = _rate(reader), reader.broke_off is not None
    except RefusedError:
        raise
    except Exception as error:  # hostile bytes; the library's message names a path
        logger.info("refused a video: %s", error)
        raise RefusedError("That is no whole video.") from error
    if size is None:
        raise RefusedError("There is not a single frame in the video.")
    note = f"The video breaks off; its first {len(previews)} frames are used." if broke_off else ""
    return UploadedVideo(path, tuple(previews), size, rate, note)


def _rate(reader: FrameReader) -> float:
    """Frames per second within reason."""
    return min(max(reader.frames_per_second or 10.0, 1.0), 120.0)


def small(picture: RGB, side: int = PREVIEW_SIDE) -> PILImage.Image:
    """A picture no larger than a side in pixels, for showing."""
    reduced = PILImage.fromarray(picture)
    reduced.thumbnail((side, side), PILImage.Resampling.LANCZOS)
    return reduced


def resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another ``(height, width)``, smoothly."""
    if mask.shape == tuple(size):
        return mask
    grey = PILImage.fromarray(mask.astype(np.uint8) * 255).resize((size[1], size[0]), PILImage.Resampling.BILINEAR)
    larger: Mask = np.asarray(grey) > 127
    return larger
