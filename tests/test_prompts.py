"""Simulated prompts of SAM's pretraining."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.train.prompts import correction_points, noisy_boxes, random_points


def box_masks(corners: list[tuple[int, int, int, int]], side: int = 64) -> torch.Tensor:
    masks = torch.zeros(len(corners), side, side, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners, strict=True):
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return masks


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20), st.integers(0, 20))
def test_points_lie_in_their_region(x: int, y: int, width: int, height: int) -> None:
    masks = box_masks([(x, y, x + width, y + height)] * 4)
    for px, py in random_points(masks)[:, 0].tolist():
        assert x <= px <= x + width
        assert y <= py <= y + height


def test_boxes_are_near_the_masks_and_noisy() -> None:
    masks = box_masks([(10, 20, 40, 50), (0, 0, 63, 63)] * 50)
    boxes = noisy_boxes(masks)
    truth = torch.tensor([[10.0, 20, 40, 50], [0, 0, 63, 63]] * 50)
    limit = 20 / 1024 * 64
    assert ((boxes - truth).abs() <= limit + 1e-5).all()
    assert (boxes >= 0).all()
    assert (boxes <= 63).all()
    assert boxes[::2].std(dim=0).min() > 0.2


def test_corrections_click_what_is_wrong() -> None:
    masks = box_masks([(10, 10, 30, 30)] * 3)
    logits = torch.full((3, 64, 64), -1.0)
    logits[0, 10:31, 10:21] = 1.0  # the right half is missed
    logits[1, 10:31, 10:41] = 1.0  # ten columns too much
    logits[2][masks[2]] = 1.0  # perfect
    points, labels = correction_points(logits, masks)
    assert 21 <= points[0, 0, 0] <= 30
    assert 31 <= points[1, 0, 0] <= 40
    assert masks[2, int(points[2, 0, 1]), int(points[2, 0, 0])]
    assert labels[:, 0].tolist() == [1, 0, 1]
