"""Following objects through a video: two references an object, constant memory (UniRef++ section 3.5).

The tracker owns the map between object ids, which are stable, and rows of a batch, which are not. A frame is
encoded once for all objects. Files and palettes are somebody else's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam_uniref.adapters.frames import FrameReference, FrameReferences
from sam_uniref.adapters.references import ReferenceFeatures, stack_rows
from sam_uniref.aggregation import merge
from sam_uniref.images import RGB, ImageLike, Mask, MaskLike, load_image, load_mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.predictor import Predictor
from sam_uniref.reference import MaskReference, fingerprint
from sam_uniref.tracked_object import FRAME_REFERENCES, TrackedObject, checked_id, checked_size, given_mask
from sam_uniref.tracker_state import pack_objects, read_state, unpack_objects, write_state
from sam_uniref.transforms import Size

# Appendix B of the paper: "0.4 for VOS datasets and 0.3 for RVOS datasets".
VOS_THRESHOLD = 0.4
RVOS_THRESHOLD = 0.3


@dataclass(frozen=True)
class FrameResult:
    """One frame of H x W pixels.

    Attributes:
        index: Number of the frame, from 0.
        labels: ``(H, W)`` int32 of object ids, 0 = background. Every pixel has one owner.
        masks: Per object id ``(H, W)`` bool: the object's pixels in ``labels``, or its given mask as it stands (where
            given masks overlap, ``labels`` has the higher id). Of objects that don't compete, all pixels of each.
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
        exclusive: Objects compete for pixels by soft aggregation, as published for VOS and Ref-DAVIS. Without, each is
            found as if it were alone and masks may overlap, as published for Ref-YouTube-VOS.

    Raises:
        ValueError: If ``frame_references`` is none of `FRAME_REFERENCES`.
    """

    def __init__(
        self,
        model: Predictor,
        *,
        score_threshold: float | None = None,
        frame_references: str = "both",
        exclusive: bool = True,
    ) -> None:
        if frame_references not in FRAME_REFERENCES:
            raise ValueError(f"frame_references must be one of {FRAME_REFERENCES}, got {frame_references!r}")
        self.model = model
        self.score_threshold = score_threshold
        self.exclusive = exclusive
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
        """Add an object. It is looked for from the next `step` on.

        Args:
            object_id: A positive number of your choice; it stays the object's.
            mask: Its mask in the next frame, used as it stands. Of a map of several ids, the object's own.
            text: A sentence that names it.
            examples: Annotated images of it from elsewhere.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If nothing is given, the id is not positive or is tracked already, a reference is bad, or a
                mask is all there is and ``frame_references="none"`` leaves nothing to find the object by. Nothing
                is added then.
        """
        object_id = checked_id(object_id)
        if object_id in self._objects:
            raise ValueError(f"object {object_id} is tracked already; update() it, or remove() it first")
        self.check_followed(object_id, text is not None or bool(examples))
        tracked = TrackedObject(self._frame_references)
        self._refer(object_id, tracked, mask, text, examples)
        self._objects[object_id] = tracked

    @torch.no_grad()
    def update(
        self,
        object_id: int,
        *,
        mask: MaskLike | None = None,
        text: str | None = None,
        examples: Sequence[MaskReference] | None = None,
    ) -> None:
        """Give more references to a tracked object, or correct it; they count from the next `step` on.

        What is given again takes the place of what was given before; a new mask starts the object anew.

        Args:
            object_id: Of a tracked object.
            mask: As in `add`.
            text: As in `add`.
            examples: As in `add`.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If nothing is given, no such object is tracked, or a reference is bad. Nothing is changed then.
        """
        self._refer(object_id, self._tracked(object_id), mask, text, examples)

    def _refer(
        self,
        object_id: int,
        tracked: TrackedObject,
        mask: MaskLike | None,
        text: str | None,
        examples: Sequence[MaskReference] | None,
    ) -> None:
        """Encode and check what is given, then put it to the object's references, all or nothing."""
        if mask is None and text is None and not examples:
            raise ValueError(f"object {object_id} needs a mask=, text= or examples=")
        given = None if mask is None else given_mask(mask, object_id, self._size)
        encoded = annotated = None
        if text is not None or examples:
            encoded = self.model.encode_reference(text=text, examples=examples)
            annotated = None if encoded.examples is None else self.model.frame_reference(encoded.examples)
        if encoded is not None and encoded.text is not None:
            tracked.text = encoded.text
        if annotated is not None:
            tracked.examples = annotated
        if given is not None:
            tracked.given = given

    def check_followed(self, object_id: int, named: bool) -> None:
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
        self._tracked(object_id)
        del self._objects[object_id]

    def _tracked(self, object_id: int) -> TrackedObject:
        """The object of this id, which must be there."""
        if object_id not in self._objects:
            raise ValueError(f"object {object_id} is not tracked; tracked are {self.object_ids}")
        return self._objects[object_id]

    @torch.no_grad()
    def step(self, frame: ImageLike) -> FrameResult:
        """Segment all objects in the next frame; without any, all of it is background, and it is not encoded.

        Raises:
            FileNotFoundError: If the frame is a path that does not exist.
            ValueError: If the frame is of another size, or a given mask does not fit it. The tracker is then as it
                was before the call.
        """
        picture = load_image(frame)
        size = self.checked_size(picture)
        if not self._objects:
            return self._finish(np.zeros(size, np.int32), {}, {}, {})
        given = {
            object_id: load_mask(tracked.given.mask, size, name=tracked.given.name)
            for object_id, tracked in self._objects.items()
            if tracked.given is not None
        }
        features = self.model.encode_image([picture])
        logits, scores = self._predict(features, sorted(self._objects.keys() - given.keys()), size)
        scores.update(dict.fromkeys(given, 1.0))
        labels = merge(logits, given, size)
        masks = {i: given[i] if i in given else self._mask(i, labels, logits) for i in self._objects}
        visible = {i: i in given or (i in logits and bool(masks[i].any())) for i in self._objects}
        seen = {i: tracked for i, tracked in self._objects.items() if visible[i]}
        references = self._references(features, {i: masks[i] for i, tracked in seen.items() if tracked.wants_frame()})
        # From here on nothing can fail: the state changes as a whole or not at all.
        for object_id, tracked in seen.items():
            tracked.see(references.get(object_id))
        return self._finish(labels, masks, {i: scores[i] for i in self._objects}, visible)

    def state_dict(self) -> dict[str, Tensor]:
        """All that it remembers, for `load_state_dict` of a tracker with the same model and options."""
        packed = pack_objects(self._objects) | {"frame": torch.tensor(self._frame)}
        return packed if self._size is None else packed | {"size": torch.tensor(self._size)}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            ValueError: If a tensor is missing; nothing is changed then.
        """
        objects = unpack_objects(state_dict, self._frame_references, self.model.device)
        if "frame" not in state_dict:
            raise ValueError("this is no state of a tracker: there is no 'frame'")
        size = state_dict["size"].tolist() if "size" in state_dict else None
        self._objects, self._frame = objects, int(state_dict["frame"])
        self._size = None if size is None else (size[0], size[1])

    def save(self, path: str | Path) -> None:
        """Write what it remembers as a ``.safetensors`` file; it is whole or not there."""
        write_state(path, self.state_dict(), fingerprint(self.model))

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote, with results as if nothing had come between.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no state of a tracker, or another model's; nothing is changed then.
        """
        self.load_state_dict(read_state(path, fingerprint(self.model)))

    def _finish(
        self, labels: NDArray[np.int32], masks: dict[int, Mask], scores: dict[int, float], visible: dict[int, bool]
    ) -> FrameResult:
        """Count the frame."""
        result = FrameResult(self._frame, labels, masks, scores, visible)
        self._size, self._frame = (labels.shape[0], labels.shape[1]), self._frame + 1
        return result

    def _mask(self, object_id: int, labels: NDArray[np.int32], logits: Mapping[int, Tensor]) -> Mask:
        """An object's pixels: those it owns, or all that it would have by itself."""
        if self.exclusive or object_id not in logits:
            return labels == object_id
        return (logits[object_id] > 0).cpu().numpy()

    def checked_size(self, picture: RGB) -> Size:
        """``(height, width)`` of a frame, which must be that of the frames before it."""
        return checked_size(picture, self._size, self._frame)

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

    def _rows(self, object_ids: list[int]) -> list[ReferenceFeatures | FrameReferences]:
        """References of the objects, a row each: sentences first, then annotated pictures."""
        tracked = [self._objects[object_id] for object_id in object_ids]
        about = torch.zeros(len(tracked), dtype=torch.int64, device=self.model.device)
        kinds: list[ReferenceFeatures | FrameReferences] = []
        texts = [t.text for t in tracked]
        known = next((text for text in texts if text is not None), None)
        if known is not None:
            absent = known.map(torch.zeros_like)
            kinds.append(stack_rows([absent if text is None else text for text in texts]).about(about))
        masks = tuple(t.masks() for t in tracked)
        if any(masks):
            kinds.append(FrameReferences(masks, about))
        return kinds

    def _references(self, features: ImageFeatures, masks: Mapping[int, Mask]) -> dict[int, FrameReference]:
        """This frame as a reference of each of these objects, encoded in one call."""
        if not masks:
            return {}
        scaled = torch.stack([self.model.transform.mask(mask) for mask in masks.values()]).to(self.model.device)
        return dict(zip(masks, self.model.encode_frame(features, scaled), strict=True))
