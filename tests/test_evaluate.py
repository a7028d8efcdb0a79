"""Protocols on RefShapes and ``eval/evaluate.py``: models whose scores are known, and runs as people type them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from eval_support import Asked, KnowingModel, Mask, Truth, nothing
from runs import ENVIRONMENT, ROOT
from tiny import tiny_model
from tiny_uniref import tiny_uniref

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.data.refshapes import STYLES, RefShapesDataset, Style
from sam_uniref.eval.davis import ObjectScores
from sam_uniref.eval.evaluate import main
from sam_uniref.eval.predictor_method import PredictorMethod, TrackingOptions
from sam_uniref.eval.protocols import FewShotScore, TrackScore
from sam_uniref.eval.refshapes_protocol import PROTOCOLS
from sam_uniref.eval.regions import Overlap
from sam_uniref.eval.results import read_values
from sam_uniref.tracked_object import FRAME_REFERENCES

EPISODES = 4
NOTHING_TO_FOLLOW = "--frame-references none has nothing to follow a first frame's mask by; use --task rvos"
HEADLINES = {"ris": ("oIoU", "mIoU"), "fss": ("mIoU_1shot", "mIoU_5shot"), "vos": ("J&F",), "rvos": ("J&F",)}


def measure(
    model: KnowingModel, task: Task, style: Style = "textured", tracking: TrackingOptions | None = None
) -> dict[str, float]:
    """All metrics of a few episodes but decay, which is right at 0."""
    protocol, method = PROTOCOLS[task](EPISODES, style), PredictorMethod(model, tracking)
    metrics = protocol.summarise([score for i in range(EPISODES) for score in protocol.score(method, i)])
    return {name: value for name, value in metrics.items() if not name.endswith("_decay")}


@pytest.fixture(scope="module", params=STYLES)
def style(request: pytest.FixtureRequest) -> Style:
    return request.param


@pytest.fixture(scope="module")
def truth(style: Style) -> Truth:
    return Truth(EPISODES, style)


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answers_score_one(task: Task, style: Style, truth: Truth) -> None:
    metrics = measure(KnowingModel(truth), task, style)
    assert metrics == dict.fromkeys(metrics, 1.0)
    assert set(HEADLINES[task]) <= metrics.keys()


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_does_not_follow_its_reference_is_found_out(task: Task, style: Style, truth: Truth) -> None:
    def first_object(asked: Asked) -> Mask:
        """The same answer to everything asked of a picture; in FSS its first object is none but the target."""
        if task == "fss":
            return ~truth(asked)
        return truth.ids[asked.image.tobytes()] == 1

    metrics = measure(KnowingModel(first_object), task, style)
    assert all(metrics[name] < 0.8 for name in HEADLINES[task]), metrics


@pytest.mark.parametrize("task", ["ris", "fss"])
def test_empty_answers_score_zero(task: Task, style: Style) -> None:
    metrics = measure(KnowingModel(nothing), task, style)
    background = {name for name in metrics if name.startswith("FB-IoU")}  # half of it is the background's
    assert all(0.4 < metrics[name] < 0.5 for name in background)
    assert all(value == 0 for name, value in metrics.items() if name not in background)


@pytest.mark.parametrize("task", ["vos", "rvos"])
def test_empty_answers_are_right_only_where_an_object_is_not_seen(task: Task, style: Style) -> None:
    """In VOS the frame of the given mask and those before it are not counted, in RVOS every frame is."""
    data = RefShapesDataset("", task, style=style, episodes=EPISODES)
    shares = []
    for index in range(EPISODES):
        clip = data.clip(index)
        for object_id, first in clip.first_frames.items():
            unseen = ~(clip.ids == object_id).any(axis=(1, 2))
            shares += (
                [unseen[first + 1 :].mean()] if task == "vos" else [unseen.mean()] * len(clip.sentences[object_id])
            )
    metrics = measure(KnowingModel(nothing), task, style)
    assert 0 < np.mean(shares) < 0.6, "the episodes must have an object that leaves, or the test says nothing"
    assert metrics == pytest.approx(dict.fromkeys(metrics, np.mean(shares)))


def test_a_scene_is_encoded_once_for_all_its_sentences(truth: Truth, style: Style) -> None:
    model = KnowingModel(truth)
    scores = PROTOCOLS["ris"](EPISODES, style).score(model, 0)
    said = RefShapesDataset("", "ris", style=style).scene_sentences(0).sentences
    assert (model.encoded_images, len(scores)) == (1, len(said))
    assert [asked.sentence for asked in model.asked] == [sentence for _, sentence in said]
    assert len(said) > 2


def test_a_clip_is_encoded_once_for_all_its_sentences(truth: Truth, style: Style) -> None:
    clip = RefShapesDataset("", "rvos", style=style).clip(0)
    sentences = [sentence for said in clip.sentences.values() for sentence in said]
    model = KnowingModel(truth)
    assert len(PROTOCOLS["rvos"](EPISODES, style).score(PredictorMethod(model), 0)) == len(sentences) > 2
    assert model.encoded_images == len(clip.frames)
    by_sentence = [[a for a in model.asked if a.sentence == sentence] for sentence in sentences]
    assert all(len(asked) == len(clip.frames) for asked in by_sentence)
    # The sentence alone until the object is seen, then one mask, then the first and the previous one.
    firsts = [clip.first_frames[k] for k, said in clip.sentences.items() for _ in said]
    for asked, first in zip(by_sentence, firsts, strict=True):
        assert [len(a.examples) for a in asked[: first + 3]] == [0] * (first + 1) + [1, 2]


@pytest.mark.parametrize(
    ("task", "choice"),
    [("vos", "both"), ("vos", "first"), ("vos", "previous"), *(("rvos", choice) for choice in FRAME_REFERENCES)],
)
def test_video_tasks_ask_by_the_chosen_frames(task: Task, choice: str, truth: Truth, style: Style) -> None:
    clip = RefShapesDataset("", task, style=style).clip(0)
    numbers = {frame.tobytes(): number for number, frame in enumerate(clip.frames)}
    assert len(numbers) == len(clip.frames)
    model = KnowingModel(truth)
    PROTOCOLS[task](EPISODES, style).score(PredictorMethod(model, TrackingOptions(choice)), 0)
    asked = [(numbers[a.image.tobytes()], [numbers[i.tobytes()] for i, _ in a.examples]) for a in model.asked]
    assert all(frame < now for now, frames in asked for frame in frames)
    assert max(len(frames) for _, frames in asked) == {"both": 2, "first": 1, "previous": 1, "none": 0}[choice]
    late = {frames[-1] for now, frames in asked if now == len(clip.frames) - 1 and frames}
    firsts = set(clip.first_frames.values())
    assert (len(clip.frames) - 2 in late) == (choice in ("both", "previous"))
    assert late <= firsts or choice != "first"
    assert (model.asked[0].sentence is None) == (task == "vos")


@pytest.mark.parametrize("task", ["vos", "rvos"])
def test_the_score_threshold_reaches_the_tracker(task: Task, style: Style, truth: Truth) -> None:
    """The model's score is 0.9 always: above it nothing is seen."""
    right, none_seen = (measure(KnowingModel(truth), task, style, TrackingOptions("both", t)) for t in (0.85, 0.95))
    assert right == dict.fromkeys(right, 1.0)
    assert none_seen == measure(KnowingModel(nothing), task, style)


