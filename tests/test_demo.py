"""The comparison at the end of `make demo`: its numbers, its table, its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import ROOT

from sam_uniref import SamRef
from sam_uniref.data.batch import TASKS
from sam_uniref.eval.demo import HEADLINES, comparison, headline, main, untrained
from sam_uniref.eval.predictor_method import PredictorMethod
from sam_uniref.eval.refshapes_protocol import PROTOCOLS
from sam_uniref.train.build import build_model
from sam_uniref.train.settings import load_settings


def test_both_models_are_measured_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "tiny", "--out", str(tmp_path / "demo"), "--episodes", "1"]) == 0
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert list(results) == ["before", "after"]
    shown = capsys.readouterr().out
    for label, model in (("before", untrained()), ("after", SamRef.from_pretrained("tiny"))):
        for task in TASKS:
            protocol = PROTOCOLS[task](1)
            expected = protocol.summarise(protocol.score(PredictorMethod(model), 0))
            assert results[label][task] == pytest.approx(expected, abs=1e-5), (label, task)
        assert f"{headline(results[label]):.3f}" in shown
    assert headline(results["after"]) > headline(results["before"])
    page = tmp_path / "demo" / "gallery" / "index.html"
    assert str(page) in shown.replace("\n", "")
    text = page.read_text()
    assert "before" in text
    assert "after" in text
    assert list(page.parent.rglob("*.mp4"))


def test_the_mean_is_over_the_marked_metrics() -> None:
    values = {"before": 0.0, "after": 1.0}
    results = {
        label: {task: {HEADLINES[task]: value, "other": 0.5} for task in TASKS} for label, value in values.items()
    }
    assert [headline(given) for given in results.values()] == [0, 1]  # type: ignore[arg-type]
    table = comparison(results)  # type: ignore[arg-type]
    marked = [metric for metric in list(table.columns[1].cells)[:-1] if str(metric).endswith("*")]
    assert marked == [f"{HEADLINES[task]}*" for task in TASKS]
    assert [list(column.cells)[-1] for column in table.columns] == ["mean", "of those with *", "0.000", "1.000"]


def test_before_is_what_the_quickstart_starts_from() -> None:
    state = torch.random.get_rng_state()
    model = untrained()
    assert torch.equal(torch.random.get_rng_state(), state), "an evaluation leaves the caller's random numbers alone"
    started = build_model(load_settings(ROOT / "configs" / "quickstart.yaml")).state_dict()
    assert started.keys() == model.state_dict().keys()
    assert [name for name, tensor in model.state_dict().items() if not tensor.equal(started[name])] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--episodes": "0"}, "--episodes must be at least 1"),
        ({"--model": "nowhere"}, "nowhere"),
        ({"--out": None}, "the following arguments are required: --out"),
    ],
)
def test_bad_input(
    change: dict[str, str | None], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--model": "tiny", "--out": str(tmp_path / "out"), "--episodes": "1"} | change
    arguments = [word for name, value in given.items() if value is not None for word in (name, value)]
    try:
        code = main(arguments)
    except SystemExit as exit_:  # how argparse leaves
        code = exit_.code  # type: ignore[assignment]
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
