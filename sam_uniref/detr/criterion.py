"""From the network's output and targets to losses: what is matched, what is compared, what is averaged.

Notation: L decoder layers, N rows, Q queries, K matched predictions of all layers together.

As published, each term is a sum through the number of predictions of its layer that are matched, on this process
alone, the focal loss of the classes too; so a batch with few matches weighs as much as one with many. Where nothing
is matched the sum stays what it is: a row without a target, such as a sentence about something that is not there,
teaches its queries to be nothing. (The released code then has no loss at all.) All layers count alike, and their
losses are summed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.detr import boxinst
from sam_uniref.detr.loss_options import LossOptions
from sam_uniref.detr.matching import assign_one, assign_several
from sam_uniref.detr.output import DetrOutput
from sam_uniref.detr.set_losses import (
    aggregated_logits,
    bootstrapped_cross_entropy,
    box_losses,
    class_loss,
    soft_mask_iou,
)
from sam_uniref.detr.set_targets import SetTargets, sampled
from sam_uniref.losses import dice_values, focal_values, mean_of_valid


@dataclass(frozen=True)
class Matches:
    """K predictions and their targets, layer by layer, row by row, query by query.

    Attributes:
        layer: ``(K,)`` int64.
        row: ``(K,)`` int64.
        query: ``(K,)`` int64.
        target: ``(K,)`` int64, of the row.
        layers: How many layers there are, L.
    """

    layer: Tensor
    row: Tensor
    query: Tensor
    target: Tensor
    layers: int

    def __len__(self) -> int:
        """K."""
        return len(self.layer)

    def select(self, chosen: Tensor) -> Matches:
        """Those chosen, ``(k,)`` int64, in that order."""
        return Matches(self.layer[chosen], self.row[chosen], self.query[chosen], self.target[chosen], self.layers)

    def per_layer(self, values: Tensor) -> Tensor:
        """``(K,)`` summed over each layer, ``(L,)``."""
        return values.new_zeros(self.layers).index_add(0, self.layer, values)

    def mean(self, values: Tensor) -> Tensor:
        """``(K,)`` averaged over each layer and summed over layers. A layer without matches adds 0."""
        count = self.per_layer(torch.ones_like(values)).clamp(min=1)
        return (self.per_layer(values) / count).sum()


# The logit of a cell that is surely no object: its probability is 0, without gradient.
_NOTHING = -1e4

MaskBuilder = Callable[[Matches], Tensor]
"""Builds the masks of matched predictions, ``(K, h, w)`` logits, and of no others."""

ColourComparison = Callable[[], Tensor]
"""What `boxinst.colour_similarity` says of the N rows, ``(N, 8, H / 4, W / 4)``; asked for only where it counts."""


def matches_of(assigned: Tensor) -> Matches:
    """From ``(L, N, Q)`` int64: the target of the row that each query is to become, -1 for none."""
    layer, row, query = (assigned >= 0).nonzero(as_tuple=True)
    return Matches(layer, row, query, assigned[layer, row, query], len(assigned))


def set_losses(
    output: DetrOutput,
    targets: SetTargets,
    build_masks: MaskBuilder,
    valid: Tensor,
    options: LossOptions,
    compare_colours: ColourComparison | None = None,
    content: Tensor | None = None,
) -> dict[str, Tensor]:
    """The losses of a batch.

    Args:
        output: Of N rows.
        targets: Of the same.
        build_masks: Called once or twice, with what is matched to targets whose masks are known or unknown.
        valid: ``(N, H, W)`` bool, False in padding.
        options: Which losses there are.
        compare_colours: With it there are the losses of masks whose targets have only boxes; without it these targets
            have no loss of masks.
        content: ``(N, T)`` bool, which of the encoder's tokens count in the loss of classes; by default all.

    Returns:
        Scalars by name: ``class``, ``box`` (L1) and ``giou``, summed over decoder layers and the encoder's proposals;
        ``mask``, ``dice``, with `LossOptions.video_terms` ``bootstrap`` and ``mask_iou``, with ``compare_colours``
        ``projection`` and ``pairwise``, with an IoU head ``iou_head``, summed over decoder layers. The names depend
        on nothing else; what there is nothing to take of is 0.

    Raises:
        ValueError: If a label is not among the network's classes.
    """
    _check_labels(targets, output.logits.shape[-1])
    assigned = assign_several(output.logits, output.boxes, targets)
    matches = matches_of(assigned)
    losses = box_terms(output.boxes, matches, targets, output.iou_logits)
    losses["class"] = class_term(output.logits, assigned, targets.labels)
    for name, loss in proposal_terms(output, targets, content).items():
        losses[name] = losses[name] + loss
    drawn, boxed = by_what_is_known(matches, targets)
    losses |= mask_terms(drawn, targets, build_masks, valid, options)
    if compare_colours is not None:
        losses |= boxed_mask_terms(boxed, targets, build_masks, valid, compare_colours, options)
    return losses


def by_what_is_known(matches: Matches, targets: SetTargets) -> tuple[Matches, Matches]:
    """Those of targets whose masks are known, and those of which only boxes are.

    The host waits, once, only where there are targets of both sorts.
    """
    nothing = matches.select(matches.layer[:0])
    if not targets.boxes_alone:
        return matches, nothing
    if not len(targets.masks):
        return nothing, matches
    boxed = targets.mask_index[matches.row, matches.target] < 0
    order = boxed.int().argsort(stable=True)
    drawn = len(matches) - int(boxed.sum())
    return matches.select(order[:drawn]), matches.select(order[drawn:])


def class_term(logits: Tensor, assigned: Tensor, labels: Tensor, counted: Tensor | None = None) -> Tensor:
    """Focal loss of all queries ``(L, N, Q, classes)``, through each layer's number of matched ones, summed.

    ``counted`` is ``(N, Q)`` bool where some queries are to be left out.
    """
    count = (assigned >= 0).flatten(1).sum(1).clamp(min=1)
    return (class_loss(logits, assigned, labels, counted) / count).sum()


def box_terms(
    boxes: Tensor, matches: Matches, targets: SetTargets, iou_logits: Tensor | None = None
) -> dict[str, Tensor]:
    """``box``, ``giou`` and, with the logits ``(L, N, Q, 1)`` of an IoU head, ``iou_head``."""
    goals = targets.boxes[matches.row, matches.target]
    l1, giou, iou = box_losses(boxes[matches.layer, matches.row, matches.query].float(), goals)
    losses = {"box": matches.mean(l1), "giou": matches.mean(giou)}
    if iou_logits is not None:
        guessed = iou_logits[matches.layer, matches.row, matches.query, 0].float()
        losses["iou_head"] = matches.mean(F.binary_cross_entropy_with_logits(guessed, iou, reduction="none"))
    return losses


def proposal_terms(output: DetrOutput, targets: SetTargets, content: Tensor | None = None) -> dict[str, Tensor]:
    """``class``, ``box`` and ``giou`` of the encoder's proposals, which are of no class but the first.

    All tokens count in the class's loss, also those that are no valid proposal, which must not be ranked first, unless
    ``content`` says which do: without those of padding the loss does not depend on how large the canvas is. Where
    none is valid a target is matched to such a token all the same; its box has no gradient.
    """
    assigned = assign_one(output.encoder_logits, output.encoder_boxes, targets)[None]
    losses = box_terms(output.encoder_boxes[None], matches_of(assigned), targets)
    losses["class"] = class_term(output.encoder_logits[None], assigned, torch.zeros_like(targets.labels), content)
    return losses


def mask_terms(
    matches: Matches, targets: SetTargets, build_masks: MaskBuilder, valid: Tensor, options: LossOptions
) -> dict[str, Tensor]:
    """``mask``, ``dice`` and the video stage's terms, of targets whose masks are known."""
    names = ("mask", "dice", "bootstrap", "mask_iou") if options.video_terms else ("mask", "dice")
    if not len(matches):
        return dict.fromkeys(names, valid.new_zeros((), dtype=torch.float32))
    logits = build_masks(matches).float()
    stride = targets.masks.shape[-1] // logits.shape[-1]
    place = targets.mask_index[matches.row, matches.target]
    goals = sampled(targets.masks, stride)[place]
    counted = torch.ones_like(goals, dtype=torch.bool) if options.padding else sampled(valid, stride)[matches.row]
    values = focal_values(logits, goals) if options.mask == "focal" else _cross_entropy(logits, goals)
    losses = {
        "mask": matches.mean(mean_of_valid(values, counted)),
        "dice": matches.mean(dice_values(logits, goals, counted, unit=1.0, smoothing=1.0)),
    }
    if options.video_terms:
        aggregated = aggregated_logits(logits)
        losses["bootstrap"] = matches.mean(bootstrapped_cross_entropy(aggregated, goals, counted))
        losses["mask_iou"] = matches.mean(soft_mask_iou(aggregated, goals, counted))
    return losses


