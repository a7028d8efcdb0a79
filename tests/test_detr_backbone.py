"""UniRef's backbones and levels: sizes, what is frozen, norms without batches, weights of classifiers, padding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, SwinBackbone, SwinConfig

from sam_uniref.detr.backbone import Backbone, _drop_mlp_branches, build_backbone
from sam_uniref.detr.config import BackboneConfig
from sam_uniref.detr.levels import LEVEL_STRIDES, InputProjection

TINY = BackboneConfig(name="resnet18", width=16, norm="group", frozen_stages=0)


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    torch.manual_seed(0)
    return build_backbone(TINY).eval()


def small_swin(rate: float = 0.0) -> SwinBackbone:
    """As the large one, but for its widths."""
    stages = [f"stage{number}" for number in range(1, 5)]
    torch.manual_seed(0)
    network = SwinBackbone(
        SwinConfig(
            embed_dim=8, depths=[2] * 4, num_heads=[1, 2, 4, 8], window_size=4, drop_path_rate=rate, out_features=stages
        )
    )
    _drop_mlp_branches(network)
    return network


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 80), width=st.integers(1, 80))
def test_maps_are_of_the_strides_for_any_size(tiny: Backbone, height: int, width: int) -> None:
    with torch.no_grad():
        maps = tiny(torch.randn(1, 3, height, width))
        levels = InputProjection(tiny.channels[1:], 64)(maps[1:])
    assert [tuple(m.shape) for m in maps] == [
        (1, c, -(-height // s), -(-width // s)) for c, s in zip(tiny.channels, Backbone.strides, strict=True)
    ]
    assert [tuple(m.shape) for m in levels] == [(1, 64, -(-height // s), -(-width // s)) for s in LEVEL_STRIDES]


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_picture_gives_the_same_beside_others_and_in_training(norm: str) -> None:
    """No norm takes statistics of a batch, so training differs from evaluation in nothing."""
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name="resnet18", width=16, norm=norm, frozen_stages=0)).train()
    pictures = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        together, alone = backbone(pictures), backbone.eval()(pictures[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())


def test_stored_norms_are_constants_and_group_norms_are_trained() -> None:
    stored = build_backbone(BackboneConfig(name="resnet18", width=16, norm="batch", frozen_stages=0))
    assert all("normalization" not in name for name, _ in stored.named_parameters())
    assert any(name.endswith("normalization.running_var") for name in stored.state_dict())
    grouped = build_backbone(TINY)
    assert any("normalization" in name for name, _ in grouped.named_parameters())


@pytest.mark.parametrize("stages", range(6))
def test_the_first_stages_are_frozen_and_the_others_get_gradients(stages: int) -> None:
    backbone = build_backbone(BackboneConfig(name="resnet18", width=16, norm="group", frozen_stages=stages))
    maps = backbone(torch.randn(1, 3, 32, 32))
    if stages < 5:
        sum(m.square().mean() for m in maps).backward()
    for number, stage in enumerate(backbone.stages()):
        for name, parameter in stage.named_parameters():
            assert (parameter.grad is None) == (number < stages), (number, name)
            assert parameter.requires_grad == (number >= stages), (number, name)


# ---- Weights of classifiers ----


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResNetForImageClassification, Path]:
    """A saved ResNet-18 of 16 channels, with statistics that are not those of a fresh one."""
    torch.manual_seed(1)
    model = ResNetForImageClassification(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[2] * 4, layer_type="basic")
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    return model.eval(), folder


def test_a_classifiers_weights_and_statistics_are_taken(
    classifier: tuple[ResNetForImageClassification, Path],
) -> None:
    model, folder = classifier
    backbone = build_backbone(BackboneConfig(name="resnet18", width=16), folder)
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.resnet(picture).last_hidden_state
        torch.testing.assert_close(backbone(picture)[-1], expected, rtol=1e-4, atol=1e-4)


def test_weights_that_do_not_fit_are_refused(
    classifier: tuple[ResNetForImageClassification, Path], tmp_path: Path
) -> None:
    _, folder = classifier
    with pytest.raises(ValueError, match="another network"):
        build_backbone(BackboneConfig(name="resnet18", width=32), folder)
    with pytest.raises(ValueError, match=r"another network.* missing or of another shape"):
        build_backbone(BackboneConfig(name="resnet50", width=16), folder)
    with pytest.raises(ValueError, match="norm to 'batch'"):
        build_backbone(TINY, folder)
    with pytest.raises(FileNotFoundError, match="could not be loaded"):
        build_backbone(BackboneConfig(name="resnet18"), tmp_path / "nowhere")


def test_a_pickle_is_not_read(classifier: tuple[ResNetForImageClassification, Path], tmp_path: Path) -> None:
    model, folder = classifier
    shutil.copy(folder / "config.json", tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"could not be loaded.*model\.safetensors"):
        build_backbone(BackboneConfig(name="resnet18", width=16), tmp_path)


# ---- Stochastic depth ----


def test_stochastic_depth_leaves_out_either_branch_of_a_block_in_training_only() -> None:
    network = small_swin(rate=0.9)
    block = network.swin.encoder.layers[3].blocks[1]
    tokens = torch.randn(64, 4, 64)
    zero = {}
    for mode in (True, False):
        block.train(mode)
        outputs = {"mlp": block.mlp(tokens), "attention": block.drop_path(tokens)}
        zero[mode] = {name: (out.flatten(1).abs().sum(1) == 0).float().mean().item() for name, out in outputs.items()}
    assert all(0.7 < share < 1 for share in zero[True].values())
    assert zero[False] == {"mlp": 0, "attention": 0}


def test_without_stochastic_depth_training_is_evaluation() -> None:
    network = small_swin()
    picture = torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        maps = [network.train(mode)(picture).feature_maps for mode in (True, False)]
    assert all(torch.equal(a, b) for a, b in zip(*maps, strict=True))


# ---- Levels ----


def test_projection_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="three maps"):
        InputProjection((8, 16), 32)
    with pytest.raises(ValueError, match="multiple of 32"):
        InputProjection((8, 16, 32), 40)
