"""Metrics: recorded values of the public programs (shared/reference/metrics), and what must hold for any masks."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import blob_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image as PILImage

from sam_uniref.data.formats.files import VOID
from sam_uniref.eval import boundaries, davis, regions
from sam_uniref.eval.regions import Overlap

RECORDED = Path(__file__).parent / "fixtures" / "metrics"
RIS = json.loads((RECORDED / "ris.json").read_text())
FSS = json.loads((RECORDED / "fss.json").read_text())["expected_percent"]
DAVIS = json.loads((RECORDED / "davis_statistics.json").read_text())
SEQUENCES = ("car-shadow", "judo", "lab-coat", "shooting")

Masks = NDArray[np.bool_]


def pair(k: int) -> tuple[Masks, Masks]:
    """Prediction and truth of a recorded pair, drawn by its recipe."""
    told: str = RIS["pairs"][k]["prediction"]
    truth = blob_mask(f"ris/gt/{k:02d}", 90 + 6 * k, 160 - 3 * k).numpy() > 0
    if told.startswith("blob_mask"):
        return blob_mask(f"ris/pred/{k:02d}", *truth.shape).numpy() > 0, truth
    if told.startswith("ground truth rolled"):
        rows, columns = (int(word) for word in told.split() if word.isdigit())
        return np.roll(truth, (rows, columns), axis=(0, 1)), truth
    if told.startswith("first half"):
        places = np.flatnonzero(truth)
        if len(places) % 2:
            truth.flat[places[-1]] = False
        half = np.zeros_like(truth)
        half.flat[places[: len(places) // 2]] = True
        return half, truth
    assert told in ("empty", "both empty")
    return np.zeros_like(truth), truth if told == "empty" else np.zeros_like(truth)


PAIRS = [regions.overlap(*pair(k)) for k in range(20)]
CLASSES = [k % 4 for k in range(20)]


def test_the_pairs_are_the_recorded_ones() -> None:
    for counted, recorded in zip(PAIRS, RIS["pairs"], strict=True):
        assert (counted.intersection, counted.union) == (recorded["intersection"], recorded["union"])
        assert counted.pixels == np.prod(recorded["height_width"])


@pytest.mark.parametrize(
    ("block", "count", "above", "both_empty"),
    [
        ("literature_ge_first_19_pairs (threshold >=, no both-empty pair)", 19, False, 0.0),
        ("literature_ge_all_20_both_empty_counts_0 (LAVT test.py)", 20, False, 0.0),
        ("literature_ge_all_20_both_empty_counts_1", 20, False, 1.0),
        ("uniref_gt_first_19_pairs (threshold >, its RefCOCOeval run on these masks)", 19, True, 0.0),
        ("uniref_gt_all_20_pairs (its RefCOCOeval run on these masks)", 20, True, 0.0),
    ],
)
def test_referring_metrics_are_the_recorded_ones(block: str, count: int, above: bool, both_empty: float) -> None:
    expected = RIS["expected_percent"][block]
    pairs = PAIRS[:count]
    precision = regions.precision_above if above else regions.precision_at_least
    got = {f"P@{t}": precision(pairs, t, both_empty=both_empty) for t in (0.5, 0.6, 0.7, 0.8, 0.9)}
    got |= {"oIoU": regions.overall_iou(pairs), "mIoU": regions.mean_iou(pairs, both_empty=both_empty)}
    assert {name: 100 * value for name, value in got.items()} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("block", "count"), [("first_19_pairs", 19), ("all_20_pairs", 20)])
def test_few_shot_metrics_are_the_recorded_ones(block: str, count: int) -> None:
    expected = FSS[block]
    hsnet = expected["hsnet (per class sum of intersections / sum of unions, then class mean)"]
    pairs, classes = PAIRS[:count], CLASSES[:count]
    by_class = {str(name): 100 * value for name, value in regions.iou_by_class(pairs, classes).items()}
    assert by_class == pytest.approx(hsnet["per_class_iou"], abs=1e-9)
    assert 100 * regions.mean_iou_by_class(pairs, classes) == pytest.approx(hsnet["mIoU"], abs=1e-9)
    assert 100 * regions.foreground_background_iou(pairs) == pytest.approx(hsnet["FB-IoU"], abs=1e-9)
    assert 100 * regions.mean_iou(pairs) == pytest.approx(expected["mean_of_per_image_iou (UniRef)"], abs=1e-9)
    own = expected["hsnet_own_code"]  # in float32
    assert 100 * regions.mean_iou_by_class(pairs, classes) == pytest.approx(own["mIoU"], abs=1e-4)
    assert 100 * regions.foreground_background_iou(pairs) == pytest.approx(own["FB-IoU"], abs=1e-4)


def test_a_mean_over_nothing_is_refused() -> None:
    for metric in (regions.overall_iou, regions.mean_iou, regions.foreground_background_iou):
        with pytest.raises(ValueError, match="no sample"):
            metric([])
    with pytest.raises(ValueError, match="no frame"):
        davis.frame_statistics([])
    with pytest.raises(ValueError, match="no object"):
        davis.summarise([])
    with pytest.raises(ValueError, match=r"\(2, 3\), the truth \(3, 2\)"):
        regions.overlap(np.zeros((2, 3), bool), np.zeros((3, 2), bool))


def test_a_class_of_empty_masks_counts_zero() -> None:
    full, empty = Overlap(4, 4, 9), Overlap(0, 0, 9)
    assert regions.iou_by_class([full, empty], "ab") == {"a": 1.0, "b": 0.0}
    assert regions.mean_iou_by_class([full, empty], "ab") == 0.5
    assert regions.overall_iou([full, empty]) == 1.0


masks_of_one_size = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(
    lambda size: st.tuples(arrays(bool, (3, *size)), arrays(bool, (3, *size)))
)


@settings(deadline=None, max_examples=60)
@given(masks_of_one_size, st.randoms(use_true_random=False))
def test_overlaps_do_not_depend_on_order_or_side(masks: tuple[Masks, Masks], random: Any) -> None:
    predicted, truth = masks
    pairs = [regions.overlap(p, t) for p, t in zip(predicted, truth, strict=True)]
    assert pairs == [regions.overlap(t, p) for p, t in zip(predicted, truth, strict=True)]
    metrics: list[Any] = [regions.overall_iou, regions.mean_iou, regions.foreground_background_iou]
    before = [metric(pairs) for metric in metrics]
    assert all(0 <= value <= 1 for value in before)
    random.shuffle(pairs)
    assert [metric(pairs) for metric in metrics] == pytest.approx(before)
    # One class for all accumulates, a class for each does not.
    assert regions.mean_iou_by_class(pairs, [0] * 3) == regions.overall_iou(pairs)
    assert regions.mean_iou_by_class(pairs, range(3)) == pytest.approx(regions.mean_iou(pairs))
    perfect = [regions.overlap(t, t) for t in truth if t.any()]
    if perfect:
        assert regions.mean_iou(perfect) == regions.overall_iou(perfect) == 1


def read_ids(folder: Path) -> NDArray[np.uint8]:
    return np.stack([np.array(PILImage.open(path)) for path in sorted(folder.glob("*.png"))])


def expected_statistics(recorded: dict[str, dict[str, float]], which: str) -> davis.FrameStatistics:
    return davis.FrameStatistics(**recorded[which])


def close(got: davis.FrameStatistics, expected: davis.FrameStatistics, tolerance: float) -> None:
    assert (got.mean, got.recall, got.decay) == pytest.approx(
        (expected.mean, expected.recall, expected.decay), abs=tolerance
    )


def test_official_j_and_f_of_real_videos(shared: Path) -> None:
    """Every recorded frame and statistic of `db_eval_iou`, `db_eval_boundary` and `db_statistics`, ids as matched."""
    everything = json.loads((shared / "reference" / "metrics" / "davis_jf.json").read_text())
    scored = []
    for name in SEQUENCES:
        recorded = everything["sequences"][name]["matched"]
        truth, raw = (read_ids(shared / "data" / "davis_results" / side / name) for side in ("gt", "pred"))
        relabelled = np.zeros(256, np.uint8)
        for true_id, predicted_id in recorded["gt_id_to_pred_id"].items():
            relabelled[predicted_id] = int(true_id)
        objects = davis.semi_supervised(relabelled[raw], truth)
        assert [str(i) for i in objects] == list(recorded["objects"])
        for object_id, scores in objects.items():
            expected = recorded["objects"][str(object_id)]
            for which, values in (("J", scores.j), ("F", scores.f)):
                np.testing.assert_allclose(values, expected[f"{which}_per_frame"], rtol=0, atol=5.1e-9)
                close(davis.frame_statistics(values), expected_statistics(expected, which), 1e-12)
        sequence = davis.summarise(list(objects.values()))
        assert sequence.j_and_f == pytest.approx(recorded["sequence"]["J&F"], abs=1e-12)
        scored += objects.values()
    overall, expected = davis.summarise(scored), everything["global"]["matched"]
    close(overall.j, expected_statistics(expected, "J"), 1e-12)
    close(overall.f, expected_statistics(expected, "F"), 1e-12)
    assert overall.j_and_f == pytest.approx(expected["J&F"], abs=1e-12)


def test_official_values_with_other_ids_and_all_frames(shared: Path) -> None:
    """The same ids on published predictions, and vos-benchmark's means over all frames, in percent."""
    everything = json.loads((shared / "reference" / "metrics" / "davis_jf.json").read_text())
    folder = shared / "data" / "davis_results"
    truth, raw = (read_ids(folder / side / "judo") for side in ("gt", "pred"))
    same = everything["sequences"]["judo"]["same_id"]["objects"]
    for object_id, scores in davis.score_ids(raw[1:-1], truth[1:-1], [1, 2]).items():
        close(davis.frame_statistics(scores.f), expected_statistics(same[str(object_id)], "F"), 1e-12)
    whole = everything["vos_benchmark"]["raw_all_frames"]["per_object"]["judo"]
    for object_id, scores in davis.score_ids(raw, truth, [1, 2]).items():
        got = [100 * scores.j.mean(), 100 * scores.f.mean()]
        assert got == pytest.approx(whole[str(object_id)], abs=1e-9)
    with pytest.raises(ValueError, match="object 20 is predicted in frame 0, but the truth has only the ids 1-2"):
        davis.semi_supervised(raw, truth)


