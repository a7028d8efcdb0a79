"""DAVIS's and Ref-DAVIS17's downloads from end to end: the evaluation's numbers are those of the folders it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from tiny import tiny_model

from sam_uniref.data.formats import named_format
from sam_uniref.data.prepared import prepare
from sam_uniref.data.refshapes.export import export
from sam_uniref.eval.conventions import DAVIS, DAVIS_UNSUPERVISED
from sam_uniref.eval.davis import summarise
from sam_uniref.eval.evaluate import main
from sam_uniref.eval.proposals import mean_of_ref_davis_runs
from sam_uniref.eval.score_videos import score_videos

SENTENCE_FILES = ("annot1", "annot1_full_video", "annot2", "annot2_full_video")


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn clips as DAVIS lays them out, with the unsupervised masks and four sentences an object."""
    base = export("davis2017", tmp_path_factory.mktemp("davis") / "download", 2)
    masks = base / "Annotations" / "480p"
    shutil.copytree(base / "Annotations", base / "Annotations_unsupervised")
    (base / "davis_text_annotations").mkdir()
    lines = []
    for video in sorted(path.name for path in masks.iterdir()):
        with PILImage.open(masks / video / "00000.png") as first:
            count = int(np.asarray(first).max())
        lines += [f'{video} {number} "object {number} of the clip"' for number in range(1, count + 1)]
    for number, name in enumerate(SENTENCE_FILES):
        text = "\n".join(f'{line[:-1]} as {number}"' for line in lines)
        (base / "davis_text_annotations" / f"Davis17_{name}.txt").write_text(text + "\n")
    return base


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("saved") / "model"
    tiny_model(noise=0.1).save_pretrained(place)
    return place


def evaluated(name: str, download: Path, model: Path, folder: Path, *options: str) -> tuple[dict[str, float], Path]:
    """The metrics' values of the split ``val``, and the masks that were written."""
    prepare(named_format(name), download, folder / "prepared", splits=("val",), workers=0)
    given = ["--model", str(model), "--data", str(folder / "prepared" / name), "--split", "val", "--episodes", "2"]
    written = ["--out", str(folder / "out"), "--write-masks", str(folder / "masks")]
    assert main([*given, *written, "--score-threshold", "-999", *options]) == 0
    results = json.loads((folder / "out" / "results.json").read_text())[options[1]]
    return {metric: told["value"] for metric, told in results.items()}, folder / "masks"


@pytest.mark.slow
def test_davis_by_its_own_rule(download: Path, model: Path, tmp_path: Path) -> None:
    values, masks = evaluated("davis2017", download, model, tmp_path, "--task", "vos")
    videos = sorted(path.name for path in masks.iterdir())
    assert len(videos) == 2
    scores = score_videos(masks, download / "Annotations" / "480p", DAVIS, videos=videos, workers=0)
    expected = summarise(list(scores.values()))
    assert values["J&F"] == pytest.approx(expected.j_and_f, abs=1e-12)
    assert values["F_recall"] == pytest.approx(expected.f.recall, abs=1e-12)
    assert values["J_decay"] == pytest.approx(expected.j.decay, abs=1e-12)
    assert 0 < values["J&F"] < 1


@pytest.mark.slow
def test_ref_davis_as_published(download: Path, model: Path, tmp_path: Path) -> None:
    values, masks = evaluated("ref_davis17", download, model, tmp_path, "--task", "rvos", "--merge")
    assert sorted(path.name for path in masks.iterdir()) == [f"anno_{run}" for run in range(4)]
    truth, runs = download / "Annotations_unsupervised" / "480p", []
    for folder in sorted(masks.iterdir()):
        videos = sorted(path.name for path in folder.iterdir())
        scores = score_videos(folder, truth, DAVIS_UNSUPERVISED, videos=videos, workers=0)
        runs.append(summarise(list(scores.values())))
    expected = mean_of_ref_davis_runs(runs)
    assert values["J&F"] == pytest.approx(expected.j_and_f, abs=1e-12)
    assert values["J_recall"] == pytest.approx(expected.j.recall, abs=1e-12)
    assert 0 < values["J&F"] < 1
