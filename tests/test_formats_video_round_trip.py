"""RefShapes written in the layouts of video data sets: their readers give back what was drawn, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from reading import id_maps, masks_of, read_split

from sam_uniref.data.formats import named_format
from sam_uniref.data.prepared import VideoRow, open_split, prepare
from sam_uniref.data.refshapes import RefShapesDataset, export
from sam_uniref.data.refshapes.dataset import NamedClip

SIDE, COUNT, LENGTH = 32, 3, 12
DRAWN = RefShapesDataset("drawn", "rvos", side=SIDE)


def clips(split: str, start: int = 0) -> list[NamedClip]:
    return [DRAWN.clip(start + i, split) for i in range(COUNT)]  # type: ignore[arg-type]


def check_objects(row: VideoRow, clip: NamedClip, numbers: Sequence[int]) -> None:
    """Ids, first frames and every pixel of so many of a clip's objects."""
    assert (row.height, row.width, len(row.frames)) == (SIDE, SIDE, LENGTH)
    assert [item.id for item in row.objects] == list(numbers)
    np.testing.assert_array_equal(id_maps(row), np.where(np.isin(clip.ids, numbers), clip.ids, 0))
    for item in row.objects:
        assert item.first == clip.first_frames[item.id]


def test_davis(tmp_path: Path) -> None:
    root = export("davis2017", tmp_path, COUNT, side=SIDE)
    for split, drawn in (("train", clips("train")), ("val", clips("validation"))):
        rows, problems = read_split("davis2017", root, split)
        assert not problems
        assert rows[0].frames[1].endswith("/00001.jpg")
        for row, clip in zip(rows, drawn, strict=True):
            check_objects(row, clip, [n for n, first in clip.first_frames.items() if first == 0])
            assert row.annotated == tuple(range(LENGTH))
            assert (root / row.frames[-1]).is_file()


def test_the_folder_above_davis_is_a_root_too(tmp_path: Path) -> None:
    root = export("davis2017", tmp_path, 1, side=SIDE)
    inner, _ = read_split("davis2017", root, "val")
    outer, _ = read_split("davis2017", tmp_path, "val")
    assert [f"DAVIS/{frame}" for frame in inner[0].frames] == list(outer[0].frames)
    assert inner[0].objects == outer[0].objects


@pytest.mark.parametrize("name", ["youtube_vos_2018", "youtube_vos_2019"])
def test_youtube_vos(tmp_path: Path, name: str) -> None:
    root = export("youtube_vos", tmp_path, COUNT, side=SIDE)
    rows, problems = read_split(name, root, "train")
    assert not problems
    for row, clip in zip(rows, clips("train"), strict=True):
        check_objects(row, clip, list(clip.first_frames))
        assert row.annotated == tuple(range(LENGTH))
        assert {item.category for item in row.objects} == {"shape"}
    rows, problems = read_split(name, root, "valid")
    assert not problems
    for row, clip in zip(rows, clips("validation"), strict=True):
        assert row.annotated == tuple(sorted(set(clip.first_frames.values())))
        assert {item.id: item.first for item in row.objects} == clip.first_frames
        for item in row.objects:
            # One mask an object: a later picture says nothing of those that came before.
            assert item.frames == (item.first,)
            np.testing.assert_array_equal(masks_of(row, item)[item.first], clip.ids[item.first] == item.id)


def test_ref_youtube_vos(tmp_path: Path) -> None:
    root = export("ref_youtube_vos", tmp_path, COUNT, side=SIDE)
    rows, problems = read_split("ref_youtube_vos", root, "train")
    assert not problems
    for row, clip in zip(rows, clips("train"), strict=True):
        check_objects(row, clip, list(clip.first_frames))
        assert {item.id: item.sentences for item in row.objects} == dict(clip.sentences)
        keys = [key for item in row.objects for key in item.sentence_ids]
        assert sorted(map(int, keys)) == list(range(len(keys)))
    for split, start in (("valid", 0), ("test", COUNT)):
        rows, problems = read_split("ref_youtube_vos", root, split)
        assert not problems
        assert [row.video for row in rows] == [f"validation{start + i:04d}" for i in range(COUNT)]
        for row, clip in zip(rows, clips("validation", start), strict=True):
            check_unmasked(row, [text for texts in clip.sentences.values() for text in texts])


