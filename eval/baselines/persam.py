"""PerSAM (Zhang et al. 2023), training-free: one annotated picture makes SAM segment that object elsewhere.

Our own implementation from the facts of ZrrSkywalker/Personalize-SAM at a7e8724, and within 1e-4 of it on pictures.
Where it says nothing or can't go on, this is our choice:

- several examples: the mean of their target embeddings;
- an object too small for a cell of the embedding: see `object_cells`;
- a step whose mask is empty gives the next one no box;
- an object that is not seen in a frame keeps its last box. The published video program mixes up the boxes of the other
  objects from then on, and loses the last ones of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from sam_uniref.eval.baselines.guidance import guided_decoder
from sam_uniref.eval.baselines.mask_method import EncodedExample, MaskMethod
from sam_uniref.eval.baselines.mask_tracker import EncodedFrame, Followed
from sam_uniref.eval.baselines.prompting import Box, Prompt, best, inclusive_box
from sam_uniref.eval.baselines.target import (
    attention_prior,
    image_target,
    location_prompt,
    mean_embedding,
    similarity,
    video_target,
)
from sam_uniref.hosts import Host
from sam_uniref.images import Mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.sam import PromptedSamHost
from sam_uniref.segmentation import Segmentation

_VIDEO_POINTS = 2


@dataclass(frozen=True)
class PersamObject:
    """What is remembered of an object in a video.

    Attributes:
        target: ``(C,)`` target embedding from the frame where its mask was given.
        box: Of its mask in the last frame in which it was seen.
    """

    target: Tensor
    box: Box


class Persam(MaskMethod[PersamObject]):
    """PerSAM for pictures and videos.

    In pictures: similarity to the target gives one foreground and one background point, guides the decoder's attention
    in the first of three steps, and the target embedding is added to its tokens there; the second step has the points
    and the first one's logits, the third also the second one's box.

    In videos no guidance and no background point, but two foreground points, the previous mask's box grown by 10 px and
    its centre before that; the first step's largest mask goes on.

    Args:
        host: The SAM.
        areas_modulo_256: Take for the largest mask in videos what the published program takes for it, which counts
            pixels in a byte.

    Raises:
        ValueError: If the host has another mask decoder than SAM's, whose attention can't be guided.
    """

    name = "PerSAM"
    tasks = ("fss", "vos")

    def __init__(self, host: Host, *, areas_modulo_256: bool = False) -> None:
        super().__init__(host)
        if not isinstance(host, PromptedSamHost):
            raise ValueError(
                f"PerSAM guides the attention in SAM's own mask decoder, not in a {type(host).__name__}'s; give a SAM "
                "or a MobileSAM, or ask PerSAM-F, plain SAM or points"
            )
        self._areas_modulo_256 = areas_modulo_256

    def _segment(self, query: ImageFeatures, examples: Sequence[EncodedExample]) -> Segmentation:
        transform = self.sam.host.transform
        target = image_target(examples, transform, mean_embedding)
        found = similarity(target, query, transform)
        prompt = location_prompt(found, 1, negative=True)
        decoder = guided_decoder(
            self.sam.host.mask_decoder, attention=attention_prior(found, self.sam.grid), target=target
        )
        (first,) = self.sam.candidates(query, prompt, multimask=False, decoder=decoder)
        return self._refine(query, prompt, first)

    def start(self, frame: EncodedFrame, mask: Mask) -> PersamObject:
        """The target embedding of the frame; halfway between mean and maximum, unlike in pictures."""
        return PersamObject(video_target(frame.features, mask, self.sam.host.transform), inclusive_box(mask))

    def follow(self, frame: EncodedFrame, state: PersamObject) -> Followed[PersamObject]:
        """Three steps, the first around the previous mask."""
        found = similarity(state.target, frame.features, self.sam.host.transform)
        prompt = location_prompt(found, _VIDEO_POINTS, previous_box=state.box)
        first = max(self.sam.candidates(frame.features, prompt), key=self._area)
        return Followed(self._refine(frame.features, prompt, first), state)

    def see(self, state: PersamObject, mask: Mask) -> PersamObject:
        """The box of the mask it got."""
        return replace(state, box=inclusive_box(mask))

    def _refine(self, features: ImageFeatures, prompt: Prompt, first: Segmentation) -> Segmentation:
        """Step 2 with the points and step 1's logits, step 3 also with step 2's box; the best of three each."""
        second = best(self.sam.candidates(features, replace(prompt, box=None, mask_logits=first.low_res_logits)))
        return self.sam.refine(features, prompt, second)

    def _area(self, candidate: Segmentation) -> int:
        area = int(np.count_nonzero(candidate.mask))
        return area % 256 if self._areas_modulo_256 else area
