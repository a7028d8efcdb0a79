"""Following objects by masks: who owns a pixel, who is seen, what is remembered, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sam_uniref.eval.baselines.mask_tracker import EncodedFrame, Followed, MaskTracker
from sam_uniref.images import Mask
from sam_uniref.reference import MaskReference
from sam_uniref.segmentation import Segmentation
from sam_uniref.track_video import track_video

SIDE = 8
Logits = NDArray[np.float32]
Memory = tuple[int, ...]


@dataclass
class Scripted:
    """Knows an object by the number of pixels of its given mask, and remembers what it was told of it since.

    Attributes:
        script: From the frame's brightness and the object's number to its logits, or None.
        encoded: Brightness of the frames that were encoded.
        asked: Per question the frame's brightness and what was remembered.
    """

    script: Callable[[int, int], Logits | None]
    name: str = "the scripted method"
    encoded: list[int] = field(default_factory=list)
    asked: list[tuple[int, Memory]] = field(default_factory=list)

    def encode_image(self, images: NDArray[np.uint8]) -> int:
        self.encoded.append(int(images[0, 0, 0]))
        return self.encoded[-1]

    def start(self, frame: EncodedFrame, mask: Mask) -> Memory:
        return (int(mask.sum()),)

    def follow(self, frame: EncodedFrame, state: Memory) -> Followed[Memory] | None:
        brightness = int(frame.picture[0, 0, 0])
        self.asked.append((brightness, state))
        logits = self.script(brightness, state[0])
        if logits is None:
            return None
        return Followed(Segmentation(logits > 0, 0.5, logits, logits[None]), state)

    def see(self, state: Memory, mask: Mask) -> Memory:
        return (state[0], int(mask.sum()))


def tracker(script: Callable[[int, int], Logits | None]) -> tuple[MaskTracker[Memory], Scripted]:
    method = Scripted(script)
    return MaskTracker(method), method  # type: ignore[arg-type]


def frame(brightness: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.full((side, side, 3), brightness, np.uint8)


def row(pixels: int) -> Mask:
    """A mask of so many pixels, in the row of that number."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[pixels, :pixels] = True
    return mask


def logits(mask: Mask, certain: float = 4.0) -> Logits:
    return np.where(mask, certain, -certain).astype(np.float32)


def in_its_row(_: int, pixels: int) -> Logits:
    return logits(row(pixels))


def test_objects_join_at_any_frame_and_frames_are_encoded_once() -> None:
    followed, method = tracker(in_its_row)
    results = list(
        track_video(followed, [frame(i) for i in range(4)], new_masks={1: {1: row(3)}, 2: {7: row(5), 4: row(6)}})
    )
    assert method.encoded == [1, 2, 3], "a frame without objects is not encoded"
    assert [list(r.masks) for r in results] == [[], [1], [1, 7, 4], [1, 7, 4]]
    assert [r.index for r in results] == [0, 1, 2, 3]
    np.testing.assert_array_equal(results[3].labels, row(3) * 1 + row(5) * 7 + row(6) * 4)
    assert results[2].scores == {1: 0.5, 7: 1.0, 4: 1.0}
    assert results[3].scores == {1: 0.5, 7: 0.5, 4: 0.5}
    assert results[3].labels.dtype == np.int32


def test_given_masks_stand_as_they_are() -> None:
    followed, _ = tracker(lambda *_: np.full((SIDE, SIDE), 9, np.float32))
    both = row(5).copy()
    both[3, :3] = True
    followed.add(1, mask=row(3))
    followed.add(2, mask=both)
    first = followed.step(frame(0))
    np.testing.assert_array_equal(first.labels, both * 2)
    np.testing.assert_array_equal(first.masks[1], row(3))
    assert first.visible == {1: True, 2: True}
    followed.add(3, mask=row(4))
    second = followed.step(frame(1))
    np.testing.assert_array_equal(second.labels == 3, row(4), "no prediction paints over a given mask")


def test_a_lost_object_is_looked_for_with_what_was_known_when_it_was_seen() -> None:
    followed, method = tracker(
        lambda brightness, pixels: None if brightness == 3 else logits(row(pixels), 4 - brightness)
    )
    followed.add(1, mask=row(5))
    results = [followed.step(frame(i)) for i in range(6)]
    # At brightness 3 nothing is left to look for; from 4 on all logits are 0 or the mask is turned inside out.
    assert [r.visible[1] for r in results] == [True, True, True, False, False, True]
    assert [bool(r.masks[1].any()) for r in results] == [r.visible[1] for r in results]
    assert [r.scores[1] for r in results] == [1.0, 0.5, 0.5, 0.0, 0.5, 0.5]
    assert method.asked == [(1, (5,)), (2, (5, 5)), (3, (5, 5)), (4, (5, 5)), (5, (5, 5))]


def test_an_object_all_of_which_others_own_is_not_seen() -> None:
    followed, method = tracker(lambda _, pixels: logits(row(6) | row(5), pixels))
    followed.add(1, mask=row(5))
    followed.add(2, mask=row(6))
    followed.step(frame(0))
    result = followed.step(frame(1))
    assert result.visible == {1: False, 2: True}
    followed.step(frame(2))
    assert method.asked[2:] == [(2, (5,)), (2, (6, 11))]


def test_a_mask_given_again_starts_the_object_anew() -> None:
    followed, method = tracker(in_its_row)
    list(track_video(followed, [frame(i) for i in range(4)], masks={1: row(3)}, new_masks={2: {1: row(6)}}))
    assert method.asked == [(1, (3,)), (3, (6,))]


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, (3, SIDE, SIDE), elements=st.floats(-5, 5, width=16)),
    st.permutations([1, 2, 3]),
)
def test_the_owner_has_the_largest_logit_above_zero(values: Logits, order: list[int]) -> None:
    followed, _ = tracker(lambda _, pixels: values[pixels - 1])
    for object_id in order:
        followed.add(object_id, mask=row(object_id))
    followed.step(frame(0))
    result = followed.step(frame(1))
    for y, x in np.ndindex(SIDE, SIDE):
        owner = result.labels[y, x]
        if owner == 0:
            assert values[:, y, x].max() <= 0
        else:
            assert values[owner - 1, y, x] == values[:, y, x].max() > 0
    for object_id, mask in result.masks.items():
        np.testing.assert_array_equal(mask, result.labels == object_id)


def test_what_is_refused() -> None:
    followed, _ = tracker(in_its_row)
    with pytest.raises(ValueError, match="follows objects by their masks alone; give object 1 a mask"):
        followed.add(1)
    with pytest.raises(ValueError, match="by their masks alone"):
        followed.add(1, mask=row(3), text="the dog")
    with pytest.raises(ValueError, match="by their masks alone"):
        followed.add(1, mask=row(3), examples=[MaskReference(frame(0), row(3))])
    with pytest.raises(ValueError, match="mask of object 1 is empty"):
        followed.add(1, mask=row(0))
    with pytest.raises(ValueError, match="positive integer"):
        followed.add(0, mask=row(3))
    assert followed.object_ids == []
    followed.add(1, mask=row(3))
    followed.step(frame(0))
    with pytest.raises(ValueError, match="frame 1 is 9x9, those before it 8x8"):
        followed.step(frame(1, 9))
    with pytest.raises(ValueError, match="is 20x20 but its image is 8x8"):
        followed.add(2, mask=np.ones((20, 20), bool))
    assert followed.step(frame(1)).masks.keys() == {1}
