"""SAM-HQ, SAM 2.1 and EdgeTAM as hosts: their own answers to their own prompts, adapters, training, files, refusals."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import disc, perturb, picture, tiny_model
from tiny_hosts import SIDE, tiny_host_model
from torch import Tensor

from sam_uniref import MaskReference, SamRef, SamRefConfig
from sam_uniref.config import BaseSamConfig, LoraConfig
from sam_uniref.eval.baselines import Persam, base_sam
from sam_uniref.eval.baselines.prompting import Prompt, PromptedSam
from sam_uniref.eval.compared_methods import load_method
from sam_uniref.hosts import HOST_NAMES, PUBLISHED
from sam_uniref.hosts.registry import family_of, saved_host
from sam_uniref.hub.card import card_text
from sam_uniref.refsam import RefSam
from sam_uniref.train.build import build_model
from sam_uniref.train.made_up import made_up_batch
from sam_uniref.train.settings import ModelSettings, RunSettings

KINDS = ["sam_hq", "sam2", "edgetam"]
EXAMPLE = MaskReference(picture(80, 100, seed=3), disc(80, 100, center=(0.4, 0.6)))
POINTS: list[dict[str, Any]] = [
    {"points": [[30.0, 40.0]]},
    {"points": [[30.0, 20.0], [9.5, 28.25]], "labels": [1, 0]},
    {"box": [5.0, 8.0, 30.0, 29.0]},
    {"points": [[12.0, 14.0]], "labels": [0], "box": [5.0, 8.0, 30.0, 29.0]},
]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def own(kind: str) -> Any:
    """The host model by itself. Tests leave it as it is."""
    return tiny_host_model(kind)


@pytest.fixture(scope="module")
def plugged(kind: str) -> SamRef:
    """The host with a plug-in that was trained: none of it may touch the host's own answers."""
    torch.manual_seed(0)
    model = SamRef.from_sam(tiny_host_model(kind), config=options())
    perturb(model, 0.05)
    return model.eval()


def options(**given: Any) -> SamRefConfig:
    config = SamRefConfig(**given)
    config.fusion.heads, config.fusion.head_width, config.mask_encoder.width = 2, 16, 16
    return config


@torch.no_grad()
def own_answer(own: Any, model: SamRef, image: np.ndarray, multimask: bool, **asked: Any) -> tuple[Tensor, Tensor]:
    """Low-res logits and scores of the host model itself, from its own ``forward``."""
    pixels, _ = model.transform.batch([image])
    given: dict[str, Tensor] = {}
    if "points" in asked:
        points = model.transform.points(np.array(asked["points"]), image.shape[:2])
        given["input_points"] = points[None, None]
        given["input_labels"] = torch.tensor(asked.get("labels", [1] * len(points)))[None, None]
    if "box" in asked:
        corners = model.transform.points(np.array(asked["box"]).reshape(2, 2), image.shape[:2])
        given["input_boxes"] = corners.reshape(1, 1, 4)
    if "mask_logits" in asked:
        given["input_masks"] = torch.from_numpy(asked["mask_logits"])[None]
    output = own(pixel_values=pixels, multimask_output=multimask, **given)
    return output.pred_masks[0, 0], output.iou_scores[0, 0]


# ---- The host's own answers ----


@pytest.mark.parametrize("size", [(90, 120), (64, 40)])
def test_prompts_get_the_host_models_own_answers(own: Any, plugged: SamRef, size: tuple[int, int]) -> None:
    image = picture(*size)
    features = plugged.encode_image(image)
    answers = []
    for asked in POINTS:
        for multimask in (False, True):
            logits, scores = own_answer(own, plugged, image, multimask, **asked)
            best = int(scores.argmax())
            got = plugged.segment(features, multimask=multimask, **asked)
            full = plugged.transform.logits(logits[None], features.input_sizes[0], size)[0, best]
            assert np.abs(got.low_res_logits - logits[best : best + 1].numpy()).max() < 1e-5
            assert np.abs(got.logits - full.numpy()).max() < 1e-5
            assert got.score == pytest.approx(float(scores[best]), abs=1e-5)
        answers.append(got.low_res_logits)
    assert all(np.abs(answers[0] - other).max() > 1e-3 for other in answers[1:])  # what is asked matters


