"""The published UniRef's weights, rebuilt from its names, and its recorded outputs.

Both lie in the shared folder, ``reference/uniref`` (``SAM_UNIREF_SHARED``, default ``../shared``); its README says
how they were made.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import fill_value, load_shapes
from parity import recorded

from sam_uniref.detr.official_backbones import swin_large_positions

FOLDER = Path(os.environ.get("SAM_UNIREF_SHARED", Path(__file__).parents[3] / "shared")) / "reference" / "uniref"
_HEADS = (
    ("detr.detr.transformer.decoder.bbox_embed.", "detr.detr.bbox_embed."),
    ("detr.detr.transformer.decoder.class_embed.", "detr.detr.class_embed."),
)
_SMALL = ("output_proj.weight", "out_proj.weight", "linear2.weight")


def uniref_recorded(case: str) -> dict[str, np.ndarray]:
    """All arrays recorded for a case; without the shared folder the test is skipped."""
    if not (FOLDER / f"{case}.npz").is_file():
        pytest.skip(f"no recorded values at {FOLDER}; set SAM_UNIREF_SHARED")
    return recorded(case, FOLDER)


def uniref_shapes(model: str) -> dict[str, list[int]]:
    """The published names and shapes of ``r50`` or ``swinl``; without the shared folder the test is skipped."""
    if not (FOLDER / f"{model}.params.json").is_file():
        pytest.skip(f"no published names at {FOLDER}; set SAM_UNIREF_SHARED")
    return load_shapes(FOLDER / f"{model}.params.json")


def uniref_weight(name: str, shape: list[int]) -> torch.Tensor:
    """The value of one published tensor, as the README's rules have it."""
    for alias, own in _HEADS:
        name = name.replace(alias, own)
    value = fill_value(name, tuple(shape))
    if name == "detr.detr.class_embed.6.weight":
        value = -value
    if name == "detr.detr.query_embed.weight":
        value = value * 16
    if name.startswith("detr.detr.transformer.") and name.endswith(_SMALL):
        value = value * 0.25
    if name.startswith("detr.controller.layers.2."):
        value = value * 0.5
    if name == "detr.controller.layers.2.bias":
        value[168] += 4.0
    return value


def uniref_weights(model: str, prefix: str = "") -> dict[str, torch.Tensor]:
    """The published state dict, or the part of it whose names begin with ``prefix``."""
    positions = swin_large_positions()
    return {
        name: positions[name] if name in positions else uniref_weight(name, shape)
        for name, shape in uniref_shapes(model).items()
        if name.startswith(prefix)
    }


def assert_within(
    got: torch.Tensor, expected: dict[str, np.ndarray], name: str, part: tuple = (), *, atol: float = 1e-4
) -> None:
    """Compare a slice with the recorded array, and the whole tensor's statistics with the recorded ones.

    Statistics are mean, deviation and greatest absolute value of what is finite. A fourth number, the distance of the
    published code from itself in double precision, is not compared.
    """
    got = got.detach()
    values = got[part] if part else got
    np.testing.assert_allclose(values.numpy(), expected[name], rtol=0, atol=atol, err_msg=name)
    if f"{name}.stats" in expected:
        finite = got[got.isfinite()].double()
        stats = [finite.mean().item(), finite.std(unbiased=False).item(), finite.abs().max().item()]
        np.testing.assert_allclose(stats, expected[f"{name}.stats"][:3], rtol=0, atol=atol, err_msg=name)
