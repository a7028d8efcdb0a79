"""``read_frames``: every frame once, in order and with its time, from whatever can be read; and what cannot."""

from __future__ import annotations

import gc
import logging
import platform
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from videos import Picture, brightness, cut, encode_video, gray, noise

from sam_uniref.video import Frame, FrameReader, picture_files, read_frames

COUNT = 12
FRAMES = [gray(frame) for frame in range(COUNT)]
# A telephone's: no two distances alike.
TIMES = [0, 1, 9, 10, 11, 40, 41, 60, 61, 62, 90, 99]


def as_folder(folder: Path) -> Path:
    folder.mkdir()
    for frame in range(COUNT):
        PILImage.fromarray(gray(frame)).save(folder / f"{frame}.png")  # unpadded: 10.png is after 9.png
    PILImage.fromarray(gray(0, 8, 8)).save(folder / "._0.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "masks.png").mkdir()
    return folder


FILES: dict[str, dict[str, Any]] = {
    "clip.mp4": {},
    "h264.mp4": {"codec": "h264"},
    "clip.mov": {},
    "clip.avi": {"b_frames": 0},
    "clip.mkv": {"codec": "h264"},
    "clip.webm": {"codec": "libvpx-vp9", "b_frames": 0},
    "clip.gif": {"codec": "gif", "pixel_format": "gray", "b_frames": 0},
}


@pytest.mark.parametrize("name", FILES)
def test_every_frame_of_a_file_once_and_in_order_with_its_time(name: str, tmp_path: Path) -> None:
    reader = read_frames(encode_video(tmp_path / name, FRAMES, **FILES[name]))
    frames = list(reader)
    np.testing.assert_allclose([f.picture.mean() for f in frames], [brightness(f) for f in range(COUNT)], atol=4)
    assert all(f.picture.shape == (48, 64, 3) and f.picture.dtype == np.uint8 for f in frames)
    times = np.array([f.time for f in frames])
    np.testing.assert_allclose(times - times[0], np.arange(COUNT) / 25, atol=1e-3)
    assert reader.count is None
    assert reader.expected == pytest.approx(COUNT, abs=1)
    assert reader.frames_per_second == pytest.approx(25, rel=0.02)
    assert reader.broke_off is None


def test_times_of_a_varying_rate(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "clip.mp4", FRAMES, times=TIMES)
    frames = list(read_frames(path))
    np.testing.assert_allclose([f.time for f in frames], np.array(TIMES) / 100, atol=1e-6)
    np.testing.assert_allclose([f.picture.mean() for f in frames], [brightness(f) for f in range(COUNT)], atol=4)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, 0, -1, 0, 0), "top"),
        ((-1, 0, 0, 0, -1, 0), "right"),
        ((0, -1, 0, 1, 0, 0), "bottom"),
    ],
)
def test_a_video_is_turned_as_its_recorder_says(matrix: tuple[int, ...], expected: str, tmp_path: Path) -> None:
    """A telephone held upright writes lying frames and a matrix that turns them a quarter clockwise."""
    left_white = np.zeros((48, 64, 3), np.uint8)
    left_white[:, :32] = 255
    path = encode_video(tmp_path / "clip.mp4", [left_white] * 2)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = struct.pack(">9i", *(value << 16 for value in matrix), 0, 0, 1 << 30)
    path.write_bytes(data)
    frames = list(read_frames(path))
    assert len(frames) == 2
    for picture in (frame.picture for frame in frames):
        assert picture.shape == ((64, 48, 3) if expected in ("top", "bottom") else (48, 64, 3))
        turned = {"top": picture, "right": np.rot90(picture), "bottom": picture[::-1]}[expected]
        middle = len(turned) // 2
        assert turned[: middle - 4].min() > 200
        assert turned[middle + 4 :].max() < 50


SOURCES: dict[str, Callable[[Path], Any]] = {
    "folder": lambda folder: as_folder(folder / "frames"),
    "glob": lambda folder: str(as_folder(folder / "frames") / "*.png"),
    "glob as Path": lambda folder: as_folder(folder / "frames") / "*.png",
    "paths": lambda folder: picture_files(as_folder(folder / "frames")),
    "list": lambda _: FRAMES,
    "PIL": lambda _: tuple(PILImage.fromarray(frame) for frame in FRAMES),
    "numpy": lambda _: np.stack(FRAMES),
    "torch floats": lambda _: torch.from_numpy(np.stack(FRAMES)).permute(0, 3, 1, 2) / 255,
}


@pytest.mark.parametrize("name", SOURCES)
def test_pictures_have_no_times(name: str, tmp_path: Path) -> None:
    reader = read_frames(SOURCES[name](tmp_path))
    assert (reader.count, reader.expected, reader.frames_per_second) == (COUNT, COUNT, None)
    frames = list(reader)
    assert [f.picture.mean() for f in frames] == [brightness(f) for f in range(COUNT)]
    assert {f.time for f in frames} == {None}


