"""MobileSAM as a host: its checkpoint's names, its own code's recorded answers, files, what works on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import fill_state_dict, tensor
from tiny import disc, picture
from torch import Tensor

from sam_uniref import MaskReference, SamRef
from sam_uniref.config import BaseSamConfig, LoraConfig, SamRefConfig
from sam_uniref.eval.baselines.prompting import Prompt, PromptedSam
from sam_uniref.hosts import Host
from sam_uniref.hosts.mobile_sam import MobileSam
from sam_uniref.hosts.tiny_vit import TinyVit
from sam_uniref.interfaces import Prompts
from sam_uniref.train.made_up import made_up_batch

RECORDED = json.loads((Path(__file__).parent / "fixtures" / "hosts" / "mobile_sam.json").read_text())
SIDE = 160  # fills no attention window: 20 and 10 cells in windows of 7 and 14
EXAMPLE = MaskReference(picture(80, 100, seed=3), disc(80, 100, center=(0.4, 0.6)))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A checkpoint with the weights that the answers were recorded with."""
    return fill_state_dict(RECORDED["shapes"])


@pytest.fixture(scope="module")
def checkpoint(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "mobile_sam.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def plugged(checkpoint: Path) -> SamRef:
    """At a small image size. Tests leave it as it is."""
    torch.manual_seed(0)
    return SamRef.from_sam("mobile_sam", checkpoint, image_size=SIDE, config=options())


def options(**given: Any) -> SamRefConfig:
    config = SamRefConfig(**given)
    config.fusion.heads, config.fusion.head_width, config.mask_encoder.width = 2, 16, 16
    return config


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = MobileSam().build(BaseSamConfig(size="mobile_sam"))
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == RECORDED["shapes"]
    assert sum(p.numel() for p in model.parameters()) == 10_130_092


@torch.no_grad()
def test_answers_are_those_of_the_published_code(state: dict[str, Tensor]) -> None:
    family = MobileSam()
    model = family.build(BaseSamConfig(size="mobile_sam"))
    family.load_own(model, state, "the recorded weights")
    host = family.plug(model, None)
    (level,), skips = host.encode(tensor("mobile_sam.pixels", (1, 3, 1024, 1024)))
    assert skips == ()
    wanted = torch.tensor(RECORDED["embedding"])
    assert float((level[0, ::37, ::13, ::13].flatten(1) - wanted).abs().max()) < 1e-4
    assert float(level.mean()) == pytest.approx(RECORDED["embedding_mean"], abs=1e-5)
    assert float(level.std()) == pytest.approx(RECORDED["embedding_std"], rel=1e-4)
    prompts = Prompts(
        torch.zeros(1, dtype=torch.int64),
        points=torch.tensor([[[300.0, 420.0], [700.0, 200.0]]]),
        labels=torch.tensor([[1, 0]]),
    )
    logits, scores = host.decode(level, prompts, None, host.mask_decoder, multimask=True)
    assert float((logits[0, :, ::51, ::51].flatten(1) - torch.tensor(RECORDED["logits"])).abs().max()) < 1e-4
    assert scores[0].tolist() == pytest.approx(RECORDED["scores"], abs=1e-4)


@pytest.mark.parametrize("side", [16, 112, 160])
def test_pictures_of_a_batch_do_not_meet(side: int) -> None:
    torch.manual_seed(0)
    encoder = TinyVit((8, 16, 16, 32), (1, 1, 1, 1), (2, 2, 4), out_channels=8).eval()
    pixels = torch.randn(2, 3, side, side)
    together = encoder(pixels)
    assert together.shape == (2, 8, side // 16, side // 16)
    alone = torch.cat([encoder(pixels[:1]), encoder(pixels[1:])])
    assert torch.allclose(together, alone, atol=1e-5)


def test_it_is_plugged_into_saved_and_found_again(plugged: SamRef, checkpoint: Path, tmp_path: Path) -> None:
    image = picture()
    features = plugged.encode_image(image)
    (fused,) = plugged.fusion(features.levels, plugged.encode_reference(examples=[EXAMPLE]).kinds())
    assert torch.equal(fused, features.levels[0])
    plugged.save_pretrained(tmp_path / "model")
    again = SamRef.from_pretrained(tmp_path / "model", checkpoint)
    for asked in ({"points": [[30.0, 40.0]]}, {"examples": [EXAMPLE]}):
        assert np.array_equal(plugged.segment(image, **asked).logits, again.segment(image, **asked).logits)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["sam"]["size"] == "mobile_sam"
    with pytest.raises(FileNotFoundError, match=r"needs the base SAM mobile_sam\.pt"):
        SamRef.from_pretrained(tmp_path / "model")


def test_batch_norms_keep_their_statistics_beside_lora(checkpoint: Path) -> None:
    config = options(lora=LoraConfig(image_targets=["qkv"]))
    model = SamRef.from_sam("mobile_sam", checkpoint, image_size=64, config=config)
    before = {name: buffer.clone() for name, buffer in model.sam.named_buffers()}
    model.train()
    sum(model(made_up_batch(model.transform, "fss", 1)).values(), torch.zeros(())).backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_" in name)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.sam.named_buffers())


def test_its_embedding_may_be_cached_and_it_is_prompted_as_a_sam(plugged: SamRef) -> None:
    backbone = plugged.frozen_backbone()
    assert isinstance(backbone, Host)
    sam = PromptedSam(backbone)
    image = picture()
    (candidate,) = sam.candidates(
        sam.encode(image), Prompt(points=np.array([[30.0, 40.0]]), labels=np.array([1])), multimask=False
    )
    assert np.allclose(candidate.logits, plugged.segment(image, points=[[30.0, 40.0]]).logits, atol=1e-5)


def test_what_does_not_fit_is_told(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "mobile_sam.pt"
    torch.save({name: value for name, value in state.items() if name != "image_encoder.head.bias"}, path)
    with pytest.raises(ValueError, match=r"as MobileSAM does not fit the model: 1 missing \(image_encoder.head.bias\)"):
        SamRef.from_sam("mobile_sam", path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SamRef.from_sam("mobile_sam", tmp_path / "nowhere.pt")
    with pytest.raises(ValueError, match="positive multiple of 16"):
        SamRef.from_sam("mobile_sam", path, image_size=100)
    with pytest.raises(ValueError, match="leave them out"):
        SamRef.from_sam("mobile_sam", checkpoint=None, compile=True)
