"""Which prediction is to become which target.

Notation: L decoder layers, N rows, Q queries (or T tokens of the encoder), M targets of the row that has most.

Decoder layers get several queries a target by the costs and the counts of SimOTA (Ge et al. 2021, YOLOX), the encoder
one token a target (Hungarian, Carion et al. 2020). The paper's costs of the decoder (UniRef++ eq. 8) are not those of
the released code, whose costs these are: there neither the L1 distance nor the configured weights are used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sam_uniref.detr.boxes import corners, overlap
from sam_uniref.detr.set_targets import SetTargets
from sam_uniref.losses import focal_values

# Of SimOTA: what a generalised IoU of one is worth, what it costs to be outside, and the half side of the square
# around a target's centre as a share of the image.
_GIOU, _NOT_WITHIN, _OUTSIDE_ALL = 3.0, 100.0, 10_000.0
_CENTER_RADIUS = 2.5 / 32
# As many queries as a target's best so many predictions have IoU in sum.
_CANDIDATES = 10
# Of the one-to-one matching.
_CLASS_COST, _L1_COST, _GIOU_COST = 2.0, 5.0, 2.0
# Instead of a cost that is no number: a model that has diverged is to be told by its loss.
_WORST = 1e6


@torch.no_grad()
def assign_several(logits: Tensor, boxes: Tensor, targets: SetTargets) -> Tensor:
    """SimOTA-style assignment, all layers at once.

    A target gets the k cheapest queries, k being the whole part of what its ten best boxes have IoU in sum, at least
    1. A query that several targets want goes to the target it costs least for, which need not be one of them. Targets
    that lost all their queries by that then take one that nobody has, the cheapest pair of target and query first;
    and if there is none, one of a target that has several. So every target has a query, unless there are more targets
    than queries.

    The released code's loop for such targets (``dynamic_k_matching``) looks for conflicts in the counts of the first
    round: it may take queries from targets that were content, give one query to two targets, or not end. Where it
    meets no second conflict its answer is this one. It also changes the costs in place, which this does not.

    Args:
        logits: ``(L, N, Q, classes)``.
        boxes: ``(L, N, Q, 4)`` as (cx, cy, w, h) in shares of the image.
        targets: Of the N rows.

    Returns:
        ``(L, N, Q)`` int64: the target of the row that each query is to become, -1 for none. The host waits once,
        and once more for every target of a row that lost all its queries; not at all where no row has two targets.
    """
    if not targets.most:
        return torch.full(logits.shape[:3], -1, device=logits.device)
    cost, iou = several_cost(logits, boxes, targets)
    wanted = iou.topk(min(_CANDIDATES, iou.shape[-2]), dim=-2).values.sum(-2).int().clamp(min=1)
    ranks = cost.argsort(dim=-2, stable=True).argsort(dim=-2)
    chosen = (ranks < wanted[..., None, :]) & targets.present[:, None]
    cost = cost.masked_fill(~targets.present[:, None], float("inf"))
    if targets.most > 1:
        contested = chosen.sum(-1, keepdim=True) > 1
        chosen = torch.where(contested, _least(cost, dim=-1), chosen)
        chosen = _serve_the_rest(chosen, cost, targets.present)
    return torch.where(chosen.any(-1), chosen.int().argmax(-1), -1)


def several_cost(logits: Tensor, boxes: Tensor, targets: SetTargets) -> tuple[Tensor, Tensor]:
    """What each query costs as each target, and their IoU.

    The cost is that of the class, less three times the generalised IoU; 100 more where the centre of the query's box
    is not both in the target's box and near its centre; and 10,000 more where it is neither for any target.

    Returns:
        Both ``(L, N, Q, M)``; without meaning for targets that are not present.
    """
    boxes, goals = boxes.float(), targets.boxes
    iou, giou = overlap(corners(boxes)[..., None, :], corners(goals)[:, None])
    offset = (boxes[..., None, :2] - goals[:, None, :, :2]).abs()
    in_box = (offset < goals[:, None, :, 2:] / 2).all(-1) & targets.present[:, None]
    near_center = (offset < _CENTER_RADIUS).all(-1) & targets.present[:, None]
    outside_all = ~(in_box | near_center).any(-1, keepdim=True)
    cost = _class_cost(logits, targets.labels) - _GIOU * giou
    cost = cost + _NOT_WITHIN * ~(in_box & near_center) + _OUTSIDE_ALL * outside_all
    return cost.nan_to_num(_WORST, _WORST, -_WORST), iou


@torch.no_grad()
def assign_one(logits: Tensor, boxes: Tensor, targets: SetTargets) -> Tensor:
    """The cheapest one-to-one assignment, that of the encoder's proposals. What a target is does not count.

    Args:
        logits: ``(N, T, classes)``; the first class alone counts, as proposals are ranked by it.
        boxes: ``(N, T, 4)`` as (cx, cy, w, h) in shares of the image.
        targets: Of the N rows.

    Returns:
        ``(N, T)`` int64: the target of the row that each token is to become, -1 for none. With fewer tokens than
        targets some of these have none. The host waits for the costs, once.
    """
    from scipy.optimize import linear_sum_assignment

    assigned = torch.full(logits.shape[:2], -1)
    if targets.most:
        boxes = boxes.float()
        _, giou = overlap(corners(boxes)[:, :, None], corners(targets.boxes)[:, None])
        cost = _CLASS_COST * _class_cost(logits, torch.zeros_like(targets.labels))
        cost = cost + _L1_COST * torch.cdist(boxes, targets.boxes, p=1) - _GIOU_COST * giou
        costs = cost.nan_to_num(_WORST, _WORST, -_WORST).cpu().numpy()
        for row, (of_row, count) in enumerate(zip(costs, targets.present.sum(1).tolist(), strict=True)):
            tokens, goals = linear_sum_assignment(of_row[:, :count])
            assigned[row, tokens] = torch.from_numpy(goals)
    return assigned.to(logits.device)


def _class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """How much more focal loss there is if a query has a target's class than if it has not.

    Args:
        logits: ``(..., N, Q, classes)``.
        labels: ``(N, M)``.

    Returns:
        ``(..., N, Q, M)``.
    """
    asked = labels[:, None].expand(*logits.shape[:-1], -1)
    own = logits.float().gather(-1, asked)
    return focal_values(own, torch.ones_like(own)) - focal_values(own, torch.zeros_like(own))


def _least(values: Tensor, dim: int) -> Tensor:
    """Bool, as ``values``: True at the least value along a dimension."""
    return torch.zeros_like(values, dtype=torch.bool).scatter(dim, values.argmin(dim, keepdim=True), True)


def _serve_the_rest(chosen: Tensor, cost: Tensor, present: Tensor) -> Tensor:
    """Queries for the targets that have none.

    Args:
        chosen: ``(L, N, Q, M)`` bool, at most one target a query.
        cost: ``(L, N, Q, M)``.
        present: ``(N, M)`` bool.

    Returns:
        ``(L, N, Q, M)`` bool: ``chosen`` and what was added to it.
    """
    while True:
        waiting, free = present & ~chosen.any(-2), ~chosen.any(-1)
        to_spare = (chosen & (chosen.sum(-2, keepdim=True) > 1)).any(-1)
        asking = torch.where(free.any(-1, keepdim=True), free, to_spare)[..., None] & waiting[..., None, :]
        if not asking.any():
            return chosen
        prices = cost.masked_fill(~asking, float("inf")).flatten(-2)
        served = _least(prices, dim=-1).view_as(chosen) & asking
        chosen = torch.where(served.any(-1, keepdim=True), served, chosen)
