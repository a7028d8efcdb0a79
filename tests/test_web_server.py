"""The page's server over HTTP, on this machine: hostile requests get no traceback, no path and no foreign file."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE, NAMES, PICTURES, encoded, mutated, noise, painted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from tiny import disc, picture, tiny_model

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'sam_uniref[demo]'")
httpx = pytest.importorskip("httpx")

from sam_uniref.video_writing import write_video  # noqa: E402
from sam_uniref.web.answers import Asked  # noqa: E402
from sam_uniref.web.limits import Limits  # noqa: E402
from sam_uniref.web.page import serving  # noqa: E402

# make test-fuzz asks for all of them.
FUZZED = settings(
    max_examples=int(os.environ.get("SAM_UNIREF_FUZZ", "15")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Each asks the model several times.
FUZZED_VALUES = settings(FUZZED, max_examples=min(60, FUZZED.max_examples))
UPLOADS = (
    *("picture_upload", "example_upload", "mask_upload", "video_upload", "ids_upload"),
    *("compared_upload", "compared_example_upload", "compared_mask_upload"),
)
# What must be there before a mask is taken.
NEEDED = {
    "mask_upload": "example_upload",
    "compared_mask_upload": "compared_example_upload",
    "ids_upload": "video_upload",
}
NO_SENTENCES = {
    "a red star. a blue circle": "got two",
    "красная звезда": "knows no word of",
    "a red\x01 star": "is words, got",
}
_PRIVATE = re.compile(r"Traceback|site-packages|/etc/|root:x:|File \"|sam_uniref_web_")


class Client:
    """One visitor who speaks HTTP.

    Attributes:
        folder: In which the server's temporary folder is.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._http = httpx.Client(base_url=url, timeout=60)
        config = self.get("/config").json()
        names = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
        self.events = {
            (names.get(target), kind): entry["id"]
            for entry in config["dependencies"]
            for target, kind in entry["targets"]
        }

    def get(self, path: str) -> Any:
        """Any page."""
        return self._http.get(path)

    @contextmanager
    def heartbeat(self, session: str) -> Iterator[None]:
        """The connection that says a page is open. It is dropped without a word."""
        address = self._http.base_url
        with socket.create_connection((address.host, address.port), timeout=60) as connection:
            request = f"GET /gradio_api/heartbeat/{session} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n\r\n"
            connection.sendall(request.encode())
            while b"ALIVE" not in connection.recv(4096):
                pass
            yield
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def upload(self, name: str, content: bytes) -> Any:
        """Send a file as the page does."""
        return self._http.post("/gradio_api/upload", files={"files": (name, content)})

    def ask(self, element: str, kind: str, data: list[Any], session: str = "fuzz") -> dict[str, Any]:
        """Send an event and wait for its end; the last message of it."""
        asked = {"data": data, "fn_index": self.events[element, kind], "session_hash": session, "trigger_id": None}
        joined = self._http.post("/gradio_api/queue/join", json=asked)
        if joined.status_code != 200:
            return {"status": joined.status_code, "text": joined.text}
        with self._http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answers:
            for line in answers.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    return dict(message)
        raise AssertionError("the event did not end")


@contextmanager
def served(folder: Path, **limited: float) -> Iterator[Client]:
    """A client of a server with a temporary folder of its own, of which nothing is left after."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        limits = Limits(upload_megabytes=1, megapixels=0.25, frames=6, **limited)
        with serving(Asked(tiny_model(), "SamRef"), note="A test.", limits=limits) as url:
            assert "//127.0.0.1:" in url
            yield Client(url, folder)
        assert list(folder.iterdir()) == [], "nothing is left of the server"
    finally:
        tempfile.tempdir = before


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server in a folder beside which, and in whose working folder, nothing may change."""
    outside, before = tmp_path_factory.mktemp("outside"), Path.cwd()
    for name in ("server", "work"):
        (outside / name).mkdir()
    for name in ("canary.png", "work/canary.png"):
        (outside / name).write_bytes(PICTURES["PNG"])
    os.chdir(outside / "work")
    try:
        with served(outside / "server") as opened:
            yield opened
    finally:
        os.chdir(before)
    assert_nothing_outside(outside / "server")


def assert_nothing_outside(server: Path) -> None:
    """Beside the server's folder, all is as it was."""
    found = {path for path in server.parent.rglob("*") if path.is_file() and not path.is_relative_to(server)}
    assert found == {server.parent / "canary.png", server.parent / "work" / "canary.png"}
    assert {path.read_bytes() for path in found} == {PICTURES["PNG"]}


