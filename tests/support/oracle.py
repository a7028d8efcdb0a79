"""A compared method that is right, or as wrong as a test makes it, and has the interface of one and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.prepared import decode_mask
from sam_uniref.eval.cases import Clip, Query, SpokenImage
from sam_uniref.eval.protocols import TaskProtocol
from sam_uniref.images import RGB, Mask
from sam_uniref.reference import MaskReference
from sam_uniref.segmentation import Segmentation
from sam_uniref.tracking import FrameResult

Change = Callable[[Mask], Mask]


class Oracle:
    """Knows the true masks of a protocol's cases by the pictures themselves.

    Args:
        protocol: Whose questions it answers.
        change: What it makes of a true mask.
    """

    def __init__(self, protocol: TaskProtocol[Any, Any], change: Change = lambda mask: mask) -> None:
        self.change = change
        self.encoded = 0
        self.examples: list[int] = []
        self._masks: dict[tuple[bytes, Any], Mask] = {}
        for index in range(len(protocol.source)):
            self._learn(protocol.source[index])

    def _learn(self, case: SpokenImage | Query | Clip) -> None:
        if isinstance(case, SpokenImage):
            for sentence in case.sentences:
                if sentence.mask is not None:
                    self._masks[case.load().tobytes(), sentence.text] = decode_mask(sentence.mask)
        elif isinstance(case, Query):
            self._masks[case.load().tobytes(), None] = decode_mask(case.mask)
        else:
            for number, frame in enumerate(case.frames()):
                for item in case.objects:
                    encoded = item.masks.get(number)
                    mask = np.zeros(case.size, bool) if encoded is None else decode_mask(encoded)
                    for name in (item.id, *item.sentences.values()):
                        self._masks[frame.tobytes(), name] = mask

    def _answer(self, image: RGB, name: Any) -> Mask:
        known = self._masks.get((image.tobytes(), name))
        return self.change(np.zeros(image.shape[:2], bool) if known is None else known)

    def encode_image(self, images: RGB) -> RGB:
        self.encoded += 1
        return images

    def segment(
        self, image: Any, *, text: str | None = None, examples: Sequence[MaskReference] | None = None
    ) -> Segmentation:
        self.examples.append(len(examples or ()))
        mask = self._answer(image, text)
        logits: NDArray[np.float32] = np.where(mask, 1, -1).astype(np.float32)
        return Segmentation(mask, 1.0, logits, logits[None])

    def track(
        self,
        frames: Sequence[RGB],
        *,
        masks: Mapping[int, Mask] | None = None,
        texts: Mapping[int, str] | None = None,
        new_masks: Mapping[int, Mapping[int, Mask]] | None = None,
    ) -> Iterator[FrameResult]:
        tracked: dict[int, Any] = dict(texts or {})
        for index, frame in enumerate(frames):
            tracked |= {object_id: object_id for object_id in (new_masks or {}).get(index, {})}
            found = {object_id: self._answer(frame, name) for object_id, name in tracked.items()}
            labels = np.zeros(frame.shape[:2], np.int32)
            for object_id, mask in found.items():
                labels[mask] = object_id
            yield FrameResult(
                index, labels, found, dict.fromkeys(found, 1.0), {i: bool(m.any()) for i, m in found.items()}
            )
