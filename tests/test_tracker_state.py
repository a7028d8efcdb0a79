"""A stream that is cut off and goes on: the same results, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny import disc, picture, tiny_model
from tracking_support import ScriptedModel, blank, bytes_held, in_its_region, region

from sam_uniref import FrameResult, MaskReference, SamRef, VideoTracker

HEIGHT, WIDTH = 60, 80


@pytest.fixture(scope="module")
def model() -> SamRef:
    return tiny_model(noise=0.05)


def clip(frames: int) -> list[NDArray[np.uint8]]:
    return [picture(HEIGHT, WIDTH, seed) for seed in range(frames)]


def assert_same(got: FrameResult, expected: FrameResult) -> None:
    assert (got.index, got.scores, got.visible) == (expected.index, expected.scores, expected.visible)
    np.testing.assert_array_equal(got.labels, expected.labels)
    for object_id, mask in expected.masks.items():
        np.testing.assert_array_equal(got.masks[object_id], mask)


def everything(model: SamRef) -> VideoTracker:
    """A tracker with every kind of reference, two frames on, and a mask that waits for the next one."""
    tracker = VideoTracker(model, score_threshold=float("-inf"))
    tracker.add(7, mask=disc(HEIGHT, WIDTH, center=(0.3, 0.3)))
    tracker.add(2, text="the dog")
    tracker.add(4, examples=[MaskReference(picture(seed=9), disc()), MaskReference(picture(seed=8), disc())])
    for frame in clip(2):
        tracker.step(frame)
    tracker.add(5, mask=disc(HEIGHT, WIDTH, center=(0.6, 0.7)), text="the cat")
    return tracker


def test_a_saved_stream_goes_on_bit_for_bit(model: SamRef, tmp_path: Path) -> None:
    tracker = everything(model)
    tracker.save(tmp_path / "stream.safetensors")
    again = VideoTracker(model, score_threshold=float("-inf"))
    again.load(tmp_path / "stream.safetensors")
    assert again.object_ids == tracker.object_ids == [7, 2, 4, 5]
    for frame in clip(5)[2:]:
        assert_same(again.step(frame), tracker.step(frame))
    with pytest.raises(ValueError, match="frame 5 is"):
        again.step(picture(HEIGHT + 1, WIDTH, 0))


def test_what_is_shared_is_saved_once_and_shared_again(model: SamRef) -> None:
    tracker = everything(model)
    tracker.step(clip(3)[2])
    state = tracker.state_dict()
    frames = {name.split(".")[1] for name in state if name.startswith("frames.")}
    kept = [reference.frame for tracked in tracker._objects.values() for reference in tracked.masks()]
    assert len(frames) == len({id(frame) for frame in kept}) < len(kept)
    again = VideoTracker(model, score_threshold=float("-inf"))
    again.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    # Only a sentence, whose keys and values were one tensor, is now twice there.
    assert bytes_held(again) <= 1.01 * bytes_held(tracker)


def test_an_empty_tracker(model: SamRef, tmp_path: Path) -> None:
    VideoTracker(model).save(tmp_path / "empty.safetensors")
    tracker = VideoTracker(model)
    tracker.load(tmp_path / "empty.safetensors")
    assert tracker.object_ids == []
    tracker.add(1, mask=disc(HEIGHT, WIDTH))
    assert tracker.step(clip(1)[0]).index == 0


def test_what_is_no_state_changes_nothing(model: SamRef, tmp_path: Path) -> None:
    tracker = everything(model)
    file = tmp_path / "stream.safetensors"
    tracker.save(file)
    other = VideoTracker(tiny_model(noise=0.06))
    with pytest.raises(ValueError, match="was saved with another model"):
        other.load(file)
    with pytest.raises(FileNotFoundError, match="there is no state of a tracker at"):
        other.load(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="holds no state of a tracker"):
        other.load(tmp_path / "broken.safetensors")
    state = load_file(file)
    for name in ("ids", "frame", "frames.0.keys.0", "objects.7.first.values.0"):
        with pytest.raises(ValueError, match=f"there is no '{name}'"):
            tracker.load_state_dict({key: tensor for key, tensor in state.items() if key != name})
    save_file(state, tmp_path / "nobody.safetensors")
    with pytest.raises(ValueError, match="another model"):
        other.load(tmp_path / "nobody.safetensors")
    assert (tracker.object_ids, other.object_ids) == ([7, 2, 4, 5], [])


# What a stream may go through: an object joins (positive), leaves (negative), a frame, or it is saved and loaded.
events = st.lists(st.one_of(st.integers(1, 6), st.integers(-6, -1), st.just(0), st.just("saved")), max_size=24)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events)
def test_whatever_happens_ids_are_kept_and_memory_does_not_grow(happens: list[int | str]) -> None:
    scripted = ScriptedModel(in_its_region)
    tracker = VideoTracker(scripted)
    present: list[int] = []
    frame, held = 0, {}
    for event in happens:
        if event == "saved":
            state = tracker.state_dict()
            tracker = VideoTracker(scripted)
            tracker.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
        elif event == 0:
            for _ in range(2):  # the second one has all first and previous frames there are
                result = tracker.step(blank(frame))
                frame += 1
            assert result.index == frame - 1
            assert list(result.masks) == list(result.scores) == list(result.visible) == present
            expected = sum((object_id * region(object_id).astype(int) for object_id in present), np.zeros(()))
            np.testing.assert_array_equal(result.labels, np.broadcast_to(expected, result.labels.shape))
            # Never more than a first frame of its own an object, and one frame that is the previous of all.
            state = tracker.state_dict()
            frames = {name.split(".")[1] for name in state if name.startswith("frames.")}
            assert len(frames) <= len(present) + bool(present)
            size = bytes_held(tracker)
            assert size <= held.setdefault(len(present), size) * 1.5 + 4096
        elif isinstance(event, int) and event > 0 and event not in present:
            tracker.add(event, mask=region(event))
            present.append(event)
        elif isinstance(event, int) and -event in present:
            tracker.remove(-event)
            present.remove(-event)
        assert tracker.object_ids == present


def test_memory_is_the_same_after_three_hundred_frames(model: SamRef) -> None:
    tracker = VideoTracker(model, score_threshold=float("-inf"))
    for object_id, center in enumerate([(0.3, 0.3), (0.3, 0.7), (0.7, 0.3), (0.7, 0.7)], start=1):
        tracker.add(object_id, mask=disc(HEIGHT, WIDTH, center=center))
    frames = clip(5)
    held = []
    for index in range(300):
        result = tracker.step(frames[index % 5])
        # Every object stays in sight, so that all four hold all they ever hold.
        for object_id in [i for i, seen in result.visible.items() if not seen]:
            tracker.update(object_id, mask=disc(HEIGHT, WIDTH, center=(0.2 * object_id, 0.5)))
        if index in (19, 299):
            held.append(bytes_held(tracker))
    assert abs(held[1] - held[0]) <= 0.02 * held[0]


def test_objects_that_do_not_compete_may_overlap(model: SamRef) -> None:
    scripted = ScriptedModel(lambda *_: (3.0, 0.9))
    for exclusive, pixels in ((True, {256}), (False, {256})):
        tracker = VideoTracker(scripted, exclusive=exclusive)
        tracker.add(1, mask=region(3))
        tracker.add(2, mask=region(5))
        tracker.step(blank(0))
        masks = tracker.step(blank(1)).masks
        assert {int(mask.sum()) for mask in masks.values() if mask.any()} == pixels
        assert sum(bool(mask.any()) for mask in masks.values()) == (1 if exclusive else 2)


def test_together_and_alone_before_they_compete(model: SamRef) -> None:
    """The same to 1e-4, whoever else is tracked."""

    def logits(objects: dict[int, NDArray[np.bool_]]) -> dict[int, torch.Tensor]:
        tracker = VideoTracker(model, score_threshold=float("-inf"), exclusive=False)
        seen: dict[int, torch.Tensor] = {}
        predict = tracker._predict

        def spy(*args: object) -> tuple[dict[int, torch.Tensor], dict[int, float]]:
            found, scores = predict(*args)  # type: ignore[arg-type]
            seen.update(found)
            return found, scores

        tracker._predict = spy  # type: ignore[method-assign]
        for object_id, mask in objects.items():
            tracker.add(object_id, mask=mask)
        for frame in clip(4):
            tracker.step(frame)
        return seen

    masks = {i: disc(HEIGHT, WIDTH, center=(0.25 * i, 0.5)) for i in (1, 2, 3)}
    together = logits(masks)
    for object_id, mask in masks.items():
        torch.testing.assert_close(logits({object_id: mask})[object_id], together[object_id], rtol=1e-4, atol=1e-4)
