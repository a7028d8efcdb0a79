"""``write_video``: what is written can be read again, by browsers too, and is whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from videos import encode_video, noise

from sam_uniref.video import Frame, read_frames
from sam_uniref.video_writing import VideoWriter, write_video

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
        np.testing.assert_allclose(picture.picture.astype(int), frame(number).astype(int), atol=6)
        assert picture.time == pytest.approx(number / 5)


def times_in(path: Path) -> list[float | None]:
    return [frame.time for frame in read_frames(path)]


TELEPHONE = [0.0, 0.01, 0.09, 0.1, 0.11, 0.4, 0.41, 0.6, 0.61, 0.62, 0.9, 0.99]


@pytest.mark.parametrize("start", [0.0, 7.25, 1.7e9], ids=["from 0", "later", "a camera's clock"])
@pytest.mark.parametrize("times", [TELEPHONE, [k * 1001 / 30000 for k in range(60)]], ids=["telephone", "NTSC"])
def test_times_of_a_varying_rate_are_kept(times: list[float], start: float, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, (Frame(frame(k % 12), start + time) for k, time in enumerate(times)))
    np.testing.assert_allclose(times_in(path), times, atol=1e-5)


def test_a_copy_has_the_frames_and_times_of_its_original(tmp_path: Path) -> None:
    hundredths = [round(100 * time) for time in TELEPHONE]
    original = encode_video(tmp_path / "original.mkv", noise(12, 46, 62), codec="h264", times=hundredths)
    write_video(tmp_path / "copy.mp4", read_frames(original))
    np.testing.assert_allclose(times_in(tmp_path / "copy.mp4"), TELEPHONE, atol=1e-3)


def test_frames_without_a_time_or_at_one_time_come_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    times = [None, 3.0, 3.0, 2.0, None, 4.0]
    write_video(path, (Frame(frame(k), time) for k, time in enumerate(times)), frames_per_second=10)
    np.testing.assert_allclose(times_in(path), [0, 0.1, 0.1, 0.1, 0.2, 1.1], atol=1e-4)  # type: ignore[arg-type]
    assert len(set(times_in(path))) == 6


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (47, 63), (1, 1)])
def test_an_odd_size_gets_its_last_row_or_column_twice(height: int, width: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    picture = frame(0, height, width)
    picture[-1, -1] = 255
    write_video(path, [picture] * 3)
    read = [frame.picture for frame in read_frames(path)]
    assert len(read) == 3
    assert read[0].shape == (height + height % 2, width + width % 2, 3)
    if height > 1:
        inner = picture[: height - 3, : width - 3].astype(int)
        np.testing.assert_allclose(read[0][: height - 3, : width - 3].astype(int), inner, atol=6)


def test_a_writer_keeps_what_it_has_when_it_is_told_to(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "clip.mp4")
    video.finish()
    assert list(tmp_path.iterdir()) == []
    for number in range(3):
        video.write(frame(number))
    video.finish()
    assert len(list(read_frames(tmp_path / "clip.mp4"))) == video.count == 3
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


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
        ("clip.mp4", [frame(0), frame(1, 46, 64)], 10, r"a frame is \(46, 64\), the first one \(48, 64\)"),
        ("clip.mp4", [frame(0)], 0, "frames_per_second must be above 0, got 0"),
        ("clip.txt", [frame(0)], 10, "a video is written as .mp4, got .*clip.txt"),
    ],
    ids=["none", "changes", "rate", "name"],
)
def test_what_cannot_be_written_is_refused(
    name: str, frames: list[Picture], rate: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, frames_per_second=rate)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise av.error.ExternalError(-1, "out of order")

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(OSError, match=r"clip\.mp4 cannot be written .*out of order"):
        write_video(tmp_path / "clip.mp4", [frame(0)])
    assert not list(tmp_path.iterdir())
