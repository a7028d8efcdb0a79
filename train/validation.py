"""Mean IoU of fixed episodes, and again with swapped references: a model must follow them, not the picture.

Of detection, which follows nothing: the share of objects that are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
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
from sam_uniref.train.loader import BatchLoader

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


@dataclass
class EpisodeBatches:
    """A process's share of a data set's fixed episodes.

    Attributes:
        dataset: Whose they are.
        numbers: Of the episodes.
        swapped: Whether they have the references of other objects.
        batch_size: Episodes of a batch.
        on_sample: Told which episode is read, before it is.
    """

    dataset: SampleSource
    numbers: Sequence[int]
    swapped: bool
    batch_size: int
    on_sample: Callable[[str], None] | None = None

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.numbers) // self.batch_size)

    def __getitem__(self, index: int) -> list[Sample]:
        """One of them."""
        samples = []
        for number in self.numbers[index * self.batch_size : (index + 1) * self.batch_size]:
            if self.on_sample is not None:
                self.on_sample(f"{self.dataset.name}: validation episode {number}")
            samples.append(self.dataset.episode(number, swapped=self.swapped))
        return samples


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
    workers: int = 0,
    timeout: float = 0,
) -> dict[str, float]:
    """Mean IoU of every data set, shared out over processes; of detection the mean share of objects that are found.

    Args:
        model: Unwrapped.
        datasets: Their episodes are fixed; those held out if any are, else those trained on.
        accelerator: For its processes.
        batch_size: Episodes encoded at a time.
        most: Of a data set with more episodes, so many are taken, spread evenly; 0: all.
        features: Of pictures that the frozen encoder saw before.
        workers: Loader processes, as in `BatchLoader`.
        timeout: Seconds to wait for one of them; 0: for ever.

    Returns:
        ``<data set>/<split>_iou`` and ``<data set>/<split>_iou_swapped``; the second with the references of
        other objects and the targets as they were, so lower is better. Of detection ``<data set>/<split>_found``,
        see `found_shares`.

    Raises:
        LoaderError: If an episode can't be had; the message names it.
    """
    was_training = model.training
    model.eval()
    results = {}
    measure = partial(episode_iou, features=features)

    def mean(
        of: Callable[[ReferenceSegmenter, Sequence[Sample]], list[float]], dataset: SampleSource, swapped: bool
    ) -> float:
        mine = chosen_episodes(dataset.episodes, most)[accelerator.process_index :: accelerator.num_processes]
        batches = EpisodeBatches(dataset, mine, swapped, batch_size)
        with closing(BatchLoader(batches, 0, min(workers, len(batches)), timeout)) as loader:
            return _mean(of, model, loader, accelerator)

    for dataset in datasets:
        if dataset.task == "detection":
            results[f"{dataset.name}/{dataset.validation_split}_found"] = mean(found_shares, dataset, False)
            continue
        for swapped in (False, True):
            if swapped and not dataset.can_swap:
                continue
            name = f"{dataset.name}/{dataset.validation_split}_iou{'_swapped' if swapped else ''}"
            results[name] = mean(measure, dataset, swapped)
    model.train(was_training)
    return results


def _mean(
    measure: Callable[[ReferenceSegmenter, Sequence[Sample]], list[float]],
    model: ReferenceSegmenter,
    batches: Iterable[list[Sample]],
    accelerator: Accelerator,
) -> float:
    """Mean over all processes' episodes."""
    total = torch.zeros(2, device=model.device)
    for samples in batches:
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
