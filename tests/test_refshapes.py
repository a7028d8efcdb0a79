"""RefShapes: sentences against an independent checker, pictures against their masks, streams, the interface."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from refshapes_checker import kind_of, true_of

from sam_uniref.data import Sample, TrainingBatches
from sam_uniref.data.refshapes import (
    COLOURS,
    SEEN_SHAPES,
    UNSEEN_SHAPES,
    VOCABULARY,
    Draws,
    RefShapesDataset,
    Scene,
    ShapeObject,
    render,
)
from sam_uniref.data.refshapes.clips import draw_clip
from sam_uniref.data.refshapes.doodles import doodle_number
from sam_uniref.data.refshapes.language import Description, Phrase, resolve
from sam_uniref.data.refshapes.palette import Background, Paint
from sam_uniref.data.refshapes.shapes import outline
from sam_uniref.data.refshapes.wording import word
from sam_uniref.transforms import SquareTransform

SENTENCES = int(os.environ.get("REFSHAPES_SENTENCES", "2000"))
TASKS = ("ris", "fss", "vos", "rvos")
GREY = Background("flat", (128, 128, 128), (128, 128, 128), 2, 0)


def thing(shape: str = "circle", colour: str = "red", texture: str = "plain", **where: float) -> ShapeObject:
    """An object by its looks."""
    paint = Paint(texture, COLOURS[colour], (0, 0, 0), 0.06)
    return ShapeObject(shape, colour, paint, **{"size": 0.08, "x": 0.5, "y": 0.5, "angle": 0.0, **where})


# ---- the checker itself ----

ROW = [
    thing(x=0.2, y=0.5),
    thing(x=0.4, y=0.3, size=0.15),
    thing("square", x=0.6, y=0.8, texture="striped"),
    thing("square", "blue", x=0.8, y=0.5),
]


@pytest.mark.parametrize(
    ("sentence", "those"),
    [
        ("the red circle", [0, 1]),
        ("big disc", [1]),
        ("a square with stripes", [2]),
        ("the thing which is blue", [3]),
        ("the leftmost circle", [0]),
        ("square furthest right", [3]),
        ("the object which is the lowest", [2]),
        ("the second red thing from the right", [1]),
        ("from the left the third object", [2]),
        ("a circle to the left of the striped object", [0, 1]),
        ("the red thing above the large circle", []),
        ("the circle that is higher than the blue thing", [1]),
        ("the square below the circle", []),  # which circle?
        ("the star", []),
    ],
)
def test_checker_reads_sentences(sentence: str, those: list[int]) -> None:
    assert true_of(sentence, ROW) == those


def test_checker_refuses_words_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="round"):
        true_of("the round thing", ROW)


# ---- sentences ----


def drawn_sentences(style: str, count: int) -> list[tuple[str, int, tuple[ShapeObject, ...]]]:
    """Sentences with their targets, as samples of referring segmentation hold them."""
    data = RefShapesDataset("s", "ris", side=32, style=style, episodes=count)  # type: ignore[arg-type]
    drawn = []
    for index in range(count):
        split = "validation" if style == "plain" or index % 4 == 0 else "train"
        sample = data.episode(index) if split == "validation" else data.sample(index)
        scene = data.scene(index, split)  # type: ignore[arg-type]
        ids = render(scene, 32)[1]
        targets = [k for k in range(len(scene.objects)) if np.array_equal(ids == k + 1, sample.mask)]
        assert len(targets) == 1
        assert sample.sentence is not None
        drawn.append((sample.sentence, targets[0], scene.objects))
    return drawn


@pytest.fixture(scope="module")
def textured() -> list[tuple[str, int, tuple[ShapeObject, ...]]]:
    return drawn_sentences("textured", SENTENCES * 3 // 4)


@pytest.fixture(scope="module")
def plain() -> list[tuple[str, int, tuple[ShapeObject, ...]]]:
    return drawn_sentences("plain", SENTENCES // 4)


@pytest.mark.parametrize("style", ["textured", "plain"])
def test_every_sentence_is_true_of_its_target_alone(style: str, request: pytest.FixtureRequest) -> None:
    for sentence, target, objects in request.getfixturevalue(style):
        assert true_of(sentence, objects) == [target], sentence


def test_all_sentences_of_a_scene_are_true_of_their_objects_alone() -> None:
    data = RefShapesDataset("s", "ris", side=32)
    for index in range(60):
        named, objects = data.scene_sentences(index), data.scene(index, "validation").objects
        assert len({number for number, _ in named.sentences}) >= 2
        for number, sentence in named.sentences:
            assert true_of(sentence, objects) == [number - 1], sentence
        assert data.episode(index).sentence in {sentence for _, sentence in named.sentences}


def test_sentences_are_of_all_kinds_and_varied(textured: list[tuple[str, int, tuple[ShapeObject, ...]]]) -> None:
    kinds = [kind_of(sentence) for sentence, _, _ in textured]
    for kind in ("attributes", "relation", "best", "rank"):
        assert kinds.count(kind) > 0.05 * len(kinds), kind
    assert len({sentence for sentence, _, _ in textured}) > 0.6 * len(textured)


def test_vocabulary_is_closed_and_the_plain_style_has_no_words_of_its_own(
    textured: list[tuple[str, int, tuple[ShapeObject, ...]]], plain: list[tuple[str, int, tuple[ShapeObject, ...]]]
) -> None:
    words, plain_words = (set(chain(*(s.split() for s, _, _ in drawn))) for drawn in (textured, plain))
    assert words == set(VOCABULARY)
    assert plain_words < words
    assert list(VOCABULARY) == sorted(set(VOCABULARY))
    assert not words & set(UNSEEN_SHAPES)


def test_styles_word_differently(
    textured: list[tuple[str, int, tuple[ShapeObject, ...]]], plain: list[tuple[str, int, tuple[ShapeObject, ...]]]
) -> None:
    seen, other = ({s for s, _, _ in drawn if len(s.split()) > 3} for drawn in (textured, plain))
    assert len(seen & other) < 0.02 * len(other)


@pytest.mark.parametrize(
    ("description", "moved", "target"),
    [
        (Description("attributes", Phrase(colour="blue")), {}, 3),
        (Description("attributes", Phrase(shape="circle")), {}, None),
        (Description("superlative", Phrase(shape="circle"), "left"), {}, 0),
        (Description("superlative", Phrase(shape="circle"), "left"), {"x": 0.36}, None),  # 0.04 is no difference
        (Description("superlative", Phrase(), "largest"), {}, 1),
        (Description("superlative", Phrase(), "largest"), {"size": 0.14}, None),
        (Description("superlative", Phrase(colour="blue"), "left"), {}, None),  # the only one: no choice
        (Description("ordinal", Phrase(), "left", rank=2), {}, 1),
        (Description("ordinal", Phrase(), "left", rank=2), {"x": 0.37}, None),
        (Description("ordinal", Phrase(shape="circle"), "left", rank=2), {}, None),  # better: the rightmost
        (Description("ordinal", Phrase(colour="red"), "left", rank=3), {}, 2),
        (Description("relation", Phrase(shape="circle"), "top", Phrase(colour="blue")), {"y": 0.6}, 1),
        (Description("relation", Phrase(shape="circle"), "left", Phrase(colour="blue")), {}, None),
        (Description("relation", Phrase(shape="circle"), "top", Phrase(shape="square")), {}, None),
        (
            Description("relation", Phrase(shape="circle"), "top", Phrase(colour="blue")),
            {"y": 0.45},
            None,
        ),  # 0.05 is not above
    ],
)
def test_descriptions_hold_only_where_they_are_clear(
    description: Description, moved: dict[str, float], target: int | None
) -> None:
    assert resolve(description, [replace(ROW[0], **moved), *ROW[1:]]) == target


def test_article_fits_the_next_word() -> None:
    orange = Description("attributes", Phrase(colour="orange"))
    said = {word(orange, Draws(k)) for k in range(200)}
    assert any(s.startswith("an orange") for s in said)
    assert not any(s.startswith(("a orange", "a object")) for s in said)


# ---- streams ----


def test_training_never_shows_a_held_out_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: set[str] = set()
    whole = ShapeObject.patch

    def spy(self: ShapeObject, side: int) -> object:
        shown.add(self.shape)
        return whole(self, side)

    monkeypatch.setattr(ShapeObject, "patch", spy)
    for task in TASKS:
        data = RefShapesDataset(task, task, side=32)  # type: ignore[arg-type]
        for index in range(60):
            data.sample(index)
    doodles = {shape for shape in shown if doodle_number(shape) is not None}
    assert len(doodles) > 30
    assert shown - doodles == set(SEEN_SHAPES)
    shown.clear()
    data = RefShapesDataset("fss", "fss", side=32)
    for index in range(60):
        data.episode(index)
    assert shown == set(UNSEEN_SHAPES)
    assert len(SEEN_SHAPES) >= 10
    assert len(UNSEEN_SHAPES) >= 5


def digest(samples: list[Sample]) -> str:
    """Of everything a sample holds."""
    total = hashlib.sha256()
    for sample in samples:
        total.update(f"{sample.name}|{sample.sentence}".encode())
        for array in (sample.image, sample.mask, *(a for r in sample.references for a in (r.image, r.mask))):
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def sample_digests() -> dict[str, str]:
    """Of a few samples and episodes of each task."""
    found = {}
    for task in TASKS:
        data = RefShapesDataset(task, task, seed=5, side=96)  # type: ignore[arg-type]
        other = replace(data, style="plain")
        samples = [data.sample(i) for i in (0, 1, 999_999)] + [d.episode(i) for d in (data, other) for i in (0, 1)]
        found[task] = digest(samples)
    return found


# Of one machine and all others; they change only with the drawing itself, which makes old results incomparable.
RECORDED = {
    "ris": "c54a1ab60559f395250e683b8c9450df50fb057ade2d0fd642ef5159bae4485c",
    "fss": "60bd6370b10ff4c516e72fc35511323fdec5ace82b18467e37eb54842e115399",
    "vos": "79f354f2de576f9b3721aedeea1fff22ad1ed52bf0f060192e6254abe6cff313",
    "rvos": "70043880f87141db251cdd2f346c80e85baab1bb66d819680049c8aebc210bfe",
}


def test_samples_are_the_same_on_every_machine() -> None:
    assert sample_digests() == RECORDED


def test_another_process_draws_the_same_bytes() -> None:
    code = "from test_refshapes import sample_digests; print(sample_digests())"
    here = Path(__file__).parent
    paths = f"{here}{os.pathsep}{here / 'support'}"
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == str(sample_digests())


@pytest.mark.parametrize("task", TASKS)
def test_seed_split_style_and_index_each_change_the_sample(task: str) -> None:
    data = RefShapesDataset(task, task, side=32)  # type: ignore[arg-type]
    drawn = [
        data.sample(0),
        data.sample(1),
        data.episode(0),
        replace(data, seed=1).sample(0),
        replace(data, style="plain").episode(0),
    ]
    assert len({s.image.tobytes() for s in drawn}) == 5
    # Asked of in any order, with whatever chance is handed in.
    assert digest([data.sample(0, np.random.default_rng(9))]) == digest([drawn[0]])


# ---- the interface that training and validation use ----


@pytest.mark.parametrize("task", TASKS)
def test_swapping_changes_the_reference_alone(task: str) -> None:
    data = RefShapesDataset(task, task, side=48, shots=2)  # type: ignore[arg-type]
    assert data.can_swap
    assert data.validation_split == "validation"
    for index in range(25):
        given, swapped = data.episode(index), data.episode(index, swapped=True)
        np.testing.assert_array_equal(given.image, swapped.image)
        np.testing.assert_array_equal(given.mask, swapped.mask)
        assert given.mask.any()
        if given.sentence is not None:
            assert given.sentence != swapped.sentence
        for one, other in zip(given.references, swapped.references, strict=True):
            assert one.mask.any()
            assert other.mask.any()
            assert not (one.mask & other.mask).any() or task == "fss"
            assert task == "fss" or np.array_equal(one.image, other.image)


@pytest.mark.parametrize(("task", "references"), [("ris", 0), ("fss", 3), ("vos", 1), ("rvos", 1)])
def test_samples_of_a_task(task: str, references: int) -> None:
    data = RefShapesDataset(task, task, side=48, shots=3)  # type: ignore[arg-type]
    for index in range(20):
        for sample in (data.sample(index), data.episode(index)):
            assert sample.task == task
            assert sample.image.shape == (48, 48, 3)
            assert sample.image.dtype == np.uint8
            assert sample.mask.shape == (48, 48)
            assert sample.mask.dtype == np.bool_
            assert len(sample.references) == references
            assert (sample.sentence is not None) == (task in ("ris", "rvos"))
            pictures = [sample.image, *(r.image for r in sample.references)]
            assert len({p.tobytes() for p in pictures}) == references + 1


@pytest.mark.parametrize("shots", [1, 2])
def test_pairs_of_samples_share_supports_and_differ_in_what_is_marked(shots: int) -> None:
    data = RefShapesDataset("fss", "fss", side=48, shots=shots, together=4)
    different = 0
    for picture in range(10):
        samples = [data.sample(4 * picture + place) for place in range(4)]
        for one in samples:
            assert one.mask.any()
            assert all(r.mask.any() for r in one.references)
            np.testing.assert_array_equal(one.image, samples[0].image)
        for left, right in (samples[:2], samples[2:]):
            for own, other in zip(left.references, right.references, strict=True):
                np.testing.assert_array_equal(own.image, other.image)
                same_target = np.array_equal(left.mask, right.mask)
                assert same_target == np.array_equal(own.mask, other.mask)
                different += not same_target
        assert not np.array_equal(samples[0].references[0].image, samples[2].references[0].image)
    assert different > 10
    again = replace(data)
    assert digest([data.sample(i) for i in (7, 6, 8)]) == digest([again.sample(i) for i in (7, 6, 8)])


def test_language_only_leaves_out_the_reference() -> None:
    data = RefShapesDataset("rvos", "rvos", side=32)
    full, alone = data.sample(4), data.sample(4, language_only=True)
    np.testing.assert_array_equal(full.image, alone.image)
    assert full.sentence == alone.sentence
    assert alone.references == ()
    assert data.episode(4, language_only=True).references == ()


def test_absent_objects_have_empty_targets_at_their_rate() -> None:
    for share in (0.0, 0.3):
        data = RefShapesDataset("vos", "vos", side=32, absent=share)
        empty = [not data.sample(i).mask.any() for i in range(150)]
        assert abs(np.mean(empty) - share) < 0.1
        assert all("absent" in data.sample(i).name for i in range(150) if empty[i])


@pytest.mark.parametrize("task", TASKS)
def test_samples_of_one_picture_are_about_other_objects(task: str) -> None:
    data = RefShapesDataset(task, task, side=48, together=3, absent=0.0)  # type: ignore[arg-type]
    distinct = []
    for first in range(0, 60, 3):
        samples = [data.sample(first + place) for place in range(3)]
        assert len({s.image.tobytes() for s in samples}) == 1
        distinct.append(len({s.mask.tobytes() for s in samples}))
        if task in ("vos", "rvos"):
            assert len({s.references[0].image.tobytes() for s in samples}) == 1
        # In any order, and by a data set that has drawn nothing else.
        assert digest([replace(data).sample(first + 2)]) == digest(samples[2:])
    assert np.mean(distinct) > 2
    assert data.sample(0).image.tobytes() != data.sample(3).image.tobytes()


def test_batches_keep_the_samples_of_a_picture_together() -> None:
    transform = SquareTransform(64, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    data = [RefShapesDataset("ris", "ris", side=64, length=48, together=4)]
    batches = TrainingBatches(data, transform, steps=9, batch_size=8, seed=1)  # type: ignore[arg-type]
    drawn = [batches[step] for step in range(9)]
    assert all(batch.query_index.tolist() == [0] * 4 + [1] * 4 for batch in drawn)
    names = [name for batch in drawn for name in batch.names]
    assert len(set(names[:48])) == 48  # a pass sees every sample once
    assert set(names[48:]) < set(names[:48])


def test_training_batches_draw_from_it() -> None:
    transform = SquareTransform(64, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    data = [RefShapesDataset(task, task, side=64, length=50) for task in TASKS]  # type: ignore[arg-type]
    alone = TrainingBatches(data, transform, steps=8, batch_size=4, seed=1)  # type: ignore[arg-type]
    pair = [TrainingBatches(data, transform, 8, 2, seed=1, rank=r, processes=2) for r in range(2)]  # type: ignore[arg-type]
    for step in range(8):
        shared = torch.cat([part.pixels[part.query_index] for part in (pair[0][step], pair[1][step])])
        torch.testing.assert_close(shared, alone[step].pixels[alone[step].query_index], rtol=0, atol=0)
    assert {alone[step].task for step in range(8)} > {"ris"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "panoptic"}, "task must be one of"),
        ({"task": "vos", "boxes": True}, "boxes alone serve ris and detection"),
        ({"style": "cubist"}, "style must be one of"),
        ({"side": 31}, "side must be at least 32"),
        ({"frames": 3}, "frames must be at least 4"),
        ({"shots": 0}, "shots must be at least 1"),
        ({"absent": 1.5}, "absent must be in"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"together": 0}, "together must be at least 1"),
        ({"together": 5, "length": 4}, "together must be at most length, 4"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RefShapesDataset("bad", **{"task": "ris", **options})


def test_bad_requests() -> None:
    data = RefShapesDataset("s", "ris", length=5, episodes=3)
    for ask in (lambda: data.sample(5), lambda: data.sample(-1), lambda: data.episode(3), lambda: data.clip(3)):
        with pytest.raises(ValueError, match="index must be in 0-"):
            ask()
    with pytest.raises(ValueError, match="for evaluation"):
        replace(data, style="plain").sample(0)
    with pytest.raises(ValueError, match="no shape 'blob'"):
        outline("blob")
    with pytest.raises(ValueError, match="at least 4 frames"):
        draw_clip(Draws(0), frames=2)
    with pytest.raises(ValueError, match="no texture 'tartan'"):
        render(Scene((thing(texture="tartan"),), GREY))
