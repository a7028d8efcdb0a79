"""Pictures and clips to try the page with, drawn on the fly: nothing is packaged, nothing downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from sam_uniref.data.refshapes import VOCABULARY, RefShapesDataset
from sam_uniref.images import RGB, Mask
from sam_uniref.segmentation import innermost_point
from sam_uniref.video_writing import write_video

SIDE = 512
CLIP_SIDE = 384
_FRAMES = 12
_FRAMES_PER_SECOND = 5
# Of the validation split, as anybody may draw it; the first ones.
_SENTENCES, _EPISODES, _COMPARED = 3, 2, 6


@dataclass(frozen=True)
class PictureSample:
    """A picture and a way to ask about it.

    Attributes:
        picture: HWC uint8 RGB.
        caption: What visitors read.
        sentence: That names an object in it, or None.
        point: ``(x, y)`` on one as shares in 0-1, or None.
        example: Another picture and the object's mask in it, or None.
    """

    picture: RGB
    caption: str
    sentence: str | None = None
    point: tuple[float, float] | None = None
    example: tuple[RGB, Mask] | None = None


@dataclass(frozen=True)
class ClipSample:
    """A clip and what to follow in it.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8 RGB.
        caption: What visitors read.
        mask: ``(H, W)`` bool of an object in the first frame, or None.
        sentence: That names one, or None.
    """

    frames: np.ndarray
    caption: str
    mask: Mask | None = None
    sentence: str | None = None

    def write(self, path: Path) -> Path:
        """As a video that may be uploaded."""
        write_video(path, list(self.frames), frames_per_second=_FRAMES_PER_SECOND)
        return path


def vocabulary() -> frozenset[str]:
    """The words that the packaged model knows."""
    return frozenset(VOCABULARY)


@lru_cache(maxsize=1)
def picture_samples() -> tuple[PictureSample, ...]:
    """Sentences, then an example, then a click."""
    scenes = RefShapesDataset("samples", "ris", side=SIDE)
    samples = []
    for index in range(_SENTENCES):
        scene = scenes.episode(index)
        samples.append(PictureSample(scene.image, f"“{scene.sentence}”", sentence=scene.sentence))
    samples += [
        PictureSample(picture, "by an example", example=example) for picture, example in example_samples()[:_EPISODES]
    ]
    clicked = scenes.episode(_SENTENCES)
    x, y = innermost_point(clicked.mask)
    point = (x / SIDE, y / SIDE)
    return (*samples, PictureSample(clicked.image, "by a click", point=point))


@lru_cache(maxsize=1)
def example_samples() -> tuple[tuple[RGB, tuple[RGB, Mask]], ...]:
    """Pictures, each with an example of an object of the same shape."""
    episodes = RefShapesDataset("samples", "fss", side=SIDE)
    drawn = [episodes.episode(index) for index in range(_COMPARED)]
    return tuple((d.image, (d.references[0].image, d.references[0].mask)) for d in drawn)


@lru_cache(maxsize=1)
def clip_samples() -> tuple[ClipSample, ...]:
    """One followed by its mask, one by a sentence."""
    masked = RefShapesDataset("samples", "vos", side=CLIP_SIDE, frames=_FRAMES).clip(0)
    named = RefShapesDataset("samples", "rvos", side=CLIP_SIDE, frames=_FRAMES).clip(0)
    sentences = next(s for i, s in named.sentences.items() if s and named.first_frames[i] == 0)
    return (
        ClipSample(masked.frames, "by its mask in the first frame", mask=masked.ids[0] == 1),
        ClipSample(named.frames, f"“{sentences[0]}”", sentence=sentences[0]),
    )