def files_of(client: Client) -> set[Path]:
    """All that the server keeps, but for the empty file that Gradio's upload button leaves of each upload.

    The server may be removing things meanwhile: `os.walk` passes over folders that went, and `size_of` over files.
    """
    paths = (Path(folder, name) for folder, _, names in os.walk(client.folder) for name in names)
    return {path for path in paths if size_of(path)}


def size_of(path: Path) -> int:
    """In bytes; 0 for a file that is no longer there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def until(true: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


def ask_everything(client: Client, session: str, seed: int) -> None:
    """What leaves files at the server: an upload, an answer, an example, a comparison."""
    (path,) = client.upload("picture.png", encoded(noise(40 + seed, 60), "PNG")).json()
    for element in ("picture_upload", "example_upload", "compared_upload"):
        assert client.ask(element, "upload", [file_data(path)], session)["success"]
    assert client.ask("segment", "click", [None, "the noise", None], session)["success"]
    assert client.ask("compare", "click", [None, "the noise", None], session)["success"]


def file_data(path: str) -> dict[str, Any]:
    """What the page says of an uploaded file."""
    return {"path": path, "orig_name": "picture.png", "meta": {"_type": "gradio.FileData"}}


def assert_nothing_private(message: object) -> None:
    """Neither a traceback nor a path of the server."""
    assert not _PRIVATE.search(json.dumps(message)), message


def errors_of(answer: dict[str, Any]) -> str:
    """The message that the page shows of a failed event."""
    assert not answer.get("success", False)
    return str(answer.get("output", {}).get("error"))


def test_a_good_picture_is_shown(client: Client) -> None:
    (path,) = client.upload("picture.png", PICTURES["PNG"]).json()
    answer = client.ask("picture_upload", "upload", [file_data(path)])
    assert answer["success"]
    assert answer["output"]["data"][0]["picture"].startswith("data:image/jpeg;base64,")


def test_what_is_no_sentence_is_refused_in_one(client: Client) -> None:
    (path,) = client.upload("picture.png", PICTURES["PNG"]).json()
    for element, button in (("picture_upload", "segment"), ("compared_upload", "compare")):
        assert client.ask(element, "upload", [file_data(path)], "words")["success"]
        for sentence, told in NO_SENTENCES.items():
            answer = client.ask(button, "click", [None, sentence, None], "words")
            assert told in errors_of(answer)
            assert_nothing_private(answer)


def test_visitors_get_answers_about_their_own_pictures(client: Client) -> None:
    sizes = {"one": (24, 40), "two": (56, 32)}
    for session, size in sizes.items():
        (path,) = client.upload("picture.png", encoded(noise(*size), "PNG")).json()
        assert client.ask("picture_upload", "upload", [file_data(path)], session)["success"]
    for session, size in sizes.items():
        answer = client.ask("segment", "click", [None, "the noise", None], session)
        overlay, mask, caption = answer["output"]["data"]
        for shown in (overlay, mask):
            with PILImage.open(shown["path"]) as image:
                assert image.size == (size[1], size[0])
        assert caption
    answer = client.ask("segment", "click", [None, "the noise", None], "three")
    assert "no picture yet" in errors_of(answer)


def test_all_of_a_visitor_goes_when_the_connection_drops(client: Client) -> None:
    before = files_of(client)
    with client.heartbeat("dropped"):
        ask_everything(client, "dropped", seed=1)
        assert len(files_of(client) - before) >= 4
    assert until(lambda: files_of(client) <= before), files_of(client) - before


def test_all_of_a_visitor_without_a_connection_goes_after_keep_minutes(tmp_path: Path) -> None:
    """As one whose machine vanished from the network: the server can't know, and waits no longer than was said."""
    with served(tmp_path, keep_minutes=8 / 60) as client:
        before = files_of(client)
        ask_everything(client, "vanished", seed=2)
        assert files_of(client) - before
        client.upload("never-named.png", PICTURES["PNG"])
        assert until(lambda: files_of(client) <= before), files_of(client) - before


def test_a_video_from_upload_to_files(client: Client, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [picture(32, 48, n) for n in range(3)], frames_per_second=5)
    (path,) = client.upload("clip.mp4", (tmp_path / "clip.mp4").read_bytes()).json()
    frame = client.ask("video_upload", "upload", [file_data(path)], "film")["output"]["data"][0]
    marks = {"number": frame["number"], "points": [], "mask": painted(disc(32, 48))}
    added = client.ask("add_object", "click", [marks, ""], "film")["output"]["data"]
    assert "1: marked" in added[2]
    added = client.ask("add_object", "click", [None, "the <b>disc</b>"], "film")["output"]["data"]
    assert "2: the &lt;b&gt;disc&lt;/b&gt;" in added[2]
    for sentence, told in NO_SENTENCES.items():
        assert told in errors_of(client.ask("add_object", "click", [None, sentence], "film"))
    followed = client.ask("follow", "click", [None, ""], "film")
    assert followed["success"], followed
    names = [Path(file["path"]).name for file in followed["output"]["data"][4]["value"]]
    assert names == ["overlay.mp4", "masks.zip", "masks.json"]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "too many bytes"])
