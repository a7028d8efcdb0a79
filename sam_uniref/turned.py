"""A picture and its examples asked in all four quarter turns: slower, and right more often.

An object that lies on its side is not found as surely as one that stands as its example does. Turned copies of an
example show it from all sides, and turned copies of the picture are asked one by one; their answers are turned back
and averaged. Not for sentences, which may name places.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sam_uniref.everything import segment_everything
from sam_uniref.images import ImageLike, load_image
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.reference import MaskReference, Reference
from sam_uniref.samref import SamRef
from sam_uniref.segmentation import Segmentation

QUARTERS = range(4)

# Beyond this logit an answer is as sure as any (a probability of 0.9997), so that none outvotes the others.
_SUREST = 8.0


class TurnedImage:
    """A picture's features in all four turns, and SAM's segments of it, made when they are first asked for.

    Args:
        model: That is to be asked.
        image: A path, PIL image, HWC numpy array or CHW tensor.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If it is no picture.
    """

    def __init__(self, model: SamRef, image: ImageLike) -> None:
        self.model = model
        self.picture = load_image(image)

    @cached_property
    def features(self) -> ImageFeatures:
        """Those of the picture as it stands."""
        return self.model.encode_image(self.picture)

    @cached_property
    def turned(self) -> tuple[ImageFeatures, ...]:
        """Those of the picture turned anticlockwise by 0, 1, 2 and 3 quarters."""
        others = (self.model.encode_image(np.rot90(self.picture, quarters).copy()) for quarters in QUARTERS[1:])
        return (self.features, *others)

    @cached_property
    def segments(self) -> list[Segmentation]:
        """What SAM sees in the picture by itself."""
        return segment_everything(self.model, self.own_features)

    @cached_property
    def own_features(self) -> ImageFeatures:
        """Those that SAM's own decoder knows: of the encoder without LoRA."""
        if not self.model.config.lora.image_targets:
            return self.features
        with self.model.without_lora():
            return self.model.encode_image(self.picture)


def segment_turned(image: TurnedImage, examples: Sequence[MaskReference]) -> Segmentation:
    """What the examples point at, by the mean of eight answers.

    Each of the picture's four turns is asked twice: by the examples, and by them and their three turned copies.

    Args:
        image: The picture, with the model that is asked.
        examples: At least one.

    Returns:
        Mean logits, each answer's held within -8 and 8, and the mean score.

    Raises:
        FileNotFoundError: If an example's path does not exist.
        ValueError: If there are no examples, or one is not as it must be.
    """
    return ask_turned(image, turned_references(image.model, examples))


def turned_references(model: SamRef, examples: Sequence[MaskReference]) -> tuple[Reference, ...]:
    """The examples, and they and their three turned copies, for any number of pictures: see `segment_turned`."""
    copies = [example.turned(quarters) for example in examples for quarters in QUARTERS]
    return tuple(model.encode_reference(examples=given) for given in (list(examples), copies))


def ask_turned(image: TurnedImage, references: Sequence[Reference]) -> Segmentation:
    """As `segment_turned`, by what `turned_references` made."""
    logits: list[NDArray[np.float32]] = []
    low_res: list[NDArray[np.float32]] = []
    scores: list[float] = []
    for quarters, features in zip(QUARTERS, image.turned, strict=True):
        for reference in references:
            answer = image.model.segment(features, reference=reference)
            logits.append(np.rot90(answer.logits, -quarters))
            height, width = image.model.low_res_size(features)
            low_res.append(np.rot90(answer.low_res_logits[0, :height, :width], -quarters))
            scores.append(answer.score)
    mean = _mean(logits)
    canvas = np.full((1, *answer.low_res_logits.shape[1:]), -_SUREST, np.float32)
    canvas[0, : low_res[0].shape[0], : low_res[0].shape[1]] = _mean(low_res)
    return Segmentation(mean > 0, float(np.mean(scores)), mean, canvas)


def _mean(logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Of answers, none surer than `_SUREST`."""
    return np.mean([np.clip(answer, -_SUREST, _SUREST) for answer in logits], axis=0, dtype=np.float32)
