"""Runs in this process, where faults can be put in their way, and runs of several processes without a launcher."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from pathlib import Path

from runs import ENVIRONMENT, ROOT

from sam_uniref.train import finetune
from sam_uniref.train.exit_codes import run_command


def run_here(config: Path, *overrides: str, resume: bool = False) -> int:
    """``train/finetune.py`` as one process, this one; the exit code."""
    given = argparse.Namespace(config=str(config), resume=resume, plan=False, overrides=list(overrides))
    return run_command(lambda: finetune.run(given))


def start_processes(script: list[str], count: int = 2) -> list[subprocess.Popen[str]]:
    """A Python script's processes, as on nodes of their own: nobody ends the others when one is gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, *script],
            cwd=ROOT,
            env={**ENVIRONMENT, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
