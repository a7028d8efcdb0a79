"""COCO 2017, and the streaming of COCO-shaped files."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from downloads import (
    SIZE,
    annotation,
    coco_file,
    cut_off,
    filled,
    image_entry,
    mask_of,
    prepared,
    square,
    write_json,
    write_picture,
)
from hypothesis import given
from hypothesis import strategies as st

from sam_uniref.data.formats import FORMATS, named_format
from sam_uniref.data.formats.coco_json import PictureTable, stream_annotations
from sam_uniref.data.formats.compact import IdSet, Texts
from sam_uniref.data.prepared import encode_mask, open_split, prepare
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.refshapes import RefShapesDataset, export


def make(
    root: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], pictures: str = "val2017"
) -> Path:
    """COCO's val, with a picture for each image."""
    write_json(root / "annotations" / "instances_val2017.json", coco_file(images, annotations))
    for image in images:
        write_picture(root / pictures / image["file_name"])
    return root


def test_refshapes_come_back(tmp_path: Path) -> None:
    root = export("coco", tmp_path, 3, side=48)
    drawn = RefShapesDataset("r", "ris", side=48, episodes=6)
    assert named_format("coco").splits(root) == ("train", "val")
    for split, stream, first in (("train", "train", 0), ("val", "validation", 3)):
        rows, problems = prepared("coco", root, split)
        assert not problems
        expected = [
            (first + index + 1, item.shape, drawn.scene_sentences(index, stream).ids == number)  # type: ignore[arg-type]
            for index in range(3)
            for number, item in enumerate(drawn.scene(index, stream).objects, start=1)  # type: ignore[arg-type]
        ]
        assert len(rows) == len(expected) > 5
        for row, (image_id, category, mask) in zip(rows, expected, strict=True):
            assert (row["coco_id"], row["category"], row["sentences"]) == (image_id, category, [])
            assert row["image"] == f"{split}2017/{image_id:012d}.jpg"
            np.testing.assert_array_equal(mask_of(row), mask)


@pytest.mark.parametrize("pictures", ["val2017", "images/val2017"])
def test_both_layouts_and_all_forms_of_masks(tmp_path: Path, pictures: str) -> None:
    box = filled((2, 3, 4, 5))
    rle = {"size": list(SIZE), "counts": encode_mask(box).counts.decode()}
    runs = {"size": list(SIZE), "counts": [43, 5, 15, 5, 15, 5, 15, 5, 492]}
    root = make(
        tmp_path / "root",
        [image_entry(9)],
        [
            annotation(5, 9, [square(1, 2), square(3, 4)]),
            annotation(6, 9, rle, category_id=90),
            annotation(7, 9, runs),
        ],
        pictures,
    )
    rows, problems = prepared("coco", root, "val")
    assert not problems
    assert [r["target"] for r in rows] == ["5", "6", "7"]
    assert [r["category"] for r in rows] == ["cat", "toothbrush", "cat"]
    assert {r["image"] for r in rows} == {f"{pictures}/000000000009.jpg"}
    assert {(r["height"], r["width"], r["coco_id"]) for r in rows} == {(*SIZE, 9)}
    np.testing.assert_array_equal(mask_of(rows[0]), filled((1, 2, 4, 4), (3, 4, 4, 4)))
    np.testing.assert_array_equal(mask_of(rows[1]), box)
    np.testing.assert_array_equal(mask_of(rows[2]), box)
    assert rows[0]["box"] == [1, 2, 6, 6]


