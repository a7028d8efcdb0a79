"""Samples and batches: what every data set becomes, and what a model trains on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from sam_uniref.images import RGB, Mask
from sam_uniref.transforms import ImageTransform, Size

Task = Literal["ris", "fss", "vos", "rvos"]
TASKS: tuple[Task, ...] = ("ris", "fss", "vos", "rvos")


@dataclass(frozen=True)
class AnnotatedImage:
    """A reference image with the mask of the object meant.

    Attributes:
        image: HWC uint8 RGB.
        mask: HW bool.
    """

    image: RGB
    mask: Mask


@dataclass(frozen=True)
class Sample:
    """One training or evaluation example.

    Attributes:
        name: Names the sample in messages: data set, file, object.
        task: What is asked.
        image: The query, HWC uint8 RGB.
        mask: The target, HW bool; empty if the reference points at nothing in the query.
        sentence: For ``ris`` and ``rvos``.
        references: For ``fss``, ``vos`` and ``rvos``; all samples of a batch have the same number.
    """

    name: str
    task: Task
    image: RGB
    mask: Mask
    sentence: str | None = None
    references: tuple[AnnotatedImage, ...] = ()


@dataclass(frozen=True)
class ReferenceBatch:
    """B samples of one task as tensors.

    Attributes:
        names: Of the samples.
        task: Of all of them.
        pixels: ``(B, 3, S, S)`` queries, normalised and padded.
        masks: ``(B, S, S)`` float targets in {0, 1}.
        input_sizes: Per query, its content's ``(height, width)`` in the square.
        original_sizes: Per query, the picture's ``(height, width)``.
        sentences: B sentences, or None.
        reference_pixels: Per reference (shot, or frame) ``(B, 3, S, S)``.
        reference_masks: Per reference ``(B, S, S)``.
        reference_sizes: Per reference, per sample, ``(height, width)`` in the square.
    """

    names: tuple[str, ...]
    task: Task
    pixels: Tensor
    masks: Tensor
    input_sizes: tuple[Size, ...]
    original_sizes: tuple[Size, ...]
    sentences: tuple[str, ...] | None = None
    reference_pixels: tuple[Tensor, ...] = ()
    reference_masks: tuple[Tensor, ...] = ()
    reference_sizes: tuple[tuple[Size, ...], ...] = field(default=())

    def __len__(self) -> int:
        """The number of samples, B."""
        return len(self.names)

    def all_images(self) -> tuple[Tensor, tuple[Size, ...], tuple[Size, ...]]:
        """Queries, then references shot by shot: pixels, input sizes, original sizes."""
        sizes = (*self.input_sizes, *(s for shot in self.reference_sizes for s in shot))
        original = (*self.original_sizes, *(s for shot in self.reference_sizes for s in shot))
        return torch.cat([self.pixels, *self.reference_pixels]), sizes, original

    def to(self, device: torch.device | str) -> ReferenceBatch:
        """All tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> ReferenceBatch:
        """All tensors in page-locked memory; the loader calls this where a GPU waits for them."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> ReferenceBatch:
        """Apply a function to every tensor."""
        return replace(
            self,
            pixels=function(self.pixels),
            masks=function(self.masks),
            reference_pixels=tuple(map(function, self.reference_pixels)),
            reference_masks=tuple(map(function, self.reference_masks)),
        )


def collate(samples: Sequence[Sample], transform: ImageTransform) -> ReferenceBatch:
    """Samples of one task to a batch.

    Raises:
        ValueError: If there is no sample, or they differ in task, number of references or having a sentence.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample, got none")
    kinds = {(s.task, s.sentence is None, len(s.references)) for s in samples}
    if len(kinds) != 1:
        raise ValueError(
            f"samples of a batch must be alike in (task, without sentence, references), got {sorted(kinds)}"
        )
    queries = [transform.image(s.image) for s in samples]
    shots = [[s.references[k] for s in samples] for k in range(len(samples[0].references))]
    encoded = [[transform.image(r.image) for r in shot] for shot in shots]
    sentences = tuple(s.sentence for s in samples if s.sentence is not None)
    return ReferenceBatch(
        names=tuple(s.name for s in samples),
        task=samples[0].task,
        pixels=torch.stack([pixels for pixels, _ in queries]),
        masks=torch.stack([transform.mask(s.mask) for s in samples]),
        input_sizes=tuple(size for _, size in queries),
        original_sizes=tuple((s.image.shape[0], s.image.shape[1]) for s in samples),
        sentences=sentences or None,
        reference_pixels=tuple(torch.stack([pixels for pixels, _ in shot]) for shot in encoded),
        reference_masks=tuple(torch.stack([transform.mask(r.mask) for r in shot]) for shot in shots),
        reference_sizes=tuple(tuple(size for _, size in shot) for shot in encoded),
    )