def boxed_mask_terms(
    matches: Matches,
    targets: SetTargets,
    build_masks: MaskBuilder,
    valid: Tensor,
    compare_colours: ColourComparison,
    options: LossOptions,
) -> dict[str, Tensor]:
    """``projection`` and ``pairwise`` of targets of which only boxes are known, at most so many a layer."""
    if not len(matches):
        return dict.fromkeys(("projection", "pairwise"), valid.new_zeros((), dtype=torch.float32))
    matches = _some_per_layer(matches, options.boxinst_masks)
    logits = build_masks(matches).float()
    if not options.padding:
        logits = logits.masked_fill(~sampled(valid, valid.shape[-1] // logits.shape[-1])[matches.row], _NOTHING)
    canvas = (valid.shape[-2], valid.shape[-1])
    filled = boxinst.box_masks(targets.corners[matches.row, matches.target], canvas)
    filled = sampled(filled, canvas[1] // logits.shape[-1])
    differing, pairs = boxinst.pairwise_loss(logits, filled, compare_colours()[matches.row])
    return {
        "projection": matches.mean(boxinst.projection_loss(logits, filled)),
        "pairwise": (matches.per_layer(differing) / matches.per_layer(pairs).clamp(min=1)).sum(),
    }


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary, of each pixel."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _some_per_layer(matches: Matches, most: int) -> Matches:
    """At most so many of each layer, drawn at random, in the order they had."""
    shuffled = torch.rand(len(matches), device=matches.layer.device).argsort()
    by_layer = shuffled[matches.layer[shuffled].argsort(stable=True)]
    rank = torch.empty_like(by_layer)
    rank[by_layer] = torch.arange(len(matches), device=rank.device)
    count = torch.bincount(matches.layer, minlength=matches.layers)
    before = count.cumsum(0) - count
    return matches.select((rank - before[matches.layer] < most).nonzero()[:, 0])


def _check_labels(targets: SetTargets, classes: int) -> None:
    """Refuse classes that the network does not have.

    Raises:
        ValueError: Naming the label.
    """
    least, largest = targets.label_range
    if least < 0 or largest >= classes:
        wrong = least if least < 0 else largest
        raise ValueError(
            f"labels must be from 0 to {classes - 1} for a network of {classes} classes, got {wrong}; "
            "build it with classes= of the data set, or give every object the label 0"
        )
