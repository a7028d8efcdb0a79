"""SAM's image encoder as several implementations have it, with the same random weights, and the memory each takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import Tensor, nn

from sam_uniref.sam import ImageEncoder, build_sam
from sam_uniref.sam.compilation import CompiledBlocks
from sam_uniref.sam.image_encoder import PRECISIONS
from sam_uniref.sam.resize import resize_sam

ORIGINAL, TRANSFORMERS, OURS, COMPILED = "segment-anything", "transformers SDPA", "sam_uniref", "sam_uniref compiled"
IMPLEMENTATIONS = (ORIGINAL, TRANSFORMERS, OURS, COMPILED)
Encode = Callable[[Tensor], Tensor]
"""``(B, 3, S, S)`` float32 to ``(B, C, h, w)``."""

# What transformers calls the layers of segment-anything's encoder.
_TRANSFORMERS_NAMES = {
    "patch_embed.proj.": "patch_embed.projection.",
    "blocks.": "layers.",
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    "neck.0.": "neck.conv1.",
    "neck.1.": "neck.layer_norm1.",
    "neck.2.": "neck.conv2.",
    "neck.3.": "neck.layer_norm2.",
}


@dataclass(frozen=True)
class Case:
    """What is built and asked.

    Attributes:
        implementation: One of `IMPLEMENTATIONS`.
        model: One of `sam_uniref.sam.SAM_SIZES`.
        precision: One of `PRECISIONS`: of weights and products.
        image_size: Side of the input square in pixels.
        batch_size: Pictures at once.
        device: Its name.
        threads: Of the CPU.
        picture: A picture and a point to masks, see `whole_pictures`, and not the image encoder alone.
    """

    implementation: str
    model: str
    precision: str
    image_size: int
    batch_size: int
    device: str
    threads: int
    picture: bool = False


def random_sam(size: str, image_size: int | None) -> Sam:
    """segment-anything's; the encoder's tables of positions, which are zeros at first, are random too.

    Raises:
        ValueError: If the image size is no multiple of the patch size.
    """
    torch.manual_seed(0)
    sam = build_sam(size).requires_grad_(False)
    for name, parameter in sam.image_encoder.named_parameters():
        if "pos" in name:
            parameter.normal_(0, 0.1)
    if image_size is not None:
        resize_sam(sam, image_size)
    return sam


def random_encoder(size: str, image_size: int | None) -> ImageEncoderViT:
    """The image encoder of a `random_sam`."""
    return random_sam(size, image_size).image_encoder


def noise(case: Case) -> Tensor:
    """The pictures, ``(B, 3, S, S)`` float32 as if normalised."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(case.batch_size, 3, case.image_size, case.image_size, generator=generator).to(case.device)


def build(case: Case, encoder: ImageEncoderViT) -> Encode:
    """An implementation that encodes as segment-anything's does; in float32 it shares its weights."""
    if case.implementation in (OURS, COMPILED):
        shared = ImageEncoder(encoder)
        ours = shared if case.precision == "float32" else copy.deepcopy(shared)
        ours.hold_in(case.precision)
        if case.implementation == COMPILED:
            ours.run_frozen_block = CompiledBlocks()
        return ours.to(case.device).eval()
    precision = PRECISIONS[case.precision]
    other = encoder if case.implementation == ORIGINAL else _transformers_encoder(encoder)
    module = other if case.precision == "float32" else copy.deepcopy(other).to(precision)
    module.to(case.device).eval()

    def encode(pixels: Tensor) -> Tensor:
        embedding = module(pixels.to(precision))
        return embedding if isinstance(embedding, Tensor) else embedding.last_hidden_state

    return encode


def _transformers_encoder(encoder: ImageEncoderViT) -> nn.Module:
    """That of transformers with the very weights of segment-anything's."""
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    config = vision_config(encoder)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        other = SamVisionEncoder(config)
    other.load_state_dict(renamed(encoder.state_dict(), _TRANSFORMERS_NAMES), assign=True)
    return other.requires_grad_(False)


def vision_config(encoder: ImageEncoderViT) -> Any:
    """What transformers builds the same encoder from."""
    from transformers.models.sam.configuration_sam import SamVisionConfig

    first, windowed = encoder.blocks[0], [block.window_size for block in encoder.blocks]
    return SamVisionConfig(
        hidden_size=encoder.pos_embed.shape[-1],
        output_channels=encoder.neck[0].out_channels,
        num_pos_feats=encoder.neck[0].out_channels // 2,
        num_hidden_layers=len(encoder.blocks),
        num_attention_heads=first.attn.num_heads,
        image_size=encoder.img_size,
        patch_size=encoder.patch_embed.proj.kernel_size[0],
        mlp_dim=first.mlp.lin1.out_features,
        window_size=max(windowed),
        global_attn_indexes=[index for index, window in enumerate(windowed) if window == 0],
    )


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors by other names, of which parts are replaced one after another."""
    found = {}
    for name, tensor in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        found[name] = tensor
    return found
