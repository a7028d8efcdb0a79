"""Models by hub id, model cards, and pushing: the hub is made up at its documented functions, the loading is real."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, ModelHubMixin
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import picture, tiny_model
from tiny_uniref import tiny_uniref
from weights_server import weights_server

from sam_uniref import UniRef, packaged
from sam_uniref.hub import known, repositories
from sam_uniref.hub.card import card_text, is_generated
from sam_uniref.hub.known import KnownFolder, KnownWeights
from sam_uniref.hub.repositories import is_bare_name, is_hub_id, model_folder
from sam_uniref.hub.text_encoders import text_encoder
from sam_uniref.loading import load_for_use
from sam_uniref.models import kind_of
from sam_uniref.refsam import RefSam
from sam_uniref.samref import SamRef
from sam_uniref.state import file_sha256


class Unreachable(Exception):  # noqa: N818
    """As clients of the net have them, of no type that is known here."""


class Hub:
    """Repositories as folders, at the functions through which `huggingface_hub` is asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[dict[str, Any]] = []
        self.pushed: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.sizes: dict[str, int] = {}

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str], **options: Any) -> str:
        self.asked.append({"repo_id": repo_id, **options})
        if self.error is not None:
            raise self.error
        copy = self.root / "copies" / repo_id
        shutil.rmtree(copy, ignore_errors=True)
        names = [str(p.relative_to(self.root / repo_id)) for p in (self.root / repo_id).rglob("*") if p.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.root / repo_id / name, copy / name)
        return str(copy)

    def model_info(self, _: Any, repo_id: str, **options: Any) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n, size=s) for n, s in self.sizes.items()])

    def create_repo(self, _: Any, repo_id: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, _: Any, *, repo_id: str, folder_path: Path, ignore_patterns: Any, **options: Any) -> str:
        names = [str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*") if p.is_file()]
        kept = list(filter_repo_objects(names, ignore_patterns=ignore_patterns))
        for name in kept:
            (self.root / repo_id / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(folder_path) / name, self.root / repo_id / name)
        self.pushed.append({"names": set(kept), **options})
        return "https://the.hub/commit"

    def hf_hub_download(self, repo_id: str, filename: str, **options: Any) -> str:
        path = self.root / repo_id / filename
        if not path.is_file():
            raise response_error(RepositoryNotFoundError) if not path.parent.is_dir() else EntryNotFoundError("none")
        return str(path)


def response_error(kind: type[Exception]) -> Any:
    """One of the hub's own errors, without running what its versions differ in."""
    error = kind.__new__(kind)
    error.args = ("401 Client Error",)
    return error


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made_up = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", made_up.snapshot_download)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", made_up.hf_hub_download)
    for name in ("model_info", "create_repo", "upload_folder"):
        method = getattr(made_up, name)
        monkeypatch.setattr(f"huggingface_hub.HfApi.{name}", lambda *a, _method=method, **k: _method(*a, **k))
    monkeypatch.setenv("SAM_UNIREF_WEIGHTS", str(tmp_path / "kept"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return made_up


def answer(model: Any) -> np.ndarray:
    return model.segment(picture(), text="the dog on the left").logits


# ---- Loading by id ----


def test_every_kind_is_loaded_by_its_id(hub: Hub) -> None:
    samref = SamRef.from_sam("tiny", "tiny", "tiny")
    models = {
        "samref": samref,
        "uniref": UniRef.fresh("tiny", text_encoder="tiny"),
        "refsam": RefSam.from_sam("tiny", "tiny", "tiny"),
    }
    for kind, model in models.items():
        model.save_pretrained(hub.root / "user" / kind)
        (hub.root / "user" / kind / "pytorch_model.bin").write_bytes(b"a pickle")
        loaded = load_for_use(f"user/{kind}", None, next(model.parameters()).device)
        assert type(loaded) is type(model)
        assert np.array_equal(answer(loaded), answer(model))
        assert kind_of(f"hf://user/{kind}") == kind
    assert not list((hub.root / "copies").rglob("*.bin"))


def test_what_is_asked_of_the_hub_is_passed_on(hub: Hub, tmp_path: Path) -> None:
    SamRef.from_sam("tiny", "tiny", "tiny").save_pretrained(hub.root / "user" / "name")
    options = {"token": "secret", "cache_dir": tmp_path, "force_download": True, "local_files_only": True}
    SamRef.from_pretrained("user/name", revision="v1", **options)  # type: ignore[arg-type]
    SamRef.from_pretrained("user/name@v2", local_files_only=True)
    first, second = hub.asked
    assert {**options, "revision": "v1", "repo_id": "user/name"}.items() <= first.items()
    assert second["revision"] == "v2"


def test_folders_come_first(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "work" / "user" / "name").mkdir(parents=True)
    assert model_folder("user/name") == Path("user/name")
    assert model_folder("user/other") == Path("user/other")  # a slip of the pen in a folder that is there
    assert model_folder(Path("nobody/name")) == Path("nobody/name")
    assert model_folder("tiny") == packaged.model_folder("tiny")
    assert not hub.asked
    with pytest.raises(FileNotFoundError, match="user/other holds no SamRef"):
        SamRef.from_pretrained("user/other")


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../b", "a/b/c", "~/x", "a/.b", "-a/b", "tiny", "model", "a\\b"])
def test_these_are_no_ids(name: str) -> None:
    assert not is_hub_id(name)


@pytest.mark.parametrize(
    ("asked", "options", "message"),
    [
        ("hf://a/../b", {}, "is called hf://user/name"),
        ("hf://name", {}, "is called hf://user/name"),
        ("user/name@v1", {"revision": "v2"}, "revision='v2' is another one"),
        ("tiny", {"revision": "v1"}, "revision= is of a model on the hub"),
    ],
)
def test_what_can_t_be_meant(asked: str, options: Any, message: str, hub: Hub) -> None:
    with pytest.raises(ValueError, match=message):
        SamRef.from_pretrained(asked, **options)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (RepositoryNotFoundError, {}, "neither as a folder nor on the hub"),
        (RevisionNotFoundError, {"revision": "v9"}, "has no revision 'v9'"),
        (GatedRepoError, {}, "those who asked its owner"),
        (LocalEntryNotFoundError, {}, r"could not be downloaded .*hf download user/name"),
        (LocalEntryNotFoundError, {"local_files_only": True}, "net is not to be asked"),
    ],
)
def test_what_the_hub_refuses_is_told(error: Any, options: Any, message: str, hub: Hub) -> None:
    hub.error = response_error(error)
    with pytest.raises(FileNotFoundError, match=message):
        SamRef.from_pretrained("user/name", **options)


