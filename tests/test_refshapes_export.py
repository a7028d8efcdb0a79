"""RefShapes on disk: read back by the plainest possible reader, it is what was drawn."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sam_uniref.data.refshapes import LAYOUTS, SEEN_SHAPES, UNSEEN_SHAPES, RefShapesDataset, export, files
from sam_uniref.data.refshapes.export import class_picture
from sam_uniref.data.refshapes.polygons import mask_polygons

SIDE = 48


def filled(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    """How many polygons cover each pixel's middle, by counting borders to its left."""
    count = np.zeros((height, width), int)
    for polygon in polygons:
        xs, ys = polygon[0::2], polygon[1::2]
        inside = np.zeros((height, width), bool)
        for k in range(len(xs)):
            x, low, high = xs[k], *sorted((ys[k], ys[k - 1]))
            if xs[k] == xs[k - 1]:
                inside[int(low) : int(high), int(x) :] ^= True
        count += inside
    return count


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def ids_of(path: Path) -> np.ndarray:
    """The pixel values of a palette picture."""
    mask = Image.open(path)
    assert mask.mode == "P"
    assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    return np.asarray(mask)


def close(path: Path, image: np.ndarray) -> bool:
    """Whether a JPEG is of the picture."""
    return bool(np.abs(picture(path) - image).mean() < 6)


