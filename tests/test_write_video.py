"""``write_video``: what is written can be read again, by browsers too, and is whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sam_uniref.video import read_frames, write_video

Picture = NDArray[np.uint8]


def frame(number: int, height: int = 48, width: int = 64) -> Picture:
    """Orange, brighter from frame to frame."""
    return np.full((height, width, 3), (120 + 10 * number, 60 + 5 * number, 10), np.uint8)


def test_every_frame_is_there_in_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "new" / "clip.mp4"
    write_video(path, (frame(number) for number in range(10)), frames_per_second=5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 5)
        assert (stream.width, stream.height) == (64, 48)
        assert float(stream.duration * stream.time_base) == pytest.approx(2)
    read = list(read_frames(path))
    assert len(read) == 10
    for number, picture in enumerate(read):
        np.testing.assert_allclose(np.asarray(picture).astype(int), frame(number).astype(int), atol=6)


def _broken() -> Iterator[Picture]:
    yield frame(0)
    raise RuntimeError("the camera fell")


def test_an_old_file_stays_when_frames_fail(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="the camera fell"):
        write_video(tmp_path / "clip.mp4", _broken())
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("clip.mp4", b"old")]


@pytest.mark.parametrize(
    ("name", "frames", "rate", "message"),
    [
        ("clip.mp4", [], 10, "not a single frame"),
        ("clip.mp4", [frame(0, 48, 63)], 10, "even height and width, got 63x48"),
        ("clip.mp4", [frame(0), frame(1, 46, 64)], 10, r"a frame is \(46, 64, 3\), the first one \(48, 64, 3\)"),
        ("clip.mp4", [frame(0)], 0, "frames_per_second must be at least 1, got 0"),
        ("clip.txt", [frame(0)], 10, "a video is written as .mp4, got .*clip.txt"),
    ],
    ids=["none", "odd", "changes", "rate", "name"],
)
def test_what_cannot_be_written_is_refused(
    name: str, frames: list[Picture], rate: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, frames_per_second=rate)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise av.error.ExternalError(-1, "out of order")

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(OSError, match=r"clip\.mp4 cannot be written .*out of order"):
        write_video(tmp_path / "clip.mp4", [frame(0)])
    assert not list(tmp_path.iterdir())
