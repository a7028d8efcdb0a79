"""Tiny models of transformers' with seeded random weights, such as hosts are made of."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import nn
from transformers import EdgeTamConfig, EdgeTamModel, Sam2Config, Sam2Model, SamHQConfig, SamHQModel

SIDE, CHANNELS = 128, 64
DECODER = {
    "hidden_size": CHANNELS,
    "mlp_dim": 96,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": CHANNELS,
}
PROMPTS = {"hidden_size": CHANNELS, "image_size": SIDE, "patch_size": 16}


def sam_hq_config() -> SamHQConfig:
    """Four layers, two of them over the whole grid."""
    return SamHQConfig(
        vision_config={
            "hidden_size": 32,
            "output_channels": CHANNELS,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 16,
            "window_size": 3,
            "global_attn_indexes": [1, 3],
            "num_pos_feats": CHANNELS // 2,
            "initializer_range": 0.02,
        },
        prompt_encoder_config={**PROMPTS, "image_embedding_size": SIDE // 16},
        mask_decoder_config={**DECODER, "vit_dim": 32},
    )


def sam2_config() -> Sam2Config:
    """A Hiera of five blocks, whose images may also be 64 or 192 pixels."""
    return Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 16,
                "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [16, 32, 64, 128],
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [128, 64, 32, 16],
            "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
            "fpn_hidden_size": CHANNELS,
        },
        prompt_encoder_config=PROMPTS,
        mask_decoder_config=DECODER,
    )


def edgetam_config() -> EdgeTamConfig:
    """RepViT-M0.9's stages as EdgeTAM has M1's: timm has none that is tinier."""
    return EdgeTamConfig(
        vision_config={
            "backbone_config": {
                "model_type": "timm_wrapper",
                "architecture": "repvit_m0_9",
                "num_classes": 1000,
                "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
            },
            "backbone_channel_list": [384, 192, 96, 48],
            "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
            "fpn_hidden_size": CHANNELS,
        },
        prompt_encoder_config=PROMPTS,
        mask_decoder_config=DECODER,
    )


MODELS: dict[str, tuple[Any, Any]] = {
    "sam_hq": (sam_hq_config, SamHQModel),
    "sam2": (sam2_config, Sam2Model),
    "edgetam": (edgetam_config, EdgeTamModel),
}


@functools.cache
def _built(kind: str) -> Any:
    config, model_class = MODELS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config()).eval()
        _stir(model)
        if hasattr(model.vision_encoder.neck, "convs"):
            _even_out(model)
    return model


def _stir(model: nn.Module) -> None:
    """Random numbers large enough, and also where a fresh model has zeros, that no prompt and no map goes unnoticed."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point() or "positional_embedding" in name:
                continue
            if "running_var" in name:
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim > 1:
                tensor.normal_(std=tensor[0].numel() ** -0.5)
            else:
                tensor += 0.1 * torch.randn_like(tensor)


@torch.no_grad()
def _even_out(model: Any) -> None:
    """Scale a feature pyramid so that its maps have deviation 1: RepViT's random weights make them huge."""

    def scale(conv: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        deviation = output.std()
        for parameter in conv.parameters():
            parameter /= deviation
        return output / deviation

    handles = [conv.register_forward_hook(scale) for conv in model.vision_encoder.neck.convs]
    model.vision_encoder(torch.randn(1, 3, SIDE, SIDE))
    for handle in handles:
        handle.remove()


def tiny_host_model(kind: str) -> Any:
    """A model of its own for the caller; skips where timm is missing and needed."""
    if kind == "edgetam":
        pytest.importorskip("timm", reason="EdgeTAM's image encoder comes from timm: pip install timm")
    return copy.deepcopy(_built(kind))
