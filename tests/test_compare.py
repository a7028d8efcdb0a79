"""The comparison: a whole small run of the command, what it writes, that it goes on, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from runs import ENVIRONMENT, ROOT

from sam_uniref.eval import compare, compared_runs
from sam_uniref.eval.compare import main
from sam_uniref.eval.compared_cases import open_cases
from sam_uniref.eval.compared_methods import LoadedMethod, load_method
from sam_uniref.eval.compared_runs import train
from sam_uniref.eval.comparison import Outcome, as_json, read_comparison, results_table
from sam_uniref.eval.evaluate import main as evaluate
from sam_uniref.eval.measures import Metric
from sam_uniref.eval.predictor_method import PredictorMethod
from sam_uniref.eval.protocols import MergedSentences
from sam_uniref.eval.trained_runs import trained_model
from sam_uniref.images import RGB
from sam_uniref.segmentation import Segmentation
from sam_uniref.train.settings import load_settings

METHODS = [
    {"name": "SamRef", "method": "samref", "train": "samref.yaml"},
    {"name": "SamRef, with care", "method": "samref_careful", "runs": "SamRef", "tasks": ["ris", "fss"]},
    {"name": "RefSAM", "method": "refsam", "train": "refsam.yaml"},
    {"name": "PerSAM", "method": "persam"},
    {"name": "plain SAM", "method": "plain_sam"},
]
OURS = ["SamRef", "SamRef, with care"]


def write_comparison(folder: Path, **changes: object) -> Path:
    """Runs of two steps with one seed, two cases a task."""
    for kind in ("samref", "refsam"):
        config = yaml.safe_load((ROOT / "configs" / "compare" / f"{kind}_tiny.yaml").read_text())
        config |= {"steps": 2, "batch_size": 4, "precision": "no", "save_every": 2}
        config["optimiser"] |= {"milestones": []}
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(config))
    data = {task: {"episodes": 2} for task in ("ris", "fss", "vos", "rvos")}
    comparison = {"sam": "tiny", "ours": OURS, "seeds": [0], "methods": METHODS, "data": data, **changes}
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump(comparison))
    return path


@pytest.mark.slow
def test_a_comparison_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    out = tmp_path / "out"
    arguments = ["--config", str(write_comparison(tmp_path)), "--out", str(out)]
    assert main(arguments) == 0
    results = json.loads((out / "results.json").read_text())
    assert {name: sorted(told["tasks"]) for name, told in results.items()} == {
        "SamRef": ["fss", "ris", "rvos", "vos"],
        "SamRef, with care": ["fss", "ris"],
        "RefSAM": ["ris", "rvos"],
        "PerSAM": ["fss", "vos"],
        "plain SAM": ["vos"],
    }
    for name, told in results.items():
        for interval in told["tasks"].values():
            assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1
        trains = name in (*OURS, "RefSAM")
        assert len(told["training_seconds"]) == (1 if trains else 0)
        assert (told["trained_parameters"] > 0) == trains
        assert all(seconds > 0 for seconds in told["answer_seconds"].values())
        assert sorted(told["ours_ahead"]) == [ours for ours in OURS if ours != name]
        for ours, ahead in told["ours_ahead"].items():
            assert sorted(ahead) == sorted(set(told["tasks"]) & set(results[ours]["tasks"]))
    # One training for both ways to ask: no second run, and the same time is told.
    assert results["SamRef"]["training_seconds"] == results["SamRef, with care"]["training_seconds"]
    assert sorted(path.parts[-3] for path in out.glob("*/seed_0/model")) == ["refsam", "samref"]
    text = (out / "compare.md").read_text()
    assert "means over one seed" in text
    assert "| SamRef less |" in text
    assert "| SamRef, with care less |" in text
    assert "not measured here" in text
    with Image.open(out / "grid.png") as grid:
        assert grid.size[0] > 7 * 144
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.jsonl")}
    assert made
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jsonl")} == made
    again = json.loads((out / "results.json").read_text())
    assert again["RefSAM"]["tasks"] == results["RefSAM"]["tasks"]


def outcome(*seeds: list[float]) -> Outcome:
    """IoU of the same pictures in several runs."""
    parts = [np.stack([np.array(seed), np.ones(len(seed))], axis=1) for seed in seeds]
    return Outcome({"ris": [Metric(float(p[:, 0].mean()), p, "image") for p in parts]})


def test_seeds_are_averaged_on_the_same_units() -> None:
    ours = outcome([0.5, 0.9, 0.7, 0.8], [0.7, 0.9, 0.5, 0.6])
    np.testing.assert_allclose(ours.parts("ris")[:, 0], [0.6, 0.9, 0.6, 0.7])
    told = ours.interval("ris")
    assert told.value == pytest.approx(0.7)
    assert 0.6 <= told.low < told.value < told.high <= 0.9
    assert (told.unit, told.units) == ("image", 4)


def test_the_table_has_the_range_over_seeds_beside_the_interval_over_cases(tmp_path: Path) -> None:
    comparison = read_comparison(write_comparison(tmp_path, data={"ris": {}}))
    outcomes = {"SamRef": outcome([0.5, 0.9], [0.7, 0.9]), "PerSAM": outcome([0.3, 0.4])}
    ours, theirs = results_table(comparison, outcomes).splitlines()[2:]
    assert "] (0.700-0.800) |" in ours
    assert "(" not in theirs
    assert as_json(replace(comparison, ours=["SamRef"]), outcomes)["SamRef"]["tasks"]["ris"]["seeds"] == [0.7, 0.8]


class TimedMethod:
    """A second of its clock goes by with each answer."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> float:
        return self.seconds

    def encode_image(self, images: RGB) -> RGB:
        return images

    def segment(self, image: RGB, **asked: object) -> Segmentation:
        self.seconds += 1
        logits = np.zeros(image.shape[:2], np.float32)
        return Segmentation(logits > 0, 0.0, logits, logits[None])


