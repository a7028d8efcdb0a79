"""``sam-uniref info``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from sam_uniref.commands.options import DeviceOption, JsonOption, chosen_device
from sam_uniref.version import __version__

if TYPE_CHECKING:
    import torch

_PACKAGES = (
    *("torch", "torchvision", "transformers", "segment-anything", "peft", "accelerate", "numpy", "pillow", "av"),
    *("flash-attn", "gradio", "onnxruntime"),
)


def info(device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Versions, devices, which attention is used, and what is packaged: models, configurations."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from huggingface_hub.constants import HF_HUB_CACHE

    from sam_uniref.packaged import PACKAGED, packaged_configurations

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    report: dict[str, Any] = {
        "sam_uniref": __version__,
        "python": platform.python_version(),
        **{package: installed(package) for package in _PACKAGES},
        **_devices(chosen_device(device)),
        "models": list(PACKAGED),
        "configurations": sorted(packaged_configurations()),
        "downloads": HF_HUB_CACHE,
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    for name, value in report.items():
        shown = ", ".join(value) if isinstance(value, list) else value or "not installed"
        typer.echo(f"{name.replace('_', ' ') if name != 'sam_uniref' else name:<18}{shown}")


def _devices(chosen: torch.device) -> dict[str, Any]:
    """What there is to compute on, what is taken, and the attention there."""
    import platform

    import torch

    from sam_uniref.adapters.attention import flash_is_usable

    flash = flash_is_usable(torch.empty(0, dtype=torch.bfloat16, device=chosen), 256)
    others = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    others += ["mps"] if torch.backends.mps.is_available() else []
    return {
        "device": str(chosen),
        "device_name": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine(),
        "devices": ["cpu", *others],
        "threads": str(torch.get_num_threads()),
        "attention": "flash-attn in half precision, torch SDPA otherwise" if flash else "torch SDPA",
    }
