"""The recorded ``vos`` and ``rvos`` cases of the published code, reached through a step of the tracker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from parity import TOLERANCE, blob_mask, recorded
from published import SIZE, encoded, published_model, sentences

from sam_uniref import SamRef, VideoTracker
from sam_uniref.interfaces import ImageFeatures, MaskPrediction

FRAMES = ("first", "prev", "image")


@pytest.fixture(scope="module")
def model() -> SamRef:
    return published_model()


@pytest.fixture(scope="module")
def frames(model: SamRef) -> dict[str, ImageFeatures]:
    return {name: encoded(model, name) for name in FRAMES}


@pytest.mark.parametrize("task", ["vos", "rvos"])
@pytest.mark.parametrize("item", [0, 1])
def test_a_step_answers_as_published(
    task: str, item: int, model: SamRef, frames: dict[str, ImageFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First and previous frame with their recorded masks, then the current frame."""
    shown = iter(frames[name].select([item]) for name in FRAMES)
    monkeypatch.setattr(model, "encode_image", lambda _: next(shown))
    predicted: list[MaskPrediction] = []
    predict: Callable[..., MaskPrediction] = model.predict

    def spy(*given: Any, **options: Any) -> MaskPrediction:
        predicted.append(predict(*given, **options))
        return predicted[-1]

    monkeypatch.setattr(model, "predict", spy)
    tracker = VideoTracker(model, score_threshold=float("-inf"))
    blank = np.zeros((*SIZE, 3), np.uint8)
    tracker.add(1, mask=blob_mask(f"uniref_sam.first_mask.{item}", *SIZE).numpy() > 0)
    tracker.step(blank)
    # What the second step remembers is the recorded mask in place of the model's own answer.
    with monkeypatch.context() as given:
        given.setattr(tracker, "_mask", lambda *_: blob_mask(f"uniref_sam.prev_mask.{item}", *SIZE).numpy() > 0)
        tracker.step(blank)
    if task == "rvos":
        tracker._objects[1].text = sentences(model).select(torch.tensor([item]))
    result = tracker.step(blank)
    expected = recorded("uniref_sam")
    np.testing.assert_allclose(
        predicted[-1].logits[0, 0, ::5, ::5], expected[f"{task}.low_res"][item, 0], rtol=TOLERANCE, atol=TOLERANCE
    )
    assert result.scores[1] == pytest.approx(expected[f"{task}.iou"][item], abs=TOLERANCE)
    sampled = result.masks[1][::31, ::31]
    certain = np.abs(expected[f"{task}.pred_mask"][item, 0]) > 1e-3
    np.testing.assert_array_equal(sampled[certain], expected[f"{task}.pred_mask"][item, 0][certain] > 0)
