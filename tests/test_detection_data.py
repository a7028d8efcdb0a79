"""Detection and boxes: pictures with all their objects, from prepared tables and RefShapes to a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_sets import SIDES, image_row, video_row, write_prepared

from sam_uniref.data import Augmentation, Sample, SourceOptions, TrainingBatches, collate, open_source
from sam_uniref.data.detection import DetectionDataset
from sam_uniref.data.instances import PictureObjects, extent
from sam_uniref.data.prepared import ImageRow
from sam_uniref.data.prepared.masks import FilledBox
from sam_uniref.data.refshapes import SEEN_SHAPES, RefShapesDataset
from sam_uniref.data.sizes import ShortSides
from sam_uniref.detr.set_targets import set_targets
from sam_uniref.interfaces import Targets
from sam_uniref.transforms import ShortSideTransform, SquareTransform

SHORT = ShortSideTransform(96, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 192)
SQUARE = SquareTransform(64, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PLAIN = {"flip": 0.0, "crop": 0.0}


def detection_rows(root: Path, *, boxes_only: bool = False, numbers: tuple[int, ...] = (0, 1, 2)) -> list[ImageRow]:
    """Two objects a picture; rows of a picture are apart, as annotations are in files."""
    return [
        image_row(root, n, target=target, boxes_only=boxes_only, category="box") for target in (1, 2) for n in numbers
    ]


def opened(folder: Path, **options: Any) -> Any:
    return open_source("prepared", "d", "detection", SourceOptions(root=str(folder), **options))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "download"


# ---- Prepared tables ----


def test_a_sample_has_all_objects_of_its_picture(root: Path, tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "d", root, {"train": detection_rows(root)})
    source = opened(folder, **PLAIN)
    assert (len(source), source.classes, source.episodes, source.can_swap) == (3, 1, 3, False)
    for index in range(3):
        sample = source.sample(index, np.random.default_rng(0))
        assert (sample.task, sample.sentence, sample.references, sample.mask.any()) == ("detection", None, (), False)
        assert sample.objects.boxes.tolist() == [[2 + index, 4, 18 + index, 20], [30, 24, 50, 44]]
        assert sample.objects.labels.tolist() == [0, 0]
        for box, mask in zip(sample.objects.boxes, sample.objects.masks, strict=True):
            assert extent(mask) == tuple(box)


def test_boxes_where_a_mask_is_missing_or_not_wanted(root: Path, tmp_path: Path) -> None:
    rows = detection_rows(root)
    folder = write_prepared(tmp_path / "d", root, {"train": rows})
    without = write_prepared(tmp_path / "without", root, {"train": detection_rows(root, boxes_only=True)})
    for source in (opened(folder, **PLAIN, boxes=True), opened(without, **PLAIN)):
        objects = source.sample(1, np.random.default_rng(0)).objects
        assert objects.masks is None
        assert objects.boxes.tolist() == [[3, 4, 19, 20], [30, 24, 50, 44]]


def test_one_object_without_a_mask_costs_its_picture_the_masks_and_no_other(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*detection_rows(root)[:-3], *detection_rows(root, boxes_only=True)[3:4], *detection_rows(root)[4:]]
    source = opened(write_prepared(tmp_path / "mixed", root, {"train": rows}), **PLAIN)
    assert "1 of 3 pictures have an object without a mask" in caplog.text
    samples = [source.sample(index, np.random.default_rng(0)) for index in range(3)]
    assert [sample.objects.masks is None for sample in samples] == [True, False, False]
    assert [len(sample.objects) for sample in samples] == [2, 2, 2]
    batch = collate(samples, SHORT)
    targets = set_targets(
        Targets(batch.masks[:0], batch.instances), batch.input_sizes, batch.pixels.shape[-2:], torch.device("cpu")
    )
    assert targets.mask_index.tolist() == [[-1, -1], [0, 1], [2, 3]]


def test_classes_are_numbered_by_name_and_those_of_validation_last(root: Path, tmp_path: Path) -> None:
    def row(number: int, category: str) -> ImageRow:
        return image_row(root, number, category=category)

    splits = {"train": [row(0, "sheep"), row(1, "cow")], "val": [row(2, "bird"), row(3, "sheep")]}
    folder = write_prepared(tmp_path / "d", root, splits)
    source = opened(folder, validation="val", **PLAIN)
    assert source.pictures.categories == ("cow", "sheep", "bird")
    assert (source.classes, len(source), source.episodes, source.validation_split) == (3, 2, 2, "validation")
    assert [source.episode(k).objects.labels.tolist() for k in range(2)] == [[2], [1]]
    alone = opened(folder, one_class=True, **PLAIN)
    assert alone.classes == 1
    assert {label for k in range(2) for label in alone.sample(k, np.random.default_rng(0)).objects.labels} == {0}


def test_what_detection_is_not_trained_on(root: Path, tmp_path: Path) -> None:
    clips = write_prepared(tmp_path / "clips", root, {"train": [video_row(root, "walk")]})
    with pytest.raises(ValueError, match="holds videos, which serve"):
        opened(clips)
    with pytest.raises(ValueError, match="not on a folder"):
        open_source("folder", "d", "detection", SourceOptions(root=str(root)))
    folder = write_prepared(tmp_path / "d", root, {"train": detection_rows(root)})
    with pytest.raises(ValueError, match="only refshapes has together"):
        opened(folder, together=2)
    with pytest.raises(ValueError, match="no references to swap"):
        opened(folder).episode(0, swapped=True)


# ---- Phrases with boxes ----


def test_a_phrase_with_a_box_is_a_referring_sample(root: Path, tmp_path: Path) -> None:
    rows = [image_row(root, n, boxes_only=True, sentences=(f"box {n}",)) for n in range(2)]
    folder = write_prepared(tmp_path / "d", root, {"train": rows})
    options = SourceOptions(root=str(folder), boxes=True, **PLAIN)
    source = open_source("prepared", "d", "ris", options)
    sample = source.sample(0, np.random.default_rng(0))
    assert sample.sentence == "box 0"
    assert sample.objects is not None
    assert sample.objects.masks is None
    assert sample.objects.boxes.tolist() == [[2, 4, 18, 20]]
    assert extent(sample.mask) == (2, 4, 18, 20)
    assert sample.mask.sum() == 16 * 16
    batch = collate([sample, source.episode(1)], SHORT)
    assert batch.instances is not None
    assert [len(known) for known in batch.instances] == [1, 1]
    torch.testing.assert_close(batch.instances[0].boxes, torch.tensor([[4.0, 8.0, 36.0, 40.0]]))
    with pytest.raises(ValueError, match="boxes alone serve ris and detection, got 'vos'"):
        open_source("prepared", "d", "vos", SourceOptions(root=str(folder), boxes=True))


def test_masks_become_boxes_where_boxes_are_asked_for(root: Path, tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "d", root, {"train": [image_row(root, 0, sentences=("a box",))]})
    source = open_source("prepared", "d", "ris", SourceOptions(root=str(folder), boxes=True, flip=1.0, crop=0.0))
    sample = source.sample(0, np.random.default_rng(0))
    assert sample.objects.boxes.tolist() == [[SIDES[1] - 18, 4, SIDES[1] - 2, 20]]


def test_a_filled_box_is_all_pixels_that_it_touches() -> None:
    mask = FilledBox((1.5, 2.0, 2.0, 3.2), (8, 6)).decode()
    assert extent(mask) == (1, 2, 4, 6)
    assert mask.sum() == 12


# ---- Augmentation ----


def objects_of(masks: np.ndarray, *, boxes_alone: bool = False) -> PictureObjects:
    known = PictureObjects.of_masks(masks, np.arange(len(masks)))
    return PictureObjects(known.boxes, known.labels) if boxes_alone else known


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), boxes_alone=st.booleans(), factor=st.sampled_from([0.5, 1.0, 1.7]))
def test_augmentation_keeps_picture_boxes_and_masks_together(seed: int, boxes_alone: bool, factor: float) -> None:
    """Objects are of one colour each, so that the picture itself says where each one is."""
    masks = np.zeros((3, 48, 64), bool)
    for k, (top, left) in enumerate(((2, 4), (20, 40), (30, 6))):
        masks[k, top : top + 14, left : left + 16] = True
    image = np.zeros((48, 64, 3), np.uint8)
    for k in range(3):
        image[masks[k], k] = 255
    augment = Augmentation(crop=1.0, scale=(factor, factor))
    moved, left = augment.of_objects(image, objects_of(masks, boxes_alone=boxes_alone), np.random.default_rng(seed))
    assert len(left) >= 1
    for label in range(3):
        strong = (moved[..., label] > 250) & (moved[..., (label + 1) % 3] < 5)
        row = np.flatnonzero(left.labels == label)
        if not len(row):
            assert not strong.any()
        elif strong.any():  # else a sliver that scaling blurred
            np.testing.assert_allclose(left.boxes[row[0]], extent(strong), atol=0 if factor >= 1 else 2)
            assert left.masks is None or left.masks[row[0]][strong].all()


def test_a_crop_keeps_enough_of_one_object_and_lets_others_go() -> None:
    masks = np.zeros((2, 40, 40), bool)
    masks[0, :6, :6], masks[1, -6:, -6:] = True, True
    augment, gone = Augmentation(flip=0.0, crop=1.0, smallest=0.5), 0
    for seed in range(60):
        _, left = augment.of_objects(np.zeros((40, 40, 3), np.uint8), objects_of(masks), np.random.default_rng(seed))
        gone += len(left) < 2
        assert max(left.masks.sum((1, 2))) >= 0.7 * 36
        assert [extent(mask) for mask in left.masks] == [tuple(box) for box in left.boxes]
    assert gone > 4


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(30, 200), width=st.integers(30, 200))
def test_a_detectors_crop_is_measured_in_the_picture_it_is_brought_to(seed: int, height: int, width: int) -> None:
    mask = np.ones((height, width), bool)
    augment = Augmentation(flip=0.0, crop=1.0, keep=0.0, crop_sides=(384, 600), crop_at=(400, 500, 600))
    cropped, _, _ = augment(np.zeros((height, width, 3), np.uint8), mask, np.random.default_rng(seed))
    for got, side in zip(cropped.shape[:2], (height, width), strict=True):
        measured = [side * short / min(height, width) for short in (400, 500, 600)]
        allowed = [(min(m, 384) / m * side, min(m, 600) / m * side) for m in measured]
        assert min(low for low, _ in allowed) - 1 <= got <= max(high for _, high in allowed) + 1


def test_a_crop_in_the_pictures_own_pixels() -> None:
    augment = Augmentation(flip=0.0, crop=1.0, keep=0.0, crop_sides=(20, 30))
    sizes = []
    for seed in range(40):
        cropped, _, _ = augment(np.zeros((50, 90, 3), np.uint8), np.ones((50, 90), bool), np.random.default_rng(seed))
        sizes.append(cropped.shape[:2])
    assert all(20 <= side <= 30 for size in sizes for side in size)
    assert any(size[0] != size[1] for size in sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_sides": (30, 20)}, "crop_sides must be a smallest and a largest side"),
        ({"crop_at": (400,)}, "crop_at are positive short sides"),
    ],
)
def test_bad_crops(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


# ---- RefShapes ----


def test_refshapes_scenes_are_pictures_of_all_their_shapes() -> None:
    source = RefShapesDataset("d", "detection", side=64, length=20)
    ris = RefShapesDataset("r", "ris", side=64, length=20)
    assert source.classes == len(SEEN_SHAPES)
    for index in range(5):
        sample, scene = source.sample(index), source.scene(index)
        assert sample.objects is not None
        assert sample.image.tobytes() == ris.sample(index).image.tobytes()
        assert [SEEN_SHAPES[k] for k in sample.objects.labels] == [item.shape for item in scene.objects]
        assert any((mask == ris.sample(index).mask).all() for mask in sample.objects.masks)
    alone = RefShapesDataset("d", "detection", side=64, one_class=True, boxes=True)
    assert alone.classes == 1
    assert not alone.sample(0).objects.labels.any()
    assert alone.sample(0).objects.masks is None
    assert RefShapesDataset("d", "ris", boxes=True).sample(0).objects.boxes.shape == (1, 4)


# ---- Batches ----


def test_a_batch_has_the_objects_in_its_canvas(root: Path, tmp_path: Path) -> None:
    source = opened(write_prepared(tmp_path / "d", root, {"train": detection_rows(root)}), **PLAIN)
    batch = collate([source.episode(0), source.episode(1)], SHORT)
    assert batch.sentences is None
    assert batch.instances is not None
    assert tuple(batch.pixels.shape) == (2, 3, 96, 128)
    known = batch.instances[1]
    torch.testing.assert_close(known.boxes, torch.tensor([[6.0, 8.0, 38.0, 40.0], [60.0, 48.0, 100.0, 88.0]]))
    assert known.masks is not None
    assert [extent(mask.numpy() > 0) for mask in known.masks] == [(6, 8, 38, 40), (60, 48, 100, 88)]


def test_a_picture_without_objects_stays_in_its_batch() -> None:
    none = PictureObjects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 32, 32), bool))
    empty = Sample("e", "detection", np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), bool), objects=none)
    batch = collate([empty, RefShapesDataset("d", "detection", side=64).sample(0)], SHORT)
    assert batch.instances is not None
    assert len(batch.instances) == 2
    assert (len(batch.instances[0]), batch.instances[0].masks.shape) == (0, (0, 96, 96))
    absent = Sample("a", "ris", empty.image, empty.mask, "nothing").with_boxes_alone()
    assert len(collate([absent], SHORT).instances[0]) == 0


def test_a_short_side_is_drawn_for_every_sample_and_shared_by_its_frames() -> None:
    data = [RefShapesDataset("v", "vos", side=64, short_sides=ShortSides(64, 160, 400))]
    batches = TrainingBatches(data, SHORT, steps=12, batch_size=2, seed=0)  # type: ignore[arg-type]
    drawn = []
    for batch in (batches[k] for k in range(12)):
        query = [batch.input_sizes[k] for k in batch.query_index]
        assert [batch.input_sizes[k] for k in batch.reference_index[0]] == query
        assert max(size[0] for size in query) <= batch.pixels.shape[-1]
        drawn += [size[0] for size in query]
    assert set(drawn) == {64, 96, 128, 160}
    halves = [TrainingBatches(data, SHORT, 12, 1, seed=0, rank=r, processes=2) for r in range(2)]  # type: ignore[arg-type]
    for step in range(12):
        parts = [half[step] for half in halves]
        whole = batches[step]
        assert [p.input_sizes[int(p.query_index[0])] for p in parts] == [
            whole.input_sizes[k] for k in whole.query_index
        ]


def test_samples_of_one_picture_share_their_short_side() -> None:
    data = [RefShapesDataset("r", "ris", side=64, together=2, short_sides=ShortSides(64, 320, 400))]
    batches = TrainingBatches(data, SHORT, steps=6, batch_size=4, seed=0)  # type: ignore[arg-type]
    assert all(len(batches[k].input_sizes) == 2 for k in range(6))


def test_short_sides_are_no_squares() -> None:
    data = [RefShapesDataset("v", "vos", short_sides=ShortSides(64, 160, 400))]
    with pytest.raises(ValueError, match="short_sides do nothing for a model whose input is a square"):
        TrainingBatches(data, SQUARE, steps=1, batch_size=1)  # type: ignore[arg-type]
    for wrong in ((0, 10, 20), (20, 10, 30), (10, 20, 15)):
        with pytest.raises(ValueError, match="short sides must be positive"):
            ShortSides(*wrong)
    with pytest.raises(ValueError, match="the smallest and the largest"):
        open_source("refshapes", "r", "ris", SourceOptions(short_sides=[64]))


class Shapes:
    """Pictures that are told by their orientation alone."""

    def __init__(self, landscape: list[bool]) -> None:
        self.categories = ("a",)
        self.landscape = np.array(landscape)
        self.held_out = np.zeros(len(landscape), bool)

    def __len__(self) -> int:
        return len(self.landscape)

    def __getitem__(self, index: int) -> Any:
        wide = bool(self.landscape[index])
        size = (32, 48) if wide else (48, 32)
        one = PictureObjects.of_masks(np.ones((1, *size), bool), np.zeros(1, np.int64))

        class Picture:
            image = Path(f"{index}.jpg")

            def load(self) -> Any:
                return np.zeros((*size, 3), np.uint8), one

        return Picture()


@settings(max_examples=30, deadline=None)
@given(
    landscape=st.lists(st.booleans(), min_size=1, max_size=20),
    size=st.integers(1, 5),
    processes=st.integers(1, 2),
    accumulate=st.integers(1, 2),
)
def test_a_step_is_of_one_orientation(landscape: list[bool], size: int, processes: int, accumulate: int) -> None:
    data = [DetectionDataset("d", Shapes(landscape), augmentation=Augmentation(crop=0.0))]  # type: ignore[arg-type]
    samples = size * processes * accumulate
    steps = 2 * (-(-sum(landscape) // samples) + -(-(len(landscape) - sum(landscape)) // samples))

    def drawn(batch_size: int, accumulate: int, rank: int = 0, processes: int = 1) -> TrainingBatches:
        shared = (accumulate, 3, rank, processes, True)
        return TrainingBatches(data, SHORT, steps, batch_size, *shared)  # type: ignore[arg-type]

    seen: list[str] = []
    alone = drawn(samples, 1)
    ranks = [drawn(size, accumulate, rank, processes) for rank in range(processes)]
    for step in range(steps):
        parts = [batches[step * accumulate + micro] for micro in range(accumulate) for batches in ranks]
        assert len({wide > high for part in parts for high, wide in part.original_sizes}) == 1
        names = [name for part in parts for name in part.names]
        assert names == list(alone[step].names) == list(drawn(samples, 1)[step].names)
        seen += names
    assert set(seen[: len(seen) // 2]) == {f"d: {k}.jpg" for k in range(len(landscape))}


def test_sources_know_their_orientation(root: Path, tmp_path: Path) -> None:
    from folders import make_folder

    folder = make_folder(tmp_path / "folder")
    classes = open_source("folder", "f", "fss", SourceOptions(root=str(folder)))
    assert classes.landscape is not None
    assert classes.landscape.tolist() == [True] * len(classes)
    rows = [image_row(root, n, sentences=("a",)) for n in range(2)]
    prepared = write_prepared(tmp_path / "d", root, {"train": rows})
    for task in ("ris", "detection"):
        source = open_source("prepared", "d", task, SourceOptions(root=str(prepared)))  # type: ignore[arg-type]
        assert source.landscape is not None
        assert source.landscape.tolist() == [True, True]
    clips = write_prepared(tmp_path / "clips", root, {"train": [video_row(root, "walk")]})
    source = open_source("prepared", "c", "vos", SourceOptions(root=str(clips)))
    assert source.landscape is not None
    assert source.landscape.tolist() == [True] * len(source)
