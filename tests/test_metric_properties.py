"""What must hold for any values: Prec@t, few-shot metrics, and the statistics of an object's frames."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.eval import davis, regions
from sam_uniref.eval.regions import Overlap

overlaps_of_one_size = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda pair: Overlap(min(pair), max(pair), 25)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=80)
@given(overlaps_of_one_size, st.floats(0, 1), st.floats(0, 1), st.randoms(use_true_random=False))
def test_precision_is_a_share_that_falls_with_the_threshold(
    overlaps: list[Overlap], one: float, other: float, random: Any
) -> None:
    low, high = sorted((one, other))
    for precision in (regions.precision_at_least, regions.precision_above):
        assert 1 >= precision(overlaps, low) >= precision(overlaps, high) >= 0
    assert regions.precision_at_least(overlaps, low) >= regions.precision_above(overlaps, low)
    shuffled = random.sample(overlaps, len(overlaps))
    assert regions.precision_above(shuffled, low) == regions.precision_above(overlaps, low)
    assert regions.mean_iou_by_class(shuffled, shuffled) == pytest.approx(regions.mean_iou_by_class(overlaps, overlaps))
    perfect, empty = [Overlap(7, 7, 25)] * 3, [Overlap(0, 7, 25)] * 3
    assert (regions.precision_at_least(perfect, high), regions.precision_above(empty, low)) == (1, 0)
    assert regions.foreground_background_iou(perfect) == 1
    assert regions.foreground_background_iou(empty) == (25 - 7) / 25 / 2


@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_frame_statistics_hold_for_any_values(values: list[float], random: Any) -> None:
    statistics = davis.frame_statistics(values)
    assert 0 <= statistics.mean <= 1 + 1e-12
    assert 0 <= statistics.recall <= 1
    assert -1 <= statistics.decay <= 1
    if len(values) % 4 == 1:  # only then are the quarters alike
        assert davis.frame_statistics(values[::-1]).decay == pytest.approx(-statistics.decay)
    shuffled = davis.frame_statistics(random.sample(values, len(values)))
    assert (shuffled.mean, shuffled.recall) == pytest.approx((statistics.mean, statistics.recall))
    level = davis.frame_statistics([0.75] * len(values))
    assert (level.mean, level.recall, level.decay) == (0.75, 1, 0)
