"""Frames from a video file, a camera, a folder or glob of pictures, or anything that yields images.

A frame at a time: memory does not grow with the video. `sam_uniref.video_writing` is the way back.
"""

from __future__ import annotations

import glob
import logging
import math
import re
from collections.abc import Generator, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch

from sam_uniref.images import IMAGE_SUFFIXES, RGB, ImageLike, load_image
from sam_uniref.nearest import nearest_path
from sam_uniref.prefetch import Prefetch
from sam_uniref.truncation import is_cut_off

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

# A video file, a folder or a glob of pictures; a camera's number; or images.
FrameSource: TypeAlias = "str | Path | int | Iterable[ImageLike] | Iterable[Frame]"


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        picture: ``(H, W, 3)`` uint8 RGB.
        time: When it is shown, in seconds by the source's own clock; None where the source has none.
    """

    picture: RGB
    time: float | None = None


class VideoBrokeOffError(Exception):
    """A video cannot be read further, after some good frames."""


class FrameReader(Iterator[Frame]):
    """Frames of a source, each once and in order. `read_frames` makes it.

    Closing it ends the thread that reads ahead; so does reading to the end, or dropping the reader.

    Attributes:
        count: How many frames there are, or None where only reading to the end tells.
        expected: About how many, for a progress bar; None where nobody knows.
        frames_per_second: The source's average rate; None where it has none.
        latest: The frame handed out last. In a loop over `Predictor.track`'s results it is the result's frame.
        broke_off: After a video that broke off: where, and why.
    """

    def __init__(
        self,
        frames: Iterator[Frame],
        *,
        count: int | None = None,
        expected: int | None = None,
        frames_per_second: float | None = None,
    ) -> None:
        self.count = count
        self.expected = count if expected is None else expected
        self.frames_per_second = frames_per_second
        self.latest: Frame | None = None
        self.broke_off: str | None = None
        self._frames = frames

    def __next__(self) -> Frame:
        try:
            self.latest = next(self._frames)
        except VideoBrokeOffError as error:
            self.broke_off = str(error)
            logger.warning("%s", error)
            raise StopIteration from None
        return self.latest

    def close(self) -> None:
        """Let go of the source; it may be called again."""
        if isinstance(self._frames, Prefetch | Generator):
            self._frames.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_frames(source: FrameSource | FrameReader) -> FrameReader:
    """Frames, read lazily; what can be checked at once is checked at the call.

    Files, cameras and lists are read ahead by a thread, a few frames at most. A generator is asked for a frame when
    the frame is, by the thread that asks.

    Args:
        source: A video file; a folder of pictures, or a glob such as ``"frames/*.jpg"``, in the order of their names;
            the number of a camera; or any iterable of images or of `Frame`, such as an array ``(T, H, W, 3)`` or a
            tensor ``(T, 3, H, W)``. A reader is given back as it is.

    Returns:
        An iterator. A video that breaks off ends with a warning after its last good frame, see
        `FrameReader.broke_off`.

    Raises:
        FileNotFoundError: If there is no such file, folder or picture.
        OSError: If the camera cannot be opened.
        ValueError: If the file is no readable video, the array is one image, or the camera's number is negative.
        TypeError: If it is nothing that can be read from.
    """
    if isinstance(source, FrameReader):
        return source
    if isinstance(source, str | Path):
        files = picture_files(source)
        return _open_video(Path(source)) if files is None else _ahead(files)
    if isinstance(source, int) and not isinstance(source, bool):
        from sam_uniref.camera import open_camera

        container, name = open_camera(source)
        return _read_container(container, name)
    if isinstance(source, np.ndarray | torch.Tensor) and source.ndim != 4:
        raise ValueError(f"frames in one array must be (T, H, W, 3), in one tensor (T, 3, H, W), got {source.shape}")
    if not isinstance(source, Iterable):
        raise TypeError(
            "frames must be a video file, a folder or glob of pictures, a camera's number or an iterable, got "
            f"{type(source).__name__}"
        )
    if isinstance(source, list | tuple):
        return _ahead(source)
    return FrameReader(_load(source), count=len(source) if isinstance(source, Sized) else None)


def _ahead(images: list[Path] | list[ImageLike] | tuple[ImageLike, ...]) -> FrameReader:
    """A reader of images that a thread may load."""
    return FrameReader(Prefetch(_load(images)), count=len(images))


def _load(images: Iterable[ImageLike] | Iterable[Frame]) -> Generator[Frame, None, None]:
    for image in images:
        yield image if isinstance(image, Frame) else Frame(load_image(image))


# ---- Pictures ----


def picture_files(source: str | Path) -> list[Path] | None:
    """The pictures of a folder or a glob, in the order of their names, numbers by value (2.jpg before 10.jpg).

    Returns:
        None if the source is a file, or there is nothing of its name and it is no glob.

    Raises:
        FileNotFoundError: If there is no picture in the folder, or none that the glob names.
    """
    folder = Path(source)
    if folder.is_dir():
        found: Iterable[Path] = folder.iterdir()
    elif glob.has_magic(str(source)) and not folder.exists():
        found = map(Path, glob.iglob(str(source), recursive=True))  # noqa: PTH207 - Path.glob wants relative ones
    else:
        return None
    # Hidden files are an operating system's notes about pictures (._00000.jpg), not pictures.
    files = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "." and p.is_file()]
    if not files:
        raise FileNotFoundError(f"{source} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=lambda path: [by_number(Path(part)) for part in path.parts])


def by_number(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Sorting key: runs of digits count by their value, then the name as it is."""
    parts = re.split(r"(\d+)", path.stem)
    return [(text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], -1], strict=True)], path.name


