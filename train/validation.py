"""Mean IoU of fixed episodes, and again with swapped references: a model must follow them, not the picture.

Of detection, which follows nothing: the share of objects that are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from sam_uniref.cache import FeatureCache, NotCachedError
from sam_uniref.data import ReferenceBatch, Sample, SampleSource, collate
from sam_uniref.images import RGB
from sam_uniref.interfaces import ReferenceSegmenter

# Two boxes are of one object from here on.
_SAME = 0.5


class FoundObjects(Protocol):
    """What a detector finds in a picture, the best first."""

    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]


class Detector(Protocol):
    """A model that finds all objects."""

    def detect(self, image: RGB, *, most: int) -> FoundObjects:
        """At most so many of them."""


@torch.no_grad()
def predict_batch(model: ReferenceSegmenter, batch: ReferenceBatch) -> list[torch.Tensor]:
    """The masks of a batch at their pictures' sizes, each ``(H, W)`` bool."""
    batch = batch.to(model.device)
    features = model.features_of(batch)
    logits = model.predict(features, model.references_of(batch, features)).logits.float()

    def at_its_size(row: int, at: int) -> torch.Tensor:
        sizes = batch.input_sizes[at], batch.original_sizes[at], features.canvas
        return model.transform.logits(logits[row : row + 1], *sizes)[0, 0] > 0

    return [at_its_size(row, at) for row, at in enumerate(batch.query_index.tolist())]


def episode_iou(
    model: ReferenceSegmenter, samples: Sequence[Sample], features: FeatureCache | None = None
) -> list[float]:
    """IoU of each sample at its picture's size; what a cache lacks of a batch's pictures is encoded, as without one."""
    try:
        batch = collate(samples, model.transform, features)
    except NotCachedError:
        batch = collate(samples, model.transform)
    masks = predict_batch(model, batch)
    ious = []
    for sample, mask in zip(samples, masks, strict=True):
        predicted = mask.cpu().numpy()
        union = (predicted | sample.mask).sum()
        ious.append(float((predicted & sample.mask).sum() / max(1, union)))
    return ious


def found_shares(model: ReferenceSegmenter, samples: Sequence[Sample]) -> list[float]:
    """Of each picture's M objects, the share that the M best detections find: right class, box IoU from 0.5 on."""
    from scipy.optimize import linear_sum_assignment
    from torchvision.ops import box_iou

    detector, shares = cast(Detector, model), []
    for sample in samples:
        objects = sample.objects
        if objects is None or not len(objects):
            raise ValueError(f"{sample.name}: detection is validated on pictures with objects, got none")
        found = detector.detect(sample.image, most=len(objects))
        overlap = box_iou(torch.from_numpy(objects.boxes), torch.from_numpy(found.boxes)).numpy()
        same = (overlap >= _SAME) & (objects.labels[:, None] == found.labels[None])
        rows, columns = linear_sum_assignment(same, maximize=True)
        shares.append(float(same[rows, columns].sum()) / len(objects))
    return shares


def validate(
    model: ReferenceSegmenter,
    datasets: Sequence[SampleSource],
    accelerator: Accelerator,
    batch_size: int,
    most: int = 0,
    features: FeatureCache | None = None,
) -> dict[str, float]:
    """Mean IoU of every data set, shared out over processes; of detection the mean share of objects that are found.

    Args:
        model: Unwrapped.
        datasets: Their episodes are fixed; those held out if any are, else those trained on.
        accelerator: For its processes.
        batch_size: Episodes encoded at a time.
        most: Of a data set with more episodes, so many are taken, spread evenly; 0: all.
        features: Of pictures that the frozen encoder saw before.

    Returns:
        ``<data set>/<split>_iou`` and ``<data set>/<split>_iou_swapped``; the second with the references of
        other objects and the targets as they were, so lower is better. Of detection ``<data set>/<split>_found``,
        see `found_shares`.
    """
    was_training = model.training
    model.eval()
    results = {}
    measure = partial(episode_iou, features=features)
    for dataset in datasets:
        if dataset.task == "detection":
            name = f"{dataset.name}/{dataset.validation_split}_found"
            results[name] = _mean(found_shares, model, dataset, False, accelerator, batch_size, most)
            continue
        for swapped in (False, True):
            if swapped and not dataset.can_swap:
                continue
            name = f"{dataset.name}/{dataset.validation_split}_iou{'_swapped' if swapped else ''}"
            results[name] = _mean(measure, model, dataset, swapped, accelerator, batch_size, most)
    model.train(was_training)
    return results


def _mean(
    measure: Callable[[ReferenceSegmenter, Sequence[Sample]], list[float]],
    model: ReferenceSegmenter,
    dataset: SampleSource,
    swapped: bool,
    accelerator: Accelerator,
    batch_size: int,
    most: int,
) -> float:
    """Mean over the episodes of a data set."""
    mine = chosen_episodes(dataset.episodes, most)[accelerator.process_index :: accelerator.num_processes]
    total = torch.zeros(2, device=model.device)
    for start in range(0, len(mine), batch_size):
        samples = [dataset.episode(i, swapped=swapped) for i in mine[start : start + batch_size]]
        with accelerator.autocast():
            values = measure(model, samples)
        total += torch.tensor([sum(values), len(values)], device=model.device)
    summed = accelerator.reduce(total, reduction="sum")
    return float(summed[0] / summed[1].clamp(min=1))


def chosen_episodes(count: int, most: int) -> list[int]:
    """Which of ``count`` episodes to look at: all, or ``most`` of them spread evenly."""
    if not most or count <= most:
        return list(range(count))
    return [i * count // most for i in range(most)]
