"""Videos whose masks or sentences stand in JSON files: OVIS, MeViS, Ref-YouTube-VOS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import SIZE, boxes, make_video
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from reading import id_maps, masks_of, read_split

from sam_uniref.data.formats.segmentation_lists import pack, union, unpack
from sam_uniref.data.prepared import decode_mask, encode_mask
from sam_uniref.data.refshapes.export_segmentations import uncompressed_rle
from sam_uniref.segmentation import encode_rle

STEMS = [f"{t:05d}" for t in range(3)]
TRUTH = np.stack([boxes((4, 2 + 4 * t, 20, 18 + 4 * t), (24, 30, 36, 50)) for t in range(3)])
MAPS = dict(zip(STEMS, TRUTH, strict=True))


def rle(ids: np.ndarray) -> dict[str, Any]:
    return encode_rle(ids.astype(bool))


# ---- lists of segmentations ----


@settings(max_examples=50, deadline=None)
@given(arrays(bool, st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 6))))
def test_union_of_masks(masks: np.ndarray) -> None:
    together = union([encode_mask(mask) for mask in masks])
    np.testing.assert_array_equal(decode_mask(together), masks.any(axis=0))


def test_packed_json_comes_back() -> None:
    content = [None, {"size": [2, 3], "counts": "é0"}, [[0.5, 1.0, 2.0, 3.0, 4.0, 5.0]]]
    assert unpack(pack(content)) == content
    assert pack(content) == pack(json.loads(json.dumps(content)))


# ---- OVIS ----


def make_ovis(root: Path, change: Callable[[dict[str, Any]], None] = lambda content: None) -> Path:
    """Videos a and b, two objects in each; object 2 is not visible in frame 1."""
    videos, annotations = [], []
    for k, name in enumerate("ab", start=1):
        make_video(root / "train" / name, None, {f"img_{t + 1:07d}": ids for t, ids in enumerate(TRUTH)})
        names = [f"{name}/img_{t + 1:07d}.jpg" for t in range(3)]
        videos.append({"id": 10 * k, "file_names": names, "height": SIZE[0], "width": SIZE[1], "length": 3})
        for number in (1, 2):
            masks: list[Any] = [rle(ids == number) for ids in TRUTH]
            if number == 2:
                masks[1] = None
            entry = {"id": 100 * k + number, "video_id": 10 * k, "category_id": 3, "iscrowd": 0, "segmentations": masks}
            annotations.append(entry)
    content = {"info": {}, "annotations": annotations, "videos": videos}
    change(content)
    (root / "annotations_train.json").write_text(json.dumps(content))
    return root


def hidden() -> np.ndarray:
    return np.where((TRUTH == 2) & (np.arange(3) == 1)[:, None, None], 0, TRUTH)


def first_masks(content: dict[str, Any]) -> list[Any]:
    masks: list[Any] = content["annotations"][0]["segmentations"]
    return masks


def test_every_form_of_segmentation(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        masks = first_masks(content)
        masks[0] = uncompressed_rle(TRUTH[0] == 1)
        # Two polygons that overlap are one object.
        masks[2] = [[10, 4, 20, 4, 20, 20, 10, 20], [15, 4, 26, 4, 26, 20, 15, 20]]
        content["annotations"][1]["segmentations"][1] = []

    rows, problems = read_split("ovis", make_ovis(tmp_path, change), "train")
    assert not problems
    assert [row.video for row in rows] == ["a", "b"]
    for row in rows:
        assert [(item.id, item.frames) for item in row.objects] == [(1, (0, 1, 2)), (2, (0, 2))]
        assert row.annotated == (0, 1, 2)
        np.testing.assert_array_equal(id_maps(row), hidden())


def test_objects_may_overlap(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][1]["segmentations"] = first_masks(content)

    rows, problems = read_split("ovis", make_ovis(tmp_path, change), "train")
    assert not problems
    assert rows[0].objects[0].rles == rows[0].objects[1].rles


@pytest.mark.parametrize(
    "bad",
    [
        {"size": [SIZE[1], SIZE[0]], "counts": "0"},
        {"size": list(SIZE), "counts": [1, 2]},
        {"size": list(SIZE), "counts": "a"},
        {"size": list(SIZE)},
        {},
        "mask",
        [[1, 2]],
        [["a", "b", "c", "d", "e", "f"]],
        [[1e12, 0, 0, 1e12, 5, 5]],
    ],
)
def test_an_object_with_a_broken_mask_is_left_out(tmp_path: Path, bad: Any) -> None:
    rows, problems = read_split("ovis", make_ovis(tmp_path, lambda c: first_masks(c).__setitem__(1, bad)), "train")
    assert problems == {"broken mask, its object left out": 1}
    assert [item.id for item in rows[0].objects] == [2]
    np.testing.assert_array_equal(id_maps(rows[0]), np.where(hidden() == 2, 2, 0))
    np.testing.assert_array_equal(id_maps(rows[1]), hidden())


def ruined(content: dict[str, Any], how: str) -> None:
    """One thing that is wrong with video a."""
    first, second = content["annotations"][:2]
    if how == "short":
        first["segmentations"].pop()
    elif how == "nowhere":
        first["segmentations"] = [None] * 3
    elif how == "crowd":
        first["iscrowd"] = 1
    elif how == "twin":
        second["id"] = first["id"]
    elif how == "lost video":
        first["video_id"] = 77
    elif how == "twin video":
        content["videos"].append(content["videos"][0])
    else:
        content["videos"][0]["file_names"][0] = "../../secret.jpg"


@pytest.mark.parametrize(
    ("how", "reason", "left"),
    [
        ("short", "masks of another number than the video's frames", [2]),
        ("nowhere", "object without a mask", [2]),
        ("crowd", "crowd", [2]),
        ("twin", "annotation id that stands twice", [1]),
        ("lost video", "objects of a video that is not in the file", [1]),
        ("twin video", "video id that stands twice", [1, 2]),
        ("climbs", "path leaves the folder", []),
    ],
)
def test_ovis_with_something_wrong(tmp_path: Path, how: str, reason: str, left: list[int]) -> None:
    rows, problems = read_split("ovis", make_ovis(tmp_path, lambda content: ruined(content, how)), "train")
    assert problems == {reason: 1}
    assert [[item.id for item in row.objects] for row in rows if row.video == "a"] == ([left] if left else [])
    np.testing.assert_array_equal(id_maps(rows[-1]), hidden())


def test_ovis_frames(tmp_path: Path) -> None:
    root = make_ovis(tmp_path)
    (root / "train/a/img_0000001.jpg").unlink()
    Image.new("RGB", (9, 9)).save(root / "train/a/img_0000002.jpg")
    rows, problems = read_split("ovis", root, "train")
    assert problems == {"missing picture": 1, "picture of another size than annotated": 1}
    np.testing.assert_array_equal(id_maps(rows[0]), hidden()[2:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"videos": [], "annotations": [{"id": 1}]}', "lacks"),
        ('{"videos": [{"id": 1}], "annotations": [{"id": 1, "video_id": 1, "segmentations": []}]}', "lacks"),
        ('{"images": [], "annotations": [{"id": 1, "video_id": 1, "segmentations": []}]}', "has nothing in its videos"),
        ('{"annotations": [{"id": 1, "video_id": 1, "segmentations": []}], "videos": [', "is no whole JSON file"),
    ],
)
def test_ovis_of_another_release(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "annotations_train.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_split("ovis", tmp_path, "train")
    assert "annotations_train.json" in str(caught.value)


# ---- MeViS ----


def make_mevis(root: Path, expressions: dict[str, Any], masks: dict[str, Any], split: str = "valid_u") -> Path:
    make_video(root / split / "JPEGImages" / "a", None, MAPS)
    content = {"videos": {"a": {"expressions": expressions, "frames": STEMS}}}
    (root / split / "meta_expressions.json").write_text(json.dumps(content))
    (root / split / "mask_dict.json").write_text(json.dumps(masks))
    return root


def said(text: str, *ids: int) -> dict[str, Any]:
    return {"exp": text, "obj_id": list(ids), "anno_id": list(ids)}


def lists() -> dict[str, Any]:
    masks: dict[str, Any] = {str(n): [rle(ids == n) for ids in TRUTH] for n in (1, 2)}
    return masks | {"2": [None, *masks["2"][1:]], "9": [None] * 3}


def test_what_an_expression_means(tmp_path: Path) -> None:
    expressions = {"0": said("both", 1, 2), "1": said("the second", 2), "4": said("nothing here")}
    rows, problems = read_split("mevis", make_mevis(tmp_path, expressions, lists()), "valid_u")
    assert not problems
    both, second, nothing = rows[0].objects
    assert [(item.id, item.sentence_ids, item.first) for item in rows[0].objects] == [
        (1, ("0",), 0),
        (2, ("1",), 1),
        (3, ("4",), -1),
    ]
    np.testing.assert_array_equal(np.stack(list(masks_of(rows[0], both).values()))[1:], (TRUTH > 0)[1:])
    np.testing.assert_array_equal(masks_of(rows[0], both)[0], TRUTH[0] == 1)
    assert second.frames == (1, 2)
    # It is known that nothing is meant: the frames are annotated, and it is never seen.
    assert (nothing.frames, rows[0].annotated) == ((), (0, 1, 2))


def test_broken_expressions(tmp_path: Path) -> None:
    masks = lists() | {"3": [None], "4": [{"size": [1, 1], "counts": "1"}, None, None]}
    expressions = {
        "0": said("fine", 1),
        "1": said(" ", 1),
        "2": said("masks lost", 1, 77),
        "3": said("list too short", 3),
        "4": said("of another size", 4),
        "5": said("never seen", 9),
    }
    rows, problems = read_split("mevis", make_mevis(tmp_path, expressions, masks), "valid_u")
    assert problems == {
        "empty sentence": 1,
        "expression whose masks mask_dict.json lacks": 1,
        "masks of another number than the video's frames": 1,
        "broken mask, its object left out": 1,
        "expression without a mask": 1,
    }
    assert [item.sentences for item in rows[0].objects] == [("fine",)]


def test_a_unit_carries_its_own_masks_alone(tmp_path: Path) -> None:
    from sam_uniref.data.formats import named_format
    from sam_uniref.data.prepared.problems import Problems

    root = make_mevis(tmp_path, {"0": said("it", 1)}, lists())
    (unit,) = named_format("mevis").units(root, "valid_u", Problems())
    assert [set(video.masks) for video in unit] == [{"1"}]


def test_mevis_of_another_release(tmp_path: Path) -> None:
    root = make_mevis(tmp_path, {"0": {"exp": "it", "obj_id": "1"}}, lists())
    with pytest.raises(ValueError, match=r"meta_expressions\.json video a expression 0 lacks 'anno_id'"):
        read_split("mevis", root, "valid_u")
    (root / "valid_u" / "mask_dict.json").write_text("[")
    with pytest.raises(ValueError, match=r"mask_dict\.json is no whole JSON file"):
        read_split("mevis", root, "valid_u")
    (root / "valid_u" / "mask_dict.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*mask_dict\.json"):
        read_split("mevis", root, "valid_u")


def test_mevis_paths(tmp_path: Path) -> None:
    root = make_mevis(tmp_path, {"0": said("it", 1)}, lists())
    path = root / "valid_u" / "meta_expressions.json"
    videos = json.loads(path.read_text())["videos"]
    climbing = {"expressions": {}, "frames": ["../../../x"]}
    path.write_text(json.dumps({"videos": videos | {"../a": videos["a"], "b": climbing, "c": videos["a"]}}))
    rows, problems = read_split("mevis", root, "valid_u")
    assert [row.video for row in rows] == ["a"]
    assert problems == {"path leaves the folder": 2, "missing folder of frames": 1}


def test_a_lost_frame_of_mevis(tmp_path: Path) -> None:
    root = make_mevis(tmp_path, {"0": said("it", 1)}, lists())
    (root / "valid_u/JPEGImages/a/00001.jpg").unlink()
    rows, problems = read_split("mevis", root, "valid_u")
    assert problems == {"missing picture": 1}
    np.testing.assert_array_equal(id_maps(rows[0]), np.where(TRUTH == 1, 1, 0)[[0, 2]])


# ---- Ref-YouTube-VOS ----


def write_expressions(path: Path, videos: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"videos": videos}))


def spoken(*expressions: dict[str, Any]) -> dict[str, Any]:
    return {"expressions": {str(k): entry for k, entry in enumerate(expressions)}, "frames": STEMS}


@pytest.mark.parametrize("with_meta", [False, True])
def test_an_object_has_all_its_sentences(tmp_path: Path, with_meta: bool) -> None:
    make_video(tmp_path / "train/JPEGImages/a", tmp_path / "train/Annotations/a", MAPS)
    entry = spoken({"exp": "it", "obj_id": "2"}, {"exp": "that", "obj_id": "2"}, {"exp": "lost", "obj_id": "5"})
    write_expressions(tmp_path / "meta_expressions/train/meta_expressions.json", {"a": entry})
    if with_meta:
        write_expressions(tmp_path / "train/meta.json", {"a": {"objects": {"2": {"category": "box"}}}})
    rows, problems = read_split("ref_youtube_vos", tmp_path, "train")
    assert problems == {"object without a mask": 1}
    # An object that nobody speaks of is one nevertheless.
    assert [(item.id, item.sentences, item.sentence_ids) for item in rows[0].objects] == [
        (1, (), ()),
        (2, ("it", "that"), ("0", "1")),
    ]
    assert rows[0].objects[1].category == ("box" if with_meta else "")
    np.testing.assert_array_equal(id_maps(rows[0]), TRUTH)


def test_train_without_ids_is_another_release(tmp_path: Path) -> None:
    make_video(tmp_path / "train/JPEGImages/a", tmp_path / "train/Annotations/a", MAPS)
    write_expressions(tmp_path / "train/meta_expressions.json", {"a": spoken({"exp": "it"})})
    with pytest.raises(ValueError, match=r"meta_expressions\.json video a expression 0 lacks 'obj_id'"):
        read_split("ref_youtube_vos", tmp_path, "train")


def make_valid(root: Path, file: str = "meta_expressions/valid/meta_expressions.json") -> Path:
    make_video(root / "valid/JPEGImages/a", None, MAPS)
    entry = spoken({"exp": "the first", "obj_id": "1"}, {"exp": "the second", "obj_id": "2"})
    write_expressions(root / file, {"a": entry})
    return root


def write_binary(root: Path, key: int, number: int) -> None:
    folder = root / "valid/Annotations/a" / str(key)
    folder.mkdir(parents=True)
    for stem, ids in MAPS.items():
        seen = (ids == number) & ((number, stem) != (2, STEMS[0]))
        Image.fromarray(seen.astype(np.uint8) * 255).save(folder / f"{stem}.png")


@pytest.mark.parametrize(
    "file",
    [
        "valid/meta_expressions.json",
        "valid/meta_expressions_challenge.json",
        "meta_expressions/valid/meta_expressions.json",
    ],
)
def test_the_release_with_masks_an_expression(tmp_path: Path, file: str) -> None:
    root = make_valid(tmp_path, file)
    for key in (0, 1):
        write_binary(root, key, key + 1)
    rows, problems = read_split("ref_youtube_vos", root, "valid")
    assert not problems
    assert [(item.id, item.first, item.sentence_ids) for item in rows[0].objects] == [(1, 0, ("0",)), (2, 1, ("1",))]
    assert rows[0].annotated == (0, 1, 2)
    expected = TRUTH.copy()
    expected[0][expected[0] == 2] = 0
    np.testing.assert_array_equal(id_maps(rows[0]), expected)


def test_a_frame_that_lacks_one_expressions_mask_is_not_annotated(tmp_path: Path) -> None:
    root = make_valid(tmp_path)
    for key in (0, 1):
        write_binary(root, key, key + 1)
    (root / "valid/Annotations/a/1/00002.png").unlink()
    rows, problems = read_split("ref_youtube_vos", root, "valid")
    assert problems == {"missing mask": 1}
    assert rows[0].annotated == (0, 1)
    assert [item.frames for item in rows[0].objects] == [(0, 1), (1,)]


def test_an_expression_without_masks(tmp_path: Path) -> None:
    root = make_valid(tmp_path)
    write_binary(root, 1, 1)
    rows, problems = read_split("ref_youtube_vos", root, "valid")
    assert problems == {"expression without a mask": 1}
    assert [(item.id, item.sentences) for item in rows[0].objects] == [(2, ("the second",))]


def test_valid_is_what_test_does_not_list(tmp_path: Path) -> None:
    root = make_valid(tmp_path)
    path = root / "meta_expressions/valid/meta_expressions.json"
    videos = json.loads(path.read_text())["videos"]
    write_expressions(path, videos | {"t": spoken({"exp": "of the test videos"})})
    _, problems = read_split("ref_youtube_vos", root, "valid")
    assert problems == {"missing folder of frames": 1}
    write_expressions(root / "meta_expressions/test/meta_expressions.json", {"t": spoken({"exp": "it"})})
    rows, problems = read_split("ref_youtube_vos", root, "valid")
    assert ([row.video for row in rows], problems) == (["a"], {})


def test_expressions_do_not_climb_out(tmp_path: Path) -> None:
    root = make_valid(tmp_path)
    write_binary(root, 0, 1)
    path = root / "meta_expressions/valid/meta_expressions.json"
    content = json.loads(path.read_text())
    content["videos"]["a"]["expressions"]["../../../train"] = {"exp": "it"}
    del content["videos"]["a"]["expressions"]["1"]
    path.write_text(json.dumps(content))
    rows, problems = read_split("ref_youtube_vos", root, "valid")
    assert problems == {"path leaves the folder": 1, "expression without a mask": 1}
    assert len(rows[0].objects) == 1
