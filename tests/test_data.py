"""Sentences, augmentation, the folder reader, episodes and the schedule of batches."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import boxes, make_folder, save_ids, save_picture
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.data import Augmentation, EpisodeDataset, MixtureSchedule, ReferenceBatch, TrainingBatches, collate
from sam_uniref.data.folder import read_folder
from sam_uniref.data.readers import SourceOptions, open_source
from sam_uniref.data.sentences import mirror_sentence, names_position
from sam_uniref.transforms import SquareTransform

TRANSFORM = SquareTransform(64, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("folder"))


# ---- sentences ----


@pytest.mark.parametrize(
    ("sentence", "mirrored"),
    [
        ("the man on the left", "the man on the right"),
        ("Right of the LEFT one", "Left of the RIGHT one"),
        ("bright cleft upright leftover", "bright cleft upright leftover"),
        ("leftmost, right-hand side", "rightmost, left-hand side"),
        ("lefthand righthand", "righthand lefthand"),
    ],
)
def test_mirror_swaps_words_not_letters(sentence: str, mirrored: str) -> None:
    assert mirror_sentence(sentence) == mirrored


@given(st.lists(st.sampled_from(["left", "right", "bright", "Left", "a", "leftmost", "man"]), min_size=1))
def test_mirror_twice_is_the_sentence(words: list[str]) -> None:
    assert mirror_sentence(mirror_sentence(" ".join(words))) == " ".join(words)


def test_position_words() -> None:
    assert names_position("second from the left")
    assert names_position("the bottom one")
    assert not names_position("a bright red car")


# ---- augmentation ----


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), top=st.integers(0, 40), left=st.integers(0, 50))
def test_augmentation_keeps_picture_and_mask_together(seed: int, top: int, left: int) -> None:
    mask = np.zeros((48, 64), bool)
    mask[top : top + 8, left : left + 12] = True
    image = np.repeat(mask[:, :, None] * np.uint8(200), 3, axis=2)
    augmented, moved, _ = Augmentation(crop=1.0)(image, mask, np.random.default_rng(seed))
    np.testing.assert_array_equal(augmented[..., 0] == 200, moved)
    assert moved.sum() >= 0.7 * mask.sum()


def test_flip_is_a_flip() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    mask = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool)
    flipped, moved, was = Augmentation(flip=1.0, crop=0.0)(image, mask, np.random.default_rng(0))
    assert was
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    np.testing.assert_array_equal(moved, mask[:, ::-1])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.3, 3.0))
def test_scaling_keeps_picture_and_mask_together(seed: int, factor: float) -> None:
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:44] = True
    image = np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)
    scaled, moved, _ = Augmentation(flip=0, crop=0, scale=(factor, factor))(image, mask, np.random.default_rng(seed))
    assert scaled.shape[:2] == moved.shape
    # Borders are blurred, the margin is grey; what is clearly white is the object.
    assert (moved[scaled[..., 0] > 250]).all()
    if factor < 1:
        assert moved.shape == mask.shape
        assert moved.sum() == pytest.approx(mask.sum() * factor**2, rel=0.3)
    else:
        assert moved.sum() >= 0.7 * mask.sum()


def test_a_sentence_about_places_forbids_scaling() -> None:
    mask = np.eye(16, dtype=bool)
    image = np.zeros((16, 16, 3), np.uint8)
    augmented, _, _ = Augmentation(flip=0, crop=1, scale=(0.5, 0.5))(
        image, mask, np.random.default_rng(0), may_crop=False
    )
    np.testing.assert_array_equal(augmented, image)


def test_a_tiny_target_survives_scaling() -> None:
    mask = np.zeros((32, 32), bool)
    mask[5, 7] = True
    image = np.zeros((32, 32, 3), np.uint8)
    for seed in range(20):
        assert Augmentation(scale=(0.2, 0.4))(image, mask, np.random.default_rng(seed))[1].any()


def test_colors_change_and_masks_do_not() -> None:
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    mask = np.eye(16, dtype=bool)
    jitter = Augmentation(flip=0, crop=0, color=0.4)
    first, moved, _ = jitter(image, mask, np.random.default_rng(0))
    again = jitter(image, mask, np.random.default_rng(0))[0]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(moved, mask)
    assert not np.array_equal(first, image)
    assert not np.array_equal(first, jitter(image, mask, np.random.default_rng(1))[0])


def test_augmentation_refuses_what_is_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"flip must be in 0-1, got 1\.5"):
        Augmentation(flip=1.5)
    with pytest.raises(ValueError, match="scale must be a smallest and a largest factor"):
        Augmentation(scale=(2.0, 1.0))


# ---- the folder reader ----


def test_reads_every_layout(folder: Path) -> None:
    assert [o.group for o in read_folder(folder, "fss")] == ["bar"] * 3 + ["disc"] * 3
    videos = read_folder(folder, "vos")
    assert [(o.group, o.frame) for o in videos] == [
        ("walk/1", 0),
        ("walk/2", 0),
        ("walk/1", 2),
        ("walk/2", 2),
        ("still.jpg/1", None),
    ]
    named = {o.sentences: o.group for o in read_folder(folder, "ris")}
    assert named["the large box",] == "images/still.jpg/1"
    assert named["the walking box",] == "walk/1"
    assert all(o.sentences for o in read_folder(folder, "rvos"))


def test_root_may_be_the_classes_or_the_clips_themselves(folder: Path) -> None:
    assert len(read_folder(folder / "classes", "fss")) == 6
    assert len(read_folder(folder / "clips", "vos")) == 4


def test_masks_are_joined_by_stem_and_ids_kept(folder: Path) -> None:
    item = read_folder(folder, "vos")[3]
    image, mask = item.load()
    assert item.image.name == "00002.jpg"
    np.testing.assert_array_equal(mask, boxes((10, 11, 30, 26), (20, 40, 44, 60)) == 2)
    assert image.shape == (48, 64, 3)


def test_class_names_may_hold_anything(tmp_path: Path) -> None:
    for number in range(2):
        save_picture(tmp_path / "classes" / "{odd} abe's" / f"{number}.jpg", boxes((1, 1, 9, 9)), number)
        save_ids(tmp_path / "classes" / "{odd} abe's" / f"{number}.png", boxes((1, 1, 9, 9)))
    assert {o.group for o in read_folder(tmp_path, "fss")} == {"{odd} abe's"}


def test_hold_out_by_share_and_by_name(folder: Path) -> None:
    held_out = [o.image for o in read_folder(folder, "fss", validation=0.34) if o.held_out]
    assert len(held_out) == 2
    assert held_out == [o.image for o in read_folder(folder, "fss", validation=0.34) if o.held_out]
    by_class = read_folder(folder, "fss", validation=["bar"])
    assert [o.held_out for o in by_class] == [True] * 3 + [False] * 3
    with pytest.raises(ValueError, match=r"nothing is named \['nobody'\]"):
        read_folder(folder, "fss", validation=["nobody"])
    with pytest.raises(ValueError, match="must be in"):
        read_folder(folder, "fss", validation=1.0)


def test_bad_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_folder(tmp_path / "nowhere", "fss")
    (tmp_path / "classes" / "empty").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no annotated pictures for fss"):
        read_folder(tmp_path, "fss")
    with pytest.raises(FileNotFoundError, match="give their file with expressions="):
        read_folder(tmp_path, "ris")
    with pytest.raises(ValueError, match="no reader 'coco_panoptic'"):
        open_source("coco_panoptic", "coco", "vos", SourceOptions())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "../../secret.jpg", "text": "a"}', "leaves the folder"),
        ('{"image": "/etc/secret.jpg", "text": "a"}', "leaves the folder"),
        ('{"text": "a thing"}', "line 2"),
        ("not json", "line 2"),
        ('{"image": "images/still.jpg", "object": "two", "text": "a"}', "line 2"),
        ('{"image": "images/still.jpg", "text": "  "}', "the sentence is empty"),
        ('{"image": "images/still.jpg", "text": null}', "line 2"),
    ],
)
def test_bad_sentences_name_their_line(folder: Path, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "expressions.jsonl"
    file.write_text('{"clip": "walk", "object": 1, "text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_folder(folder, "ris", expressions=file)


def test_sentence_about_a_missing_picture(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "expressions.jsonl"
    file.write_text('{"image": "images/gone.jpg", "text": "a thing"}\n')
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        read_folder(folder, "ris", expressions=file)


def say(path: Path, *records: dict) -> Path:
    """A file of sentences."""
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n", encoding="utf-8")
    return path


def test_a_clips_frame_that_a_sentence_names_is_read_once(folder: Path, tmp_path: Path) -> None:
    file = say(
        tmp_path / "expressions.jsonl",
        {"image": "clips/walk/images/00000.jpg", "object": 1, "text": "the walker"},
        {"image": "./images/still.jpg", "object": 1, "text": "the still"},
    )
    said = {o.group: o.sentences for o in read_folder(folder, "ris", expressions=file) if o.sentences}
    assert said == {"walk/1": ("the walker",), "images/still.jpg/1": ("the still",)}


def test_clip_names_may_hold_dots(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "walk.v1").symlink_to(folder / "clips" / "walk")
    file = say(tmp_path / "expressions.jsonl", {"clip": "walk.v1", "object": 1, "text": "the walker"})
    assert {o.group for o in read_folder(tmp_path, "ris", expressions=file) if o.sentences} == {"walk.v1/1"}


def test_a_sentence_about_nothing_is_named(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = say(
        tmp_path / "expressions.jsonl",
        {"clip": "walk", "object": 1, "text": "the walker"},
        {"clip": "walk", "object": 7, "text": "the seventh"},
        {"clip": "wlak", "object": 1, "text": "misspelt"},
    )
    read_folder(folder, "ris", expressions=file)
    assert "2 sentence(s) are about nothing" in caplog.text
    assert "object 7 of walk" in caplog.text


def test_odd_names_of_files(tmp_path: Path) -> None:
    """Upper-case suffixes, stems with dots, an operating system's notes, numbers without zeros in front."""
    for stem in ("a.b", "c"):
        save_picture(tmp_path / "classes" / "cat" / f"{stem}.JPG", boxes((1, 1, 9, 9)), 0)
        save_ids(tmp_path / "classes" / "cat" / f"{stem}.PNG", boxes((1, 1, 9, 9)))
    for suffix in (".jpg", ".png"):
        (tmp_path / "classes" / "cat" / f"._c{suffix}").write_bytes(b"notes")
    assert sorted(o.image.name for o in read_folder(tmp_path, "fss")) == ["a.b.JPG", "c.JPG"]
    for frame in (1, 2, 10):
        save_picture(tmp_path / "clips" / "walk" / "images" / f"{frame}.png", boxes((1, 1, 9, 9)), frame)
        save_ids(tmp_path / "clips" / "walk" / "masks" / f"{frame}.png", boxes((1, 1, 9, 9)))
    assert [(o.image.name, o.frame) for o in read_folder(tmp_path, "vos")] == [
        ("1.png", 0),
        ("2.png", 1),
        ("10.png", 2),
    ]