def test_one_and_five_shots_ask_about_the_same_query(truth: Truth, style: Style) -> None:
    model = KnowingModel(truth)
    PROTOCOLS["fss"](EPISODES, style).score(model, 1)
    one, five = model.asked
    assert (len(one.examples), len(five.examples)) == (1, 5)
    np.testing.assert_array_equal(one.image, five.image)
    np.testing.assert_array_equal(one.examples[0][0], five.examples[0][0])
    np.testing.assert_array_equal(one.image, RefShapesDataset("", "fss", shots=1, style=style).episode(1).image)


def test_few_shot_classes_are_the_unseen_shapes(truth: Truth, style: Style) -> None:
    protocol = PROTOCOLS["fss"](EPISODES, style)
    shapes = [score.category for i in range(EPISODES) for score in protocol.score(KnowingModel(truth), i)]
    names = [protocol.source.data.episode(i).name for i in range(EPISODES)]
    assert [name.endswith(shape) for name, shape in zip(names, shapes, strict=True)] == [True] * EPISODES


def test_few_shot_means_are_by_image_and_by_class() -> None:
    def score(shape: str, one: Overlap, five: Overlap) -> FewShotScore:
        return FewShotScore("", shape, {1: one, 5: five})

    half, tenth, whole = Overlap(5, 10, 100), Overlap(8, 80, 100), Overlap(30, 30, 100)
    scores = [score("house", half, whole), score("house", tenth, whole), score("bolt", whole, whole)]
    metrics = PROTOCOLS["fss"](1).summarise(scores)
    assert metrics["mIoU_1shot"] == pytest.approx((0.5 + 0.1 + 1) / 3)
    assert metrics["mIoU_by_class_1shot"] == pytest.approx((13 / 90 + 1) / 2)
    assert metrics["FB-IoU_1shot"] == pytest.approx((43 / 120 + (300 - 120) / (300 - 43)) / 2)
    assert {name for name, value in metrics.items() if value == 1} == {n for n in metrics if n.endswith("5shot")}


