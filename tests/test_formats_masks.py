"""Masks as downloads give them: what is sound is read exactly, what is broken is refused and never made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_uniref.data.prepared import EncodedMask, decode_mask, encode_mask, polygons_to_mask, read_segmentation

masks = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def runs_of(mask: np.ndarray) -> list[int]:
    """Column by column, beginning with background; the plainest way."""
    runs, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@given(masks)
@settings(max_examples=100, deadline=None)
def test_run_lengths_of_both_forms_are_read(mask: np.ndarray) -> None:
    size = (mask.shape[0], mask.shape[1])
    counts = encode_mask(mask).counts
    for given_counts in (runs_of(mask), counts, counts.decode()):
        encoded = read_segmentation({"size": list(size), "counts": given_counts}, size)
        if mask.any():
            assert encoded is not None
            np.testing.assert_array_equal(decode_mask(encoded), mask)
            assert encoded.area == mask.sum()
        else:
            assert encoded is None


def test_large_runs_are_read() -> None:
    mask = np.zeros((3000, 2000), bool)
    mask[1500:, 700:1900] = True
    counts = encode_mask(mask).counts
    encoded = read_segmentation({"size": [3000, 2000], "counts": counts.decode()}, (3000, 2000))
    assert encoded is not None
    assert encoded.area == 1500 * 1200


@given(masks, st.data())
@settings(max_examples=100, deadline=None)
def test_a_string_that_lost_its_end_is_refused(mask: np.ndarray, data: st.DataObject) -> None:
    encoded = encode_mask(mask)
    short = encoded.counts[: data.draw(st.integers(0, len(encoded.counts) - 1))]
    with pytest.raises(ValueError, match=r"mask's (runs|string of runs)"):
        read_segmentation({"size": list(mask.shape), "counts": short}, mask.shape)
    with pytest.raises(ValueError, match=r"mask's (runs|string of runs)"):
        decode_mask(EncodedMask(short, mask.shape))


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40), st.lists(st.integers(), max_size=6)))
@example("o" * 100)
@example(b"ONNN")
@example([-4, 20])
@example([2**70])
@example([])
@settings(max_examples=200, deadline=None)
def test_any_counts_give_a_sound_mask_or_an_error(counts: Any) -> None:
    try:
        encoded = read_segmentation({"size": [4, 4], "counts": counts}, (4, 4))
    except ValueError:
        return
    assert encoded is None or decode_mask(encoded).sum() == encoded.area > 0


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        "PQR",
        {"size": [4, 4]},
        {"counts": [16]},
        {"size": 4, "counts": [16]},
        {"size": [4], "counts": [4]},
        {"size": ["a", 4], "counts": [16]},
        {"size": [float("inf"), 4], "counts": [16]},
        {"size": [4, 4], "counts": [8.0, 8.0]},
        {"size": [4, 4], "counts": None},
        {"size": [4, 4], "counts": {"a": 1}},
        [0, 0, 3, 0, 3, 3],
        [None],
        ["abcdef"],
        [[0, 0, 3, 0, 3, "x"]],
        [[0, 0, 3, 0, 3, None]],
        [[[0], [0], [3], [0], [3], [3]]],
        [[0, 0, 3, 0, 3, float("nan")]],
        [[0, 0, 1e9, 0, 3, 3]],
        [[0, 0, -1e30, 0, 3, 3]],
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation: Any) -> None:
    with pytest.raises(ValueError, match=r"mask|polygon|segmentation|run-length"):
        read_segmentation(segmentation, (4, 4))


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size is \[3, 4\] but its picture's \[4, 3\]"):
        read_segmentation({"size": [3, 4], "counts": [6, 6]}, (4, 3))


def test_overlapping_polygons_are_a_union_and_unusable_ones_are_left_out() -> None:
    mask = np.zeros((9, 9), bool)
    mask[1:5, 1:5] = mask[3:8, 3:8] = True
    polygons = [[1, 1, 5, 1, 5, 5, 1, 5], [3, 3, 8, 3, 8, 8, 3, 8], [0, 0, 9, 9], [0, 0, 9, 0, 9, 9, 0]]
    encoded = polygons_to_mask(polygons, (9, 9))
    assert encoded is not None
    np.testing.assert_array_equal(decode_mask(encoded), mask)
    assert polygons_to_mask(polygons[2:], (9, 9)) is None
    assert read_segmentation([], (9, 9)) is None