def test_a_mask_of_another_size_or_broken_is_named_at_once(tmp_path: Path) -> None:
    for number in range(3):
        save_picture(tmp_path / "classes" / "cat" / f"{number}.jpg", boxes((1, 1, 9, 9)), number)
        save_ids(tmp_path / "classes" / "cat" / f"{number}.png", boxes((1, 1, 9, 9)))
    save_ids(tmp_path / "classes" / "cat" / "1.png", boxes((1, 1, 9, 9))[:30])
    with pytest.raises(ValueError, match=r"cat/1\.png is 64x30 but its image is 64x48"):
        read_folder(tmp_path, "fss")
    (tmp_path / "classes" / "cat" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cat/1\.png is not a whole image"):
        read_folder(tmp_path, "fss")


def test_a_clip_is_held_out_whole(folder: Path) -> None:
    for share in (0.1, 0.5):
        held_out = {o.scene: o.held_out for o in read_folder(folder, "vos", validation=share)}
        assert sum(held_out.values()) == 1
        assert all(o.held_out == held_out[o.scene] for o in read_folder(folder, "vos", validation=share))
    named = read_folder(folder, "vos", validation="walk")  # type: ignore[arg-type] - as YAML may have it
    assert {o.scene for o in named if o.held_out} == {"walk"}
    with pytest.raises(ValueError, match="a share or a list of names, got None"):
        read_folder(folder, "vos", validation=None)  # type: ignore[arg-type]


# ---- episodes ----


def dataset(folder: Path, task: str, **options: object) -> EpisodeDataset:
    return EpisodeDataset(task, task, read_folder(folder, task), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["ris", "fss", "vos", "rvos"])
def test_samples_are_functions_of_index_and_seed(folder: Path, task: str) -> None:
    data = dataset(folder, task)
    for index in range(len(data)):
        first, second = (data.sample(index, np.random.default_rng(index)) for _ in range(2))
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.mask, second.mask)
        assert first.sentence == second.sentence
        assert (first.sentence is not None) == (task in ("ris", "rvos"))
        assert len(first.references) == (0 if task == "ris" else 1)
        assert first.mask.any()