def test_every_bad_object_is_counted(tmp_path: Path) -> None:
    images = [image_entry(1), image_entry(2), image_entry(3), image_entry(4), image_entry(1, "again.jpg")]
    images += [image_entry(6, "../1.jpg"), image_entry(7, "/etc/hostname")]
    good = [square(0, 0)]
    bad: list[tuple[str, str, dict[str, Any]]] = [
        ("broken", "no usable polygon", {"segmentation": [[1, 1, 5, 5], [1, 2, 3, 4, 5, 6, 7]]}),
        ("broken", "no usable polygon", {"segmentation": []}),
        ("broken", "broken mask", {"segmentation": {"size": [*SIZE], "counts": "cut"}}),
        ("broken", "broken mask", {"segmentation": {"size": [30, 20], "counts": [0, 600]}}),
        ("broken", "broken mask", {"segmentation": {"size": [*SIZE], "counts": [0, 599]}}),
        ("broken", "broken mask", {"segmentation": [[0, 0, 1e9, 0, 9, 9]]}),
        ("broken", "broken mask", {"segmentation": None}),
        ("broken", "empty mask", {"segmentation": {"size": [*SIZE], "counts": [600]}}),
        ("broken", "empty mask", {"segmentation": [[1, 1, 1, 1, 1, 1]]}),
        ("by rule", "crowd", {"iscrowd": 1, "segmentation": {"size": [*SIZE], "counts": [0, 600]}}),
        ("broken", "annotation of an unknown picture id", {"image_id": 99}),
        ("broken", "annotation of an unknown picture id", {"image_id": "1"}),
        ("broken", "annotation of an unknown category id", {"category_id": 8}),
        ("broken", "annotation of an unknown category id", {"category_id": [7]}),
        ("broken", "annotation whose id is no whole number", {"id": "one"}),
        ("broken", "annotation id that stands twice", {"id": 100}),
        ("broken", "missing picture", {"image_id": 2}),
        ("broken", "broken or cut-off picture", {"image_id": 3}),
        ("broken", "picture of another size than annotated", {"image_id": 4}),
        ("broken", "path leaves the folder", {"image_id": 6}),
        ("broken", "path leaves the folder", {"image_id": 7}),
    ]
    mended = "polygon of fewer than 3 points or an odd number of values, left out"
    annotations = [annotation(100, 1, good), annotation(101, 1, [*good, [1, 2, 3, 4]])]
    annotations += [annotation(200 + k, 1, good) | change for k, (_, _, change) in enumerate(bad)]
    root = make(tmp_path / "root", images[:5], annotations)
    write_json(root / "annotations" / "instances_val2017.json", coco_file(images, annotations))
    write_picture(root / "1.jpg")
    (root / "val2017" / "000000000002.jpg").unlink()
    cut_off(root / "val2017" / "000000000003.jpg")
    write_picture(root / "val2017" / "000000000004.jpg", (20, 31))
    rows, problems = prepared("coco", root, "val")
    expected = [(severity, reason) for severity, reason, _ in bad]
    assert problems == {
        **{key: expected.count(key) for key in expected},
        ("broken", "picture id that stands twice"): 1,
        ("mended", mended): 1,
    }
    assert [r["target"] for r in rows] == ["100", "101"]
    # Of two pictures of an id the first counts.
    assert rows[0]["image"] == "val2017/000000000001.jpg"
    np.testing.assert_array_equal(mask_of(rows[1]), filled((0, 0, 4, 4)))


def test_units_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam_uniref.data.formats.coco.UNIT", 4)
    root = make(tmp_path / "root", [image_entry(1)], [annotation(k, 1, [square(k, k)]) for k in range(10)])
    rows, problems = prepared("coco", root, "val")
    assert not problems
    assert [r["target"] for r in rows] == [str(k) for k in range(10)]
    assert len(list((tmp_path / "root_prepared" / "coco" / "val").glob("*.arrow"))) == 3


