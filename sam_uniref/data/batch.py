"""Samples and batches: what every data set becomes, and what a model trains on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam_uniref.images import RGB, Mask
from sam_uniref.interfaces import Instances
from sam_uniref.transforms import ImageTransform, Size

Task = Literal["ris", "fss", "vos", "rvos", "detection"]
TASKS: tuple[Task, ...] = ("ris", "fss", "vos", "rvos")
"""What a model is asked: all with a reference. Detection is something to learn from."""


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
class PictureObjects:
    """All objects of a picture that are known.

    Attributes:
        boxes: ``(M, 4)`` float32 as (x0, y0, x1, y1) in the picture's pixels, x1 and y1 exclusive.
        labels: ``(M,)`` int64 from 0.
        masks: ``(M, H, W)`` bool; None where only boxes are known.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_] | None = None


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
        objects: For ``detection`` all of the picture's; with a sentence the one that it names, where only its box is
            known. None where the mask says it all.
    """

    name: str
    task: Task
    image: RGB
    mask: Mask
    sentence: str | None = None
    references: tuple[AnnotatedImage, ...] = ()
    objects: PictureObjects | None = None


@dataclass(frozen=True)
class ReferenceBatch:
    """B samples of one task as tensors, over P distinct pictures: one that several samples share is there once.

    Attributes:
        names: Of the samples.
        task: Of all of them.
        pixels: ``(P, 3, H, W)`` queries and references, normalised and padded.
        input_sizes: Per picture, its content's ``(height, width)`` in the canvas.
        original_sizes: Per picture, its own ``(height, width)``.
        query_index: ``(B,)`` int64, the picture that each sample asks about.
        masks: ``(B, H, W)`` float targets in {0, 1}.
        reference_index: ``(K, B)`` int64, the picture of each sample's references (shots, or frames).
        reference_masks: ``(K, B, H, W)``.
        sentences: B sentences, or None.
        instances: The objects of each of the B queries, or None where the masks say it all.
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
    instances: tuple[Instances, ...] | None = None

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
            instances=None if self.instances is None else tuple(known.map(function) for known in self.instances),
        )


def collate(samples: Sequence[Sample], transform: ImageTransform) -> ReferenceBatch:
    """Samples of one task to a batch.

    Raises:
        ValueError: If there is no sample, or they differ in task, number of references, having a sentence or having
            objects.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample, got none")
    kinds = {(s.task, s.sentence is None, len(s.references), s.objects is None) for s in samples}
    if len(kinds) != 1:
        raise ValueError(
            "samples of a batch must be alike in (task, without sentence, references, without objects), "
            f"got {sorted(kinds)}"
        )
    pictures = _Pictures()
    query_index = [pictures.add(s.image) for s in samples]
    shots = range(len(samples[0].references))
    reference_index = [[pictures.add(s.references[k].image) for s in samples] for k in shots]
    pixels, input_sizes = transform.batch(pictures.images)
    canvas = (pixels.shape[-2], pixels.shape[-1])
    masks = torch.stack([transform.mask(s.mask, canvas) for s in samples])
    reference_masks = [torch.stack([transform.mask(s.references[k].mask, canvas) for s in samples]) for k in shots]
    return ReferenceBatch(
        names=tuple(s.name for s in samples),
        task=samples[0].task,
        pixels=pixels,
        input_sizes=input_sizes,
        original_sizes=tuple((image.shape[0], image.shape[1]) for image in pictures.images),
        query_index=torch.tensor(query_index),
        masks=masks,
        reference_index=torch.tensor(reference_index, dtype=torch.int64).reshape(len(shots), len(samples)),
        reference_masks=torch.stack(reference_masks) if reference_masks else masks.new_zeros((0, *masks.shape)),
        sentences=tuple(s.sentence for s in samples if s.sentence is not None) or None,
        instances=tuple(_instances(s.image, s.objects, transform, canvas) for s in samples if s.objects) or None,
    )


def _instances(image: RGB, objects: PictureObjects, transform: ImageTransform, canvas: Size) -> Instances:
    """A picture's objects in the canvas."""
    corners = transform.points(objects.boxes.reshape(-1, 2, 2), (image.shape[0], image.shape[1]))
    masks = None
    if objects.masks is not None:
        scaled = [transform.mask(mask, canvas) for mask in objects.masks]
        masks = torch.stack(scaled) if scaled else torch.zeros(0, *canvas)
    return Instances(corners.reshape(-1, 4), torch.from_numpy(objects.labels), masks)


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
