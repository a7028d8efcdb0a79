"""Losses of sets: plain formulas, what is averaged over what, and targets that are tiny, absent, or without a mask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from host_waits import HostWaits
from hypothesis import given, settings
from hypothesis import strategies as st
from set_cases import CPU, SIDE, output_of, random_boxes, targets_of
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.detr.boxes import centers, corners, overlap
from sam_uniref.detr.criterion import Matches, set_losses
from sam_uniref.detr.loss_options import LossOptions
from sam_uniref.detr.set_losses import aggregated_logits, bootstrapped_cross_entropy, box_losses, soft_mask_iou
from sam_uniref.detr.set_targets import SetTargets, sampled, set_targets
from sam_uniref.interfaces import Instances, Targets

LAYERS, QUERIES = 2, 6
VIDEO = LossOptions(video_terms=True)


def from_masks(masks: Tensor, size: tuple[int, int] = (SIDE, SIDE)) -> SetTargets:
    return set_targets(Targets(masks), [size] * len(masks), (SIDE, SIDE), CPU)


def rectangle(y0: int, y1: int, x0: int, x1: int) -> Tensor:
    """One mask ``(1, SIDE, SIDE)``."""
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, y0:y1, x0:x1] = 1
    return mask


class Case:
    """A small output with masks of all queries, and which of them were asked for."""

    def __init__(self, rows: int, *, classes: int = 1, stride: int = 4, seed: int = 0, iou_head: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(LAYERS, rows, QUERIES, classes, generator=generator)
        self.boxes = random_boxes(LAYERS * rows * QUERIES, generator).view(LAYERS, rows, QUERIES, 4)
        self.encoder_logits = torch.randn(rows, 9, classes, generator=generator)
        self.encoder_boxes = random_boxes(rows * 9, generator).view(rows, 9, 4)
        side = SIDE // stride
        self.masks = 3 * torch.randn(LAYERS, rows, QUERIES, side, side, generator=generator)
        self.iou_logits = torch.randn(LAYERS, rows, QUERIES, 1, generator=generator) if iou_head else None
        self.inputs = [self.logits, self.boxes, self.masks, self.encoder_logits, self.encoder_boxes]
        for given_ in (*self.inputs, *([self.iou_logits] if self.iou_logits is not None else [])):
            given_.requires_grad_()
        self.valid = torch.ones(rows, SIDE, SIDE, dtype=torch.bool)
        self.asked: list[Matches] = []

    def build(self, matches: Matches) -> Tensor:
        self.asked.append(matches)
        return self.masks[matches.layer, matches.row, matches.query]

    def losses(
        self, targets: SetTargets, options: LossOptions = VIDEO, similarity: Callable[[], Tensor] | None = None
    ) -> dict[str, Tensor]:
        output = output_of(self.logits, self.boxes, self.encoder_logits, self.encoder_boxes, self.iou_logits)
        return set_losses(output, targets, self.build, self.valid, options, similarity)


def assert_finite(losses: dict[str, Tensor], inputs: list[Tensor]) -> list[Tensor | None]:
    """Losses and gradients; the latter are returned."""
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), inputs, allow_unused=True)
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)
    return list(gradients)


# ---- Single predictions ----


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_mask_losses_are_their_plain_formulas(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(3, 10, 10, generator=generator)).clamp(-6, 6)
    targets = (torch.rand(3, 10, 10, generator=generator) > 0.6).float()
    valid = torch.ones(3, 10, 10, dtype=torch.bool)
    valid[1, 7:] = valid[2, :, 4:] = False
    aggregated = aggregated_logits(logits)
    bootstrapped, iou = [], []
    for row in range(3):
        p, t = logits[row][valid[row]].double().sigmoid(), targets[row][valid[row]].double()
        soft = p**2 / (p**2 + (1 - p) ** 2)
        losses = -(t * soft.log() + (1 - t) * (1 - soft).log())
        bootstrapped.append(losses.topk(int(0.4 * len(losses))).values.mean())
        iou.append(1 - torch.minimum(soft, t).sum() / torch.maximum(soft, t).sum())
    torch.testing.assert_close(
        bootstrapped_cross_entropy(aggregated, targets, valid), torch.stack(bootstrapped).float(), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        soft_mask_iou(aggregated, targets, valid), torch.stack(iou).float(), rtol=1e-4, atol=1e-5
    )


def test_masks_of_padding_alone_and_of_one_pixel() -> None:
    logits = torch.randn(2, 4, 4, requires_grad=True)
    targets, valid = torch.ones(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    valid[1, 2, 2] = True
    aggregated = aggregated_logits(logits)
    hardest = bootstrapped_cross_entropy(aggregated, targets, valid)
    assert hardest[0] == 0
    assert hardest[1].item() == pytest.approx(F.softplus(-aggregated[1, 2, 2]).item(), rel=1e-5)
    assert soft_mask_iou(aggregated, targets, valid)[0] == 0
    gradient = torch.autograd.grad((hardest + soft_mask_iou(aggregated, targets, valid)).sum(), logits)[0]
    assert torch.isfinite(gradient).all()
    assert not gradient[~valid].any()


def test_generalised_iou_of_plain_boxes() -> None:
    first = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0]])
    second = torch.tensor([[1.0, 1, 3, 3], [2, 0, 3, 1], [0, 0, 0, 0]])
    iou, giou = overlap(first, second)
    torch.testing.assert_close(iou, torch.tensor([1 / 7, 0, 0]))
    torch.testing.assert_close(giou, torch.tensor([1 / 7 - 2 / 9, -1 / 3, 0]))
    torch.testing.assert_close(corners(centers(second)), second)
    l1, loss, again = box_losses(centers(first) / 4, centers(second) / 4)
    torch.testing.assert_close(l1, torch.tensor([2 / 4, 2 / 4, 0]))
    torch.testing.assert_close(loss, 1 - giou)
    torch.testing.assert_close(again, iou)


# ---- Targets ----


def test_a_mask_is_a_target_with_the_box_of_its_pixels() -> None:
    masks = torch.cat([rectangle(5, 6, 10, 30), rectangle(0, 0, 0, 0), rectangle(0, 48, 0, 40)])
    targets = from_masks(masks, size=(48, 40))
    assert targets.present.tolist() == [[True], [False], [True]]
    assert targets.corners[:, 0].tolist() == [[10, 5, 30, 6], [0, 0, 0, 0], [0, 0, 40, 48]]
    torch.testing.assert_close(targets.boxes[0, 0], torch.tensor([20 / 40, 5.5 / 48, 20 / 40, 1 / 48]))
    assert targets.boxes[2, 0].tolist() == [0.5, 0.5, 1, 1]
    assert targets.mask_index.tolist() == [[0], [-1], [2]]


def test_instances_are_laid_side_by_side() -> None:
    boxes = [random_boxes(count, torch.Generator().manual_seed(count)) for count in (2, 0, 1)]
    masks = [torch.ones(2, SIDE, SIDE), None, None]
    targets = targets_of(
        boxes, masks, labels=[torch.tensor([4, 2]), torch.tensor([], dtype=torch.int64), torch.tensor([1])]
    )
    assert targets.labels.tolist() == [[4, 2], [0, 0], [1, 0]]
    assert targets.present.tolist() == [[True, True], [False, False], [True, False]]
    assert targets.mask_index.tolist() == [[0, 1], [-1, -1], [-1, -1]]
    torch.testing.assert_close(targets.boxes[0], boxes[0])
    assert targets_of([torch.zeros(0, 4)] * 2).most == 0


def test_targets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="each of 2 rows needs a mask, got 1"):
        set_targets(Targets(rectangle(0, 2, 0, 2)), [(SIDE, SIDE)] * 2, (SIDE, SIDE), CPU)
    known = Instances(torch.zeros(2, 4), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"row 0 must be as many, got \[1, 2\]"):
        set_targets(Targets(torch.zeros(0), (known,)), [(SIDE, SIDE)], (SIDE, SIDE), CPU)
    with pytest.raises(ValueError, match="each of 2 rows needs its instances, got those of 1"):
        set_targets(Targets(torch.zeros(0), (known,)), [(SIDE, SIDE)] * 2, (SIDE, SIDE), CPU)


@pytest.mark.parametrize("box", [[8.0, 8, 4, 20], [8, 20, 12, 8], [float("nan"), 8, 12, 20], [8, 8, float("inf"), 20]])
def test_boxes_that_are_none_are_refused(box: list[float]) -> None:
    known = Instances(torch.tensor([[2.0, 2, 9, 9], box]), torch.zeros(2, dtype=torch.int64))
    good = Instances(torch.tensor([[2.0, 2, 9, 9]]), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"boxes must be finite .* in row 1; correct it or leave the object out"):
        set_targets(Targets(torch.zeros(0), (good, known)), [(SIDE, SIDE)] * 2, (SIDE, SIDE), CPU)


@pytest.mark.parametrize("drawn", [True, False])
def test_boxes_end_with_the_image_and_what_is_outside_is_no_target(drawn: bool) -> None:
    boxes = torch.tensor([[-5.0, 10, -1, 20], [30, 30, 80, 90], [9, 9, 9, 20], [60, 2, 64, 9], [1, 2, 3, 4]])
    masks = torch.arange(5.0)[:, None, None].expand(-1, SIDE, SIDE) if drawn else None
    known = Instances(boxes, torch.arange(5), masks)
    targets = set_targets(Targets(torch.zeros(0), (known,)), [(48, 40)], (SIDE, SIDE), CPU)
    assert targets.corners.tolist() == [[[30, 30, 40, 48], [1, 2, 3, 4]]]
    assert targets.labels.tolist() == [[1, 4]]
    assert targets.present.tolist() == [[True, True]]
    assert targets.mask_index.tolist() == ([[0, 1]] if drawn else [[-1, -1]])
    assert targets.masks[:, 0, 0].tolist() == ([1, 4] if drawn else [])


def test_masks_are_sampled_behind_cells_centres_and_tiny_ones_are_kept() -> None:
    masks = torch.cat([rectangle(2, 3, 2, 3), rectangle(4, 5, 0, SIDE), rectangle(0, 0, 0, 0), rectangle(0, 5, 0, 8)])
    got = sampled(masks, 4)
    assert got.shape == (4, SIDE // 4, SIDE // 4)
    assert got[0].nonzero().tolist() == [[0, 0]]
    assert got[1].nonzero()[:, 0].unique().tolist() == [1]
    assert got[1].sum() == SIDE // 4
    assert not got[2].any()
    assert got[3].nonzero().tolist() == [[0, 0], [0, 1]]  # its fifth row is in no cell's centre
    assert torch.equal(sampled(masks, 1), masks)
    assert sampled(masks[:0].bool(), 4).shape == (0, SIDE // 4, SIDE // 4)


# ---- Whole sets ----


def test_each_layer_is_averaged_over_its_own_matches() -> None:
    case = Case(2)
    targets = from_masks(torch.cat([rectangle(10, 40, 8, 50), rectangle(20, 60, 30, 60)]))
    losses = case.losses(targets)
    (matches,) = case.asked
    assert set(losses) == {"class", "box", "giou", "mask", "dice", "bootstrap", "mask_iou"}
    expected = dict.fromkeys(("class", "box", "mask", "dice"), 0.0)
    logits, boxes, masks = (given_.detach() for given_ in case.inputs[:3])
    for layer in range(LAYERS):
        chosen = (matches.layer == layer).nonzero()[:, 0]
        count = len(chosen)
        goal = torch.zeros(2, QUERIES, 1)
        for at in chosen.tolist():
            row, query = int(matches.row[at]), int(matches.query[at])
            goal[row, query] = 1
            mask = targets.masks[row, 2::4, 2::4]
            p, x = masks[layer, row, query].sigmoid(), masks[layer, row, query]
            expected["box"] += float((boxes[layer, row, query] - targets.boxes[row, 0]).abs().sum()) / count
            cross_entropy = F.binary_cross_entropy_with_logits(x, mask, reduction="none")
            weight = torch.where(mask > 0, 0.25 * (1 - p) ** 2, 0.75 * p**2)
            expected["mask"] += float((weight * cross_entropy).mean()) / count
            expected["dice"] += float(1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)) / count
        p = logits[layer].sigmoid()
        focal = torch.where(goal > 0, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log())
        expected["class"] += float(focal.sum()) / count
    only_decoder = Case(2)
    only_decoder.encoder_logits = torch.full((2, 9, 1), -40.0)
    for name in ("mask", "dice"):
        assert losses[name].item() == pytest.approx(expected[name], rel=1e-4)
    output_alone = only_decoder.losses(targets)
    # A proposal of each row is to become its target: 0.25 * softplus(40), and two of them through two.
    assert output_alone["class"].item() == pytest.approx(expected["class"] + 0.25 * 40, rel=1e-4)
    assert losses["box"].item() > expected["box"]


def test_masks_are_built_for_matched_queries_alone_and_in_one_go() -> None:
    case = Case(3)
    masks = torch.cat([rectangle(10, 40, 8, 50), rectangle(0, 0, 0, 0), rectangle(20, 60, 30, 60)])
    case.losses(from_masks(masks))
    (matches,) = case.asked
    assert LAYERS * 2 <= len(matches) < LAYERS * 3 * QUERIES
    assert not (matches.row == 1).any()
    case.losses(from_masks(masks * 0))
    assert len(case.asked) == 1


@pytest.mark.parametrize(("known", "waits"), [("masks", 0), ("boxes", 1), ("both", 2)])
def test_the_host_waits_no_more_than_it_must(known: str, waits: int) -> None:
    case = Case(2)
    boxes = random_boxes(2, torch.Generator().manual_seed(0)).split(1)
    first, second = rectangle(10, 40, 8, 50), rectangle(5, 9, 5, 9)
    targets = targets_of(boxes, {"masks": [first, second], "boxes": [None, None], "both": [first, None]}[known])
    with HostWaits() as waited:
        case.losses(targets, similarity=lambda: torch.ones(2, 8, SIDE // 4, SIDE // 4))
    # One for the matches of the decoder and one for those of the encoder: how many there are the host must know. Where
    # some targets have only a box, one more for which of them are compared, and one for telling the two sorts apart.
    assert len(waited.seen) == 2 + waits, waited.seen


def test_a_row_without_target_has_a_loss_of_class_alone() -> None:
    case = Case(2)
    losses = case.losses(from_masks(torch.zeros(2, SIDE, SIDE)))
    assert all(losses[name] == 0 for name in losses if name != "class")
    expected = -0.75 * case.logits.sigmoid() ** 2 * (1 - case.logits.sigmoid()).log()
    proposals = -0.75 * case.encoder_logits.sigmoid() ** 2 * (1 - case.encoder_logits.sigmoid()).log()
    assert losses["class"].item() == pytest.approx((expected.sum() + proposals.sum()).item(), rel=1e-4)
    logits, boxes, built, encoder_logits, _ = assert_finite(losses, case.inputs)
    assert logits is not None
    assert (logits > 0).all()
    assert encoder_logits is not None
    assert (encoder_logits > 0).all()
    assert not case.asked
    assert boxes is None or not boxes.any()
    assert built is None


def test_an_object_one_pixel_high_is_learnt() -> None:
    case = Case(1)
    losses = case.losses(from_masks(rectangle(33, 34, 5, 60)))
    gradients = assert_finite(losses, case.inputs)
    assert all(gradient is not None for gradient in gradients)
    (matches,) = case.asked
    pulled = gradients[2]
    assert pulled is not None
    for layer, row, query in zip(matches.layer, matches.row, matches.query, strict=True):
        assert (pulled[layer, row, query, 33 // 4] < 0).any()


def test_the_names_do_not_depend_on_what_is_there() -> None:
    targets = targets_of([torch.zeros(0, 4)] * 2)

    def similarity() -> Tensor:
        return torch.ones(2, 8, SIDE // 4, SIDE // 4)

    for options, similar, names in (
        (LossOptions(), None, {"class", "box", "giou", "mask", "dice"}),
        (VIDEO, None, {"class", "box", "giou", "mask", "dice", "bootstrap", "mask_iou"}),
        (LossOptions(), similarity, {"class", "box", "giou", "mask", "dice", "projection", "pairwise"}),
    ):
        case = Case(2)
        empty, drawn = (
            case.losses(targets, options, similar),
            case.losses(from_masks(torch.ones(2, SIDE, SIDE)), options, similar),
        )
        assert list(empty) == list(drawn)
        assert set(empty) == names
        assert {loss.dtype for loss in (*empty.values(), *drawn.values())} == {torch.float32}


def test_no_valid_proposal_is_no_harm() -> None:
    case = Case(2)
    case.encoder_boxes = torch.ones(2, 9, 4)
    case.inputs.pop()
    assert_finite(case.losses(from_masks(torch.cat([rectangle(3, 9, 3, 9), rectangle(0, 0, 0, 0)]))), case.inputs)


def test_padding_counts_only_where_it_is_asked_for() -> None:
    case, targets = Case(1), from_masks(rectangle(10, 30, 8, 30), size=(40, 44))
    case.valid[:, 40:] = case.valid[:, :, 44:] = False
    names = ("mask", "dice", "bootstrap", "mask_iou")
    before = case.losses(targets)
    with torch.no_grad():
        case.masks[..., 10:, :] = case.masks[..., :, 11:] = 9.0
    after, counted = case.losses(targets), case.losses(targets, LossOptions(video_terms=True, padding=True))
    for name in names:
        torch.testing.assert_close(after[name], before[name])
        assert counted[name] > after[name]
    (gradient,) = torch.autograd.grad(torch.stack([after[name] for name in names]).sum(), case.masks)
    assert not gradient[..., 10:, :].any()
    assert not gradient[..., :, 11:].any()


def test_binary_cross_entropy_by_option() -> None:
    case, targets = Case(1), from_masks(rectangle(10, 30, 8, 30))
    losses = case.losses(targets, LossOptions(mask="bce"))
    (matches,) = case.asked
    goal = targets.masks[:, 2::4, 2::4].expand(len(matches), -1, -1)
    values = F.binary_cross_entropy_with_logits(case.build(matches), goal, reduction="none").mean((1, 2))
    expected = sum(values[matches.layer == layer].mean() for layer in range(LAYERS))
    torch.testing.assert_close(losses["mask"], expected)
    with pytest.raises(ValueError, match=r"must be one of \('focal', 'bce'\), got 'l2'"):
        LossOptions(mask="l2")
    with pytest.raises(ValueError, match="boxinst_masks must be at least 1, got 0"):
        LossOptions(boxinst_masks=0)


def test_masks_at_full_resolution_are_compared_with_every_pixel() -> None:
    case, targets = Case(1, stride=1), from_masks(rectangle(11, 12, 8, 30))
    losses = case.losses(targets, LossOptions())
    (matches,) = case.asked
    p = case.build(matches).sigmoid()
    goal = targets.masks.expand_as(p)
    dice = 1 - (2 * (p * goal).sum((1, 2)) + 1) / (p.sum((1, 2)) + goal.sum((1, 2)) + 1)
    expected = sum(dice[matches.layer == layer].mean() for layer in range(LAYERS))
    torch.testing.assert_close(losses["dice"], expected)


def test_an_iou_head_learns_how_well_boxes_fit() -> None:
    case, targets = Case(2, iou_head=True), from_masks(torch.cat([rectangle(10, 40, 8, 50), rectangle(0, 0, 0, 0)]))
    losses = case.losses(targets)
    (matches,) = case.asked
    at = (matches.layer, matches.row, matches.query)
    iou, _ = overlap(corners(case.boxes[at]), corners(targets.boxes[matches.row, matches.target]))
    assert case.iou_logits is not None
    values = F.binary_cross_entropy_with_logits(case.iou_logits[at][:, 0], iou, reduction="none")
    expected = sum(values[matches.layer == layer].mean() for layer in range(LAYERS))
    torch.testing.assert_close(losses["iou_head"], expected)
    (gradient,) = torch.autograd.grad(losses["iou_head"], case.boxes, allow_unused=True)
    assert gradient is None


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_the_network_does_not_have_is_refused(label: int) -> None:
    targets = targets_of([torch.full((2, 4), 0.5)], labels=[torch.tensor([0, label])])
    with pytest.raises(ValueError, match=f"labels must be from 0 to 2 .* got {label}"):
        Case(1, classes=3).losses(targets)


def test_a_class_is_learnt_by_its_own_logit() -> None:
    case = Case(1, classes=3)
    with torch.no_grad():
        case.logits.zero_()
    targets = targets_of([torch.full((1, 4), 0.5)], [rectangle(16, 48, 16, 48)], labels=[torch.tensor([2])])
    losses = case.losses(targets)
    (matches,) = case.asked
    (gradient,) = torch.autograd.grad(losses["class"], case.logits)
    wanted = torch.zeros_like(gradient, dtype=torch.bool)
    wanted[matches.layer, matches.row, matches.query, 2] = True
    assert (gradient[wanted] < 0).all()
    assert (gradient[~wanted] > 0).all()
