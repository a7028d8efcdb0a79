"""Training runs that a table is made of: each in a folder of its own, which remembers what it was made of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sam_uniref.state import write_json
from sam_uniref.train.settings import load_settings


def folder_name(name: str) -> str:
    """A row's name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def claim_folder(file: Path, made_of: Mapping[str, Any]) -> None:
    """Record what a folder's runs are made of.

    Args:
        file: In the folder.
        made_of: In JSON's types.

    Raises:
        ValueError: If what is there was made of something else, which would then stand in one table with this.
    """
    told = json.loads(json.dumps(made_of))
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != told:
        raise ValueError(f"{file.parent} was made with other settings; remove it, or give another --out")
    write_json(file, told)


def trained_model(config: Path, folder: Path, overrides: Sequence[str] = ()) -> Path:
    """Where a run in a folder leaves its model: a run of several stages, that of the last.

    Args:
        config: The run's configuration.
        folder: Its output.
        overrides: ``key=value`` over the configuration's.

    Raises:
        FileNotFoundError: If there is no such configuration.
        ValueError: If it is broken.
    """
    return Path(load_settings(config, [f"output={folder}", *overrides]).stages()[-1].output) / "model"


def is_trained(model: Path) -> bool:
    """Whether a run has left its model there."""
    return (model / "config.json").is_file()


def train_run(config: Path, folder: Path, seed: int, overrides: Sequence[str] = (), log: Path | None = None) -> None:
    """Train all stages into a folder, or go on there, in a process of its own.

    Args:
        config: The run's configuration.
        folder: Its output.
        seed: Its seed.
        overrides: ``key=value`` over the configuration's.
        log: Where what it says is added, in place of this process's own output.

    Raises:
        RuntimeError: If the command fails, is stopped, or leaves no model. The same again goes on.
    """
    launch = ["accelerate.commands.launch", "--num_processes", "1", "-m", "sam_uniref.train.finetune"]
    run_module([*launch, "--config", str(config), "--resume", f"output={folder}", f"seed={seed}", *overrides], log)
    if not is_trained(trained_model(config, folder, overrides)):
        raise RuntimeError(f"training has left no model in {folder}; run again to go on")


def run_module(module: Sequence[str], log: Path | None = None) -> None:
    """A module with its arguments, in a process of its own, to its end.

    Args:
        module: Its name and its arguments.
        log: Where what it says is added, in place of this process's own output.

    Raises:
        RuntimeError: If it fails; its output is above, or in the log.
    """
    with log.open("ab") if log is not None else nullcontext() as said:
        command = [sys.executable, "-m", *module]
        status = subprocess.run(command, check=False, stdout=said, stderr=said).returncode  # noqa: S603 - our own commands
    if status:
        raise RuntimeError(f"failed{f', see {log}' if log is not None else ''}: python -m {' '.join(module)}")
