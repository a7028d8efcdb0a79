"""Real frames with the packaged model: what it answers there means nothing, that all of it runs does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import answer, files_in
from PIL import Image as PILImage

from sam_uniref import MaskReference, SamRef, VideoTracker
from sam_uniref.video import read_frames

pytestmark = pytest.mark.shared


def test_the_bedroom_with_a_sentence(shared: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "bedroom.mp4"
    got = answer(
        *("track", shared / "data" / "clips" / "bedroom", "--model", "tiny", "--text", "1:the big blue object"),
        *("--score-threshold", "-1e9", "--overlay", overlay, "--out", tmp_path / "masks", "--json"),
    )
    assert got["frames"] == 20
    painted = [frame.picture for frame in read_frames(overlay)]
    assert (len(painted), painted[0].shape) == (20, (540, 960, 3))
    assert files_in(tmp_path / "masks") == [f"{5 * index:05d}.png" for index in range(20)]


def test_the_bike_with_an_object_that_joins_and_one_that_leaves(shared: Path) -> None:
    bike = shared / "data" / "clips" / "bike"
    frames = sorted((bike / "images").iterdir())
    ids = np.asarray(PILImage.open(next((bike / "masks").iterdir())))
    tracker = VideoTracker(SamRef.from_pretrained("tiny"))
    tracker.add(1, mask=ids)
    first = tracker.step(frames[0])
    np.testing.assert_array_equal(first.labels, np.where(ids == 1, 1, 0))
    tracker.add(2, mask=ids == 2)
    tracker.add(7, text="the red object", examples=[MaskReference(frames[0], ids, object_id=1)])
    second = tracker.step(frames[1])
    np.testing.assert_array_equal(second.masks[2], ids == 2)
    tracker.remove(1)
    third = tracker.step(frames[2])
    assert list(third.masks) == [2, 7]
    assert set(np.unique(third.labels)) <= {0, 2, 7}
    assert third.labels.shape == ids.shape