@pytest.mark.parametrize("name", DAVIS["objects"])
def test_official_statistics_of_recorded_frames(name: str) -> None:
    recorded = DAVIS["objects"][name]
    for which in ("J", "F"):
        # The recorded frames are rounded to 8 decimals.
        close(davis.frame_statistics(recorded[f"{which}_per_frame"]), expected_statistics(recorded, which), 1e-8)


def test_official_means_over_objects() -> None:
    objects = [
        davis.ObjectScores(np.array(o["J_per_frame"]), np.array(o["F_per_frame"])) for o in DAVIS["objects"].values()
    ]
    overall = davis.summarise(objects)
    close(overall.j, expected_statistics(DAVIS["global"], "J"), 1e-8)
    close(overall.f, expected_statistics(DAVIS["global"], "F"), 1e-8)
    assert overall.j_and_f == pytest.approx(DAVIS["global"]["J&F"], abs=1e-8)


def test_decay_is_right_beyond_256_frames() -> None:
    """The official program's bin edges are bytes and wrap; a falling line has the same decay at any length."""
    for frames in (9, 255, 257, 1001):
        falling = np.linspace(1, 0, frames)
        assert davis.frame_statistics(falling).decay == pytest.approx(0.75)
    assert davis.frame_statistics([0.3]).decay == 0
    assert davis.frame_statistics([0.5, 0.6]).recall == 0.5, "0.5 itself is no hit"


