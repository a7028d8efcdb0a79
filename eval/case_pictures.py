"""Single cases as pictures on a page: what was asked, the truth and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam_uniref import page
from sam_uniref.data.prepared import decode_mask
from sam_uniref.eval.cases import Clip, ClipObject, Query, SpokenImage
from sam_uniref.eval.figures import write_figure
from sam_uniref.eval.painting import ANSWER, TRUTH, fitted, side_by_side, singled_out, strip_frames, tinted
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols import (
    FewShot,
    FewShotScore,
    Referring,
    SentenceScore,
    TaskProtocol,
    Tracks,
    TrackScore,
)
from sam_uniref.eval.running import Predictions
from sam_uniref.images import RGB, Mask

_PICTURE_SIDE, _STRIP_SIDE = 384, 240


@dataclass(frozen=True)
class CasePictures:
    """Writes the pictures of single scores.

    Attributes:
        folder: Which the page is in; it has a folder of pictures.
        protocol: That was scored.
        predictions: That were scored.
    """

    folder: Path
    protocol: TaskProtocol[Any, Any]
    predictions: Predictions[Any]

    def article(self, name: str, score: Any) -> str:
        """One score's pictures.

        Args:
            name: What their files begin with.
            score: One that the protocol gave.

        Raises:
            TypeError: If nobody knows how to show what the protocol asks.
        """
        case = self.protocol.source[list(self.protocol.source.names).index(score.case)]
        prediction = self.predictions.read(case)
        if isinstance(self.protocol, Referring):
            return self._sentence(name, case, prediction, score)
        if isinstance(self.protocol, FewShot):
            return self._query(name, case, prediction, score)
        if isinstance(self.protocol, Tracks):
            item = next(track.item for track in self.protocol.tracks(case) if track.answer == score.answer)
            return self._track(name, case, item, prediction, score)
        raise TypeError(f"there are no pictures of {type(self.protocol).__name__}")

    def _sentence(self, name: str, case: SpokenImage, prediction: Prediction, score: SentenceScore) -> str:
        truth = next(s.mask for s in case.sentences if s.name == score.name)
        masks = {f"answer: IoU {score.overlap.iou():.3f}": prediction.mask(score.name)}
        figures = self._answered(name, case.load(), None if truth is None else decode_mask(truth), masks)
        return page.case(f"“{score.text}” ({score.name})", [page.row(figures)])

    def _query(self, name: str, case: Query, prediction: Prediction, score: FewShotScore) -> str:
        supports = [
            self._figure(
                f"{name}-example-{number}",
                singled_out(np.asarray(support.image), np.asarray(support.mask), TRUTH),
                f"A picture with the {case.category} marked",
                f"example {number}",
            )
            for number, support in enumerate(case.supports()[: max(score.by_shots)], start=1)
        ]
        masks = {
            f"shots: {shots}, IoU {overlap.iou():.3f}": prediction.mask(str(shots))
            for shots, overlap in score.by_shots.items()
        }
        figures = self._answered(name, case.load(), decode_mask(case.mask), masks)
        return page.case(f"{case.category} ({case.name})", [page.row(supports, small=True), page.row(figures)])

    def _answered(self, name: str, picture: RGB, truth: Mask | None, masks: Mapping[str, Mask]) -> list[str]:
        """Figures of a picture, its true mask and the answers, by caption."""
        painted = {"picture": picture}
        if truth is not None:
            painted["truth"] = tinted(picture, truth, TRUTH)
        painted |= {caption: tinted(picture, mask, ANSWER) for caption, mask in masks.items()}
        return [
            self._figure(f"{name}-{number}", shown, caption, caption)
            for number, (caption, shown) in enumerate(painted.items())
        ]

    def _figure(self, name: str, picture: RGB, alternative: str, caption: str) -> str:
        return write_figure(self.folder, name, fitted(picture, _PICTURE_SIDE), alternative, caption)

    def _track(self, name: str, case: Clip, item: ClipObject, prediction: Prediction, score: TrackScore) -> str:
        title = f"{case.name}, object {item.id}" + (f": “{score.sentence}”" if score.sentence else "")
        shown = [score.frames[place] for place in strip_frames(len(score.frames))]
        frames = {frame: case.load(frame) for frame in shown}
        truth = {frame: decode_mask(item.masks[frame]) for frame in shown if frame in item.masks}
        nothing = np.zeros(case.size, bool)
        rows = {
            "clip": [frames[frame] for frame in shown],
            "truth": [tinted(frames[frame], truth.get(frame, nothing), TRUTH) for frame in shown],
            f"answer: J&F {score.j_and_f:.3f}": [
                tinted(frames[frame], prediction.mask(score.answer, frame), ANSWER) for frame in shown
            ],
        }
        strips = [
            write_figure(
                self.folder,
                f"{name}-{number}",
                side_by_side([fitted(picture, _STRIP_SIDE) for picture in pictures]),
                f"{title}: {caption}",
                caption,
                wide=True,
            )
            for number, (caption, pictures) in enumerate(rows.items())
        ]
        return page.case(f"{title}; frames {', '.join(case.stems[frame] for frame in shown)}", strips)
