"""What a protocol knows of a method that is compared, ours or a baseline: two questions, asked as of `Predictor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from sam_uniref.images import RGB, Mask
from sam_uniref.reference import MaskReference
from sam_uniref.segmentation import Segmentation
from sam_uniref.tracking import FrameResult


class Method(Protocol):
    """Segments what a reference points at. `Predictor` is one; so is every baseline in `sam_uniref.eval.baselines`.

    A method is deterministic: the same question has the same answer, whatever was asked before. Several tracks may take
    turns, a frame of each.
    """

    def encode_image(self, images: RGB) -> Any:
        """What `segment` takes in place of an image, so that several questions about it share the encoder."""

    def segment(
        self, image: Any, *, text: str | None = None, examples: Sequence[MaskReference] | None = None
    ) -> Segmentation:
        """One object in a picture.

        Args:
            image: ``(H, W, 3)`` uint8 RGB, or what `encode_image` gave.
            text: A sentence that names it (RIS).
            examples: Annotated images of it, or of its kind (FSS).

        Raises:
            ValueError: If the method can't be asked so.
        """

    def track(
        self,
        frames: Sequence[RGB],
        *,
        masks: Mapping[int, Mask] | None = None,
        texts: Mapping[int, str] | None = None,
        new_masks: Mapping[int, Mapping[int, Mask]] | None = None,
    ) -> Iterator[FrameResult]:
        """Objects through a video, a result a frame.

        Args:
            frames: ``(H, W, 3)`` uint8 RGB each.
            masks: ``{object id: (H, W) bool}`` in the first frame (VOS).
            texts: ``{object id: sentence}`` (RVOS).
            new_masks: ``{frame number: masks}`` of objects that join later.

        Raises:
            ValueError: If the method can't be asked so.
        """
