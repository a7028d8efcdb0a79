"""Image backbones: ResNet (He et al. 2016) and Swin (Liu et al. 2021), as `transformers` has them.

Two things are done otherwise than there. No norm takes statistics of a batch: ours are small, and padding would count.
And in a Swin block stochastic depth leaves out either branch, as the Swin authors have it; there only attention's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, stochastic_depth
from transformers import ResNetBackbone, ResNetConfig, SwinBackbone, SwinConfig

from sam_uniref.adapters.resnet import group_norm
from sam_uniref.detr.config import BackboneConfig

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
# What a classifier's weights lack: the norms of the four maps, which a backbone adds.
_ADDED_NORMS = "hidden_states_norms."


class Backbone(nn.Module):
    """Pictures to maps of four strides.

    Args:
        network: With four stages, all of which are its outputs.
        frozen_stages: How many are never trained, the stem being the first: 0 to 5.

    Attributes:
        channels: Of the four maps.
        strides: Of the four maps.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, network: ResNetBackbone | SwinBackbone, frozen_stages: int = 0) -> None:
        super().__init__()
        self.network = network
        self.channels: tuple[int, ...] = tuple(network.channels)
        for stage in self.stages()[:frozen_stages]:
            stage.requires_grad_(False)

    def stages(self) -> list[nn.Module]:
        """The stem and the four stages."""
        if isinstance(self.network, ResNetBackbone):
            return [self.network.embedder, *self.network.encoder.stages]
        return [self.network.swin.embeddings, *self.network.swin.encoder.layers]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Normalised pictures ``(B, 3, H, W)`` to four maps ``(B, channels, ceil(H / stride), ceil(W / stride))``."""
        return tuple(self.network(pixels).feature_maps)


def build_backbone(config: BackboneConfig, weights: str | Path | None = None) -> Backbone:
    """A backbone with random weights, or with those of a classifier.

    Args:
        config: Which one.
        weights: Hub id or local folder of a Hugging Face ResNet or Swin of the same widths, such as
            ``"microsoft/resnet-50"`` or ``"microsoft/swin-large-patch4-window12-384-in22k"``.

    Raises:
        ValueError: If the weights are of another network, or a ResNet with group norm is to start from any.
        FileNotFoundError: If there are no such weights, or the hub can't be reached.
    """
    is_swin = config.name == "swin_large"
    if weights is not None and not is_swin and config.norm != "batch":
        raise ValueError(
            "ImageNet weights come with batch normalisation; set the backbone's norm to 'batch', or give no weights"
        )
    network_class = SwinBackbone if is_swin else ResNetBackbone
    options = _swin_config(config) if is_swin else _resnet_config(config)
    network = network_class(options) if weights is None else _load(network_class, options, weights)
    if is_swin:
        # Of the whole picture, for a classifier: as a parameter it would never get a gradient.
        network.swin.layernorm = nn.Identity()
        _drop_mlp_branches(network)
    else:
        _replace_norms(network, _frozen if config.norm == "batch" else _grouped)
    return Backbone(network, config.frozen_stages)


def _resnet_config(config: BackboneConfig) -> ResNetConfig:
    """ResNet-18 or ResNet-50, the latter with its strides in the 3x3 convolutions."""
    is_deep = config.name == "resnet50"
    return ResNetConfig(
        embedding_size=config.width,
        hidden_sizes=[(4 if is_deep else 1) * config.width * 2**stage for stage in range(4)],
        depths=[3, 4, 6, 3] if is_deep else [2, 2, 2, 2],
        layer_type="bottleneck" if is_deep else "basic",
        out_features=_STAGES,
    )


def _swin_config(config: BackboneConfig) -> SwinConfig:
    """Swin-L with windows of 12 x 12."""
    return SwinConfig(
        embed_dim=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        drop_path_rate=config.drop_path,
        out_features=_STAGES,
    )


def _load(network_class: Any, options: ResNetConfig | SwinConfig, weights: str | Path) -> ResNetBackbone | SwinBackbone:
    """A network with a classifier's weights, all of which must be there."""
    try:
        network, found = network_class.from_pretrained(
            str(weights),
            config=options,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            use_safetensors=True,  # never a pickle, which could come from the net
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"backbone weights {str(weights)!r} could not be loaded ({error}); give a hub id that can be reached, or a "
            "folder with config.json and model.safetensors"
        ) from error
    missing = {name for name in found["missing_keys"] if not name.startswith(_ADDED_NORMS)}
    wrong = sorted(missing | {name for name, *_ in found["mismatched_keys"]})
    if wrong:
        raise ValueError(
            f"the weights {str(weights)!r} are of another network than the configuration's: {len(wrong)} tensors are "
            f"missing or of another shape, such as {wrong[:3]}"
        )
    return network


def _replace_norms(module: nn.Module, make: Callable[[nn.BatchNorm2d], nn.Module]) -> None:
    """Put ``make(norm)`` in the place of every batch normalisation."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            module.add_module(name, make(child))
        else:
            _replace_norms(child, make)


def _frozen(norm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    """Batch normalisation as it is stored: statistics, scale and shift are constants."""
    frozen = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
    frozen.load_state_dict(norm.state_dict())
    return frozen


def _grouped(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    """The norm of a network that starts from nothing."""
    return group_norm(norm.num_features)


def _drop_mlp_branches(network: SwinBackbone) -> None:
    """Stochastic depth for the second branch of every block, at the rate of the first."""
    for stage in network.swin.encoder.layers:
        for block in stage.blocks:
            rate = getattr(block.drop_path, "drop_prob", 0.0)
            if rate:
                block.mlp.register_forward_hook(partial(_drop_pictures, rate))


def _drop_pictures(rate: float, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A forward hook: in training the output ``(B, L, C)`` is zero for some pictures, and scaled for the others."""
    return stochastic_depth(output, rate, mode="row", training=module.training)