def test_support_is_never_the_query(folder: Path) -> None:
    data = dataset(folder, "fss", shots=2, augmentation=Augmentation(flip=0, crop=0))
    for seed in range(20):
        sample = data.sample(0, np.random.default_rng(seed))
        assert len(sample.references) == 2
        pictures = [sample.image, *(r.image for r in sample.references)]
        assert len({p.tobytes() for p in pictures}) == 3


def test_clip_pairs_are_in_order_and_within_range(folder: Path) -> None:
    plain = Augmentation(flip=0, crop=0)
    near, far = dataset(folder, "vos", augmentation=plain), dataset(folder, "vos", frame_range=1, augmentation=plain)
    sample = near.sample(0, np.random.default_rng(0))
    assert "00002.jpg" in sample.name  # asked of frame 0, whose partner is later: the earlier one is the reference
    assert sample.references[0].mask[:, 5].any()
    assert not np.array_equal(sample.image, sample.references[0].image)
    alone = far.sample(0, np.random.default_rng(0))
    np.testing.assert_array_equal(alone.image, alone.references[0].image)


def test_frames_of_a_clip_flip_together(folder: Path) -> None:
    data = dataset(folder, "vos", augmentation=Augmentation(flip=0.5, crop=0))
    still = next(i for i, o in enumerate(data.objects) if o.frame is None)
    seen = set()
    for seed in range(12):
        sample = data.sample(still, np.random.default_rng(seed))
        np.testing.assert_array_equal(sample.image, sample.references[0].image)
        seen.add(sample.image.tobytes())
    assert len(seen) == 2


