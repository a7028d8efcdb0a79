"""Released weights of hosts by name: where they are looked for, without a net."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from sam_uniref import SamRef
from sam_uniref.cli import app
from sam_uniref.config import BaseSamConfig
from sam_uniref.hosts import HOST_NAMES
from sam_uniref.hosts.registry import published_weights, repository_of
from sam_uniref.hub import known
from sam_uniref.hub.known import KnownFolder, find_folder, find_known
from sam_uniref.hub.weights import base_checkpoint, fetch_weights


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAM_UNIREF_WEIGHTS", "SAM_UNIREF_CHECKPOINTS", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.mark.parametrize("name", [name for name in HOST_NAMES if name != "tiny"])
def test_every_host_has_released_weights(name: str) -> None:
    base = BaseSamConfig(size=name)
    assert (repository_of(base) is None) == (find_known(name) is not None)
    with pytest.raises(FileNotFoundError, match="not on this machine"):
        published_weights(base, local_files_only=True)


def test_the_tiny_one_has_none() -> None:
    assert published_weights(BaseSamConfig(size="tiny"), local_files_only=True) is None


def test_a_model_of_the_callers_own_is_not_looked_for() -> None:
    assert repository_of(BaseSamConfig(size="edgetam", architecture={"model_type": "edgetam"})) is None


def test_without_them_a_host_is_not_built() -> None:
    with pytest.raises(FileNotFoundError, match=r"mobile_sam\.pt"):
        SamRef.from_sam("mobile_sam", local_files_only=True)


# ---- Folders of the hub ----

WEIGHTS = b"weights of a host"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the hub is asked; it has one answer for everything."""
    seen: list[dict[str, Any]] = []
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)

    def snapshot_download(repository: str, **options: Any) -> str:
        seen.append({"repository": repository, **options})
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(siblings=[]))
    return seen


def know(monkeypatch: pytest.MonkeyPatch, size: int, sha256: str) -> None:
    """As if the hash of EdgeTAM's weights had been put down."""
    folder = KnownFolder(("edgetam",), "who/EdgeTAM", "EdgeTAM", "c0ffee", size, sha256)
    monkeypatch.setattr(known, "KNOWN_FOLDERS", (folder,))


def test_what_is_known_by_no_hash_is_told(asked: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    assert fetch_weights("edgetam") == base_checkpoint("edgetam")
    assert "unchecked: its SHA-256 is not known before; edgetam@REVISION pins a commit" in caplog.text
    assert {(entry["repository"], entry["revision"]) for entry in asked} == {("yonigozlan/EdgeTAM-hf", None)}


def test_a_caller_may_pin_a_revision(
    asked: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors"):  # the made-up weights are none
        SamRef.from_sam("sam2.1_hiera_tiny@1a2b3c4")
    fetch_weights("sam2.1_hiera_tiny@1a2b3c4")
    base_checkpoint("sam2.1_hiera_tiny@1a2b3c4")
    know(monkeypatch, 1, "0" * 64)
    fetch_weights("edgetam@1a2b3c4")  # another one than that which is known
    assert [entry["revision"] for entry in asked] == ["1a2b3c4"] * 4
    assert caplog.text == ""


def test_a_known_hash_is_checked(
    asked: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    know(monkeypatch, len(WEIGHTS), sha256)
    assert fetch_weights("edgetam") == fetch_weights("edgetam@c0ffee")
    assert (asked[0]["revision"], caplog.text) == ("c0ffee", "")
    know(monkeypatch, len(WEIGHTS), "0" * 64)
    with pytest.raises(ValueError, match=f"is not the EdgeTAM who/EdgeTAM: it has sha256 {sha256} and not sha256 000"):
        fetch_weights("edgetam")
    know(monkeypatch, 18, sha256)
    with pytest.raises(ValueError, match="it has 17 bytes and not 18 bytes"):
        published_weights(BaseSamConfig(size="edgetam"))


def test_folders_are_listed_and_fetched(asked: list[dict[str, Any]]) -> None:
    lines = CliRunner().invoke(app, ["weights"]).stdout.splitlines()
    assert [line for line in lines if line.startswith("sam_hq_vit_b ") and "no SHA-256 is known" in line]
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["weights", "--json"]).stdout)}
    assert set(HOST_NAMES) - {"tiny"} == set(rows)
    assert rows["edgetam"]["url"].endswith("/yonigozlan/EdgeTAM-hf")
    fetched = CliRunner().invoke(app, ["weights", "edgetam@1a2b3c4", "--json"])
    assert Path(json.loads(fetched.stdout)["edgetam@1a2b3c4"]).name == "snapshot"
    assert find_folder("vit_b@1a2b3c4") is None
