"""COCO, Label Studio, YOLO, palette PNG and supervision: round trips, their own tools' view, and bad input."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import RING, any_mask
from numpy.typing import NDArray
from PIL import Image as PILImage
from pycocotools import mask as pycoco
from pycocotools.coco import COCO
from tiny import picture

from sam_uniref.exchange import (
    FORMATS,
    LabelledMask,
    LabelledPicture,
    decode_brush,
    decode_coco,
    decode_detections,
    decode_label_studio,
    decode_palette_png,
    decode_results,
    decode_rle,
    decode_yolo,
    encode_brush,
    encode_coco,
    encode_detections,
    encode_files,
    encode_label_studio,
    encode_palette_png,
    encode_results,
    encode_rle,
    encode_runs,
    encode_yolo,
    label_config,
    read_examples,
)
from sam_uniref.images import load_mask

BRUSHES = json.loads((Path(__file__).parent / "fixtures" / "label_studio" / "brushes.json").read_text())
DISC = np.hypot(*(np.mgrid[:40, :50] - np.array([10, 10])[:, None, None])) < 6
TWO = LabelledPicture("a/ring.jpg", (40, 50), (LabelledMask(RING, "ring", 0.5), LabelledMask(DISC, 'a "disc" & é', 1)))
EMPTY = LabelledPicture("b/nothing.png", (7, 9))


def same(one: Any, other: Any) -> bool:
    """Whether two pictures are the same but for scores, which some formats have not."""
    return (one.file_name, one.size) == (other.file_name, other.size) and all(
        a.label == b.label and (a.mask == b.mask).all() for a, b in zip(one.objects, other.objects, strict=True)
    )


@settings(deadline=None)
@given(any_mask())
def test_masks_come_back(mask: NDArray[np.bool_]) -> None:
    assert (decode_rle(encode_rle(mask)) == mask).all()
    assert (decode_rle(encode_runs(mask)) == mask).all()
    assert (decode_brush(encode_brush(mask), mask.shape) == mask).all()
    found = [LabelledMask(mask, "it")] if mask.any() else []
    for back in (
        decode_yolo(encode_yolo(found, ["it"]), mask.shape, ["it"]),
        decode_palette_png(encode_palette_png(found, mask.shape), {1: "it"}),
        decode_detections(encode_detections(found, mask.shape)),
    ):
        assert [one.label for one in back] == ["it"] * len(found)
        assert all((one.mask == mask).all() for one in back)


@pytest.mark.parametrize("polygons", [False, True])
def test_coco_files(polygons: bool, tmp_path: Path) -> None:
    content = encode_coco([TWO, EMPTY], polygons=polygons)
    back = list(decode_coco(json.loads(json.dumps(content))))
    assert same(back[0], TWO)
    assert same(back[1], EMPTY)
    assert [one.score for one in back[0].objects] == [0.5, 1]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    read = COCO(tmp_path / "coco.json")
    assert (read.annToMask(read.anns[1]) == RING).all()
    assert read.anns[1]["bbox"] == pycoco.toBbox(encode_rle(RING)).tolist()


def test_coco_results() -> None:
    categories = {"ring": 7, 'a "disc" & é': 3}
    results = json.loads(json.dumps(encode_results({42: TWO.objects}, categories)))
    assert [entry["category_id"] for entry in results] == [7, 3]
    back = list(decode_results(results, {number: label for label, number in categories.items()}))
    assert [image_id for image_id, _ in back] == [42, 42]
    assert all((one.mask == two.mask).all() for (_, one), two in zip(back, TWO.objects, strict=True))
    with pytest.raises(ValueError, match="is no category"):
        encode_results({1: TWO.objects}, {"ring": 1})
    with pytest.raises(ValueError, match="known category"):
        list(decode_results(results, {}))


@pytest.mark.parametrize("brush", BRUSHES, ids=lambda brush: brush["name"])
def test_brushes_are_label_studios_own(brush: dict[str, Any]) -> None:
    rows, size = brush["rows"], tuple(brush["size"])
    mask = np.zeros(size, bool) if rows is None else np.array([[mark == "#" for mark in row] for row in rows])
    assert (decode_brush(brush["rle"], size) == mask).all()
    if brush["name"] != "colours":
        assert encode_brush(mask) == brush["rle"]


def test_a_brush_with_a_block_of_single_values() -> None:
    """Label Studio's page writes such blocks, its converter does not."""
    values = [255, 0, 0, 9, 1, 2, 3, 0]  # two pixels, R G B A
    bits = f"{8:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    bits += "0" + "00" + f"{5 - 1:03b}" + "".join(f"{value:08b}" for value in values[:5])
    bits += "0" + "01" + f"{3 - 1:04b}" + "".join(f"{value:08b}" for value in values[5:])
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode_brush(rle, (1, 2)).tolist() == [[True, False]]