@pytest.mark.parametrize(("height", "width", "radius"), [(480, 854, 8), (480, 1152, 10), (128, 128, 2), (3, 4, 1)])
def test_tolerance_grows_with_the_diagonal(height: int, width: int, radius: int) -> None:
    assert boundaries.boundary_radius(height, width) == radius


def naive_boundary(mask: Masks) -> set[tuple[int, int]]:
    """Pixel by pixel, from the recorded definition."""
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            neighbours: Iterable[tuple[int, int]] = ((y, x + 1), (y + 1, x), (y + 1, x + 1))
            if any(v < height and u < width and mask[v, u] != mask[y, x] for v, u in neighbours):
                found.add((y, x))
    return found


def naive_f(predicted: Masks, truth: Masks, radius: int) -> float:
    """F from the distances between all pairs of boundary pixels."""
    ours, theirs = naive_boundary(predicted), naive_boundary(truth)
    if not ours or not theirs:
        return float(not ours and not theirs)

    def near(some: set[tuple[int, int]], others: set[tuple[int, int]]) -> float:
        hits = sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in some)
        return hits / len(some)

    precision, recall = near(ours, theirs), near(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None, max_examples=80)
@given(masks_of_one_size, st.integers(0, 6))
def test_f_is_what_its_definition_says(masks: tuple[Masks, Masks], radius: int) -> None:
    predicted, truth = masks
    diagonal = float(np.hypot(*truth.shape[1:]))
    bound = (radius - 0.5) / diagonal if radius else 0.0
    assert boundaries.boundary_radius(*truth.shape[1:], bound) == radius
    expected = [naive_f(p, t, radius) for p, t in zip(predicted, truth, strict=True)]
    assert boundaries.boundary_accuracy(predicted, truth, bound=bound).tolist() == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(masks_of_one_size)
