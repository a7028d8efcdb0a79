"""Folders of masks: what is read, scored in however many processes, and refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from id_folders import SEQUENCES, Maps, moving_objects, recorded_davis, write_ids
from PIL import Image as PILImage

from sam_uniref.data.formats.files import VOID, load_palette_ids
from sam_uniref.eval import conventions, davis, proposals
from sam_uniref.eval.score_videos import list_masks, score_videos


def clips() -> dict[str, tuple[Maps, Maps]]:
    """Predicted and true maps of two videos, one longer than a process takes at a time."""
    videos = {}
    for name, frames in (("first", 19), ("second", 4)):
        truth = moving_objects(frames, 2)
        videos[name] = np.roll(truth, 1, axis=1), truth
    return videos


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and truth."""
    for name, (predicted, truth) in clips().items():
        write_ids(tmp_path / "predictions" / name, predicted)
        write_ids(tmp_path / "truth" / name, truth)
    return tmp_path / "predictions", tmp_path / "truth"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_folders_are_scored_as_their_maps_are(folders: tuple[Path, Path], workers: int) -> None:
    scored = score_videos(*folders, conventions.DAVIS, workers=workers)
    expected = {
        (name, object_id): scores
        for name, maps in clips().items()
        for object_id, scores in davis.semi_supervised(*maps).items()
    }
    assert list(scored) == list(expected) == [("first", 1), ("first", 2), ("second", 1), ("second", 2)]
    for key, scores in expected.items():
        np.testing.assert_array_equal(scored[key].j, scores.j)
        np.testing.assert_array_equal(scored[key].f, scores.f)
        assert 0 < scores.j.mean() < 1
    unsupervised = score_videos(*folders, conventions.DAVIS_UNSUPERVISED, videos=["second"], workers=workers)
    np.testing.assert_array_equal(unsupervised["second", 2].j, proposals.unsupervised(*clips()["second"])[2].j)


def test_the_shared_results_by_both_conventions(shared: Path) -> None:
    """vos-benchmark's recorded values, and the official unsupervised ones, from the folders."""
    predictions, truth = (shared / "data" / "davis_results" / side for side in ("pred", "gt"))
    recorded = recorded_davis(shared)
    scored = score_videos(predictions, truth, conventions.VOS_BENCHMARK)
    expected = recorded["vos_benchmark"]["raw_skip_first_last"]["per_object"]
    assert {name for name, _ in scored} == set(SEQUENCES)
    for (name, object_id), scores in scored.items():
        got = [100 * scores.j.mean(), 100 * scores.f.mean()]
        assert got == pytest.approx(expected[name][str(object_id)], abs=1e-9)
    overall = davis.summarise(list(score_videos(predictions, truth, conventions.DAVIS_UNSUPERVISED).values()))
    assert overall.j_and_f == pytest.approx(recorded["official_unsupervised_on_raw"]["global"]["J&F"], abs=1e-12)


