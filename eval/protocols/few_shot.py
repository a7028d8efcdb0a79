"""FSS: a query, and annotated pictures of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sam_uniref.data.batch import Task
from sam_uniref.data.prepared import decode_mask
from sam_uniref.eval.cases import Query, Source
from sam_uniref.eval.measures import Metric, Units
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols.base import MaskFile, Row, TaskProtocol, at_least_one
from sam_uniref.eval.regions import (
    Overlap,
    at_hsnet_size,
    foreground_background_iou,
    iou_by_class,
    mean_iou,
    mean_iou_by_class,
    overlap,
)
from sam_uniref.images import Mask

SHOTS = (1, 5)


@dataclass(frozen=True)
class FewShotScore:
    """One query's answers.

    Attributes:
        case: Name of the query.
        category: Its class.
        by_shots: Overlap of the answer with the truth, by the number of annotated pictures.
    """

    case: str
    category: str
    by_shots: dict[int, Overlap]


class FewShot(TaskProtocol[Query, FewShotScore]):
    """All numbers of shots ask about the same queries; fewer shots are the first of more.

    Args:
        source: Of the queries, with at least as many annotated pictures as the most shots.
        shots: Numbers of annotated pictures, each an answer of its own.
        hsnet_size: Compare masks at HSNet's 400x400 pixels in place of the picture's own size.

    Raises:
        ValueError: If a number of shots is below 1.
    """

    task: ClassVar[Task] = "fss"

    def __init__(self, source: Source[Query], shots: Sequence[int] = SHOTS, *, hsnet_size: bool = False) -> None:
        if not shots or min(shots) < 1:
            raise ValueError(f"shots must be numbers from 1 on, got {list(shots)}")
        super().__init__(source)
        self.shots, self._hsnet_size = tuple(sorted(set(shots))), hsnet_size
        self.options = {"shots": list(self.shots)}

    @property
    def conventions(self) -> list[str]:
        """What the metrics mean, in sentences."""
        size = "400x400 pixels, both resized by nearest (HSNet)" if self._hsnet_size else "the query's own size"
        return [
            f"Masks are compared at {size}. mIoU is the mean of the queries' IoU (by image, as UniRef). mIoU_by_class "
            "is the mean over classes of the sum of intersections over the sum of unions (accumulated, as HSNet): "
            "another quantity, published under the same name.",
            "FB-IoU is the mean of foreground's and background's accumulated IoU. A query whose two masks are both "
            "empty has IoU 0.",
        ]

    def ask(self, method: Method, case: Query) -> Prediction:
        """The query is encoded once."""
        image, examples = method.encode_image(case.load()), case.supports()
        masks = {str(shots): [method.segment(image, examples=examples[:shots]).mask] for shots in self.shots}
        return Prediction.of(case.size, masks)

    def answers(self, case: Query) -> dict[str, int]:
        """A mask a number of shots."""
        return {str(shots): 1 for shots in self.shots}

    def files(self, case: Query) -> list[MaskFile]:
        """``<case>.png``, a binary mask, of one number of shots."""
        if len(self.shots) > 1:
            raise ValueError(f"a folder of masks is of one number of shots, got {list(self.shots)}; say which, --shots")
        return [MaskFile(f"{case.name}.png", 0, {1: str(self.shots[0])}, binary=True)]

    def counts(self, case: Query) -> bool:
        """Every query does."""
        return True

    def judge(self, case: Query, prediction: Prediction) -> list[FewShotScore]:
        """One score."""
        prediction.check(case.name, case.size, self.answers(case))
        truth = self._compared(decode_mask(case.mask))
        overlaps = {shots: overlap(self._compared(prediction.mask(str(shots))), truth) for shots in self.shots}
        return [FewShotScore(case.name, case.category, overlaps)]

    def _compared(self, mask: Mask) -> Mask:
        """A mask at the size at which masks are compared."""
        return at_hsnet_size(mask) if self._hsnet_size else mask

    def measure(self, scores: Sequence[FewShotScore]) -> dict[str, Metric]:
        """By image, by class and FB-IoU of each number of shots; queries are the units, or classes."""
        at_least_one(scores, self.task)
        categories = [score.category for score in scores]
        images = Units([score.case for score in scores], "image")
        ones = [1.0] * len(scores)
        metrics = {}
        for shots in self.shots:
            overlaps = [score.by_shots[shots] for score in scores]
            by_class = iou_by_class(overlaps, categories)
            metrics[f"mIoU_{shots}shot"] = images.metric(mean_iou(overlaps), ([o.iou() for o in overlaps], ones))
            metrics[f"mIoU_by_class_{shots}shot"] = Units(list(by_class), "class").metric(
                mean_iou_by_class(overlaps, categories), (list(by_class.values()), [1.0] * len(by_class))
            )
            metrics[f"FB-IoU_{shots}shot"] = images.metric(
                foreground_background_iou(overlaps),
                ([o.intersection for o in overlaps], [o.union for o in overlaps]),
                ([o.pixels - o.union for o in overlaps], [o.pixels - o.intersection for o in overlaps]),
            )
        return metrics

    def tables(self, scores: Sequence[FewShotScore]) -> dict[str, list[Row]]:
        """``fss``: a row a query and number of shots."""
        return {
            "fss": [
                {
                    "case": score.case,
                    "class": score.category,
                    "shots": shots,
                    "intersection": o.intersection,
                    "union": o.union,
                    "iou": o.iou(),
                }
                for score in scores
                for shots, o in score.by_shots.items()
            ]
        }

    def distributions(self, scores: Sequence[FewShotScore]) -> dict[str, list[float]]:
        """IoU of the queries, by the number of shots."""
        return {f"IoU, shots: {shots}": [score.by_shots[shots].iou() for score in scores] for shots in self.shots}