def test_the_time_an_answer_does_not_depend_on_how_many_a_case_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a picture with 1-shot and 5-shot answers, it is the time of one of them."""
    method = TimedMethod()
    monkeypatch.setattr(compare.time, "perf_counter", method.clock)
    data = {"fss": {"episodes": 3}, "ris": {"episodes": 3}}
    loaded = LoadedMethod(method, {}, 0)  # type: ignore[arg-type]
    for cases in open_cases(read_comparison(write_comparison(tmp_path, data=data)).data).values():
        assert len(cases.protocol.answers(cases.protocol.source[0])) > 1
        assert compare.answer_seconds(loaded, cases) == 1


def test_a_constant_lead_has_no_spread() -> None:
    """Paired: what all pictures share does not blur the difference."""
    theirs = outcome([0.2, 0.9, 0.4, 0.6])
    ahead = outcome([0.3, 1.0, 0.5, 0.7]).ahead_of(theirs, "ris")
    assert (ahead.low, ahead.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert ahead.above_zero
    assert not theirs.ahead_of(theirs, "ris").above_zero


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ours": ["UniRef"]}, "ours must be a list, of"),
        ({"ours": "SamRef"}, "(at ours)"),
        ({"ours": []}, "ours must be a list, of"),
        ({"methods": [*METHODS, METHODS[3]]}, "methods need different names"),
        ({"methods": [{"name": "SamRef", "method": "samref"}]}, "train= or runs= is for"),
        ({"methods": [METHODS[0], {"name": "x", "method": "persam", "train": "a.yaml"}]}, "train= or runs= is for"),
        ({"methods": [{**METHODS[0], "runs": "RefSAM"}]}, "leave train= or runs= out"),
        ({"methods": [*METHODS, {"name": "x", "method": "samref", "runs": "none"}]}, "runs must name a method with"),
        ({"methods": [*METHODS, {"name": "x", "method": "samref", "runs": "RefSAM"}]}, "runs must name a method with"),
        ({"methods": [*METHODS, {"name": "x", "method": "uniref", "runs": "SamRef"}]}, "runs must name a method with"),
        ({"methods": [*METHODS, {"name": "x", "method": "samref", "runs": "x"}]}, "runs must name a method with"),
        ({"methods": [METHODS[0], {"name": "x", "method": "persam", "runs": "SamRef"}]}, "train= or runs= is for"),
        ({"methods": [METHODS[0], {"name": "x", "method": "sam3"}]}, "method must be one of"),
        ({"methods": [METHODS[0], {"name": "x", "method": "persam", "tasks": ["ris"]}]}, "persam can be asked"),
        ({"methods": [METHODS[0], {"name": "x", "methods": "persam"}]}, "Did you mean: 'method'? (at methods"),
        ({"data": {"vis": {}}}, "data must be"),
        ({"data": {}}, "data must be"),
        ({"seeds": []}, "seeds must name at least one"),
        ({"seeds": [1, 1]}, "seeds must be different and at least 0"),
        # Values of a wrong type.
        ({"seeds": 3}, "(at seeds)"),
        ({"seeds": ["a"]}, "(at seeds[0])"),
        ({"sam": None}, "(at sam)"),
        ({"methods": [3]}, "(at methods[0])"),
        ({"methods": "SamRef"}, "(at methods)"),
        ({"methods": [{"name": "SamRef"}]}, "missing mandatory value: method"),
        ({"data": ["ris"]}, "data, a mapping of tasks"),
        ({"data": {"ris": 3}}, "(at data.ris)"),
        ({"data": {"ris": {"episodes": "many"}}}, "(at data.ris.episodes)"),
        # Things that are not there, before anything is trained.
        ({"sam": "nothere"}, "sam: nothere holds no model"),
        ({"methods": [{**METHODS[0], "train": "none.yaml"}, METHODS[1]]}, "SamRef: there is no configuration"),
        (
            {"methods": [{**METHODS[0], "train": "refsam.yaml"}, METHODS[1]]},
            "trains a refsam, but samref asks",
        ),
        ({"data": {"ris": {"data": "nothere", "split": "val"}}}, "data.ris: "),
        # Options of a task, as evaluate.py checks them.
        ({"data": {"ris": {"episodes": 0}}}, "data.ris: --episodes must be at least 1, got 0"),
        ({"data": {"ris": {"options": ["--merge"]}}}, "data.ris: --merge is of rvos"),
        ({"data": {"vos": {"options": ["--frame-references", "none"]}}}, "data.vos: --frame-references none"),
        ({"data": {"vos": {"options": ["--device", "cpu"]}}}, "data.vos: options can be --shots"),
        ({"data": {"vos": {"options": ["--episodes=3"]}}}, "data.vos: options can be --shots"),
        ({"data": {"vos": {"split": "val"}}}, "data.vos: --split means nothing to --data refshapes"),
    ],
)
def test_bad_comparisons(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    config = write_comparison(tmp_path, **changes)
    assert main(["--config", str(config), "--out", str(tmp_path / "out")]) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_training_starts_from_is_looked_for_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = write_comparison(tmp_path)
    arguments = ["--config", str(config), "--out", str(tmp_path / "out")]
    file = tmp_path / "refsam.yaml"
    settings = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(settings | {"model": {"kind": "refsam", "start_from": "runs/before/model"}}))
    assert main(arguments) == 2
    told = capfd.readouterr().err
    assert "RefSAM: " in told
    assert "starts from the model runs/before/model, which no run of this comparison makes; train it before" in told
    data = {"ris": {"reader": "prepared", "root": "nothere", "task": "ris"}}
    file.write_text(yaml.safe_dump(settings | {"data": data}))
    assert main(arguments) == 2
    assert "there is no folder nothere of data.ris" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_a_task_are_those_of_its_method_and_its_answers(tmp_path: Path) -> None:
    vos = {"episodes": 1, "options": ["--score-threshold", 0.3]}
    rvos = {"episodes": 1, "options": ["--merge", "--score-threshold", -999]}
    cases = open_cases(read_comparison(write_comparison(tmp_path, data={"vos": vos, "rvos": rvos})).data)
    assert isinstance(cases["rvos"].protocol, MergedSentences)
    for name, told in (("samref", {"score_threshold": 0.3, "frame_references": "both"}), ("plain_sam", {})):
        loaded = load_method(name, "tiny", torch.device("cpu"))
        asked = loaded.following(cases["vos"].tracking)
        assert asked.settings("vos") == {**loaded.made_of, **told}
        assert asked.settings("ris") == loaded.made_of
        if isinstance(asked.method, PredictorMethod):
            assert asked.method.tracking.score_threshold == 0.3


def test_missing_comparison(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no comparison" in capfd.readouterr().err


def test_runs_of_another_configuration_are_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave_a_model(config: Path, folder: Path, seed: int, log: Path) -> None:
        leave_model(folder)

    monkeypatch.setattr(compared_runs, "train_run", leave_a_model)
    config, folder = tmp_path / "samref.yaml", tmp_path / "seed_0"
    config.write_text("steps: 2")
    seconds = train(config, 0, folder)
    assert seconds is not None
    assert train(config, 0, folder) == seconds
    config.write_text("steps: 3")
    with pytest.raises(ValueError, match="was made with other settings"):
        train(config, 0, folder)
    # A part that nobody timed is not told as no time at all.
    config.write_text("steps: 2")
    (folder / "training.json").unlink()
    (folder / "settings.yaml").touch()
    assert train(config, 0, folder) is None


def leave_model(folder: Path) -> None:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")


def test_a_run_of_stages_is_trained_when_its_last_stage_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped between its stages has the first one's model, and goes on."""
    config, folder = tmp_path / "stages.yaml", tmp_path / "seed_0"
    config.write_text("{stage: image, then: {stage: video, then: {stage: joint}}}")
    last = folder / "video" / "joint"
    assert trained_model(config, folder) == last / "model"
    leave_model(folder)
    runs: list[Path] = []

    def finish(config: Path, folder: Path, seed: int, log: Path) -> None:
        runs.append(folder)
        leave_model(last)

    monkeypatch.setattr(compared_runs, "train_run", finish)
    for _ in range(2):
        train(config, 0, folder)
    assert runs == [folder]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("compare_*.yaml")), ids=lambda path: path.stem)