def check_unmasked(row: VideoRow, said: list[str]) -> None:
    """An object an expression, and nothing known of where it is."""
    assert row.annotated == ()
    assert [(item.sentences, item.sentence_ids) for item in row.objects] == [
        ((text,), (str(key),)) for key, text in enumerate(said)
    ]
    assert {(item.id, item.first, item.frames, item.rles) for item in row.objects} == {(0, -1, (), ())}


@pytest.mark.parametrize("name", ["lvos_v1", "lvos_v2"])
def test_lvos(tmp_path: Path, name: str) -> None:
    root = export("lvos", tmp_path, COUNT, side=SIDE)
    for split, drawn in (("train", clips("train")), ("valid", clips("validation"))):
        rows, problems = read_split(name, root, split)
        assert not problems
        for row, clip in zip(rows, drawn, strict=True):
            check_objects(row, clip, list(clip.first_frames))
            assert {item.id: item.sentences for item in row.objects} == {
                number: texts[:1] for number, texts in clip.sentences.items()
            }
            assert row.frames[1].endswith("/00000006.jpg")
    rows, problems = read_split(name, root, "test")
    assert not problems
    for row, clip in zip(rows, clips("validation", COUNT), strict=True):
        assert {item.id: item.first for item in row.objects} == clip.first_frames
        assert row.annotated == tuple(sorted(set(clip.first_frames.values())))
        assert not any(item.sentences for item in row.objects)


def test_mose(tmp_path: Path) -> None:
    root = export("mose", tmp_path, COUNT, side=SIDE)
    rows, problems = read_split("mose", root, "train")
    assert not problems
    for row, clip in zip(rows, clips("train"), strict=True):
        check_objects(row, clip, list(clip.first_frames))
    valid, problems = read_split("mose", root, "valid")
    assert not problems
    for row, clip in zip(valid, clips("validation"), strict=True):
        assert row.annotated == (0,)
        np.testing.assert_array_equal(id_maps(row)[0], clip.ids[0])
        assert not id_maps(row)[1:].any()
    # Without the meta files the masks alone say the same.
    for split in ("train", "valid"):
        (root / split / f"meta_{split}.json").unlink()
    assert read_split("mose", root, "train") == (rows, {})
    assert read_split("mose", root, "valid") == (valid, {})


def test_ovis(tmp_path: Path) -> None:
    root = export("ovis", tmp_path, COUNT, side=SIDE)
    assert named_format("ovis").splits(root) == ("train",)
    rows, problems = read_split("ovis", root, "train")
    assert not problems
    for row, clip in zip(rows, clips("train"), strict=True):
        check_objects(row, clip, list(clip.first_frames))
        assert row.annotated == tuple(range(LENGTH))
        assert {item.category for item in row.objects} == {""}


def test_mevis(tmp_path: Path) -> None:
    root = export("mevis", tmp_path, COUNT, side=SIDE)
    for split, drawn in (("train", clips("train")), ("valid_u", clips("validation"))):
        rows, problems = read_split("mevis", root, split)
        assert not problems
        for row, clip in zip(rows, drawn, strict=True):
            said = [({n}, text) for n, texts in clip.sentences.items() for text in texts]
            said.append((set(clip.first_frames), "all shapes"))
            assert [item.id for item in row.objects] == list(range(1, len(said) + 1))
            for item, (meant, text) in zip(row.objects, said, strict=True):
                assert (item.sentences, item.sentence_ids) == ((text,), (str(item.id - 1),))
                masks = masks_of(row, item)
                assert item.first == min(masks)
                for t in range(LENGTH):
                    expected = np.isin(clip.ids[t], list(meant))
                    np.testing.assert_array_equal(masks.get(t, np.zeros_like(expected)), expected)
    rows, problems = read_split("mevis", root, "valid")
    assert not problems
    for row, clip in zip(rows, clips("validation", COUNT), strict=True):
        check_unmasked(row, [*(text for texts in clip.sentences.values() for text in texts), "all shapes"])


def test_prepared_in_processes(tmp_path: Path) -> None:
    root = export("mevis", tmp_path, COUNT, side=SIDE)
    layout = named_format("mevis")
    info = prepare(layout, root, tmp_path / "out", splits=("train",), workers=2)
    assert info.splits["train"] == {"shards": 1, "rows": COUNT, "problems": []}
    prepared = open_split(tmp_path / "out" / "mevis", "train")
    rows, _ = read_split("mevis", root, "train")
    assert prepared["video"][:] == [row.video for row in rows]
    assert prepared[0]["objects"][0]["rles"] == list(rows[0].objects[0].rles)
