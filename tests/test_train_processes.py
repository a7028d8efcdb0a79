"""Many processes as one: equal curves for every task, a killed rank, another number of processes, nothing lost."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from folders import make_folder
from runs import ROOT, finetune, kill_a_process, write_config
from tiny import tiny_model

from sam_uniref.data import Sample, TrainingBatches, open_source
from sam_uniref.data.readers import SourceOptions
from sam_uniref.train.resuming import recorded_batch, same_samples
from sam_uniref.train.settings import DataSettings, RunSettings
from sam_uniref.train.validation import validate

TASKS = ("ris", "fss", "vos", "rvos")
STEPS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


def all_tasks(path: Path, folder: Path, output: Path, **changes: object) -> Path:
    """A short run in which all four tasks are drawn, and whose samples are of unlike sizes and partly absent."""
    data = {task: {"root": str(folder), "task": task} for task in TASKS}
    data["fss"]["absent"] = 0.5  # type: ignore[assignment]
    data["rvos"]["language_only"] = 0.5  # type: ignore[assignment]
    settings = {"steps": STEPS, "save_every": 3, "validate_at_end": False, "optimiser": {"lr": 2e-4, "clip": 0.1}}
    return write_config(path, folder, output, data=data, **{**settings, **changes})


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process with batches of 2."""
    place = tmp_path_factory.mktemp("alone")
    done = finetune(all_tasks(place / "run.yaml", folder, place / "out", batch_size=2))
    assert done.returncode == 0, done.stderr
    return place / "out"


def curve(output: Path) -> list[dict[str, Any]]:
    """Every step's task and losses."""
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def assert_same_curves(got: Path, expected: Path) -> None:
    mine, theirs = curve(got), curve(expected)
    assert [(e["step"], e["task"]) for e in mine] == [(e["step"], e["task"]) for e in theirs]
    assert {entry["task"] for entry in theirs} == set(TASKS)
    for one, other in zip(mine, theirs, strict=True):
        for name in ("loss", "bce", "dice", "iou"):
            assert one[name] == pytest.approx(other[name], rel=1e-5), (one["step"], one["task"], name)


def test_two_processes_of_one_sample_go_the_way_of_one_of_two(folder: Path, alone: Path, tmp_path: Path) -> None:
    done = finetune(all_tasks(tmp_path / "run.yaml", folder, tmp_path / "out", batch_size=1), processes=2)
    assert done.returncode == 0, done.stderr
    assert_same_curves(tmp_path / "out", alone)


def test_a_killed_rank_ends_the_run_which_goes_on_with_one_process_or_two(
    folder: Path, alone: Path, tmp_path: Path
) -> None:
    config = all_tasks(tmp_path / "run.yaml", folder, tmp_path / "out", batch_size=1)
    killed = kill_a_process(config, 5)
    assert killed.returncode != 0
    saved = sorted(path.name for path in (tmp_path / "out" / "checkpoints").glob("step_*"))
    assert saved
    shutil.copytree(tmp_path / "out", tmp_path / "pair")
    resumed = finetune(config, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed after step {int(saved[-1][-7:])}" in resumed.stderr
    assert "1 processes share a step's 2 samples in batches of 1, accumulate=2" in resumed.stderr
    assert_same_curves(tmp_path / "out", alone)
    resumed = finetune(config, "--resume", f"output={tmp_path / 'pair'}", processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert "share a step's" not in resumed.stderr
    assert_same_curves(tmp_path / "pair", alone)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "processes", "then", "expected"),
    [(2, 1, 8, 4, (2, 2)), (2, 1, 8, 16, (1, 1)), (2, 4, 1, 2, (2, 2)), (2, 1, 6, 4, (1, 3)), (2, 1, 2, 2, (2, 1))],
)
def test_a_step_keeps_its_samples(
    batch_size: int, accumulate: int, processes: int, then: int, expected: tuple[int, int]
) -> None:
    given = RunSettings(batch_size=batch_size, accumulate=accumulate)
    recorded = recorded_batch(given, given, processes)
    kept = same_samples(given, recorded, then)
    assert (kept.batch_size, kept.accumulate) == expected
    assert kept.batch_size * kept.accumulate * then == recorded["samples"]
    # And again, from what the run that was shared out anew has recorded.
    assert same_samples(given, recorded_batch(kept, given, then), processes) == given