def test_more_than_is_asked_is_passed_over(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    before = score_videos(predictions, truth, conventions.DAVIS, workers=0)
    write_ids(predictions / "third", moving_objects(2, 5))
    (predictions / "first" / "99999.png").write_bytes(b"of another release")
    (predictions / "first" / "results.csv").write_text("")
    after = score_videos(predictions, truth, conventions.DAVIS, workers=0)
    assert before.keys() == after.keys()
    np.testing.assert_array_equal(before["first", 1].f, after["first", 1].f)


def test_sentences_are_folders_of_binary_masks(tmp_path: Path) -> None:
    truth = moving_objects(5, 1)
    for number, predicted in enumerate((truth, truth * 0)):
        write_ids(tmp_path / "truth" / "clip" / str(number), truth)
        for t, ids in enumerate(predicted):
            path = tmp_path / "predictions" / "clip" / str(number) / f"{t:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PILImage.fromarray(ids * 255).save(path)
    scored = score_videos(tmp_path / "predictions", tmp_path / "truth", conventions.REF_YOUTUBE_VOS, workers=0)
    assert {key: (s.j.mean(), s.f.mean(), len(s.j)) for key, s in scored.items()} == {
        ("clip/0", 1): (1, 1, 5),
        ("clip/1", 1): (0, 0, 5),
    }
    assert davis.summarise(list(scored.values())).j_and_f == 0.5


def test_void_in_the_truth(folders: tuple[Path, Path]) -> None:
    """It is background, also in a frame where it is all there is; a prediction of 0 and 255 has one object."""
    predictions, truth = folders
    ids = np.zeros((24, 40), np.uint8)
    ids[5:9, 5:9] = VOID
    path = truth / "second" / "00001.png"
    PILImage.fromarray(ids).save(path)
    assert load_palette_ids(path).max() == 1
    assert set(np.unique(load_palette_ids(path, keep_void=True)).tolist()) == {0, VOID}
    scored = score_videos(predictions, truth, conventions.DAVIS, videos=["second"], workers=0)
    assert [scored["second", k].j[0] for k in (1, 2)] == [0, 0]
    PILImage.fromarray(ids).save(predictions / "second" / "00001.png")
    scored = score_videos(predictions, truth, conventions.DAVIS, videos=["second"], workers=0)
    assert [scored["second", k].j[0] for k in (1, 2)] == [0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_does_not_fit_is_refused_by_name(folders: tuple[Path, Path], workers: int) -> None:
    predictions, truth = folders
    late = predictions / "first" / "00018.png"
    good = late.read_bytes()
    PILImage.fromarray(np.zeros((24, 41), np.uint8)).save(late)
    with pytest.raises(ValueError, match=r"first/00018.png is 41x24, the true mask .*truth/first/00018.png is 40x24"):
        score_videos(predictions, truth, conventions.DAVIS, workers=workers)
    late.write_bytes(good[:-60])
    with pytest.raises(ValueError, match=r"predictions/first/00018.png: it is not a whole picture"):
        score_videos(predictions, truth, conventions.DAVIS, workers=workers)
    PILImage.fromarray(np.full((24, 40), 21, np.uint8)).save(late)
    with pytest.raises(ValueError, match=r"video first by DAVIS, semi-supervised: object 21 is predicted"):
        score_videos(predictions, truth, conventions.DAVIS, workers=workers)
    with pytest.raises(ValueError, match=r"first/00018.png: proposal 21 is predicted; at most 20"):
        score_videos(predictions, truth, conventions.DAVIS_UNSUPERVISED, workers=workers)


def test_what_is_missing_is_refused_before_anything_is_read(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    (predictions / "first" / "00000.png").write_bytes(b"")  # would be refused if it were read
    (predictions / "second" / "00002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no predicted mask .*second/00002.png; the truth has that frame"):
        list_masks(predictions, truth, ["second"])
    write_ids(truth / "third", moving_objects(3, 1))
    with pytest.raises(FileNotFoundError, match=r"no folder .*predictions/third with predictions for the video third"):
        score_videos(predictions, truth, conventions.DAVIS, videos=["third"])
    with pytest.raises(FileNotFoundError, match=r"no true masks in .*truth/fourth"):
        score_videos(predictions, truth, conventions.DAVIS, videos=["fourth"])
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        score_videos(predictions / "nowhere", truth, conventions.DAVIS)
    (predictions / "empty").mkdir()
    with pytest.raises(ValueError, match="has no folder with PNG masks"):
        score_videos(predictions, predictions / "empty", conventions.DAVIS)
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        score_videos(truth, truth, conventions.DAVIS, workers=-1)


def test_all_masks_at_another_size_are_found_at_once(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    write_ids(predictions / "second", moving_objects(4, 2, height=12, width=20))
    with pytest.raises(ValueError, match=r"second/00000.png is 20x12, the true mask .* is 40x24"):
        list_masks(predictions, truth)


def test_a_late_mask_that_does_not_fit_is_found_before_any_is_read(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    late = sorted((predictions / "second").glob("*.png"))[-1]
    for ids, message in ((np.zeros((12, 20), np.uint8), "is 20x12, the true"), (np.zeros((24, 40), np.uint16), "I;16")):
        PILImage.fromarray(ids).save(late)
        with pytest.raises(ValueError, match=f"{late.name}.*{message}"):
            list_masks(predictions, truth)
    late.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"{late.name}: it is not a whole picture"):
        list_masks(predictions, truth)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refused_video_is_named_before_later_ones_are_read(folders: tuple[Path, Path], workers: int) -> None:
    predictions, truth = folders
    PILImage.fromarray(np.full((24, 40), 21, np.uint8)).save(predictions / "first" / "00000.png")
    for number in range(30):
        write_ids(truth / f"third{number:02d}", moving_objects(3, 1))
        shutil.copytree(truth / f"third{number:02d}", predictions / f"third{number:02d}")
    last = predictions / "third29" / "00002.png"
    last.write_bytes(last.read_bytes()[:-14])
    with pytest.raises(ValueError, match=r"video first by DAVIS, semi-supervised: object 21 is predicted"):
        score_videos(predictions, truth, conventions.DAVIS, workers=workers)
