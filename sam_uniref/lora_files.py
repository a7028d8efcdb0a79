"""LoRA of a saved model in ``peft``'s own format: a folder an encoder, which ``peft`` loads onto the encoder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sam_uniref.adapters import has_lora
from sam_uniref.state import read_tensors

if TYPE_CHECKING:
    from sam_uniref.samref import SamRef
    from sam_uniref.trainable import TrainableModel

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
# Names of tensors as peft's models have them, and as layers with LoRA have them.
_ROOT, _ADAPTER = "base_model.model.", ".default.weight"


def lora_encoders(model: SamRef) -> dict[str, tuple[nn.Module, str]]:
    """The encoders that can have LoRA, as their folders call them, and how the names of their tensors begin."""
    encoders: dict[str, tuple[nn.Module, str]] = {"image": (model.sam.image_encoder, "sam.image_encoder.")}
    if model.text_encoder is not None:
        encoders["text"] = (model.text_encoder.model, "text_encoder.model.")
    return encoders


def write_lora(model: TrainableModel, trained: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Write what of the trained tensors is LoRA, as ``peft.PeftModel.from_pretrained(encoder, folder)`` reads it.

    Args:
        model: That they are of.
        trained: By the model's names.
        folder: Of the model; ``lora_image`` and ``lora_text`` are made in it where there is any.

    Returns:
        The others.
    """
    from safetensors.torch import save_file

    lora = {name: tensor for name, tensor in trained.items() if "lora_" in name}
    if lora:
        for kind, (_, prefix) in _encoders_with_lora(model).items():
            own = folder / f"lora_{kind}"
            own.mkdir()
            state = {_peft_name(n, prefix): t for n, t in lora.items() if n.startswith(prefix)}
            save_file(state, own / WEIGHTS_FILE, {"format": "pt"})
            (own / CONFIG_FILE).write_text(json.dumps(_peft_config(model, kind), indent=2) + "\n")
    return {name: tensor for name, tensor in trained.items() if name not in lora}


def read_lora(model: TrainableModel, folder: Path) -> dict[str, Tensor]:
    """LoRA by the model's names; empty where it has none, or was saved among what else is trained, as it once was.

    Raises:
        ValueError: If a file is broken.
    """
    state: dict[str, Tensor] = {}
    for kind, (_, prefix) in _encoders_with_lora(model).items():
        path = folder / f"lora_{kind}" / WEIGHTS_FILE
        tensors = read_tensors(path) if path.is_file() else {}
        state |= {_own_name(name, prefix): tensor for name, tensor in tensors.items()}
    return state


def _encoders_with_lora(model: TrainableModel) -> dict[str, tuple[nn.Module, str]]:
    """Those of a SamRef; the other kinds of model have none."""
    if not hasattr(model.config, "lora"):
        return {}
    encoders = lora_encoders(model)  # type: ignore[arg-type]
    return {kind: entry for kind, entry in encoders.items() if has_lora(entry[0])}


def _peft_name(name: str, prefix: str) -> str:
    """``sam.image_encoder.….lora_A.default.weight`` as ``base_model.model.….lora_A.weight``."""
    return _ROOT + name.removeprefix(prefix).removesuffix(_ADAPTER) + ".weight"


def _own_name(name: str, prefix: str) -> str:
    """The other way round."""
    return prefix + name.removeprefix(_ROOT).removesuffix(".weight") + _ADAPTER


def _peft_config(model: Any, kind: str) -> dict[str, Any]:
    """What ``peft`` must know to put the LoRA beside the layers of the encoder that it was trained for."""
    from peft import LoraConfig

    lora = model.config.lora
    image = kind == "image"
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.image_targets if image else lora.text_targets),
        base_model_name_or_path=model.config.sam.checkpoint if image else model.config.text_encoder.name,
        inference_mode=True,
    )
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
