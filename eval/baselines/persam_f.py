"""PerSAM-F (Zhang et al. 2023): PerSAM without guidance, and with two numbers learned an object.

Our own implementation from the facts of ZrrSkywalker/Personalize-SAM at a7e8724, and within 1e-4 of it on pictures.
Several examples are our choice: the mean of their target embeddings, and weights that are learned on all of them at
once. What else is our choice stands in `sam_uniref.eval.baselines.persam`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sam_uniref.eval.baselines.mask_method import EncodedExample, MaskMethod
from sam_uniref.eval.baselines.mask_tracker import EncodedFrame, Followed
from sam_uniref.eval.baselines.mask_weights import (
    IMAGE_SCHEDULE,
    VIDEO_SCHEDULE,
    Lesson,
    Schedule,
    learn_mask_weights,
)
from sam_uniref.eval.baselines.prompting import Box, Prompt, best, inclusive_box
from sam_uniref.eval.baselines.target import (
    image_target,
    location_prompt,
    mean_and_max_embedding,
    similarity,
    video_target,
)
from sam_uniref.hosts import Host
from sam_uniref.images import Mask
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.segmentation import Segmentation


@dataclass(frozen=True)
class WeightedObject:
    """What is remembered of an object in a video.

    Attributes:
        target: ``(C,)`` target embedding from the frame where its mask was given.
        weights: ``(3,)`` of SAM's three masks, learned in that frame.
        box: Of its mask in the last frame in which it was seen.
    """

    target: Tensor
    weights: Tensor
    box: Box


class PersamF(MaskMethod[WeightedObject]):
    """PerSAM-F for pictures and videos.

    One foreground point, where the picture is most similar to the target; in videos also the previous mask's box grown
    by 10 px and its centre. SAM's three masks are added up by weights learned on the annotated picture itself, and the
    sum's box and logits go on to two more steps.

    Args:
        host: The SAM.
        image_schedule: How the weights are learned from examples; as published by default.
        video_schedule: And from an object's first mask in a video.
    """

    name = "PerSAM-F"
    tasks = ("fss", "vos")

    def __init__(
        self, host: Host, *, image_schedule: Schedule = IMAGE_SCHEDULE, video_schedule: Schedule = VIDEO_SCHEDULE
    ) -> None:
        super().__init__(host)
        self._image_schedule = image_schedule
        self._video_schedule = video_schedule

    def _segment(self, query: ImageFeatures, examples: Sequence[EncodedExample]) -> Segmentation:
        target = image_target(examples, self.sam.host.transform, mean_and_max_embedding)
        lessons = [self._lesson(e.features, e.mask, self._prompt(e.features, target, None)) for e in examples]
        weights = learn_mask_weights(lessons, self._image_schedule)
        return self._answer(query, self._prompt(query, target, None), weights)

    def start(self, frame: EncodedFrame, mask: Mask) -> WeightedObject:
        """Target embedding and weights of the frame."""
        target, box = video_target(frame.features, mask, self.sam.host.transform), inclusive_box(mask)
        lesson = self._lesson(frame.features, mask, self._prompt(frame.features, target, box))
        return WeightedObject(target, learn_mask_weights([lesson], self._video_schedule), box)

    def follow(self, frame: EncodedFrame, state: WeightedObject) -> Followed[WeightedObject]:
        """Three steps, the first around the previous mask."""
        prompt = self._prompt(frame.features, state.target, state.box)
        return Followed(self._answer(frame.features, prompt, state.weights), state)

    def see(self, state: WeightedObject, mask: Mask) -> WeightedObject:
        """The box of the mask it got."""
        return replace(state, box=inclusive_box(mask))

    def _prompt(self, features: ImageFeatures, target: Tensor, previous_box: Box | None) -> Prompt:
        """The most similar pixel, and in videos the previous mask's box, grown, and its centre."""
        found = similarity(target, features, self.sam.host.transform)
        return location_prompt(found, 1, previous_box=previous_box)

    def _lesson(self, features: ImageFeatures, mask: Mask, prompt: Prompt) -> Lesson:
        """SAM's three masks in an annotated picture beside the right one."""
        logits = np.stack([candidate.logits for candidate in self.sam.candidates(features, prompt)])
        device = self.sam.device
        return Lesson(torch.from_numpy(logits).to(device), torch.from_numpy(mask).to(device))

    def _answer(self, features: ImageFeatures, prompt: Prompt, weights: Tensor) -> Segmentation:
        """Step 1 adds three masks up, steps 2 and 3 start from the box and logits of the one before."""
        first = weighted_sum(self.sam.candidates(features, prompt), weights)
        second = self.sam.refine(features, prompt, first)
        return self.sam.refine(features, prompt, second)


def weighted_sum(candidates: Sequence[Segmentation], weights: Tensor) -> Segmentation:
    """The candidates' logits added up, at full size and at low resolution; the score is the best one's.

    Args:
        candidates: Of one picture.
        weights: One each.
    """
    factors = weights.cpu().numpy()
    logits = np.tensordot(factors, np.stack([c.logits for c in candidates]), 1)
    low_res = np.tensordot(factors, np.stack([c.low_res_logits for c in candidates]), 1)
    return Segmentation(logits > 0, best(candidates).score, logits, low_res)
