"""The mask encoder: image, mask and the image's own features become the values of a reference (eq. 2).

Two residual blocks with CBAM (Woo et al. 2018) between them join the trunk's map with the image features, as
in STCN's value encoder (Cheng et al. 2021) and appendix A of UniRef++.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from sam_uniref.adapters.resnet import STAGE_STRIDES, MaskedImageResNet, convolve_halves

# Of the level that is no stage of the trunk, but made of its last one.
COARSEST_STRIDE = 64
_GROUPS = 32


class ResBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))`` without normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, h, w)`` to the same."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class JoiningResBlock(nn.Module):
    """A residual block of two maps side by side, ``skip(x) + conv(relu(conv(relu(x))))`` with a 3x3 skip."""

    def __init__(self, own: int, shared: int, out: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(own + shared, out, 3, padding=1)
        self.conv1 = nn.Conv2d(own + shared, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)

    def forward(self, own: Tensor, shared: Tensor, source_index: Tensor) -> Tensor:
        """``(N, own, h, w)`` beside rows ``source_index`` of ``(B, shared, h, w)`` to ``(N, out, h, w)``."""
        inner = convolve_halves(self.conv1, F.relu(own), F.relu(shared), source_index)
        return convolve_halves(self.skip, own, shared, source_index) + self.conv2(F.relu(inner))


class ChannelSpatialAttention(nn.Module):
    """CBAM: a gate for each channel, then a gate for each position.

    Args:
        channels: Width of the map.
        reduction: The channel gate's bottleneck divides the width by this.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.channel_gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial_gate = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``(N, C, h, w)``."""
        by_channel = self.channel_gate(x.mean(dim=(2, 3))) + self.channel_gate(x.amax(dim=(2, 3)))
        x = x * by_channel.sigmoid()[:, :, None, None]
        extremes = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * self.spatial_gate(extremes).sigmoid()


class FeatureFuser(nn.Module):
    """Join the trunk's map with the image features: ResBlock, plus CBAM of it, ResBlock."""

    def __init__(self, trunk_channels: int, feature_channels: int, out: int) -> None:
        super().__init__()
        self.block1 = JoiningResBlock(trunk_channels, feature_channels, out)
        self.attention = ChannelSpatialAttention(out)
        self.block2 = ResBlock(out)

    def forward(self, encoded: Tensor, features: Tensor, source_index: Tensor) -> Tensor:
        """``(N, trunk_channels, h, w)`` and ``(B, feature_channels, h, w)`` to ``(N, out, h, w)``."""
        x = self.block1(encoded, features, source_index)
        return self.block2(x + self.attention(x))


class MaskEncoder(nn.Module):
    """Encode an image's mask, beside the image and its features, on one or several levels.

    Args:
        feature_channels: Width C of the image features, and of the output; with stride 64 a multiple of 32.
        strides: Strides of the levels, ascending, from 4, 8, 16, 32; and after 32 also 64, a convolution of it.
        width: Width of the ResNet-18 trunk's first stage (published: 64).
        norm: ``"group"`` for fresh weights, ``"batch"`` (stored statistics) for converted or ImageNet ones.

    Raises:
        ValueError: If the strides are others, or 64 is among them without 32.
    """

    def __init__(
        self, feature_channels: int, *, strides: Sequence[int] = (16,), width: int = 64, norm: str = "group"
    ) -> None:
        super().__init__()
        strides = tuple(strides)
        stages = strides[:-1] if strides[-1:] == (COARSEST_STRIDE,) else strides
        if stages != strides and stages[-1:] != STAGE_STRIDES[-1:]:
            raise ValueError(f"stride {COARSEST_STRIDE} is made of stride 32, which must be there too; got {strides}")
        self.trunk = MaskedImageResNet(stages, width=width, norm=norm)
        channels = list(self.trunk.channels)
        self.coarsest = None
        if stages != strides:
            convolution = nn.Conv2d(channels[-1], feature_channels, 3, stride=2, padding=1)
            self.coarsest = nn.Sequential(convolution, nn.GroupNorm(_GROUPS, feature_channels))
            channels.append(feature_channels)
        self.strides = strides
        self.fusers = nn.ModuleList(FeatureFuser(own, feature_channels, feature_channels) for own in channels)

    def stages(self) -> list[nn.Module]:
        """The trunk, the blocks within it, and what joins its maps with the image's: each run by being called."""
        blocks = [module for module in self.trunk.modules() if isinstance(module, BasicBlock)]
        return [self.trunk, *blocks, *self.fusers]

    def forward(
        self, pixels: Tensor, masks: Tensor, features: Sequence[Tensor], source_index: Tensor | None = None
    ) -> list[Tensor]:
        """Encode N annotations of B images. What depends on the image alone is computed once an image.

        Args:
            pixels: ``(B, 3, H, W)``, normalised and padded as for the image encoder.
            masks: ``(N, 1, H, W)`` in [0, 1].
            features: Per level ``(B, C, h, w)``, the image encoder's output for the same images.
            source_index: ``(N,)`` int64, which image each mask is of; by default each is of its own (N = B).

        Returns:
            Per level ``(N, C, h, w)``.

        Raises:
            ValueError: If the number of levels, or a level's size, does not fit the strides.
        """
        if source_index is None:
            source_index = torch.arange(masks.shape[0], device=masks.device)
        maps = self.trunk(pixels, masks, source_index)
        if self.coarsest is not None:
            maps.append(self.coarsest(maps[-1]))
        sizes = [tuple(m.shape[-2:]) for m in maps]
        got = [tuple(f.shape[-2:]) for f in features]
        if sizes != got:
            raise ValueError(f"image features must have the sizes {sizes} of strides {self.strides}, got {got}")
        return [fuser(m, f, source_index) for fuser, m, f in zip(self.fusers, maps, features, strict=True)]
