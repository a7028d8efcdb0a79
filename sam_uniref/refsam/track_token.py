"""The track token: what a frame's mask token hands on to the next frame."""

from __future__ import annotations

from torch import Tensor, nn


class TrackToken(nn.Module):
    """A frame's mask token and the track token before it to the track token of the frame that follows.

    Args:
        channels: Width C of the tokens.
        heads: Of the attention.
        width: Of the two hidden layers.
    """

    def __init__(self, channels: int, *, heads: int = 8, width: int = 1024) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads)
        self.norm_attention = nn.LayerNorm(channels)
        self.inner = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, channels))
        self.norm_inner = nn.LayerNorm(channels)
        self.outer = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, channels))
        self.norm_outer = nn.LayerNorm(channels)

    def forward(self, token: Tensor, previous: Tensor | None = None) -> Tensor:
        """Tokens ``(T, N, C)``: T that attend to one another, N rows that do not.

        Args:
            token: The main mask token of this frame, as it leaves the decoder's transformer.
            previous: This frame's track token; None in the first frame.

        Returns:
            ``(T, N, C)``.
        """
        x = token if previous is None else token + previous
        attended, _ = self.attention(x, x, x, need_weights=False)
        y = self.norm_attention(x + attended)
        y = self.norm_inner(y + self.inner(y))
        return self.norm_outer(x + self.outer(y))
