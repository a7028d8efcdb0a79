"""Samples and batches: what every data set becomes, and what a model trains on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from sam_uniref.data.instances import PictureObjects
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

    def with_boxes_alone(self) -> Sample:
        """The same where no more than the box is known of each object: a filled box is the target of a sentence."""
        if self.objects is not None:
            return replace(self, objects=replace(self.objects, masks=None))
        known = PictureObjects.of_box(self.mask)
        return replace(self, mask=known.filled(self.mask.shape), objects=known)


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
        levels: What the frozen image encoder made of ``pixels``, per level ``(P, C, h, w)``, in bfloat16 or float32;
            None where the model is to encode them.
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
    levels: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        """The number of samples, B."""
        return len(self.names)

    def to(self, device: torch.device | str) -> ReferenceBatch:
        """All tensors on ``device``, but for the boxes and labels of instances, which the host reads."""
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
            instances=None if self.instances is None else tuple(known.map_masks(function) for known in self.instances),
            levels=None if self.levels is None else tuple(map(function, self.levels)),
        )


class PictureFeatures(Protocol):
    """Where features of pictures are that were encoded before."""

    def levels(self, pictures: Sequence[RGB], names: Sequence[str]) -> tuple[Tensor, ...]:
        """Per level ``(P, C, h, w)`` of P pictures; the names of samples that they are in are for messages.

        Raises:
            ValueError: If there are none of a picture, or they are broken.
        """


def collate(
    samples: Sequence[Sample],
    transform: ImageTransform | Sequence[ImageTransform],
    features: PictureFeatures | None = None,
) -> ReferenceBatch:
    """Samples of one task to a batch.

    Args:
        samples: At least one.
        transform: The way into the model's input; or one a sample, which may differ in the sizes that they give.
        features: To take the batch's levels from, made with the same transform; by default the model is to encode.

    Raises:
        ValueError: If there is no sample, they differ in task, number of references, having a sentence or having
            objects, or the features of a picture are not there.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample, got none")
    kinds = {(s.task, s.sentence is None, len(s.references), s.objects is None) for s in samples}
    if len(kinds) != 1:
        raise ValueError(
            "samples of a batch must be alike in (task, without sentence, references, without objects), "
            f"got {sorted(kinds)}"
        )
    transforms = [transform] * len(samples) if isinstance(transform, ImageTransform) else transform
    pairs = list(zip(samples, transforms, strict=True))
    pictures = _Pictures()
    query_index = [pictures.add(s.image, t, s.name) for s, t in pairs]
    shots = range(len(samples[0].references))
    reference_index = [[pictures.add(s.references[k].image, t, s.name) for s, t in pairs] for k in shots]
    pixels, input_sizes = pictures.pixels()
    canvas = (pixels.shape[-2], pixels.shape[-1])
    masks = torch.stack([t.mask(s.mask, canvas) for s, t in pairs])
    reference_masks = [torch.stack([t.mask(s.references[k].mask, canvas) for s, t in pairs]) for k in shots]
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
        instances=tuple(_instances(s.image, s.objects, t, canvas) for s, t in pairs if s.objects is not None) or None,
        levels=None if features is None else features.levels(pictures.images, pictures.samples),
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
    """Distinct pictures, in the order they came, told apart by what is on them and how large it is looked at."""

    def __init__(self) -> None:
        self.images: list[RGB] = []
        self.samples: list[str] = []  # of each picture, the sample that it came with
        self._transforms: list[ImageTransform] = []
        self._numbers: dict[tuple[Size, Size, bytes], int] = {}

    def add(self, image: RGB, transform: ImageTransform, sample: str) -> int:
        """The picture's number."""
        size = (image.shape[0], image.shape[1])
        number = self._numbers.setdefault((size, transform.input_size(size), image.tobytes()), len(self.images))
        if number == len(self.images):
            self.images.append(image)
            self.samples.append(sample)
            self._transforms.append(transform)
        return number

    def pixels(self) -> tuple[Tensor, tuple[Size, ...]]:
        """All of them as ``(P, 3, H, W)`` on one canvas, and the ``(height, width)`` of each one's content."""
        pairs = list(zip(self.images, self._transforms, strict=True))
        sizes = tuple(transform.input_size((image.shape[0], image.shape[1])) for image, transform in pairs)
        pixels = torch.zeros(len(pairs), 3, *self._transforms[0].canvas(sizes))
        for (image, transform), place in zip(pairs, pixels, strict=True):
            transform.image(image, place)
        return pixels, sizes