def test_label_studio_tasks() -> None:
    tasks = json.loads(json.dumps(encode_label_studio([TWO, EMPTY], prefix="/data/local-files/?d=photos/")))
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/a/ring.jpg"
    assert tasks[0]["predictions"][0]["score"] == 0.5
    (back,) = decode_label_studio(tasks)
    assert [one.label for one in back.objects] == TWO.labels[::-1]
    assert all((a.mask == b.mask).all() for a, b in zip(back.objects, TWO.objects, strict=True))
    assert "&quot;" in label_config(TWO.labels) or "'a \"disc\" &amp; é'" in label_config(TWO.labels)


def test_label_studio_polygons_and_other_regions() -> None:
    polygon = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": ["left"]}
    region = {"original_width": 10, "original_height": 4, "value": polygon}
    box = {"original_width": 10, "original_height": 4, "value": {"x": 1, "rectanglelabels": ["box"]}}
    task = {
        "data": {"photo": "http://host/media/left%20half.png"},
        "annotations": [{"was_cancelled": True, "result": [box]}, {"result": [box, region]}],
    }
    (found,) = decode_label_studio([task, {"data": {}, "annotations": []}])
    assert (found.file_name, found.labels) == ("http://host/media/left%20half.png", ["left"])
    assert (found.objects[0].mask == (np.arange(10) < 5)[None].repeat(4, 0)).all()


def test_supervision() -> None:
    detections = encode_detections(TWO.objects, TWO.size, classes=["zero", *TWO.labels])
    assert isinstance(detections, supervision.Detections)
    assert detections.class_id.tolist() == [2, 1]
    assert detections.area.tolist() == [RING.sum(), DISC.sum()]
    back = decode_detections(detections[detections.confidence > 0.6])
    assert [(one.label, one.score) for one in back] == [('a "disc" & é', 1.0)]
    assert decode_detections(detections, ["a", "b", "c"])[0].label == "c"
    assert len(encode_detections([], (4, 4))) == 0
    with pytest.raises(ValueError, match="boxes only"):
        decode_detections(supervision.Detections(xyxy=np.zeros((1, 4))))
    with pytest.raises(ValueError, match="class_id 2 has no label"):
        decode_detections(detections, ["a"])


@pytest.mark.parametrize("form", FORMATS)
def test_files_of_a_format(form: str) -> None:
    files = encode_files([TWO, EMPTY], form)
    assert all(isinstance(content, bytes) for content in files.values())
    names = {
        "coco": {"annotations.json"},
        "coco-polygons": {"annotations.json"},
        "label-studio": {"tasks.json", "label_config.xml"},
        "yolo": {"labels/ring.txt", "labels/nothing.txt", "classes.txt"},
        "png": {"ring.png", "nothing.png"},
    }
    assert files.keys() == names[form]
    if form in ("yolo", "png"):
        with pytest.raises(ValueError, match="more than one picture is called 'ring'"):
            encode_files([TWO, TWO], form)


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match="must be one of coco"):
        encode_files([TWO], "bmp")


@pytest.mark.parametrize("form", ["coco", "label-studio"])
def test_examples_from_annotation_files(form: str, tmp_path: Path) -> None:
    files = encode_files([TWO], form, prefix="/data/upload/3/1a2b3c4d-")
    path = tmp_path / next(iter(files))
    path.write_bytes(next(iter(files.values())))
    PILImage.fromarray(picture(40, 50)).save(tmp_path / "ring.jpg")
    (example,) = read_examples(path, label="ring")
    assert example.image == tmp_path / "ring.jpg"
    assert (load_mask(example.mask, (40, 50)) == RING).all()
    assert len(read_examples(path, tmp_path)) == 2
    with pytest.raises(ValueError, match="no mask of an object called 'cat'; it has a \"disc\""):
        read_examples(path, label="cat")
    with pytest.raises(FileNotFoundError, match=r"no picture 'ring.jpg' in"):
        read_examples(path, tmp_path / "elsewhere")


