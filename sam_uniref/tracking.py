"""Following objects through a video: two references an object, constant memory (UniRef++ section 3.5).

The tracker owns the map between object ids, which are stable, and rows of a batch, which are not. A frame is
encoded once for all objects. Files and palettes are somebody else's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam_uniref.adapters.references import ReferenceFeatures, concat, stack_rows
from sam_uniref.images import ImageLike, Mask, MaskLike, fit_to_image, load_id_map, load_image, load_mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.predictor import Predictor
from sam_uniref.reference import MaskReference

# Appendix B of the paper: "0.4 for VOS datasets and 0.3 for RVOS datasets".
VOS_THRESHOLD = 0.4
RVOS_THRESHOLD = 0.3


@dataclass(frozen=True)
class FrameResult:
    """One frame of H x W pixels.

    Attributes:
        index: Number of the frame, from 0.
        labels: ``(H, W)`` int32 of object ids, 0 = background. Every pixel has one owner.
        masks: Per object id ``(H, W)`` bool.
        scores: Per object id; 1.0 in the frame where its mask was given.
        visible: Per object id, whether it was found in this frame.
    """

    index: int
    labels: NDArray[np.int32]
    masks: dict[int, Mask]
    scores: dict[int, float]
    visible: dict[int, bool]


@dataclass
class _TrackedObject:
    """What is known of one object: one-row references."""

    text: ReferenceFeatures | None = None
    examples: ReferenceFeatures | None = None
    first: ReferenceFeatures | None = None
    previous: ReferenceFeatures | None = None
    given: MaskLike | None = None

    def masks(self) -> ReferenceFeatures | None:
        """Examples, first and previous frame joined; the previous one only once it differs from the first."""
        known = [r for r in (self.examples, self.first, self.previous) if r is not None]
        return concat(known) if known else None


class VideoTracker:
    """Track any number of objects, added and removed at any frame.

    ```python
    tracker = VideoTracker(model)
    tracker.add(1, mask=first_mask)
    for frame in frames:
        result = tracker.step(frame)
    ```

    Args:
        model: A SamRef or a UniRef.
        score_threshold: Below it an object's mask is empty and its last good reference stays. By default the
            paper's 0.4, and 0.3 for an object that is named by a sentence.
    """

    def __init__(self, model: Predictor, *, score_threshold: float | None = None) -> None:
        self.model = model
        self.score_threshold = score_threshold
        self._objects: dict[int, _TrackedObject] = {}
        self._frame = 0
        self._size: tuple[int, int] | None = None

    @property
    def object_ids(self) -> list[int]:
        """Ids of the tracked objects, in the order they were added."""
        return list(self._objects)

    @torch.no_grad()
    def add(
        self,
        object_id: int,
        *,
        mask: MaskLike | None = None,
        text: str | None = None,
        examples: Sequence[MaskReference] | None = None,
    ) -> None:
        """Add an object, or more references to one that is tracked; they count from the next `step` on.

        Args:
            object_id: A positive number of your choice; it stays the object's.
            mask: Its mask in the next frame, used as it stands.
            text: A sentence that names it.
            examples: Annotated images of it from elsewhere.

        Raises:
            ValueError: If nothing is given, the id is not positive, or a reference is bad.
        """
        if isinstance(object_id, bool) or not isinstance(object_id, int | np.integer) or object_id <= 0:
            raise ValueError(f"an object id must be a positive integer (0 is the background), got {object_id!r}")
        if mask is None and text is None and not examples:
            raise ValueError(f"object {object_id} needs a mask=, text= or examples=")
        encoded = None
        if text is not None or examples:
            encoded = self.model.encode_reference(text=text, examples=examples)
        tracked = self._objects.setdefault(int(object_id), _TrackedObject())
        if encoded is not None:
            tracked.text = encoded.text or tracked.text
            tracked.examples = encoded.examples or tracked.examples
        if mask is not None:
            tracked.given = mask

    def remove(self, object_id: int) -> None:
        """Forget an object.

        Raises:
            ValueError: If it is not tracked.
        """
        if object_id not in self._objects:
            raise ValueError(f"object {object_id} is not tracked; tracked are {self.object_ids}")
        del self._objects[object_id]

    @torch.no_grad()
    def step(self, frame: ImageLike) -> FrameResult:
        """Segment all objects in the next frame.

        Raises:
            ValueError: If no object was added, the frame is of another size, or a given mask does not fit it.
                The tracker is then as it was before the call.
        """
        if not self._objects:
            raise ValueError("nothing to track: add() an object first")
        picture = load_image(frame)
        size = (picture.shape[0], picture.shape[1])
        if self._size is not None and size != self._size:
            raise ValueError(
                f"frame {self._frame} is {size[1]}x{size[0]}, those before it {self._size[1]}x{self._size[0]} (width x "
                "height); start a new tracker, or resize the frames"
            )
        given = {
            object_id: load_mask(tracked.given, size)
            for object_id, tracked in self._objects.items()
            if tracked.given is not None
        }
        features = self.model.encode_image([picture])
        probabilities, scores = self._predict(features, [i for i in self._objects if i not in given], size)
        labels = _merge(probabilities, given, size)
        masks = {object_id: labels == object_id for object_id in self._objects}
        scores.update(dict.fromkeys(given, 1.0))
        visible = {i: i in given or (scores[i] >= self._threshold(i) and bool(masks[i].any())) for i in self._objects}
        self._remember(features, masks, [i for i in self._objects if visible[i]])
        result = FrameResult(self._frame, labels, masks, {i: scores[i] for i in self._objects}, visible)
        self._size, self._frame = size, self._frame + 1
        return result

    def _threshold(self, object_id: int) -> float:
        """The score below which an object counts as not visible."""
        if self.score_threshold is not None:
            return self.score_threshold
        return VOS_THRESHOLD if self._objects[object_id].text is None else RVOS_THRESHOLD

    def _predict(
        self, features: ImageFeatures, object_ids: list[int], size: tuple[int, int]
    ) -> tuple[dict[int, Tensor], dict[int, float]]:
        """Probabilities ``(H, W)`` and scores of the objects, in one fusion and one decoder call."""
        if not object_ids:
            return {}, {}
        prediction = self.model.predict(features, self._rows(object_ids))
        logits = self.model.transform.logits(prediction.logits.float(), features.input_sizes[0], size)[:, 0]
        scores = dict(zip(object_ids, prediction.scores[:, 0].float().tolist(), strict=True))
        probabilities = {
            object_id: row.sigmoid() * (scores[object_id] >= self._threshold(object_id))
            for object_id, row in zip(object_ids, logits, strict=True)
        }
        return probabilities, scores

    def _rows(self, object_ids: list[int]) -> list[ReferenceFeatures]:
        """References of the objects, a row each: sentences first, then annotated images."""
        tracked = [self._objects[object_id] for object_id in object_ids]
        about = torch.zeros(len(tracked), dtype=torch.int64, device=self.model.device)
        kinds = []
        for rows in ([t.text for t in tracked], [t.masks() for t in tracked]):
            known = next((row for row in rows if row is not None), None)
            if known is not None:
                absent = known.map(torch.zeros_like)
                kinds.append(stack_rows([absent if row is None else row for row in rows]).about(about))
        return kinds

    def _remember(self, features: ImageFeatures, masks: Mapping[int, Mask], object_ids: list[int]) -> None:
        """Make this frame the previous reference of the objects seen in it, and the first of the new ones."""
        if not object_ids:
            return
        scaled = torch.stack([self.model.transform.mask(masks[i]) for i in object_ids]).to(self.model.device)
        source = torch.zeros(len(object_ids), dtype=torch.int64, device=self.model.device)
        encoded = self.model.encode_mask(features, scaled, source)
        for row, object_id in enumerate(object_ids):
            tracked = self._objects[object_id]
            reference = encoded.select(torch.tensor([row], device=self.model.device))
            if tracked.first is None or tracked.given is not None:
                # A given mask is the truth: it starts the object anew.
                tracked.first, tracked.previous = reference, None
            else:
                tracked.previous = reference
            tracked.given = None


def soft_aggregate(probabilities: Tensor) -> Tensor:
    """Let objects compete for each pixel (Oh et al. 2019, as in STCN).

    Args:
        probabilities: ``(N, H, W)`` of each object by itself.

    Returns:
        ``(N + 1, H, W)``, background first, summing to 1.
    """
    background = (1 - probabilities).prod(dim=0, keepdim=True)
    stacked = torch.cat([background, probabilities]).clamp(1e-7, 1 - 1e-7)
    return torch.logit(stacked).softmax(dim=0)


def _merge(probabilities: Mapping[int, Tensor], given: Mapping[int, Mask], size: tuple[int, int]) -> NDArray[np.int32]:
    """One owner a pixel: given masks as they stand, the others by soft aggregation."""
    labels = np.zeros(size, np.int32)
    if probabilities:
        owners = soft_aggregate(torch.stack(list(probabilities.values()))).argmax(dim=0).cpu().numpy()
        labels = np.array([0, *probabilities], np.int32)[owners]
    for object_id, mask in given.items():
        labels[mask] = object_id
    return labels


def track_video(
    tracker: VideoTracker,
    frames: str | Path | Iterable[ImageLike],
    *,
    masks: Mapping[int, MaskLike] | MaskLike | None = None,
    texts: Mapping[int, str] | None = None,
    examples: Mapping[int, Sequence[MaskReference]] | None = None,
    new_masks: Mapping[int, Mapping[int, MaskLike] | MaskLike] | None = None,
) -> Iterator[FrameResult]:
    """Drive a tracker over a video. Arguments as `Predictor.track`'s."""
    from sam_uniref.video import read_frames

    joining = dict(new_masks or {})
    if masks is not None:
        if 0 in joining:
            raise ValueError("masks of the first frame come in masks= or in new_masks[0], not in both")
        joining[0] = masks
    for object_id, text in (texts or {}).items():
        tracker.add(object_id, text=text)
    for object_id, annotated in (examples or {}).items():
        tracker.add(object_id, examples=annotated)
    for index, frame in enumerate(read_frames(frames)):
        picture = load_image(frame)
        for object_id, mask in _masks_by_id(joining.get(index), (picture.shape[0], picture.shape[1])).items():
            tracker.add(object_id, mask=mask)
        yield tracker.step(picture)


def _masks_by_id(masks: Mapping[int, MaskLike] | MaskLike | None, size: tuple[int, int]) -> dict[int, MaskLike]:
    """``{object id: mask}`` from that, or from one map of ids."""
    if masks is None:
        return {}
    if isinstance(masks, Mapping):
        return dict(masks)
    name = str(masks) if isinstance(masks, str | Path) else "the mask"
    ids = fit_to_image(load_id_map(masks), size, name)
    found = [int(i) for i in np.unique(ids) if i > 0]
    if not found:
        raise ValueError(f"{name} is empty: a map of ids must mark at least one object")
    return {object_id: ids == object_id for object_id in found}
