"""All segments of a picture that SAM sees by itself, and which of them an answer means.

SAM draws an object as no short training can; what it lacks is to know which one is meant. An answer that is unsure of
the border, or spread over two objects, is made one of SAM's segments: the one that it agrees with best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam_uniref.images import ImageLike, Mask
from sam_uniref.interfaces import ImageFeatures, Prompts
from sam_uniref.samref import SamRef
from sam_uniref.segmentation import Segmentation

# Points that SAM is asked at a time.
_TOGETHER = 64

# Far enough from the border's logit, 0, for the two masks whose overlap tells how stable a segment is (SAM's own).
_OFFSET = 1.0


@torch.inference_mode()
def segment_everything(
    model: SamRef,
    image: ImageLike | ImageFeatures,
    *,
    points_per_side: int = 16,
    least_score: float = 0.6,
    least_stability: float = 0.7,
    most_overlap: float = 0.6,
) -> list[Segmentation]:
    """Ask SAM's own untouched decoder at every point of a grid, and keep what is good and not there yet.

    The steps are those of SAM's automatic mask generator (Segment Anything, appendix B), on low-res masks and without
    its crops; its thresholds are higher, as it shows what it keeps, and here an answer chooses.

    Args:
        model: Whose SAM is asked.
        image: The picture, or its features from `encode_image` (one image).
        points_per_side: The grid's, as many across as down; three masks are tried at each point.
        least_score: Predicted IoU that a segment must have, 0-1.
        least_stability: IoU that its masks at logits 1 and -1 must have, 0-1.
        most_overlap: IoU above which the lesser of two segments is left out, 0-1.

    Returns:
        Segments, the best first, by score times stability, none of them empty. They may lie in one another, as a part
        does in its whole.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If there is no point, a share is not in 0-1, or there is not one image.
    """
    if points_per_side < 1:
        raise ValueError(f"points_per_side must be at least 1, got {points_per_side}")
    for name, share in (("score", least_score), ("stability", least_stability), ("overlap", most_overlap)):
        if not 0 <= share <= 1:
            raise ValueError(f"the bound of the {name} must be in 0-1, got {share}")
    with model.without_lora():  # SAM's decoder knows SAM's own features
        features = image if isinstance(image, ImageFeatures) else model.encode_image(image)
    if len(features) != 1:
        raise ValueError(f"segment_everything takes one image, got {len(features)}")
    height, width = model.low_res_size(features)
    good = []
    for points in _grid(features, points_per_side).split(_TOGETHER):
        logits, scores = _ask(model, features, points)
        stability = _stability(logits[:, :height, :width])
        passed = (scores >= least_score) & (stability >= least_stability)
        good.append((logits[passed], scores[passed], (scores * stability)[passed]))
    logits, scores, worth = (torch.cat(parts) for parts in zip(*good, strict=True))
    best = _distinct(logits[:, :height, :width] > 0, worth, most_overlap)
    segments = (_segmentation(model, features, logits[index], float(scores[index])) for index in best)
    return [segment for segment in segments if segment.mask.any()]


def nearest_segment(answer: Segmentation, segments: Sequence[Segmentation]) -> Segmentation | None:
    """The segment that an answer means: that of the greatest soft IoU with its probabilities.

    Args:
        answer: Of `segment`, by whatever reference.
        segments: Of the same picture.

    Returns:
        None where there are no segments, or none has a pixel of the answer's mask.

    Raises:
        ValueError: If they are of pictures of different sizes.
    """
    agreements = zip(agreement(answer, [segment.mask for segment in segments]), segments, strict=True)
    touched = [(share, segment) for share, segment in agreements if (segment.mask & answer.mask).any()]
    return max(touched, key=lambda pair: pair[0], default=(0.0, None))[1]


def agreement(answer: Segmentation, masks: Sequence[Mask]) -> list[float]:
    """Soft IoU of an answer's probabilities with masks ``(H, W)`` of segments of the same picture, 0-1 each.

    Raises:
        ValueError: If they are of pictures of different sizes.
    """
    for mask in masks:
        if mask.shape != answer.mask.shape:
            raise ValueError(
                f"the answer is of a picture of {answer.mask.shape} (height, width), a segment of one of "
                f"{mask.shape}; give segments of the picture that was segmented"
            )
    probabilities = torch.from_numpy(np.ascontiguousarray(answer.logits)).sigmoid().numpy()
    return [soft_iou(probabilities, mask) for mask in masks]


def soft_iou(probabilities: NDArray[np.float32], mask: Mask) -> float:
    """Of probabilities ``(H, W)`` and a mask of that size; 0 where there is nothing of either."""
    both = float(probabilities[mask].sum(dtype=np.float64))
    either = float(probabilities.sum(dtype=np.float64)) + float(mask.sum()) - both
    return both / either if either else 0.0


def _grid(features: ImageFeatures, per_side: int) -> Tensor:
    """``(per_side ** 2, 2)`` points in the middle of equal cells of the picture, (x, y) in the input's pixels."""
    height, width = features.input_sizes[0]
    middles = (torch.arange(per_side, dtype=torch.float32, device=features.pixels.device) + 0.5) / per_side
    return torch.cartesian_prod(middles * height, middles * width).flip(1)


def _ask(model: SamRef, features: ImageFeatures, points: Tensor) -> tuple[Tensor, Tensor]:
    """Low-res logits ``(3 P, h, w)`` and scores ``(3 P,)`` of three candidates a point, float32."""
    rows = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    prompts = Prompts(rows, points=points[:, None], labels=torch.ones_like(rows)[:, None])
    answer = model.predict(features, [], prompts, multimask=True, decoder="sam")
    return answer.logits.float().flatten(0, 1), answer.scores.float().flatten()


def _stability(logits: Tensor) -> Tensor:
    """``(N,)``: how much of each mask stays when the border's logit moves; 0 where nothing is sure."""
    inner, outer = ((logits > offset).sum((1, 2)) for offset in (_OFFSET, -_OFFSET))
    return inner / outer.clamp(min=1)


def _distinct(masks: Tensor, worth: Tensor, most_overlap: float) -> list[int]:
    """Which of ``(N, h, w)`` masks are kept, the worthiest first: none that overlaps a worthier one by more."""
    flat = masks.flatten(1).cpu()  # once, and not a wait for the device at each of them
    kept: list[int] = []
    taken = flat[:0]
    for index in worth.argsort(descending=True, stable=True).tolist():
        both, either = (joined.sum(1) for joined in (taken & flat[index], taken | flat[index]))
        if bool(flat[index].any()) and not bool((both > most_overlap * either).any()):
            kept.append(index)
            taken = flat[kept]
    return kept


def _segmentation(model: SamRef, features: ImageFeatures, low_res: Tensor, score: float) -> Segmentation:
    """A candidate's low-res logits ``(h, w)`` at the picture's size."""
    sizes = features.input_sizes[0], features.original_sizes[0]
    logits = model.transform.logits(low_res[None, None], *sizes)[0, 0].cpu().numpy()
    return Segmentation(logits > 0, score, logits, low_res[None].cpu().numpy())
