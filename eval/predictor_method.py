"""Our own models as a compared method, with the options of tracking, and a frame encoded once for several trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sam_uniref.closely import segment_carefully
from sam_uniref.images import RGB, Mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.predictor import Predictor
from sam_uniref.reference import MaskReference
from sam_uniref.samref import SamRef
from sam_uniref.segmentation import Segmentation
from sam_uniref.tracking import FrameResult
from sam_uniref.turned import TurnedImage


@dataclass(frozen=True)
class TrackingOptions:
    """How objects are followed in the video tasks: `Predictor.track`'s arguments of these names.

    Attributes:
        frame_references: Which masks of the clip itself an object is found by: both, first, previous or none.
        score_threshold: Below it an object counts as not visible; None: the paper's.
    """

    frame_references: str = "both"
    score_threshold: float | None = None


class PredictorMethod:
    """A `Predictor` as a `Method`.

    Args:
        model: In evaluation mode, on its device.
        tracking: Of the video tasks, as published by default.
    """

    def __init__(self, model: Predictor, tracking: TrackingOptions | None = None) -> None:
        self.model = model
        self.tracking = tracking or TrackingOptions()
        self._shared = cast(Predictor, _EncodesOnce(model))

    def following(self, tracking: TrackingOptions) -> PredictorMethod:
        """The same model with other options of tracking."""
        return PredictorMethod(self.model, tracking)

    def encode_image(self, images: RGB) -> ImageFeatures:
        """As the model's."""
        return self.model.encode_image(images)

    def segment(
        self, image: Any, *, text: str | None = None, examples: Sequence[MaskReference] | None = None
    ) -> Segmentation:
        """As the model's."""
        return self.model.segment(image, text=text, examples=examples)

    def track(
        self,
        frames: Sequence[RGB],
        *,
        masks: Mapping[int, Mask] | None = None,
        texts: Mapping[int, str] | None = None,
        new_masks: Mapping[int, Mapping[int, Mask]] | None = None,
    ) -> Iterator[FrameResult]:
        """As the model's, with the options. Tracks in step over the same frames encode each frame once."""
        return self._shared.track(frames, masks=masks, texts=texts, new_masks=new_masks, **asdict(self.tracking))


class CarefulMethod:
    """A SamRef asked with care in pictures, see `segment_carefully`; videos are as ever.

    Args:
        model: In evaluation mode.
        tracking: As `PredictorMethod` has it.
    """

    def __init__(self, model: SamRef, tracking: TrackingOptions | None = None) -> None:
        self.model = model
        self.track = PredictorMethod(model, tracking).track

    def following(self, tracking: TrackingOptions) -> CarefulMethod:
        """The same model with other options of tracking."""
        return CarefulMethod(self.model, tracking)

    def encode_image(self, images: RGB) -> TurnedImage:
        """The picture, encoded when it is asked about."""
        return TurnedImage(self.model, images)

    def segment(
        self, image: Any, *, text: str | None = None, examples: Sequence[MaskReference] | None = None
    ) -> Segmentation:
        """The careful answer."""
        picture = image if isinstance(image, TurnedImage) else self.encode_image(image)
        return segment_carefully(picture, text=text, examples=examples)


class _EncodesOnce:
    """Stands in for a model while it tracks: the picture that was encoded last is not encoded again."""

    def __init__(self, model: Predictor) -> None:
        self._model = model
        self._last: tuple[NDArray[np.uint8], ImageFeatures] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_image(self, images: Sequence[NDArray[np.uint8]]) -> ImageFeatures:
        """Features of a picture in a list of one, as the tracker asks for them."""
        (picture,) = images
        if self._last is None or not np.array_equal(self._last[0], picture):
            self._last = picture, self._model.encode_image([picture])
        return self._last[1]

    def track(self, *args: Any, **kwargs: Any) -> Iterator[FrameResult]:
        """The model's own way to track, which asks for frames here."""
        track: Callable[..., Iterator[FrameResult]] = type(self._model).track
        return track(self, *args, **kwargs)
