"""Which masks of the clip itself an object is found by: what a model is told, what is encoded, what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import disc, picture, tiny_model
from tracking_support import SIDE, ScriptedModel, blank, bytes_held, in_its_region, region

from sam_uniref import MaskReference, SamRef, VideoTracker
from sam_uniref.tracking import FRAME_REFERENCES

FRAMES = 8
ANY_SCORE = float("-inf")
# Of the frames in which the object was seen since it was new or its mask was given.
TOLD = {
    "both": lambda seen: seen[:1] + seen[1:][-1:],
    "first": lambda seen: seen[:1],
    "previous": lambda seen: seen[-1:],
    "none": lambda seen: [],
}
EXAMPLE = MaskReference(blank(90), region(5))


@pytest.fixture(scope="module")
def model() -> SamRef:
    """A tiny model whose adapters answer to their references."""
    return tiny_model(noise=0.05)


def clip(frames: int) -> list[NDArray[np.uint8]]:
    return [picture(60, 80, seed) for seed in range(frames)]


# ---- What a model is told ----


@settings(max_examples=150, deadline=None)
@given(
    choice=st.sampled_from(FRAME_REFERENCES),
    text=st.booleans(),
    example=st.booleans(),
    seen=st.lists(st.booleans(), min_size=FRAMES, max_size=FRAMES),
    masks_at=st.sets(st.integers(0, FRAMES - 1), max_size=2),
)
def test_an_object_is_found_by_the_chosen_frames_and_no_other_is_encoded(
    choice: str, text: bool, example: bool, seen: list[bool], masks_at: set[int]
) -> None:
    if not (text or example):
        choice, masks_at = "both" if choice == "none" else choice, masks_at | {0}
    model = ScriptedModel(lambda frame, _: (9.0, 0.9 if seen[frame] else 0.1))
    tracker = VideoTracker(model, frame_references=choice)
    if text or example:
        tracker.add(1, text="the dog" if text else None, examples=[EXAMPLE] if example else None)
    wanted_told, wanted_encoded, since = [], [1] * example, []
    for frame in range(FRAMES):
        if frame in masks_at:
            (tracker.update if tracker.object_ids else tracker.add)(1, mask=region(3))
            since = []
        else:
            wanted_told.append(("the dog" if text else None, [90] * example + TOLD[choice](since)))
        result = tracker.step(blank(frame))
        assert result.visible == {1: frame in masks_at or seen[frame]}
        if result.visible[1]:
            since.append(frame)
            kept = choice in ("both", "previous") or (choice == "first" and len(since) == 1)
            wanted_encoded += [1] * kept
    assert [row for asked in model.asked for row in asked.values()] == wanted_told
    assert model.encoded_masks == wanted_encoded


def test_both_is_the_default() -> None:
    model = ScriptedModel(in_its_region)
    list(model.track([blank(frame) for frame in range(4)], masks={3: region(3)}))
    assert [asked["3"][1] for asked in model.asked] == [[0], [0, 1], [0, 2]]


@pytest.mark.parametrize("choice", FRAME_REFERENCES)
def test_track_passes_the_choice_on(choice: str) -> None:
    model = ScriptedModel(lambda *_: (9.0, 0.9))
    list(model.track([blank(frame) for frame in range(5)], texts={4: "the dog"}, frame_references=choice))
    assert [asked["the dog"] for asked in model.asked] == [("the dog", TOLD[choice](list(range(k)))) for k in range(5)]


def test_with_the_first_frame_only_objects_that_join_are_encoded() -> None:
    model = ScriptedModel(in_its_region)
    frames = [blank(frame) for frame in range(6)]
    masks = {2: region(2), 3: region(3)}
    list(model.track(frames, masks=masks, new_masks={3: {7: region(7)}}, frame_references="first"))
    assert model.encoded_masks == [2, 1]
    assert model.asked[-1] == {"2": (None, [0]), "3": (None, [0]), "7": (None, [3])}


def test_one_frame_takes_half_the_memory_of_two(model: SamRef) -> None:
    def held(choice: str) -> int:
        tracker = VideoTracker(model, score_threshold=ANY_SCORE, frame_references=choice)
        tracker.add(1, mask=disc(60, 80))
        for frame in clip(3):
            assert tracker.step(frame).visible[1]
        return bytes_held(tracker)

    assert held("first") == held("previous")
    assert held("both") == pytest.approx(2 * held("first"), rel=0.01)


# ---- The real model ----


def test_without_frames_every_frame_is_found_for_itself_and_no_mask_encoded(model: SamRef) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a mask was encoded")

    options = {"texts": {1: "the dog", 2: "a cat"}, "score_threshold": ANY_SCORE}
    by_both = [r.labels for r in model.track(clip(4), **options)]
    handle = model.mask_encoder.register_forward_pre_hook(refuse)
    try:
        together = [r.labels for r in model.track(clip(4), frame_references="none", **options)]
        alone = [next(model.track([frame], frame_references="none", **options)).labels for frame in clip(4)]
    finally:
        handle.remove()
    np.testing.assert_array_equal(together, alone)
    assert set(np.unique(together)) >= {1, 2}
    np.testing.assert_array_equal(by_both[0], together[0])
    assert all((a != b).any() for a, b in zip(by_both[1:], together[1:], strict=True))


def test_the_choice_changes_the_answers(model: SamRef) -> None:
    masks = {1: disc(60, 80, center=(0.3, 0.3)), 2: disc(60, 80, center=(0.6, 0.7))}
    labels = {
        choice: [
            r.labels for r in model.track(clip(4), masks=masks, score_threshold=ANY_SCORE, frame_references=choice)
        ]
        for choice in ("both", "first", "previous")
    }
    for choice in ("first", "previous"):
        # In the second frame the first one is the previous one too.
        np.testing.assert_array_equal(labels[choice][1], labels["both"][1])
        assert (labels[choice][2] != labels["both"][2]).any()
    assert (labels["first"][2] != labels["previous"][2]).any()


# ---- Without frames: given masks, and what is refused ----


def test_without_frames_a_given_mask_is_returned_and_then_forgotten() -> None:
    model = ScriptedModel(lambda *_: (-9.0, 0.9))
    tracker = VideoTracker(model, frame_references="none")
    tracker.add(1, text="the dog", mask=region(6))
    tracker.add(2, examples=[EXAMPLE])
    tracker.update(2, mask=region(8))
    first = tracker.step(blank(0))
    np.testing.assert_array_equal(first.masks[1], region(6))
    np.testing.assert_array_equal(first.masks[2], region(8))
    assert first.scores == {1: 1.0, 2: 1.0}
    assert model.asked == []
    assert not tracker.step(blank(1)).labels.any()
    assert model.asked == [{"the dog": ("the dog", []), "5": (None, [90])}]


@pytest.mark.parametrize("empty", [{}, {"examples": []}])
def test_without_frames_a_mask_alone_is_refused_and_adds_nothing(empty: dict) -> None:
    tracker = VideoTracker(ScriptedModel(in_its_region), frame_references="none")
    message = r"object 3 has a mask only.* a sentence or examples too, or take one of \('both', 'first', 'previous'\)"
    with pytest.raises(ValueError, match=message):
        tracker.add(3, mask=region(3), **empty)
    assert tracker.object_ids == []
    tracker.add(3, text="the dog")
    tracker.update(3, mask=region(3))
    tracker.remove(3)
    with pytest.raises(ValueError, match="object 3 has a mask only"):
        tracker.add(3, mask=region(3))


def unread() -> Iterator[NDArray[np.uint8]]:
    raise AssertionError("a frame was read")
    yield


@pytest.mark.parametrize(
    "arguments",
    [
        {"masks": {3: region(3)}},
        {"masks": 3 * region(3).astype(np.int64)},
        {"texts": {1: "the dog"}, "new_masks": {2: {1: region(1), 3: region(3)}}},
    ],
    ids=["masks", "map of ids", "joining"],
)
def test_without_frames_masks_alone_are_refused_at_the_call(arguments: dict) -> None:
    model = ScriptedModel(in_its_region)
    with pytest.raises(ValueError, match="object 3 has a mask only"):
        model.track(unread(), frame_references="none", **arguments)
    assert model.sentences == []


@pytest.mark.parametrize("named", [{"texts": {3: "the dog"}}, {"examples": {3: [EXAMPLE]}}], ids=["text", "example"])
def test_without_frames_a_mask_beside_something_else_is_taken(named: dict) -> None:
    model = ScriptedModel(lambda *_: (9.0, 0.9))
    results = list(model.track([blank(0), blank(1)], masks={3: region(3)}, frame_references="none", **named))
    np.testing.assert_array_equal(results[0].masks[3], region(3))
    assert results[1].masks[3].sum() == SIDE * SIDE


@pytest.mark.parametrize("choice", ["last", "BOTH", "", None])
def test_an_unknown_choice_is_refused(choice: str) -> None:
    message = r"frame_references must be one of \('both', 'first', 'previous', 'none'\), got "
    with pytest.raises(ValueError, match=message):
        VideoTracker(ScriptedModel(in_its_region), frame_references=choice)
    with pytest.raises(ValueError, match=message):
        ScriptedModel(in_its_region).track(unread(), masks={1: region(1)}, frame_references=choice)
