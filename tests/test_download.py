"""Files from the net: whole or not there, resumed, checked; and base checkpoints by name on top of that."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from weights_server import Serving, weights_server

from sam_uniref.cli import app
from sam_uniref.hub import known
from sam_uniref.hub.download import check_address, download
from sam_uniref.hub.known import KnownWeights, find_known, known_weights, weights_of_sha256
from sam_uniref.hub.weights import base_checkpoint, fetch_weights, weights_folder

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def fetch(serving: Serving, target: Path, **changes: Any) -> None:
    download(serving.address + "weights.pth", target, **{"size": len(CONTENT), "sha256": SHA256, **changes})


def names_in(folder: Path) -> set[str]:
    """Without the locks, which stay."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_file_is_downloaded_once(tmp_path: Path) -> None:
    with weights_server(CONTENT) as serving:
        for _ in range(2):
            fetch(serving, tmp_path / "deep" / "weights.pth")
    assert (tmp_path / "deep" / "weights.pth").read_bytes() == CONTENT
    assert names_in(tmp_path / "deep") == {"weights.pth"}
    assert serving.asked == [None]


def test_another_file_of_the_name_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"x" * len(CONTENT))
    with weights_server(CONTENT) as serving:
        fetch(serving, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_what_breaks_off_goes_on_from_there(tmp_path: Path) -> None:
    with weights_server(CONTENT, break_after=[1000, 3000]) as serving:
        fetch(serving, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert serving.asked == [None, "bytes=1000-", "bytes=4000-"]


def test_a_connection_that_brings_nothing_is_an_error_and_the_next_call_goes_on(tmp_path: Path) -> None:
    with weights_server(CONTENT, break_after=[1000, 0]) as serving:
        with pytest.raises(FileNotFoundError, match=r"1,000 of 10,240 bytes are kept, and the next try goes on"):
            fetch(serving, tmp_path / "weights.pth")
        assert names_in(tmp_path) == {".weights.pth.part"}
        fetch(serving, tmp_path / "weights.pth")
    assert serving.asked == [None, "bytes=1000-", "bytes=1000-"]
    assert names_in(tmp_path) == {"weights.pth"}


def test_a_server_without_ranges_begins_anew(tmp_path: Path) -> None:
    (tmp_path / ".weights.pth.part").write_bytes(CONTENT[:700])
    with weights_server(CONTENT, ranges=False) as serving:
        fetch(serving, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("length", [700, len(CONTENT), len(CONTENT) + 1])
def test_the_beginning_of_another_file_is_thrown_away(length: int, tmp_path: Path) -> None:
    (tmp_path / ".weights.pth.part").write_bytes(b"x" * length)
    with weights_server(CONTENT) as serving:
        fetch(serving, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert names_in(tmp_path) == {"weights.pth"}


@pytest.mark.parametrize("lengthless", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-1] + b"!", "its sha256 is .* and not"),
        (CONTENT + b"!", "is another file: it has"),
        (b"<html>no such file</html>", "is another file: it has (25|no more than 25) bytes"),
    ],
)
def test_another_file_is_refused_and_leaves_nothing(
    content: bytes, message: str, lengthless: bool, tmp_path: Path
) -> None:
    with (
        weights_server(content, lengthless=lengthless) as serving,
        pytest.raises((ValueError, FileNotFoundError), match=message),
    ):
        fetch(serving, tmp_path / "weights.pth")
    assert not (tmp_path / "weights.pth").exists()
    if len(content) >= len(CONTENT):
        assert names_in(tmp_path) == set()


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_error_of_the_server_is_told(status: int, tmp_path: Path) -> None:
    with weights_server(CONTENT, status=status) as serving, pytest.raises(FileNotFoundError, match=f"says {status}"):
        fetch(serving, tmp_path / "weights.pth")
    assert len(serving.asked) == 1
    assert names_in(tmp_path) == set()


def test_nobody_there(tmp_path: Path) -> None:
    with weights_server(CONTENT) as serving:
        pass
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        fetch(serving, tmp_path / "weights.pth")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/weights.pth",
        "http://127.0.0.1.example.com/weights.pth",
        "http://127.0.0.1@example.com/weights.pth",
        "file:///etc/passwd",
        "ftp://example.com/weights.pth",
        "https:///weights.pth",
        "weights.pth",
        "",
    ],
)
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="over https:// alone"):
        download(url, tmp_path / "weights.pth", size=1, sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["https://example.com/a", "http://localhost:8/a", "http://[::1]:8/a"])
def test_safe_addresses(url: str) -> None:
    check_address(url)


@pytest.mark.parametrize("there", ["http://example.com/weights.pth", "file:///etc/passwd", "https://example.com/a"])
def test_being_sent_elsewhere_is_refused(there: str, tmp_path: Path) -> None:
    with (
        weights_server(CONTENT, sends_on=there) as serving,
        pytest.raises((ValueError, FileNotFoundError), match=r"https|not allowed"),
    ):
        fetch(serving, tmp_path / "weights.pth")
    assert names_in(tmp_path) == set()


