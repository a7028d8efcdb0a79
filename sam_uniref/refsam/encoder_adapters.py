"""Bottleneck adapters in the second half of SAM's image encoder, kept beside it so that it stays SAM's own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.sam import ImageEncoder


class Bottleneck(nn.Module):
    """``(..., width)`` through fewer channels and back.

    Args:
        width: Of input and output.
        reduction: The width over that of the bottleneck.
        zero_start: Its output is zero until it is trained.
    """

    def __init__(self, width: int, reduction: int, *, zero_start: bool = False) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // reduction)
        self.up = nn.Linear(width // reduction, width)
        if zero_start:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to the same."""
        return self.up(F.gelu(self.down(x)))


class EncoderAdapters(nn.Module):
    """Two adapters a block: one after its attention, with a skip; one beside its MLP, on the same normalised input.

    Args:
        encoder: SAM's, which is not changed and does not become a part of this.
        reduction: The encoder's width over that of the bottlenecks.
        scale: Of the adapters beside the MLPs.
        zero_start: The encoder is as it was until they are trained.
    """

    def __init__(
        self, encoder: ImageEncoder, *, reduction: int = 4, scale: float = 0.5, zero_start: bool = False
    ) -> None:
        super().__init__()
        width: int = encoder.patch_embed.proj.out_channels
        self.first = len(encoder.blocks) // 2
        self.scale = scale
        adapted = range(self.first, len(encoder.blocks))
        self.after_attention = nn.ModuleList(Bottleneck(width, reduction, zero_start=zero_start) for _ in adapted)
        self.beside_mlp = nn.ModuleList(Bottleneck(width, reduction, zero_start=zero_start) for _ in adapted)

    def forward(self, encoder: ImageEncoder, pixels: Tensor) -> Tensor:
        """Run the encoder with the adapters: ``(B, 3, S, S)`` to ``(B, C, h, w)``."""
        x = encoder.patch_embed(pixels)
        if encoder.pos_embed is not None:
            x = x + encoder.pos_embed
        for block in encoder.blocks[: self.first]:
            x = block(x)
        for number, block in enumerate(encoder.blocks[self.first :]):
            x = self._adapted(number, block, x)
        return encoder.neck(x.permute(0, 3, 1, 2))

    def _adapted(self, number: int, block: Any, x: Tensor) -> Tensor:
        """One block, ``(B, h, w, width)``."""
        attended = block.attn(block.norm1(x)).to(x.dtype)
        # The published one comes before the windows are joined again; cell by cell as it is, either will do.
        x = x + attended + self.after_attention[number](attended)
        normalised = block.norm2(x)
        return x + block.mlp(normalised) + self.scale * self.beside_mlp[number](normalised)