@pytest.mark.parametrize("task", ["vos", "rvos"])
def test_tracks_count_alike_whatever_their_length(task: Task) -> None:
    values = ObjectScores(np.array([1.0]), np.array([0.6])), ObjectScores(np.zeros(9), np.full(9, 0.2))

    scores = [TrackScore(name, "1", 1, (1,), 0, "", v) for name, v in zip("ab", values, strict=True)]
    metrics = PROTOCOLS[task](1).summarise(scores)
    expected = {"J&F": 0.45, "J": 0.5, "F": 0.4, "J_recall": 0.5, "F_recall": 0.5, "J_decay": 0, "F_decay": 0}
    assert metrics == pytest.approx(expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with seeded random weights."""
    place = tmp_path_factory.mktemp("saved") / "model"
    tiny_model(noise=0.1).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def results(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """What the script writes for all tasks, three episodes each."""
    out = tmp_path_factory.mktemp("results") / "new" / "folder"
    assert main(["--model", str(folder), "--task", "all", "--out", str(out), "--episodes", "3"]) == 0
    tables = ["fss.csv", "ris.csv", "rvos.csv", "rvos_videos.csv", "vos.csv", "vos_videos.csv"]
    others = ["predictions", "report", "results.json", "settings.json"]
    assert sorted(path.name for path in out.iterdir()) == sorted(tables + others)
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["episodes"], settings["frame_references"], settings["score_threshold"]) == (3, "both", None)
    return read_values(out / "results.json")


def test_results_of_all_tasks(results: dict[str, dict[str, float]]) -> None:
    assert list(results) == list(TASKS)
    for task, metrics in results.items():
        assert set(HEADLINES[task]) <= metrics.keys()
        assert all(-1 <= value <= 1 for value in metrics.values())
        assert all(value >= 0 for name, value in metrics.items() if not name.endswith("_decay"))
        assert any(0 < value < 1 for value in metrics.values())


def test_two_tasks_alone_give_the_same_and_a_table(
    folder: Path, results: dict[str, dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing depends on what was asked before."""
    (tmp_path / "results.json").write_text("{}")
    assert main(["--model", str(folder), "--task", "vos", "ris", "--out", str(tmp_path), "--episodes", "3"]) == 0
    assert read_values(tmp_path / "results.json") == {task: results[task] for task in ("ris", "vos")}
    shown = capsys.readouterr()
    assert f"{results['vos']['J&F']:.4f}" in shown.out
    assert "3/3" in shown.err, "the progress bar"


def test_the_plain_style_is_another_data_set(
    folder: Path, results: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    options = ["--task", "ris", "--out", str(tmp_path), "--episodes", "3", "--style", "plain", "--device", "cpu"]
    assert main(["--model", str(folder), *options]) == 0
    assert read_values(tmp_path / "results.json")["ris"] != results["ris"]


def test_frame_references_and_threshold_are_followed_and_recorded(folder: Path, tmp_path: Path) -> None:
    def measured(task: str, choice: str, threshold: float = -999.0) -> dict[str, float]:
        """By default whatever the score, as the untrained model's means nothing."""
        options = ["--frame-references", choice, "--score-threshold", str(threshold), "--episodes", "1"]
        out = tmp_path / f"{task}_{choice}_{threshold}"
        assert main(["--model", str(folder), "--task", task, "--out", str(out), *options]) == 0
        settings = json.loads((out / "settings.json").read_text())
        assert (settings["frame_references"], settings["score_threshold"]) == (choice, threshold)
        return read_values(out / "results.json")[task]

    assert measured("rvos", "both") != measured("rvos", "none")
    tracked = [measured("vos", choice) for choice in ("both", "first", "previous")]
    nothing_seen = measured("vos", "both", 999.0)
    assert all(a != b for a, b in itertools.combinations([*tracked, nothing_seen], 2))


def test_a_uniref_is_asked_all_tasks_by_the_same_code(tmp_path: Path) -> None:
    tiny_uniref(noise=0.03).save_pretrained(tmp_path / "model")
    asked = ["--model", str(tmp_path / "model"), "--method", "uniref", "--out", str(tmp_path / "out")]
    options = ["--score-threshold", "0", "--image-size", "64"]
    assert main([*asked, "--task", "all", "--episodes", "1", *options]) == 0
    results = read_values(tmp_path / "out" / "results.json")
    assert list(results) == list(TASKS)
    assert all(0 <= results[task][name] <= 1 for task in TASKS for name in HEADLINES[task])


def test_a_model_is_evaluated_at_another_image_size(folder: Path, tmp_path: Path) -> None:
    def measured(out: Path, *options: str) -> dict[str, float]:
        asked = ["--model", str(folder), "--task", "ris", "--out", str(out), "--episodes", "1", *options]
        assert main(asked) == 0
        assert json.loads((out / "settings.json").read_text())["image_size"] == (64 if options else None)
        return read_values(out / "results.json")["ris"]

    assert measured(tmp_path / "own") != measured(tmp_path / "small", "--image-size", "64")


def test_two_processes_give_the_numbers_of_one(
    folder: Path, results: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    """Three episodes for two processes: one of them has less to do."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--multi_gpu"]
    script = [str(ROOT / "eval" / "evaluate.py"), "--model", str(folder), "--out", str(tmp_path), "--episodes", "3"]
    done = subprocess.run(
        [*launch, "--main_process_port", "0", *script],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("RefShapes validation") == 1
    got = read_values(tmp_path / "results.json")
    assert list(got) == list(results)
    for task, metrics in results.items():
        assert got[task] == pytest.approx(metrics, abs=1e-6)


def _file(place: Path) -> Path:
    place.write_text("")
    return place


def _no_text(place: Path) -> Path:
    tiny_model(text=False).save_pretrained(place)
    return place


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda p, m: ["--model", p / "nowhere", "--out", p / "o"], "nowhere holds no SamRef"),
        (lambda p, m: ["--model", m, "--out", _file(p / "taken")], "--out must be a folder"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--episodes", "0"], "--episodes must be at least 1, got 0"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--device", "warp"], "no device 'warp'"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--image-size", "100"], "multiple of this SAM's patch size, 8"),
        (lambda p, m: ["--model", _no_text(p / "m"), "--out", p / "o", "--task", "ris"], "no text encoder"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--task", "pose"], "invalid choice: 'pose'"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--data", "coco"], "coco is no prepared data set"),
        (lambda p, m: ["--out", p / "o"], "--model is needed"),
        (lambda p, m: ["--model", m], "--out"),
        (lambda p, m: ["--model", p / "no", "--out", p / "o", "--split", "val"], "--split means nothing to --data"),
        (
            lambda p, m: ["--model", p / "no", "--out", p / "o", "--data", p, "--style", "plain"],
            "--style means nothing",
        ),
        (lambda p, m: ["--model", m, "--out", p / "o", "--task=vos", "--shots", "1"], "--shots is of fss, not of"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--shots", "0"], "shots must be"),
        (lambda p, m: ["--predictions", p, "--out", p / "o"], "is of one --task"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--match", "id"], "--match is of --merge"),
        (lambda p, m: ["--metrics-only", "--task=ris", "--out", p / "o"], "lacks 200 of 200 predictions"),
        # That there is no such model would be told if it were looked for first.
        (lambda p, m: ["--model", p / "no", "--out", p / "o", "--frame-references", "none"], NOTHING_TO_FOLLOW),
        (
            lambda p, m: ["--model", p / "no", "--out", p / "o", "--frame-references=none", "--task=vos"],
            NOTHING_TO_FOLLOW,
        ),
        (lambda p, m: ["--model", m, "--out", p / "o", "--frame-references", "last"], "invalid choice: 'last'"),
        (lambda p, m: ["--model", m, "--out", p / "o", "--task=ris", "--score-threshold=0"], "is of vos and rvos"),
        (lambda p, m: ["--model", p / "no", "--out", p / "o", "--score-threshold", "nan"], "must be finite, got nan"),
        (lambda p, m: ["--model", p / "no", "--out", p / "o", "--score-threshold=-inf"], "must be finite, got -inf"),
    ],
    ids=[
        *("no model", "file", "no episodes", "device", "image size", "no text encoder", "task", "data", "no --model"),
        *("no --out", "split", "style", "shots of vos", "no shots", "tasks of a folder", "match", "nothing stored"),
        *("none for all", "none for vos", "frame references", "not tracked", "threshold", "infinite threshold"),
    ],
)
def test_bad_input_is_told_in_one_line(
    options: Callable[[Path, Path], list[object]],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(option) for option in options(tmp_path, folder)]
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as stopped:  # argparse
        code = int(stopped.code or 0)
    errors = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert errors[-1].startswith("error: ")
    assert message in errors[-1]
    assert len([line for line in errors if line and "episode/s" not in line]) == 1
    assert not (tmp_path / "o").exists()