def test_earlier_logits_are_a_prompt_as_the_host_has_it(own: Any, plugged: SamRef) -> None:
    image = picture()
    asked: dict[str, Any] = {"points": [[30.0, 40.0]]}
    first = plugged.segment(image, **asked)
    asked["mask_logits"] = first.low_res_logits
    logits, scores = own_answer(own, plugged, image, False, **asked)
    second = plugged.segment(image, **asked)
    assert np.abs(second.low_res_logits - logits.numpy()).max() < 1e-5
    assert second.score == pytest.approx(float(scores[0]), abs=1e-5)
    assert np.abs(second.low_res_logits - first.low_res_logits).max() > 1e-3


def test_rows_of_several_pictures_are_answered_as_each_alone(plugged: SamRef) -> None:
    images = [picture(seed=seed) for seed in range(2)]
    both, batch = plugged.encode_image(images), made_up_batch(plugged.transform, "fss", 2)
    features = plugged.features_of(batch)
    together = plugged.predict(features, plugged.references_of(batch, features)).logits
    assert together.shape == (2, 1, SIDE // 4, SIDE // 4)
    for index, image in enumerate(images):
        alone = plugged.segment(image, examples=[EXAMPLE]).low_res_logits
        again = plugged.segment(both.select([index]), examples=[EXAMPLE]).low_res_logits
        assert np.abs(alone - again).max() < 1e-4


def test_stretched_pictures_are_what_the_hosts_processor_makes() -> None:
    from transformers import Sam2ImageProcessor

    model, image = SamRef.from_sam(tiny_host_model("sam2"), config=options()), picture(90, 120)
    processor = Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})
    theirs = processor(images=image, return_tensors="pt")["pixel_values"]
    ours, sizes = model.transform.batch([image])
    assert sizes == ((SIDE, SIDE),)
    assert float((ours - theirs).abs().max()) < 2 / 57  # a grey level or two: resized by Pillow here, by torch there
    assert not bool(model.encode_image(image).padding[0].any())


# ---- What is plugged in ----


def test_fresh_adapters_change_nothing(kind: str, own: Any) -> None:
    model = SamRef.from_sam(tiny_host_model(kind), config=options())
    features = model.encode_image(picture())
    reference = model.encode_reference(examples=[EXAMPLE])
    (fused,) = model.fusion(features.levels, reference.kinds())
    assert torch.equal(fused, features.levels[0])
    trained = model.segment(features, points=[[30.0, 40.0]], decoder="trained", multimask=True)
    assert np.array_equal(
        trained.low_res_logits, model.segment(features, points=[[30.0, 40.0]], multimask=True).low_res_logits
    )


def test_training_reaches_the_plug_in_and_nothing_else(kind: str) -> None:
    model = SamRef.from_sam(tiny_host_model(kind), config=options())
    perturb(model, 0.02)
    before = {name: tensor.clone() for name, tensor in model.sam.state_dict().items()}
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(not name.startswith("sam.") for name in trained)
    optimiser = torch.optim.AdamW(trained.values(), lr=1e-3)
    sum(model(made_up_batch(model.transform, "fss", 2)).values(), torch.zeros(())).backward()
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert all(bool(p.grad.abs().sum() > 0) for n, p in trained.items() if p.grad is not None and "fusion" in n)
    optimiser.step()
    after = model.sam.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    named = [id(p) for part in model.parts() for p in part.module.parameters()]
    assert len(named) == len(set(named))
    assert set(named) == {id(p) for p in model.parameters()}


def test_recomputed_activations_give_the_same_gradients(plugged: SamRef) -> None:
    batch = made_up_batch(plugged.transform, "fss", 1)
    wanted = _gradients(plugged, batch)
    model = SamRef.from_sam(tiny_host_model(plugged.config.sam.size), config=options())
    model.load_trained_state_dict(plugged.trained_state_dict())
    model.eval().checkpoint_activations()
    for name, gradient in _gradients(model, batch).items():
        assert torch.allclose(gradient, wanted[name], atol=1e-5), name


def _gradients(model: SamRef, batch: Any) -> dict[str, Tensor]:
    model.zero_grad()
    sum(model(batch).values(), torch.zeros(())).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_objects_are_tracked(plugged: SamRef) -> None:
    clip = [picture(seed=seed) for seed in range(3)]
    results = list(plugged.track(clip, masks={1: disc(), 2: disc(center=(0.7, 0.7))}, score_threshold=-10.0))
    assert [frame.labels.shape for frame in results] == [(90, 120)] * 3
    assert set(results[2].masks) == {1, 2}