# ---- polygons ----


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=300, deadline=None)
def test_polygons_give_every_pixel_back(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(filled(mask_polygons(mask), *mask.shape), mask)


@given(arrays(bool, st.tuples(st.integers(2, 8), st.integers(2, 8))))
@settings(max_examples=50, deadline=None)
def test_coco_reads_the_polygons_alike(mask: np.ndarray) -> None:
    from pycocotools import mask as coco

    polygons = mask_polygons(mask)
    if polygons:
        decoded = coco.decode(coco.merge(coco.frPyObjects(polygons, *mask.shape)))
        np.testing.assert_array_equal(decoded.astype(bool), mask)
    else:
        assert not mask.any()


def test_a_ring_is_cut_in_two() -> None:
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    assert len(mask_polygons(mask)) == 2


# ---- layouts ----


def test_refcoco(tmp_path: Path) -> None:
    data = export("refcoco", tmp_path, 3, side=SIDE)
    drawn = RefShapesDataset("r", "ris", side=SIDE, episodes=6)
    instances = json.loads((data / "refcoco" / "instances.json").read_text())
    refs = pickle.loads((data / "refcoco" / "refs(unc).p").read_bytes(), encoding="latin-1")  # noqa: S301
    annotations = {a["id"]: a for a in instances["annotations"]}
    categories = {c["id"]: c["name"] for c in instances["categories"]}
    pictures = data / "images" / "mscoco" / "images" / "train2014"
    found = set()
    for place, image in enumerate(instances["images"]):
        split, index = ("train", place) if place < 3 else ("validation", place - 3)
        named = drawn.scene_sentences(index, split)
        objects = drawn.scene(index, split).objects
        assert (image["height"], image["width"]) == (SIDE, SIDE)
        assert close(pictures / image["file_name"], named.image)
        mine = [a for a in instances["annotations"] if a["image_id"] == image["id"]]
        assert len(mine) == len(objects)
        for number, (annotation, item) in enumerate(zip(mine, objects, strict=True), start=1):
            mask = named.ids == number
            np.testing.assert_array_equal(filled(annotation["segmentation"], SIDE, SIDE), mask)
            assert annotation["area"] == mask.sum()
            left, top, width, height = (int(v) for v in annotation["bbox"])
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            assert categories[annotation["category_id"]] == item.shape
            said = {text for target, text in named.sentences if target == number}
            ref = [r for r in refs if r["ann_id"] == annotation["id"]]
            assert {s["sent"] for r in ref for s in r["sentences"]} == said
            for r in ref:
                assert r["split"] == {"train": "train", "validation": "val"}[split]
                assert r["image_id"] == image["id"] == annotations[r["ann_id"]]["image_id"]
                assert r["sent_ids"] == [s["sent_id"] for s in r["sentences"]]
                assert all(s["tokens"] == s["sent"].split() for s in r["sentences"])
                found |= set(r["sent_ids"])
    assert found == set(range(len(found)))
    assert len({r["ref_id"] for r in refs}) == len(refs) > 10


def test_fss1000(tmp_path: Path) -> None:
    folder = export("fss1000", tmp_path, 2, side=SIDE)
    drawn = RefShapesDataset("f", "fss", side=SIDE)
    lists = {split: (folder / f"{split}.txt").read_bytes().decode() for split in ("trn", "val", "test")}
    assert "\r\n" in lists["test"]
    assert "\r" not in lists["trn"] + lists["val"]
    names = {split: text.split() for split, text in lists.items()}
    assert set(names["trn"]) <= set(SEEN_SHAPES)
    assert set(names["val"] + names["test"]) <= set(UNSEEN_SHAPES)
    assert not set(names["val"]) & set(names["test"])
    for name in (n for shapes in names.values() for n in shapes):
        assert len(list((folder / name).iterdir())) == 20
        for number in (1, 10):
            image, mask = class_picture(drawn, name, number)
            stored = np.asarray(Image.open(folder / name / f"{number}.png").convert("L"))
            assert set(np.unique(stored)) == {0, 255}
            np.testing.assert_array_equal(stored >= 128, mask)
            assert close(folder / name / f"{number}.jpg", image)


def test_davis2017(tmp_path: Path) -> None:
    folder = export("davis2017", tmp_path, 8, side=SIDE)
    drawn = RefShapesDataset("d", "vos", side=SIDE)
    left_out = 0
    for split, listed in (("train", "train"), ("validation", "val")):
        sequences = (folder / "ImageSets" / "2017" / f"{listed}.txt").read_text().split()
        assert len(sequences) == 8
        for index, sequence in enumerate(sequences):
            clip = drawn.clip(index, split)  # type: ignore[arg-type]
            count = int(ids_of(folder / "Annotations" / "480p" / sequence / "00000.png").max())
            left_out += len(clip.first_frames) - count
            for t in range(12):
                ids = ids_of(folder / "Annotations" / "480p" / sequence / f"{t:05d}.png")
                np.testing.assert_array_equal(ids, np.where(clip.ids[t] <= count, clip.ids[t], 0))
                assert t or set(np.unique(ids)) == set(range(count + 1))
            assert close(folder / "JPEGImages" / "480p" / sequence / "00011.jpg", clip.frames[11])
    assert left_out


def test_youtube_vos(tmp_path: Path) -> None:
    folder = export("youtube_vos", tmp_path, 8, side=SIDE)
    drawn = RefShapesDataset("y", "vos", side=SIDE)
    stems = [f"{5 * t:05d}" for t in range(12)]
    for split, name in (("train", "train"), ("validation", "valid")):
        videos = json.loads((folder / name / "meta.json").read_text())["videos"]
        assert len(videos) == 8
        for index, (video, entry) in enumerate(sorted(videos.items())):
            clip = drawn.clip(index, split)  # type: ignore[arg-type]
            assert sorted(p.stem for p in (folder / name / "JPEGImages" / video).iterdir()) == stems
            masks = {p.stem: ids_of(p) for p in (folder / name / "Annotations" / video).iterdir()}
            firsts = clip.first_frames
            for number, first in firsts.items():
                frames = entry["objects"][str(number)]["frames"]
                if split == "train":
                    assert frames == [s for s, ids in zip(stems, clip.ids, strict=True) if (ids == number).any()]
                else:
                    assert frames == stems[first:]
            if split == "train":
                np.testing.assert_array_equal(np.stack([masks[s] for s in stems]), clip.ids)
                continue
            # Only first appearances, each with the new objects alone.
            assert set(masks) == {stems[first] for first in firsts.values()}
            for number, first in firsts.items():
                np.testing.assert_array_equal(masks[stems[first]] == number, clip.ids[first] == number)
            assert sum(len(np.unique(m)) - 1 for m in masks.values()) == len(firsts)


def test_ref_youtube_vos(tmp_path: Path) -> None:
    folder = export("ref_youtube_vos", tmp_path, 3, side=SIDE)
    drawn = RefShapesDataset("y", "rvos", side=SIDE)
    said = {
        split: json.loads((folder / "meta_expressions" / split / "meta_expressions.json").read_text())["videos"]
        for split in ("train", "valid", "test")
    }
    meta = json.loads((folder / "train" / "meta.json").read_text())["videos"]
    assert len(said["train"]) == 3
    for index, (video, entry) in enumerate(sorted(said["train"].items())):
        clip = drawn.clip(index, "train")
        assert entry["frames"] == [f"{5 * t:05d}" for t in range(12)]
        ids = np.stack([ids_of(folder / "train" / "Annotations" / video / f"{stem}.png") for stem in entry["frames"]])
        np.testing.assert_array_equal(ids, clip.ids)
        pairs = {(int(e["obj_id"]), e["exp"]) for e in entry["expressions"].values()}
        assert pairs == {(number, text) for number, texts in clip.sentences.items() for text in texts}
        assert {e["obj_id"] for e in entry["expressions"].values()} == set(meta[video]["objects"])
        assert list(entry["expressions"]) == [str(k) for k in range(len(pairs))]
    # The list of valid has the test videos too; its own are those that have pictures.
    own = set(said["valid"]) - set(said["test"])
    assert len(said["valid"]) == 6
    assert own == {p.name for p in (folder / "valid" / "JPEGImages").iterdir()}
    assert not (folder / "valid" / "Annotations").exists()
    assert all("obj_id" not in e for v in said["valid"].values() for e in v["expressions"].values())


# ---- care with files ----


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, file: Path, **options: object) -> None:
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space"):
        files.write_ids(tmp_path / "mask.png", np.zeros((4, 4), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_bad_exports(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout must be one of"):
        export("pascal", tmp_path, 1)
    for layout in LAYOUTS:
        with pytest.raises(ValueError, match="count must be at least 1"):
            export(layout, tmp_path, 0)
    with pytest.raises(ValueError, match="side must be at least 32"):
        export("refcoco", tmp_path, 1, side=4)
    assert list(tmp_path.iterdir()) == []
