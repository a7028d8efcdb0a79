"""DAVIS 2017: which ids are objects, both tasks, the sentences of Ref-DAVIS17, and real sequences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import boxes, make_video
from PIL import Image
from reading import id_maps, read_split, severities

from sam_uniref.data.formats import named_format
from sam_uniref.images import load_id_map

STEMS = [f"{t:05d}" for t in range(3)]


def moving(*, late: bool = False) -> dict[str, np.ndarray]:
    """Three frames of two objects; a third one comes late."""
    maps = {}
    for t, stem in enumerate(STEMS):
        third = ((40, 2, 46, 20),) if late and t else ()
        maps[stem] = boxes((4, 2 + 4 * t, 20, 18 + 4 * t), (24, 30, 36, 50), *third)
    return maps


def make_davis(
    root: Path,
    sequences: dict[str, dict[str, np.ndarray]],
    *,
    masks: str = "Annotations",
    resolution: str = "480p",
    split: str = "val",
    year: str = "2017",
    masked: set[str] | None = None,
) -> Path:
    for name, maps in sequences.items():
        frames = root / "JPEGImages" / resolution / name
        make_video(frames, root / masks / resolution / name, maps, masked=masked)
    listed = root / "ImageSets" / year / f"{split}.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_bytes("".join(f"{name}\r\n" for name in sequences).encode() + b"\r\n")
    return root


# ---- the semi-supervised and the unsupervised task ----


def test_ids_above_the_first_masks_are_no_objects(tmp_path: Path) -> None:
    root = make_davis(tmp_path, {"dogs": moving(late=True)})
    rows, problems = read_split("davis2017", root, "val")
    assert problems == {"id above those of the first mask": 1}
    assert severities("davis2017", root, "val") == {"id above those of the first mask": "by rule"}
    maps = np.stack(list(moving().values()))
    np.testing.assert_array_equal(id_maps(rows[0]), maps)
    assert [(item.id, item.first) for item in rows[0].objects] == [(1, 0), (2, 0)]


def test_an_id_below_the_largest_that_comes_later_is_an_object(tmp_path: Path) -> None:
    maps = moving()
    maps["00000"][maps["00000"] == 1] = 0
    rows, problems = read_split("davis2017", make_davis(tmp_path, {"dogs": maps}), "val")
    assert not problems
    assert [(item.id, item.first) for item in rows[0].objects] == [(1, 1), (2, 0)]


def test_lists(tmp_path: Path) -> None:
    root = make_davis(tmp_path, {"dog's": moving(), "cat": moving()})
    path = root / "ImageSets" / "2017" / "val.txt"
    path.write_bytes(b"\xef\xbb\xbfdog's\r\n\r\n cat \r\ncat\r\n../../secret\r\nabsent\r\n")
    rows, problems = read_split("davis2017", root, "val")
    assert [row.video for row in rows] == ["dog's", "cat"]
    assert problems == {
        "video that is listed twice": 1,
        "path leaves the folder": 1,
        "missing folder of frames": 1,
    }


def test_splits_are_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not hold the data set; expected in it: ImageSets"):
        named_format("davis2017").splits(tmp_path)
    make_davis(tmp_path, {"a": moving()}, split="train")
    make_davis(tmp_path, {"b": moving()}, split="test-dev", masked={"00000"})
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("not-downloaded\n")
    assert named_format("davis2017").splits(tmp_path) == ("train", "test-dev")
    rows, problems = read_split("davis2017", tmp_path, "test-dev")
    assert not problems
    assert rows[0].annotated == (0,)
    assert [item.frames for item in rows[0].objects] == [(0,), (0,)]


def test_full_resolution_where_there_is_no_other(tmp_path: Path) -> None:
    root = make_davis(tmp_path, {"a": moving()}, resolution="Full-Resolution")
    rows, problems = read_split("davis2017", root, "val")
    assert not problems
    assert rows[0].frames[0] == "JPEGImages/Full-Resolution/a/00000.jpg"


def test_unsupervised(tmp_path: Path) -> None:
    make_davis(tmp_path, {"a": moving()}, masks="Annotations_unsupervised")
    make_davis(tmp_path, {"b": moving()}, split="test-dev", year="2019", masked=set())
    assert named_format("davis2017_unsupervised").splits(tmp_path) == ("val", "test-dev")
    rows, problems = read_split("davis2017_unsupervised", tmp_path, "val")
    assert not problems
    np.testing.assert_array_equal(id_maps(rows[0]), np.stack(list(moving().values())))
    rows, problems = read_split("davis2017_unsupervised", tmp_path, "test-dev")
    assert not problems
    assert (len(rows[0].frames), rows[0].annotated, rows[0].objects) == (3, (), ())


@pytest.mark.parametrize("lost", ["JPEGImages/480p/a/00000.jpg", "Annotations/480p/a/00000.png"])
def test_a_sequence_without_its_first_mask_is_left_out(tmp_path: Path, lost: str) -> None:
    root = make_davis(tmp_path, {"a": moving(), "b": moving()})
    (root / lost).unlink()
    rows, problems = read_split("davis2017", root, "val")
    assert [row.video for row in rows] == ["b"]
    assert problems["sequence without its first frame and mask"] == 1
    assert problems["missing picture" if lost.endswith("jpg") else "missing mask"] == 1


# ---- Ref-DAVIS17 ----

TEXTS = ("Davis17_annot1.txt", "Davis17_annot1_full_video.txt", "Davis17_annot2.txt", "Davis17_annot2_full_video.txt")


def write_texts(folder: Path, lines: dict[str, list[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in TEXTS:
        encoding = "latin-1" if "annot2" in name else "utf-8"
        (folder / name).write_bytes("".join(f"{line}\r\n" for line in lines.get(name, [])).encode(encoding))


def four(sequence: str, object_id: int, text: str) -> dict[str, list[str]]:
    return {name: [f'{sequence} {object_id} "{text} {k}"'] for k, name in enumerate(TEXTS)}


@pytest.mark.parametrize("place", ["DAVIS", "."])
def test_sentences_of_both_annotators(tmp_path: Path, place: str) -> None:
    root = make_davis(tmp_path / "DAVIS", {"cafe": moving()}, masks="Annotations_unsupervised")
    lines = {name: [*four("cafe", 2, "a café")[name], *four("cafe", 1, "a dog")[name]] for name in TEXTS}
    write_texts(tmp_path / place / "davis_text_annotations", lines)
    for given in (tmp_path, root):
        rows, problems = read_split("ref_davis17", given, "val")
        assert not problems
        first, second = rows[0].objects
        assert first.sentences == tuple(f"a dog {k}" for k in range(4))
        assert first.sentence_ids == ("0", "1", "2", "3")
        assert second.sentences == tuple(f"a café {k}" for k in range(4))
        assert second.sentence_ids == ("4", "5", "6", "7")
        np.testing.assert_array_equal(id_maps(rows[0]), np.stack(list(moving().values())))


def test_misspelt_sequences(tmp_path: Path) -> None:
    names = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}
    root = make_davis(tmp_path, {name: moving() for name in names.values()}, masks="Annotations_unsupervised")
    write_texts(
        root / "davis_text_annotations",
        {name: [f'{wrong} {n} "it"' for wrong in names for n in (1, 2)] for name in TEXTS},
    )
    rows, problems = read_split("ref_davis17", root, "val")
    assert problems == {"misspelt name of a sequence": 24}
    assert severities("ref_davis17", root, "val") == {"misspelt name of a sequence": "mended"}
    assert [len(item.sentences) for row in rows for item in row.objects] == [4] * 6


def test_broken_sentences(tmp_path: Path) -> None:
    root = make_davis(tmp_path, {"a": moving()}, masks="Annotations_unsupervised")
    make_davis(root, {"t": moving()}, masks="Annotations_unsupervised", split="train")
    lines = four("a", 1, "one")
    lines[TEXTS[0]] += ["a", 'a x "no id"', 'a 1 ""', 'a 1 "said twice"', 'nowhere 1 "lost"', 't 1 "of train"']
    lines[TEXTS[1]] += ['a 3 "not there"', "a 2 no quotes"]
    write_texts(root / "davis_text_annotations", lines)
    rows, problems = read_split("ref_davis17", root, "val")
    assert problems == {
        "line that is no sentence": 3,
        "second sentence of one annotator about an object": 1,
        "sentence about a sequence that no list has": 1,
        "object without one of its sentences": 6,
        "object without a mask": 1,
    }
    first, second = rows[0].objects
    assert first.sentences == ("one 0", "one 1", "one 2", "one 3")
    assert (second.sentences, second.sentence_ids) == (("no quotes",), ("5",))


def test_missing_and_foreign_texts(tmp_path: Path) -> None:
    root = make_davis(tmp_path, {"a": moving()}, masks="Annotations_unsupervised")
    with pytest.raises(FileNotFoundError, match="davis_text_annotations"):
        read_split("ref_davis17", root, "val")
    write_texts(root / "davis_text_annotations", four("a", 1, "it"))
    (root / "davis_text_annotations" / TEXTS[0]).write_bytes('a 1 "caf\xe9"\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"Davis17_annot1\.txt is not in utf-8"):
        read_split("ref_davis17", root, "val")
    (root / "davis_text_annotations" / TEXTS[3]).unlink()
    (root / "davis_text_annotations" / TEXTS[0]).write_text("")
    with pytest.raises(FileNotFoundError, match="Davis17_annot2_full_video"):
        read_split("ref_davis17", root, "val")


# ---- real sequences ----


@pytest.mark.shared
def test_real_sequences(shared: Path, tmp_path: Path) -> None:
    """Four published sequences' id maps, pixel by pixel; grey pictures stand for the frames that are not there."""
    masks = shared / "data" / "davis_results" / "gt"
    names = sorted(p.name for p in masks.iterdir())
    published = json.loads((shared / "reference" / "splits" / "davis2017_val.json").read_text())["sequences"]
    for name in names:
        (tmp_path / "Annotations" / "480p" / name).mkdir(parents=True)
        (tmp_path / "JPEGImages" / "480p" / name).mkdir(parents=True)
        for mask in sorted((masks / name).glob("*.png"))[:5]:
            shutil.copy(mask, tmp_path / "Annotations" / "480p" / name / mask.name)
            grey = Image.new("L", Image.open(mask).size, 128)
            grey.save(tmp_path / "JPEGImages" / "480p" / name / f"{mask.stem}.jpg")
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("\n".join(names))
    rows, problems = read_split("davis2017", tmp_path, "val")
    assert not problems
    for row in rows:
        assert [row.width, row.height] == published[row.video]["width_height"]
        first = load_id_map(masks / row.video / "00000.png")
        for t, ids in enumerate(id_maps(row)):
            expected = load_id_map(masks / row.video / f"{t:05d}.png")
            np.testing.assert_array_equal(ids, np.where(expected <= first.max(), expected, 0))


