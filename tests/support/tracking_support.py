"""A model whose answers a test decides, and small clips: what the tests of tracking share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from untrained import UntrainedModel

from sam_uniref.adapters import FrameReferences, ReferenceFeatures
from sam_uniref.interfaces import ImageFeatures, MaskPrediction, Prompts
from sam_uniref.transforms import Size, SquareTransform

SIDE = 16
# What the scripted model was told about a row: a sentence, or None, and the frames of its annotated images in order.
Row = tuple[str | None, list[int]]
# The answer for (frame, row's identity): logits (SIDE, SIDE) or one for all pixels, and the score.
Script = Callable[[int, str], tuple[Tensor | float, float]]


def region(identity: int) -> NDArray[np.bool_]:
    """``(SIDE, SIDE)`` bool: ``identity`` pixels of row number ``identity``; no two overlap or are of one size."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[identity, :identity] = True
    return mask


def blank(frame: int = 0) -> NDArray[np.uint8]:
    """A frame ``(SIDE, SIDE, 3)`` whose brightness is its number."""
    return np.full((SIDE, SIDE, 3), frame, np.uint8)


class ScriptedModel(UntrainedModel):
    """Answers as its script says, and writes down what it was asked.

    An object is known by its sentence, or else by the number of pixels of its first annotated image. ``SIDE`` pixels
    in, one cell a pixel, so that masks and logits go through unchanged.
    """

    transform = SquareTransform(SIDE, (0.0,) * 3, (1.0,) * 3)

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.script = script
        self.sentences: list[str] = []
        self.encoded_images = 0
        # How many masks in each call.
        self.encoded_masks: list[int] = []
        self.brightness: list[float] = []
        self.asked: list[dict[str, Row]] = []
        self.fail_in_encode_mask = False

    def encode_pixels(
        self, pixels: Tensor, input_sizes: Sequence[Size], original_sizes: Sequence[Size]
    ) -> ImageFeatures:
        self.encoded_images += len(pixels)
        self.brightness += [float(p[:, :h, :w].mean()) for p, (h, w) in zip(pixels, input_sizes, strict=True)]
        levels = (pixels[:, :1].clone(),)
        padding = (torch.zeros(len(pixels), SIDE, SIDE, dtype=torch.bool),)
        return ImageFeatures(levels, padding, pixels, tuple(input_sizes), tuple(original_sizes))

    def encode_text(self, sentences: Sequence[str]) -> ReferenceFeatures:
        self.sentences += sentences
        # Below zero, where no frame's number is.
        numbers = torch.tensor([-1 - self.sentences.index(s) for s in sentences]).float()
        return self._references(numbers, numbers)

    def encode_mask(self, features: ImageFeatures, masks: Tensor, source_index: Tensor) -> ReferenceFeatures:
        if self.fail_in_encode_mask:
            raise RuntimeError("out of memory")
        self.encoded_masks.append(len(masks))
        frames = features.pixels[source_index].amax(dim=(1, 2, 3))
        return self._references(frames, masks.sum(dim=(1, 2)))

    @staticmethod
    def _references(keys: Tensor, values: Tensor) -> ReferenceFeatures:
        """One token a row: which frame or sentence, and the mask's number of pixels."""
        rows = len(keys)
        return ReferenceFeatures(
            keys=(keys.view(rows, 1, 1).clone(),),
            values=(values.view(rows, 1, 1).clone(),),
            padding=(torch.zeros(rows, 1, dtype=torch.bool),),
            pooled=(values.view(rows, 1).clone(),),
            present=torch.ones(rows, dtype=torch.bool),
            image_index=torch.arange(rows),
        )

    def _read(self, references: Sequence[ReferenceFeatures | FrameReferences], row: int) -> tuple[str, Row]:
        """A row's identity, and what it was told."""
        sentence: str | None = None
        frames: list[int] = []
        pixels = 0
        for kind in references:
            if isinstance(kind, FrameReferences):
                frames = [int(key) for r in kind.rows[row] for key in r.frame.keys[0][0, :, 0]]
                pixels = next((int(r.values[0][0, 0]) for r in kind.rows[row]), 0)
                continue
            tokens = kind.keys[0][row, ~kind.padding[0][row], 0].int().tolist() if kind.present[row] else []
            if tokens and tokens[0] < 0:
                assert not frames, "the sentence comes first: it gives the prompt token"
                sentence = self.sentences[-1 - tokens[0]]
        return sentence or str(pixels), (sentence, frames)

    def predict(
        self,
        features: ImageFeatures,
        references: Sequence[ReferenceFeatures | FrameReferences],
        prompts: Prompts | None = None,
        *,
        multimask: bool = False,
        decoder: str = "auto",
    ) -> MaskPrediction:
        frame = int(features.pixels.max())
        rows = [self._read(references, row) for row in range(len(references[0]))]
        self.asked.append(dict(rows))
        assert len(self.asked[-1]) == len(rows), "two rows are about one object"
        answers = [self.script(frame, identity) for identity, _ in rows]
        logits = torch.stack([torch.as_tensor(logit).expand(SIDE, SIDE) for logit, _ in answers])[:, None].float()
        scores = torch.tensor([[score] for _, score in answers])
        return MaskPrediction(logits, scores, references[0].image_index)


def in_its_region(frame: int, identity: str) -> tuple[Tensor, float]:
    """Script: every object is where `region` says, and certain."""
    return torch.where(torch.from_numpy(region(int(identity))), 8.0, -8.0), 0.9


def tensors_in(value: object) -> Iterator[Tensor | NDArray]:
    """All tensors and arrays that something holds, models left out."""
    if isinstance(value, Tensor | np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from (t for v in value.values() for t in tensors_in(v))
    elif isinstance(value, list | tuple | set):
        yield from (t for v in value for t in tensors_in(v))
    elif is_dataclass(value):
        yield from (t for f in fields(value) for t in tensors_in(getattr(value, f.name)))
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        yield from tensors_in(vars(value))


def bytes_held(value: object) -> int:
    """Bytes of the distinct memory blocks behind those tensors: a view counts with the whole it keeps alive."""
    blocks: dict[int, int] = {}
    for tensor in tensors_in(value):
        if isinstance(tensor, Tensor):
            storage = tensor.untyped_storage()
            blocks[storage.data_ptr()] = storage.nbytes()
        else:
            blocks[id(tensor)] = tensor.nbytes
    return sum(blocks.values())


def shared_folder() -> Path:
    """The shared reference folder, or a skip that says where it was looked for."""
    default = Path(__file__).parents[3] / "shared"
    folder = Path(os.environ.get("SAM_UNIREF_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"the shared folder is not at {folder}; set SAM_UNIREF_SHARED")
    return folder
