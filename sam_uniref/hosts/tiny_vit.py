"""TinyViT (Wu et al. 2022) as MobileSAM's image encoder, with its checkpoint's names of parameters.

What MobileSAM (Zhang et al. 2023) changed of TinyViT-5M: the last stage keeps the grid of the one before, so that the
stride is 16, and SAM's neck stands in place of the classifier.

Notation: B images, H and W the sides of the grid of tokens, C its width, S the side of a window.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 1000


class TinyVit(nn.Module):
    """The image encoder: ``(B, 3, 16 h, 16 w)`` normalised images to ``(B, out_channels, h, w)``.

    Args:
        widths: C of the four stages, the first of convolutions, the others of attention in windows.
        depths: Blocks of each.
        heads: Attention heads of the last three.
        windows: Sides of the windows of the last three, in tokens.
        out_channels: Width of the image embedding.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (64, 128, 160, 320),
        depths: tuple[int, int, int, int] = (2, 2, 6, 2),
        heads: tuple[int, int, int] = (4, 5, 10),
        windows: tuple[int, int, int] = (7, 14, 7),
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        self.patch_embed = Stem(widths[0])
        strides = (2, 2, 1)  # from a stage to the next; TinyViT's own are all 2
        merges = [Merge(*pair, stride) for pair, stride in zip(pairwise(widths), strides, strict=True)]
        first = Stage([InvertedBottleneck(widths[0]) for _ in range(depths[0])], merges[0])
        others = [
            Stage(
                [WindowBlock(width, count, side) for _ in range(depth)],
                merges[index + 1] if index + 1 < len(merges) else None,
            )
            for index, (width, depth, count, side) in enumerate(
                zip(widths[1:], depths[1:], heads, windows, strict=True)
            )
        ]
        self.layers = nn.ModuleList([first, *others])
        # The classifier that TinyViT was trained with: in the checkpoint, asked by nobody.
        self.norm_head = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, 16 h, 16 w)`` to ``(B, out_channels, h, w)``."""
        x = self.patch_embed(pixels)
        for stage in self.layers:
            x = stage(x)
        embedding: Tensor = self.neck(x)
        return embedding


class NormalisedConvolution(nn.Sequential):
    """A convolution without bias, and batch norm.

    Args:
        inputs: Channels.
        outputs: Channels.
        kernel: Side; padded so that stride 1 keeps the grid.
        stride: In cells.
        groups: Of channels.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)


class Stem(nn.Module):
    """``(B, 3, 4 H, 4 W)`` to ``(B, C, H, W)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            NormalisedConvolution(3, width // 2, 3, 2), nn.GELU(), NormalisedConvolution(width // 2, width, 3, 2)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, 4 H, 4 W)`` to ``(B, C, H, W)``."""
        x: Tensor = self.seq(pixels)
        return x


class InvertedBottleneck(nn.Module):
    """A block of the first stage: widened four times, filtered, narrowed, added. ``(B, C, H, W)`` to the same."""

    def __init__(self, width: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = expansion * width
        self.conv1 = NormalisedConvolution(width, hidden)
        self.conv2 = NormalisedConvolution(hidden, hidden, 3, groups=hidden)
        self.conv3 = NormalisedConvolution(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(hidden))


class Merge(nn.Module):
    """From a stage to the next. ``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = NormalisedConvolution(inputs, outputs)
        self.conv2 = NormalisedConvolution(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = NormalisedConvolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        merged: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return merged


class Stage(nn.Module):
    """Blocks, and the way to the next stage where there is one."""

    def __init__(self, blocks: list[InvertedBottleneck] | list[WindowBlock], downsample: Merge | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to that, or to the next stage's."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class WindowBlock(nn.Module):
    """A block of the later stages: attention in windows, a convolution, two linear layers."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = NormalisedConvolution(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        x = self.local_conv(x + self.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        tokens = x.permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Attention in windows with a learned bias for each distance between two cells.

    Args:
        width: C.
        heads: Of C / heads channels each.
        window: S.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        # Distances (down, across), in the order in which the cells of the first row, then of the others, meet them.
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        cells = torch.arange(window * window)
        down, across = cells.div(window, rounding_mode="floor"), cells % window
        distances = (down[:, None] - down).abs() * window + (across[:, None] - across).abs()
        self.register_buffer("attention_bias_idxs", distances, persistent=False)
        self.attention_bias_idxs: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` to the same."""
        height, width = x.shape[1:3]
        side = self.window
        # What fills up the last windows is attended to like any cell: a zero, normalised.
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        windows = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)  # (B, down, across, S, S, C)
        attended = self._attend(windows.flatten(3, 4).flatten(0, 2)).view(windows.shape)
        joined = attended.transpose(2, 3).flatten(1, 2).flatten(2, 3)
        return joined[:, :height, :width]

    def _attend(self, tokens: Tensor) -> Tensor:
        """``(windows, S S, C)`` to the same."""
        # Queries, keys and values of a head lie together.
        by_head = self.qkv(self.norm(tokens)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        queries, keys, values = by_head.chunk(3, dim=-1)
        bias = self.attention_biases[:, self.attention_bias_idxs]
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
        projected: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    """Normalisation and two linear layers with a GELU between. ``(..., C)`` to the same."""

    def __init__(self, width: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, expansion * width)
        self.fc2 = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` to the same."""
        widened: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return widened
