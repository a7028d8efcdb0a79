"""The image encoder beside segment-anything's: answers, gradients, names, precisions, compilation."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import add_decomposed_rel_pos, window_partition, window_unpartition
from tiny import perturb, tiny_model
from torch import Tensor, nn

from sam_uniref import SamRef
from sam_uniref.adapters import add_lora
from sam_uniref.config import LoraConfig, SamRefConfig
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.flop_counting import flop_counter
from sam_uniref.sam import (
    ImageEncoder,
    SamHost,
    build_sam,
    image_encoder,
    linear_layers,
    relative_attention,
    windows,
)
from sam_uniref.sam.compilation import CompiledBlocks
from sam_uniref.sam.relative_attention import attend_augmented, attend_flex, attend_in_blocks, relative_table
from sam_uniref.sam.resize import resize_sam


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def originals(image_size: int = 128) -> ImageEncoderViT:
    """segment-anything's tiny encoder; its tables of positions, zeros at first, are random."""
    torch.manual_seed(0)
    sam = build_sam("tiny")
    with torch.no_grad():
        for name, parameter in sam.image_encoder.named_parameters():
            if "pos" in name:
                parameter.normal_(0, 0.3)
    resize_sam(sam, image_size)
    return sam.image_encoder


def frozen(encoder: ImageEncoderViT) -> ImageEncoder:
    """Ours, with a copy of the weights."""
    return ImageEncoder(copy.deepcopy(encoder)).requires_grad_(False).eval()


