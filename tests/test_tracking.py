"""Following objects: what is encoded when, who is told what, who owns a pixel, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import disc, picture, tiny_model
from torch import Tensor
from tracking_support import SIDE, ScriptedModel, blank, bytes_held, in_its_region, region, tensors_in

from sam_uniref import MaskReference, SamRef, VideoTracker

ANY_SCORE = float("-inf")
HEIGHT, WIDTH = 60, 80


@pytest.fixture(scope="module")
def model() -> SamRef:
    """A tiny model whose adapters answer to their references."""
    return tiny_model(noise=0.05)


def clip(frames: int) -> list[NDArray[np.uint8]]:
    return [picture(HEIGHT, WIDTH, seed) for seed in range(frames)]


def blob(row: float, column: float) -> NDArray[np.bool_]:
    return disc(HEIGHT, WIDTH, center=(row, column))


def everywhere(logit: float, score: float = 0.9) -> tuple[Tensor, float]:
    return torch.full((SIDE, SIDE), logit), score


# ---- The cost: one encoder pass a frame, constant memory ----


def test_each_image_is_encoded_once_whatever_the_number_of_objects(model: SamRef) -> None:
    seen: list[int] = []
    handle = model.sam.image_encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        results = list(
            model.track(
                clip(5),
                masks={1: blob(0.3, 0.3), 2: blob(0.6, 0.7)},
                texts={3: "the dog"},
                examples={4: [MaskReference(picture(seed=9), disc()), MaskReference(picture(seed=8), disc())]},
                new_masks={2: {5: blob(0.5, 0.5)}},
                score_threshold=ANY_SCORE,
            )
        )
    finally:
        handle.remove()
    assert seen == [2, 1, 1, 1, 1, 1]
    assert [set(r.masks) for r in results] == [{1, 2, 3, 4}] * 2 + [{1, 2, 3, 4, 5}] * 3


def test_memory_is_constant(model: SamRef) -> None:
    tracker = VideoTracker(model, score_threshold=ANY_SCORE)
    tracker.add(1, mask=blob(0.3, 0.3))
    tracker.add(2, mask=blob(0.6, 0.7))
    tracker.add(3, text="the dog")
    held = []
    for frame in clip(30):
        result = tracker.step(frame)
        held.append((bytes_held(tracker), sum(result.visible.values())))
    # Compared where all objects were seen, so that all have a first and a previous frame.
    full = [held_bytes for held_bytes, visible in held[3:] if visible == 3]
    assert len(full) > 5
    assert set(full) == {held[3][0]}
    longest = max(tensor.shape[1] for tensor in tensors_in(tracker) if tensor.ndim == 3)
    # 60 x 80 pixels fill twelve of sixteen rows of cells.
    assert longest == 12 * 16, "kept of a frame are its tokens without padding, never several frames joined"


def test_objects_of_a_frame_share_its_keys(model: SamRef) -> None:
    def held(objects: int) -> int:
        tracker = VideoTracker(model)
        for object_id in range(1, objects + 1):
            tracker.add(object_id, mask=blob(0.1 * object_id, 0.5))
        tracker.step(clip(1)[0])
        return bytes_held(tracker)

    # One unit of keys for all and one of values for each: 5 units for four objects, 2 for one.
    assert held(4) < 2.7 * held(1)


# ---- Ids ----


@pytest.mark.parametrize("order", itertools.permutations([5, 2, 9]))
def test_ids_stay_whatever_the_order_of_adding_and_removing(order: tuple[int, ...]) -> None:
    tracker = VideoTracker(ScriptedModel(in_its_region))
    changes = [order[0], order[1], -order[0], order[2], -order[1], order[0]]
    frame, present = 0, []
    for change in changes:
        if change > 0:
            tracker.add(change, mask=region(change))
            present.append(change)
        else:
            tracker.remove(-change)
            present.remove(-change)
        for _ in range(2):
            result = tracker.step(blank(frame))
            assert result.index == frame
            assert tracker.object_ids == list(result.masks) == list(result.scores) == list(result.visible) == present
            expected = sum(object_id * region(object_id).astype(int) for object_id in present)
            np.testing.assert_array_equal(result.labels, expected)
            for object_id in present:
                np.testing.assert_array_equal(result.masks[object_id], region(object_id))
            frame += 1


def test_the_order_of_objects_does_not_matter(model: SamRef) -> None:
    masks = {1: blob(0.3, 0.3), 2: blob(0.45, 0.45), 3: blob(0.6, 0.7)}

    def labels(order: tuple[int, ...]) -> NDArray[np.int32]:
        given = {i: masks[i] for i in order}
        return np.stack([r.labels for r in model.track(clip(4), masks=given, score_threshold=ANY_SCORE)])

    straight = labels((1, 2, 3))
    assert set(np.unique(straight[1:])) >= {1, 2, 3}
    np.testing.assert_array_equal(labels((3, 1, 2)), straight)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_tie_goes_to_the_lower_id_whatever_the_order(order: tuple[int, int]) -> None:
    tracker = VideoTracker(ScriptedModel(lambda *_: everywhere(30.0)))
    for object_id in order:
        tracker.add(object_id, mask=region(3 * object_id))
    tracker.step(blank(0))
    assert (tracker.step(blank(1)).labels == 1).all()


# ---- Given masks ----


def test_a_given_mask_is_returned_as_it_stands_and_others_stay_tracked() -> None:
    tracker = VideoTracker(ScriptedModel(lambda frame, identity: everywhere(50.0)))
    tracker.add(1, mask=region(1))
    tracker.step(blank(0))
    tracker.add(2, mask=region(7))
    result = tracker.step(blank(1))
    np.testing.assert_array_equal(result.masks[2], region(7))
    np.testing.assert_array_equal(result.masks[1], ~region(7))
    np.testing.assert_array_equal(result.labels, np.where(region(7), 2, 1))
    assert result.scores[2] == 1.0
    assert result.visible == {1: True, 2: True}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_given_masks_that_overlap_are_both_kept(order: tuple[int, int]) -> None:
    """Also where one hides the other wholly, which without its own mask would have no reference at all."""
    masks = {1: region(4), 2: region(4) | region(6)}
    model = ScriptedModel(in_its_region)
    tracker = VideoTracker(model)
    for object_id in order:
        tracker.add(object_id, mask=masks[object_id])
    result = tracker.step(blank(0))
    for object_id, mask in masks.items():
        np.testing.assert_array_equal(result.masks[object_id], mask)
    np.testing.assert_array_equal(result.labels, 2 * masks[2])
    tracker.step(blank(1))
    assert set(model.asked[-1]) == {"4", "10"}


def test_a_mask_given_again_starts_the_object_anew() -> None:
    model = ScriptedModel(in_its_region)
    tracker = VideoTracker(model)
    tracker.add(1, mask=region(3))
    for frame in range(3):
        tracker.step(blank(frame))
    tracker.update(1, mask=region(8))
    tracker.step(blank(3))
    tracker.step(blank(4))
    tracker.step(blank(5))
    assert [asked.get("3") for asked in model.asked[:2]] == [(None, [0]), (None, [0, 1])]
    assert [asked["8"] for asked in model.asked[2:]] == [(None, [3]), (None, [3, 4])]


def test_a_mask_is_taken_as_it_was_when_it_was_given() -> None:
    mask = region(5)
    tracker = VideoTracker(ScriptedModel(in_its_region))
    tracker.add(1, mask=mask)
    mask[:] = True
    np.testing.assert_array_equal(tracker.step(blank()).masks[1], region(5))


def test_of_a_map_of_ids_an_object_takes_its_own() -> None:
    ids = 2 * region(2).astype(np.uint8) + 7 * region(7).astype(np.uint8)
    tracker = VideoTracker(ScriptedModel(in_its_region))
    tracker.add(7, mask=ids)
    np.testing.assert_array_equal(tracker.step(blank()).masks[7], region(7))
    with pytest.raises(ValueError, match=r"mask of object 3 has no object 3, it has \[2, 7\]"):
        tracker.add(3, mask=ids)


def test_a_map_of_ids_names_its_objects() -> None:
    ids = 2 * region(2).astype(np.int64) + 7 * region(7).astype(np.int64)
    results = list(ScriptedModel(in_its_region).track([blank(0), blank(1)], masks=ids))
    assert [list(r.masks) for r in results] == [[2, 7]] * 2
    np.testing.assert_array_equal(results[1].labels, ids)


# ---- Scores and visibility ----


@pytest.mark.parametrize(
    ("score", "threshold", "text", "visible"),
    [
        (0.41, None, None, True),
        (0.39, None, None, False),
        (0.31, None, "the dog", True),
        (0.29, None, "the dog", False),
        (0.39, 0.2, None, True),
        (0.9, 0.95, "the dog", False),
        (-0.5, ANY_SCORE, None, True),
        (float("nan"), None, None, False),
    ],
)
def test_below_the_threshold_an_object_is_not_visible(
    score: float, threshold: float | None, text: str | None, visible: bool
) -> None:
    tracker = VideoTracker(ScriptedModel(lambda *_: everywhere(5.0, score)), score_threshold=threshold)
    tracker.add(1, mask=region(3), text=text)
    tracker.step(blank(0))
    result = tracker.step(blank(1))
    assert result.scores[1] == pytest.approx(score, nan_ok=True)
    assert result.visible == {1: visible}
    assert result.masks[1].all() == result.masks[1].any() == visible
    assert (result.labels == 1).all() == (result.labels > 0).any() == visible


def test_an_object_below_the_threshold_takes_no_pixel_from_another() -> None:
    answers = {"3": everywhere(50.0, 0.1), "5": everywhere(1.0)}
    tracker = VideoTracker(ScriptedModel(lambda _, identity: answers[identity]))
    tracker.add(1, mask=region(3))
    tracker.add(2, mask=region(5))
    tracker.step(blank(0))
    result = tracker.step(blank(1))
    assert (result.labels == 2).all()
    assert result.visible == {1: False, 2: True}


def test_the_previous_reference_stays_while_an_object_is_not_seen() -> None:
    def script(frame: int, identity: str) -> tuple[Tensor, float]:
        # Unseen in frame 2 by its score, in frame 3 because nothing of it is left.
        return everywhere(-9.0 if frame == 3 else 9.0, 0.1 if frame == 2 else 0.9)

    model = ScriptedModel(script)
    tracker = VideoTracker(model)
    tracker.add(1, mask=region(6))
    visible = [tracker.step(blank(frame)).visible[1] for frame in range(6)]
    assert visible == [True, True, False, False, True, True]
    assert [asked["6"][1] for asked in model.asked] == [[0], [0, 1], [0, 1], [0, 1], [0, 4]]


def test_a_sentence_alone_until_the_object_is_seen_then_its_masks_too() -> None:
    model = ScriptedModel(lambda frame, _: everywhere(9.0, 0.1 if frame < 2 else 0.9))
    results = list(model.track([blank(frame) for frame in range(5)], texts={4: "the dog"}))
    assert [r.visible[4] for r in results] == [False, False, True, True, True]
    told = [asked["the dog"] for asked in model.asked]
    assert told == [("the dog", frames) for frames in ([], [], [], [2], [2, 3])]
    assert model.sentences == ["the dog"], "a sentence is encoded once"


def test_sentences_masks_and_examples_in_one_video() -> None:
    model = ScriptedModel(lambda *_: everywhere(-9.0))
    tracker = VideoTracker(model)
    tracker.add(1, text="the dog")
    tracker.add(2, mask=region(2))
    tracker.add(3, examples=[MaskReference(blank(90), region(5)), MaskReference(blank(91), region(6))])
    tracker.add(4, mask=region(4), text="the cat")
    tracker.step(blank(0))
    tracker.step(blank(1))
    assert model.asked[0] == {"the dog": ("the dog", []), "5": (None, [90, 91])}
    assert model.asked[1] == {
        "the dog": ("the dog", []),
        "2": (None, [0]),
        "5": (None, [90, 91]),
        "the cat": ("the cat", [0]),
    }


def test_examples_stay_beside_the_first_and_the_previous_frame() -> None:
    model = ScriptedModel(lambda *_: everywhere(9.0))
    frames = [blank(frame) for frame in range(4)]
    list(model.track(frames, examples={1: [MaskReference(blank(90), region(5))]}))
    assert [asked["5"][1] for asked in model.asked] == [[90], [90, 0], [90, 0, 1], [90, 0, 2]]


# ---- What is refused, and what a refusal leaves behind ----


def test_a_frame_of_another_size_is_refused_and_changes_nothing() -> None:
    model = ScriptedModel(in_its_region)
    tracker = VideoTracker(model)
    tracker.add(3, mask=region(3))
    tracker.step(blank(0))
    tracker.step(blank(1))
    tracker.add(5, mask=region(5))
    before, encoded = [id(tensor) for tensor in tensors_in(tracker)], model.encoded_images
    with pytest.raises(ValueError, match=r"frame 2 is 20x16, those before it 16x16 \(width x height\)"):
        tracker.step(np.zeros((16, 20, 3), np.uint8))
    assert [id(tensor) for tensor in tensors_in(tracker)] == before
    assert model.encoded_images == encoded
    result = tracker.step(blank(2))
    assert result.index == 2
    assert result.visible == {3: True, 5: True}
    assert model.asked[-1] == {"3": (None, [0, 1])}


def test_a_step_that_fails_at_its_end_changes_nothing() -> None:
    model = ScriptedModel(in_its_region)
    tracker = VideoTracker(model)
    tracker.add(3, mask=region(3))
    tracker.step(blank(0))
    tracker.add(5, mask=region(5))
    model.fail_in_encode_mask = True
    with pytest.raises(RuntimeError, match="out of memory"):
        tracker.step(blank(1))
    model.fail_in_encode_mask = False
    result = tracker.step(blank(1))
    assert (result.index, result.scores[5]) == (1, 1.0)
    tracker.step(blank(2))
    assert model.asked[-1] == {"3": (None, [0, 1]), "5": (None, [1])}


@pytest.mark.parametrize("object_id", [0, -1, True, 1.0, "1", None])
def test_an_id_is_a_positive_integer(object_id: object) -> None:
    tracker = VideoTracker(ScriptedModel(in_its_region))
    with pytest.raises(ValueError, match="object id must be a positive integer"):
        tracker.add(object_id, mask=region(3))  # type: ignore[arg-type]
    assert tracker.object_ids == []


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({}, "object 2 needs a mask=, text= or examples="),
        ({"examples": []}, "object 2 needs a mask=, text= or examples="),
        ({"mask": np.zeros((SIDE, SIDE), bool)}, "the mask of object 2 is empty"),
        ({"mask": np.full((SIDE, SIDE), np.nan)}, "NaN"),
        ({"mask": np.ones((SIDE, SIDE, 3), bool)}, r"a mask must be \(H, W\)"),
        ({"mask": np.ones((SIDE + 3, SIDE), bool)}, "the mask of object 2 is 16x19 but its image is 16x16"),
        ({"mask": region(4), "examples": [MaskReference(blank(), np.zeros((SIDE, SIDE)))]}, "empty"),
    ],
)
def test_a_bad_reference_adds_nothing(reference: dict, message: str) -> None:
    tracker = VideoTracker(ScriptedModel(in_its_region))
    tracker.add(1, mask=region(3))
    tracker.step(blank(0))
    with pytest.raises(ValueError, match=message):
        tracker.add(2, **reference)
    assert tracker.object_ids == [1]
    tracker.step(blank(1))


def test_a_first_mask_that_does_not_fit_its_frame_is_refused_before_encoding() -> None:
    model = ScriptedModel(in_its_region)
    tracker = VideoTracker(model)
    tracker.add(1, mask=np.ones((SIDE + 3, SIDE), bool))
    with pytest.raises(ValueError, match="the mask of object 1 is 16x19 but its image is 16x16"):
        tracker.step(blank(0))
    assert model.encoded_images == 0
    # The refused frame counts for nothing: neither its number nor its size.
    result = tracker.step(np.zeros((SIDE + 3, SIDE, 3), np.uint8))
    assert (result.index, result.visible) == (0, {1: True})


def test_a_model_without_text_encoder_says_so() -> None:
    tracker = VideoTracker(tiny_model(text=False))
    with pytest.raises(ValueError, match="no text encoder"):
        tracker.add(1, text="the dog")
    assert tracker.object_ids == []


def test_removing_what_is_not_there() -> None:
    tracker = VideoTracker(ScriptedModel(in_its_region))
    tracker.add(2, mask=region(2))
    with pytest.raises(ValueError, match=r"object 7 is not tracked; tracked are \[2\]"):
        tracker.remove(7)
    tracker.remove(2)
    with pytest.raises(ValueError, match=r"object 2 is not tracked; tracked are \[\]"):
        tracker.update(2, mask=region(2))


def test_an_id_is_one_object_s() -> None:
    tracker = VideoTracker(ScriptedModel(in_its_region))
    tracker.add(2, mask=region(2))
    with pytest.raises(ValueError, match=r"object 2 is tracked already; update\(\) it, or remove\(\) it first"):
        tracker.add(2, mask=region(3))
    np.testing.assert_array_equal(tracker.step(blank()).masks[2], region(2))


def test_without_objects_all_is_background_and_nothing_is_encoded() -> None:
    model = ScriptedModel(in_its_region)
    tracker = VideoTracker(model)
    result = tracker.step(blank())
    assert (result.index, result.masks, result.labels.any()) == (0, {}, False)
    assert result.labels.shape == (SIDE, SIDE)
    assert model.encoded_images == 0
    tracker.add(3, mask=region(3))
    assert tracker.step(blank(1)).index == 1
    with pytest.raises(ValueError, match="frame 2 is"):
        tracker.step(np.zeros((SIDE + 1, SIDE, 3), np.uint8))
