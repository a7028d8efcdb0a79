"""A ResNet-18 trunk with a four-channel stem: image and mask go in, stages of chosen strides come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

STAGE_STRIDES = (4, 8, 16, 32)


class StoredBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that always runs on its stored statistics; weight and bias still train.

    Converted and ImageNet weights bring statistics of large batches. Ours are small (2 images a GPU, as
    published), so they are never updated and never computed from the batch.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the parent's name
        """Normalise ``(N, C, h, w)`` by the stored mean and variance."""
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with groups of 16 channels: the norm of a trunk that starts from nothing."""
    return nn.GroupNorm(max(1, channels // 16), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {"group": group_norm, "batch": StoredBatchNorm2d}


class MaskedImageResNet(nn.Module):
    """ResNet-18 (He et al. 2016) on the four channels red, green, blue, mask, up to the stages asked for.

    Parameter names are torchvision's ``resnet18``, so its weights fit; stages past the last one asked for
    do not exist.

    Args:
        strides: Strides of the feature maps to return, from 4, 8, 16, 32, ascending.
        width: Channels of the first stage (64 in ResNet-18); later stages double it.
        norm: ``"group"`` for a trunk that is trained from nothing, ``"batch"`` for stored statistics.
    """

    def __init__(self, strides: Sequence[int] = (16,), *, width: int = 64, norm: str = "group") -> None:
        super().__init__()
        unknown = [s for s in strides if s not in STAGE_STRIDES]
        if unknown or not strides or list(strides) != sorted(set(strides)):
            raise ValueError(f"strides must be ascending and from {STAGE_STRIDES}, got {tuple(strides)}")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {sorted(NORMS)}, got {norm!r}")
        make_norm = NORMS[norm]
        self.strides = tuple(strides)
        self.conv1 = nn.Conv2d(4, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(width)
        channels = width
        stage_channels = []
        for stage in range(STAGE_STRIDES.index(strides[-1]) + 1):
            out = width * 2**stage
            self.add_module(f"layer{stage + 1}", _stage(channels, out, 1 if stage == 0 else 2, make_norm))
            channels = out
            if STAGE_STRIDES[stage] in self.strides:
                stage_channels.append(out)
        self.channels = tuple(stage_channels)
        self.stages = STAGE_STRIDES.index(strides[-1]) + 1

    def forward(self, pixels: Tensor, masks: Tensor, source_index: Tensor) -> list[Tensor]:
        """Encode images together with their masks.

        Args:
            pixels: ``(B, 3, H, W)``, normalised as for the image encoder.
            masks: ``(N, 1, H, W)``, in [0, 1].
            source_index: ``(N,)`` int64, which image each mask is of.

        Returns:
            One ``(N, channels, H / stride, W / stride)`` map a stride.
        """
        x = F.relu(self.bn1(convolve_halves(self.conv1, masks.to(pixels.dtype), pixels, source_index, own_first=False)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        maps = []
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            if STAGE_STRIDES[stage] in self.strides:
                maps.append(x)
        return maps

    def load_resnet18(self, state_dict: Mapping[str, Tensor]) -> None:
        """Start from torchvision's three-channel ``resnet18`` weights; the mask channel starts at zero.

        Args:
            state_dict: That of ``torchvision.models.resnet18``; what this trunk has no use for is left out.

        Raises:
            ValueError: If the trunk has group norm, or a tensor that it needs is missing or has another shape
                (another width).
        """
        if not isinstance(self.bn1, StoredBatchNorm2d):
            # The norms' weights and biases would fit, but scale something else.
            raise ValueError("a trunk with group norm has no stored statistics; ImageNet weights need norm='batch'")
        needed = self.state_dict()
        start = {name: tensor for name, tensor in state_dict.items() if name in needed}
        if "conv1.weight" in start and start["conv1.weight"].shape[1] == 3:
            start["conv1.weight"] = F.pad(start["conv1.weight"], (0, 0, 0, 0, 0, 1))
        wrong = [name for name in needed if name not in start or start[name].shape != needed[name].shape]
        if wrong:
            raise ValueError(
                f"{len(wrong)} tensors of the ResNet-18 are missing or of another shape, such as {wrong[:3]}; "
                "ImageNet weights need width=64 and norm='batch'"
            )
        self.load_state_dict(start)


def convolve_halves(
    convolution: nn.Conv2d, own: Tensor, shared: Tensor, source_index: Tensor, *, own_first: bool = True
) -> Tensor:
    """A convolution of ``cat([own, shared[source_index]])``, with the shared channels' part computed once an image.

    Args:
        convolution: Of both halves' channels.
        own: ``(N, c, h, w)``.
        shared: ``(B, c', h, w)``.
        source_index: ``(N,)`` int64.
        own_first: Whether ``own`` comes first in the convolution's channels.
    """
    sizes = [own.shape[1], shared.shape[1]]
    first, second = convolution.weight.split(sizes if own_first else sizes[::-1], dim=1)
    weights = (first, second) if own_first else (second, first)
    step, padding = convolution.stride, convolution.padding
    by_row = F.conv2d(own, weights[0], convolution.bias, step, padding)
    by_image = F.conv2d(shared, weights[1], None, step, padding)
    return by_row + by_image[source_index]


def _stage(channels: int, out: int, stride: int, make_norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """Two basic blocks; the first one changes stride and width."""
    downsample = None
    if stride != 1 or channels != out:
        downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), make_norm(out))
    return nn.Sequential(
        BasicBlock(channels, out, stride, downsample, norm_layer=make_norm),
        BasicBlock(out, out, norm_layer=make_norm),
    )
