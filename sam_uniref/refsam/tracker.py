"""Following what sentences name through a video: one token an object is handed from frame to frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sam_uniref.adapters.references import ReferenceFeatures
from sam_uniref.images import ImageLike, load_image
from sam_uniref.tracked_object import checked_id
from sam_uniref.tracking import FrameResult, same_size
from sam_uniref.transforms import Size

if TYPE_CHECKING:
    from sam_uniref.refsam.model import RefSam

# Published for Ref-DAVIS: what a pixel's best logit must exceed, the background's.
BACKGROUND = 0.1
# Published for Ref-YouTube-VOS: from which logit on a pixel is an object's that is by itself.
THRESHOLD = 0.01


class RefSamTracker:
    """Find objects by their sentences in a frame after the other, in constant memory.

    Args:
        model: A RefSam.
        texts: ``{object id: sentence}``.
        exclusive: A pixel belongs to the object with the highest logit, if it is above 0.1 (published for Ref-DAVIS).
            Without, each object has all pixels with a logit above 0.01, and masks may overlap (published for
            Ref-YouTube-VOS).
        hand_on: Without, no token is handed on, and each frame is found by itself.

    Raises:
        ValueError: If there is no sentence, one is empty, or an id is not positive.
    """

    def __init__(
        self, model: RefSam, texts: Mapping[int, str], *, exclusive: bool = True, hand_on: bool = True
    ) -> None:
        if not texts:
            raise ValueError("nothing to track: give texts=, a sentence an object")
        self.model = model
        self.exclusive = exclusive
        self.hand_on = hand_on
        self.object_ids = [checked_id(object_id) for object_id in texts]
        rows = torch.zeros(len(texts), dtype=torch.int64, device=model.device)
        with torch.no_grad():
            self._sentences = model.encode_text(list(texts.values())).about(rows)
        self._track: ReferenceFeatures | None = None
        self._size: Size | None = None
        self._frame = 0

    @torch.no_grad()
    def step(self, frame: ImageLike) -> FrameResult:
        """Segment all objects in the next frame.

        Raises:
            FileNotFoundError: If the frame is a path that does not exist.
            ValueError: If the frame is of another size than those before it.
        """
        picture = load_image(frame)
        size = same_size(picture, self._frame, self._size)
        features = self.model.encode_image([picture])
        answer = self.model.answer(features, self._sentences, self._track)
        low_res = answer.prediction.logits.float()
        result = self._result(
            self.model.transform.logits(low_res, features.input_sizes[0], size)[:, 0], answer.prediction.scores
        )
        self._track = answer.track if self.hand_on else None
        self._size, self._frame = size, self._frame + 1
        return result

    def _result(self, logits: Tensor, scores: Tensor) -> FrameResult:
        """A frame's answer from logits ``(N, H, W)`` and scores ``(N, 1)``."""
        threshold = BACKGROUND if self.exclusive else THRESHOLD
        best, owner = (tensor.cpu().numpy() for tensor in logits.max(dim=0))
        labels = np.where(best > threshold, np.array(self.object_ids, np.int32)[owner], np.int32(0))
        each = (logits > threshold).cpu().numpy()
        masks = {i: labels == i if self.exclusive else each[row] for row, i in enumerate(self.object_ids)}
        told = dict(zip(self.object_ids, scores[:, 0].float().tolist(), strict=True))
        return FrameResult(self._frame, labels, masks, told, {i: bool(mask.any()) for i, mask in masks.items()})
