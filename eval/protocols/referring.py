"""RIS: every sentence about a picture is a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sam_uniref.data.batch import Task
from sam_uniref.data.prepared import decode_mask
from sam_uniref.eval.cases import SpokenImage
from sam_uniref.eval.measures import Metric, Units
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols.base import MaskFile, Row, TaskProtocol, at_least_one
from sam_uniref.eval.regions import Overlap, mean_iou, overall_iou, overlap, precision_above, precision_at_least

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class SentenceScore:
    """One sentence's answer.

    Attributes:
        case: Name of the picture's case.
        name: Of the sentence.
        text: What was asked.
        overlap: Of the answer with the truth.
    """

    case: str
    name: str
    text: str
    overlap: Overlap


class Referring(TaskProtocol[SpokenImage, SentenceScore]):
    """The picture is encoded once for all its sentences; sentences, not pictures, have equal weight."""

    task: ClassVar[Task] = "ris"

    @property
    def conventions(self) -> list[str]:
        """What the metrics mean, in sentences."""
        return [
            "A sample is a sentence, and masks are compared at the picture's own size. oIoU is the sum of "
            "intersections over the sum of unions, mIoU the mean of the samples' IoU.",
            "Prec@t counts IoU >= t (LAVT and its descendants), Prec>t counts IoU > t (UniRef). A sample whose two "
            "masks are both empty has IoU 0.",
        ]

    def ask(self, method: Method, case: SpokenImage) -> Prediction:
        """Each sentence by itself."""
        image = method.encode_image(case.load())
        masks = {s.name: [method.segment(image, text=s.text).mask] for s in case.sentences}
        return Prediction.of(case.size, masks)

    def answers(self, case: SpokenImage) -> dict[str, int]:
        """A mask a sentence."""
        return {sentence.name: 1 for sentence in case.sentences}

    def files(self, case: SpokenImage) -> list[MaskFile]:
        """``<sentence's name>.png``, a binary mask."""
        return [
            MaskFile(f"{s.name}.png", 0, {1: s.name}, binary=True, needed=s.mask is not None) for s in case.sentences
        ]

    def counts(self, case: SpokenImage) -> bool:
        """Whether a sentence's mask is known."""
        return any(sentence.mask is not None for sentence in case.sentences)

    def judge(self, case: SpokenImage, prediction: Prediction) -> list[SentenceScore]:
        """A score a sentence whose mask is known."""
        prediction.check(case.name, case.size, self.answers(case))
        return [
            SentenceScore(case.name, s.name, s.text, overlap(prediction.mask(s.name), decode_mask(s.mask)))
            for s in case.sentences
            if s.mask is not None
        ]

    def measure(self, scores: Sequence[SentenceScore]) -> dict[str, Metric]:
        """oIoU, mIoU and Prec in both conventions; pictures are the units."""
        at_least_one(scores, self.task)
        overlaps = [score.overlap for score in scores]
        ones, ious = [1.0] * len(overlaps), [o.iou() for o in overlaps]
        pictures = Units([score.case for score in scores], "image")
        metrics = {
            "oIoU": pictures.metric(
                overall_iou(overlaps), ([o.intersection for o in overlaps], [o.union for o in overlaps])
            ),
            "mIoU": pictures.metric(mean_iou(overlaps), (ious, ones)),
        }
        for t in PRECISION_THRESHOLDS:
            metrics[f"Prec@{t}"] = pictures.metric(precision_at_least(overlaps, t), ([iou >= t for iou in ious], ones))
        for t in PRECISION_THRESHOLDS:
            metrics[f"Prec>{t}"] = pictures.metric(precision_above(overlaps, t), ([iou > t for iou in ious], ones))
        return metrics

    def tables(self, scores: Sequence[SentenceScore]) -> dict[str, list[Row]]:
        """``ris``: a row a sentence."""
        return {
            "ris": [
                {
                    "case": score.case,
                    "sample": score.name,
                    "sentence": score.text,
                    "intersection": score.overlap.intersection,
                    "union": score.overlap.union,
                    "iou": score.overlap.iou(),
                }
                for score in scores
            ]
        }

    def distributions(self, scores: Sequence[SentenceScore]) -> dict[str, list[float]]:
        """IoU of the sentences."""
        return {"IoU": [score.overlap.iou() for score in scores]}
