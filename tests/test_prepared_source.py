"""Prepared data sets as sources of samples: what is drawn, what is left out, what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from folders import boxes
from prepared_sets import image_row, video_row, write_prepared

from sam_uniref.data import SourceOptions, TrainingBatches, open_source
from sam_uniref.data.prepared.source import open_objects
from sam_uniref.transforms import SquareTransform

TRANSFORM = SquareTransform(64, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PLAIN = {"flip": 0.0, "crop": 0.0}


def options(root: Path, **values: object) -> SourceOptions:
    return SourceOptions(root=str(root), **(PLAIN | values))  # type: ignore[arg-type]


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """12 pictures of class a and 3 of class b to train on, 3 of class c to validate on."""
    root = tmp_path / "download"
    splits = {
        "train": [image_row(root, n, category="a") for n in range(12)]
        + [image_row(root, n, category="b") for n in range(3)],
        "val": [image_row(root, n, category="c") for n in range(3)],
    }
    return write_prepared(tmp_path / "fss", root, splits)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    root = tmp_path / "download"
    rows = [video_row(root, "walk", sentences=("the moving box", "it")), video_row(root, "run")]
    return write_prepared(tmp_path / "clips", root, {"train": rows, "valid": [video_row(root, "stand")]}, shard=1)


def test_images_load_as_they_were_written(classes: Path) -> None:
    objects = open_objects(classes, "vos")
    assert len(objects) == 15
    image, mask = objects[13].load()
    np.testing.assert_array_equal(mask, boxes((4, 3, 20, 19)) == 1)
    assert image.shape == (48, 64, 3)
    assert objects[13].image.name == "b1.jpg"


def test_supports_are_fixed_by_the_order_of_names_or_drawn(classes: Path) -> None:
    source = open_source("prepared", "fss", "fss", options(classes, shots=2))
    assert (len(source), source.episodes, source.validation_split) == (15, 15, "training")
    names = {n: open_objects(classes, "fss")[n].load()[0] for n in range(12)}
    fixed = source.episode(5)
    # As text: a0, a1, a10, a11, a2 ...
    np.testing.assert_array_equal(fixed.references[0].image, names[0])
    np.testing.assert_array_equal(fixed.references[1].image, names[1])
    first = source.episode(0)
    np.testing.assert_array_equal(first.references[1].image, names[10])
    drawn = open_source("prepared", "fss", "fss", options(classes, shots=5, supports="drawn"))
    pictures = [r.image.tobytes() for index in range(12) for r in drawn.episode(index).references]
    assert len(set(pictures)) > 8
    for n in range(12):
        episode = drawn.episode(n)
        assert all(not np.array_equal(episode.image, reference.image) for reference in episode.references)
    with pytest.raises(ValueError, match="supports must be one of"):
        open_source("prepared", "fss", "fss", options(classes, supports="random"))


def test_a_split_validates(classes: Path) -> None:
    source = open_source("prepared", "fss", "fss", options(classes, validation="val"))
    assert (len(source), source.episodes, source.validation_split) == (15, 3, "validation")
    assert all("pictures/c" in source.episode(n).name for n in range(3))
    assert not any("pictures/c" in source.sample(i, np.random.default_rng(0)).name for i in range(15))


def test_stills_are_pseudo_clips(classes: Path) -> None:
    source = open_source("prepared", "stills", "vos", options(classes))
    sample = source.sample(3, np.random.default_rng(0))
    np.testing.assert_array_equal(sample.image, sample.references[0].image)


def test_objects_of_clips_are_drawn_with_their_frames(clips: Path) -> None:
    source = open_source("prepared", "clips", "vos", options(clips, frame_range=2, validation="valid"))
    assert (len(source), source.episodes) == (4, 10)
    pairs = set()
    for seed in range(60):
        sample = source.sample(0, np.random.default_rng(seed))
        columns = [int(np.flatnonzero(m.any(axis=0))[0]) for m in (sample.references[0].mask, sample.mask)]
        earlier, later = ((column - 2) // 4 for column in columns)
        assert 1 <= later - earlier <= 2
        pairs.add((earlier, later))
    assert len(pairs) == 9  # all of them: 5 neighbours and 4 at a distance of two
    late = {source.sample(1, np.random.default_rng(seed)).name for seed in range(40)}
    assert {name.split()[-3].split("/")[-1] for name in late} == {f"{f:05d}.jpg" for f in (3, 4, 5)}
    assert all(name.endswith("object 5") for name in late)


def test_sentences_of_clips(clips: Path) -> None:
    source = open_source("prepared", "clips", "rvos", options(clips))
    assert (len(source), source.episodes) == (1, 12)  # one object with sentences; each of 2 in each of 6 frames
    assert {source.sample(0, np.random.default_rng(s)).sentence for s in range(20)} == {"the moving box", "it"}
    assert {source.episode(k).sentence for k in range(12)} == {"the moving box", "it"}
    alone = source.sample(0, np.random.default_rng(0), language_only=True)
    assert not alone.references


def test_evaluated_pictures_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "download"
    out = tmp_path / "prepared"
    rows = [image_row(root, n, coco_id=100 + n) for n in range(6)]
    coco = write_prepared(out / "coco", root, {"train": rows})
    with pytest.raises(ValueError, match="says which; prepare refcoco"):
        open_source("prepared", "coco", "vos", options(coco))
    assert len(open_source("prepared", "coco", "vos", options(coco, keep_evaluation_images=True))) == 6
    referring = {
        "train": [image_row(root, 0, sentences=("a",), coco_id=100), image_row(root, 1, sentences=("b",), coco_id=101)],
        "val": [image_row(root, 2, sentences=("c", "d"), coco_id=102)],
        "testA": [image_row(root, 1, sentences=("e",), coco_id=101), image_row(root, 9, sentences=("f",), coco_id=109)],
    }
    refcoco = write_prepared(out / "refcoco", root, referring)
    with caplog.at_level(logging.INFO):
        source = open_source("prepared", "coco", "vos", options(coco))
    assert "coco: 2 of 6 objects are left out" in caplog.text
    assert {source.sample(i, np.random.default_rng(0)).name.split("/")[-1] for i in range(len(source))} == {
        f"box{n}.jpg object 1" for n in (0, 3, 4, 5)
    }
    # Also within the set itself: its splits by object share pictures. What validates stays.
    own = open_source("prepared", "refcoco", "ris", options(refcoco, validation="testA"))
    assert (len(own), own.episodes) == (1, 2)


def test_boxes_alone_serve_no_mask_task(tmp_path: Path) -> None:
    root = tmp_path / "download"
    rows = [image_row(root, n, boxes_only=n < 2, sentences=("a",)) for n in range(4)]
    mixed = write_prepared(tmp_path / "mixed", root, {"train": rows, "boxes": rows[:2]})
    assert len(open_objects(mixed, "ris")) == 2
    with pytest.raises(ValueError, match="boxes alone can't serve vos"):
        open_objects(mixed, "vos", split="boxes")


def test_bad_input(classes: Path, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no prepared data set"):
        open_source("prepared", "x", "vos", options(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="has the splits"):
        open_source("prepared", "x", "vos", options(classes, split="test"))
    with pytest.raises(ValueError, match=r"is one of its splits' names, got 0\.1"):
        open_source("prepared", "x", "vos", options(classes, validation=0.1))
    with pytest.raises(ValueError, match="another split than the one that is trained on"):
        open_source("prepared", "x", "vos", options(classes, validation="train"))
    with pytest.raises(ValueError, match="holds videos, which serve"):
        open_source("prepared", "x", "fss", options(clips))
    with pytest.raises(FileNotFoundError, match="say where with download="):
        open_source("prepared", "x", "vos", options(classes, download=str(tmp_path / "moved")))
    (tmp_path / "download" / "pictures" / "a0.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="is not a whole image"):
        open_objects(classes, "vos")[0].load()


def test_a_moved_download_is_found(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "download").rename(tmp_path / "moved")
    source = open_source("prepared", "fss", "fss", options(classes, download=str(tmp_path / "moved")))
    assert source.sample(0, np.random.default_rng(0)).mask.any()


def test_a_replaced_picture_is_refused(classes: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "download" / "pictures" / "a0.jpg")
    with pytest.raises(ValueError, match="is 32x32, but 64x48 when it was prepared"):
        open_objects(classes, "vos")[0].load()


def test_batches_are_the_same_for_any_number_of_workers(classes: Path, clips: Path) -> None:
    import torch.utils.data

    sources = [
        open_source("prepared", "fss", "fss", options(classes, flip=0.5, crop=0.5, scale=[0.7, 1.4], color=0.3)),
        open_source("prepared", "clips", "vos", options(clips, flip=0.5)),
    ]
    batches = TrainingBatches(sources, TRANSFORM, steps=6, batch_size=2, seed=3)
    alone = [batches[i] for i in range(6)]
    for workers in (1, 2):
        loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=workers)
        for mine, theirs in zip(alone, loader, strict=True):
            assert mine.names == theirs.names
            assert torch.equal(mine.pixels, theirs.pixels)
            assert torch.equal(mine.masks, theirs.masks)
