"""What SAM sees in a picture by itself, and which of it an answer means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tiny import tiny_model

from sam_uniref.config import LoraConfig, SamRefConfig
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.everything import nearest_segment, segment_everything
from sam_uniref.samref import SamRef
from sam_uniref.segmentation import Segmentation
from sam_uniref.turned import TurnedImage

EVERYTHING: dict[str, Any] = {"least_score": 0.0, "least_stability": 0.0, "most_overlap": 1.0}


def iou(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Of two masks; 0 where both are empty."""
    return float((mask & other).sum() / max(1, (mask | other).sum()))


def answer_of(logits: NDArray[np.float32]) -> Segmentation:
    """An answer with these logits at the picture's size."""
    return Segmentation(logits > 0, 0.5, logits, np.zeros((1, 4, 4), np.float32))


@pytest.fixture(scope="module")
def tiny() -> SamRef:
    """The packaged one, whose SAM can draw RefShapes."""
    return SamRef.from_pretrained("tiny")


def test_sam_sees_the_objects_of_a_scene(tiny: SamRef) -> None:
    data = RefShapesDataset("refshapes", "ris", episodes=6)
    best = []
    for index in range(6):
        scene = data.scene_sentences(index)
        segments = segment_everything(tiny, scene.image)
        best += [
            max((iou(segment.mask, scene.ids == k) for segment in segments), default=0.0)
            for k in range(1, int(scene.ids.max()) + 1)
        ]
    assert np.median(best) > 0.8


@pytest.mark.parametrize("size", [(128, 128), (96, 128), (128, 70)])
def test_segments_are_good_different_and_the_best_comes_first(tiny: SamRef, size: tuple[int, int]) -> None:
    picture = RefShapesDataset("refshapes", "ris", episodes=8).scene_sentences(7).image[: size[0], : size[1]]
    features = tiny.encode_image(picture)
    segments = segment_everything(tiny, features, points_per_side=12, least_score=0.7, most_overlap=0.3)
    again = segment_everything(tiny, picture, points_per_side=12, least_score=0.7, most_overlap=0.3)
    assert len(segments) > 1
    for segment, same in zip(segments, again, strict=True):
        assert segment.mask.shape == size
        assert segment.score >= 0.7
        np.testing.assert_array_equal(segment.mask, segment.logits > 0)
        np.testing.assert_array_equal(segment.logits, same.logits)
    height, width = tiny.low_res_size(features)
    drawn = [segment.low_res_logits[0, :height, :width] > 0 for segment in segments]
    assert max(iou(a, b) for k, a in enumerate(drawn) for b in drawn[:k]) <= 0.3
    # A higher bound keeps the worthiest, if it has that score.
    best = segment_everything(tiny, features, points_per_side=12, least_score=segments[0].score, most_overlap=0.3)
    np.testing.assert_array_equal(best[0].logits, segments[0].logits)
    assert all(segment.score >= segments[0].score for segment in best)


def test_a_grid_of_one_point_is_sam_asked_in_the_middle() -> None:
    model = tiny_model(noise=0.05)
    picture = np.random.default_rng(3).integers(0, 256, (100, 128, 3), dtype=np.uint8)
    segments = segment_everything(model, picture, points_per_side=1, **EVERYTHING)
    asked = model.segment(picture, points=[(64, 50)], multimask=True, decoder="sam")
    assert any(np.allclose(segment.logits, asked.logits, atol=1e-4) for segment in segments)
    assert max(segment.score for segment in segments) == pytest.approx(asked.score, abs=1e-5)


def test_segments_are_sam_s_own_whatever_was_trained() -> None:
    picture = np.random.default_rng(4).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    config = SamRefConfig.for_size("tiny")
    plain = tiny_model(config=config)
    config.lora = LoraConfig(image_targets=["qkv"])
    lora = tiny_model(noise=0.05, config=config)
    assert not torch.equal(lora.encode_image(picture).levels[0], plain.encode_image(picture).levels[0])
    wanted = segment_everything(plain, picture, points_per_side=3, **EVERYTHING)
    for segments in (
        segment_everything(lora, picture, points_per_side=3, **EVERYTHING),
        segment_everything(lora, TurnedImage(lora, picture).own_features, points_per_side=3, **EVERYTHING),
    ):
        for segment, own in zip(segments, wanted, strict=True):
            np.testing.assert_allclose(segment.logits, own.logits, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points_per_side": 0}, "points_per_side must be at least 1, got 0"),
        ({"least_score": 1.5}, "the bound of the score must be in 0-1, got 1.5"),
        ({"least_stability": -0.1}, "the bound of the stability must be in 0-1, got -0.1"),
        ({"most_overlap": float("nan")}, "the bound of the overlap must be in 0-1, got nan"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segment_everything(tiny_model(), np.zeros((16, 16, 3), np.uint8), **options)  # type: ignore[arg-type]


def test_one_picture_at_a_time() -> None:
    model, picture = tiny_model(), np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="takes one image, got 2"):
        segment_everything(model, model.encode_image([picture, picture]))


def test_nothing_good_enough_is_no_segment() -> None:
    assert segment_everything(tiny_model(), np.zeros((64, 64, 3), np.uint8), points_per_side=2, least_score=1.0) == []


masks = hnp.arrays(bool, (5, 6))


@settings(deadline=None)
@given(st.lists(masks, min_size=1, max_size=4), st.integers(0, 3), st.permutations(range(4)))
def test_a_segment_is_found_by_its_own_mask_in_any_order(
    drawn: list[NDArray[np.bool_]], which: int, order: list[int]
) -> None:
    target = drawn[which % len(drawn)]
    segments = [answer_of(np.where(mask, 9, -9).astype(np.float32)) for mask in drawn]
    shuffled = [segments[k] for k in order if k < len(segments)]
    found = nearest_segment(answer_of(np.where(target, 30, -30).astype(np.float32)), shuffled)
    if target.any():
        assert found is not None
        np.testing.assert_array_equal(found.mask, target)
    else:
        assert found is None


def test_of_two_segments_the_surer_one_is_meant() -> None:
    left, right = np.zeros((2, 4, 8), bool)
    left[:, :3], right[:, 5:] = True, True
    logits = np.full((4, 8), -6, np.float32)
    logits[left], logits[right] = 0.5, 3
    segments = [answer_of(np.where(mask, 9, -9).astype(np.float32)) for mask in (left, right)]
    found = nearest_segment(answer_of(logits), segments)
    assert found is segments[1]
    assert nearest_segment(answer_of(logits), []) is None
    assert nearest_segment(answer_of(-np.ones((4, 8), np.float32)), segments) is None
    with pytest.raises(ValueError, match=r"picture of \(8, 4\).*a segment of one of \(4, 8\)"):
        nearest_segment(answer_of(logits.T), segments)
