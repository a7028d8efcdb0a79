"""Samples and batches: what every data set becomes, and what a model trains on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    """B samples of one task as tensors, over P distinct pictures: one that several samples share is there once.

    Attributes:
        names: Of the samples.
        task: Of all of them.
        pixels: ``(P, 3, S, S)`` queries and references, normalised and padded.
        input_sizes: Per picture, its content's ``(height, width)`` in the square.
        original_sizes: Per picture, its own ``(height, width)``.
        query_index: ``(B,)`` int64, the picture that each sample asks about.
        masks: ``(B, S, S)`` float targets in {0, 1}.
        reference_index: ``(K, B)`` int64, the picture of each sample's references (shots, or frames).
        reference_masks: ``(K, B, S, S)``.
        sentences: B sentences, or None.
    """

    names: tuple[str, ...]
    task: Task
    pixels: Tensor
    input_sizes: tuple[Size, ...]
    original_sizes: tuple[Size, ...]
    query_index: Tensor
    masks: Tensor
    reference_index: Tensor
    reference_masks: Tensor
    sentences: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """The number of samples, B."""
        return len(self.names)

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
            query_index=function(self.query_index),
            masks=function(self.masks),
            reference_index=function(self.reference_index),
            reference_masks=function(self.reference_masks),
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
    pictures = _Pictures()
    query_index = [pictures.add(s.image) for s in samples]
    shots = range(len(samples[0].references))
    reference_index = [[pictures.add(s.references[k].image) for s in samples] for k in shots]
    pixels = torch.zeros(len(pictures.images), 3, transform.size, transform.size)
    input_sizes = [transform.image(image, place)[1] for image, place in zip(pictures.images, pixels, strict=True)]
    masks = torch.stack([transform.mask(s.mask) for s in samples])
    reference_masks = [torch.stack([transform.mask(s.references[k].mask) for s in samples]) for k in shots]
    return ReferenceBatch(
        names=tuple(s.name for s in samples),
        task=samples[0].task,
        pixels=pixels,
        input_sizes=tuple(input_sizes),
        original_sizes=tuple((image.shape[0], image.shape[1]) for image in pictures.images),
        query_index=torch.tensor(query_index),
        masks=masks,
        reference_index=torch.tensor(reference_index, dtype=torch.int64).reshape(len(shots), len(samples)),
        reference_masks=torch.stack(reference_masks) if reference_masks else masks.new_zeros((0, *masks.shape)),
        sentences=tuple(s.sentence for s in samples if s.sentence is not None) or None,
    )


class _Pictures:
    """Distinct pictures, in the order they came, told apart by what is on them."""

    def __init__(self) -> None:
        self.images: list[RGB] = []
        self._numbers: dict[tuple[tuple[int, ...], bytes], int] = {}

    def add(self, image: RGB) -> int:
        """The picture's number."""
        number = self._numbers.setdefault((image.shape, image.tobytes()), len(self.images))
        if number == len(self.images):
            self.images.append(image)
        return number
