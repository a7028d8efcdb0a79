"""What must hold for any values: Prec@t, few-shot metrics, an object's frames, and which of them conventions count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from id_folders import Maps

from sam_uniref.eval import conventions, davis, lvos, proposals, regions, youtube_vos
from sam_uniref.eval.conventions import Convention, VideoFrames
from sam_uniref.eval.davis import ObjectScores
from sam_uniref.eval.id_maps import ScoredFrame, score_frame
from sam_uniref.eval.regions import Overlap
from sam_uniref.eval.youtube_vos import ListedObject

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


@settings(deadline=None, max_examples=80)
@given(overlaps_of_one_size, st.permutations("abcd"), st.randoms(use_true_random=False))
def test_means_of_perfect_and_empty_answers_and_of_classes_by_other_names(
    overlaps: list[Overlap], names: list[str], random: Any
) -> None:
    classes = [random.randrange(4) for _ in overlaps]
    means = (regions.overall_iou, regions.mean_iou, lambda pairs: regions.mean_iou_by_class(pairs, classes))
    for mean in means:
        assert 0 <= mean(overlaps) <= 1
        assert mean([Overlap(0, pair.union, pair.pixels) for pair in overlaps]) == 0
        assert mean([Overlap(pair.union + 1, pair.union + 1, pair.pixels) for pair in overlaps]) == 1
    by_class = regions.iou_by_class(overlaps, classes)
    renamed = [names[number] for number in classes]
    assert regions.iou_by_class(overlaps, renamed) == {names[number]: iou for number, iou in by_class.items()}
    order = random.sample(range(len(overlaps)), len(overlaps))
    again = regions.mean_iou_by_class([overlaps[k] for k in order], [renamed[k] for k in order])
    assert again == pytest.approx(regions.mean_iou_by_class(overlaps, classes))


# ---- Which frames count ----

FRAMES = 6
videos = st.tuples(st.integers(2, 12), st.integers(2, 12)).flatmap(
    lambda size: st.tuples(*[arrays(np.uint8, (FRAMES, *size), elements=st.integers(0, 2)) for _ in range(2)])
)
STEMS = [f"{5 * number:08d}" for number in range(FRAMES)]


def scores_of(convention: Convention[ScoredFrame], predicted: Maps, truth: Maps) -> dict[int, ObjectScores]:
    frames = [score_frame(p, t) for p, t in zip(predicted, truth, strict=True)]
    return convention.objects(VideoFrames("video", dict(zip(STEMS, frames, strict=True))))


def check_frames(convention: Convention[ScoredFrame], counted: dict[int, list[int]], video: tuple[Maps, Maps]) -> None:
    """By object the frames that count, and no other: what is answered there is the score, and nothing else."""
    predicted, truth = video
    got = scores_of(convention, predicted, truth)
    assert got.keys() == counted.keys()
    perfect, empty = scores_of(convention, truth, truth), scores_of(convention, truth * 0, truth)
    for object_id, frames in counted.items():
        scores, seen = got[object_id], (truth[frames] == object_id).any(axis=(1, 2))
        assert len(scores.j) == len(scores.f) == len(frames)
        assert all(0 <= value <= 1 for value in (*scores.j, *scores.f))
        assert (perfect[object_id].j == 1).all()
        assert (perfect[object_id].f == 1).all()
        np.testing.assert_array_equal(empty[object_id].j, ~seen)
        others = np.isin(np.arange(FRAMES), frames, invert=True)
        elsewhere = predicted.copy()
        elsewhere[others] = np.minimum(truth[others] + 1, 2)
        np.testing.assert_array_equal(scores_of(convention, elsewhere, truth)[object_id].j, scores.j)
        # The same frames in another order have the same scores in that order.
        order = np.arange(FRAMES)
        order[frames] = frames[::-1]
        turned = scores_of(convention, predicted[order], truth[order])[object_id]
        np.testing.assert_array_equal(turned.j, scores.j[::-1])
        np.testing.assert_array_equal(turned.f, scores.f[::-1])


@settings(deadline=None, max_examples=30)
@given(videos)
def test_davis_counts_all_frames_but_the_first_and_the_last(video: tuple[Maps, Maps]) -> None:
    video[1][0, 0, :2] = (1, 2)
    check_frames(conventions.DAVIS, {1: [1, 2, 3, 4], 2: [1, 2, 3, 4]}, video)
    # By other numbers the objects' scores change places.
    got, swapped = (scores_of(conventions.DAVIS, *((3 - ids) % 3 if s else ids for ids in video)) for s in (0, 1))
    for object_id in (1, 2):
        np.testing.assert_array_equal(got[object_id].f, swapped[3 - object_id].f)


@settings(deadline=None, max_examples=30)
@given(videos, st.lists(st.integers(0, FRAMES - 1), min_size=2, unique=True).map(sorted))
def test_youtube_vos_counts_listed_frames_after_the_first(video: tuple[Maps, Maps], listed: list[int]) -> None:
    assume((video[1] == 1).any())
    item = ListedObject("cat", tuple(STEMS[frame] for frame in listed))
    once = ListedObject("cat", (STEMS[0],))
    convention = youtube_vos.youtube_vos({("video", 1): item, ("video", 2): once, ("another", 2): item})
    check_frames(convention, {1: listed[1:]}, video)


@settings(deadline=None, max_examples=30)
@given(videos, st.integers(0, FRAMES - 1), st.integers(1, FRAMES))
def test_lvos_counts_from_the_given_frame_to_before_the_end(video: tuple[Maps, Maps], start: int, length: int) -> None:
    assume((video[1] == 1).any())
    frames = range(FRAMES)[start : start + length]
    numbers = range(5 * start, 5 * frames[-1] + 1, lvos.FRAME_STEP)
    check_frames(lvos.lvos({("video", 1): numbers, ("another", 2): numbers}), {1: list(frames)}, video)


@settings(deadline=None, max_examples=30)
@given(videos)
def test_ref_youtube_vos_counts_all_frames(video: tuple[Maps, Maps]) -> None:
    predicted, truth = (ids.clip(max=1) for ids in video)
    got = scores_of(conventions.REF_YOUTUBE_VOS, predicted, truth)
    back = scores_of(conventions.REF_YOUTUBE_VOS, truth, predicted)
    np.testing.assert_array_equal(got[1].j, back[1].j)
    np.testing.assert_allclose(got[1].f, back[1].f)
    check_frames(conventions.REF_YOUTUBE_VOS, {1: list(range(FRAMES))}, (predicted, truth))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=9), min_size=4, max_size=4), st.permutations(range(4)))
def test_ref_davis_is_between_its_runs_in_any_order(values: list[list[float]], order: list[int]) -> None:
    runs = [davis.summarise([ObjectScores(np.array(v), np.array(v[::-1]))]) for v in values]
    mean = proposals.mean_of_ref_davis_runs(runs)
    alone = [run.j_and_f for run in runs]
    assert min(alone) - 1e-12 <= mean.j_and_f <= max(alone) + 1e-12
    assert proposals.mean_of_ref_davis_runs([runs[k] for k in order]).j_and_f == pytest.approx(mean.j_and_f)
    assert proposals.mean_of_ref_davis_runs(runs[:1] * 4).j_and_f == pytest.approx(alone[0])
