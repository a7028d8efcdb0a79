"""Following what sentences name through a video: one token an object is handed from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sam_uniref.adapters.references import ReferenceFeatures, stack_rows
from sam_uniref.images import RGB, ImageLike, MaskLike, load_image
from sam_uniref.reference import MaskReference
from sam_uniref.refsam.refusal import refuse
from sam_uniref.tracked_object import checked_id, checked_size
from sam_uniref.tracking import FrameResult
from sam_uniref.transforms import Size

if TYPE_CHECKING:
    from sam_uniref.refsam.model import RefSam

# Published for Ref-DAVIS: what a pixel's best logit must exceed, the background's.
BACKGROUND = 0.1
# Published for Ref-YouTube-VOS: from which logit on a pixel is an object's that is by itself.
THRESHOLD = 0.01


@dataclass
class _Named:
    """One object.

    Attributes:
        sentence: One row.
        track: Its track token for the next frame, one row; None before its first frame.
    """

    sentence: ReferenceFeatures
    track: ReferenceFeatures | None = None


class RefSamTracker:
    """Find any number of objects by their sentences, in a frame after the other, in constant memory.

    Args:
        model: A RefSam.
        exclusive: A pixel belongs to the object with the highest logit, if it is above 0.1 (published for Ref-DAVIS).
            Without, each object has all pixels with a logit above 0.01, and masks may overlap (published for
            Ref-YouTube-VOS).
        hand_on: Without, no token is handed on, and each frame is found by itself.
    """

    def __init__(self, model: RefSam, *, exclusive: bool = True, hand_on: bool = True) -> None:
        self.model = model
        self.exclusive = exclusive
        self.hand_on = hand_on
        self._objects: dict[int, _Named] = {}
        self._size: Size | None = None
        self._frame = 0

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
            mask: None; refused.
            text: A sentence that names it.
            examples: None; refused.

        Raises:
            ValueError: If there is no sentence, or an empty one; a mask or examples are given; or the id is not
                positive or is tracked already. Nothing is added then.
        """
        object_id = checked_id(object_id)
        if object_id in self._objects:
            raise ValueError(f"object {object_id} is tracked already; give another id")
        if mask is not None:
            refuse("masks")
        if examples:
            refuse("annotated images")
        if text is None:
            raise ValueError(f"object {object_id} needs a sentence, text=")
        self._objects[object_id] = _Named(self.model.encode_text([text]))

    def update(self, object_id: int, *, mask: MaskLike | None = None) -> None:
        """Refused: a mask is no reference here."""
        refuse("masks")

    def check_followed(self, object_id: int, named: bool) -> None:
        """Refused: only objects with a mask in the video are asked about."""
        refuse("masks")

    def checked_size(self, picture: RGB) -> Size:
        """``(height, width)`` of a frame, which must be that of the frames before it."""
        return checked_size(picture, self._size, self._frame)

    @torch.no_grad()
    def step(self, frame: ImageLike) -> FrameResult:
        """Segment all objects in the next frame; without any, all of it is background.

        Raises:
            FileNotFoundError: If the frame is a path that does not exist.
            ValueError: If the frame is of another size than those before it.
        """
        picture = load_image(frame)
        size = self.checked_size(picture)
        result = self._find(picture, size) if self._objects else _nothing(self._frame, size)
        self._size, self._frame = size, self._frame + 1
        return result

    def _find(self, picture: RGB, size: Size) -> FrameResult:
        """One decoder call for all objects."""
        features = self.model.encode_image([picture])
        named = list(self._objects.values())
        about = torch.zeros(len(named), dtype=torch.int64, device=self.model.device)
        answer = self.model.answer(features, stack_rows([o.sentence for o in named]).about(about), self._tracks(about))
        if self.hand_on:
            for row, found in enumerate(named):
                found.track = answer.track.select(about[:1] + row)
        logits = self.model.transform.logits(answer.prediction.logits.float(), features.input_sizes[0], size)[:, 0]
        return self._result(logits, answer.prediction.scores)

    def _tracks(self, about: Tensor) -> ReferenceFeatures | None:
        """Track tokens of all objects; those that have none yet are absent."""
        tracks = [found.track for found in self._objects.values()]
        known = next((track for track in tracks if track is not None), None)
        if known is None:
            return None
        absent = known.map(torch.zeros_like)
        absent = replace(absent, padding=(torch.ones_like(absent.padding[0]),))
        return stack_rows([absent if track is None else track for track in tracks]).about(about)

    def _result(self, logits: Tensor, scores: Tensor) -> FrameResult:
        """A frame's answer from logits ``(N, H, W)`` and scores ``(N, 1)``."""
        ids = self.object_ids
        threshold = BACKGROUND if self.exclusive else THRESHOLD
        best, owner = (tensor.cpu().numpy() for tensor in logits.max(dim=0))
        labels = np.where(best > threshold, np.array(ids, np.int32)[owner], np.int32(0))
        each = (logits > threshold).cpu().numpy()
        masks = {i: labels == i if self.exclusive else each[row] for row, i in enumerate(ids)}
        told = dict(zip(ids, scores[:, 0].float().tolist(), strict=True))
        return FrameResult(self._frame, labels, masks, told, {i: bool(mask.any()) for i, mask in masks.items()})


def _nothing(frame: int, size: Size) -> FrameResult:
    """A frame in which nothing is looked for."""
    return FrameResult(frame, np.zeros(size, np.int32), {}, {}, {})