def test_a_glob_over_folders_takes_pictures_in_the_order_of_all_numbers(tmp_path: Path) -> None:
    for name in ("clip10/1.png", "clip2/10.png", "clip2/9.png", "clip2/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PILImage.fromarray(gray(1)).save(tmp_path / name, format="PNG")
    files = picture_files(tmp_path / "clip*" / "*")
    assert files is not None
    assert [str(file.relative_to(tmp_path)) for file in files] == ["clip2/9.png", "clip2/10.png", "clip10/1.png"]
    assert picture_files(str(tmp_path / "**" / "9.png")) == [tmp_path / "clip2" / "9.png"]


def test_a_file_may_have_the_name_of_a_glob(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "clip[1].mp4", FRAMES)
    assert len(list(read_frames(path))) == COUNT


def test_a_generator_is_read_as_it_is_needed_and_in_the_callers_thread() -> None:
    pulled: list[int] = []
    threads = set()

    def frames() -> Iterator[Picture | Frame]:
        for frame in range(5):
            pulled.append(frame)
            threads.add(threading.current_thread())
            yield Frame(gray(frame), time=3.5) if frame == 1 else gray(frame)

    reader = read_frames(frames())  # type: ignore[arg-type]
    assert (reader.count, reader.latest, pulled) == (None, None, [])
    assert next(reader).time is None
    second = next(reader)
    assert second.time == 3.5
    assert reader.latest is second
    assert pulled == [0, 1]
    assert threads == {threading.current_thread()}
    assert read_frames(reader) is reader


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("sam_uniref")]


def assert_no_threads() -> None:
    end = time.monotonic() + 5
    while our_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert our_threads() == []


def closed(reader: FrameReader) -> None:
    reader.close()


def with_block(reader: FrameReader) -> None:
    with reader:
        next(reader)


def read_out(reader: FrameReader) -> None:
    assert len(list(reader)) == 199


@pytest.mark.parametrize("end", [closed, with_block, read_out, lambda _: None], ids=["close", "with", "end", "drop"])
def test_the_thread_that_reads_ahead_ends(end: Callable[[FrameReader], None], tmp_path: Path) -> None:
    path = encode_video(tmp_path / "clip.mp4", [gray(frame % 12) for frame in range(200)])
    assert_no_threads()
    reader = read_frames(path)
    assert our_threads() == []
    next(reader)
    assert len(our_threads()) == 1
    end(reader)
    del reader
    gc.collect()
    assert_no_threads()