def test_j_and_f_are_shares_and_symmetric(masks: tuple[Masks, Masks]) -> None:
    predicted, truth = masks
    for score in (boundaries.region_similarity, boundaries.boundary_accuracy):
        values = score(predicted, truth)
        assert values.shape == (3,)
        assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_allclose(score(truth, predicted), values)
        assert (score(truth, truth) == 1).all()
        # Rows and columns play the same part, and the objects have nothing to do with one another.
        np.testing.assert_allclose(score(predicted.transpose(0, 2, 1), truth.transpose(0, 2, 1)), values)
        np.testing.assert_allclose(score(predicted[[2, 0, 1]], truth[[2, 0, 1]]), values[[2, 0, 1]])
        np.testing.assert_allclose([score(predicted[k : k + 1], truth[k : k + 1])[0] for k in range(3)], values)
    # A boundary is the same from both sides.
    np.testing.assert_allclose(
        boundaries.boundary_accuracy(~predicted, ~truth), boundaries.boundary_accuracy(predicted, truth)
    )


@settings(deadline=None, max_examples=40)
@given(masks_of_one_size, st.data())
def test_void_pixels_count_for_neither(masks: tuple[Masks, Masks], data: st.DataObject) -> None:
    predicted, truth = masks
    void = data.draw(arrays(bool, truth.shape[1:]))
    other = np.where(void, data.draw(arrays(bool, truth.shape)), predicted)
    for score in (boundaries.region_similarity, boundaries.boundary_accuracy):
        np.testing.assert_array_equal(score(predicted, truth, void=void), score(other, truth, void=void))
        np.testing.assert_array_equal(score(predicted, truth, void=void), score(predicted & ~void, truth & ~void))


