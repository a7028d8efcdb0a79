"""EdgeTAM (Zhou et al. 2025) as an image model: RepViT, and the rest as SAM 2 has it."""

from __future__ import annotations

import importlib.util
from typing import Any, cast

from torch import nn

from sam_uniref.config import BaseSamConfig
from sam_uniref.hosts.host import Host
from sam_uniref.hosts.sam2 import COARSEST_STRIDE, Sam2Host
from sam_uniref.hosts.transformers_host import TransformersFamily


class EdgeTam(TransformersFamily):
    """The one released, and any ``EdgeTamModel``, also in a folder of the video model."""

    title = "EdgeTAM"
    model_type = "edgetam"

    def classes(self) -> tuple[type[Any], type[Any]]:
        """See `TransformersFamily.classes`."""
        from transformers import EdgeTamConfig, EdgeTamModel

        return EdgeTamConfig, EdgeTamModel

    def build(self, base: BaseSamConfig) -> nn.Module:
        """See `HostFamily.build`. The image encoder is ``timm``'s."""
        if importlib.util.find_spec("timm") is None:
            raise ImportError("EdgeTAM's image encoder comes from timm, which is not installed; pip install timm")
        if base.architecture is not None:
            self.architecture_of(base.architecture)
        return super().build(base)

    def architecture_of(self, source: Any) -> dict[str, Any]:
        """Without the names of the thousand classes that the image encoder once told apart."""
        architecture = super().architecture_of(source)
        vision = architecture.get("vision_config", {})
        backbone = vision.get("backbone_config", {})
        kept = {key: value for key, value in backbone.items() if key != "label_names"}
        _check_timm_name(str(kept.get("architecture", "")))
        return {**architecture, "vision_config": {**vision, "backbone_config": kept}}

    def named_architecture(self, name: str) -> dict[str, Any]:
        """RepViT-M1."""
        backbone = {
            "model_type": "timm_wrapper",
            "architecture": "repvit_m1",
            "num_classes": 1000,
            "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        }
        return {"vision_config": {"backbone_config": backbone}}

    def image_size_step(self, model: nn.Module) -> tuple[int, int]:
        """Of the coarsest map."""
        return COARSEST_STRIDE, int(cast(Any, model).config.prompt_encoder_config.image_size)

    def plug(self, model: nn.Module, image_size: int | None) -> Host:
        """See `HostFamily.plug`."""
        return Sam2Host(model, image_size or self.image_size_step(model)[1])


def _check_timm_name(name: str) -> None:
    """Refuse what timm would ask the net for, or look for among files: its own models are plain words."""
    if not name.replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"the image encoder of an EdgeTAM is one of timm's, such as 'repvit_m1', got {name!r}")
