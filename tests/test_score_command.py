"""`eval/score.py` as people type it: recorded values of the public programs from folders, files, and refusals."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from id_folders import RECORDED, SEQUENCES, matched_ids, moving_objects, read_ids, recorded_davis, write_ids
from PIL import Image as PILImage
from runs import ROOT

from sam_uniref.eval import conventions, davis, proposals
from sam_uniref.eval.score import main
from sam_uniref.eval.score_videos import score_videos

VIDEOS = ("first", "second", "third")
STEMS = tuple(f"{5 * t:05d}" for t in range(6))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """``truth``, ``predictions`` that are a pixel off, lists, and meta files by which the first video is seen."""
    truth = moving_objects(6, 2)
    for shift, name in enumerate(VIDEOS):
        write_ids(tmp_path / "truth" / name, truth, STEMS)
        write_ids(tmp_path / "predictions" / name, np.roll(truth, shift, axis=1), STEMS)
    (tmp_path / "videos.txt").write_text("second\nthird\n")
    (tmp_path / "unseen_videos.txt").write_text("second\nthird\nelsewhere\n")
    (tmp_path / "unseen_categories.txt").write_text("dog\n")
    categories = dict(zip(VIDEOS, ("cat", "dog", "dog"), strict=True))
    write_meta(tmp_path / "meta.json", {name: {"category": categories[name], "frames": STEMS} for name in VIDEOS})
    write_meta(tmp_path / "train.json", {"of training": {"category": "cat", "frames": STEMS}})
    span = {"start": "00000000", "end": "00000026"}
    write_meta(tmp_path / "valid_meta.json", {name: {"frame_range": span} for name in VIDEOS})
    return tmp_path


def write_meta(path: Path, of_videos: dict[str, Any], ids: tuple[int, ...] = (1, 2)) -> Path:
    """The same of all objects of a video."""
    videos = {name: {"objects": {str(k): told for k in ids}} for name, told in of_videos.items()}
    path.write_text(json.dumps({"videos": videos}))
    return path


def typed(root: Path, convention: str, **others: object) -> list[str]:
    """The command line; an option of None is left out, one of a list is given all of it."""
    options = {"truth": root / "truth", "predictions": root / "predictions", "out": root / "out", "workers": 0} | others
    line = ["--convention", convention]
    for name, value in options.items():
        if value is not None:
            line += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return line


def scored(root: Path, convention: str, **others: object) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The results and the table of objects."""
    assert main(typed(root, convention, **others)) == 0
    with (root / "out" / "objects.csv").open(newline="") as file:
        return json.loads((root / "out" / "results.json").read_text()), list(csv.DictReader(file))


def values(results: dict[str, Any]) -> dict[str, float]:
    return {name: told["value"] for name, told in results.items()}


# ---- Recorded values ----


