"""SAM at another image size: tables of positions interpolated once, everything else as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from rich.console import Console
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import get_rel_pos
from tiny import disc, perturb, picture, tiny_model

from sam_uniref import MaskReference, SamRef
from sam_uniref.config import LoraConfig, SamRefConfig
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.packaged import base_checkpoint
from sam_uniref.sam import SamHost, build_sam, load_sam_checkpoint
from sam_uniref.sam.build import PIXEL_MEAN, PIXEL_STD
from sam_uniref.sam.resize import interpolate_positions, interpolate_relative_positions, resize_sam
from sam_uniref.state import read_tensors
from sam_uniref.train.build import build_model
from sam_uniref.train.plan import plan
from sam_uniref.train.settings import ModelSettings, RunSettings

OWN = 128
# Smaller and larger, with windows of 8 patches filled exactly (64, 192) and not (96).
OTHERS = [64, 96, 192]
EXAMPLE = MaskReference(picture(80, 100, seed=3), disc(80, 100, center=(0.4, 0.6)))


def table(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def answers(model: SamRef) -> list[NDArray[np.float32]]:
    """Logits for a click, an example, both, and a sentence where the model takes one."""
    features = model.encode_image(picture())
    click = [[30.0, 40.0]]
    found = [
        model.segment(features, points=click),
        model.segment(features, examples=[EXAMPLE]),
        model.segment(features, points=click, examples=[EXAMPLE]),
    ]
    if model.text_encoder is not None:
        found.append(model.segment(features, text="the dog on the left"))
    return [segmentation.logits for segmentation in found]


def assert_same_answers(model: SamRef, other: SamRef) -> None:
    for mine, theirs in zip(answers(model), answers(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# ---- The tables ----


@pytest.mark.parametrize("grid", [4, 12, 24, 31])
def test_absolute_positions_are_resampled_as_a_picture_is(grid: int) -> None:
    """Pillow's bicubic filter is the reference: antialiased, by another implementation."""
    own = table(1, 16, 16, 3)
    resized = interpolate_positions(own, grid)
    assert resized.shape == (1, grid, grid, 3)
    for channel in range(3):
        image = PILImage.fromarray(own[0, ..., channel].numpy())
        wanted = np.asarray(image.resize((grid, grid), PILImage.Resampling.BICUBIC))
        np.testing.assert_allclose(resized[0, ..., channel], wanted, atol=1e-5)


@pytest.mark.parametrize("grid", [1, 8, 12, 24])
def test_relative_positions_are_those_segment_anything_looks_up(grid: int) -> None:
    own = table(31, 5)
    resized = interpolate_relative_positions(own, grid)
    assert resized.shape == (2 * grid - 1, 5)
    assert torch.equal(get_rel_pos(grid, grid, resized), get_rel_pos(grid, grid, own))


def test_the_same_grid_leaves_a_table_alone() -> None:
    absolute, relative = table(1, 16, 16, 3), table(31, 5)
    assert interpolate_positions(absolute, 16) is absolute
    assert interpolate_relative_positions(relative, 16) is relative


def test_only_the_tables_of_the_whole_grid_change() -> None:
    sam, resized = build_sam("tiny"), build_sam("tiny")
    resized.load_state_dict(sam.state_dict())
    own = resize_sam(resized, 192)
    of_the_grid = {f"image_encoder.blocks.{block}.attn.rel_pos_{axis}" for block in (2, 5) for axis in "hw"}
    assert own.keys() == of_the_grid | {"image_encoder.pos_embed"}
    after = resized.state_dict()
    for name, tensor in sam.state_dict().items():
        assert tensor.equal(own.get(name, after[name])), name
    assert after["image_encoder.pos_embed"].shape == (1, 24, 24, 144)
    assert {tuple(after[name].shape) for name in of_the_grid} == {(47, 48)}


def test_nothing_is_interpolated_in_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SamHost(build_sam("tiny"), 96)

    def refuse(*_given: object, **_options: object) -> None:
        raise AssertionError("interpolated again")

    monkeypatch.setattr("torch.nn.functional.interpolate", refuse)
    with torch.no_grad():
        assert host.encode(torch.zeros(1, 3, 96, 96))[0][0].shape == (1, 128, 12, 12)