def error(got: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((got.float() - wanted).abs().max() / wanted.abs().max())


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripes and blocks as small as a large picture's are beside it."""
    monkeypatch.setattr(image_encoder, "STRIPE_TOKENS", 40)
    monkeypatch.setattr(relative_attention, "BLOCK", 3000)


# ---- The same answers ----


@torch.no_grad()
@pytest.mark.parametrize("image_size", [64, 96, 128, 192])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_as_segment_anything(image_size: int, batch_size: int) -> None:
    theirs = originals(image_size)
    pixels = draw(batch_size, 3, image_size, image_size)
    got, wanted = frozen(theirs)(pixels), theirs(pixels)
    assert (got.shape, got.dtype, got.is_contiguous()) == (wanted.shape, torch.float32, True)
    assert error(got, wanted) < 1e-5


@torch.no_grad()
@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("image_size", [96, 128])
def test_in_stripes_and_blocks_too(image_size: int) -> None:
    theirs = originals(image_size)
    pixels = draw(2, 3, image_size, image_size)
    assert error(frozen(theirs)(pixels), theirs(pixels)) < 1e-5


@torch.no_grad()
def test_blocks_as_wide_as_those_of_vit_b() -> None:
    """Windows of 14 tokens of which the last are filled up, then the whole grid."""
    torch.manual_seed(0)
    norm = partial(nn.LayerNorm, eps=1e-6)
    options = {"use_rel_pos": True, "window_size": 14, "global_attn_indexes": (1,), "norm_layer": norm}
    theirs = ImageEncoderViT(img_size=320, depth=2, **options)
    for name, parameter in theirs.named_parameters():
        if "pos" in name:
            parameter.normal_(0, 0.3)
    pixels = draw(1, 3, 320, 320)
    ours, wanted = frozen(theirs), theirs(pixels)
    assert error(ours(pixels), wanted) < 1e-5
    ours.hold_in("bf16")
    assert error(ours(pixels), wanted) < 3e-2


@torch.no_grad()
@pytest.mark.parametrize("grid", [(16, 24), (9, 8), (5, 20)])
def test_blocks_of_a_grid_that_is_not_square(grid: tuple[int, int]) -> None:
    """Their relative positions are interpolated in the call, as segment-anything's are."""
    theirs = originals()
    x = draw(2, *grid, 144)
    for index in (0, 2):  # in windows, and over the whole grid
        block = theirs.blocks[index]
        assert error(frozen(theirs).blocks[index](x), block(x)) < 1e-5


def test_names_are_segment_anythings() -> None:
    theirs = originals()
    ours = frozen(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    host = SamHost(build_sam("tiny"))
    assert host.state_dict().keys() == {n for n in build_sam("tiny").state_dict() if not n.startswith("pixel_")}


def test_an_encoder_without_relative_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="without relative positions is no SAM's"):
        ImageEncoder(ImageEncoderViT(img_size=32, embed_dim=16, depth=1, num_heads=1, out_chans=8))


# ---- Attention ----


def in_full(
    queries: Tensor, keys: Tensor, values: Tensor, tables: tuple[Tensor, Tensor], grid: tuple[int, int]
) -> Tensor:
    """As segment-anything has it, with all logits."""
    logits = queries * queries.shape[-1] ** -0.5 @ keys.transpose(1, 2)
    return add_decomposed_rel_pos(logits, queries, *tables, grid, grid).softmax(-1) @ values


WAYS: dict[str, Callable[..., Tensor]] = {
    "in blocks": lambda q, k, v, table, grid: attend_in_blocks(q, k, v, table, *grid),
    "augmented": attend_augmented,
    "flex": attend_flex,
}


@torch.no_grad()
@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 5),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    width=st.sampled_from([8, 16, 20]),
    block=st.sampled_from([1, 50, 700, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_all_ways_attend_alike(way: str, rows: int, grid: tuple[int, int], width: int, block: int, seed: int) -> None:
    height, across = grid
    queries, keys, values = draw(3, rows, height * across, width, seed=seed)
    tables = draw(2 * height - 1, width, seed=seed + 1), draw(2 * across - 1, width, seed=seed + 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relative_attention, "BLOCK", block)
        got = WAYS[way](queries, keys, values, relative_table(*tables), grid)
    torch.testing.assert_close(got, in_full(queries, keys, values, tables, grid), rtol=1e-4, atol=1e-5)


def test_its_products_are_counted() -> None:
    q, k, v = (draw(3, 20, 8, seed=seed) for seed in range(3))
    table = relative_table(draw(7, 8), draw(9, 8))
    with flop_counter() as counted:
        attend_in_blocks(q, k, v, table, 4, 5)
    with flop_counter() as wanted:
        _ = q @ table, (q @ k.transpose(1, 2)) @ v
    assert counted.get_total_flops() == wanted.get_total_flops() > 0


@settings(max_examples=30, deadline=None)
@given(size=st.tuples(st.integers(1, 11), st.integers(1, 11)), window=st.integers(1, 6), batch=st.integers(1, 3))
def test_windows_are_cut_and_joined(size: tuple[int, int], window: int, batch: int) -> None:
    heads, width = 2, 3
    tokens = draw(batch, *size, 3, heads, width)
    padding = draw(3, heads, width, seed=1) if size[0] % window or size[1] % window else None
    cut = windows.cut(tokens, window, padding)
    wanted, padded = window_partition(tokens.flatten(3), window)
    filled, _ = window_partition(torch.ones(batch, *size, 1), window)
    given_cells = filled.view(*cut.shape[1:4], 1, window, window, 1).bool()
    expected = wanted.view(*cut.shape[1:4], window, window, 3, heads, width).permute(5, 0, 1, 2, 6, 3, 4, 7)
    if padding is not None:
        expected = torch.where(given_cells, expected, padding[:, None, None, None, :, None, None])
    assert torch.equal(cut, expected)
    joined = windows.join(cut[1], *size)
    assert torch.equal(joined, tokens[:, :, :, 1].flatten(3))
    assert torch.equal(window_unpartition(wanted, window, padded, size), tokens.flatten(3))


# ---- Gradients ----


@pytest.mark.parametrize("image_size", [96, 128])
def test_gradients_are_segment_anythings(image_size: int) -> None:
    theirs = originals(image_size)
    ours = ImageEncoder(copy.deepcopy(theirs))
    pixels, weights = draw(2, 3, image_size, image_size), draw(2, 128, image_size // 8, image_size // 8, seed=1)
    for encoder in (theirs, ours):
        (encoder(pixels) * weights).sum().backward()
    for (name, parameter), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert error(other.grad, parameter.grad) < 1e-4, name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_lora_is_trained_through_it(precision: str) -> None:
    ours = frozen(originals())
    pixels = draw(1, 3, 128, 128)
    before = ours(pixels)
    add_lora(ours, ["qkv"], rank=2)
    ours.hold_in(precision)
    assert {p.dtype for n, p in ours.named_parameters() if "lora_" in n} == {torch.float32}
    perturb(ours, 0.1)
    with_gradients = ours(pixels)
    assert with_gradients.requires_grad
    with_gradients.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in ours.parameters() if p.requires_grad)
    with torch.no_grad():  # by the other way through attention
        without = ours(pixels)
    assert error(without, with_gradients.detach()) < (1e-4 if precision == "float32" else 0.1)
    assert error(without, before) > 1e-2


def test_nothing_is_kept_for_gradients_where_nothing_is_trained() -> None:
    ours = frozen(originals())
    assert not ours(draw(1, 3, 128, 128)).requires_grad
    assert not image_encoder.needs_gradient(ours, torch.zeros(1))
    assert image_encoder.needs_gradient(ours, torch.zeros(1, requires_grad=True))


# ---- Precision ----


@torch.no_grad()
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_under_autocast(precision: torch.dtype) -> None:
    theirs = originals()
    pixels = draw(2, 3, 128, 128)
    with torch.autocast("cpu", precision):
        got = frozen(theirs)(pixels)
    assert got.dtype == torch.float32
    assert 0 < error(got, theirs(pixels)) < 3e-2


@torch.no_grad()
@pytest.mark.usefixtures("small_steps")
def test_stripes_under_autocast_are_as_exact_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that are laid out for several stripes are called past autocast, and heed it themselves."""
    theirs = originals()
    pixels = draw(2, 3, 128, 128)
    wanted, errors = theirs(pixels), {}
    for tokens in (40, 10**6):
        monkeypatch.setattr(image_encoder, "STRIPE_TOKENS", tokens)
        with torch.autocast("cpu", torch.bfloat16):
            errors[tokens] = error(frozen(theirs)(pixels), wanted)
    assert 0.3 < errors[40] / errors[10**6] < 3


@torch.no_grad()
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("bias", "gelu"), [(True, False), (False, True)])
def test_a_layer_that_is_laid_out(precision: torch.dtype, bias: bool, gelu: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 40, bias=bias).to(precision)
    apply = linear_layers.laid_out(layer, rows=64, gelu=gelu)
    for shape in [(64, 48), (2, 5, 7, 48), (1, 48), (0, 48)]:  # whatever it was laid out for
        x = draw(*shape)
        got, wanted = apply(x), linear_layers.apply_linear(layer, x, gelu=gelu)
        assert (got.shape, got.dtype) == (wanted.shape, precision)
        torch.testing.assert_close(got, wanted, **({} if precision == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}))


@torch.no_grad()
@pytest.mark.usefixtures("small_steps")
def test_weights_that_change_between_two_pictures_count() -> None:
    theirs = originals()
    ours, pixels = frozen(theirs), draw(1, 3, 128, 128)
    before = ours(pixels)
    for encoder in (theirs, ours):
        for parameter in encoder.parameters():
            parameter.mul_(0.9)
    assert error(before, theirs(pixels)) > 1e-3
    assert error(ours(pixels), theirs(pixels)) < 1e-5


@torch.no_grad()
@pytest.mark.usefixtures("small_steps")
def test_without_one_dnn(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, pixels = originals(), draw(1, 3, 128, 128)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert error(frozen(theirs)(pixels), theirs(pixels)) < 1e-5


@torch.no_grad()
def test_held_in_half_precision() -> None:
    theirs = originals()
    pixels = draw(2, 3, 128, 128)
    host = SamHost(build_sam("tiny"))
    host.image_encoder = ours = frozen(theirs)
    assert not ours.is_rounded
    host.speed_up_encoder("bf16")
    assert ours.is_rounded
    by_precision = {n: p.dtype for n, p in ours.named_parameters()}
    assert by_precision["blocks.0.attn.qkv.weight"] == by_precision["neck.2.weight"] == torch.bfloat16
    exact = ("norm", "pos", "neck.1", "neck.3")
    assert {t for n, t in by_precision.items() if any(part in n for part in exact)} == {torch.float32}
    ((got,), _) = host.encode(pixels)
    assert got.dtype == torch.float32
    assert 0 < error(got, theirs(pixels)) < 3e-2


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be one of \('float32', 'bf16', 'fp16'\), got 'int8'"):
        SamRef.from_sam("tiny", "tiny", encoder_precision="int8")


def test_masks_in_bf16_are_those_in_float32() -> None:
    """The packaged model on what it knows: of eight sentences' masks hardly a pixel changes."""
    models = [SamRef.from_pretrained("tiny", encoder_precision=name) for name in ("float32", "bf16")]
    scenes = RefShapesDataset("shapes", "ris")
    agreements = []
    for number in range(8):
        scene = scenes.episode(number)
        exact, rounded = (model.segment(scene.image, text=scene.sentence).mask for model in models)
        agreements.append((exact & rounded).sum() / max(1, (exact | rounded).sum()))
    assert np.mean(agreements) > 0.98
    assert min(agreements) > 0.9


def test_a_rounded_base_without_a_file_is_not_saved(tmp_path: Path) -> None:
    model = SamRef.from_sam("tiny", encoder_precision="bf16")
    with pytest.raises(ValueError, match=r"rounded to half precision; .*encoder_precision=\"float32\""):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with_file = SamRef.from_sam("tiny", "tiny", encoder_precision="bf16")
    with_file.save_pretrained(tmp_path / "model")
    assert not SamRef.from_pretrained(tmp_path / "model").sam.image_encoder.is_rounded


def test_lora_of_a_rounded_encoder_stays_exact() -> None:
    config = SamRefConfig.for_size("tiny")
    config.lora = LoraConfig(image_targets=["qkv"], rank=2)
    model = SamRef.from_sam("tiny", "tiny", config=config, encoder_precision="bf16")
    assert {t.dtype for n, t in model.trained_state_dict().items() if "lora_" in n} == {torch.float32}


# ---- Compilation ----


def test_without_a_compiler_it_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_given: object) -> Tensor:
        raise RuntimeError("Failed to find C compiler.\nMore lines")

    monkeypatch.setattr(torch, "compile", lambda *_given, **_options: broken)
    model = SamRef.from_sam("tiny", "tiny", compile=True)
    plain = SamRef.from_sam("tiny", "tiny")
    pixels = draw(1, 3, 128, 128)
    for _ in range(2):
        assert torch.equal(model.encode_levels(pixels)[0], plain.encode_levels(pixels)[0])
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "runs uncompiled, with the same answers: torch.compile failed (Failed to find C compiler.)" in warnings[0]


def test_another_process_compiles_anew() -> None:
    assert isinstance(pickle.loads(pickle.dumps(CompiledBlocks())), CompiledBlocks)  # noqa: S301


def test_blocks_that_train_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_given: object) -> Tensor:
        raise AssertionError("compiled")

    monkeypatch.setattr(torch, "compile", lambda *_given, **_options: refused)
    ours = ImageEncoder(originals())
    ours.run_frozen_block = CompiledBlocks()
    assert ours(draw(1, 3, 128, 128)).requires_grad


@pytest.mark.slow
def test_compiled_answers(caplog: pytest.LogCaptureFixture) -> None:
    model = SamRef.from_sam("tiny", "tiny", compile=True)
    blocks = model.sam.image_encoder.run_frozen_block
    assert isinstance(blocks, CompiledBlocks)
    with caplog.at_level(logging.INFO):
        seconds = model.sam.warm_up()
    if not blocks.works:
        pytest.skip(f"there is no compiler here: {caplog.text}")
    messages = [record.getMessage() for record in caplog.records]
    assert sum("compiling the image encoder's attention" in message for message in messages) == 2
    assert seconds > 0
    assert "the image encoder is warm: 1 x 128 px on cpu" in messages[-1]
    pixels = draw(1, 3, 128, 128)
    wanted = SamRef.from_sam("tiny", "tiny").encode_levels(pixels)[0]
    assert error(model.encode_levels(pixels)[0], wanted) < 1e-4


def test_a_model_is_warmed_up_uncompiled_too(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model(text=False)
    with caplog.at_level(logging.INFO):
        assert model.sam.warm_up(batch_size=2) > 0
    assert "2 x 128 px on cpu" in caplog.text
