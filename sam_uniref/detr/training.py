"""The training path of a UniRef: references are fused, everything is matched, masks are built for what is matched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sam_uniref.adapters import ReferenceFeatures
from sam_uniref.detr.boxinst import colour_similarity
from sam_uniref.detr.criterion import Matches, set_losses
from sam_uniref.detr.mask_head import MASK_STRIDE
from sam_uniref.detr.set_targets import set_targets
from sam_uniref.interfaces import ImageFeatures, Targets

if TYPE_CHECKING:
    from sam_uniref.detr.uniref import UniRef


def training_losses(
    model: UniRef, features: ImageFeatures, references: Sequence[ReferenceFeatures], targets: Targets
) -> dict[str, Tensor]:
    """The losses of a batch, unweighted, by name; see `sam_uniref.detr.criterion.set_losses`.

    Args:
        model: Its ``loss_options`` say which losses there are.
        features: B images.
        references: Kinds of reference, each with N rows; none for detection, where a row is an image.
        targets: Of the N rows.

    Raises:
        ValueError: If there are not as many targets as rows, or a label is not among the model's classes.
    """
    options = model.loss_options
    output, image_index = model.run(features, references)
    images = image_index.tolist()
    sizes = [features.input_sizes[image] for image in images]
    goals = set_targets(targets, sizes, features.canvas, model.device)
    upsample = MASK_STRIDE if options.full_resolution and only_frames(references) else 1

    def build_masks(matches: Matches) -> Tensor:
        return model.build_masks(output, matches.row, matches.query, sizes, layers=matches.layer, upsample=upsample)

    def compare_colours() -> Tensor:
        originals = [features.original_sizes[image] for image in images]
        return colour_similarity(pictures(model, features.pixels)[image_index], sizes, originals)

    content = None
    if model.own_canvases:
        content = torch.cat([~padding[image_index].flatten(1) for padding in features.padding], dim=1)
    return set_losses(
        output,
        goals,
        build_masks,
        features.valid_pixels()[image_index],
        options,
        None if targets.instances is None else compare_colours,
        content,
    )


def pictures(model: UniRef, pixels: Tensor) -> Tensor:
    """Normalised images ``(B, 3, H, W)`` as they were, RGB in 0-255; padding is of the mean colour."""
    mean, std = (torch.tensor(tuple(v), device=pixels.device) for v in (model.transform.mean, model.transform.std))
    return (pixels.float() * std[:, None, None] + mean[:, None, None]).round()


def only_frames(references: Sequence[ReferenceFeatures]) -> bool:
    """Whether an object is followed through frames by its masks alone."""
    return bool(references) and all(reference.kind == "frames" for reference in references)
