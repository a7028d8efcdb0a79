"""Whether a video file is shorter than it says itself.

FFmpeg reads a file that was cut off to its end and calls that the video's end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# Identifiers of an EBML header and of the segment that holds all else.
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Other boxes at the end may be missing, or be no boxes at all.
_BOXES = (b"moov", b"moof", b"mdat")


def is_cut_off(path: str | Path) -> bool:
    """Whether an MP4, MOV, Matroska, WebM, AVI or GIF file ends before its time; False where it does not tell.

    Raises:
        OSError: If it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(12)
        check = _check_for(start)
        return check is not None and check(file, path.stat().st_size)


def _check_for(start: bytes) -> Callable[[BinaryIO, int], bool] | None:
    """The check for a file of which these are the first bytes."""
    if start[:4] == _EBML:
        return _matroska_is_cut
    if start[:4] == b"RIFF":
        return _riff_is_cut
    if start[:3] == b"GIF":
        return _gif_is_cut
    return _boxes_are_cut if start[4:8] in (b"ftyp", b"wide", b"skip", b"free", *_BOXES) else None


def _matroska_is_cut(file: BinaryIO, size: int) -> bool:
    """The segment says how long it is, unless it was sent before that was known."""
    file.seek(len(_EBML))
    file.seek(_ebml_size(file) or 0, 1)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return False
    length = _ebml_size(file)
    return length is not None and file.tell() + length > size


def _ebml_size(file: BinaryIO) -> int | None:
    """A number whose leading zero bits tell its length in bytes; all ones: unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    count = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(count - 1), "big") & ((1 << 7 * count) - 1)
    return None if value == (1 << 7 * count) - 1 else value


def _riff_is_cut(file: BinaryIO, size: int) -> bool:
    file.seek(4)
    return 8 + int.from_bytes(file.read(4), "little") > size


def _gif_is_cut(file: BinaryIO, size: int) -> bool:
    """The last byte is a semicolon; some writers fill the file up."""
    file.seek(max(0, size - 1024))
    return not file.read().rstrip(b"\0\r\n ").endswith(b";")


def _boxes_are_cut(file: BinaryIO, size: int) -> bool:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8:  # 0: up to the end
            return False
        position += length
        if position > size:
            return kind in _BOXES
    return False
