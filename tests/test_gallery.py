"""The gallery: a page whose pictures, numbers and words are checked, and a folder that is replaced or left alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from eval_support import SIDE, Asked, KnowingModel, Mask, Truth, nothing
from numpy.typing import NDArray
from pages import Page
from PIL import Image as PILImage
from tiny import tiny_model

from sam_uniref.data.batch import TASKS
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.eval import exhibits
from sam_uniref.eval.exhibits import FILM_FRAMES, FRAMES_A_SECOND
from sam_uniref.eval.gallery import main, write_gallery
from sam_uniref.eval.painting import STRIP_FRAMES
from sam_uniref.eval.refshapes_protocol import PROTOCOLS
from sam_uniref.reference import MaskReference

COUNT = 2
NASTY = '<i>"half" & more</i>'
GAP = 2


@pytest.fixture(scope="module")
def truth() -> Truth:
    """The right answer to everything on the page, film included."""
    known = Truth(COUNT)
    film = RefShapesDataset("", "vos", frames=FILM_FRAMES).clip(0)
    for frame, ids in zip(film.frames, film.ids, strict=True):
        if frame.tobytes() not in known.ids:  # it may begin like the clip of 12 frames
            known._add(frame, ids, {})
    return known


def half(truth: Truth) -> Callable[[Asked], Mask]:
    """Script: the upper part of the right answer, and a corner of the picture."""

    def script(asked: Asked) -> Mask:
        mask = truth(asked).copy()
        rows = np.flatnonzero(mask.any(axis=1))
        if len(rows):
            mask[rows[len(rows) // 2] :] = False
        mask[:9, :9] = True
        return mask

    return script


@pytest.fixture(scope="module")
def folder(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of two models, the second of which is always right."""
    out = tmp_path_factory.mktemp("runs") / "new" / "gallery"
    models = {NASTY: KnowingModel(half(truth)), "after": KnowingModel(truth)}
    assert write_gallery(models, str(out), count=COUNT) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder)