@pytest.mark.parametrize(("image_size", "grid"), [(512, 32), (768, 48), (896, 56), (1040, 65)])
def test_vit_b_takes_other_sizes(image_size: int, grid: int) -> None:
    """Shapes alone, without memory: windows of 14 patches, filled (896) or padded."""
    with torch.device("meta"):
        host = SamHost(build_sam("vit_b"), image_size)
        (level,), _ = host.encode(torch.empty(2, 3, image_size, image_size))
        logits, scores = host.decode(level, None, None, host.mask_decoder)
    blocks = host.image_encoder.blocks
    assert [len(block.attn.rel_pos_h) for block in blocks] == [27, 27, 2 * grid - 1] * 4
    assert host.image_encoder.pos_embed.shape == (1, grid, grid, 768)
    assert (host.transform.size, host.strides, host.low_res_stride) == (image_size, (16,), 4)
    assert level.shape == (2, 256, grid, grid)
    assert (logits.shape, scores.shape) == ((2, 1, 4 * grid, 4 * grid), (2, 1))
    assert not any(parameter.requires_grad for parameter in host.parameters())


# ---- The model ----


def test_at_its_own_size_a_model_is_what_it_was() -> None:
    model = SamRef.from_pretrained("tiny")
    same = SamRef.from_pretrained("tiny", image_size=OWN)
    assert model.config.sam.image_size is None
    assert same.sam.own_tables == model.sam.own_tables == {}
    assert same.fingerprint() == model.fingerprint()
    assert_same_answers(same, model)


@pytest.mark.parametrize("image_size", [8, *OTHERS])
def test_shapes_follow_the_size(image_size: int) -> None:
    model = SamRef.from_pretrained("tiny", image_size=image_size)
    grid = image_size // 8
    assert (model.config.sam.image_size, model.transform.size, model.sam.strides) == (image_size, image_size, (8,))
    features = model.encode_image([picture(90, 120), picture(120, 70)])
    assert features.pixels.shape == (2, 3, image_size, image_size)
    assert features.levels[0].shape == (2, 128, grid, grid)
    assert features.padding[0].shape == (2, grid, grid)
    found = model.segment(features.select([0]), text="a red star", examples=[EXAMPLE], points=[[30.0, 40.0]])
    assert (found.mask.shape, found.low_res_logits.shape) == ((90, 120), (1, 4 * grid, 4 * grid))
    again = model.segment(features.select([0]), mask_logits=found.low_res_logits, box=[10, 10, 60, 60])
    assert np.isfinite(again.logits).all()
    with pytest.raises(ValueError, match=rf"mask_logits must be \(1, {4 * grid}, {4 * grid}\), got \(1, 12, 16\)"):
        model.segment(features.select([0]), mask_logits=np.zeros((1, 12, 16)))


@pytest.mark.parametrize("image_size", OTHERS)
def test_prompts_are_answered_as_segment_anything_does_at_that_size(image_size: int) -> None:
    model = SamRef.from_sam("tiny", checkpoint="tiny", image_size=image_size)
    host, image = model.sam, picture()
    predictor = SamPredictor(
        Sam(host.image_encoder, host.prompt_encoder, host.mask_decoder, list(PIXEL_MEAN), list(PIXEL_STD)).eval()
    )
    predictor.set_image(image)
    wanted, scores, _ = predictor.predict(
        np.array([[30.0, 40.0], [80.5, 3.0]]),
        np.array([1, 0]),
        box=np.array([12.0, 18.0, 84.0, 81.0]),
        multimask_output=False,
        return_logits=True,
    )
    got = model.segment(image, points=[[30.0, 40.0], [80.5, 3.0]], labels=[1, 0], box=[12.0, 18.0, 84.0, 81.0])
    np.testing.assert_array_equal(got.logits, wanted[0])
    assert got.score == scores[0]


@pytest.mark.parametrize("image_size", [96, 192])
def test_the_packaged_model_finds_objects_at_other_sizes(image_size: int) -> None:
    model = SamRef.from_pretrained("tiny", image_size=image_size)
    scenes = RefShapesDataset("shapes", "ris")
    by_click, by_words = [], []
    for index in range(6):
        scene = scenes.episode(index)
        rows, columns = np.nonzero(scene.mask)
        # The pixel of the object that is nearest to its centre.
        middle = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()
        click = [[float(columns[middle]), float(rows[middle])]]
        features = model.encode_image(scene.image)
        by_click.append(iou(model.segment(features, points=click).mask, scene.mask))
        by_words.append(iou(model.segment(features, text=scene.sentence).mask, scene.mask))
    assert np.median(by_click) > 0.7, by_click
    assert np.median(by_words) > 0.7, by_words


def test_the_packaged_model_tracks_at_another_size() -> None:
    model = SamRef.from_pretrained("tiny", image_size=192)
    clip = RefShapesDataset("shapes", "vos").clip(0)
    results = list(model.track(list(clip.frames[:4]), masks={1: clip.ids[0] == 1}))
    assert iou(results[-1].masks[1], clip.ids[3] == 1) > 0.7