@pytest.fixture(scope="module")
def matched(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared results with the ids of their objects: as they are, and with the frame numbers 5, 10, 15, ..."""
    root, recorded = tmp_path_factory.mktemp("matched"), recorded_davis(shared)["sequences"]
    for name in SEQUENCES:
        sides = {side: shared / "data" / "davis_results" / side / name for side in ("gt", "pred")}
        maps = {
            "truth": read_ids(sides["gt"]),
            "predictions": matched_ids(recorded[name]["matched"], read_ids(sides["pred"])),
        }
        for side, ids in maps.items():
            write_ids(root / side / name, ids, [f"{5 * t:08d}" for t in range(len(ids))])
    return root


def frames_of(root: Path) -> dict[str, list[str]]:
    return {name: sorted(path.stem for path in (root / "truth" / name).iterdir()) for name in SEQUENCES}


def test_official_davis_values(shared: Path, matched: Path) -> None:
    expected = recorded_davis(shared)["official_semi_supervised_on_matched"]
    results, rows = scored(matched, "davis")
    told = {"J&F": expected["global"]["J&F"]}
    for letter in "JF":
        told[letter] = expected["global"][letter]["mean"]
        told |= {f"{letter}_{ending}": expected["global"][letter][ending] for ending in ("recall", "decay")}
    assert values(results) == pytest.approx(told, abs=1e-9)
    assert {(told["n"], told["unit"]) for told in results.values()} == {(4, "video")}
    assert all(told["low"] <= told["value"] <= told["high"] for told in results.values())
    assert len(rows) == sum(len(objects) for objects in expected["objects"].values()) == 11
    for row in rows:
        of_object = expected["objects"][row["video"]][row["object"]]
        for letter in "JF":
            assert float(row[letter]) == pytest.approx(of_object[letter]["mean"], abs=1e-9)


@pytest.mark.parametrize("convention", ["davis-unsupervised", "vos-benchmark"])
def test_values_of_the_published_results_as_they_are(shared: Path, tmp_path: Path, convention: str) -> None:
    data, recorded = shared / "data" / "davis_results", recorded_davis(shared)
    results, _ = scored(tmp_path, convention, truth=data / "gt", predictions=data / "pred")
    if convention == "vos-benchmark":
        percent = recorded["vos_benchmark"]["raw_skip_first_last"]
        told = {name: percent[name] / 100 for name in ("J&F", "J", "F")}
    else:
        means = recorded["official_unsupervised_on_raw"]["global"]
        told = {"J&F": means["J&F"], "J": means["J"]["mean"], "F": means["F"]["mean"]}
    assert {name: results[name]["value"] for name in told} == pytest.approx(told, abs=1e-9)


def test_lvos_values(matched: Path) -> None:
    """The recorded ones are of DAVIS's frames, all but the first and the last: here they have LVOS's numbers."""
    videos = {}
    for name, stems in frames_of(matched).items():
        span = {"frame_range": {"start": stems[1], "end": stems[-1]}}
        ids = {int(i) for i in np.unique(read_ids(matched / "truth" / name)) if 0 < i < 255}
        videos[name] = {"objects": {str(k): span for k in ids}}
    meta, unseen = matched / "valid_meta.json", matched / "unseen_videos.txt"
    meta.write_text(json.dumps({"videos": videos}))
    unseen.write_text("lab-coat\nshooting\n")
    results, rows = scored(matched, "lvos", meta=meta, unseen=unseen)
    recorded = json.loads((RECORDED / "lvos_ytvos.json").read_text())
    expected = {name: recorded["lvos"][name] for name in results}
    assert expected.keys() == {"J&F"} | {f"{q}{of}" for q in "JFV" for of in ("", "_seen", "_unseen")}
    assert values(results) == pytest.approx(expected, abs=1e-6)
    for row in rows:
        told = recorded["objects"][f"{row['video']}_{row['object']}"]
        assert row["group"] == told["group"]
        assert [float(row[q]) for q in "JFV"] == pytest.approx([told[q] for q in "JFV"], abs=1e-6)


def test_youtube_vos_value(matched: Path) -> None:
    """An object's first listed frame does not count; neither does the last one, which is not listed."""
    videos = {}
    for name, stems in frames_of(matched).items():
        ids = {int(i) for i in np.unique(read_ids(matched / "truth" / name)) if 0 < i < 255}
        told = {"category": f"of {name}", "frames": stems[:-1]}
        videos[name] = {"objects": {str(k): told for k in ids}}
    meta, unseen = matched / "meta.json", matched / "unseen_categories.txt"
    meta.write_text(json.dumps({"videos": videos}))
    unseen.write_text("of lab-coat\nof shooting\n")
    results, _ = scored(matched, "youtube-vos", meta=meta, unseen=unseen)
    recorded = json.loads((RECORDED / "lvos_ytvos.json").read_text())
    expected = {f"{q}{of}": recorded["lvos"][f"{q}{of}"] for q in "JF" for of in ("", "_seen", "_unseen")}
    expected["G"] = recorded["youtube_vos_G_with_the_same_groups"]
    assert values(results) == pytest.approx(expected, abs=1e-6)


# ---- What is written ----


def test_the_script_writes_and_shows(folders: Path) -> None:
    line = [sys.executable, str(ROOT / "eval" / "score.py"), *typed(folders, "mose", workers=1)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "MOSE, 6 objects" in done.stdout
    results = json.loads((folders / "out" / "results.json").read_text())
    assert f"{results['J&F']['value']:.4f}" in done.stdout
    assert results["J&F"].keys() == {"value", "low", "high", "n", "unit"}
    expected = davis.summarise(
        list(score_videos(folders / "predictions", folders / "truth", conventions.MOSE, workers=0).values())
    )
    assert (results["J&F"]["value"], results["F_decay"]["value"]) == (expected.j_and_f, expected.f.decay)
    assert 0 < results["J&F"]["low"] < expected.j_and_f < results["J&F"]["high"] == 1
    settings = json.loads((folders / "out" / "settings.json").read_text())
    assert (settings["convention"], settings["predictions"]) == ("mose", [str(folders / "predictions")])


def test_only_listed_videos_are_scored(folders: Path) -> None:
    (folders / "predictions" / "first" / "00005.png").unlink()
    _, rows = scored(folders, "vos-benchmark", videos=folders / "videos.txt")
    assert [(row["video"], row["object"], row["frames"]) for row in rows] == [
        (name, k, "4") for name in ("second", "third") for k in ("1", "2")
    ]
    _, rows = scored(folders, "vos-benchmark-all-frames", videos=folders / "videos.txt")
    assert {row["frames"] for row in rows} == {"6"}


def test_four_runs_are_averaged(folders: Path) -> None:
    runs = [folders / f"anno_{run}" for run in range(4)]
    for run, folder in enumerate(runs):
        for name in VIDEOS:
            write_ids(folder / name, np.roll(moving_objects(6, 2), run, axis=2), STEMS)
    results, rows = scored(folders, "davis-unsupervised", predictions=runs)
    of_runs = [
        davis.summarise(list(score_videos(run, folders / "truth", conventions.DAVIS_UNSUPERVISED, workers=0).values()))
        for run in runs
    ]
    expected = proposals.mean_of_ref_davis_runs(of_runs)
    assert results["J&F"]["value"] == pytest.approx(expected.j_and_f, abs=1e-12)
    assert results["J_recall"]["value"] == pytest.approx(expected.j.recall, abs=1e-12)
    assert results["J&F"]["n"] == 3
    assert [(row["predictions"], row["video"]) for row in rows[::6]] == [(str(run), "first") for run in runs]


def test_sentences_about_a_video_are_one_unit(tmp_path: Path) -> None:
    truth = moving_objects(5, 1)
    for video, sentence, found in (("a", 0, 1), ("a", 1, 0), ("b", 0, 1)):
        write_ids(tmp_path / "truth" / video / str(sentence), truth)
        for t, ids in enumerate(found * truth):
            path = tmp_path / "predictions" / video / str(sentence) / f"{t:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PILImage.fromarray(ids * 255).save(path)
    results, rows = scored(tmp_path, "ref-youtube-vos")
    assert results["J&F"]["value"] == pytest.approx(2 / 3)
    assert (results["J&F"]["n"], results["J&F"]["low"], results["J&F"]["high"]) == (2, 0.5, 1)
    assert [(row["video"], float(row["J"])) for row in rows] == [("a/0", 1), ("a/1", 0), ("b/0", 1)]


@pytest.mark.parametrize("unseen", ["train.json", "unseen_categories.txt"])
def test_seen_are_the_categories_of_training(folders: Path, unseen: str) -> None:
    results, rows = scored(folders, "youtube-vos", meta=folders / "meta.json", unseen=folders / unseen)
    assert {(row["video"], row["group"]) for row in rows} == {
        ("first", "seen"),
        ("second", "unseen"),
        ("third", "unseen"),
    }
    assert {row["frames"] for row in rows} == {"5"}
    assert (results["J_seen"]["value"], results["J_seen"]["n"], results["J_unseen"]["n"]) == (1, 1, 2)
    groups = [results[f"{q}_{group}"]["value"] for q in "JF" for group in ("seen", "unseen")]
    assert results["G"]["value"] == pytest.approx(np.mean(groups))
    # A draw without a seen video is of the unseen ones, not half of nothing.
    assert results["G"]["low"] >= min(float(row["J&F"]) for row in rows) > 0.5


def test_lists_can_be_narrowed_to_some_videos(folders: Path) -> None:
    (folders / "unseen_videos.txt").write_text("third")
    given = {"meta": folders / "valid_meta.json", "unseen": folders / "unseen_videos.txt"}
    results, rows = scored(folders, "lvos", videos=folders / "videos.txt", **given)
    assert {(row["video"], row["group"]) for row in rows} == {("second", "seen"), ("third", "unseen")}
    assert {"V", "V_seen", "V_unseen"} <= results.keys()


# ---- What is refused ----


def refused(capsys: pytest.CaptureFixture[str], line: list[str]) -> str:
    """The one line on stderr; nothing is shown or written."""
    capsys.readouterr()
    try:
        code = main(line)
    except SystemExit as stopped:  # by the parser
        code = int(str(stopped.code))
    out, error = capsys.readouterr()
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("error: ")
    assert not Path(line[line.index("--out") + 1]).is_dir()
    return error


@pytest.mark.parametrize(
    ("convention", "others", "message"),
    [
        ("coco", {}, "argument --convention: invalid choice: 'coco'"),
        ("davis", {"truth": None}, "the following arguments are required: --truth"),
        ("davis", {"meta": "meta.json"}, "--meta is of lvos and youtube-vos, not of davis; leave it out"),
        ("mose", {"unseen": "unseen_videos.txt"}, "--unseen is of lvos and youtube-vos, not of mose; leave it out"),
        ("youtube-vos", {"unseen": "train.json"}, "--convention youtube-vos needs --meta"),
        ("lvos", {"meta": "valid_meta.json"}, "--convention lvos needs --unseen"),
        ("davis", {"predictions": ["a", "b"]}, "--convention davis takes one folder of --predictions, got 2"),
        ("davis-unsupervised", {"predictions": ["a", "b"]}, "one folder, or the 4 of Ref-DAVIS17's runs, got 2"),
        ("davis-unsupervised", {"predictions": ["a", "b", "c", "a"]}, "--predictions has a folder twice"),
        ("davis", {"workers": -1}, "--workers must be at least 0, got -1"),
        ("davis", {"out": "videos.txt"}, "--out must be a folder, and"),
        ("davis", {"truth": "nowhere"}, "there is no folder"),
        ("davis", {"videos": "nowhere.txt"}, "there is no"),
        ("davis", {"videos": "empty.txt"}, "empty.txt is empty; it must have a name a line"),
        ("davis", {"videos": "unseen_videos.txt"}, "there are no true masks in"),
        ("lvos", {"meta": "meta.json", "unseen": "unseen_videos.txt"}, "video first object 1 lacks 'frame_range'"),
        ("lvos", {"meta": "valid_meta.json", "unseen": "unseen_categories.txt"}, "is unseen; lvos is the mean of both"),
        ("youtube-vos", {"meta": "meta.json", "unseen": "unseen_videos.txt"}, "no object of"),
        ("youtube-vos", {"meta": "meta.json", "unseen": "meta.json"}, "meta.json is unseen; youtube-vos is the mean"),
        ("youtube-vos", {"meta": "train.json", "unseen": "unseen_categories.txt"}, "train.json is unseen"),
        ("youtube-vos", {"meta": "without.json", "unseen": "train.json"}, "video first object 1 has no category"),
        (
            "youtube-vos",
            {"meta": "meta.json", "unseen": "train.json", "videos": "unseen_videos.txt"},
            "meta.json does not list the video elsewhere",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_convention(
    folders: Path, capsys: pytest.CaptureFixture[str], convention: str, others: dict[str, Any], message: str
) -> None:
    (folders / "empty.txt").write_text("\n")
    write_meta(folders / "without.json", {name: {"frames": STEMS} for name in VIDEOS})
    paths = {
        name: [folders / one for one in value] if isinstance(value, list) else folders / value
        for name, value in others.items()
        if isinstance(value, (str, list))
    }
    assert message in refused(capsys, typed(folders, convention, **others | paths))


def test_masks_that_do_not_fit_are_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = typed(folders, "davis")
    late = folders / "predictions" / "third" / f"{STEMS[4]}.png"
    good = late.read_bytes()
    PILImage.fromarray(np.full((24, 40), 7, np.uint8)).save(late)
    assert "video third by DAVIS, semi-supervised: object 7 is predicted in frame 00020.png" in refused(capsys, line)
    PILImage.fromarray(np.zeros((12, 20), np.uint8)).save(late)
    assert "third/00020.png is 20x12, the true mask" in refused(capsys, line)
    PILImage.fromarray(np.zeros((24, 40), np.uint16)).save(late)
    assert "third/00020.png: a mask has ids or the palette's colours, got a picture of mode I" in refused(capsys, line)
    late.write_bytes(good[:-60])
    assert "third/00020.png: it is not a whole picture" in refused(capsys, line)
    late.unlink()
    assert "there is no predicted mask" in refused(capsys, line)
    # An object that is not predicted is an empty mask.
    PILImage.fromarray(np.zeros((24, 40), np.uint8)).save(late)
    assert main(line) == 0


def test_a_run_that_lacks_a_frame_is_found_before_any_is_scored(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [folders / f"anno_{run}" for run in range(4)]
    for folder in runs:
        for name in VIDEOS:
            write_ids(folder / name, moving_objects(6, 2), STEMS)
    broken = runs[0] / "first" / "00005.png"
    broken.write_bytes(broken.read_bytes()[:-14])  # would be refused if it were read
    (runs[3] / "third" / "00025.png").unlink()
    assert "anno_3/third/00025.png; the truth" in refused(
        capsys, typed(folders, "davis-unsupervised", predictions=runs)
    )


def test_an_object_that_no_true_mask_has(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Predicting nothing would be right in all of its frames."""
    meta = json.loads((folders / "meta.json").read_text())
    meta["videos"]["second"]["objects"]["3"] = {"category": "dog", "frames": STEMS}
    (folders / "meta.json").write_text(json.dumps(meta))
    line = typed(folders, "youtube-vos", meta=folders / "meta.json", unseen=folders / "train.json")
    assert "video second by YouTube-VOS: object 3 is listed, and no true mask has it" in refused(capsys, line)
    for name in VIDEOS:
        write_ids(folders / "truth" / name, 0 * moving_objects(6, 2), STEMS)
    assert "vos-benchmark: the true masks have no object" in refused(capsys, typed(folders, "vos-benchmark"))
