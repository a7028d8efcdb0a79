"""Checkpoints of the published SAM variant (FoundationVision/UniRef, projects/UniRef, UniRef_SAM) as ours, and back."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam_uniref.adapters import TextEncoder
from sam_uniref.config import SamRefConfig
from sam_uniref.sam import SamHost, build_sam
from sam_uniref.samref import SamRef
from sam_uniref.state import file_sha256, load_checked, read_tensors

logger = logging.getLogger(__name__)

# How names begin there and here; the first match is taken, either way.
_RENAMES = [
    ("sam.mask_decoder.", "mask_decoder."),
    ("resizer.fc.", "text_encoder.resizer.linear."),
    ("resizer.layer_norm.", "text_encoder.resizer.norm."),
    ("fusion_module.norm_v.", "fusion.query_norm."),
    ("fusion_module.norm_l.", "fusion.key_norm."),
    ("fusion_module.attn.q_proj.", "fusion.attention.query."),
    ("fusion_module.attn.k_proj.", "fusion.attention.key."),
    ("fusion_module.attn.v_proj.", "fusion.attention.value."),
    ("fusion_module.attn.out_proj.", "fusion.attention.output."),
    ("fusion_module.adaLN_modulation.", "fusion.modulation."),
    ("value_encoder.fuser.block1.downsample.", "mask_encoder.fusers.0.block1.skip."),
    ("value_encoder.fuser.attention.ChannelGate.mlp.1.", "mask_encoder.fusers.0.attention.channel_gate.0."),
    ("value_encoder.fuser.attention.ChannelGate.mlp.3.", "mask_encoder.fusers.0.attention.channel_gate.2."),
    ("value_encoder.fuser.attention.SpatialGate.spatial.conv.", "mask_encoder.fusers.0.attention.spatial_gate."),
    ("value_encoder.fuser.", "mask_encoder.fusers.0."),
    ("value_encoder.", "mask_encoder.trunk."),
    ("text_encoder.", "text_encoder.model."),
]
_SIZES = {144: "tiny", 768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_POSITIONS = "sam.image_encoder.pos_embed"
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
    plain = {_plain(name): tensor for name, tensor in state_dict.items()}
    converted = {}
    for name, tensor in plain.items():
        if _UNUSED.search(name) or _is_trunk_bias(name):
            continue
        if name.startswith("value_encoder.") and name.endswith("running_mean"):
            bias = plain.get(_bias_before(name))
            tensor = tensor if bias is None else tensor - bias
        converted[_rename(name, _RENAMES)] = tensor
    for name, tensor in plain.items():
        if name.startswith("sam.mask_decoder."):
            own = (sam_state_dict or {}).get(name.removeprefix("sam."))
            converted[name] = (tensor if own is None else own).clone()
    return converted


def restore_official(state_dict: Mapping[str, Tensor], config: SamRefConfig) -> dict[str, Tensor]:
    """Names and tensors of a `SamRef` to those of the published SAM variant.

    SAM's own mask decoder has no place there. The convolutions' biases, and BERT's pooler, are zeros.

    Args:
        state_dict: All of the model's.
        config: Its configuration.

    Raises:
        ValueError: If the model has parts or options that the published code does not have.
    """
    published = _behaviour(_published_config(config.sam.size))
    own = _behaviour(config)
    other = [f"{name} is {own[name]!r} and not {value!r}" for name, value in published.items() if own[name] != value]
    if other:
        raise ValueError(f"the published code has no such SamRef: {', '.join(other)}")
    back = [(ours, published) for published, ours in _RENAMES]
    restored = {
        f"model.{_rename(name, back)}": tensor
        for name, tensor in state_dict.items()
        if not name.startswith("sam.mask_decoder.") and not _UNUSED.search(name)
    }
    for name in [name for name in restored if _is_trunk_mean(name)]:
        restored[_bias_before(name)] = torch.zeros_like(restored[name])
    words = restored.get("model.text_encoder.embeddings.word_embeddings.weight")
    if words is not None:
        width = words.shape[1]
        restored["model.text_encoder.pooler.dense.weight"] = torch.zeros(width, width)
        restored["model.text_encoder.pooler.dense.bias"] = torch.zeros(width)
    return restored


def is_official(names: Iterable[str]) -> bool:
    """Whether these are names of the published SAM variant's tensors."""
    plain = {_plain(name) for name in names}
    return _POSITIONS in plain and any(name.startswith("fusion_module.") for name in plain)


def _plain(name: str) -> str:
    """A published name without what the wrappers of training put before it."""
    return re.sub(r"^(module\.)?model\.", "", name)


def _rename(name: str, table: Sequence[tuple[str, str]]) -> str:
    """The name with the other beginning of the table's."""
    for beginning, other in table:
        if name.startswith(beginning):
            return other + name.removeprefix(beginning)
    return name


def _is_trunk_mean(name: str) -> bool:
    """Whether this is a stored mean of the mask encoder's ResNet, by its published name."""
    return name.startswith("model.value_encoder.") and name.endswith("running_mean")


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
    size: str | None = None,
    sam_checkpoint: str | Path | None = None,
    text_encoder: str | Path | None = "bert-base-uncased",
) -> SamRef:
    """A `SamRef` with the weights and the behaviour of a published checkpoint.

    Args:
        checkpoint: The published file.
        size: Size of its SAM; by default what its tensors tell.
        sam_checkpoint: The original SAM, for its untouched decoder (see `convert_official`).
        text_encoder: Hub id or folder for the tokenizer and configuration; its weights come from the file.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If the checkpoint does not fit; missing, unexpected and misshapen tensors are named.
    """
    return model_from_official(
        read_tensors(checkpoint), size=size, sam_checkpoint=sam_checkpoint, text_encoder=text_encoder
    )


def model_from_official(
    state_dict: Mapping[str, Tensor],
    *,
    size: str | None = None,
    sam_checkpoint: str | Path | None = None,
    text_encoder: str | Path | None = "bert-base-uncased",
) -> SamRef:
    """As `from_official`, from the published file's tensors."""
    config = _published_config(size or _size(state_dict))
    config.text_encoder.trained = text_encoder is not None
    host = SamHost(build_sam(config.sam.size))
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
    load_checked(model, convert_official(state_dict, own), "the published checkpoint")
    return model


def _published_config(size: str) -> SamRefConfig:
    """Of the `SamRef` that behaves as the published one."""
    config = SamRefConfig.for_size(size)
    config.pooling = "image"
    config.mask_encoder.norm = "batch"
    return config


def _behaviour(config: SamRefConfig) -> dict[str, Any]:
    """What answers depend on beside weights, and which weights there are, by dotted name."""
    values = asdict(config)
    sections = {name: values[name] for name in ("fusion", "mask_encoder", "lora")}
    options = {f"{section}.{name}": value for section, own in sections.items() for name, value in own.items()}
    training = ("fusion.dropout", "fusion.zero_init", "lora.rank", "lora.alpha", "lora.dropout")
    return {name: value for name, value in options.items() if name not in training} | {"pooling": config.pooling}


def _size(state_dict: Mapping[str, Tensor]) -> str:
    """Which SAM a published checkpoint is plugged into."""
    positions = {_plain(name): tensor for name, tensor in state_dict.items()}.get(_POSITIONS)
    size = None if positions is None else _SIZES.get(positions.shape[-1])
    if size is None:
        raise ValueError(f"the checkpoint does not tell the size of its SAM ({_POSITIONS}); say which with size=")
    return size
