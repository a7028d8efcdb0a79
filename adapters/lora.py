"""LoRA (Hu et al. 2022) on chosen linear layers of an encoder, through ``peft``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


def add_lora(
    module: nn.Module, targets: Sequence[str], *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0
) -> list[str]:
    """Put LoRA beside linear layers, in place. The module's own parameters are frozen.

    Args:
        module: An image or text encoder.
        targets: Endings of the layers' names, such as ``["qkv"]`` for SAM's ViT or ``["query", "value"]`` for BERT.
        rank: Rank of the update.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: Dropout before the update's first matrix.

    Returns:
        Names of the parameters that were added.

    Raises:
        ValueError: If a target matches no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    for target in targets:
        if not any(name == target or name.endswith("." + target) for name in linear):
            endings = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise ValueError(f"LoRA target {target!r} matches no linear layer; their names end in {endings}")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets))
    inject_adapter_in_model(config, module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return [name for name, _ in module.named_parameters() if "lora_" in name]


def merge_lora(module: nn.Module) -> None:
    """Add each update to the layer that it is beside, in place, and leave it out: the same outputs but for rounding.

    Raises:
        ValueError: If layers are held in another precision than their updates, and nothing is changed; or a merged
            weight is not finite, and nothing of that layer is changed.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in layers:
        held = layer.get_base_layer().weight.dtype
        if any(p.dtype != held for n, p in layer.named_parameters() if "lora_" in n):
            raise ValueError(
                f"{name} is held in {held}, where much of LoRA would be rounded away; load the model in float32, merge "
                'it, and then hold its encoder in half precision, as with model.sam.speed_up_encoder("bf16")'
            )
    for name, layer in layers:
        layer.merge(safe_merge=True)
        module.set_submodule(name, layer.get_base_layer())


def has_lora(module: nn.Module) -> bool:
    """Whether `add_lora` was applied to the module."""
    return any("lora_" in name for name, _ in module.named_parameters())


@contextmanager
def lora_disabled(module: nn.Module) -> Iterator[None]:
    """Run the module as it was before `add_lora`."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
    # peft also switches requires_grad with the adapters; what was frozen must stay so.
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(trained[name])
