"""Following objects through a video: two references an object, constant memory (UniRef++ section 3.5).

The tracker owns the map between object ids, which are stable, and rows of a batch, which are not. A frame is
encoded once for all objects. Files and palettes are somebody else's business.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.adapters.references import ReferenceFeatures, stack_rows
from sam_uniref.images import RGB, ImageLike, Mask, MaskLike, fit_to_image, load_id_map, load_image, load_mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.predictor import Predictor
from sam_uniref.reference import MaskReference
from sam_uniref.tracked_object import FRAME_REFERENCES, GivenMask, TrackedObject
from sam_uniref.transforms import Size
from sam_uniref.video import FrameReader, FrameSource, read_frames

logger = logging.getLogger(__name__)

# Appendix B of the paper: "0.4 for VOS datasets and 0.3 for RVOS datasets".
VOS_THRESHOLD = 0.4
RVOS_THRESHOLD = 0.3
# Log-odds beyond which nothing is more certain; keeps infinities out of the softmax.
_CERTAIN = 1e4


@dataclass(frozen=True)
class FrameResult:
    """One frame of H x W pixels.

    Attributes:
        index: Number of the frame, from 0.
        labels: ``(H, W)`` int32 of object ids, 0 = background. Every pixel has one owner.
        masks: Per object id ``(H, W)`` bool: the object's pixels in ``labels``, or its given mask as it stands (where
            given masks overlap, ``labels`` has the higher id).
        scores: Per object id; 1.0 in the frame where its mask was given.
        visible: Per object id, whether it was found in this frame.
    """

    index: int
    labels: NDArray[np.int32]
    masks: dict[int, Mask]
    scores: dict[int, float]
    visible: dict[int, bool]


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
            paper's 0.4, and 0.3 for an object that is named by a sentence; minus infinity for none at all.
        frame_references: Which masks of the video itself an object is found by: ``"both"``, in the first and in the
            previous frame it was seen in (published); ``"first"``; ``"previous"``, which right after the first frame
            is that one; or ``"none"``, its sentence and examples alone.

    Raises:
        ValueError: If ``frame_references`` is none of `FRAME_REFERENCES`.
    """

    def __init__(
        self, model: Predictor, *, score_threshold: float | None = None, frame_references: str = "both"
    ) -> None:
        if frame_references not in FRAME_REFERENCES:
            raise ValueError(f"frame_references must be one of {FRAME_REFERENCES}, got {frame_references!r}")
        self.model = model
        self.score_threshold = score_threshold
        self._frame_references = frame_references
        self._objects: dict[int, TrackedObject] = {}
        self._frame = 0
        self._size: Size | None = None

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
        """Add an object, or references to one that is tracked; they count from the next `step` on.

        What is given again takes the place of what was given before; a new mask starts the object anew.

        Args:
            object_id: A positive number of your choice; it stays the object's.
            mask: Its mask in the next frame, used as it stands. Of a map of several ids, the object's own.
            text: A sentence that names it.
            examples: Annotated images of it from elsewhere.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If nothing is given, the id is not positive, a reference is bad, or a mask is all there is
                and ``frame_references="none"`` leaves nothing to find the object by. Nothing is added then.
        """
        object_id = _checked_id(object_id)
        named = text is not None or bool(examples)
        if mask is None and not named:
            raise ValueError(f"object {object_id} needs a mask=, text= or examples=")
        self._check_followed(object_id, named)
        given = None if mask is None else _given_mask(mask, object_id, self._size)
        encoded = None
        if named:
            encoded = self.model.encode_reference(text=text, examples=examples)
        tracked = self._objects.setdefault(object_id, TrackedObject(self._frame_references))
        if encoded is not None and encoded.text is not None:
            tracked.text = encoded.text
        if encoded is not None and encoded.examples is not None:
            tracked.examples = encoded.examples
        if given is not None:
            tracked.given = given

    def _check_followed(self, object_id: int, named: bool) -> None:
        """Refuse an object that has a mask in the video only, if those are never used."""
        if self._frame_references == "none" and not named and object_id not in self._objects:
            others = tuple(choice for choice in FRAME_REFERENCES if choice != "none")
            raise ValueError(
                f"object {object_id} has a mask only, and frame_references='none' follows nothing by masks of the "
                f"video; give it a sentence or examples too, or take one of {others} as frame_references"
            )

    def remove(self, object_id: int) -> None:
        """Forget an object. Added again, it is a new one.

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
            FileNotFoundError: If the frame is a path that does not exist.
            ValueError: If no object was added, the frame is of another size, or a given mask does not fit it.
                The tracker is then as it was before the call.
        """
        if not self._objects:
            raise ValueError("nothing to track: add() an object first")
        picture = load_image(frame)
        size = self._checked_size(picture)
        given = {
            object_id: load_mask(tracked.given.mask, size, name=tracked.given.name)
            for object_id, tracked in self._objects.items()
            if tracked.given is not None
        }
        features = self.model.encode_image([picture])
        logits, scores = self._predict(features, sorted(self._objects.keys() - given.keys()), size)
        scores.update(dict.fromkeys(given, 1.0))
        labels = _merge(logits, given, size)
        masks = {i: given.get(i, labels == i) for i in self._objects}
        visible = {i: i in given or (i in logits and bool(masks[i].any())) for i in self._objects}
        seen = {i: tracked for i, tracked in self._objects.items() if visible[i]}
        references = self._references(features, {i: masks[i] for i, tracked in seen.items() if tracked.wants_frame()})
        # From here on nothing can fail: the state changes as a whole or not at all.
        for object_id, tracked in seen.items():
            tracked.see(references.get(object_id))
        return self._finish(labels, masks, {i: scores[i] for i in self._objects}, visible)

    def _finish(
        self, labels: NDArray[np.int32], masks: dict[int, Mask], scores: dict[int, float], visible: dict[int, bool]
    ) -> FrameResult:
        """Count the frame."""
        result = FrameResult(self._frame, labels, masks, scores, visible)
        self._size, self._frame = (labels.shape[0], labels.shape[1]), self._frame + 1
        return result

    def _pass_over(self, picture: RGB) -> FrameResult:
        """Count a frame before the first object joins, without encoding it."""
        return self._finish(np.zeros(self._checked_size(picture), np.int32), {}, {}, {})

    def _checked_size(self, picture: RGB) -> Size:
        """``(height, width)`` of a frame, which must be that of the frames before it."""
        size = (picture.shape[0], picture.shape[1])
        if self._size is not None and size != self._size:
            raise ValueError(
                f"frame {self._frame} is {size[1]}x{size[0]}, those before it {self._size[1]}x{self._size[0]} (width x "
                "height); start a new tracker, or resize the frames"
            )
        return size

    def _threshold(self, object_id: int) -> float:
        """The score below which an object counts as not visible."""
        if self.score_threshold is not None:
            return self.score_threshold
        return VOS_THRESHOLD if self._objects[object_id].text is None else RVOS_THRESHOLD

    def _predict(
        self, features: ImageFeatures, object_ids: list[int], size: Size
    ) -> tuple[dict[int, Tensor], dict[int, float]]:
        """One fusion and one decoder call for all objects.

        Returns:
            Logits ``(H, W)`` of the objects whose score reaches the threshold, and the scores of all.
        """
        if not object_ids:
            return {}, {}
        prediction = self.model.predict(features, self._rows(object_ids))
        scores = dict(zip(object_ids, prediction.scores[:, 0].float().tolist(), strict=True))
        found = [row for row, i in enumerate(object_ids) if scores[i] >= self._threshold(i)]
        if not found:
            return {}, scores
        low_res = prediction.logits[found, :1].float()
        logits = self.model.transform.logits(low_res, features.input_sizes[0], size)[:, 0]
        return {object_ids[row]: logits[k] for k, row in enumerate(found)}, scores

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

    def _references(self, features: ImageFeatures, masks: Mapping[int, Mask]) -> dict[int, ReferenceFeatures]:
        """This frame as a reference of each of these objects, one row each, encoded in one call."""
        if not masks:
            return {}
        scaled = torch.stack([self.model.transform.mask(mask) for mask in masks.values()]).to(self.model.device)
        source = torch.zeros(len(masks), dtype=torch.int64, device=self.model.device)
        encoded = self.model.encode_mask(features, scaled, source)
        rows = [encoded.select(source[:1] + row) for row in range(len(masks))]
        # Keys and padding are the frame's, whatever the object: one copy serves all.
        shared = [replace(row, keys=rows[0].keys, padding=rows[0].padding) for row in rows]
        return dict(zip(masks, shared, strict=True))


