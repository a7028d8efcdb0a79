"""MobileSAM (Zhang et al. 2023): a TinyViT that was taught SAM ViT-H's image embedding, and SAM's own decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from segment_anything.modeling import Sam
from torch import Tensor, nn

from sam_uniref.config import BaseSamConfig
from sam_uniref.hosts.family import HostFamily
from sam_uniref.hosts.host import Host
from sam_uniref.hosts.tiny_vit import TinyVit
from sam_uniref.sam import PromptedSamHost
from sam_uniref.sam.build import prompted_sam
from sam_uniref.state import load_checked, read_tensors

IMAGE_SIZE, STRIDE, CHANNELS = 1024, 16, 256


class MobileSamHost(PromptedSamHost):
    """The frozen MobileSAM, at any multiple of 16 px: nothing in it is a table of positions of the whole picture.

    Args:
        sam: With its weights loaded, which become the host's.
        image_size: Side of the input square in pixels.
    """

    def __init__(self, sam: Sam, image_size: int) -> None:
        grid = image_size // STRIDE
        prompts = sam.prompt_encoder
        prompts.input_image_size = (image_size, image_size)
        prompts.image_embedding_size = (grid, grid)
        prompts.mask_input_size = (4 * grid, 4 * grid)
        super().__init__(sam, sam.image_encoder, image_size)


class MobileSam(HostFamily):
    """The one released, whose checkpoint is ``mobile_sam.pt``."""

    title = "MobileSAM"

    def build(self, base: BaseSamConfig) -> nn.Module:
        """See `HostFamily.build`."""
        encoder = TinyVit(out_channels=CHANNELS)
        return prompted_sam(encoder, image_size=IMAGE_SIZE, stride=STRIDE, channels=CHANNELS, mlp_width=2048, heads=8)

    def image_size_step(self, model: nn.Module) -> tuple[int, int]:
        """The stride."""
        return STRIDE, IMAGE_SIZE

    def load(self, model: nn.Module, path: Path, base: BaseSamConfig) -> None:
        """The released ``mobile_sam.pt``, or ``.safetensors`` of the same names."""
        self.load_own(model, read_tensors(path), f"{path} as {self.title}")

    def load_own(self, model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
        """See `HostFamily.load_own`."""
        load_checked(model, state, what)

    def plug(self, model: nn.Module, image_size: int | None) -> Host:
        """See `HostFamily.plug`."""
        return MobileSamHost(cast(Sam, model), image_size or IMAGE_SIZE)
