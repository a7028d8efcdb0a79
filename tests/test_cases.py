"""Frames of a clip: a sequence of which one picture is in memory."""

from __future__ import annotations

import numpy as np
import pytest

from sam_uniref.eval.cases import Frames


def test_frames_are_loaded_when_they_are_asked_for_and_the_last_is_kept() -> None:
    loaded: list[int] = []

    def load(number: int) -> np.ndarray:
        loaded.append(number)
        return np.full((2, 3, 3), number, np.uint8)

    frames = Frames(4, load)
    assert len(frames) == 4
    assert loaded == []
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 1, 2, 3]
    assert loaded == [0, 1, 2, 3]
    assert frames[3] is frames[-1]
    assert loaded == [0, 1, 2, 3], "the last one is there"
    assert [int(frame[0, 0, 0]) for frame in frames[1:3]] == [1, 2]
    one, other = iter(frames), iter(frames)
    loaded.clear()
    for _ in range(4):
        assert next(one) is next(other)
    assert loaded == [0, 1, 2, 3], "in step they load once for both"
    with pytest.raises(IndexError):
        frames[4]
