"""``sam-uniref data``: whole runs as people type them, what they write, say and refuse."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from command import answer, assert_refused, files_in, run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from toy_sets import SCRIPT, ToyImages, ToyVideos, make_images, make_videos, reads

from sam_uniref.commands.data import _progress
from sam_uniref.data.contact_sheet import contact_sheet, wrap
from sam_uniref.data.formats import FORMATS
from sam_uniref.data.prepared import open_split, read_info
from sam_uniref.data.show import image_exhibit, video_exhibit


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for toy in (ToyImages(), ToyVideos()):
        monkeypatch.setitem(FORMATS, toy.name, toy)


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "root")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return make_videos(tmp_path / "videos")


# ---- list ----


def test_list() -> None:
    entries = {entry["name"]: entry for entry in answer("data", "list", "--json")}
    assert entries["toy"] == {
        "name": "toy",
        "title": "Toy pictures",
        "table": "images",
        "homepage": "https://example.org/toy",
        "licence": "CC0",
    }
    text = run("data", "list").stdout
    assert "toy_videos (videos): Toy videos\n    source   https://example.org/toy\n    licence  CC0\n" in text


# ---- prepare ----


@pytest.mark.parametrize("workers", [0, 2])
def test_prepare(workers: int, images: Path, tmp_path: Path) -> None:
    result = run("data", "prepare", "toy", "--root", images, "--out", tmp_path / "out", "--workers", workers)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "split  rows  shards  broken  mended  by rule",
        "train     5       3       0       0        0",
        "val       1       1       0       0        0",
        "in a run:",
        "  reader: prepared",
        f"  root: {tmp_path / 'out' / 'toy'}",
    ]
    assert open_split(tmp_path / "out" / "toy", "train")["target"][:] == list("abcde")


def test_prepare_tells_what_is_broken_and_is_content(images: Path, tmp_path: Path) -> None:
    (images / "2.png").unlink()
    common = ("data", "prepare", "toy", "--root", images, "--out", tmp_path / "out", "--workers", 0)
    result = run(*common, "--split", "train")
    assert result.exit_code == 0
    assert "train     3       3       2       0        0" in result.stdout
    assert "train: broken: missing picture: 2 (2.png, 2.png)" in result.stdout
    assert "what is broken was left out" in result.stdout
    assert list(read_info(tmp_path / "out" / "toy").splits) == ["train"]


def test_prepare_goes_on_after_ctrl_c(images: Path, tmp_path: Path) -> None:
    common = ("data", "prepare", "toy", "--root", images, "--out", tmp_path / "out", "--workers", 0)
    (images / "stop").touch()
    result = run(*common)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "stopped; the same command goes on from here\n"
    assert reads(images) == ["train 0", "train 1"]
    (images / "stop").unlink()
    assert run(*common).exit_code == 0
    assert reads(images)[2:] == ["train 1", "train 2", "val 0"]
    assert open_split(tmp_path / "out" / "toy", "train").num_rows == 5


def test_progress_is_seen_where_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with _progress() as report:
        for split, rows in (("train", 3), ("train", 5), ("val", 1)):
            report(split, rows)
    shown = [line.split("\r")[-1] for line in terminal.getvalue().splitlines(keepends=False) if line]
    lines = [line for line in shown if " rows [" in line]
    assert any(line.startswith("train: 5 rows [") for line in lines)
    assert lines[-1].startswith("val: 1 rows [")
    assert terminal.getvalue().count("\n") == 2


SLOW = """
import signal
from toy_sets import SlowImages
from sam_uniref.cli import main
from sam_uniref.data.formats import FORMATS

