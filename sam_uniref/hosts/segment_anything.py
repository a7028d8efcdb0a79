"""SAM (Kirillov et al. 2023): ViT-B, ViT-L, ViT-H and the packaged tiny one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from segment_anything.modeling import Sam
from torch import Tensor, nn

from sam_uniref.config import BaseSamConfig
from sam_uniref.hosts.family import HostFamily
from sam_uniref.hosts.host import Host
from sam_uniref.sam import SamHost, build_sam, check_image_size, load_sam_checkpoint
from sam_uniref.state import load_checked


class SegmentAnything(HostFamily):
    """segment-anything's own."""

    title = "SAM"

    def build(self, base: BaseSamConfig) -> nn.Module:
        """See `HostFamily.build`."""
        return build_sam(base.size)

    def image_size_step(self, model: nn.Module) -> tuple[int, int]:
        """The patch size."""
        encoder = cast(Sam, model).image_encoder
        return int(encoder.patch_embed.proj.kernel_size[0]), int(encoder.img_size)

    def check_image_size(self, model: nn.Module, image_size: int | None) -> None:
        """See `sam_uniref.sam.check_image_size`."""
        check_image_size(cast(Sam, model), image_size)

    def load(self, model: nn.Module, path: Path, base: BaseSamConfig) -> None:
        """segment-anything's ``.pth``, or ``.safetensors`` of the same names."""
        load_sam_checkpoint(cast(Sam, model), path, base.size)

    def load_own(self, model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
        """See `HostFamily.load_own`."""
        # SAM's pixel statistics are constants of the class and not saved.
        wanted = model.state_dict()
        constants: dict[str, Tensor] = {name: wanted[name] for name in ("pixel_mean", "pixel_std") if name in wanted}
        load_checked(model, constants | dict(state), what)

    def plug(self, model: nn.Module, image_size: int | None) -> Host:
        """See `HostFamily.plug`."""
        return SamHost(cast(Sam, model), image_size)
