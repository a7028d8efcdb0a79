"""Losses on masks against plain formulas; padding counts in none of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sam_uniref.losses import bce_loss, dice_focal_losses, dice_loss, focal_loss, mask_iou, mask_losses

SIDE = 16


def case(seed: int, rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and valid pixels; each row has another content size."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, SIDE, SIDE, generator=generator)
    targets = (torch.rand(rows, SIDE, SIDE, generator=generator) > 0.6).float()
    valid = torch.zeros(rows, SIDE, SIDE, dtype=torch.bool)
    for row in range(rows):
        valid[row, : SIDE - 3 * row, : SIDE - row] = True
    return logits, targets, valid


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_losses_are_their_plain_formulas(seed: int) -> None:
    logits, targets, valid = case(seed)
    bce, dice, iou = [], [], []
    for row in range(len(logits)):
        x, t = logits[row][valid[row]].double(), targets[row][valid[row]].double()
        p = x.sigmoid()
        bce.append(-(t * p.log() + (1 - t) * (1 - p).log()).mean())
        dice.append(1 - (2 * (p * t).sum() / 1000 + 1e-6) / ((p.sum() + t.sum()) / 1000 + 1e-6))
        iou.append(((x > 0) & (t > 0)).sum() / ((x > 0) | (t > 0)).sum())
    assert bce_loss(logits, targets, valid).item() == pytest.approx(torch.stack(bce).mean().item(), rel=1e-4)
    assert dice_loss(logits, targets, valid).item() == pytest.approx(torch.stack(dice).mean().item(), rel=1e-4)
    torch.testing.assert_close(mask_iou(logits > 0, targets, valid), torch.stack(iou).float())


def test_padding_counts_in_no_loss() -> None:
    logits, targets, valid = case(0)
    other_logits = torch.where(valid, logits, 50.0).requires_grad_()
    other_targets = torch.where(valid, targets, 1 - targets)
    for loss in (bce_loss, dice_loss):
        value = loss(other_logits, other_targets, valid)
        torch.testing.assert_close(value, loss(logits, targets, valid))
        (grad,) = torch.autograd.grad(value, other_logits)
        assert not grad[~valid].any()
        assert grad[valid].any()
    assert torch.equal(mask_iou(other_logits > 0, other_targets, valid), mask_iou(logits > 0, targets, valid))


def test_a_perfect_prediction_costs_nothing() -> None:
    targets = torch.zeros(2, SIDE, SIDE)
    targets[0, 4:12, 4:12] = targets[1, :, :8] = 1
    valid = torch.ones_like(targets, dtype=torch.bool)
    logits = 80 * (targets - 0.5)
    assert mask_iou(logits > 0, targets, valid).tolist() == [1, 1]
    assert bce_loss(logits, targets, valid) < 1e-6
    assert dice_loss(logits, targets, valid) < 1e-6


def test_empty_targets_are_finite_and_reward_silence() -> None:
    targets, valid = torch.zeros(2, SIDE, SIDE), torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    silent = mask_losses(torch.full((2, 4, 4), -9.0), torch.zeros(2), targets, valid)
    loud = mask_losses(torch.full((2, 4, 4), 9.0), torch.zeros(2), targets, valid)
    assert all(torch.isfinite(v) for v in (*silent.values(), *loud.values()))
    assert silent["bce"] < 1e-3 < 1 < loud["bce"]
    assert silent["dice"] < loud["dice"]
    assert silent["iou"] == loud["iou"] == 0
    assert mask_losses(torch.full((2, 4, 4), 9.0), torch.full((2,), 0.5), targets, valid)["iou"] == 0.25


def test_rows_that_are_padding_only_are_finite() -> None:
    logits, targets, valid = case(1)
    valid[1] = False
    assert torch.isfinite(bce_loss(logits, targets, valid))
    assert torch.isfinite(dice_loss(logits, targets, valid))
    assert mask_iou(logits > 0, targets, valid)[1] == 0


def test_logits_are_enlarged_and_the_score_learns_the_true_iou() -> None:
    targets = torch.zeros(1, SIDE, SIDE)
    targets[:, :, :8] = 1
    valid = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    low_res = torch.full((1, 4, 4), -5.0)
    low_res[:, :2] = 5.0  # the upper half; the target is the left one
    scores = torch.tensor([0.2], requires_grad=True)
    losses = mask_losses(low_res.requires_grad_(), scores, targets, valid)
    assert set(losses) == {"bce", "dice", "iou"}
    assert losses["iou"].item() == pytest.approx((0.2 - 1 / 3) ** 2, rel=1e-4)
    (grad,) = torch.autograd.grad(losses["iou"], scores, retain_graph=True)
    assert grad.item() == pytest.approx(2 * (0.2 - 1 / 3), rel=1e-4)
    (through_mask,) = torch.autograd.grad(losses["iou"], low_res, allow_unused=True)
    assert through_mask is None


def test_half_precision_logits_give_full_precision_losses() -> None:
    logits, targets, valid = case(2)
    losses = mask_losses(logits.bfloat16(), torch.rand(3).bfloat16(), targets, valid)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


# ---- RefSAM's ----


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_dice_and_focal_are_their_plain_formulas(seed: int) -> None:
    logits, targets, valid = case(seed)
    dice, focal = [], []
    for row in range(len(logits)):
        x, t = logits[row][valid[row]].double(), targets[row][valid[row]].double()
        p = x.sigmoid()
        dice.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
        foreground, background = 0.25 * t * (1 - p) ** 2 * p.log(), 0.75 * (1 - t) * p**2 * (1 - p).log()
        focal.append(-(foreground + background).mean())
    got = dice_focal_losses(logits, targets, valid)
    assert got["dice"].item() == pytest.approx(torch.stack(dice).mean().item(), rel=1e-4)
    assert got["focal"].item() == pytest.approx(torch.stack(focal).mean().item(), rel=1e-4)


def test_padding_counts_in_no_focal_loss() -> None:
    logits, targets, valid = case(0)
    other = focal_loss(torch.where(valid, logits, 50.0), torch.where(valid, targets, 1 - targets), valid)
    torch.testing.assert_close(other, focal_loss(logits, targets, valid))
