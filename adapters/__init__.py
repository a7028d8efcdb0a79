"""The plug-in: UniFusion, the reference encoders and LoRA. It knows no SAM and no DETR."""

from sam_uniref.adapters.attention import CrossAttention
from sam_uniref.adapters.frames import FrameKeys, FrameReference, FrameReferences
from sam_uniref.adapters.lora import add_lora, has_lora, lora_disabled, merge_lora
from sam_uniref.adapters.mask_encoder import MaskEncoder
from sam_uniref.adapters.references import ReferenceFeatures, concat, stack_rows
from sam_uniref.adapters.resnet import MaskedImageResNet
from sam_uniref.adapters.text_encoder import SentenceEncoder, TextEncoder, load_text_model
from sam_uniref.adapters.unifusion import ReferenceFusion, SeparateUniFusion, UniFusion, build_fusion

__all__ = [
    "CrossAttention",
    "FrameKeys",
    "FrameReference",
    "FrameReferences",
    "MaskEncoder",
    "MaskedImageResNet",
    "ReferenceFeatures",
    "ReferenceFusion",
    "SentenceEncoder",
    "SeparateUniFusion",
    "TextEncoder",
    "UniFusion",
    "add_lora",
    "build_fusion",
    "concat",
    "has_lora",
    "load_text_model",
    "lora_disabled",
    "merge_lora",
    "stack_rows",
]