@pytest.mark.parametrize(("kind", "targets"), [("sam_hq", ["qkv"]), ("sam2", ["qkv"])], scope="module")
def test_lora_is_trained_saved_and_left_out_of_plain_prompts(kind: str, targets: list[str], tmp_path: Path) -> None:
    model = SamRef.from_sam(tiny_host_model(kind), config=options(lora=LoraConfig(image_targets=targets)))
    model.train()
    sum(model(made_up_batch(model.transform, "fss", 1)).values(), torch.zeros(())).backward()
    lora = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert lora
    assert all(name.startswith("sam.image_encoder.") and p.grad is not None for name, p in lora.items())
    perturb(model, 0.05)
    model.eval().save_pretrained(tmp_path / "model")
    again = SamRef.from_pretrained(tmp_path / "model")
    image = picture()
    ours, theirs = (m.segment(image, examples=[EXAMPLE]).logits for m in (model, again))
    assert np.abs(ours - theirs).max() < 1e-5
    plain = SamRef.from_sam(tiny_host_model(kind), config=options()).segment(image, points=[[30.0, 40.0]])
    assert np.abs(again.segment(image, points=[[30.0, 40.0]]).logits - plain.logits).max() < 1e-5


def test_lora_wants_linear_layers() -> None:
    with pytest.raises(ValueError, match=r"matches no linear layer"):
        SamRef.from_sam(tiny_host_model("edgetam"), config=options(lora=LoraConfig(image_targets=["qkv"])))


# ---- Files ----


def test_a_model_is_saved_with_its_weights_and_architecture(plugged: SamRef, tmp_path: Path) -> None:
    plugged.save_pretrained(tmp_path / "model")
    again = SamRef.from_pretrained(tmp_path / "model")
    image = picture()
    for asked in ({"points": [[30.0, 40.0]]}, {"examples": [EXAMPLE]}):
        assert np.array_equal(plugged.segment(image, **asked).logits, again.segment(image, **asked).logits)
    size = json.loads((tmp_path / "model" / "config.json").read_text())["sam"]["size"]
    assert size == plugged.config.sam.size


def test_a_folder_of_transformers_is_a_host_and_found_again(kind: str, own: Any, tmp_path: Path) -> None:
    own.save_pretrained(tmp_path / "released")
    model = SamRef.from_sam(tmp_path / "released", config=options())
    image, asked = picture(), POINTS[1]
    wanted, _ = own_answer(own, model, image, False, **asked)
    assert np.abs(model.segment(image, **asked).low_res_logits - wanted.numpy()).max() < 1e-5
    model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "base_sam.safetensors").exists()
    again = SamRef.from_pretrained(tmp_path / "model")  # the folder lies beside it
    assert np.array_equal(again.segment(image, **asked).logits, model.segment(image, **asked).logits)
    elsewhere = SamRef.from_pretrained(tmp_path / "model", tmp_path / "released" / "model.safetensors")
    assert np.array_equal(elsewhere.segment(image, **asked).logits, model.segment(image, **asked).logits)
    weights = load_file(tmp_path / "released" / "model.safetensors")
    weights = {name: tensor + 1 if "iou_token" in name else tensor for name, tensor in weights.items()}
    save_file(weights, tmp_path / "released" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="is another one, sha256"):
        SamRef.from_pretrained(tmp_path / "model")


def test_what_learns_nothing_prompts_a_host_as_we_do(plugged: SamRef) -> None:
    image, points = picture(), np.array([[20.0, 30.0], [40.0, 10.0]])
    sam = PromptedSam(plugged.sam)
    (answer,) = sam.candidates(sam.encode(image), Prompt(points, np.array([1, 0])), multimask=False)
    wanted = plugged.segment(image, points=points, labels=np.array([1, 0]))
    np.testing.assert_allclose(answer.low_res_logits, wanted.low_res_logits, atol=1e-5)
    assert sam.mask_input_size == answer.low_res_logits.shape[1:]
    assert sam.grid == tuple(sam.encode(image).levels[0].shape[2:])