@pytest.mark.shared
def test_real_frames_whose_masks_come_later(shared: Path, tmp_path: Path) -> None:
    """Judo as YouTube-VOS's valid has its videos: a mask names new objects alone; one is a column too narrow."""
    clip = shared / "data" / "clips" / "judo"
    shutil.copytree(clip / "images", tmp_path / "valid" / "JPEGImages" / "judo")
    shutil.copytree(clip / "masks", tmp_path / "valid" / "Annotations" / "judo")
    stems = sorted(p.stem for p in (clip / "images").iterdir())
    starts = {"1": 0, "2": 5, "3": 8, "4": 13}
    objects = {key: {"category": "person", "frames": stems[first:]} for key, first in starts.items()}
    (tmp_path / "valid" / "meta.json").write_text(json.dumps({"videos": {"judo": {"objects": objects}}}))
    rows, problems = read_split("youtube_vos_2019", tmp_path, "valid")
    assert problems == {"mask off by at most 2 pixels, resized by nearest": 1}
    assert (rows[0].height, rows[0].width, len(rows[0].frames)) == (480, 854, 16)
    assert rows[0].annotated == (0, 5, 8, 13)
    assert {str(item.id): item.first for item in rows[0].objects} == starts
    for item in rows[0].objects:
        published = load_id_map(clip / "masks" / f"{item.first:05d}.png") == item.id
        ours = id_maps(rows[0])[item.first] == item.id
        assert abs(int(ours.sum()) - int(published.sum())) < 0.01 * published.sum()
