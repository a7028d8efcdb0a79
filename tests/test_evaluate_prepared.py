"""Protocols and ``eval/evaluate.py`` on prepared splits: what is asked, what counts, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import SIZE, save_ids
from oracle import Oracle
from PIL import Image as PILImage
from prepared_sets import image_row, video_row, write_prepared
from tiny import tiny_model

from sam_uniref.data.prepared import VideoObject, decode_mask, encode_mask
from sam_uniref.eval.cases import Clip, ClipObject, NothingToAskError
from sam_uniref.eval.evaluate import main
from sam_uniref.eval.named_conventions import BY_IDS, BY_LISTS
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.prepared_cases import PreparedClips, PreparedQueries, PreparedScenes
from sam_uniref.eval.protocols import (
    MATCHES,
    FewShot,
    MergedSentences,
    Referring,
    TaskProtocol,
    VideoObjects,
    VideoSentences,
)
from sam_uniref.images import Mask

SAID = ("the moving box", "it")


def _first_masks(objects: tuple[VideoObject, ...]) -> tuple[VideoObject, ...]:
    """The objects with nothing but the masks that a tracker is given."""
    return tuple(replace(item, frames=(item.first,), rles=item.rles[:1]) for item in objects)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of class a, three of class b; of b0 both boxes are targets, and of b2 only a box is known."""
    root = tmp_path_factory.mktemp("images") / "download"
    rows = [image_row(root, n, category="a", sentences=("left one",) if n < 2 else ()) for n in range(4)]
    rows += [image_row(root, n, category="b", sentences=("a box", "one box"), boxes_only=n == 2) for n in range(3)]
    rows.append(image_row(root, 0, category="b", target=2, sentences=("the other box",)))
    return write_prepared(root.parent / "toy_images", root, {"val": rows, "boxes": [rows[6]]})


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of two objects, of which the second is late; a split in which objects have their first mask alone."""
    root = tmp_path_factory.mktemp("clips") / "download"
    rows = [video_row(root, name, sentences=SAID) for name in ("walk", "run")]
    given = [
        replace(
            row, annotated=(0, 2), objects=tuple(replace(o, frames=o.frames[:1], rles=o.rles[:1]) for o in row.objects)
        )
        for row in rows
    ]
    short = [video_row(root, "short", 2)]
    short = [replace(row, objects=row.objects[:1]) for row in short]
    return write_prepared(root.parent / "toy_clips", root, {"val": rows, "test": given, "short": short})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("saved") / "model"
    tiny_model(noise=0.1).save_pretrained(place)
    return place


def values(protocol: TaskProtocol[Any, Any], change: Callable[[Mask], Mask] = lambda mask: mask) -> dict[str, float]:
    method = Oracle(protocol, change)
    scores = [score for index in range(len(protocol.source)) for score in protocol.score(method, index)]
    return protocol.summarise(scores)


def protocols(images: Path, clips: Path) -> list[TaskProtocol[Any, Any]]:
    return [
        Referring(PreparedScenes(images, "val")),
        FewShot(PreparedQueries(images, "val", shots=2), (1, 2)),
        FewShot(PreparedQueries(images, "val", shots=2, supports="drawn"), (2,), hsnet_size=True),
        VideoObjects(PreparedClips(clips, "val", "vos"), "davis"),
        VideoObjects(PreparedClips(clips, "val", "vos")),
        VideoSentences(PreparedClips(clips, "val", "rvos")),
        MergedSentences(PreparedClips(clips, "val", "rvos")),
        MergedSentences(PreparedClips(clips, "val", "rvos"), "id"),
    ]


def test_right_answers_score_one_and_empty_ones_what_is_stated(images: Path, clips: Path) -> None:
    for protocol in protocols(images, clips):
        right = values(protocol)
        assert right == {name: 0.0 if name.endswith("_decay") else 1.0 for name in right}, protocol
        nothing = values(protocol, np.zeros_like)
        for name, value in nothing.items():
            assert value == 0 or name.startswith("FB-IoU") or protocol.task in ("vos", "rvos"), (protocol, name)


def test_each_picture_is_encoded_once_and_only_known_masks_count(images: Path) -> None:
    protocol = Referring(PreparedScenes(images, "val"))
    method = Oracle(protocol)
    scores = [protocol.score(method, index) for index in range(len(protocol.source))]
    assert list(protocol.source.names) == [f"pictures/{name}.jpg" for name in ("a0", "a1", "b0", "b1", "b2")]
    assert method.encoded == 5
    assert [[score.name for score in of] for of in scores] == [
        ["a0/1_0"],
        ["a1/1_0"],
        ["b0/1_0", "b0/1_1", "b0/2_0"],
        ["b1/1_0", "b1/1_1"],
        [],
    ]
    metrics = protocol.measure([score for of in scores for score in of])
    assert {(len(metric.parts), metric.unit) for metric in metrics.values()} == {(4, "image")}


def test_few_shot_queries_and_their_supports(images: Path) -> None:
    source = PreparedQueries(images, "val", shots=2)
    assert list(source.names) == ["a0/1", "a1/1", "a2/1", "a3/1"], "class b has two pictures with a mask"
    protocol = FewShot(source, (1, 2))
    method = Oracle(protocol)
    protocol.score(method, 1)
    assert method.examples == [1, 2]
    supports = [support.image.tobytes() for support in source[1].supports()]
    assert supports == [source[0].load().tobytes(), source[2].load().tobytes()], "fixed: the first others by name"
    with pytest.raises(NothingToAskError, match="no class with more than 5"):
        PreparedQueries(images, "val", shots=5)


def test_frames_that_count(clips: Path) -> None:
    """Object 5 joins in frame 2 of 6."""
    source = PreparedClips(clips, "val", "vos")
    frames = {}
    for rule in ("davis", "after-first"):
        tracks = VideoObjects(source, rule).tracks(source[0])  # type: ignore[arg-type]
        frames[rule] = {track.item.id: track.frames for track in tracks}
    assert frames["davis"] == {2: (1, 2, 3, 4), 5: (1, 2, 3, 4)}
    assert frames["after-first"] == {2: (1, 2, 3, 4, 5), 5: (3, 4, 5)}
    empty = values(VideoObjects(source, "davis"), np.zeros_like)
    assert empty["J"] == pytest.approx((0 + 1 / 4) / 2), "object 5 is rightly not seen in frame 1"
    assert values(VideoObjects(source), np.zeros_like)["J"] == 0


@pytest.mark.parametrize(
    ("data", "own"), [("mose", "mose"), ("lvos_v2", "lvos"), ("youtube_vos_2018", "youtube-vos"), ("davis2017", None)]
)
def test_sets_with_a_convention_of_their_own_say_so(clips: Path, data: str, own: str | None) -> None:
    source = PreparedClips(clips, "val", "vos")
    source.made_of = {**source.made_of, "data": data}
    told = VideoObjects(source).conventions[-1]
    assert ("eval/score.py" in told) == (own is not None)
    if own is not None:
        assert told.endswith(f"--convention {own}.")
        assert own in (*BY_IDS, *BY_LISTS)


def test_merged_sentences_are_two_runs_averaged(clips: Path) -> None:
    protocol = MergedSentences(PreparedClips(clips, "val", "rvos"))
    assert protocol.answers(protocol.source[0]) == {"0/2": 6, "1/2": 6}
    scores = protocol.score(Oracle(protocol), 0)
    worse = [replace(s, values=replace(s.values, j=0 * s.values.j)) if s.run else s for s in scores]
    assert protocol.summarise(worse)["J"] == 0.5


def spoken_pair(first_frame: dict[int, bool]) -> Clip:
    """Three frames of objects 1 and 4, left and right, each with two sentences; which of them frame 0 has."""
    masks = {1: np.zeros(SIZE, bool), 4: np.zeros(SIZE, bool)}
    masks[1][:, :9] = masks[4][:, 20:26] = True
    objects = [
        ClipObject(
            number,
            0 if first_frame[number] else 1,
            {frame: encode_mask(mask) for frame in range(3) if frame or first_frame[number]},
            {f"{number}{k}": f"object {number} said {k}" for k in "ab"},
        )
        for number, mask in masks.items()
    ]
    return Clip("pair", SIZE, ("0", "1", "2"), lambda _: np.zeros((*SIZE, 3), np.uint8), (0, 1, 2), tuple(objects))


@pytest.mark.parametrize("swapped", [False, True])
def test_merged_answers_are_matched_by_what_fits_or_by_id(swapped: bool, clips: Path) -> None:
    case = spoken_pair({1: True, 4: True})
    masks = {item.id: [decode_mask(item.masks[frame]) for frame in range(3)] for item in case.objects}
    order = {1: 4, 4: 1} if swapped else {1: 1, 4: 4}
    prediction = Prediction.of(SIZE, {f"{run}/{number}": masks[order[number]] for run in (0, 1) for number in masks})
    source = PreparedClips(clips, "val", "rvos")
    best, by_id = (MergedSentences(source, match) for match in MATCHES)
    assert best.summarise(best.judge(case, prediction))["J&F"] == 1
    assert by_id.summarise(by_id.judge(case, prediction))["J"] == (0 if swapped else 1)
    told = [(score.answer, score.sentence) for score in best.judge(case, prediction)]
    assert told == [(f"{run}/{n}", f"object {n} said {k}") for run, k in enumerate("ab") for n in (1, 4)]


def test_merged_objects_above_the_first_frames_are_answers_and_no_objects(clips: Path) -> None:
    protocol = MergedSentences(PreparedClips(clips, "val", "rvos"))
    late, gone = spoken_pair({1: True, 4: False}), spoken_pair({1: False, 4: False})
    empty = Prediction.of(SIZE, {answer: [np.zeros(SIZE, bool)] * 3 for answer in protocol.answers(late)})
    assert [score.object_id for score in protocol.judge(late, empty)] == [1, 1]
    assert protocol.counts(late)
    assert not protocol.counts(gone)
    assert protocol.judge(gone, empty) == []
    with pytest.raises(ValueError, match="match must be one of"):
        MergedSentences(protocol.source, "nearest")  # type: ignore[arg-type]


def test_a_frame_is_loaded_once_for_all_sentences(clips: Path) -> None:
    protocol = VideoSentences(PreparedClips(clips, "val", "rvos"))
    method, case, loaded = Oracle(protocol), protocol.source[0], []

    def load(number: int) -> np.ndarray:
        loaded.append(number)
        return case.load(number)

    assert len(protocol.judge(case, protocol.ask(method, replace(case, load=load)))) == 2
    assert loaded == [0, 1, 2, 3, 4, 5]


OPTIONS = {
    "ris": ["--task", "ris"],
    "fss": ["--task", "fss", "--shots", "2", "--supports", "drawn", "--hsnet-size"],
    "vos": ["--task", "vos", "--frames", "davis"],
    "rvos": ["--task", "rvos"],
    "merged": ["--task", "rvos", "--merge"],
    "merged by id": ["--task", "rvos", "--merge", "--match", "id"],
}


def evaluate(data: Path, out: Path, *options: object, split: str = "val") -> int:
    return main([str(o) for o in ("--data", data, "--split", split, "--out", out, *options)])


@pytest.mark.parametrize("name", OPTIONS)
def test_stored_predictions_and_masks_of_the_same_score_alike(
    name: str, images: Path, clips: Path, model: Path, tmp_path: Path
) -> None:
    data, options = images if name in ("ris", "fss") else clips, OPTIONS[name]
    out, theirs, masks = tmp_path / "out", tmp_path / "theirs", tmp_path / "masks"
    asked = ["--model", model, *(["--score-threshold", "-999"] if data == clips else [])]
    assert evaluate(data, out, *asked, *options, "--write-masks", masks) == 0
    results = (out / "results.json").read_text()
    task = options[1]
    told = json.loads(results)[task]
    for metric in told.values():
        assert set(metric) == {"value", "low", "high", "n", "unit"}
        # Where all units are alike, a draw's mean may differ from theirs by a rounding.
        assert metric["low"] - 1e-12 <= metric["value"] <= metric["high"] + 1e-12
    rows = {path.stem: list(csv.DictReader(path.open())) for path in out.glob("*.csv")}
    assert set(rows) == ({task} if data == images else {task, f"{task}_videos"})
    stored = (out / "predictions" / task / "process_00.jsonl").read_bytes()

    (out / "results.json").unlink()
    settings = (out / "settings.json").read_text()
    assert evaluate(data, out, *options, "--metrics-only") == 0
    assert (out / "results.json").read_text() == results
    assert (out / "settings.json").read_text() == settings
    assert (out / "predictions" / task / "process_00.jsonl").read_bytes() == stored

    assert evaluate(data, theirs, *options, "--predictions", masks) == 0
    assert (theirs / "results.json").read_text() == results
    assert {path.name for path in theirs.iterdir()} == {path.name for path in out.iterdir()} - {"predictions"}


def test_all_is_what_the_data_can_be_asked(images: Path, clips: Path, model: Path, tmp_path: Path) -> None:
    assert evaluate(images, tmp_path / "i", "--model", model, "--shots", 2, "--episodes", 2) == 0
    assert list(json.loads((tmp_path / "i" / "results.json").read_text())) == ["ris", "fss"]
    assert evaluate(clips, tmp_path / "c", "--model", model, "--episodes", 1) == 0
    results = json.loads((tmp_path / "c" / "results.json").read_text())
    assert list(results) == ["vos", "rvos"]
    assert {metric["n"] for metric in results["vos"].values()} == {1}


def test_a_split_without_masks_is_predicted_and_stored(
    clips: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", model, "--task", "vos", "--write-masks", tmp_path / "masks"]
    assert evaluate(clips, tmp_path / "out", *options, split="test") == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == {}
    assert "not scored" in " ".join(capsys.readouterr().out.split())  # the line is broken where the folder's name ends
    assert len((tmp_path / "out" / "predictions" / "vos" / "process_00.jsonl").read_text().splitlines()) == 2
    with PILImage.open(tmp_path / "masks" / "walk" / "00002.png") as picture:
        assert set(np.unique(np.asarray(picture)).tolist()) >= {5}, "its mask is given there"
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 12
    theirs = ["--task", "vos", "--predictions", tmp_path / "masks"]
    assert evaluate(clips, tmp_path / "theirs", *theirs, split="test") == 2
    assert "its masks are not known here" in capsys.readouterr().err


def test_what_would_fail_late_is_refused_at_once(
    images: Path, clips: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(data: Path, *options: object, split: str = "val") -> str:
        assert evaluate(data, tmp_path / "out", *options, split=split) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    asked = ["--model", model]
    assert "no case has a true mask where vos is scored" in refused(
        clips, *asked, "--task", "vos", "--frames", "davis", split="short"
    )
    assert "has the splits" in refused(clips, *asked, split="train")
    assert "holds images; this task asks about videos" in refused(images, *asked, "--task", "vos")
    assert "no sentence" in refused(clips, *asked, "--task", "rvos", split="short")
    assert "is not at" in refused(images, *asked, "--download", tmp_path / "elsewhere")
    moved = tmp_path / "moved"
    shutil.copytree(images.parent / "download", moved)
    (moved / "pictures" / "b1.jpg").unlink()
    assert "there is no picture" in refused(images, *asked, "--download", moved, "--task", "ris")
    arguments = ["--data", images, "--out", tmp_path / "out", *asked]
    assert main([str(argument) for argument in arguments]) == 2
    assert "say with --split" in capsys.readouterr().err


@pytest.fixture
def masks(clips: Path, tmp_path: Path) -> Path:
    """Right masks of the two videos in the layout of VOS."""
    source = PreparedClips(clips, "val", "vos")
    for case in (source[0], source[1]):
        for number, stem in enumerate(case.stems):
            ids = np.zeros(case.size, np.int64)
            for item in case.objects:
                if number in item.masks:
                    ids[decode_mask(item.masks[number])] = item.id
            save_ids(tmp_path / "masks" / case.name / f"{stem}.png", ids)
    return tmp_path / "masks"


def _spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: p.unlink(), "there is no prediction"),
        (_spoil, "can't be read"),
        (lambda p: save_ids(p, np.zeros((10, 10), np.int64)), "is 10x10, its picture is 64x48"),
        (lambda p: save_ids(p, np.full((48, 64), 7)), "has the ids [7], which the truth lacks; it has [2, 5]"),
    ],
    ids=["missing", "broken", "size", "unknown id"],
)
def test_masks_by_anyone_are_checked_first(
    harm: Callable[[Path], None],
    message: str,
    clips: Path,
    masks: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    options = ["--task", "vos", "--predictions", masks]
    bad = masks / "run" / "00003.png"
    harm(bad)
    assert evaluate(clips, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "run/00003.png" in error
    assert not (tmp_path / "out").exists()


def test_frames_that_are_not_scored_and_empty_maps_may_be_left_to_others(
    clips: Path, masks: Path, tmp_path: Path
) -> None:
    options = ["--task", "vos", "--predictions", masks, "--frames", "davis"]
    for video in ("run", "walk"):
        (masks / video / "00000.png").unlink()
        (masks / video / "00005.png").unlink()
    assert evaluate(clips, tmp_path / "right", *options) == 0
    assert json.loads((tmp_path / "right" / "results.json").read_text())["vos"]["J&F"]["value"] == 1
    save_ids(masks / "run" / "00003.png", np.zeros((48, 64), np.int64))
    assert evaluate(clips, tmp_path / "empty", *options) == 0
    told = json.loads((tmp_path / "empty" / "results.json").read_text())["vos"]
    assert told["J"]["value"] == pytest.approx(1 - 2 / 16), "two objects in one of eight frames"


def test_a_binary_mask_has_one_value(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for video in ("walk", "run"):
        for number in range(6):
            save_ids(tmp_path / "masks" / video / "0" / f"{number:05d}.png", np.eye(48, 64, dtype=np.int64) * 9)
    options = ["--task", "rvos", "--predictions", tmp_path / "masks"]
    assert evaluate(clips, tmp_path / "out", *options) == 2
    assert "walk/1/00000.png" in capsys.readouterr().err
    shutil.copytree(tmp_path / "masks" / "walk" / "0", tmp_path / "masks" / "walk" / "1")
    shutil.copytree(tmp_path / "masks" / "run" / "0", tmp_path / "masks" / "run" / "1")
    assert evaluate(clips, tmp_path / "out", *options) == 0
    both = np.eye(48, 64, dtype=np.int64)
    both[:9] = 2
    save_ids(tmp_path / "masks" / "run" / "1" / "00004.png", both)
    assert evaluate(clips, tmp_path / "out", *options) == 2
    assert "run/1/00004.png has the values [1, 2]" in capsys.readouterr().err


def test_few_shot_masks_are_of_one_number_of_shots(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--task", "fss", "--shots", "1", "2", "--predictions", tmp_path]
    assert evaluate(images, tmp_path / "out", *options) == 2
    assert "is of one number of shots, got [1, 2]" in capsys.readouterr().err