# ---- Videos ----


def _open_video(path: Path) -> FrameReader:
    """A reader of a video file, whose header is read at once."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no video or folder of frames at {path}{nearest_path(path)}")
    import av

    try:
        container = av.open(str(path), metadata_errors="replace")
    except av.FFmpegError as error:
        raise ValueError(f"{path} is no readable video ({error})") from error
    return _read_container(container, str(path), cut_off=is_cut_off(path))


def _read_container(container: InputContainer, name: str, *, cut_off: bool = False) -> FrameReader:
    """A reader of what was opened."""
    # The best one: a picture on the sleeve counts as a video too.
    stream = cast("VideoStream | None", container.streams.best("video"))
    if stream is None:
        container.close()
        raise ValueError(f"{name} has no video in it")
    rate = stream.average_rate
    expected = stream.frames or None
    if expected is None and rate and container.duration:
        expected = round(float(rate) * container.duration / 1_000_000)
    return FrameReader(
        Prefetch(_decode(container, stream, name, cut_off)),
        expected=expected,
        frames_per_second=float(rate) if rate else None,
    )


def _decode(container: InputContainer, stream: VideoStream, name: str, cut_off: bool) -> Generator[Frame, None, None]:
    """Frames of a video, every one and in order, turned as its recorder says.

    Raises:
        ValueError: If not a single one can be read.
        VideoBrokeOffError: If not all can be read.
    """
    import av

    count = 0
    with container:
        try:
            for frame in _raw_frames(container, stream, cut_off):
                picture = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                unit = frame.time_base or stream.time_base
                time = None if frame.pts is None or unit is None else float(frame.pts * unit)
                yield Frame(np.ascontiguousarray(picture), time)
                count += 1
        except (av.FFmpegError, _CutOffError) as error:
            if count == 0:
                raise ValueError(f"{name} is no readable video ({error})") from error
            raise VideoBrokeOffError(f"{name} breaks off at frame {count}, counted from 0 ({error})") from error


class _CutOffError(Exception):
    """There should be more of the file."""


def _raw_frames(container: InputContainer, stream: VideoStream, cut_off: bool) -> Generator[VideoFrame, None, None]:
    """What the decoder gives; if the video breaks off, all that can be had before the first frame that cannot.

    Raises:
        FFmpegError: If something cannot be decoded.
        _CutOffError: If the end is missing.
    """
    import av

    # Threads by frame would tell of an error some frames late, among good frames.
    stream.thread_type = "SLICE"
    torn: Packet | None = None
    decoding: Packet | None = None
    given: int | None = None
    sent: int | None = None
    problem: Exception | None = None
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            # Half a packet may well decode, into half a picture. It is the last one of a file that was cut off, but
            # in a broadcast it is any that was received badly.
            half = packet.is_corrupt or (cut_off and stream.name == "gif")
            for decoding in filter(None, (torn, None if half else packet)):
                for frame in decoding.decode():
                    yield frame
                    given = frame.pts
                sent = decoding.dts
            torn, decoding = packet if half else None, None
    except av.FFmpegError as error:
        problem = error
    if problem is None and (cut_off or torn is not None):
        problem = _CutOffError("the file ends too early")
    broken = decoding or torn
    held = stream.decode(None)
    if problem is None:
        yield from held
    else:
        yield from _before_gap(stream, held, given, sent, None if broken is None else broken.pts)
        raise problem


def _before_gap(
    stream: VideoStream, held: list[VideoFrame], given: int | None, sent: int | None, broken: int | None
) -> Iterator[VideoFrame]:
    """Of the frames that a decoder still held when a video broke off, those before the first that is missing.

    Frames are decoded in another order than they are shown in: a later one may be there and an earlier one not.

    Args:
        stream: The video's.
        held: The frames, in the order in which they are shown.
        given: Time of the frame before them, as all times here in the stream's unit.
        sent: Decoding time of the last packet; no missing frame is shown before it.
        broken: When the frame is shown that could not be decoded.
    """
    rate, unit = stream.average_rate, stream.time_base
    longest = 1.5 / float(rate * unit) if rate and unit else math.inf
    for frame in held:
        if frame.pts is not None:
            late = sent is None or frame.pts > sent
            if (broken is not None and frame.pts >= broken) or (
                late and given is not None and frame.pts - given > longest
            ):
                return
            given = frame.pts
        yield frame
