"""The four tasks on RefShapes validation: what a model is asked, and how its answers are scored.

A protocol scores one episode at a time and summarises all of them, so that processes can share the episodes. It
knows a model by `Predictor`'s interface alone, and the masks are compared at the pictures' own size.

| task | episode | asked | scored |
|---|---|---|---|
| ris | a scene | every sentence about it | each sentence |
| fss | a scene with a shape held out from training | with 1 and with 5 annotated scenes of it | the shape's mask |
| vos | a clip | its objects, each with its mask in the frame where it appears | later frames, to the last |
| rvos | a clip | every sentence about it, each by itself: nothing else competes for pixels | every frame |

A frame in which an object is not to be seen scores 1 if nothing is predicted and 0 otherwise, as in DAVIS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from sam_uniref.data.batch import Sample, Task
from sam_uniref.data.refshapes import UNSEEN_SHAPES, NamedClip, RefShapesDataset, Style
from sam_uniref.eval.boundaries import boundary_accuracy, region_similarity
from sam_uniref.eval.davis import ObjectScores, summarise
from sam_uniref.eval.regions import (
    Overlap,
    foreground_background_iou,
    mean_iou,
    mean_iou_by_class,
    overall_iou,
    overlap,
    precision_at_least,
)
from sam_uniref.images import Mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.predictor import Predictor
from sam_uniref.reference import MaskReference
from sam_uniref.tracking import FrameResult

Score = TypeVar("Score")

SHOTS = (1, 5)
PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class TrackingOptions:
    """How objects are followed in the video tasks: `Predictor.track`'s arguments of these names.

    Attributes:
        frame_references: Which masks of the clip itself an object is found by: both, first, previous or none.
        score_threshold: Below it an object counts as not visible; None: the paper's.
    """

    frame_references: str = "both"
    score_threshold: float | None = None


class RefShapesProtocol(ABC, Generic[Score]):
    """A task on the first validation episodes of RefShapes.

    Args:
        episodes: How many scenes or clips.
        style: ``textured`` as in training, or ``plain``, which no training has seen.
        tracking: Of the video tasks, as published by default; the others follow nothing.
    """

    task: Task

    def __init__(self, episodes: int, style: Style = "textured", tracking: TrackingOptions | None = None) -> None:
        self.tracking = tracking or TrackingOptions()
        self.data = RefShapesDataset("refshapes", self.task, shots=max(SHOTS), style=style, episodes=episodes)

    @abstractmethod
    def score(self, model: Predictor, index: int) -> list[Score]:
        """Ask a model about one episode. The same for the same model and index, whatever was asked before."""

    @abstractmethod
    def summarise(self, scores: Sequence[Score]) -> dict[str, float]:
        """Metrics by name, in 0-1, of all episodes' scores in order."""


class Referring(RefShapesProtocol[Overlap]):
    """RIS. A score is a sentence's; sentences, not scenes, have equal weight."""

    task: Task = "ris"

    def score(self, model: Predictor, index: int) -> list[Overlap]:
        """The scene is encoded once, and its sentences are asked in one call."""
        scene = self.data.scene_sentences(index)
        features = model.encode_image(scene.image)
        masks = masks_by_sentence(model, features, [sentence for _, sentence in scene.sentences])
        return [overlap(mask, scene.ids == k) for mask, (k, _) in zip(masks, scene.sentences, strict=True)]

    def summarise(self, scores: Sequence[Overlap]) -> dict[str, float]:
        """oIoU, mIoU and Prec@t with ``>=``, as LAVT; no target is empty."""
        precision = {f"Prec@{t}": precision_at_least(scores, t) for t in PRECISION_THRESHOLDS}
        return {"oIoU": overall_iou(scores), "mIoU": mean_iou(scores), **precision}


@dataclass(frozen=True)
class FewShotScore:
    """One query's answers.

    Attributes:
        shape: The class.
        by_shots: Overlap with so many supports.
    """

    shape: str
    by_shots: dict[int, Overlap] = field(default_factory=dict)


class FewShot(RefShapesProtocol[FewShotScore]):
    """FSS. Both numbers of shots ask about the same queries, and the first support is the one of 1-shot."""

    task: Task = "fss"

    def score(self, model: Predictor, index: int) -> list[FewShotScore]:
        """The query is encoded once."""
        sample = self.data.episode(index)
        features = model.encode_image(sample.image)
        examples = [MaskReference(support.image, support.mask) for support in sample.references]
        answers = {shots: model.segment(features, examples=examples[:shots]).mask for shots in SHOTS}
        overlaps = {shots: overlap(mask, sample.mask) for shots, mask in answers.items()}
        return [FewShotScore(_shape_of(sample), overlaps)]

    def summarise(self, scores: Sequence[FewShotScore]) -> dict[str, float]:
        """The mIoU by image (the mean over episodes, as UniRef), by class (accumulated, as HSNet), and FB-IoU."""
        shapes = [score.shape for score in scores]
        metrics = {}
        for shots in SHOTS:
            overlaps = [score.by_shots[shots] for score in scores]
            metrics[f"mIoU_{shots}shot"] = mean_iou(overlaps)
            metrics[f"mIoU_by_class_{shots}shot"] = mean_iou_by_class(overlaps, shapes)
            metrics[f"FB-IoU_{shots}shot"] = foreground_background_iou(overlaps)
        return metrics


