"""RVOS: a sentence names an object of a video."""

from __future__ import annotations

from typing import ClassVar

from sam_uniref.data.batch import Task
from sam_uniref.eval.cases import Clip, Source
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols.base import MaskFile
from sam_uniref.eval.protocols.tracks import Track, Tracks, encoded
from sam_uniref.eval.protocols.video_objects import id_maps


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


class MergedSentences(Tracks):
    """Objects compete for pixels, as Ref-DAVIS17 has it: a run asks for the k-th sentence of every object together.

    There are as many runs as an object has sentences at most; metrics are averaged over them. Objects are scored by
    their ids in all annotated frames.

    Args:
        source: Of the videos.
    """

    task: ClassVar[Task] = "rvos"
    counted = "objects and then over runs"

    def __init__(self, source: Source[Clip]) -> None:
        super().__init__(source)
        self.options = {"merge": True}

    @property
    def conventions(self) -> list[str]:
        """What the metrics mean, in sentences."""
        told = (
            "The k-th sentences of all objects of a video are asked together, and objects compete for pixels: run k. "
            "Objects are scored by their ids in all annotated frames. (Published Ref-DAVIS17 numbers assign "
            "predictions to objects anew in each video, by the unsupervised protocol.)"
        )
        return [told, *super().conventions]

    def tracks(self, case: Clip) -> list[Track]:
        """An object a run."""
        return [
            Track(f"{run}/{item.id}", item, case.annotated, run, text)
            for item in case.objects
            for run, text in enumerate(item.sentences.values())
        ]

    def ask(self, method: Method, case: Clip) -> Prediction:
        """The runs take turns, a frame of each."""
        frames = case.frames()
        runs = [
            {item.id: list(item.sentences.values())[run] for item in case.objects if run < len(item.sentences)}
            for run in range(max(len(item.sentences) for item in case.objects))
        ]
        in_step = zip(*(method.track(frames, texts=texts) for texts in runs), strict=True)
        masks = ({f"{run}/{i}": m for run, r in enumerate(results) for i, m in r.masks.items()} for results in in_step)
        return encoded(case, self.answers(case), masks)

    def files(self, case: Clip) -> list[MaskFile]:
        """``anno_<run>/<video>/<frame's stem>.png``, a map of ids, as ReferFormer and UniRef name the four runs."""
        runs: dict[int, list[Track]] = {}
        for track in self.tracks(case):
            runs.setdefault(track.run, []).append(track)
        return [file for run, tracks in runs.items() for file in id_maps(case, f"anno_{run}/{case.name}", tracks)]