def test_a_hub_out_of_reach_leaves_what_is_here(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    SamRef.from_sam("tiny", "tiny", "tiny").save_pretrained(hub.root / "user" / "name")

    def unreachable(*_: Any, **__: Any) -> None:
        raise Unreachable("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    assert SamRef.from_pretrained("user/name").text_encoder is not None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"model.safetensors": repositories.LARGEST_MODEL + 1}, "more than the 8,000,000,000"),
        ({"config.json": repositories.LARGEST_CONFIG + 1}, "config.json of user/name is larger"),
    ],
)
def test_repositories_that_are_too_large(sizes: dict[str, int], message: str, hub: Hub) -> None:
    hub.sizes = {"huge.bin": 10**13, **sizes}
    with pytest.raises(ValueError, match=message):
        SamRef.from_pretrained("user/name")
    assert not hub.asked


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("sam", "checkpoint", "../../etc/passwd"),
        ("sam", "checkpoint", "..\\..\\secrets.pth"),
        ("sam", "checkpoint", "C:secrets.pth"),
        ("sam", "checkpoint", ".."),
        ("text_encoder", "name", "/home/somebody/bert"),
        ("text_encoder", "name", "../../bert"),
        ("text_encoder", "name", "a/b/c"),
    ],
)
def test_a_configuration_does_not_lead_out(part: str, key: str, value: str, hub: Hub) -> None:
    SamRef.from_sam("tiny", "tiny", "tiny").save_pretrained(hub.root / "user" / "name")
    path = hub.root / "user" / "name" / "config.json"
    config = json.loads(path.read_text())
    config[part][key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{part}.{key} must be"):
        SamRef.from_pretrained("user/name")


@settings(deadline=None)
@given(st.text(alphabet="ab./\\:~ ", max_size=8))
def test_a_bare_name_stays_in_its_folder(name: str) -> None:
    if is_bare_name(name):
        assert (Path("/folder") / name).resolve().parent == Path("/folder")


# ---- Bases and text encoders ----


def test_from_sam_and_from_pretrained_fetch_the_base(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = packaged.base_checkpoint("tiny")
    monkeypatch.setattr(packaged, "base_folders", lambda: [])
    with weights_server(file.read_bytes()) as serving:
        published = KnownWeights(
            "tiny", "sam_published.safetensors", serving.address, file.stat().st_size, file_sha256(file), "made up"
        )
        monkeypatch.setattr(known, "KNOWN_WEIGHTS", (published,))
        model = SamRef.from_sam("tiny", text_encoder="tiny")
        assert model.config.sam.checkpoint == "sam_published.safetensors"
        assert model.config.sam.sha256 == published.sha256
        model.config.sam.checkpoint = "renamed.safetensors"  # found by its hash all the same
        model.save_pretrained(tmp_path / "elsewhere" / "model")
        shutil.rmtree(tmp_path / "kept")
        with pytest.raises(FileNotFoundError, match="net is not to be asked"):
            SamRef.from_pretrained(tmp_path / "elsewhere" / "model", local_files_only=True)
        loaded = SamRef.from_pretrained(tmp_path / "elsewhere" / "model")
        assert np.array_equal(answer(loaded), answer(model))
    assert len(serving.asked) == 2


def test_a_known_text_encoder_is_checked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = packaged.text_encoder("tiny") / Path("model.safetensors")
    for name in ("good", "bad"):
        shutil.copytree(packaged.text_encoder("tiny"), hub.root / "who" / name)
    (hub.root / "who" / "good" / "flax_model.msgpack").write_bytes(b"")
    encoders = tuple(
        KnownFolder((name,), f"who/{name}", "text encoder", "commit", size, file_sha256(weights))
        for name, size in (("good", weights.stat().st_size), ("bad", weights.stat().st_size + 1))
    )
    monkeypatch.setattr(known, "KNOWN_TEXT_ENCODERS", encoders)
    with (hub.root / "who" / "bad" / "model.safetensors").open("ab") as file:
        file.write(b"!")
    model = SamRef.from_sam("tiny", "tiny", "good")
    assert model.config.text_encoder.name == "good"
    assert hub.asked[0]["revision"] == "commit"
    assert not list((hub.root / "copies").rglob("*.msgpack"))
    with pytest.raises(ValueError, match="is not the text encoder who/bad: it has sha256"):
        SamRef.from_sam("tiny", "tiny", "bad")
    (hub.root / "who" / "good" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"without its model\.safetensors"):
        text_encoder("good")
    assert text_encoder("tiny") == packaged.text_encoder("tiny")
    assert text_encoder("some/other") == "some/other"


# ---- Cards ----


def front_matter(text: str) -> dict[str, Any]:
    """Read as the hub reads it, and as strict YAML; they must agree."""
    lines = text.split("\n")
    assert lines[0] == "---"
    strict = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    assert strict == ModelCard(text).data.to_dict()
    return strict


def test_a_card_says_what_it_is() -> None:
    model = SamRef.from_sam("tiny", "tiny", "tiny")
    metrics = {"ris": {"mIoU": {"value": 0.8216, "low": 0.8, "high": 0.85, "n": 200, "unit": "%"}}, "steps": 3}
    text = card_text(
        model,
        {
            "repo_id": "user/name",
            "metrics": metrics,
            "training": {"lr": 2e-4, "data": {"fss": {"root": "/home/somebody/pets"}}, "from": "..\\up\\x", "n": None},
            "data": ["user/shapes", "a private set, 2026"],
            "licence": "cc-by-4.0",
            "note": "Trained for the test.",
        },
    )
    data = front_matter(text)
    assert data["library_name"] == "sam_uniref"
    assert data["license"] == "cc-by-4.0"
    assert data["pipeline_tag"] == "image-segmentation"
    assert data["datasets"] == ["user/shapes"]
    assert {"referring-segmentation", "few-shot-segmentation", "video-object-segmentation"} <= set(data["tags"])
    trained = sum(tensor.numel() for tensor in model.trained_state_dict().values())
    for part in (
        'SamRef.from_pretrained("user/name")',
        f"| together | {trained:,} |",
        str(model.config.sam.sha256),
        "| ris mIoU | 0.822 (0.800 to 0.850) |",
        "| steps | 3 |",
        "lr: 0.0002",
        "root: pets",
        "a private set, 2026",
        "Trained for the test.",
    ):
        assert part in text, part
    assert "somebody" not in text
    assert "up\\x" not in text
    assert is_generated(text)
    assert is_generated(text.replace("\n", "\r\n"))
    assert not is_generated(text.replace("0.822", "0.999"))


def test_a_published_base_is_named_with_its_source() -> None:
    model = tiny_model(text=False)
    entry = known.known_weights("vit_b")
    model.config.sam.size, model.config.sam.checkpoint, model.config.sam.sha256 = "vit_b", "mine.pth", entry.sha256
    text = card_text(model)
    assert front_matter(text)["base_model"] == "facebook/sam-vit-base"
    assert entry.url in text
    assert "MaskReference, SamRef" in text
    assert "language" not in front_matter(text)
    model.config.sam.sha256 = "0" * 64
    assert "not a published one" in card_text(model)


def test_other_kinds_have_cards() -> None:
    assert "from sam_uniref import UniRef" in card_text(tiny_uniref())
    text = card_text(RefSam.from_sam("tiny", "tiny", "tiny"))
    assert "from sam_uniref.refsam import RefSam" in text
    assert "few-shot" not in text


def test_an_unknown_option_of_a_card(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'metric'; did you mean 'metrics'"):
        tiny_model(False).save_pretrained(tmp_path / "model", model_card_kwargs={"metric": {}})
    assert not (tmp_path / "model").exists()


def test_a_card_of_a_person_s_stays(tmp_path: Path) -> None:
    model, card = tiny_model(False), tmp_path / "model" / "README.md"
    model.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model", model_card_kwargs={"note": "second"})
    assert "second" in card.read_text()  # nobody had touched the first
    edited = card.read_text() + "\nWhat I found out about it.\n"
    for own in (edited, "# My model\n", ""):
        card.write_text(own)
        model.save_pretrained(tmp_path / "model", model_card_kwargs={"note": "third"})
        assert card.read_text() == own


# ---- Pushing ----


def test_what_is_pushed_loads(hub: Hub) -> None:
    model = SamRef.from_sam("tiny", "tiny", "tiny")
    assert isinstance(model, ModelHubMixin)
    address = model.push_to_hub("user/name", private=True, branch="dev", model_card_kwargs={"note": "mine"})
    assert address == "https://the.hub/commit"
    assert {"config.json", "adapters.safetensors", "README.md"} <= hub.pushed[0]["names"]
    assert hub.pushed[0]["revision"] == "dev"
    card = (hub.root / "user" / "name" / "README.md").read_text()
    assert 'from_pretrained("user/name")' in card
    assert "mine" in card
    assert np.array_equal(answer(SamRef.from_pretrained("user/name")), answer(model))


def test_save_and_push_in_one(hub: Hub, tmp_path: Path) -> None:
    model = SamRef.from_sam("tiny", "tiny", "tiny")
    assert model.save_pretrained(tmp_path / "model") is None
    assert model.save_pretrained(tmp_path / "model", repo_id="user/name", push_to_hub=True) == "https://the.hub/commit"
    assert "user/name" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(ValueError, match=r"\['private'\] do nothing without push_to_hub"):
        model.save_pretrained(tmp_path / "model", private=True)
    with pytest.raises(ValueError, match="config= is not taken"):
        model.save_pretrained(tmp_path / "model", config={})  # type: ignore[arg-type]


def test_a_person_s_card_on_the_hub_stays(hub: Hub) -> None:
    model = SamRef.from_sam("tiny", "tiny", "tiny")
    model.push_to_hub("user/name")
    model.push_to_hub("user/name", model_card_kwargs={"note": "newer"})
    card = hub.root / "user" / "name" / "README.md"
    assert "newer" in card.read_text()
    card.write_text("# Mine\n")
    model.push_to_hub("user/name")
    assert card.read_text() == "# Mine\n"
    assert "README.md" not in hub.pushed[-1]["names"]


def test_what_others_could_not_load_is_not_pushed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(packaged.text_encoder("tiny"), folder)
    with pytest.raises(ValueError, match="others could not load this model"):
        SamRef.from_sam("tiny", "tiny", folder).push_to_hub("user/name")
    assert not hub.pushed
    shutil.copy(packaged.base_checkpoint("tiny"), tmp_path / "mine.safetensors")
    with caplog.at_level(logging.WARNING):
        SamRef.from_sam("tiny", tmp_path / "mine.safetensors", "tiny").push_to_hub("user/name")
    assert "base SAM mine.safetensors is not a published one" in caplog.text