def test_being_sent_on_within_the_machine(tmp_path: Path) -> None:
    with weights_server(CONTENT) as end, weights_server(b"", sends_on=end.address + "there.pth") as begin:
        fetch(begin, tmp_path / "weights.pth")
    assert end.asked == [None]


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 7))
    with weights_server(CONTENT) as serving, pytest.raises(OSError, match="has room for 7 bytes, and 10,240"):
        fetch(serving, tmp_path / "weights.pth")
    assert serving.asked == []


def test_side_by_side_one_downloads(tmp_path: Path) -> None:
    with weights_server(CONTENT) as serving:
        threads = [threading.Thread(target=fetch, args=(serving, tmp_path / "weights.pth")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert serving.asked == [None]
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


@settings(max_examples=25, deadline=None)
@given(breaks=st.lists(st.integers(1, 3000), max_size=4), kept=st.integers(0, 3000), right=st.booleans())
def test_whatever_breaks_the_file_is_the_file(
    breaks: list[int], kept: int, right: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("download")
    (folder / ".weights.pth.part").write_bytes((CONTENT if right else b"y" * 3000)[:kept])
    with weights_server(CONTENT, break_after=breaks) as serving:
        fetch(serving, folder / "weights.pth")
    assert (folder / "weights.pth").read_bytes() == CONTENT
    assert names_in(folder) == {"weights.pth"}


# ---- By name ----


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_UNIREF_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.delenv("SAM_UNIREF_CHECKPOINTS", raising=False)


def publish(monkeypatch: pytest.MonkeyPatch, serving: Serving, name: str = "vit_b") -> KnownWeights:
    """The server's file as the published one of a name."""
    weights = KnownWeights(name, f"{name}.pth", serving.address, len(CONTENT), SHA256, "a made-up SAM")
    monkeypatch.setattr(known, "KNOWN_WEIGHTS", (weights,))
    return weights


def test_weights_are_fetched_by_name_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with weights_server(CONTENT) as serving:
        publish(monkeypatch, serving)
        for name in ("vit_b", "vit_b.pth"):
            assert base_checkpoint(name) == tmp_path / "kept" / "vit_b.pth"
            assert fetch_weights(name, local_files_only=bool(serving.asked)) == tmp_path / "kept" / "vit_b.pth"
    assert serving.asked == [None]


def test_what_is_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "vit_b.pth").write_bytes(CONTENT)
    with weights_server(CONTENT) as serving:
        publish(monkeypatch, serving)
        monkeypatch.setenv("SAM_UNIREF_CHECKPOINTS", str(tmp_path / "mine"))
        assert base_checkpoint("vit_b") == tmp_path / "mine" / "vit_b.pth"
        monkeypatch.chdir(tmp_path / "mine")
        assert base_checkpoint("vit_b.pth") == Path("vit_b.pth")
        assert base_checkpoint(Path("elsewhere/vit_b.pth")) == Path("elsewhere/vit_b.pth")  # a path is a path
    assert serving.asked == []


def test_a_spoilt_file_is_passed_over_and_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "vit_b.pth").write_bytes(CONTENT[:-1])
    with weights_server(CONTENT) as serving:
        publish(monkeypatch, serving)
        assert fetch_weights("vit_b").read_bytes() == CONTENT
    assert "not the published file of that name" in caplog.text


@pytest.mark.parametrize("how", ["argument", "environment", "no server"])
def test_offline_says_what_to_do(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with weights_server(CONTENT) as serving:
        weights = publish(monkeypatch, serving)
    if how == "environment":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError) as error:
        fetch_weights("vit_b", local_files_only=how == "argument")
    for part in (weights.url, weights.sha256, str(tmp_path / "kept"), "SAM_UNIREF_CHECKPOINTS", "checkpoint="):
        assert part in str(error.value)


def test_where_weights_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_folder() == tmp_path / "kept"
    monkeypatch.delenv("SAM_UNIREF_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert weights_folder() == tmp_path / "caches" / "sam_uniref" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights_folder() == Path.home() / ".cache" / "sam_uniref" / "weights"


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="did you mean 'mobile_sam'"):
        known_weights("mobilesam")
    assert find_known("tiny") is None
    assert weights_of_sha256(None) is None


def test_the_table_of_known_weights() -> None:
    weights = known.KNOWN_WEIGHTS
    assert {"vit_b", "vit_l", "vit_h", "mobile_sam"} == {entry.name for entry in weights}
    for entry in weights:
        assert entry.folder.startswith("https://")
        assert entry.folder.endswith("/")
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert Path(entry.file).name == entry.file
        assert 10**7 < entry.size < 3 * 10**9
        assert entry.licence == "Apache-2.0"
    assert len({entry.sha256 for entry in weights}) == len({entry.name for entry in weights}) == len(weights)


# ---- The command ----


def test_the_command_lists_and_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner().invoke
    with weights_server(CONTENT) as serving:
        publish(monkeypatch, serving)
        assert json.loads(run(app, ["weights", "--json"]).stdout)[0]["path"] is None
        assert run(app, ["weights", "vit_b", "--offline"]).exit_code == 2
        assert serving.asked == []
        fetched = run(app, ["weights", "vit_b"])
    assert (fetched.exit_code, fetched.stdout.strip()) == (0, str(tmp_path / "kept" / "vit_b.pth"))
    assert str(tmp_path / "kept" / "vit_b.pth") in run(app, ["weights"]).stdout
    assert run(app, ["weights", "vit_c"]).exit_code == 2
