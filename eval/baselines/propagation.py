"""Plain SAM carried through a video: each frame is asked with the previous mask's box and logits. Nothing is learned.

A baseline of our own choosing, beside which a method shows what knowing the object adds to knowing where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from sam_uniref.eval.baselines.mask_method import MaskMethod
from sam_uniref.eval.baselines.mask_tracker import EncodedFrame, Followed
from sam_uniref.eval.baselines.prompting import Box, Prompt, grown_box, inclusive_box
from sam_uniref.images import Mask

_CERTAIN = 10.0
"""Logit of a given mask's inside, about what SAM's own masks reach."""


@dataclass(frozen=True)
class PropagatedObject:
    """What is remembered of an object.

    Attributes:
        box: Of its mask in the last frame in which it was seen.
        low_res_logits: ``(1, h, w)`` float32 of SAM's answer there, or of its given mask.
    """

    box: Box
    low_res_logits: NDArray[np.float32]


class PlainSam(MaskMethod[PropagatedObject]):
    """SAM prompted by the previous mask's box, grown by 10 px on every side, and its low-res logits.

    SAM gives its single mask, as its authors advise for prompts that leave no doubt. A given mask stands in for logits
    as 10 inside and -10 outside. It takes part in VOS alone: in another picture there is nothing to start from.
    """

    name = "plain SAM"

    def start(self, frame: EncodedFrame, mask: Mask) -> PropagatedObject:
        """The mask's box, and the mask as logits."""
        share = F.adaptive_avg_pool2d(self.sam.host.transform.mask(mask)[None], self.sam.mask_input_size)
        return PropagatedObject(inclusive_box(mask), ((2 * share - 1) * _CERTAIN).numpy())

    def follow(self, frame: EncodedFrame, state: PropagatedObject) -> Followed[PropagatedObject]:
        """One step."""
        box = grown_box(state.box, frame.features.original_sizes[0])
        prompt = Prompt(box=box, mask_logits=state.low_res_logits)
        (answer,) = self.sam.candidates(frame.features, prompt, multimask=False)
        return Followed(answer, replace(state, low_res_logits=answer.low_res_logits))

    def see(self, state: PropagatedObject, mask: Mask) -> PropagatedObject:
        """The box of the mask it got."""
        return replace(state, box=inclusive_box(mask))
