"""An evaluation that was stopped goes on: nothing is asked twice, and the numbers are those of an unbroken run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import ENVIRONMENT, ROOT
from tiny import tiny_model

from sam_uniref.eval import running
from sam_uniref.eval.evaluate import main

EPISODES = 12
PROCESS = "process_00.jsonl"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("saved") / "model"
    tiny_model(noise=0.1).save_pretrained(place)
    return place


def options(model: Path, out: Path, *more: str) -> list[str]:
    return ["--model", str(model), "--task", "ris", "--episodes", str(EPISODES), "--out", str(out), *more]


@pytest.fixture(scope="module")
def unbroken(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    assert main(options(model, out)) == 0
    return out


def cases(file: Path) -> list[str]:
    return [json.loads(line)["case"] for line in file.read_bytes().split(b"\n")[:-1]]


def launch(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


@pytest.mark.slow
def test_killed_it_goes_on_with_another_number_of_processes(model: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = str(ROOT / "eval" / "evaluate.py")
    file = out / "predictions" / "ris" / PROCESS
    process = subprocess.Popen(
        launch(script, *options(model, out)), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end and not (file.is_file() and len(cases(file)) >= 2):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "results.json").exists()
    with file.open("ab") as broken:
        broken.write(b'{"case": "00003", "si')
    before = cases(file)
    assert 2 <= len(before) < EPISODES
    accelerate = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--multi_gpu", "--main_process_port", "0"]
    done = subprocess.run(
        launch(*accelerate, script, *options(model, out)),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    both = [cases(path) for path in sorted(file.parent.glob("*.jsonl"))]
    assert len(both) == 2
    assert both[0][: len(before)] == before
    assert sorted(both[0] + both[1]) == [f"{index:05d}" for index in range(EPISODES)], "each was asked once"
    for name in ("results.json", "ris.csv"):
        assert (out / name).read_text() == (unbroken / name).read_text()


def test_what_is_done_is_not_asked_again(
    model: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = (unbroken / "results.json").read_text()

    def never(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(running.PredictionStore, "append", never)
    assert main(options(model, unbroken)) == 0
    assert (unbroken / "results.json").read_text() == results
    assert main(options(model, unbroken, "--episodes", "5")) == 0
    assert json.loads((unbroken / "results.json").read_text())["ris"]["mIoU"]["n"] == 5
    assert main(options(model, unbroken)) == 0, "the others are still there"
    assert (unbroken / "results.json").read_text() == results


def test_another_model_or_option_is_not_mixed_in(
    unbroken: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model(noise=0.2).save_pretrained(tmp_path / "other")
    for given in (
        options(tmp_path / "other", unbroken),
        options(model, unbroken, "--image-size", "64"),
        options(model, unbroken, "--style", "plain"),
    ):
        assert main(given) == 2
        error = capsys.readouterr().err
        assert "was made with" in error
        assert "remove it, or give another --out" in error
    assert "style 'textured' and not 'plain'" in error
    assert main(options(model, unbroken, "--metrics-only", "--style", "plain")) == 2
    assert "style 'textured' and not 'plain'" in capsys.readouterr().err


def test_a_damaged_prediction_is_named_with_its_store(
    unbroken: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(unbroken, out)
    (file,) = (out / "predictions" / "ris").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[3]["masks"] = {answer: ["11"] for answer in lines[3]["masks"]}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    assert main(["--metrics-only", "--task", "ris", "--out", str(out), "--episodes", str(EPISODES)]) == 2
    assert f"ris case {lines[3]['case']} in {out / 'predictions' / 'ris'}: " in capsys.readouterr().err


def test_metrics_alone_need_all_predictions(unbroken: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = str(EPISODES + 3)
    assert main(["--metrics-only", "--task", "ris", "--out", str(unbroken), "--episodes", more]) == 2
    assert f"lacks 3 of {more} predictions, the first is of 00012" in capsys.readouterr().err
