"""Means over seen and unseen objects: what must hold for any values. Recorded ones are in test_video_metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.eval import lvos, seen_unseen
from sam_uniref.eval.davis import ObjectScores


def test_groups() -> None:
    one, other = ("a", 1), ("b", 1)
    assert seen_unseen.group_means({one: 0.2, other: 0.6}, {other}) == seen_unseen.GroupMeans(0.2, 0.6)
    alone = seen_unseen.group_means({one: 0.2}, {other})
    assert (alone.unseen, alone.mean) == (None, 0.2)
    with pytest.raises(ValueError, match="no object"):
        seen_unseen.group_means({}, {one})
    with pytest.raises(ValueError, match="no frame"):
        lvos.stability(ObjectScores(np.array([]), np.array([])))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.floats(0, 1), min_size=1, max_size=5)), min_size=1, max_size=8),
    st.sets(st.integers(0, 3)),
    st.randoms(use_true_random=False),
)
def test_group_scores_hold_for_any_values(objects: list[Any], videos: set[int], random: Any) -> None:
    scores = {
        (str(name), k): ObjectScores(np.array(values), np.array(values)[::-1])
        for k, (name, values) in enumerate(objects)
    }
    unseen = seen_unseen.in_videos(scores, {str(name) for name in videos})
    got = lvos.summarise_lvos(scores, unseen)
    assert 0 <= got.overall <= 1
    assert 0 <= got.v.mean <= 0.5 + 1e-9
    items = list(scores.items())
    random.shuffle(items)
    again = lvos.summarise_lvos(dict(items), unseen)
    assert (again.overall, again.v.mean) == pytest.approx((got.overall, got.v.mean))
    # Groups change places, J and F change places, frames change places: the same number.
    assert lvos.summarise_lvos(scores, scores.keys() - unseen).overall == pytest.approx(got.overall)
    turned = {key: ObjectScores(s.f, s.j) for key, s in scores.items()}
    assert lvos.summarise_lvos(turned, unseen).v.mean == pytest.approx(got.v.mean)
    backwards = {key: ObjectScores(s.j[::-1], s.f[::-1]) for key, s in scores.items()}
    assert lvos.summarise_lvos(backwards, unseen).v.mean == pytest.approx(got.v.mean)
    # One value in all frames wanders nowhere, and every group has it.
    level = {key: ObjectScores(np.full_like(s.j, 0.25), np.full_like(s.f, 0.25)) for key, s in scores.items()}
    same = lvos.summarise_lvos(level, unseen)
    assert (same.overall, same.v.mean) == (0.25, 0)
