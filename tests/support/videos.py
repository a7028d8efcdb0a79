"""Small video files, and frames that are known by their brightness."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def brightness(frame: int) -> int:
    return 20 * frame


def gray(frame: int, height: int = 48, width: int = 64) -> Picture:
    """``(height, width, 3)``, of one brightness."""
    return np.full((height, width, 3), brightness(frame), np.uint8)


def noise(count: int, height: int = 48, width: int = 64) -> list[Picture]:
    """Frames that no codec makes small, so that a file can be cut at any frame."""
    return list(np.random.default_rng(0).integers(0, 255, (count, height, width, 3)).astype(np.uint8))


def encode_video(
    path: Path,
    frames: Sequence[Picture],
    *,
    codec: str = "mpeg4",
    pixel_format: str = "yuv420p",
    times: Sequence[int] | None = None,
    b_frames: int = 2,
    movflags: str = "",
) -> Path:
    """A video of 25 frames a second, or with ``times`` in hundredths of a second."""
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if b_frames:
            stream.codec_context.max_b_frames = b_frames
        unit = Fraction(1, 100 if times else 25)
        stream.codec_context.time_base = unit
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """The file's first part alone, as a recorder leaves it that lost its power."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path