def test_sentence_is_mirrored_with_its_picture(folder: Path) -> None:
    data = dataset(folder, "ris", augmentation=Augmentation(flip=0.5, crop=1.0))
    said = [o for o in data.objects if o.sentences]
    index = next(i for i, o in enumerate(said) if "left" in o.sentences[0])
    plain = said[index].load()[0]
    for seed in range(8):
        sample = data.sample(index, np.random.default_rng(seed))
        flipped = sample.sentence == "the red thing on the right"
        assert flipped or sample.sentence == "the red thing on the left"
        # A sentence about a place forbids the crop, so the picture is whole.
        np.testing.assert_array_equal(sample.image, plain[:, ::-1] if flipped else plain)


def test_absent_references_have_empty_targets(folder: Path) -> None:
    data = dataset(folder, "fss", absent=0.5)
    absent = present = 0
    for seed in range(60):
        sample = data.sample(0, np.random.default_rng(seed))
        assert sample.mask.any() != ("absent" in sample.name)
        absent += "absent" in sample.name
        present += "absent" not in sample.name
    assert min(absent, present) > 15


def test_each_sentence_is_an_episode_and_swapping_changes_only_the_reference(folder: Path) -> None:
    for task in ("ris", "fss", "vos", "rvos"):
        data = dataset(folder, task)
        assert data.episodes == {"ris": 7, "fss": 6, "vos": 5, "rvos": 4}[task]
        for index in range(data.episodes):
            plain, swapped = data.episode(index), data.episode(index, swapped=True)
            np.testing.assert_array_equal(plain.image, swapped.image)
            np.testing.assert_array_equal(plain.mask, swapped.mask)
            masks = [[r.mask for r in s.references] for s in (plain, swapped)]
            other = plain.sentence != swapped.sentence or not all(map(np.array_equal, *masks))
            assert other, f"{task} episode {index} was not swapped"