def soft_aggregate(logits: Tensor) -> Tensor:
    """Let objects compete for each pixel (Oh et al. 2019, as in STCN).

    With the probabilities p of each object by itself, the background's is the product of all 1 - p, and the softmax
    of the log-odds of all of them is the answer. It is computed from logits, since a float32 probability
    is 1.0 from logit 17 on and could not tell two certain objects apart.

    Args:
        logits: ``(N, H, W)`` log-odds of each of N > 0 objects by itself.

    Returns:
        ``(N + 1, H, W)`` probabilities, background first, summing to 1.
    """
    # The foreground's odds are prod(1 + exp(logit)) - 1, one object at a time: f -> f * (1 + exp(x)) + exp(x).
    foreground = logits[0]
    for row in logits[1:]:
        foreground = torch.logaddexp(foreground + F.softplus(row), row)
    return torch.cat([-foreground[None], logits]).clamp(-_CERTAIN, _CERTAIN).softmax(dim=0)


def _merge(logits: Mapping[int, Tensor], given: Mapping[int, Mask], size: Size) -> NDArray[np.int32]:
    """One owner a pixel: given masks as they stand, in the order of their ids, the others by soft aggregation."""
    labels = np.zeros(size, np.int32)
    if logits:
        owners = soft_aggregate(torch.stack(list(logits.values()))).argmax(dim=0).cpu().numpy()
        labels = np.array([0, *logits], np.int32)[owners]
    for object_id in sorted(given):
        labels[given[object_id]] = object_id
    return labels