def test_hostile_files_are_refused_in_a_sentence(client: Client, name: str) -> None:
    sent = client.upload("picture.jpg", HOSTILE[name])
    assert_nothing_private(sent.text if sent.status_code != 200 else "")
    if sent.status_code == 200:
        answer = client.ask("picture_upload", "upload", [file_data(sent.json()[0])])
        assert errors_of(answer).endswith(".")
        assert_nothing_private(answer)


def test_a_file_that_is_too_large_is_not_taken(client: Client) -> None:
    sent = client.upload("picture.jpg", HOSTILE["too many bytes"])
    assert sent.status_code == 413
    assert_nothing_private(sent.text)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "file:///etc/passwd", __file__])
def test_no_file_of_the_server_is_read(client: Client, path: str) -> None:
    for answer in (client.get(f"/gradio_api/file={path}"), client.get(f"/file={path}")):
        assert answer.status_code in (400, 403, 404, 500)
        assert "root:x:" not in answer.text
        assert "importorskip" not in answer.text
    answer = client.ask("picture_upload", "upload", [file_data(path)])
    assert_nothing_private(errors_of(answer))


@FUZZED
@given(NAMES, st.sampled_from(sorted(PICTURES)), st.integers(0, 200))
def test_fuzzed_names_and_files(client: Client, name: str, kind: str, cut: int) -> None:
    before = sorted(path.name for path in client.folder.iterdir())
    sent = client.upload(name or "x", PICTURES[kind][: max(1, len(PICTURES[kind]) - cut)])
    assert "Traceback" not in sent.text
    if sent.status_code == 200:
        (path,) = sent.json()
        assert Path(path).resolve().is_relative_to(client.folder)
        answer = client.ask("picture_upload", "upload", [{**file_data(path), "orig_name": name}])
        if not answer["success"]:
            assert_nothing_private(answer)
    assert sorted(path.name for path in client.folder.iterdir()) == before
    assert_nothing_outside(client.folder)


def name_for(button: str) -> str:
    """One that the button takes: content is looked at after names."""
    return "a.mp4" if button == "video_upload" else "a.png"


@pytest.fixture(scope="module")
def whole_files(client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Good files; whoever uploads a mask has what it is a mask of."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, [picture(16, 24, n) for n in range(3)], frames_per_second=5)
    files = {**PICTURES, "clip": path.read_bytes()}
    for button, before in NEEDED.items():
        (sent,) = client.upload(name_for(before), files["clip" if before == "video_upload" else "PNG"]).json()
        assert client.ask(before, "upload", [file_data(sent)], f"files of {button}")["success"]
    return files


@FUZZED
@given(data=st.data())
def test_fuzzed_files_at_every_button(client: Client, whole_files: dict[str, bytes], data: st.DataObject) -> None:
    button = data.draw(st.sampled_from(UPLOADS))
    content = mutated(data, whole_files[data.draw(st.sampled_from(sorted(whole_files)))])
    before = sorted(path.name for path in client.folder.iterdir())
    sent = client.upload(data.draw(st.sampled_from([name_for(button)] * 3 + ["a.txt", "a"])), content)
    assert "Traceback" not in sent.text
    if sent.status_code == 200:
        answer = client.ask(button, "upload", [file_data(sent.json()[0])], f"files of {button}")
        if not answer["success"]:
            assert "our fault" not in errors_of(answer)
            assert_nothing_private(answer)
    assert sorted(path.name for path in client.folder.iterdir()) == before
    assert_nothing_outside(client.folder)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "too many bytes"])
def test_hostile_files_at_every_button(client: Client, whole_files: dict[str, bytes], name: str) -> None:
    for button in UPLOADS:
        (path,) = client.upload(name_for(button), HOSTILE[name] or b" ").json()
        answer = client.ask(button, "upload", [file_data(path)], f"files of {button}")
        if not answer["success"]:
            assert "our fault" not in errors_of(answer)
            assert_nothing_private(answer)
    assert_nothing_outside(client.folder)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["points", "mask", "number"]), inner),
    max_leaves=6,
)


@FUZZED_VALUES
@given(JUNK, JUNK, JUNK)
def test_fuzzed_values(client: Client, one: object, two: object, three: object) -> None:
    for element in ("segment", "compare", "add_object", "follow"):
        values = [one, two, three] if element in ("segment", "compare") else [one, two]
        answer = client.ask(element, "click", values)
        if not answer.get("success", False):
            assert_nothing_private(answer)
