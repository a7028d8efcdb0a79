"""The page in a real browser: what a visitor does, from upload to result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image as PILImage
from web_browser import Server, Visitor, browser_or_skip, opened

from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.video_writing import write_video

_NATURAL_SIZE = """
const image = document.querySelector("#overlay img");
return image.naturalWidth ? [image.naturalWidth, image.naturalHeight] : null;
"""

pytestmark = [pytest.mark.web, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    browser_or_skip()
    running = Server(tmp_path_factory.mktemp("server"), "--max-frames", "30")
    yield running
    assert running.stop() == 0
    assert list(running.folder.glob("sam_uniref_web_*")) == [], "what visitors left is removed"
    assert "Traceback" not in "".join(running.log)


@pytest.fixture(scope="module")
def visitor(server: Server) -> Iterator[Visitor]:
    with opened() as browser:
        yield Visitor(browser, server.url)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a mask and a clip to upload."""
    folder = tmp_path_factory.mktemp("things")
    scene = RefShapesDataset("web", "ris", side=256).episode(5)
    PILImage.fromarray(scene.image).save(folder / "scene.png")
    (folder / "sentence.txt").write_text(scene.sentence or "")
    few = RefShapesDataset("web", "fss", side=256).episode(0)
    PILImage.fromarray(few.image).save(folder / "query.png")
    PILImage.fromarray(few.references[0].image).save(folder / "example.png")
    PILImage.fromarray(few.references[0].mask.astype(np.uint8) * 255).save(folder / "example-mask.png")
    clip = RefShapesDataset("web", "vos", frames=6).clip(0)
    write_video(folder / "clip.mp4", list(clip.frames), frames_per_second=6)
    (folder / "text.jpg").write_text("this is no picture")
    return folder