def picture(folder: Path, name: str) -> NDArray[np.uint8]:
    with PILImage.open(folder / "pictures" / f"{name}.png") as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def small(pixels: NDArray[np.uint8], times: int) -> NDArray[np.int64]:
    """The middle of each enlarged pixel."""
    return pixels[times // 2 :: times, times // 2 :: times].astype(np.int64)


def coloured(pixels: NDArray[np.int64]) -> Mask:
    """Where something is painted on the grey."""
    return np.ptp(pixels, axis=2) > 60


def iou(answer: Mask, mask: Mask) -> float:
    return float((answer & mask).sum() / (answer | mask).sum())


def test_the_page_is_one_file_with_its_pictures_beside_it(folder: Path, page: Page) -> None:
    sources = [str(given["src"]) for _, given in page.tags if "src" in given]
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert len(sources) == len(set(sources))
    assert {"index.html", *sources} == files
    # Scene, truth and 2 answers; 5 examples more; a strip each in both video tasks; the film.
    assert len(sources) == COUNT * (4 + 9 + 4 + 4) + 1
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|<script|<link|@import|url\(|//", text)
    assert not any(name in ("href", "style") or name.startswith("on") for _, given in page.tags for name in given)
    assert "color-scheme: light dark" in text
    assert page.texts["h2"] == ["Sentences", "Examples", "First frame", "Sentence in a video", "Video"]
    assert f"first {COUNT} of RefShapes validation (textured style)" in " ".join(page.texts["p"])


def test_pictures_are_enlarged(folder: Path) -> None:
    for path in (folder / "pictures").iterdir():
        video = path.name.startswith(("vos", "rvos"))
        width = 2 * (STRIP_FRAMES * SIDE + (STRIP_FRAMES - 1) * GAP) if video else 3 * SIDE
        assert picture(folder, path.stem).shape == (2 * SIDE if video else 3 * SIDE, width, 3)


def test_words_are_escaped_and_stand_there_as_given(folder: Path, page: Page) -> None:
    assert NASTY not in (folder / "index.html").read_text(encoding="utf-8")
    answers = [caption for source, caption in page.captions.items() if source.endswith("-answer-1.png")]
    assert len(answers) == 4 * COUNT
    assert all(caption.startswith(f"{NASTY}: ") for caption in answers)
    assert page.alternatives["pictures/ris-1-answer-1.png"].startswith(f"{NASTY}, asked for “")


def test_every_picture_has_an_alternative_text(page: Page) -> None:
    assert len(page.alternatives) == len(page.captions) - 1
    assert all(len(text) > 8 for text in page.alternatives.values())


def test_models_are_shown_in_the_given_order(truth: Truth, tmp_path: Path) -> None:
    """The last one is filmed, whatever it is called."""
    models = {"b": KnowingModel(truth), "c": KnowingModel(nothing), "a": KnowingModel(nothing)}
    write_gallery(models, tmp_path / "gallery", count=1)
    shown = Page(tmp_path / "gallery")
    labels = [caption.split(":")[0] for source, caption in shown.captions.items() if "-answer-" in source]
    assert labels == ["b", "c", "a"] * 4
    assert shown.captions["tracking.mp4"].startswith("cliptrutha: J&F 0.")
    assert shown.captions["pictures/ris-1-answer-1.png"] == "b: IoU 1.000"
    assert shown.captions["pictures/ris-1-answer-2.png"] == "c: IoU 0.000"


def test_sentences(folder: Path, page: Page, truth: Truth) -> None:
    data = RefShapesDataset("", "ris")
    for index in range(COUNT):
        sample = data.episode(index)
        name = f"ris-{index + 1}"
        assert f"“{sample.sentence}”" in page.texts["h3"]
        np.testing.assert_allclose(small(picture(folder, f"{name}-scene"), 3), sample.image, atol=40)
        np.testing.assert_array_equal(coloured(small(picture(folder, f"{name}-truth"), 3)), sample.mask)
        answer = half(truth)(Asked(sample.image, sample.sentence, []))
        np.testing.assert_array_equal(coloured(small(picture(folder, f"{name}-answer-1"), 3)), answer)
        assert page.captions[f"pictures/{name}-answer-1.png"] == f"{NASTY}: IoU {iou(answer, sample.mask):.3f}"
        assert 0 < iou(answer, sample.mask) < 1
        assert page.captions[f"pictures/{name}-answer-2.png"] == "after: IoU 1.000"


def test_examples(folder: Path, page: Page, truth: Truth) -> None:
    data = RefShapesDataset("", "fss", shots=5)
    for index in range(COUNT):
        sample = data.episode(index)
        name = f"fss-{index + 1}"
        assert f"Class: {sample.name.split()[-1]}" in page.texts["h3"]
        for k, support in enumerate(sample.references, start=1):
            shown = small(picture(folder, f"{name}-example-{k}"), 3)
            grey = np.ptp(shown, axis=2) < 12
            assert grey[~support.mask].mean() > 0.95, "only what is marked keeps its colours"
            assert grey[support.mask].mean() < 0.6
        answer = half(truth)(Asked(sample.image, None, [(s.image, s.mask) for s in sample.references]))
        np.testing.assert_array_equal(coloured(small(picture(folder, f"{name}-answer-1"), 3)), answer)
        assert page.captions[f"pictures/{name}-answer-1.png"] == f"{NASTY}: IoU {iou(answer, sample.mask):.3f}"
        assert page.captions[f"pictures/{name}-answer-2.png"] == "after: IoU 1.000"


def frames_of(strip: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """The frames of a strip at their own size."""
    pixels = small(strip, 2)
    return [pixels[:, start : start + SIDE] for start in range(0, pixels.shape[1], SIDE + GAP)]


def test_first_frames(folder: Path, page: Page) -> None:
    data = RefShapesDataset("", "vos")
    for index in range(COUNT):
        clip = data.clip(index)
        at = [0, 2, 4, 7, 9, 11]
        for k, t in enumerate(at):
            name = f"vos-{index + 1}"
            np.testing.assert_allclose(frames_of(picture(folder, f"{name}-clip"))[k], clip.frames[t], atol=90)
            shown = frames_of(picture(folder, f"{name}-truth"))[k]
            assert iou(coloured(shown), clip.ids[t] > 0) > 0.9
            first = clip.ids[t] == 1
            assert not first.any() or shown[first].mean(axis=0).argmax() == 0, "PASCAL VOC paints object 1 red"
            assert iou(coloured(frames_of(picture(folder, f"{name}-answer-2"))[k]), clip.ids[t] > 0) > 0.9
        assert page.captions[f"pictures/vos-{index + 1}-answer-2.png"] == "after: J&F 1.000"
        assert f"Clip {index + 1}, {clip.ids.max()} objects: frames 1, 3, 5, 8, 10, 12 of 12" in page.texts["h3"]


def test_sentences_in_clips(folder: Path, page: Page) -> None:
    data = RefShapesDataset("", "rvos")
    for index in range(COUNT):
        clip = data.clip(index)
        name, sentence = f"rvos-{index + 1}", clip.sentences[1][0]
        assert f"“{sentence}”: frames 1, 3, 5, 8, 10, 12 of 12" in page.texts["h3"]
        for k, t in enumerate([0, 2, 4, 7, 9, 11]):
            mask = clip.ids[t] == 1
            for strip in ("truth", "answer-2"):
                shown = coloured(frames_of(picture(folder, f"{name}-{strip}"))[k])
                assert (not mask.any() and not shown.any()) or iou(shown, mask) > 0.85
        assert page.captions[f"pictures/{name}-answer-2.png"] == "after: J&F 1.000"
        assert 0 < float(page.captions[f"pictures/{name}-answer-1.png"].rsplit(maxsplit=1)[-1]) < 1


def test_the_numbers_are_the_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real model, asked by the protocols of `evaluate.py` and directly."""
    monkeypatch.setattr(exhibits, "FILM_FRAMES", 4)
    model = tiny_model(noise=0.1)
    write_gallery({"it": model}, tmp_path / "gallery", count=1)
    captions = Page(tmp_path / "gallery").captions
    vos = PROTOCOLS["vos"](1)
    assert captions["pictures/vos-1-answer-1.png"] == f"it: J&F {vos.summarise(vos.score(model, 0))['J&F']:.3f}"
    rvos = PROTOCOLS["rvos"](1)
    assert captions["pictures/rvos-1-answer-1.png"] == f"it: J&F {rvos.summarise(rvos.score(model, 0)[:1])['J&F']:.3f}"
    fss = PROTOCOLS["fss"](1)
    five = fss.summarise(fss.score(model, 0))["mIoU_5shot"]
    assert captions["pictures/fss-1-answer-1.png"] == f"it: IoU {five:.3f}"
    sample = RefShapesDataset("", "fss", shots=5).episode(0)
    examples = [MaskReference(support.image, support.mask) for support in sample.references]
    assert iou(model.segment(sample.image, examples=examples).mask, sample.mask) == pytest.approx(five)


def test_the_film(folder: Path, page: Page) -> None:
    clip = RefShapesDataset("", "vos", frames=FILM_FRAMES).clip(0)
    with av.open(str(folder / "tracking.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == FRAMES_A_SECOND
        frames = [small(frame.to_ndarray(format="rgb24"), 3) for frame in container.decode(video=0)]
    assert len(frames) == FILM_FRAMES == len(clip.frames)
    assert 3 < FILM_FRAMES / FRAMES_A_SECOND < 8, "a few seconds"
    for shown, frame, ids in zip(frames, clip.frames, clip.ids, strict=True):
        assert shown.shape == (SIDE, 3 * SIDE + 2 * GAP, 3)
        left, middle, right = (shown[:, start : start + SIDE] for start in range(0, shown.shape[1], SIDE + GAP))
        assert np.abs(left - frame).mean() < 12
        assert iou(np.ptp(middle, axis=2) > 40, ids > 0) > 0.85
        assert np.abs(middle - right).mean() < 2, "the last model is right"
    assert page.captions["tracking.mp4"] == "cliptruthafter: J&F 1.000"
    assert [given["src"] for tag, given in page.tags if tag == "video" and "controls" in given] == ["tracking.mp4"]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Refusing(KnowingModel):
    """Answers nothing."""

    def __init__(self) -> None:
        super().__init__(self.refuse)

    def refuse(self, asked: Asked) -> Mask:
        raise ValueError("not today")


def test_a_gallery_is_replaced_as_a_whole(folder: Path, truth: Truth, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    shutil.copytree(folder, out)
    write_gallery({"only": KnowingModel(truth)}, out, count=1)
    shown = Page(out)
    assert {p.name for p in (out / "pictures").iterdir()} == {Path(source).name for source in shown.alternatives}
    assert len(shown.alternatives) == 3 + 8 + 3 + 3
    assert shown.texts["h1"] == ["What the model answers"]
    assert [p.name for p in tmp_path.iterdir()] == ["gallery"]


def test_one_that_fails_leaves_the_old_one(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    shutil.copytree(folder, out)
    with pytest.raises(ValueError, match="not today"):
        write_gallery({"only": Refusing()}, out, count=1)
    assert contents(out) == contents(folder)
    with pytest.raises(ValueError, match="not today"):
        write_gallery({"only": Refusing()}, tmp_path / "new", count=1)
    assert [p.name for p in tmp_path.iterdir()] == ["gallery"]


@pytest.mark.parametrize("name", ["notes.txt", "pictures/holiday.png", "pictures/empty/", "more/a.txt", ".hidden"])
def test_what_is_not_the_gallerys_is_not_deleted(name: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    shutil.copytree(folder, out)
    if name.endswith("/"):
        (out / name).mkdir()
    else:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"mine")
    before = contents(out)
    with pytest.raises(FileExistsError, match=f"holds {name.split('/')[0]}"):
        write_gallery({"only": Refusing()}, out, count=1)
    assert contents(out) == before


def test_what_file_managers_leave_is_nobody_s(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"a look at the folder")
    with pytest.raises(ValueError, match="not today"):
        write_gallery({"only": Refusing()}, tmp_path, count=1)


def test_another_page_is_not_a_gallery(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!DOCTYPE html><title>My site</title>")
    with pytest.raises(FileExistsError, match=r"holds index\.html, which is of no gallery"):
        write_gallery({"only": Refusing()}, tmp_path, count=1)
    (tmp_path / "index.html").unlink()
    with pytest.raises(ValueError, match="not today"):  # an empty folder may be used
        write_gallery({"only": Refusing()}, tmp_path, count=1)


def test_nothing_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one model"):
        write_gallery({}, tmp_path / "gallery")
    with pytest.raises(ValueError, match="at least 1 episode of each task, got 0"):
        write_gallery({"only": Refusing()}, tmp_path / "gallery", count=0)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with seeded random weights."""
    place = tmp_path_factory.mktemp("saved") / "model"
    tiny_model(noise=0.1).save_pretrained(place)
    return place


def test_the_command(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exhibits, "FILM_FRAMES", 4)
    out = tmp_path / "gallery"
    given = ["--model", f"one={saved}", "--model", str(saved), "--out", str(out), "--count", "1", "--style", "plain"]
    assert main([*given, "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out / 'index.html'}\n"
    assert all(f"gallery {task}: 100%" in shown.err for task in TASKS), "the progress bars"
    page = Page(out)
    labels = [caption.split(":")[0] for source, caption in page.captions.items() if "-answer-" in source]
    assert labels == ["one", "model"] * 4
    assert f"“{RefShapesDataset('', 'ris', style='plain').episode(0).sentence}”" in page.texts["h3"]


def _file(place: Path) -> Path:
    place.write_text("")
    return place


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda p, m: ["--model", p / "nowhere", "--out", p / "o"], "nowhere holds no model"),
        (lambda p, m: ["--model", m, "--model", m, "--out", p / "o"], "two models are called 'model'"),
        (lambda p, m: ["--model", f"={m}", "--out", p / "o"], "--model takes FOLDER or LABEL=FOLDER, got '="),
        (lambda p, m: ["--model", "after=", "--out", p / "o"], "--model takes FOLDER or LABEL=FOLDER, got 'after='"),
        (lambda p, m: ["--model", m, "--out", _file(p / "taken")], "taken is a file"),
        (lambda p, m: ["--model", p / "nowhere", "--out", m], "model holds README.md, which is of no"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--count", "0"], "at least 1 episode of each task, got 0"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--device", "warp"], "no device 'warp'"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--style", "baroque"], "invalid choice: 'baroque'"),
        (lambda p, m: ["--out", p / "o"], "--model"),
    ],
    ids=["no model", "twice", "no label", "no folder", "file", "foreign", "none", "device", "style", "missing"],
)
def test_bad_input_is_told_in_one_line(
    options: Callable[[Path, Path], list[object]],
    message: str,
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(option) for option in options(tmp_path, saved)]
    try:
        code = main(arguments)
    except SystemExit as stopped:  # argparse
        code = int(stopped.code or 0)
    errors = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not (tmp_path / "o").exists()
    assert saved.is_dir()
