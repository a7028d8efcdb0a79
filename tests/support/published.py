"""The published ``UniRef_Sam`` of the recorded case ``uniref_sam``, converted, and its inputs."""

from __future__ import annotations

import torch
from parity import padding, tensor, weights
from segment_anything.build_sam import _build_sam

from sam_uniref.adapters import ReferenceFeatures
from sam_uniref.adapters.text_encoder import TextEncoder
from sam_uniref.config import SamRefConfig
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.official import convert_official
from sam_uniref.sam import SamHost
from sam_uniref.samref import SamRef

SIZE = (1024, 1024)


class HiddenStates(torch.nn.Module):
    """Stands in for a language model whose hidden states, of this width, are an input of the case."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.config = type("Config", (), {"hidden_size": width, "max_position_embeddings": 512})()


def published_model() -> SamRef:
    """A small SAM at 1024 px with the recorded weights."""
    sam = _build_sam(64, 2, 2, [1])
    config = SamRefConfig.for_size("vit_h")
    config.pooling = "image"
    config.mask_encoder.norm = "batch"
    host = SamHost(sam)
    model = SamRef(host, TextEncoder(HiddenStates(768), None, host.channels), config)
    model.load_state_dict(convert_official(weights("uniref_sam")))
    return model


def encoded(model: SamRef, name: str) -> ImageFeatures:
    """Two pictures of the case."""
    with torch.no_grad():
        return model.encode_pixels(tensor(f"uniref_sam.{name}", (2, 3, 1024, 1024)), [SIZE] * 2, [SIZE] * 2)


def sentences(model: SamRef) -> ReferenceFeatures:
    """The case's two sentences."""
    assert model.text_encoder is not None
    with torch.no_grad():
        return model.text_encoder.resize(tensor("uniref_sam.text_hidden", (2, 20, 768)), padding([9, 14], 20))
