"""A model that answers as a test decides, knowing the pictures themselves: what the tests of evaluation share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from untrained import UntrainedModel

from sam_uniref.adapters import FrameReferences, ReferenceFeatures
from sam_uniref.data.refshapes import RefShapesDataset, Style
from sam_uniref.eval.protocols.few_shot import SHOTS
from sam_uniref.interfaces import ImageFeatures, MaskPrediction, Prompts
from sam_uniref.transforms import Size, SquareTransform

SIDE = 128
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass
class Asked:
    """One row: the picture, and what points at its object."""

    image: Picture
    sentence: str | None
    examples: list[tuple[Picture, Mask]]


Script = Callable[[Asked], Mask]


class KnowingModel(UntrainedModel):
    """Answers as its script says. RefShapes' side in, one cell a pixel, so that masks go through unchanged."""

    transform = SquareTransform(SIDE, (0.0,) * 3, (1.0,) * 3)

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.script = script
        self.encoded_images = 0
        self.asked: list[Asked] = []
        # What a reference is about; its number here is the value of its only token.
        self._known: list[str | tuple[Picture, Mask]] = []

    def encode_pixels(
        self, pixels: Tensor, input_sizes: Sequence[Size], original_sizes: Sequence[Size]
    ) -> ImageFeatures:
        self.encoded_images += len(pixels)
        padding = (torch.zeros(len(pixels), SIDE, SIDE, dtype=torch.bool),)
        return ImageFeatures((pixels[:, :1],), padding, pixels, tuple(input_sizes), tuple(original_sizes))

    def encode_text(self, sentences: Sequence[str]) -> ReferenceFeatures:
        return self._references(sentences)

    def encode_mask(self, features: ImageFeatures, masks: Tensor, source_index: Tensor) -> ReferenceFeatures:
        images = [_picture(features.pixels[k]) for k in source_index.tolist()]
        return self._references([(i, m.numpy() > 0.5) for i, m in zip(images, masks, strict=True)])

    def _references(self, about: Sequence[str | tuple[Picture, Mask]]) -> ReferenceFeatures:
        rows, start = len(about), len(self._known)
        self._known += about
        numbers = torch.arange(start, start + rows).float()
        return ReferenceFeatures(
            keys=(numbers.view(rows, 1, 1),),
            values=(numbers.view(rows, 1, 1).clone(),),
            padding=(torch.zeros(rows, 1, dtype=torch.bool),),
            pooled=(numbers.view(rows, 1).clone(),),
            present=torch.ones(rows, dtype=torch.bool),
            image_index=torch.arange(rows),
        )

    def predict(
        self,
        features: ImageFeatures,
        references: Sequence[ReferenceFeatures | FrameReferences],
        prompts: Prompts | None = None,
        *,
        multimask: bool = False,
        decoder: str = "auto",
    ) -> MaskPrediction:
        index = references[0].image_index
        rows = [self._row(_picture(features.pixels[k]), references, row) for row, k in enumerate(index.tolist())]
        self.asked += rows
        masks = torch.stack([torch.from_numpy(self.script(row)) for row in rows])
        return MaskPrediction(torch.where(masks, 8.0, -8.0)[:, None], torch.full((len(rows), 1), 0.9), index)

    def _row(self, image: Picture, references: Sequence[ReferenceFeatures | FrameReferences], row: int) -> Asked:
        asked = Asked(image, None, [])
        for kind in references:
            if not kind.present[row]:
                continue
            for number in _numbers(kind, row):
                known = self._known[number]
                if isinstance(known, str):
                    asked.sentence = known
                else:
                    asked.examples.append(known)
        return asked


def _numbers(kind: ReferenceFeatures | FrameReferences, row: int) -> list[int]:
    """The values of a row's tokens."""
    if isinstance(kind, FrameReferences):
        return [int(number) for reference in kind.rows[row] for number in reference.values[0][:, 0]]
    return kind.values[0][row, ~kind.padding[0][row], 0].int().tolist()


def _picture(pixels: Tensor) -> Picture:
    """``(3, S, S)`` normalised with mean 0 and deviation 1 back to HWC uint8."""
    return pixels.round().to(torch.uint8).permute(1, 2, 0).numpy()


def nothing(asked: Asked) -> Mask:
    """Script: an empty mask."""
    return np.zeros((SIDE, SIDE), bool)


class Truth:
    """Script: the right answer to everything in the first validation episodes of RefShapes.

    Args:
        episodes: How many of each task.
        style: Theirs.
    """

    def __init__(self, episodes: int, style: Style = "textured") -> None:
        self.ids: dict[bytes, NDArray[np.uint8]] = {}
        self.sentences: dict[bytes, dict[str, int]] = {}
        data = {
            task: RefShapesDataset("refshapes", task, shots=max(SHOTS), style=style, episodes=episodes)
            for task in ("ris", "fss", "vos")
        }
        for index in range(episodes):
            scene = data["ris"].scene_sentences(index)
            self._add(scene.image, scene.ids, {sentence: k for k, sentence in scene.sentences})
            sample = data["fss"].episode(index)
            self._add(sample.image, sample.mask.astype(np.uint8), {})
            for support in sample.references:
                self._add(support.image, support.mask.astype(np.uint8), {})
            clip = data["vos"].clip(index)
            said = {sentence: k for k, sentences in clip.sentences.items() for sentence in sentences}
            for frame, ids in zip(clip.frames, clip.ids, strict=True):
                self._add(frame, ids, said)

    def _add(self, image: Picture, ids: NDArray[np.uint8], sentences: dict[str, int]) -> None:
        self.ids[image.tobytes()] = ids
        self.sentences[image.tobytes()] = sentences

    def __call__(self, asked: Asked) -> Mask:
        ids = self.ids[asked.image.tobytes()]
        if asked.sentence is not None:
            return ids == self.sentences[asked.image.tobytes()][asked.sentence]
        image, mask = asked.examples[0]
        owner = np.bincount(self.ids[image.tobytes()][mask]).argmax()
        return ids == owner
