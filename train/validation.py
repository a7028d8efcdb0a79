"""Mean IoU of fixed episodes, and again with swapped references: a model must follow them, not the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from sam_uniref.data import ReferenceBatch, Sample, SampleSource, collate
from sam_uniref.interfaces import ReferenceSegmenter


@torch.no_grad()
def predict_batch(model: ReferenceSegmenter, batch: ReferenceBatch) -> list[torch.Tensor]:
    """The masks of a batch at their pictures' sizes, each ``(H, W)`` bool."""
    batch = batch.to(model.device)
    features = model.encode_pixels(batch.pixels, batch.input_sizes, batch.original_sizes)
    logits = model.predict(features, model.references_of(batch, features)).logits.float()

    def at_its_size(row: int, at: int) -> torch.Tensor:
        sizes = batch.input_sizes[at], batch.original_sizes[at], features.canvas
        return model.transform.logits(logits[row : row + 1], *sizes)[0, 0] > 0

    return [at_its_size(row, at) for row, at in enumerate(batch.query_index.tolist())]


def episode_iou(model: ReferenceSegmenter, samples: Sequence[Sample]) -> list[float]:
    """IoU of each sample at its picture's size."""
    masks = predict_batch(model, collate(samples, model.transform))
    ious = []
    for sample, mask in zip(samples, masks, strict=True):
        predicted = mask.cpu().numpy()
        union = (predicted | sample.mask).sum()
        ious.append(float((predicted & sample.mask).sum() / max(1, union)))
    return ious


def validate(
    model: ReferenceSegmenter,
    datasets: Sequence[SampleSource],
    accelerator: Accelerator,
    batch_size: int,
    most: int = 0,
) -> dict[str, float]:
    """Mean IoU of every data set, shared out over processes.

    Args:
        model: Unwrapped.
        datasets: Their episodes are fixed; those held out if any are, else those trained on.
        accelerator: For its processes.
        batch_size: Episodes encoded at a time.
        most: Of a data set with more episodes, so many are taken, spread evenly; 0: all.

    Returns:
        ``<data set>/<split>_iou`` and ``<data set>/<split>_iou_swapped``; the second with the references of
        other objects and the targets as they were, so lower is better.
    """
    was_training = model.training
    model.eval()
    results = {}
    for dataset in datasets:
        for swapped in (False, True):
            if swapped and not dataset.can_swap:
                continue
            name = f"{dataset.name}/{dataset.validation_split}_iou{'_swapped' if swapped else ''}"
            results[name] = _mean_iou(model, dataset, swapped, accelerator, batch_size, most)
    model.train(was_training)
    return results


def _mean_iou(
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
            ious = episode_iou(model, samples)
        total += torch.tensor([sum(ious), len(ious)], device=model.device)
    summed = accelerator.reduce(total, reduction="sum")
    return float(summed[0] / summed[1].clamp(min=1))


def chosen_episodes(count: int, most: int) -> list[int]:
    """Which of ``count`` episodes to look at: all, or ``most`` of them spread evenly."""
    if not most or count <= most:
        return list(range(count))
    return [i * count // most for i in range(most)]
