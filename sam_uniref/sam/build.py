"""SAM from segment-anything's own classes: ViT-B, ViT-L, ViT-H, and a tiny one for tests and teaching."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from sam_uniref.state import load_checked, read_tensors

# ImageNet's mean and deviation in 0-255, as every released SAM has them.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
SAM_SIZES = ("tiny", "vit_b", "vit_l", "vit_h")


def build_sam(size: str) -> Sam:
    """A SAM with random weights at its own image size, in evaluation mode.

    Args:
        size: One of `SAM_SIZES`.

    Raises:
        ValueError: If the size is unknown.
    """
    if size not in SAM_SIZES:
        raise ValueError(f"SAM size must be one of {SAM_SIZES}, got {size!r}")
    return _build_tiny() if size == "tiny" else sam_model_registry[size](checkpoint=None)


def _build_tiny(image_size: int = 128, patch_size: int = 8, channels: int = 128) -> Sam:
    """2.3 million parameters: 128 px, a 16 x 16 grid, low-res masks of 64 x 64."""
    return prompted_sam(
        ImageEncoderViT(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=144,
            depth=6,
            num_heads=3,
            mlp_ratio=4,
            out_chans=channels,
            qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=8,
            global_attn_indexes=(2, 5),
        ),
        image_size=image_size,
        stride=patch_size,
        channels=channels,
        mlp_width=512,
        heads=4,
    )


def prompted_sam(
    image_encoder: nn.Module, *, image_size: int, stride: int, channels: int, mlp_width: int, heads: int
) -> Sam:
    """An image encoder with SAM's prompt encoder and mask decoder, in evaluation mode.

    Args:
        image_encoder: ``(B, 3, S, S)`` to ``(B, C, S / stride, S / stride)``.
        image_size: S in pixels.
        stride: Of the image embedding, in pixels.
        channels: C.
        mlp_width: Of the mask decoder's transformer.
        heads: Of its attention.
    """
    grid = image_size // stride
    sam = Sam(
        image_encoder=cast(ImageEncoderViT, image_encoder),
        prompt_encoder=PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=mlp_width, num_heads=heads),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=channels,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam.eval()


def load_sam_checkpoint(sam: Sam, path: str | Path, size: str) -> None:
    """Load a SAM checkpoint, ``.pth`` (tensors only) or ``.safetensors``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is broken or of another size; missing, unexpected and misshapen tensors are named.
    """
    state_dict = read_tensors(path)
    embedding = state_dict.get("image_encoder.pos_embed")
    width = sam.image_encoder.pos_embed.shape[-1]
    if embedding is not None and embedding.shape[-1] != width:
        raise ValueError(
            f"{path} is a SAM of width {embedding.shape[-1]}, but {size!r} has width {width} "
            "(vit_b 768, vit_l 1024, vit_h 1280, tiny 144); give its own size"
        )
    load_checked(sam, state_dict, f"{path} as SAM {size!r}")
