"""``sam-uniref segment`` over many pictures, in all formats, and what it does with a bad one among them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import HEIGHT, WIDTH, assert_refused, files_in, run
from PIL import Image as PILImage
from tiny import disc, picture

from sam_uniref import MaskReference, SamRef
from sam_uniref.exchange import decode_coco, decode_label_studio, decode_rle, decode_yolo

SENTENCE = "a red star"
SIZE = ("--image-size", "64")


@pytest.fixture(scope="module")
def model() -> SamRef:
    return SamRef.from_pretrained("tiny", image_size=64).eval()  # type: ignore[return-value]


@pytest.fixture
def folder(tmp_path: Path, model: SamRef, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``pictures``; the model is loaded once for all tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sam_uniref.loading.load_for_use", lambda *_: model)
    for name in ("pictures/2.png", "pictures/10.png", "pictures/cats/1.jpg", "pictures/dogs/1.jpg"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        PILImage.fromarray(picture(HEIGHT, WIDTH, len(name))).save(name)
    PILImage.fromarray(picture(HEIGHT, WIDTH, 5)).save("support.png")
    PILImage.fromarray(disc(HEIGHT, WIDTH)).save("support-mask.png")
    return tmp_path


def test_files_folders_and_globs(folder: Path) -> None:
    result = run("segment", "pictures", "pictures/2.png", "pictures/**/*.jpg", "--text", SENTENCE, *SIZE, "--json")
    assert result.exit_code == 0, result.output
    told = [json.loads(line) for line in result.stdout.splitlines()]
    names = ["pictures/2.png", "pictures/10.png", "pictures/cats/1.jpg", "pictures/dogs/1.jpg"]
    assert [line["image"] for line in told] == names  # each once, numbers by value
    masks = ["2.mask.png", "10.mask.png", "cats/1.mask.png", "dogs/1.mask.png"]
    assert [line["mask"] for line in told] == [f"segmented/{name}" for name in masks]
    assert all(Path(line["mask"]).is_file() and Path(line["overlay"]).is_file() for line in told)


def test_the_base_may_be_a_published_name(folder: Path, model: SamRef, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def loaded(_: object, checkpoint: object, *__: object) -> SamRef:
        given.append(checkpoint)
        return model

    monkeypatch.setattr("sam_uniref.loading.load_for_use", loaded)
    assert run("segment", "pictures/2.png", "--text", SENTENCE, "--checkpoint", "vit_b").exit_code == 0
    assert given == ["vit_b"]  # a Path would be a path, and never a name


def test_a_package_that_is_not_there_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> SamRef:
        raise ImportError("EdgeTAM needs timm: pip install timm")

    monkeypatch.setattr("sam_uniref.loading.load_for_use", without)
    assert_refused(run("segment", "pictures/2.png", "--text", SENTENCE, "--quiet"), "needs timm")


def test_the_reference_is_encoded_once(folder: Path, model: SamRef, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    for name in ("encode_reference", "encode_text", "encode_mask", "encode_image"):
        really = getattr(SamRef, name)

        def counted(*given: Any, _really: Any = really, _name: str = name, **named: Any) -> Any:
            calls[_name] += 1
            return _really(*given, **named)

        monkeypatch.setattr(SamRef, name, counted)
    example = ("--example", "support.png:support-mask.png", "--text", SENTENCE)
    assert run("segment", "pictures", *example, *SIZE, "--no-overlay").exit_code == 0
    assert calls == {"encode_reference": 1, "encode_text": 1, "encode_mask": 1, "encode_image": 3}  # 2 pictures
    monkeypatch.undo()
    examples = [MaskReference(folder / "support.png", folder / "support-mask.png")]
    expected = model.segment(folder / "pictures" / "2.png", text=SENTENCE, examples=examples)
    np.testing.assert_array_equal(np.asarray(PILImage.open(folder / "segmented/2.mask.png")) > 0, expected.mask)
    assert files_in(folder / "segmented") == ["10.mask.png", "2.mask.png"]


def test_every_format_holds_the_same_masks(folder: Path, model: SamRef) -> None:
    kinds = ("png", "palette", "coco", "label-studio", "yolo", "rle")
    formats = [option for kind in kinds for option in ("--format", kind)]
    point = ("--point", "40,30", "--label", "a thing", "--no-overlay", "--out", "out")
    result = run("segment", "pictures/**/*.*", *point, *SIZE, *formats)
    assert result.exit_code == 0, result.output
    out = folder / "out"
    coco = {entry.file_name: entry for entry in decode_coco(json.loads((out / "annotations.json").read_text()))}
    tasks = json.loads((out / "tasks.json").read_text())
    studio = {entry.file_name: entry for entry in decode_label_studio(tasks)}
    rle = {entry["image"]: entry for entry in json.loads((out / "rle.json").read_text())}
    assert (out / "classes.txt").read_text() == "a thing\n"
    assert "a thing" in (out / "label_config.xml").read_text()
    names = ["10.png", "2.png", "cats/1.jpg", "dogs/1.jpg"]
    assert sorted(coco) == sorted(studio) == sorted(rle) == names
    for name in names:
        expected = model.segment(folder / "pictures" / name, points=[(40, 30)])
        assert expected.mask.any()
        stem = name.split(".")[0]
        read = [
            np.asarray(PILImage.open(out / f"{stem}.mask.png")) == 255,
            np.asarray(PILImage.open(out / f"{stem}.ids.png")) == 1,
            coco[name].objects[0].mask,
            studio[name].objects[0].mask,
            decode_rle(rle[name]["segmentation"]),
            decode_yolo((out / "labels" / f"{stem}.txt").read_text(), (HEIGHT, WIDTH), ["a thing"])[0].mask,
        ]
        for mask in read:
            np.testing.assert_array_equal(mask, expected.mask)
        assert coco[name].objects[0].label == studio[name].objects[0].label == rle[name]["label"] == "a thing"
        assert rle[name]["score"] == pytest.approx(expected.score, abs=1e-4)


def test_nothing_found_is_an_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty mask in every format, and said."""
    import dataclasses

    really = SamRef.segment

    def empty(self: SamRef, *given: Any, **named: Any) -> Any:
        found = really(self, *given, **named)
        return dataclasses.replace(found, mask=np.zeros_like(found.mask))

    monkeypatch.setattr(SamRef, "segment", empty)
    kinds = ("png", "palette", "coco", "label-studio", "yolo", "rle")
    formats = [option for kind in kinds for option in ("--format", kind)]
    result = run("segment", "pictures/2.png", "--point", "4,4", *SIZE, *formats)
    assert result.exit_code == 0, result.output
    assert "nothing found" in result.stdout
    out = folder / "segmented"
    assert (out / "labels" / "2.txt").read_text() == ""
    content = json.loads((out / "annotations.json").read_text())
    assert (len(content["images"]), content["annotations"]) == (1, [])
    assert np.asarray(PILImage.open(out / "2.mask.png")).max() == 0


