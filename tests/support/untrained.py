"""The parts of a model that no script answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sam_uniref.adapters.frames import FrameKeys, FrameReference
from sam_uniref.adapters.references import ReferenceFeatures
from sam_uniref.interfaces import ImageFeatures, Targets, TrainablePart
from sam_uniref.predictor import Predictor


class UntrainedModel(Predictor):
    """A Predictor of one level that can be asked and not trained; subclasses encode and predict."""

    anchor: torch.nn.Parameter

    def encode_frame(self, features: ImageFeatures, masks: Tensor) -> list[FrameReference]:
        """As `encode_mask`, with the picture's keys as they are."""
        encoded = self.encode_mask(features, masks, torch.zeros(len(masks), dtype=torch.int64))
        frame = FrameKeys((encoded.keys[0][:1].clone(),))
        return [
            FrameReference(frame, (encoded.values[0][row].clone(),), (encoded.pooled[0][row].clone(),))
            for row in range(len(masks))
        ]

    def frame_reference(self, annotated: ReferenceFeatures) -> FrameReference:
        frame = FrameKeys((annotated.keys[0].clone(),))
        return FrameReference(frame, (annotated.values[0][0],), (annotated.pooled[0][0],))

    def losses(
        self, features: ImageFeatures, references: Sequence[ReferenceFeatures], targets: Targets
    ) -> dict[str, Tensor]:
        raise NotImplementedError

    def parts(self) -> list[TrainablePart]:
        return [TrainablePart("anchor", self.anchor)]  # type: ignore[arg-type]

    def trained_state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_trained_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        raise NotImplementedError
