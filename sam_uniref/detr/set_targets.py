"""What a set of predictions is compared with: the targets of each row, side by side.

Notation: N rows (one object asked for in one image; for detection a row is an image), M targets of the row that has
most, G targets with a mask, H and W the canvas' sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.detr.boxes import centers
from sam_uniref.interfaces import Instances, Targets
from sam_uniref.transforms import Size


@dataclass(frozen=True)
class SetTargets:
    """The targets of N rows. A row's come first, the rest is filled up.

    Attributes:
        corners: ``(N, M, 4)`` float32 boxes as (x0, y0, x1, y1) in the canvas' pixels, x1 and y1 exclusive.
        sizes: ``(N, 2)`` float32 (width, height) of each row's image without its padding, in pixels.
        labels: ``(N, M)`` int64.
        present: ``(N, M)`` bool, False where there is no target. A row need not have any.
        masks: ``(G, H, W)`` float in {0, 1}.
        mask_index: ``(N, M)`` int64, each target's place in ``masks``; -1 where only its box is known.
        label_range: The least and the largest label, (0, 0) without any; known without waiting for the device.
        boxes_alone: Whether there may be a target of which only the box is known; so is this.
    """

    corners: Tensor
    sizes: Tensor
    labels: Tensor
    present: Tensor
    masks: Tensor
    mask_index: Tensor
    label_range: tuple[int, int]
    boxes_alone: bool

    @property
    def most(self) -> int:
        """M."""
        return self.labels.shape[1]

    @property
    def boxes(self) -> Tensor:
        """``(N, M, 4)`` as (cx, cy, w, h) in shares of the image without its padding, as the network has boxes."""
        return centers(self.corners) / self.sizes.repeat(1, 2)[:, None]


def set_targets(targets: Targets, input_sizes: Sequence[Size], canvas: Size, device: torch.device) -> SetTargets:
    """The instances where there are any, else one target a row, from its mask.

    A mask's target has the label 0 and the box ``(x of the first column, y of the first row, x of the last column + 1,
    y of the last row + 1)``; an empty mask, that of a reference that points at nothing, is no target. Instances' boxes
    end where the image does; one of which nothing is left is no target either, as it is none for the readers.

    Args:
        targets: Of N rows.
        input_sizes: Of each row's image, its ``(height, width)`` in the canvas.
        canvas: ``(H, W)``.
        device: Of the result.

    Raises:
        ValueError: If there are not as many masks or lists of instances as input sizes, or boxes, labels and masks of
            one image differ in number, or a box is not finite or ends before it begins.
    """
    sizes = torch.tensor([(width, height) for height, width in input_sizes], dtype=torch.float32)
    if targets.instances is None:
        if len(targets.masks) != len(sizes):
            raise ValueError(f"each of {len(sizes)} rows needs a mask, got {len(targets.masks)}")
        return _from_masks(targets.masks, sizes.to(device, non_blocking=True))
    if len(targets.instances) != len(sizes):
        raise ValueError(f"each of {len(sizes)} rows needs its instances, got those of {len(targets.instances)}")
    return _from_instances(targets.instances, sizes, canvas, device)


def sampled(masks: Tensor, stride: int) -> Tensor:
    """Masks ``(G, H, W)`` as ``(G, H / stride, W / stride)``: the pixel behind each cell's centre.

    A mask that has no pixel there, such as that of an object one pixel high, is given every cell it touches: better a
    coarse target than none.
    """
    picked = masks[:, stride // 2 :: stride, stride // 2 :: stride]
    if stride == 1 or not len(masks):
        return picked
    lost = masks.flatten(1).any(1) & ~picked.flatten(1).any(1)
    touched = F.max_pool2d(masks[:, None].float(), stride)[:, 0].to(masks.dtype)
    return torch.where(lost[:, None, None], touched, picked)


def _from_masks(masks: Tensor, sizes: Tensor) -> SetTargets:
    """One target a row that is not empty."""
    first, last = zip(*(_ends(masks.bool().any(over)) for over in (1, 2)), strict=True)
    present = masks.flatten(1).any(1)[:, None]
    corners = torch.stack([*first, *last], dim=-1)[:, None] * present[..., None]
    rows = torch.arange(len(masks), device=masks.device)[:, None]
    return SetTargets(
        corners=corners.float(),
        sizes=sizes,
        labels=torch.zeros_like(rows),
        present=present,
        masks=masks,
        mask_index=torch.where(present, rows, -1),
        label_range=(0, 0),
        boxes_alone=False,
    )


def _ends(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """``(N,)`` the first True of each row of ``(N, L)``, and one past the last."""
    return occupied.int().argmax(1), occupied.shape[1] - occupied.flip(1).int().argmax(1)


def _from_instances(instances: Sequence[Instances], sizes: Tensor, canvas: Size, device: torch.device) -> SetTargets:
    """All targets of every row, laid out by the host and sent to the device in one go.

    Args:
        instances: Of N rows.
        sizes: ``(N, 2)`` (width, height) in the host's memory.
        canvas: ``(H, W)``.
        device: Of the result.
    """
    shown = [_in_image(known, row, size) for row, (known, size) in enumerate(zip(instances, sizes, strict=True))]
    rows, most = len(shown), max(map(len, shown), default=0)
    corners = sizes.new_zeros(rows, most, 4)
    labels = torch.zeros(rows, most, dtype=torch.int64)
    present = torch.zeros_like(labels, dtype=torch.bool)
    mask_index = torch.full_like(labels, -1)
    masks = [torch.zeros(0, *canvas, device=device)]
    seen = 0
    for row, known in enumerate(shown):
        corners[row, : len(known)] = known.boxes
        labels[row, : len(known)] = known.labels
        present[row, : len(known)] = True
        if known.masks is not None:
            mask_index[row, : len(known)] = torch.arange(seen, seen + len(known))
            masks.append(known.masks.to(device))
            seen += len(known)
    least, largest = (int(label) for label in labels[present].aminmax()) if present.any() else (0, 0)
    return SetTargets(
        corners=corners.to(device, non_blocking=True),
        sizes=sizes.to(device, non_blocking=True),
        labels=labels.to(device, non_blocking=True),
        present=present.to(device, non_blocking=True),
        masks=torch.cat(masks),
        mask_index=mask_index.to(device, non_blocking=True),
        label_range=(least, largest),
        boxes_alone=bool((present & (mask_index < 0)).any()),
    )


def _in_image(known: Instances, row: int, size: Tensor) -> Instances:
    """The objects of a row as far as they are in its image, boxes and labels in the host's memory.

    Args:
        known: Of the row.
        row: Its number, for messages.
        size: ``(2,)`` (width, height) of its image.

    Raises:
        ValueError: If they differ in number, or a box is none.
    """
    counts = {len(known.boxes), len(known.labels)} | ({len(known.masks)} if known.masks is not None else set())
    if len(counts) != 1:
        raise ValueError(f"boxes, labels and masks of row {row} must be as many, got {sorted(counts)}")
    boxes, labels, masks = known.boxes.cpu().float(), known.labels.cpu(), known.masks
    wrong = ~boxes.isfinite().all(1) | (boxes[:, 2:] < boxes[:, :2]).any(1)
    if wrong.any():
        raise ValueError(
            f"boxes must be finite (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1, got {boxes[wrong][0].tolist()} in row "
            f"{row}; correct it or leave the object out"
        )
    boxes = torch.minimum(boxes.clamp(min=0), size.repeat(2))
    left = (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not left.all():
        boxes, labels = boxes[left], labels[left]
        masks = None if masks is None else masks[left.nonzero()[:, 0].to(masks.device)]
    return Instances(boxes, labels, masks)
