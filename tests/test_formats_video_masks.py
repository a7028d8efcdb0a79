"""Videos with PNG masks: what can't be used is counted by its reason and left out, and no mask is silently wrong."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import SIZE, boxes, make_video, save_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from reading import id_maps, masks_of, read_split, severities

from sam_uniref.data.formats import FORMATS, named_format
from sam_uniref.data.formats.files import VOID
from sam_uniref.palette import id_color

STEMS = [f"{5 * t:05d}" for t in range(4)]
MAPS = {stem: boxes((4, 2 + 4 * t, 20, 18 + 4 * t), (24, 30, 36, 50)) for t, stem in enumerate(STEMS)}
TRUTH = np.stack(list(MAPS.values()))


def write_meta(path: Path, videos: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"videos": videos}))


def named(*ids: int, stems: list[str] = STEMS) -> dict[str, Any]:
    return {"objects": {str(number): {"category": "box", "frames": stems} for number in ids}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """YouTube-VOS's train of the videos a and b, two objects in each of four frames."""
    for name in ("a", "b"):
        make_video(tmp_path / "train" / "JPEGImages" / name, tmp_path / "train" / "Annotations" / name, MAPS)
    write_meta(tmp_path / "train" / "meta.json", {name: named(1, 2) for name in ("a", "b")})
    return tmp_path


def read_a(root: Path) -> tuple[Any, dict[str, int]]:
    """Video a, beside which b must be whole."""
    rows, problems = read_split("youtube_vos_2019", root, "train")
    whole = rows[-1]
    assert whole.video == "b"
    np.testing.assert_array_equal(id_maps(whole), TRUTH)
    return (rows[0] if len(rows) == 2 else None), problems


def frame(root: Path, t: int) -> Path:
    return root / "train" / "JPEGImages" / "a" / f"{STEMS[t]}.jpg"


def mask(root: Path, t: int) -> Path:
    return root / "train" / "Annotations" / "a" / f"{STEMS[t]}.png"


# ---- frames ----


def test_sound_videos_have_no_problems(root: Path) -> None:
    row, problems = read_a(root)
    assert not problems
    np.testing.assert_array_equal(id_maps(row), TRUTH)


