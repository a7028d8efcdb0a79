"""RVOS: a sentence names an object of a video."""

from __future__ import annotations

from typing import ClassVar

from sam_uniref.data.batch import Task
from sam_uniref.eval.cases import Clip, Source
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols.base import MaskFile
from sam_uniref.eval.protocols.tracks import Track, Tracks, encoded


class VideoSentences(Tracks):
    """Every sentence by itself, as Ref-YouTube-VOS has it: nothing else competes for pixels.

    All annotated frames are scored. Sentences, not objects, have equal weight.

    Args:
        source: Of the videos.
    """

    task: ClassVar[Task] = "rvos"
    counted = "sentences"

    def __init__(self, source: Source[Clip]) -> None:
        super().__init__(source)
        self.options = {"merge": False}

    @property
    def conventions(self) -> list[str]:
        """What the metrics mean, in sentences."""
        return ["Each sentence is asked by itself, and all annotated frames are scored.", *super().conventions]

    def tracks(self, case: Clip) -> list[Track]:
        """A sentence each, by what results call it."""
        return [
            Track(name, item, case.annotated, sentence=text)
            for item in case.objects
            for name, text in item.sentences.items()
        ]

    def ask(self, method: Method, case: Clip) -> Prediction:
        """The sentences take turns, a frame of each, so that a frame is loaded once for all of them."""
        frames = case.frames()
        sentences = {name: text for item in case.objects for name, text in item.sentences.items()}
        tracks = [method.track(frames, texts={1: text}) for text in sentences.values()]
        in_step = (zip(sentences, results, strict=True) for results in zip(*tracks, strict=True))
        masks = ({name: r.masks[1] for name, r in results if 1 in r.masks} for results in in_step)
        return encoded(case, sentences, masks)

    def files(self, case: Clip) -> list[MaskFile]:
        """``<video>/<sentence's name>/<frame's stem>.png``, a binary mask."""
        scored = set(case.annotated)
        return [
            MaskFile(f"{case.name}/{track.answer}/{stem}.png", frame, {1: track.answer}, True, frame in scored)
            for track in self.tracks(case)
            for frame, stem in enumerate(case.stems)
        ]
