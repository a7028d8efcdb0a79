"""UniRef's backbones against recorded outputs of the published code (FoundationVision/UniRef at 16442cf).

Cases ``backbone_r50`` and ``backbone_swinl`` of reference/uniref.
"""

from __future__ import annotations

import pytest
import torch
from parity import tensor
from uniref_parity import assert_within, uniref_recorded, uniref_weights

from sam_uniref.detr.backbone import Backbone, build_backbone
from sam_uniref.detr.config import UniRefConfig
from sam_uniref.detr.official_backbones import Names, resnet50_names, swin_large_names, swin_large_positions

PUBLISHED = "detr.detr.backbone."
EVERY = slice(None)


# What is recorded of each map.
PARTS = {
    "res2": (EVERY, slice(None, None, 8), slice(None, None, 8), slice(None, None, 8)),
    "res3": (EVERY, slice(None, None, 16), slice(None, None, 4), slice(None, None, 4)),
    "res4": (EVERY, slice(None, None, 32), slice(None, None, 2), slice(None, None, 2)),
    "res5": (EVERY, slice(None, None, 64)),
}


def published_backbone(model: str, names: Names) -> Backbone:
    """With the recorded weights, all of which are used."""
    weights = uniref_weights(model, PUBLISHED)
    backbone = build_backbone(UniRefConfig.for_size(model).backbone).eval()
    state = {}
    for published, ours in names.items():
        state |= zip(ours, weights.pop(published).chunk(len(ours)), strict=True)
    assert all(name.endswith("relative_position_index") for name in weights)
    backbone.load_state_dict({name.removeprefix("backbone."): value for name, value in state.items()})
    return backbone


def assert_maps_match(backbone: Backbone, case: str, size: tuple[int, int], atol: float) -> None:
    height, width = size
    expected = uniref_recorded(case)
    with torch.no_grad():
        maps = backbone(tensor(f"uniref.{case}.image.{height}x{width}", (1, 3, height, width)))
    assert tuple(found.shape[1] for found in maps) == backbone.channels
    for (name, part), found in zip(PARTS.items(), maps, strict=True):
        assert_within(found, expected, f"{height}x{width}.{name}", part, atol=atol)


def test_resnet50() -> None:
    assert_maps_match(published_backbone("r50", resnet50_names()), "backbone_r50", (256, 320), 1e-4)


@pytest.fixture(scope="module")
def swin_large() -> Backbone:
    return published_backbone("swinl", swin_large_names())


@pytest.mark.parametrize("size", [(384, 384), (256, 320)])
def test_swin_large(swin_large: Backbone, size: tuple[int, int]) -> None:
    """With windows that fill the maps, and with some that are padded."""
    assert_maps_match(swin_large, "backbone_swinl", size, 5e-5)


def test_swin_positions_are_those_of_the_published_tables(swin_large: Backbone) -> None:
    for stage in swin_large.network.swin.encoder.layers:
        for block in stage.blocks:
            own = block.attention.relative_position_bias.relative_position_index
            assert all(torch.equal(own.view(144, 144), table) for table in swin_large_positions().values())