@pytest.mark.parametrize("validation", [0.0, ["walk"]])
def test_a_clips_episode_shows_another_frame(folder: Path, validation: object) -> None:
    data = EpisodeDataset("vos", "vos", read_folder(folder, "vos", validation=validation))  # type: ignore[arg-type]
    clips = [o for o in data.objects if o.frame is not None]
    assert len(clips) == 4
    for index, query in enumerate(clips):  # clips are read first
        episode = data.episode(index)
        assert query.name in episode.name
        other = next(o for o in data.objects if o.group == query.group and o.frame != query.frame)
        np.testing.assert_array_equal(episode.references[0].image, other.load()[0])


def test_another_objects_sentence_is_never_true_of_the_query(folder: Path, tmp_path: Path) -> None:
    file = say(
        tmp_path / "expressions.jsonl",
        {"image": "images/still.jpg", "object": 1, "text": "The box"},
        {"image": "images/still.jpg", "object": 1, "text": "the big one"},
        {"clip": "walk", "object": 1, "text": "the box "},
        {"clip": "walk", "object": 2, "text": "a thing"},
    )
    data = EpisodeDataset("ris", "ris", read_folder(folder, "ris", expressions=file), absent=0.9)
    still = next(i for i, o in enumerate(o for o in data.objects if o.sentences) if o.frame is None)
    absent = [s for s in (data.sample(still, np.random.default_rng(seed)) for seed in range(30)) if not s.mask.any()]
    assert {s.sentence for s in absent} == {"a thing"}
    swapped = [data.episode(index, swapped=True) for index in range(data.episodes)]
    assert [s.sentence for s in swapped if "still" in s.name] == ["a thing"] * 2


def test_held_out_pictures_are_never_support_in_training(folder: Path) -> None:
    objects = read_folder(folder, "fss", validation=["1", "2"])
    with pytest.raises(ValueError, match="held out"):
        EpisodeDataset("fss", "fss", objects)


def test_held_out_pictures_are_never_trained_on(folder: Path) -> None:
    objects = read_folder(folder, "fss", validation=0.34)
    data = EpisodeDataset("fss", "fss", objects, augmentation=Augmentation(flip=0, crop=0))
    held_out = {o.load()[0].tobytes() for o in objects if o.held_out}
    assert data.validation_split == "validation"
    for index in range(len(data)):
        for seed in range(5):
            assert data.sample(index, np.random.default_rng(seed)).image.tobytes() not in held_out


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shots": 3}, "more than 3 annotated pictures"), ({"absent": 1.0}, "absent in"), ({"weight": -1}, "weight")],
)
def test_impossible_episodes(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(folder, "fss", **options)


# ---- batches ----


def test_collate_refuses_a_mixed_batch(folder: Path) -> None:
    mixed = [dataset(folder, task).sample(0, np.random.default_rng(0)) for task in ("fss", "ris")]
    with pytest.raises(ValueError, match="must be alike"):
        collate(mixed, TRANSFORM)
    with pytest.raises(ValueError, match="at least one sample"):
        collate([], TRANSFORM)


def test_batch_tensors(folder: Path) -> None:
    data = dataset(folder, "rvos")
    samples = [data.sample(i, np.random.default_rng(i)) for i in range(2)]
    batch = collate(samples, TRANSFORM)
    pictures = {p.tobytes() for s in samples for p in (s.image, s.references[0].image)}
    assert batch.pixels.shape == (len(pictures), 3, 64, 64)
    assert len(batch.input_sizes) == len(batch.original_sizes) == len(pictures)
    assert (batch.query_index.shape, batch.reference_index.shape) == ((2,), (1, 2))
    assert batch.masks.shape == batch.reference_masks[0].shape == (2, 64, 64)
    assert set(batch.masks.unique().tolist()) == {0.0, 1.0}
    assert batch.sentences is not None
    assert len(batch.sentences) == 2


def test_a_shared_picture_is_in_a_batch_once(folder: Path) -> None:
    data = dataset(folder, "vos")
    sample = data.sample(0, np.random.default_rng(0))
    other = replace(sample, mask=~sample.mask, image=sample.image.copy())
    swapped = replace(sample, image=sample.references[0].image)
    batch = collate([sample, other, swapped], TRANSFORM)
    assert len(batch.pixels) == 2
    assert (batch.query_index.tolist(), batch.reference_index.tolist()) == ([0, 0, 1], [[1, 1, 1]])
    alone = [collate([s], TRANSFORM) for s in (sample, other, swapped)]
    for row, single in enumerate(alone):
        assert torch.equal(batch.pixels[batch.query_index[row]], single.pixels[single.query_index[0]])
        assert torch.equal(batch.masks[row], single.masks[0])


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=4), st.integers(1, 300), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_schedule_counts_earlier_draws(weights: list[float], steps: int, seed: int) -> None:
    schedule = MixtureSchedule(weights, steps, seed)
    counts = dict.fromkeys(range(len(weights)), 0)
    for step in range(steps):
        chosen, earlier = schedule.at(step)
        assert earlier == counts[chosen]
        counts[chosen] += 1


