"""What is saved and loaded: SamRef folders, SAM's checkpoints, configurations; and what is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from families import save_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import disc, perturb, picture, tiny_model
from torch import Tensor

from sam_uniref.checkpoint import CHECKPOINT_FOLDER_VARIABLE
from sam_uniref.config import FusionConfig, LoraConfig, SamRefConfig, TextEncoderConfig
from sam_uniref.reference import MaskReference
from sam_uniref.sam import build_sam, load_sam_checkpoint
from sam_uniref.samref import SamRef
from sam_uniref.state import read_tensors, whole_file, whole_folder, without_aliases

NOISE = 0.05


def answers(model: SamRef) -> list[Tensor]:
    """Everything a model says to a sentence, an example and a click."""
    features = model.encode_image(picture())
    asked: list[dict[str, Any]] = [
        {"examples": [MaskReference(picture(seed=3), disc())]},
        {"points": [[30.0, 40.0]]},
        {"points": [[30.0, 40.0]], "decoder": "trained"},
    ]
    if model.text_encoder is not None:
        asked.append({"text": "the dog on the left"})
    return [torch.from_numpy(model.segment(features, **question).logits) for question in asked]


def assert_same_answers(model: SamRef, other: SamRef) -> None:
    for a, b in zip(answers(model), answers(other), strict=True):
        assert torch.equal(a, b)
    assert model.fingerprint() == other.fingerprint()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def sam_file(path: Path, **changes: Tensor | None) -> Path:
    """A SAM checkpoint of the tiny size; ``changes`` replace tensors, or remove them (None)."""
    torch.manual_seed(3)
    state = build_sam("tiny").state_dict()
    for name, tensor in changes.items():
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


# ---- Folders ----


@pytest.mark.parametrize("text", [False, True])
def test_round_trip_without_a_base_checkpoint(text: bool, tmp_path: Path) -> None:
    model = tiny_model(text, noise=NOISE)
    model.save_pretrained(tmp_path / "deep" / "model")
    files = {"README.md", "config.json", "adapters.safetensors", "base_sam.safetensors"}
    assert names_in(tmp_path / "deep" / "model") == (files | {"text_encoder"} if text else files)
    assert names_in(tmp_path / "deep") == {"model"}
    loaded = SamRef.from_pretrained(tmp_path / "deep" / "model")
    assert_same_answers(loaded, model)
    assert loaded.config == model.config
    assert not loaded.training


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_round_trip_with_a_base_checkpoint(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = sam_file(tmp_path / f"base{suffix}")
    model = SamRef.from_sam("tiny", base)
    perturb(model, NOISE)
    model.save_pretrained(tmp_path / "model")
    assert names_in(tmp_path / "model") == {"README.md", "config.json", "adapters.safetensors"}
    assert_same_answers(SamRef.from_pretrained(tmp_path / "model"), model)  # beside the folder
    away = tmp_path / "elsewhere" / "deeper"
    away.mkdir(parents=True)
    base.rename(away / base.name)
    assert_same_answers(SamRef.from_pretrained(tmp_path / "model", away / base.name), model)
    with pytest.raises(FileNotFoundError, match=rf"base SAM base{suffix}.*{model.config.sam.sha256}"):
        SamRef.from_pretrained(tmp_path / "model")
    monkeypatch.setenv(CHECKPOINT_FOLDER_VARIABLE, str(away))
    assert_same_answers(SamRef.from_pretrained(tmp_path / "model"), model)


def test_another_base_checkpoint_is_refused(tmp_path: Path) -> None:
    base = sam_file(tmp_path / "base.pth")
    SamRef.from_sam("tiny", base).save_pretrained(tmp_path / "model")
    torch.save(build_sam("tiny").state_dict(), base)
    with pytest.raises(ValueError, match=r"base\.pth is another one, sha256 .* --checkpoint"):
        SamRef.from_pretrained(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="given"):
        SamRef.from_pretrained(tmp_path / "model", tmp_path / "given" / "base.pth")


def test_another_model_s_base_of_the_same_name_is_passed_over(tmp_path: Path) -> None:
    base = sam_file(tmp_path / "base.pth")
    model = SamRef.from_sam("tiny", base)
    model.save_pretrained(tmp_path / "model")
    torch.save(build_sam("tiny").state_dict(), tmp_path / "model" / "base.pth")
    assert_same_answers(SamRef.from_pretrained(tmp_path / "model"), model)


def test_everybody_may_read_what_was_saved(tmp_path: Path) -> None:
    SamRef.from_sam("tiny").save_pretrained(tmp_path / "model")
    for path in (tmp_path / "model").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_published_bases_are_named_with_their_address(tmp_path: Path) -> None:
    tiny_model(False).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["sam"] |= {"checkpoint": "../../etc/sam_vit_b_01ec64.pth", "sha256": "0"}
    path.write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match=r"published at https://\S*/sam_vit_b_01ec64\.pth") as error:
        SamRef.from_pretrained(tmp_path / "model")
    assert "etc" not in str(error.value)


def test_a_stale_configuration_does_not_reach_the_model(tmp_path: Path) -> None:
    """What from_sam is given counts, not what its configuration was used for before."""
    config = SamRef.from_sam("tiny", sam_file(tmp_path / "base.pth")).config
    config.text_encoder.name = "somewhere"
    model = SamRef.from_sam("tiny", config=config)
    assert config.sam.checkpoint == "base.pth"
    assert model.config.sam.checkpoint is None
    assert model.config.text_encoder.name is None
    model.save_pretrained(tmp_path / "model")
    assert_same_answers(SamRef.from_pretrained(tmp_path / "model"), model)


def test_round_trip_with_lora(tmp_path: Path) -> None:
    config = SamRefConfig.for_size("tiny")
    config.lora = LoraConfig(image_targets=["qkv", "lin1"], text_targets=["query"], rank=2, alpha=3.0)
    model = tiny_model(config=config, noise=NOISE)
    model.save_pretrained(tmp_path / "model")
    base = read_tensors(tmp_path / "model" / "base_sam.safetensors")
    assert base.keys() == build_sam("tiny").state_dict().keys()
    trained = read_tensors(tmp_path / "model" / "adapters.safetensors")
    assert not [n for n in trained if n.startswith(("sam.", "text_encoder.model."))]
    assert_same_answers(SamRef.from_pretrained(tmp_path / "model"), model)


@pytest.mark.parametrize("family", ["bert", "roberta", "clip", "t5"])
def test_round_trip_with_a_trained_text_encoder(family: str, tmp_path: Path) -> None:
    if family == "bert":
        model = tiny_model()
    else:
        save_encoder(family, tmp_path / "text")
        model = SamRef.from_sam("tiny", text_encoder=tmp_path / "text")
    model.save_pretrained(tmp_path / "frozen")
    frozen = read_tensors(tmp_path / "frozen" / "adapters.safetensors")
    assert not any(name.startswith("text_encoder.model.") for name in frozen)
    model.train_text_encoder(True)
    perturb(model, NOISE)
    model.train_text_encoder(False)  # the video stage: frozen again, but no longer what its name says
    model.config.text_encoder.name = "a name that is nowhere"
    model.save_pretrained(tmp_path / "model")
    if family != "bert":
        (tmp_path / "text").rename(tmp_path / "gone")
    loaded = SamRef.from_pretrained(tmp_path / "model")
    assert_same_answers(loaded, model)
    assert loaded.text_encoder is not None
    assert not any(p.requires_grad for p in loaded.text_encoder.model.parameters())


def test_a_saved_model_is_replaced(tmp_path: Path) -> None:
    tiny_model(True).save_pretrained(tmp_path / "model")
    model = tiny_model(False, noise=NOISE)
    model.save_pretrained(tmp_path / "model")
    assert "text_encoder" not in names_in(tmp_path / "model")
    assert names_in(tmp_path) == {"model"}
    assert_same_answers(SamRef.from_pretrained(tmp_path / "model"), model)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("there", [False, True])
def test_a_failing_save_leaves_nothing_behind(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(False)
    if there:
        model.save_pretrained(tmp_path / "model")
    before = contents(tmp_path)

    def fail(_tensors: object, path: Path, _metadata: object) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    perturb(model, NOISE)
    with pytest.raises(OSError, match="no space left"):
        model.save_pretrained(tmp_path / "model")
    assert contents(tmp_path) == before
    assert names_in(tmp_path) == ({"model"} if there else set())
    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        tiny_model().encode_reference(text="a dog").save(tmp_path / "dog.safetensors")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("what", ["folder", "file"])
def test_saving_over_something_else_is_refused(what: str, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    if what == "folder":
        target.mkdir()
        (target / "thesis.tex").write_text("years of work")
    else:
        target.write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="mine holds something else"):
        tiny_model(False).save_pretrained(target)
    assert contents(tmp_path) == before


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    tiny_model(False).save_pretrained(tmp_path)
    assert "config.json" in names_in(tmp_path)


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no SamRef: there is no config\.json"):
        SamRef.from_pretrained(tmp_path / "nowhere")
    folder = tmp_path / "model"
    tiny_model(False).save_pretrained(folder)
    config, adapters = (folder / "config.json").read_text(), folder / "adapters.safetensors"
    for broken in ("{", "[]", "3"):
        (folder / "config.json").write_text(broken)
        with pytest.raises(ValueError, match=r"config\.json is no SamRef configuration"):
            SamRef.from_pretrained(folder)
    (folder / "config.json").write_text(config.replace('"heads"', '"head"'))
    with pytest.raises(ValueError, match=r"unknown configuration key 'fusion\.head'; did you mean 'heads'"):
        SamRef.from_pretrained(folder)
    (folder / "config.json").write_text(config)
    whole = adapters.read_bytes()
    adapters.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"adapters\.safetensors is no readable checkpoint"):
        SamRef.from_pretrained(folder)
    adapters.unlink()
    with pytest.raises(FileNotFoundError, match=r"adapters\.safetensors"):
        SamRef.from_pretrained(folder)
    adapters.write_bytes(whole)
    (folder / "base_sam.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"base_sam\.safetensors"):
        SamRef.from_pretrained(folder)


def test_trained_states_that_do_not_fit_change_nothing() -> None:
    model, other = tiny_model(), tiny_model(noise=NOISE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = other.trained_state_dict()
    state["extra"] = torch.zeros(1)
    state["fusion.query_norm.bias"] = torch.zeros(3)
    del state["mask_decoder.iou_token.weight"]
    with pytest.raises(ValueError, match="does not fit") as error:
        model.load_trained_state_dict(state)
    for part in (
        "1 missing (mask_decoder.iou_token.weight)",
        "1 unexpected (extra)",
        "1 misshapen (fusion.query_norm.bias (3,) instead of (128,))",
    ):
        assert part in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ---- SAM's checkpoints ----


def test_sam_checkpoints_are_loaded(tmp_path: Path) -> None:
    model = SamRef.from_sam("tiny", sam_file(tmp_path / "base.pth"))
    for name, tensor in read_tensors(tmp_path / "base.pth").items():
        assert torch.equal(model.sam.state_dict()[name], tensor), name
    for (name, trained), own in zip(
        model.mask_decoder.state_dict().items(), model.sam.mask_decoder.state_dict().values(), strict=True
    ):
        assert torch.equal(trained, own), name


def test_wrapped_checkpoints_are_unwrapped(tmp_path: Path) -> None:
    sam = build_sam("tiny")
    torch.save({"model": sam.state_dict(), "epoch": 3}, tmp_path / "base.pth")
    load_sam_checkpoint(build_sam("tiny"), tmp_path / "base.pth", "tiny")


def test_random_weights_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    SamRef.from_sam("tiny")
    assert "SAM tiny has random weights" in caplog.text


def test_unknown_sizes_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SAM size must be one of .*, got 'vit_xl'"):
        SamRef.from_sam("vit_xl")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere"):
        SamRef.from_sam("tiny", tmp_path / "nowhere.pth")


def test_another_size_is_recognised(tmp_path: Path) -> None:
    path = sam_file(tmp_path / "sam_vit_b.pth", **{"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)})
    with pytest.raises(ValueError, match=r"sam_vit_b\.pth is a SAM of width 768, but 'tiny' has width 144"):
        SamRef.from_sam("tiny", path)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    changes: dict[str, Tensor | None] = {
        "mask_decoder.iou_token.weight": None,
        "surplus": torch.zeros(2),
        "image_encoder.patch_embed.proj.bias": torch.zeros(5),
    }
    path = sam_file(tmp_path / "odd.pth", **changes)
    sam = build_sam("tiny")
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    with pytest.raises(ValueError, match=r"odd\.pth as SAM 'tiny' does not fit") as error:
        load_sam_checkpoint(sam, path, "tiny")
    assert "1 missing (mask_decoder.iou_token.weight)" in str(error.value)
    assert "1 unexpected (surplus)" in str(error.value)
    assert "image_encoder.patch_embed.proj.bias (5,) instead of (144,)" in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in sam.state_dict().items())


class Malicious:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_not_executed(legacy: bool, tmp_path: Path) -> None:
    content = {"image_encoder.pos_embed": Malicious(tmp_path / "pwned")}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"evil\.pth is no readable checkpoint of plain tensors"):
        SamRef.from_sam("tiny", tmp_path / "evil.pth")
    assert names_in(tmp_path) == {"evil.pth"}
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "pwned").is_dir()  # the trap was armed


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_checkpoints_are_refused(suffix: str, share: float, tmp_path: Path) -> None:
    path = sam_file(tmp_path / f"cut{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"cut{suffix} is no readable checkpoint"):
        SamRef.from_sam("tiny", path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": 3}, {"model": {"a": "text"}}])
def test_files_that_hold_no_state_dict_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_tensors(tmp_path / "other.pth")


# ---- Configurations and files ----


@settings(max_examples=30, deadline=None)
@given(
    heads=st.integers(1, 16),
    dropout=st.floats(0, 0.9),
    targets=st.lists(st.sampled_from(["qkv", "proj"]), max_size=2),
    name=st.none() | st.text(max_size=8),
)
def test_configurations_round_trip(heads: int, dropout: float, targets: list[str], name: str | None) -> None:
    config = SamRefConfig(
        fusion=FusionConfig(heads=heads, dropout=dropout),
        lora=LoraConfig(image_targets=targets),
        text_encoder=TextEncoderConfig(name=name),
    )
    assert SamRefConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"poling": "image"}, r"'poling'; did you mean 'pooling'"),
        ({"lora": {"rnak": 4}}, r"'lora\.rnak'; did you mean 'rank'"),
        ({"qwertz": 1}, r"'qwertz'; known are fusion, lora"),
        ({"pooling": "max"}, r"pooling must be one of .*, got 'max'"),
        ({"fusion": 3}, r"'fusion' must be a mapping, got 3"),
    ],
)
def test_bad_configurations_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamRefConfig.from_dict(values)


def test_published_widths() -> None:
    fusion = SamRefConfig.for_size("vit_h").fusion
    assert (fusion.heads, fusion.head_width, fusion.dropout) == (8, 256, 0.1)
    assert SamRefConfig.for_size("vit_b").mask_encoder.width == 64


def test_files_and_folders_are_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("old")

    def fail_in(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("halfway")

    for name in ("old.txt", "new.txt"):
        with pytest.raises(RuntimeError, match="halfway"), whole_file(tmp_path / name) as temporary:
            fail_in(temporary)
    with pytest.raises(RuntimeError, match="halfway"), whole_folder(tmp_path / "folder") as temporary:
        fail_in(temporary / "a")
    assert contents(tmp_path) == {"old.txt": b"old"}
    assert names_in(tmp_path) == {"old.txt"}
    with whole_file(tmp_path / "old.txt") as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"old.txt": b"new"}


def test_aliases_are_saved_once() -> None:
    shared, other = torch.arange(4.0), torch.arange(4.0)
    state = {"a": shared, "b": shared, "c": other, "d": shared[:2], "e": torch.zeros(0), "f": torch.zeros(0)}
    assert list(without_aliases(state)) == ["a", "c", "d", "e", "f"]