# A job in the background ignores Ctrl-C, and so do its children; at a terminal nobody does.
signal.signal(signal.SIGINT, signal.default_int_handler)
FORMATS["toy"] = SlowImages()
main()
"""


@pytest.mark.parametrize(
    ("command", "number", "code"), [("prepare", signal.SIGINT, 130), ("check", signal.SIGTERM, 143)]
)
def test_signals_end_it_cleanly(
    command: str, number: signal.Signals, code: int, images: Path, tmp_path: Path, scratch: Path
) -> None:
    """As a terminal sends Ctrl-C: to the processes that read as well. Nothing but one line is said."""
    out = ("--out", tmp_path / "out") if command == "prepare" else ()
    arguments = map(str, ("data", command, "toy", "--root", images, "--workers", 1, *out))
    paths = os.pathsep.join([str(Path(__file__).parent / "support"), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(600):
        if len(reads(images)) >= 2:
            break
        time.sleep(0.1)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert files_in(scratch) == []
    if command == "prepare":
        assert said == "stopped; the same command goes on from here\n"
        assert (tmp_path / "out" / "toy" / "train" / "00000.json").is_file()


# ---- check ----


def test_check_of_a_whole_download(images: Path, scratch: Path) -> None:
    result = run("data", "check", "toy", "--root", images, "--workers", 0)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "split             found  published",
        "train  images         3          3  same",
        "train  targets        5          5  same",
        "train  sentences      6          6  same",
        "val    images         1",
        "val    targets        1",
        "val    sentences      2",
        "all is as it should be",
    ]
    assert files_in(scratch) == []


def test_check_of_videos(videos: Path, scratch: Path) -> None:
    found = answer("data", "check", "toy_videos", "--root", videos, "--json")
    assert found["sound"]
    assert found["splits"]["train"]["counts"] == {"videos": 3, "objects": 6, "sentences": 9}
    assert found["splits"]["train"]["evaluated_images"] is None
    assert files_in(scratch) == []


def test_check_tells_all_that_is_wrong(images: Path, scratch: Path) -> None:
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:60])
    (images / "val.json").write_text('[{"image"')
    common = ("data", "check", "toy", "--root", images, "--workers", 0)
    result = run(*common)
    assert result.exit_code == 1
    assert "train  images         2          3  differs" in result.stdout
    assert "train: broken: broken or cut-off picture: 2 (0.png, 0.png)" in result.stdout
    assert f"val: broken: the split can't be read: 1 ({images / 'val.json'} is no whole JSON file" in result.stdout
    assert result.stdout.endswith("something is wrong\n")
    result = run(*common, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["sound"], found["format"], found["root"]) == (1, False, "toy", str(images))
    train, val = found["splits"]["train"], found["splits"]["val"]
    assert train["counts"] == {"images": 2, "targets": 3, "sentences": 3}
    assert train["published"] == ToyImages.published["train"]
    assert train["different"] == ["images", "targets", "sentences"]
    reasons = [(p["severity"], p["reason"], p["count"], p["examples"]) for p in train["problems"]]
    assert reasons == [("broken", "broken or cut-off picture", 2, ["0.png", "0.png"])]
    assert val["counts"] == {}
    assert files_in(scratch) == []


def test_check_fails_for_a_count_alone(images: Path) -> None:
    (images / "train.json").write_text((images / "val.json").read_text())
    assert run("data", "check", "toy", "--root", images, "--split", "train", "--workers", 0).exit_code == 1
    result = run("data", "check", "toy", "--root", images, "--split", "val", "--workers", 0)
    assert (result.exit_code, "train" in result.stdout) == (0, False)
    (images / "train.json").unlink()
    result = run("data", "check", "toy", "--root", images, "--workers", 0)
    assert result.exit_code == 0
    assert "splits that this download does not have: train\n" in result.stdout


def test_check_leaves_nothing_after_ctrl_c(images: Path, scratch: Path) -> None:
    (images / "stop").touch()
    assert run("data", "check", "toy", "--root", images, "--workers", 0).exit_code == 130
    assert files_in(scratch) == []


def test_check_counts_images_that_are_evaluated_on(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ("data", "check", "toy", "--root", images, "--workers", 0)
    run("data", "prepare", "toy", "--root", images, "--out", out, "--workers", 0, "--split", "train")
    assert_refused(run(*common, "--refcoco", out), "holds nothing that sentences are evaluated on")
    run("data", "prepare", "toy", "--root", images, "--out", out, "--workers", 0)
    result = run(*common, "--refcoco", out, "--refcoco", out / "toy")
    assert "train  images evaluated on      1\n" in result.stdout
    assert result.exit_code == 0
    found = answer(*common, "--refcoco", out, "--json")
    assert {split: entry["evaluated_images"] for split, entry in found["splits"].items()} == {"train": 1, "val": 1}
    assert_refused(run(*common, "--refcoco", tmp_path / "nowhere"), "holds no prepared data set")


# ---- show ----


class Page(HTMLParser):
    """Tags, and all text together."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def prepared(root: Path, out: Path, name: str) -> Path:
    assert run("data", "prepare", name, "--root", root, "--out", out, "--workers", 0).exit_code == 0
    return out / name


def test_show_images(images: Path, tmp_path: Path) -> None:
    folder = prepared(images, tmp_path / "prepared", "toy")
    out = tmp_path / "show"
    result = run("data", "show", "toy", "--prepared", folder, "--split", "train", "-n", 20, "--out", out)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"page   {out / 'index.html'}\nsheet  {out / 'contact_sheet.png'}\n"
    pictures = [f"{n:03d}-0.jpg" for n in range(5)]
    assert files_in(out) == [*pictures, "contact_sheet.png", "index.html"]
    page = Page(out / "index.html")
    assert [given["src"] for tag, given in page.tags if tag == "img"] == pictures
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(key == "href" or key.startswith("on") for _, given in page.tags for key in given)
    for text in (SCRIPT, "右の猫 😀", "شجرة", "x" * 900, "COCO's id: 12", "a cat", "picture: 2.png, 64 x 48"):
        assert text in page.text
    assert "5 of 5 rows" in page.text
    sheet = PILImage.open(out / "contact_sheet.png")
    assert sheet.width < 4 * 340
    assert sheet.height < 2 * 500