@pytest.mark.parametrize("how", ["gone", "cut", "middle", "other size", "no picture"])
def test_a_broken_frame_goes_with_its_mask(root: Path, how: str) -> None:
    path, content = frame(root, 1), frame(root, 1).read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "other size":
        Image.new("RGB", (SIZE[1] + 1, SIZE[0])).save(path)
    else:
        path.write_bytes(
            {
                "cut": content[: len(content) // 2],
                "no picture": b"<html>\xff\xd9",
                "middle": content[:400] + b"\xff\xd9",
            }[how]
        )
    row, problems = read_a(root)
    expected = {"gone": "missing picture", "other size": "frame of another size than its video"}
    assert problems == {expected.get(how, "broken or cut-off picture"): 1}
    # Masks are joined by stem: those after the gap stay with their frames.
    assert [Path(path).stem for path in row.frames] == [STEMS[0], STEMS[2], STEMS[3]]
    np.testing.assert_array_equal(id_maps(row), TRUTH[[0, 2, 3]])
    assert row.annotated == (0, 1, 2)


def test_frames_with_masks_are_decoded(root: Path) -> None:
    """Both ends of this picture are whole; what is between is not."""
    content, half = frame(root, 1).read_bytes(), frame(root, 1).stat().st_size // 2
    second_start = b"\xff\xd8"
    frame(root, 1).write_bytes(content[:half] + second_start + content[half + 2 :])
    row, problems = read_a(root)
    assert problems == {"broken or cut-off picture": 1}
    np.testing.assert_array_equal(id_maps(row), TRUTH[[0, 2, 3]])


def test_a_video_without_a_usable_frame(root: Path) -> None:
    for t in range(4):
        frame(root, t).write_bytes(b"")
    row, problems = read_a(root)
    assert row is None
    assert problems == {"broken or cut-off picture": 4, "video without a usable frame": 1}


def test_the_size_is_that_of_most_frames(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(frame(root, 0))
    row, problems = read_a(root)
    assert (row.height, row.width) == SIZE
    assert problems == {"frame of another size than its video": 1}
    np.testing.assert_array_equal(id_maps(row), TRUTH[1:])


def test_files_that_are_no_frames(root: Path) -> None:
    folder = frame(root, 0).parent
    (folder / f"._{STEMS[0]}.jpg").write_bytes(b"notes of a system")
    (mask(root, 0).parent / f"._{STEMS[0]}.png").write_bytes(b"notes of a system")
    (folder / "Thumbs.db").write_bytes(b"")
    frame(root, 2).rename(folder / f"{STEMS[2]}.JPG")
    row, problems = read_a(root)
    assert not problems
    np.testing.assert_array_equal(id_maps(row), TRUTH)


def test_two_pictures_of_one_frame(root: Path) -> None:
    frame(root, 2).with_suffix(".jpeg").write_bytes(frame(root, 2).read_bytes())
    row, problems = read_a(root)
    assert problems == {"second picture of one frame": 1}
    assert len(row.frames) == 4


def test_frames_without_masks_are_frames(tmp_path: Path) -> None:
    """Of the frames between, the end of the file is looked at."""
    make_video(tmp_path / "valid/JPEGImages/a", tmp_path / "valid/Annotations/a", MAPS, masked={STEMS[0]})
    write_meta(tmp_path / "valid/meta.json", {"a": named(1, 2)})
    path = tmp_path / "valid/JPEGImages/a" / f"{STEMS[2]}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    rows, problems = read_split("youtube_vos_2018", tmp_path, "valid")
    assert problems == {"broken or cut-off picture": 1}
    assert len(rows[0].frames) == 3
    path.unlink()
    rows, problems = read_split("youtube_vos_2018", tmp_path, "valid")
    assert problems == {"missing picture": 1}
    assert [Path(p).stem for p in rows[0].frames] == [STEMS[0], STEMS[1], STEMS[3]]


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    maps = {str(t): TRUTH[k] for k, t in enumerate((0, 5, 10, 100))}
    make_video(tmp_path / "train/JPEGImages/a", tmp_path / "train/Annotations/a", maps)
    write_meta(tmp_path / "train/meta.json", {"a": named(1, 2, stems=list(maps))})
    rows, problems = read_split("youtube_vos_2018", tmp_path, "train")
    assert not problems
    assert [Path(p).stem for p in rows[0].frames] == ["0", "5", "10", "100"]
    np.testing.assert_array_equal(id_maps(rows[0]), TRUTH)


# ---- masks ----


@pytest.mark.parametrize("how", ["gone", "cut", "other size", "16 bits", "strange colours"])
def test_a_broken_mask_is_not_annotated(root: Path, how: str) -> None:
    path = mask(root, 1)
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif how == "other size":
        save_ids(path, TRUTH[1][:-3])
    elif how == "16 bits":
        Image.fromarray(TRUTH[1].astype(np.uint16)).save(path)
    else:
        Image.new("RGB", SIZE[::-1], (1, 2, 3)).save(path)
    row, problems = read_a(root)
    reasons = {"gone": "missing mask", "other size": "mask of another size than its picture"}
    assert problems == {reasons.get(how, "broken mask, or one that is no id map"): 1}
    assert row.annotated == (0, 2, 3)
    assert len(row.frames) == 4
    np.testing.assert_array_equal(id_maps(row), TRUTH * np.array([1, 0, 1, 1])[:, None, None])


def test_masks_off_by_a_pixel_are_mended(root: Path) -> None:
    save_ids(mask(root, 1), TRUTH[1][:, :-1])
    row, problems = read_a(root)
    assert problems == {"mask off by at most 2 pixels, resized by nearest": 1}
    assert severities("youtube_vos_2019", root, "train") == dict.fromkeys(problems, "mended")
    assert (id_maps(row)[1] != TRUTH[1]).mean() < 0.03


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, 254, VOID])),
    st.sampled_from(["palette", "grey", "rgb", "rgba"]),
)
def test_every_way_to_store_ids(ids: np.ndarray, how: str) -> None:
    """Palette values, grey values and the palette's colours say the same; void is background."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.new("RGB", (7, 6)).save(make(folder / "MOSE/train/JPEGImages/a") / "00000.png")
        path = make(folder / "MOSE/train/Annotations/a") / "00000.png"
        if how in ("palette", "grey"):
            picture = Image.fromarray(ids, mode="L")
            if how == "palette":
                picture.putpalette([c for number in range(256) for c in id_color(number)])
            picture.save(path)
        else:
            colours = np.array([id_color(number) for number in range(256)], np.uint8)[ids]
            Image.fromarray(colours).convert(how.upper()).save(path)
        rows, problems = read_split("mose", folder / "MOSE", "train")
        expected = np.where(ids == VOID, 0, ids)
        if set(np.unique(ids).tolist()) == {0, VOID} or set(np.unique(ids).tolist()) == {VOID}:
            expected = (ids > 0).astype(np.uint8)  # black and white: one object
        if expected.any():
            assert not problems
            np.testing.assert_array_equal(id_maps(rows[0])[0], expected)
        else:
            assert problems == {"video without an object": 1}


def make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_empty_masks_say_that_nothing_is_seen(root: Path) -> None:
    save_ids(mask(root, 0), np.zeros(SIZE))
    row, problems = read_a(root)
    assert not problems
    assert row.annotated == (0, 1, 2, 3)
    assert [(item.first, item.frames) for item in row.objects] == [(1, (1, 2, 3))] * 2
    for t in range(4):
        save_ids(mask(root, t), np.zeros(SIZE))
    row, problems = read_a(root)
    assert row is None
    assert problems == {"object without a mask": 2, "video without an object": 1}


# ---- meta files ----


def test_ids_that_are_not_named_are_no_objects(root: Path) -> None:
    write_meta(root / "train/meta.json", {"a": named(2, 7), "b": named(1, 2)})
    row, problems = read_a(root)
    assert problems == {"id in masks that the annotation file does not name": 1, "object without a mask": 1}
    assert [item.id for item in row.objects] == [2]
    np.testing.assert_array_equal(id_maps(row), np.where(TRUTH == 2, 2, 0))


def test_an_id_that_stands_twice(root: Path) -> None:
    entry = named(1, 2)
    entry["objects"]["01"] = {"category": "other", "frames": STEMS}
    write_meta(root / "train/meta.json", {"a": entry, "b": named(1, 2)})
    row, problems = read_a(root)
    assert problems == {"object id that stands twice": 1}
    assert [item.category for item in row.objects] == ["box", "box"]


@pytest.mark.parametrize(
    ("name", "entry"),
    [("../b", named(1, 2)), ("/etc", named(1)), ("..\\b", named(1)), ("a", named(1, stems=["../../b/00000"]))],
)
def test_paths_that_climb_out(root: Path, name: str, entry: dict[str, Any]) -> None:
    write_meta(root / "train/meta.json", {name: entry, "b": named(1, 2)})
    row, problems = read_a(root)
    assert row is None
    assert problems == {"path leaves the folder": 1}


@pytest.mark.parametrize("name", ["c", "c" * 300])
def test_a_video_that_is_not_there(root: Path, name: str) -> None:
    write_meta(root / "train/meta.json", {name: named(1), "b": named(1, 2)})
    row, problems = read_a(root)
    assert row is None
    assert problems == {"missing folder of frames": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no whole JSON file"),
        ("[]", r"lacks \['videos'\]"),
        ('{"videos": [{"id": 1}]}', "must hold an object for each name"),
        ('{"videos": {"a": []}}', "must hold an object for each name"),
        ('{"videos": {"a": {"expressions": {}}}}', "video a lacks 'objects'"),
        ('{"videos": {"a": {"objects": []}}}', "has a list as 'objects'"),
        ('{"videos": {"a": {"objects": {"1": 3}}}}', "has a int as '1'"),
        ('{"videos": {"a": {"objects": {"1": {"frames": "all"}}}}}', "object 1 has a str as 'frames'"),
        ('{"videos": {"a": {"objects": {"cat": {}}}}}', "whole number above 0, got 'cat'"),
        ('{"videos": {"a": {"objects": {"0": {}}}}}', "whole number above 0, got '0'"),
    ],
)
def test_meta_files_of_another_release(root: Path, content: str, message: str) -> None:
    (root / "train/meta.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_split("youtube_vos_2019", root, "train")
    assert "meta.json" in str(caught.value)


# ---- LVOS ----


def make_lvos(root: Path, place: str, meta: str, split: str = "valid", **spans: Any) -> Path:
    maps = {f"{5 * t + 1:08d}": ids for t, ids in enumerate(TRUTH)}
    make_video(root / split / "JPEGImages" / "a", root / split / "Annotations" / "a", maps)
    objects = {
        key[1:]: {"frame_range": {"start": start, "end": "00000016", "frame_nums": "3"}} for key, start in spans.items()
    }
    write_meta(root / place / meta, {"a": {"objects": objects}})
    return root


@pytest.mark.parametrize(
    ("place", "meta", "split"),
    [
        ("valid", "valid_meta.json", "valid"),
        ("val", "val_meta.json", "val"),
        ("valid", "val_meta.json", "valid"),
        ("meta_jsons", "valid_meta.json", "val"),
        ("valid", "valid_meta_attribute.json", "valid"),
    ],
)
def test_places_of_the_meta_file(tmp_path: Path, place: str, meta: str, split: str) -> None:
    root = make_lvos(tmp_path, place, meta, split, o1="00000001", o2="00000011")
    assert named_format("lvos_v2").splits(root) == ("valid",)
    rows, problems = read_split("lvos_v2", root, "valid")
    assert not problems
    # Object 2 is in every mask; what a tracker is given is told.
    assert [(item.id, item.first, item.frames) for item in rows[0].objects] == [
        (1, 0, (0, 1, 2, 3)),
        (2, 2, (0, 1, 2, 3)),
    ]
    np.testing.assert_array_equal(id_maps(rows[0]), TRUTH)


def test_starts(tmp_path: Path) -> None:
    root = make_lvos(tmp_path, "valid", "valid_meta.json", o1=6, o2="00000002")
    rows, problems = read_split("lvos_v1", root, "valid")
    assert problems == {
        "missing picture": 1,  # frame 2 is none of every fifth
        "object not seen at its start, taken where it is seen next": 1,
    }
    assert [(item.id, item.first) for item in rows[0].objects] == [(1, 1), (2, 1)]


def test_captions_alone_are_enough(tmp_path: Path) -> None:
    make_lvos(tmp_path, "valid", "valid_expression_meta.json", o1="00000001", o2="00000001")
    path = tmp_path / "valid/valid_expression_meta.json"
    with pytest.raises(ValueError, match=r"valid_expression_meta\.json video a object 1 lacks 'caption'"):
        read_split("lvos_v1", tmp_path, "valid")
    content = json.loads(path.read_text())
    content["videos"]["a"]["objects"]["1"]["caption"] = " the first box "
    content["videos"]["a"]["objects"]["2"]["caption"] = " "
    path.write_text(json.dumps(content))
    rows, problems = read_split("lvos_v1", tmp_path, "valid")
    assert problems == {"empty sentence": 1}
    assert [(item.sentences, item.sentence_ids) for item in rows[0].objects] == [(("the first box",), ()), ((), ())]


def test_lvos_without_its_meta_file(tmp_path: Path) -> None:
    make_lvos(tmp_path, "elsewhere", "valid_meta.json", o1="00000001")
    with pytest.raises(FileNotFoundError, match=r"expected in it: valid/valid_meta\.json"):
        read_split("lvos_v1", tmp_path, "valid")


# ---- MOSE ----


@pytest.mark.parametrize("objects", [["1", "2"], {"1": {"category": "box"}, "2": {}}])
@pytest.mark.parametrize("place", ["train/meta_train.json", "meta_train.json"])
def test_both_forms_of_mose(root: Path, objects: Any, place: str) -> None:
    write_meta(root / place, {"a": {"objects": objects}})
    rows, problems = read_split("mose", root, "train")
    assert not problems
    np.testing.assert_array_equal(id_maps(rows[0]), TRUTH)
    assert rows[0].objects[0].category == ("box" if isinstance(objects, dict) else "")


def test_every_frame_of_moses_train_has_a_mask(root: Path) -> None:
    mask(root, 2).unlink()
    (root / "train/JPEGImages/.notes").mkdir()
    rows, problems = read_split("mose", root, "train")
    assert problems == {"missing mask": 1}
    assert rows[0].annotated == (0, 1, 3)


def test_objects_of_mose_come_back(root: Path) -> None:
    save_ids(mask(root, 1), np.where(TRUTH[1] == 1, 9, 0))
    save_ids(mask(root, 2), np.where(TRUTH[2] == 1, 1, 0))
    rows, problems = read_split("mose", root, "train")
    assert not problems
    assert {item.id: (item.first, item.frames) for item in rows[0].objects} == {
        1: (0, (0, 2, 3)),
        2: (0, (0, 3)),
        9: (1, (1,)),
    }
    assert masks_of(rows[0], rows[0].objects[2])[1].sum() == (TRUTH[1] == 1).sum()


# ---- all readers ----


def test_readers_are_registered_and_say_who_they_are(tmp_path: Path) -> None:
    names = {"davis2017", "davis2017_unsupervised", "ref_davis17", "youtube_vos_2018", "youtube_vos_2019"}
    names |= {"ref_youtube_vos", "lvos_v1", "lvos_v2", "mose", "ovis", "mevis", "folder_videos"}
    assert names | {"folder_images"} <= set(FORMATS)
    for name in names | {"folder_images"}:
        layout = FORMATS[name]
        assert (layout.name, layout.table) == (name, "images" if name == "folder_images" else "videos")
        assert layout.title
        assert layout.licence
        assert layout.homepage.startswith("https://") != name.startswith("folder")
        with pytest.raises(FileNotFoundError, match="does not hold the data set; expected in it"):
            layout.splits(tmp_path)
