"""Points put into masks and tracked by optical flow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from persam_support import tiny_host
from tiny import disc, picture

from sam_uniref.eval.baselines import PointTracks
from sam_uniref.eval.baselines.mask_tracker import EncodedFrame
from sam_uniref.eval.baselines.point_tracks import grey_picture, spread_points, tracked_points
from sam_uniref.images import Mask


@settings(max_examples=100, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(1, 10))
def test_points_are_different_pixels_of_the_mask(mask: Mask, count: int) -> None:
    mask[0, 0] |= not mask.any()
    points = spread_points(mask, count)
    assert points.dtype == np.float32
    assert len({tuple(point) for point in points.tolist()}) == len(points) == min(count, mask.sum())
    assert all(mask[int(y), int(x)] for x, y in points)
    np.testing.assert_array_equal(points, spread_points(mask.copy(), count))


def test_points_are_inside_and_apart() -> None:
    mask = disc(90, 120)
    points = spread_points(mask, 8)
    np.testing.assert_allclose(points[0], [60, 45], atol=1)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(8)
    assert distances.min() > 5
    whole = spread_points(np.ones((40, 40), bool), 1)
    np.testing.assert_allclose(whole[0], [20, 20], atol=1)


def test_points_follow_a_shift() -> None:
    before = picture(100, 120)
    now = np.roll(before, (3, -4), axis=(0, 1))
    points = spread_points(disc(100, 120), 8)
    moved = tracked_points(grey_picture(before), grey_picture(now), points, 1.0)
    assert len(moved) == 8
    np.testing.assert_allclose(moved, points + np.array([-4, 3]), atol=0.2)


def test_points_that_do_not_hold_are_dropped() -> None:
    before = grey_picture(picture(100, 120, seed=1))
    noise = np.random.default_rng(0).integers(0, 255, before.shape).astype(np.uint8)
    points = spread_points(disc(100, 120), 8)
    assert len(tracked_points(before, noise, points, 1.0)) < 4
    # What moves out of the frame is not on it.
    edge = np.array([[1.0, 50.0], [60.0, 50.0]], np.float32)
    out = tracked_points(before, np.roll(before, -6, axis=1), edge, 1.0)
    assert len(out) <= 1
    assert tracked_points(before, before, np.empty((0, 2), np.float32), 1.0).shape == (0, 2)


def test_new_points_are_put_in_where_too_few_are_left() -> None:
    method = PointTracks(tiny_host(), count=6, fewest=4)
    frame = EncodedFrame(picture(60, 80), method.encode_image(picture(60, 80)))
    state = method.start(frame, disc(60, 80))
    assert len(state.points) == 6
    kept = method.see(type(state)(state.grey, state.points[:4]), disc(60, 80))
    np.testing.assert_array_equal(kept.points, state.points[:4])
    renewed = method.see(type(state)(state.grey, state.points[:3]), disc(60, 80, center=(0.3, 0.3)))
    np.testing.assert_array_equal(renewed.points, spread_points(disc(60, 80, center=(0.3, 0.3)), 6))


def test_an_object_without_points_is_lost_until_its_surroundings_come_back() -> None:
    method = PointTracks(tiny_host())
    shown = picture(64, 64)
    hidden = np.zeros_like(shown)
    hidden[::2] = 255
    mask = disc(64, 64)
    results = list(method.track([shown, hidden, hidden, shown], masks={1: mask}))
    assert [r.visible[1] for r in results[:3]] == [True, False, False]
    assert results[1].scores[1] == 0
    assert results[3].scores[1] > 0, "its points are found again in the last frame in which they were"


@pytest.mark.parametrize("wrong", [{"count": 0}, {"fewest": 0}, {"tolerance": 0.0}, {"tolerance": float("nan")}])
def test_wrong_options(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least 1 and the tolerance above 0"):
        PointTracks(tiny_host(), **wrong)  # type: ignore[arg-type]
