"""Batches of the shapes that a run would have, where its data is not there: noise, and boxes in place of objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sam_uniref.data import ReferenceBatch, Task
from sam_uniref.images import RGB
from sam_uniref.interfaces import Instances
from sam_uniref.transforms import ImageTransform

# About as long as those of RefCOCO and Ref-YouTube-VOS, which are what most runs are trained on.
SENTENCE = "the person in a red shirt on the left"
# Of a picture's height and width, as most photographs have them.
_SHAPE = (480, 640)
# Objects that are known in a picture that is learnt from as a whole; COCO has about seven.
_OBJECTS = 7


class MadeUpFeatures:
    """Noise in place of the features that a cache would have.

    Args:
        shapes: Per level ``(C, h, w)``.
        device: ``"meta"`` for shapes alone.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int]], device: torch.device | str = "cpu") -> None:
        self._shapes, self._device = shapes, device

    def levels(self, pictures: Sequence[RGB], names: Sequence[str]) -> tuple[Tensor, ...]:
        """Per level ``(P, C, h, w)`` bfloat16 of P pictures."""
        return self.of(len(pictures))

    def of(self, pictures: int) -> tuple[Tensor, ...]:
        """The same of so many pictures."""
        return tuple(torch.randn(pictures, *shape, dtype=torch.bfloat16, device=self._device) for shape in self._shapes)


def made_up_batch(
    transform: ImageTransform,
    task: Task,
    batch_size: int,
    *,
    features: MadeUpFeatures | None = None,
    device: torch.device | str = "cpu",
) -> ReferenceBatch:
    """A batch in which no sample shares a picture with another one, and each has one reference image if it has any.

    Args:
        transform: Of the model.
        task: Of all samples.
        batch_size: B.
        features: Of its pictures; by default the model is to encode them.
        device: ``"meta"`` for shapes alone.
    """
    shots = 1 if task in ("fss", "vos", "rvos") else 0
    pictures = batch_size * (1 + shots)
    size = transform.input_size(_SHAPE)
    canvas = transform.canvas([size])
    generator = None if torch.device(device).type == "meta" else torch.Generator(device).manual_seed(0)
    corner = (size[0] // 4, size[1] // 4)
    masks = torch.zeros(batch_size, *canvas, device=device)
    masks[:, corner[0] : 3 * corner[0], corner[1] : 3 * corner[1]] = 1.0
    index = torch.arange(pictures, device=device).view(1 + shots, batch_size)
    instances = None
    if task == "detection":
        box = torch.tensor([corner[1], corner[0], 3 * corner[1], 3 * corner[0]], dtype=torch.float32)
        labels = torch.zeros(_OBJECTS, dtype=torch.int64)
        known = Instances(box.expand(_OBJECTS, -1), labels, masks[:1].expand(_OBJECTS, -1, -1))
        instances = (known,) * batch_size
    return ReferenceBatch(
        names=tuple(f"made up {row}" for row in range(batch_size)),
        task=task,
        pixels=torch.randn(pictures, 3, *canvas, generator=generator, device=device),
        input_sizes=(size,) * pictures,
        original_sizes=(_SHAPE,) * pictures,
        query_index=index[0],
        masks=masks if instances is None else masks[:0],
        reference_index=index[1:],
        reference_masks=masks.expand(shots, -1, -1, -1),
        sentences=(SENTENCE,) * batch_size if task in ("ris", "rvos") else None,
        instances=instances,
        levels=None if features is None else features.of(pictures),
    )