def test_show_paints_masks_and_draws_boxes(images: Path, tmp_path: Path) -> None:
    rows = open_split(prepared(images, tmp_path / "prepared", "toy"), "train")
    masked, boxed = image_exhibit(rows[0], images), image_exhibit(rows[4], images)
    picture = np.asarray(PILImage.open(images / "0.png"))
    changed = (masked.pictures[0] != picture).any(axis=2)
    assert changed[10:30, 0:20].all()
    assert changed.sum() == 20 * 20
    changed = (boxed.pictures[0] != np.asarray(PILImage.open(images / "2.png"))).any(axis=2)
    assert changed[10, 20:40].all()
    assert changed[29, 20:40].all()
    assert not changed[15:25, 25:35].any()
    assert not changed[31:].any()


def test_show_videos(videos: Path, tmp_path: Path, scratch: Path) -> None:
    out = tmp_path / "show"
    common = ("data", "show", "toy_videos", "--root", videos, "--split", "train", "--workers", 0)
    result = run(*common, "-n", 2, "--out", out)
    assert result.exit_code == 0
    assert "reading train into a temporary folder" in result.stderr
    assert files_in(scratch) == []
    assert files_in(out)[:8] == [f"{n:03d}-{t}.jpg" for n in range(2) for t in range(4)]
    page = Page(out / "index.html")
    for text in ("sentence 0, object 2: the <b>cat</b>", "object 5: no category, first mask in frame 4", "00006.png"):
        assert text in page.text
    assert "b" not in {tag for tag, _ in page.tags}


def test_show_spreads_the_frames_of_a_video(videos: Path, tmp_path: Path) -> None:
    row = open_split(prepared(videos, tmp_path / "prepared", "toy_videos"), "train")[0]
    exhibit = video_exhibit(row, videos)
    assert [caption[-9:-4] for caption in exhibit.captions] == ["00000", "00002", "00004", "00006"]
    colors = exhibit.pictures[3][29, 40], exhibit.pictures[3][44, 20]
    assert [color.tolist() for color in colors] == [[0, 128, 0], [128, 0, 128]]  # the borders of objects 2 and 5
    assert video_exhibit(row | {"annotated": [6]}, videos).captions == ("one/00006.png",)
    unannotated = video_exhibit(row | {"annotated": [], "objects": []}, videos)
    assert len(unannotated.pictures) == 4
    assert np.ptp(unannotated.pictures[0]) == 0
    empty = video_exhibit(row | {"annotated": [], "objects": [], "frames": []}, videos)
    assert contact_sheet([(empty.pictures, empty.summary)]).height < 100


def test_show_draws_by_its_seed_and_replaces_its_own(images: Path, tmp_path: Path) -> None:
    folder = prepared(images, tmp_path / "prepared", "toy")
    common = ("data", "show", "toy", "--prepared", folder, "--split", "train")
    shown = []
    for seed in (0, 0, 1, 2, 3):
        assert run(*common, "-n", 2, "--seed", seed, "--out", tmp_path / "show").exit_code == 0
        shown.append((tmp_path / "show" / "index.html").read_text().replace(f"seed {seed}", ""))
    assert shown[0] == shown[1]
    assert len(set(shown)) > 1
    assert run(*common, "-n", 1, "--out", tmp_path / "show").exit_code == 0
    assert files_in(tmp_path / "show") == ["000-0.jpg", "contact_sheet.png", "index.html"]
    (tmp_path / "show" / "mine.txt").touch()
    assert_refused(run(*common, "--out", tmp_path / "show"), "holds mine.txt, which is of no contact sheet")


def test_show_stays_in_the_download(images: Path, tmp_path: Path) -> None:
    PILImage.new("RGB", (64, 48)).save(tmp_path / "outside.png")
    row = open_split(prepared(images, tmp_path / "prepared", "toy"), "train")[0]
    for path in ("../outside.png", str(tmp_path / "outside.png"), "sub/../../outside.png"):
        with pytest.raises(ValueError, match="leaves the data set's folder"):
            image_exhibit(row | {"image": path}, images)
    with pytest.raises(ValueError, match=r"is 64x48, and was 65x48 \(width x height\)"):
        image_exhibit(row | {"width": 65}, images)
    with pytest.raises(FileNotFoundError, match="there is no image at"):
        image_exhibit(row | {"image": "3.png"}, images)