def track_video(
    tracker: VideoTracker,
    frames: FrameSource | FrameReader,
    *,
    masks: Mapping[int, MaskLike] | MaskLike | None = None,
    texts: Mapping[int, str] | None = None,
    examples: Mapping[int, Sequence[MaskReference]] | None = None,
    new_masks: Mapping[int, Mapping[int, MaskLike] | MaskLike] | None = None,
) -> Iterator[FrameResult]:
    """Drive a fresh tracker over a video. Arguments and errors as `Predictor.track`'s.

    Everything that can be checked without a frame is checked at the call, not at the first ``next``.
    """
    joining = {}
    for index, given in (new_masks or {}).items():
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
            raise ValueError(f"new_masks= has the frame number {index!r}; frames are counted from 0")
        joining[int(index)] = given
    if masks is not None and not (isinstance(masks, Mapping) and not masks):
        if 0 in joining:
            raise ValueError("masks of the first frame come in masks= or in new_masks[0], not in both")
        joining[0] = masks
    if not (joining or texts or examples):
        raise ValueError("nothing to track: give masks=, texts=, examples= or new_masks=")
    reader = read_frames(frames)
    if reader.count == 0:
        raise ValueError("there is not a single frame to track in")
    if reader.count is not None and joining and max(joining) >= reader.count:
        raise ValueError(f"new_masks= names frame {max(joining)}, but there are {reader.count} frames, counted from 0")
    named = {*(texts or ()), *(examples or ())}
    for given in joining.values():
        for object_id in _masks_by_id(given, None):
            tracker._check_followed(object_id, object_id in named)
    for object_id, text in (texts or {}).items():
        tracker.add(object_id, text=text)
    for object_id, annotated in (examples or {}).items():
        tracker.add(object_id, examples=annotated)
    return _drive(tracker, reader, joining)


def _drive(
    tracker: VideoTracker,
    frames: FrameReader,
    joining: Mapping[int, Mapping[int, MaskLike] | MaskLike],
) -> Iterator[FrameResult]:
    """A result a frame; masks join in theirs."""
    count = 0
    for index, frame in enumerate(frames):
        picture = frame.picture
        if index in joining:
            for object_id, mask in _masks_by_id(joining[index], tracker._checked_size(picture)).items():
                tracker.add(object_id, mask=mask)
        yield tracker.step(picture) if tracker.object_ids else tracker._pass_over(picture)
        count += 1
    if count == 0:
        raise ValueError("there is not a single frame to track in")
    late = sorted(index for index in joining if index >= count)
    if late:
        logger.warning("the video ended after %d frames: the masks of frames %s were not used", count, late)


def _masks_by_id(masks: Mapping[int, MaskLike] | MaskLike, size: Size | None) -> dict[int, Mask]:
    """``{object id: mask}`` from that or from one map of ids, at the frame's size once it is known."""
    if isinstance(masks, Mapping):
        return {_checked_id(i): _given_mask(mask, int(i), size).mask for i, mask in masks.items()}
    name = str(masks) if isinstance(masks, str | Path) else "the mask"
    ids = load_id_map(masks)
    ids = ids if size is None else fit_to_image(ids, size, name)
    found = [int(i) for i in np.unique(ids) if i > 0]
    if not found:
        raise ValueError(f"{name} is empty: a map of ids must mark at least one object")
    return {object_id: ids == object_id for object_id in found}


def _given_mask(mask: MaskLike, object_id: int, size: Size | None) -> GivenMask:
    """The object's mask, checked; at the frame's size once it is known."""
    name = str(mask) if isinstance(mask, str | Path) else f"the mask of object {object_id}"
    ids = load_id_map(mask)
    several = np.count_nonzero(np.unique(ids)) > 1
    fitting = (ids.shape[0], ids.shape[1]) if size is None else size
    return GivenMask(load_mask(ids, fitting, object_id=object_id if several else None, name=name), name)


def _checked_id(object_id: int) -> int:
    """The id as an int."""
    if isinstance(object_id, bool) or not isinstance(object_id, int | np.integer) or object_id <= 0:
        raise ValueError(f"an object id must be a positive integer (0 is the background), got {object_id!r}")
    return int(object_id)
