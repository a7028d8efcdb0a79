"""The Deformable-DETR encoder: all levels' cells attend to each other by deformable attention."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.detr.config import TransformerConfig
from sam_uniref.detr.deformable_attention import DeformableAttention
from sam_uniref.detr.tokens import LevelTokens


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, added to what comes in, then LayerNorm."""

    def __init__(self, channels: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, inner)
        self.linear2 = nn.Linear(inner, channels)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., channels)`` to the same."""
        return self.norm(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward block, each normalised after it was added."""

    def __init__(self, config: TransformerConfig, levels: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(config.width, heads=config.heads, levels=levels, points=config.points)
        self.attention_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.feedforward = FeedForward(config.width, config.feedforward, config.dropout)

    def forward(self, x: Tensor, tokens: LevelTokens, references: Tensor) -> Tensor:
        """Tokens ``(N, T, C)`` and their points ``(N, T, levels, 2)`` in shares of the grids to ``(N, T, C)``."""
        attended = self.attention(x + tokens.positions, references, x, tokens)
        return self.feedforward(self.attention_norm(x + self.dropout(attended)))


class Encoder(nn.Module):
    """All layers of the encoder."""

    def __init__(self, config: TransformerConfig, levels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config, levels) for _ in range(config.encoder_layers))

    def forward(self, tokens: LevelTokens) -> Tensor:
        """Encoded tokens ``(N, T, C)``."""
        references = tokens.cell_centers()[:, :, None] * tokens.content[:, None]
        x = tokens.tokens
        for layer in self.layers:
            x = layer(x, tokens, references)
        return x
