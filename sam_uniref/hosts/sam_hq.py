"""SAM-HQ (Ke et al. 2023): SAM with a mask decoder that also sees an early map of the image encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sam_uniref.hosts.host import Host
from sam_uniref.hosts.transformers_host import PIXEL_MEAN, PIXEL_STD, TransformersFamily, TransformersHost
from sam_uniref.sam.resize import interpolate_positions, interpolate_relative_positions
from sam_uniref.transforms import SquareTransform


class SamHqHost(TransformersHost):
    """A frozen SAM-HQ.

    Args:
        model: A ``SamHQModel``, whose weights become the host's.
        image_size: Side of the input square in pixels, a positive multiple of the patch size.
    """

    def __init__(self, model: Any, image_size: int) -> None:
        tables = _resize(model, image_size)
        super().__init__(model, SquareTransform(image_size, PIXEL_MEAN, PIXEL_STD))
        self.own_tables = tables

    def encode(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """``(B, 3, S, S)`` to a level ``(B, C, h, w)``; the first global block's ``(B, D, h, w)`` beside."""
        output = self.image_encoder(pixels)
        first = output.intermediate_embeddings[0].permute(0, 3, 1, 2)
        return (output.last_hidden_state,), (first.contiguous(),)

    def decoder_skips(self, skips: Sequence[Tensor]) -> dict[str, Any]:
        """See `TransformersHost.decoder_skips`."""
        return {
            "intermediate_embeddings": [skip.permute(0, 2, 3, 1) for skip in skips],
            "hq_token_only": False,  # the sum of SAM's mask and the new token's, as released
        }

    def without_points(self, rows: int) -> Tensor:
        """None."""
        return torch.zeros(rows, 1, 0, self.channels, device=next(self.parameters()).device)


class SamHq(TransformersFamily):
    """SAM-HQ's three sizes, and any ``SamHQModel``."""

    title = "SAM-HQ"
    model_type = "sam_hq"

    def classes(self) -> tuple[type[Any], type[Any]]:
        """See `TransformersFamily.classes`."""
        from transformers import SamHQConfig, SamHQModel

        return SamHQConfig, SamHQModel

    def named_architecture(self, name: str) -> dict[str, Any]:
        """SAM's published sizes."""
        width, layers, heads, attention = {
            "sam_hq_vit_b": (768, 12, 12, [2, 5, 8, 11]),
            "sam_hq_vit_l": (1024, 24, 16, [5, 11, 17, 23]),
            "sam_hq_vit_h": (1280, 32, 16, [7, 15, 23, 31]),
        }[name]
        vision = {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "global_attn_indexes": attention,
        }
        return {"vision_config": vision, "mask_decoder_config": {"vit_dim": width}}

    def image_size_step(self, model: nn.Module) -> tuple[int, int]:
        """The patch size."""
        config = cast(Any, model).config.vision_config
        return int(config.patch_size), int(config.image_size)

    def plug(self, model: nn.Module, image_size: int | None) -> Host:
        """See `HostFamily.plug`."""
        return SamHqHost(model, image_size or self.image_size_step(model)[1])


def _resize(model: Any, image_size: int) -> dict[str, Tensor]:
    """Make a SAM-HQ take images of another size, in place, as `sam_uniref.sam.resize.resize_sam` does with a SAM.

    Returns:
        Its tables of positions as they were, by their names in its checkpoints; none where the size is its own.
    """
    encoder = model.vision_encoder
    if image_size == encoder.image_size:
        return {}
    grid = image_size // int(model.config.vision_config.patch_size)
    tables = {}
    for name, table in list(encoder.named_parameters()):
        owner, _, attribute = name.rpartition(".")
        module = encoder.get_submodule(owner)
        if name == "pos_embed":
            resized = interpolate_positions(table.detach(), grid)
        elif (
            attribute in ("rel_pos_h", "rel_pos_w")
            and encoder.get_submodule(owner.removesuffix(".attn")).window_size == 0
        ):
            resized = interpolate_relative_positions(table.detach(), grid)
        else:
            continue
        tables[f"vision_encoder.{name}"] = table.detach()
        setattr(module, attribute, nn.Parameter(resized, table.requires_grad))
    encoder.image_size = image_size
    encoder.patch_embed.image_size = (image_size, image_size)
    prompts = model.prompt_encoder
    prompts.input_image_size = image_size
    prompts.image_embedding_size = (grid, grid)
    return tables
