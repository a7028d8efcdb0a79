"""The ``sam-uniref`` command: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import HEIGHT, WIDTH, answer, assert_refused, files_in, material, run
from PIL import Image as PILImage
from tiny import picture, tiny_model
from videos import encode_video

from sam_uniref import MaskReference, SamRef


@pytest.fixture(scope="module")
def model() -> SamRef:
    return tiny_model(noise=0.05)


@pytest.fixture(scope="module")
def folder(model: SamRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return material(tmp_path_factory.mktemp("cli"), model)


def test_the_entry_point_runs() -> None:
    """The installed command, in a process of its own: exit code 2, one line, no traceback."""
    command = Path(sys.executable).with_name("sam-uniref")
    done = subprocess.run(
        [command, "segment", "none.png", "--model", "none", "--out", "none", "--box", "1,2"],
        capture_output=True,
        text=True,
        check=False,
    )
    line = "error: --box takes 4 numbers with commas between, got '1,2'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_info() -> None:
    report = answer("info", "--device", "cpu", "--json")
    assert report["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert report["device"] == "cpu"
    assert report["attention"] == "torch SDPA"
    assert {"sam_uniref", "transformers", "segment-anything", "python", "threads", "downloads"} <= set(report)
    assert report["devices"][0] == "cpu"
    assert report["models"] == ["tiny"]
    assert {"quickstart", "folder", "compare_tiny"} <= set(report["configurations"])
    text = run("info", "--device", "cpu").stdout
    assert f"transformers      {report['transformers']}" in text
    assert_refused(run("info", "--device", "toaster"), "there is no device 'toaster' here")


def test_version() -> None:
    import sam_uniref

    assert run("--version").stdout.strip() == sam_uniref.__version__


@pytest.mark.parametrize("kind", ["text", "example", "point and box", "example and point"])
def test_segment_is_the_models_own_answer(kind: str, folder: Path, model: SamRef, tmp_path: Path) -> None:
    example = f"{folder / 'support.png'}:{folder / 'support-mask.png'}"
    options, arguments = {
        "text": (["--text", "the dog"], {"text": "the dog"}),
        "example": (
            ["--example", example, "--example", example],
            {"examples": [MaskReference(folder / "support.png", folder / "support-mask.png")] * 2},
        ),
        "point and box": (
            ["--point", "20,30", "--point", "25,31.5", "--box", "5,6,60,50"],
            {"points": [(20, 30), (25, 31.5)], "box": (5, 6, 60, 50)},
        ),
        "example and point": (
            ["--example", example, "--point", "20,30"],
            {
                "examples": [MaskReference(folder / "support.png", folder / "support-mask.png")],
                "points": [(20, 30)],
            },
        ),
    }[kind]
    out = tmp_path / "new" / "out"
    got = answer("segment", folder / "street.png", "--model", folder / "model", "--out", out, "--json", *options)
    expected = model.segment(folder / "street.png", **arguments)  # type: ignore[arg-type]
    assert got["score"] == pytest.approx(expected.score, abs=1e-4)
    assert got["box"] == (None if expected.box is None else list(expected.box))
    assert files_in(out) == ["street.mask.png", "street.overlay.png"]
    assert got["mask"] == str(out / "street.mask.png")
    written = np.asarray(PILImage.open(out / "street.mask.png"))
    assert expected.mask.any()
    np.testing.assert_array_equal(written, expected.mask * 255)
    overlay = np.asarray(PILImage.open(out / "street.overlay.png"))
    np.testing.assert_array_equal(overlay, expected.overlay(folder / "street.png"))


def test_encode_once_then_segment(folder: Path, model: SamRef, tmp_path: Path) -> None:
    reference = tmp_path / "refs" / "dog.safetensors"
    example = f"{folder / 'support.png'}:{folder / 'support-mask.png'}"
    result = run("encode", "--model", folder / "model", "--text", "the dog", "--example", example, "--out", reference)
    assert (result.exit_code, result.stdout.strip()) == (0, str(reference))
    common = ("--model", folder / "model", "--out", tmp_path / "out")
    result = run("segment", folder / "street.png", *common, "--reference", reference)
    assert result.exit_code == 0
    examples = [MaskReference(folder / "support.png", folder / "support-mask.png")]
    expected = model.segment(folder / "street.png", text="the dog", examples=examples)
    assert expected.box is not None
    places = [str(tmp_path / "out" / name) for name in ("street.mask.png", "street.overlay.png")]
    box = ",".join(map(str, expected.box))
    told = [str(folder / "street.png"), f"score {expected.score:.3f}", f"box {box}", *places]
    assert result.stdout == "  ".join(told) + "\n"
    written = np.asarray(PILImage.open(tmp_path / "out" / "street.mask.png"))
    np.testing.assert_array_equal(written > 0, expected.mask)


def test_commands_take_an_image_size(tmp_path: Path) -> None:
    """A reference that was encoded at one size is asked at that size, and at no other."""
    PILImage.fromarray(picture(HEIGHT, WIDTH)).save(tmp_path / "street.png")
    common, size = ("--model", "tiny"), ("--image-size", 64)
    reference = tmp_path / "star.safetensors"
    assert run("encode", *common, *size, "--text", "a red star", "--out", reference).exit_code == 0
    asked = ("segment", tmp_path / "street.png", *common, "--reference", reference, "--out", tmp_path / "out")
    expected = SamRef.from_pretrained("tiny", image_size=64).segment(tmp_path / "street.png", text="a red star")
    assert answer(*asked, *size, "--json")["score"] == pytest.approx(expected.score, abs=1e-4)
    assert_refused(run(*asked), "at another image size")
    assert_refused(run(*asked, "--image-size", 100), "image_size must be a positive multiple of")


@pytest.mark.parametrize(("threshold", "references"), [(0.2, "both"), (0.2, "first"), (0.99, "both")])
def test_track_writes_a_palette_png_a_frame(
    threshold: float, references: str, folder: Path, model: SamRef, tmp_path: Path
) -> None:
    sentence = "the dog: a red one"
    joining = ("--new-mask", f"1:{folder / 'new.png'}", "--text", f"4:{sentence}")
    options = ("--masks", folder / "first.png", *joining)
    common = ("--model", folder / "model", "--out", tmp_path / "out", "--score-threshold", threshold)
    common = (*common, "--frame-references", references)
    got = answer("track", folder / "clip", *common, *options, "--json")
    expected = list(
        model.track(
            folder / "clip",
            masks=folder / "first.png",
            new_masks={1: folder / "new.png"},
            texts={4: sentence},
            score_threshold=threshold,
            frame_references=references,
        )
    )
    assert files_in(tmp_path / "out") == ["00000.png", "00001.png", "00002.png"]
    for result in expected:
        image = PILImage.open(tmp_path / "out" / f"{result.index:05d}.png")
        assert image.mode == "P"
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # type: ignore[index]
        np.testing.assert_array_equal(np.asarray(image), result.labels)
    assert got["frames"] == 3
    seen = {str(i): sum(r.visible.get(i, False) for r in expected) for i in (1, 2, 3, 4)}
    assert got["frames_visible"] == seen
    assert seen["1"] > 0


def test_track_numbers_the_frames_of_a_video(folder: Path, tmp_path: Path) -> None:
    encode_video(tmp_path / "clip.mp4", [picture(HEIGHT, WIDTH, frame) for frame in range(2)])
    common = ("--model", folder / "model", "--out", tmp_path / "out", "--masks", folder / "first.png")
    result = run("track", tmp_path / "clip.mp4", *common)
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path / "out") == ["00000.png", "00001.png"]
    assert result.stdout.startswith(f"2 frames in {tmp_path / 'out'}\nobject 1: visible in ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say what to segment"),
        (("--point", "1"), "--point takes 2 numbers with commas between, got '1'"),
        (("--box", "1,2,3,x"), "--box takes 4 numbers"),
        (("--example", "support.png"), "--example takes IMG:MASK, got 'support.png'"),
        (("--text", ""), "a sentence must name something"),
        (("--reference", "missing.safetensors"), "there is no reference at missing.safetensors"),
        (("--example", "{root}/support.png:{root}/missing.png"), "there is no image at"),
        (("--example", "{root}/a:b.png:{root}/support-mask.png"), "a:b.png"),
        (("--text", "the dog", "--checkpoint", "{root}/first.png", "--model", "{root}"), "holds no model"),
        (("--text", "the dog", "--out", "{root}/first.png"), "--out must be a folder"),
        (("--text", "the dog", "--device", "toaster"), "there is no device 'toaster'"),
    ],
)
def test_segment_refuses_in_one_line(options: tuple[str, ...], message: str, folder: Path, tmp_path: Path) -> None:
    filled = [option.format(root=folder) for option in options]
    common = ["--model", folder / "model", "--out", tmp_path / "out"]
    assert_refused(run("segment", folder / "street.png", *common, *filled), message)
    assert not (tmp_path / "out").exists()


def test_segment_refuses_a_broken_picture(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes((folder / "street.png").read_bytes()[:100])
    result = run("segment", tmp_path / "broken.png", "--model", folder / "model", "--out", tmp_path, "--text", "a dog")
    assert_refused(result, "broken.png is not a whole image")
    assert files_in(tmp_path) == ["broken.png"]


def test_encode_refuses_in_one_line(folder: Path, tmp_path: Path) -> None:
    common = ("encode", "--model", folder / "model")
    assert_refused(run(*common, "--out", tmp_path / "r.safetensors"), "a reference needs --text, --example, or both")
    assert_refused(run(*common, "--text", "a dog", "--out", tmp_path), "--out must name a file")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to track"),
        (("--masks", "missing.png"), "there is no image at missing.png"),
        (("--text", "dog"), "--text takes a number, a colon and a value, got 'dog'"),
        (("--text", "0:dog"), "an object id must be a positive integer"),
        (("--text", "1:dog", "--text", "1:cat"), "--text was given twice for 1"),
        (("--new-mask", "{root}/new.png"), "--new-mask takes a number"),
        (("--masks", "{root}/first.png", "--new-mask", "7:{root}/new.png"), "names frame 7, but there are 3 frames"),
        (("--masks", "{root}/first.png", "--frame-references", "last"), "frame_references must be one of"),
        (("--masks", "{root}/first.png", "--frame-references", "none"), "follows nothing by masks of the video"),
        (("--masks", "{root}/first.png", "--out", "{root}/clip"), "is where"),
        (("--masks", "{root}/first.png", "--out", "{root}"), "is where"),
    ],
)
def test_track_refuses_in_one_line(options: tuple[str, ...], message: str, folder: Path, tmp_path: Path) -> None:
    before = files_in(folder), files_in(folder / "clip")
    filled = [option.format(root=folder) for option in options]
    common = ["--model", folder / "model", "--out", tmp_path / "out"]
    assert_refused(run("track", folder / "clip", *common, *filled), message)
    assert not (tmp_path / "out").exists()
    assert (files_in(folder), files_in(folder / "clip")) == before


def test_track_refuses_a_missing_video_and_pictures_of_one_name(folder: Path, tmp_path: Path) -> None:
    options = ("--model", folder / "model", "--out", tmp_path / "out", "--masks", folder / "first.png")
    assert_refused(run("track", tmp_path / "none.mp4", *options), "there is no video or folder of frames")
    twice = tmp_path / "clip"
    twice.mkdir()
    for name in ("a.png", "a.jpg"):
        PILImage.fromarray(picture(HEIGHT, WIDTH)).save(twice / name)
    assert_refused(run("track", twice, *options), "more than one picture called a")


def test_a_frame_of_another_size_stops_tracking_and_leaves_whole_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for frame, height in enumerate((HEIGHT, HEIGHT, HEIGHT + 1)):
        PILImage.fromarray(picture(height, WIDTH, frame)).save(tmp_path / "clip" / f"{frame}.png")
    options = ("--model", folder / "model", "--out", tmp_path / "out", "--masks", folder / "first.png")
    assert_refused(run("track", tmp_path / "clip", *options), "frame 2 is 80x61, those before it 80x60")
    assert files_in(tmp_path / "out") == ["0.png", "1.png"]
    assert all(PILImage.open(file).size == (WIDTH, HEIGHT) for file in (tmp_path / "out").iterdir())


def test_a_palette_has_no_room_for_large_ids(folder: Path, tmp_path: Path) -> None:
    options = ("--model", folder / "model", "--out", tmp_path / "out", "--score-threshold", "-1e9")
    assert_refused(run("track", folder / "clip", *options, "--text", "300:the dog"), "ids up to 254, got 300")


def test_bugs_are_not_hidden(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a user's mistakes become one line: a defect keeps its traceback."""
    monkeypatch.setattr(SamRef, "segment", lambda *_, **__: {}["missing"])
    result = run("segment", folder / "street.png", "--model", folder / "model", "--out", tmp_path, "--text", "a dog")
    assert isinstance(result.exception, KeyError)
    assert result.exit_code == 1