@pytest.mark.parametrize("name", ["coco", "refcoco", "fss1000"])
def test_other_processes_read_the_same(tmp_path: Path, name: str) -> None:
    root = export(name, tmp_path, 1, side=48)
    prepare(named_format(name), root, tmp_path / "parallel", splits=("val",), workers=2)
    assert list(open_split(tmp_path / "parallel" / name, "val")) == prepared(name, root, "val")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), r"instances_val2017\.json has nothing in its images"),
        (lambda c: c.pop("annotations"), "has nothing in its annotations"),
        (lambda c: c.pop("categories"), "has nothing in its categories"),
        (lambda c: c["images"][0].pop("file_name"), r"number 0 of its images lacks \['file_name'\]"),
        (lambda c: c["annotations"][0].pop("segmentation"), r"lacks \['segmentation'\]: it is another release's"),
        (lambda c: c["annotations"].append(3), r"number 1 of its annotations lacks"),
        (lambda c: c["images"][0].update(height="x"), "the picture 1 has broken entries"),
        (lambda c: c["images"][0].update(file_name=None), "the picture 1 has broken entries"),
        (lambda c: c["categories"][0].update(id="7"), "a category whose id is '7'"),
    ],
)
def test_another_release_is_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    root = make(tmp_path / "root", [image_entry(1)], [annotation(1, 1, [square(0, 0)])])
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        prepare(named_format("coco"), root, tmp_path / "out", workers=0)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"images": [NaN]}', b"\xff\xfe", b'{"images": [{"id": 1'])
def test_a_file_that_is_no_whole_json_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    root = make(tmp_path / "root", [image_entry(1)], [annotation(1, 1, [square(0, 0)])])
    (root / "annotations" / "instances_val2017.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"instances_val2017\.json (is no whole JSON file|has nothing)"):
        prepare(named_format("coco"), root, tmp_path / "out", workers=0)


def test_a_cut_off_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    root = make(tmp_path / "root", [image_entry(1)], [annotation(k, 1, [square(0, 0)]) for k in range(1, 9)])
    cut_off(root / "annotations" / "instances_val2017.json")
    with pytest.raises(ValueError, match=r"no whole JSON file \(.*\); download it again"):
        prepare(named_format("coco"), root, tmp_path / "out", workers=0)
    assert not list((tmp_path / "out").rglob("*.arrow"))


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    root = make(tmp_path / "root", [image_entry(1)], [annotation(1, 1, [square(0, 0)])])
    file = root / "annotations" / "instances_val2017.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(prepared("coco", root, "val")[0]) == 1


def test_nothing_there_is_told_with_the_layout(tmp_path: Path) -> None:
    for layout in FORMATS.values():
        if layout.table == "images":
            with pytest.raises(FileNotFoundError, match="does not hold the data set; expected in it"):
                layout.splits(tmp_path)
    root = make(tmp_path / "root", [image_entry(1)], [annotation(1, 1, [square(0, 0)])], "pictures")
    with pytest.raises(FileNotFoundError, match="val2017/ with the pictures"):
        prepare(named_format("coco"), root, tmp_path / "out", workers=0)


# ---- memory ----


@given(st.lists(st.integers(-(2**62), 2**62) | st.integers(-600, 600)))
def test_ids_are_new_once(numbers: list[int]) -> None:
    seen, plain = IdSet(), set()
    for number in numbers:
        assert seen.add(number) == (number not in plain)
        plain.add(number)


@given(st.lists(st.text()))
def test_texts_are_kept(texts: list[str]) -> None:
    kept = Texts()
    for text in texts:
        kept.append(text)
    assert [kept[k] for k in range(len(kept))] == texts


def test_many_annotations_stay_out_of_memory(tmp_path: Path) -> None:
    images = [image_entry(k, f"{'x' * 40}{k}.jpg") for k in range(5000)]
    path = tmp_path / "many.json"
    write_json(path, coco_file(images, [annotation(k, k % 5000, [square(1, 1) * 20]) for k in range(20_000)]))
    del images
    tracemalloc.start()
    count = sum(1 for _ in stream_annotations(path, Problems(), "segmentation"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < path.stat().st_size / 5
    table = PictureTable(path, Problems())
    assert table.find(4999) == (4999, f"{'x' * 40}4999.jpg", *SIZE, None)
    assert table.find(5000) is table.find(-1) is table.find(None) is None