@pytest.mark.parametrize("name", ["persam_f", "plain_sam", "points"])
def test_what_learns_nothing_runs_on_a_released_host(own: Any, name: str, tmp_path: Path) -> None:
    own.save_pretrained(tmp_path)
    loaded = load_method(name, tmp_path, torch.device("cpu"))
    assert len(str(loaded.made_of["model"])) == 64
    mask = disc(90, 120)
    results = list(loaded.method.track([picture(90, 120), picture(90, 120)], masks={1: mask}))
    np.testing.assert_array_equal(results[0].masks[1], mask)
    assert results[1].masks[1].shape == mask.shape
    if name == "persam_f":
        answer = loaded.method.segment(picture(90, 120), examples=[MaskReference(picture(90, 120), mask)])
        assert np.isfinite(answer.logits).all()


def test_released_sams_by_name_and_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, Any]] = []

    def build(model: Any, checkpoint: Any, image_size: int | None) -> tuple[Any, BaseSamConfig]:
        asked.append((model, checkpoint))
        return tiny_model().sam, BaseSamConfig(size="vit_b", sha256="0")

    monkeypatch.setattr(base_sam, "build_host", build)
    file, other, device = tmp_path / "sam_vit_b_01ec64.pth", tmp_path / "mine.pth", torch.device("cpu")
    file.touch()
    other.touch()
    load_method("plain_sam", "vit_b", device)
    load_method("plain_sam", "vit_b", device, checkpoint=other)
    assert load_method("persam", str(file), device).made_of["model"] == "0"
    assert asked == [("vit_b", PUBLISHED), ("vit_b", other), ("vit_b", file)]
    with pytest.raises(ValueError, match=r"for .*mine\.pth give a name of tiny, vit_b.* as the model, and the file"):
        load_method("plain_sam", other, device)
    assert not base_sam.is_released("tiny")
    assert not base_sam.is_released("nothere")


def test_a_video_models_folder_is_a_host_too(tmp_path: Path) -> None:
    """The released SAM 2.1 are video models; their memory is left out."""
    own = tiny_host_model("sam2")
    own.save_pretrained(tmp_path / "video")
    config = json.loads((tmp_path / "video" / "config.json").read_text())
    (tmp_path / "video" / "config.json").write_text(json.dumps(config | {"model_type": "sam2_video", "num_maskmem": 7}))
    weights = load_file(tmp_path / "video" / "model.safetensors")
    weights |= {"memory_attention.layers.0.linear1.weight": torch.zeros(3, 3), "no_object_pointer": torch.zeros(1, 4)}
    save_file(weights, tmp_path / "video" / "model.safetensors", {"format": "pt"})
    model = SamRef.from_sam(str(tmp_path / "video"), config=options())
    wanted, _ = own_answer(own, model, picture(), False, **POINTS[0])
    assert np.abs(model.segment(picture(), **POINTS[0]).low_res_logits - wanted.numpy()).max() < 1e-5


@pytest.mark.parametrize("image_size", [64, 192])
def test_another_image_size_and_back(plugged: SamRef, image_size: int, tmp_path: Path) -> None:
    plugged.save_pretrained(tmp_path / "model")
    other = SamRef.from_pretrained(tmp_path / "model", image_size=image_size)
    segmentation = other.segment(picture(), examples=[EXAMPLE])
    assert segmentation.low_res_logits.shape == (1, image_size // 4, image_size // 4)
    assert segmentation.logits.shape == (90, 120)
    other.save_pretrained(tmp_path / "other")
    back = SamRef.from_pretrained(tmp_path / "other", image_size=SIDE)
    asked = POINTS[0]
    assert np.array_equal(back.segment(picture(), **asked).logits, plugged.segment(picture(), **asked).logits)


def test_a_run_is_built_on_a_host(tmp_path: Path) -> None:
    tiny_host_model("sam2").save_pretrained(tmp_path / "released")
    settings = RunSettings(model=ModelSettings(size=str(tmp_path / "released"), image_size=64))
    model = build_model(settings)
    assert (model.transform.size, model.config.to_dict()["sam"]["size"]) == (64, "sam2")


# ---- Names, sizes and refusals ----


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sam_hq_vit_b", 94_806_832),
        ("sam_hq_vit_l", 313_676_336),
        ("sam_hq_vit_h", 642_686_256),
        ("sam2.1_hiera_tiny", 31_440_721),
        ("sam2.1_hiera_small", 38_538_577),
        ("sam2.1_hiera_base_plus", 73_328_401),
        ("sam2.1_hiera_large", 216_924_865),
    ],
)
def test_named_hosts_have_their_published_sizes(name: str, parameters: int) -> None:
    """SAM 2.1's are published as 38.9, 46, 80.8 and 224.4 M with the memory, of 7.5 M, that an image model has not."""
    base = BaseSamConfig(size=name)
    with torch.device("meta"):
        model = family_of(base).build(base)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["sam_hq_vit_b", "sam2.1_hiera_tiny"])