def test_schedule_follows_the_weights() -> None:
    schedule = MixtureSchedule([1.0, 0.05, 0.0], 20_000, 0)
    share = np.bincount(schedule.choice, minlength=3) / 20_000
    np.testing.assert_allclose(share, [1 / 1.05, 0.05 / 1.05, 0.0], atol=0.01)
    with pytest.raises(ValueError, match="weights must be positive"):
        MixtureSchedule([0.0], 10, 0)


def queries(batch: ReferenceBatch) -> torch.Tensor:
    """``(B, 3, S, S)``: the picture of each sample."""
    return batch.pixels[batch.query_index]


def test_processes_share_the_global_batches_of_one(folder: Path) -> None:
    data = [dataset(folder, "fss"), dataset(folder, "ris")]
    alone = TrainingBatches(data, TRANSFORM, steps=6, batch_size=4, seed=3)
    pair = [TrainingBatches(data, TRANSFORM, 6, 2, seed=3, rank=rank, processes=2) for rank in range(2)]
    twice = TrainingBatches(data, TRANSFORM, steps=6, batch_size=2, accumulate=2, seed=3)
    for step in range(6):
        whole = alone[step]
        shared = torch.cat([queries(pair[0][step]), queries(pair[1][step])])
        accumulated = torch.cat([queries(twice[2 * step]), queries(twice[2 * step + 1])])
        torch.testing.assert_close(shared, queries(whole), rtol=0, atol=0)
        torch.testing.assert_close(accumulated, queries(whole), rtol=0, atol=0)
        assert pair[0][step].task == pair[1][step].task == whole.task


def test_an_epoch_sees_every_object_once(folder: Path) -> None:
    data = dataset(folder, "fss", augmentation=Augmentation(flip=0, crop=0))
    batches = TrainingBatches([data], TRANSFORM, steps=3, batch_size=2)
    names = [name for step in range(3) for name in batches[step].names]
    assert len(set(names)) == len(data) == 6


# ---- real pictures ----


@pytest.mark.shared
def test_real_clips_and_photographs(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        clips = read_folder(shared / "data", "vos")
        for item in clips:
            image, mask = item.load()
            assert mask.shape == image.shape[:2]
    assert [o.group for o in clips] == ["bike/1", "bike/2", "judo/1", "judo/2", "judo/3", "judo/4"]
    assert "judo/masks/00005.png is 853x480" in caplog.text
    assert len(read_folder(shared / "data" / "personalize", "fss")) == 9
    sentences = Path(__file__).parent / "fixtures" / "expressions.jsonl"
    assert sum(len(o.sentences) for o in read_folder(shared / "data", "ris", expressions=sentences)) == 30
