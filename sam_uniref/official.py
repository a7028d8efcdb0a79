"""Checkpoints of the published SAM variant (FoundationVision/UniRef, projects/UniRef, UniRef_SAM) as ours."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sam_uniref.adapters import TextEncoder
from sam_uniref.config import SamRefConfig
from sam_uniref.sam import SamHost, build_sam
from sam_uniref.samref import SamRef
from sam_uniref.state import file_sha256, load_checked, read_tensors

logger = logging.getLogger(__name__)

# Published name -> our name, in order; the first match is taken.
_RENAMES = [
    (r"^sam\.mask_decoder\.", "mask_decoder."),
    (r"^resizer\.fc\.", "text_encoder.resizer.linear."),
    (r"^resizer\.layer_norm\.", "text_encoder.resizer.norm."),
    (r"^fusion_module\.norm_v\.", "fusion.query_norm."),
    (r"^fusion_module\.norm_l\.", "fusion.key_norm."),
    (r"^fusion_module\.attn\.q_proj\.", "fusion.attention.query."),
    (r"^fusion_module\.attn\.k_proj\.", "fusion.attention.key."),
    (r"^fusion_module\.attn\.v_proj\.", "fusion.attention.value."),
    (r"^fusion_module\.attn\.out_proj\.", "fusion.attention.output."),
    (r"^fusion_module\.adaLN_modulation\.", "fusion.modulation."),
    (r"^value_encoder\.fuser\.block1\.downsample\.", "mask_encoder.fusers.0.block1.skip."),
    (
        r"^value_encoder\.fuser\.attention\.ChannelGate\.mlp\.1\.",
        "mask_encoder.fusers.0.attention.channel_gate.0.",
    ),
    (
        r"^value_encoder\.fuser\.attention\.ChannelGate\.mlp\.3\.",
        "mask_encoder.fusers.0.attention.channel_gate.2.",
    ),
    (
        r"^value_encoder\.fuser\.attention\.SpatialGate\.spatial\.conv\.",
        "mask_encoder.fusers.0.attention.spatial_gate.",
    ),
    (r"^value_encoder\.fuser\.", "mask_encoder.fusers.0."),
    (r"^value_encoder\.", "mask_encoder.trunk."),
    (r"^text_encoder\.(?!model\.|resizer\.)", "text_encoder.model."),
]
# The pooler of BERT is loaded and never used; SAM's pixel statistics and BERT's position ids are constants.
_UNUSED = re.compile(r"^text_encoder\.pooler\.|\.position_ids$|^sam\.pixel_(mean|std)$|^pixel_(mean|std)$")


def convert_official(
    state_dict: Mapping[str, Tensor], sam_state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Names and tensors of the published SAM variant to those of a `SamRef`.

    The published trunk has a bias on every convolution, before batch normalisation. Ours, as torchvision's, has
    none: the bias is taken off the stored mean, which is the same function.

    Args:
        state_dict: The published one, with or without its leading ``model.``.
        sam_state_dict: The original SAM's, for its untouched mask decoder. The published file has only the
            finetuned one; without this argument that one stands in for both.

    Returns:
        For ``SamRef.load_state_dict``, or a part of it if only a part was given. The model must be built with
        ``norm="batch"`` and ``pooling="image"``; `from_official` does so.
    """
    plain = {re.sub(r"^(module\.)?model\.", "", name): tensor for name, tensor in state_dict.items()}
    converted = {}
    for name, tensor in plain.items():
        if _UNUSED.search(name) or _is_trunk_bias(name):
            continue
        if name.startswith("value_encoder.") and name.endswith("running_mean"):
            bias = plain.get(_bias_before(name))
            tensor = tensor if bias is None else tensor - bias
        converted[_rename(name)] = tensor
    for name, tensor in plain.items():
        if name.startswith("sam.mask_decoder."):
            own = (sam_state_dict or {}).get(name.removeprefix("sam."))
            converted[name] = (tensor if own is None else own).clone()
    return converted


def _rename(name: str) -> str:
    """Our name for a published one."""
    for pattern, replacement in _RENAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def _is_trunk_bias(name: str) -> bool:
    """Whether this is the bias of a convolution in the mask encoder's ResNet."""
    return bool(re.match(r"^value_encoder\.(layer\d\.\d\.)?(conv\d|downsample\.0)\.bias$", name))


def _bias_before(running_mean: str) -> str:
    """Name of the bias of the convolution that a stored mean belongs to."""
    name = re.sub(r"\.downsample\.1\.running_mean$", ".downsample.0.bias", running_mean)
    return re.sub(r"bn(\d)\.running_mean$", r"conv\1.bias", name)


def from_official(
    checkpoint: str | Path,
    *,
    size: str = "vit_h",
    sam_checkpoint: str | Path | None = None,
    text_encoder: str | Path | None = "bert-base-uncased",
) -> SamRef:
    """A `SamRef` with the weights and the behaviour of a published checkpoint.

    Args:
        checkpoint: The published file.
        size: Size of its SAM.
        sam_checkpoint: The original SAM, for its untouched decoder (see `convert_official`).
        text_encoder: Hub id or folder for the tokenizer and configuration; its weights come from the file.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If the checkpoint does not fit; missing, unexpected and misshapen tensors are named.
    """
    config = SamRefConfig.for_size(size)
    config.pooling = "image"
    config.mask_encoder.norm = "batch"
    config.text_encoder.trained = text_encoder is not None
    host = SamHost(build_sam(size))
    text = None
    if text_encoder is not None:
        config.text_encoder.name = str(text_encoder)
        text = TextEncoder.from_name(text_encoder, host.channels, random_weights=True)
    model = SamRef(host, text, config)
    own = None
    if sam_checkpoint is None:
        logger.warning("prompts without a reference will use the finetuned decoder: no sam_checkpoint= was given")
    else:
        own = read_tensors(sam_checkpoint)
        config.sam.checkpoint, config.sam.sha256 = Path(sam_checkpoint).name, file_sha256(sam_checkpoint)
    load_checked(model, convert_official(read_tensors(checkpoint), own), f"{checkpoint}")
    return model
