"""Conventions of video benchmarks: recorded values of the public programs, and what must hold for any masks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from id_folders import (
    RECORDED,
    SEQUENCES,
    Maps,
    maps_of_one_size,
    matched_ids,
    moving_objects,
    read_ids,
    recorded_davis,
)

from sam_uniref.data.formats.files import VOID
from sam_uniref.eval import conventions, davis, lvos, proposals, seen_unseen, youtube_vos
from sam_uniref.eval.boundaries import (
    boundary_accuracy,
    boundary_accuracy_of_all,
    region_similarity,
    region_similarity_of_all,
)
from sam_uniref.eval.conventions import ObjectKey, VideoFrames
from sam_uniref.eval.davis import ObjectScores
from sam_uniref.eval.id_maps import ids_in, score_frame

RECORDED_FRAMES = json.loads((RECORDED / "davis_statistics.json").read_text())["objects"]
GROUPS = json.loads((RECORDED / "lvos_ytvos.json").read_text())
OBJECTS: dict[ObjectKey, ObjectScores] = {
    (name.rpartition("_")[0], int(name.rpartition("_")[2])): ObjectScores(
        np.array(values["J_per_frame"]), np.array(values["F_per_frame"])
    )
    for name, values in RECORDED_FRAMES.items()
}


def scored(predicted: Maps, truth: Maps) -> list[Any]:
    return [score_frame(p, t) for p, t in zip(predicted, truth, strict=True)]


def video(frames: list[Any], stems: list[str] | None = None) -> VideoFrames[Any]:
    return VideoFrames("clip", dict(zip(stems or [f"{t:05d}" for t in range(len(frames))], frames, strict=True)))


def assert_statistics(got: davis.VideoScores, expected: dict[str, Any]) -> None:
    for statistics, name in ((got.j, "J"), (got.f, "F")):
        assert vars(statistics) == pytest.approx(expected[name], abs=1e-12)
    if "J&F" in expected:
        assert got.j_and_f == pytest.approx(expected["J&F"], abs=1e-12)


# ---- Recorded values ----


def test_official_values_with_the_same_ids(shared: Path) -> None:
    """Prediction i against object i, whatever else is predicted."""
    recorded = recorded_davis(shared)
    everything: list[ObjectScores] = []
    for name in SEQUENCES:
        truth, raw = (read_ids(shared / "data" / "davis_results" / side / name) for side in ("gt", "pred"))
        expected = recorded["sequences"][name]["same_id"]
        scores = davis.score_ids(raw[1:-1], truth[1:-1], [int(i) for i in expected["objects"]])
        for object_id, values in expected["objects"].items():
            mine = scores[int(object_id)]
            np.testing.assert_allclose(mine.j, values["J_per_frame"], rtol=0, atol=5.1e-9)
            np.testing.assert_allclose(mine.f, values["F_per_frame"], rtol=0, atol=5.1e-9)
            assert_statistics(davis.summarise([mine]), values)
        assert_statistics(davis.summarise(list(scores.values())), expected["sequence"])
        everything += scores.values()
    assert_statistics(davis.summarise(everything), recorded["global"]["same_id"])


def test_official_unsupervised_values(shared: Path) -> None:
    """The official program numbers an object's row by the rank of its proposal; ours has the object's own id."""
    recorded = recorded_davis(shared)["official_unsupervised_on_raw"]
    everything: list[ObjectScores] = []
    for name in SEQUENCES:
        truth, raw = (read_ids(shared / "data" / "davis_results" / side / name) for side in ("gt", "pred"))
        scores = proposals.unsupervised(raw, truth)
        ours = sorted((davis.summarise([mine]) for mine in scores.values()), key=lambda one: one.j.mean)
        theirs = sorted(recorded["objects"][name].values(), key=lambda one: one["J"]["mean"])
        assert list(scores) == list(range(1, len(theirs) + 1))
        for mine, expected in zip(ours, theirs, strict=True):
            assert_statistics(mine, expected)
        everything += scores.values()
    overall = davis.summarise(everything)
    assert_statistics(overall, recorded["global"])
    assert_statistics(proposals.mean_of_ref_davis_runs([overall] * 4), recorded["global"])


@pytest.mark.parametrize("ids", ["raw", "matched"])
def test_vos_benchmark_values(shared: Path, ids: str) -> None:
    recorded = recorded_davis(shared)
    results: dict[bool, dict[str, Any]] = {True: {}, False: {}}
    for name in SEQUENCES:
        truth, raw = (read_ids(shared / "data" / "davis_results" / side / name) for side in ("gt", "pred"))
        predicted = raw if ids == "raw" else matched_ids(recorded["sequences"][name]["matched"], raw)
        frames = scored(predicted, truth)
        for skip, found in results.items():
            found[name] = conventions.vos_benchmark_objects(frames, skip_first_and_last=skip)
    for skip, found in results.items():
        expected = recorded["vos_benchmark"][f"{ids}_{'skip_first_last' if skip else 'all_frames'}"]
        for name, objects in found.items():
            got = {str(i): [100 * scores.j.mean(), 100 * scores.f.mean()] for i, scores in objects.items()}
            assert got.keys() == expected["per_object"][name].keys()
            for object_id, values in got.items():
                assert values == pytest.approx(expected["per_object"][name][object_id], abs=1e-9)
        overall = davis.summarise([scores for objects in found.values() for scores in objects.values()])
        assert 100 * overall.j.mean == pytest.approx(expected["J"], abs=1e-9)
        assert 100 * overall.f.mean == pytest.approx(expected["F"], abs=1e-9)
        assert 100 * overall.j_and_f == pytest.approx(expected["J&F"], abs=1e-9)


def test_the_official_semi_supervised_class_says_what_its_functions_say(shared: Path) -> None:
    """The recorded statistics of the class are those of the matched ids, which the other tests reproduce."""
    recorded = recorded_davis(shared)
    assert recorded["official_semi_supervised_on_matched"]["global"] == recorded["global"]["matched"]
    for name in SEQUENCES:
        truth, raw = (read_ids(shared / "data" / "davis_results" / side / name) for side in ("gt", "pred"))
        scores = davis.semi_supervised(matched_ids(recorded["sequences"][name]["matched"], raw), truth)
        for object_id, values in recorded["official_semi_supervised_on_matched"]["objects"][name].items():
            assert_statistics(davis.summarise([scores[int(object_id)]]), values)


def test_lvos_and_youtube_vos_values() -> None:
    unseen = seen_unseen.in_videos(OBJECTS, ["lab-coat", "shooting", "a video that is not there"])
    for (name, object_id), scores in OBJECTS.items():
        expected = GROUPS["objects"][f"{name}_{object_id}"]
        assert ((name, object_id) in unseen) == (expected["group"] == "unseen")
        assert float(scores.j.mean()) == pytest.approx(expected["J"], abs=1e-12)
        assert float(scores.f.mean()) == pytest.approx(expected["F"], abs=1e-12)
        assert lvos.stability(scores) == pytest.approx(expected["V"], abs=1e-12)
        assert lvos.stability(scores, decimals=None) == pytest.approx(expected["V_without_rounding"], abs=1e-12)
    got, expected = lvos.summarise_lvos(OBJECTS, unseen), GROUPS["lvos"]
    for name, means in (("J", got.j), ("F", got.f), ("V", got.v)):
        assert means.seen == pytest.approx(expected[f"{name}_seen"], abs=1e-12)
        assert means.unseen == pytest.approx(expected[f"{name}_unseen"], abs=1e-12)
        assert means.mean == pytest.approx(expected[name], abs=1e-12)
    assert got.overall == pytest.approx(expected["J&F"], abs=1e-12)
    by_category = seen_unseen.not_of_categories({key: key[0] for key in OBJECTS}, ["car-shadow", "judo"])
    g = seen_unseen.seen_and_unseen(OBJECTS, by_category).overall
    assert g == pytest.approx(GROUPS["youtube_vos_G_with_the_same_groups"], abs=1e-12)
    plain, contrast = davis.summarise(list(OBJECTS.values())), GROUPS["plain_mean_over_objects_for_contrast"]
    assert (plain.j.mean, plain.f.mean) == pytest.approx((contrast["J"], contrast["F"]), abs=1e-12)


# ---- Frames ----


@settings(deadline=None, max_examples=60)
@given(maps_of_one_size)
def test_a_frame_of_ids_is_scored_as_its_masks_are(maps: tuple[Maps, Maps]) -> None:
    predicted, truth = maps[0][0], maps[1][0]
    frame = score_frame(predicted, truth)
    assert frame.truth == set(np.unique(truth).tolist()) - {0}
    assert frame.predicted == set(np.unique(predicted).tolist()) - {0}
    for object_id in range(1, 5):
        masks = (predicted == object_id)[None], (truth == object_id)[None]
        expected = float(region_similarity(*masks)[0]), float(boundary_accuracy(*masks)[0])
        assert frame.of(object_id) == pytest.approx(expected)
    other = score_frame(truth, predicted)
    assert {i: other.of(i) for i in range(5)} == {i: pytest.approx(frame.of(i)) for i in range(5)}


def test_a_mask_that_fills_the_picture_has_no_boundary() -> None:
    everywhere, nowhere = np.full((4, 5), 7, np.uint8), np.zeros((4, 5), np.uint8)
    assert score_frame(everywhere, nowhere).of(7) == score_frame(nowhere, everywhere).of(7) == (0, 1)


def test_ids_of_a_map() -> None:
    ids = np.array([[5, 5, 0], [0, VOID, 9], [2, 2, 2]])
    assert ids_in(ids) == [2, 5, 9]
    assert ids_in(ids[:, 2:]) == [2, 9]
    assert ids_in(np.zeros((1, 1), np.uint8)) == []
    with pytest.raises(ValueError, match=r"\(2, 3\), the truth \(3, 2\)"):
        score_frame(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9), st.integers(0, 3), st.integers(0, 1000))
def test_all_against_all_is_each_against_each(proposals_: int, objects: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.random((proposals_, 12, 17)) < 0.3, rng.random((objects, 12, 17)) < 0.3
    void = rng.random((12, 17)) < 0.1
    for all_of, one in (
        (region_similarity_of_all, region_similarity),
        (boundary_accuracy_of_all, boundary_accuracy),
    ):
        table = all_of(predicted, truth, void=void)
        assert table.shape == (proposals_, objects)
        for p, k in itertools.product(range(proposals_), range(objects)):
            assert table[p, k] == pytest.approx(one(predicted[p : p + 1], truth[k : k + 1], void=void)[0])


# ---- Unsupervised ----


def best_by_trying(predicted: Maps, truth: Maps) -> float:
    """The largest sum of (mean J + mean F) / 2 over all ways to give each object a proposal of its own."""
    objects = int(truth[0].max())
    count = max(objects, int(predicted.max()))

    def worth(p: int, k: int) -> float:
        pairs = [((ours == p)[None], (theirs == k)[None]) for ours, theirs in zip(predicted, truth, strict=True)]
        return float(np.mean([region_similarity(*pair)[0] + boundary_accuracy(*pair)[0] for pair in pairs])) / 2

    table = [[worth(p, k) for k in range(1, objects + 1)] for p in range(1, count + 1)]
    orders = itertools.permutations(range(count), objects)
    return max(sum(table[p][k] for k, p in enumerate(order)) for order in orders)


@settings(deadline=None, max_examples=40)
@given(maps_of_one_size, st.permutations(range(1, 4)))
def test_the_best_assignment_whatever_the_numbers(maps: tuple[Maps, Maps], order: list[int]) -> None:
    predicted, truth = maps
    assume(truth[0].max())
    predicted[0, 0, 0] = 4  # so that there are as many proposals by any other numbers
    scores = proposals.unsupervised(predicted, truth)
    overall = davis.summarise(list(scores.values()))
    assert 0 <= overall.j.mean <= 1
    assert 0 <= overall.f.mean <= 1
    assert overall.j_and_f * len(scores) == pytest.approx(best_by_trying(predicted, truth))
    renamed = np.array([0, *order, 4], np.uint8)[predicted]
    again = davis.summarise(list(proposals.unsupervised(renamed, truth).values()))
    assert again.j_and_f == pytest.approx(overall.j_and_f)


def test_unsupervised_rules() -> None:
    truth = moving_objects(5, 3)
    swapped = np.array([0, 3, 1, 2], np.uint8)[truth]
    perfect = proposals.unsupervised(swapped, truth)
    assert list(perfect) == [1, 2, 3]
    assert all((scores.j == 1).all() and len(scores.j) == 5 for scores in perfect.values())
    empty = proposals.unsupervised(truth * 0, truth)
    assert all((scores.j == 0).all() and (scores.f == 0).all() for scores in empty.values())
    # Void counts for neither: what is predicted there does no harm.
    void = truth.copy()
    void[:, -3:, -3:] = VOID
    swapped[:, -3:, -3:] = 2
    assert all((scores.j == 1).all() for scores in proposals.unsupervised(swapped, void).values())
    # An object of the first mask that is gone later is scored there too.
    gone = truth.copy()
    gone[1:][gone[1:] == 3] = 0
    assert proposals.unsupervised(truth, gone)[3].j.tolist() == [1, 0, 0, 0, 0]
    swapped[0, 0, 0] = 21
    with pytest.raises(ValueError, match="proposal 21 is predicted; at most 20"):
        proposals.unsupervised(swapped, truth)
    with pytest.raises(ValueError, match="has no object"):
        proposals.unsupervised(truth, truth * 0)
    with pytest.raises(ValueError, match="alike"):
        proposals.unsupervised(truth, truth[:, 1:])
    with pytest.raises(ValueError, match="no frame"):
        proposals.unsupervised_objects([])


def test_ref_davis_is_the_mean_of_four_runs() -> None:
    runs = [davis.summarise([ObjectScores(np.full(4, j), np.full(4, 2 * j))]) for j in (0.1, 0.2, 0.3, 0.4)]
    mean = proposals.mean_of_ref_davis_runs(runs)
    assert (mean.j.mean, mean.f.mean, mean.j_and_f) == pytest.approx((0.25, 0.5, 0.375))
    with pytest.raises(ValueError, match="has 4 runs, a set of sentences each, got 3"):
        proposals.mean_of_ref_davis_runs(runs[:3])


# ---- Which frames and objects count ----


@settings(deadline=None, max_examples=40)
@given(maps_of_one_size, st.integers(0, 3), st.permutations(range(1, 4)))
def test_conventions_by_ids(maps: tuple[Maps, Maps], before: int, order: list[int]) -> None:
    predicted, truth = maps
    frames = scored(predicted, truth)
    objects = conventions.vos_benchmark_objects(frames, skip_first_and_last=False)
    assert all(0 <= scores.j.mean() <= 1 and 0 <= scores.f.mean() <= 1 for scores in objects.values())
    # Frames before anything is seen or predicted do not count, wherever they are looked at.
    nothing = np.zeros((before, *truth.shape[1:]), np.uint8)
    later = scored(np.concatenate([nothing, predicted]), np.concatenate([nothing, truth]))
    for object_id, scores in conventions.vos_benchmark_objects(later, skip_first_and_last=False).items():
        np.testing.assert_array_equal(scores.j, objects[object_id].j)
    # Other names for the same objects, and frames in another order.
    names = np.array([0, *order], np.uint8)
    renamed = scored(names[predicted], names[truth])
    if frames[0].truth:
        as_they_are, otherwise = conventions.mose_objects(frames), conventions.mose_objects(renamed)
        assert {int(names[i]) for i in as_they_are} == {*otherwise}
        for object_id, scores in as_they_are.items():
            np.testing.assert_array_equal(scores.f, otherwise[int(names[object_id])].f)
        turned = conventions.mose_objects([frames[0], *frames[-2:0:-1], frames[-1]])
        for object_id, scores in as_they_are.items():
            assert sorted(turned[object_id].j) == sorted(scores.j)


def test_perfect_and_empty_predictions_by_every_convention() -> None:
    truth = moving_objects(6, 3, late=2)
    stems = [f"{t:05d}" for t in range(6)]
    listed = {("clip", k): youtube_vos.ListedObject("thing", tuple(stems[2 * (k == 3) :])) for k in (1, 2, 3)}
    ranges = {("clip", k): range(2 * (k == 3), 6) for k in (1, 2, 3)}
    every = {
        "MOSE": (conventions.MOSE, {1: 4, 2: 4}),
        "vos-benchmark": (conventions.VOS_BENCHMARK, {1: 4, 2: 4, 3: 3}),
        "all frames": (conventions.VOS_BENCHMARK_ALL_FRAMES, {1: 6, 2: 6, 3: 4}),
        "YouTube-VOS": (youtube_vos.youtube_vos(listed), {1: 5, 2: 5, 3: 3}),
        "LVOS": (lvos.lvos(ranges), {1: 6, 2: 6, 3: 4}),
        "DAVIS": (conventions.DAVIS, {1: 4, 2: 4}),
        "unsupervised": (conventions.DAVIS_UNSUPERVISED, {1: 6, 2: 6}),
    }
    for name, (convention, lengths) in every.items():
        known = np.where(truth == 3, 0, truth) if 3 not in lengths else truth
        for predicted, value in ((known, 1), (known * 0, 0)):
            frames = [convention.score(p, t) for p, t in zip(predicted, known, strict=True)]
            scores = convention.objects(video(frames, stems))
            assert {i: len(s.j) for i, s in scores.items()} == lengths, name
            assert all((s.j == value).all() and (s.f == value).all() for s in scores.values()), name


def test_mose_ids_need_not_be_in_order() -> None:
    truth = np.array([0, 4, 9], np.uint8)[moving_objects(4, 2)]
    predicted = truth.copy()
    predicted[1, 0, 0] = 77  # an id that the truth lacks takes nothing from the others
    assert {i: s.j.tolist() for i, s in conventions.mose_objects(scored(predicted, truth)).items()} == {
        4: [1, 1],
        9: [1, 1],
    }
    with pytest.raises(ValueError, match="at least 3"):
        conventions.mose_objects(scored(truth, truth)[:2])
    with pytest.raises(ValueError, match="has no object"):
        conventions.mose_objects(scored(truth * 0, truth * 0))
    with pytest.raises(ValueError, match="object 77 is predicted"):
        davis.semi_supervised_objects(scored(predicted, truth))


def test_youtube_vos_scores_listed_frames(tmp_path: Path) -> None:
    meta = {
        "clip": {
            "objects": {
                "1": {"category": "cat", "frames": ["00000", "00010"]},
                "2": {"category": "dog", "frames": ["00005", "00010", "00015"]},
                "3": {"frames": ["00015"]},
            }
        }
    }
    (tmp_path / "meta.json").write_text(json.dumps({"videos": meta}))
    listed = youtube_vos.read_objects(tmp_path / "meta.json")
    assert listed["clip", 2] == youtube_vos.ListedObject("dog", ("00005", "00010", "00015"))
    truth = moving_objects(4, 3)
    predicted = truth.copy()
    predicted[3][predicted[3] == 2] = 0
    stems = ["00000", "00005", "00010", "00015"]
    convention = youtube_vos.youtube_vos(listed)
    scores = convention.objects(video(scored(predicted, truth), stems))
    assert {i: s.j.tolist() for i, s in scores.items()} == {1: [1], 2: [1, 0]}
    with pytest.raises(ValueError, match=r"object 2 is to be scored in frame 00015, of which there is no true mask"):
        convention.objects(video(scored(predicted, truth)[:3], stems[:3]))
    assert convention.objects(VideoFrames("another", {})) == {}


def test_lvos_scores_every_fifth_frame_from_the_given_one(tmp_path: Path) -> None:
    spans = {"1": ("00000001", "00000016"), "2": ("00000006", "00000021")}
    objects = {k: {"frame_range": {"start": a, "end": b, "frame_nums": "3"}} for k, (a, b) in spans.items()}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {"clip": {"objects": objects}}}))
    ranges = lvos.read_ranges(tmp_path / "meta.json")
    assert list(ranges["clip", 2]) == [6, 11, 16]
    truth = moving_objects(5, 2)
    stems = [f"{n:08d}" for n in range(1, 25, 5)]
    predicted = truth.copy()
    predicted[0] = 0
    predicted[4] = 0
    scores = lvos.lvos(ranges).objects(video(scored(predicted, truth), stems))
    assert {i: s.j.tolist() for i, s in scores.items()} == {1: [0, 1, 1], 2: [1, 1, 1]}
    with pytest.raises(ValueError, match=r"object 2 is to be scored in frame 00000016, of which there is no true mask"):
        lvos.lvos(ranges).objects(video(scored(predicted, truth)[:3], stems[:3]))


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"start": "x", "end": "7"}, "object 1: frame_range start must be a frame's number, got 'x'"),
        ({"start": "7", "end": "7"}, "it starts in frame 7 and ends in 7"),
        ({"start": "7"}, "lacks 'end'"),
    ],
)
def test_an_lvos_file_that_is_odd(tmp_path: Path, span: dict[str, str], message: str) -> None:
    content = {"videos": {"clip": {"objects": {"1": {"frame_range": span}}}}}
    (tmp_path / "meta.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        lvos.read_ranges(tmp_path / "meta.json")