def test_a_step_is_planned_on_shapes_alone(name: str) -> None:
    model = SamRef.skeleton(name)
    losses = model(made_up_batch(model.transform, "fss", 1, device="meta"))
    assert {value.device.type for value in losses.values()} == {"meta"}


def test_every_name_has_a_family() -> None:
    assert all(family_of(BaseSamConfig(size=name)).title for name in HOST_NAMES)
    assert len(set(HOST_NAMES)) == len(HOST_NAMES)


def test_bad_input_is_told(tmp_path: Path) -> None:
    own = tiny_host_model("sam2")
    model = SamRef.from_sam(own, config=options())
    with pytest.raises(ValueError, match=r"did you mean 'sam2.1_hiera_tiny'"):
        SamRef.from_sam("sam2_hiera_tiny")
    with pytest.raises(ValueError, match="positive multiple of 32"):
        SamRef.from_sam(own, image_size=100)
    with pytest.raises(ValueError, match="leave the cache out"):
        model.frozen_backbone()
    with pytest.raises(ValueError, match="leave them out"):
        SamRef.from_sam(own, encoder_precision="bf16")
    with pytest.raises(ValueError, match="has its weights already"):
        SamRef.from_sam(own, "tiny")
    with pytest.raises(ValueError, match="blocks of SAM's own image encoder"):
        RefSam.from_sam(own, text_encoder="tiny")
    with pytest.raises(ValueError, match="PerSAM guides the attention in SAM's own mask decoder, not in a Sam2Host's"):
        Persam(model.sam)
    with pytest.raises(ValueError, match="a host is one of"):
        SamRef.from_sam(torch.nn.Linear(1, 1))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        SamRef.from_sam("sam2.1_hiera_tiny", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="got 'bert'"):
        SamRef.from_sam(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ValueError, match="is no model's configuration"):
        SamRef.from_sam(tmp_path)


def test_a_host_is_its_own_published_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nothing_there(repository: str, *_: object, **__: object) -> Path:
        asked.append(repository)
        return tmp_path

    monkeypatch.setattr("sam_uniref.hub.folders.snapshot", nothing_there)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        SamRef.from_sam("sam_hq_vit_b", "sam_hq_vit_b")
    assert asked == ["syscv-community/sam-hq-vit-base"]


def test_a_card_says_where_a_host_is_published() -> None:
    model = SamRef.from_sam(tiny_host_model("sam2"), config=options())
    model.config.sam.checkpoint, model.config.sam.sha256 = "downloaded", "0" * 64
    assert "not a published one" in card_text(model)
    model.config.sam.size, model.config.sam.architecture = "sam2.1_hiera_tiny", None
    assert "is fetched from facebook/sam2.1-hiera-tiny" in card_text(model)


def test_weights_of_something_else_are_named(tmp_path: Path) -> None:
    own = tiny_host_model("sam2")
    own.save_pretrained(tmp_path / "sam2")
    weights = load_file(tmp_path / "sam2" / "model.safetensors")
    weights.pop("mask_decoder.iou_token.weight")
    save_file(weights, tmp_path / "sam2" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing \(mask_decoder.iou_token.weight\)"):
        SamRef.from_sam(tmp_path / "sam2")


@pytest.mark.parametrize("name", ["hf-hub:user/model", "local-dir:/etc", "", "../model"])
def test_an_edgetam_asks_no_hub_for_its_image_encoder(name: str) -> None:
    pytest.importorskip("timm")
    given = {"model_type": "edgetam", "vision_config": {"backbone_config": {"architecture": name}}}
    with pytest.raises(ValueError, match="is one of timm's"):
        saved_host(BaseSamConfig(size="edgetam", architecture=given), None, Path("nowhere"))


def test_edgetam_without_timm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install timm"):
        SamRef.from_sam("edgetam")