def test_objects_beyond_a_byte_and_none() -> None:
    """Eight objects share a byte; the ninth has one of its own."""
    rng = np.random.default_rng(0)
    predicted, truth = rng.random((2, 19, 20, 30)) < 0.2
    for score in (boundaries.region_similarity, functools.partial(boundaries.boundary_accuracy, bound=0.05)):
        together = score(predicted, truth)
        alone = [score(p[None], t[None])[0] for p, t in zip(predicted, truth, strict=True)]
        assert len(set(together)) > 15
        np.testing.assert_array_equal(together, alone)
        assert score(predicted[:0], truth[:0]).shape == (0,)
    shares = [(p & t).sum() / (p | t).sum() for p, t in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(boundaries.region_similarity(predicted, truth), shares)


def test_empty_masks() -> None:
    empty, some = np.zeros((1, 20, 30), bool), np.zeros((1, 20, 30), bool)
    some[0, 5:9, 5:9] = True
    for score in (boundaries.region_similarity, boundaries.boundary_accuracy):
        assert (score(empty, empty), score(empty, some), score(some, empty)) == (1, 0, 0)
    # A mask that fills the picture has no boundary, as an empty one.
    assert boundaries.boundary_accuracy(~empty, empty) == 1
    assert boundaries.region_similarity(~empty, empty) == 0


def test_a_boundary_within_the_tolerance_matches_and_beyond_does_not() -> None:
    truth = np.zeros((1, 128, 128), bool)
    truth[0, :, :40] = True
    for shift, expected in ((0, 1), (2, 1), (3, 0)):
        assert boundaries.boundary_accuracy(_moved(truth, shift), truth) == expected


def _moved(mask: Masks, columns: int) -> Masks:
    moved = np.ones_like(mask)
    moved[:, :, columns:] = mask[:, :, : mask.shape[2] - columns]
    return moved


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (np.zeros((1, 4, 5), bool), np.zeros((1, 5, 4), bool), "alike"),
        (np.zeros((4, 5), bool), np.zeros((4, 5), bool), "K, H, W"),
        (np.zeros((1, 4, 5), np.uint8), np.zeros((1, 4, 5), bool), "must be bool, got uint8"),
    ],
)
def test_masks_that_do_not_fit_are_refused(predicted: Any, truth: Any, message: str) -> None:
    for score in (boundaries.region_similarity, boundaries.boundary_accuracy):
        with pytest.raises(ValueError, match=message):
            score(predicted, truth)


def test_semi_supervised_rules() -> None:
    """Object 1 is absent at first but counts, as its id is below the highest; void and the outer frames do not."""
    truth = np.zeros((5, 8, 8), np.uint8)
    truth[:, 2:5, 2:5] = 2
    truth[2:, 6:, 6:] = 1
    truth[:, 0, 0] = VOID
    predicted = truth.copy()
    predicted[[0, -1]] = 0
    perfect = davis.semi_supervised(predicted, truth)
    assert list(perfect) == [1, 2]
    assert all((scores.j == 1).all() and (scores.f == 1).all() for scores in perfect.values())
    assert all(len(scores.j) == 3 for scores in perfect.values())
    predicted[predicted == 1] = 0  # padded with an empty mask, which is right in the frame where it is absent
    assert davis.semi_supervised(predicted, truth)[1].j.tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="at least 3"):
        davis.semi_supervised(predicted[:2], truth[:2])
    with pytest.raises(ValueError, match="has no object"):
        davis.semi_supervised(predicted * 0, truth * 0)
    with pytest.raises(ValueError, match="alike"):
        davis.semi_supervised(predicted[:, 1:], truth)


def test_hsnet_compares_at_400_by_400() -> None:
    """Nearest as PyTorch's `interpolate` has it, for pictures smaller and larger than that."""
    rng = np.random.default_rng(0)
    for size in ((224, 224), (1, 3), (500, 375), (400, 400)):
        mask = rng.random(size) < 0.5
        expected = torch.nn.functional.interpolate(torch.tensor(mask)[None, None].float(), (400, 400), mode="nearest")
        np.testing.assert_array_equal(regions.at_hsnet_size(mask), expected[0, 0].numpy() > 0)
    with pytest.raises(ValueError, match=r"must be \(H, W\), got \(1, 4, 4\)"):
        regions.at_hsnet_size(np.zeros((1, 4, 4), bool))
