"""Metrics and their intervals: the parts give the value, on any samples and any grouping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.eval.davis import ObjectScores
from sam_uniref.eval.measures import Metric, Units, mean_of_known_ratios, mean_of_ratios
from sam_uniref.eval.protocols import FewShotScore, SentenceScore, TrackScore
from sam_uniref.eval.protocols.tracks import over_time
from sam_uniref.eval.refshapes_protocol import PROTOCOLS
from sam_uniref.eval.regions import Overlap

overlaps = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda p: Overlap(p[0], p[0] + p[1], 200))
values = st.lists(st.floats(0, 1), min_size=1, max_size=6).map(np.array)
names = st.sampled_from("abc")


def assert_parts_give_values(metrics: dict[str, Metric]) -> None:
    for name, metric in metrics.items():
        assert mean_of_ratios(metric.parts) == pytest.approx(metric.value, abs=1e-12), name
        assert mean_of_ratios(np.stack([metric.parts] * 2)) == pytest.approx([metric.value] * 2, abs=1e-12)


@given(st.lists(st.tuples(names, overlaps), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_ris(samples: list[tuple[str, Overlap]]) -> None:
    metrics = PROTOCOLS["ris"](1).measure([SentenceScore(case, "", "", overlap) for case, overlap in samples])
    assert_parts_give_values(metrics)
    for t in (0.5, 0.9):
        assert metrics[f"Prec>{t}"].value <= metrics[f"Prec@{t}"].value


@given(st.lists(st.tuples(names, overlaps, overlaps), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_fss(samples: list[tuple[str, Overlap, Overlap]]) -> None:
    scores = [FewShotScore(str(k), name, {1: one, 5: five}) for k, (name, one, five) in enumerate(samples)]
    metrics = PROTOCOLS["fss"](1).measure(scores)
    assert_parts_give_values(metrics)
    assert metrics["mIoU_by_class_1shot"].unit == "class"
    assert len(metrics["mIoU_by_class_1shot"].parts) == len({name for name, *_ in samples})


def track_score(case: str, run: int, j: np.ndarray, f: np.ndarray) -> TrackScore:

    size = min(len(j), len(f))
    return TrackScore(case, "1", 1, tuple(range(size)), run, "", ObjectScores(j[:size], f[:size]))


@given(st.lists(st.tuples(names, st.integers(0, 2), values, values), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_tracks_and_runs(samples: list[tuple[str, int, np.ndarray, np.ndarray]]) -> None:
    assert_parts_give_values(PROTOCOLS["rvos"](1).measure([track_score(*sample) for sample in samples]))


def test_runs_are_averaged_however_many_objects_they_have() -> None:
    one, zero = np.ones(3), np.zeros(3)
    scores = [track_score("a", 0, one, one), track_score("b", 0, one, one), track_score("a", 1, zero, one)]
    metrics = PROTOCOLS["rvos"](1).summarise(scores)
    assert (metrics["J"], metrics["F"], metrics["J&F"]) == (0.5, 1, 0.75)


def test_samples_of_a_unit_are_drawn_together() -> None:
    metric = Units(["a", "b", "a"], "video").metric(2.0, ([1, 2, 3], [1, 1, 1]))
    np.testing.assert_array_equal(metric.parts, [[4, 2], [2, 1]])
    told = metric.reported()
    assert (told["value"], told["low"], told["high"], told["n"], told["unit"]) == (2, 2, 2, 2, "video")


def test_an_interval_is_the_same_each_time_and_holds_the_value() -> None:
    rng = np.random.default_rng(0)
    metric = Units(list(range(40)), "image").metric(0.5, (rng.uniform(0, 1, 40), np.ones(40)))
    told = metric.reported()
    assert told == metric.reported()
    assert 0.3 < told["low"] < told["high"] < 0.7


def test_nothing_to_score_is_refused() -> None:
    for task, make in PROTOCOLS.items():
        with pytest.raises(ValueError, match=f"{task}: there is nothing to score"):
            make(1).measure([])


def test_over_time() -> None:
    falling = track_score("a", 0, np.linspace(1, 0, 4), np.linspace(1, 0, 4))
    assert over_time([falling], parts=4) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert over_time([falling], parts=2) == pytest.approx([5 / 6, 1 / 6])
    assert over_time([falling], parts=100) == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_a_group_that_a_draw_lacks_is_left_out() -> None:
    parts = np.array([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 3.0]])
    assert (mean_of_ratios(parts), mean_of_known_ratios(parts)) == (0.75, 0.75)
    assert (mean_of_ratios(parts[:1]), mean_of_known_ratios(parts[:1])) == (0.25, 0.5)
    np.testing.assert_array_equal(mean_of_known_ratios(parts[[[0, 0], [0, 1], [1, 1]]]), [0.5, 0.75, 1])
    assert mean_of_known_ratios(np.zeros((3, 4))) == 0