def test_packaged_comparisons_name_configurations_that_are_there(path: Path) -> None:
    comparison = read_comparison(path)
    assert all((path.parent / method.train).is_file() for method in comparison.methods if method.train is not None)


def test_the_tiny_comparison_gives_all_that_it_trains_as_many_steps() -> None:
    comparison = read_comparison(ROOT / "configs" / "compare_tiny.yaml")
    trained = [load_settings(ROOT / "configs" / m.train) for m in comparison.methods if m.train is not None]
    assert len(trained) == 2
    assert len({(run.steps, run.batch_size) for run in trained}) == 1


def test_a_baseline_is_evaluated_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "tiny", "--episodes", "2", "--device", "cpu", "--method", "plain_sam"]
    assert evaluate([*given, "--task", "all", "--out", str(tmp_path / "a")]) == 0
    assert list(json.loads((tmp_path / "a" / "results.json").read_text())) == ["vos"]
    capfd.readouterr()
    assert evaluate([*given, "--task", "ris", "--out", str(tmp_path / "b")]) == 2
    assert "plain_sam can be asked ('vos',), got --task ris" in capfd.readouterr().err
    assert evaluate([*given, "--task", "vos", "--score-threshold", "0.2", "--out", str(tmp_path / "b")]) == 2
    assert "are of samref and samref_careful and uniref, not of plain_sam" in capfd.readouterr().err
    # Another method's answers are not taken for this one's.
    other = ["--model", "tiny", "--episodes", "2", "--device", "cpu", "--method", "points", "--task", "vos"]
    assert evaluate([*other, "--out", str(tmp_path / "a")]) == 2
    assert "was made with method 'plain_sam' and not 'points'" in capfd.readouterr().err
