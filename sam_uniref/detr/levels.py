"""The four feature levels, strides 8 to 64, that fusion and transformer work on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

LEVEL_STRIDES = (8, 16, 32, 64)
_GROUPS = 32


class InputProjection(nn.Module):
    """A backbone's maps of strides 8, 16 and 32 to one width, and a fourth level of half the last one's size.

    Args:
        channels: Of the three maps.
        width: Channels C of the levels, a multiple of 32.

    Raises:
        ValueError: If the channels are not three, or the width is not such a multiple.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        if len(channels) != 3:
            raise ValueError(f"three maps are projected, of strides {LEVEL_STRIDES[:3]}; got channels {channels}")
        if width % _GROUPS:
            raise ValueError(f"the width must be a multiple of {_GROUPS}, the groups of its norms; got {width}")
        projections = [nn.Conv2d(own, width, 1) for own in channels]
        projections.append(nn.Conv2d(channels[-1], width, 3, stride=2, padding=1))
        for parameter in nn.ModuleList(projections).parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
        self.levels = nn.ModuleList(nn.Sequential(p, nn.GroupNorm(_GROUPS, width)) for p in projections)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Three maps ``(B, channels, h, w)`` to four levels ``(B, C, h, w)``, the last one half the third's size."""
        return tuple(level(own) for level, own in zip(self.levels, [*maps, maps[-1]], strict=True))