def test_what_is_asked_for_anew_or_can_not_be_shared() -> None:
    given = RunSettings(batch_size=2)
    recorded = recorded_batch(given, given, 2)
    changed = replace(given, batch_size=4)
    assert same_samples(changed, recorded, 1) is changed
    assert same_samples(given, None, 7) is given
    with pytest.raises(ValueError, match=r"4 samples, which 3 processes can't share in batches of at most 2"):
        same_samples(given, recorded, 3)
    pairs = replace(given, data={"fss": DataSettings(reader="refshapes", together=2)})
    with pytest.raises(ValueError, match="set batch_size and accumulate anew"):
        same_samples(pairs, recorded, 4)


def source(folder: Path, task: str, **options: Any) -> Any:
    return open_source("folder", task, task, SourceOptions(root=str(folder), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("processes", [2, 3])
def test_ranks_draw_one_data_set_at_a_step_and_together_what_one_process_draws(
    folder: Path, processes: int, oriented: bool
) -> None:
    transform, data = tiny_model(False).transform, [source(folder, task) for task in TASKS]
    accumulate, steps = 2, 12
    alone = TrainingBatches(data, transform, steps, processes * accumulate, seed=5, one_orientation=oriented)
    ranks = [
        TrainingBatches(data, transform, steps, 1, accumulate, 5, rank, processes, oriented)
        for rank in range(processes)
    ]
    for step in range(steps):
        whole = alone[step]
        # Any rank, any micro-step, in any order: as a run that resumes in the middle of an epoch asks for them.
        parts = [ranks[rank][step * accumulate + micro] for micro in range(accumulate) for rank in range(processes)]
        assert {part.task for part in parts} == {whole.task}
        assert tuple(name for part in parts for name in part.names) == whole.names
        assert torch.equal(torch.cat([part.masks for part in parts]), whole.masks)


@dataclass
class Rank:
    """As much of an accelerator as validation uses, in a run whose sums are added up afterwards."""

    process_index: int
    num_processes: int
    sums: list[torch.Tensor]

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        self.sums.append(tensor)
        return tensor


class Counted:
    """A data set that notes which of its episodes were asked for."""

    name, task, validation_split, can_swap, weight = "counted", "fss", "training", False, 1.0

    def __init__(self, inner: Any, episodes: int) -> None:
        self.inner, self.episodes = inner, episodes
        self.asked: Counter[int] = Counter()

    def episode(self, index: int, *, swapped: bool) -> Sample:
        self.asked[index] += 1
        sample: Sample = self.inner.episode(index % self.inner.episodes, swapped=swapped)
        return sample


@pytest.mark.parametrize(("episodes", "processes", "batch_size"), [(7, 3, 2), (5, 2, 4), (2, 3, 2)])
def test_validation_asks_for_each_episode_once(folder: Path, episodes: int, processes: int, batch_size: int) -> None:
    """Also where episodes do not divide by processes, or there are fewer; sums are what one process gets."""
    model = tiny_model(False, noise=0.05)
    counted = Counted(source(folder, "fss"), episodes)
    ranks = [Rank(index, processes, []) for index in range(processes)]
    for rank in ranks:
        validate(model, [counted], rank, batch_size)  # type: ignore[list-item, arg-type]
    assert counted.asked == dict.fromkeys(range(episodes), 1)
    alone = Rank(0, 1, [])
    result = validate(model, [counted], alone, batch_size)  # type: ignore[list-item, arg-type]
    total = torch.stack([rank.sums[0] for rank in ranks]).sum(0)
    torch.testing.assert_close(total, alone.sums[0])
    assert result["counted/training_iou"] == pytest.approx(float(total[0] / episodes), rel=1e-5)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda p: p.stem)
def test_configurations_of_accelerate_have_keys_that_it_knows(path: Path) -> None:
    config = load_config_from_file(str(path))  # refuses unknown keys
    options = vars(launch_command_parser().parse_args(["script.py"]))
    assert set(config.fsdp_config or {}) <= set(options)
    written = yaml.safe_load(path.read_text())
    processes = re.match(r"(?:fsdp2_)?(\d)(gpu|nodes)", path.stem)
    assert processes is not None
    number = int(processes[1])
    assert written["num_processes"] == (8 * number if processes[2] == "nodes" else number)
    assert ("fsdp_config" in written) == path.stem.startswith("fsdp2")
    assert np.isin(written["distributed_type"], ["NO", "MULTI_GPU", "FSDP"])