def test_names_in_files_never_lead_out_of_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    PILImage.fromarray(picture(40, 50)).save(tmp_path / "secret.jpg")
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "..\\secret.jpg", "x/../../secret.jpg"):
        (inside / "coco.json").write_text(json.dumps(encode_coco([LabelledPicture(name, (40, 50), TWO.objects)])))
        with pytest.raises(FileNotFoundError):
            read_examples(inside / "coco.json")


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [4, 4], "counts": [10**30]}, "whole numbers from 0"),
        ({"size": [4, 4], "counts": [4, -4, 16]}, "whole numbers from 0"),
        ({"size": [4, 4], "counts": [1.5, 14.5]}, "whole numbers from 0"),
        ({"size": [4, 4], "counts": [15]}, "don't fill its 16 pixels"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "178,956,970 pixels"),
        ({"size": [0, 4], "counts": []}, "whole numbers from 1"),
        ({"size": [True, 4], "counts": [4]}, "whole numbers from 1"),
        ({"size": "44", "counts": [16]}, "has a size"),
        ({"counts": [16]}, "has a size"),
        ({"size": [4, 4]}, "has a size"),
        ({"size": [4, 4], "counts": "\u00e9\u00e9"}, "string of runs"),
        ([1, 2], "has a size"),
    ],
)
def test_broken_run_lengths(rle: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_rle(rle)


@pytest.mark.parametrize(
    ("rle", "size", "message"),
    [
        (encode_brush(RING)[:-4], (40, 50), "cut off"),
        (encode_brush(RING), (50, 41), "another picture"),
        ([255] * 20, (40, 50), "another picture"),
        ([], (1, 1), "cut off"),
        ([0, 256], (1, 1), "0-255"),
        ("abc", (1, 1), "list of bytes"),
        ([1.0], (1, 1), "0-255"),
        ([True], (1, 1), "0-255"),
        ([0, 0, 0, 4, *encode_brush(np.ones((1, 2), bool))[4:]], (1, 1), "more than the 4 values"),
    ],
)
def test_broken_brushes(rle: Any, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_brush(rle, size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "list of objects 'images'"),
        (lambda c: c.update(annotations={"a": 1}), "list of objects 'annotations'"),
        (lambda c: c["annotations"][0].update(image_id=9), "of image 9"),
        (lambda c: c["annotations"][0].update(category_id="x"), "of category 'x'"),
        (lambda c: c["annotations"][1].update(segmentation=[[1, 2, "x"] * 2]), "annotation 2: .*numbers"),
        (lambda c: c["annotations"][0].update(segmentation="abc"), "annotation 1: "),
        (lambda c: c["annotations"][0].update(score="high"), "finite number"),
        (lambda c: c["images"][0].update(height=41), "annotation 1: .*size"),
        (lambda c: c["images"][0].update(height=13000, width=13000), "annotation 1: .*size"),
        (lambda c: c["images"].append(c["images"][0]), "same id"),
        (lambda c: c["images"][0].pop("id"), "no number"),
        (lambda c: c["images"][0].pop("file_name"), "no file_name"),
        (lambda c: c["categories"][0].update(name=None), "label must be a string"),
        (
            lambda c: c.update(annotations=c["annotations"] * 999, images=[c["images"][0] | {"width": 10**6}]),
            "masks of",
        ),
    ],
)
def test_broken_coco_files(change: Any, message: str) -> None:
    content = json.loads(json.dumps(encode_coco([TWO])))
    change(content)
    with pytest.raises(ValueError, match=message):
        list(decode_coco(content))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, content: Any) -> Any:
    """The same JSON with one value somewhere in it replaced."""
    copied = json.loads(json.dumps(content))
    at = copied
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = draw(st.sampled_from(list(keys)))
        if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 5)):
            at = at[key]
        else:
            at[key] = draw(json_values)
            return copied


@settings(deadline=None, max_examples=200)
@given(damaged(encode_coco([TWO])), damaged(encode_label_studio([TWO])))
def test_damaged_files_are_refused_or_read(coco: Any, tasks: Any) -> None:
    for decode, content in ((decode_coco, coco), (decode_label_studio, tasks)):
        try:
            for found in decode(content):
                assert all(one.mask.shape == found.size for one in found.objects)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.1 0.1 0.2 0.2\n", "lines of boxes"),
        ("\n1 0 0 1 0 1 1", "line 2: the class"),
        ("-1 0 0 1 0 1 1", "the class"),
        ("0 0 0 1 0 1 x", "are numbers"),
        ("0 0 0 nan 0 1 1", "0-1"),
        ("0 0 0 5 0 1 1", "0-1"),
        ("0 0 0 1 0 1 1 1", "outline"),
        ("0\n" * 20, "masks of"),
    ],
)
def test_broken_yolo(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_yolo(text, (10_000, 10_000), ["it"])


def test_broken_palettes_and_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no whole picture"):
        decode_palette_png(encode_palette_png(TWO.objects, TWO.size)[:-30])
    with pytest.raises(ValueError, match="254 objects"):
        encode_palette_png([LabelledMask(DISC)] * 255, DISC.shape)
    with pytest.raises(ValueError, match="the picture"):
        encode_palette_png(TWO.objects, (4, 4))
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ValueError, match="pixels"):
        decode_palette_png(bomb)
    with pytest.raises(ValueError, match="one line"):
        LabelledMask(RING, "a\nb")
    with pytest.raises(ValueError, match="its mask of 'object' 50x40"):
        LabelledPicture("x", (3, 3), (LabelledMask(RING),))
    (tmp_path / "not.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON file"):
        read_examples(tmp_path / "not.json")
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        read_examples(tmp_path / "none.json")
