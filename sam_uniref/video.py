"""Frames from a video file, a folder of pictures, or anything that yields images, and back into a video file.

Either way it is a frame at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sized
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from sam_uniref.images import IMAGE_SUFFIXES, RGB, ImageLike
from sam_uniref.state import whole_file


def picture_files(folder: str | Path) -> list[Path]:
    """The pictures of a folder, in the order of their names, numbers by value (2.jpg before 10.jpg).

    Raises:
        FileNotFoundError: If there is no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    # Hidden files are an operating system's notes about pictures (._00000.jpg), not pictures.
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "." and p.is_file()]
    if not files:
        raise FileNotFoundError(f"{folder} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=by_number)


def by_number(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Sorting key: runs of digits count by their value, then the name as it is."""
    parts = re.split(r"(\d+)", path.stem)
    return [(text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], -1], strict=True)], path.name


def frame_count(source: str | Path | Iterable[ImageLike]) -> int | None:
    """How many frames there are, or None where only reading to the end tells.

    Raises:
        FileNotFoundError: If the folder holds no pictures.
    """
    if isinstance(source, str | Path):
        return len(picture_files(source)) if Path(source).is_dir() else None
    return len(source) if isinstance(source, Sized) else None


def read_frames(source: str | Path | Iterable[ImageLike]) -> Iterator[ImageLike]:
    """Frames, read lazily; what can be checked at once is checked at the call.

    Args:
        source: A video file, a folder of pictures, or any iterable of images, such as an array ``(T, H, W, 3)`` or a
            tensor ``(T, 3, H, W)``.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the file is no readable video (one that breaks off raises it at that frame), or the array is
            one image.
        TypeError: If it is nothing that can be read from.
    """
    if isinstance(source, str | Path):
        return iter(picture_files(source)) if Path(source).is_dir() else _open_video(Path(source))
    if isinstance(source, np.ndarray | torch.Tensor) and source.ndim != 4:
        raise ValueError(f"frames in one array must be (T, H, W, 3), in one tensor (T, 3, H, W), got {source.shape}")
    if not isinstance(source, Iterable):
        raise TypeError(f"frames must be a video file, a folder or an iterable, got {type(source).__name__}")
    return iter(source)


def _open_video(path: Path) -> Iterator[ImageLike]:
    """Frames of a video file, whose header is read at once."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no video or folder of frames at {path}")
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video in it")
    except av.FFmpegError as error:
        raise ValueError(f"{path} is no readable video ({error})") from error
    return _decode(path)


def _decode(path: Path) -> Iterator[ImageLike]:
    """HWC uint8 RGB frames of a video file, every one and in order, turned as its recorder says."""
    import av

    try:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
    except av.FFmpegError as error:
        raise ValueError(f"{path} is no readable video ({error})") from error


def write_video(path: str | Path, frames: Iterable[RGB], *, frames_per_second: int = 10) -> None:
    """Write an H.264 file that browsers play; it is whole or not there.

    Args:
        path: Ending in ``.mp4``.
        frames: Each HWC uint8 RGB, of one size, with an even height and width.
        frames_per_second: At least 1.

    Raises:
        ValueError: If there is no frame, a size is odd or changes, or the name ends in something else.
        OSError: If it cannot be written.
    """
    import av

    if Path(path).suffix.lower() != ".mp4":
        raise ValueError(f"a video is written as .mp4, got {path}")
    if frames_per_second < 1:
        raise ValueError(f"frames_per_second must be at least 1, got {frames_per_second}")
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("there is not a single frame to write")
    if first.shape[0] % 2 or first.shape[1] % 2:
        raise ValueError(f"H.264 needs an even height and width, got {first.shape[1]}x{first.shape[0]}")
    try:
        # What browsers play halves the colours' resolution, hence the even sizes.
        with whole_file(path) as temporary, av.open(str(temporary), "w") as container:
            stream = container.add_stream("h264", rate=frames_per_second, options={"crf": "18"})
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = "yuv420p"
            for picture in chain([first], pictures):
                if picture.shape != first.shape:
                    raise ValueError(f"a frame is {picture.shape}, the first one {first.shape} (height, width, 3)")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise OSError(f"{path} cannot be written ({error})") from error
