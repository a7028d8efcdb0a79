"""The ablation table: what is run, what is not run again, and what the table says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from runs import ROOT

from sam_uniref.data.batch import TASKS
from sam_uniref.eval import ablations, trained_runs
from sam_uniref.eval.ablations import main, markdown, read_table
from sam_uniref.eval.evaluate import check_arguments, parse_arguments
from sam_uniref.train.build import model_config
from sam_uniref.train.settings import load_settings

FOLDER = ROOT / "configs" / "ablations"


def test_every_row_of_the_table_is_a_run_that_loads() -> None:
    table = read_table(FOLDER / "rows.yaml")
    assert len(table.seeds) >= 3
    seen = set()
    for row in table.rows:
        settings = load_settings(FOLDER / table.base, row.train)
        model_config(settings.model)
        assert any(entry.weight for entry in settings.data.values())
        check_arguments(parse_arguments(["--model", "m", "--out", "o", "--task", *row.tasks, *row.evaluate]))
        seen.add((tuple(row.train), tuple(row.evaluate)))
    assert len(seen) == len(table.rows)


def small_table(folder: Path) -> Path:
    rows = [
        {"name": "Plain", "tasks": ["ris", "rvos"]},
        {"name": "One head", "train": ["model.options.fusion.heads=1"], "tasks": ["ris"]},
        {"name": "Language only", "model": "Plain", "evaluate": ["--frame-references", "none"], "tasks": ["rvos"]},
    ]
    (folder / "rows.yaml").write_text(
        yaml.safe_dump({"base": "b.yaml", "seeds": [3, 4], "episodes": dict.fromkeys(TASKS, 2), "rows": rows})
    )
    (folder / "b.yaml").write_text("steps: 1")
    return folder / "rows.yaml"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was run; each command leaves what the real one leaves."""
    given: list[list[str]] = []

    def run(module: Sequence[str], log: Path | None = None) -> None:
        given.append(list(module))
        if module[0] == "sam_uniref.eval.evaluate":
            out, tasks = Path(module[module.index("--out") + 1]), {"ris", "fss", "vos", "rvos"} & {*module}
            value = 0.5 + 0.1 * ("seed_4" in str(out)) + 0.2 * ("language" in str(out))
            out.mkdir(parents=True, exist_ok=True)
            (out / "results.json").write_text(json.dumps({task: {"mIoU": value, "J&F": value} for task in tasks}))
        else:
            model = Path(next(a for a in module if a.startswith("output="))[7:]) / "model"
            model.mkdir(parents=True)
            (model / "config.json").write_text("{}")

    for module in (ablations, trained_runs):
        monkeypatch.setattr(module, "run_module", run)
    return given


def test_each_row_trains_once_a_seed_and_nothing_twice(tmp_path: Path, commands: list[list[str]]) -> None:
    table, out = small_table(tmp_path), tmp_path / "out"
    assert main([str(table), "--out", str(out)]) == 0
    trained = [c for c in commands if "--config" in c]
    assert [(c[-3:] if "heads" in c[-1] else c[-2:])[0] for c in trained] == [
        f"output={out}/{row}/seed_{seed}" for seed in (3, 4) for row in ("plain", "one_head")
    ]
    assert [c[-1] for c in trained] == ["seed=3", "model.options.fusion.heads=1", "seed=4", trained[1][-1]]
    asked = [c for c in commands if "--task" in c]
    assert len(asked) == 6
    assert {c[c.index("--model") + 1] for c in asked if "none" in c} == {
        f"{out}/plain/seed_{seed}/model" for seed in (3, 4)
    }
    before = (out / "table.md").read_text()
    commands.clear()
    assert main([str(table), "--out", str(out)]) == 0
    assert commands == []
    assert (out / "table.md").read_text() == before
    assert "| Plain | 0.550 ± 0.071 |  |  | 0.550 ± 0.071 | 2 |" in before
    assert "| Language only |  |  |  | 0.750 ± 0.071 |" in before


def test_some_rows_only(tmp_path: Path, commands: list[list[str]]) -> None:
    assert main([str(small_table(tmp_path)), "--out", str(tmp_path / "out"), "--only", "Language only"]) == 0
    assert len(commands) == 4
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 3


def test_results_of_other_settings_are_not_mixed_in(
    tmp_path: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = small_table(tmp_path), tmp_path / "out"
    assert main([str(table), "--out", str(out)]) == 0
    before = (out / "table.md").read_text()
    commands.clear()
    for file, text in ((table, table.read_text().replace("ris: 2", "ris: 3")), (tmp_path / "b.yaml", "{}")):
        old = file.read_text()
        file.write_text(text)
        assert main([str(table), "--out", str(out)]) == 2
        assert "plain was made with other settings" in capsys.readouterr().err
        file.write_text(old)
    assert (commands, (out / "table.md").read_text()) == ([], before)


def test_a_table_that_is_no_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, message in (("rows: [", "is no YAML"), ("[1]", "a list of mappings as rows"), ("", "as rows")):
        (tmp_path / "rows.yaml").write_text(text)
        assert main([str(tmp_path / "rows.yaml"), "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err


def test_one_run_has_no_spread() -> None:
    assert "| a | 0.250 |  |  |  | 1 |" in markdown({"a": {"ris": [0.25]}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [{"name": "a", "model": "b"}]}, "model must be a row that trains"),
        ({"rows": [{"name": "a", "tasks": ["detection"]}]}, "tasks must be of"),
        ({"rows": [{"name": "a b"}, {"name": "A, B"}]}, "different names"),
        ({"rows": [{"name": "a", "trian": []}]}, "did you mean 'train'"),
        ({"row": []}, "did you mean 'rows'"),
        ({"rows": [{"name": "a", "train": "seed=1"}]}, "train must be a list"),
        ({"episodes": {"ris": 3}}, "episodes must be {task: at least 1}"),
        ({"rows": ["a"]}, "a list of mappings as rows"),
    ],
)
def test_bad_tables(tmp_path: Path, change: dict, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump({"base": "b.yaml", **change}))
    assert main([str(tmp_path / "rows.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert main([str(tmp_path / "none.yaml"), "--out", str(tmp_path / "out")]) == 2


def test_unknown_row_and_failed_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small_table(tmp_path)
    assert main([str(table), "--out", str(tmp_path / "out"), "--only", "Two heads"]) == 2
    assert "no such rows: ['Two heads']" in capsys.readouterr().err
    monkeypatch.setattr(trained_runs.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    assert main([str(table), "--out", str(tmp_path / "out")]) == 2
    assert "failed: python -m accelerate.commands.launch" in capsys.readouterr().err


def test_a_row_from_training_to_the_table(tmp_path: Path) -> None:
    """The real commands, two steps and one episode."""
    settings = yaml.safe_load((FOLDER / "base.yaml").read_text()) | {"steps": 2, "batch_size": 4}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(settings))
    row = {"name": "short", "train": ["data.vos.weight=0"], "tasks": ["ris"]}
    (tmp_path / "rows.yaml").write_text(
        yaml.safe_dump({"base": "base.yaml", "seeds": [1], "episodes": dict.fromkeys(TASKS, 1), "rows": [row]})
    )
    assert main([str(tmp_path / "rows.yaml"), "--out", str(tmp_path / "out")]) == 0
    values = json.loads((tmp_path / "out" / "results.json").read_text())
    assert 0 <= values["short"]["ris"][0] <= 1
