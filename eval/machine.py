"""What figures are measured on."""

from __future__ import annotations

import platform

import torch


def device_line(device: torch.device) -> str:
    """The device in words."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{device.type} {name}{threads}, PyTorch {torch.__version__}"


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
