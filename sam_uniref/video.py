"""Frames from a video file, a folder of pictures, or anything that yields images; a frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from sam_uniref.images import IMAGE_SUFFIXES, ImageLike


def picture_files(folder: str | Path) -> list[Path]:
    """The pictures of a folder, in the order of their names.

    Raises:
        FileNotFoundError: If there is no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return files


def read_frames(source: str | Path | Iterable[ImageLike]) -> Iterator[ImageLike]:
    """Yield frames lazily.

    Args:
        source: A video file, a folder of pictures, or any iterable of images.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the file is no readable video.
    """
    if not isinstance(source, str | Path):
        yield from source
    elif Path(source).is_dir():
        yield from picture_files(source)
    else:
        yield from _decode(Path(source))


def _decode(path: Path) -> Iterator[ImageLike]:
    """HWC uint8 RGB frames of a video file, every one and in order."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no video or folder of frames at {path}")
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is no readable video ({error})") from error
