"""SAM's image encoder with segment-anything's weights and parameter names, made for a frozen one.

What is different from segment-anything's own is the order of the work, not the answer:

- attention never holds all its logits, and relative positions are one matrix product (`relative_attention`);
- cells that fill up the last windows are not projected: all of them have the queries, keys and values of a zero;
- patches are one matrix product, and normalisation over channels runs where the channels lie together;
- on a CPU without gradients a block is done a stripe of the picture at a time, so that what lies between its layers
  stays in the cache and is never asked of the system, and its weights are laid out once for all stripes;
- in half precision the weights of the matrix products are held in it, once; the sums from block to block, the
  normalisation and the softmax stay as exact as they were.

Notation: B images, H and W the sides of the grid of tokens, C its width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling import image_encoder as originals
from segment_anything.modeling.common import LayerNorm2d, MLPBlock
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.sam import windows
from sam_uniref.sam.linear_layers import Apply, apply_linear, laid_out
from sam_uniref.sam.relative_attention import attend_augmented, attend_flex, attend_in_blocks, relative_table
from sam_uniref.sam.resize import interpolate_relative_positions
from sam_uniref.transforms import Size

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Tokens of a stripe: few enough for the cache, enough for matrix products at full speed.
STRIPE_TOKENS = 1024
# From so many tokens on a compiled kernel with the bias inside beats one with longer queries and keys.
FLEX_TOKENS = 1024

RunBlock = Callable[[nn.Module, Tensor], Tensor]


class ImageEncoder(nn.Module):
    """A SAM's image encoder.

    Args:
        encoder: segment-anything's; its weights become this one's, under the same names.

    Attributes:
        img_size: Side of the input square in pixels.
        run_frozen_block: How blocks are run where no gradients are asked for: `run_block`, or that compiled.
    """

    def __init__(self, encoder: ImageEncoderViT) -> None:
        super().__init__()
        self.img_size = encoder.img_size
        self.patch_embed = PatchEmbedding(encoder.patch_embed.proj)
        self.pos_embed = encoder.pos_embed
        self.blocks = nn.ModuleList(EncoderBlock(block) for block in encoder.blocks)
        self.neck = Neck(*encoder.neck)
        self.run_frozen_block: RunBlock = run_block

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, S, S)`` normalised images to ``(B, C, h, w)``, contiguous and of the pixels' dtype."""
        x = self.patch_embed(pixels)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        run = run_block if needs_gradient(self, x) else self.run_frozen_block
        for block in self.blocks:
            x = run(block, x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return embedding.to(pixels.dtype).contiguous()

    def hold_in(self, precision: str) -> None:
        """Hold the weights of the matrix products in a precision, which they are then computed in.

        Positions, normalisation and LoRA stay as they are.

        Raises:
            ValueError: If the precision is unknown.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"the encoder's precision must be one of {tuple(PRECISIONS)}, got {precision!r}")
        for layer in self.product_layers().values():
            layer.to(PRECISIONS[precision])

    def product_layers(self) -> dict[str, nn.Module]:
        """By name, the layers whose weights are those of matrix products."""
        layers = {n: m for n, m in self.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        return {name: layer for name, layer in layers.items() if "lora_" not in name}

    @property
    def precision(self) -> str:
        """That the weights of the matrix products are held in."""
        held = self.patch_embed.proj.weight.dtype
        return next((name for name, precision in PRECISIONS.items() if precision == held), str(held))

    @property
    def is_rounded(self) -> bool:
        """Whether weights are held in less than float32."""
        return any(parameter.dtype != torch.float32 for parameter in self.parameters())


def run_block(block: nn.Module, x: Tensor) -> Tensor:
    """One function for all blocks: compiled, blocks of one kind share what was compiled."""
    return block(x)


def needs_gradient(module: nn.Module, x: Tensor) -> bool:
    """Whether gradients are to flow through a module."""
    return torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters()))


class PatchEmbedding(nn.Module):
    """Patches to tokens.

    Args:
        proj: segment-anything's convolution, whose stride is its kernel's size.
    """

    def __init__(self, proj: nn.Conv2d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, h P, w P)`` to ``(B, h, w, C)`` of the pixels' dtype."""
        side = self.proj.kernel_size[0]
        batch, channels, height, width = pixels.shape
        patches = pixels.view(batch, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
        patches = patches.to(self.proj.weight.dtype).flatten(3)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias).to(pixels.dtype)


class Linears(NamedTuple):
    """The linear layers of a block; GELU belongs to the first of the last two."""

    qkv: Apply
    proj: Apply
    lin1: Apply
    lin2: Apply


class EncoderBlock(nn.Module):
    """A block of the transformer: attention, in windows or over the whole grid, and two linear layers.

    Args:
        block: segment-anything's.
    """

    def __init__(self, block: originals.Block) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn = Attention(block.attn, block.window_size)
        self.norm2 = block.norm2
        self.mlp = Mlp(block.mlp)

    @property
    def window_size(self) -> int:
        """Side of a window in tokens; 0 for the whole grid."""
        side: int = self.attn.window_size
        return side

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` to the same."""
        if not x.is_cpu or torch.compiler.is_compiling() or needs_gradient(self, x):
            return self._whole(x, self._linears())
        layers = self._laid_out() if x[..., 0].numel() > STRIPE_TOKENS else self._linears()
        if self.window_size > 0:
            return in_stripes(lambda part: self._whole(part, layers), x, multiple=self.window_size)
        projected = in_stripes(lambda part: layers.qkv(self.norm1(part)), x)
        attended = self.attn.attend(projected)
        return in_stripes(lambda part, beside: self._after(part, beside, layers), x, attended)

    def _linears(self) -> Linears:
        """As they are."""
        attention, mlp = self.attn, self.mlp
        return Linears(attention.project, attention.output, mlp.widen, mlp.narrow)

    def _laid_out(self) -> Linears:
        """For several stripes."""
        attention, mlp = self.attn, self.mlp
        layers = (attention.qkv, attention.proj, mlp.lin1, mlp.lin2)
        return Linears(*(laid_out(layer, STRIPE_TOKENS, gelu=layer is mlp.lin1) for layer in layers))

    def _whole(self, x: Tensor, layers: Linears) -> Tensor:
        """The block at once."""
        return self._after(x, self.attn.attend(layers.qkv(self.norm1(x))), layers)

    def _after(self, x: Tensor, attended: Tensor, layers: Linears) -> Tensor:
        """The block's rest, cell by cell."""
        x = x + layers.proj(attended)
        added = layers.lin2(layers.lin1(self.norm2(x)))
        return x + added if torch.is_grad_enabled() and (x.requires_grad or added.requires_grad) else x.add_(added)


class Attention(nn.Module):
    """Attention with several heads and relative positions.

    Args:
        attention: segment-anything's.
        window_size: Side of its windows in tokens; 0 for the whole grid.

    Raises:
        ValueError: If it has no relative positions, which every released SAM has.
    """

    def __init__(self, attention: originals.Attention, window_size: int) -> None:
        super().__init__()
        if not attention.use_rel_pos:
            raise ValueError("an image encoder without relative positions is no SAM's; build one with use_rel_pos=True")
        self.num_heads = attention.num_heads
        self.window_size = window_size
        self.qkv = attention.qkv
        self.proj = attention.proj
        self.rel_pos_h = attention.rel_pos_h
        self.rel_pos_w = attention.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)``, the whole grid or lines of whole windows, to the same in the weights' precision."""
        return self.output(self.attend(self.project(x)))

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values: ``(B, H, W, C)`` to ``(B, H, W, 3 C)``."""
        return apply_linear(self.qkv, x)

    def output(self, attended: Tensor) -> Tensor:
        """``(B, H, W, C)`` to the same."""
        return apply_linear(self.proj, attended)

    def attend(self, projected: Tensor) -> Tensor:
        """Attention in windows or over the grid: ``(B, H, W, 3 C)`` to ``(B, H, W, C)``."""
        batch, height, width, _ = projected.shape
        side = self.window_size
        tokens = projected.unflatten(-1, (3, self.num_heads, -1))
        if side > 0:
            padding = None
            if height % side or width % side:
                zero = projected.new_zeros(1, projected.shape[-1] // 3)
                padding = self.project(zero)[0].to(projected.dtype).unflatten(-1, (3, self.num_heads, -1))
            by_head = windows.cut(tokens, side, padding)
            queries, keys, values = by_head.flatten(1, 4).flatten(2, 3)
            attended = self._attend_rows(queries, keys, values, (side, side))
            return windows.join(attended.view(by_head.shape[1:]), height, width)
        by_head = tokens.permute(3, 0, 4, 1, 2, 5).reshape(3, batch * self.num_heads, height * width, -1)
        queries, keys, values = by_head
        attended = self._attend_rows(queries, keys, values, (height, width))
        return attended.view(batch, self.num_heads, height, width, -1).permute(0, 2, 3, 1, 4).flatten(3)

    def _attend_rows(self, queries: Tensor, keys: Tensor, values: Tensor, grid: Size) -> Tensor:
        """``(N, L, D)`` each, to the same, by the fastest way there is here."""
        height, width = grid
        heights = interpolate_relative_positions(self.rel_pos_h, height)
        widths = interpolate_relative_positions(self.rel_pos_w, width)
        table = relative_table(heights, widths).to(queries.dtype)
        # Everything is in one precision already; what has no values has no autocast either.
        plain = queries.is_meta or torch.compiler.is_exporting()
        with nullcontext() if plain else torch.autocast(queries.device.type, enabled=False):
            if torch.is_grad_enabled() and (queries.requires_grad or table.requires_grad):
                return attend_augmented(queries, keys, values, table, grid)
            if queries.is_cpu and not torch.compiler.is_exporting():
                return attend_in_blocks(queries, keys, values, table, height, width)
            if torch.compiler.is_compiling() and queries.is_cuda and queries.shape[1] >= FLEX_TOKENS:
                return attend_flex(queries, keys, values, table, grid)
            return attend_augmented(queries, keys, values, table, grid)


class Mlp(nn.Module):
    """Two linear layers with a GELU between.

    Args:
        mlp: segment-anything's.
    """

    def __init__(self, mlp: MLPBlock) -> None:
        super().__init__()
        self.lin1 = mlp.lin1
        self.lin2 = mlp.lin2

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` to the same in the weights' precision."""
        return self.narrow(self.widen(x))

    def widen(self, x: Tensor) -> Tensor:
        """The first layer, and the GELU."""
        return apply_linear(self.lin1, x, gelu=True)

    def narrow(self, hidden: Tensor) -> Tensor:
        """The second layer."""
        return apply_linear(self.lin2, hidden)


class Neck(nn.Sequential):
    """Two convolutions to the embedding, normalised over channels after each."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)``, best a view of ``(B, h, w, C)``, to ``(B, C', h, w)``, such a view."""
        layers: tuple[Any, ...] = tuple(self)
        narrow, first_norm, smooth, second_norm = layers
        x = x.permute(0, 2, 3, 1).to(narrow.weight.dtype)
        x = _normalised(F.linear(x, narrow.weight.flatten(1)), first_norm)
        x = smooth(x.to(smooth.weight.dtype).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return _normalised(x, second_norm).permute(0, 3, 1, 2)


def _normalised(x: Tensor, norm: LayerNorm2d) -> Tensor:
    """``(..., C)`` by one of segment-anything's ``LayerNorm2d``, which works on ``(B, C, h, w)``."""
    return F.layer_norm(x.to(norm.weight.dtype), norm.weight.shape, norm.weight, norm.bias, norm.eps)


def in_stripes(function: Callable[..., Tensor], *grids: Tensor, multiple: int = 1) -> Tensor:
    """Apply a function to a few pictures, or to a few lines of one picture, at a time.

    What it makes on the way then stays in the cache, and is small enough for the C library to use its memory again
    instead of asking the system for it.

    Args:
        function: Of a part of each grid, to a part of the result.
        grids: ``(B, H, W, ...)`` each.
        multiple: Of which a stripe's number of lines is one.

    Returns:
        ``(B, H, W, ...)``.
    """
    batch, height, width = grids[0].shape[:3]
    pictures = max(1, STRIPE_TOKENS // (height * width))
    lines = height if height * width <= STRIPE_TOKENS else max(1, STRIPE_TOKENS // width // multiple) * multiple
    if pictures >= batch and lines >= height:
        return function(*grids)
    whole: Tensor | None = None
    for first in range(0, batch, pictures):
        for line in range(0, height, lines):
            at = (slice(first, first + pictures), slice(line, line + lines))
            part = function(*(grid[at] for grid in grids))
            if whole is None:
                whole = part.new_empty(batch, height, *part.shape[2:])
            whole[at] = part
    return function(*grids) if whole is None else whole  # no pictures, no stripes