def test_few_frames_of_a_file_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the one who reads: the decoder is asked for a frame at a time, a few ahead."""
    made = []
    monkeypatch.setattr("sam_uniref.video.Frame", lambda *given: made.append(1) or Frame(*given))
    path = encode_video(tmp_path / "clip.mp4", [gray(frame % 12) for frame in range(100)])
    with read_frames(path) as reader:
        for number in range(10):
            next(reader)
            time.sleep(0.05)
            assert number + 1 <= len(made) <= number + 7


# ---- Videos that break off ----


BROKEN: dict[str, dict[str, Any]] = {
    "faststart.mp4": {"codec": "h264", "movflags": "+faststart"},
    "fragments.mp4": {"codec": "h264", "movflags": "frag_every_frame+empty_moov"},
    "clip.mov": {"codec": "h264", "movflags": "+faststart"},
    "clip.avi": {"codec": "h264", "b_frames": 0},
    "clip.mkv": {"codec": "h264"},
    "clip.webm": {"codec": "libvpx-vp9", "b_frames": 0},
    "clip.gif": {"codec": "gif", "pixel_format": "gray", "b_frames": 0},
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("share", [0.4, 0.7])
def test_a_video_that_breaks_off_keeps_what_was_decoded(
    name: str, share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = encode_video(tmp_path / name, noise(20), **BROKEN[name])
    whole = list(read_frames(path))
    assert len(whole) == 20
    reader = read_frames(cut(path, share))
    with caplog.at_level(logging.WARNING):
        frames = list(reader)
    assert 20 * share - 5 < len(frames) < 20 * share + 1
    for got, wanted in zip(frames, whole, strict=False):
        np.testing.assert_array_equal(got.picture, wanted.picture)
        assert got.time == wanted.time
    assert reader.broke_off is not None
    assert f"{name} breaks off at frame {len(frames)}, counted from 0" in reader.broke_off
    assert [record.getMessage() for record in caplog.records] == [reader.broke_off]
    assert next(reader, None) is None


def packets_of(path: Path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", ["faststart.mp4", "fragments.mp4", "clip.mov", "clip.avi", "clip.mkv", "clip.webm"])
def test_a_video_that_ends_between_two_frames_breaks_off_too(name: str, tmp_path: Path) -> None:
    path = encode_video(tmp_path / name, noise(8), **{**BROKEN[name], "b_frames": 0})
    data = path.read_bytes()
    path.write_bytes(data[: packets_of(path)[5].pos])
    reader = read_frames(path)
    frames = list(reader)
    assert len(frames) == 5
    assert reader.broke_off is not None
    assert "breaks off at frame 5, counted from 0 (the file ends too early)" in reader.broke_off


# Some far apart and some close together, so that a gap between frames says nothing.
UNEVEN = [100 * (k // 6) + (0, 1, 2, 3, 50, 51)[k % 6] for k in range(24)]


@pytest.mark.parametrize(
    ("name", "times"),
    [("clip.mp4", None), ("clip.mkv", None), ("damaged.mp4", None), ("clip.mp4", UNEVEN), ("damaged.mp4", UNEVEN)],
)
def test_where_frames_are_stored_out_of_order_none_is_left_out(
    name: str, times: list[int] | None, tmp_path: Path
) -> None:
    """Wherever a video with B-frames breaks off, what is read is its beginning, without a gap."""
    pictures = [gray(frame % 12) for frame in range(24)]
    path = encode_video(tmp_path / name, pictures, codec="h264", movflags="+faststart", times=times)
    whole = [frame.time for frame in read_frames(path)]
    packets = packets_of(path)
    assert [p.pts for p in packets] != sorted(p.pts or 0 for p in packets), "there are B-frames"
    places = [(packet.pos or 0, packet.size) for packet in packets]
    data = path.read_bytes()
    lengths = set()
    for position, size in places[2:]:
        if name == "damaged.mp4":
            path.write_bytes(data[:position] + b"\xff" * size + data[position + size :])
        else:
            path.write_bytes(data[: position + size // 2])
        reader = read_frames(path)
        times = [frame.time for frame in reader]
        assert reader.broke_off is not None
        assert times == whole[: len(times)]
        lengths.add(len(times))
    assert max(lengths) > 18
    assert len(lengths) > 5


def test_the_warning_comes_when_the_last_good_frame_was_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = encode_video(tmp_path / "clip.mp4", noise(10), **BROKEN["faststart.mp4"])
    reader = read_frames(cut(path, 0.4))
    while (frame := next(reader, None)) is not None:
        assert frame is reader.latest
        assert bool(caplog.records) == (reader.broke_off is not None)
        assert reader.broke_off is None
        time.sleep(0.1)  # the thread has long come to the end
    assert reader.broke_off is not None


def test_a_video_without_a_good_frame_is_refused(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "clip.mp4", noise(2), **BROKEN["faststart.mp4"])
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 100])
    with pytest.raises(ValueError, match=r"clip\.mp4 is no readable video"):
        list(read_frames(path))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing.mp4", FileNotFoundError, "there is no video or folder of frames at missing.mp4"),
        ("missing/*.jpg", FileNotFoundError, r"missing/\*\.jpg holds no pictures \(\.jpg, "),
        (gray(0), ValueError, r"must be \(T, H, W, 3\)"),
        (7.5, TypeError, "a camera's number or an iterable, got float"),
        (True, TypeError, "got bool"),
        (-1, ValueError, "a camera's number must be 0 or more, got -1"),
    ],
)
def test_what_cannot_be_read_is_refused_at_the_call(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_frames(source)


# ---- Cameras ----


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(OSError, match=r"camera 97 cannot be opened on .*; see that it is there"):
        read_frames(97)


@pytest.mark.parametrize(
    ("system", "asked"),
    [
        ("Linux", ("/dev/video1", "v4l2", {})),
        ("Darwin", ("1:none", "avfoundation", {"framerate": "30"})),
        ("Windows", ("video=@second", "dshow", {})),
    ],
)
def test_a_camera_is_opened_as_its_system_wants(
    system: str, asked: tuple[str, str, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = pytest.importorskip("av.device")
    path = encode_video(tmp_path / "clip.mp4", FRAMES)
    opened = []
    really_open = av.open

    def fake_open(file: str, *, format: str, options: dict) -> Any:  # noqa: A002 - as PyAV calls it
        opened.append((file, format, options))
        return really_open(str(path))

    def cameras(_: str) -> list[Any]:
        return [
            device.DeviceInfo("@microphone", "Microphone", False, ["audio"]),
            device.DeviceInfo("@first", "One", True, ["video"]),
            device.DeviceInfo("@second", "Two", False, ["video"]),
        ]

    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(av, "open", fake_open)
    monkeypatch.setattr(device, "enumerate_input_devices", cameras)
    frames = list(read_frames(1))
    assert opened == [asked]
    assert len(frames) == COUNT
    assert frames[2].time == pytest.approx(0.08)
    if system == "Windows":
        with pytest.raises(OSError, match=r"there are 2 cameras: \['One', 'Two'\]"):
            read_frames(2)