def test_a_bad_picture_is_named_and_the_others_are_done(folder: Path) -> None:
    Path("pictures/3.png").write_bytes(Path("pictures/2.png").read_bytes()[:200])
    result = run("segment", "pictures", "--text", SENTENCE, *SIZE, "--format", "coco", "--json")
    assert result.exit_code == 2
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line.get("score") is not None for line in lines] == [True, False, True]
    assert "pictures/3.png is not a whole image" in lines[1]["error"]
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert errors[1] == "error: 1 of 3 pictures were left out, as said above"
    content = json.loads(Path("segmented/annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["2.png", "10.png"]


def test_what_was_found_until_it_was_stopped_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really, asked = SamRef.segment, []

    def stopped(self: SamRef, *given: Any, **named: Any) -> Any:
        if asked:
            raise KeyboardInterrupt
        asked.append(1)
        return really(self, *given, **named)

    monkeypatch.setattr(SamRef, "segment", stopped)
    result = run("segment", "pictures", "--text", SENTENCE, *SIZE, "--format", "coco", "--no-overlay")
    assert result.exit_code == 130
    assert files_in(folder / "segmented") == ["annotations.json"]
    content = json.loads(Path("segmented/annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["2.png"]


def test_quiet_says_nothing_and_the_packaged_model_is_said(folder: Path) -> None:
    asked = ("segment", "pictures/2.png", "--text", SENTENCE, *SIZE)
    loud, quiet = run(*asked), run(*asked, "--quiet")
    assert "packaged tiny one" in loud.stderr
    assert "note" not in run(*asked, "--model", "tiny").stderr
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["pictures/2.pgn"], "there is no image at pictures/2.pgn; did you mean pictures/2.png?"),
        (["picturs"], "there is no image at picturs; did you mean pictures?"),
        (["pictures/*.tif"], "pictures/*.tif holds no pictures"),
        (["pictures/cats/1.jpg", "pictures/dogs/1.jpg"], "would both be called 1; ask for them one after the other"),
        (["pictures", "--out", "pictures"], "is where"),
        (
            ["pictures/2.png", "--example", "pictures/2.png:pictures/2.mask.png", "--out", "pictures"],
            "2.mask.png is read",
        ),
        (["pictures/2.png", "--point", "nan,3"], "--point takes 2 numbers"),
        (["pictures/2.png", "--box", "0,0,inf,3"], "--box takes 4 numbers"),
        (["pictures/2.png", "--max-pixels", "0"], "must be at least 1"),
        (["pictures/2.png", "--reference", "none.safetensors"], "give --reference, or --text and --example, not both"),
    ],
)
def test_refusals(given: list[str], message: str, folder: Path) -> None:
    assert_refused(run("segment", *given, "--text", SENTENCE, "--model", "tiny"), message)
    assert not Path("segmented").exists()
