"""The backbones' tensors: what FoundationVision/UniRef calls them, and what `sam_uniref.detr.backbone` does.

Tables have one entry a published tensor: its name, and the names of ours that make it up, joined along the first
dimension. Nearly always that is one; Swin's queries, keys and values are three here and one there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Names = dict[str, tuple[str, ...]]

_PUBLISHED = "detr.detr.backbone.0.backbone"
_OURS = "backbone.network"
_SWIN = f"{_OURS}.swin"
# Blocks of the four stages.
_RESNET50 = (3, 4, 6, 3)
_SWIN_LARGE = (2, 2, 18, 2)
_WINDOW = 12

AFFINE = ("weight", "bias")
STORED_NORM = ("weight", "bias", "running_mean", "running_var")


def pair(published: str, ours: str, leaves: Iterable[str] = AFFINE) -> Names:
    """The tensors of one module that are alike."""
    return {f"{published}.{leaf}": (f"{ours}.{leaf}",) for leaf in leaves}


def resnet50_names() -> Names:
    """ResNet-50: 265 tensors."""
    names = _convolution(f"{_PUBLISHED}.stem.conv1", f"{_OURS}.embedder.embedder")
    for stage, blocks in enumerate(_RESNET50):
        for block in range(blocks):
            published = f"{_PUBLISHED}.res{stage + 2}.{block}"
            ours = f"{_OURS}.encoder.stages.{stage}.layers.{block}"
            if block == 0:
                names |= _convolution(f"{published}.shortcut", f"{ours}.shortcut")
            for number in range(3):
                names |= _convolution(f"{published}.conv{number + 1}", f"{ours}.layer.{number}")
    return names


def swin_large_names() -> Names:
    """Swin-L: 333 tensors, without the tables of relative positions, which are constants of its window's size."""
    names = pair(f"{_PUBLISHED}.patch_embed.proj", f"{_SWIN}.embeddings.patch_embeddings.projection")
    names |= pair(f"{_PUBLISHED}.patch_embed.norm", f"{_SWIN}.embeddings.norm")
    for stage, blocks in enumerate(_SWIN_LARGE):
        published, ours = f"{_PUBLISHED}.layers.{stage}", f"{_SWIN}.encoder.layers.{stage}"
        for block in range(blocks):
            names |= _swin_block(f"{published}.blocks.{block}", f"{ours}.blocks.{block}")
        if stage < 3:
            names |= pair(f"{published}.downsample.reduction", f"{ours}.downsample.reduction", ["weight"])
            names |= pair(f"{published}.downsample.norm", f"{ours}.downsample.norm")
        names |= pair(f"{_PUBLISHED}.norm{stage}", f"{_OURS}.hidden_states_norms.stage{stage + 1}")
    return names


def swin_large_positions() -> dict[str, Tensor]:
    """Swin-L's tables of relative positions: for each two cells of a window the row of the bias table, (144, 144)."""
    cell = torch.arange(_WINDOW**2)
    row, column = cell // _WINDOW, cell % _WINDOW
    rows = row[:, None] - row[None] + _WINDOW - 1
    columns = column[:, None] - column[None] + _WINDOW - 1
    table = rows * (2 * _WINDOW - 1) + columns
    return {
        f"{_PUBLISHED}.layers.{stage}.blocks.{block}.attn.relative_position_index": table
        for stage, blocks in enumerate(_SWIN_LARGE)
        for block in range(blocks)
    }


def _convolution(published: str, ours: str) -> Names:
    """A convolution and its norm on stored statistics."""
    names = pair(published, f"{ours}.convolution", ["weight"])
    return names | pair(f"{published}.norm", f"{ours}.normalization", STORED_NORM)


def _swin_block(published: str, ours: str) -> Names:
    """A block of window attention."""
    names = pair(f"{published}.norm1", f"{ours}.layernorm_before")
    names |= pair(
        f"{published}.attn",
        f"{ours}.attention.relative_position_bias",
        ["relative_position_bias_table"],
    )
    for leaf in AFFINE:
        joined = tuple(f"{ours}.attention.{part}_proj.{leaf}" for part in ("q", "k", "v"))
        names[f"{published}.attn.qkv.{leaf}"] = joined
    names |= pair(f"{published}.attn.proj", f"{ours}.attention.o_proj")
    names |= pair(f"{published}.norm2", f"{ours}.layernorm_after")
    return names | pair(f"{published}.mlp.fc1", f"{ours}.mlp.fc1") | pair(f"{published}.mlp.fc2", f"{ours}.mlp.fc2")
