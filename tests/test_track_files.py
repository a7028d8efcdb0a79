"""What a track is written as: palette PNGs, a painted video, a COCO file; each whole, whatever ends the track."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from pycocotools.coco import COCO

from sam_uniref.output_checks import check_output_file, check_output_folder
from sam_uniref.palette import id_color
from sam_uniref.track_files import TrackFiles, paint_objects, save_palette
from sam_uniref.tracking import FrameResult
from sam_uniref.video import Frame, read_frames

HEIGHT, WIDTH = 96, 120
GREY = 60


def frame(index: int) -> Frame:
    return Frame(np.full((HEIGHT, WIDTH, 3), GREY, np.uint8), time=[0.0, 0.04, 0.5][index])


def result(index: int) -> FrameResult:
    """Object 2 moves to the right; 9 is there in frame 1 alone."""
    masks = {2: np.zeros((HEIGHT, WIDTH), bool), 9: np.zeros((HEIGHT, WIDTH), bool)}
    masks[2][40:60, 10 * index : 10 * index + 20] = True
    if index == 1:
        masks[9][70:90, 80:100] = True
    labels = np.select([masks[2], masks[9]], [2, 9]).astype(np.int32)
    visible = {object_id: bool(mask.any()) for object_id, mask in masks.items()}
    return FrameResult(index, labels, masks, {2: 0.75, 9: 0.5}, visible)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_all(folder: Path, count: int = 3, *, stop: BaseException | None = None) -> None:
    files = TrackFiles(
        masks=folder / "masks", overlay=folder / "overlay.mp4", rle=folder / "masks.json", names={2: "the dog"}
    )
    with files:
        for index in range(count):
            files.write(frame(index), result(index))
        if stop is not None:
            raise stop


def test_everything_at_once(tmp_path: Path) -> None:
    write_all(tmp_path)
    assert files_in(tmp_path) == ["masks", "masks.json", "overlay.mp4"]
    assert files_in(tmp_path / "masks") == ["00000.png", "00001.png", "00002.png"]
    for index in range(3):
        with PILImage.open(tmp_path / "masks" / f"{index:05d}.png") as png:
            assert png.mode == "P"
            np.testing.assert_array_equal(np.asarray(png), result(index).labels)
    painted = list(read_frames(tmp_path / "overlay.mp4"))
    np.testing.assert_allclose([f.time for f in painted], [0, 0.04, 0.5], atol=1e-4)  # type: ignore[arg-type]
    for index, got in enumerate(painted):
        inside = got.picture[48:55, 10 * index + 5 : 10 * index + 15].astype(int).mean(axis=(0, 1))
        np.testing.assert_allclose(inside, (GREY + np.array(id_color(2))) / 2, atol=8)


def test_pycocotools_reads_the_run_lengths(tmp_path: Path) -> None:
    write_all(tmp_path)
    coco = COCO(str(tmp_path / "masks.json"))
    assert {i: coco.imgs[i]["time"] for i in coco.getImgIds()} == {0: 0.0, 1: 0.04, 2: 0.5}
    assert all((image["height"], image["width"]) == (HEIGHT, WIDTH) for image in coco.imgs.values())
    assert coco.loadCats(coco.getCatIds()) == [{"id": 2, "name": "the dog"}, {"id": 9, "name": "9"}]
    for index in range(3):
        masks = {a["category_id"]: coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(imgIds=[index]))}
        assert list(masks) == ([2, 9] if index == 1 else [2])
        for object_id, mask in masks.items():
            np.testing.assert_array_equal(mask, result(index).masks[object_id])
    annotation = coco.loadAnns(coco.getAnnIds(imgIds=[1], catIds=[9]))[0]
    assert (annotation["bbox"], annotation["area"], annotation["score"]) == ([80, 70, 20, 20], 400, 0.5)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ValueError("a frame of another size")])
@pytest.mark.parametrize("count", [1, 2])
def test_what_was_done_is_kept_whatever_ends_it(count: int, stop: BaseException, tmp_path: Path) -> None:
    (tmp_path / "overlay.mp4").write_bytes(b"old")
    with pytest.raises(type(stop)):
        write_all(tmp_path, count, stop=stop)
    assert files_in(tmp_path) == ["masks", "masks.json", "overlay.mp4"]
    assert len(files_in(tmp_path / "masks")) == count
    assert len(list(read_frames(tmp_path / "overlay.mp4"))) == count
    assert len(json.loads((tmp_path / "masks.json").read_text())["images"]) == count


def test_without_a_frame_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no video"):
        write_all(tmp_path, 0, stop=ValueError("no video"))
    assert files_in(tmp_path) == []


def test_results_are_called_as_their_pictures(tmp_path: Path) -> None:
    pictures = [tmp_path / "frames" / name for name in ("first.jpg", "second.jpg")]
    with TrackFiles(masks=tmp_path, rle=tmp_path / "masks.json", pictures=pictures) as files:
        for index in range(2):
            files.write(frame(index), result(index))
    assert files_in(tmp_path) == ["first.png", "masks.json", "second.png"]
    images = json.loads((tmp_path / "masks.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["first.jpg", "second.jpg"]


def test_names_are_drawn_in_the_objects_colours() -> None:
    picture, found = frame(1).picture, result(1)
    named = paint_objects(picture, found.labels, {2: "the dog"})
    numbered = paint_objects(picture, found.labels)
    assert (picture == GREY).all(), "the picture itself is left alone"
    differ = np.argwhere((named != numbered).any(axis=-1))
    assert len(differ) > 20
    rows, columns = differ[:, 0], differ[:, 1]
    assert rows.min() > 20
    assert rows.max() < 40
    assert columns.min() >= 10, "a label begins where its object does"
    for object_id in (2, 9):
        above = (numbered[: 40 if object_id == 2 else 70] == id_color(object_id)).all(axis=-1)
        assert above.sum() > 20, "a label is in its object's colour"


@pytest.mark.parametrize("size", [(96, 120), (8, 9), (1, 1)])
def test_a_label_that_has_no_room_is_no_error(size: tuple[int, int]) -> None:
    labels = np.ones(size, np.int32)
    painted = paint_objects(np.zeros((*size, 3), np.uint8), labels, {1: "a name much longer than the picture is wide"})
    assert painted.shape == (*size, 3)


def test_a_palette_has_no_room_for_large_ids(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ids up to 254, got 255"):
        save_palette(np.full((2, 2), 255), tmp_path / "mask.png")
    assert files_in(tmp_path) == []


def test_names_of_files_are_checked_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a video is written as \.mp4, got .*overlay\.avi"):
        TrackFiles(overlay=tmp_path / "overlay.avi")
    with pytest.raises(ValueError, match=r"run-length encodings are written as \.json, got .*masks\.txt"):
        TrackFiles(rle=tmp_path / "masks.txt")


# ---- Where nothing can be written ----


def test_places_that_are_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `os.access` tells it; the test below asks the file system itself."""
    asked = []
    monkeypatch.setattr(os, "access", lambda place, mode: asked.append((place, mode)))
    with pytest.raises(PermissionError, match=f"there is no permission to write in {tmp_path}; give another place"):
        check_output_folder(tmp_path / "new" / "out")
    with pytest.raises(PermissionError, match="there is no permission"):
        check_output_file(tmp_path / "masks.json")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)] * 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_places_that_the_file_system_refuses(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    with pytest.raises(PermissionError, match=f"there is no permission to write in {locked}"):
        check_output_folder(locked / "out")
    with pytest.raises(PermissionError), TrackFiles(masks=locked / "out") as files:
        files.write(frame(0), result(0))


def test_places_that_are_something_else(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("")
    with pytest.raises(ValueError, match="--out must be a folder"):
        check_output_folder(file)
    with pytest.raises(ValueError, match=r"cannot be a folder: .*notes\.txt is a file"):
        check_output_folder(file / "out")
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        check_output_file(tmp_path)
    with pytest.raises(ValueError, match="is read from; write to another file"):
        check_output_file(file, read=[tmp_path / "x" / ".." / "notes.txt"])
    with pytest.raises(ValueError, match=r"is where .*notes\.txt is read from"):
        check_output_folder(tmp_path, read=[file])
