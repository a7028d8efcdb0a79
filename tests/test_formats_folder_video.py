"""A user's own folder as two data sets: pictures and clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import SIZE, boxes, make_folder, save_ids
from reading import id_maps, read_split

from sam_uniref.data.folder import read_folder
from sam_uniref.data.formats import named_format
from sam_uniref.data.prepared import EncodedMask, decode_mask, open_split, prepare
from sam_uniref.images import load_id_map, load_mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "own")


def say(root: Path, **record: object) -> None:
    with (root / "expressions.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def test_pictures_are_those_that_training_reads(root: Path) -> None:
    rows, problems = read_split("folder_images", root, "train")
    assert not problems
    by_target = {row.target: row for row in rows}
    assert len(by_target) == len(rows)
    classes = {f"{o.image.relative_to(root).as_posix()}/{o.object_id}": o for o in read_folder(root, "fss")}
    named = {
        f"{o.image.relative_to(root).as_posix()}/{o.object_id}": o for o in read_folder(root, "ris") if o.sentences
    }
    stills = {target: o for target, o in named.items() if "clips/" not in target}
    assert classes.keys() | stills.keys() <= by_target.keys()
    for target, item in (classes | stills).items():
        row = by_target[target]
        expected = load_mask(item.mask, (row.height, row.width), object_id=item.object_id)
        np.testing.assert_array_equal(decode_mask(EncodedMask(row.rle, (row.height, row.width))), expected)
        assert row.category == (item.group if target in classes else "")
        assert row.sentences == (named[target].sentences if target in named else ())
        ys, xs = np.nonzero(expected)
        assert row.box == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)


def test_clips_are_those_that_training_reads(root: Path) -> None:
    rows, problems = read_split("folder_videos", root, "train")
    assert not problems
    (row,) = rows
    assert (row.video, len(row.frames), row.annotated, (row.height, row.width)) == ("walk", 4, (0, 2), SIZE)
    for t in row.annotated:
        np.testing.assert_array_equal(id_maps(row)[t], load_id_map(root / "clips/walk/masks" / f"{t:05d}.png"))
    said = {o.object_id: o.sentences for o in read_folder(root, "rvos")}
    assert {item.id: item.sentences for item in row.objects} == said
    assert all(item.sentence_ids == () for item in row.objects)
    assert any(said.values())


def test_frames_that_are_spoken_of_are_pictures_too(root: Path) -> None:
    say(root, image="clips/walk/images/00002.jpg", object=2, text="the box that stays")
    rows, problems = read_split("folder_images", root, "train")
    assert not problems
    named = {row.target: row.sentences for row in rows if row.image.startswith("clips/")}
    assert named == {
        "clips/walk/images/00002.jpg/1": (),
        "clips/walk/images/00002.jpg/2": ("the box that stays",),
    }


def test_sentences_about_nothing_are_counted(root: Path) -> None:
    say(root, image="classes/disc/0.jpg", object=7, text="an id that the mask lacks")
    say(root, image="classes/disc/99.jpg", text="a picture that is not there")
    say(root, clip="wakl", text="a misspelt clip")
    say(root, clip="walk", object=7, text="an id that no mask has")
    _, problems = read_split("folder_images", root, "train")
    assert problems == {
        "sentence about nothing that has a mask": 1,
        "missing picture or mask that a sentence is about": 1,
    }
    _, problems = read_split("folder_videos", root, "train")
    assert problems == {"sentence about nothing that has a mask": 1, "object without a mask": 1}


def test_pictures_without_masks_are_left_out(root: Path) -> None:
    (root / "classes/disc/0.png").unlink()
    shutil.rmtree(root / "clips/walk/masks")
    rows, problems = read_split("folder_images", root, "train")
    assert "classes/disc/0.jpg" not in {row.image for row in rows}
    # But a sentence is about it, so somebody misses it.
    assert problems == {"missing picture or mask that a sentence is about": 1}
    with pytest.raises(FileNotFoundError, match=r"expected in it: clips/<name>/images"):
        named_format("folder_videos").splits(root)


def test_broken_files(root: Path) -> None:
    (root / "classes/disc/1.jpg").write_bytes(b"")
    save_ids(root / "classes/disc/2.png", boxes((1, 1, 9, 9))[:20])
    mask = root / "clips/walk/masks/00002.png"
    mask.write_bytes(mask.read_bytes()[:40])
    rows, problems = read_split("folder_images", root, "train")
    assert problems == {"broken or cut-off picture": 1, "mask of another size than its picture": 1}
    assert not {"classes/disc/1.jpg", "classes/disc/2.jpg"} & {row.image for row in rows}
    rows, problems = read_split("folder_videos", root, "train")
    assert problems == {"broken mask, or one that is no id map": 1}
    assert rows[0].annotated == (0,)


def test_what_a_user_draws_anew_is_read_again(root: Path, tmp_path: Path) -> None:
    for name, mask in (("folder_images", "classes/disc/0.png"), ("folder_videos", "clips/walk/masks/00000.png")):
        layout = named_format(name)
        prepare(layout, root, tmp_path / "out", workers=0)
        save_ids(root / mask, boxes((0, 0, 9, 9), (20, 20, 30, 30), (40, 40, 45, 45)))
        prepare(layout, root, tmp_path / "out", workers=0)
        fresh, _ = read_split(name, root, "train")
        prepared = open_split(tmp_path / "out" / name, "train")
        if name == "folder_videos":
            assert [o["rles"] for o in prepared[0]["objects"]] == [list(o.rles) for o in fresh[0].objects]
        else:
            assert prepared["rle"][:] == [row.rle for row in fresh]


def test_sentences_are_not_needed(root: Path) -> None:
    (root / "expressions.jsonl").unlink()
    rows, problems = read_split("folder_images", root, "train")
    assert not problems
    assert "images/still.jpg" in {row.image for row in rows}
    assert not any(row.sentences for row in rows)


@pytest.mark.shared
def test_real_clips(shared: Path) -> None:
    root = shared / "data" / "clips"
    rows, problems = read_split("folder_videos", root, "train")
    assert problems == {"mask off by at most 2 pixels, resized by nearest": 1}
    bike, judo = rows
    assert (bike.video, bike.annotated, [item.id for item in bike.objects]) == ("bike", (0,), [1, 2])
    np.testing.assert_array_equal(id_maps(bike)[0], load_id_map(root / "bike/masks/00000.png"))
    assert judo.annotated == (0, 5, 8, 13)
    assert {item.id: item.first for item in judo.objects} == {1: 0, 2: 5, 3: 8, 4: 13}
    for t in (0, 8, 13):
        np.testing.assert_array_equal(id_maps(judo)[t], load_id_map(root / f"judo/masks/{t:05d}.png"))
