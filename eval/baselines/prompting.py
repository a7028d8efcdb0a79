"""SAM asked with its own prompts, as segment-anything's predictor asks it: pictures in, masks at their size out.

Coordinates are (x, y) in the picture's pixels; a box is ``(x0, y0, x1, y1)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sam_uniref.adapters import has_lora
from sam_uniref.hosts import Host
from sam_uniref.images import ImageLike, Mask, load_image
from sam_uniref.interfaces import ImageFeatures, Prompts
from sam_uniref.segmentation import Segmentation, bounding_box
from sam_uniref.transforms import Size

Box = tuple[float, float, float, float]

BOX_MARGIN = 10
"""By how many pixels PerSAM grows the box of the previous frame's mask on every side."""


@dataclass(frozen=True)
class Prompt:
    """What SAM is told about one object.

    Attributes:
        points: ``(P, 2)`` float64, or None.
        labels: ``(P,)`` int64 with points: 1 foreground, 0 background.
        box: The object's box, or None.
        mask_logits: ``(1, h, w)`` float32 low-res logits of an earlier answer, or None.
    """

    points: NDArray[np.float64] | None = None
    labels: NDArray[np.int64] | None = None
    box: Box | None = None
    mask_logits: NDArray[np.float32] | None = None


class PromptedSam:
    """A frozen SAM, or another host, that answers prompts about pictures it has encoded.

    Args:
        host: Of any kind, size and image size.

    Raises:
        ValueError: If LoRA sits in the image encoder: that is no SAM as it was released.
    """

    def __init__(self, host: Host) -> None:
        if has_lora(host.image_encoder):
            raise ValueError(
                "this SAM's image encoder has LoRA layers; give a SAM as it was released (build_sam, "
                "load_sam_checkpoint and SamHost of sam_uniref.sam)"
            )
        self.host = host

    @property
    def device(self) -> torch.device:
        """Where SAM is."""
        return next(self.host.parameters()).device

    @property
    def grid(self) -> Size:
        """``(h, w)`` of the image embedding."""
        side = self.host.transform.size // self.host.strides[0]
        return side, side

    @property
    def mask_input_size(self) -> Size:
        """``(h, w)`` of the low-res logits that it gives and takes."""
        side = self.host.transform.size // self.host.low_res_stride
        return side, side

    @torch.no_grad()
    def encode(self, image: ImageLike) -> ImageFeatures:
        """Encode one picture.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If it is broken or no picture.
        """
        picture = load_image(image)
        pixels, input_size = self.host.transform.image(picture)
        return self.host.image_features(
            pixels[None].to(self.device), [input_size], [(picture.shape[0], picture.shape[1])]
        )

    @torch.no_grad()
    def candidates(
        self, features: ImageFeatures, prompt: Prompt, *, multimask: bool = True, decoder: Any = None
    ) -> list[Segmentation]:
        """The masks that SAM gives for one prompt.

        Args:
            features: Of one picture.
            prompt: At least one of its fields.
            multimask: Its three candidates, or the single mask.
            decoder: In place of SAM's own mask decoder, one with its attributes.

        Returns:
            Three or one; their scores are the predicted IoU.
        """
        (size,), (input_size,) = features.original_sizes, features.input_sizes
        low_res, scores = self.host.decode(
            features.levels[0],
            self._prompts(prompt, size),
            None,
            self.host.mask_decoder if decoder is None else decoder,
            skips=features.skips,
            multimask=multimask,
        )
        logits = self.host.transform.logits(low_res.float(), input_size, size)[0].cpu().numpy()
        small = low_res[0].float().cpu().numpy()
        return [
            Segmentation(full > 0, score, full, low[None])
            for full, score, low in zip(logits, scores[0].tolist(), small, strict=True)
        ]

    def refine(
        self, features: ImageFeatures, prompt: Prompt, answer: Segmentation, *, multimask: bool = True
    ) -> Segmentation:
        """Ask again, with the box of an answer's mask and its logits beside the prompt's points.

        Where the mask is empty there is no box.

        Returns:
            The candidate with the best score.
        """
        box = inclusive_box(answer.mask) if answer.mask.any() else None
        again = replace(prompt, box=box, mask_logits=answer.low_res_logits)
        return best(self.candidates(features, again, multimask=multimask))

    def _prompts(self, prompt: Prompt, size: Size) -> Prompts:
        """One row, in the input square."""

        def scaled(coordinates: Any) -> torch.Tensor:
            pairs = np.asarray(coordinates, np.float64).reshape(-1, 2)
            return self.host.transform.points(pairs, size).to(self.device)

        def row(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(array)[None].to(self.device)

        return Prompts(
            torch.zeros(1, dtype=torch.int64, device=self.device),
            points=None if prompt.points is None else scaled(prompt.points)[None],
            labels=None if prompt.labels is None else row(prompt.labels),
            boxes=None if prompt.box is None else scaled(prompt.box).reshape(1, 4),
            mask_logits=None if prompt.mask_logits is None else row(prompt.mask_logits),
        )


def best(candidates: Sequence[Segmentation]) -> Segmentation:
    """The one with the highest score."""
    return max(candidates, key=lambda candidate: candidate.score)


def inclusive_box(mask: Mask) -> Box:
    """The smallest and the largest x and y of a mask's pixels.

    Raises:
        ValueError: If the mask is empty.
    """
    box = bounding_box(mask)
    if box is None:
        raise ValueError("an empty mask has no box")
    return box[0], box[1], box[2] - 1, box[3] - 1


def grown_box(box: Box, size: Size, margin: float = BOX_MARGIN) -> Box:
    """A box with a margin in pixels on every side, cut at the picture's edges.

    Args:
        box: In a picture of the size.
        size: ``(height, width)``.
        margin: In pixels; by default PerSAM's in videos.
    """
    x0, y0, x1, y1 = box
    return max(x0 - margin, 0), max(y0 - margin, 0), min(x1 + margin, size[1]), min(y1 + margin, size[0])
