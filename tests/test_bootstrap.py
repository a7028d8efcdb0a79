"""Bootstrap intervals: what they cover, that the same is asked of both methods, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.eval import bootstrap as module
from sam_uniref.eval.bootstrap import Numbers, bootstrap, mean_of_units, paired_bootstrap, ratio_of_sums
from sam_uniref.eval.regions import Overlap, overall_iou


def test_the_interval_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    interval = bootstrap(values, unit="image")
    error = values.std() / np.sqrt(len(values))
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert (interval.unit, interval.units, interval.level) == ("image", 400, 0.95)
    wide, narrow = bootstrap(values, unit="image", level=0.99), bootstrap(values, unit="image", level=0.5)
    assert wide.low < interval.low < narrow.low < narrow.high < interval.high < wide.high
    assert str(interval) == f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        interval = bootstrap(rng.random(60), unit="image", resamples=500)
        hits += interval.low <= 0.5 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 5))
def test_intervals_hold_their_value_and_the_range(values: list[float], seed: int) -> None:
    interval = bootstrap(values, unit="video", resamples=200, seed=seed)
    slack = 1e-12
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack
    assert interval == bootstrap(values, unit="video", resamples=200, seed=seed)
    shifted = bootstrap([value + 3 for value in values], unit="video", resamples=200, seed=seed)
    assert (shifted.low, shifted.high) == pytest.approx((interval.low + 3, interval.high + 3))
    against_itself = paired_bootstrap(values, values, unit="video", resamples=200, seed=seed)
    assert (against_itself.value, against_itself.low, against_itself.high) == (0, 0, 0)
    assert not against_itself.above_zero


def test_one_unit_and_equal_units_have_no_width() -> None:
    for values in ([0.3], [0.25, 0.25, 0.25]):
        interval = bootstrap(values, unit="class", resamples=50)
        assert interval.low == interval.value == interval.high == values[0]


def test_pairs_are_drawn_together() -> None:
    """A small steady lead is certain although each method's own interval is wide."""
    rng = np.random.default_rng(3)
    theirs = rng.random(100)
    ours = theirs + 0.02 + rng.normal(0, 0.01, 100)
    apart = bootstrap(ours, unit="image"), bootstrap(theirs, unit="image")
    assert apart[0].low < apart[1].high
    lead = paired_bootstrap(ours, theirs, unit="image")
    assert lead.above_zero
    assert lead.value == pytest.approx(ours.mean() - theirs.mean())
    behind = paired_bootstrap(theirs, ours, unit="image")
    assert not behind.above_zero
    assert (behind.low, behind.high) == pytest.approx((-lead.high, -lead.low))


def test_ratio_of_sums() -> None:
    overlaps = [Overlap(3, 10, 100), Overlap(40, 50, 100), Overlap(0, 0, 100)]
    units = [[o.intersection, o.union] for o in overlaps]
    interval = bootstrap(units, ratio_of_sums, unit="image", resamples=300)
    assert interval.value == overall_iou(overlaps)
    assert interval.low == 0  # a draw of empty pairs alone
    # Objects in videos: the mean over objects, videos drawn.
    videos = [[0.9], [0.1, 0.2, 0.3]]
    sums = [[sum(objects), len(objects)] for objects in videos]
    interval = bootstrap(sums, ratio_of_sums, unit="video", resamples=300)
    assert (interval.low, interval.value, interval.high) == pytest.approx((0.2, 0.375, 0.9))


def test_any_statistic_and_few_draws_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).random((50, 2))

    def spread(drawn: Numbers) -> Numbers:
        assert drawn.shape[1:] == (50, 2)
        return np.ptp(drawn[..., 0], axis=1)

    whole = bootstrap(values, spread, unit="image", resamples=100)
    assert whole.value == np.ptp(values[:, 0])
    assert whole.high <= whole.value
    monkeypatch.setattr(module, "_AT_ONCE", 700)
    assert bootstrap(values, spread, unit="image", resamples=100) == whole


@pytest.mark.parametrize(
    ("units", "options", "message"),
    [
        ([], {}, "at least one unit"),
        (0.5, {}, "at least one unit"),
        ([0.1, float("nan")], {}, "must be finite, unit 1 is not"),
        ([0.1], {"resamples": 0}, "resamples must be at least 1, got 0"),
        ([0.1], {"level": 1.0}, "between 0 and 1, got 1.0"),
        ([0.1], {"statistic": lambda drawn: drawn}, "one finite number a draw"),
        ([0.1], {"statistic": lambda drawn: mean_of_units(drawn) * np.inf}, "one finite number a draw"),
    ],
)
def test_what_gives_no_interval_is_refused(units: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap(units, unit="image", **options)


def test_methods_on_different_units_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the same units, got numbers of \(2,\) and \(3,\)"):
        paired_bootstrap([1, 2], [1, 2, 3], unit="image")
    with pytest.raises(ValueError, match="second must be finite, unit 0"):
        paired_bootstrap([1.0], [np.inf], unit="image")