def test_adapters_do_not_depend_on_the_size() -> None:
    trained = tiny_model(noise=0.05)
    assert trained.config.text_encoder.name is not None
    other = SamRef.from_sam("tiny", text_encoder=trained.config.text_encoder.name, image_size=96)
    other.load_trained_state_dict(trained.trained_state_dict())
    for name, tensor in trained.trained_state_dict().items():
        assert tensor.equal(other.trained_state_dict()[name]), name


def test_a_reference_belongs_to_the_size_it_was_encoded_at() -> None:
    reference = SamRef.from_pretrained("tiny").encode_reference(text="a red star")
    with pytest.raises(ValueError, match=r"by another model .* or at another image size"):
        SamRef.from_pretrained("tiny", image_size=96).segment(picture(), reference=reference)


# ---- Saved and loaded ----


@pytest.mark.parametrize("lora", [False, True])
def test_a_base_without_a_file_is_saved_as_it_is_at_its_own_size(lora: bool, tmp_path: Path) -> None:
    config = SamRefConfig.for_size("tiny")
    config.lora = LoraConfig(image_targets=["qkv"] if lora else [], rank=2)
    model = SamRef.from_sam("tiny", checkpoint="tiny", image_size=96, config=config)
    perturb(model, 0.05)
    # As if its weights had come from no file: fresh random tables are zeros, which any interpolation leaves alone.
    model.config.sam.checkpoint = model.config.sam.sha256 = None
    model.save_pretrained(tmp_path / "model")
    loaded = SamRef.from_pretrained(tmp_path / "model")
    assert (loaded.config, loaded.transform.size) == (model.config, 96)
    assert_same_answers(loaded, model)
    loaded.save_pretrained(tmp_path / "again")
    published = build_sam("tiny")
    load_sam_checkpoint(published, base_checkpoint("tiny"), "tiny")
    saved = read_tensors(tmp_path / "again" / "base_sam.safetensors")
    assert saved.keys() == published.state_dict().keys()
    for name, tensor in published.state_dict().items():
        assert tensor.equal(saved[name]), name


def test_a_model_keeps_its_size_and_its_base_its_file(tmp_path: Path) -> None:
    model = SamRef.from_pretrained("tiny", image_size=192)
    model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "base_sam.safetensors").exists()
    recorded = json.loads((tmp_path / "model" / "config.json").read_text())["sam"]
    assert recorded["image_size"] == 192
    assert recorded["sha256"] == SamRef.from_pretrained("tiny").config.sam.sha256
    loaded = SamRef.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    assert_same_answers(loaded, model)
    assert SamRef.from_pretrained(tmp_path / "model", image_size=96).transform.size == 96
    assert_same_answers(SamRef.from_pretrained(tmp_path / "model", image_size=OWN), SamRef.from_pretrained("tiny"))


# ---- What is refused ----


@pytest.mark.parametrize("bad", [0, -64, 100, 7, 96.0, "96", True])
def test_sizes_that_no_grid_has_are_refused(bad: object, tmp_path: Path) -> None:
    message = r"positive multiple of this SAM's patch size, 8, such as 64, 96 or its own 128, got " + repr(bad)
    with pytest.raises(ValueError, match=message):
        SamRef.from_pretrained("tiny", image_size=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):  # before the checkpoint is looked for
        SamRef.from_sam("tiny", tmp_path / "nowhere.pth", image_size=bad)  # type: ignore[arg-type]
    tiny_model(False).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["sam"]["image_size"] = bad
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        SamRef.from_pretrained(tmp_path / "model")


# ---- Training ----


def run_settings(**model: object) -> RunSettings:
    return RunSettings(model=ModelSettings(size="tiny", checkpoint="tiny", **model))  # type: ignore[arg-type]


def test_a_run_trains_at_its_size_and_the_next_goes_on_at_it(tmp_path: Path) -> None:
    model = build_model(run_settings(image_size=96))
    assert model.transform.size == 96
    model.save_pretrained(tmp_path / "model")
    going_on = {"start_from": str(tmp_path / "model")}
    assert build_model(run_settings(**going_on)).transform.size == 96
    assert build_model(run_settings(image_size=192, **going_on)).transform.size == 192
    with pytest.raises(ValueError, match=r"model\.options\.sam does nothing; give .*model\.image_size"):
        build_model(run_settings(options={"sam": {"image_size": 96}}))


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        (run_settings(), "128 px"),
        (run_settings(image_size=96), "96 px"),
        (run_settings(start_from="runs/before/model"), "that of the model it starts from"),
    ],
)
def test_a_plan_shows_the_size(settings: RunSettings, shown: str) -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(plan(settings, 1, settings.model))
    row = next(line for line in captured.get().splitlines() if "image size" in line)
    assert shown in row
