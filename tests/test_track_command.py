"""``sam-uniref track``: real files in, all kinds of results out, and what happens when a video breaks off."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from command import HEIGHT, WIDTH, answer, assert_refused, files_in, material, run
from PIL import Image as PILImage
from tiny import picture, tiny_model
from videos import cut, encode_video

from sam_uniref import SamRef
from sam_uniref.commands.track import write_track
from sam_uniref.palette import id_color
from sam_uniref.video import FrameReader, read_frames

TIMES = [0, 4, 5, 30, 34]


@pytest.fixture(scope="module")
def model() -> SamRef:
    return tiny_model(noise=0.05, text=False)


@pytest.fixture(scope="module")
def folder(model: SamRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = material(tmp_path_factory.mktemp("track"), model)
    encode_video(root / "clip.mp4", [picture(HEIGHT, WIDTH, frame) for frame in range(5)], times=TIMES)
    return root


@pytest.fixture
def options(folder: Path) -> list[object]:
    return ["--model", folder / "model", "--masks", folder / "first.png", "--score-threshold", "-1e9"]


def test_all_results_of_a_video(folder: Path, options: list[object], model: SamRef, tmp_path: Path) -> None:
    overlay, rle = tmp_path / "overlay.mp4", tmp_path / "masks.json"
    places = ("--out", tmp_path / "out", "--overlay", overlay, "--rle", rle, "--name", "3:the cat")
    got = answer("track", folder / "clip.mp4", *options, *places, "--json")
    assert got["frames"] == 5
    assert (got["out"], got["overlay"], got["rle"]) == (str(tmp_path / "out"), str(overlay), str(rle))
    expected = list(model.track(folder / "clip.mp4", masks=folder / "first.png", score_threshold=-1e9))
    assert files_in(tmp_path / "out") == [f"{index:05d}.png" for index in range(5)]
    for result in expected:
        labels = np.asarray(PILImage.open(tmp_path / "out" / f"{result.index:05d}.png"))
        np.testing.assert_array_equal(labels, result.labels)
    painted = list(read_frames(overlay))
    np.testing.assert_allclose([frame.time for frame in painted], np.array(TIMES) / 100, atol=1e-4)  # type: ignore[arg-type]
    given = expected[0].labels == 1
    original = next(read_frames(folder / "clip.mp4")).picture
    tinted = original[given].mean(axis=0) / 2 + np.array(id_color(1)) / 2
    np.testing.assert_allclose(painted[0].picture[given].mean(axis=0), tinted, atol=15)
    found = json.loads(rle.read_text())
    assert [image["time"] for image in found["images"]] == pytest.approx([time / 100 for time in TIMES])
    assert found["categories"] == [{"id": 1, "name": "1"}, {"id": 3, "name": "the cat"}]
    areas = {(a["image_id"], a["category_id"]): a["area"] for a in found["annotations"]}
    assert areas == {(r.index, i): int(m.sum()) for r in expected for i, m in r.masks.items() if m.any()}


def test_a_glob_of_pictures_and_one_kind_of_result(folder: Path, options: list[object], tmp_path: Path) -> None:
    overlay = tmp_path / "new" / "overlay.mp4"
    common = ("--overlay", overlay, "--frames-per-second", "4")
    result = run("track", folder / "clip" / "*.jpg", *options, *common)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"3 frames in {overlay}\nobject 1: visible in ")
    assert files_in(tmp_path / "new") == ["overlay.mp4"]
    assert [frame.time for frame in read_frames(overlay)] == pytest.approx([0, 0.25, 0.5])
    masks = tmp_path / "masks"
    assert run("track", folder / "clip" / "*.jpg", *options, "--out", masks).exit_code == 0
    assert files_in(masks) == ["00000.png", "00001.png", "00002.png"]


def test_a_video_that_breaks_off_keeps_its_results_and_fails_in_the_end(
    folder: Path, options: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [np.random.default_rng(k).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8) for k in range(8)]
    clip = cut(encode_video(tmp_path / "clip.mp4", frames, b_frames=0, movflags="+faststart"), 0.6)
    overlay, rle = tmp_path / "overlay.mp4", tmp_path / "masks.json"
    result = run("track", clip, *options, "--out", tmp_path / "out", "--overlay", overlay, "--rle", rle)
    assert result.exit_code == 1
    count = len(files_in(tmp_path / "out"))
    assert 2 <= count < 7
    assert result.stdout.startswith(f"{count} frames in ")
    message = (
        rf"error: .*clip\.mp4 breaks off at frame {count}, counted from 0 .*; what was found until then is written"
    )
    assert re.fullmatch(message, result.stderr.strip())
    assert f"breaks off at frame {count}" in caplog.text
    assert all(PILImage.open(file).size == (WIDTH, HEIGHT) for file in (tmp_path / "out").iterdir())
    assert len(list(read_frames(overlay))) == count
    assert len(json.loads(rle.read_text())["images"]) == count


def test_an_interrupted_track_keeps_its_results(
    folder: Path, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_next = FrameReader.__next__
    taken = []

    def interrupted(reader: FrameReader) -> object:
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(1)
        return really_next(reader)

    monkeypatch.setattr(FrameReader, "__next__", interrupted)
    overlay = tmp_path / "overlay.mp4"
    result = run("track", folder / "clip.mp4", *options, "--out", tmp_path / "out", "--overlay", overlay)
    monkeypatch.undo()
    assert result.exit_code != 0
    assert files_in(tmp_path / "out") == ["00000.png", "00001.png"]
    assert len(list(read_frames(overlay))) == 2
    assert files_in(tmp_path) == ["out", "overlay.mp4"]


def test_frames_per_second_are_shown_where_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = {}
    for kind in (Terminal, io.StringIO):
        monkeypatch.setattr(sys, "stderr", kind())
        reader = read_frames([np.zeros((4, 4, 3), np.uint8)] * 3)
        assert write_track(iter([]), reader, None) == (0, {})  # type: ignore[arg-type]
        shown[kind] = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert shown[io.StringIO] == ""
    assert re.search(r"tracking: .*/3 .*frames/s", shown[Terminal])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to write: give --out, --overlay or --rle"),
        (("--overlay", "overlay.avi"), "a video is written as .mp4, got overlay.avi"),
        (("--rle", "masks.txt"), "run-length encodings are written as .json, got masks.txt"),
        (("--overlay", "{root}/clip.mp4"), "clip.mp4 is read from; write to another file"),
        (("--overlay", "{root}"), "is a folder; name a file in it"),
        (("--overlay", "o.mp4", "--frames-per-second", "0"), "frames_per_second must be above 0, got 0"),
        (("--rle", "masks.json", "--name", "the cat"), "--name takes a number, a colon and a value"),
        (("--out", "{root}/clip.mp4"), "--out must be a folder"),
    ],
)
def test_refusals_in_one_line(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    options: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(root=folder) for argument in arguments]
    source = "clip" if "--frames-per-second" in arguments else "clip.mp4"
    assert_refused(run("track", folder / source, *options, *filled), message)
    assert files_in(tmp_path) == []


def test_cameras_and_globs_that_are_not_there(options: list[object], tmp_path: Path) -> None:
    places = ("--out", tmp_path / "out")
    assert_refused(run("track", "97", *options, *places), "camera 97 cannot be opened")
    assert_refused(run("track", tmp_path / "*.jpg", *options, *places), "*.jpg holds no pictures")
    assert files_in(tmp_path) == []


@pytest.mark.shared
def test_a_real_clip(shared: Path, folder: Path, tmp_path: Path) -> None:
    """Photographs of 854 x 480 and the untrained tiny model: the files, not the masks, are what is looked at."""
    bike = shared / "data" / "clips" / "bike"
    names = files_in(bike / "images")
    with PILImage.open(bike / "images" / names[0]) as first:
        width, height = first.size
    overlay, rle, out = tmp_path / "overlay.mp4", tmp_path / "masks.json", tmp_path / "out"
    places = ("--out", out, "--overlay", overlay, "--rle", rle)
    common = ("--model", folder / "model", "--masks", bike / "masks" / "00000.png")
    got = answer("track", bike / "images", *common, *places, "--json")
    assert got["frames"] == len(names)
    assert files_in(out) == [name.replace(".jpg", ".png") for name in names]
    painted = [frame.picture.shape for frame in read_frames(overlay)]
    assert painted == [(height + height % 2, width + width % 2, 3)] * len(names)
    found = json.loads(rle.read_text())
    assert [image["file_name"] for image in found["images"]] == names
    given = np.asarray(PILImage.open(bike / "masks" / "00000.png"))
    first_areas = {a["category_id"]: a["area"] for a in found["annotations"] if a["image_id"] == 0}
    assert first_areas == {int(i): int((given == i).sum()) for i in np.unique(given) if 0 < i < 255}
