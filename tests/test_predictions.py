"""Stored predictions: what is written is read, whatever stopped the writing; and what was made of something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_uniref.eval.predictions import Prediction, PredictionStore

SETTINGS = {"model": "a", "shots": [1, 5]}
SIZE = (6, 9)


def prediction(value: int = 0) -> Prediction:
    masks = np.zeros((2, *SIZE), bool)
    masks[1, value] = True
    return Prediction.of(SIZE, {"1": masks, "a b": masks[::-1]})


def store(folder: Path, *cases: str, process: int = 0) -> PredictionStore:
    filled = PredictionStore(folder, SETTINGS)
    for number, case in enumerate(cases):
        filled.append(process, case, prediction(number))
    filled.refresh()
    return filled


@given(arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8))))
@settings(max_examples=50, deadline=None)
def test_masks_come_back_as_they_were(masks: np.ndarray) -> None:
    got = Prediction.of(masks.shape[1:], {"x": masks})
    for frame, mask in enumerate(masks):
        np.testing.assert_array_equal(got.mask("x", frame), mask)


def test_what_was_written_is_read_by_any_process(tmp_path: Path) -> None:
    store(tmp_path / "s", "one", "zwei/ü")
    store(tmp_path / "s", "three", process=1)
    read = PredictionStore(tmp_path / "s", {})
    assert read.cases == {"one", "zwei/ü", "three"}
    assert read.read("zwei/ü") == prediction(1)
    with pytest.raises(ValueError, match="has no prediction of four"):
        read.read("four")


def test_nothing_is_there_before_the_first_answer(tmp_path: Path) -> None:
    assert PredictionStore(tmp_path / "s", SETTINGS).cases == set()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("cut", [1, 30, 80])
def test_a_line_that_was_cut_off_was_never_written(cut: int, tmp_path: Path) -> None:
    store(tmp_path, "one", "two")
    file = tmp_path / "process_00.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    again = PredictionStore(tmp_path, SETTINGS)
    assert again.cases == {"one"}
    again.append(0, "three", prediction())
    again.refresh()
    assert again.cases == {"one", "three"}
    assert [json.loads(line)["case"] for line in file.read_text().splitlines()] == ["one", "three"]


def test_a_case_that_stands_twice_counts_once(tmp_path: Path) -> None:
    store(tmp_path, "one")
    assert store(tmp_path, "one", process=3).read("one") == prediction(0)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: (p / "process_00.jsonl").write_text("{}\n"), r"process_00.jsonl line 1 is no prediction"),
        (lambda p: (p / "process_00.jsonl").write_text("\n"), r"line 1 is no prediction"),
        (lambda p: (p / "settings.json").write_text("["), r"settings.json is broken"),
        (lambda p: (p / "settings.json").unlink(), r"has predictions and no settings.json"),
    ],
    ids=["other lines", "empty line", "settings", "no settings"],
)
def test_broken_files_are_named(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    store(tmp_path, "one")
    harm(tmp_path)
    with pytest.raises(ValueError, match=message):
        PredictionStore(tmp_path, SETTINGS)


def test_answers_made_of_something_else_are_refused(tmp_path: Path) -> None:
    store(tmp_path, "one")
    with pytest.raises(
        ValueError, match=r"was made with shots \[1, 5\] and not \[1\]; remove it, or give another --out"
    ):
        PredictionStore(tmp_path, SETTINGS | {"shots": [1]})
    assert PredictionStore(tmp_path, {"model": "a"}).cases == {"one"}


def test_a_prediction_of_another_case_is_refused() -> None:
    told = prediction()
    told.check("it", SIZE, {"1": 2})
    with pytest.raises(ValueError, match="of it is 9x6, its pictures are 6x9"):
        told.check("it", SIZE[::-1], {})
    with pytest.raises(ValueError, match="of it has 2 masks of '1', not 3"):
        told.check("it", SIZE, {"1": 3})
    with pytest.raises(ValueError, match="of it has 0 masks of '2', not 2"):
        told.check("it", SIZE, {"1": 2, "2": 2})
