"""FSS-1000."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from downloads import SIZE, cut_off, filled, mask_of, prepared, write_picture
from PIL import Image

from sam_uniref.data.formats import named_format
from sam_uniref.data.formats.files import read_lines
from sam_uniref.data.formats.fss1000 import _PACKAGED_LISTS
from sam_uniref.data.refshapes import RefShapesDataset, export
from sam_uniref.data.refshapes.export import class_picture

BOX = filled((3, 4, 5, 6))


def make_class(folder: Path, mask: np.ndarray = BOX) -> Path:
    """Ten pictures with the same mask."""
    for number in range(1, 11):
        write_picture(folder / f"{number}.jpg")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{number}.png")
    return folder


def test_refshapes_come_back(tmp_path: Path) -> None:
    root = export("fss1000", tmp_path, 2, side=48)
    drawn = RefShapesDataset("f", "fss", side=48)
    assert named_format("fss1000").splits(root) == ("train", "val", "test")
    for split, listed in (("train", "trn"), ("val", "val"), ("test", "test")):
        rows, problems = prepared("fss1000", root, split)
        assert not problems
        names = sorted(read_lines(root / f"{listed}.txt"))
        assert [r["target"] for r in rows] == [f"{name}/{number}" for name in names for number in range(1, 11)]
        for row in rows:
            name, number = row["target"].split("/")
            assert (row["category"], row["coco_id"], row["sentences"]) == (name, None, [])
            assert row["image"] == f"{name}/{number}.jpg"
            np.testing.assert_array_equal(mask_of(row), class_picture(drawn, name, int(number))[1])


def test_the_packaged_lists_are_the_published_splits() -> None:
    names = {split: read_lines(_PACKAGED_LISTS / f"{split}.txt") for split in ("train", "val", "test")}
    assert {split: len(set(of)) for split, of in names.items()} == {"train": 520, "val": 240, "test": 240}
    assert len({name for of in names.values() for name in of}) == 1000
    assert "abe's_flyingfish" in names["test"]
    assert b"\r" not in (_PACKAGED_LISTS / "test.txt").read_bytes()


@pytest.mark.parametrize("folder", ["", "fewshot_data", "FSS-1000", "images"])
def test_the_packaged_lists_are_used_without_others(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "root"
    make_class(root / folder / "abe's_flyingfish")
    assert named_format("fss1000").splits(root) == ("test",)
    rows, problems = prepared("fss1000", root, "test")
    assert problems == {("broken", "missing class"): 239}
    assert {r["category"] for r in rows} == {"abe's_flyingfish"}
    assert len(rows) == 10
    assert rows[9]["image"] == str(Path(folder, "abe's_flyingfish", "10.jpg"))


def test_lists_beside_the_classes_go_first(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("thor's_hammer", "shih-tzu", "own"):
        make_class(root / name)
    make_class(tmp_path / "outside")
    (root / "trn.txt").write_bytes(b"thor's_hammer\r\nown\r\n\r\nown\n../outside\n/etc\nown/.\nnone\n")
    assert named_format("fss1000").splits(root) == ("train",)
    rows, problems = prepared("fss1000", root, "train")
    assert [r["category"] for r in rows] == ["own"] * 10 + ["thor's_hammer"] * 10
    assert problems == {
        ("broken", "class that stands twice in its list"): 1,
        ("broken", "path leaves the folder"): 3,
        ("broken", "missing class"): 1,
    }


def palette(mask: np.ndarray) -> Image.Image:
    picture = Image.fromarray(mask.astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    return picture


def test_masks_of_all_modes_mean_the_same(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = make_class(root / "abacus")
    (root / "val.txt").write_text("abacus")
    grey = Image.fromarray(np.where(BOX, 128, 127).astype(np.uint8))
    pictures = [
        grey,
        grey.convert("RGB"),
        grey.convert("RGBA"),
        grey.convert("LA"),
        palette(BOX),
        Image.fromarray(BOX),
        Image.fromarray(np.where(BOX, 65535, 0).astype(np.uint16)),
        palette(BOX).convert("RGB"),
        Image.fromarray(np.dstack([np.where(BOX, 255, 0)] * 2 + [np.where(BOX, 0, 255)]).astype(np.uint8)),
    ]
    for number, picture in enumerate(pictures, start=1):
        picture.save(folder / f"{number}.png")
    rows, problems = prepared("fss1000", root, "val")
    assert not problems
    for row in rows:
        np.testing.assert_array_equal(mask_of(row), BOX)


def test_every_bad_picture_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = make_class(root / "own")
    (root / "val.txt").write_text("own")
    (folder / "1.jpg").unlink()
    cut_off(folder / "2.jpg")
    (folder / "3.png").unlink()
    cut_off(folder / "4.png")
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "5.png")
    Image.fromarray(np.full((10, 30), 255, np.uint8)).save(folder / "6.png")
    Image.fromarray(np.full((21, 29), 255, np.uint8)).save(folder / "7.png")
    (folder / "8.jpg").write_text("not a picture")
    (folder / ".DS_Store").touch()
    rows, problems = prepared("fss1000", root, "val")
    assert [r["target"] for r in rows] == ["own/7", "own/9", "own/10"]
    assert mask_of(rows[0]).all()
    assert problems == {
        ("broken", "missing picture"): 1,
        ("broken", "broken or cut-off picture"): 2,
        ("broken", "missing mask"): 1,
        ("broken", "broken mask, or one that is no id map"): 1,
        ("broken", "empty mask"): 1,
        ("broken", "mask of another size than its picture"): 1,
        ("mended", "mask off by at most 2 pixels, resized by nearest"): 1,
    }
