"""Data sets of boxes: Objects365 and Visual Genome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from downloads import SIZE, coco_file, cut_off, image_entry, prepared, write_json, write_picture
from hypothesis import given
from hypothesis import strategies as st

from sam_uniref.data.formats import named_format
from sam_uniref.data.formats.annotations import _sound_box
from sam_uniref.data.prepared import prepare
from sam_uniref.data.prepared.problems import Problems

HEIGHT, WIDTH = SIZE


def box_entry(number: int, image_id: int, box: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": 7, "bbox": box, "isfake": 0, "iscrowd": 0, **more}


def make_objects365(root: Path, boxes: list[dict[str, Any]], pictures: str = "train/patch8") -> Path:
    images = [image_entry(k, f"images/v1/patch8/objects365_v1_{k:08d}.jpg") for k in (1, 2)]
    write_json(root / "train" / "zhiyuan_objv2_train.json", coco_file(images, boxes))
    for image in images:
        write_picture(root / pictures / Path(image["file_name"]).name)
    return root


@pytest.mark.parametrize(
    "pictures",
    ["train/patch8", "train/images/v1/patch8", "images/v1/patch8", "images/train/patch8", "train", "images/train", ""],
)
def test_objects365_however_it_was_unpacked(tmp_path: Path, pictures: str) -> None:
    root = make_objects365(tmp_path / "root", [box_entry(5, 1, [1.5, 2, 3.25, 4])], pictures)
    assert named_format("objects365").splits(root) == ("train",)
    rows, problems = prepared("objects365", root, "train")
    assert not problems
    (row,) = rows
    assert (row["target"], row["category"], row["rle"], row["coco_id"]) == ("5", "cat", None, None)
    assert row["box"] == [1.5, 2, 3.25, 4]
    assert row["image"] == str(Path(pictures, "objects365_v1_00000001.jpg"))


@pytest.mark.parametrize("folder", ["annotations", ""])
def test_objects365_with_its_files_elsewhere(tmp_path: Path, folder: str) -> None:
    root = make_objects365(tmp_path / "root", [box_entry(5, 1, [1, 2, 3, 4])])
    (root / folder).mkdir(exist_ok=True)
    (root / "train" / "zhiyuan_objv2_train.json").rename(root / folder / "zhiyuan_objv2_val.json")
    assert named_format("objects365").splits(root) == ("val",)
    rows, problems = prepared("objects365", root, "val")
    assert not rows
    assert problems == {("broken", "missing picture"): 1}


def test_every_bad_box_is_counted(tmp_path: Path) -> None:
    nothing, strange = "box without an area in its picture", "box that is not four numbers"
    bad: list[tuple[str, Any]] = [
        (nothing, [1, 1, 0, 5]),
        (nothing, [1, 1, -3, 5]),
        (nothing, [WIDTH, 1, 4, 5]),
        (nothing, [-9, 1, 4, 5]),
        (strange, [1, 2, 3]),
        (strange, None),
        (strange, "box"),
        (strange, [1, 2, 3, "4"]),
    ]
    boxes = [box_entry(k, 1, box) for k, (_, box) in enumerate(bad)]
    boxes += [box_entry(50, 1, [-1, -2, 5, 6]), box_entry(51, 1, [28, 18, 5, 5]), box_entry(52, 1, [0, 0, 30.0005, 20])]
    boxes += [box_entry(60, 1, [0, 0, 5, 5], iscrowd=1), box_entry(61, 2, [0, 0, 5, 5]), box_entry(61, 1, [0, 0, 5, 5])]
    root = make_objects365(tmp_path / "root", boxes)
    cut_off(root / "train" / "patch8" / "objects365_v1_00000002.jpg")
    rows, problems = prepared("objects365", root, "train")
    assert {r["target"]: r["box"] for r in rows} == {"50": [0, 0, 4, 4], "51": [28, 18, 2, 2], "52": [0, 0, 30, 20]}
    assert problems == {
        ("broken", nothing): 4,
        ("broken", strange): 4,
        ("broken", "annotation id that stands twice"): 1,
        ("broken", "broken or cut-off picture"): 1,
        ("mended", "box that leaves its picture, clipped"): 2,
        ("by rule", "crowd"): 1,
    }


@given(st.lists(st.floats() | st.integers(-50, 50), min_size=4, max_size=4))
def test_boxes_lie_in_their_pictures(box: list[float]) -> None:
    problems = Problems()
    found = _sound_box(box, SIZE, "it", problems)
    assert (found is None) == problems.any_broken
    if found is not None:
        x, y, width, height = found
        assert 0 <= x < x + width <= WIDTH + 1e-9
        assert 0 <= y < y + height <= HEIGHT + 1e-9


# ---- Visual Genome ----


def region(number: int, phrase: Any, box: tuple[Any, ...] = (1, 2, 3, 4), key: str = "region_id") -> dict[str, Any]:
    return {key: number, "phrase": phrase, **dict(zip(("x", "y", "width", "height"), box, strict=True))}


def make_visual_genome(root: Path, regions: dict[int, Any], key: str = "image_id") -> Path:
    pictures = [
        {key: number, "url": f"https://cs.example.edu/people/rak248/{folder}/{number}.jpg", "width": WIDTH}
        | {"height": HEIGHT, "coco_id": coco_id, "flickr_id": None}
        for number, folder, coco_id in ((1, "VG_100K", 581), (2, "VG_100K_2", None), (3, "else/..", None))
    ]
    write_json(root / "image_data.json", pictures)
    write_json(root / "region_descriptions.json", [{"id": k, "regions": of} for k, of in regions.items()])
    write_picture(root / "VG_100K" / "1.jpg")
    write_picture(root / "VG_100K_2" / "2.jpg")
    return root


@pytest.mark.parametrize(("picture_key", "region_key"), [("image_id", "region_id"), ("id", "id")])
def test_visual_genome_of_both_releases(tmp_path: Path, picture_key: str, region_key: str) -> None:
    regions = {1: [region(7, " a red bus ", key=region_key)], 2: [region(8, "the sky", (-1, 0, 9, 9), region_key)]}
    root = make_visual_genome(tmp_path / "root", regions, picture_key)
    rows, problems = prepared("visual_genome", root, "train")
    assert problems == {
        ("mended", "box that leaves its picture, clipped"): 1,
        ("broken", "picture whose url names none of VG_100K, VG_100K_2"): 1,
    }
    assert [(r["target"], r["image"], r["coco_id"]) for r in rows] == [
        ("7", "VG_100K/1.jpg", 581),
        ("8", "VG_100K_2/2.jpg", None),
    ]
    assert [(r["sentences"], r["box"], r["rle"]) for r in rows] == [
        (["a red bus"], [1, 2, 3, 4], None),
        (["the sky"], [0, 0, 8, 9], None),
    ]


def test_every_bad_region_is_counted(tmp_path: Path) -> None:
    regions = {
        1: [
            region(1, "good"),
            region(1, "again"),
            region(2, " "),
            region(3, None),
            region(4, "flat", (1, 1, 0, 9)),
            region(6, "odd", (1, 1, None, 9)),
        ],
        2: [region(5, "of a lost picture")],
        3: [region(7, "of a picture elsewhere")],
        4: [region(8, "of no picture")],
    }
    root = make_visual_genome(tmp_path / "root", regions)
    (root / "VG_100K_2" / "2.jpg").unlink()
    rows, problems = prepared("visual_genome", root, "train")
    assert [r["target"] for r in rows] == ["1"]
    assert problems[("broken", "region id that stands twice")] == 1
    assert problems[("broken", "region without a phrase")] == 2
    assert problems[("broken", "box without an area in its picture")] == 1
    assert problems[("broken", "box that is not four numbers")] == 1
    assert problems[("broken", "region of an unknown picture id")] == 2
    assert problems[("broken", "missing picture")] == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("region_descriptions.json", {"1": []}, "has nothing in its list"),
        ("region_descriptions.json", [{"id": 1}], r"number 0 of its list lacks \['regions'\]"),
        ("region_descriptions.json", [{"id": 1, "regions": [{"phrase": "a"}]}], "without a whole number as region_id"),
        ("region_descriptions.json", [{"id": 1, "regions": 3}], "regions of picture 1 are no list"),
        ("region_descriptions.json", [{"id": 1, "regions": [3]}], "without a whole number as region_id"),
        ("image_data.json", [{"image_id": 1}], r"number 0 of its list lacks \['url', 'width', 'height'\]"),
        ("image_data.json", [{"url": "", "width": 1, "height": 1}], "without a whole number as image_id or id"),
    ],
)
def test_another_release_of_visual_genome(tmp_path: Path, file: str, content: Any, message: str) -> None:
    root = make_visual_genome(tmp_path / "root", {1: [region(1, "a")]})
    write_json(root / file, content)
    with pytest.raises(ValueError, match=rf"{file}.* {message}|{file}:? ?{message}"):
        prepare(named_format("visual_genome"), root, tmp_path / "out", workers=0)