class Tracks(RefShapesProtocol[ObjectScores]):
    """What VOS and RVOS share: J&F, the mean over objects or sentences, not over clips."""

    def summarise(self, scores: Sequence[ObjectScores]) -> dict[str, float]:
        """J&F, and mean and recall of J and F. Decay is not among them: it may be negative."""
        video = summarise(scores)
        return {
            "J&F": video.j_and_f,
            "J": video.j.mean,
            "F": video.f.mean,
            "J_recall": video.j.recall,
            "F_recall": video.f.recall,
        }


class VideoObjects(Tracks):
    """VOS. All objects of a clip are tracked together and compete for pixels; one that appears later joins then."""

    task: Task = "vos"

    def score(self, model: Predictor, index: int) -> list[ObjectScores]:
        """An object is scored from the frame after the one where its mask was given."""
        return self.track(model, self.data.clip(index))[1]

    def track(self, model: Predictor, clip: NamedClip) -> tuple[list[FrameResult], list[ObjectScores]]:
        """A result a frame, and scores an object."""
        joining: dict[int, dict[int, Mask]] = {}
        for object_id, first in clip.first_frames.items():
            joining.setdefault(first, {})[object_id] = clip.ids[first] == object_id
        results = list(model.track(list(clip.frames), new_masks=joining, **asdict(self.tracking)))
        scores = [
            track_scores(results[first + 1 :], clip.ids[first + 1 :] == object_id, object_id)
            for object_id, first in clip.first_frames.items()
        ]
        return results, scores


class VideoSentences(Tracks):
    """RVOS. The sentence alone until the object is first seen, then beside it masks predicted so far (`tracking`)."""

    task: Task = "rvos"

    def score(self, model: Predictor, index: int) -> list[ObjectScores]:
        """Frames are encoded once for all sentences of the clip."""
        clip = self.data.clip(index)
        shared = cast(Predictor, _EncodesOnce(model))
        scores = []
        for object_id, sentences in clip.sentences.items():
            for sentence in sentences:
                results = shared.track(list(clip.frames), texts={1: sentence}, **asdict(self.tracking))
                scores.append(track_scores(list(results), clip.ids == object_id, 1))
        return scores


PROTOCOLS: dict[Task, type[RefShapesProtocol[Any]]] = {
    protocol.task: protocol for protocol in (Referring, FewShot, VideoObjects, VideoSentences)
}


@torch.no_grad()
def masks_by_sentence(model: Predictor, features: ImageFeatures, sentences: Sequence[str]) -> list[Mask]:
    """What a model segments in one encoded image for each of several sentences, ``(H, W)`` bool at its own size."""
    rows = torch.zeros(len(sentences), dtype=torch.int64, device=model.device)
    prediction = model.predict(features, [model.encode_text(sentences).about(rows)])
    logits = model.transform.logits(
        prediction.logits[:, :1].float(), features.input_sizes[0], features.original_sizes[0]
    )
    return list((logits[:, 0] > 0).cpu().numpy())


def track_scores(results: Sequence[FrameResult], truth: NDArray[np.bool_], object_id: int) -> ObjectScores:
    """J and F of one tracked object, whose true masks are ``(T, H, W)`` bool, in each of T frames."""
    pairs = [(result.masks[object_id][None], mask[None]) for result, mask in zip(results, truth, strict=True)]
    return ObjectScores(
        np.array([region_similarity(*pair)[0] for pair in pairs]),
        np.array([boundary_accuracy(*pair)[0] for pair in pairs]),
    )


def _shape_of(sample: Sample) -> str:
    """The class of a few-shot episode, which is the last word of its name."""
    shape = sample.name.rsplit(maxsplit=1)[-1]
    if shape not in UNSEEN_SHAPES:
        raise ValueError(f"{sample.name}: not an episode of one of {UNSEEN_SHAPES}")
    return shape


class _EncodesOnce:
    """Stands in for a model on the pictures of one clip: one that was encoded before is not encoded again."""

    def __init__(self, model: Predictor) -> None:
        self._model = model
        self._encoded: dict[bytes, ImageFeatures] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_image(self, images: Sequence[NDArray[np.uint8]]) -> ImageFeatures:
        """Features of a picture in a list of one, as the tracker asks for them."""
        key = b"".join(image.tobytes() for image in images)
        if key not in self._encoded:
            self._encoded[key] = self._model.encode_image(list(images))
        return self._encoded[key]

    def track(self, *args: Any, **kwargs: Any) -> Iterator[FrameResult]:
        """The model's own way to track, which asks for frames here."""
        track: Callable[..., Iterator[FrameResult]] = type(self._model).track
        return track(self, *args, **kwargs)