def asked_of(visitor: Visitor) -> set[str]:
    """Hosts that the page asked for anything."""
    sent = [json.loads(entry["message"])["message"] for entry in visitor.browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    pages = [m["params"].get("documentURL", "") for m in sent if m["method"] == "Network.requestWillBeSent"]
    of_ours = [url for url, page in zip(urls, pages, strict=True) if page.startswith("http://")]
    return {urlparse(url).hostname or "" for url in of_ours if url.startswith(("http", "ws"))}


def test_a_sample_by_one_click(visitor: Visitor) -> None:
    visitor.one("#picture_samples button.thumbnail-item").click()
    visitor.until(lambda: visitor.source("#overlay img"))
    visitor.until(lambda: "score" in visitor.text("#caption"))
    assert visitor.one("#sentence textarea, #sentence input").get_attribute("value")


def test_a_picture_and_a_sentence(visitor: Visitor, things: Path) -> None:
    before, shown = visitor.source("#overlay img"), visitor.number("picture")
    visitor.upload("picture_upload", things / "scene.png")
    visitor.until(lambda: visitor.number("picture") not in (None, shown))
    visitor.write("sentence", (things / "sentence.txt").read_text())
    visitor.press("segment")
    visitor.until(lambda: visitor.source("#overlay img") not in ("", before))
    assert "score" in visitor.text("#caption")


def test_a_clicked_point(visitor: Visitor) -> None:
    visitor.write("sentence", "")
    before = visitor.source("#overlay img")
    visitor.drag("picture", (0.5, 0.5))
    visitor.press("segment")
    visitor.until(lambda: visitor.source("#overlay img") not in ("", before))


def test_a_painted_example(visitor: Visitor, things: Path) -> None:
    visitor.one("#picture .wipe").click()
    if not visitor.all("#example_upload") or not visitor.one("#example canvas").is_displayed():
        visitor.one("#by_example button").click()
    visitor.upload("example_upload", things / "example.png")
    visitor.until(lambda: visitor.number("example"))
    visitor.upload("mask_upload", things / "example-mask.png")
    first = visitor.number("example")
    visitor.until(lambda: visitor.number("example") != first)
    visitor.tool("example", "paint")
    visitor.drag("example", (0.45, 0.5), (0.55, 0.5), (0.5, 0.55))
    visitor.press("add_example")
    visitor.until(lambda: visitor.all("#examples img"))
    before = visitor.source("#overlay img")
    visitor.press("segment")
    visitor.until(lambda: visitor.source("#overlay img") not in ("", before))
    visitor.press("drop_examples")
    visitor.until(lambda: not visitor.all("#examples img"))


def test_what_is_wrong_is_told_in_a_sentence(visitor: Visitor, things: Path) -> None:
    visitor.upload("picture_upload", things / "text.jpg")
    message = visitor.error()
    assert "no whole picture" in message
    assert "/" not in message
    visitor.write("sentence", " ")
    visitor.press("segment")
    assert "Say what to find" in visitor.error()


def test_a_video(visitor: Visitor, things: Path) -> None:
    visitor.open_tab("Video")
    visitor.upload("video_upload", things / "clip.mp4")
    visitor.until(lambda: "6 frames" in visitor.text("#video_caption"))
    visitor.until(lambda: visitor.number("frame"))
    visitor.tool("frame", "paint")
    visitor.drag("frame", (0.4, 0.4), (0.6, 0.6))
    visitor.press("add_object")
    visitor.until(lambda: "1: marked" in visitor.text("#objects"))
    visitor.write("object_sentence", "the big shape")
    visitor.press("add_object")
    visitor.until(lambda: "2: the big shape" in visitor.text("#objects"))
    visitor.press("follow")
    visitor.until(lambda: ".mp4" in visitor.source("#video_overlay video"))
    assert "object 2: in" in visitor.text("#video_caption")
    files = visitor.until(lambda: visitor.text("#video_files"))
    assert all(suffix in files for suffix in (".mp4", ".zip", ".json"))
    visitor.until(lambda: visitor.browser.execute_script(
        "return document.querySelector('#video_overlay video').videoWidth"
    ) == 128)  # fmt: skip


def test_a_video_that_is_none(visitor: Visitor, things: Path) -> None:
    fake = things / "fake.mp4"
    fake.write_bytes((things / "scene.png").read_bytes())
    visitor.upload("video_upload", fake)
    assert "no video that can be read" in visitor.error()


def test_methods_side_by_side(visitor: Visitor) -> None:
    visitor.open_tab("Compare")
    visitor.one("#compared_samples button.thumbnail-item").click()
    visitor.until(lambda: len(visitor.all("#answers img")) >= 2)
    assert "PerSAM" in visitor.text("#answers")


def test_two_visitors_at_once(visitor: Visitor, server: Server, things: Path) -> None:
    """Each gets the answer about the own picture, whatever the other does meanwhile."""
    with opened() as browser:
        other = Visitor(browser, server.url)
        visitor.browser.get(server.url)
        visitor.until(lambda: visitor.all("#picture canvas"))
        PILImage.fromarray(np.full((64, 96, 3), 200, np.uint8)).save(things / "grey.png")
        visitor.upload("picture_upload", things / "scene.png")
        other.upload("picture_upload", things / "grey.png")
        for one in (visitor, other):
            one.until(lambda one=one: one.number("picture"))
            one.drag("picture", (0.5, 0.5))
        for one in (visitor, other):
            one.press("segment")
        sizes = []
        for one in (visitor, other):
            one.until(lambda one=one: one.source("#overlay img"))
            sizes.append(one.until(lambda one=one: one.browser.execute_script(_NATURAL_SIZE)))
        assert sizes == [[256, 256], [96, 64]]
    visits = next(server.folder.glob("sam_uniref_web_*")) / "visits"
    visitor.until(lambda: len(list(visits.iterdir())) == 1)


def test_nothing_is_asked_of_other_servers(visitor: Visitor) -> None:
    assert asked_of(visitor) == {"127.0.0.1"}