@given(text=st.text(max_size=60), width=st.integers(1, 30), lines=st.integers(1, 4))
def test_captions_are_wrapped_and_clipped(text: str, width: int, lines: int) -> None:
    wrapped = wrap(text, width, lines, len)
    assert len(wrapped) <= lines
    assert all(0 < len(line) <= width for line in wrapped)
    joined, whole = "".join(wrapped).replace(" ", ""), "".join(text.split())
    if joined != whole:
        assert len(wrapped) == lines
        assert whole.startswith(joined.removesuffix("…"))


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_any_letters_can_be_drawn(captions: list[str]) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    sheet = contact_sheet([((picture,), (caption,)) for caption in captions])
    assert sheet.mode == "RGB"


# ---- what is refused ----


def test_help_lists_the_commands() -> None:
    text = run("data", "--help").stdout
    assert all(command in text for command in ("list", "prepare", "check", "show"))


def test_usage_errors(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare, check, show = (("data", command, "toy") for command in ("prepare", "check", "show"))
    at_root = ("--root", images)
    for command in (("prepare", "--out", out), ("check",), ("show", "--split", "train", "--out", out)):
        named = ("data", command[0], "toi", *at_root, *command[1:])
        assert_refused(run(*named), "there is no reader of 'toi'; did you mean 'toy'?")
    assert_refused(run(*prepare, "--root", tmp_path / "nowhere", "--out", out), "there is no folder")
    assert_refused(run(*check, "--root", tmp_path / "nowhere"), "there is no folder")
    (tmp_path / "empty").mkdir()
    assert_refused(run(*check, "--root", tmp_path / "empty"), "does not hold the data set; expected in it")
    unknown = f"toy at {images} has the splits ['train', 'val'], got ['test']"
    assert_refused(run(*prepare, *at_root, "--out", out, "--split", "test"), unknown)
    assert_refused(run(*check, *at_root, "--split", "test"), unknown)
    assert_refused(run(*check, *at_root, "--workers", -1), "workers must be at least 0, got -1")
    (tmp_path / "file").touch()
    assert_refused(run(*prepare, *at_root, "--out", tmp_path / "file"), "--out must be a folder")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if not os.access(closed, os.W_OK):  # an administrator may write anywhere
        assert_refused(run(*prepare, *at_root, "--out", closed), "no permission")
    shown = (*show, "--split", "train", "--out", out)
    assert_refused(run(*shown), "give --root or --prepared, got neither")
    assert_refused(run(*shown, *at_root, "--prepared", out), "give --root or --prepared, got both")
    assert_refused(run(*shown, *at_root, "-n", 0), "-n must be at least 1, got 0")
    assert_refused(run(*shown, *at_root, "--seed", -1), "--seed must be at least 0, got -1")
    assert_refused(run(*shown, "--prepared", tmp_path / "empty"), "is no prepared data set")
    assert not out.exists()


def test_show_refuses_other_sets_and_lost_downloads(images: Path, videos: Path, tmp_path: Path) -> None:
    folder = prepared(images, tmp_path / "prepared", "toy")
    shown = ("--split", "train", "--out", tmp_path / "show")
    assert_refused(run("data", "show", "toy_videos", "--prepared", folder, *shown), "holds toy, not toy_videos")
    bad_split = ("--split", "test", "--out", tmp_path / "show")
    assert_refused(run("data", "show", "toy", "--prepared", folder, *bad_split), "has the splits ['train', 'val']")
    images.rename(tmp_path / "moved")
    assert_refused(run("data", "show", "toy", "--prepared", folder, *shown), "which is not there any more")


# ---- the manual ----

MANUAL = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")


def test_the_manual_has_every_data_set() -> None:
    assert [name for name in FORMATS if f"`{name}`" not in MANUAL and not name.startswith("toy")] == []


def test_the_manuals_links_lead_somewhere() -> None:
    heads = re.findall(r"^#+ (.*)", MANUAL, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}
    assert set(re.findall(r"\]\(#([^)]+)\)", MANUAL)) <= anchors


def test_the_manuals_commands_are_understood() -> None:
    """Every option that it types is one of its command's."""
    typed = re.findall(r"^ *sam-uniref data (\w+)(.*)$", MANUAL, re.MULTILINE)
    helps = {command: run("data", command, "--help").stdout for command in ("list", "prepare", "check", "show")}
    assert len(typed) > 30
    for command, rest in typed:
        for option in re.findall(r"(?<= )--?[a-z]+", rest.split("#")[0]):
            assert re.search(rf"{option}\b", helps[command]), f"{command} {option}"
