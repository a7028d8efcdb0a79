"""``model.track``: frames from anywhere, objects that join, and arguments that are refused before a frame is read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from tiny import tiny_model
from tracking_support import SIDE, ScriptedModel, blank, in_its_region, region, shared_folder
from videos import brightness, cut, encode_video, gray, noise

from sam_uniref import MaskReference
from sam_uniref.video import read_frames

COUNT = 12


def as_folder(folder: Path) -> Path:
    folder.mkdir()
    for frame in range(COUNT):
        PILImage.fromarray(gray(frame)).save(folder / f"{frame}.png")  # unpadded: 10.png is after 9.png
    PILImage.fromarray(gray(0, 8, 8)).save(folder / "._0.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "masks.png").mkdir()
    return folder


FRAMES = [gray(frame) for frame in range(COUNT)]
SOURCES: dict[str, Callable[[Path], object]] = {
    "folder": lambda folder: as_folder(folder / "frames"),
    "folder as str": lambda folder: str(as_folder(folder / "frames")),
    "paths": lambda folder: sorted(as_folder(folder / "frames").glob("[0-9]*.png"), key=lambda p: int(p.stem)),
    "list": lambda _: FRAMES,
    "generator": lambda _: (frame for frame in FRAMES),
    "PIL": lambda _: [PILImage.fromarray(frame) for frame in FRAMES],
    "numpy": lambda _: np.stack(FRAMES),
    "torch": lambda _: torch.from_numpy(np.stack(FRAMES)).permute(0, 3, 1, 2),
    "torch floats": lambda _: torch.from_numpy(np.stack(FRAMES)).permute(0, 3, 1, 2) / 255,
    "glob": lambda folder: str(as_folder(folder / "frames") / "*.png"),
    "reader": lambda _: read_frames(FRAMES),
    "mp4": lambda folder: encode_video(folder / "clip.mp4", FRAMES),
    "mp4 of varying rate": lambda folder: encode_video(
        folder / "clip.mp4", FRAMES, times=[0, 1, 9, 10, 11, 40, 41, 60, 61, 62, 90, 99]
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_frame_once_and_in_order(name: str, tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: (0.0, 0.0))
    results = list(model.track(SOURCES[name](tmp_path), masks={1: np.ones((48, 64), bool)}))
    assert [r.index for r in results] == list(range(COUNT))
    np.testing.assert_allclose(model.brightness, [brightness(frame) for frame in range(COUNT)], atol=4)


def test_frames_are_read_as_they_are_needed() -> None:
    pulled: list[int] = []

    def frames() -> Iterator[NDArray[np.uint8]]:
        for frame in range(5):
            pulled.append(frame)
            yield blank(frame)

    results = ScriptedModel(in_its_region).track(frames(), masks={1: region(1)})
    assert pulled == []
    next(results)
    next(results)
    assert pulled == [0, 1]


# ---- Objects that join ----


def test_masks_that_join_leave_others_tracked() -> None:
    model = ScriptedModel(in_its_region)
    frames = [blank(frame) for frame in range(5)]
    joining = {2: {5: region(5)}, 3: 7 * region(7).astype(np.int64)}
    results = list(model.track(iter(frames), masks={1: region(1)}, new_masks=joining))
    assert [list(r.masks) for r in results] == [[1], [1], [1, 5], [1, 5, 7], [1, 5, 7]]
    assert all(all(r.visible.values()) for r in results)
    assert results[4].labels.max() == 7
    assert model.asked[-1] == {"1": (None, [0, 3]), "5": (None, [2, 3]), "7": (None, [3])}


def test_frames_before_the_first_object_are_empty_and_not_encoded() -> None:
    model = ScriptedModel(in_its_region)
    results = list(model.track([blank(f) for f in range(4)], new_masks={2: {3: region(3)}}))
    assert [r.index for r in results] == [0, 1, 2, 3]
    assert [r.masks.keys() == {3} for r in results] == [False, False, True, True]
    assert not results[1].labels.any()
    assert results[1].labels.shape == (SIDE, SIDE)
    assert model.encoded_images == 2


def test_masks_for_frames_after_the_end_are_told(caplog: pytest.LogCaptureFixture) -> None:
    results = ScriptedModel(in_its_region).track(
        (blank(f) for f in range(3)), masks={1: region(1)}, new_masks={9: {2: region(2)}}
    )
    with caplog.at_level(logging.WARNING):
        assert len(list(results)) == 3
    assert "ended after 3 frames: the masks of frames [9] were not used" in caplog.text


# ---- What is refused before a frame is read ----


def unread() -> Iterator[NDArray[np.uint8]]:
    raise AssertionError("a frame was read")
    yield


GOOD = {1: region(1)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to track"),
        ({"masks": {}, "texts": {}, "examples": {}, "new_masks": {}}, "nothing to track"),
        ({"masks": {0: region(1)}}, "positive integer"),
        ({"texts": {0: "the dog"}}, "positive integer"),
        ({"masks": {1: np.zeros((SIDE, SIDE), bool)}}, "the mask of object 1 is empty"),
        ({"masks": np.zeros((SIDE, SIDE), np.int64)}, "map of ids must mark at least one object"),
        ({"masks": GOOD, "new_masks": {3: {2: np.zeros((SIDE, SIDE), bool)}}}, "the mask of object 2 is empty"),
        ({"masks": GOOD, "new_masks": {0: {2: region(2)}}}, "not in both"),
        ({"masks": GOOD, "new_masks": {-1: {2: region(2)}}}, "frame number -1"),
        ({"masks": GOOD, "new_masks": {"2": {2: region(2)}}}, "frame number '2'"),
        ({"masks": GOOD, "examples": {2: []}}, "object 2 needs"),
        ({"examples": {2: [MaskReference(blank(), np.zeros((SIDE, SIDE), bool))]}}, "empty"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScriptedModel(in_its_region).track(unread(), **arguments)


def test_missing_mask_files_are_refused_at_the_call(tmp_path: Path) -> None:
    model = ScriptedModel(in_its_region)
    for arguments in ({"masks": tmp_path / "00000.png"}, {"masks": GOOD, "new_masks": {1: {2: tmp_path / "2.png"}}}):
        with pytest.raises(FileNotFoundError, match=r"there is no image at .*\.png"):
            model.track(unread(), **arguments)


def test_masks_beyond_the_last_frame_are_refused_where_the_length_is_known() -> None:
    with pytest.raises(ValueError, match="names frame 3, but there are 3 frames"):
        ScriptedModel(in_its_region).track([blank()] * 3, masks=GOOD, new_masks={3: {2: region(2)}})


def broken_video(folder: Path) -> Path:
    path = folder / "broken.mp4"
    path.write_bytes(b"this is no video" * 100)
    return path


def sound_only(folder: Path) -> Path:
    path = folder / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    return path


def empty_folder(folder: Path) -> Path:
    (folder / "readme.txt").write_text("no pictures here")
    return folder


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (lambda folder: folder / "missing", FileNotFoundError, "there is no video or folder of frames at .*missing"),
        (empty_folder, FileNotFoundError, "holds no pictures"),
        (broken_video, ValueError, r"broken\.mp4 is no readable video"),
        (sound_only, ValueError, r"sound\.wav has no video in it"),
        (lambda _: [], ValueError, "not a single frame"),
        (lambda _: blank(), ValueError, r"must be \(T, H, W, 3\)"),
        (lambda _: 7.0, TypeError, "got float"),
        (lambda _: 97, OSError, "camera 97 cannot be opened"),
    ],
)
def test_bad_sources_are_refused_at_the_call(
    source: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        ScriptedModel(in_its_region).track(source(tmp_path), masks=GOOD)  # type: ignore[arg-type]


def test_a_source_that_turns_out_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="not a single frame"):
        next(ScriptedModel(in_its_region).track(iter([]), masks=GOOD))


def test_a_video_that_breaks_off_is_tracked_until_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = cut(encode_video(tmp_path / "clip.mp4", noise(10), codec="h264", movflags="+faststart"), 0.6)
    reader = read_frames(path)
    results = ScriptedModel(lambda *_: (0.0, 0.0)).track(reader, masks={1: np.ones((48, 64), bool)})
    with caplog.at_level(logging.WARNING):
        indices = [result.index for result in results]
    assert indices == list(range(len(indices)))
    assert 3 < len(indices) < 8
    assert f"clip.mp4 breaks off at frame {len(indices)}, counted from 0" in caplog.text
    assert reader.broke_off is not None


def test_a_reader_tells_each_results_frame(tmp_path: Path) -> None:
    reader = read_frames(encode_video(tmp_path / "clip.mp4", FRAMES))
    for result in ScriptedModel(lambda *_: (0.0, 0.0)).track(reader, masks={1: np.ones((48, 64), bool)}):
        assert reader.latest is not None
        assert reader.latest.time == pytest.approx(result.index / 25)
        assert reader.latest.picture.mean() == pytest.approx(brightness(result.index), abs=4)


def test_a_picture_that_breaks_off_is_refused_by_name(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "frames")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    results = ScriptedModel(lambda *_: (0.0, 0.0)).track(folder, masks={1: np.ones((48, 64), bool)})
    assert [next(results).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"3\.png is not a whole image"):
        next(results)


# ---- A real clip ----


@pytest.mark.shared
def test_a_clip_whose_masks_name_new_objects_only(caplog: pytest.LogCaptureFixture) -> None:
    judo = shared_folder() / "data" / "clips" / "judo"
    if not judo.is_dir():
        pytest.skip(f"{judo} is not there")
    masks = {int(path.stem): path for path in sorted((judo / "masks").iterdir())}
    assert list(masks) == [0, 5, 8, 13]
    first = masks.pop(0)
    with caplog.at_level(logging.WARNING):
        results = list(tiny_model(text=False).track(judo / "images", masks=first, new_masks=masks))
    assert len(results) == 16
    joined = [1] * 5 + [2] * 3 + [3] * 5 + [4] * 3
    assert [list(r.masks) for r in results] == [list(range(1, count + 1)) for count in joined]
    for frame, object_id in ((0, 1), (8, 3), (13, 4)):
        given = np.asarray(PILImage.open(judo / "masks" / f"{frame:05d}.png"))
        np.testing.assert_array_equal(results[frame].masks[object_id], given == object_id)
        assert results[frame].visible[object_id]
    narrow = np.asarray(PILImage.open(masks[5])) == 2
    assert (narrow.shape, results[5].masks[2].shape) == ((480, 853), (480, 854))
    assert results[5].masks[2].sum() == pytest.approx(narrow.sum(), rel=0.01)
    warnings = [record.getMessage() for record in caplog.records if "853x480" in record.getMessage()]
    assert len(warnings) == 1
    assert str(masks[5]) in warnings[0]
